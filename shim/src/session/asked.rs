//! What is asked of a session after a call: its flow id, what became of early data, a record that was refused.

use super::Session;
use crate::lanes;
use crate::objects::Object;
use crate::openssl::{self, OpenSsl, Ssl};
use crate::shield::{keeping_errno, shielded};
use crate::thread::Guard;
use bytemuck::Zeroable;
use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::Ordering;
use counterfoil_abi::record::{
    CLIENT, Flow, IN_EOF, Kind, NO_CIPHER_WITNESS, NOTIFY_SEEN, NOTIFY_SENT, Reason, Rejected,
    SESSION_RESUMED, Tap,
};

/// What is asked of an OpenSSL session after each call, until its flow id is told; and of a call
/// that failed after that.
#[inline]
pub fn after(session: &Session, caller: *const c_void, ssl: *mut Ssl, result: c_int) {
    let Some(object) = session.object else { return };
    if object.tls.flow_told.load(Ordering::Relaxed) == 0 || result <= 0 {
        ask(object, caller, ssl, result);
    }
}

#[cold]
#[inline(never)]
fn ask(object: &Object, caller: *const c_void, ssl: *mut Ssl, result: c_int) {
    keeping_errno(|| {
        shielded((), || {
            let Some(library) = openssl::of(caller) else { return };
            if object.tls.flow_told.load(Ordering::Relaxed) == 0 {
                tell_flow(object, library, ssl);
            } else {
                tell_rejected(object, library, ssl, result);
            }
        });
    });
}

/// DESIGN, "The TLS exporter gives the flow id".
pub const LABEL: &CStr = c"EXPERIMENTAL counterfoil 1";

#[cold]
fn tell_flow(object: &Object, library: &OpenSsl, ssl: *mut Ssl) {
    let (Some(finished), Some(export), Some(version)) =
        (library.is_init_finished, library.export, library.version)
    else {
        return;
    };
    // SAFETY: the program's own session, in the thread that uses it, between its calls.
    unsafe {
        if finished(ssl) == 0 {
            return;
        }
        let Some(guard) = Guard::enter() else { return };
        // What these leave in the error queue must not be seen by the program.
        if let Some(mark) = library.set_mark {
            mark();
        }
        let mut flow: Flow = Zeroable::zeroed();
        let exported = export(
            ssl,
            flow.flow.as_mut_ptr(),
            flow.flow.len(),
            LABEL.as_ptr(),
            LABEL.to_bytes().len(),
            core::ptr::null(),
            0,
            0,
        );
        if exported == 1 {
            object.tls.flow_told.store(1, Ordering::Relaxed);
            flow.header = lanes::header(Kind::Flow, 2, 0, object.number());
            flow.version = version(ssl) as u16;
            object.tls.version.store(u32::from(flow.version), Ordering::Relaxed);
            flow.carrier = object.tls.carrier.load(Ordering::Relaxed);
            if library.is_server.is_some_and(|f| f(ssl) == 0) {
                flow.header.flags |= CLIENT;
            }
            if library.session_reused.is_some_and(|f| f(ssl) == 1) {
                flow.header.flags |= SESSION_RESUMED;
            }
            if object.tls.witness_off.load(Ordering::Relaxed) != 0 {
                flow.header.flags |= NO_CIPHER_WITNESS;
            }
            let mut random = [0u8; 32];
            if library
                .client_random
                .is_some_and(|f| f(ssl, random.as_mut_ptr(), random.len()) == random.len())
            {
                flow.hello = crate::mac::hello_tag(&random);
            }
            if let (Some(cipher), Some(id)) = (library.current_cipher, library.cipher_id) {
                let cipher = cipher(ssl);
                flow.cipher = if cipher.is_null() { 0 } else { id(cipher) as u16 };
            }
            if let Some(name) = library.server_name.map(|f| f(ssl, 0)).filter(|name| !name.is_null()) {
                let name = CStr::from_ptr(name).to_bytes();
                let length = name.len().min(flow.name.len());
                flow.name[..length].copy_from_slice(&name[..length]);
                flow.name_len = length as u32;
            }
            lanes::push_record(&guard, &flow);
            if is_datagrams(version(ssl)) {
                // They may be lost or change places: offsets say nothing.
                object.tls.witness_off.store(1, Ordering::Relaxed);
                object.out.doubt_from(&guard, object.number(), Tap::TlsWrite, 0, Reason::Datagram);
                object.into.doubt_from(&guard, object.number(), Tap::TlsRead, 0, Reason::Datagram);
            }
            if flow.header.flags & CLIENT != 0 {
                settle_early(&guard, object, library, ssl);
            }
        }
        if let Some(pop) = library.pop_to_mark {
            pop();
        }
    }
}

/// DTLS1_VERSION, DTLS1_2_VERSION, and DTLS1_BAD_VER of Cisco's (openssl/prov_ssl.h).
fn is_datagrams(version: c_int) -> bool {
    version >> 8 == 0xfe || version == 0x0100
}

/// SSL_EARLY_DATA_REJECTED (openssl/ssl.h).
const EARLY_REJECTED: c_int = 1;

/// 0-RTT bytes that the server refused never were part of the stream: the program sends them again.
unsafe fn settle_early(guard: &Guard, object: &Object, library: &OpenSsl, ssl: *mut Ssl) {
    let early = object.tls.early.load(Ordering::Relaxed);
    // SAFETY: as in `tell_flow`.
    if early == 0 || library.early_status.is_none_or(|f| unsafe { f(ssl) } != EARLY_REJECTED) {
        return;
    }
    if object.out.offset() == early && object.out.is_untold() && object.seal.is_untold() {
        object.out.restart();
        object.seal.restart();
    } else {
        object.out.doubt_from(guard, object.number(), Tap::TlsWrite, 0, Reason::BypassedBytes);
        object.tls.witness_off.store(2, Ordering::Relaxed);
    }
}

/// SSL_ERROR_SSL (openssl/ssl.h).
const ERROR_SSL: c_int = 1;
/// SSL_ERROR_ZERO_RETURN: close_notify came.
const ERROR_ZERO_RETURN: c_int = 6;

/// Reason codes (openssl/sslerr.h) by which libssl refuses a record, or says that the peer's alert
/// did. True: the peer.
const REFUSALS: &[(u32, bool, &str)] = &[
    (281, false, "bad-record-mac"),
    (147, false, "decryption-failed"),
    (443, false, "bad-record-type"),
    (244, false, "unexpected-message"),
    (245, false, "unexpected-record"),
    (267, false, "wrong-version-number"),
    (146, false, "data-length-too-long"),
    (150, false, "encrypted-length-too-long"),
    (198, false, "packet-length-too-long"),
    (271, false, "bad-length"),
    (159, false, "length-mismatch"),
    (129, false, "block-cipher-pad-is-wrong"),
    (1020, true, "bad-record-mac"),
    (1021, true, "decryption-failed"),
    (1022, true, "record-overflow"),
    (1050, true, "decode-error"),
    (1051, true, "decrypt-error"),
    (1010, true, "unexpected-message"),
];

#[cold]
fn tell_rejected(object: &Object, library: &OpenSsl, ssl: *mut Ssl, result: c_int) {
    let (Some(error), Some(peek)) = (library.error, library.peek_last_error) else { return };
    // SAFETY: reads the session's state and this thread's error queue, right after the call.
    let (error, packed) = unsafe { (error(ssl, result), peek()) };
    if error == ERROR_ZERO_RETURN {
        object.flag(IN_EOF | NOTIFY_SEEN);
    }
    if error != ERROR_SSL {
        return;
    }
    // ERR_GET_LIB and ERR_GET_REASON of OpenSSL 3 (openssl/err.h); 1.1 has 12 bits of reason, of
    // which the mask keeps the same ones. ERR_LIB_SSL is 20.
    let (from, reason) =
        if packed >> 24 == 20 { (20, packed & 0xfff) } else { ((packed >> 23) & 0xff, packed & 0x7f_ffff) };
    let Some(&(code, by_peer, text)) = REFUSALS.iter().find(|r| from == 20 && u64::from(r.0) == reason)
    else {
        return;
    };
    if object.tls.rejected_told.swap(1, Ordering::Relaxed) != 0 {
        return;
    }
    rejected(object, code, by_peer, text);
}

/// Tells that a record was refused.
pub fn rejected(object: &Object, code: u32, by_peer: bool, text: &str) {
    let Some(guard) = Guard::enter() else { return };
    let (stream, tap) = if by_peer { (&object.out, Tap::TlsWrite) } else { (&object.into, Tap::TlsRead) };
    let mut record = Rejected {
        header: lanes::header(Kind::Rejected, 1, tap as u8, object.number()),
        code,
        side: if by_peer { 2 } else { 1 },
        offset: stream.offset(),
        text: [0; 32],
    };
    let length = text.len().min(record.text.len());
    record.text[..length].copy_from_slice(&text.as_bytes()[..length]);
    lanes::push_record(&guard, &record);
}

/// `Ended`'s flags for SSL_get_shutdown's answer: bit 0 we sent close_notify, bit 1 the peer did.
pub fn shutdown_flags(state: c_int) -> u8 {
    (if state & 1 != 0 { NOTIFY_SENT } else { 0 }) | (if state & 2 != 0 { NOTIFY_SEEN | IN_EOF } else { 0 })
}
