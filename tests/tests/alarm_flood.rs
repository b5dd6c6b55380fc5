//! A flood of findings from observed programs: counted exactly, in bounded memory, with a list that can be read;
//! and nothing that was committed or confirmed is lost, whenever the daemon is killed.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::program::{self, json_lines};
use counterfoil_tests::{check, fixtures, wait};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// Findings of one program: they fit into its lane, so that none is dropped however busy the host is.
const OF_ONE: u64 = 500;
/// Different alarms: more than the list has room for, of one sort.
const KEYS: u64 = 2500;
/// Every so many kills the whole list is read: it takes longer than to start a daemon.
const LOOKS: u32 = 10;
/// A daemon lives for so long at least, and at most so much longer.
const LIFE: (u64, u64) = (200, 700);
/// Between two deeds of an operator.
const REST: Duration = Duration::from_millis(100);
/// A hundred thousand findings in a minute.
const PACE: Duration = Duration::from_millis(300);
/// Alarms of one sort that are listed one by one (`alarms::room`), and the one for all others.
const LISTED: usize = 1000 + 1;
/// The daemon's memory, whatever comes.
const MEMORY_KIB: u64 = 192 << 10;

/// Programs that can't be observed, by many names.
fn names(daemon: &Daemon) -> PathBuf {
    let folder = daemon.scratch.at("names");
    std::fs::create_dir(&folder).unwrap();
    // Links to a copy: the fixtures may be on another file system.
    std::fs::copy(fixtures::fixture("start_static"), folder.join("program")).unwrap();
    for i in 0..KEYS {
        std::fs::hard_link(folder.join("program"), folder.join(i.to_string())).unwrap();
    }
    folder
}

/// One program that gives rise to [`OF_ONE`] findings.
fn flood(daemon: &Daemon, names: &std::path::Path, nth: u64) {
    let from = nth * OF_ONE % KEYS;
    let run =
        daemon.observing_fixture(&format!("flood {OF_ONE} {KEYS} {} {from}", names.display())).go().well();
    check!(run, run.stdout.contains(&format!("tried {OF_ONE}")), "the fixture is broken");
}

fn alarms(daemon: &Daemon, words: &[&str]) -> Vec<Value> {
    let state = daemon.state().display().to_string();
    json_lines(&program::counterfoil(&[&["alarms", "--state", &state, "--json"], words].concat()).well())
}

fn total(alarms: &[Value]) -> u64 {
    alarms.iter().filter(|a| a["rule"] == "coverage-lost").map(|a| a["count"].as_u64().unwrap()).sum()
}

fn memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// The list is asked for again and again until it is over: how long that took at most.
fn asked(daemon: &Daemon, over: &AtomicBool) -> Duration {
    let mut slowest = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        assert!(alarms(daemon, &["--limit", "20"]).len() <= 20);
        slowest = slowest.max(began.elapsed());
        // Nobody asks more often than they can read.
        std::thread::sleep(REST);
    }
    slowest
}

fn counted_exactly(programs: u64, usable: Duration) {
    let daemon = Daemon::start("");
    let names = names(&daemon);
    let began = Instant::now();
    // Two at a time: as many as there are processors, mostly.
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    // The list can be read while it goes on.
    let slowest = std::thread::scope(|s| {
        let asked = s.spawn(|| asked(&daemon, &over));
        let floods = [0, 1].map(|_| {
            s.spawn(|| {
                let _ends = Ends(&over);
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= programs {
                        return;
                    }
                    flood(&daemon, &names, nth);
                }
            })
        });
        floods.into_iter().for_each(|f| f.join().expect("a flood"));
        asked.join().expect("who asks")
    });
    println!("{} findings in {:?}, the list in {slowest:?} at most", programs * OF_ONE, began.elapsed());
    assert!(slowest < usable, "the list took {slowest:?}");
    let mut all = Vec::new();
    let mut before = 0;
    // However slow the host is: as long as it goes on.
    let exact = loop {
        let exact = wait::poll(PATIENCE, || {
            all = alarms(&daemon, &["list", "--all"]);
            assert!(total(&all) <= programs * OF_ONE, "counted twice: {}", total(&all));
            (total(&all) == programs * OF_ONE).then_some(())
        });
        if exact.is_some() || total(&all) == before {
            break exact;
        }
        before = total(&all);
    };
    let others: Vec<_> = all.iter().filter(|a| a["rule"] != "coverage-lost").collect();
    assert!(exact.is_some() && others.is_empty(), "{} of {}: {others:#?}", total(&all), programs * OF_ONE);
    assert_eq!(all.len(), LISTED);
    let together: Vec<_> = all.iter().filter(|a| a["evidence"]["together"] == true).collect();
    assert_eq!(together.len(), 1);
    let unique: HashSet<_> = all.iter().map(|a| a["key"].as_str().unwrap()).collect();
    assert_eq!(unique.len(), all.len());
    assert!(memory(&daemon) < MEMORY_KIB, "{} KiB", memory(&daemon));
    println!("{} KiB at most", memory(&daemon));
    let stats = wait::until(PATIENCE, "the rates", || {
        let stats = alarms(&daemon, &["stats"]).remove(0);
        (stats["last_10_minutes"] == LISTED).then_some(stats)
    });
    assert_eq!(stats["occurrences"], programs * OF_ONE);
    assert_eq!(stats["repeats_10_minutes"], programs * OF_ONE - LISTED as u64);
    assert!(
        stats["chattering_count"].as_u64() >= Some(1)
            && stats["most_frequent"][0]["count"] == together[0]["count"]
    );
}

/// A panic has to end the others, too, or the test would never end.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn every_finding_of_a_flood_is_counted() {
    // Built for tests it is slower.
    counted_exactly(24, Duration::from_secs(5));
}

#[test]
#[ignore = "takes a minute: make test-flood"]
fn a_hundred_thousand_findings() {
    counted_exactly(200, Duration::from_secs(1));
}

/// What has to be there whatever happens.
#[derive(Default)]
struct Committed {
    /// Key and count of each alarm that was read from the ledger.
    alarms: HashMap<String, (String, u64)>,
    /// Alarms and comments of changes that were confirmed.
    confirmed: Vec<(String, String)>,
}

impl Committed {
    /// Reads the ledger, holds it against what was there before, and remembers it.
    fn look(&mut self, daemon: &Daemon) {
        let all = alarms(daemon, &["list", "--all"]);
        let mut found = HashMap::new();
        let mut keys = HashSet::new();
        for alarm in &all {
            let text = |name: &str| alarm[name].as_str().unwrap().to_owned();
            assert!(keys.insert(text("key")), "two alarms of one key: {alarm}");
            found.insert(text("id"), (text("key"), alarm["count"].as_u64().unwrap()));
        }
        assert_eq!(found.len(), all.len(), "an id twice");
        for (id, (key, count)) in &self.alarms {
            match found.get(id) {
                Some((same, now)) if same == key && now >= count => {}
                other => panic!("{id} was {key} with {count}, and is {other:?}\n{}", daemon.shown("lost")),
            }
        }
        self.alarms = found;
    }

    /// The sink was told of every alarm, of nothing else, and of nothing twice.
    fn all_told(&mut self, daemon: &Daemon) {
        let told = wait::poll(PATIENCE, || {
            let text = std::fs::read_to_string(daemon.scratch.at("events.jsonl")).unwrap();
            // Later than the sink: it knows at least as much.
            self.look(daemon);
            let mut lines = HashSet::new();
            let mut ids = HashSet::new();
            for line in text.lines().filter(|l| l.contains("\"type\":\"alarm\"")) {
                assert!(lines.insert(line), "twice: {line}");
                let id = line.split_once("\"id\":\"").and_then(|(_, rest)| rest.get(..36)).unwrap();
                assert!(self.alarms.contains_key(id), "the ledger does not know {line}");
                ids.insert(id.to_owned());
            }
            (ids.len() == self.alarms.len()).then_some(lines.len())
        });
        let Some(lines) = told else { panic!("{}", daemon.shown("some were not told")) };
        println!("{lines} lines in the sink");
    }

    /// Every change that somebody was told is so is in the alarm's history.
    fn all_confirmed(&self, daemon: &Daemon) {
        for (id, comment) in &self.confirmed {
            let shown = alarms(daemon, &["show", id]).remove(0);
            let history = shown["history"].as_array().unwrap();
            assert!(
                history.iter().any(|c| c["comment"] == comment.as_str()),
                "{id}: {comment} is lost: {history:#?}"
            );
        }
    }
}

/// Acknowledges and shelves what there is, until it is over. What was confirmed comes out.
fn operator(state: &str, over: &AtomicBool) -> Vec<(String, String)> {
    let mut confirmed = Vec::new();
    for n in 0u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        // The latest: those that the flood is at.
        let list =
            ["alarms", "--state", state, "--status", "unacknowledged", "--json", "--latest", "--limit", "20"];
        let list = program::counterfoil(&list);
        let open: Vec<Value> = list.stdout.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        std::thread::sleep(REST);
        if open.is_empty() {
            continue;
        }
        let alarm = &open[(n as usize * 7) % open.len()];
        let (id, comment) = (alarm["id"].as_str().unwrap(), format!("round {n}"));
        let what: &[&str] = if n % 5 == 4 { &["shelve", id, "--for", "1h"] } else { &["ack", id] };
        let words = [&["alarms", "--state", state], what, &["--comment", &comment]].concat();
        if program::counterfoil(&words).code() == 0 {
            confirmed.push((id.to_owned(), comment));
        }
    }
    confirmed
}

/// Kills the daemon so many times, at moments of no order, while findings and operators come in.
fn killed(times: u32) {
    let mut daemon = Daemon::start("");
    let names = names(&daemon);
    let (over, began) = (AtomicBool::new(false), Instant::now());
    let state = daemon.state().display().to_string();
    let socket = daemon.socket().display().to_string();
    let mut committed = Committed::default();
    let confirmed = std::thread::scope(|s| {
        let _ends = Ends(&over);
        let (over, names) = (&over, &names);
        s.spawn(move || {
            let fixture = fixtures::fixture("flood");
            for nth in 0u64.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                // With or without a daemon that answers.
                let (names, from) = (names.display().to_string(), (nth * OF_ONE % KEYS).to_string());
                let words = [fixture.as_str(), &OF_ONE.to_string(), &KEYS.to_string(), &names, &from];
                let next = Instant::now() + PACE;
                program::counterfoil(&[&["exec", "--socket", &socket, "--"], &words[..]].concat());
                // A pace, not a wait for something.
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        let operator = s.spawn(|| operator(&state, over));
        let mut dice = 0x2545_f491_4f6c_dd1du64;
        for round in 0..times {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            // At a moment of no order, not a wait for something.
            std::thread::sleep(Duration::from_millis(LIFE.0 + dice % LIFE.1));
            daemon.kill();
            // What is committed now, whoever was in the middle of what, must be there when it is back.
            if round % LOOKS == 0 {
                committed.look(&daemon);
            }
            daemon.launch();
            if round % LOOKS == 0 {
                committed.look(&daemon);
            }
        }
        over.store(true, Ordering::Relaxed);
        operator.join().expect("the operator")
    });
    assert!(!confirmed.is_empty(), "nobody got anything done");
    println!(
        "{times} kills in {:?}, {} alarms, {} confirmed changes",
        began.elapsed(),
        committed.alarms.len(),
        confirmed.len()
    );
    committed.confirmed = confirmed;
    committed.look(&daemon);
    committed.all_confirmed(&daemon);
    committed.all_told(&daemon);
    let counts: u64 = committed.alarms.values().map(|(_, count)| count).sum();
    assert!(counts > OF_ONE, "the flood came through: {counts}");
    assert!(memory(&daemon) < MEMORY_KIB, "{} KiB", memory(&daemon));
}

#[test]
fn nothing_is_lost_by_kill_9() {
    killed(8);
}

#[test]
#[ignore = "takes minutes: make test-flood"]
fn nothing_is_lost_by_two_hundred_kills() {
    killed(200);
}
