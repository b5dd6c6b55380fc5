//! journald's own protocol: one datagram for an entry, `FIELD=value` line by line.
//!
//! Comes in: alarms, heartbeats, what was withheld. Goes out: entries (systemd's "Native Journal Protocol"). A value with a line break
//! goes in the form that has its length; none of ours has one, as all are escaped.
#![forbid(unsafe_code)]

use super::facts::{self, message, priority};
use super::post::Shape;
use super::{Heartbeat, Message, Withheld};
use crate::escape::{clip, text};
use crate::model::Alarm;

/// Characters of one value, and of the text: journalctl shows fields up to 4,096 bytes, and hides longer ones.
const VALUE: usize = 1000;
/// Bytes of an entry, which is one datagram (208 KiB at most, unless configured). Facts beyond are left out.
const ENTRY: usize = 96 << 10;
/// What an entry is about, for `journalctl MESSAGE_ID=…`: made with uuidgen, for ever.
const ALARM: &str = "6c1e0b8f3d0a4c0f9b5f0a6f7e2d9c41";
const HEARTBEAT: &str = "a2f4b6d81c3e4f5a9d7b8c6e0f1a2b3c";
const WITHHELD: &str = "f3b1c9d27e5a4b68a0c4d2e6f8091a7d";

/// Makes entries.
pub(super) struct Entries;

impl Shape for Entries {
    fn line(&mut self, message: &Message) -> Option<Vec<u8>> {
        match message {
            Message::Alarm(alarm) => Some(of_alarm(alarm)),
            Message::Heartbeat(beat) => Some(heartbeat(beat)),
            Message::Withheld(what) => Some(withheld(what)),
            // The journal is for what someone should look at.
            Message::Transfer(_) | Message::Coverage(_) => None,
        }
    }
}

fn of_alarm(alarm: &Alarm) -> Vec<u8> {
    let mut entry = entry(ALARM, priority(alarm.finding.severity), &message(alarm));
    for (name, value) in facts::of(alarm) {
        if entry.len() > ENTRY {
            put(&mut entry, "COUNTERFOIL_OMITTED", name);
            break;
        }
        put(&mut entry, &format!("COUNTERFOIL_{}", name.to_uppercase()), &value);
    }
    put(&mut entry, "COUNTERFOIL_NEXT", &alarm.finding.next);
    entry
}

fn heartbeat(beat: &Heartbeat) -> Vec<u8> {
    let words = format!("alive, heartbeat {}", beat.sequence);
    let mut entry = entry(HEARTBEAT, syslog_fmt::Severity::Info, &words);
    for (name, value) in [
        ("SEQUENCE", beat.sequence),
        ("SENT", beat.sent),
        ("DROPPED", beat.dropped),
        ("UPTIME", beat.uptime.as_secs()),
    ] {
        put(&mut entry, &format!("COUNTERFOIL_{name}"), &value.to_string());
    }
    entry
}

fn withheld(what: &Withheld) -> Vec<u8> {
    let mut entry = entry(WITHHELD, syslog_fmt::Severity::Warning, &what.words());
    put(&mut entry, "COUNTERFOIL_ALARMS", &what.alarms.to_string());
    put(&mut entry, "COUNTERFOIL_GIVEN_UP", &what.given_up.to_string());
    put(&mut entry, "COUNTERFOIL_RULES", &what.rules());
    entry
}

fn entry(id: &str, priority: syslog_fmt::Severity, message: &str) -> Vec<u8> {
    let mut entry = Vec::with_capacity(2048);
    put(&mut entry, "MESSAGE", message);
    put(&mut entry, "MESSAGE_ID", id);
    put(&mut entry, "PRIORITY", &(priority as u8).to_string());
    put(&mut entry, "SYSLOG_IDENTIFIER", "counterfoil");
    // authpriv, as in syslog.
    put(&mut entry, "SYSLOG_FACILITY", "10");
    entry
}

fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let safe = text(value);
    raw(entry, name, &clip(&safe, VALUE));
}

fn raw(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_field() {
        let mut entry = Vec::new();
        raw(&mut entry, "A", "one");
        raw(&mut entry, "B", "one\ntwo");
        assert_eq!(entry, b"A=one\nB\n\x07\0\0\0\0\0\0\0one\ntwo\n");
    }
}
