//! As [`super::plain`]: calls that move a file's position, change its length or its name, or map it.

use super::made::recording;
use crate::file;
use crate::kernel::Inode;
use crate::names;
use crate::thread::Guard;
use crate::{fds, process};
use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::sync::atomic::Ordering;
use counterfoil_abi::record::{Channel, Naming};
use libc::{
    AT_FDCWD, AT_REMOVEDIR, MAP_ANONYMOUS, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, off_t, size_t,
};
use rustix::fd::BorrowedFd;
use rustix::fs::AtFlags;

/// Where a name is: a folder and a path that starts from it.
#[derive(Clone, Copy)]
struct Place {
    folder: c_int,
    path: *const c_char,
}

impl Place {
    fn new(folder: c_int, path: *const c_char) -> Self {
        Self { folder, path }
    }

    /// The regular file of that name itself, if it is one.
    ///
    /// # Safety
    /// `path` is NULL or a C string.
    unsafe fn inode(self) -> Option<Inode> {
        if self.path.is_null() || (self.folder < 0 && self.folder != AT_FDCWD) {
            return None;
        }
        // SAFETY: contract; the kernel answers for a folder that is none.
        let (folder, path) = unsafe { (BorrowedFd::borrow_raw(self.folder), CStr::from_ptr(self.path)) };
        Inode::of(&rustix::fs::statat(folder, path, AtFlags::SYMLINK_NOFOLLOW).ok()?)
    }

    /// Says that `inode` has this name, or has it no longer.
    ///
    /// # Safety
    /// `path` is a C string.
    unsafe fn tell(self, guard: &Guard, about: Naming, inode: &Inode) {
        // SAFETY: contract.
        let path = unsafe { CStr::from_ptr(self.path) }.to_bytes();
        names::absolute(self.folder, path, |name| {
            let object = object_of(inode);
            names::tell(guard, about, object, inode.device, inode.number, name);
        });
    }
}

/// An object of ours that is this file, and is known to the daemon; 0 if there is none.
fn object_of(inode: &Inode) -> u32 {
    let mut number = 0;
    fds::for_each(|_, object| {
        if (object.channel() != Channel::File || object.file.is_told())
            && object.inode.load(Ordering::Relaxed) == inode.number
            && object.device.load(Ordering::Relaxed) == inode.device
        {
            number = object.number();
        }
    });
    number
}

fn tells() -> bool {
    process::active() && process::watched() && !process::sandboxed()
}

/// A name was made: what it leads to is asked for afterwards.
///
/// # Safety
/// The call's own arguments.
unsafe fn named(result: c_int, place: Place, about: Naming) {
    if result == 0 && tells() {
        recording(|guard| {
            // SAFETY: contract.
            unsafe {
                if let Some(inode) = place.inode() {
                    place.tell(guard, about, &inode);
                }
            }
        });
    }
}

/// A name is removed: what it leads to is asked for before.
///
/// # Safety
/// The call's own arguments.
unsafe fn unnaming(place: Place, real: impl FnOnce() -> c_int) -> c_int {
    let mut inode = None;
    if tells() {
        // SAFETY: contract.
        recording(|_| inode = unsafe { place.inode() });
    }
    let result = real();
    if let (0, Some(inode)) = (result, inode) {
        // SAFETY: contract.
        recording(|guard| unsafe { place.tell(guard, Naming::Unlinked, &inode) });
    }
    result
}

redhook::hook! {
    unsafe fn rename(old: *const c_char, new: *const c_char) -> c_int => counterfoil_rename {
        // SAFETY: our caller's contract, here and below.
        unsafe {
            let result = redhook::real!(rename)(old, new);
            named(result, Place::new(AT_FDCWD, new), Naming::Renamed);
            result
        }
    }
}

redhook::hook! {
    unsafe fn renameat(old_folder: c_int, old: *const c_char, new_folder: c_int, new: *const c_char) -> c_int => counterfoil_renameat {
        // SAFETY: as above.
        unsafe {
            let result = redhook::real!(renameat)(old_folder, old, new_folder, new);
            named(result, Place::new(new_folder, new), Naming::Renamed);
            result
        }
    }
}

redhook::hook! {
    unsafe fn renameat2(old_folder: c_int, old: *const c_char, new_folder: c_int, new: *const c_char, flags: c_uint) -> c_int => counterfoil_renameat2 {
        // SAFETY: as above.
        unsafe {
            let result = redhook::real!(renameat2)(old_folder, old, new_folder, new, flags);
            named(result, Place::new(new_folder, new), Naming::Renamed);
            if flags & libc::RENAME_EXCHANGE != 0 {
                named(result, Place::new(old_folder, old), Naming::Renamed);
            }
            result
        }
    }
}

redhook::hook! {
    unsafe fn link(old: *const c_char, new: *const c_char) -> c_int => counterfoil_link {
        // SAFETY: as above.
        unsafe {
            let result = redhook::real!(link)(old, new);
            named(result, Place::new(AT_FDCWD, new), Naming::Linked);
            result
        }
    }
}

redhook::hook! {
    unsafe fn linkat(old_folder: c_int, old: *const c_char, new_folder: c_int, new: *const c_char, flags: c_int) -> c_int => counterfoil_linkat {
        // SAFETY: as above.
        unsafe {
            let result = redhook::real!(linkat)(old_folder, old, new_folder, new, flags);
            named(result, Place::new(new_folder, new), Naming::Linked);
            result
        }
    }
}

redhook::hook! {
    unsafe fn unlink(path: *const c_char) -> c_int => counterfoil_unlink {
        // SAFETY: as above.
        unsafe { unnaming(Place::new(AT_FDCWD, path), || redhook::real!(unlink)(path)) }
    }
}

redhook::hook! {
    unsafe fn unlinkat(folder: c_int, path: *const c_char, flags: c_int) -> c_int => counterfoil_unlinkat {
        // SAFETY: as above.
        unsafe {
            let place = Place::new(folder, if flags & AT_REMOVEDIR == 0 { path } else { core::ptr::null() });
            unnaming(place, || redhook::real!(unlinkat)(folder, path, flags))
        }
    }
}

redhook::hook! {
    unsafe fn remove(path: *const c_char) -> c_int => counterfoil_remove {
        // SAFETY: as above.
        unsafe { unnaming(Place::new(AT_FDCWD, path), || redhook::real!(remove)(path)) }
    }
}

/// After a seek.
fn sought(fd: c_int, offset: off_t, whence: c_int, position: off_t) -> off_t {
    if position >= 0 && process::active() && !fds::ignored(fd) && process::watched() {
        recording(|guard| file::sought(guard, fd, offset, whence, position as u64));
    }
    position
}

redhook::hook! {
    unsafe fn lseek(fd: c_int, offset: off_t, whence: c_int) -> off_t => counterfoil_lseek {
        // SAFETY: as above.
        sought(fd, offset, whence, unsafe { redhook::real!(lseek)(fd, offset, whence) })
    }
}

redhook::hook! {
    unsafe fn lseek64(fd: c_int, offset: off_t, whence: c_int) -> off_t => counterfoil_lseek64 {
        // SAFETY: as above.
        sought(fd, offset, whence, unsafe { redhook::real!(lseek64)(fd, offset, whence) })
    }
}

/// After a change of length.
fn truncated(fd: c_int, length: off_t, result: c_int) -> c_int {
    if result == 0 && process::active() && process::watched() {
        recording(|guard| file::resized(guard, fd, length.max(0) as u64, false, false));
    }
    result
}

redhook::hook! {
    unsafe fn ftruncate(fd: c_int, length: off_t) -> c_int => counterfoil_ftruncate {
        // SAFETY: as above.
        truncated(fd, length, unsafe { redhook::real!(ftruncate)(fd, length) })
    }
}

redhook::hook! {
    unsafe fn ftruncate64(fd: c_int, length: off_t) -> c_int => counterfoil_ftruncate64 {
        // SAFETY: as above.
        truncated(fd, length, unsafe { redhook::real!(ftruncate64)(fd, length) })
    }
}

/// After a mapping.
fn mapped(
    at: *mut c_void,
    length: size_t,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    let ours = fd >= 0 && flags & MAP_ANONYMOUS == 0 && at != MAP_FAILED;
    if ours && process::active() && !fds::ignored(fd) && process::watched() {
        let writes = protection & PROT_WRITE != 0 && flags & MAP_SHARED != 0;
        let end = (offset.max(0) as u64).saturating_add(length as u64);
        recording(|guard| file::mapped(guard, fd, protection & PROT_READ != 0, writes, end));
    }
    at
}

redhook::hook! {
    unsafe fn mmap(at: *mut c_void, length: size_t, protection: c_int, flags: c_int, fd: c_int, offset: off_t) -> *mut c_void => counterfoil_mmap {
        // SAFETY: as above.
        let made = unsafe { redhook::real!(mmap)(at, length, protection, flags, fd, offset) };
        mapped(made, length, protection, flags, fd, offset)
    }
}

redhook::hook! {
    unsafe fn mmap64(at: *mut c_void, length: size_t, protection: c_int, flags: c_int, fd: c_int, offset: off_t) -> *mut c_void => counterfoil_mmap64 {
        // SAFETY: as above.
        let made = unsafe { redhook::real!(mmap64)(at, length, protection, flags, fd, offset) };
        mapped(made, length, protection, flags, fd, offset)
    }
}

/// The C names of these hooks.
#[cfg(test)]
pub const HOOKS: &[&str] = &[
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "remove",
    "lseek",
    "lseek64",
    "ftruncate",
    "ftruncate64",
    "mmap",
    "mmap64",
];

/// Looks all of them up, so that no hook has to.
pub fn resolve() {
    let _ = (rename.get(), renameat.get(), renameat2.get(), link.get(), linkat.get(), unlink.get());
    let _ = (unlinkat.get(), remove.get(), lseek.get(), lseek64.get(), ftruncate.get(), ftruncate64.get());
    let _ = (mmap.get(), mmap64.get());
}
