//! `process-anomaly`: another library stands between a program and its functions.
#![forbid(unsafe_code)]

use super::ends::process;
use super::{finding, key, preloads, why};
use crate::judged::Notice;
use crate::model::{Finding, Severity};
use serde_json::json;

/// Another object answers for a hooked function, or stands before ours.
pub(super) fn foreign_hook(notice: &Notice, symbol: &str, object: &str, before: bool) -> Finding {
    let known = preloads::known(object);
    let severity = if known { Severity::Low } else { Severity::High };
    let who = process(notice.process.as_ref());
    let mut f = finding("process-anomaly", severity, notice.seen);
    f.title = format!("Another library answers for {symbol} in {who}");
    f.message = format!(
        "{object} answers for {symbol} in {who}{}; {}.",
        if known { " (a known preload)" } else { "" },
        if before {
            "it stands before Counterfoil's own hook, so what passes there is not witnessed"
        } else {
            "it stands between Counterfoil's hook and the library: what it changes shows as altered or as \
             cipher-mismatch"
        }
    );
    f.next = if known {
        "A known tool; if it is meant to run here, nothing needs doing.".into()
    } else {
        format!(
            "Find out who put {object} there: which package owns it (dpkg -S, rpm -qf), LD_PRELOAD in \
             /proc/PID/environ, /etc/ld.so.preload, and when the file was written."
        )
    };
    f.evidence = json!({"anomaly": "foreign-hook", "symbol": symbol, "object": object, "before": before, "known_preload": known});
    f.why = why(object, serde_json::Value::Null);
    // One alarm for each library: it usually answers for many functions.
    f.key =
        key(&f.rule, notice.process.as_ref(), None, None, &[("anomaly", "foreign-hook"), ("file", object)]);
    f.process.clone_from(&notice.process);
    f.connection.clone_from(&notice.connection);
    f.transfer = notice.transfer;
    f.flow.clone_from(&notice.flow);
    f
}
