//! Around a call into a TLS library: who is inside of what, and what the session's plaintext streams take in. What is asked of
//! the session afterwards: [`asked`].

use crate::lanes;
use crate::objects::{self, Object};
use crate::process;
use crate::record::{self, Call};
use crate::sessions;
use crate::shield::{keeping_errno, shielded};
use crate::stream::{Offer, Pieces};
use crate::thread::{self, Guard, Head, Inside, Phase};
use bytemuck::Zeroable;
use core::sync::atomic::Ordering;
use counterfoil_abi::record::{ATTACHED_LATE, Channel, How, Kind, Opened, Reason, Tap};

mod asked;
pub use asked::{LABEL, after, rejected, shutdown_flags};

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
#[inline(always)]
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

#[inline(always)]
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
    #[inline(always)]
    pub fn offer<'a>(&mut self, data: &'a [u8], offer: &mut Offer) -> &'a [u8] {
        let Some(object) = self.object else { return data };
        let ahead = (object.tls.ahead.load(Ordering::Relaxed) as usize).min(data.len());
        let rest = &data[ahead..];
        let call = &mut self.call;
        shielded((), || call.offer(rest, rest.len(), offer));
        rest
    }

    /// After a write that took `accepted` bytes (0: it failed); `rest` is what [`Self::offer`] gave.
    #[inline(always)]
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
