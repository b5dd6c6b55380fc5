//! `sensitive-egress`: a sensitive file was read and left.
#![forbid(unsafe_code)]

use super::ends::{name, process, ranges, route};
use super::{finding, key};
use crate::judged::Notice;
use crate::model::{Analytic, Finding, Severity};
use crate::sensitive::told::{Ground, SensitiveEgress, Step};
use serde_json::{Value, json};

/// Exfiltration Over C2 Channel.
const EXFILTRATION: &str = "T1041";

pub(super) fn egress(notice: &Notice, egress: &SensitiveEgress) -> Finding {
    let who = process(notice.process.as_ref());
    let path = egress.file.path.as_deref().unwrap_or("a file");
    let label = egress.file.label.as_deref().unwrap_or("sensitive");
    let to = route(notice.connection.as_ref());
    let (severity, confidence) = match &egress.ground {
        Ground::Content { .. } => (Severity::Critical, "proven"),
        Ground::Lineage => (Severity::High, "correlated"),
        Ground::Session => (Severity::Medium, "correlated"),
    };
    let mut f = finding("sensitive-egress", severity.min(egress.severity), notice.seen);
    f.analytic = Analytic::An0989;
    f.technique = Some(EXFILTRATION.into());
    f.confidence = Some(confidence.into());
    f.title = match egress.ground {
        Ground::Content { .. } => format!("{path} ({label}) left through {who}"),
        _ => format!("{who} sent something after {path} ({label}) was read"),
    };
    f.message = match &egress.ground {
        Ground::Content { spans } => {
            format!("{} of {path} left through {who}{to}.", ranges(spans))
        }
        Ground::Lineage => {
            format!("{path} was read, and {who} sent {}{to}: {}.", sent(notice), way(egress))
        }
        Ground::Session => format!(
            "{path} was read by {}, and {who}, of the same session and user, then opened a connection and sent {}{to}.",
            egress.chain.first().map_or_else(|| "a process".into(), who_did),
            sent(notice)
        ),
    };
    f.next = match &egress.ground {
        Ground::Content { .. } => {
            "Treat what the file holds as known to whoever is at the other end: change those passwords and keys. Then \
             find out who ran the process (user, parents and chain in this alarm)."
        }
        _ => {
            "Look at the chain in this alarm: who ran it, and is the destination meant to get this? If so, name the \
             program in known_benign_processes; if not, treat the file's content as known to others."
        }
    }
    .into();
    let value = match &egress.ground {
        Ground::Content { spans, .. } => {
            json!(spans.iter().fold(0u64, |sum, s| sum.saturating_add(s.length)))
        }
        _ => json!(notice.connection.as_ref().and_then(|c| c.bytes_out)),
    };
    let (tunable, threshold) = match egress.ground {
        Ground::Content { .. } => (Value::Null, json!(0)),
        _ => (json!("egress.time_window"), Value::Null),
    };
    f.why = json!({"tunable": tunable, "value": value, "threshold": threshold, "window": egress.window,
                   "baseline": if matches!(egress.ground, Ground::Content { .. }) { Value::Null } else { json!("first-seen") }});
    f.evidence = json!({
        "ground": match egress.ground { Ground::Content { .. } => "content", Ground::Lineage => "lineage", Ground::Session => "session" },
        "spans": match &egress.ground { Ground::Content { spans, .. } => json!(spans), _ => Value::Null },
        "chain": egress.chain.iter().map(step).collect::<Vec<_>>(),
    });
    f.key = key(&f.rule, notice.process.as_ref(), notice.connection.as_ref(), None, &[("file", path)]);
    f.process.clone_from(&notice.process);
    f.connection.clone_from(&notice.connection);
    f.transfer = notice.transfer;
    f.flow.clone_from(&notice.flow);
    f.file = Some(egress.file.clone());
    f
}

fn sent(notice: &Notice) -> String {
    let bytes = notice.connection.as_ref().and_then(|c| c.bytes_out);
    bytes.map_or_else(|| "something".into(), |bytes| format!("{bytes} bytes"))
}

fn who_did(step: &Step) -> String {
    name(step.process.exe.as_deref(), step.process.pid)
}

/// The chain in words.
fn way(egress: &SensitiveEgress) -> String {
    let steps: Vec<String> = egress
        .chain
        .iter()
        .map(|s| {
            let to =
                s.to.as_ref().map(|to| format!(" {}", name(to.exe.as_deref(), to.pid))).unwrap_or_default();
            let over = s.over.map(|over| format!(" over a {over}")).unwrap_or_default();
            let file = s.file.as_ref().map(|file| format!(" {file}")).unwrap_or_default();
            format!("{} {}{to}{over}{file}", who_did(s), s.did)
        })
        .collect();
    steps.join(", ")
}

fn step(s: &Step) -> Value {
    json!({"at": s.at, "process": s.process, "did": s.did, "to": s.to, "over": s.over, "transfer": s.transfer, "file": s.file})
}
