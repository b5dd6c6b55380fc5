//! Alarms: findings kept and counted, one for each key.
//!
//! Comes in: a [`Finding`]. Goes out: the [`Alarm`] that it raised or counts towards, and whether
//! the sinks hear of it. Called by `desk`.
//!
//! Quiet by construction: the first occurrence is told at once, repeats when their number doubles
//! or after a minute; `coverage-lost` once a day. One transfer counts once towards one alarm, so an
//! alteration that was alarmed while the connection was open is not counted again at its end.
#![forbid(unsafe_code)]

pub mod entry;

use crate::model::{Alarm, AlarmState, Finding};
use jiff::{SignedDuration, Timestamp};
use std::collections::{HashMap, HashSet, VecDeque};
use uuid::Uuid;

/// Alarms kept in memory; the ledger has all of them.
const KEPT: usize = 10_000;
/// Pairs of an alarm and what was counted towards it once, remembered.
const COUNTED: usize = 65_536;
const DAY: SignedDuration = SignedDuration::from_hours(24);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// The alarm list.
#[derive(Default)]
pub struct Alarms {
    by_key: HashMap<String, Kept>,
    counted: HashSet<(String, String)>,
    order: VecDeque<(String, String)>,
}

struct Kept {
    alarm: Alarm,
    told: Timestamp,
    told_count: u64,
    /// Raised or counted up since this process began, not only found in the ledger.
    fresh: bool,
}

/// What became of a finding.
#[derive(Debug)]
pub struct Taken {
    /// The alarm as it stands now.
    pub alarm: Alarm,
    /// The sinks hear of it.
    pub tell: bool,
}

impl Alarms {
    /// Goes on with alarms from the ledger.
    pub fn resume(&mut self, alarms: impl IntoIterator<Item = Alarm>) {
        for alarm in alarms {
            if self.by_key.len() >= KEPT {
                break;
            }
            let (told, told_count) = (alarm.last, alarm.count);
            self.by_key.insert(alarm.finding.key.clone(), Kept { alarm, told, told_count, fresh: false });
        }
    }

    /// Raises an alarm, or counts the finding towards the one that has its key.
    pub fn take(&mut self, finding: Finding) -> Taken {
        let again = !self.first_time(&finding);
        let Some(kept) = self.by_key.get_mut(&finding.key) else {
            return self.raise(finding);
        };
        let seen = finding.seen;
        kept.fresh = true;
        let alarm = &mut kept.alarm;
        alarm.last = alarm.last.max(seen);
        let worse = finding.severity > alarm.finding.severity;
        if again {
            // The last word on a transfer that was counted: it knows more, if it is about the one
            // that the alarm shows.
            let same = finding.transfer.is_some() && finding.transfer == alarm.finding.transfer;
            let news = same && finding.altered != alarm.finding.altered;
            if same {
                alarm.finding = finding;
            }
            return Taken { alarm: alarm.clone(), tell: news || worse };
        }
        alarm.count += 1;
        if alarm.state == AlarmState::Acknowledged {
            alarm.state = AlarmState::Unacknowledged;
        }
        let since = seen.duration_since(kept.told);
        let tell = worse
            || match finding.rule.as_str() {
                "coverage-lost" => since >= DAY,
                _ => alarm.count >= kept.told_count.saturating_mul(2) || since >= MINUTE,
            };
        alarm.finding = finding;
        if tell {
            (kept.told, kept.told_count) = (seen, alarm.count);
        }
        Taken { alarm: kept.alarm.clone(), tell }
    }

    /// Every alarm that was raised or counted up by this process, the worst first, then in order of
    /// their raising.
    #[must_use]
    pub fn list(&self) -> Vec<&Alarm> {
        let mut all: Vec<&Alarm> = self.by_key.values().filter(|k| k.fresh).map(|k| &k.alarm).collect();
        all.sort_by_key(|a| (std::cmp::Reverse(a.finding.severity), a.raised, a.id));
        all
    }

    /// Alarms that were counted up since the sinks last heard of them.
    #[must_use]
    pub fn untold(&self) -> Vec<&Alarm> {
        self.by_key.values().filter(|k| k.alarm.count != k.told_count).map(|k| &k.alarm).collect()
    }

    fn raise(&mut self, finding: Finding) -> Taken {
        if self.by_key.len() >= KEPT {
            let oldest = self.by_key.iter().min_by_key(|(_, k)| k.alarm.last).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.by_key.remove(&key));
        }
        let seen = finding.seen;
        let alarm = Alarm {
            id: Uuid::now_v7(),
            state: AlarmState::Unacknowledged,
            count: 1,
            raised: seen,
            last: seen,
            finding,
        };
        let kept = Kept { alarm: alarm.clone(), told: seen, told_count: 1, fresh: true };
        self.by_key.insert(alarm.finding.key.clone(), kept);
        Taken { alarm, tell: true }
    }

    /// False if this was counted already: the same transfer, or, for a library that answers for many
    /// functions of a process, the same process.
    fn first_time(&mut self, finding: &Finding) -> bool {
        let process = finding.process.as_ref().filter(|_| finding.rule == "process-anomaly");
        // Another tracer, or another writer, is another occurrence.
        let by = |name: &str| finding.evidence[name]["pid"].as_u64().unwrap_or(0);
        let process = process.map(|p| format!("{} {:?} {} {}", p.pid, p.started, by("tracer"), by("writer")));
        // A file can change many times after the one transfer that brought it.
        let transfer = finding.transfer.filter(|_| finding.rule != "delivered-file-changed");
        let Some(what) = transfer.map(|t| t.to_string()).or(process) else { return true };
        // The key, not the rule: two libraries in one process are two anomalies of one transfer.
        let pair = (finding.key.clone(), what);
        if !self.counted.insert(pair.clone()) {
            return false;
        }
        self.order.push_back(pair);
        if self.order.len() > COUNTED
            && let Some(oldest) = self.order.pop_front()
        {
            self.counted.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
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
        let what =
            What::CoverageLost { exe: "/opt/x".into(), reason: "static".into(), inherits_tracked: false };
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

    #[test]
    fn an_acknowledged_alarm_that_recurs_is_unacknowledged_again() {
        let mut alarms = Alarms::default();
        let mut alarm = alarms.take(altered()).alarm;
        alarm.state = AlarmState::Acknowledged;
        let mut alarms = Alarms::default();
        alarms.resume([alarm.clone()]);
        assert!(alarms.list().is_empty(), "what is only in the ledger is not this process's");
        let again = alarms.take(altered()).alarm;
        assert_eq!((again.id, again.count, again.state), (alarm.id, 2, AlarmState::Unacknowledged));
    }

    #[test]
    fn memory_is_bounded() {
        let mut alarms = Alarms::default();
        for i in 0..KEPT + 10 {
            let mut f = altered();
            f.key = format!("k{i}");
            f.seen += SignedDuration::from_nanos(i as i64);
            alarms.take(f);
        }
        assert_eq!(alarms.by_key.len(), KEPT);
        assert!(!alarms.by_key.contains_key("k0"), "the oldest goes");
    }
}
