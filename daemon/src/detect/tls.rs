//! `cipher-mismatch` and `record-rejected`: what TLS itself gives away, without the other end.
#![forbid(unsafe_code)]

use super::ends::{process, ranges, route};
use super::{finding, key, why};
use crate::judged::Notice;
use crate::model::{Connection, Finding, Process, Range, Severity, Tap};
use serde_json::json;
use uuid::Uuid;

/// What the program gave to TLS is not what was encrypted, or the other way round.
pub(super) fn cipher_mismatch(notice: &Notice, tap: Tap, altered: &[Range], lacking: u64) -> Finding {
    let who = process(notice.process.as_ref());
    let sealing = tap == Tap::TlsWrite;
    let mut f = finding("cipher-mismatch", Severity::Critical, notice.seen);
    f.confidence = Some("proven".into());
    f.title = format!("Data changed inside {who}, between the program and its cipher");
    f.message = if lacking > 0 {
        format!(
            "{who} gave {lacking} bytes more to TLS than were encrypted{}: they never left.",
            route(notice.connection.as_ref())
        )
    } else if sealing {
        format!(
            "{} of what {who} gave to TLS are not what was encrypted{}.",
            ranges(altered),
            route(notice.connection.as_ref())
        )
    } else {
        format!(
            "{} of what was decrypted are not what {who} got from TLS{}.",
            ranges(altered),
            route(notice.connection.as_ref())
        )
    };
    f.next = "Something in this process stands between the program and the cipher: list /proc/PID/maps for \
              libraries that no package owns, look at LD_PRELOAD in /proc/PID/environ, /etc/ld.so.preload and \
              openssl.cnf's providers and engines, and keep a core of the process before it ends."
        .into();
    f.why = why(altered.iter().fold(0u64, |n, r| n.saturating_add(r.length)), 0);
    let (program, cipher) =
        if sealing { (Tap::TlsWrite, Tap::CipherSeal) } else { (Tap::TlsRead, Tap::CipherOpen) };
    f.evidence =
        json!({"taps": [program.word(), cipher.word()], "ranges": altered, "never_encrypted": lacking});
    f.altered = altered.to_vec();
    about(&mut f, notice, &[("tap", tap.word())]);
    f
}

/// TLS refused a record after its handshake: an alteration that the protocol stopped.
pub(super) fn record_rejected(
    notice: &Notice,
    tap: Tap,
    code: u32,
    by_peer: bool,
    text: &str,
    offset: u64,
) -> Finding {
    let who = process(notice.process.as_ref());
    let mut f = finding("record-rejected", Severity::High, notice.seen);
    f.confidence = Some("proven".into());
    f.title = format!("TLS refused a record of {who}");
    f.message = if by_peer {
        format!(
            "The peer of {who} refused a record ({text}) after {offset} bytes{}.",
            route(notice.connection.as_ref())
        )
    } else {
        format!(
            "{who} was sent a record that fails its check ({text}) after {offset} bytes{}; TLS ended the connection.",
            route(notice.connection.as_ref())
        )
    };
    f.next = "The record was changed after it was encrypted, so look at the path: proxies, middleboxes, a failing \
              network card (ethtool -S), someone who injects. Capture at both ends and compare. The data did not \
              get through."
        .into();
    f.evidence = json!({"code": code, "text": text, "refused_by": if by_peer { "peer" } else { "this end" },
               "tap": tap.word(), "offset": offset});
    f.why = why(text, serde_json::Value::Null);
    about(&mut f, notice, &[("text", text)]);
    f
}

/// The second of two sessions that carried one content.
pub(super) struct Onward<'a> {
    pub(super) connection: Option<&'a Connection>,
    pub(super) flow: Option<&'a str>,
    pub(super) transfer: Uuid,
    /// None: not observed.
    pub(super) relay: Option<&'a Process>,
    pub(super) receiver: Option<&'a Process>,
}

/// One content crossed two TLS sessions.
pub(super) fn terminated_in_path(
    notice: &Notice,
    onward: &Onward<'_>,
    bytes: u64,
    changed: &[Range],
) -> Finding {
    let (sender, receiver) = (process(notice.process.as_ref()), process(onward.receiver));
    let mut f = finding("tls-terminated-in-path", Severity::High, notice.seen);
    f.confidence = Some("proven".into());
    let relay = match onward.relay {
        Some(relay) => process(Some(relay)),
        None => "someone who is not observed".into(),
    };
    f.title = format!("TLS between {sender} and {receiver} ends on the way");
    f.message = format!(
        "{bytes} bytes that {sender} sent over TLS{} reached {receiver} over another TLS session{}: {relay} had them in \
         the clear in between{}.",
        route(notice.connection.as_ref()),
        route(onward.connection),
        if changed.is_empty() { String::new() } else { format!(", and changed {}", ranges(changed)) },
    );
    f.next = "If this relay is yours (a reverse proxy, a load balancer), it is part of what you trust. If not, compare \
              the certificate that the client was shown with the server's own, and look at proxy settings \
              (https_proxy), DNS, routes and NAT rules between the two."
        .into();
    f.why = why(bytes, serde_json::Value::Null);
    f.altered = changed.to_vec();
    f.evidence = json!({
        "flows": [notice.flow, onward.flow],
        "transfers": [notice.transfer, onward.transfer],
        "relay": onward.relay,
        "receiver": onward.receiver,
        "onward": onward.connection,
        "bytes": bytes,
        "ranges": changed,
    });
    about(&mut f, notice, &[("relay", &relay_key(onward.relay)), ("receiver", &relay_key(onward.receiver))]);
    f
}

fn relay_key(process: Option<&Process>) -> String {
    process.and_then(|p| p.exe.clone()).unwrap_or_default()
}

pub(super) fn about(f: &mut Finding, notice: &Notice, more: &[(&str, &str)]) {
    f.key = key(&f.rule, notice.process.as_ref(), notice.connection.as_ref(), None, more);
    f.process.clone_from(&notice.process);
    f.connection.clone_from(&notice.connection);
    f.transfer = notice.transfer;
    f.flow.clone_from(&notice.flow);
}
