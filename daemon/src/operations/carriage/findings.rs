//! What carriage says: `process-alarm-altered` and `alarm-suppressed`, with what it goes by.
#![forbid(unsafe_code)]

use super::lines::{Arrival, Place};
use super::{Sent, touches};
use crate::config::Carrier;
use crate::detect::{finding, why};
use crate::escape;
use crate::judged::Line;
use crate::model::{Analytic, Finding, Process, Range, Severity};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// A process alarm's message was altered.
pub const ALTERED: &str = "process-alarm-altered";
/// One never arrived.
pub const SUPPRESSED: &str = "alarm-suppressed";
/// Rules about the bytes of a stream, by which its messages are judged.
const ABOUT_STREAMS: &[&str] =
    &["payload-altered", "payload-replaced", "payload-truncated", "cipher-mismatch"];

/// A finding about a stream.
#[derive(Clone, Debug)]
pub(super) struct Taint {
    pub flow: Option<String>,
    pub at: u64,
    rule: String,
    title: String,
    transfer: Option<uuid::Uuid>,
    pid: Option<u32>,
    out: bool,
    altered: Vec<Range>,
    /// What is missing never left, and all before it did.
    gone: bool,
}

impl Taint {
    pub(super) fn of(finding: &Finding, at: u64) -> Option<Self> {
        if !ABOUT_STREAMS.contains(&finding.rule.as_str()) {
            return None;
        }
        Some(Self {
            flow: finding.flow.clone(),
            at,
            rule: finding.rule.clone(),
            title: finding.title.clone(),
            transfer: finding.transfer,
            pid: finding.process.as_ref().map(|p| p.pid),
            out: finding.connection.as_ref().and_then(|c| c.direction.as_deref()) != Some("in"),
            altered: finding.altered.clone(),
            gone: never_left(finding),
        })
    }

    /// It is about the stream that the line's process sends (`out`), or about the one that it gets.
    pub(super) fn is_about(&self, line: &Line, out: bool) -> bool {
        let pid = line.process.as_ref().map(|p| p.pid);
        self.flow.is_some()
            && self.flow == line.flow
            && (self.out == out) == (self.pid.is_none() || self.pid == pid)
    }

    pub(super) fn covers(&self, span: (u64, u64)) -> bool {
        touches(&self.altered, span)
    }

    fn json(&self) -> Value {
        json!({"rule": self.rule, "title": self.title, "transfer": self.transfer, "altered": self.altered})
    }
}

/// The end of the stream is missing, and what came before is as it was.
fn never_left(finding: &Finding) -> bool {
    finding.rule == "payload-truncated" || finding.evidence["never_encrypted"].as_u64().is_some_and(|n| n > 0)
}

/// What there is about a message that did not arrive as it was sent.
pub(super) struct Evidence<'a> {
    pub sent: &'a Sent,
    pub from: &'a Line,
    pub to: &'a Place,
    pub taint: Option<&'a Taint>,
}

impl Evidence<'_> {
    pub(super) fn altered(&self, carrier: &Carrier, instead: &Arrival) -> Finding {
        let mut f = about(ALTERED, carrier, &self.sent.topic, self.from, self.taint, instead.seen);
        let tag = tag(carrier, &self.sent.topic);
        f.title = format!("The message of {tag} was altered on its way");
        f.message = format!(
            "{} sent a message of {tag} ({} bytes) that did not arrive at {}; another one ({} bytes) arrived in its place.{}",
            who(self.from.process.as_ref()),
            self.sent.payload,
            self.destination(),
            instead.payload,
            by(self.taint),
        );
        f.evidence["sent"] = self.sent_json();
        f.evidence["arrived"] = json!({
            "at": instead.seen, "bytes": instead.payload, "fingerprint": hex(&instead.fingerprint),
            "process": self.to.line.process, "offset": instead.span.0,
        });
        f.key = self.key(ALTERED, &tag);
        f
    }

    pub(super) fn suppressed(&self, carrier: &Carrier, wait: u64) -> Finding {
        let mut f = about(SUPPRESSED, carrier, &self.sent.topic, self.from, self.taint, Timestamp::now());
        let tag = tag(carrier, &self.sent.topic);
        f.technique = Some("T0878".into());
        f.title = format!("A message of {tag} was sent and never arrived");
        let owed = match self.taint {
            Some(_) => String::new(),
            None => " The broker owed it, and both connections lived on.".into(),
        };
        f.message = format!(
            "{} sent a message of {tag} ({} bytes) at {}; {}, which subscribed to it before, never got it.{owed}{}",
            who(self.from.process.as_ref()),
            self.sent.payload,
            self.sent.seen,
            self.destination(),
            by(self.taint),
        );
        f.why = json!({"tunable": "alarms.carrier.wait", "value": null, "threshold": Duration::from_nanos(wait).as_secs_f64(),
            "window": null, "baseline": null});
        f.evidence["sent"] = self.sent_json();
        f.evidence["destination"] =
            json!({"process": self.to.line.process, "connection": self.to.line.connection});
        f.key = self.key(SUPPRESSED, &tag);
        f
    }

    fn destination(&self) -> String {
        match self.to.intake {
            true => "our own subscription".into(),
            false => who(self.to.line.process.as_ref()),
        }
    }

    fn sent_json(&self) -> Value {
        sent_json(self.sent)
    }

    fn key(&self, rule: &str, tag: &str) -> String {
        key(rule, tag, self.from, self.to.line.process.as_ref())
    }
}

fn sent_json(sent: &Sent) -> Value {
    json!({
        "at": sent.seen, "bytes": sent.payload, "fingerprint": hex(&sent.fingerprint), "qos": sent.qos, "offset": sent.span.0,
    })
}

/// The stream of a message was altered where the message is, and nobody that we see was to get it.
pub(super) fn in_its_stream(carrier: &Carrier, sent: &Sent, from: &Line, taint: &Taint) -> Finding {
    let gone = taint.gone;
    let rule = if gone { SUPPRESSED } else { ALTERED };
    let tag = tag(carrier, &sent.topic);
    let mut f = about(rule, carrier, &sent.topic, from, Some(taint), Timestamp::now());
    let what = if gone { "did not go out whole" } else { "was altered on its way" };
    f.title = format!("The message of {tag} {what}");
    f.message = format!(
        "{} sent a message of {tag} ({} bytes) in a stream that {what} just there.{}",
        who(from.process.as_ref()),
        sent.payload,
        by(Some(taint))
    );
    f.evidence["sent"] = sent_json(sent);
    f.key = key(rule, &tag, from, None);
    f
}

/// A message came out of a stream that was altered where it is.
pub(super) fn in_its_end(carrier: &Carrier, arrival: &Arrival, to: &Line, taint: &Taint) -> Finding {
    let tag = tag(carrier, &arrival.topic);
    let mut f = about(ALTERED, carrier, &arrival.topic, to, Some(taint), arrival.seen);
    f.title = format!("The message of {tag} was altered on its way");
    f.message = format!(
        "{} got a message of {tag} ({} bytes) out of a stream that was altered just there.{}",
        who(to.process.as_ref()),
        arrival.payload,
        by(Some(taint))
    );
    f.evidence["arrived"] = json!({"at": arrival.seen, "bytes": arrival.payload, "fingerprint": hex(&arrival.fingerprint), "offset": arrival.span.0});
    f.key = key(ALTERED, &tag, to, None);
    f
}

/// What follows from a finding for tags that were tied to a program or a service.
pub(super) fn tied(carriers: &[Carrier], finding: &Finding) -> Vec<Finding> {
    let by_flow = carriers.iter().filter(|c| c.program.is_some() || c.service.is_some());
    by_flow
        .filter(|c| {
            let program = c.program.as_deref().is_none_or(|p| is_program(finding, p));
            let service = c.service.as_deref().is_none_or(|s| is_service(finding, s));
            program && service
        })
        .map(|carrier| {
            let tag = tag(carrier, "");
            let gone = never_left(finding);
            let rule = if gone { SUPPRESSED } else { ALTERED };
            let mut f = finding.clone();
            f.analytic = Analytic::Dc0109;
            f.rule = rule.into();
            f.severity = Severity::Critical;
            f.technique = Some(if gone { "T0878" } else { "T1565.002" }.into());
            f.title = match gone {
                true => format!("What carries {tag} did not arrive whole"),
                false => format!("What carries {tag} was altered on its way"),
            };
            f.message = format!("[[alarms.carrier]] ties {tag} to this transfer. {}", finding.message);
            f.point = Some(point(&tag));
            f.evidence = json!({"stream": {"rule": finding.rule, "title": finding.title, "evidence": finding.evidence}});
            f.next = next();
            f.key = format!("{rule} tag={tag:?} of {}", finding.key);
            f
        })
        .collect()
}

fn is_program(finding: &Finding, program: &str) -> bool {
    let is = |exe: &str| exe == program || exe.rsplit('/').next() == Some(program);
    let own = finding.process.as_ref().and_then(|p| p.exe.as_deref());
    // The other end, where the rule names it.
    let peer = ["peer", "destination", "origin"].iter().filter_map(|k| finding.evidence[*k]["exe"].as_str());
    own.into_iter().chain(peer).any(is)
}

fn is_service(finding: &Finding, service: &str) -> bool {
    let Some(connection) = &finding.connection else { return false };
    let is = |a: &String| a == service || a.rsplit(':').next() == Some(service);
    [&connection.local, &connection.remote].into_iter().flatten().any(is)
}

fn about(
    rule: &str,
    carrier: &Carrier,
    topic: &str,
    line: &Line,
    taint: Option<&Taint>,
    seen: Timestamp,
) -> Finding {
    let mut f = finding(rule, Severity::Critical, seen);
    f.analytic = Analytic::Dc0109;
    f.confidence = Some(if taint.is_some() { "proven" } else { "correlated" }.into());
    f.process.clone_from(&line.process);
    f.connection = Some(line.connection.clone());
    f.flow.clone_from(&line.flow);
    f.transfer = taint.and_then(|t| t.transfer);
    f.altered = taint.map(|t| t.altered.clone()).unwrap_or_default();
    f.point = Some(point(&tag(carrier, topic)));
    f.evidence = json!({
        "topic": escape::text(topic), "broker": line.connection.remote, "stream": taint.map(Taint::json),
    });
    f.why = why(Value::Null, Value::Null);
    f.next = next();
    f
}

fn next() -> String {
    "Don't act on what the control room shows for this tag: read the instrument itself. Then look at what stands between \
     the source and its destination: libraries in their processes (process-anomaly), the broker, its access lists and rules."
        .into()
}

fn tag(carrier: &Carrier, topic: &str) -> String {
    escape::clip(&escape::text(carrier.tag.as_deref().unwrap_or(topic)), 200).into_owned()
}

fn point(tag: &str) -> Value {
    json!({"tag": tag, "condition": null, "value": null, "limit": null, "unit": null, "state": null, "source_time": null})
}

fn by(taint: Option<&Taint>) -> String {
    taint.map(|t| format!(" The stream itself shows it: {} ({}).", t.title, t.rule)).unwrap_or_default()
}

fn who(process: Option<&Process>) -> String {
    match process {
        Some(p) => format!("{} ({})", p.exe.as_deref().map_or("a program".into(), escape::text), p.pid),
        None => "a program".into(),
    }
}

fn key(rule: &str, tag: &str, from: &Line, to: Option<&Process>) -> String {
    let exe = |p: Option<&Process>| p.and_then(|p| p.exe.clone()).unwrap_or_default();
    format!("{rule} tag={tag:?} origin={:?} destination={:?}", exe(from.process.as_ref()), exe(to))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
