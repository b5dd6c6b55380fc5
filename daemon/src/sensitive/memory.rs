//! The memory of the matcher, that observed processes read and only this one writes.
//!
//! Comes in: files by device and inode. Goes out: a descriptor for hello replies. Nobody can make it shorter (that would
//! be a SIGBUS in every process), and who gets it can't write to it. It outlives this daemon: the next one writes to the
//! same, so that programs that were there before know its files, too.

use crate::host::facts::Inode;
use counterfoil_abi::matcher::{MAGIC, MATCHER_BYTES, Matcher, key};
use rustix::fs::{
    MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// See the module's text.
#[derive(Debug)]
pub struct Memory {
    ours: OwnedFd,
    /// The same, to be read only.
    theirs: OwnedFd,
    base: *mut Matcher,
}

// SAFETY: the pointer leads to a mapping that this owns, touched through atomics only.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// The one that an earlier daemon left, or an empty one.
    ///
    /// # Errors
    /// No memory, or no /proc.
    pub fn new(before: Option<OwnedFd>) -> io::Result<Self> {
        let ours = match before.filter(is_one) {
            Some(memory) => memory,
            None => made()?,
        };
        let theirs = File::open(format!("/proc/self/fd/{}", ours.as_raw_fd()))?.into();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, as long as the memory.
        let base = unsafe { mmap(std::ptr::null_mut(), MATCHER_BYTES, access, MapFlags::SHARED, &ours, 0)? };
        Ok(Self { ours, theirs, base: base.cast() })
    }

    fn matcher(&self) -> &Matcher {
        // SAFETY: mapped as long as self, valid for any bytes, written through atomics.
        unsafe { &*self.base }
    }

    /// For programs: to be read.
    #[must_use]
    pub fn theirs(&self) -> BorrowedFd<'_> {
        self.theirs.as_fd()
    }

    /// For the next daemon.
    #[must_use]
    pub fn ours(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }

    /// It holds these now, as far as there is room.
    pub fn hold(&self, files: impl Iterator<Item = Inode>) {
        let keys: HashSet<u64> = files.map(|(device, inode)| key(device, inode)).collect();
        keys.iter().for_each(|&key| _ = self.matcher().put(key));
        self.matcher().retain(|key| keys.contains(&key));
    }

    /// It holds this one, too.
    pub fn add(&self, (device, inode): Inode) {
        self.matcher().put(key(device, inode));
    }
}

/// As large as it must be, and never shorter.
fn is_one(memory: &OwnedFd) -> bool {
    let sealed = fcntl_get_seals(memory).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
    sealed && fstat(memory).is_ok_and(|stat| stat.st_size == MATCHER_BYTES as i64)
}

fn made() -> io::Result<OwnedFd> {
    let memory = memfd_create("counterfoil-matcher", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memory, MATCHER_BYTES as u64)?;
    rustix::io::pwrite(&memory, &MAGIC.to_ne_bytes(), 0)?;
    // Who gets it to read can't open it again to write, unless he is this daemon's user.
    fchmod(&memory, Mode::RUSR | Mode::WUSR)?;
    fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(memory)
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: our own mapping, that nobody uses any more.
        let _ = unsafe { munmap(self.base.cast(), MATCHER_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fd: BorrowedFd<'_>, access: ProtFlags) -> rustix::io::Result<*mut std::ffi::c_void> {
        // SAFETY: a new mapping, as long as the memory.
        unsafe { mmap(std::ptr::null_mut(), MATCHER_BYTES, access, MapFlags::SHARED, fd, 0) }
    }

    #[test]
    fn others_read_it_and_can_not_write() {
        let memory = Memory::new(None).unwrap();
        memory.hold([(1, 2), (1, 3)].into_iter());
        memory.add((1, 4));
        assert!(map(memory.theirs(), ProtFlags::READ | ProtFlags::WRITE).is_err());
        assert!(rustix::io::pwrite(memory.theirs(), &[1; 8], 64).is_err());
        assert_eq!(fstat(memory.theirs()).unwrap().st_mode & 0o777, 0o600, "nor open it again");
        let theirs = map(memory.theirs(), ProtFlags::READ).unwrap();
        // SAFETY: just mapped, valid for any bytes.
        let matcher = unsafe { &*theirs.cast::<Matcher>() };
        assert_eq!(matcher.magic, MAGIC);
        assert!(matcher.has(1, 2) && matcher.has(1, 4) && !matcher.has(2, 2));
        memory.hold([(1, 3)].into_iter());
        assert!(matcher.has(1, 3) && !matcher.has(1, 2), "live");
        assert!(ftruncate(memory.ours(), 0).is_err());
        // The next daemon, with another list.
        let kept = memory.ours().try_clone_to_owned().unwrap();
        drop(memory);
        let next = Memory::new(Some(kept)).unwrap();
        next.hold([(5, 5)].into_iter());
        assert!(matcher.has(5, 5) && !matcher.has(1, 3), "who knew the one before knows this one's");
        // SAFETY: our own mapping.
        unsafe { munmap(theirs, MATCHER_BYTES).unwrap() };
    }

    #[test]
    fn what_is_kept_of_another_kind_is_not_used() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let unsealed = memfd_create("x", flags).unwrap();
        ftruncate(&unsealed, MATCHER_BYTES as u64).unwrap();
        let short = memfd_create("x", flags).unwrap();
        fcntl_add_seals(&short, SealFlags::SHRINK).unwrap();
        for other in [unsealed, short] {
            let inode = fstat(&other).unwrap().st_ino;
            assert!(fstat(Memory::new(Some(other)).unwrap().ours()).unwrap().st_ino != inode);
        }
    }
}
