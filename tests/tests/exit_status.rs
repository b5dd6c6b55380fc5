//! `run` is the command that it runs, as far as anybody can tell (INTERFACE, Commands).

use counterfoil_tests::{Observed, check, wait};
use std::time::Duration;

fn status_of(script: &str) -> i32 {
    Observed::new(["sh", "-c", script]).go().code()
}

#[test]
fn passes_the_status_through() {
    for status in [0, 1, 3, 42, 125, 255] {
        assert_eq!(status_of(&format!("exit {status}")), status);
    }
}

#[test]
fn says_signals_as_shells_do() {
    assert_eq!(status_of("kill -TERM $$"), 128 + 15);
    assert_eq!(status_of("kill -KILL $$"), 128 + 9);
}

#[test]
fn not_found_is_127_and_not_executable_126() {
    let run = Observed::new(["/nonexistent/program"]).go();
    check!(run, run.code() == 127, "want 127");
    check!(run, run.stderr.contains("/nonexistent/program"), "it doesn't say what");
    let plain_file = Observed::new(["/etc/passwd"]).go();
    check!(plain_file, plain_file.code() == 126, "want 126");
}

#[test]
fn its_own_failure_is_125() {
    let run = Observed::new(["touch", "ran"]).option("--config").option("/nonexistent.toml").go();
    check!(run, run.code() == 125, "want 125");
    check!(run, run.stderr.contains("/nonexistent.toml"), "it doesn't say what");
    check!(run, !run.scratch.at("ran").exists(), "the command was started");
}

#[test]
fn wrong_usage_is_not_run() {
    let run = Observed::new(["touch", "ran"]).option("--no-such-option").go();
    check!(run, [2, 125].contains(&run.code()), "want a usage error");
    check!(run, !run.scratch.at("ran").exists(), "the command was started");
}

#[test]
fn fail_on_replaces_any_status() {
    for (list, command, want) in [
        ("truncated,unverified", "\"$FIXTURES/source\" 50000 1000 stdio | \"$FIXTURES/sink\"", 3),
        ("altered", "\"$FIXTURES/source\" 50000 1000 stdio | \"$FIXTURES/sink\"", 0),
        ("unverified", "\"$FIXTURES/source\" 50000 1000 | \"$FIXTURES/sink\"; exit 9", 9),
        ("unverified", "\"$FIXTURES/source\" 50000 1000 stdio | \"$FIXTURES/sink\"; exit 9", 3),
    ] {
        let run = Observed::new(["sh", "-c", command]).option("--fail-on").option(list).go();
        check!(run, run.code() == want, "--fail-on {list}: want {want}");
    }
}

#[test]
fn passes_stdin_through() {
    let run = Observed::new(["cat"]).stdin("from outside\n").go().well();
    check!(run, run.stdout == "from outside\n", "stdin did not arrive");
}

/// A signal that only `run` gets reaches the command.
#[test]
fn passes_signals_on() {
    let script = "trap 'echo got TERM; exit 5' TERM; touch ready; while :; do sleep 0.05; done";
    let running = Observed::new(["sh", "-c", script]).start();
    let ready = running.scratch.at("ready");
    wait::until(Duration::from_secs(20), "the command is ready", || ready.exists().then_some(()));
    let pid = rustix::process::Pid::from_child(&running.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
    let run = running.finish();
    check!(run, run.code() == 5 && run.stdout.contains("got TERM"), "the signal was lost");
}

/// What a command leaves behind does not keep `run` waiting.
#[test]
fn does_not_wait_for_what_goes_on() {
    let started = std::time::Instant::now();
    let run = Observed::new(["sh", "-c", "sleep 30 & echo $! >left"]).go().well();
    check!(run, started.elapsed() < Duration::from_secs(10), "it waited for what runs on");
    let left = std::fs::read_to_string(run.scratch.at("left")).expect("pid");
    let pid = rustix::process::Pid::from_raw(left.trim().parse().expect("pid")).expect("pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it still runs");
}

#[test]
fn leaves_nothing_behind() {
    let run = Observed::fixture("stream unix send recv 1000 100").go().well();
    let left: Vec<_> = std::fs::read_dir(run.scratch.path())
        .expect("folder")
        .map(|e| e.expect("entry").file_name().into_string().expect("UTF-8"))
        .filter(|n| !["stdout", "stderr", "events.jsonl"].contains(&n.as_str()))
        .collect();
    check!(run, left.is_empty(), "left behind: {left:?}");
}
