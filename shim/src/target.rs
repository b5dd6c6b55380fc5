//! What a program that is about to be executed is, and whether it would load this library.
//!
//! Comes in: what the exec call names. Goes out: [`Fit`]. Called by [`crate::reinject`] before each
//! exec and spawn, also in a vfork child and after a fork from a process with threads: raw system
//! calls only, nothing allocates, and no descriptor is left open.

use crate::elf::{self, Image, ReadAt};
use crate::library_file;
use core::ffi::{CStr, c_char, c_int};
use core::mem::MaybeUninit;
use counterfoil_abi::record::Lost;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, Stat};

/// What an exec call names.
#[derive(Clone, Copy)]
pub enum Named {
    /// A path below a directory descriptor (or AT_FDCWD); `follow`: links count as their targets.
    Path { dir: c_int, path: *const c_char, follow: bool },
    /// A name to look for in PATH, as execvp does.
    Search(*const c_char),
    /// An open file.
    Descriptor(c_int),
}

/// What a target does with our environment entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Loads the library.
    Loads,
    /// Would load it, but we may not be the ones who put it there; or it can't be told.
    NotByUs(Lost),
    /// Runs on without it, and without harm.
    Ignores(Lost),
    /// Would complain or die: our entry must not be there.
    Breaks(Lost),
    /// The call will fail.
    Fails,
    /// It can't be looked at. Nothing is changed.
    Unknown,
}

/// Bytes of a path that a note holds.
const NAME: usize = 232;
/// Longest path (linux/limits.h), with its NUL.
const PATH: usize = 4096;
/// Longest file name (linux/limits.h).
const NAME_MAX: usize = 255;
/// `#!` files that name each other (the kernel stops at 5).
const DEPTH: usize = 4;

/// The target's name, for a note.
pub struct Target {
    /// What becomes of our entry there.
    pub fit: Fit,
    name: [u8; NAME],
    length: usize,
}

impl Target {
    /// Its path as the call named it (found in PATH, for a search), cut to what a note holds.
    pub fn name(&self) -> &[u8] {
        &self.name[..self.length]
    }

    /// The whole path of an open file, where there is a /proc.
    fn name_of(&mut self, file: BorrowedFd<'_>) {
        let mut name = [MaybeUninit::uninit(); NAME];
        if let Ok((name, _)) =
            rustix::fs::readlinkat_raw(rustix::fs::CWD, link_to(file).path(), &mut name[..])
        {
            self.set_name(name);
        }
    }

    fn set_name(&mut self, name: &[u8]) {
        self.length = name.len().min(NAME);
        self.name[..self.length].copy_from_slice(&name[..self.length]);
    }
}

/// Looks at what `named` will execute.
///
/// # Safety
/// A search's name is a C string, as execvp asks. A path may be any pointer: the kernel judges it.
pub unsafe fn examine(named: Named) -> Target {
    let mut target = Target { fit: Fit::Unknown, name: [0; NAME], length: 0 };
    let opened = match named {
        Named::Descriptor(fd) => {
            target.fit = examine_descriptor(fd, &mut target);
            return target;
        }
        Named::Path { dir, path, .. } if !executable(dir, path) => Err(Closed::NotThere),
        Named::Path { dir, path, follow } => {
            // SAFETY: the kernel has just read it as a string.
            let path = unsafe { CStr::from_ptr(path) };
            target.set_name(path.to_bytes());
            open(dir, path, follow)
        }
        // SAFETY: contract.
        Named::Search(name) => find_and_open(unsafe { CStr::from_ptr(name) }, &mut target),
    };
    match opened {
        Ok(file) => {
            target.fit = fit(&file, target.name(), matches!(named, Named::Search(_)), DEPTH);
            if target.fit != Fit::Loads {
                target.name_of(file.as_fd());
            }
        }
        Err(closed) => target.fit = closed.fit(),
    }
    target
}

/// A function of its own: its room is given back before there is more to do.
#[inline(never)]
fn find_and_open(name: &CStr, target: &mut Target) -> Result<OwnedFd, Closed> {
    let mut room = [0u8; PATH];
    let path = find_in_path(name, &mut room).ok_or(Closed::NotThere)?;
    target.set_name(path.to_bytes());
    open(libc::AT_FDCWD, path, true)
}

fn borrow(fd: c_int) -> Option<BorrowedFd<'static>> {
    // SAFETY: used for calls that fail on a bad descriptor; -1 is not representable. AT_FDCWD is
    // what rustix's own CWD is.
    (fd >= 0 || fd == libc::AT_FDCWD).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// May be executed by this process. A bad pointer is EFAULT here as it will be in the real call.
fn executable(dir: c_int, path: *const c_char) -> bool {
    // SAFETY: system calls that only read, and check what they are given.
    unsafe {
        let may = libc::syscall(libc::SYS_faccessat2, dir, path, libc::X_OK, libc::AT_EACCESS);
        if may == -1 && *libc::__errno_location() == libc::ENOSYS {
            return libc::syscall(libc::SYS_faccessat, dir, path, libc::X_OK) == 0;
        }
        may == 0
    }
}

/// glibc's posix/execvpe.c: PATH of this process; "/bin:/usr/bin" without one; an empty part is the
/// working directory; a part that is too long is passed over.
fn find_in_path<'a>(name: &'a CStr, room: &'a mut [u8; PATH]) -> Option<&'a CStr> {
    let file = name.to_bytes_with_nul();
    if file.contains(&b'/') {
        return executable(libc::AT_FDCWD, name.as_ptr()).then_some(name);
    }
    if file.len() == 1 || file.len() > NAME_MAX + 1 {
        return None;
    }
    // SAFETY: execvp itself reads the environment so.
    let path = unsafe { libc::getenv(c"PATH".as_ptr()) };
    // SAFETY: an environment string.
    let path = if path.is_null() { c"/bin:/usr/bin" } else { unsafe { CStr::from_ptr(path) } };
    for part in path.to_bytes().split(|&b| b == b':') {
        let slash = usize::from(!part.is_empty());
        let length = part.len() + slash + file.len();
        if length > PATH {
            continue;
        }
        room[..part.len()].copy_from_slice(part);
        if slash != 0 {
            room[part.len()] = b'/';
        }
        room[part.len() + slash..length].copy_from_slice(file);
        if executable(libc::AT_FDCWD, room.as_ptr().cast()) && regular(libc::AT_FDCWD, room.as_ptr().cast()) {
            return CStr::from_bytes_until_nul(&room[..length]).ok();
        }
    }
    None
}

fn regular(dir: c_int, path: *const c_char) -> bool {
    // SAFETY: `executable` found it to be a string.
    stat(dir, unsafe { CStr::from_ptr(path) }, true).is_some_and(|s| is_regular(&s))
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn stat(dir: c_int, path: &CStr, follow: bool) -> Option<Stat> {
    let flags = if follow { rustix::fs::AtFlags::empty() } else { rustix::fs::AtFlags::SYMLINK_NOFOLLOW };
    rustix::fs::statat(borrow(dir)?, path, flags).ok()
}

/// Why a file can't be looked at.
enum Closed {
    Unreadable,
    Setuid,
    NotThere,
    Unknown,
}

impl Closed {
    fn fit(self) -> Fit {
        match self {
            Self::Unreadable => Fit::NotByUs(Lost::Unreadable),
            Self::Setuid => Fit::Ignores(Lost::Setuid),
            Self::NotThere => Fit::Fails,
            Self::Unknown => Fit::Unknown,
        }
    }
}

/// Opens an executable to look at it. Only regular files are opened: others may do something then.
fn open(dir: c_int, path: &CStr, follow: bool) -> Result<OwnedFd, Closed> {
    let stat = stat(dir, path, follow).filter(is_regular).ok_or(Closed::NotThere)?;
    let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    let dir = borrow(dir).ok_or(Closed::Unknown)?;
    rustix::fs::openat(dir, path, flags, Mode::empty()).map_err(|error| match error {
        // Executable, and not readable: sudo is so in places.
        rustix::io::Errno::ACCESS if raises_by_mode(&stat) => Closed::Setuid,
        rustix::io::Errno::ACCESS => Closed::Unreadable,
        _ => Closed::Unknown,
    })
}

struct Opened<'a>(BorrowedFd<'a>);

impl ReadAt for Opened<'_> {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Option<usize> {
        rustix::io::pread(self.0, into, offset).ok()
    }
}

/// "/proc/self/fd/N".
struct Link([u8; 26]);

impl Link {
    fn path(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

fn link_to(file: BorrowedFd<'_>) -> Link {
    let mut link = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0\0";
    let number = rustix::path::DecInt::from_fd(file);
    let digits = number.as_bytes();
    link[14..14 + digits.len()].copy_from_slice(digits);
    Link(link)
}

/// fexecve's descriptor may be O_PATH: then it is opened again, where there is a /proc.
fn examine_descriptor(fd: c_int, target: &mut Target) -> Fit {
    let Some(given) = borrow(fd).filter(|_| fd >= 0) else { return Fit::Unknown };
    let link = link_to(given);
    target.set_name(link.path().to_bytes());
    target.name_of(given);
    if !rustix::fs::fstat(given).is_ok_and(|s| is_regular(&s)) {
        return Fit::Unknown;
    }
    let path_only = rustix::fs::fcntl_getfl(given).is_ok_and(|flags| flags.contains(OFlags::PATH));
    if !path_only {
        return fit(&given, target.name(), false, DEPTH);
    }
    match open(libc::AT_FDCWD, link.path(), true) {
        Ok(file) => fit(&file, target.name(), false, DEPTH),
        Err(Closed::Setuid) => Closed::Setuid.fit(),
        Err(_) => Closed::Unreadable.fit(),
    }
}

/// `shell`: a file that the kernel can't execute is given to /bin/sh.
fn fit(file: &impl AsFd, name: &[u8], shell: bool, depth: usize) -> Fit {
    let fd = file.as_fd();
    let next = |path: &CStr| match open(libc::AT_FDCWD, path, true) {
        Ok(file) if depth > 0 => fit(&file, path.to_bytes(), false, depth - 1),
        Ok(_) => Fit::Unknown,
        Err(closed) => closed.fit(),
    };
    match elf::look(&Opened(fd)) {
        // Run by hand, the loader reads LD_PRELOAD as ever.
        Image::Static if !elf::is_our_loader(name) => {
            Fit::Ignores(if raises(fd) { Lost::Setuid } else { Lost::Static })
        }
        Image::Ours | Image::Static if raises(fd) => Fit::Ignores(Lost::Setuid),
        Image::Ours | Image::Static => library_file::reachable(),
        Image::Other if raises(fd) => Fit::Ignores(Lost::Setuid),
        Image::Other => Fit::Breaks(Lost::OtherAbi),
        Image::Script(interpreter) => next(interpreter.path()),
        Image::Strange if shell => next(c"/bin/sh"),
        // ENOEXEC, or binfmt_misc's business.
        Image::Strange => Fit::Unknown,
        Image::Unreadable => Fit::NotByUs(Lost::Unreadable),
    }
}

/// The kernel will set AT_SECURE (security/commoncap.c, cap_bprm_creds_from_file): the ids after
/// the exec differ from the real ones, or a file capability adds to what a user may.
fn raises(fd: BorrowedFd<'_>) -> bool {
    let Ok(stat) = rustix::fs::fstat(fd) else { return false };
    if raises_by_mode(&stat) {
        let ignored = rustix::fs::fstatvfs(fd)
            .is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID))
            || rustix::thread::no_new_privs().unwrap_or(false);
        // Where the bits are ignored, ids that differ already still count.
        return !ignored || ids_differ();
    }
    ids_differ()
        || (!rustix::process::getuid().is_root()
            && rustix::fs::fgetxattr(fd, c"security.capability", &mut [0u8; 64]).is_ok())
}

fn ids_differ() -> bool {
    rustix::process::getuid() != rustix::process::geteuid()
        || rustix::process::getgid() != rustix::process::getegid()
}

fn raises_by_mode(stat: &Stat) -> bool {
    let mode = Mode::from_raw_mode(stat.st_mode);
    let uid = mode.contains(Mode::SUID) && stat.st_uid != rustix::process::getuid().as_raw();
    // Without group execution it marks mandatory locking.
    let gid = mode.contains(Mode::SGID | Mode::XGRP) && stat.st_gid != rustix::process::getgid().as_raw();
    uid || gid
}
