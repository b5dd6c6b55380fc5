//! What a FILE leads to: glibc reads and writes that by itself, where no hook sees it.

use super::{EXPOSED, STDIO, known};
use crate::fds;
use crate::hooks::made::recording;
use crate::objects::Object;
use crate::process;
use crate::shield::keeping_errno;
use core::ffi::c_int;
use counterfoil_abi::record::{Channel, THROUGH_STDIO};
use libc::{FILE, size_t};

unsafe extern "C" {
    static stdin: *mut FILE;
    static stdout: *mut FILE;
    static stderr: *mut FILE;
    /// stdio_ext.h: bytes of output that the FILE holds.
    fn __fpending(file: *mut FILE) -> size_t;
    /// stdio_ext.h: 0 as long as it was not used.
    fn __fbufsize(file: *mut FILE) -> size_t;
}

/// The standard FILE that stands on `fd`.
fn standard(fd: i32) -> Option<*mut FILE> {
    // SAFETY: libc's own, valid while the program doesn't close them; it may have replaced the pointers,
    // as it may in C.
    let files = unsafe { [stdin, stdout, stderr] };
    // SAFETY: fileno only reads; it takes no lock.
    files.into_iter().find(|&file| !file.is_null() && unsafe { libc::fileno(file) } == fd)
}

/// One of stdin, stdout, stderr stands on `fd` and was used.
pub fn uses(fd: i32) -> bool {
    // SAFETY: only reads.
    fd <= libc::STDERR_FILENO && standard(fd).is_some_and(|file| unsafe { __fbufsize(file) } != 0)
}

/// One of them holds output for `fd` that is not written yet.
pub fn pending(fd: i32) -> bool {
    // SAFETY: only reads.
    fd <= libc::STDERR_FILENO && standard(fd).is_some_and(|file| unsafe { __fpending(file) } != 0)
}

/// No kernel counts what passes through it, so that nothing else tells of what no hook saw.
pub fn uncounted(object: &Object) -> bool {
    matches!(object.channel(), Channel::Pipe | Channel::Unix)
}

/// `fd` is about to lead to `object` no more, as far as this program is concerned.
pub fn leaves(fd: i32, object: &Object) {
    if uncounted(object) && uses(fd) {
        object.flag(THROUGH_STDIO);
    }
}

/// `fd` has just got a FILE.
pub fn opened_stream(fd: c_int) {
    if !process::active() || !process::watched() {
        return;
    }
    recording(|guard| {
        fds::settle(guard, fd);
        if let Some(object) = known(fd) {
            object.file.mark(STDIO | EXPOSED);
        } else if let Some(object) = fds::known(fd).filter(|object| uncounted(object)) {
            object.flag(THROUGH_STDIO);
        }
    });
}

/// Before `file` is closed: what it holds is written, as closing it would do first, so that the file can
/// be looked at while it is open. Returns the error of that, which is the close's.
///
/// # Safety
/// `file` is a FILE.
pub unsafe fn closing_stream(file: *mut FILE) -> Option<c_int> {
    if !process::active() {
        return None;
    }
    // SAFETY: contract.
    let fd = keeping_errno(|| unsafe { libc::fileno(file) });
    // SAFETY: contract.
    if known(fd).is_none() || unsafe { __fpending(file) } == 0 {
        return None;
    }
    let mut error = None;
    keeping_errno(|| {
        // SAFETY: contract; this thread's errno.
        if unsafe { libc::fflush(file) } != 0 {
            // SAFETY: as above.
            error = Some(unsafe { *libc::__errno_location() });
        }
    });
    error
}
