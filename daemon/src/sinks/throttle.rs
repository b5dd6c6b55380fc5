//! At most so many alarms to a sink in so long, and a word on those that were held back.
//!
//! Comes in: alarms. Goes out: yes or no; and [`Withheld`], a count by rule and severity. Critical alarms have an
//! allowance of their own: no flood of lesser ones holds them back.
#![forbid(unsafe_code)]

use crate::config::Rate;
use crate::model::{Alarm, Severity};
use std::collections::BTreeMap;
use std::time::Instant;

/// Alarms that a sink's receiver was not told of, and lines that it will never get.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Withheld {
    /// Alarms that `rate_limit` held back.
    pub alarms: u64,
    /// The same by severity and rule.
    pub by_rule: BTreeMap<(Severity, String), u64>,
    /// Messages and lines given up because too many waited.
    pub given_up: u64,
}

/// Rules named in a summary; there are fewer.
const RULES: usize = 64;

/// A sink's allowance.
pub(super) struct Throttle {
    rate: Option<Rate>,
    lesser: Bucket,
    critical: Bucket,
    held: Withheld,
    told: Instant,
}

/// What may still go.
struct Bucket {
    left: f64,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let gained = (now - self.filled).as_secs_f64() / rate.per.as_secs_f64() * f64::from(rate.count);
        self.left = (self.left + gained).min(f64::from(rate.count));
        self.filled = now;
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

impl Throttle {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        let now = Instant::now();
        let full = || Bucket { left: rate.map_or(0.0, |r| f64::from(r.count)), filled: now };
        Self { rate, lesser: full(), critical: full(), held: Withheld::default(), told: now }
    }

    /// May this alarm go? Else it is counted.
    pub(super) fn allows(&mut self, alarm: &Alarm, now: Instant) -> bool {
        let Some(rate) = self.rate else { return true };
        let severity = alarm.finding.severity;
        let bucket = if severity == Severity::Critical { &mut self.critical } else { &mut self.lesser };
        let may = bucket.take(rate, now);
        if !may {
            self.held.alarms += 1;
            let key = (severity, alarm.finding.rule.clone());
            if self.held.by_rule.len() < RULES || self.held.by_rule.contains_key(&key) {
                *self.held.by_rule.entry(key).or_default() += 1;
            }
        }
        may
    }

    /// So many more messages were given up.
    pub(super) fn gave_up(&mut self, messages: u64) {
        self.held.given_up += messages;
    }

    /// What to say, once the time of the rate (or a minute) is over; at once if `last`.
    pub(super) fn summary(&mut self, now: Instant, last: bool) -> Option<Withheld> {
        if self.held == Withheld::default() {
            self.told = now;
            return None;
        }
        let every = self.rate.map_or(std::time::Duration::from_secs(60), |r| r.per);
        if !last && now - self.told < every {
            return None;
        }
        self.told = now;
        Some(std::mem::take(&mut self.held))
    }

    /// When [`summary`](Self::summary) has something to say.
    pub(super) fn due(&self) -> Option<Instant> {
        let every = self.rate.map_or(std::time::Duration::from_secs(60), |r| r.per);
        (self.held != Withheld::default()).then(|| self.told + every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::tests::alarm;
    use std::time::Duration;

    #[test]
    fn what_is_held_back_is_counted_and_critical_alarms_have_their_own_allowance() {
        let rate = Rate { count: 5, per: Duration::from_secs(60) };
        let mut throttle = Throttle::new(Some(rate));
        let start = Instant::now();
        let mut low = alarm();
        low.finding.severity = Severity::Low;
        let gone = (0..100).filter(|_| throttle.allows(&low, start)).count();
        assert_eq!(gone, 5);
        assert!(throttle.allows(&alarm(), start), "a critical one among them goes");
        assert_eq!(throttle.summary(start, false), None, "not for each");
        let later = start + Duration::from_secs(61);
        let held = throttle.summary(later, false).unwrap();
        assert_eq!((held.alarms, held.given_up), (95, 0));
        assert_eq!(held.by_rule[&(Severity::Low, "payload-altered".into())], 95);
        assert_eq!(throttle.summary(later, true), None, "said once");
        assert_eq!((0..100).filter(|_| throttle.allows(&low, later)).count(), 5, "a new allowance");
        assert_eq!(throttle.summary(later, true).unwrap().alarms, 95);
    }

    #[test]
    fn without_a_rate_all_go_and_what_was_given_up_is_said() {
        let mut throttle = Throttle::new(None);
        let now = Instant::now();
        assert!((0..10_000).all(|_| throttle.allows(&alarm(), now)));
        assert_eq!(throttle.due(), None);
        throttle.gave_up(3);
        assert!(throttle.due().is_some());
        assert_eq!(throttle.summary(now + Duration::from_secs(61), false).unwrap().given_up, 3);
    }
}
