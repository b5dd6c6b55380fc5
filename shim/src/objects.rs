//! The objects whose bytes are watched (sockets, pipes, TLS sessions), in memory that a family of
//! forks shares: a parent and its child may write to one socket in turn.
//!
//! Numbers are never used again within a family, so a stale reference to a reused slot shows.

use crate::file::{self, File};
use crate::lanes;
use crate::stream::Stream;
use crate::thread::Guard;
use crate::{kernel, process};
use bytemuck::Zeroable;
use core::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use counterfoil_abi::record::{Channel, Ended, How, Kind, Reason, THROUGH_STDIO, Tap};
use region::{Counters, FEW, GIVEN_BACK, SLOTS, counters, reach, slot};
pub use region::{FIRST_BYTES, provide, sizes};

mod region;

/// Direction of the last call.
pub const OUT: u8 = 1;
/// Direction of the last call.
pub const IN: u8 = 2;

/// One object. All zero is "free"; every field is an atomic or a [`Stream`], because forks and
/// threads share it.
#[repr(C, align(64))]
pub struct Object {
    /// Its number in records, 0 when it is none; of an object whose last holder has left it stays until the slot is
    /// used again.
    pub number: AtomicU32,
    /// Descriptors or handles that lead here, in all processes of the family. 0: the slot is free.
    refs: AtomicU32,
    /// Which slot this is.
    slot: AtomicU32,
    /// A [`Channel`].
    channel: AtomicU8,
    /// `Ended`'s flags so far.
    pub flags: AtomicU8,
    /// [`OUT`] or [`IN`].
    pub last: AtomicU8,
    /// `Opened`'s flags.
    pub opened: AtomicU8,
    /// A descriptor of it, for the kernel's counts.
    pub fd: AtomicI32,
    /// st_dev.
    pub device: AtomicU64,
    /// st_ino.
    pub inode: AtomicU64,
    /// For a socket: number of the TLS object that it carries.
    pub carries: AtomicU32,
    /// errno of the call that failed.
    pub errno: AtomicI32,
    /// Urgent bytes sent.
    pub urgent_out: AtomicU32,
    /// Urgent bytes received.
    pub urgent_in: AtomicU32,
    /// Only for datagrams over IP.
    pub datagrams: Datagrams,
    /// Only for TLS objects.
    pub tls: Tls,
    /// Bytes written or sent.
    pub out: Stream,
    /// Bytes read or received.
    pub into: Stream,
    /// TLS: bytes that entered the cipher.
    pub seal: Stream,
    /// TLS: bytes that left the cipher.
    pub open: Stream,
    /// Only for files.
    pub file: File,
}

/// What is particular to a socket of datagrams.
#[repr(C)]
pub struct Datagrams {
    /// Stands for where the last one went that said so; 0: none did.
    pub to: AtomicU64,
    /// Bytes sent by the last record that told of them.
    pub told: AtomicU64,
}

/// What is particular to a TLS object.
#[repr(C)]
pub struct Tls {
    /// The flow id was sent.
    pub flow_told: AtomicU8,
    /// TLS 1.2 CBC: what comes behind a record's content, see `witness`.
    pub cbc_mac: AtomicU8,
    /// The cipher witness is off: 1 unsupported, 2 lost its place.
    pub witness_off: AtomicU8,
    /// 0x0301 … 0x0304, 0 before the handshake's end.
    pub version: AtomicU32,
    /// Socket object that carries it.
    pub carrier: AtomicU32,
    /// Bytes of an unfinished write that were sealed already and are counted in `out`.
    pub ahead: AtomicU64,
    /// The same content's mark at the first attempt of an unfinished write.
    pub attempt: AtomicU64,
    /// 0-RTT bytes written or read.
    pub early: AtomicU64,
    /// References that SSL_up_ref has added.
    pub held: AtomicU32,
    /// GnuTLS: this end is the client.
    pub client: AtomicU8,
    /// A refused record was told.
    pub rejected_told: AtomicU8,
    /// `SSL*` → cipher context that seals, and opens.
    pub seal_context: AtomicU64,
    /// See `seal_context`.
    pub open_context: AtomicU64,
}

/// Names an object: slot and number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// Where.
    pub slot: u32,
    /// Which.
    pub number: u32,
}

/// The object, if it is still the same.
#[inline(always)]
pub fn get(name: Name) -> Option<&'static Object> {
    match slot(name.slot.min(SLOTS - 1)) {
        Some(object) if object.number() == name.number => Some(object),
        _ => None,
    }
}

/// Which slot an object stands in.
pub fn slot_of(object: &Object) -> u32 {
    object.slot.load(Ordering::Relaxed)
}

/// The stream is still one of that object's. (Of one that is no object's, yes.)
pub fn has(number: u32, stream: &Stream) -> bool {
    region::around(core::ptr::from_ref(stream).addr()).is_none_or(|object| object.number() == number)
}

/// A new object with one reference. None: no slot is free, which is counted.
pub fn make(channel: Channel) -> Option<Name> {
    let counters = counters();
    let given = counters.given.load(Ordering::Relaxed) as usize % GIVEN_BACK;
    let oldest = counters.given_back[given].load(Ordering::Relaxed);
    if oldest != 0 {
        counters.given_back[given].store(0, Ordering::Relaxed);
        let index = (oldest - 1).min(SLOTS - 1);
        if let Some(object) = reach(index).filter(|object| object.try_hold()) {
            return Some(begin(counters, object, index, channel));
        }
    }
    let mut ceiling = counters.ceiling.load(Ordering::Relaxed).clamp(FEW, SLOTS);
    loop {
        let from = counters.look_from.fetch_add(1, Ordering::Relaxed);
        for step in 0..ceiling {
            let index = from.wrapping_add(step) % ceiling;
            let Some(object) = reach(index) else { continue };
            if object.try_hold() {
                counters.look_from.store(index + 1, Ordering::Relaxed);
                return Some(begin(counters, object, index, channel));
            }
        }
        // What can't be mapped here is not opened to relatives either: they would go round in all of it.
        if ceiling == SLOTS || reach(ceiling).is_none() {
            break;
        }
        ceiling = (ceiling * 2).min(SLOTS);
        counters.ceiling.fetch_max(ceiling, Ordering::Relaxed);
    }
    process::arena().no_object.fetch_add(1, Ordering::Relaxed);
    None
}

/// The slot is ours: a new object in it.
fn begin(counters: &Counters, object: &Object, index: u32, channel: Channel) -> Name {
    object.slot.store(index, Ordering::Relaxed);
    let number = counters.last_number.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
    object.number.store(number, Ordering::Relaxed);
    object.clear(channel);
    Name { slot: index, number }
}

impl Object {
    /// Takes the slot, if it is free.
    fn try_hold(&self) -> bool {
        self.refs.load(Ordering::Relaxed) == 0
            && self.refs.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn clear(&self, channel: Channel) {
        self.channel.store(channel as u8, Ordering::Relaxed);
        for byte in [
            &self.flags,
            &self.last,
            &self.opened,
            &self.tls.flow_told,
            &self.tls.witness_off,
            &self.tls.cbc_mac,
            &self.tls.rejected_told,
            &self.tls.client,
        ] {
            byte.store(0, Ordering::Relaxed);
        }
        self.datagrams.to.store(0, Ordering::Relaxed);
        self.datagrams.told.store(0, Ordering::Relaxed);
        for word in [
            &self.carries,
            &self.urgent_out,
            &self.urgent_in,
            &self.tls.version,
            &self.tls.carrier,
            &self.tls.held,
        ] {
            word.store(0, Ordering::Relaxed);
        }
        for word in [
            &self.device,
            &self.inode,
            &self.tls.ahead,
            &self.tls.attempt,
            &self.tls.early,
            &self.tls.seal_context,
            &self.tls.open_context,
        ] {
            word.store(0, Ordering::Relaxed);
        }
        if channel == Channel::File {
            self.file.clear();
        }
        self.fd.store(-1, Ordering::Relaxed);
        self.errno.store(0, Ordering::Relaxed);
        for stream in [&self.out, &self.into, &self.seal, &self.open] {
            stream.clear();
        }
    }

    /// What it is.
    #[inline]
    pub fn channel(&self) -> Channel {
        Channel::from_code(self.channel.load(Ordering::Relaxed)).unwrap_or(Channel::File)
    }

    /// Its number.
    #[inline]
    pub fn number(&self) -> u32 {
        self.number.load(Ordering::Relaxed)
    }

    /// Taps of what goes out and what comes in.
    #[inline(always)]
    pub fn taps(&self) -> (Tap, Tap) {
        match self.channel() {
            Channel::Pipe => (Tap::PipeWrite, Tap::PipeRead),
            Channel::Tls | Channel::GnuTls => (Tap::TlsWrite, Tap::TlsRead),
            Channel::File => (Tap::FileWrite, Tap::FileRead),
            Channel::Ssh => (Tap::CipherSeal, Tap::CipherOpen),
            _ => (Tap::SockSend, Tap::SockRecv),
        }
    }

    fn is_tls(&self) -> bool {
        matches!(self.channel(), Channel::Tls | Channel::GnuTls)
    }

    /// One more descriptor or handle leads here.
    pub fn add_ref(&self) {
        self.refs.fetch_add(1, Ordering::Relaxed);
    }

    /// A process that holds this leaves the family. False: nobody else holds it, and whoever leaves
    /// [gives the slot back](Self::free) when it has said its last word.
    pub fn let_go(&self) -> bool {
        let held = |refs: u32| (refs > 1).then(|| refs - 1);
        self.refs.fetch_update(Ordering::AcqRel, Ordering::Relaxed, held).is_ok()
    }

    /// Nobody was shown it, or nobody is to find it any more.
    pub fn discard(&self) {
        self.number.store(0, Ordering::Relaxed);
        self.free();
    }

    /// The slot may be used again. It keeps its number until then: of a process that leaves other threads
    /// still run, and an exec may fail.
    pub fn free(&self) {
        // Release pairs with the acquire in `make`: the next user starts from a finished state. Only the one reference
        // that is left is given back: whoever was not counted has none.
        if self.refs.compare_exchange(1, 0, Ordering::Release, Ordering::Relaxed).is_ok() {
            let counters = counters();
            let given = counters.given.fetch_add(1, Ordering::Relaxed) as usize % GIVEN_BACK;
            counters.given_back[given].store(slot_of(self).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// One more leads to what still has this number. False: it is over.
    pub fn hold(&self, number: u32) -> bool {
        let held = |refs: u32| (refs > 0).then(|| refs + 1);
        let taken = self.refs.fetch_update(Ordering::Acquire, Ordering::Relaxed, held).is_ok();
        if taken && self.number() != number {
            if !self.let_go() {
                self.free();
            }
            return false;
        }
        taken
    }

    /// Takes back what this process has let go. False: the slot is somebody else's by now.
    pub fn hold_again(&self, number: u32) -> bool {
        if self.refs.fetch_add(1, Ordering::Acquire) > 0 || self.number() == number {
            return true;
        }
        self.free();
        false
    }

    /// Says what has not been said of all streams. `last`: nothing follows, at least from this process.
    pub fn tell(&self, guard: &Guard, last: bool) {
        self.tell_way(guard, true, last);
        self.tell_way(guard, false, last);
    }

    /// Says what has not been said of what goes `out`, or came in, the cipher witness of it included.
    #[inline(always)]
    pub fn tell_way(&self, guard: &Guard, out: bool, last: bool) {
        let (sent, received) = self.taps();
        let (stream, tap, witness, witnessed) = if out {
            (&self.out, sent, &self.seal, Tap::CipherSeal)
        } else {
            (&self.into, received, &self.open, Tap::CipherOpen)
        };
        if self.is_tls() {
            if out && last && self.tls.attempt.load(Ordering::Relaxed) != 0 {
                // A write that failed and was not tried again: nobody saw how much of it was sealed.
                stream.doubt(guard, self.number(), tap, Reason::UnsupportedCipher);
            }
            stream.try_tell_both(guard, self.number(), (tap, witnessed), witness, last);
        } else {
            stream.try_tell(guard, self.number(), tap, last);
        }
    }

    /// Totals as they stand.
    pub fn ended(&self, how: How, counts: kernel::Counts) -> Ended {
        let ahead = self.tls.ahead.load(Ordering::Relaxed);
        let mut record = Ended {
            header: lanes::header(Kind::Ended, 2, 0, self.number()),
            how: how as u8,
            errno: self.errno.load(Ordering::Relaxed),
            out_total: self.out.offset().saturating_sub(ahead),
            in_total: self.into.offset(),
            out_offered: ahead,
            kernel_out: counts.sent,
            kernel_in: counts.received,
            seal_total: self.seal.offset(),
            open_total: self.open.offset(),
            out_urgent: self.urgent_out.load(Ordering::Relaxed),
            in_urgent: self.urgent_in.load(Ordering::Relaxed),
            ..Zeroable::zeroed()
        };
        record.header.flags = self.flags.load(Ordering::Relaxed);
        if self.channel() == Channel::File {
            (record.out_total, record.in_total) = self.file.totals();
        }
        record
    }

    /// Says the totals without ending it.
    pub fn checkpoint(&self, guard: &Guard, how: How, counts: kernel::Counts) {
        if self.channel() == Channel::File {
            if !file::tell_opened(guard, self, self.fd.load(Ordering::Relaxed)) {
                return;
            }
            self.tell(guard, how != How::Checkpoint);
            file::tell(guard, self, how);
        } else {
            self.tell(guard, how != How::Checkpoint);
        }
        lanes::push_record(guard, &self.ended(how, counts));
    }

    /// One descriptor or handle less. The last one ends it: says the totals and frees the slot.
    pub fn drop_ref(&self, guard: &Guard, how: How, counts: kernel::Counts) {
        if !self.held_once() {
            self.doubt_calls(guard, false);
            // Another process or descriptor goes on; what this one did is said all the same, before it is let go:
            // then it may be something else at any time.
            if self.anything() || self.has_flag(THROUGH_STDIO) {
                self.checkpoint(guard, How::Checkpoint, counts);
            }
            if self.let_go() {
                return;
            }
        }
        if self.channel() == Channel::File && how == How::ClosedUnseen {
            file::unseen_close(guard, self);
        }
        // An exit handler closes what this process has let go already.
        let left = self.refs.load(Ordering::Relaxed) == 0;
        if !left {
            self.doubt_calls(guard, true);
        }
        if self.channel() != Channel::File || self.anything() {
            self.checkpoint(guard, how, counts);
        }
        if !left {
            self.discard();
        }
    }

    /// A descriptor of it is closed while a call is in progress on it, which may be on that one: what it moves is nobody's any more,
    /// if it was the `last`; and it may go elsewhere, if it had not begun. Relatives' calls are on descriptors of their own.
    fn doubt_calls(&self, guard: &Guard, last: bool) {
        let (out, into) = self.taps();
        for (stream, tap) in [(&self.out, out), (&self.into, into)] {
            if if last { stream.busy() } else { stream.busy_beside(guard) } {
                stream.doubt(guard, self.number(), tap, Reason::SharedDescriptor);
            }
        }
    }

    /// A call on it that can't be recorded now.
    pub fn miss(&self) {
        self.out.miss();
        self.into.miss();
    }

    /// This process ends, and other threads of it go on a little longer: what they move then nobody hears of.
    pub fn doubt_rest(&self, guard: &Guard) {
        let (out, into) = self.taps();
        for (stream, tap) in [(&self.out, out), (&self.into, into)] {
            if stream.offset() != 0 {
                stream.doubt(guard, self.number(), tap, Reason::SharedDescriptor);
            }
        }
    }

    /// A byte has passed.
    pub fn anything(&self) -> bool {
        match self.channel() {
            Channel::File => self.file.used(),
            _ => self.out.offset() != 0 || self.into.offset() != 0,
        }
    }

    /// Nobody else leads here.
    pub fn held_once(&self) -> bool {
        self.refs.load(Ordering::Relaxed) <= 1
    }

    /// A flag of `Ended` that was set.
    pub fn has_flag(&self, bit: u8) -> bool {
        self.flags.load(Ordering::Relaxed) & bit != 0
    }

    /// A flag of `Ended`.
    pub fn flag(&self, bit: u8) {
        self.flags.fetch_or(bit, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
