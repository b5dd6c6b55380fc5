//! GnuTLS's sessions: plaintext in and out, handshakes, ends.
//!
//! A send that can't go on has sealed one record; GnuTLS keeps that, and a retry, with the same
//! bytes or with (NULL, 0), sends it and returns its length.

use super::made::recording;
use super::pieces::{Into, bytes};
use crate::gnutls::{self, Datum, GnuSession};
use crate::library::library_hooks;
use crate::objects::{IN, OUT};
use crate::session::{self, Does, Session, enter};
use crate::shield::keeping_errno;
use crate::stream::Offer;
use crate::thread::stack_pointer;
use core::ffi::{c_int, c_uint, c_void};
use core::sync::atomic::Ordering;
use counterfoil_abi::record::{Channel, IN_EOF, NOTIFY_SEEN, NOTIFY_SENT, Reason};
use libc::{off_t, size_t, ssize_t};

/// gnutls_init's flag (gnutls.h).
const CLIENT: c_uint = 2;
/// gnutls_bye's second argument: both directions.
const SHUT_RDWR: c_int = 0;

fn count(result: ssize_t) -> usize {
    usize::try_from(result).unwrap_or(0)
}

/// A send of `data`. `keeps`: what was sealed and not sent is kept, as gnutls_record_send does.
///
/// # Safety
/// The hook's own arguments.
#[inline(always)]
unsafe fn send(
    session: *mut GnuSession,
    caller: *const c_void,
    data: &[u8],
    frame: usize,
    real: impl FnOnce() -> ssize_t,
) -> ssize_t {
    let mut call = enter(session.addr(), Channel::GnuTls, Does::Writes, frame);
    let mut offer = Offer::new();
    let rest = call.offer(data, &mut offer);
    let result = real();
    // SAFETY: contract.
    let kept = unsafe { gnutls::kept(caller, session, data.len(), result) };
    call.wrote_or_kept(count(result), kept, rest, &mut offer);
    // SAFETY: contract.
    unsafe { gnutls::after(&call, caller, session, result > 0, result) };
    call.leave();
    result
}

/// A receive into `buffer`.
///
/// # Safety
/// The hook's own arguments.
#[inline(always)]
unsafe fn receive(
    session: *mut GnuSession,
    caller: *const c_void,
    into: Into,
    asked: usize,
    frame: usize,
    real: impl FnOnce() -> ssize_t,
) -> ssize_t {
    let call = enter(session.addr(), Channel::GnuTls, Does::Reads, frame);
    let result = real();
    call.read(count(result), &into);
    received(&call, asked, result);
    // SAFETY: contract.
    unsafe { gnutls::after(&call, caller, session, result > 0, result) };
    call.leave();
    result
}

/// 0 is the peer's close_notify.
fn received(call: &Session, asked: usize, result: ssize_t) {
    if result == 0
        && asked > 0
        && let Some(object) = call.object
    {
        object.flag(IN_EOF | NOTIFY_SEEN);
    }
}

/// A call that moves no plaintext.
///
/// # Safety
/// The hook's own arguments.
#[inline(always)]
unsafe fn around(
    session: *mut GnuSession,
    caller: *const c_void,
    frame: usize,
    handshake: bool,
    real: impl FnOnce() -> c_int,
) -> c_int {
    let call = enter(session.addr(), Channel::GnuTls, Does::Nothing, frame);
    let result = real();
    // SAFETY: contract.
    unsafe { gnutls::after(&call, caller, session, handshake && result == 0, result as isize) };
    call.leave();
    result
}

/// 0-RTT: a server may throw it away, and nobody says so at this end.
fn early(session: *mut GnuSession, way: u8) {
    if let Some(object) = session::known(session.addr()) {
        recording(|guard| {
            let (out, into) = object.taps();
            let (stream, tap) = if way == OUT { (&object.out, out) } else { (&object.into, into) };
            stream.doubt(guard, object.number(), tap, Reason::BypassedBytes);
        });
    }
}

library_hooks! {
    60 real(_caller) gnutls_init(session: *mut *mut GnuSession, flags: c_uint) -> c_int {
        let result = real(session, flags);
        if result == 0 && !session.is_null() {
            session::made((*session).addr(), Channel::GnuTls);
            if let Some(object) = session::known((*session).addr()) {
                object.tls.client.store(u8::from(flags & CLIENT != 0), Ordering::Relaxed);
            }
        }
        result
    }

    // void in C.
    61 real(_caller) gnutls_deinit(session: *mut GnuSession) -> c_int {
        if !session.is_null() && session::known(session.addr()).is_some() {
            session::freed(session.addr(), 0);
        }
        real(session)
    }

    62 real(caller) gnutls_handshake(session: *mut GnuSession) -> c_int {
        around(session, caller, stack_pointer(), true, || real(session))
    }

    63 real(caller) gnutls_bye(session: *mut GnuSession, how: c_int) -> c_int {
        let result = around(session, caller, stack_pointer(), false, || real(session, how));
        if let Some(object) = session::known(session.addr()) {
            if result == 0 {
                object.flag(if how == SHUT_RDWR { NOTIFY_SENT | NOTIFY_SEEN | IN_EOF } else { NOTIFY_SENT });
            }
            // The writer's last word: the other end may compare already.
            recording(|guard| object.tell(guard, false));
        }
        result
    }

    64 real(caller) gnutls_record_send(session: *mut GnuSession, buffer: *const c_void, length: size_t) -> ssize_t {
        let frame = stack_pointer();
        send(session, caller, bytes(buffer, length), frame, || real(session, buffer, length))
    }

    65 real(caller) gnutls_record_send2(session: *mut GnuSession, buffer: *const c_void, length: size_t, pad: size_t, flags: c_uint) -> ssize_t {
        let frame = stack_pointer();
        send(session, caller, bytes(buffer, length), frame, || real(session, buffer, length, pad, flags))
    }

    // Sends record by record; where it stopped is known to it alone, and a retry must offer the same.
    66 real(caller) gnutls_record_send_range(session: *mut GnuSession, buffer: *const c_void, length: size_t, range: *const c_void) -> ssize_t {
        let frame = stack_pointer();
        let mut call = enter(session.addr(), Channel::GnuTls, Does::Writes, frame);
        let mut offer = Offer::new();
        let rest = call.offer(bytes(buffer, length), &mut offer);
        let result = real(session, buffer, length, range);
        call.wrote(count(result), rest, &mut offer);
        gnutls::after(&call, caller, session, result > 0, result);
        call.leave();
        result
    }

    // Reads the file and calls gnutls_record_send; where that call doesn't come by us, the bytes
    // are counted as not seen.
    67 real(_caller) gnutls_record_send_file(session: *mut GnuSession, fd: c_int, offset: *mut off_t, length: size_t) -> ssize_t {
        let sent = |object: &crate::objects::Object| object.out.offset();
        let before = session::known(session.addr()).map_or(0, sent);
        let result = real(session, fd, offset, length);
        let seen = session::known(session.addr()).map_or(0, sent).saturating_sub(before);
        if result > 0 && seen < result as u64 {
            let call = enter(session.addr(), Channel::GnuTls, Does::Writes, stack_pointer());
            call.wrote_unseen(result - seen as ssize_t, Reason::KernelCopy);
            call.leave();
        }
        result
    }

    // Sends what was given to gnutls_record_send before, and calls that.
    68 real(caller) gnutls_record_uncork(session: *mut GnuSession, flags: c_uint) -> c_int {
        around(session, caller, stack_pointer(), false, || real(session, flags))
    }

    69 real(caller) gnutls_record_recv(session: *mut GnuSession, buffer: *mut c_void, length: size_t) -> ssize_t {
        let frame = stack_pointer();
        receive(session, caller, Into::new(buffer, length), length, frame, || real(session, buffer, length))
    }

    70 real(caller) gnutls_record_recv_seq(session: *mut GnuSession, buffer: *mut c_void, length: size_t, sequence: *mut u8) -> ssize_t {
        let frame = stack_pointer();
        let into = Into::new(buffer, length);
        receive(session, caller, into, length, frame, || real(session, buffer, length, sequence))
    }

    71 real(caller) gnutls_record_recv_packet(session: *mut GnuSession, packet: *mut *mut c_void) -> ssize_t {
        let frame = stack_pointer();
        let call = enter(session.addr(), Channel::GnuTls, Does::Reads, frame);
        let result = real(session, packet);
        let mut data = Datum::EMPTY;
        if result > 0 && call.object.is_some() && !packet.is_null() {
            keeping_errno(|| gnutls::packet_get(caller, *packet, &raw mut data, gnutls::NOTHING));
        }
        call.read(count(result).min(data.size as usize), data.bytes());
        received(&call, 1, result);
        gnutls::after(&call, caller, session, result > 0, result);
        call.leave();
        result
    }

    72 real(_caller) gnutls_record_send_early_data(session: *mut GnuSession, buffer: *const c_void, length: size_t) -> ssize_t {
        let result = real(session, buffer, length);
        if result >= 0 { early(session, OUT); }
        result
    }

    73 real(_caller) gnutls_record_recv_early_data(session: *mut GnuSession, buffer: *mut c_void, length: size_t) -> ssize_t {
        let result = real(session, buffer, length);
        if result > 0 { early(session, IN); }
        result
    }
}
