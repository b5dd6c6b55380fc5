//! A folder that is read without ever leaving it.
//!
//! Comes in: a folder's path. Goes out: what is in it, and its files, opened. Called by [`super::plan`] and
//! [`super::compare`]. Names are resolved beneath the folder and through no link, whatever somebody changes
//! meanwhile; only regular files are opened.
#![forbid(unsafe_code)]

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of so many bytes.
    File(u64),
    /// A folder.
    Folder,
    /// A symbolic link, and where it points.
    Link(Vec<u8>),
    /// Something that is not opened: `fifo`, `socket`, `device`.
    Special(&'static str),
}

impl Kind {
    /// In one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Folder => "folder",
            Self::Link(_) => "link",
            Self::Special(word) => word,
        }
    }
}

/// An open folder.
pub struct Folder {
    root: OwnedFd,
}

/// A name and what is there, or why that can't be told.
pub type Listed = (Vec<u8>, Result<Kind, io::Error>);

impl Folder {
    /// Opens the folder that the user named, links followed.
    ///
    /// # Errors
    /// It isn't there, is no folder, or may not be read.
    pub fn new(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// What is directly in the folder `path` (empty: the folder itself), by name.
    ///
    /// # Errors
    /// It can't be read.
    pub fn list(&self, path: &[u8]) -> io::Result<Vec<Listed>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let folder = if path.is_empty() { self.beneath(b".", flags)? } else { self.beneath(path, flags)? };
        let mut found = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                let kind = kind(&folder, &name).map_err(io::Error::from);
                found.push((name.into_bytes(), kind));
            }
        }
        found.sort_by(|x, y| x.0.cmp(&y.0));
        Ok(found)
    }

    /// What is at `path`; None if nothing is.
    ///
    /// # Errors
    /// It can't be told.
    pub fn look(&self, path: &[u8]) -> io::Result<Option<Kind>> {
        let (parent, name) = match path.iter().rposition(|&b| b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b"."[..], path),
        };
        let nothing = |e: Errno| match e {
            Errno::NOENT | Errno::NOTDIR => Ok(None),
            e => Err(e.into()),
        };
        let parent = match self.beneath(parent, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(parent) => parent,
            Err(e) => return nothing(e),
        };
        let name = CString::new(name)?;
        kind(&parent, &name).map_or_else(nothing, |kind| Ok(Some(kind)))
    }

    /// Opens the regular file `path`.
    ///
    /// # Errors
    /// It can't be opened, or is no regular file (any more).
    pub fn open(&self, path: &[u8]) -> io::Result<File> {
        // NONBLOCK: a FIFO that took the file's place must not hold us.
        let file = self.beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        regular(file.into())
    }

    fn beneath(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let rules = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let whole = OsStr::from_bytes(path);
        match rustix::fs::openat2(&self.root, whole, flags, Mode::empty(), rules) {
            // Before Linux 5.6, and where a sandbox doesn't know it.
            Err(Errno::NOSYS | Errno::PERM) => self.step_by_step(path, flags),
            other => other,
        }
    }

    fn step_by_step(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut names = path.split(|&b| b == b'/').filter(|n| !n.is_empty()).peekable();
        let mut at: Option<OwnedFd> = None;
        while let Some(name) = names.next() {
            if name == b".." {
                return Err(Errno::XDEV);
            }
            let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let flags = if names.peek().is_some() { step } else { flags };
            let from = at.as_ref().map_or(self.root.as_fd(), |fd| fd.as_fd());
            at = Some(rustix::fs::openat(from, OsStr::from_bytes(name), flags, Mode::empty())?);
        }
        at.ok_or(Errno::NOENT)
    }
}

/// The file, if it is a regular one.
///
/// # Errors
/// It isn't.
pub fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file any more"))
    }
}

fn kind(folder: &OwnedFd, name: &std::ffi::CStr) -> Result<Kind, Errno> {
    let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File(u64::try_from(stat.st_size).unwrap_or(0)),
        FileType::Directory => Kind::Folder,
        FileType::Symlink => Kind::Link(rustix::fs::readlinkat(folder, name, vec![])?.into_bytes()),
        FileType::Fifo => Kind::Special("fifo"),
        FileType::Socket => Kind::Special("socket"),
        _ => Kind::Special("device"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        std::fs::create_dir_all(inside.join("sub")).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::fs::write(inside.join("sub/plain"), "p").unwrap();
        symlink("..", inside.join("up")).unwrap();
        symlink("../secret", inside.join("leak")).unwrap();
        symlink("sub", inside.join("alias")).unwrap();
        let folder = Folder::new(&inside).unwrap();
        assert!(folder.open(b"sub/plain").is_ok());
        for path in
            [&b"leak"[..], b"up/secret", b"../secret", b"/etc/passwd", b"alias/plain", b"sub/../../secret"]
        {
            assert!(folder.open(path).is_err(), "{}", String::from_utf8_lossy(path));
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if path[0] != b'/' {
                assert!(folder.step_by_step(path, flags).is_err(), "{}", String::from_utf8_lossy(path));
            }
        }
        assert!(folder.step_by_step(b"sub/plain", OFlags::RDONLY).is_ok());
        assert_eq!(folder.look(b"leak").unwrap(), Some(Kind::Link(b"../secret".to_vec())));
        assert_eq!(folder.look(b"sub/none").unwrap(), None);
        assert_eq!(folder.look(b"sub/plain/none").unwrap(), None);
        assert_eq!(folder.look(b"sub").unwrap(), Some(Kind::Folder));
    }

    #[test]
    fn a_fifo_is_neither_opened_nor_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, 0o600.into(), 0).unwrap();
        let folder = Folder::new(dir.path()).unwrap();
        assert!(folder.open(b"pipe").is_err());
        let listed = folder.list(b"").unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].1.as_ref().unwrap(), &Kind::Special("fifo"));
    }
}
