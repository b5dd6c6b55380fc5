//! Bad input (issue 2, item 7): whatever is missing, dies or is full, the host program runs on as if
//! nothing were loaded, and what was published is not lost. Who lies on purpose is in `hostile`.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::undisturbed::{FIXTURE, undisturbed};
use counterfoil_tests::{Observed, Scratch, check, peers, product, skip, truth, wait};
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;

#[test]
fn no_daemon() {
    for path in ["/nonexistent/socket", "/etc/passwd", "/", "", "relative"] {
        undisturbed(FIXTURE, Path::new(path));
    }
    undisturbed(FIXTURE, Path::new(&"x".repeat(4000)));
}

#[test]
fn daemon_judges_what_exec_runs() {
    let mut daemon = Daemon::start("");
    daemon.good_session(2);
    let status = daemon.stop();
    assert!(status.success(), "{}", daemon.shown("it did not end well"));
    let ledger = daemon.ledger().well();
    check!(ledger, ledger.stdout.lines().count() == 2, "the ledger has two transfers");
    for line in ledger.stdout.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(value["verdict"], "intact");
        assert!(daemon.report().lines.iter().any(|l| l["id"] == value["id"]), "another id than reported");
    }
}

/// The daemon is killed while a connection is open: the host goes on, and what was published before
/// is not lost when it comes back.
#[test]
fn daemon_killed_in_the_middle() {
    let mut daemon = Daemon::start("");
    daemon.good_session(2);
    let running = daemon.observing_fixture(&format!("{FIXTURE} mark=mark wait=go")).start();
    let mark = running.scratch.at("mark");
    wait::until(Duration::from_secs(20), "the connection stands", || mark.exists().then_some(()));
    daemon.kill();
    running.scratch.write("go", "");
    let run = running.finish();
    check!(run, run.status.success(), "the host was disturbed");
    check!(run, run.stdout.contains("server: got 100000"), "the host was disturbed");
    // Programs that start while nobody is there run as well.
    undisturbed("stream tcp send recv 10000 1000", &daemon.socket());

    daemon.launch();
    let ledger = daemon.ledger().well();
    check!(ledger, ledger.stdout.lines().count() >= 2, "what had ended before is lost");
    let run = daemon.observing_fixture("stream tcp send recv 50000 5000").go().well();
    check!(run, run.stdout.contains("got 50000"), "the fixture itself failed");
    daemon.until_reported("a transfer after the restart", |r| {
        r.on("tcp").iter().any(|t| t.verdict() == "intact" && t.origin() == Some(50_000))
    });
}

/// Stopped, not dead: observed programs don't wait for it.
#[test]
fn stopped_daemon() {
    let daemon = Daemon::start("");
    let running = daemon.observing_fixture("shared torrent").start();
    daemon.signal(Signal::STOP);
    let run = running.finish();
    daemon.signal(Signal::CONT);
    check!(run, run.stdout.contains("400000"), "the host waited for the daemon");
}

#[test]
fn full_disk() {
    if !peers::root() {
        skip!("not root: no file system to fill");
    }
    let scratch = Scratch::new();
    let state = scratch.at("small");
    std::fs::create_dir(&state).expect("folder");
    let options = c"size=512k,mode=0700";
    if rustix::mount::mount("tmpfs", &state, "tmpfs", rustix::mount::MountFlags::empty(), options).is_err() {
        skip!("no mounts here");
    }
    let mounted = Mounted(state.clone());
    let mut daemon = Daemon::start_in(scratch, state.clone(), "");
    daemon.good_session(2);
    // Filled to the last byte.
    let mut hog = std::fs::File::create(state.join("hog")).expect("hog");
    while std::io::Write::write_all(&mut hog, &[0; 4096]).is_ok() {}
    for round in 2..5 {
        let run = daemon.observing_fixture(FIXTURE).go();
        check!(run, run.status.success(), "the host was disturbed");
        // Verdicts still go to the sinks that have room.
        daemon.until_reported("transfers on a full disk", |r| r.on("tls").len() >= 2 * round);
    }
    assert!(daemon.alive(), "{}", daemon.shown("it died of a full disk"));
    let log = std::fs::read_to_string(daemon.scratch.at("log")).expect("log");
    assert!(
        ["full", "space"].iter().any(|word| log.contains(word)),
        "{}",
        daemon.shown("it doesn't say that the disk is full")
    );
    daemon.kill();
    drop(mounted);
}

struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn unknown_configuration_key() {
    let scratch = Scratch::new();
    let config =
        scratch.write("bad.toml", "[watch]\nwatched_proceses = []\n[egres]\n[[sink]]\nkind = \"pigeon\"\n");
    let program = product::program().display().to_string();
    let path = config.display().to_string();
    let run = Observed::new([program.as_str(), "check", &path]).plain().go();
    check!(run, run.code() != 0, "it was taken");
    let said = format!("{}{}", run.stdout, run.stderr);
    // Every mistake at once, each with its place and the nearest known name.
    for part in ["2:1", "watched_processes", "egress", "pigeon"] {
        check!(run, said.contains(part), "it doesn't say {part:?}");
    }
    let run = Observed::new(["touch", "ran"]).option("--config").option(&path).go();
    check!(run, run.code() == 125, "want 125");
    check!(run, run.stderr.contains("watched_processes"), "it doesn't name the nearest known key");
    check!(run, !run.scratch.at("ran").exists(), "the command was started all the same");
    let good = scratch.write("good.toml", "[watch]\nwatched_processes = [\"curl\"]\n").display().to_string();
    Observed::new([program.as_str(), "check", &good]).plain().go().well();
}

#[test]
fn library_missing() {
    let run = Observed::new(["touch", "ran"]).env("COUNTERFOIL_LIB", "/nonexistent/libcounterfoil.so").go();
    check!(run, run.code() == 125, "want 125");
    check!(run, run.stderr.contains("/nonexistent/libcounterfoil.so"), "it doesn't say what is missing");
    check!(run, !run.scratch.at("ran").exists(), "the command was started, unobserved");
}

#[test]
fn report_that_can_not_be_written() {
    let run = Observed::new(["true"]).option("--json").option("/dev/full").go();
    check!(run, run.stderr.contains("/dev/full"), "it doesn't say that the report is lost");
    let run = Observed::new(["touch", "ran"]).option("--json").option("/nonexistent/folder/file").go();
    check!(run, run.code() == 125, "want 125");
    check!(run, run.stderr.contains("/nonexistent/folder"), "it doesn't say what");
}

#[test]
fn state_is_private() {
    let daemon = Daemon::start("");
    daemon.good_session(2);
    let mode = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).expect("state").permissions().mode() & 0o777
    };
    assert_eq!(mode(daemon.state()), 0o700, "the state folder");
    for entry in std::fs::read_dir(daemon.state()).expect("state").flatten() {
        assert_eq!(mode(&entry.path()) & 0o077, 0, "{:?} is open to others", entry.path());
    }
}

/// Full lanes: what was lost is said, and nobody is accused.
#[test]
fn flood_of_connections() {
    let run = Observed::fixture("shared crowd").go().well();
    truth::blameless(&run);
    for transfer in run.report.transfers().iter().filter(|t| t.verdict() != "intact") {
        let known = ["records-dropped", "shared-descriptor", "peer-not-observed", "still-open"];
        check!(run, transfer.reasons().iter().any(|r| known.contains(&r.as_str())), "{}", transfer.shown());
    }
    let total = run.report.on("unix").len();
    check!(
        run,
        total == 6000 || run.report.fired("records-dropped"),
        "{total} of 6000, and not a word of loss"
    );
}
