//! What happens around a call that moves bytes: before it the stream is claimed (and a write's tags
//! are computed), after it only what the call really accepted or returned is taken in.
//!
//! Hooks call these with a descriptor or object and slices; nothing here knows C.

use crate::content;
use crate::datagrams;
use crate::fds;
use crate::file::{self, Turn};
use crate::lanes;
use crate::objects::{self, Object};
use crate::pipes;
use crate::process;
use crate::shield::{keeping_errno, shielded};
use crate::ssh;
use crate::stream::{Offer, Pieces};
use crate::thread::{self, Guard};
use crate::tls;
use core::sync::atomic::Ordering;
use counterfoil_abi::record::{Address, Channel, FAILED, IN_EOF, Reason};

mod files;
mod unseen;

use files::{after_file_read, after_file_write};
pub use files::{received_at, sent_at};
pub use unseen::{moving, received_unseen, received_unseen_to, sent_from_file, sent_unseen, sent_unseen_to};

/// A call in progress.
#[derive(Clone, Copy)]
pub struct Call {
    object: Option<&'static Object>,
    /// The object's, before the call.
    number: u32,
    fd: i32,
    way: Way,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Nothing to do.
    Pass,
    /// Only counted.
    Count,
    /// Claimed, to be counted and its content looked at.
    Look,
    /// A datagram's, to be counted.
    Datagram,
    /// Claimed, to be tagged.
    Tag,
    /// Claimed, but what is sent has no tags: it can't be read, or there is no room for them.
    Untagged,
    /// A file's: see [`file`].
    File(Turn),
}

impl Way {
    /// The stream is this call's until it has returned.
    fn claims(self) -> bool {
        matches!(self, Self::Tag | Self::Untagged | Self::Look | Self::File(Turn::Flow))
    }
}

impl Call {
    /// Nothing to do after the call.
    pub const PASS: Self = Self { object: None, number: 0, fd: -1, way: Way::Pass };

    /// Its bytes are only counted.
    #[inline]
    pub fn counting(object: &'static Object) -> Self {
        Self { object: Some(object), number: object.number(), fd: -1, way: Way::Count }
    }

    /// Before a call of a TLS library that moves bytes through `object`.
    #[inline]
    pub fn begin(guard: &Guard, object: &'static Object, way: u8) -> Self {
        Self { object: Some(object), number: object.number(), fd: -1, way: begin_on(guard, object, way) }
    }

    /// What the call moves bytes through. None: its last descriptor was closed meanwhile, by another thread or a signal
    /// handler, and its place may be another object's.
    #[inline(always)]
    fn object(&self) -> Option<&'static Object> {
        match self.object {
            Some(object) if object.number() == self.number => Some(object),
            _ => None,
        }
    }

    /// Its bytes are to be tagged.
    #[inline]
    pub fn tags(&self) -> bool {
        self.way == Way::Tag
    }

    /// The first half of a send, where its bytes are to be tagged.
    #[inline]
    pub fn offer<P: Pieces + ?Sized>(&mut self, data: &P, bytes: usize, offer: &mut Offer) {
        if self.tags() {
            self.offer_in(Guard::enter().as_ref(), data, bytes, offer);
        }
    }

    #[inline(always)]
    fn offer_in<P: Pieces + ?Sized>(
        &mut self,
        guard: Option<&Guard>,
        data: &P,
        bytes: usize,
        offer: &mut Offer,
    ) {
        let Self { object: Some(object), way: way @ (Way::Tag | Way::File(Turn::Flow)), .. } = *self else {
            return;
        };
        if !guard.is_some_and(|guard| object.out.offer(guard, data, bytes as u64, offer)) {
            self.cannot_offer();
        } else if way != Way::Tag {
            file::offered(object, data, bytes as u64);
        }
    }

    /// There is no room for an offer, or what is to be sent can't be read: whatever passes is a gap, or read at rest.
    #[cold]
    fn cannot_offer(&mut self) {
        match self.way {
            Way::Tag => self.way = Way::Untagged,
            Way::File(Turn::Flow) => {
                self.object.inspect(|object| object.out.release());
                self.way = Way::File(Turn::Rest);
            }
            _ => {}
        }
    }

    /// The second half of a send, for who has its own idea of what was accepted.
    #[inline]
    pub fn finish_send<P: Pieces + ?Sized>(self, accepted: usize, data: &P, offer: &mut Offer) {
        if self.way != Way::Pass {
            after_send(self, accepted as isize, data, offer);
        }
    }
}

/// After a TLS call that handed out `bytes` bytes.
#[inline]
pub fn received_tls<P: Pieces + ?Sized>(call: Call, bytes: usize, data: &P) {
    if call.way != Way::Pass {
        // "Asked for nothing": 0 is no end of file here.
        keeping_errno(|| shielded((), || after_receive(call, bytes as isize, 0, data)));
    }
}

/// Before a call that receives on `fd`.
#[inline(always)]
pub fn receiving(fd: i32) -> Call {
    carrier(fd).map_or_else(|| receiving_plain(fd), Call::counting)
}

/// [`receiving`] of a descriptor that is no [`carrier`].
#[inline(always)]
pub fn receiving_plain(fd: i32) -> Call {
    if nobody_asks(fd) { Call::PASS } else { begun(fd, objects::IN, |_, _| ()) }
}

/// Inside a TLS call, a socket that is known to carry TLS: nothing to do but count afterwards.
#[inline]
pub fn carrier(fd: i32) -> Option<&'static Object> {
    // The TLS call has noticed a fork, and is in no vfork child.
    if !thread::current().inside.is_marked() {
        return None;
    }
    match fds::known(fd) {
        Some(object) if object.carries.load(Ordering::Relaxed) != 0 => Some(object),
        _ => None,
    }
}

/// A call on `fd` begins; `more` is done in the same recording. (Written in place: a struct that is handed up as a
/// whole right after its parts were written is waited for.)
#[inline(always)]
fn begun(fd: i32, way: u8, more: impl FnOnce(&Guard, &mut Call)) -> Call {
    let mut call = Call::PASS;
    let whole = shielded(false, || {
        begin(fd, way, &mut call, more);
        true
    });
    if whole { call } else { Call::PASS }
}

#[inline(always)]
fn begin(fd: i32, way: u8, call: &mut Call, more: impl FnOnce(&Guard, &mut Call)) {
    if process::maybe_vfork_child() {
        return;
    }
    let Some(guard) = Guard::enter() else { return miss(fd, way) };
    let Some(object) = fds::find(&guard, fd) else { return };
    call.way = if object.channel() == Channel::File {
        match file::enter(&guard, object, fd, way) {
            Turn::Pass => return,
            turn => Way::File(turn),
        }
    } else {
        begin_on(&guard, object, way)
    };
    (call.object, call.number) = (Some(object), object.number());
    call.fd = fd;
    more(&guard, call);
}

/// Before a call that moves bytes through `object`.
#[inline]
fn begin_on(guard: &Guard, object: &'static Object, way: u8) -> Way {
    let channel = object.channel();
    if object.carries.load(Ordering::Relaxed) != 0 || channel == Channel::UnixDatagram {
        return Way::Count;
    }
    pipes::heed();
    let (out, into) = object.taps();
    let number = object.number();
    if channel == Channel::Datagram {
        if way != objects::OUT {
            return Way::Count;
        }
        // Some may be lost, or change places: there is no stream that could be tagged. What leaves is looked at.
        let claimed = looks_untagged(object) && object.out.claim(guard, number, out);
        return if claimed { Way::Look } else { Way::Datagram };
    }
    if !process::watched() {
        let looks = way == objects::OUT && looks_unwatched(object, channel);
        let claimed = looks && object.out.claim(guard, number, out);
        return if claimed { Way::Look } else { Way::Count };
    }
    let (stream, tap) = if way == objects::OUT { (&object.out, out) } else { (&object.into, into) };
    if channel != Channel::Pipe && object.last.load(Ordering::Relaxed) != way {
        // The stream turns round: what went the other way is said, so that it can be compared
        // while the connection is open.
        let other = if way == objects::OUT { &object.into } else { &object.out };
        if other.untold() && !lanes::is_crowded(guard) {
            object.tell_way(guard, way != objects::OUT, false);
        }
        object.last.store(way, Ordering::Relaxed);
    }
    if stream.claim(guard, number, tap) { Way::Tag } else { Way::Count }
}

/// Of a process that is only counted, what leaves on a connection is looked at for as long as its start lasts, and for
/// good once the process has to do with sensitive content.
#[inline]
fn looks_unwatched(object: &Object, channel: Channel) -> bool {
    matches!(channel, Channel::Tcp | Channel::Tls | Channel::GnuTls) && looks_untagged(object)
}

#[inline]
fn looks_untagged(object: &Object) -> bool {
    object.out.offset() < content::START || content::turned_up()
}

/// A signal handler's call inside our own recording: it can't be recorded, but it must not be
/// overlooked either.
#[cold]
fn miss(fd: i32, way: u8) {
    if let Some(object) = fds::known(fd) {
        if way == objects::OUT { &object.out } else { &object.into }.miss();
    }
}

/// After a call that received: `result` is what it returned, `asked` what there was room for.
#[inline(always)]
pub fn received<P: Pieces + ?Sized>(call: Call, result: isize, asked: usize, data: &P) {
    match call {
        Call { way: Way::Pass, .. } => {}
        Call { way: Way::Count, .. } if result > 0 => {
            if let Some(object) = call.object() {
                object.into.count(result as u64);
            }
        }
        _ => received_more(call, result, asked, data),
    }
}

/// Apart: who only counts stays short.
fn received_more<P: Pieces + ?Sized>(call: Call, result: isize, asked: usize, data: &P) {
    match call {
        Call { way: Way::File(turn), .. } => {
            keeping_errno(|| shielded((), || after_file_read(call, turn, None, result, asked, data)));
        }
        _ => keeping_errno(|| shielded((), || after_receive(call, result, asked, data))),
    }
}

#[inline(always)]
fn after_receive<P: Pieces + ?Sized>(call: Call, result: isize, asked: usize, data: &P) {
    let Some(object) = call.object() else { return orphaned(call, None) };
    let Some(guard) = Guard::enter() else {
        if result > 0 {
            object.into.miss();
        }
        return release(call, &object.into);
    };
    if result > 0 {
        let bytes = result as u64;
        if call.way == Way::Tag {
            tls::look(&guard, object, objects::IN, object.into.offset(), data, bytes);
            object.into.took(&guard, object.number(), object.taps().1, data, bytes);
        } else {
            object.into.count(bytes);
        }
    } else {
        ended_badly(object, result, asked != 0, IN_EOF);
    }
    release(call, &object.into);
}

/// After a call whose object is no more: it has said that a call was in progress. Nothing there is ours any longer.
#[cold]
fn orphaned(call: Call, offer: Option<&mut Offer>) {
    if call.way.claims() {
        thread::current().forget(call.number);
    }
    if matches!(call.way, Way::Tag | Way::File(Turn::Flow))
        && let Some(offer) = offer
    {
        offer.withdraw();
    }
}

fn release(call: Call, stream: &crate::stream::Stream) {
    if call.way.claims() {
        stream.release();
    }
}

/// A call that moved nothing: the input's end, or a failure that its stream's end is to tell.
#[cold]
pub fn ended_badly(object: &Object, result: isize, asked: bool, at_end: u8) {
    if result == 0 {
        if asked && object.channel() != Channel::Datagram {
            object.flag(at_end);
        }
        return;
    }
    // SAFETY: this thread's errno, as the real call left it.
    let errno = unsafe { *libc::__errno_location() };
    // What does not fit on a disk is a hole that is nobody's doing.
    let disk = object.channel() == Channel::File
        && matches!(errno, libc::ENOSPC | libc::EDQUOT | libc::EFBIG | libc::EIO);
    let connection = matches!(
        errno,
        libc::ECONNRESET | libc::EPIPE | libc::ETIMEDOUT | libc::ECONNABORTED | libc::EHOSTUNREACH
    );
    if disk || connection {
        object.flag(FAILED);
        object.errno.store(errno, Ordering::Relaxed);
    }
}

/// Calls on `fd` are not recorded. The first test of every hook that moves bytes: two loads.
#[inline(always)]
pub fn nobody_asks(fd: i32) -> bool {
    !process::active() || fds::ignored(fd)
}

/// Before a call that sends `bytes` bytes of `data` on `fd`.
#[inline(always)]
pub fn sending<P: Pieces + ?Sized>(fd: i32, data: &P, bytes: usize, offer: &mut Offer) -> Call {
    carrier(fd).map_or_else(|| sending_plain(fd, data, bytes, offer), Call::counting)
}

/// [`sending`] on a descriptor that is no [`carrier`].
#[inline(always)]
pub fn sending_plain<P: Pieces + ?Sized>(fd: i32, data: &P, bytes: usize, offer: &mut Offer) -> Call {
    if nobody_asks(fd) {
        return Call::PASS;
    }
    begun(fd, objects::OUT, |guard, call| {
        if guard.thread.pages.hold_all(data, bytes) {
            call.offer_in(Some(guard), data, bytes, offer);
        } else {
            call.cannot_offer();
        }
    })
}

/// After a call that sent: `result` is what it returned.
#[inline(always)]
pub fn sent<P: Pieces + ?Sized>(call: Call, result: isize, data: &P, offer: &mut Offer) {
    match call {
        Call { way: Way::Pass, .. } => {}
        Call { way: Way::Count, .. } if result > 0 => {
            if let Some(object) = call.object() {
                object.out.count(result as u64);
            }
        }
        _ => sent_more(call, result, data, offer),
    }
}

/// See [`received_more`].
fn sent_more<P: Pieces + ?Sized>(call: Call, result: isize, data: &P, offer: &mut Offer) {
    match call {
        Call { way: Way::File(turn), .. } => {
            keeping_errno(|| shielded((), || after_file_write(call, turn, None, result, data, offer)));
        }
        _ => keeping_errno(|| shielded((), || after_send(call, result, data, offer))),
    }
}

#[inline(always)]
fn after_send<P: Pieces + ?Sized>(call: Call, result: isize, data: &P, offer: &mut Offer) {
    let Some(object) = call.object() else { return orphaned(call, Some(offer)) };
    let Some(guard) = Guard::enter() else {
        if result > 0 {
            object.out.miss();
        }
        // The offer's place goes back too: a thread has few of them.
        if call.way == Way::Tag {
            offer.withdraw();
        }
        return release(call, &object.out);
    };
    if result > 0 {
        let bytes = result as u64;
        if object.channel() == Channel::Datagram {
            datagrams::go(&guard, object, bytes);
        }
        if call.way == Way::Tag {
            tls::look(&guard, object, objects::OUT, object.out.offset(), data, bytes);
            if object.out.offset() == 0 {
                first(object, data);
            }
            object.out.accepted(&guard, object.number(), object.taps().0, data, offer, bytes);
        } else if call.way == Way::Untagged {
            object.out.skip(&guard, object.number(), object.taps().0, bytes, 0, Reason::BypassedBytes);
        } else if call.way == Way::Look {
            object.out.looked(&guard, object.number(), object.taps().0, data, bytes);
        } else {
            object.out.count(bytes);
        }
    } else {
        if call.way == Way::Tag {
            offer.withdraw();
        }
        if result < 0 {
            ended_badly(object, result, true, 0);
        }
    }
    release(call, &object.out);
}

/// After a call that sent `bytes` in one datagram that names where it goes, and before [`sent`].
pub fn addressed(call: &Call, fd: i32, bytes: isize, to: Option<Address>) {
    if bytes > 0
        && let (Some(object), Some(to)) = (call.object(), to)
        && matches!(call.way, Way::Datagram | Way::Look)
        && object.channel() == Channel::Datagram
    {
        keeping_errno(|| {
            shielded((), || {
                if let Some(guard) = Guard::enter() {
                    datagrams::turn(&guard, object, fd, bytes as u64, to);
                }
            });
        });
    }
}

/// A connection's first bytes, on their way out: do they say that this is SSH?
#[cold]
fn first<P: Pieces + ?Sized>(object: &Object, data: &P) {
    let (mut start, mut have) = ([0u8; 16], 0);
    data.walk(0, start.len() as u64, &mut |piece| {
        start[have..have + piece.len()].copy_from_slice(piece);
        have += piece.len();
    });
    ssh::look(object, &start[..have]);
}

/// Marks that `fd`'s order of bytes is in doubt from here on (urgent bytes).
pub fn doubt(fd: i32, way: u8, urgent: bool) {
    if nobody_asks(fd) {
        return;
    }
    keeping_errno(|| {
        shielded((), || {
            let Some(guard) = Guard::enter() else { return };
            let Some(object) = fds::find(&guard, fd) else { return };
            let (out, into) = object.taps();
            if way == objects::OUT {
                object.out.doubt(&guard, object.number(), out, Reason::BypassedBytes);
                object.urgent_out.fetch_add(u32::from(urgent), Ordering::Relaxed);
            } else {
                object.into.doubt(&guard, object.number(), into, Reason::BypassedBytes);
                object.urgent_in.fetch_add(u32::from(urgent), Ordering::Relaxed);
            }
        });
    });
}

#[cfg(test)]
mod tests;
