//! Metrics: what an operations room draws curves of.
//!
//! Comes in: counts, from `desk` and `sinks`, as they happen. Goes out: a page in OpenMetrics text over HTTP (see [`page`]), on a
//! loopback address. Labels are words of ours only: no observed program can make a series.

#![forbid(unsafe_code)]

pub mod page;

use crate::judged::Counts;
use crate::model::{Alarm, AlarmState, Channel, Coverage, Severity, Transfer, Verdict};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Numbers<L> = Family<L, Counter>;
type Level = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTransfer {
    verdict: String,
    channel: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfBytes {
    channel: String,
    end: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFinding {
    analytic: String,
    rule: String,
    severity: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAlarm {
    rule: String,
    severity: String,
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfProcess {
    observed: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSink {
    sink: String,
}

/// All counts. A clone counts in the same places.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    transfers: Numbers<OfTransfer>,
    bytes: Numbers<OfBytes>,
    records: Counter,
    dropped: Counter,
    now: Now,
    processes: Numbers<OfProcess>,
    findings: Numbers<OfFinding>,
    alarms: Family<OfAlarm, Gauge>,
    /// What was ever said of the list: states that no alarm is in any more are 0.
    listed: Arc<Mutex<HashSet<OfAlarm>>>,
    sinks: OfSinks,
}

/// How the daemon keeps up.
#[derive(Clone, Default)]
struct Now {
    pressure: Gauge,
    lag: Gauge,
    sessions: Gauge,
}

#[derive(Clone, Default)]
struct OfSinks {
    sent: Numbers<OfSink>,
    held_back: Numbers<OfSink>,
    dropped: Numbers<OfSink>,
    waiting: Family<OfSink, Gauge>,
    up: Family<OfSink, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut r = Registry::with_prefix("counterfoil");
        let transfers = Numbers::default();
        r.register("transfers", "Transfers that are final, by verdict", transfers.clone());
        let bytes = Numbers::default();
        let words = "Bytes of final transfers, as each observed end counted them";
        r.register_with_unit("transferred", words, Unit::Bytes, bytes.clone());
        let (records, dropped) = (Counter::default(), Counter::default());
        r.register("records", "Records read from the lanes of observed programs", records.clone());
        r.register("records_dropped", "Records that found no room in a lane", dropped.clone());
        let now = Now::default();
        let words = "How full the fullest lane was in the last second";
        r.register_with_unit("lane_pressure", words, Unit::Other("percent".into()), now.pressure.clone());
        let words = "How late the daemon read its lanes at most in the last second";
        r.register_with_unit("lag", words, Unit::Other("milliseconds".into()), now.lag.clone());
        r.register("sessions", "Sockets, pipes and TLS sessions that are open", now.sessions.clone());
        let processes = Numbers::default();
        r.register("processes", "Processes that were observed, or were not, and why", processes.clone());
        let findings = Numbers::default();
        r.register("findings", "What rules saw, repeats too", findings.clone());
        let alarms = Family::default();
        r.register("alarms", "Alarms on the list", alarms.clone());
        let sinks = OfSinks::default();
        let s = r.sub_registry_with_prefix("sink");
        s.register("sent", "Messages given to a sink", sinks.sent.clone());
        s.register("held_back", "Alarms that rate_limit held back", sinks.held_back.clone());
        s.register("dropped", "Messages given up, as too many waited", sinks.dropped.clone());
        s.register("queue_lines", "Lines that wait or are under way", sinks.waiting.clone());
        s.register("up", "1 unless the last attempt at the receiver failed", sinks.up.clone());
        let started: Level = Gauge::default();
        started.set(jiff::Timestamp::now().as_millisecond() as f64 / 1000.0);
        r.register_with_unit("start_time", "When this daemon started", Unit::Seconds, started);
        r.register("build", "This program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let registry = Arc::new(r);
        let listed = Arc::default();
        Self { registry, transfers, bytes, records, dropped, now, processes, findings, alarms, listed, sinks }
    }
}

impl Metrics {
    /// The page.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::with_capacity(4096);
        // Writing to a String can't fail.
        let _ = prometheus_client::encoding::text::encode(&mut out, &self.registry);
        out
    }

    /// A transfer is final.
    pub fn transfer(&self, transfer: &Transfer) {
        let channel = channel(transfer.channel);
        let of = OfTransfer { verdict: verdict(transfer.verdict), channel: channel.clone() };
        self.transfers.get_or_create(&of).inc();
        let ends = [("origin", transfer.bytes.origin), ("destination", transfer.bytes.destination)];
        for (end, bytes) in ends {
            if let Some(bytes) = bytes {
                self.bytes.get_or_create(&OfBytes { channel: channel.clone(), end }).inc_by(bytes);
            }
        }
    }

    /// Totals of the stages before.
    pub fn counts(&self, counts: &Counts) {
        self.records.inner().store(counts.records, Ordering::Relaxed);
        self.dropped.inner().store(counts.dropped, Ordering::Relaxed);
        self.now.pressure.set(counts.pressure.into());
        self.now.lag.set(i64::try_from(counts.lag).unwrap_or(i64::MAX));
        self.now.sessions.set(i64::try_from(counts.sessions).unwrap_or(i64::MAX));
    }

    /// A process is, or is not, observed.
    pub fn coverage(&self, coverage: &Coverage) {
        let reason = coverage.reason.clone().unwrap_or_default();
        let of = OfProcess { observed: coverage.observed.to_string(), reason };
        self.processes.get_or_create(&of).inc();
    }

    /// A rule saw something, and this is the alarm that it raised or counts towards.
    pub fn found(&self, alarm: &Alarm) {
        let f = &alarm.finding;
        let of =
            OfFinding { analytic: word(&f.analytic), rule: f.rule.clone(), severity: severity(f.severity) };
        self.findings.get_or_create(&of).inc();
    }

    /// The list as it is now.
    pub fn list(&self, alarms: &HashMap<(Arc<str>, Severity, AlarmState), u64>) {
        let of = |((rule, level, state), n): (&(Arc<str>, Severity, AlarmState), &u64)| {
            (OfAlarm { rule: rule.to_string(), severity: severity(*level), state: word(state) }, *n)
        };
        let now: HashMap<OfAlarm, u64> = alarms.iter().map(of).collect();
        let mut said = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in said.iter().filter(|l| !now.contains_key(l)) {
            self.alarms.get_or_create(gone).set(0);
        }
        for (of, n) in &now {
            self.alarms.get_or_create(of).set(*n as i64);
        }
        said.extend(now.into_keys());
    }

    /// Where a sink counts.
    #[must_use]
    pub fn sink(&self, name: &str) -> SinkMetrics {
        let of = OfSink { sink: crate::escape::text(name).into_owned() };
        let s = &self.sinks;
        SinkMetrics {
            sent: s.sent.get_or_create(&of).clone(),
            held_back: s.held_back.get_or_create(&of).clone(),
            dropped: s.dropped.get_or_create(&of).clone(),
            waiting: s.waiting.get_or_create(&of).clone(),
            up: s.up.get_or_create(&of).clone(),
        }
    }
}

/// Where one sink counts.
pub struct SinkMetrics {
    sent: Counter,
    held_back: Counter,
    dropped: Counter,
    waiting: Gauge,
    up: Gauge,
}

impl SinkMetrics {
    /// A message was given to it.
    pub fn sent(&self) {
        self.sent.inc();
    }

    /// Its rate limit held alarms back.
    pub fn held_back(&self, alarms: u64) {
        self.held_back.inc_by(alarms);
    }

    /// Messages were given up.
    pub fn dropped(&self, messages: u64) {
        self.dropped.inc_by(messages);
    }

    /// Lines that wait, and whether its receiver is away.
    pub fn state(&self, waiting: usize, away: bool) {
        self.waiting.set(waiting as i64);
        self.up.set(i64::from(!away));
    }
}

fn verdict(verdict: Verdict) -> String {
    word(&verdict)
}

fn channel(channel: Channel) -> String {
    word(&channel)
}

fn severity(severity: Severity) -> String {
    word(&severity)
}

fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn the_page_has_what_was_counted() {
        let m = Metrics::default();
        m.transfer(&sample::transfer(Verdict::Altered));
        m.transfer(&sample::transfer(Verdict::Intact));
        m.transfer(&sample::transfer(Verdict::Intact));
        let mut counts = Counts::default();
        (counts.records, counts.dropped) = (17, 3);
        (counts.pressure, counts.lag, counts.sessions) = (40, 7, 12);
        m.counts(&counts);
        m.coverage(&Coverage { pid: 1, exe: None, observed: false, reason: Some("static".into()) });
        let a = crate::sinks::tests::alarm();
        m.found(&a);
        m.found(&a);
        let of = |state, n| HashMap::from([((Arc::from("payload-altered"), Severity::Critical, state), n)]);
        m.list(&of(AlarmState::Unacknowledged, 5));
        m.list(&of(AlarmState::Acknowledged, 1));
        let s = m.sink("syslog udp:a\"b:1");
        s.sent();
        s.state(7, true);
        let text = m.text();
        for line in [
            "counterfoil_transfers_total{verdict=\"altered\",channel=\"tls\"} 1",
            "counterfoil_transfers_total{verdict=\"intact\",channel=\"tls\"} 2",
            "counterfoil_records_total 17",
            "counterfoil_records_dropped_total 3",
            "counterfoil_lane_pressure_percent 40",
            "counterfoil_lag_milliseconds 7",
            "counterfoil_sessions 12",
            "counterfoil_processes_total{observed=\"false\",reason=\"static\"} 1",
            "counterfoil_findings_total{analytic=\"AN0703\",rule=\"payload-altered\",severity=\"critical\"} 2",
            "counterfoil_alarms{rule=\"payload-altered\",severity=\"critical\",state=\"unacknowledged\"} 0",
            "counterfoil_alarms{rule=\"payload-altered\",severity=\"critical\",state=\"acknowledged\"} 1",
            "counterfoil_sink_queue_lines{sink=\"syslog udp:a\\\"b:1\"} 7",
            "counterfoil_sink_up{sink=\"syslog udp:a\\\"b:1\"} 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
