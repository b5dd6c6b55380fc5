//! An sshd of one test's own on loopback, observed by a daemon.

use crate::daemon::Daemon;
use crate::observed::Running;
use crate::{peers, wait};
use std::time::Duration;

/// Starts it; its folder has the client's key, too. Needs root: privilege separation is on.
pub fn start(daemon: &Daemon) -> (Running, u16) {
    start_by(daemon, &[])
}

/// The same, by a command that takes sshd's own as further words.
pub fn start_by(daemon: &Daemon, starter: &[&str]) -> (Running, u16) {
    let port = peers::free_port();
    let sshd = peers::find("sshd").expect("sshd").display().to_string();
    let words = [starter, &[&sshd, "-D", "-e", "-f", "sshd_config"]].concat();
    let observed = daemon.observing(&words);
    let here = observed.scratch.path().display().to_string();
    for key in ["host", "client"] {
        peers::prepare(&observed.scratch, &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key]);
    }
    peers::prepare(&observed.scratch, &["cp", "client.pub", "authorized"]);
    observed.scratch.write(
        "sshd_config",
        format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/host\nAuthorizedKeysFile {here}/authorized\n\
             PidFile none\nStrictModes no\nPermitRootLogin yes\nUsePAM no\n\
             Subsystem sftp /usr/lib/openssh/sftp-server\n"
        ),
    );
    // Privilege separation's empty folder; systemd makes it where sshd is a service.
    let _ = std::fs::create_dir_all("/run/sshd");
    let running = observed.start();
    wait::until(Duration::from_secs(20), "sshd listens", || {
        // Its network namespace may be another one than ours.
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", running.child.id())).ok()?;
        table.contains(&format!(":{port:04X} 00000000:0000 0A")).then_some(())
    });
    (running, port)
}

/// `ssh OPTIONS 127.0.0.1`, with the key of that folder.
pub fn client(folder: &str, port: u16) -> Vec<String> {
    let mut words = vec!["ssh".to_owned(), "-p".into(), port.to_string()];
    words.extend(options(folder));
    words.push("127.0.0.1".into());
    words
}

/// Options that ssh, scp and sftp share.
pub fn options(folder: &str) -> Vec<String> {
    let identity = format!("IdentityFile={folder}/client");
    let options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "GlobalKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "LogLevel=ERROR",
        &identity,
    ];
    ["-F".into(), "none".into()]
        .into_iter()
        .chain(options.iter().flat_map(|o| ["-o".to_owned(), (*o).to_owned()]))
        .collect()
}
