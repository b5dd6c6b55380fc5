//! The memory of the matcher, that observed processes read and only this one writes.
//!
//! Comes in: files by device and inode. Goes out: a descriptor for hello replies. Sealed: nobody can make it shorter
//! (that would be a SIGBUS in every process), and who gets it can't write to it.

use crate::host::facts::Inode;
use counterfoil_abi::matcher::{MAGIC, MATCHER_BYTES, Matcher, key};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// See the module's text.
#[derive(Debug)]
pub struct Memory {
    fd: OwnedFd,
    base: *mut Matcher,
}

// SAFETY: the pointer leads to a mapping that this owns, touched through atomics only.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// An empty one.
    ///
    /// # Errors
    /// No memory, or a kernel that can't seal it (before Linux 5.1).
    pub fn new() -> io::Result<Self> {
        let fd = memfd_create("counterfoil-matcher", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, MATCHER_BYTES as u64)?;
        rustix::io::pwrite(&fd, &MAGIC.to_ne_bytes(), 0)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, as long as the memory.
        let base = unsafe { mmap(std::ptr::null_mut(), MATCHER_BYTES, access, MapFlags::SHARED, &fd, 0)? };
        let memory = Self { fd, base: base.cast() };
        fcntl_add_seals(
            &memory.fd,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL,
        )?;
        Ok(memory)
    }

    fn matcher(&self) -> &Matcher {
        // SAFETY: mapped as long as self, valid for any bytes, written through atomics.
        unsafe { &*self.base }
    }

    /// The descriptor.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
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

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: our own mapping, that nobody uses any more.
        let _ = unsafe { munmap(self.base.cast(), MATCHER_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_read_it_and_can_not_write() {
        let memory = Memory::new().unwrap();
        memory.hold([(1, 2), (1, 3)].into_iter());
        memory.add((1, 4));
        let map = |access| {
            // SAFETY: a new mapping, as long as the memory.
            unsafe { mmap(std::ptr::null_mut(), MATCHER_BYTES, access, MapFlags::SHARED, memory.fd(), 0) }
        };
        assert!(map(ProtFlags::READ | ProtFlags::WRITE).is_err());
        let theirs = map(ProtFlags::READ).unwrap();
        // SAFETY: just mapped, valid for any bytes.
        let matcher = unsafe { &*theirs.cast::<Matcher>() };
        assert_eq!(matcher.magic, MAGIC);
        assert!(matcher.has(1, 2) && matcher.has(1, 4) && !matcher.has(2, 2));
        memory.hold([(1, 3)].into_iter());
        assert!(matcher.has(1, 3) && !matcher.has(1, 2), "live");
        assert!(ftruncate(memory.fd(), 0).is_err());
        // SAFETY: our own mapping.
        unsafe { munmap(theirs, MATCHER_BYTES).unwrap() };
    }
}
