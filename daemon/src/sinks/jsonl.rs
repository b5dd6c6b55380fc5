//! JSON Lines: one object a line (INTERFACE), appended to a file.
#![forbid(unsafe_code)]

use super::Message;
use super::post::Shape;
use crate::escape::acts;
use crate::model::{Alarm, Coverage, Summary, Transfer};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file of JSON Lines, for `run --json`.
pub struct JsonLines {
    path: PathBuf,
    file: File,
    failed: bool,
    given_up: u64,
}

impl JsonLines {
    /// Begins the file anew.
    ///
    /// # Errors
    /// It can't be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self { path: path.to_owned(), file, failed: false, given_up: 0 })
    }

    /// Writes one transfer.
    pub fn transfer(&mut self, transfer: &Transfer) {
        self.write(&transfer_json(transfer));
    }

    /// Writes one alarm.
    pub fn alarm(&mut self, alarm: &Alarm) {
        self.write(&alarm_json(alarm));
    }

    /// Writes one coverage fact.
    pub fn coverage(&mut self, coverage: &Coverage) {
        self.write(&typed("coverage", coverage));
    }

    /// Writes the summary, which is the last line.
    pub fn summary(&mut self, summary: &Summary) {
        self.write(&typed("summary", summary));
    }

    /// Lines that could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.given_up
    }

    fn write(&mut self, value: &Value) {
        if let Err(e) = self.file.write_all(&line(value)) {
            self.given_up += 1;
            if !std::mem::replace(&mut self.failed, true) {
                tracing::error!("can't write to {}: {e}", self.path.display());
            }
        } else {
            self.failed = false;
        }
    }
}

/// Every event as its JSON line: the shape of a `jsonl` sink.
pub(super) struct Events;

impl Shape for Events {
    fn line(&mut self, message: &Message) -> Option<Vec<u8>> {
        Some(line(&match message {
            Message::Alarm(alarm) => alarm_json(alarm),
            Message::Transfer(transfer) => transfer_json(transfer),
            Message::Coverage(coverage) => typed("coverage", coverage.as_ref()),
            Message::Heartbeat(beat) => json!({
                "type": "heartbeat",
                "time": time(jiff::Timestamp::now()),
                "sequence": beat.sequence,
                "sent": beat.sent,
                "dropped": beat.dropped,
                "uptime": beat.uptime.as_secs(),
            }),
            Message::Withheld(what) => json!({
                "type": "withheld",
                "time": time(jiff::Timestamp::now()),
                "alarms": what.alarms,
                "given_up": what.given_up,
                "rules": what.by_rule.iter().map(|((severity, rule), n)| {
                    json!({"severity": severity, "rule": rule, "alarms": n})
                }).collect::<Vec<_>>(),
            }),
        }))
    }
}

/// `value` on a line of its own. What acts on a terminal is written as `\uNNNN`: a parser reads the same, and who looks at
/// the file is not acted upon.
pub(super) fn line(value: &Value) -> Vec<u8> {
    let text = value.to_string();
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if acts(c) {
            // All of them are below U+10000, and can only stand inside a string.
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line.into_bytes()
}

/// RFC 3339 UTC with microseconds.
pub(super) fn time(t: jiff::Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// A transfer as its JSON line has it.
#[must_use]
pub fn transfer_json(transfer: &Transfer) -> Value {
    typed("transfer", transfer)
}

/// An alarm as its JSON line has it.
#[must_use]
pub fn alarm_json(alarm: &Alarm) -> Value {
    typed("alarm", alarm)
}

/// `value` with its type, and with times at one precision: jiff writes as many digits as it needs.
fn typed(kind: &str, value: &impl serde::Serialize) -> Value {
    let mut object = serde_json::Map::new();
    object.insert("type".into(), kind.into());
    if let Ok(Value::Object(fields)) = serde_json::to_value(value) {
        object.extend(fields);
    }
    even_times(&mut object, &["started", "ended", "raised", "last", "seen"]);
    if let Some(Value::Object(changed)) = object.get_mut("changed") {
        even_times(changed, &["at", "until"]);
    }
    Value::Object(object)
}

fn even_times(object: &mut serde_json::Map<String, Value>, keys: &[&str]) {
    for key in keys {
        let Some(Value::String(text)) = object.get_mut(*key) else { continue };
        if let Ok(t) = text.parse() {
            *text = time(t);
        }
    }
}
