use super::shown::tidy_argv;
use super::{Desk, Reload};
use crate::config::Config;
use crate::judged::{Counts, Judged, What};
use crate::ledger::{Reader, TransferFilter};
use crate::model::{Coverage, Verdict};
use crate::sample;
use crate::sinks::JsonLines;
use crossbeam::channel::{bounded, never};
use std::sync::Arc;

fn word(verdict: Verdict) -> Judged {
    let mut transfer = sample::transfer(verdict);
    transfer.ended = jiff::Timestamp::now();
    Judged::Transfer { transfer: Box::new(transfer), context: Box::new(sample::context()) }
}

#[test]
fn everything_comes_out_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let (state, json) = (dir.path().join("state"), dir.path().join("events.jsonl"));
    let desk = Desk::open(&Config::default(), Some(state.clone())).unwrap();
    let desk = desk.reporting(Some(JsonLines::create(&json).unwrap()));
    let (sender, receiver) = bounded(64);
    let altered = word(Verdict::Altered);
    let Judged::Transfer { transfer, context } = &altered else { unreachable!() };
    // Alarmed while open, then final: one alarm, counted once.
    let mut open = sample::notice(What::AlteredWhileOpen {
        channel: transfer.channel,
        altered: transfer.altered.clone(),
        peer: context.destination.clone(),
    });
    open.transfer = Some(transfer.id);
    let observed =
        |observed| Judged::Coverage(Coverage { pid: 1, exe: Some("/x".into()), observed, reason: None });
    for w in [
        observed(true),
        observed(false),
        Judged::Notice(Box::new(open)),
        word(Verdict::Intact),
        altered.clone(),
        word(Verdict::Unverified),
        Judged::Counts(Counts { records: 7, ..Counts::default() }),
    ] {
        sender.send(w).unwrap();
    }
    drop(sender);
    let outcome = desk.serve(&receiver, &never());
    assert_eq!(outcome.alarms.len(), 1);
    assert_eq!(outcome.alarms[0].count, 1);
    assert_eq!(outcome.summary.transfers["intact"], 1);
    assert_eq!(outcome.summary.alarms["payload-altered"], 1);
    assert_eq!((outcome.summary.processes_observed, outcome.summary.processes_not_observed), (1, 1));
    let text = std::fs::read_to_string(&json).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let types: Vec<&str> = lines.iter().map(|l| l["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["coverage", "coverage", "alarm", "transfer", "transfer", "transfer", "summary"]);
    assert_eq!(lines[6]["records"], 7);
    let reader = Reader::open(&state).unwrap();
    assert_eq!(reader.alarms().unwrap(), outcome.alarms);
    let mut n = 0;
    reader
        .transfers(TransferFilter::default(), |_| {
            n += 1;
            true
        })
        .unwrap();
    assert_eq!(n, 3);
    // The next daemon goes on counting.
    let desk = Desk::open(&Config::default(), Some(state)).unwrap();
    let (sender, receiver) = bounded(1);
    sender.send(word(Verdict::Altered)).unwrap();
    drop(sender);
    assert_eq!(desk.serve(&receiver, &never()).alarms[0].count, 2);
}

#[test]
fn a_reload_changes_the_rules() {
    let mut desk = Desk::open(&Config::default(), None).unwrap().reporting(None);
    desk.take(word(Verdict::Altered));
    let text = "[watch]\nmonitored_ports = [25]";
    desk.reload(Reload {
        config: crate::config::parse(text).unwrap().config,
        expected: Arc::default(),
        redact: Arc::new(|argv| argv),
    });
    desk.take(word(Verdict::Altered));
    assert_eq!(desk.finish().alarms[0].count, 1);
}

#[test]
fn no_arguments_are_null() {
    let mut judged = word(Verdict::Intact);
    if let Judged::Transfer { transfer, .. } = &mut judged {
        transfer.origin.as_mut().unwrap().argv = Some(vec![]);
    }
    tidy_argv(&mut judged);
    let Judged::Transfer { transfer, .. } = judged else { unreachable!() };
    assert_eq!(transfer.origin.unwrap().argv, None);
    assert!(transfer.destination.unwrap().argv.is_some());
}
