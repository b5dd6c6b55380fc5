//! Limits of process variables: HIHI, HI, LO and LOLO, with a deadband and delays.
//!
//! Comes in: samples, and the passing of time. Goes out: [`Edge`]s, where an alarm begins or ends. Pure: times are given,
//! spans since any fixed moment. Called by `operations`.
//!
//! A value is beyond a limit when it has passed it, not when it stands at it. It is back when it has come back by the
//! deadband; in between, what was so far stays. Both have to last for their delay, and a value holds until the next one
//! comes. What was before the daemon started is not known: the first word about a condition says how it is, even that it
//! is over, since an alarm of an earlier daemon may wait for that.
#![forbid(unsafe_code)]

use crate::config::Limit;
use crate::intake::Condition;
use std::collections::HashMap;
use std::time::Duration;

/// A condition came up, or is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// The variable.
    pub variable: String,
    /// Which of its limits.
    pub condition: Condition,
    /// It holds now; else it is over.
    pub holds: bool,
    /// The value that decided it.
    pub value: f64,
    /// The limit.
    pub limit: f64,
    /// `°C` …
    pub unit: Option<String>,
    /// The deadband, for who asks why.
    pub deadband: f64,
    /// How long it took.
    pub delay: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Unknown,
    Normal,
    Active,
}

struct Threshold {
    condition: Condition,
    limit: f64,
    /// 1: too high; −1: too low.
    sign: f64,
    standing: Standing,
    /// Since when the value is where the standing should change: beyond (true), or back.
    leaning: Option<(bool, Duration)>,
}

struct Watch {
    settings: Limit,
    thresholds: Vec<Threshold>,
    last: Option<f64>,
}

/// All limits.
#[derive(Default)]
pub struct Limits {
    by_variable: HashMap<String, Vec<Watch>>,
}

impl Limits {
    /// As configured.
    #[must_use]
    pub fn new(settings: &[Limit]) -> Self {
        let mut all = Self::default();
        for settings in settings {
            let of = |condition, limit: Option<f64>, sign| {
                limit.map(|limit| Threshold {
                    condition,
                    limit,
                    sign,
                    standing: Standing::Unknown,
                    leaning: None,
                })
            };
            let thresholds = [
                of(Condition::Hihi, settings.hihi, 1.0),
                of(Condition::Hi, settings.hi, 1.0),
                of(Condition::Lo, settings.lo, -1.0),
                of(Condition::Lolo, settings.lolo, -1.0),
            ];
            let watch = Watch {
                settings: settings.clone(),
                thresholds: thresholds.into_iter().flatten().collect(),
                last: None,
            };
            all.by_variable.entry(settings.variable.clone()).or_default().push(watch);
        }
        all
    }

    /// True if no variable has limits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_variable.is_empty()
    }

    /// True if this variable has limits.
    #[must_use]
    pub fn knows(&self, variable: &str) -> bool {
        self.by_variable.contains_key(variable)
    }

    /// A variable has this value now. What is no number changes nothing.
    pub fn sample(&mut self, variable: &str, value: f64, now: Duration) -> Vec<Edge> {
        let Some(watches) = self.by_variable.get_mut(variable).filter(|_| value.is_finite()) else {
            return vec![];
        };
        watches
            .iter_mut()
            .flat_map(|watch| {
                watch.last = Some(value);
                watch.look(now)
            })
            .collect()
    }

    /// Time went by: delays may be over.
    pub fn tick(&mut self, now: Duration) -> Vec<Edge> {
        self.by_variable.values_mut().flatten().flat_map(|watch| watch.look(now)).collect()
    }
}

impl Watch {
    fn look(&mut self, now: Duration) -> Vec<Edge> {
        let Some(value) = self.last else { return vec![] };
        let Limit { variable, deadband, on_delay, off_delay, unit, .. } = &self.settings;
        let mut edges = Vec::new();
        for t in &mut self.thresholds {
            let Some(holds) = t.look(value, *deadband, (*on_delay, *off_delay), now) else { continue };
            edges.push(Edge {
                variable: variable.clone(),
                condition: t.condition,
                holds,
                value,
                limit: t.limit,
                unit: unit.clone(),
                deadband: *deadband,
                delay: if holds { *on_delay } else { *off_delay },
            });
        }
        edges
    }
}

impl Threshold {
    /// Some: the condition holds from now on, or doesn't.
    fn look(
        &mut self,
        value: f64,
        deadband: f64,
        delays: (Duration, Duration),
        now: Duration,
    ) -> Option<bool> {
        let past = self.sign * (value - self.limit);
        let leans = match self.standing {
            Standing::Active if past <= -deadband => Some(false),
            Standing::Unknown if past > 0.0 => Some(true),
            Standing::Unknown if past <= -deadband => Some(false),
            Standing::Normal if past > 0.0 => Some(true),
            _ => None,
        };
        let Some(to) = leans else {
            self.leaning = None;
            return None;
        };
        let since = match self.leaning {
            Some((was, since)) if was == to => since,
            _ => now,
        };
        self.leaning = Some((to, since));
        if now.saturating_sub(since) < if to { delays.0 } else { delays.1 } {
            return None;
        }
        self.leaning = None;
        self.standing = if to { Standing::Active } else { Standing::Normal };
        Some(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> Limit {
        Limit { variable: "T".into(), hi: Some(80.0), ..Limit::default() }
    }

    /// Samples at seconds, and what they give: `+HI`, `-HI`.
    fn edges(limit: &Limit, samples: &[(u64, f64)]) -> Vec<(u64, String)> {
        let mut limits = Limits::new(std::slice::from_ref(limit));
        let mut found = Vec::new();
        let mut at = 0;
        let word = |e: Edge| format!("{}{}", if e.holds { '+' } else { '-' }, e.condition.word());
        for &(second, value) in samples {
            while at < second {
                at += 1;
                found.extend(limits.tick(Duration::from_secs(at)).into_iter().map(|e| (at, word(e))));
            }
            let now = limits.sample("T", value, Duration::from_secs(second));
            found.extend(now.into_iter().map(|e| (second, word(e))));
        }
        found
    }

    fn table(limit: &Limit, samples: &[(u64, f64)], expected: &[(u64, &str)]) {
        let found = edges(limit, samples);
        let found: Vec<(u64, &str)> = found.iter().map(|(at, word)| (*at, word.as_str())).collect();
        assert_eq!(found, expected, "{samples:?}");
    }

    #[test]
    fn plain_limits() {
        let l = limit();
        table(
            &l,
            &[(0, 79.0), (1, 80.0), (2, 80.1), (3, 90.0), (4, 80.0), (5, 81.0)],
            &[(0, "-HI"), (2, "+HI"), (4, "-HI"), (5, "+HI")],
        );
        let all = Limit { hihi: Some(95.0), lo: Some(10.0), lolo: Some(5.0), ..limit() };
        table(
            &all,
            &[(0, 50.0), (1, 96.0), (2, 4.0), (3, 50.0)],
            &[
                (0, "-HIHI"),
                (0, "-HI"),
                (0, "-LO"),
                (0, "-LOLO"),
                (1, "+HIHI"),
                (1, "+HI"),
                (2, "-HIHI"),
                (2, "-HI"),
                (2, "+LO"),
                (2, "+LOLO"),
                (3, "-LO"),
                (3, "-LOLO"),
            ],
        );
    }

    #[test]
    fn a_value_that_hovers_at_its_limit_raises_one_alarm_not_sixty() {
        let l = Limit { deadband: 2.0, ..limit() };
        let hovering: Vec<(u64, f64)> = (0..120).map(|i| (i, if i % 2 == 0 { 80.5 } else { 78.5 })).collect();
        table(&l, &hovering, &[(0, "+HI")]);
        let low = Limit { hi: None, lo: Some(10.0), deadband: 1.0, ..limit() };
        let hovering: Vec<(u64, f64)> = (0..120).map(|i| (i, if i % 2 == 0 { 9.5 } else { 10.5 })).collect();
        table(&low, &hovering, &[(0, "+LO")]);
        // It comes back by the whole deadband, and only then.
        table(
            &l,
            &[(0, 81.0), (1, 78.1), (2, 78.0), (3, 79.9), (4, 80.1)],
            &[(0, "+HI"), (2, "-HI"), (4, "+HI")],
        );
    }

    #[test]
    fn delays() {
        let l = Limit { on_delay: Duration::from_secs(5), off_delay: Duration::from_secs(3), ..limit() };
        // Too short; then long enough, with no further sample; then back, too short and long enough.
        table(
            &l,
            &[(0, 50.0), (4, 90.0), (8, 70.0), (10, 90.0), (20, 70.0), (22, 90.0), (30, 70.0), (40, 70.0)],
            &[(3, "-HI"), (15, "+HI"), (33, "-HI")],
        );
    }

    #[test]
    fn the_deadband_holds_a_delay_back_too() {
        let l = Limit { deadband: 5.0, off_delay: Duration::from_secs(3), ..limit() };
        // At 76 it is not back: the off-delay begins again at 8.
        table(&l, &[(0, 90.0), (4, 70.0), (6, 76.0), (8, 70.0), (12, 70.0)], &[(0, "+HI"), (11, "-HI")]);
    }

    #[test]
    fn what_is_no_number_changes_nothing_and_what_nobody_limits_is_not_kept() {
        table(
            &limit(),
            &[(0, f64::NAN), (1, f64::INFINITY), (2, 81.0), (3, f64::NEG_INFINITY)],
            &[(2, "+HI")],
        );
        let mut limits = Limits::new(&[limit()]);
        assert_eq!(limits.sample("U", 1e9, Duration::ZERO), []);
        assert!(limits.knows("T") && !limits.knows("U"));
        // In the deadband from the start: nobody knows.
        table(&Limit { deadband: 2.0, ..limit() }, &[(0, 79.0), (9, 79.0)], &[]);
    }
}
