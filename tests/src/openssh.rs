//! OpenSSH's server on a port of its own, and a client that trusts it: keys, configurations, and the
//! script that starts one, uses it and stops it.

use crate::observed::Observed;
use crate::peers;
use crate::scratch::Scratch;
use std::path::PathBuf;

/// What a server needs.
pub struct Sshd {
    /// Where it listens.
    pub port: u16,
    /// Keys and configurations: `sshd_config`, `ssh_config`.
    pub scratch: Scratch,
    /// How the server is told to log to its standard error.
    log: &'static str,
}

impl Default for Sshd {
    fn default() -> Self {
        Self::new("", "")
    }
}

impl Sshd {
    /// `server` and `client` are further lines of their configurations, which come first.
    pub fn new(server: &str, client: &str) -> Self {
        let (port, scratch) = (peers::free_port(), Scratch::new());
        let here = scratch.path().display().to_string();
        // Where sshd's sandboxed child is locked in (--with-privsep-path); Debian's boot makes it.
        let _ = std::fs::create_dir_all("/run/sshd");
        for name in ["host_key", "user_key"] {
            let path = format!("{here}/{name}");
            peers::prepare(&scratch, &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &path]);
        }
        scratch.write(
            "sshd_config",
            format!(
                "{server}\nPort {port}\nListenAddress 127.0.0.1\nHostKey {here}/host_key\n\
                 AuthorizedKeysFile {here}/user_key.pub\nStrictModes no\nPidFile none\nUsePAM no\n\
                 PermitRootLogin yes\nSubsystem sftp {}\nMaxStartups 100\nMaxSessions 100\n",
                sftp_server()
            ),
        );
        scratch.write(
            "ssh_config",
            format!(
                "{client}\nHost h\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {here}/user_key\n  \
                 IdentitiesOnly yes\n  UserKnownHostsFile /dev/null\n  StrictHostKeyChecking no\n  \
                 LogLevel ERROR\n  BatchMode yes\n  ConnectTimeout 20\n"
            ),
        );
        Self { port, scratch, log: "-e" }
    }

    /// One that logs to syslog, as a service does, with a client that says only what ends it.
    pub fn quiet() -> Self {
        let mut quiet = Self::new("", "LogLevel FATAL");
        quiet.log = "";
        quiet
    }

    /// Runs `script` (see [`Observed::script`]) beside the server, which is observed as well. `$F` is
    /// the client's configuration, in which the server is called `h`.
    pub fn with(&self, script: &str) -> Observed {
        let (here, port, log) = (self.scratch.path().display(), self.port, self.log);
        let sshd = peers::find("sshd").unwrap_or_else(|| PathBuf::from("/usr/sbin/sshd"));
        Observed::script(&format!(
            "F={here}/ssh_config\n{} -D {log} -f {here}/sshd_config 2>sshd.log & server=$!\n\
             trap 'kill $server 2>/dev/null' EXIT\nlistening {port}\n{script}\n\
             await sh -c '[ -z \"$(cat /proc/$0/task/*/children)\" ]' $server\n",
            sshd.display()
        ))
        .limit(120)
    }
}

/// Where Debian, Fedora and Arch have it.
fn sftp_server() -> &'static str {
    const PLACES: [&str; 3] =
        ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server"];
    PLACES.into_iter().find(|p| std::path::Path::new(p).is_file()).unwrap_or("internal-sftp")
}
