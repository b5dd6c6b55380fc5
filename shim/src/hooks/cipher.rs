//! The cipher witness: plaintext as libssl hands it to libcrypto, inside a hooked call on a session.
//!
//! Outside such calls nothing is looked at: session tickets, host keys and everything else that a
//! program encrypts pass here too.

use super::pieces::bytes;
use crate::library::library_hooks;
use crate::objects::Object;
use crate::openssl::{self, CipherContext};
use crate::process;
use crate::shield::shielded;
use crate::ssh;
use crate::stream::Stream;
use crate::thread::{self, Guard, Head, Phase, stack_pointer};
use crate::witness::{self, Framing};
use core::ffi::{c_int, c_uchar, c_uint, c_void};
use core::sync::atomic::Ordering;
use counterfoil_abi::record::{Reason, Tap};

/// A cipher call inside a session's call.
#[derive(Clone, Copy)]
struct Watch {
    object: Option<&'static Object>,
    seals: bool,
    /// Only a handshake: what it shows of the cipher's framing.
    learns: bool,
    framing: Framing,
    head: Head,
}

impl Watch {
    const NONE: Self = Self {
        object: None,
        seals: false,
        learns: false,
        framing: Framing::None,
        head: Head { kind: 0, behind: 0, length: 0 },
    };
}

/// The call is nobody's business: it is outside of a session's, or what a call that is looked at makes of itself
/// (those nest through the PLT), or brings a record's header, which has no place for a result.
#[inline(always)]
fn indifferent(out: *const c_uchar) -> bool {
    if out.is_null() || !process::active() {
        return true;
    }
    let inside = &thread::current().inside;
    !inside.is_marked() || inside.in_cipher.get()
}

/// Before the call.
#[inline(always)]
fn watch(context: *const CipherContext, out: *const c_uchar, caller: *const c_void) -> Watch {
    if out.is_null() || !process::active() {
        return Watch::NONE;
    }
    let thread = thread::current();
    let Some(inside) = thread::inside(thread) else {
        // Another stack's, which may be inside of a call of its own.
        thread.inside.mixed.set(true);
        return Watch::NONE;
    };
    if inside.in_cipher || !process::watched() {
        return Watch::NONE;
    }
    let Some(object) = inside.session() else { return Watch::NONE };
    // Of this record; the next one is told of anew.
    let head = thread.inside.head.take();
    if inside.phase == Phase::Other {
        return Watch { object: Some(object), learns: true, head, ..Watch::NONE };
    }
    if object.tls.witness_off.load(Ordering::Relaxed) != 0 {
        return Watch::NONE;
    }
    let seals = inside.phase == Phase::Write;
    let library = openssl::of(caller);
    let framing = witness::framing(object, context, seals, inside.session, library);
    if framing == Framing::None {
        return Watch::NONE;
    }
    let shaken = seals || framing != Framing::Tls13 || object.tls.flow_told.load(Ordering::Relaxed) != 0;
    if !shaken && !witness::data_may_come(inside.session, library) {
        return Watch::NONE;
    }
    thread.inside.in_cipher.set(true);
    Watch { object: Some(object), seals, learns: false, framing, head }
}

/// The record's plaintext, before it is sealed in place.
#[inline(always)]
fn sealing(watch: Watch, input: *const c_uchar, length: usize) {
    if let (Some(object), true, false) = (watch.object, watch.learns, input.is_null()) {
        // SAFETY: the call's own input.
        return witness::learn_cbc(object, watch.head, unsafe { bytes(input.cast(), length) });
    }
    if let (Some(object), true) = (watch.object, watch.seals) {
        // SAFETY: the call's own input.
        let content = unsafe {
            witness::sealed_content(
                watch.framing,
                watch.head,
                object.tls.cbc_mac.load(Ordering::Relaxed),
                bytes(input.cast(), length),
            )
        };
        take(object, &object.seal, Tap::CipherSeal, content);
    }
}

/// The record's plaintext, after it was opened.
#[inline(always)]
fn opened(watch: Watch, out: *const c_uchar, length: usize) {
    let Some(object) = watch.object.filter(|_| !watch.learns) else { return };
    thread::current().inside.in_cipher.set(false);
    if !watch.seals && length > 0 {
        // SAFETY: the call has succeeded and written `length` bytes of content behind the framing.
        let content = unsafe { witness::opened_content(watch.framing, watch.head.kind, out, length) };
        if watch.framing == Framing::Cbc && witness::may_be_no_data(content) {
            object.tls.witness_off.store(2, Ordering::Relaxed);
            if let Some(guard) = Guard::enter() {
                object.open.doubt(&guard, object.number(), Tap::CipherOpen, Reason::UnsupportedCipher);
            }
            return;
        }
        take(object, &object.open, Tap::CipherOpen, content);
    }
}

fn take(object: &'static Object, stream: &'static Stream, tap: Tap, content: &[u8]) {
    if content.is_empty() {
        return;
    }
    shielded((), || {
        let Some(guard) = Guard::enter() else { return stream.miss() };
        if stream.claim(&guard, object.number(), tap) {
            stream.tagged(&guard, object.number(), tap, content, content.len() as u64);
            stream.release();
        }
    });
}

/// EVP_CTRL_TLS1_1_MULTIBLOCK_PARAM (openssl/evp.h).
#[repr(C)]
struct Multiblock {
    out: *mut c_uchar,
    input: *const c_uchar,
    length: usize,
    interleave: c_uint,
}

/// Content that is about to be sealed as several records, with nothing around it.
///
/// # Safety
/// The caller's own input.
#[cold]
unsafe fn several(context: *const CipherContext, records: &Multiblock) {
    if records.input.is_null() || !process::watched() {
        return;
    }
    let Some(inside) = thread::inside(thread::current()).filter(|inside| inside.phase == Phase::Write) else {
        return;
    };
    let Some(object) = inside.session().filter(|object| witness::follows_several(object, context)) else {
        return;
    };
    // SAFETY: contract.
    take(object, &object.seal, Tap::CipherSeal, unsafe { bytes(records.input.cast(), records.length) });
}

fn length(result: c_int, length: *const c_int) -> usize {
    if result <= 0 || length.is_null() {
        return 0;
    }
    // SAFETY: the call has succeeded, so it has written the length.
    usize::try_from(unsafe { *length }).unwrap_or(0)
}

type Update =
    unsafe extern "C-unwind" fn(*mut CipherContext, *mut c_uchar, *mut c_int, *const c_uchar, c_int) -> c_int;

/// Apart, and one for all: a call that is nobody's business is passed on with its arguments where they came in.
///
/// # Safety
/// EVP_CipherUpdate's contract.
#[inline(never)]
unsafe extern "C-unwind" fn recorded(
    context: *mut CipherContext,
    out: *mut c_uchar,
    out_length: *mut c_int,
    input: *const c_uchar,
    input_length: c_int,
    caller: *const c_void,
    real: Update,
) -> c_int {
    let call = watch(context, out, caller);
    sealing(call, input, usize::try_from(input_length).unwrap_or(0));
    // SAFETY: our caller's contract.
    let result = unsafe { real(context, out, out_length, input, input_length) };
    opened(call, out, length(result, out_length));
    result
}

library_hooks! {
    30 real(caller) EVP_CipherUpdate(context: *mut CipherContext, out: *mut c_uchar, out_length: *mut c_int, input: *const c_uchar, input_length: c_int) -> c_int {
        if indifferent(out) { real(context, out, out_length, input, input_length) } else { recorded(context, out, out_length, input, input_length, caller, real) }
    }

    31 real(caller) EVP_EncryptUpdate(context: *mut CipherContext, out: *mut c_uchar, out_length: *mut c_int, input: *const c_uchar, input_length: c_int) -> c_int {
        if indifferent(out) { real(context, out, out_length, input, input_length) } else { recorded(context, out, out_length, input, input_length, caller, real) }
    }

    32 real(caller) EVP_DecryptUpdate(context: *mut CipherContext, out: *mut c_uchar, out_length: *mut c_int, input: *const c_uchar, input_length: c_int) -> c_int {
        if indifferent(out) { real(context, out, out_length, input, input_length) } else { recorded(context, out, out_length, input, input_length, caller, real) }
    }

    33 real(caller) EVP_Cipher(context: *mut CipherContext, out: *mut c_uchar, input: *const c_uchar, input_length: c_uint) -> c_int {
        let call = watch(context, out, caller);
        sealing(call, input, input_length as usize);
        let packet = ssh::before(out, input, input_length as usize, || openssl::encrypts(context, caller));
        let result = real(context, out, input, input_length);
        ssh::after(packet, result);
        // AEAD: the content's length; else 1.
        let length = if result == 1 && call.framing != Framing::Tls13 { input_length as usize } else { usize::try_from(result).unwrap_or(0) };
        opened(call, out, length);
        result
    }

    34 real(_caller) EVP_CIPHER_CTX_ctrl(context: *mut CipherContext, command: c_int, number: c_int, pointer: *mut c_void) -> c_int {
        /// EVP_CTRL_AEAD_TLS1_AAD and EVP_AEAD_TLS1_AAD_LEN (openssl/evp.h): sequence 8, type 1,
        /// version 2, length 2.
        const AAD: (c_int, c_int) = (0x16, 13);
        /// EVP_CTRL_TLS1_1_MULTIBLOCK_ENCRYPT: several records of a long write, in one go.
        const MULTIBLOCK: (c_int, c_int) = (0x1a, size_of::<Multiblock>() as c_int);
        let inside = &thread::current().inside;
        let watched = !pointer.is_null() && process::active() && inside.covers(stack_pointer());
        // It is written over.
        let aad: [u8; 13] = if watched && (command, number) == AAD { *pointer.cast() } else { [0; 13] };
        if watched && (command, number) == MULTIBLOCK {
            several(context, &*pointer.cast::<Multiblock>());
        }
        let result = real(context, command, number, pointer);
        if watched && (command, number) == AAD {
            let behind = u8::try_from(result).unwrap_or(u8::MAX);
            inside.head.set(Head { kind: aad[8], behind, length: u16::from_be_bytes([aad[11], aad[12]]) });
        }
        result
    }
}
