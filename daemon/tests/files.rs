//! What `counterfoil daemon` looks after by itself: delivered files, expected digests, workflows. Real files, a real
//! daemon, its real ledger; deliveries are put into the ledger by the library's own interface.

use counterfoil_daemon::config;
use counterfoil_daemon::delivered;
use counterfoil_daemon::ledger::{Ledger, Reader};
use counterfoil_daemon::model::Transfer;
use counterfoil_daemon::workflow;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

struct Daemon {
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Daemon {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), child: None }
    }

    /// Links resolved, as transfers name files.
    fn at(&self, name: &str) -> PathBuf {
        std::fs::canonicalize(self.dir.path()).unwrap().join(name)
    }

    fn configure(&self, more: &str) {
        let sink = format!("[[sink]]\nkind = \"jsonl\"\npath = {:?}\n", self.at("events.jsonl"));
        std::fs::write(self.at("c.toml"), format!("{more}\n{sink}")).unwrap();
    }

    fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.at("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_counterfoil"));
        command.args(["daemon", "--config"]).arg(self.at("c.toml")).arg("--socket").arg(self.at("s"));
        command.arg("--state").arg(self.at("state")).stdin(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        self.until("the daemon listens", |d| d.at("s").exists().then_some(()));
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a signal to a child of this test.
        assert_eq!(unsafe { libc::kill(self.child.as_ref().unwrap().id() as i32, signal) }, 0);
    }

    fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        assert!(self.child.take().unwrap().wait().unwrap().success(), "{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    fn alarms(&self, rule: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.at("events.jsonl")).unwrap_or_default();
        let lines = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        lines.filter(|l| l["type"] == "alarm" && l["rule"] == rule).collect()
    }

    /// What a stage wrote into the ledger.
    fn remembered(&self, kind: &str, key: &str) -> Option<Value> {
        let all = Reader::open(&self.at("state")).ok()?.recall(kind).ok()?;
        let (_, json) = all.into_iter().find(|(k, _)| k == key)?;
        serde_json::from_str(&json).ok()
    }

    fn until<T>(&self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < end, "not in time: {what}; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn check(&self) -> Output {
        Command::new(env!("CARGO_BIN_EXE_counterfoil")).arg("check").arg(self.at("c.toml")).output().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// An intact delivery by scp, as a daemon would have noted it a minute ago.
fn delivery(path: &Path, content: &[u8]) -> Transfer {
    let moment = (jiff::Timestamp::now() - jiff::SignedDuration::from_mins(1)).to_string();
    let end = |tap: &str, exe: &str, path: &Path| {
        json!({
            "host": "alpha", "tap": tap, "pid": 4_000_000, "exe": exe, "argv": null, "uid": 0, "parent": null,
            "local": null, "remote": null, "path": path, "sha256": hex(content), "bytes": content.len(),
            "witnessed": content.len(), "offered": 0, "also": [],
        })
    };
    let json = json!({
        "id": "01890a5d-ac96-774b-bcce-b302099a8057", "verdict": "intact", "reasons": [], "channel": "file",
        "flow": null, "assurance": "hash", "class": null,
        "bytes": {"origin": content.len(), "destination": content.len()}, "altered": [],
        "origin": end("file-read", "/usr/bin/scp", Path::new("/home/pay/prices.csv")),
        "destination": end("file-write", "/usr/lib/openssh/sftp-server", path),
        "legs": [], "started": moment, "ended": moment, "strip": [], "origin_digest": null, "destination_digest": null,
    });
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_delivered_file_that_is_changed_behind_our_back() {
    let mut daemon = Daemon::new();
    let path = daemon.at("in").join("prices.csv");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let mut content: Vec<u8> = (0..50_000u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&path, &content).unwrap();
    let mut ledger = Ledger::open(&daemon.at("state"), config::Ledger::default()).unwrap();
    ledger.transfer(Arc::new(delivery(&path, &content)));
    ledger.commit().unwrap();
    drop(ledger);
    let folder = path.parent().unwrap().to_owned();
    daemon.configure(&format!(
        "[integrity]\nhash_check_interval = \"1s\"\nhash_check_paths = [{folder:?}]\nhash_check_uncached = true"
    ));
    daemon.start();
    let key = path.to_str().unwrap();
    daemon
        .until("it was looked at", |d| d.remembered(delivered::KIND, key)?["seen"].is_object().then_some(()));
    assert_eq!(daemon.alarms("delivered-file-changed"), [] as [Value; 0]);
    // This process is not observed.
    let before = hex(&content);
    content[100_000] ^= 1;
    std::fs::write(&path, &content).unwrap();
    let alarm = daemon.until("the alarm", |d| d.alarms("delivered-file-changed").pop());
    assert_eq!(alarm["severity"], "high");
    assert_eq!(alarm["evidence"]["sha256_delivered"], before);
    assert_eq!(alarm["evidence"]["sha256_found"], hex(&content));
    assert_eq!(alarm["altered"], json!([{"offset": 98_304, "length": 16_384}]));
    assert_eq!(alarm["evidence"]["delivered_by"]["exe"], "/usr/lib/openssh/sftp-server");
    assert_eq!(alarm["transfer"], "01890a5d-ac96-774b-bcce-b302099a8057");
    daemon.until("it is known to have been said", |d| {
        d.remembered(delivered::KIND, key)?["said"].is_string().then_some(())
    });
    daemon.stop();
    daemon.start();
    // Another change, to know that the next daemon has looked.
    content[0] ^= 1;
    std::fs::write(&path, &content).unwrap();
    let second = daemon.until("the second alarm", |d| {
        let all = d.alarms("delivered-file-changed");
        all.into_iter().find(|a| a["count"].as_u64() > Some(1))
    });
    assert_eq!(second["count"], 2, "the first change was not said again");
    assert_eq!(second["id"], alarm["id"]);
    assert_eq!(second["evidence"]["sha256_found"], hex(&content));
    daemon.stop();
}

#[test]
fn a_script_that_is_changed_and_by_whom() {
    let mut daemon = Daemon::new();
    let script = daemon.at("send.sh");
    std::fs::write(&script, "#!/bin/sh\nscp /srv/a b:\n").unwrap();
    daemon.configure(&format!("[watch]\nworkflow_interval = \"1s\"\nworkflow_paths = [{script:?}]"));
    daemon.start();
    let key = format!("file {}", script.display());
    daemon
        .until("it was learnt", |d| d.remembered(workflow::KIND, &key)?["sha256"].is_string().then_some(()));
    // fanotify listens from the end of the first look on.
    let named = daemon.until("who writes is known, or can't be", |d| {
        let denied = d.log().contains("fanotify:");
        let marked =
            std::fs::read_dir(format!("/proc/{}/fdinfo", d.child.as_ref()?.id())).ok()?.flatten().any(|f| {
                let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(d.dir.path()).unwrap());
                let text = std::fs::read_to_string(f.path()).unwrap_or_default();
                text.contains("fanotify") && text.contains(&format!("ino:{inode:x} "))
            });
        (denied || marked).then_some(!denied)
    });
    let mut writer = Command::new("sh")
        .args(["-c", "echo 'scp /srv/a c:' >> send.sh; read line"])
        .current_dir(daemon.at(""))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let alarm = daemon.until("the alarm", |d| d.alarms("workflow-changed").pop());
    assert_eq!(alarm["severity"], "medium");
    assert_eq!(alarm["file"]["path"], script.to_str().unwrap());
    assert_ne!(alarm["evidence"]["sha256_before"], alarm["evidence"]["sha256_found"]);
    if named {
        assert_eq!(alarm["process"]["pid"], writer.id());
        assert_eq!(alarm["evidence"]["written_by"]["uid"], rustix::process::geteuid().as_raw());
    } else {
        eprintln!("skipped: by whom (no fanotify here)");
        assert!(alarm["process"].is_null());
    }
    drop(writer.stdin.take());
    writer.wait().unwrap();
    daemon.stop();
}

#[test]
fn a_list_of_expected_digests_is_checked() {
    let mut daemon = Daemon::new();
    let list = daemon.at("expected.sha256");
    let good = format!("{}  /srv/a\nSHA256 (/srv/b) = {}\n", hex(b"a"), hex(b"b"));
    std::fs::write(&list, format!("{good}nonsense\n")).unwrap();
    daemon.configure(&format!("[integrity]\nintegrity_baseline = {list:?}"));
    let check = daemon.check();
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert_eq!(check.status.code(), Some(1));
    assert!(said.contains(&format!("{}:3:1: no line of sha256sum", list.display())), "{said}");
    std::fs::write(&list, &good).unwrap();
    let check = daemon.check();
    assert!(check.status.success());
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("2 files have expected digests"), "{said}");
    daemon.start();
    std::fs::write(&list, "nonsense\n").unwrap();
    daemon.signal(libc::SIGHUP);
    daemon.until("the old one stays", |d| d.log().contains("expected.sha256:1:1: no line").then_some(()));
    std::fs::remove_file(&list).unwrap();
    daemon.signal(libc::SIGHUP);
    daemon.until("that it is gone is said", |d| d.log().contains("can't read").then_some(()));
    daemon.stop();
}
