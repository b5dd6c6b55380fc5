//! Copies that the kernel makes between descriptors: their bytes pass no program, so each is a gap
//! of known length in the streams concerned.

use crate::objects::{IN, OUT};
use crate::real::hooks;
use crate::record::{moving, received_unseen, sent_unseen};
use core::ffi::{c_int, c_uint};
use counterfoil_abi::record::Reason;
use libc::{iovec, loff_t, off_t, size_t, ssize_t};

hooks! {
    real sendfile(to: c_int, from: c_int, offset: *mut off_t, length: size_t) -> ssize_t {
        let (out, into) = (moving(to, OUT), moving(from, IN));
        let result = real(to, from, offset, length);
        sent_unseen(out, result, Reason::KernelCopy);
        received_unseen(into, result, Reason::KernelCopy);
        result
    }

    real sendfile64(to: c_int, from: c_int, offset: *mut loff_t, length: size_t) -> ssize_t {
        let (out, into) = (moving(to, OUT), moving(from, IN));
        let result = real(to, from, offset, length);
        sent_unseen(out, result, Reason::KernelCopy);
        received_unseen(into, result, Reason::KernelCopy);
        result
    }

    real splice(from: c_int, from_at: *mut loff_t, to: c_int, to_at: *mut loff_t, length: size_t, flags: c_uint) -> ssize_t {
        let (out, into) = (moving(to, OUT), moving(from, IN));
        let result = real(from, from_at, to, to_at, length, flags);
        sent_unseen(out, result, Reason::KernelCopy);
        received_unseen(into, result, Reason::KernelCopy);
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
        sent_unseen(out, result, Reason::KernelCopy);
        received_unseen(into, result, Reason::KernelCopy);
        result
    }
}
