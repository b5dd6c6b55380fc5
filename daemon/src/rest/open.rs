//! Opens a file that a client named.
//!
//! Comes in: an [`Ask`]. Goes out: the open file, or a [`Refusal`]. Called by `worker`. The name is first only looked up
//! (`O_PATH`: a device or a FIFO notices nothing of that), without following a link anywhere in it; what was found is
//! opened for reading only if it is the regular file that was asked for.
#![forbid(unsafe_code)]

use super::identity::Acting;
use super::{Ask, Refusal};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;
use rustix::path::Arg;
use std::ffi::CStr;

/// PATH_MAX.
const LONGEST: usize = 4096;

/// A file that may be read.
pub(super) struct Opened {
    pub(super) file: OwnedFd,
    /// Reads go past the page cache, and must be aligned.
    pub(super) direct: bool,
}

pub(super) fn open(ask: &Ask) -> Result<Opened, Refusal> {
    if ask.path.first() != Some(&b'/') || ask.path.len() >= LONGEST || ask.path.contains(&0) {
        return Err(Refusal::BadPath);
    }
    let _acting = Acting::for_user(&ask.user).ok_or(Refusal::OtherUser)?;
    let found = look_up(&ask.path)?;
    let stat = fstat(&found).map_err(refusal)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Refusal::NotRegular);
    }
    if ask.inode.is_some_and(|inode| inode != (stat.st_dev, stat.st_ino)) {
        return Err(Refusal::AnotherFile);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // Not by name again: it may lead elsewhere by now.
    let same = format!("/proc/self/fd/{}", found.as_raw_fd());
    let reopen = |more: OFlags| openat(CWD, same.as_str(), flags | more, Mode::empty());
    // To have looked should not show; only the owner may ask for that.
    let quietly = |more: OFlags| match reopen(more | OFlags::NOATIME) {
        Err(Errno::PERM) => reopen(more),
        other => other,
    };
    if ask.uncached
        && let Ok(file) = quietly(OFlags::DIRECT)
    {
        return Ok(Opened { file, direct: true });
    }
    Ok(Opened { file: quietly(OFlags::empty()).map_err(refusal)?, direct: false })
}

/// The file of that name, not opened for reading.
fn look_up(path: &[u8]) -> Result<OwnedFd, Refusal> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let found = path.into_with_c_str(|path: &CStr| match openat2(CWD, path, flags, Mode::empty(), resolve) {
        // A kernel before 5.6, or a filter that doesn't know the call. The links in folders' names are followed
        // then, with the user's rights, and device and inode still decide.
        Err(Errno::NOSYS | Errno::PERM) => openat(CWD, path, flags, Mode::empty()),
        other => other,
    });
    found.map_err(refusal)
}

fn refusal(e: Errno) -> Refusal {
    match e {
        Errno::NOENT | Errno::NOTDIR => Refusal::Gone,
        Errno::LOOP | Errno::NAMETOOLONG => Refusal::BadPath,
        Errno::ACCESS | Errno::PERM => Refusal::Denied,
        other => Refusal::Failed(other.into()),
    }
}
