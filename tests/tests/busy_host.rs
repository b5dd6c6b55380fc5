//! A busy host (issue 4, item 3): an hour of what servers do all day, all of it observed by one daemon with its default
//! configuration (but for `connection_duration`), and not one alarm that would have to be explained to anybody. `make test-busy`.
#![cfg(test)]

use counterfoil_tests::busy::{APPROVED, CHORES, Chore, PRELUDE, Services};
use counterfoil_tests::{Observed, Report, Transfer, need, peers, product, skip};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Rounds in which the host is learnt.
const LEARNING: u32 = 4;
/// Between two rounds: a busy host is not one that does nothing else.
const PAUSE: Duration = Duration::from_secs(15);
/// Rules that accuse nobody: what can't be seen, and what runs as it was told to.
const SAID: &[&str] = &["coverage-lost"];
/// Servers that fork for each connection, and what their names begin with.
const FORKING: &[&str] = &["sshd", "postgres"];

/// What was done, and how often it failed.
#[derive(Default)]
struct Done {
    times: u32,
    took: Duration,
    failed: Vec<String>,
}

struct Day {
    services: Services,
    done: BTreeMap<&'static str, Done>,
    began: Instant,
}

impl Day {
    fn chore(&mut self, chore: &Chore) {
        if peers::missing(chore.needs).is_some() {
            return;
        }
        let script = format!("{PRELUDE}{}", chore.script);
        let before = Instant::now();
        let run =
            self.services.observing(&["sh".into(), "-euc".into(), script]).own_session().limit(240).go();
        let done = self.done.entry(chore.name).or_default();
        done.times += 1;
        done.took += before.elapsed();
        if !run.status.success() {
            done.failed.push(run.stderr.chars().take(600).collect());
        }
    }

    fn round(&mut self, round: u32, approved: bool) {
        let chores = CHORES.iter().chain(approved.then_some(&APPROVED));
        let due: Vec<&Chore> = chores.filter(|c| round.is_multiple_of(c.every)).collect();
        let known: BTreeSet<String> = self.alarms().into_keys().collect();
        due.iter().for_each(|chore| self.chore(chore));
        let all = self.alarms();
        let time = self.began.elapsed().as_secs();
        println!(
            "round {round} ({}:{:02}): {} activities, {} alarms",
            time / 60,
            time % 60,
            due.len(),
            all.len()
        );
        for (_, alarm) in all.iter().filter(|(id, _)| !known.contains(*id)) {
            println!("  {} {}: {}", said(alarm, "severity"), said(alarm, "rule"), said(alarm, "title"));
        }
    }

    /// Every alarm by its id, as it was told last.
    fn alarms(&self) -> BTreeMap<String, Value> {
        self.services.daemon.alarms().into_iter().map(|a| (said(&a.0, "id"), a.0)).collect()
    }

    /// Of each server that forks: transfers of its connections so far, and of them those that are disputed.
    fn served(&self) -> Vec<(usize, usize)> {
        let all = Report::only(&self.services.daemon.scratch.at("events.jsonl"), "transfer").on("tcp");
        let by = |server: &&str| {
            let by = |t: &&Transfer| {
                ["origin", "destination"].iter().any(|end| t.program(end).starts_with(server))
            };
            let all: Vec<&Transfer> = all.iter().filter(by).collect();
            let disputed = |t: &&&Transfer| t.reasons().contains(&"disputed-claim".to_owned());
            (all.len(), all.iter().filter(disputed).count())
        };
        FORKING.iter().map(by).collect()
    }

    /// What the daemon itself took: seconds of processor time, and the most memory in KiB.
    fn cost(&self) -> (f64, String) {
        let pid = self.services.daemon.pid();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit(") ").next().unwrap_or("").to_owned();
        let ticks: u64 = after.split(' ').skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let most = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("?").trim().to_owned();
        (ticks as f64 / 100.0, most)
    }

    fn table(&self) -> Vec<String> {
        println!("\n| activity | times | seconds each | failed |\n|---|---:|---:|---:|");
        let mut failures = Vec::new();
        for chore in CHORES.iter().chain([&APPROVED]) {
            let Some(done) = self.done.get(chore.name) else {
                println!("| {} | skipped: {:?} not installed | | |", chore.name, peers::missing(chore.needs));
                continue;
            };
            let each = done.took.as_secs_f64() / f64::from(done.times);
            println!("| {} | {} | {each:.1} | {} |", chore.name, done.times, done.failed.len());
            failures.extend(done.failed.first().map(|why| format!("{}: {why}", chore.name)));
        }
        for (name, times) in self.services.counted() {
            println!("| {name} | {times} | | |");
        }
        failures
    }
}

fn said(alarm: &Value, field: &str) -> String {
    alarm[field].as_str().unwrap_or("?").to_owned()
}

/// Would somebody have to look into it?
fn calls_for_somebody(alarm: &Value) -> bool {
    !SAID.contains(&said(alarm, "rule").as_str())
}

fn baseline(day: &Day, words: &[&str]) -> String {
    let program = product::program().display().to_string();
    let state = day.services.daemon.state().display().to_string();
    let all = [&[program.as_str(), "baseline"], words, &["--state", &state]].concat();
    Observed::new(all).plain().go().well().stdout
}

#[test]
#[ignore = "takes an hour: make test-busy"]
fn a_busy_host() {
    need!("sshd", "ssh", "nginx", "curl", "psql", "openssl", "setpriv", "setsid");
    if !peers::root() {
        skip!("a host's services need root");
    }
    let minutes: f64 = std::env::var("MINUTES").ok().and_then(|m| m.parse().ok()).unwrap_or(60.0);
    let mut watched = counterfoil_daemon::config::Watch::default().watched_processes;
    // The source and the destination of process alarms are no transfer tools: whoever has some names them.
    watched.extend(["mosquitto_pub", "mosquitto_sub"].map(str::to_owned));
    let mut day = Day { services: Services::start(&watched), done: BTreeMap::new(), began: Instant::now() };
    println!("observed: {}", day.services.names().join(", "));

    println!("learning:");
    (0..LEARNING).for_each(|_| day.round(0, false));
    print!("would have been raised while it learnt:\n{}", baseline(&day, &["would-have-raised"]));
    let (ssh, port) =
        (peers::find("ssh").expect("ssh").display().to_string(), day.services.vault.to_string());
    let what = ["approve", "--exe", &ssh, "--destination", "127.0.0.1", "--port", &port, "--owner", "ops"];
    print!("{}", baseline(&day, &[&what[..], &["--reason", "nightly copy", "--expires", "90d"]].concat()));
    day.services.learnt();

    println!("learnt:");
    let (mut round, until) = (0, Instant::now() + Duration::from_secs_f64(minutes * 60.0));
    while Instant::now() < until {
        round += 1;
        day.round(round, true);
        std::thread::sleep(PAUSE.min(until.saturating_duration_since(Instant::now())));
    }
    let missed = day.services.missed();
    let (seconds, memory) = day.cost();
    let hours = day.began.elapsed().as_secs_f64() / 3600.0;
    let (live, ran) = (day.served(), day.services.names().join(" ").to_lowercase());
    // Its end judges what was still open.
    day.services.end();
    let served = day.served();
    let failures = day.table();

    let alarms: Vec<Value> = day.alarms().into_values().collect();
    let mut rules: BTreeMap<(String, String), u32> = BTreeMap::new();
    alarms.iter().for_each(|a| *rules.entry((said(a, "rule"), said(a, "severity"))).or_default() += 1);
    println!("\n| rule | severity | alarms |\n|---|---|---:|");
    rules.iter().for_each(|((rule, severity), n)| println!("| {rule} | {severity} | {n} |"));
    let wrong: Vec<&Value> = alarms.iter().filter(|a| calls_for_somebody(a)).collect();
    println!("\n{} false positives in {hours:.2} h: {:.1} an hour", wrong.len(), wrong.len() as f64 / hours);
    println!("the daemon took {seconds:.0} s of processor time and at most {memory} of memory");
    for alarm in &wrong {
        println!("{alarm}");
    }
    for ((name, (live, _)), (all, disputed)) in FORKING.iter().zip(live).zip(served) {
        println!("{name}: {live} of {all} transfers were told while it ran, {disputed} are disputed");
        // The rest was open at the end, or had just ended.
        assert!(
            !ran.contains(name) || live > 0 && live * 10 >= all * 9,
            "{name}: {live} of {all} were told in time"
        );
        assert_eq!(disputed, 0, "{name}: an old connection disturbed a new one");
    }
    assert!(wrong.is_empty(), "alarms that call for somebody: {}", wrong.len());
    assert!(failures.is_empty(), "activities that failed: {failures:#?}");
    assert!(missed.is_empty(), "{missed}");
}
