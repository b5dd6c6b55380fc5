//! Whether memory can be read that a call is given: a bad pointer is the kernel's to refuse, with EFAULT, and a buffer that runs
//! off the end of its mapping is the kernel's to cut short. Some programs ask the kernel on purpose, by a write, whether an
//! address can be read.
//!
//! Called before anything of a call's arguments is looked at. A page that was found readable is remembered by its thread: a
//! program writes from the same few over and over, and for those nothing is asked.

use crate::process;
use crate::shield::keeping_errno;
use crate::stream::Pieces;
use crate::thread;
use core::cell::Cell;

/// The least that a page has; a larger one is several of these.
const PAGE: usize = 4096;
/// Pages that a thread remembers.
const PAGES: usize = 16;

/// What one thread has found readable: each page one more than its number, 0: none.
#[repr(C)]
pub struct Pages([Cell<usize>; PAGES]);

impl Pages {
    /// Are the first and the last of these bytes there? (A hole between them would be no buffer.)
    #[inline]
    pub fn hold<T>(&self, at: *const T, bytes: usize) -> bool {
        let Some(beyond) = bytes.checked_sub(1) else { return true };
        let Some(last) = at.addr().checked_add(beyond) else { return false };
        let (first, last) = (at.addr() / PAGE, last / PAGE);
        self.holds(first) && (last == first || self.holds(last))
    }

    #[inline]
    fn holds(&self, page: usize) -> bool {
        let known = &self.0[page % PAGES];
        known.get() == page + 1 || {
            let there = ask(page);
            if there {
                known.set(page + 1);
            }
            there
        }
    }

    /// All of what is about to be written.
    #[inline]
    pub fn hold_all<P: Pieces + ?Sized>(&self, data: &P, bytes: usize) -> bool {
        let mut all = true;
        data.walk(0, bytes as u64, &mut |piece| all = all && self.hold(piece.as_ptr(), piece.len()));
        all
    }
}

/// [`Pages::hold`] of this thread's.
#[inline]
pub fn readable<T>(at: *const T, bytes: usize) -> bool {
    thread::current().pages.hold(at, bytes)
}

/// The kernel reads a signal set before it finds that it was not told what to do with it: EINVAL if it could, EFAULT if not.
#[cold]
fn ask(page: usize) -> bool {
    // The kernel takes 0 for no set at all. In a sandbox any system call may be the last one.
    page != 0
        && (process::sandboxed()
            || keeping_errno(|| {
                const NOTHING: libc::c_int = -1;
                let set = core::ptr::with_exposed_provenance::<u64>(page * PAGE);
                // SAFETY: the kernel reads 8 bytes, or doesn't; nothing changes.
                unsafe {
                    let null = core::ptr::null_mut::<u64>();
                    libc::syscall(libc::SYS_rt_sigprocmask, NOTHING, set, null, size_of::<u64>()) == 0
                        || *libc::__errno_location() != libc::EFAULT
                }
            }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

    #[test]
    fn what_is_there_and_what_is_not() {
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping of three pages, the last of which is taken away.
        let at = unsafe {
            let at = mmap_anonymous(core::ptr::null_mut(), 3 * PAGE, flags, MapFlags::PRIVATE).unwrap();
            munmap(at.byte_add(2 * PAGE), PAGE).unwrap();
            at.cast::<u8>()
        };
        let end = at.wrapping_add(2 * PAGE);
        assert!(readable(at, 2 * PAGE) && readable(end.wrapping_sub(1), 1) && readable(end, 0));
        assert!(!readable(end, 1) && !readable(at, 2 * PAGE + 1) && !readable(at, usize::MAX));
        for bad in [0, 1, 4095, 1 << 47, usize::MAX] {
            assert!(!readable(core::ptr::without_provenance::<u8>(bad), 1), "{bad}");
        }
        let data: &[u8] = &[1, 2, 3];
        assert!(thread::current().pages.hold_all(data, 3));
        // Nothing that was found missing is remembered.
        // SAFETY: as above, where nothing is.
        unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::FIXED;
            mmap_anonymous(end.cast(), PAGE, ProtFlags::READ, flags).unwrap();
            assert!(readable(end, 1));
            mprotect(at.cast(), PAGE, MprotectFlags::empty()).unwrap();
        }
        let other = std::thread::spawn({
            let at = at.expose_provenance();
            move || readable(core::ptr::with_exposed_provenance::<u8>(at), 1)
        });
        assert!(!other.join().unwrap(), "it must not be read");
        // SAFETY: the three pages.
        unsafe { munmap(at.cast(), 3 * PAGE).unwrap() };
    }
}
