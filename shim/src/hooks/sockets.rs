//! Sending and receiving on sockets.

use super::made::connected;
use super::pieces::{Into, Messages, Vector, bytes, header};
use crate::fds;
use crate::kernel;
use crate::objects::{IN, OUT};
use crate::process;
use crate::real::hooks;
use crate::record::{self, Call, addressed, doubt, received, receiving, sending, sent};
use crate::stream::Offer;
use crate::thread::Guard;
use core::ffi::{c_int, c_uint, c_void};
use counterfoil_abi::record::{Address, Reason};
use libc::{
    CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_NXTHDR, MSG_ERRQUEUE, MSG_FASTOPEN, MSG_OOB, MSG_PEEK,
    MSG_TRUNC, SCM_RIGHTS, SOL_SOCKET, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec,
};

/// Starts watching a receive that takes bytes out of the stream; a peek doesn't.
fn takes(fd: c_int, flags: c_int) -> Call {
    if flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB) != 0 { Call::PASS } else { receiving(fd) }
}

/// Takes in what a receive returned.
fn took(
    fd: c_int,
    flags: c_int,
    call: Call,
    result: ssize_t,
    asked: usize,
    data: &(impl crate::stream::Pieces + ?Sized),
) {
    if flags & MSG_OOB != 0 && flags & MSG_PEEK == 0 && result > 0 {
        doubt(fd, IN, true);
    } else if flags & MSG_TRUNC != 0 {
        // On a stream socket MSG_TRUNC throws the bytes away; they are in no buffer.
        record::received_unseen(call, result, Reason::BypassedBytes);
    } else {
        received(call, result, asked, data);
    }
}

/// An urgent send: its last byte is not a stream byte, and what the receiver makes of the place is
/// its own choice (SO_OOBINLINE).
fn urgent(fd: c_int, flags: c_int, result: ssize_t) {
    if flags & MSG_OOB != 0 && result > 0 {
        doubt(fd, OUT, true);
    }
}

/// How much of a send is stream: an urgent one's last byte isn't.
fn stream_part(flags: c_int, length: usize) -> usize {
    if flags & MSG_OOB != 0 { length.saturating_sub(1) } else { length }
}

fn stream_result(flags: c_int, length: usize, result: ssize_t) -> ssize_t {
    if flags & MSG_OOB != 0 && result > 0 && result as usize == length { result - 1 } else { result }
}

/// A send that connects the socket first.
#[cold]
fn begun(fd: c_int, result: ssize_t) {
    connected(fd, if result < 0 { -1 } else { 0 });
}

/// A message with more than its bytes was sent: descriptors may have gone with it.
///
/// # Safety
/// The kernel has just read it.
#[cold]
unsafe fn hands_on(message: *const msghdr) {
    let Some(guard) = Guard::enter() else { return };
    // SAFETY: contract; the macros stay within what the message says it has.
    unsafe {
        let mut next = CMSG_FIRSTHDR(message);
        while let Some(part) = next.as_ref() {
            if (part.cmsg_level, part.cmsg_type) == (SOL_SOCKET, SCM_RIGHTS) {
                let fds = CMSG_DATA(next).cast::<c_int>();
                let count = part.cmsg_len.saturating_sub(CMSG_LEN(0) as usize) / size_of::<c_int>();
                (0..count).for_each(|at| fds::handed_on(&guard, fds.add(at).read_unaligned()));
            }
            next = CMSG_NXTHDR(message, next);
        }
    }
}

hooks! {
    real send(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int) -> ssize_t {
        let data = bytes(buffer, stream_part(flags, length));
        let mut offer = Offer::new();
        let call = sending(fd, data, data.len(), &mut offer);
        let result = real(fd, buffer, length, flags);
        sent(call, stream_result(flags, length, result), data, &mut offer);
        urgent(fd, flags, result);
        result
    }

    real sendto(fd: c_int, buffer: *const c_void, length: size_t, flags: c_int, to: *const sockaddr, to_len: socklen_t) -> ssize_t {
        let data = bytes(buffer, stream_part(flags, length));
        let mut offer = Offer::new();
        let call = sending(fd, data, data.len(), &mut offer);
        let result = real(fd, buffer, length, flags, to, to_len);
        if flags & MSG_FASTOPEN != 0 { begun(fd, result); }
        if !to.is_null() && result > 0 { addressed(&call, fd, result, kernel::destination(to, to_len)); }
        sent(call, stream_result(flags, length, result), data, &mut offer);
        urgent(fd, flags, result);
        result
    }

    real sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
        let more = header(message).is_some_and(|message| message.msg_controllen != 0);
        if more { process::shares(); }
        let data = Vector::of_message(message);
        let mut offer = Offer::new();
        let call = sending(fd, &data, stream_part(flags, data.total()), &mut offer);
        let result = real(fd, message, flags);
        if flags & MSG_FASTOPEN != 0 { begun(fd, result); }
        if more && result >= 0 { hands_on(message); }
        if result > 0 { addressed(&call, fd, result, named(message)); }
        sent(call, stream_result(flags, data.total(), result), &data, &mut offer);
        urgent(fd, flags, result);
        result
    }

    real sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
        // A row of sends: the kernel stops at the first that it can't take whole, so what it took
        // is the beginning of all of them together.
        let data = Messages::new(messages, count, false);
        let mut offer = Offer::new();
        let call = sending(fd, &data, stream_part(flags, data.total()), &mut offer);
        let result = real(fd, messages, count, flags);
        if flags & MSG_FASTOPEN != 0 { begun(fd, result as ssize_t); }
        let length = lengths(messages, result);
        for at in 0..usize::try_from(result).unwrap_or(0) {
            let message = &raw const (*messages.add(at)).msg_hdr;
            if (*message).msg_controllen != 0 {
                process::shares();
                hands_on(message);
            }
            // All of them are counted where the last one goes.
            addressed(&call, fd, 1, named(message));
        }
        sent(call, stream_result(flags, data.total(), length), &data, &mut offer);
        urgent(fd, flags, length);
        result
    }

    real recv(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t {
        let call = takes(fd, flags);
        let result = real(fd, buffer, length, flags);
        took(fd, flags, call, result, length, &Into::new(buffer, length));
        result
    }

    real __recv_chk(fd: c_int, buffer: *mut c_void, length: size_t, room: size_t, flags: c_int) -> ssize_t {
        let call = takes(fd, flags);
        let result = real(fd, buffer, length, room, flags);
        took(fd, flags, call, result, length, &Into::new(buffer, length));
        result
    }

    real recvfrom(fd: c_int, buffer: *mut c_void, length: size_t, flags: c_int, from: *mut sockaddr, from_len: *mut socklen_t) -> ssize_t {
        let call = takes(fd, flags);
        let result = real(fd, buffer, length, flags, from, from_len);
        took(fd, flags, call, result, length, &Into::new(buffer, length));
        result
    }

    real __recvfrom_chk(fd: c_int, buffer: *mut c_void, length: size_t, room: size_t, flags: c_int, from: *mut sockaddr, from_len: *mut socklen_t) -> ssize_t {
        let call = takes(fd, flags);
        let result = real(fd, buffer, length, room, flags, from, from_len);
        took(fd, flags, call, result, length, &Into::new(buffer, length));
        result
    }

    real recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
        let call = takes(fd, flags);
        let result = real(fd, message, flags);
        let data = Vector::of_message(message);
        took(fd, flags, call, result, data.total(), &data);
        received_descriptors(message, result);
        result
    }

    real recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int {
        let call = takes(fd, flags);
        let result = real(fd, messages, count, flags, timeout);
        let data = Messages::new(messages, c_uint::try_from(result).unwrap_or(0), true);
        took(fd, flags, call, lengths(messages, result), 1, &data);
        for at in 0..usize::try_from(result).unwrap_or(0) {
            received_descriptors(&raw mut (*messages.add(at)).msg_hdr, 1);
        }
        result
    }
}

/// Where a message says that it goes.
///
/// # Safety
/// `message` is the call's own argument, of a call that succeeded.
unsafe fn named(message: *const msghdr) -> Option<Address> {
    // SAFETY: contract.
    unsafe { kernel::destination((*message).msg_name.cast(), (*message).msg_namelen) }
}

/// # Safety
/// `messages` holds the `result` messages that the call has handled.
unsafe fn lengths(messages: *const mmsghdr, result: c_int) -> ssize_t {
    if result <= 0 || messages.is_null() {
        return result.min(0) as ssize_t;
    }
    // SAFETY: contract.
    let handled = unsafe { core::slice::from_raw_parts(messages, result as usize) };
    handled.iter().map(|m| m.msg_len as ssize_t).sum()
}

/// Descriptors that came with a message are new numbers: forget what we believed of them.
///
/// # Safety
/// `message` is as the real recvmsg left it.
unsafe fn received_descriptors(message: *mut msghdr, result: ssize_t) {
    // SAFETY: contract.
    if result < 0 || message.is_null() || unsafe { (*message).msg_controllen } == 0 {
        return;
    }
    // SAFETY: contract; the CMSG functions stay within msg_control.
    unsafe {
        let mut part = libc::CMSG_FIRSTHDR(message);
        while !part.is_null() {
            if (*part).cmsg_level == libc::SOL_SOCKET && (*part).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(part);
                let held = (part.addr() + (*part).cmsg_len).saturating_sub(data.addr()) / size_of::<c_int>();
                for i in 0..held {
                    super::made::appeared(data.cast::<c_int>().add(i).read_unaligned());
                }
            }
            part = libc::CMSG_NXTHDR(message, part);
        }
    }
}
