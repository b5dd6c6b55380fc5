//! A real systemd-journald by itself, in a mount namespace of its own.

use crate::scratch::Scratch;
use crate::{peers, wait};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PROGRAM: &str = "/lib/systemd/systemd-journald";

/// It has /run and /var/log of its own, which are gone with it.
const SCRIPT: &str = "mount -t tmpfs none /run && mount -t tmpfs none /var/log && \
    mkdir -p /run/systemd/journal /run/log/journal /run/udev && exec /lib/systemd/systemd-journald";

/// The receiver.
pub struct Journald {
    child: Child,
    _scratch: Scratch,
}

/// Why it can't be had here, if it can't.
pub fn missing() -> Option<&'static str> {
    match peers::missing(&["unshare", "nsenter", "journalctl"]) {
        None if !Path::new(PROGRAM).exists() => Some("systemd-journald"),
        None if !peers::root() => Some("root"),
        other => other,
    }
}

impl Journald {
    /// Starts it. None: namespaces are not to be had here.
    pub fn start() -> Option<Self> {
        let scratch = Scratch::new();
        let log = std::fs::File::create(scratch.at("log")).expect("log");
        let child = Command::new("unshare")
            .args(["-m", "sh", "-c", SCRIPT])
            .env_remove("LD_PRELOAD")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("unshare");
        let mut journald = Self { child, _scratch: scratch };
        let ready = wait::poll(Duration::from_secs(15), || {
            let ended = journald.child.try_wait().expect("wait").is_some();
            let there =
                std::os::unix::net::UnixDatagram::unbound().expect("socket").connect(journald.socket());
            (ended || there.is_ok()).then_some(!ended)
        });
        (ready == Some(true)).then_some(journald)
    }

    /// Its socket, as it is seen from here.
    pub fn socket(&self) -> PathBuf {
        format!("/proc/{}/root/run/systemd/journal/socket", self.child.id()).into()
    }

    /// The entries of one identifier.
    pub fn entries(&self, identifier: &str) -> Vec<Value> {
        let out = Command::new("nsenter")
            .args(["-m", "-r", "-t", &self.child.id().to_string()])
            .args(["journalctl", "--no-pager", "--quiet", "-o", "json", "-t", identifier])
            .output()
            .expect("journalctl");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
