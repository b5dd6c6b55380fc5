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
        class: transfer.class,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Rules;
    use crate::judged::Judged;
    use crate::model::Channel;
    use crate::{expected, sample};
    use sha2::{Digest, Sha256};
    use std::path::Path;
    use std::sync::Arc;

    fn hex(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// A file transfer of `content` from `a` to `b`, which are in `folder`.
    fn transfer(folder: &Path, content: &[u8]) -> Transfer {
        let mut t = sample::transfer(Verdict::Intact);
        t.channel = Channel::File;
        for (end, name) in [(t.origin.as_mut(), "a"), (t.destination.as_mut(), "b")] {
            std::fs::write(folder.join(name), content).unwrap();
            let end = end.unwrap();
            end.path = Some(folder.join(name).to_str().unwrap().into());
            (end.bytes, end.sha256) = (content.len() as u64, Some(hex(content)));
        }
        t
    }

    #[test]
    fn listed_files_must_be_what_is_expected() {
        let dir = tempfile::tempdir().unwrap();
        let folder = std::fs::canonicalize(dir.path()).unwrap();
        let list = format!("{}  a\n{}  b\n{}  c\n", hex(b"good"), hex(b"good"), hex(b"other"));
        let rules = Rules::default().expecting(Arc::new(expected::parse(list.as_bytes(), &folder).unwrap()));
        let findings = |t: &Transfer| {
            let transfer = Box::new(t.clone());
            rules.findings(&Judged::Transfer { transfer, context: Box::new(sample::context()) })
        };
        assert_eq!(findings(&transfer(&folder, b"good")), []);
        let bad = transfer(&folder, b"evil");
        let found = findings(&bad);
        let places: Vec<_> = found.iter().map(|f| f.evidence["place"].as_str().unwrap()).collect();
        assert_eq!(places, ["origin", "destination"]);
        for f in &found {
            assert_eq!(
                (f.rule.as_str(), f.severity, f.transfer),
                ("payload-altered", Severity::Critical, Some(bad.id))
            );
            assert_eq!(f.confidence.as_deref(), Some("proven"));
            assert_eq!(f.evidence["expected_sha256"], hex(b"good"));
            assert_eq!(f.evidence["found_sha256"], hex(b"evil"));
        }
        assert_ne!(found[0].key, found[1].key);
        // A part of the file was sent: of that nothing was expected.
        let mut part = bad.clone();
        part.origin.as_mut().unwrap().bytes = 2;
        part.destination = None;
        assert_eq!(findings(&part), []);
        // What stopped half way is another rule's.
        let cut = Transfer { verdict: Verdict::Truncated, ..transfer(&folder, b"good") };
        let mut cut = cut;
        cut.destination.as_mut().unwrap().sha256 = Some(hex(b"go"));
        assert!(findings(&cut).iter().all(|f| f.rule == "payload-truncated"));
        // Files that are not listed, and digests that are not known.
        let mut unlisted = bad.clone();
        unlisted.origin.as_mut().unwrap().path = Some("/srv/unlisted".into());
        unlisted.destination.as_mut().unwrap().sha256 = None;
        assert_eq!(findings(&unlisted), []);
    }
}
