//! A sink never hears of what the ledger doesn't know, and hears of everything that it knows, once and in order: at
//! whichever change of a file the daemon is killed.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::program::{self, json_lines};
use counterfoil_tests::{fixtures, wait};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
/// Alarms of one round.
const KEYS: usize = 4;
/// Rounds of raising, acknowledging and coming up again in which a daemon has to come to its end.
const TRIES: usize = 8;

struct Plant {
    daemon: Daemon,
    names: PathBuf,
    rounds: usize,
}

impl Plant {
    fn new(rounds: usize) -> Self {
        let daemon = Daemon::start("");
        let names = daemon.scratch.at("names");
        std::fs::create_dir(&names).unwrap();
        std::fs::copy(fixtures::fixture("start_static"), names.join("program")).unwrap();
        for i in 0..KEYS * rounds {
            std::fs::hard_link(names.join("program"), names.join(i.to_string())).unwrap();
        }
        Self { daemon, names, rounds }
    }

    /// The alarms of one round come up, or come up again.
    fn provoke(&self, round: usize) {
        let (names, socket) = (self.names.display().to_string(), self.daemon.socket().display().to_string());
        let (from, all) = (round * KEYS, self.rounds * KEYS);
        let numbers = [KEYS, all].map(|n| n.to_string());
        let fixture = fixtures::fixture("flood");
        let words = [
            &["exec", "--socket", &socket, "--", &fixture][..],
            &[&numbers[0], &numbers[1], &names, &from.to_string()],
        ];
        // With or without a daemon that answers.
        program::counterfoil(&words.concat());
    }

    fn alarms(&self, words: &[&str]) -> counterfoil_tests::Run {
        let state = self.daemon.state().display().to_string();
        program::counterfoil(&[&["alarms", "--state", &state], words].concat())
    }

    /// What the ledger has, by id.
    fn known(&self) -> HashMap<String, Value> {
        let all = json_lines(&self.alarms(&["list", "--all", "--json"]).well());
        all.into_iter().map(|a| (a["id"].as_str().unwrap().to_owned(), a)).collect()
    }

    /// What the sink has; none of it twice.
    fn heard(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.daemon.scratch.at("events.jsonl")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut lines = HashSet::new();
        let mut alarms = Vec::new();
        for line in whole.lines() {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            if event["type"] == "alarm" {
                assert!(lines.insert(line), "twice: {line}");
                alarms.push(event);
            }
        }
        alarms
    }

    /// The sink has heard of nothing that the ledger does not know.
    fn nothing_but_what_is_known(&self, at: &str) {
        let known = self.known();
        for line in self.heard() {
            let id = line["id"].as_str().unwrap();
            let alarm = known.get(id).unwrap_or_else(|| panic!("{at}: {}", self.daemon.shown(id)));
            let ahead = line["count"].as_u64() > alarm["count"].as_u64() || changed(&line) > changed(alarm);
            assert!(!ahead, "{at}: the sink has {line}, the ledger {alarm}");
        }
    }

    /// The sink has the last word on everything that the ledger knows, each word in order.
    fn all_that_is_known(&self, at: &str) {
        let mut last = HashMap::new();
        let told = wait::poll(PATIENCE, || {
            last.clear();
            for line in self.heard() {
                let id = line["id"].as_str().unwrap().to_owned();
                if let Some(before) = last.insert(id, changed(&line)) {
                    assert!(before <= changed(&line), "{at}: behind its time: {line}");
                }
            }
            let known = self.known();
            (known.iter().all(|(id, a)| last.get(id) == Some(&changed(a)))).then_some(())
        });
        if told.is_none() {
            let untold: Vec<_> =
                self.known().into_iter().filter(|(id, a)| last.get(id) != Some(&changed(a))).collect();
            panic!("{at}: the sink was not told of {untold:#?}\n{}", self.daemon.shown(""));
        }
    }
}

/// When the alarm came into its state; fixed in length, so it can be compared as text.
fn changed(alarm: &Value) -> String {
    alarm["changed"]["at"].as_str().unwrap().to_owned()
}

/// The daemon ends at the `nth` change of such a file. False: there were not so many.
fn round(plant: &mut Plant, round: usize, part: &str, nth: u32) -> bool {
    let at = format!("{part}:{nth}");
    plant.daemon.kill();
    let mut lives = plant.daemon.launch_dying(part, nth);
    for _ in 0..TRIES {
        if !lives {
            break;
        }
        plant.provoke(round);
        plant.alarms(&["ack", "--status", "unacknowledged", "--comment", &at]);
        lives = plant.daemon.alive();
    }
    if lives {
        plant.daemon.kill();
    }
    plant.nothing_but_what_is_known(&at);
    plant.daemon.launch();
    plant.provoke(round);
    plant.all_that_is_known(&at);
    !lives
}

fn killed_at(part: &str, times: u32) {
    let mut plant = Plant::new(times as usize);
    let mut died = 0;
    for nth in 1..=times {
        died += u32::from(round(&mut plant, nth as usize - 1, part, nth));
    }
    println!("{part}: {died} of {times} ended there");
    assert!(died * 4 >= times * 3, "{part}: only {died} of {times} came to their end there");
    let known = plant.known().len();
    assert!(known > KEYS, "{known} alarms");
    assert!(Path::new(&plant.daemon.state().join("ledger.sqlite")).exists());
}

#[test]
fn killed_while_the_ledger_is_written() {
    killed_at("ledger.sqlite-wal", 16);
}

#[test]
fn killed_while_the_queue_is_written() {
    killed_at("/spool/", 16);
}

#[test]
fn killed_while_the_sink_is_written() {
    killed_at("events.jsonl", 10);
}
