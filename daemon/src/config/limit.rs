//! `[[alarms.limit]]`: within which limits a variable is normal.
//!
//! Comes in: its tables. Goes out: [`Limit`]s and mistakes. Called by `read`.
#![forbid(unsafe_code)]

use super::read::required;
use super::section::{Mistakes, Section, article, nearest, tables};
use super::values::duration;
use std::time::Duration;
use toml::de::DeValue;

/// Variables that Counterfoil measures of itself begin so; no intake may say one.
pub const OWN: &str = "counterfoil.";
/// Which there are.
pub const OWN_VARIABLES: &[&str] = &[
    "counterfoil.rate",
    "counterfoil.volume",
    "counterfoil.sessions",
    "counterfoil.error_rate",
    "counterfoil.lane_pressure",
    "counterfoil.dropped",
    "counterfoil.lag",
];
/// One `[[alarms.limit]]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limit {
    /// A tag, or one of [`OWN_VARIABLES`].
    pub variable: String,
    /// Above it is far too high.
    pub hihi: Option<f64>,
    /// Above it is too high.
    pub hi: Option<f64>,
    /// Below it is too low.
    pub lo: Option<f64>,
    /// Below it is far too low.
    pub lolo: Option<f64>,
    /// How far back a value must come until it counts as normal.
    pub deadband: f64,
    /// How long it must be beyond.
    pub on_delay: Duration,
    /// How long it must be back.
    pub off_delay: Duration,
    /// Shown with the value.
    pub unit: Option<String>,
}

/// All `[[alarms.limit]]`.
pub(super) fn limits(alarms: &mut Section<'_, '_>, m: &mut Mistakes) -> Vec<Limit> {
    let all = tables(alarms, "limit", "[[alarms.limit]]", m);
    all.into_iter().filter_map(|s| limit(s, m)).collect()
}

fn limit(mut s: Section<'_, '_>, m: &mut Mistakes) -> Option<Limit> {
    let span = s.span.clone();
    let variable = required(
        &mut s,
        "variable",
        "a limit needs a variable: a tag, or one of counterfoil's own",
        m,
        |text| match text {
            "" => Err("a tag is not empty".into()),
            own if own.starts_with(OWN) && !OWN_VARIABLES.contains(&own) => {
                Err(format!("`{own}` is not measured{}", nearest(own, OWN_VARIABLES)))
            }
            tag => Ok(tag.to_owned()),
        },
    );
    let mut limit = Limit {
        hihi: number(&mut s, "hihi", m),
        hi: number(&mut s, "hi", m),
        lo: number(&mut s, "lo", m),
        lolo: number(&mut s, "lolo", m),
        deadband: number(&mut s, "deadband", m).unwrap_or(0.0),
        on_delay: s.parsed("on_delay", m, duration).unwrap_or_default(),
        off_delay: s.parsed("off_delay", m, duration).unwrap_or_default(),
        unit: s.string("unit", m).map(|(u, _)| u.to_owned()),
        variable: String::new(),
    };
    let in_order: Vec<f64> = [limit.lolo, limit.lo, limit.hi, limit.hihi].into_iter().flatten().collect();
    if in_order.is_empty() {
        m.at(&span, "a limit needs at least one of hihi, hi, lo, lolo");
    } else if !in_order.is_sorted() {
        m.at(&span, "limits must be in order: lolo, lo, hi, hihi");
    }
    if limit.deadband < 0.0 {
        m.at(&span, "deadband must not be below 0");
    }
    s.finish(m);
    limit.variable = variable?;
    Some(limit)
}

fn number(s: &mut Section<'_, '_>, key: &'static str, m: &mut Mistakes) -> Option<f64> {
    let (_, value, span) = s.take(key)?;
    let found = match value {
        DeValue::Integer(i) => i.to_string().parse::<i64>().ok().map(|i| i as f64),
        DeValue::Float(f) => f.to_string().replace('_', "").parse().ok(),
        _ => None,
    };
    let found = found.filter(|n: &f64| n.is_finite());
    if found.is_none() {
        m.at(&span, format!("{key} must be a number, not {}", article(value)));
    }
    found
}
