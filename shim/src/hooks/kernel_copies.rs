//! Copies that the kernel makes between descriptors: their bytes pass no program, so each is a gap
//! of known length in the streams concerned. A file's is read at rest.

use super::made::recording;
use crate::file;
use crate::objects::{IN, OUT};
use crate::real::hooks;
use crate::record::{moving, received_unseen_to, sent_from_file, sent_unseen, sent_unseen_to};
use core::ffi::{c_int, c_uint, c_ulong};
use counterfoil_abi::record::Reason;
use libc::{iovec, loff_t, off_t, size_t, ssize_t};

/// Where a copy ended whose place was given.
///
/// # Safety
/// `place` is NULL or as the call left it, which returned `result`.
unsafe fn end(result: ssize_t, place: *const loff_t) -> Option<u64> {
    if result < 0 {
        return None;
    }
    // SAFETY: contract; the kernel has read it.
    unsafe { place.as_ref() }.and_then(|&place| u64::try_from(place).ok())
}

hooks! {
    real sendfile(to: c_int, from: c_int, offset: *mut off_t, length: size_t) -> ssize_t {
        let (out, into) = (moving(to, OUT), moving(from, IN));
        let result = real(to, from, offset, length);
        sent_from_file(out, result, from, end(result, offset));
        received_unseen_to(into, result, Reason::KernelCopy, end(result, offset));
        result
    }

    real sendfile64(to: c_int, from: c_int, offset: *mut loff_t, length: size_t) -> ssize_t {
        let (out, into) = (moving(to, OUT), moving(from, IN));
        let result = real(to, from, offset, length);
        sent_from_file(out, result, from, end(result, offset));
        received_unseen_to(into, result, Reason::KernelCopy, end(result, offset));
        result
    }

    real splice(from: c_int, from_at: *mut loff_t, to: c_int, to_at: *mut loff_t, length: size_t, flags: c_uint) -> ssize_t {
        let (out, into) = (moving(to, OUT), moving(from, IN));
        let result = real(from, from_at, to, to_at, length, flags);
        sent_unseen_to(out, result, Reason::KernelCopy, end(result, to_at));
        received_unseen_to(into, result, Reason::KernelCopy, end(result, from_at));
        result
    }

    // tee copies without taking: only the target's stream moves.
    real tee(from: c_int, to: c_int, length: size_t, flags: c_uint) -> ssize_t {
        let out = moving(to, OUT);
        let result = real(from, to, length, flags);
        sent_unseen(out, result, Reason::KernelCopy);
        result
    }

    real vmsplice(pipe: c_int, pieces: *const iovec, count: size_t, flags: c_uint) -> ssize_t {
        let out = moving(pipe, OUT);
        let result = real(pipe, pieces, count, flags);
        sent_unseen(out, result, Reason::KernelCopy);
        result
    }

    real copy_file_range(from: c_int, from_at: *mut loff_t, to: c_int, to_at: *mut loff_t, length: size_t, flags: c_uint) -> ssize_t {
        let (out, into) = (moving(to, OUT), moving(from, IN));
        let result = real(from, from_at, to, to_at, length, flags);
        sent_unseen_to(out, result, Reason::KernelCopy, end(result, to_at));
        received_unseen_to(into, result, Reason::KernelCopy, end(result, from_at));
        result
    }

    // Variadic in C; passed on whole, as glibc does.
    real ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
        let result = real(fd, request, argument);
        if result == 0 && matches!(request, FICLONE | FICLONERANGE) { cloned(fd, request, argument); }
        result
    }
}

/// linux/fs.h.
const FICLONE: c_ulong = 0x4004_9409;
const FICLONERANGE: c_ulong = 0x4020_940d;

/// `fd` shares another file's blocks now.
///
/// # Safety
/// The call's own arguments.
unsafe fn cloned(fd: c_int, request: c_ulong, argument: usize) {
    let from = match request {
        FICLONE => argument as i64,
        // SAFETY: struct file_clone_range begins with the source's descriptor, 64 bits.
        _ => unsafe { core::ptr::with_exposed_provenance::<i64>(argument).read_unaligned() },
    };
    recording(|guard| {
        file::cloned(guard, fd, OUT);
        file::cloned(guard, from as c_int, IN);
    });
}
