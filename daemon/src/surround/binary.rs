//! Whether a program of a known name is what that name says.
//!
//! Comes in: a process that just started. Goes out: a [`Flaw`], for names of `tools` only: where those
//! are found, and whose they are, is known.
#![forbid(unsafe_code)]

use crate::host::executables::Executables;
use crate::judged::Flaw;
use crate::ledger::Baseline;
use crate::model::Process;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Anyone may write.
const OTHERS: u32 = 0o002;

/// Looks at it, and at what it was before.
pub fn look(process: &Process, known: &Executables, baseline: Option<&mut Baseline>) -> Option<Flaw> {
    let exe = process.exe.as_deref()?;
    if exe.starts_with("/memfd:") {
        return Some(Flaw::Memfd);
    }
    // Where it is gone already, what stands at its path has to do.
    let link = format!("/proc/{}/exe", process.pid);
    let target = std::fs::read_link(&link);
    let at = if target.is_ok() { &link } else { exe };
    let path = target.map_or_else(|_| exe.to_owned(), |t| crate::host::path_text(t.as_os_str().as_bytes()));
    let meta = std::fs::metadata(at).ok()?;
    if let Some(path) = path.strip_suffix(" (deleted)") {
        // An upgrade puts another file, root's, in its place.
        let replaced = std::fs::metadata(path).is_ok_and(|m| m.uid() == 0 && m.mode() & OTHERS == 0);
        return (!replaced).then_some(Flaw::Deleted);
    }
    // Another process by now.
    if path != exe {
        return None;
    }
    // In a container's own tree neither folders nor owners can be told from here.
    let contained = process.container.is_some()
        || std::fs::read_link(format!("/proc/{}/root", process.pid)).is_ok_and(|r| r != Path::new("/"));
    let flaw = if contained { None } else { place(Path::new(&path), &meta, process.uid.unwrap_or(0)) };
    flaw.or_else(|| replaced(process, &path, known, baseline?))
}

fn place(path: &Path, meta: &Metadata, uid: u32) -> Option<Flaw> {
    if meta.mode() & OTHERS != 0 {
        return Some(Flaw::WritableByOthers);
    }
    let open = path
        .ancestors()
        .skip(1)
        .find(|folder| std::fs::symlink_metadata(folder).is_ok_and(|m| m.is_dir() && m.mode() & OTHERS != 0));
    if let Some(folder) = open {
        return Some(Flaw::OpenFolder(folder.display().to_string()));
    }
    // Root that runs what a user may change. Users may share what one of them installed.
    (uid == 0 && meta.uid() != 0).then_some(Flaw::Owner(meta.uid()))
}

/// Its digest is not among those that were met at this path, and no upgrade explains it.
fn replaced(process: &Process, path: &str, known: &Executables, baseline: &mut Baseline) -> Option<Flaw> {
    const KIND: &str = "binary";
    let now = known.of(process)?;
    let before: Vec<_> = baseline.others(KIND, path).map(|(d, at)| (d.to_owned(), at)).collect();
    let latest = before.iter().max_by_key(|(_, at)| *at);
    let Some((was, met)) = latest.filter(|_| !before.iter().any(|(d, _)| *d == now.sha256)) else {
        baseline.take_in(KIND, path, &now.sha256);
        return None;
    };
    // The package's list is written when it is installed anew.
    let upgraded = now.listed.is_some_and(|listed| listed >= *met);
    let unpackaged = now.package.is_none();
    let flaw = Flaw::Replaced { was: was.clone(), unpackaged };
    if upgraded || unpackaged {
        baseline.take_in(KIND, path, &now.sha256);
    }
    (!upgraded).then_some(flaw)
}
