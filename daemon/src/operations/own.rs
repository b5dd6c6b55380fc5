//! Counterfoil's own process variables: how much is transferred, how well, and how the daemon keeps up.
//!
//! Comes in: final transfers and running totals. Goes out: a sample of each variable, once a second. Called by
//! `operations`, only where one of them has limits.
#![forbid(unsafe_code)]

use crate::judged::Counts;
use crate::model::{Transfer, Verdict};
use std::collections::VecDeque;
use std::time::Duration;

/// `counterfoil.volume` is of so many seconds.
const VOLUME: usize = 300;
/// `counterfoil.error_rate` and `counterfoil.dropped` are of so many.
const MINUTE: usize = 60;
/// Seconds that pass at once count as that many, up to here.
const LONGEST: u64 = VOLUME as u64;

#[derive(Clone, Copy, Default)]
struct Second {
    bytes: u64,
    dropped: u64,
    transfers: u64,
    wrong: u64,
}

/// What is measured.
#[derive(Default)]
pub struct Own {
    seconds: VecDeque<Second>,
    running: Second,
    counts: Counts,
    before: Counts,
    lag: Duration,
    at: Option<Duration>,
}

impl Own {
    /// A final transfer.
    pub fn transfer(&mut self, transfer: &Transfer) {
        self.running.transfers += 1;
        self.running.wrong += u64::from(matches!(transfer.verdict, Verdict::Altered | Verdict::Truncated));
    }

    /// Running totals, and how long ago they were true.
    pub fn counts(&mut self, counts: Counts, age: Duration) {
        self.counts = counts;
        self.lag = self.lag.max(age).max(Duration::from_millis(counts.lag));
    }

    /// The variables as they are now, at most once a second.
    pub fn sample(&mut self, now: Duration) -> Vec<(&'static str, f64)> {
        let Some(at) = self.at else {
            (self.at, self.before) = (Some(now), self.counts);
            return vec![];
        };
        let passed = now.saturating_sub(at);
        if passed < Duration::from_secs(1) {
            return vec![];
        }
        self.at = Some(now);
        let (counts, before) = (self.counts, std::mem::replace(&mut self.before, self.counts));
        let mut second = std::mem::take(&mut self.running);
        second.bytes = counts.bytes.saturating_sub(before.bytes);
        second.dropped = counts.dropped.saturating_sub(before.dropped);
        let rate = second.bytes as f64 / passed.as_secs_f64();
        // A late look is one of several seconds: what it counts is not to stay in the window for longer.
        for _ in 1..passed.as_secs().min(LONGEST) {
            self.seconds.push_back(Second::default());
        }
        self.seconds.push_back(second);
        while self.seconds.len() > VOLUME {
            self.seconds.pop_front();
        }
        let volume: u64 = self.seconds.iter().map(|s| s.bytes).fold(0, u64::saturating_add);
        let minute = || self.seconds.iter().rev().take(MINUTE);
        let (ended, wrong) = minute().fold((0u64, 0u64), |(e, w), s| (e + s.transfers, w + s.wrong));
        let dropped: u64 = minute().map(|s| s.dropped).fold(0, u64::saturating_add);
        let lag = std::mem::take(&mut self.lag);
        vec![
            ("counterfoil.rate", rate),
            ("counterfoil.volume", volume as f64),
            ("counterfoil.sessions", counts.sessions as f64),
            ("counterfoil.error_rate", if ended == 0 { 0.0 } else { wrong as f64 * 100.0 / ended as f64 }),
            ("counterfoil.lane_pressure", f64::from(counts.pressure)),
            ("counterfoil.dropped", dropped as f64),
            ("counterfoil.lag", lag.as_secs_f64() * 1000.0),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::limit::OWN_VARIABLES;
    use crate::sample;
    use std::collections::HashMap;

    fn at(own: &mut Own, second: u64) -> HashMap<&'static str, f64> {
        own.sample(Duration::from_secs(second)).into_iter().collect()
    }

    #[test]
    fn every_variable_is_measured() {
        let mut own = Own::default();
        assert!(at(&mut own, 0).is_empty(), "a rate needs two moments");
        own.counts(
            Counts { records: 9, dropped: 4, bytes: 1000, sessions: 3, pressure: 40, lag: 7, at: 0 },
            Duration::from_millis(2),
        );
        for verdict in [Verdict::Intact, Verdict::Altered, Verdict::Unverified, Verdict::Truncated] {
            own.transfer(&sample::transfer(verdict));
        }
        let now = at(&mut own, 2);
        let mut names: Vec<_> = now.keys().copied().collect();
        names.sort_unstable();
        let mut known = OWN_VARIABLES.to_vec();
        known.sort_unstable();
        assert_eq!(names, known);
        assert_eq!((now["counterfoil.rate"], now["counterfoil.volume"]), (500.0, 1000.0));
        assert_eq!((now["counterfoil.error_rate"], now["counterfoil.dropped"]), (50.0, 4.0));
        assert_eq!((now["counterfoil.lane_pressure"], now["counterfoil.lag"]), (40.0, 7.0));
        assert!(own.sample(Duration::from_millis(2500)).is_empty());
        let later = at(&mut own, 63);
        assert_eq!((later["counterfoil.rate"], later["counterfoil.volume"]), (0.0, 1000.0));
        assert_eq!((later["counterfoil.error_rate"], later["counterfoil.dropped"]), (0.0, 0.0));
        assert_eq!(later["counterfoil.lag"], 0.0);
        assert_eq!(at(&mut own, 400)["counterfoil.volume"], 0.0);
    }

    /// Issue of every limit: what hovers at it must not ring sixty times. Here for what we measure ourselves; for telemetry
    /// see `tests/intake.rs`.
    #[test]
    fn a_transfer_variable_that_hovers_raises_one_alarm_not_sixty() {
        use super::super::limits::Limits;
        use crate::config::Limit;
        let limit = |variable: &str, hi: f64, deadband: f64| Limit {
            variable: format!("counterfoil.{variable}"),
            hi: Some(hi),
            deadband,
            ..Limit::default()
        };
        let hovers = [
            limit("rate", 89_500.0, 2000.0),
            limit("sessions", 10.0, 2.0),
            limit("lane_pressure", 50.0, 5.0),
            limit("lag", 100.0, 20.0),
        ];
        let (mut own, mut limits, mut bytes) = (Own::default(), Limits::new(&hovers), 0);
        let mut raised: HashMap<String, u32> = HashMap::new();
        for second in 0..62 {
            let high = second % 2 == 0;
            let of = |up, down| if high { up } else { down };
            bytes += of(90_000, 88_000);
            let counts = Counts {
                bytes,
                sessions: of(11, 9),
                pressure: if high { 52 } else { 48 },
                lag: of(110, 90),
                ..Counts::default()
            };
            own.counts(counts, Duration::ZERO);
            let now = Duration::from_secs(second);
            for (variable, value) in own.sample(now) {
                for edge in limits.sample(variable, value, now).into_iter().filter(|e| e.holds) {
                    *raised.entry(edge.variable).or_default() += 1;
                }
            }
        }
        let once = hovers.iter().map(|l| (l.variable.clone(), 1)).collect();
        assert_eq!(raised, once);
    }
}
