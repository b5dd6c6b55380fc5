//! What ssh and sshd carry in their channels, as it passes their cipher.
//!
//! Comes in: a connection's identification line, then every call of `EVP_Cipher` of this process
//! ([`calls`]) and the packets in them ([`packet`]). Goes out: one object a channel, with what this
//! end sends (`cipher-seal`) and what it gets (`cipher-open`), each a stream like any other.
//!
//! The same function enciphers the host's private keys in memory. Nothing is tagged but the data of a
//! channel whose opening was seen: a request for it and its confirmation, in packets of a process that
//! has said `SSH-2.0-OpenSSH` on a connection.

mod calls;
mod packet;
mod refused;

use crate::objects::{self, Name, Object};
use crate::record::{keeping_errno, shielded};
use crate::stream::{Pieces, Stream};
use crate::thread::Guard;
use crate::{lanes, process, sessions};
use bytemuck::Zeroable;
use calls::{Call, Calls, Next, Packet};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use counterfoil_abi::record::{
    ACCEPTED, CONNECTED, Channel, How, IN_EOF, Kind, OUT_SHUT, Opened, Reason, Tap,
};
use packet::{DATA_AT, HEAD, Message};
pub use refused::{last_words, said};

/// What OpenSSH says first (RFC 4253, 4.2).
const IDENTIFICATION: &[u8] = b"SSH-2.0-OpenSSH";

/// 1: this process's cipher calls are looked at. A fork's child goes on with it.
static ON: AtomicU8 = AtomicU8::new(0);
/// The socket (or pipe) that the identification went out on: number << 32 | slot.
static CARRIER: AtomicU64 = AtomicU64::new(0);

/// Channels of a connection that are followed at once.
const CHANNELS: usize = 64;
/// Channels that were asked for and not yet confirmed.
const ASKED: usize = 16;

/// This process speaks SSH.
#[inline]
pub fn on() -> bool {
    ON.load(Ordering::Relaxed) != 0
}

/// Looks at the first bytes that went out on a connection.
pub fn look(object: &Object, start: &[u8]) {
    if start.starts_with(IDENTIFICATION) {
        let name = u64::from(object.number()) << 32 | u64::from(objects::slot_of(object));
        CARRIER.store(name, Ordering::Relaxed);
        ON.store(1, Ordering::Relaxed);
    }
}

/// The connection, while it is there.
fn carrier() -> Option<&'static Object> {
    let name = CARRIER.load(Ordering::Relaxed);
    objects::get(Name { slot: name as u32, number: (name >> 32) as u32 }).filter(|_| name != 0)
}

/// A channel that was asked for.
#[derive(Clone, Copy)]
struct Asked {
    /// By this end.
    by_us: bool,
    /// What its sender calls it.
    sender: u32,
    kind: Text,
}

/// A channel that is open.
#[derive(Clone, Copy)]
struct Open {
    local: u32,
    remote: u32,
    name: Name,
    kind: Text,
    by_us: bool,
    ordinal: u32,
    /// Each end has said that it is done with it: ours, theirs.
    closed: [bool; 2],
}

/// A channel's kind and what was asked of it, in few words: `session exec`.
#[derive(Clone, Copy)]
struct Text {
    bytes: [u8; 48],
    length: usize,
}

impl Text {
    fn new(text: &[u8]) -> Self {
        let mut new = Self { bytes: [0; 48], length: 0 };
        new.add(text);
        new
    }

    fn add(&mut self, text: &[u8]) {
        for &byte in text {
            if self.length < self.bytes.len() {
                self.bytes[self.length] = byte;
                self.length += 1;
            }
        }
    }
}

/// What is known of this process's one connection.
struct State {
    calls: Calls,
    asked: [Option<Asked>; ASKED],
    open: [Option<Open>; CHANNELS],
    /// Channels confirmed so far that the other end asked for, and this one.
    confirmed: [u32; 2],
    /// Packets understood, by direction.
    packets: u32,
    /// Packets are compressed, going in and going out.
    squeezed: [bool; 2],
    /// Where the last packet's data began that was not proven yet: channel and offset.
    unproven: Option<(Name, u64)>,
}

/// [`State`], and who is at it.
struct Place {
    busy: AtomicBool,
    state: UnsafeCell<State>,
}

// SAFETY: `state` is touched only by who has set `busy`.
unsafe impl Sync for Place {}

static PLACE: Place = Place { busy: AtomicBool::new(false), state: UnsafeCell::new(State::new()) };

/// Calls were not followed: 1 until the channels are told that nobody knows what passed.
static LOST: AtomicU8 = AtomicU8::new(0);

/// The state, while somebody is at it.
struct Held;

impl Drop for Held {
    fn drop(&mut self) {
        if std::thread::panicking() {
            LOST.store(1, Ordering::Relaxed);
        }
        PLACE.busy.store(false, Ordering::Release);
    }
}

/// Runs `f` on the state. OpenSSH has one thread; anything that comes when another call is under way is
/// lost, and with it all that follows.
fn with(f: impl FnOnce(&Guard, &mut State)) {
    keeping_errno(|| {
        shielded((), || {
            let Some(guard) = Guard::enter() else { return LOST.store(1, Ordering::Relaxed) };
            if PLACE.busy.swap(true, Ordering::Acquire) {
                return LOST.store(1, Ordering::Relaxed);
            }
            let held = Held;
            // SAFETY: `busy` was not set.
            let state = unsafe { &mut *PLACE.state.get() };
            if LOST.swap(0, Ordering::Relaxed) != 0 {
                ON.store(0, Ordering::Relaxed);
                state.doubt(&guard, true, Reason::BypassedBytes);
                state.doubt(&guard, false, Reason::BypassedBytes);
            } else {
                f(&guard, state);
            }
            drop(held);
        });
    });
}

/// A call in progress.
#[derive(Clone, Copy)]
pub struct Watch {
    call: Call,
    next: Next,
}

/// Before a cipher call. None: nothing to do after it.
#[inline]
pub fn before(
    out: *const u8,
    input: *const u8,
    length: usize,
    encrypts: impl FnOnce() -> bool,
) -> Option<Watch> {
    if !on() || !process::active() {
        return None;
    }
    let call = Call { encrypts: encrypts(), out, input, length };
    let mut watch = None;
    with(|guard, state| {
        let next = state.before(guard, &call);
        watch = (next != Next::Nothing).then_some(Watch { call, next });
    });
    watch
}

/// After it.
#[inline]
pub fn after(watch: Option<Watch>, result: i32) {
    let Some(watch) = watch else { return };
    with(|guard, state| state.after(guard, &watch.call, watch.next, result));
}

/// A packet's data in its two parts.
struct Data<'a> {
    parts: [&'a [u8]; 2],
    from: usize,
}

impl Pieces for Data<'_> {
    fn walk(&self, skip: u64, limit: u64, each: &mut dyn FnMut(&[u8])) {
        let (mut skip, mut limit) = (self.from + skip as usize, limit as usize);
        for part in self.parts {
            let from = skip.min(part.len());
            let to = from + limit.min(part.len() - from);
            if from < to {
                each(&part[from..to]);
            }
            skip -= from;
            limit -= to - from;
        }
    }
}

impl State {
    const fn new() -> Self {
        Self {
            calls: Calls::new(),
            asked: [None; ASKED],
            open: [None; CHANNELS],
            confirmed: [0; 2],
            packets: 0,
            squeezed: [false; 2],
            unproven: None,
        }
    }

    /// Before a cipher call. Returns what is to be done after it.
    fn before(&mut self, guard: &Guard, call: &Call) -> Next {
        let (packet, next, was_refused) = self.calls.before(call);
        if was_refused {
            refused::now(guard, self);
        }
        if let Some(packet) = packet {
            self.packet(guard, &packet);
        }
        next
    }

    /// After it.
    fn after(&mut self, guard: &Guard, call: &Call, next: Next, result: i32) {
        // 0 is a success where there was nothing to do; negative, and 0 for something, is none.
        let well = result > 0 || result == 0 && call.length == 0;
        let (packet, was_refused) = self.calls.after(call, next, well);
        if was_refused {
            refused::now(guard, self);
        }
        if let Some(packet) = packet {
            self.packet(guard, &packet);
        }
    }

    fn packet(&mut self, guard: &Guard, packet: &Packet) {
        refused::passed();
        let way = usize::from(packet.sealed);
        if self.squeezed[way] {
            return;
        }
        // SAFETY: between the program's cipher calls for this packet, or right after the last.
        let parts = unsafe { packet.parts() };
        let total = parts[0].len() + parts[1].len();
        let mut copy = [0; HEAD];
        let head = if parts[0].is_empty() {
            &parts[1][..parts[1].len().min(HEAD)]
        } else {
            let (a, b) = (parts[0].len(), parts[1].len().min(HEAD - parts[0].len()));
            copy[..a].copy_from_slice(parts[0]);
            copy[a..a + b].copy_from_slice(&parts[1][..b]);
            &copy[..a + b]
        };
        let Some(message) = packet::read(head, total) else {
            // zlib@openssh.com begins with the login; channels are opened later, so of a compressed
            // connection no channel is ever seen, and there is nothing to be wrong about.
            if packet.framed && self.packets > 0 {
                self.squeezed[way] = true;
                self.doubt(guard, packet.sealed, Reason::Transformed);
            }
            return;
        };
        self.packets = self.packets.saturating_add(1);
        match message {
            Message::Data { channel, length } => {
                let data = Data { parts, from: DATA_AT };
                self.data(guard, packet, channel, &data, length as u64);
            }
            Message::Open { kind, sender } => {
                let asked = Asked { by_us: packet.sealed, sender, kind: Text::new(kind) };
                if let Some(free) = self.asked.iter_mut().find(|a| a.is_none()) {
                    *free = Some(asked);
                }
            }
            Message::Confirmation { recipient, sender } => {
                // Our confirmation answers what they asked for, and theirs what we did.
                let by_us = !packet.sealed;
                let (local, remote) = if by_us { (recipient, sender) } else { (sender, recipient) };
                let asked = self.answered(by_us, recipient);
                let count = &mut self.confirmed[usize::from(by_us)];
                let ordinal = *count;
                *count = count.wrapping_add(1);
                if let Some(asked) = asked {
                    self.open(guard, local, remote, &asked, ordinal);
                }
            }
            Message::Failure { recipient } => {
                self.answered(!packet.sealed, recipient);
            }
            Message::Eof { channel } => self.eof(guard, packet.sealed, channel),
            Message::Close { channel } => self.close(guard, packet.sealed, channel),
            Message::Request { channel, kind } => self.request(guard, packet.sealed, channel, kind),
            Message::Other { .. } => {}
        }
    }

    /// Takes out the request that is answered.
    fn answered(&mut self, by_us: bool, sender: u32) -> Option<Asked> {
        let is = |a: &Asked| a.by_us == by_us && a.sender == sender;
        self.asked.iter_mut().find(|a| a.as_ref().is_some_and(is))?.take()
    }

    /// The channel that a packet's recipient means.
    fn find(&mut self, sealed: bool, channel: u32) -> Option<&mut Open> {
        let named = |open: &Open| if sealed { open.remote == channel } else { open.local == channel };
        self.open.iter_mut().flatten().find(|open| named(open))
    }

    fn open(&mut self, guard: &Guard, local: u32, remote: u32, asked: &Asked, ordinal: u32) {
        let Some(index) = self.open.iter().position(Option::is_none) else { return };
        let Some(name) = objects::make(Channel::Ssh) else { return };
        let (kind, by_us) = (asked.kind, asked.by_us);
        let open = Open { local, remote, name, kind, by_us, ordinal, closed: [false; 2] };
        self.open[index] = Some(open);
        if !sessions::insert(key(&self.open[index]), name) {
            self.open[index] = None;
            if let Some(object) = objects::get(name) {
                object.number.store(0, Ordering::Release);
            }
            process::arena().no_object.fetch_add(1, Ordering::Relaxed);
            return;
        }
        open.tell(guard);
    }

    fn data(&mut self, guard: &Guard, packet: &Packet, channel: u32, data: &Data<'_>, bytes: u64) {
        let Some(open) = self.find(packet.sealed, channel) else { return };
        let name = open.name;
        let Some(object) = objects::get(name) else { return };
        let (stream, tap) = streams(object, packet.sealed);
        if packet.unproven {
            self.unproven = Some((name, stream.offset()));
        }
        if !process::watched() {
            return stream.count(bytes);
        }
        if stream.claim(guard, object.number(), tap) {
            stream.took(guard, object.number(), tap, data, bytes);
            stream.release();
        }
    }

    fn eof(&mut self, guard: &Guard, sealed: bool, channel: u32) {
        let Some(object) = self.find(sealed, channel).and_then(|open| objects::get(open.name)) else {
            return;
        };
        let (stream, tap) = streams(object, sealed);
        object.flag(if sealed { OUT_SHUT } else { IN_EOF });
        stream.try_tell(guard, object.number(), tap);
    }

    fn close(&mut self, guard: &Guard, sealed: bool, channel: u32) {
        let Some(open) = self.find(sealed, channel) else { return };
        open.closed[usize::from(sealed)] = true;
        if open.closed != [true; 2] {
            return;
        }
        let name = open.name;
        let index = self.open.iter().position(|open| open.is_some_and(|open| open.name == name));
        let Some(index) = index else { return };
        sessions::remove(key(&self.open[index]));
        self.open[index] = None;
        if let Some(object) = objects::get(name) {
            object.drop_ref(guard, How::Freed, crate::kernel::Counts::UNKNOWN);
        }
    }

    fn request(&mut self, guard: &Guard, sealed: bool, channel: u32, kind: &[u8]) {
        if !matches!(kind, b"exec" | b"shell" | b"subsystem" | b"pty-req") {
            return;
        }
        let Some(open) = self.find(sealed, channel) else { return };
        open.kind.add(b" ");
        open.kind.add(kind);
        open.tell(guard);
    }

    /// From here on, nobody knows what passes in this direction.
    fn doubt(&self, guard: &Guard, sealed: bool, reason: Reason) {
        for open in self.open.iter().flatten() {
            let Some(object) = objects::get(open.name) else { continue };
            let (stream, tap) = streams(object, sealed);
            stream.doubt(guard, object.number(), tap, reason);
        }
    }
}

impl Open {
    fn tell(&self, guard: &Guard) {
        let Some(object) = objects::get(self.name) else { return };
        let mut record = Opened {
            header: lanes::header(Kind::Opened, 4, 0, object.number()),
            channel: Channel::Ssh as u8,
            fd: -1,
            device: u64::from(carrier().map_or(0, Object::number)),
            inode: u64::from(self.ordinal),
            peer_inode: u64::from(self.local) << 32 | u64::from(self.remote),
            name_len: self.kind.length as u32,
            ..Zeroable::zeroed()
        };
        record.header.flags = if self.by_us { CONNECTED } else { ACCEPTED };
        record.name[..self.kind.length].copy_from_slice(&self.kind.bytes[..self.kind.length]);
        lanes::push_record(guard, &record);
    }
}

fn streams(object: &Object, sealed: bool) -> (&Stream, Tap) {
    if sealed { (&object.out, Tap::CipherSeal) } else { (&object.into, Tap::CipherOpen) }
}

/// What stands for a channel among the sessions: where it is kept.
fn key(place: &Option<Open>) -> usize {
    core::ptr::from_ref(place).addr()
}

#[cfg(test)]
mod tests;
