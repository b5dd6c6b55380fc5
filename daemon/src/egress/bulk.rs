//! `bulk-egress`: a lot of binary or encrypted data leaves over a lasting connection, or over many one after the other,
//! to where this program doesn't usually send it.
//!
//! Comes in: readings of connections, as they move. Goes out: findings. Called by the stage, `egress`.
#![forbid(unsafe_code)]

use super::series::{Series, Sum};
use super::{Parts, Standing, amount};
use crate::config::Egress;
use crate::detect::{self, ends};
use crate::judged::Reading;
use crate::ledger::usual::Errand;
use crate::model::{Analytic, Class, Finding, Process, Severity};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;
use uuid::Uuid;

/// Series at once; the one that stirred longest ago goes first.
const SERIES: usize = 4096;

/// Exfiltration Over C2 Channel.
const TECHNIQUE: &str = "T1041";

/// Errands remembered as new of one series.
const NEW: usize = 64;

/// Said where nobody keeps a baseline: by a `run` of its own.
const NO_BASELINE: &str = " This run keeps no baseline: every destination is new to it.";
const NEXT_WITHOUT: &str = "If that is what it was started for, all is in order: with `--state DIR` this run is \
                            remembered, and the next one knows it. If not, find out what was sent and whose the \
                            destination is.";

/// What belongs together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Name {
    /// What is usual, or is said to be, stands for itself.
    Usual(Errand),
    /// Program, destination, user: what is not usual is one, whichever port it takes.
    New(String, IpAddr, String),
}

impl Name {
    fn of_new(errand: &Errand) -> Self {
        Self::New(errand.exe.clone(), errand.destination, errand.user.clone())
    }
}

/// The rule's memory.
#[derive(Default)]
pub struct Bulk {
    series: HashMap<Name, Going>,
}

/// What goes on between two.
#[derive(Default)]
struct Going {
    series: Series,
    stirred: Timestamp,
    /// Errands that were new when they began: while the baseline is learnt they soon are usual.
    new: Vec<Errand>,
    /// Said at this volume, about this transfer.
    said: Option<(u64, Option<Uuid>)>,
}

/// What makes a payload count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Basis {
    Class(Class),
    /// Base64 or the like.
    Encoded,
    Entropy,
    /// All that is seen of it is TLS or SSH.
    Sealed,
}

impl Bulk {
    /// One reading.
    pub fn take(&mut self, reading: &Reading, parts: &Parts<'_>) -> Option<Finding> {
        let Parts { config, usual, benign, .. } = *parts;
        let connection = &reading.connection;
        let errand = Errand::of(&reading.process, connection.remote.as_deref()?)?;
        let (now, name) = (reading.seen, connection.server_name.as_deref());
        let span = config.connection_duration;
        let standing = self.standing(&errand, name, &reading.process, parts, now);
        let going = match standing {
            Standing::FirstSeen => self.going(Name::of_new(&errand), now, span),
            _ => self.going(Name::Usual(errand.clone()), now, span),
        };
        if standing == Standing::FirstSeen && !going.new.contains(&errand) && going.new.len() < NEW {
            going.new.push(errand.clone());
        }
        let basis = basis(reading, config.outbound_entropy_score);
        let (sent, connections) = (reading.sent, u64::from(reading.first));
        let payload = if basis.is_some() { sent } else { 0 };
        going.series.add(now, Sum { sent, payload, received: reading.received, connections }, span);
        let all = going.series.sum(now, span, span);
        usual.met(&errand, name, all.sent, reading.first, now);
        let threshold = config.data_volume_threshold;
        if all.payload < threshold.bytes || all.sent <= all.received {
            going.said = None;
            return None;
        }
        // What carries it now is text: what did not is another connection's, and was said of it.
        let basis = basis?;
        if standing.carries(all.sent, threshold.bytes) || benign.is(&reading.process) {
            return None;
        }
        let news = match going.said {
            None => true,
            Some((volume, transfer)) => {
                all.payload / 2 >= volume
                    || reading.ended && transfer.is_some() && transfer == reading.transfer
            }
        };
        if !news {
            return None;
        }
        going.said = Some((all.payload, reading.transfer));
        let recent = going.series.sum(now, threshold.within, span);
        let burst = recent.payload >= threshold.bytes && recent.sent > recent.received;
        let measured = if burst { (recent, threshold.within) } else { (all, span) };
        let mut finding = finding(reading, config, &standing, basis, measured, all, burst);
        if !usual.kept() {
            finding.message += NO_BASELINE;
            finding.next = NEXT_WITHOUT.into();
        }
        Some(finding)
    }

    /// How does an errand stand? While the baseline is learnt its own traffic makes it known: what was new when this began
    /// stays so.
    pub fn standing(
        &self,
        errand: &Errand,
        name: Option<&str>,
        process: &Process,
        parts: &Parts<'_>,
        now: Timestamp,
    ) -> Standing {
        let standing = parts.usual.standing(errand, name, process, parts.benign, now);
        let known = matches!(standing, Standing::Known { .. });
        let learning = || parts.usual.learning(now);
        if known && self.is_new(errand, now, parts.config.connection_duration) && learning() {
            return Standing::FirstSeen;
        }
        standing
    }

    fn going(&mut self, name: Name, now: Timestamp, span: Duration) -> &mut Going {
        if self.series.len() >= SERIES && !self.series.contains_key(&name) {
            let mut all: Vec<(Timestamp, Name)> =
                self.series.iter().map(|(name, going)| (going.stirred, name.clone())).collect();
            all.sort_unstable();
            for (_, old) in all.into_iter().take(SERIES / 10) {
                self.series.remove(&old);
            }
        }
        let going = self.series.entry(name).or_default();
        if going.over(now, span) {
            *going = Going::default();
        }
        going.stirred = now;
        going
    }

    /// Was the errand new when what goes on now began?
    fn is_new(&self, errand: &Errand, now: Timestamp, span: Duration) -> bool {
        self.series
            .get(&Name::of_new(errand))
            .is_some_and(|going| !going.over(now, span) && going.new.contains(errand))
    }
}

impl Going {
    fn over(&self, now: Timestamp, span: Duration) -> bool {
        now.duration_since(self.stirred).unsigned_abs() > span
    }
}

/// Does this payload count, and why?
fn basis(reading: &Reading, score: f64) -> Option<Basis> {
    if reading.encoded {
        return Some(Basis::Encoded);
    }
    match reading.class {
        Some(class @ (Class::Compressed | Class::Media | Class::Encrypted | Class::Binary)) => {
            Some(Basis::Class(class))
        }
        Some(Class::Empty | Class::Text | Class::Structured) => None,
        None => match reading.entropy {
            Some(bits) => (f64::from(bits) >= score).then_some(Basis::Entropy),
            None => reading.sealed.then_some(Basis::Sealed),
        },
    }
}

impl Basis {
    /// What it says of the data.
    fn of_data(self) -> &'static str {
        match self {
            Self::Class(Class::Compressed) => "compressed data",
            Self::Class(Class::Media) => "media",
            Self::Class(Class::Binary) => "binary data",
            Self::Encoded => "encoded data",
            Self::Class(_) | Self::Entropy | Self::Sealed => "encrypted data",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Class(_) => "class",
            Self::Encoded => "encoding",
            Self::Entropy => "entropy",
            Self::Sealed => "protocol",
        }
    }
}

fn finding(
    reading: &Reading,
    config: &Egress,
    standing: &Standing,
    basis: Basis,
    (measured, window): (Sum, Duration),
    all: Sum,
    burst: bool,
) -> Finding {
    let threshold = config.data_volume_threshold.bytes;
    let connection = &reading.connection;
    let who = ends::process(Some(&reading.process));
    let to = connection.remote.as_deref().unwrap_or("?");
    let place =
        connection.server_name.as_ref().map_or_else(|| to.to_owned(), |name| format!("{name} ({to})"));
    let open = reading.seen.duration_since(reading.opened).unsigned_abs().as_secs_f64();
    let (out, back) = (connection.bytes_out.unwrap_or(0), connection.bytes_in.unwrap_or(0));
    let usual = standing.carried(threshold);
    let mut f = detect::finding("bulk-egress", Severity::High, reading.seen);
    f.analytic = Analytic::An0989;
    f.technique = Some(TECHNIQUE.into());
    f.title = format!("{who} sent {} of {} to {place}", amount(all.payload), basis.of_data());
    let how = match (burst, all.connections) {
        (true, 0 | 1) => "over one connection".to_owned(),
        (true, n) => format!("over {n} connections"),
        (false, 0 | 1) => "little by little over one connection".to_owned(),
        (false, n) => format!("little by little over {n} connections"),
    };
    let known = match (standing, usual) {
        (Standing::FirstSeen, _) => "This program is not known to send there for this user.".to_owned(),
        (Standing::Approved { id, .. }, usual) => {
            format!("Approval {id} is good for {}.", amount(usual.unwrap_or(0)))
        }
        (_, usual) => format!("Up to {} would be usual there.", amount(usual.unwrap_or(0))),
    };
    f.message = format!(
        "{} went out and {} came in within {}, {how}. {known}",
        amount(measured.sent),
        amount(measured.received),
        span(window),
    );
    f.next = "Find out what was sent (the process, its arguments and parents, the files it had open) and whose the \
              destination is. If it is in order: `counterfoil baseline approve` with an owner, a reason and an expiry."
        .into();
    f.key = detect::key("bulk-egress", Some(&reading.process), Some(connection), None, &[]);
    f.process = Some(reading.process.clone());
    f.connection = Some(connection.clone());
    f.transfer = reading.transfer;
    f.flow.clone_from(&reading.flow);
    f.why = json!({
        "tunable": "data_volume_threshold",
        "value": measured.payload,
        "threshold": threshold,
        "window": span(window),
        "baseline": standing.word(),
    });
    let class = reading.class.map_or(Value::Null, |class| json!(class.word()));
    f.evidence = json!({
        "pattern": if burst { "burst" } else { "drip" },
        "class": class,
        "basis": basis.word(),
        "entropy": reading.entropy.map(|bits| (f64::from(bits) * 1000.0).round() / 1000.0),
        "volume": all.payload,
        "sent": all.sent,
        "received": all.received,
        "connections": all.connections,
        "duration_s": (open * 1000.0).round() / 1000.0,
        "rate_bytes_per_s": (out as f64 / open.max(0.001)).round(),
        "ratio": if back == 0 { Value::Null } else { json!((out as f64 / back as f64 * 100.0).round() / 100.0) },
        "usual_volume": usual,
        "connection_open": !reading.ended,
    });
    f
}

/// `5min`, `1h`, as it is configured.
fn span(span: Duration) -> String {
    match span.as_secs() {
        s if s >= 3600 && s.is_multiple_of(3600) => format!("{}h", s / 3600),
        s if s >= 60 && s.is_multiple_of(60) => format!("{}min", s / 60),
        s => format!("{s}s"),
    }
}

#[cfg(test)]
#[path = "bulk_tests.rs"]
mod tests;
