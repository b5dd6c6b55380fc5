//! C's buffers as slices.

use crate::readable::readable;
use crate::stream::Pieces;
use core::ffi::c_void;
use core::slice::from_raw_parts;
use libc::{iovec, msghdr};

/// A call's message, where the kernel could read it.
///
/// # Safety
/// `message` is the call's own argument.
pub unsafe fn header<'a>(message: *const msghdr) -> Option<&'a msghdr> {
    // SAFETY: contract.
    if readable(message, size_of::<msghdr>()) { unsafe { message.as_ref() } } else { None }
}

/// The most that one call moves (MAX_RW_COUNT).
const MOST: usize = 0x7fff_f000;

/// A call's buffer as a slice, as far as the kernel takes it; empty for NULL.
///
/// # Safety
/// `buffer` is valid for `length` bytes, or NULL.
#[inline]
pub unsafe fn bytes<'a>(buffer: *const c_void, length: usize) -> &'a [u8] {
    if buffer.is_null() {
        return &[];
    }
    // SAFETY: contract.
    unsafe { from_raw_parts(buffer.cast(), length.min(MOST)) }
}

/// What a receiving call has written; the length only counts once the call has returned it.
#[derive(Clone, Copy)]
pub struct Into {
    buffer: *const c_void,
    room: usize,
}

impl Into {
    /// A buffer of `room` bytes that the real call fills.
    pub fn new(buffer: *const c_void, room: usize) -> Self {
        Self { buffer, room }
    }
}

impl Pieces for Into {
    #[inline]
    fn walk(&self, skip: u64, limit: u64, each: &mut dyn FnMut(&[u8])) {
        // Only bytes that the call reported are read: a call may be given more room than there is.
        let end = self.room.min((skip + limit) as usize);
        // SAFETY: `limit` is what the call returned, so that many bytes are initialised.
        let filled = unsafe { bytes(self.buffer, end) };
        filled.walk(skip, limit, each);
    }
}

/// An iovec array.
#[derive(Clone, Copy)]
pub struct Vector {
    pieces: *const iovec,
    count: usize,
}

impl Vector {
    /// # Safety
    /// `pieces` is valid for `count` entries while this lives, and each entry for what the call
    /// reads or has written.
    pub unsafe fn new(pieces: *const iovec, count: usize) -> Self {
        // UIO_MAXIOV: the kernel refuses more, and what it can't read.
        let some = !pieces.is_null() && count <= 1024 && readable(pieces, count * size_of::<iovec>());
        Self { pieces, count: if some { count } else { 0 } }
    }

    /// # Safety
    /// `message` is a call's own argument.
    pub unsafe fn of_message(message: *const msghdr) -> Self {
        // SAFETY: contract.
        let list = unsafe { header(message) }.map(|message| (message.msg_iov, message.msg_iovlen));
        let (pieces, count) = list.unwrap_or((core::ptr::null_mut(), 0));
        // SAFETY: contract.
        unsafe { Self::new(pieces, count) }
    }

    /// Bytes of all pieces together.
    pub fn total(&self) -> usize {
        self.entries().iter().fold(0usize, |sum, piece| sum.saturating_add(piece.iov_len))
    }

    fn entries(&self) -> &[iovec] {
        if self.count == 0 {
            return &[];
        }
        // SAFETY: contract of `new`.
        unsafe { from_raw_parts(self.pieces, self.count) }
    }
}

impl Pieces for Vector {
    fn walk(&self, mut skip: u64, mut limit: u64, each: &mut dyn FnMut(&[u8])) {
        for piece in self.entries() {
            let length = piece.iov_len as u64;
            if skip >= length {
                skip -= length;
                continue;
            }
            let now = (length - skip).min(limit);
            if now == 0 {
                return;
            }
            // SAFETY: contract of `new`; `walk` is asked for no more than the call moves.
            each(unsafe { bytes(piece.iov_base.byte_add(skip as usize), now as usize) });
            skip = 0;
            limit -= now;
        }
    }
}

/// The messages of a sendmmsg or recvmmsg, one behind the other.
#[derive(Clone, Copy)]
pub struct Messages {
    messages: *const libc::mmsghdr,
    count: usize,
    /// Each counts only as far as its `msg_len` says (received ones).
    filled: bool,
}

impl Messages {
    /// # Safety
    /// `messages` is valid for `count` entries while this lives, as the call's own argument is.
    pub unsafe fn new(messages: *const libc::mmsghdr, count: u32, filled: bool) -> Self {
        // Of more than UIO_MAXIOV the kernel takes the first ones; and as many as it can read.
        let most = if messages.is_null() { 0 } else { count.min(1024) as usize };
        let there = |&at: &usize| readable(messages.wrapping_add(at), size_of::<libc::mmsghdr>());
        Self { messages, count: (0..most).take_while(there).count(), filled }
    }

    fn each(&self) -> impl Iterator<Item = (Vector, u64)> + '_ {
        (0..self.count).map(|at| {
            // SAFETY: contract of `new`.
            let (message, vector) = unsafe {
                let message = &*self.messages.add(at);
                (message, Vector::new(message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen))
            };
            (vector, if self.filled { u64::from(message.msg_len) } else { vector.total() as u64 })
        })
    }

    /// Bytes of all messages together.
    pub fn total(&self) -> usize {
        self.each().fold(0usize, |sum, (_, length)| sum.saturating_add(length as usize))
    }
}

impl Pieces for Messages {
    fn walk(&self, mut skip: u64, mut limit: u64, each: &mut dyn FnMut(&[u8])) {
        for (vector, length) in self.each() {
            if skip >= length {
                skip -= length;
                continue;
            }
            let now = (length - skip).min(limit);
            vector.walk(skip, now, each);
            skip = 0;
            limit -= now;
        }
    }
}
