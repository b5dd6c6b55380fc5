//! `cipher-mismatch` and `record-rejected`, as ssh and sshd give them away.
#![forbid(unsafe_code)]

use super::ends::{process, ranges, route};
use super::tls::about;
use super::{finding, why};
use crate::judged::{Notice, SshPlace};
use crate::model::{Finding, Process, Range, Severity, Tap};
use serde_json::json;

/// What passed through ssh is not the same at two of its taps.
pub(super) fn mismatch(
    notice: &Notice,
    place: SshPlace,
    altered: &[Range],
    peer: Option<&Process>,
) -> Finding {
    let (who, other) = (process(notice.process.as_ref()), process(peer));
    let mut f = finding("cipher-mismatch", Severity::Critical, notice.seen);
    f.confidence = Some("proven".into());
    let (altered_text, way) = (ranges(altered), route(notice.connection.as_ref()));
    (f.title, f.message) = match place {
        SshPlace::BeforeSealing => (
            format!("Data changed inside {who}, before it was encrypted"),
            format!("{altered_text} of what {who} was given to send are not what it encrypted{way}."),
        ),
        SshPlace::BetweenCiphers => (
            format!("Data changed between the ciphers of {who} and {other}"),
            format!(
                "{altered_text} of what {who} gave to its cipher are not what the cipher of {other} gave \
                 out{way}."
            ),
        ),
        SshPlace::AfterOpening => (
            format!("Data changed inside {who}, after it was decrypted"),
            format!("{altered_text} of what {who} decrypted are not what it handed on{way}."),
        ),
    };
    f.next = "SSH protects the path, so look inside the program: list /proc/PID/maps for libraries that no \
              package owns, look at LD_PRELOAD in /proc/PID/environ, /etc/ld.so.preload and openssl.cnf's \
              providers, check the program and libcrypto against their packages, and keep a core of the \
              process before it ends."
        .into();
    let (place, taps) = match place {
        SshPlace::BeforeSealing => ("before-encryption", ["input", Tap::CipherSeal.word()]),
        SshPlace::BetweenCiphers => ("between-ciphers", [Tap::CipherSeal.word(), Tap::CipherOpen.word()]),
        SshPlace::AfterOpening => ("after-decryption", [Tap::CipherOpen.word(), "output"]),
    };
    f.why = why(altered.iter().fold(0u64, |n, r| n.saturating_add(r.length)), 0);
    f.evidence = json!({"taps": taps, "ranges": altered, "place": place});
    f.altered = altered.to_vec();
    about(&mut f, notice, &[("place", place)]);
    f
}

/// SSH refused a packet after its login: an alteration that the protocol stopped.
pub(super) fn packet_rejected(notice: &Notice, text: &str, offset: u64) -> Finding {
    let who = process(notice.process.as_ref());
    let mut f = finding("record-rejected", Severity::High, notice.seen);
    f.confidence = Some("proven".into());
    f.title = format!("SSH refused a packet that was sent to {who}");
    f.message = format!(
        "{who} was sent a packet that fails its check ({text}) after {offset} bytes{}; SSH ended the \
         connection.",
        route(notice.connection.as_ref())
    );
    f.next = "The packet was changed after it was encrypted, so look at the path: proxies, middleboxes, a \
              failing network card (ethtool -S), someone who injects. Capture at both ends and compare. The \
              data did not get through."
        .into();
    f.evidence =
        json!({"text": text, "refused_by": "this end", "tap": Tap::SockRecv.word(), "offset": offset});
    f.why = why(text, serde_json::Value::Null);
    about(&mut f, notice, &[("text", text)]);
    f
}
