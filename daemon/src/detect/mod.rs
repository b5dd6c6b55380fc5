//! Detect: what `judge` says, held against the rules of AN0703 and of Counterfoil itself.
//!
//! Comes in: [`Judged`]. Goes out: [`Finding`]s, none for what is well. Called by `desk`; `alarms`
//! keeps and counts what comes out. Nothing is remembered here: a word gives the same findings
//! whenever it comes.
#![forbid(unsafe_code)]

mod around;
pub(crate) mod ends;
mod files;
pub(crate) use ends::ranges;
mod expected;
mod itself;
mod media;
mod payload;
mod preloads;
mod process;
mod sensitive;
mod ssh;
#[cfg(test)]
mod tests;
mod tls;

use crate::config::Watch;
use crate::expected::Expected;
use crate::judged::{Judged, Notice, What};
use crate::model::{Analytic, Connection, Finding, Process, Severity, Tap};
use ends::service;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// Transmitted Data Manipulation.
const MANIPULATION: &str = "T1565.002";

/// The rules, with what was configured for them.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    watch: Watch,
    expected: Arc<Expected>,
}

impl Rules {
    /// Rules that honour `[watch] monitored_ports` and `internal_ranges`.
    #[must_use]
    pub fn new(watch: Watch) -> Self {
        Self { watch, expected: Arc::default() }
    }

    /// With digests that files are expected to have.
    #[must_use]
    pub fn expecting(mut self, expected: Arc<Expected>) -> Self {
        self.expected = expected;
        self
    }

    /// What the rules see in `judged`.
    #[must_use]
    pub fn findings(&self, judged: &Judged) -> Vec<Finding> {
        let mut found: Vec<Finding> = match judged {
            Judged::Transfer { transfer, context } => {
                let mut found = expected::judge(&self.expected, transfer, context);
                found.extend(payload::judge(transfer, context));
                found
            }
            Judged::Notice(notice) => vec![Self::notice(notice)],
            Judged::Coverage(_)
            | Judged::Deed(_)
            | Judged::Traffic(_)
            | Judged::Counts(_)
            | Judged::Carried(_) => vec![],
        };
        for finding in &mut found {
            self.enrich(finding);
        }
        found.into_iter().filter(|f| f.analytic == Analytic::Itself || self.monitored(f)).collect()
    }

    fn notice(notice: &Notice) -> Finding {
        match &notice.what {
            What::AlteredWhileOpen { channel, altered, peer } => {
                payload::altered_while_open(notice, *channel, altered, peer.as_ref())
            }
            What::CipherMismatch { tap, altered, lacking } => {
                tls::cipher_mismatch(notice, *tap, altered, *lacking)
            }
            What::SshMismatch { place, altered, peer } => {
                ssh::mismatch(notice, *place, altered, peer.as_ref())
            }
            What::RecordRejected { tap: Tap::SockRecv, text, offset, .. } => {
                ssh::packet_rejected(notice, text, *offset)
            }
            What::RecordRejected { tap, code, by_peer, text, offset } => {
                tls::record_rejected(notice, *tap, *code, *by_peer, text, *offset)
            }
            What::TlsTerminated { onward, onward_flow, onward_transfer, relay, receiver, bytes, changed } => {
                let onward = tls::Onward {
                    connection: onward.as_ref(),
                    flow: onward_flow.as_deref(),
                    transfer: *onward_transfer,
                    relay: relay.as_ref(),
                    receiver: receiver.as_ref(),
                };
                tls::terminated_in_path(notice, &onward, *bytes, changed)
            }
            What::ForeignHook { symbol, object, before } => {
                process::foreign_hook(notice, symbol, object, *before)
            }
            What::Anomaly(anomaly) => around::anomaly(notice, anomaly),
            What::SensitiveEgress(egress) => sensitive::egress(notice, egress),
            What::Media(chain) => media::media(notice, chain),
            What::CoverageLost { exe, reason, inherits_tracked } => {
                itself::coverage_lost(notice, exe, reason, *inherits_tracked)
            }
            What::RecordsDropped { records } => itself::records_dropped(notice, *records),
            What::HostileArena { detail } => itself::hostile_arena(notice, detail),
            What::DaemonRestarted { arenas } => itself::daemon_restarted(notice, *arenas),
        }
    }

    /// Says whether the service's address is inside `internal_ranges`, where any are configured.
    fn enrich(&self, finding: &mut Finding) {
        if self.watch.internal_ranges.is_empty() {
            return;
        }
        let Some(address) = finding.connection.as_ref().and_then(service) else { return };
        let inside = self.watch.internal_ranges.iter().any(|r| r.contains(address.ip()));
        if let Value::Object(evidence) = &mut finding.evidence {
            evidence.insert("service_is".into(), json!(if inside { "internal" } else { "external" }));
        }
    }

    /// False where both ports are known and neither is in `monitored_ports`.
    fn monitored(&self, finding: &Finding) -> bool {
        let Some(connection) = &finding.connection else { return true };
        let ports: Vec<u16> = [&connection.local, &connection.remote]
            .into_iter()
            .filter_map(|a| Some(a.as_ref()?.parse::<std::net::SocketAddr>().ok()?.port()))
            .collect();
        ports.is_empty() || ports.iter().any(|p| self.watch.monitored_ports.contains(*p))
    }
}

/// Rules whose alarms can be critical: who holds these back is to know that.
pub const CRITICAL: [&str; 8] = [
    "payload-altered",
    "cipher-mismatch",
    "sensitive-egress",
    "media-script",
    "media-egress",
    "process-alarm",
    "process-alarm-altered",
    "alarm-suppressed",
];

/// A finding with what all findings have; the rule fills in the rest.
pub(crate) fn finding(rule: &str, severity: Severity, seen: Timestamp) -> Finding {
    debug_assert!(severity != Severity::Critical || CRITICAL.contains(&rule), "{rule} belongs into CRITICAL");
    Finding {
        analytic: Analytic::An0703,
        rule: rule.into(),
        technique: Some(MANIPULATION.into()),
        severity,
        confidence: None,
        title: String::new(),
        message: String::new(),
        process: None,
        file: None,
        connection: None,
        transfer: None,
        verdict: None,
        reasons: Vec::new(),
        altered: Vec::new(),
        why: why(Value::Null, Value::Null),
        point: None,
        evidence: json!({}),
        next: String::new(),
        key: String::new(),
        seen,
        flow: None,
    }
}

/// INTERFACE's `why`. The rules of this analytic have no tunable: one byte is enough.
pub(crate) fn why(value: impl Into<Value>, threshold: impl Into<Value>) -> Value {
    json!({"tunable": null, "value": value.into(), "threshold": threshold.into(), "window": null, "baseline": null})
}

/// What repeats are counted by: rule, executable, file, origin, destination, user. Ports that the
/// kernel picked are left out, or every connection would be an alarm of its own.
pub(crate) fn key(
    rule: &str,
    process: Option<&Process>,
    connection: Option<&Connection>,
    peer: Option<&Process>,
    more: &[(&str, &str)],
) -> String {
    let exe = process.and_then(|p| p.sha256.clone().or_else(|| p.exe.clone()));
    let user = process.and_then(|p| p.user.clone().or_else(|| p.uid.map(|uid| uid.to_string())));
    let (origin, destination) = match connection.map(ends::stable) {
        Some((Some(local), Some(remote))) => (Some(local), Some(remote)),
        _ => (None, peer.and_then(|p| p.exe.clone())),
    };
    let mut key = String::from(rule);
    let fixed = [("exe", &exe), ("origin", &origin), ("destination", &destination), ("user", &user)];
    let fixed = fixed.iter().map(|(name, value)| (*name, value.as_deref().unwrap_or("")));
    for (name, value) in fixed.chain(more.iter().copied()) {
        if !value.is_empty() {
            key.push_str(&format!(" {name}={value:?}"));
        }
    }
    key
}
