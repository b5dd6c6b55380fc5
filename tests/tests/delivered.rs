//! What becomes of a file after it was delivered: real transfers, a real daemon, and writers that are observed or not.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::report::Report;
use counterfoil_tests::scratch::{Scratch, payload};
use counterfoil_tests::wait;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon that looks after `in` every second; its folder, links resolved.
fn looking_after() -> (Daemon, PathBuf) {
    let scratch = Scratch::new();
    let here = scratch.path().canonicalize().expect("scratch");
    for folder in ["in", "out"] {
        std::fs::create_dir_all(here.join(folder)).expect("folder");
    }
    let state = scratch.at("state");
    let paths = here.join("in");
    let integrity = format!("[integrity]\nhash_check_interval = \"1s\"\nhash_check_paths = [{paths:?}]");
    (Daemon::start_in(scratch, state, &integrity), here)
}

/// `dd` brings the file to `in`; that is the `times`th delivery.
fn deliver(daemon: &Daemon, here: &Path, name: &str, content: &[u8], times: usize) {
    std::fs::write(here.join("out").join(name), content).expect("origin");
    let from = format!("if={}", here.join("out").join(name).display());
    let to = format!("of={}", here.join("in").join(name).display());
    daemon.observing(&["dd", &from, &to, "bs=64k"]).go().well();
    daemon.until_reported("the delivery", |r| {
        r.on("file").iter().filter(|t| t.verdict() == "intact").count() >= times
    });
}

/// What was said of a file in `in`.
fn changed(report: &Report, name: &str) -> Vec<Value> {
    let alarms = report.alarms().into_iter().filter(|a| a.rule() == "delivered-file-changed").map(|a| a.0);
    alarms
        .filter(|a| a["file"]["path"].as_str().is_some_and(|p| p.ends_with(&format!("/in/{name}"))))
        .collect()
}

/// Until the daemon has looked at all files twice after this moment: as often it looks at another one that is
/// changed now, for the `times`th time, before it says so.
fn looked(daemon: &Daemon, here: &Path, times: u64) {
    std::fs::write(here.join("in/canary"), format!("change {times}")).expect("canary");
    wait::until(PATIENCE, daemon.shown("the canary's alarm"), || {
        changed(&daemon.report(), "canary").iter().any(|a| a["count"] == times).then_some(())
    });
}

#[test]
fn an_observed_writer_is_meant_and_another_is_not() {
    let (daemon, here) = looking_after();
    let mut content = payload(5, 300_000);
    deliver(&daemon, &here, "f", &content, 1);
    deliver(&daemon, &here, "canary", b"delivered", 2);
    looked(&daemon, &here, 1);
    assert_eq!(changed(&daemon.report(), "f"), [] as [Value; 0], "{}", daemon.shown("nothing has changed"));
    // Observed: it is delivered anew, and then appended to by a shell that is observed, too.
    content[7] ^= 1;
    deliver(&daemon, &here, "f", &content, 3);
    let append = format!("echo more >> {}", here.join("in/f").display());
    daemon.observing(&["sh", "-c", &append]).go().well();
    looked(&daemon, &here, 2);
    assert_eq!(changed(&daemon.report(), "f"), [] as [Value; 0], "{}", daemon.shown("they were observed"));
    // Not observed.
    content.extend(b"more\n");
    content[200_000] ^= 1;
    std::fs::write(here.join("in/f"), &content).expect("tamper");
    let report = wait::until(PATIENCE, daemon.shown("the alarm"), || {
        Some(daemon.report()).filter(|r| !changed(r, "f").is_empty())
    });
    let alarm = &changed(&report, "f")[0];
    assert_eq!(alarm["severity"], "high");
    assert_eq!(alarm["altered"], serde_json::json!([{"offset": 196_608, "length": 16_384}]));
    assert_eq!(alarm["file"]["path"], here.join("in/f").to_str().expect("path"));
}

#[test]
fn a_file_that_is_not_the_expected_one() {
    let scratch = Scratch::new();
    let list = scratch.at("expected.sha256");
    scratch.write("good", payload(9, 1_000));
    let out = std::process::Command::new("sha256sum").arg(scratch.at("good")).output().expect("sha256sum");
    let digest = String::from_utf8_lossy(&out.stdout)[..64].to_owned();
    let here = scratch.path().canonicalize().expect("scratch");
    std::fs::write(&list, format!("{digest}  {}\n", here.join("f").display())).expect("list");
    let state = scratch.at("state");
    let config = format!("[integrity]\nintegrity_baseline = {list:?}");
    let daemon = Daemon::start_in(scratch, state, &config);
    std::fs::write(here.join("f"), payload(9, 1_000)).expect("good");
    let send = |to: &str| {
        let (from, to) =
            (format!("if={}", here.join("f").display()), format!("of={}", here.join(to).display()));
        daemon.observing(&["dd", &from, &to]).go().well();
    };
    send("a");
    daemon.until_reported("the good one", |r| r.on("file").len() == 1);
    std::fs::write(here.join("f"), payload(10, 1_000)).expect("bad");
    send("b");
    let report =
        daemon.until_reported("the bad one", |r| r.on("file").len() == 2 && r.fired("payload-altered"));
    assert!(report.on("file").iter().all(|t| t.verdict() == "intact"), "{}", daemon.shown("both are intact"));
    let alarms: Vec<Value> =
        report.alarms().into_iter().filter(|a| a.rule() == "payload-altered").map(|a| a.0).collect();
    assert_eq!(alarms.len(), 1, "{}", daemon.shown("one is not what was expected"));
    assert_eq!(alarms[0]["evidence"]["expected_sha256"], digest);
    assert_eq!(alarms[0]["evidence"]["place"], "origin");
}
