//! An alarm in one line.
#![forbid(unsafe_code)]

use crate::alarms::state::word;
use crate::escape::{clip, text};
use crate::model::{Alarm, AlarmState, Severity};
use crate::report::style::{Colour, Style};
use crate::report::words;

/// `ID  2026-03-04 05:06:07Z  CRITICAL  unacknowledged      3×  payload-altered: Data changed …`.
pub(super) fn row(a: &Alarm, style: &Style) -> String {
    let f = &a.finding;
    let colour = match f.severity {
        _ if a.state != AlarmState::Unacknowledged => Colour::Plain,
        Severity::Critical | Severity::High => Colour::Red,
        Severity::Medium => Colour::Yellow,
        Severity::Low | Severity::Info => Colour::Plain,
    };
    let until = a.changed.as_ref().filter(|c| c.to == a.state).and_then(|c| c.until);
    let until = until.map(|t| format!(" until {}", t.strftime("%m-%d %H:%MZ"))).unwrap_or_default();
    format!(
        "{}  {}  {}  {:<14}{until}  {:>5}×  {}: {}\n",
        a.id,
        a.last.strftime("%Y-%m-%d %H:%M:%SZ"),
        style.paint(colour, &format!("{:<8}", words::severity(f.severity))),
        word(a.state),
        a.count,
        text(&f.rule),
        clip(&text(&f.title), 120),
    )
}
