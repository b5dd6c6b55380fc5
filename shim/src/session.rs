//! Around a call into a TLS library: who is inside of what, what the session's plaintext streams
//! take in, and what is asked of the session afterwards (flow id, refused records).

use crate::lanes;
use crate::objects::{self, Object};
use crate::openssl::{self, OpenSsl, Ssl};
use crate::process;
use crate::record::{self, Call};
use crate::sessions;
use crate::shield::{keeping_errno, shielded};
use crate::stream::{Offer, Pieces};
use crate::thread::{self, Guard, Head, Inside, Phase};
use bytemuck::Zeroable;
use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::Ordering;
use counterfoil_abi::record::{
    ATTACHED_LATE, CLIENT, Channel, Flow, How, IN_EOF, Kind, NO_CIPHER_WITNESS, NOTIFY_SEEN, NOTIFY_SENT,
    Opened, Reason, Rejected, SESSION_RESUMED, Tap,
};

/// A call into a TLS library, in progress.
#[derive(Clone, Copy)]
pub struct Session {
    /// The session's object.
    pub object: Option<&'static Object>,
    call: Call,
    /// What this thread was inside of before (TLS in TLS); put back afterwards.
    outer: Option<Inside>,
}

impl Session {
    /// Not recorded.
    pub const PASS: Self = Self { object: None, call: Call::PASS, outer: None };
}

/// What a call does with plaintext.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Handshake, shutdown: none.
    Nothing,
    /// Takes it from the program.
    Writes,
    /// Hands it to the program.
    Reads,
    /// Shows it without handing it over.
    Peeks,
}

/// Before a call on `session`. `frame` lies in the hook's own stack frame.
#[inline]
pub fn enter(session: usize, channel: Channel, does: Does, frame: usize) -> Session {
    if !process::active() {
        return Session::PASS;
    }
    let mut call = Session::PASS;
    let whole = shielded(false, || {
        begin_call(&mut call, session, channel, does, frame);
        true
    });
    if whole { call } else { Session::PASS }
}

#[inline]
fn begin_call(call: &mut Session, session: usize, channel: Channel, does: Does, frame: usize) {
    if process::maybe_vfork_child() {
        return;
    }
    let Some(guard) = Guard::enter() else {
        if let Some(object) = sessions::find(session) {
            object.miss();
        }
        return;
    };
    let Some(object) = sessions::find(session).or_else(|| begin(&guard, session, channel, true)) else {
        return;
    };
    let here = &guard.thread.inside;
    let (mut outer, mut mixed) = (None, false);
    if here.is_marked() {
        outer = thread::around(guard.thread, frame + 1);
        if let Some(outer) = outer
            && core::ptr::eq(outer.session().unwrap_or(object), object)
            && outer.number == object.number()
        {
            // The library calls its own functions through the PLT: the outermost one counts.
            return;
        }
        mixed = mixes(&guard, object, outer.is_none());
    }
    let phase = match does {
        Does::Nothing => Phase::Other,
        Does::Writes => {
            call.call = Call::begin(&guard, object, objects::OUT);
            Phase::Write
        }
        Does::Reads => {
            call.call = Call::begin(&guard, object, objects::IN);
            Phase::Read
        }
        Does::Peeks => Phase::Read,
    };
    here.set(Inside {
        frame,
        session,
        number: object.number(),
        slot: objects::slot_of(object),
        phase,
        in_cipher: false,
        head: Head::default(),
        mixed,
    });
    call.object = Some(object);
    call.outer = outer;
}

/// The session's object, while the library records.
pub fn known(session: usize) -> Option<&'static Object> {
    if process::active() { sessions::find(session) } else { None }
}

/// This thread is inside a call on that very session.
pub fn inside(object: &Object) -> bool {
    thread::inside(thread::current()).is_some_and(|inside| inside.number == object.number())
}

/// A new session, told to the daemon. `late`: it was in use before we saw it.
pub fn begin(guard: &Guard, session: usize, channel: Channel, late: bool) -> Option<&'static Object> {
    let name = objects::make(channel)?;
    let object = objects::get(name)?;
    if !sessions::insert(session, name) {
        object.discard();
        process::arena().no_object.fetch_add(1, Ordering::Relaxed);
        return None;
    }
    if late {
        object.opened.store(ATTACHED_LATE, Ordering::Relaxed);
    }
    let mut record = Opened {
        header: lanes::header(Kind::Opened, 4, 0, object.number()),
        channel: channel as u8,
        fd: -1,
        ..Zeroable::zeroed()
    };
    record.header.flags = object.opened.load(Ordering::Relaxed);
    lanes::push_record(guard, &record);
    Some(object)
}

/// The session is made anew: whatever had this address before is gone.
pub fn made(session: usize, channel: Channel) {
    if session == 0 {
        return;
    }
    let recorded = crate::hooks::made::recording(|guard| {
        if let Some(old) = sessions::remove(session) {
            old.drop_ref(guard, How::Freed, crate::kernel::Counts::UNKNOWN);
        }
        begin(guard, session, channel, false);
    });
    if !recorded && let Some(old) = known(session) {
        old.miss();
    }
}

/// The session is about to be used for another connection, or, unless it `ended`, perhaps for one: who has said all that it does
/// with one that is open renegotiates.
pub fn restarts(session: usize, object: &Object, ended: bool, flags: u8) {
    let recorded = crate::hooks::made::recording(|guard| {
        object.flag(flags);
        if ended {
            let held = object.tls.held.load(Ordering::Relaxed);
            sessions::remove(session);
            object.drop_ref(guard, How::Freed, crate::kernel::Counts::UNKNOWN);
            if let Some(next) = begin(guard, session, Channel::Tls, false) {
                next.tls.held.store(held, Ordering::Relaxed);
            }
        } else {
            object.out.doubt(guard, object.number(), Tap::TlsWrite, Reason::BypassedBytes);
            object.into.doubt(guard, object.number(), Tap::TlsRead, Reason::BypassedBytes);
        }
    });
    if !recorded {
        object.miss();
    }
}

/// The session is about to be freed, if this is its last reference.
pub fn freed(session: usize, flags: u8) {
    if session == 0 || sessions::find(session).is_none() {
        return;
    }
    crate::hooks::made::recording(|guard| {
        let Some(object) = sessions::find(session) else { return };
        object.flag(flags);
        if object.tls.held.load(Ordering::Relaxed) > 0 {
            object.tls.held.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        sessions::remove(session);
        object.drop_ref(guard, How::Freed, crate::kernel::Counts::UNKNOWN);
    });
}

impl Session {
    /// Computes the tags of what is about to be written. Bytes that an earlier, unfinished attempt
    /// has sealed already are passed over.
    #[inline]
    pub fn offer<'a>(&mut self, data: &'a [u8], offer: &mut Offer) -> &'a [u8] {
        let Some(object) = self.object else { return data };
        let ahead = (object.tls.ahead.load(Ordering::Relaxed) as usize).min(data.len());
        let rest = &data[ahead..];
        let call = &mut self.call;
        shielded((), || call.offer(rest, rest.len(), offer));
        rest
    }

    /// After a write that took `accepted` bytes (0: it failed); `rest` is what [`Self::offer`] gave.
    #[inline]
    pub fn wrote(&self, accepted: usize, rest: &[u8], offer: &mut Offer) {
        let Some(object) = self.object else { return };
        self.returned(object);
        keeping_errno(|| {
            shielded((), || {
                let ahead = object.tls.ahead.load(Ordering::Relaxed) as usize;
                let result = if accepted > 0 {
                    object.tls.ahead.store(ahead.saturating_sub(accepted) as u64, Ordering::Relaxed);
                    if self.call.tags() {
                        changed_retry(object, offer, accepted > ahead);
                    }
                    accepted.saturating_sub(ahead)
                } else {
                    // Sealed beyond what was accepted so far: these bytes are on their way, whatever
                    // a retry will offer in their place (SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER).
                    let sealed = if witnessed(object) {
                        object.seal.offset().saturating_sub(object.out.offset())
                    } else {
                        0
                    };
                    let sealed = (sealed as usize).min(rest.len());
                    object.tls.ahead.store((ahead + sealed) as u64, Ordering::Relaxed);
                    if sealed == 0 && self.call.tags() && !witnessed(object) && !rest.is_empty() {
                        // SAFETY: a call whose bytes are tagged has begun its offer.
                        object.tls.attempt.store(unsafe { offer.mark() }, Ordering::Relaxed);
                    }
                    sealed
                };
                self.call.finish_send(result, rest, offer);
            });
        });
    }

    /// After a write with a library that keeps what it has sealed: one that took `accepted` bytes (0:
    /// it failed), or of whose bytes the first `kept` will be sent, whatever a retry offers.
    #[inline]
    pub fn wrote_or_kept(&self, accepted: usize, kept: usize, rest: &[u8], offer: &mut Offer) {
        let Some(object) = self.object else { return };
        keeping_errno(|| {
            shielded((), || {
                let ahead = object.tls.ahead.load(Ordering::Relaxed) as usize;
                let result = if accepted > 0 {
                    object.tls.ahead.store(0, Ordering::Relaxed);
                    if accepted < ahead
                        && let Some(guard) = Guard::enter()
                    {
                        // Less was kept than we thought.
                        object.out.doubt(&guard, object.number(), Tap::TlsWrite, Reason::BypassedBytes);
                    }
                    accepted.saturating_sub(ahead)
                } else if ahead > 0 {
                    0
                } else {
                    object.tls.ahead.store(kept as u64, Ordering::Relaxed);
                    kept
                };
                self.call.finish_send(result, rest, offer);
            });
        });
    }

    /// After a read that returned `bytes` bytes.
    #[inline(always)]
    pub fn read<P: Pieces + ?Sized>(&self, bytes: usize, data: &P) {
        let Some(object) = self.object else { return };
        self.returned(object);
        record::received_tls(self.call, bytes, data);
    }

    /// After a call that moved bytes without showing them.
    pub fn wrote_unseen(&self, bytes: isize, reason: Reason) {
        self.object.inspect(|object| self.returned(object));
        record::sent_unseen(self.call, bytes, reason);
    }

    /// Last: this thread is inside of what it was inside of before.
    #[inline]
    pub fn leave(&self) {
        let Some(object) = self.object else { return };
        match &self.outer {
            Some(outer) => leave_inner(object, outer),
            None => thread::current().inside.leave(),
        }
    }

    /// The call has returned. If this thread is not inside of it any more, a coroutine has begun or ended another one.
    #[inline(always)]
    fn returned(&self, object: &Object) {
        if !thread::current().inside.is(object.number()) {
            mixed_up_now(object);
        }
    }
}

/// Back into the call around one on `object`.
#[cold]
fn leave_inner(object: &Object, outer: &Inside) {
    let inside = &thread::current().inside;
    if !inside.is(object.number()) {
        return inside.leave();
    }
    let mixed = inside.mixed.get();
    if mixed && !outer.mixed {
        outer.session().inspect(|object| mixed_up_now(object));
    }
    inside.set(Inside { mixed, ..*outer });
}

/// A call on `object` begins while this thread is inside of one: within it, or `beside` it, on another stack.
#[cold]
fn mixes(guard: &Guard, object: &Object, beside: bool) -> bool {
    let here = &guard.thread.inside;
    let mixed = beside || here.mixed.get();
    if mixed {
        here.get().session().inspect(|other| mixed_up(guard, other));
        mixed_up(guard, object);
    }
    mixed
}

/// Coroutines are in calls on several sessions: what one's cipher shows may be taken for another's, or be missed.
fn mixed_up(guard: &Guard, object: &Object) {
    if object.channel() == Channel::Tls {
        object.seal.doubt(guard, object.number(), Tap::CipherSeal, Reason::UnsupportedCipher);
        object.open.doubt(guard, object.number(), Tap::CipherOpen, Reason::UnsupportedCipher);
    }
}

#[cold]
fn mixed_up_now(object: &Object) {
    crate::hooks::made::recording(|guard| mixed_up(guard, object));
}

/// The cipher witness sees what this session seals.
fn witnessed(object: &Object) -> bool {
    object.channel() == Channel::Tls
        && object.tls.witness_off.load(Ordering::Relaxed) == 0
        && object.tls.seal_context.load(Ordering::Relaxed) != 0
}

/// A retry with other content than the first attempt, where nobody saw how much of the first was
/// sealed: which of the two went out can't be known.
fn changed_retry(object: &Object, offer: &mut Offer, counts: bool) {
    let before = object.tls.attempt.swap(0, Ordering::Relaxed);
    if before != 0
        && counts
        // SAFETY: as above.
        && before != unsafe { offer.mark() }
        && let Some(guard) = Guard::enter()
    {
        object.out.doubt(&guard, object.number(), Tap::TlsWrite, Reason::UnsupportedCipher);
    }
}

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
