//! Calls on files that may be cancelled: reading and writing at a place, and making room.
//!
//! A file's shared position moves with `read` and `write` (see `descriptors`) and `lseek` (see
//! `plain_files`).

use super::made::recording;
use super::pieces::{Into, Vector, bytes};
use crate::file;
use crate::process;
use crate::real::hooks;
use crate::record::{received_at, receiving, sending, sent_at};
use crate::stream::Offer;
use core::ffi::{c_int, c_void};
use libc::{iovec, off_t, off64_t, size_t, ssize_t};

fn pieces(count: c_int) -> usize {
    usize::try_from(count).unwrap_or(0)
}

/// After a call that may have made a file longer: `mode` is fallocate's.
fn allocated(fd: c_int, mode: c_int, offset: off64_t, length: off64_t) {
    // With no mode but KEEP_SIZE content stays as it is; all others change it.
    let inside = mode & !libc::FALLOC_FL_KEEP_SIZE != 0;
    if process::active() && process::watched() {
        recording(|guard| {
            file::resized(guard, fd, offset.saturating_add(length).max(0) as u64, inside, true)
        });
    }
}

hooks! {
    real pread(fd: c_int, buffer: *mut c_void, length: size_t, offset: off_t) -> ssize_t {
        let call = receiving(fd);
        let result = real(fd, buffer, length, offset);
        received_at(call, offset, result, length, &Into::new(buffer, length));
        result
    }

    real pread64(fd: c_int, buffer: *mut c_void, length: size_t, offset: off64_t) -> ssize_t {
        let call = receiving(fd);
        let result = real(fd, buffer, length, offset);
        received_at(call, offset, result, length, &Into::new(buffer, length));
        result
    }

    real __pread_chk(fd: c_int, buffer: *mut c_void, length: size_t, offset: off_t, room: size_t) -> ssize_t {
        let call = receiving(fd);
        let result = real(fd, buffer, length, offset, room);
        received_at(call, offset, result, length, &Into::new(buffer, length));
        result
    }

    real __pread64_chk(fd: c_int, buffer: *mut c_void, length: size_t, offset: off64_t, room: size_t) -> ssize_t {
        let call = receiving(fd);
        let result = real(fd, buffer, length, offset, room);
        received_at(call, offset, result, length, &Into::new(buffer, length));
        result
    }

    real preadv(fd: c_int, list: *const iovec, count: c_int, offset: off_t) -> ssize_t {
        let data = Vector::new(list, pieces(count));
        let call = receiving(fd);
        let result = real(fd, list, count, offset);
        received_at(call, offset, result, data.total(), &data);
        result
    }

    real preadv64(fd: c_int, list: *const iovec, count: c_int, offset: off64_t) -> ssize_t {
        let data = Vector::new(list, pieces(count));
        let call = receiving(fd);
        let result = real(fd, list, count, offset);
        received_at(call, offset, result, data.total(), &data);
        result
    }

    // An offset of -1 is the shared position, and sockets and pipes have no other.
    real preadv2(fd: c_int, list: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t {
        let data = Vector::new(list, pieces(count));
        let call = receiving(fd);
        let result = real(fd, list, count, offset, flags);
        received_at(call, offset, result, data.total(), &data);
        result
    }

    real preadv64v2(fd: c_int, list: *const iovec, count: c_int, offset: off64_t, flags: c_int) -> ssize_t {
        let data = Vector::new(list, pieces(count));
        let call = receiving(fd);
        let result = real(fd, list, count, offset, flags);
        received_at(call, offset, result, data.total(), &data);
        result
    }

    real pwrite(fd: c_int, buffer: *const c_void, length: size_t, offset: off_t) -> ssize_t {
        let data = bytes(buffer, length);
        let mut offer = Offer::new();
        let call = sending(fd, data, data.len(), &mut offer);
        let result = real(fd, buffer, length, offset);
        sent_at(call, offset, result, data, &mut offer);
        result
    }

    real pwrite64(fd: c_int, buffer: *const c_void, length: size_t, offset: off64_t) -> ssize_t {
        let data = bytes(buffer, length);
        let mut offer = Offer::new();
        let call = sending(fd, data, data.len(), &mut offer);
        let result = real(fd, buffer, length, offset);
        sent_at(call, offset, result, data, &mut offer);
        result
    }

    real pwritev(fd: c_int, list: *const iovec, count: c_int, offset: off_t) -> ssize_t {
        let data = Vector::new(list, pieces(count));
        let mut offer = Offer::new();
        let call = sending(fd, &data, data.total(), &mut offer);
        let result = real(fd, list, count, offset);
        sent_at(call, offset, result, &data, &mut offer);
        result
    }

    real pwritev64(fd: c_int, list: *const iovec, count: c_int, offset: off64_t) -> ssize_t {
        let data = Vector::new(list, pieces(count));
        let mut offer = Offer::new();
        let call = sending(fd, &data, data.total(), &mut offer);
        let result = real(fd, list, count, offset);
        sent_at(call, offset, result, &data, &mut offer);
        result
    }

    real pwritev2(fd: c_int, list: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t {
        let data = Vector::new(list, pieces(count));
        let mut offer = Offer::new();
        let call = sending(fd, &data, data.total(), &mut offer);
        let result = real(fd, list, count, offset, flags);
        sent_at(call, appending(offset, flags), result, &data, &mut offer);
        result
    }

    real pwritev64v2(fd: c_int, list: *const iovec, count: c_int, offset: off64_t, flags: c_int) -> ssize_t {
        let data = Vector::new(list, pieces(count));
        let mut offer = Offer::new();
        let call = sending(fd, &data, data.total(), &mut offer);
        let result = real(fd, list, count, offset, flags);
        sent_at(call, appending(offset, flags), result, &data, &mut offer);
        result
    }

    real fallocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
        let result = real(fd, mode, offset, length);
        if result == 0 { allocated(fd, mode, offset, length); }
        result
    }

    real fallocate64(fd: c_int, mode: c_int, offset: off64_t, length: off64_t) -> c_int {
        let result = real(fd, mode, offset, length);
        if result == 0 { allocated(fd, mode, offset, length); }
        result
    }

    real posix_fallocate(fd: c_int, offset: off_t, length: off_t) -> c_int {
        let result = real(fd, offset, length);
        if result == 0 { allocated(fd, 0, offset, length); }
        result
    }

    real posix_fallocate64(fd: c_int, offset: off64_t, length: off64_t) -> c_int {
        let result = real(fd, offset, length);
        if result == 0 { allocated(fd, 0, offset, length); }
        result
    }
}

/// An append goes to the end, wherever it was meant to: no place that continues anything.
fn appending(offset: off_t, flags: c_int) -> off_t {
    if flags & libc::RWF_APPEND != 0 { off_t::MAX } else { offset }
}
