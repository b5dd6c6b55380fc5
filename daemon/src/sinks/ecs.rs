//! Elastic Common Schema, version 9: a JSON line for each alarm.
//!
//! Comes in: alarms, heartbeats, what was withheld. Goes out: documents that hold fields of the schema only; what it has no name for
//! stands under `labels`, as text. Names and types are held against the schema in a test (see `testdata/ecs-9.tsv`).
#![forbid(unsafe_code)]

use super::facts::{self, host, ip_port, message};
use super::jsonl::{line, time};
use super::post::Shape;
use super::{Heartbeat, Message, Withheld};
use crate::escape::clip;
use crate::model::{Alarm, Analytic, Connection, Process, Severity};
use serde_json::{Map, Value, json};

/// The version that the field names were held against.
const VERSION: &str = "9.4.0";
/// Characters of one value.
const LONGEST: usize = 4096;

/// Makes documents.
#[derive(Default)]
pub(super) struct Documents {
    sequence: u64,
}

impl Shape for Documents {
    fn line(&mut self, message: &Message) -> Option<Vec<u8>> {
        self.sequence += 1;
        let mut document = match message {
            Message::Alarm(alarm) => of_alarm(alarm),
            Message::Heartbeat(beat) => heartbeat(beat),
            Message::Withheld(what) => withheld(what),
            Message::Transfer(_) | Message::Coverage(_) => {
                self.sequence -= 1;
                return None;
            }
        };
        document["event"]["sequence"] = self.sequence.into();
        Some(line(&document))
    }
}

fn of_alarm(alarm: &Alarm) -> Value {
    let f = &alarm.finding;
    let mut categories = match f.analytic {
        Analytic::Itself => vec!["host"],
        _ => vec!["intrusion_detection"],
    };
    for (there, category) in
        [(f.connection.is_some(), "network"), (f.file.is_some(), "file"), (f.process.is_some(), "process")]
    {
        if there {
            categories.push(category);
        }
    }
    let mut d = document("alarm", "alert", &message(alarm), alarm.last);
    d["event"]["category"] = json!(categories);
    d["event"]["type"] = json!(["info"]);
    d["event"]["id"] = alarm.id.to_string().into();
    d["event"]["action"] = f.rule.as_str().into();
    d["event"]["code"] = f.rule.as_str().into();
    d["event"]["reason"] = cut(&f.message);
    d["event"]["start"] = time(alarm.raised).into();
    d["event"]["end"] = time(alarm.last).into();
    // As Elastic's own rules number them.
    d["event"]["severity"] = match f.severity {
        Severity::Critical => 99,
        Severity::High => 73,
        Severity::Medium => 47,
        Severity::Low => 21,
        Severity::Info => 1,
    }
    .into();
    d["rule"] = json!({
        "id": f.rule,
        "name": cut(&f.title),
        "category": facts::word(&f.analytic),
        "ruleset": "counterfoil",
    });
    if let Some(id) = &f.technique {
        d["threat"] = threat(id);
    }
    let mut related = Related::default();
    if let Some(p) = &f.process {
        d["process"] = process(p, &mut related);
        if let Some(user) = user(p, &mut related) {
            d["user"] = user;
        }
        if let Some(id) = &p.container {
            d["container"] = json!({"id": cut(id)});
        }
    }
    if let Some(file) = &f.file {
        let mut out = Map::new();
        if let Some(path) = &file.path {
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
            out.insert("path".into(), cut(path));
            out.insert("name".into(), cut(name));
            if !directory.is_empty() {
                out.insert("directory".into(), cut(directory));
            }
        }
        if let Some(sha256) = &file.sha256 {
            out.insert("hash".into(), json!({"sha256": sha256}));
            related.hash.push(sha256.clone());
        }
        if !out.is_empty() {
            d["file"] = Value::Object(out);
        }
    }
    if let Some(c) = &f.connection {
        connection(c, &mut d, &mut related);
    }
    let known = [
        "id",
        "rule",
        "analytic",
        "technique",
        "pid",
        "exe",
        "user",
        "file",
        "local",
        "remote",
        "argv",
        "cwd",
    ];
    let labels: Map<String, Value> = facts::of(alarm)
        .into_iter()
        .filter(|(name, _)| !known.contains(name))
        .map(|(name, value)| (name.to_owned(), cut(&value)))
        .collect();
    d["labels"] = Value::Object(labels);
    for name in ["sha256_origin", "sha256_destination"] {
        if let Some(digest) = d["labels"][name].as_str() {
            related.hash.push(digest.to_owned());
        }
    }
    let related = related.json();
    if related.as_object().is_some_and(|r| !r.is_empty()) {
        d["related"] = related;
    }
    d
}

fn document(dataset: &str, kind: &str, message: &str, at: jiff::Timestamp) -> Value {
    json!({
        "@timestamp": time(at),
        "message": cut(message),
        "ecs": {"version": VERSION},
        "event": {
            "kind": kind,
            "module": "counterfoil",
            "dataset": format!("counterfoil.{dataset}"),
            "provider": "counterfoil",
            "created": time(jiff::Timestamp::now()),
        },
        "observer": {
            "vendor": "Counterfoil",
            "product": "counterfoil",
            "type": "ids",
            "version": env!("CARGO_PKG_VERSION"),
            "hostname": host(),
        },
        "host": {"hostname": host(), "name": host()},
    })
}

fn heartbeat(beat: &Heartbeat) -> Value {
    let words = format!("alive, heartbeat {}", beat.sequence);
    let mut d = document("heartbeat", "metric", &words, jiff::Timestamp::now());
    d["event"]["action"] = "heartbeat".into();
    d["labels"] = json!({
        "sequence": beat.sequence.to_string(),
        "sent": beat.sent.to_string(),
        "dropped": beat.dropped.to_string(),
        "uptime": beat.uptime.as_secs().to_string(),
    });
    d
}

fn withheld(what: &Withheld) -> Value {
    let mut d = document("withheld", "event", &what.words(), jiff::Timestamp::now());
    d["event"]["action"] = "withheld".into();
    d["labels"] = json!({
        "alarms": what.alarms.to_string(),
        "given_up": what.given_up.to_string(),
        "rules": what.rules(),
    });
    d
}

fn threat(id: &str) -> Value {
    let (technique, sub) = id.split_once('.').unwrap_or((id, ""));
    let mut out = json!({"id": [technique]});
    if !sub.is_empty() {
        out["subtechnique"] = json!({"id": [id]});
    }
    json!({"framework": "MITRE ATT&CK", "technique": out})
}

fn process(p: &Process, related: &mut Related) -> Value {
    let mut out = json!({"pid": p.pid});
    if let Some(exe) = &p.exe {
        out["executable"] = cut(exe);
        out["name"] = cut(exe.rsplit('/').next().unwrap_or(exe));
    }
    if let Some(argv) = &p.argv {
        out["args"] = argv.iter().map(|a| cut(a)).collect();
        out["args_count"] = argv.len().into();
        out["command_line"] = cut(&argv.join(" "));
    }
    if let Some(t) = p.started {
        out["start"] = time(t).into();
    }
    if let Some(cwd) = &p.cwd {
        out["working_directory"] = cut(cwd);
    }
    if let Some(sha256) = &p.sha256 {
        out["hash"] = json!({"sha256": sha256});
        related.hash.push(sha256.clone());
    }
    if let Some(parent) = p.parents.first() {
        out["parent"] = json!({"pid": parent.pid});
        if let Some(exe) = &parent.exe {
            out["parent"]["executable"] = cut(exe);
        }
    }
    out
}

fn user(p: &Process, related: &mut Related) -> Option<Value> {
    let mut out = Map::new();
    if let Some(uid) = p.uid {
        out.insert("id".into(), uid.to_string().into());
    }
    if let Some(name) = &p.user {
        out.insert("name".into(), cut(name));
        related.user.push(name.clone());
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

/// The side that sends is the source.
fn connection(c: &Connection, d: &mut Value, related: &mut Related) {
    let incoming = c.direction.as_deref() == Some("in");
    let (local, remote) = if incoming { ("destination", "source") } else { ("source", "destination") };
    for (side, address, bytes) in [(local, &c.local, c.bytes_out), (remote, &c.remote, c.bytes_in)] {
        let Some(address) = address else { continue };
        d[side] = json!({"address": cut(address)});
        if let Some((ip, port)) = ip_port(address) {
            related.ip.push(ip.clone());
            d[side]["ip"] = ip.into();
            d[side]["port"] = port.into();
        }
        if let Some(bytes) = bytes {
            d[side]["bytes"] = bytes.into();
        }
    }
    d["network"] = json!({"direction": if incoming { "ingress" } else { "egress" }});
    if let Some(name) = &c.server_name {
        d["tls"] = json!({"client": {"server_name": cut(name)}});
    }
}

/// What an analyst pivots on.
#[derive(Default)]
struct Related {
    hash: Vec<String>,
    ip: Vec<String>,
    user: Vec<String>,
}

impl Related {
    fn json(self) -> Value {
        let mut out = Map::new();
        for (name, mut all) in [("hash", self.hash), ("ip", self.ip), ("user", self.user)] {
            all.sort();
            all.dedup();
            if !all.is_empty() {
                out.insert(name.into(), json!(all));
            }
        }
        Value::Object(out)
    }
}

fn cut(value: &str) -> Value {
    clip(value, LONGEST).into_owned().into()
}
