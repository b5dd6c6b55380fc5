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
mod channels;
mod packet;
mod refused;

use crate::objects::{self, Name, Object};
use crate::process;
use crate::shield::{keeping_errno, shielded};
use crate::thread::Guard;
use calls::{Call, Calls, Next};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use counterfoil_abi::record::Reason;
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
}

#[cfg(test)]
mod tests;
