//! `payload-altered`, `payload-replaced` and `payload-truncated` of files: what was written is not what
//! was read.
#![forbid(unsafe_code)]

use super::ends::{endpoint, ranges};
use super::payload::{altered_bytes, whole};
use super::{finding, key, why};
use crate::judged::Context;
use crate::model::{Endpoint, Finding, Severity, Transfer};
use serde_json::{Value, json};

fn path(end: Option<&Endpoint>) -> String {
    end.and_then(|e| e.path.clone()).unwrap_or_else(|| "a file".into())
}

/// `/a, as scp (pid 1) read it`.
fn read(t: &Transfer) -> String {
    format!("{}, as {} read it,", path(t.origin.as_ref()), endpoint(t.origin.as_ref()))
}

/// `/b, as sftp-server (pid 2) wrote it`.
fn wrote(t: &Transfer) -> String {
    format!("{}, as {} wrote it", path(t.destination.as_ref()), endpoint(t.destination.as_ref()))
}

fn base(rule: &str, severity: Severity, t: &Transfer, context: &Context) -> Finding {
    let (origin, destination) = (context.origin.as_ref(), context.destination.as_ref());
    let mut f = finding(rule, severity, t.ended);
    f.confidence = Some("proven".into());
    f.key = key(rule, origin.or(destination), context.connection.as_ref(), destination, &[]);
    f.process = origin.or(destination).cloned();
    f.connection.clone_from(&context.connection);
    whole(&mut f, t);
    f
}

fn add_place(f: &mut Finding, context: &Context) {
    if let Value::Object(evidence) = &mut f.evidence {
        evidence.insert("place".into(), json!(context.place));
    }
}

/// What to look at first.
fn next(context: &Context) -> String {
    match context.place.as_deref() {
        Some(place) if place.starts_with("source changed") => {
            "Find out who writes to the source while it is read; transfer it again from a snapshot, or after that \
             writer has ended."
                .into()
        }
        Some(place) => format!(
            "It happened {place}: look at what is loaded into the programs there (/proc/PID/maps), who traces them \
             (TracerPid in /proc/PID/status), and keep both files."
        ),
        None => "Keep both files, and look at what is loaded into the two programs (/proc/PID/maps).".into(),
    }
}

pub(super) fn altered(t: &Transfer, context: &Context) -> Finding {
    let mut f = base("payload-altered", Severity::Critical, t, context);
    let place = context.place.as_ref().map(|p| format!(" Where: {p}.")).unwrap_or_default();
    f.title = format!("{} did not arrive as it was", path(t.origin.as_ref()));
    f.message = format!("{} differ between {} and {}.{place}", ranges(&t.altered), read(t), wrote(t));
    f.why = why(altered_bytes(&t.altered), 0);
    f.next = next(context);
    add_place(&mut f, context);
    f
}

pub(super) fn replaced(t: &Transfer, context: &Context) -> Finding {
    let mut f = base("payload-replaced", Severity::High, t, context);
    let place = context.place.as_ref().map(|p| format!(" Where: {p}.")).unwrap_or_default();
    f.title = format!("{} arrived as something else", path(t.origin.as_ref()));
    f.message = format!(
        "{} has the length of {} and nothing else in common with it: no block of the {} bytes is the same.{place}",
        wrote(t),
        read(t),
        t.bytes.origin.unwrap_or(0),
    );
    f.why = why(altered_bytes(&t.altered), 0);
    f.next = next(context);
    add_place(&mut f, context);
    f
}

pub(super) fn truncated(t: &Transfer, context: &Context) -> Finding {
    let mut f = base("payload-truncated", Severity::Medium, t, context);
    let (whole, arrived) = (t.bytes.origin.unwrap_or(0), t.bytes.destination.unwrap_or(0));
    f.title = format!("{} arrived in part", path(t.origin.as_ref()));
    f.message = format!(
        "{} is the first {arrived} of the {whole} bytes of {}; the rest never came.",
        wrote(t),
        path(t.origin.as_ref()),
    );
    f.why = why(whole.saturating_sub(arrived), 0);
    f.next = "See whether a program was killed, a disk was full or a connection broke at that time, and \
              transfer it again; nothing should use the incomplete file."
        .into();
    f
}
