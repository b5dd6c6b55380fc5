//! This library as a file: where it is, and whether a program that is started now may load it.
//!
//! [`learn`] is called once by the constructor; [`reachable`] before an exec (see
//! [`crate::target`]), possibly in a vfork child.

use crate::start::privileged;
use crate::target::Fit;
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_void};
use core::sync::atomic::{AtomicBool, Ordering};
use counterfoil_abi::record::Lost;
use rustix::fs::{Mode, Stat};

/// Longest path (linux/limits.h), with its NUL.
const PATH: usize = 4096;
/// What LD_PRELOAD's entry begins with.
pub const PRELOAD: &[u8] = b"LD_PRELOAD=";

struct Known {
    /// "LD_PRELOAD=" and the path with all links resolved, NUL padded.
    entry: [u8; PRELOAD.len() + PATH],
    /// Without the NUL.
    length: usize,
    file: (u64, u64),
    root: (u64, u64),
    started_as_root: bool,
}

struct Once(UnsafeCell<Known>);
// SAFETY: written by the constructor before KNOWN is set (release), read after it is seen.
unsafe impl Sync for Once {}

static FILE: Once = Once(UnsafeCell::new(Known {
    entry: [0; PRELOAD.len() + PATH],
    length: 0,
    file: (0, 0),
    root: (0, 0),
    started_as_root: false,
}));
static KNOWN: AtomicBool = AtomicBool::new(false);

fn known() -> Option<&'static Known> {
    // Pairs with the release store in `learn`.
    // SAFETY: not written any more once known.
    KNOWN.load(Ordering::Acquire).then(|| unsafe { &*FILE.0.get() })
}

/// Finds out where this library is.
pub fn learn() -> Option<()> {
    let found = crate::library::object_of(learn as *const c_void)?.path;
    // The program itself, as in a unit test, has no name in the loader's list.
    let found = if found.is_empty() { c"/proc/self/exe" } else { found };
    // SAFETY: the constructor runs alone, and KNOWN is still false: nobody reads.
    let known = unsafe { &mut *FILE.0.get() };
    let path = &mut known.entry[PRELOAD.len()..];
    // SAFETY: a C string, and room for PATH_MAX bytes.
    if unsafe { libc::realpath(found.as_ptr(), path.as_mut_ptr().cast::<c_char>()) }.is_null() {
        return None;
    }
    let path = CStr::from_bytes_until_nul(path).ok()?;
    // ld.so separates entries by these, and knows no escape.
    if path.to_bytes().iter().any(|b| matches!(b, b' ' | b':' | b'$')) {
        return None;
    }
    let stat = rustix::fs::stat(path).ok()?;
    let length = PRELOAD.len() + path.count_bytes();
    known.entry[..PRELOAD.len()].copy_from_slice(PRELOAD);
    known.length = length;
    known.file = (stat.st_dev, stat.st_ino);
    known.root = root()?;
    known.started_as_root = rustix::process::geteuid().is_root();
    KNOWN.store(true, Ordering::Release);
    Some(())
}

fn root() -> Option<(u64, u64)> {
    let stat = rustix::fs::stat(c"/").ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// LD_PRELOAD's entry with this library alone, its NUL last. None: not known.
pub fn entry() -> Option<&'static [u8]> {
    known().map(|known| &known.entry[..=known.length])
}

/// What a glibc program of our kind that this process starts does with our entry.
pub fn reachable() -> Fit {
    let Some(known) = known() else { return Fit::Unknown };
    let path = CStr::from_bytes_until_nul(&known.entry[PRELOAD.len()..]).unwrap_or(c"");
    let readable = rustix::fs::accessat(
        rustix::fs::CWD,
        path,
        rustix::fs::Access::READ_OK,
        rustix::fs::AtFlags::EACCESS,
    );
    let Some(stat) = rustix::fs::stat(path).ok().filter(|_| readable.is_ok()) else {
        return Fit::Breaks(Lost::NotReachable);
    };
    if (stat.st_dev, stat.st_ino) != known.file && !(replaced_by_root(&stat) && root() == Some(known.root)) {
        // Something else at our path, under another root directory: a container's own copy, or a trap.
        return Fit::NotByUs(Lost::NotReachable);
    }
    let as_root = rustix::process::geteuid().is_root();
    if (as_root && !(known.started_as_root && roots_own(&stat))) || privileged() {
        return Fit::NotByUs(Lost::NotReachable);
    }
    Fit::Loads
}

/// The package was upgraded under a running program.
fn replaced_by_root(stat: &Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile && roots_own(stat)
}

fn roots_own(stat: &Stat) -> bool {
    stat.st_uid == 0 && !Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH)
}
