//! OCSF, the Open Cybersecurity Schema Framework: a Detection Finding (class 2004) for each alarm, as a JSON line.
//!
//! Comes in: alarms, heartbeats, what was withheld. Goes out: events of schema 1.8; what it has no name for stands under `unmapped`.
//! Names and types are held against the schema in a test (see `testdata/ocsf-1.8.tsv`).
#![forbid(unsafe_code)]

use super::facts::{self, host, ip_port, message, ms};
use super::jsonl::line;
use super::post::Shape;
use super::{Heartbeat, Message, Withheld};
use crate::escape::clip;
use crate::model::{Alarm, AlarmState, Connection, Process, Severity};
use serde_json::{Map, Value, json};

/// The version that the names were held against.
const VERSION: &str = "1.8.0";
/// Characters of one value.
const LONGEST: usize = 4096;
/// Fingerprint, `algorithm_id`.
const SHA256: u8 = 3;

/// Makes events.
#[derive(Default)]
pub(super) struct Findings {
    sequence: u64,
}

impl Shape for Findings {
    fn line(&mut self, message: &Message) -> Option<Vec<u8>> {
        self.sequence += 1;
        let mut event = match message {
            Message::Alarm(alarm) => finding(alarm),
            Message::Heartbeat(beat) => heartbeat(beat),
            Message::Withheld(what) => withheld(what),
            Message::Transfer(_) | Message::Coverage(_) => {
                self.sequence -= 1;
                return None;
            }
        };
        event["metadata"] = json!({
            "version": VERSION,
            "sequence": self.sequence,
            "logged_time": ms(jiff::Timestamp::now()),
            "product": {
                "name": "Counterfoil",
                "vendor_name": "Counterfoil",
                "version": env!("CARGO_PKG_VERSION"),
            },
        });
        Some(line(&event))
    }
}

fn finding(alarm: &Alarm) -> Value {
    let f = &alarm.finding;
    let (status_id, status) = match alarm.state {
        AlarmState::Unacknowledged => (1, "New"),
        AlarmState::Acknowledged => (2, "In Progress"),
        AlarmState::Shelved | AlarmState::Suppressed | AlarmState::OutOfService => (3, "Suppressed"),
        AlarmState::Returned | AlarmState::Normal => (4, "Resolved"),
    };
    let (activity_id, activity) = match (status_id, alarm.count) {
        (4, _) => (3, "Close"),
        (1, 1) => (1, "Create"),
        _ => (2, "Update"),
    };
    let (severity_id, severity) = match f.severity {
        Severity::Info => (1, "Informational"),
        Severity::Low => (2, "Low"),
        Severity::Medium => (3, "Medium"),
        Severity::High => (4, "High"),
        Severity::Critical => (5, "Critical"),
    };
    let mut event = json!({
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "category_uid": 2,
        "category_name": "Findings",
        "activity_id": activity_id,
        "activity_name": activity,
        "type_uid": 200_400 + activity_id,
        "type_name": format!("Detection Finding: {activity}"),
        "severity_id": severity_id,
        "severity": severity,
        "status_id": status_id,
        "status": status,
        "time": ms(alarm.last),
        "start_time": ms(alarm.raised),
        "end_time": ms(alarm.last),
        "count": alarm.count,
        "message": cut(&message(alarm)),
        "is_alert": status_id == 1 && f.severity > Severity::Info,
        "device": {"hostname": host(), "type_id": 0},
        "finding_info": info(alarm),
        "remediation": {"desc": cut(&f.next)},
    });
    if let Some(confidence) = f.confidence.as_deref() {
        let (id, words) = if confidence == "proven" { (3, "High") } else { (2, "Medium") };
        event["confidence_id"] = id.into();
        event["confidence"] = words.into();
    }
    let evidence = evidence(alarm);
    if evidence.as_object().is_some_and(|e| !e.is_empty()) {
        event["evidences"] = json!([evidence]);
    }
    let known = [
        "id",
        "rule",
        "severity",
        "technique",
        "count",
        "pid",
        "exe",
        "user",
        "uid",
        "local",
        "remote",
        "argv",
    ];
    let unmapped: Map<String, Value> = facts::of(alarm)
        .into_iter()
        .filter(|(name, _)| !known.contains(name))
        .map(|(name, value)| (name.to_owned(), cut(&value)))
        .collect();
    event["unmapped"] = Value::Object(unmapped);
    event
}

fn info(alarm: &Alarm) -> Value {
    let f = &alarm.finding;
    let mut out = json!({
        "uid": alarm.id.to_string(),
        "title": cut(&f.title),
        "desc": cut(&f.message),
        "types": [facts::word(&f.analytic)],
        "analytic": {"uid": f.rule, "name": f.rule, "type_id": 1, "type": "Rule", "category": facts::word(&f.analytic)},
        "created_time": ms(alarm.raised),
        "first_seen_time": ms(alarm.raised),
        "last_seen_time": ms(alarm.last),
        "modified_time": ms(alarm.last),
    });
    if let Some(id) = &f.technique {
        let (technique, sub) = id.split_once('.').unwrap_or((id, ""));
        let mut attack = json!({"technique": {"uid": technique}});
        if !sub.is_empty() {
            attack["sub_technique"] = json!({"uid": id});
        }
        out["attacks"] = json!([attack]);
    }
    out
}

fn evidence(alarm: &Alarm) -> Value {
    let f = &alarm.finding;
    let mut out = json!({});
    if let Some(p) = &f.process {
        out["process"] = process(p);
    }
    if let Some(c) = &f.connection {
        connection(c, &mut out);
    }
    if let Some((path, sha256)) = f.file.as_ref().and_then(|x| x.path.as_ref().map(|p| (p, &x.sha256))) {
        out["file"] = file(path, sha256.as_deref());
    }
    out
}

fn process(p: &Process) -> Value {
    let mut out = json!({"pid": p.pid});
    if let Some(exe) = &p.exe {
        out["name"] = cut(exe.rsplit('/').next().unwrap_or(exe));
        out["file"] = file(exe, p.sha256.as_deref());
    }
    if let Some(argv) = &p.argv {
        out["cmd_line"] = cut(&argv.join(" "));
    }
    if let Some(t) = p.started {
        out["created_time"] = ms(t).into();
    }
    if let Some(cwd) = &p.cwd {
        out["working_directory"] = cut(cwd);
    }
    let mut user = Map::new();
    if let Some(name) = &p.user {
        user.insert("name".into(), cut(name));
    }
    if let Some(uid) = p.uid {
        user.insert("uid".into(), uid.to_string().into());
    }
    if !user.is_empty() {
        out["user"] = Value::Object(user);
    }
    if let Some(parent) = p.parents.first() {
        out["parent_process"] = json!({"pid": parent.pid});
        if let Some(exe) = &parent.exe {
            out["parent_process"]["file"] = file(exe, None);
        }
    }
    out
}

/// The side that sends is the source.
fn connection(c: &Connection, out: &mut Value) {
    let incoming = c.direction.as_deref() == Some("in");
    let (local, remote) =
        if incoming { ("dst_endpoint", "src_endpoint") } else { ("src_endpoint", "dst_endpoint") };
    for (side, address) in [(local, &c.local), (remote, &c.remote)] {
        if let Some((ip, port)) = address.as_deref().and_then(ip_port) {
            out[side] = json!({"ip": ip, "port": port});
        }
    }
    if let (Some(name), true) = (&c.server_name, out[remote].is_object()) {
        out[remote]["hostname"] = cut(name);
    }
    out["connection_info"] = json!({
        "direction_id": if incoming { 1 } else { 2 },
        "direction": if incoming { "Inbound" } else { "Outbound" },
    });
}

fn file(path: &str, sha256: Option<&str>) -> Value {
    let name = path.rsplit('/').next().filter(|n| !n.is_empty()).unwrap_or(path);
    let mut out = json!({"name": cut(name), "path": cut(path), "type_id": 1, "type": "Regular File"});
    if let Some(value) = sha256 {
        out["hashes"] = json!([{"algorithm_id": SHA256, "algorithm": "SHA-256", "value": value}]);
    }
    out
}

/// A base event: there is no finding in it.
fn own(name: &str, severity_id: u8, message: &str) -> Value {
    json!({
        "class_uid": 0,
        "class_name": "Base Event",
        "category_uid": 0,
        "category_name": "Uncategorized",
        "activity_id": 99,
        "activity_name": name,
        "type_uid": 99,
        "severity_id": severity_id,
        "time": ms(jiff::Timestamp::now()),
        "message": message,
    })
}

fn heartbeat(beat: &Heartbeat) -> Value {
    let mut event = own("heartbeat", 1, &format!("alive, heartbeat {}", beat.sequence));
    event["unmapped"] = json!({
        "sequence": beat.sequence,
        "sent": beat.sent,
        "dropped": beat.dropped,
        "uptime": beat.uptime.as_secs(),
    });
    event
}

fn withheld(what: &Withheld) -> Value {
    let mut event = own("withheld", 3, &what.words());
    event["unmapped"] = json!({"alarms": what.alarms, "given_up": what.given_up, "rules": what.rules()});
    event
}

fn cut(value: &str) -> Value {
    clip(value, LONGEST).into_owned().into()
}
