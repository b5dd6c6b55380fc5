//! JSON Lines: one object a line (INTERFACE), appended to a file.
#![forbid(unsafe_code)]

use super::{Message, Sink};
use crate::model::{Alarm, Coverage, Summary, Transfer};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file of JSON Lines: a sink, and `run --json`.
pub struct JsonLines {
    name: String,
    path: PathBuf,
    file: Option<File>,
    failed: bool,
    given_up: u64,
}

impl JsonLines {
    /// Opened at the first line; reopened after a failure.
    #[must_use]
    pub fn lazy(path: &Path) -> Self {
        let name = format!("jsonl {}", path.display());
        Self { name, path: path.to_owned(), file: None, failed: false, given_up: 0 }
    }

    /// Begins the file anew, for `run --json`.
    ///
    /// # Errors
    /// It can't be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut lines = Self::lazy(path);
        lines.file = Some(OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?);
        Ok(lines)
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
        let mut line = value.to_string();
        line.push('\n');
        let written = match &mut self.file {
            Some(file) => file.write_all(line.as_bytes()),
            None => OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&self.path)
                .and_then(|f| self.file.insert(f).write_all(line.as_bytes())),
        };
        if let Err(e) = written {
            self.given_up += 1;
            if !std::mem::replace(&mut self.failed, true) {
                tracing::error!("can't write to {}: {e}", self.path.display());
            }
        } else {
            self.failed = false;
        }
    }
}

impl Sink for JsonLines {
    fn name(&self) -> &str {
        &self.name
    }

    fn send(&mut self, message: &Message) {
        // Log rotation renames the file: then a new one is begun.
        use std::os::unix::fs::MetadataExt;
        let same = |f: &File| {
            let (Ok(open), Ok(named)) = (f.metadata(), std::fs::metadata(&self.path)) else { return false };
            (open.dev(), open.ino()) == (named.dev(), named.ino())
        };
        if self.file.as_ref().is_some_and(|f| !same(f)) {
            self.file = None;
        }
        match message {
            Message::Alarm(alarm) => self.alarm(alarm),
            Message::Transfer(transfer) => self.transfer(transfer),
            Message::Coverage(coverage) => self.coverage(coverage),
            Message::Heartbeat(beat) => self.write(&json!({
                "type": "heartbeat",
                "time": time(jiff::Timestamp::now()),
                "sequence": beat.sequence,
                "sent": beat.sent,
                "dropped": beat.dropped,
                "uptime": beat.uptime.as_secs(),
            })),
        }
    }

    fn retry(&mut self) -> bool {
        false
    }

    fn given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }
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
