//! read and write on whatever a descriptor leads to, and the ends of descriptors.

use super::made::recording;
use super::pieces::{Into, Vector, bytes};
use crate::fds;
use crate::file::{self, closing_stream};
use crate::readable::readable;
use crate::real::hooks;
use crate::record::{
    Call, carrier, nobody_asks, received, receiving, receiving_plain, sending, sending_plain, sent,
};
use crate::shield::{keeping_errno, shielded};
use crate::ssh;
use crate::stream::Offer;
use crate::thread::Guard;
use crate::{kernel, memory, process};
use core::ffi::{c_int, c_uint, c_void};
use libc::{FILE, iovec, size_t, ssize_t};

/// Before `fd` is closed: what dies in the call is recorded before it.
pub fn closing(fd: c_int) {
    if !process::active() {
        return;
    }
    if fds::unremarkable(fd) {
        return fds::unlook(fd);
    }
    keeping_errno(|| {
        shielded((), || {
            if process::is_vfork_child() {
                return;
            }
            let Some(guard) = Guard::enter() else { return fds::lost(fd) };
            let counts = counts_of(&guard, fd);
            fds::forget(&guard, fd, counts);
        });
    });
}

/// The kernel's counts, if this is the last reference to a TCP socket.
pub fn counts_of(guard: &Guard, fd: c_int) -> kernel::Counts {
    if fds::unremarkable(fd) {
        return kernel::Counts::UNKNOWN;
    }
    fds::settle(guard, fd);
    fds::known(fd).map_or(kernel::Counts::UNKNOWN, |object| fds::counts(guard, object, fd))
}

fn closing_range(first: c_uint, last: c_uint) {
    if !process::active() || keeping_errno(process::is_vfork_child) {
        return;
    }
    recording(fds::settle_made);
    fds::for_each(|fd, _| {
        if (first..=last).contains(&(fd as c_uint)) {
            closing(fd);
        }
    });
}

/// The one flag of close_range with which it closes (linux/close_range.h); CLOSE_RANGE_CLOEXEC only marks.
const CLOSE_RANGE_UNSHARE: c_int = 2;

/// Which fcntl commands make a descriptor.
fn duplicates(command: c_int) -> bool {
    command == libc::F_DUPFD || command == libc::F_DUPFD_CLOEXEC
}

/// `new` was just made as another name of `old`.
pub fn duplicated(old: c_int, new: c_int) {
    recording(|guard| {
        fds::fresh(guard, new, None);
        fds::duplicate(guard, old, new);
    });
}

/// What a close of a FILE comes to, where `unwritten` is the error that writing its rest had.
pub fn closed_stream(result: c_int, unwritten: Option<c_int>) -> c_int {
    let Some(error) = unwritten else { return result };
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = error };
    libc::EOF
}

/// After fcntl.
fn controlled(fd: c_int, command: c_int, argument: usize, result: c_int) {
    if result >= 0 && duplicates(command) {
        duplicated(fd, result);
    } else if result >= 0 && command == libc::F_SETFL {
        recording(|guard| file::set_flags(guard, fd, argument as c_int));
    }
}

/// A read or write of `fd` is nobody's business: after three loads the real call is made as it stands.
#[inline(always)]
fn indifferent(fd: c_int) -> bool {
    nobody_asks(fd) && !ssh::on() && !memory::watched()
}

type Read = unsafe extern "C-unwind" fn(c_int, *mut c_void, size_t) -> ssize_t;
type Write = unsafe extern "C-unwind" fn(c_int, *const c_void, size_t) -> ssize_t;

/// Apart, so that a call that is nobody's business needs no stack; the arguments stand where they came in.
///
/// # Safety
/// read(2)'s contract.
#[inline(never)]
unsafe extern "C-unwind" fn recorded_read(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    real: Read,
) -> ssize_t {
    if let Some(call) = carrier(fd).map(Call::counting) {
        // SAFETY: our caller's contract.
        let result = unsafe { real(fd, buffer, length) };
        received(call, result, length, &Into::new(buffer, length));
        return result;
    }
    let call = receiving_plain(fd);
    // SAFETY: our caller's contract.
    let result = unsafe { real(fd, buffer, length) };
    received(call, result, length, &Into::new(buffer, length));
    result
}

/// As [`recorded_read`].
///
/// # Safety
/// write(2)'s contract.
#[inline(never)]
unsafe extern "C-unwind" fn recorded_write(
    fd: c_int,
    buffer: *const c_void,
    length: size_t,
    real: Write,
) -> ssize_t {
    // SAFETY: our caller's contract.
    let data = unsafe { bytes(buffer, length) };
    if let Some(call) = carrier(fd).map(Call::counting) {
        // SAFETY: our caller's contract.
        let result = unsafe { real(fd, buffer, length) };
        sent(call, result, data, &mut Offer::new());
        return result;
    }
    if ssh::on() && readable(buffer, length) {
        ssh::said(data);
    }
    let mut offer = Offer::new();
    let call = sending_plain(fd, data, data.len(), &mut offer);
    // SAFETY: our caller's contract.
    let result = unsafe { real(fd, buffer, length) };
    memory::written(fd, result, None);
    sent(call, result, data, &mut offer);
    result
}

hooks! {
    real read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t {
        if indifferent(fd) { real(fd, buffer, length) } else { recorded_read(fd, buffer, length, real) }
    }

    real __read_chk(fd: c_int, buffer: *mut c_void, length: size_t, room: size_t) -> ssize_t {
        let call = receiving(fd);
        let result = real(fd, buffer, length, room);
        received(call, result, length, &Into::new(buffer, length));
        result
    }

    real readv(fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t {
        let data = Vector::new(pieces, usize::try_from(count).unwrap_or(0));
        let call = receiving(fd);
        let result = real(fd, pieces, count);
        received(call, result, data.total(), &data);
        result
    }

    real write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t {
        if indifferent(fd) { real(fd, buffer, length) } else { recorded_write(fd, buffer, length, real) }
    }

    real writev(fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t {
        let data = Vector::new(pieces, usize::try_from(count).unwrap_or(0));
        let mut offer = Offer::new();
        let call = sending(fd, &data, data.total(), &mut offer);
        let result = real(fd, pieces, count);
        memory::written(fd, result, None);
        sent(call, result, &data, &mut offer);
        result
    }

    real close(fd: c_int) -> c_int {
        closing(fd);
        real(fd)
    }

    real close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
        // One that the kernel refuses (EINVAL) closes nothing.
        if first <= last && flags & !CLOSE_RANGE_UNSHARE == 0 { closing_range(first, last); }
        real(first, last, flags)
    }

    real closefrom(first: c_int) {
        closing_range(first.max(0) as c_uint, c_uint::MAX);
        real(first);
    }

    real fclose(file: *mut FILE) -> c_int {
        if file.is_null() { return real(file); }
        let unwritten = closing_stream(file);
        closing(keeping_errno(|| libc::fileno(file)));
        let result = real(file);
        closed_stream(result, unwritten)
    }

    // Variadic in C: the third argument is passed on whether or not it was given.
    real fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
        let result = real(fd, command, argument);
        controlled(fd, command, argument, result);
        result
    }

    real fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
        let result = real(fd, command, argument);
        controlled(fd, command, argument, result);
        result
    }
}
