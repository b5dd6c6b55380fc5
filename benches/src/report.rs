//! Rows of the result, as Markdown and as JSON.

use crate::statistics::{Spread, percentile};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// What a number counts.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    BytesPerSecond,
    PerSecond,
    Nanoseconds,
    PercentOfCore,
    Bytes,
    RecordsPerSecond,
}

/// What MEASURING asks for.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    None,
    /// Observed / plain.
    RatioAtLeast(f64),
    RatioAtMost(f64),
    /// Observed − plain.
    MoreAtMost(f64),
    /// Of the value itself.
    AtMost(f64),
    AtLeast(f64),
    P99AtMost(f64),
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub struct Row {
    pub name: String,
    unit: Option<Unit>,
    plain: Option<Spread>,
    observed: Option<Spread>,
    /// Observed / plain, of the medians.
    ratio: Option<f64>,
    /// The same of each pair.
    ratios: Option<Spread>,
    p50: Option<f64>,
    p99: Option<f64>,
    goal: Goal,
    met: Option<bool>,
    /// Verdicts, losses, or why there is no number.
    note: String,
    /// A verdict was wrong, or a run lost something.
    pub wrong: bool,
}

impl Row {
    fn new(name: &str, unit: Unit, goal: Goal) -> Self {
        Self {
            name: name.into(),
            unit: Some(unit),
            plain: None,
            observed: None,
            ratio: None,
            ratios: None,
            p50: None,
            p99: None,
            goal,
            met: None,
            note: String::new(),
            wrong: false,
        }
    }

    /// Two sides measured in turn.
    pub fn pairs(name: &str, unit: Unit, plain: &[f64], observed: &[f64], goal: Goal) -> Self {
        let ratios: Vec<f64> = plain.iter().zip(observed).map(|(p, o)| o / p).collect();
        let mut row = Self::new(name, unit, goal);
        (row.plain, row.observed, row.ratios) =
            (Spread::of(plain), Spread::of(observed), Spread::of(&ratios));
        if let (Some(p), Some(o)) = (row.plain, row.observed) {
            row.ratio = Some(o.median / p.median);
            row.met = match goal {
                Goal::RatioAtLeast(least) => Some(o.median / p.median >= least),
                Goal::RatioAtMost(most) => Some(o.median / p.median <= most),
                Goal::MoreAtMost(most) => Some(o.median - p.median <= most),
                _ => None,
            };
        }
        row
    }

    /// One number of the observed side alone.
    pub fn single(name: &str, unit: Unit, value: f64, goal: Goal) -> Self {
        Self::spread(name, unit, Spread { min: value, median: value, max: value }, goal)
    }

    /// Several of them.
    pub fn spread(name: &str, unit: Unit, values: Spread, goal: Goal) -> Self {
        let mut row = Self::new(name, unit, goal);
        row.observed = Some(values);
        let value = values.median;
        row.met = match goal {
            Goal::AtMost(most) => Some(value <= most),
            Goal::AtLeast(least) => Some(value >= least),
            _ => None,
        };
        row
    }

    /// Many delays of the observed side.
    pub fn delays(name: &str, unit: Unit, values: &[f64], goal: Goal) -> Self {
        let mut row = Self::new(name, unit, goal);
        row.observed = Spread::of(values);
        (row.p50, row.p99) = (percentile(values, 0.5), percentile(values, 0.99));
        if let (Goal::P99AtMost(most), Some(p99)) = (goal, row.p99) {
            row.met = Some(p99 <= most);
        }
        row
    }

    /// Nothing could be measured.
    pub fn failed(name: &str, why: String) -> Self {
        let mut row = Self::new(name, Unit::PerSecond, Goal::None);
        row.unit = None;
        row.noting(format!("no result: {why}"), true)
    }

    /// There is nothing here to measure with.
    pub fn skipped(name: &str, why: String) -> Self {
        let mut row = Self::new(name, Unit::PerSecond, Goal::None);
        row.unit = None;
        row.noting(format!("skipped: {why}"), false)
    }

    /// With what was said about it.
    pub fn noting(mut self, note: String, wrong: bool) -> Self {
        (self.note, self.wrong) = (note, wrong);
        self
    }

    fn shown(&self, value: f64) -> String {
        match self.unit {
            Some(Unit::BytesPerSecond) => format!("{:.2} GB/s", value / 1e9),
            Some(Unit::PerSecond) => format!("{value:.0}/s"),
            Some(Unit::RecordsPerSecond) => format!("{:.2} M/s", value / 1e6),
            Some(Unit::PercentOfCore) => format!("{value:.2} %"),
            Some(Unit::Bytes) if value.abs() >= 1e7 => format!("{:.1} MB", value / 1e6),
            Some(Unit::Bytes) => format!("{:.1} KiB", value / 1024.0),
            Some(Unit::Nanoseconds) if value.abs() >= 1e6 => format!("{:.2} ms", value / 1e6),
            Some(Unit::Nanoseconds) if value.abs() >= 1e4 => format!("{:.1} µs", value / 1e3),
            Some(Unit::Nanoseconds) => format!("{value:.0} ns"),
            None => String::new(),
        }
    }

    fn markdown(&self) -> String {
        let spread = |side: Option<Spread>| match side {
            Some(s) if s.min == s.max => self.shown(s.median),
            Some(s) => format!("{} · {} · {}", self.shown(s.min), self.shown(s.median), self.shown(s.max)),
            None => "–".into(),
        };
        let more = match (self.plain, self.observed) {
            (Some(p), Some(o)) => self.shown(o.median - p.median),
            _ => String::new(),
        };
        let result = match (self.goal, self.ratio, self.ratios, self.p99) {
            (Goal::MoreAtMost(_), Some(_), ..) => format!("{more} more"),
            (_, Some(ratio), Some(r), _) => format!("**{ratio:.3}** ({:.3} … {:.3})", r.min, r.max),
            (.., Some(p99)) => {
                format!("p50 {}, p99 {}", self.shown(self.p50.unwrap_or_default()), self.shown(p99))
            }
            _ => String::new(),
        };
        let goal = match self.goal {
            Goal::None => String::new(),
            Goal::RatioAtLeast(least) => format!("≥ {least}"),
            Goal::RatioAtMost(most) => format!("≤ {most}"),
            Goal::MoreAtMost(most) => format!("≤ {} more", self.shown(most)),
            Goal::AtMost(most) => format!("≤ {}", self.shown(most)),
            Goal::AtLeast(least) => format!("≥ {}", self.shown(least)),
            Goal::P99AtMost(most) => format!("p99 ≤ {}", self.shown(most)),
        };
        let met = match (self.wrong, self.met) {
            (true, _) => "**failed run**",
            (_, Some(true)) => "met",
            (_, Some(false)) => "**missed**",
            (_, None) => "",
        };
        format!(
            "| {} | {} | {} | {result} | {goal} | {met} | {} |\n",
            self.name,
            spread(self.plain),
            spread(self.observed),
            self.note.replace('\n', " ").replace('|', "/"),
        )
    }
}

fn machine() -> String {
    let model = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|all| {
            all.lines().find(|l| l.starts_with("model name"))?.split_once(": ").map(|x| x.1.to_string())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.into());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

/// bench.md and bench.json in `folder`; the table also on stdout.
pub fn write(folder: &Path, rows: &[Row]) -> Result<()> {
    let machine = machine();
    let mut table = format!(
        "Counterfoil {}, {machine}. Minimum · median · maximum; ratios are observed / plain, of the medians \
         (and the lowest and highest of the pairs).\n\n\
         | | plain | observed | result | goal | | verdicts and losses |\n|---|---|---|---|---|---|---|\n",
        env!("CARGO_PKG_VERSION"),
    );
    for row in rows {
        write!(table, "{}", row.markdown())?;
    }
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    std::fs::write(folder.join("bench.md"), &table)?;
    let all = serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "machine": machine, "rows": rows });
    std::fs::write(folder.join("bench.json"), serde_json::to_vec_pretty(&all)?)?;
    print!("{table}");
    Ok(())
}
