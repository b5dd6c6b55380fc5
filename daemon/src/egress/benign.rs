//! `[egress] known_benign_processes`: programs that are believed, known by what they are and not by what they are
//! called.
//!
//! Comes in: a process. Goes out: whether it is one of them. The rules about egress ask. A program is what stands at
//! its path if root owns the file and every folder on the way, nobody else may change them, and the process runs just
//! that content: `/tmp/sshd` is not sshd, and neither is what somebody mounted over it for himself.
#![forbid(unsafe_code)]

use crate::config::egress;
use crate::host::executables::Executables;
use crate::model::Process;
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Anyone but the owner may write.
const OTHERS: u32 = 0o022;
/// Programs of which earlier contents are remembered.
const REMEMBERED: usize = 256;

/// The list, resolved.
#[derive(Debug, Default)]
pub struct Benign {
    entries: Vec<Entry>,
    executables: Arc<Executables>,
    /// Digests that were found at a path before: an upgrade leaves what runs without its file.
    before: Mutex<HashMap<String, Vec<String>>>,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    /// All programs of that folder.
    folder: bool,
    sha256: Option<String>,
}

impl Benign {
    /// The configured programs.
    #[must_use]
    pub fn new(list: &[egress::Benign], executables: Arc<Executables>) -> Self {
        let mut entries = Vec::new();
        for egress::Benign { path, sha256 } in list {
            let folder = path.as_os_str().as_bytes().ends_with(b"/");
            // What is installed later stands there under the name that was written.
            let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            entries.push(Entry { path, folder, sha256: sha256.clone() });
        }
        Self { entries, executables, before: Mutex::default() }
    }

    /// What knows about executables.
    #[must_use]
    pub fn executables(&self) -> &Arc<Executables> {
        &self.executables
    }

    /// Is the process one of them?
    #[must_use]
    pub fn is(&self, process: &Process) -> bool {
        let Some(exe) = path(process) else { return false };
        let listed = |entry: &&Entry| match entry.folder {
            true => Path::new(exe).parent() == Some(&entry.path),
            false => Path::new(exe) == entry.path,
        };
        self.entries.iter().filter(listed).any(|entry| self.runs(process, entry.sha256.as_deref()))
    }

    /// Does the process run what root has put at its path, or else the content with this digest?
    #[must_use]
    pub fn runs(&self, process: &Process, sha256: Option<&str>) -> bool {
        let (Some(exe), Some(running)) = (path(process), self.executables.of(process)) else { return false };
        if let Some(sha256) = sha256 {
            return running.sha256.eq_ignore_ascii_case(sha256);
        }
        if !roots_own(Path::new(exe)) {
            return false;
        }
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        if self.executables.at(Path::new(exe)).is_some_and(|there| there == running.sha256) {
            if before.len() < REMEMBERED || before.contains_key(exe) {
                let known = before.entry(exe.to_owned()).or_default();
                if !known.contains(&running.sha256) && known.len() < REMEMBERED {
                    known.push(running.sha256);
                }
            }
            return true;
        }
        before.get(exe).is_some_and(|known| known.contains(&running.sha256))
    }
}

/// The path that a process runs, where it is one of this host's own tree.
fn path(process: &Process) -> Option<&str> {
    let exe = process.exe.as_deref().filter(|_| process.container.is_none())?;
    Some(exe.strip_suffix(" (deleted)").unwrap_or(exe))
}

/// Root alone decides what stands there.
#[must_use]
pub fn roots_own(path: &Path) -> bool {
    let roots = |meta: &Metadata| meta.uid() == 0 && meta.mode() & OTHERS == 0;
    let file = std::fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && roots(&m));
    file && path
        .ancestors()
        .skip(1)
        .all(|folder| std::fs::symlink_metadata(folder).is_ok_and(|m| m.is_dir() && roots(&m)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn running(path: &Path) -> (Running, Process) {
        let child = Running(Command::new(path).arg("60").spawn().unwrap());
        let exe = std::fs::canonicalize(path).unwrap().to_str().map(str::to_owned);
        let link = format!("/proc/{}/exe", child.0.id());
        // Between fork and exec it is still this test.
        while std::fs::read_link(&link).ok().as_deref().and_then(Path::to_str) != exe.as_deref() {
            std::thread::yield_now();
        }
        let process = Process { pid: child.0.id(), exe, ..Process::default() };
        (child, process)
    }

    fn list(path: &str, sha256: Option<String>) -> Benign {
        Benign::new(&[egress::Benign { path: path.into(), sha256 }], Arc::default())
    }

    #[test]
    fn a_program_is_its_path_and_its_content_never_its_name() {
        let (_child, sleep) = running(Path::new("/bin/sleep"));
        let exe = sleep.exe.clone().unwrap();
        assert!(list("/bin/sleep", None).is(&sleep) && list(&exe, None).is(&sleep));
        assert!(list("/usr/bin/", None).is(&sleep), "a folder");
        assert!(!list("/usr/", None).is(&sleep), "and not what lies deeper");
        assert!(!list("/bin/cat", None).is(&sleep));
        // The same program under the same name in a folder that anyone may write to.
        let dir = tempfile::tempdir().unwrap();
        let copy = std::fs::canonicalize(dir.path()).unwrap().join("sleep");
        std::fs::copy("/bin/sleep", &copy).unwrap();
        let (_copied, copied) = running(&copy);
        assert!(!list("/bin/sleep", None).is(&copied));
        let name = copy.to_str().unwrap();
        assert!(!list(name, None).is(&copied), "listed, and not root's alone: {name}");
        let digest = Executables::default().of(&copied).unwrap().sha256;
        assert!(list(name, Some(digest.to_uppercase())).is(&copied), "its digest is what counts");
        assert!(!list(name, Some("0".repeat(64))).is(&copied));
    }

    #[test]
    fn another_content_at_a_known_path_is_not_it() {
        let (_child, mut sleep) = running(Path::new("/bin/sleep"));
        // What a process in a mount namespace of its own would show.
        sleep.container = Some("abc".into());
        assert!(!list("/bin/sleep", None).is(&sleep));
        sleep.container = None;
        sleep.exe = std::fs::canonicalize("/bin/cat").unwrap().to_str().map(str::to_owned);
        assert!(!list("/bin/cat", None).is(&sleep), "it runs sleep, and says cat");
    }
}
