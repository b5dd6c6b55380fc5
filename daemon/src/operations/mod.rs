//! Operations: what the industrial process says, as findings on the one alarm list.
//!
//! ```text
//! intake ──► report ─┬► alarm ───────────────► process-alarm
//!                    └► value ─► limits ─┬───► process-alarm
//! transfers, counts ──► own ─► limits ───┘
//! ```
//! Comes in: [`Batch`](crate::intake::Batch)es, final transfers, running totals, and the passing of time. Goes out:
//! [`Outcome`]s. Called by `desk`. One alarm for each (source, tag, condition).
#![forbid(unsafe_code)]

mod carriage;
pub mod limits;
mod own;
pub mod station;

use crate::alarms::entry::{Returned, Said, Word as Outcome};
use crate::config::{Config, limit::OWN};
use crate::detect::{finding, why};
use crate::escape;
use crate::intake::{Condition, Report, State, Word};
use crate::judged::{Carried, Counts};
use crate::model::{AlarmState, Analytic, Finding, Severity, Transfer};
use carriage::Carriage;
use jiff::Timestamp;
use limits::{Edge, Limits};
use own::Own;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The rule of every process alarm.
pub const RULE: &str = "process-alarm";
/// A source of process alarms can't be reached.
pub const LOST: &str = "intake-lost";

/// See the module's text.
pub struct Operations {
    limits: Limits,
    /// None: nobody asked for limits of these.
    own: Option<Own>,
    start: Instant,
    /// None: no carrier is configured.
    carriage: Option<Carriage>,
}

impl Operations {
    /// As configured.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let own = config.limits.iter().any(|l| l.variable.starts_with(OWN));
        Self {
            limits: Limits::new(&config.limits),
            own: own.then(Own::default),
            start: Instant::now(),
            carriage: Carriage::new(config, None),
        }
    }

    /// True if time means something to it: delays, and variables that are sampled.
    #[must_use]
    pub fn ticks(&self) -> bool {
        !self.limits.is_empty() || self.carriage.is_some()
    }

    /// One word of an intake.
    pub fn take(&mut self, from: &str, word: Word) -> Vec<Outcome> {
        let now = Timestamp::now();
        match word {
            Word::Report(report) => self.report(from, &report, now),
            Word::Lost { why } => vec![Outcome::Raise(Box::new(lost(from, &why, now)))],
            Word::Back => vec![returned(lost_key(from), None, now)],
            Word::Arrived { topic, payload, retained } => {
                if let Some(carriage) = &mut self.carriage {
                    carriage.arrived(from, &topic, &payload, retained, crate::core::now());
                }
                vec![]
            }
            Word::Stands(stands) => {
                if let Some(carriage) = &mut self.carriage {
                    carriage.stands(from, stands.then(crate::core::now));
                }
                vec![]
            }
        }
    }

    /// What messages are fingerprinted with.
    pub fn keyed(&mut self, key: [u8; 16]) {
        if let Some(carriage) = &mut self.carriage {
            carriage.keyed(key);
        }
    }

    /// A packet of an observed connection.
    pub fn carried(&mut self, carried: &Carried) {
        if let Some(carriage) = &mut self.carriage {
            carriage.carried(carried);
        }
    }

    /// A finding of any rule. Gives what follows from it.
    pub fn found(&mut self, finding: &Finding) -> Vec<Finding> {
        self.carriage.as_mut().map(|c| c.found(finding)).unwrap_or_default()
    }

    /// The end: what can still be said.
    pub fn finish(&mut self) -> Vec<Finding> {
        self.carriage.as_mut().map(Carriage::finish).unwrap_or_default()
    }

    /// A final transfer.
    pub fn transfer(&mut self, transfer: &Transfer) {
        if let Some(own) = &mut self.own {
            own.transfer(transfer);
        }
    }

    /// Running totals.
    pub fn counts(&mut self, counts: Counts) {
        if let Some(own) = &mut self.own {
            own.counts(counts, Duration::from_nanos(crate::core::now().saturating_sub(counts.at)));
        }
    }

    /// Time went by.
    pub fn tick(&mut self) -> Vec<Outcome> {
        let since = self.start.elapsed();
        let samples = self.own.as_mut().map(|own| own.sample(since)).unwrap_or_default();
        let mut edges: Vec<Edge> = Vec::new();
        for (variable, value) in samples {
            edges.extend(self.limits.sample(variable, value, since));
        }
        edges.extend(self.limits.tick(since));
        let now = Timestamp::now();
        let mut said: Vec<Outcome> = edges.into_iter().map(|edge| by_limit(edge, None, now)).collect();
        if let Some(carriage) = &mut self.carriage {
            said.extend(carriage.tick(crate::core::now()).into_iter().map(|f| Outcome::Raise(Box::new(f))));
        }
        said
    }

    fn report(&mut self, from: &str, report: &Report, now: Timestamp) -> Vec<Outcome> {
        let mut said = Vec::new();
        if report.condition.is_some() || report.state.is_some() {
            alarm(from, report, now, &mut said);
        }
        if let Some(value) = report.value
            && self.limits.knows(&report.tag)
        {
            let edges = self.limits.sample(&report.tag, value, self.start.elapsed());
            said.extend(edges.into_iter().map(|edge| by_limit(edge, report.time, now)));
        }
        said
    }
}

/// What the source calls an alarm.
fn alarm(from: &str, report: &Report, now: Timestamp, said: &mut Vec<Outcome>) {
    let state = report.state.unwrap_or(State::Active);
    if state == State::Normal {
        // Without a condition, everything about the tag is well again.
        let over = report.condition.map_or_else(|| Condition::ALL.to_vec(), |c| vec![c]);
        said.extend(over.into_iter().map(|condition| {
            let at = point(report, condition);
            returned(key(from, &report.tag, condition, word(report, condition)), Some(at), now)
        }));
        return;
    }
    let condition = report.condition.unwrap_or(Condition::Discrete);
    let mut f = process_alarm(report.severity.unwrap_or(condition.severity()), now);
    let value = report.value.map(|v| v.to_string()).or_else(|| report.value_text.clone());
    let unit = report.unit.as_deref().map(|u| format!(" {u}")).unwrap_or_default();
    let how = report.said.as_deref().filter(|_| condition == Condition::Discrete).unwrap_or(condition.word());
    f.title = match &value {
        Some(value) => format!("{}: {how}, {value}{unit}", report.tag),
        None => format!("{}: {how}", report.tag),
    };
    let limit = report.limit.map(|l| format!(", limit {l}{unit}")).unwrap_or_default();
    let value_words = value.as_ref().map(|v| format!(" at {v}{unit}")).unwrap_or_default();
    let message = report.message.as_deref().map(|m| format!(" It says: {m}")).unwrap_or_default();
    f.message = format!(
        "{from} reports {how} of {}{value_words}{limit}{}.{message}",
        report.tag,
        report.time.map(|t| format!(", at {t} by its own clock")).unwrap_or_default()
    );
    f.next = "Treat it as the process alarm that it is. Where it matters whether the value can be believed, look for \
              process-alarm-altered and alarm-suppressed of the same tag."
        .into();
    f.why = why(report.value.map_or(Value::Null, Value::from), report.limit.map_or(Value::Null, Value::from));
    f.point = Some(point(report, condition));
    f.evidence =
        json!({"intake": from, "condition": report.said, "state": state.word(), "text": report.message});
    f.key = key(from, &report.tag, condition, word(report, condition));
    let key = f.key.clone();
    said.push(Outcome::Raise(Box::new(f)));
    if state == State::Acknowledged {
        let state = AlarmState::Acknowledged;
        said.push(Outcome::Said(Said { key, seen: now, state, by: Some(from.to_owned()), until: None }));
    }
}

/// A limit of ours was passed, or kept again.
fn by_limit(edge: Edge, source_time: Option<Timestamp>, now: Timestamp) -> Outcome {
    let Edge { variable, condition, holds, value, limit, unit, deadband, delay } = edge;
    let tag = escape::text(&variable).into_owned();
    let state = if holds { State::Active } else { State::Normal };
    let point = json!({
        "tag": tag, "condition": condition.word(), "value": value, "limit": limit, "unit": unit,
        "state": state.word(), "source_time": source_time,
    });
    let key = key("limit", &tag, condition, "");
    if !holds {
        return returned(key, Some(point), now);
    }
    let mut f = process_alarm(condition.severity(), now);
    let shown = unit.as_deref().map(|u| format!(" {}", escape::text(u))).unwrap_or_default();
    let side = if matches!(condition, Condition::Hi | Condition::Hihi) { "above" } else { "below" };
    f.title = format!("{tag}: {}, {value}{shown}", condition.word());
    let lasting = if delay.is_zero() { String::new() } else { format!(" for {delay:?}") };
    f.message = format!("{tag} is {value}{shown}, {side} its limit {limit}{shown}{lasting}.");
    f.next = match variable.starts_with(OWN) {
        true => "See what transfers at this moment (counterfoil transfers --since 5m), and whether the daemon gets enough \
                 processor time."
            .into(),
        false => "Look at the process itself; then at the way by which the value came.".into(),
    };
    f.why = json!({"tunable": "alarms.limit", "value": value, "threshold": limit, "window": null, "baseline": null});
    f.evidence = json!({"variable": tag, "deadband": deadband, "on_delay": delay.as_secs_f64()});
    f.point = Some(point);
    f.key = key;
    Outcome::Raise(Box::new(f))
}

fn lost(from: &str, why_not: &str, now: Timestamp) -> Finding {
    let mut f = process_alarm(Severity::Medium, now);
    f.rule = LOST.into();
    f.analytic = Analytic::Itself;
    f.title = format!("Process alarms from {from} can't be read");
    f.message = format!(
        "The intake {from} has been out of reach for half a minute: {why_not}. What it would say is not known."
    );
    f.next = "See whether the source runs and can be reached from here; its silence is no good sign. Nothing is lost where \
              it keeps what it has: reading goes on where it ended."
        .into();
    f.evidence = json!({"intake": from, "why": why_not});
    f.key = lost_key(from);
    f
}

fn lost_key(from: &str) -> String {
    format!("{LOST} intake={from:?}")
}

fn process_alarm(severity: Severity, now: Timestamp) -> Finding {
    let mut f = finding(RULE, severity, now);
    f.analytic = Analytic::Dc0109;
    f.technique = None;
    f
}

fn returned(key: String, point: Option<Value>, seen: Timestamp) -> Outcome {
    Outcome::Returned(Returned { key, seen, point })
}

/// Two discrete conditions of one tag are two alarms.
fn word(report: &Report, condition: Condition) -> &str {
    report.said.as_deref().filter(|_| condition == Condition::Discrete).unwrap_or("")
}

/// What an alarm is known by, here and at its end.
fn key(from: &str, tag: &str, condition: Condition, word: &str) -> String {
    let more = if word.is_empty() { String::new() } else { format!(" word={word:?}") };
    format!("{RULE} intake={from:?} tag={tag:?} condition={:?}{more}", condition.word())
}

/// INTERFACE's `point`.
fn point(report: &Report, condition: Condition) -> Value {
    json!({
        "tag": report.tag,
        "condition": condition.word(),
        "value": report.value.map(Value::from).or_else(|| report.value_text.clone().map(Value::from)),
        "limit": report.limit,
        "unit": report.unit,
        "state": report.state.unwrap_or(State::Active).word(),
        "source_time": report.time,
    })
}
