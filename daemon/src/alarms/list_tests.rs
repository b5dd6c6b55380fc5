//! The list as the desk uses it.

use super::*;
use crate::detect::Rules;
use crate::judged::{Judged, What};
use crate::model::{Range, Verdict};
use crate::sample;

fn altered() -> Finding {
    let t = sample::transfer(Verdict::Altered);
    Rules::default()
        .findings(&Judged::Transfer { transfer: Box::new(t), context: Box::new(sample::context()) })
        .remove(0)
}

fn lost(seen: Timestamp) -> Finding {
    let what = What::CoverageLost { exe: "/opt/x".into(), reason: "static".into(), inherits_tracked: false };
    let mut notice = sample::notice(what);
    notice.seen = seen;
    Rules::default().findings(&Judged::Notice(Box::new(notice))).remove(0)
}

#[test]
fn repeats_count_up_and_are_told_ever_less_often() {
    let mut alarms = Alarms::default();
    let told: Vec<u64> =
        (0..100).map(|_| alarms.take(altered())).filter(|t| t.tell).map(|t| t.alarm.count).collect();
    assert_eq!(told, [1, 2, 4, 8, 16, 32, 64]);
    assert_eq!(alarms.list().len(), 1);
    assert_eq!(alarms.list()[0].count, 100);
    assert_eq!(alarms.untold().len(), 1, "the last count is not lost");
    let mut later = altered();
    later.seen = sample::moment() + SignedDuration::from_secs(61);
    assert!(alarms.take(later).tell);
}

#[test]
fn one_transfer_counts_once_and_its_last_word_replaces_the_first() {
    let mut alarms = Alarms::default();
    let last = altered();
    let mut early = last.clone();
    early.altered.clear();
    let first = alarms.take(early).alarm;
    let second = alarms.take(last.clone());
    assert!(second.tell, "the ranges are news");
    assert_eq!((second.alarm.count, second.alarm.id), (1, first.id));
    assert_eq!(second.alarm.finding.altered, [Range { offset: 16_384, length: 16_384 }]);
    assert!(!alarms.take(last).tell, "nothing new");
    // Another transfer, then a late word on the first: the alarm goes on showing the newer one.
    let newer = altered();
    alarms.take(newer.clone());
    let mut late = altered();
    late.transfer = first.finding.transfer;
    let taken = alarms.take(late);
    assert_eq!((taken.alarm.count, taken.tell), (2, false));
    assert_eq!(taken.alarm.finding.transfer, newer.transfer);
}

/// A socket that isn't connected is one transfer, whoever gets its datagrams.
#[test]
fn one_transfer_to_several_is_an_occurrence_for_each() {
    let mut alarms = Alarms::default();
    let to = |port: u16| {
        let mut f = altered();
        f.transfer = Some(Uuid::nil());
        f.analytic = crate::model::Analytic::An0989;
        let remote = Some(format!("192.0.2.1:{port}"));
        f.connection = Some(crate::model::Connection { remote, ..Default::default() });
        f
    };
    let counts: Vec<u64> = [1, 2, 1, 2, 3].map(|port| alarms.take(to(port)).alarm.count).to_vec();
    assert_eq!(counts, [1, 2, 2, 2, 3]);
}

#[test]
fn a_library_that_answers_for_many_functions_of_a_process_is_one_occurrence() {
    let mut alarms = Alarms::default();
    let mut of = |symbol: &str, pid| {
        let mut f = lost(sample::moment());
        f.rule = "process-anomaly".into();
        f.title = symbol.into();
        f.process.as_mut().unwrap().pid = pid;
        alarms.take(f)
    };
    assert!(of("read", 1).tell);
    let again = of("write", 1);
    assert_eq!((again.alarm.count, again.tell, again.alarm.finding.title.as_str()), (1, false, "read"));
    assert_eq!(of("read", 2).alarm.count, 2);
}

#[test]
fn a_delivered_file_may_change_again() {
    let mut alarms = Alarms::default();
    let mut changed = altered();
    changed.rule = "delivered-file-changed".into();
    assert!(alarms.take(changed.clone()).tell);
    let again = alarms.take(changed);
    assert_eq!((again.alarm.count, again.tell), (2, true));
}

#[test]
fn coverage_lost_is_told_once_a_day() {
    let mut alarms = Alarms::default();
    let start = sample::moment();
    let told: Vec<i64> =
        (0..72).filter(|h| alarms.take(lost(start + SignedDuration::from_hours(*h))).tell).collect();
    assert_eq!(told, [0, 24, 48]);
}

fn nowhere(_: Uuid) -> Option<Finding> {
    None
}

fn ack() -> Asker {
    Asker { uid: Some(7), user: Some("pat".into()), why: "acknowledge".into(), comment: Some("seen".into()) }
}

/// All that the ledger is given.
fn written(alarms: &mut Alarms) -> Vec<AlarmRow> {
    let mut rows: Vec<AlarmRow> = std::iter::from_fn(|| alarms.next_write()).collect();
    for row in &mut rows {
        if let Some(alarm) = &row.alarm {
            row.key = alarm.finding.key.clone();
        }
    }
    rows
}

#[test]
fn an_acknowledged_alarm_that_recurs_is_unacknowledged_again() {
    let mut alarms = Alarms::resume([]);
    let alarm = alarms.take(altered()).alarm;
    let id = alarm.id.to_string();
    let taken = alarms.change(&id, Event::Acknowledge, &ack(), sample::moment(), nowhere).unwrap();
    assert!(taken.tell, "the sinks hear of it");
    let rows = written(&mut alarms);
    let steps: Vec<_> = rows[0].changes.iter().map(|c| (c.from, c.to, c.uid, c.comment.as_deref())).collect();
    assert_eq!(
        steps,
        [
            (None, AlarmState::Unacknowledged, None, None),
            (Some(AlarmState::Unacknowledged), AlarmState::Acknowledged, Some(7), Some("seen")),
        ]
    );
    // A restart in between.
    let mut alarms = Alarms::resume(rows);
    assert!(alarms.list().is_empty(), "what is only in the ledger is not this process's");
    let again = alarms.take(altered());
    assert!(again.tell);
    let again = again.alarm;
    assert_eq!((again.id, again.count, again.state), (alarm.id, 2, AlarmState::Unacknowledged));
    let changed = again.changed.unwrap();
    assert_eq!((changed.from, changed.uid), (Some(AlarmState::Acknowledged), None));
}

#[test]
fn what_is_shelved_is_counted_and_not_told() {
    let mut alarms = Alarms::resume([]);
    let id = alarms.take(altered()).alarm.id.to_string();
    let now = sample::moment();
    let until = now + SignedDuration::from_hours(1);
    let by = Asker { why: "shelve".into(), ..ack() };
    let shelved = alarms.change(&id, Event::Shelve(until), &by, now, nowhere).unwrap().alarm;
    assert_eq!(shelved.changed.unwrap().until, Some(until));
    assert_eq!(alarms.next_end(), Some(until));
    for _ in 0..5 {
        let taken = alarms.take(altered());
        assert!(!taken.tell && taken.alarm.state == AlarmState::Shelved);
    }
    assert!(alarms.untold().is_empty());
    assert!(alarms.end_shelves(until - SignedDuration::from_secs(1), nowhere).is_empty());
    let back = alarms.end_shelves(until, nowhere);
    assert_eq!(back.len(), 1);
    let alarm = &back[0].alarm;
    assert!(back[0].tell);
    assert_eq!((alarm.state, alarm.count), (AlarmState::Unacknowledged, 6));
    assert_eq!(alarm.changed.as_ref().unwrap().uid, None, "nobody asked for it");
    assert_eq!(alarms.next_end(), None);
}

#[test]
fn what_gets_graver_comes_off_its_shelf() {
    let mut alarms = Alarms::resume([]);
    let mut mild = altered();
    mild.severity = crate::model::Severity::Low;
    let id = alarms.take(mild.clone()).alarm.id.to_string();
    let until = sample::moment() + SignedDuration::from_hours(1);
    alarms.change(&id, Event::Shelve(until), &ack(), sample::moment(), nowhere).unwrap();
    mild.transfer = Some(Uuid::now_v7());
    assert!(!alarms.take(mild).tell);
    let graver = alarms.take(altered());
    assert!(graver.tell);
    assert_eq!(graver.alarm.state, AlarmState::Unacknowledged);
    // What is suppressed by design is so whatever happens.
    alarms.change(&id, Event::Suppress, &ack(), sample::moment(), nowhere).unwrap();
    assert!(!alarms.take(altered()).tell);
}

/// A process alarm, as `intake` brings it.
fn point(value: f64) -> Finding {
    let mut f = crate::detect::finding("process-alarm", crate::model::Severity::High, sample::moment());
    f.key = "process-alarm tag=\"TI-101\" condition=\"HI\"".into();
    f.point = Some(serde_json::json!({"tag": "TI-101", "condition": "HI", "value": value}));
    f
}

fn over(point: Option<serde_json::Value>) -> entry::Returned {
    entry::Returned { key: self::point(0.0).key, seen: sample::moment(), point }
}

#[test]
fn a_process_alarm_goes_on_returns_and_comes_back() {
    let mut alarms = Alarms::resume([]);
    let id = alarms.take(point(92.4)).alarm.id.to_string();
    let on = alarms.take(point(93.0));
    assert!(!on.tell, "it goes on");
    assert_eq!((on.alarm.count, &on.alarm.finding.point.unwrap()["value"]), (1, &93.0.into()));
    alarms.change(&id, Event::Acknowledge, &ack(), sample::moment(), nowhere).unwrap();
    assert_eq!(alarms.take(point(94.0)).alarm.state, AlarmState::Acknowledged, "and somebody has seen it");
    let back = alarms.returned(&over(Some(serde_json::json!({"value": 80.0}))), nowhere).unwrap();
    assert!(back.tell);
    assert_eq!(
        (back.alarm.state, &back.alarm.finding.point.unwrap()["value"]),
        (AlarmState::Normal, &80.0.into())
    );
    assert!(alarms.returned(&over(None), nowhere).is_none(), "known");
    let again = alarms.take(point(92.0));
    assert!(again.tell);
    assert_eq!((again.alarm.state, again.alarm.count), (AlarmState::Unacknowledged, 2));
    let unseen = alarms.returned(&over(None), nowhere).unwrap();
    assert_eq!(unseen.alarm.state, AlarmState::Returned);
    // Somebody at the control system sees it.
    let said = entry::Said {
        key: point(0.0).key,
        seen: sample::moment(),
        state: AlarmState::Normal,
        by: Some("operator3 at HMI".into()),
        until: None,
    };
    let seen = alarms.said(&said, nowhere).unwrap().alarm;
    assert_eq!(seen.state, AlarmState::Normal);
    assert_eq!(seen.changed.unwrap().user.as_deref(), Some("operator3 at HMI"));
}

#[test]
fn one_sort_cannot_fill_the_list_and_nothing_is_uncounted() {
    let mut alarms = Alarms::default();
    let total = room::OF_ONE_SORT + 500;
    for i in 0..total {
        let mut f = altered();
        f.key = format!("k{i}");
        alarms.take(f);
    }
    let mut other = lost(sample::moment());
    other.key = "another".into();
    assert_eq!(alarms.take(other).alarm.finding.key, "another", "there is room for others");
    let list = alarms.list();
    assert_eq!(list.len(), room::OF_ONE_SORT + 2);
    assert_eq!(list.iter().map(|a| a.count).sum::<u64>(), total as u64 + 1);
    let together: Vec<_> = list.iter().filter(|a| a.finding.evidence["together"] == true).collect();
    assert_eq!(together.len(), 1);
    assert_eq!(together[0].count, 500);
    assert!(together[0].finding.transfer.is_none() && together[0].finding.message.contains("flood"));
}

#[test]
fn what_is_cleared_makes_room() {
    let mut alarms = Alarms::default();
    let of = |i: usize| {
        let mut f = altered();
        f.key = format!("k{i}");
        f
    };
    let ids: Vec<String> = (0..room::OF_ONE_SORT).map(|i| alarms.take(of(i)).alarm.id.to_string()).collect();
    assert_eq!(alarms.take(of(9000)).alarm.finding.evidence["together"], true);
    alarms.change(&ids[7], Event::Clear, &ack(), sample::moment(), nowhere).unwrap();
    alarms.swept = None;
    assert_eq!(alarms.take(of(9001)).alarm.finding.key, "k9001");
    assert!(alarms.find(&ids[7]).is_err() && alarms.find(&ids[8]).is_ok());
}

#[test]
fn what_the_ledger_forgot_is_forgotten() {
    let mut alarms = Alarms::resume([]);
    let id = alarms.take(altered()).alarm.id.to_string();
    let after = sample::moment() + SignedDuration::from_secs(1);
    alarms.forget(after);
    assert!(alarms.find(&id).is_ok(), "not before it is written");
    written(&mut alarms);
    alarms.change(&id, Event::Suppress, &ack(), sample::moment(), nowhere).unwrap();
    written(&mut alarms);
    alarms.forget(after);
    assert!(alarms.find(&id).is_ok(), "somebody holds it");
    alarms.change(&id, Event::Unsuppress, &ack(), sample::moment(), nowhere).unwrap();
    written(&mut alarms);
    alarms.forget(after);
    assert!(alarms.find(&id).is_err());
}

#[test]
fn findings_in_memory_are_bounded_and_none_leaves_untold() {
    let mut alarms = Alarms::default();
    let mut told = 0;
    for i in 0..WHOLE + 100 {
        let mut f = altered();
        f.key = format!("k{i}");
        // Each of another program, or they were one sort.
        f.process.as_mut().unwrap().exe = Some(format!("/opt/{i}"));
        for n in [1, 2, 3] {
            let mut f = f.clone();
            f.transfer = Some(Uuid::now_v7());
            let taken = alarms.take(f);
            assert_eq!(taken.alarm.count, n);
        }
        told += alarms.leaving().iter().filter(|a| a.count == 3).count();
    }
    assert_eq!(alarms.list().len(), WHOLE);
    assert_eq!(told, 100);
    assert_eq!(alarms.by_rule()["payload-altered"], (WHOLE + 100) as u64);
}

#[test]
fn a_ledger_that_takes_nothing_bounds_what_waits() {
    let mut alarms = Alarms::resume([]);
    for i in 0..UNWRITTEN * 3 {
        let mut f = altered();
        f.key = format!("k{i}");
        f.process.as_mut().unwrap().exe = Some(format!("/opt/{i}"));
        alarms.take(f);
    }
    assert!(alarms.unwritten() <= UNWRITTEN + 1, "{}", alarms.unwritten());
    assert_eq!(alarms.list().iter().map(|a| a.count).sum::<u64>(), UNWRITTEN as u64 * 3);
    let rows = written(&mut alarms);
    assert_eq!(rows.iter().map(|r| r.count).sum::<u64>(), UNWRITTEN as u64 * 3);
    // One that came back is given again, with what came meanwhile.
    let row = rows.into_iter().next().unwrap();
    let (id, changes) = (row.id, row.changes.len());
    alarms.put_back(row);
    let again = written(&mut alarms);
    assert_eq!((again.len(), again[0].id, again[0].changes.len()), (1, id, changes));
}

#[test]
fn three_times_a_minute_is_chatter() {
    let mut alarms = Alarms::resume([]);
    let mut at = |seconds| {
        let mut f = altered();
        f.seen = sample::moment() + SignedDuration::from_secs(seconds);
        alarms.take(f);
        written(&mut alarms).remove(0).chattered.is_some()
    };
    assert!(!at(0) && !at(50) && !at(100) && !at(150));
    assert!(at(155));
}

#[test]
fn what_is_suppressed_by_design_is_counted_and_not_told() {
    let entry = |by: &str| {
        let text = format!(
            "[[alarms.suppress]]\n{by}\nowner = \"ann\"\nreason = \"known\"\nexpires = \"2100-01-01\""
        );
        crate::config::parse(&text).unwrap().config.alarms.suppress
    };
    let mut alarms = Alarms::default();
    assert!(alarms.design(entry("rule = \"coverage-lost\"")).is_empty());
    let taken = alarms.take(lost(sample::moment()));
    assert_eq!((taken.alarm.state, taken.tell), (AlarmState::Suppressed, false));
    let again = alarms.take(lost(sample::moment() + DAY * 2));
    assert_eq!((again.alarm.state, again.alarm.count, again.tell), (AlarmState::Suppressed, 2, false));
    let other = alarms.take(altered());
    assert_eq!((other.alarm.state, other.tell), (AlarmState::Unacknowledged, true));
    // Another entry: the one is back, the other is held; who knew of them is told.
    let now = sample::moment() + DAY * 3;
    let concerned = alarms.design(entry("rule = \"payload-*\""));
    assert_eq!(concerned.len(), 2);
    let states: HashMap<Uuid, (AlarmState, bool)> = concerned
        .iter()
        .filter_map(|id| alarms.redesign(*id, now, |_| None))
        .map(|taken| (taken.alarm.id, (taken.alarm.state, taken.tell)))
        .collect();
    assert_eq!(states[&taken.alarm.id], (AlarmState::Unacknowledged, true));
    assert_eq!(states[&other.alarm.id], (AlarmState::Suppressed, true));
    // The same again changes nothing.
    let concerned = alarms.design(entry("rule = \"payload-*\""));
    assert!(concerned.iter().all(|id| alarms.redesign(*id, now, |_| None).is_none()));
    // What somebody has put away stays where it is.
    let by = Asker::default();
    alarms.change(&taken.alarm.id.to_string(), Event::Suppress, &by, now, |_| None).unwrap();
    alarms.design(entry("rule = \"coverage-lost\""));
    alarms.design(vec![]);
    assert!(alarms.redesign(taken.alarm.id, now, |_| None).is_none());
    assert!(alarms.redesign(other.alarm.id, now, |_| None).is_some());
}
