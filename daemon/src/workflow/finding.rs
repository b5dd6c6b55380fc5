//! The alarm about a workflow, in words.
#![forbid(unsafe_code)]

use super::Change;
use super::places::What;
use crate::detect;
use crate::escape;
use crate::host::facts::path_text;
use crate::model::{FileFact, Finding, Severity};
use jiff::Timestamp;
use serde_json::json;
use std::os::unix::ffi::OsStrExt;

pub(super) fn changed(now: Timestamp, change: &Change<'_>) -> Finding {
    let path = path_text(change.path.as_os_str().as_bytes());
    let name = escape::text(&path);
    let (place, by) = (change.place, change.by.as_ref());
    let severity = match (&change.package, &change.now) {
        (Some(_), _) => Severity::Info,
        (None, None) => Severity::Low,
        (None, Some(_)) => Severity::Medium,
    };
    let verb = match (&change.was.sha256, &change.now) {
        (None, _) => "appeared",
        (_, None) => "is gone",
        _ => "changed",
    };
    let what = match place.what {
        What::Script => format!("A script that starts {}", place.of),
        What::Job => "A cron job that starts watched programs".into(),
        What::Listed => "A file on workflow_paths".into(),
        other => format!("{} of {}", capital(other.words()), place.of),
    };
    let who = match by {
        Some(process) => {
            let user = process.user.clone().or_else(|| process.uid.map(|u| u.to_string()));
            format!(
                "by {}{}",
                detect::ends::process(Some(process)),
                user.map(|u| format!(", user {}", escape::text(&u))).unwrap_or_default()
            )
        }
        None => "not observed by whom".into(),
    };
    let mut f = detect::finding("workflow-changed", severity, now);
    f.title = format!("{what} {verb}: {name}");
    f.message = format!(
        "{name} {verb} between {} and now, {who}{}.",
        change.was.checked.strftime("%Y-%m-%d %H:%M:%S UTC"),
        match &change.package {
            Some(package) => format!("; it is as {package} brings it"),
            None => String::new(),
        },
    );
    f.next = match (&change.package, by) {
        (Some(_), _) => "A package upgrade; if none was planned, see the package manager's log.",
        (None, Some(_)) => "Ask whether this change was meant; compare the file with its last backup or with version control.",
        (None, None) => {
            "Compare the file with its last backup or with version control, and look for who wrote it: its owner, audit, \
             shell histories and sudo's log at the time it was modified."
        }
    }
    .into();
    let package = if change.package.is_some() { " package" } else { "" };
    f.key = format!("workflow-changed file={path:?}{package}");
    f.process = change.by.clone();
    let sha256 = change.now.as_ref().map(|(sha256, _)| sha256.clone());
    f.why = detect::why(sha256.clone(), change.was.sha256.clone());
    f.why["tunable"] = json!("workflow_interval");
    f.file = Some(FileFact { path: Some(path.clone()), sha256: sha256.clone(), class: None, label: None });
    let time = |nanos: i128| Timestamp::from_nanosecond(nanos).ok();
    let mark = change.now.as_ref().map(|(_, mark)| *mark);
    f.evidence = json!({
        "path": path,
        "what": place.what,
        "of": place.of,
        "found": verb,
        "sha256_before": change.was.sha256,
        "sha256_found": sha256,
        "bytes_before": change.was.mark.map(|m| m.size),
        "bytes_found": mark.map(|m| m.size),
        "modified_before": change.was.mark.and_then(|m| time(m.modified)),
        "modified_found": mark.and_then(|m| time(m.modified)),
        "replaced_by_another_file": change.was.mark.zip(mark).map(|(a, b)| a.inode != b.inode),
        "last_good": change.was.checked,
        "written_by": by.map(|p| json!({
            "pid": p.pid, "exe": p.exe, "argv": p.argv, "uid": p.uid, "user": p.user, "unit": p.unit, "parents": p.parents,
        })),
        "package": change.package,
    });
    f
}

fn capital(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map(|c| c.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
