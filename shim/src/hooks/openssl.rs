//! OpenSSL's sessions: plaintext in and out, handshakes, ends.

use super::made::recording;
use super::pieces::{Into, bytes};
use crate::library::library_hooks;
use crate::openssl::{self, Bio, Ssl};
use crate::process;
use crate::session::{self, Does, after, enter, shutdown_flags};
use crate::sessions;
use crate::shield::keeping_errno;
use crate::stream::Offer;
use crate::thread::{self, stack_pointer};
use core::ffi::{c_int, c_long, c_void};
use core::sync::atomic::{AtomicBool, Ordering};
use counterfoil_abi::record::{Channel, Reason};
use libc::{off_t, size_t, ssize_t};

/// Accepted bytes of a call that returns a length.
fn count(result: c_int) -> usize {
    usize::try_from(result).unwrap_or(0)
}

/// Bytes of a call that returns 1 and a length, or not 1.
unsafe fn count_at(result: c_int, length: *const size_t) -> usize {
    // SAFETY: the call has succeeded, so it has written the length.
    if result > 0 && !length.is_null() { unsafe { *length } } else { 0 }
}

#[inline(always)]
fn around<R>(
    ssl: *mut Ssl,
    caller: *const c_void,
    real: impl FnOnce() -> R,
    result: impl FnOnce(&R) -> c_int,
) -> R {
    let frame = stack_pointer();
    let call = enter(ssl.addr(), Channel::Tls, Does::Nothing, frame);
    let out = real();
    after(&call, caller, ssl, result(&out));
    call.leave();
    out
}

/// A BIO call inside a TLS call is the library's own way to its socket, unless it leads into another session.
#[inline(always)]
fn is_on_its_way(frame: usize, bio: *mut Bio, caller: *const c_void) -> bool {
    thread::current().inside.covers(frame)
        && (!SESSIONS_BENEATH.load(Ordering::Relaxed) || session_of(bio, caller).is_null())
}

/// This program has asked for BIOs that lead to sessions.
static SESSIONS_BENEATH: AtomicBool = AtomicBool::new(false);

/// Which of two ways a BIO call is to be watched.
fn session_of(bio: *mut Bio, caller: *const c_void) -> *mut Ssl {
    /// BIO_TYPE_SSL and BIO_C_GET_SSL (openssl/bio.h).
    const TYPE_SSL: c_int = 7 | 0x0200;
    const GET_SSL: c_int = 110;
    if bio.is_null() || !process::active() {
        return core::ptr::null_mut();
    }
    let Some(library) = openssl::of(caller) else { return core::ptr::null_mut() };
    let (Some(kind), Some(control)) = (library.bio_type, library.bio_control) else {
        return core::ptr::null_mut();
    };
    let mut ssl: *mut Ssl = core::ptr::null_mut();
    // SAFETY: the program's own BIO, in the thread that uses it.
    unsafe {
        if kind(bio) == TYPE_SSL && control(bio, GET_SSL, 0 as c_long, (&raw mut ssl).cast()) <= 0 {
            ssl = core::ptr::null_mut();
        }
    }
    ssl
}

/// Around a call that takes plaintext, the first so many bytes of `data` of it, as `accepted` says of its result.
#[inline(always)]
fn writing(
    ssl: *mut Ssl,
    caller: *const c_void,
    frame: usize,
    data: &[u8],
    real: impl FnOnce() -> c_int,
    accepted: impl FnOnce(c_int) -> usize,
) -> c_int {
    let mut call = enter(ssl.addr(), Channel::Tls, Does::Writes, frame);
    let mut offer = Offer::new();
    let rest = call.offer(data, &mut offer);
    let result = real();
    call.wrote(accepted(result), rest, &mut offer);
    after(&call, caller, ssl, result);
    call.leave();
    result
}

/// Around a call that hands plaintext out into `data`, as many bytes as `got` says of its result.
#[inline(always)]
fn reading(
    ssl: *mut Ssl,
    caller: *const c_void,
    frame: usize,
    data: &Into,
    real: impl FnOnce() -> c_int,
    got: impl FnOnce(c_int) -> usize,
) -> c_int {
    let call = enter(ssl.addr(), Channel::Tls, Does::Reads, frame);
    let result = real();
    call.read(got(result), data);
    after(&call, caller, ssl, result);
    call.leave();
    result
}

/// A BIO call that isn't inside a TLS call: it may be one, on the session that its BIO leads to. `f` is the call around
/// `real` then. Apart, so that the others need no stack.
#[inline(never)]
fn through(
    bio: *mut Bio,
    caller: *const c_void,
    real: impl FnOnce() -> c_int,
    f: impl FnOnce(*mut Ssl) -> c_int,
) -> c_int {
    let ssl = session_of(bio, caller);
    if ssl.is_null() { real() } else { f(ssl) }
}

library_hooks! {
    1 real(caller) SSL_write(ssl: *mut Ssl, buffer: *const c_void, length: c_int) -> c_int {
        writing(ssl, caller, stack_pointer(), bytes(buffer, count(length)), || real(ssl, buffer, length), count)
    }

    2 real(caller) SSL_write_ex(ssl: *mut Ssl, buffer: *const c_void, length: size_t, written: *mut size_t) -> c_int {
        writing(ssl, caller, stack_pointer(), bytes(buffer, length), || real(ssl, buffer, length, written), |result| count_at(result, written))
    }

    3 real(caller) SSL_read(ssl: *mut Ssl, buffer: *mut c_void, length: c_int) -> c_int {
        reading(ssl, caller, stack_pointer(), &Into::new(buffer, count(length)), || real(ssl, buffer, length), count)
    }

    4 real(caller) SSL_read_ex(ssl: *mut Ssl, buffer: *mut c_void, length: size_t, got: *mut size_t) -> c_int {
        reading(ssl, caller, stack_pointer(), &Into::new(buffer, length), || real(ssl, buffer, length, got), |result| count_at(result, got))
    }

    5 real(caller) SSL_peek(ssl: *mut Ssl, buffer: *mut c_void, length: c_int) -> c_int {
        let frame = stack_pointer();
        let call = enter(ssl.addr(), Channel::Tls, Does::Peeks, frame);
        let result = real(ssl, buffer, length);
        after(&call, caller, ssl, result);
        call.leave();
        result
    }

    6 real(caller) SSL_peek_ex(ssl: *mut Ssl, buffer: *mut c_void, length: size_t, got: *mut size_t) -> c_int {
        let frame = stack_pointer();
        let call = enter(ssl.addr(), Channel::Tls, Does::Peeks, frame);
        let result = real(ssl, buffer, length, got);
        after(&call, caller, ssl, result);
        call.leave();
        result
    }

    // The kernel reads the file and encrypts: no program shows the bytes.
    7 real(caller) SSL_sendfile(ssl: *mut Ssl, fd: c_int, offset: off_t, length: size_t, flags: c_int) -> ssize_t {
        let frame = stack_pointer();
        let call = enter(ssl.addr(), Channel::Tls, Does::Writes, frame);
        let result = real(ssl, fd, offset, length, flags);
        call.wrote_unseen(result, Reason::KernelCopy);
        after(&call, caller, ssl, result.clamp(-1, 1) as c_int);
        call.leave();
        result
    }

    8 real(caller) SSL_write_early_data(ssl: *mut Ssl, buffer: *const c_void, length: size_t, written: *mut size_t) -> c_int {
        let frame = stack_pointer();
        let mut call = enter(ssl.addr(), Channel::Tls, Does::Writes, frame);
        let mut offer = Offer::new();
        let rest = call.offer(bytes(buffer, length), &mut offer);
        let result = real(ssl, buffer, length, written);
        let accepted = count_at(result, written);
        if let Some(object) = call.object {
            object.tls.early.fetch_add(accepted as u64, Ordering::Relaxed);
        }
        call.wrote(accepted, rest, &mut offer);
        after(&call, caller, ssl, result);
        call.leave();
        result
    }

    9 real(caller) SSL_read_early_data(ssl: *mut Ssl, buffer: *mut c_void, length: size_t, got: *mut size_t) -> c_int {
        // SSL_READ_EARLY_DATA_SUCCESS is 1; FINISH (2) hands out nothing.
        let success = |result| if result == 1 { count_at(result, got) } else { 0 };
        reading(ssl, caller, stack_pointer(), &Into::new(buffer, length), || real(ssl, buffer, length, got), success)
    }

    10 real(caller) SSL_connect(ssl: *mut Ssl) -> c_int {
        around(ssl, caller, || real(ssl), |r| *r)
    }

    11 real(caller) SSL_accept(ssl: *mut Ssl) -> c_int {
        around(ssl, caller, || real(ssl), |r| *r)
    }

    12 real(caller) SSL_do_handshake(ssl: *mut Ssl) -> c_int {
        around(ssl, caller, || real(ssl), |r| *r)
    }

    13 real(caller) SSL_shutdown(ssl: *mut Ssl) -> c_int {
        let result = around(ssl, caller, || real(ssl), |r| *r);
        if let Some(object) = session::known(ssl.addr()) {
            // The writer's last word: the other end may compare already.
            recording(|guard| object.tell(guard, false));
        }
        result
    }

    14 real(_caller) SSL_new(context: *mut c_void) -> *mut Ssl {
        let ssl = real(context);
        session::made(ssl.addr(), Channel::Tls);
        ssl
    }

    15 real(caller) SSL_free(ssl: *mut Ssl) -> c_int {
        end(ssl, caller);
        real(ssl)
    }

    16 real(caller) SSL_clear(ssl: *mut Ssl) -> c_int {
        // libssl clears a session itself, as it makes it and as its handshake begins.
        if let Some(object) = session::known(ssl.addr()).filter(|object| !session::inside(object)) {
            session::restarts(ssl.addr(), object, true, shutdown_state(ssl, caller));
        }
        real(ssl)
    }

    17 real(_caller) SSL_up_ref(ssl: *mut Ssl) -> c_int {
        let result = real(ssl);
        if let Some(object) = session::known(ssl.addr()) {
            object.tls.held.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    22 real(caller) SSL_set_connect_state(ssl: *mut Ssl) -> () {
        begins(ssl, caller);
        real(ssl)
    }

    23 real(caller) SSL_set_accept_state(ssl: *mut Ssl) -> () {
        begins(ssl, caller);
        real(ssl)
    }

    24 real(_caller) BIO_f_ssl() -> *const c_void {
        SESSIONS_BENEATH.store(true, Ordering::Relaxed);
        real()
    }

    // Programs that drive libssl through an SSL BIO (openssl s_server -WWW).
    18 real(caller) BIO_write(bio: *mut Bio, buffer: *const c_void, length: c_int) -> c_int {
        let frame = stack_pointer();
        if is_on_its_way(frame, bio, caller) {
            return real(bio, buffer, length);
        }
        through(bio, caller, move || real(bio, buffer, length), move |ssl| writing(ssl, caller, frame, bytes(buffer, count(length)), || real(bio, buffer, length), count))
    }

    19 real(caller) BIO_write_ex(bio: *mut Bio, buffer: *const c_void, length: size_t, written: *mut size_t) -> c_int {
        let frame = stack_pointer();
        if is_on_its_way(frame, bio, caller) {
            return real(bio, buffer, length, written);
        }
        through(bio, caller, move || real(bio, buffer, length, written), move |ssl| writing(ssl, caller, frame, bytes(buffer, length), || real(bio, buffer, length, written), |result| count_at(result, written)))
    }

    20 real(caller) BIO_read(bio: *mut Bio, buffer: *mut c_void, length: c_int) -> c_int {
        let frame = stack_pointer();
        if is_on_its_way(frame, bio, caller) {
            return real(bio, buffer, length);
        }
        through(bio, caller, move || real(bio, buffer, length), move |ssl| reading(ssl, caller, frame, &Into::new(buffer, count(length)), || real(bio, buffer, length), count))
    }

    21 real(caller) BIO_read_ex(bio: *mut Bio, buffer: *mut c_void, length: size_t, got: *mut size_t) -> c_int {
        let frame = stack_pointer();
        if is_on_its_way(frame, bio, caller) {
            return real(bio, buffer, length, got);
        }
        through(bio, caller, move || real(bio, buffer, length, got), move |ssl| reading(ssl, caller, frame, &Into::new(buffer, length), || real(bio, buffer, length, got), |result| count_at(result, got)))
    }
}

/// Before a session is freed or cleared: what dies in the call is recorded before it.
fn end(ssl: *mut Ssl, caller: *const c_void) {
    if ssl.is_null() || !process::active() || sessions::find(ssl.addr()).is_none() {
        return;
    }
    session::freed(ssl.addr(), shutdown_state(ssl, caller));
}

/// `Ended`'s flags, as far as the session knows.
fn shutdown_state(ssl: *mut Ssl, caller: *const c_void) -> u8 {
    let state = openssl::of(caller).and_then(|library| library.shutdown_state);
    // SAFETY: the program's own session, still alive.
    state.map_or(0, |f| shutdown_flags(keeping_errno(|| unsafe { f(ssl) })))
}

/// Before a handshake is to begin anew, of a session that may have had one: with another peer where what the first one had is
/// over.
fn begins(ssl: *mut Ssl, caller: *const c_void) {
    if let Some(object) = session::known(ssl.addr()).filter(|object| !session::inside(object))
        && object.tls.flow_told.load(Ordering::Relaxed) != 0
    {
        let flags = shutdown_state(ssl, caller);
        session::restarts(ssl.addr(), object, flags != 0 || crate::tls::has_lost_its_socket(object), flags);
    }
}
