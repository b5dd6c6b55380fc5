//! `payload-altered` against `integrity_baseline`: a file that was sent or that arrived is not the expected one.
#![forbid(unsafe_code)]

use super::ends::process as process_words;
use super::{finding, key, why};
use crate::escape;
use crate::expected::{Entry, Expected};
use crate::judged::Context;
use crate::model::{Endpoint, FileFact, Finding, Process, Severity, Transfer, Verdict};
use serde_json::json;

/// The findings of a final transfer: one for each end whose file is listed and differs.
pub(super) fn judge(expected: &Expected, transfer: &Transfer, context: &Context) -> Vec<Finding> {
    let origin = (transfer.origin.as_ref(), context.origin.as_ref(), "origin");
    let destination = (transfer.destination.as_ref(), context.destination.as_ref(), "destination");
    let mut found = Vec::new();
    for (end, process, place) in [origin, destination] {
        let Some(end) = end else { continue };
        // What stopped half way has an alarm of its own, and its digest says nothing.
        if place == "destination" && transfer.verdict == Verdict::Truncated {
            continue;
        }
        let (Some(path), Some(sha256)) = (&end.path, &end.sha256) else { continue };
        let Some(entry) = expected.get(path).filter(|e| !e.sha256.eq_ignore_ascii_case(sha256)) else {
            continue;
        };
        if whole(end, entry) {
            found.push(differs(transfer, process, place, entry, path, sha256, context));
        }
    }
    found
}

/// The digest covers the file from its start to its end. A tool may send a part; of that nothing was expected.
fn whole(end: &Endpoint, entry: &Entry) -> bool {
    // The one look at the file system in these rules: only listed files, by the name that the list has.
    std::fs::metadata(&entry.path).is_ok_and(|m| m.is_file() && m.len() == end.bytes)
}

fn differs(
    transfer: &Transfer,
    process: Option<&Process>,
    place: &str,
    entry: &Entry,
    path: &str,
    found: &str,
    context: &Context,
) -> Finding {
    let mut f = finding("payload-altered", Severity::Critical, transfer.ended);
    let who = process_words(process);
    let name = escape::text(path);
    f.confidence = Some("proven".into());
    f.title = match place {
        "origin" => format!("{who} sent a file that is not the expected one: {name}"),
        _ => format!("{who} wrote a file that is not the expected one: {name}"),
    };
    f.message = format!(
        "{name} has SHA-256 {found}; integrity_baseline expects {} (line {}). The transfer itself is {}.",
        entry.sha256,
        entry.line,
        match transfer.verdict {
            Verdict::Intact => "intact: the file was another one before it was sent",
            Verdict::Altered => "altered: see its own alarm",
            Verdict::Truncated => "truncated",
            Verdict::Unverified => "unverified",
        }
    );
    f.next = "If the file was meant to change, write its new digest into the list (sha256sum) and reload; if not, find \
              out who wrote it last, and stop what uses it."
        .into();
    f.key = key("payload-altered", process, None, None, &[("expected", path), ("place", place)]);
    f.process = process.cloned();
    f.connection.clone_from(&context.connection);
    f.file = Some(FileFact {
        path: Some(path.to_owned()),
        sha256: Some(found.to_owned()),
        class: transfer.class.clone(),
        label: None,
    });
    f.transfer = Some(transfer.id);
    f.verdict = Some(transfer.verdict);
    f.reasons.clone_from(&transfer.reasons);
    f.flow.clone_from(&transfer.flow);
    f.why = why(found, entry.sha256.as_str());
    f.why["tunable"] = json!("integrity_baseline");
    f.evidence = json!({
        "compared_with": "integrity_baseline",
        "place": place,
        "path": path,
        "expected_sha256": entry.sha256,
        "found_sha256": found,
        "line": entry.line,
        "sha256_origin": transfer.origin.as_ref().and_then(|e| e.sha256.clone()),
        "sha256_destination": transfer.destination.as_ref().and_then(|e| e.sha256.clone()),
    });
    f
}
