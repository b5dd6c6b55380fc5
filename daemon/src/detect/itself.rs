//! Rules about Counterfoil itself: what it did not see, and who tried to harm it.
#![forbid(unsafe_code)]

use super::ends::process;
use super::{finding, key, why};
use crate::judged::Notice;
use crate::model::{Analytic, Finding, Severity};
use serde_json::json;

fn about_us(rule: &str, severity: Severity, notice: &Notice) -> Finding {
    let mut f = finding(rule, severity, notice.seen);
    f.analytic = Analytic::Itself;
    f.technique = None;
    f.process.clone_from(&notice.process);
    f.connection.clone_from(&notice.connection);
    f.transfer = notice.transfer;
    f.flow.clone_from(&notice.flow);
    f
}

/// A child of an observed process runs unobserved.
pub(super) fn coverage_lost(notice: &Notice, exe: &str, reason: &str, inherits_tracked: bool) -> Finding {
    let severity = if inherits_tracked { Severity::Medium } else { Severity::Info };
    let mut f = about_us("coverage-lost", severity, notice);
    let parent = process(notice.process.as_ref());
    let cause = match reason {
        "static" => "it is linked statically, so nothing can be preloaded into it",
        "setuid" => "it runs with more rights than its caller, so the loader ignores preloads",
        "other-abi" => "it uses another C library or machine type than ours",
        "no-preload" => "it can't see the library from where it runs",
        "unreadable" => "it could not be looked at",
        "no-memory" => "its limit of addresses (RLIMIT_AS, ulimit -v) leaves too little room for the library",
        other => other,
    };
    f.title = format!("{exe} runs unobserved");
    f.message = format!(
        "{exe}, started by {parent}, runs unobserved: {cause}.{}",
        if inherits_tracked { " It inherited a stream that is being witnessed." } else { "" }
    );
    f.next = match reason {
        "static" => {
            "What it transfers can be seen at the other end only. Use a dynamically linked build if you can."
        }
        "no-preload" => {
            "Make the library readable where it runs: install it system-wide, or into its chroot."
        }
        "no-memory" => {
            "Raise that limit by 200 MB if you can; else observe the other end of what it transfers."
        }
        _ => "Decide whether its transfers matter; if they do, observe their other end.",
    }
    .into();
    f.evidence = json!({"exe": exe, "reason": reason, "inherits_tracked": inherits_tracked});
    f.why = why(reason, serde_json::Value::Null);
    let parent = notice.process.as_ref().and_then(|p| p.exe.as_deref()).unwrap_or("");
    f.key = key(&f.rule, None, None, None, &[("exe", exe), ("parent", parent), ("reason", reason)]);
    f
}

/// Records found no room; the streams concerned are unverified.
pub(super) fn records_dropped(notice: &Notice, records: u64) -> Finding {
    let mut f = about_us("records-dropped", Severity::Medium, notice);
    let who = process(notice.process.as_ref());
    f.title = format!("{records} records of {who} were lost");
    f.message = format!(
        "{who} published faster than the daemon read: {records} records found no room, and its transfers of that time can't be verified."
    );
    f.next =
        "See whether the daemon gets enough processor time (systemd-cgtop, nice); a process that is not \
              worth watching can be left out of watched_processes."
            .into();
    f.evidence = json!({"records": records});
    f.why = why(records, 0);
    f.key = key(&f.rule, notice.process.as_ref(), None, None, &[]);
    f
}

/// An arena holds what no library of ours writes.
pub(super) fn hostile_arena(notice: &Notice, detail: &str) -> Finding {
    let mut f = about_us("hostile-arena", Severity::High, notice);
    let who = process(notice.process.as_ref());
    f.title = format!("{who} sends records that the library never writes");
    f.message = format!(
        "The arena of {who} holds what no library of ours writes: {detail}. It is not read any more."
    );
    f.next = "Either its memory was overwritten by a fault of its own, or it tries to deceive or harm the daemon: \
              treat the process as hostile, and look at what it runs and who started it."
        .into();
    f.evidence = json!({"detail": detail});
    f.why = why(detail, serde_json::Value::Null);
    f.key = key(&f.rule, notice.process.as_ref(), None, None, &[]);
    f
}

/// The daemon came back.
pub(super) fn daemon_restarted(notice: &Notice, arenas: u64) -> Finding {
    let mut f = about_us("daemon-restarted", Severity::Low, notice);
    f.title = "The daemon was restarted".into();
    f.message = format!(
        "The daemon came back and took up {arenas} arena{}; transfers that were open meanwhile may be unverified.",
        if arenas == 1 { "" } else { "s" }
    );
    f.next = "If nobody restarted it, find out why it ended (journalctl -u counterfoil).".into();
    f.evidence = json!({"arenas": arenas});
    f.why = why(arenas, serde_json::Value::Null);
    f.key = f.rule.clone();
    f
}
