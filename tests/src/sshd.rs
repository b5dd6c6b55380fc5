//! An OpenSSH server on the loopback, with keys and configuration of its own.
//!
//! Comes in: a scratch folder. Goes out: the shell lines that start and end it, and options with which
//! clients reach it. It is started inside the observed script, so that nothing of its configuration
//! knows of the library.

use crate::peers;
use crate::scratch::Scratch;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Where it listens.
pub struct Sshd {
    port: u16,
}

/// Where sftp-server is on Debian, Fedora and Arch.
const SFTP_SERVERS: &[&str] =
    &["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server"];

/// The name of who runs the tests.
fn user() -> String {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = users.lines().find(|l| l.split(':').nth(2) == Some(&uid));
    line.and_then(|l| l.split(':').next()).unwrap_or("root").to_owned()
}

/// What is missing for it to run here.
pub fn missing() -> Option<&'static str> {
    if let Some(program) = peers::missing(&["sshd", "ssh", "scp", "sftp", "ssh-keygen"]) {
        return Some(program);
    }
    if !SFTP_SERVERS.iter().any(|p| PathBuf::from(p).is_file()) {
        return Some("sftp-server");
    }
    // sshd's privilege separation wants its folder, which only root can make.
    let folder = std::path::Path::new("/run/sshd");
    let there = folder.is_dir() || peers::root() && std::fs::create_dir_all(folder).is_ok();
    (peers::root() && !there).then_some("/run/sshd")
}

/// Ends the test early where no sshd can be run.
#[macro_export]
macro_rules! need_sshd {
    () => {
        if let Some(what) = $crate::sshd::missing() {
            $crate::skip!("{what} is not installed (tests/install-peers.sh)");
        }
    };
}

impl Sshd {
    /// Writes keys and configuration into the scratch folder.
    pub fn new(scratch: &Scratch) -> Self {
        let port = peers::free_port();
        for key in ["host_key", "user_key"] {
            let file = scratch.at(key);
            peers::prepare(
                scratch,
                &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &file.to_string_lossy()],
            );
        }
        let here = scratch.path().display();
        let sftp = SFTP_SERVERS.iter().find(|p| PathBuf::from(p).is_file()).expect("sftp-server");
        scratch.write("authorized", std::fs::read(scratch.at("user_key.pub")).expect("public key"));
        scratch.write(
            "sshd_config",
            format!(
                "ListenAddress 127.0.0.1\nPort {port}\nHostKey {here}/host_key\nAuthorizedKeysFile {here}/authorized\n\
                 StrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\nMaxStartups 100\n\
                 Subsystem sftp {sftp}\n"
            ),
        );
        scratch.write(
            "ssh_config",
            format!(
                "Host *\n  HostName 127.0.0.1\n  User {}\n  Port {port}\n  IdentityFile {here}/user_key\n  \
                 IdentitiesOnly yes\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n",
                user()
            ),
        );
        Self { port }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts sftp-server by a script of its own, in which `real` stands for the program.
    pub fn behind(self, scratch: &Scratch, text: &str) -> Self {
        let sftp = SFTP_SERVERS.iter().find(|p| PathBuf::from(p).is_file()).expect("sftp-server");
        let fixtures = crate::fixtures::folder();
        let text = text.replace("$FIXTURES", &fixtures.to_string_lossy()).replace("real", sftp);
        let script = scratch.write("subsystem", format!("#!/bin/sh\n{text}\n"));
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let config = std::fs::read_to_string(scratch.at("sshd_config")).expect("sshd_config");
        let config = config
            .replace(&format!("Subsystem sftp {sftp}"), &format!("Subsystem sftp {}", script.display()));
        scratch.write("sshd_config", config);
        self
    }

    /// A script that runs `commands` while the server is there. In it, `$here` is the scratch folder, `far` a
    /// host, and `ssh scp sftp` know how to get there.
    pub fn around(&self, commands: &str) -> String {
        let sshd = peers::find("sshd").expect("sshd");
        format!(
            "here=$PWD; export RSYNC_RSH=\"ssh -F $here/ssh_config\"\n\
             ssh() {{ command ssh -F $here/ssh_config \"$@\"; }}\n\
             scp() {{ command scp -q -F $here/ssh_config \"$@\"; }}\n\
             sftp() {{ command sftp -q -F $here/ssh_config \"$@\"; }}\n\
             {} -D -f $here/sshd_config & server=$!\nlistening {}\n{commands}\nkill $server; wait $server || true",
            sshd.display(),
            self.port
        )
    }
}
