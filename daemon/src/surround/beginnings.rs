//! Whether functions began with what their file says, in a process that may be over by now.
//!
//! Comes in: what the library told of a function when the program first came to it (`Seen::Code`). Goes out: a [`Patch`].
//! `code` sees more, but only while a process lives. This one needs no process: that the file at that path is the one which
//! was mapped is known by its build id, and by its not being younger than the program. Else nothing is said.
#![forbid(unsafe_code)]

use super::code::{LIBRARIES, SHOWN};
use super::library_file::{LARGEST, build_id, has_text_relocations, segments, symbol_at, whole};
use crate::judged::Patch;
use counterfoil_abi::record::{Code, FIRST_CODE};
use jiff::Timestamp;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat, openat2};
use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};

/// Beginnings that are remembered to be right.
const REMEMBERED: usize = 1024;

/// What the library told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Beginning {
    /// The library's path, as the process sees it.
    pub path: String,
    /// Where in it, and what is there.
    pub code: Code,
    /// Length of its build id.
    pub build_id: u8,
}

/// What was compared already.
#[derive(Default)]
pub struct Beginnings {
    right: HashSet<Beginning>,
}

impl Beginnings {
    /// Compares one. `pid` may be gone; `started`: when it began.
    pub fn look(&mut self, pid: u32, started: Option<Timestamp>, it: Beginning) -> Option<Patch> {
        if self.right.contains(&it) {
            return None;
        }
        let file = find(pid, &it.path)?;
        match compare(&file, started?, &it)? {
            Compared::Same => {
                if self.right.len() >= REMEMBERED {
                    self.right.clear();
                }
                self.right.insert(it);
                None
            }
            Compared::Differs(patch) => Some(patch),
        }
    }
}

enum Compared {
    Same,
    Differs(Patch),
}

/// The file of that name, in the process's root while there is one.
fn find(pid: u32, path: &str) -> Option<File> {
    let name = path.rsplit('/').next()?;
    if !path.starts_with('/') || !LIBRARIES.iter().any(|library| name.starts_with(library)) {
        return None;
    }
    let looking = OFlags::PATH | OFlags::CLOEXEC;
    let root = open(format!("/proc/{pid}/root"), looking | OFlags::DIRECTORY, Mode::empty())
        .or_else(|_| open("/", looking | OFlags::DIRECTORY, Mode::empty()))
        .ok()?;
    // Not opened yet: it may be anything.
    let found = File::from(openat2(&root, path, looking, Mode::empty(), ResolveFlags::IN_ROOT).ok()?);
    found.metadata().ok().filter(|meta| meta.is_file() && meta.len() <= LARGEST)?;
    // Without waiting for who has a lease on it.
    let same = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Some(File::from(openat(CWD, same, flags, Mode::empty()).ok()?))
}

fn compare(file: &File, started: Timestamp, it: &Beginning) -> Option<Compared> {
    let meta = file.metadata().ok()?;
    let mut head = [0; 4096];
    let got = file.read_at(&mut head, 0).ok()?;
    let head = &head[..got];
    let theirs = it.code.build_id.get(..usize::from(it.build_id)).filter(|id| !id.is_empty())?;
    // Who edits a library in its place leaves the build id as it was.
    if meta.ctime() >= started.as_second() || build_id(file, head)? != theirs {
        return None;
    }
    let offset = it.code.offset;
    let segment = segments(head)?
        .into_iter()
        .find(|s| offset.checked_sub(s.address).is_some_and(|into| into < s.length))?;
    let into = offset - segment.address;
    let length = usize::try_from((segment.length - into).min(FIRST_CODE as u64)).ok()?;
    let (memory, mut ours) = (&it.code.first[..length], vec![0; length]);
    file.read_exact_at(&mut ours, segment.offset.checked_add(into)?).ok()?;
    let Some(first) = (0..length).find(|&i| memory[i] != ours[i]) else { return Some(Compared::Same) };
    let bytes = whole(file)?;
    if has_text_relocations(&bytes).unwrap_or(true) {
        return None;
    }
    let shown = first..(first + SHOWN).min(length);
    Some(Compared::Differs(Patch {
        object: it.path.clone(),
        symbol: symbol_at(&bytes, offset),
        offset: offset.checked_add(first as u64)?,
        differing: memory.iter().zip(&ours).filter(|(a, b)| a != b).count() as u64,
        pages: 1,
        file: ours[shown.clone()].to_vec(),
        memory: memory[shown].to_vec(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use object::{Object, ObjectSymbol};
    use std::path::Path;

    /// A library under a TLS library's name, and how one of its functions begins.
    fn library(folder: &Path) -> Beginning {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps.lines().find(|l| l.ends_with("/libc.so.6")).unwrap();
        let path = folder.join("libssl.so.3.1");
        std::fs::copy(&libc[libc.find('/').unwrap()..], &path).unwrap();
        std::os::unix::fs::symlink("libssl.so.3.1", folder.join("libssl.so.3")).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let function = file.dynamic_symbols().find(|s| s.name() == Ok("getppid")).unwrap();
        let segments = segments(&bytes[..4096]).unwrap();
        let of = segments.iter().find(|s| function.address() >= s.address).unwrap();
        let at = (of.offset + function.address() - of.address) as usize;
        let id = build_id(&File::open(&path).unwrap(), &bytes[..4096]).unwrap();
        let mut code = Code { offset: function.address(), ..Code::default() };
        code.build_id[..id.len()].copy_from_slice(&id);
        code.first.copy_from_slice(&bytes[at..at + FIRST_CODE]);
        // By the name that the loader knows it under.
        let path = folder.join("libssl.so.3").display().to_string();
        Beginning { path, code, build_id: id.len() as u8 }
    }

    /// A program that is over.
    const GONE: u32 = u32::MAX;

    fn later() -> Option<Timestamp> {
        Some(Timestamp::now() + SignedDuration::from_secs(5))
    }

    #[test]
    fn a_patched_beginning_of_a_program_that_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let right = library(folder.path());
        let mut beginnings = Beginnings::default();
        assert_eq!(beginnings.look(GONE, later(), right.clone()), None);
        assert!(beginnings.right.contains(&right));
        let mut patched = right.clone();
        patched.code.first[2] ^= 0xff;
        patched.code.first[9] ^= 0xff;
        let patch = beginnings.look(GONE, later(), patched.clone()).unwrap();
        assert_eq!(patch.symbol.as_deref(), Some("getppid"));
        assert_eq!((patch.offset, patch.differing, patch.pages), (right.code.offset + 2, 2, 1));
        assert_eq!(patch.memory, patched.code.first[2..18]);
        assert_eq!(patch.file, right.code.first[2..18]);
        assert!(!beginnings.right.contains(&patched));
    }

    /// It isn't known that this file was mapped: no false alarm.
    #[test]
    fn perhaps_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut patched = library(folder.path());
        patched.code.first[2] ^= 0xff;
        let look = |started, it: &Beginning| Beginnings::default().look(GONE, started, it.clone());
        assert!(look(later(), &patched).is_some());
        assert_eq!(look(Some(Timestamp::now() - SignedDuration::from_secs(5)), &patched), None, "younger");
        assert_eq!(look(None, &patched), None);
        for wrong in [
            Beginning { build_id: 0, ..patched.clone() },
            Beginning { build_id: 4, ..patched.clone() },
            Beginning { build_id: 255, ..patched.clone() },
            Beginning { path: "/etc/passwd".into(), ..patched.clone() },
            Beginning { path: "libssl.so.3".into(), ..patched.clone() },
            Beginning { path: folder.path().join("libssl.so.1").display().to_string(), ..patched.clone() },
            Beginning { code: Code { build_id: [7; 24], ..patched.code }, ..patched.clone() },
            Beginning { code: Code { offset: u64::MAX, ..patched.code }, ..patched.clone() },
            Beginning { code: Code { offset: 0, ..patched.code }, ..patched.clone() },
        ] {
            assert_eq!(look(later(), &wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn nothing_but_files_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("libssl.so.3");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert!(find(GONE, fifo.to_str().unwrap()).is_none());
    }
}
