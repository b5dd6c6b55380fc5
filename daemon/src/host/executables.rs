//! What an executable is: its digest, and the package that owns it.
//!
//! Comes in: processes. Goes out: [`Executable`]s, remembered by what names a file's content on a host
//! (device, inode, size, times). Called by `surround` when a known tool starts, and by `desk` when
//! there is an alarm: never by who a program waits for.
#![forbid(unsafe_code)]

use crate::model::Process;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Larger ones are not read.
const LARGEST: u64 = 256 << 20;
/// Files remembered.
const KEPT: usize = 4096;
/// dpkg's lists of files, one a package.
const LISTS: &str = "/var/lib/dpkg/info";

/// One executable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Executable {
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// The package whose list has its path.
    pub package: Option<String>,
    /// When that list was written: an upgrade writes it anew.
    pub listed: Option<SystemTime>,
}

type Content = (u64, u64, u64, i64, i64, i64);

fn content(meta: &Metadata) -> Content {
    (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ctime())
}

/// All that were asked for.
#[derive(Debug, Default)]
pub struct Executables {
    files: Mutex<HashMap<Content, Arc<str>>>,
    /// What the latest program that started from a path was.
    ran: Mutex<HashMap<Box<str>, Content>>,
    packages: Mutex<Packages>,
}

impl Executables {
    /// A process has just started. Its file is looked at, not read: what is asked for later, when the
    /// process may be gone, is known to be the same file or not.
    pub fn started(&self, process: &Process) {
        let Some(path) = process.exe.as_deref().filter(|_| process.container.is_none()) else { return };
        let link = link(process.pid);
        let Some(meta) = runs(process, path).then(|| std::fs::metadata(link).ok()).flatten() else { return };
        let mut ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner);
        if ran.len() >= KEPT {
            ran.clear();
        }
        ran.insert(path.into(), content(&meta));
    }

    /// Reads dpkg's lists now, on a thread of its own: it takes some 40 ms, which the first alarm should not.
    pub fn look_up_packages(self: &Arc<Self>) {
        let executables = Arc::clone(self);
        let read = move || drop(executables.package("/"));
        // Without a thread the first alarm waits.
        let _ = std::thread::Builder::new().name("packages".into()).spawn(read);
    }

    /// A process's executable; None where it can't be read. While the process lives that is what it
    /// really runs; later it is what stands at its path, if that was there unchanged when it started.
    pub fn of(&self, process: &Process) -> Option<Executable> {
        let path = process.exe.as_deref()?;
        let sha256 = self.digest(&self.open(process, path)?)?;
        let (package, listed) = self.package(path).unzip();
        Some(Executable { sha256: sha256.to_string(), package, listed })
    }

    /// The digest of the program that stands at a path; None where there is none, or it can't be read.
    pub fn at(&self, path: &Path) -> Option<String> {
        let file = super::regular::open(path, |meta| meta.mode() & 0o111 != 0)?;
        self.digest(&file).map(|digest| digest.to_string())
    }

    /// Puts digest and package into a process that an alarm is about; the package only if dpkg's lists have
    /// been read, which the alarm does not wait for.
    pub fn fill(self: &Arc<Self>, process: &mut Process) {
        let Some(path) = process.exe.clone().filter(|_| process.sha256.is_none()) else { return };
        let digest = self.open(process, &path).and_then(|file| self.digest(&file));
        let Some(digest) = digest else { return };
        process.sha256 = Some(digest.to_string());
        let packages = self.packages.try_lock();
        match packages {
            Ok(mut packages) if packages.read.is_some() => {
                process.package = packages.of(&path).map(|(package, _)| package);
            }
            Ok(packages) => {
                drop(packages);
                self.look_up_packages();
            }
            Err(_) => {}
        }
    }

    fn open(&self, process: &Process, path: &str) -> Option<File> {
        if runs(process, path)
            && let Ok(file) = File::open(link(process.pid))
        {
            return Some(file);
        }
        // A path in a container's own tree, or none at all ("memfd:"), is not one of ours.
        if process.container.is_some() || !path.starts_with('/') {
            return None;
        }
        // It may have been put there since: then it is not known what ran.
        let ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied();
        let unchanged = |meta: &Metadata| {
            ran == Some(content(meta)) || process.started.is_some_and(|s| meta.ctime() < s.as_second())
        };
        super::regular::open(Path::new(path), |meta| meta.mode() & 0o111 != 0 && unchanged(meta))
    }

    fn digest(&self, file: &File) -> Option<Arc<str>> {
        let meta = file.metadata().ok()?;
        if !meta.is_file() || meta.len() > LARGEST {
            return None;
        }
        let key = content(&meta);
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = files.get(&key) {
            return Some(Arc::clone(known));
        }
        // Under the lock: who asks at the same time wants the same file, and gets it sooner so.
        let digest: Arc<str> = sha256(file, meta.len())?.into();
        if files.len() >= KEPT {
            files.clear();
        }
        files.insert(key, Arc::clone(&digest));
        Some(digest)
    }

    fn package(&self, path: &str) -> Option<(String, SystemTime)> {
        self.packages.lock().unwrap_or_else(PoisonError::into_inner).of(path)
    }
}

/// Of so many bytes: it may be growing.
fn sha256(file: &File, length: u64) -> Option<String> {
    let mut file = file.take(length);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => hash.update(&buffer[..got]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

fn link(pid: u32) -> String {
    format!("/proc/{pid}/exe")
}

/// Does the process live, and run a program of that path?
fn runs(process: &Process, path: &str) -> bool {
    std::fs::read_link(link(process.pid)).is_ok_and(|link| {
        let link = super::path_text(link.as_os_str().as_bytes());
        link.strip_suffix(" (deleted)").unwrap_or(&link) == path
    })
}

/// Which package has which program.
#[derive(Debug, Default)]
struct Packages {
    /// The lists' folder was this old when they were read.
    read: Option<SystemTime>,
    owners: HashMap<Box<str>, Arc<str>>,
}

impl Packages {
    fn of(&mut self, path: &str) -> Option<(String, SystemTime)> {
        let changed = std::fs::metadata(LISTS).and_then(|m| m.modified()).ok()?;
        if self.read != Some(changed) {
            self.owners = owners();
            self.read = Some(changed);
        }
        // /usr/bin/sh is /bin/sh in lists from before the two folders became one.
        let owner = self.owners.get(path).or_else(|| self.owners.get(path.strip_prefix("/usr")?))?;
        let list = std::fs::metadata(Path::new(LISTS).join(format!("{owner}.list"))).ok()?;
        let package = owner.split_once(':').map_or(&**owner, |(name, _)| name);
        Some((package.to_owned(), list.modified().ok()?))
    }
}

/// Every path in the lists that may be a program's.
fn owners() -> HashMap<Box<str>, Arc<str>> {
    let mut owners = HashMap::new();
    for entry in std::fs::read_dir(LISTS).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(package) = name.strip_suffix(".list") else { continue };
        let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
        let package: Arc<str> = package.into();
        for path in text.lines().filter(|p| may_be_program(p)) {
            owners.insert(path.into(), Arc::clone(&package));
        }
    }
    owners
}

fn may_be_program(path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    folder.ends_with("bin")
        || folder.contains("/libexec")
        || (folder.starts_with("/usr/lib/") && !name.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_and_a_packaged_one() {
        let known = Arc::new(Executables::default());
        let own = std::env::current_exe().unwrap();
        let mut process =
            Process { pid: std::process::id(), exe: own.to_str().map(str::to_owned), ..Process::default() };
        known.fill(&mut process);
        let expected = std::process::Command::new("sha256sum").arg(&own).output().unwrap().stdout;
        assert!(String::from_utf8(expected).unwrap().starts_with(process.sha256.as_deref().unwrap()));
        if Path::new(LISTS).is_dir() {
            assert_eq!(known.package("/usr/bin/dpkg").unwrap().0, "dpkg");
            assert_eq!(known.package("/usr/bin/sh").map(|p| p.0).as_deref(), Some("dash"));
            assert!(known.package("/tmp/dpkg").is_none());
        }
    }

    #[test]
    fn a_file_that_was_replaced_is_not_what_ran() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        std::fs::copy("/bin/true", &path).unwrap();
        let started = |seconds| Process {
            // Nobody has this pid.
            pid: u32::MAX,
            exe: path.to_str().map(str::to_owned),
            started: Some(jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)),
            ..Process::default()
        };
        let known = Executables::default();
        assert!(known.of(&started(2)).is_some());
        assert_eq!(known.of(&started(-60)), None);
        // A program was seen to start from there: what is known of it holds for its forks, too, when all
        // are gone, as long as the file is that one.
        let sleep = dir.path().join("sleep");
        std::fs::copy("/bin/sleep", &sleep).unwrap();
        let mut child = std::process::Command::new(&sleep).arg("60").spawn().unwrap();
        let exe = sleep.to_str().map(str::to_owned);
        let mut process = Process { pid: child.id(), exe, ..Process::default() };
        known.started(&process);
        let digest = known.of(&process).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        process.pid = u32::MAX;
        assert_eq!(known.of(&process), Some(digest));
        std::fs::copy("/bin/true", dir.path().join("new")).unwrap();
        std::fs::rename(dir.path().join("new"), &sleep).unwrap();
        assert_eq!(known.of(&process), None);
    }
}
