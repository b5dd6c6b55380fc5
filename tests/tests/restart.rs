//! A daemon that was killed comes back: programs that run on are observed on, with what they
//! published meanwhile; what was open is said to be unverified and never left out.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::report::Report;
use counterfoil_tests::{check, wait};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// One program in the middle of a transfer, one transfer before and one after in another program
/// that was there all the time.
#[test]
fn arenas_are_taken_up_again() {
    let mut daemon = Daemon::start("");
    let running =
        daemon.observing_fixture("tls 1.3 - write read 100000 5000 answer=3000 mark=mark wait=go").start();
    let mark = running.scratch.at("mark");
    wait::until(PATIENCE, "the connection stands", || mark.exists().then_some(()));
    daemon.kill();
    // It ends while nobody is there: its last words wait in its arena.
    running.scratch.write("go", "");
    let run = running.finish();
    check!(run, run.status.success(), "the host was disturbed");
    daemon.launch();
    let report = daemon.until_reported("the transfer that was open", |r| {
        r.on("tls").iter().any(|t| t.verdict() == "unverified")
    });
    let open = report.on("tls");
    assert!(
        open.iter().all(|t| t.verdict() == "unverified" && t.reasons() == ["daemon-restarted"]),
        "{}",
        daemon.shown("what was open is unverified, for this reason")
    );
    daemon.until_reported("the alarm", |r| r.alarms().iter().any(|a| a.rule() == "daemon-restarted"));
    let keeper = daemon.state().join("keeper");
    assert!(keeper.exists());
    daemon.stop();
    wait::until(PATIENCE, "a daemon that ends in order leaves no keeper", || {
        (!keeper.exists()).then_some(())
    });
}

/// A restart for an upgrade: what was open is said once, and the same programs' next connection is
/// witnessed as if nothing had been. After a kill likewise, but for the reason.
#[test]
fn the_next_connection_is_witnessed() {
    for kill in [false, true] {
        let mut daemon = Daemon::start("");
        let line = "tls 1.3 - write read 100000 5000 answer=3000 connections=2 mark=mark wait=go";
        let running = daemon.observing_fixture(line).start();
        let mark = running.scratch.at("mark");
        wait::until(PATIENCE, "the connection stands", || mark.exists().then_some(()));
        if kill {
            daemon.kill();
        } else {
            daemon.stop();
        }
        daemon.launch();
        running.scratch.write("go", "");
        let run = running.finish();
        check!(run, run.status.success(), "the host was disturbed");
        // After a kill the ends that were open may be said one by one: those are four already.
        let intact = |r: &Report| r.on("tls").iter().filter(|t| t.verdict() == "intact").count();
        let report = daemon.until_reported("both connections", |r| r.on("tls").len() >= 4 && intact(r) >= 2);
        let reason = if kill { "daemon-restarted" } else { "still-open" };
        let all = report.on("tls");
        let open = all.iter().filter(|t| t.verdict() == "unverified" && t.reasons() == [reason]).count();
        let intact = all.iter().filter(|t| t.verdict() == "intact").count();
        // What the killed one had not read, its successor reads: if that is all of it, nothing was lost.
        let intact_as_it_should = if kill { intact >= 2 } else { intact == 2 && open == 2 };
        let as_it_should = intact_as_it_should && open + intact == all.len();
        assert!(as_it_should, "kill: {kill}; {}", daemon.shown("two directions open, two intact"));
    }
}

/// The keeper goes where there is nothing to keep.
#[test]
fn no_keeper_stays_for_nothing() {
    let mut daemon = Daemon::start("");
    let keeper = daemon.state().join("keeper");
    assert!(keeper.exists());
    daemon.kill();
    wait::until(PATIENCE, "the keeper ends", || (!keeper.exists()).then_some(()));
}

/// How often the thread that reads the lanes went to sleep, once it has given itself its name.
fn sleeps(daemon: &Daemon) -> Option<u64> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("its threads");
    let of = |task: std::fs::DirEntry| {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let of_core = read("comm").trim() == "core";
        let status = of_core.then(|| read("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim();
        line.parse().ok()
    };
    tasks.flatten().find_map(of)
}

/// While nobody has anything to say the daemon sleeps until it is called, or ten times a second; the programs that an
/// earlier daemon left call, too.
#[test]
fn a_quiet_host_lets_the_daemon_sleep() {
    let mut daemon = Daemon::start("");
    let line = "tls 1.3 - write read 100000 5000 answer=3000 connections=2 mark=mark wait=go";
    let running = daemon.observing_fixture(line).start();
    let mark = running.scratch.at("mark");
    wait::until(PATIENCE, "the connection stands", || mark.exists().then_some(()));
    let quiet = |daemon: &Daemon| {
        let mut before = wait::until(PATIENCE, "its core runs", || sleeps(daemon));
        wait::until(PATIENCE, "it sleeps ten times a second", || {
            std::thread::sleep(Duration::from_secs(1));
            let now = sleeps(daemon).expect("its core");
            let times = now - std::mem::replace(&mut before, now);
            // As late as a busy machine wakes it, and not as often as it looks by itself.
            (1..=20).contains(&times).then_some(())
        });
    };
    quiet(&daemon);
    daemon.kill();
    daemon.launch();
    quiet(&daemon);
    running.scratch.write("go", "");
    running.finish().well();
    daemon.until_reported("the second connection", |r| {
        r.on("tls").iter().filter(|t| t.verdict() == "intact").count() >= 2
    });
}
