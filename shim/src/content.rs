//! Looks at the content of streams: what is found out of bytes beside their tags.
//!
//! Comes in: each run of bytes that passed in order ([`crate::stream::Stream::took`] after a read,
//! `accepted` for what a write took), what was missed between them, and the stream's turns and end. Goes
//! out: whatever a [`Look`] says of it, in records of its own. Plaintext never does.
//!
//! A look is one file in `content/` and one line in [`looks!`]. Where none is open, a call costs two loads
//! and a comparison: [`Content::passed`].

mod bodies;
mod class;
mod fingerprints;
mod messages;

use crate::pipes;
use crate::process;
use crate::stream::Pieces;
use crate::thread::Guard;
use bodies::Bodies;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use counterfoil_abi::UNKNOWN;
use counterfoil_abi::arena::{POLICY_TURNED_UP, POLICY_WATCHED};
use counterfoil_abi::record::Tap;
use fingerprints::Fingerprints;
use messages::Messages;

/// Whose bytes they are.
pub struct Place<'a> {
    /// This recording.
    pub guard: &'a Guard,
    /// The object's number.
    pub object: u32,
    /// The stream.
    pub tap: Tap,
}

/// One way to look at content. Its state lies in memory that a family of forks shares, and belongs to who
/// has claimed the stream: it must be valid whatever its bytes are (a thread may leave a call at any
/// point), hold no pointer, and be made anew by [`Self::begin`]. What hooks may not do, a look may not.
#[allow(dead_code, reason = "each look uses what it needs")]
pub trait Look {
    /// Is a stream of this tap, that stands at `offset`, looked at under this policy? Asked at its first
    /// bytes, and again when the policy has changed.
    fn wanted(tap: Tap, policy: u32, offset: u64) -> bool;

    /// The policy has changed: does one that has begun go on?
    fn goes_on(tap: Tap, policy: u32, offset: u64) -> bool {
        Self::wanted(tap, policy, offset)
    }

    /// The first bytes will be those at `offset`.
    fn begin(&mut self, place: &Place<'_>, offset: u64);

    /// The policy has changed, and this look goes on.
    fn changed(&mut self, _place: &Place<'_>, _policy: u32, _offset: u64) {}

    /// The first `bytes` of `data` passed; they begin at `offset`. False: it has seen enough.
    fn passed<P: Pieces + ?Sized>(&mut self, place: &Place<'_>, offset: u64, data: &P, bytes: u64) -> bool;

    /// `bytes` ([`UNKNOWN`]: who knows how many) passed that nobody looked at; it goes on at `offset`.
    fn missed(&mut self, _place: &Place<'_>, _offset: u64, _bytes: u64) {}

    /// The stream turns round, is left for a while or ends: what is to be known by then is said.
    /// `last`: nothing follows, at least from this process.
    fn tell(&mut self, _place: &Place<'_>, _last: bool) {}
}

/// What is the start of a stream: as far as it is looked at where nobody asks for more.
pub const START: u64 = 64 << 10;

/// The process has to do with sensitive content.
#[inline]
pub fn turned_up() -> bool {
    process::arena().policy.load(Relaxed) & POLICY_TURNED_UP != 0
}

/// The stream was looked at for what it wants.
const DECIDED: u32 = 1 << 31;
/// Something was missed since the last bytes.
const MISSED: u32 = 1 << 30;
/// The policy word that was decided by: its low half, which is all that has bits.
const POLICY: u32 = 0xffff;
/// Where the looks' bits begin.
const LOOKS: u32 = 16;

/// The process has to do with sensitive content from now on, and so have those that share its arena.
/// The daemon may end that.
pub fn turn_up() {
    let policy = &process::arena().policy;
    let all = POLICY_TURNED_UP | POLICY_WATCHED;
    if policy.load(Relaxed) & all != all {
        policy.fetch_or(all, Relaxed);
        pipes::put_up();
    }
}

/// What the looks know of one stream. All zero: nobody has looked yet.
#[repr(C)]
pub struct Content {
    /// [`DECIDED`], [`MISSED`], a bit for each look that is open, and the policy.
    state: AtomicU32,
    looks: UnsafeCell<Looks>,
}

// SAFETY: `looks` is touched only by who has claimed the stream.
unsafe impl Sync for Content {}

/// Every look: a bit, its name here, its type.
macro_rules! looks {
    ($($(#[$doc:meta])* $bit:literal $field:ident: $look:ty),* $(,)?) => {
        #[repr(C)]
        struct Looks { $($field: $look),* }

        impl Looks {
            /// Which are wanted; of `open` those that are still are told, the others begin.
            fn decide(&mut self, place: &Place<'_>, policy: u32, offset: u64, open: u32) -> u32 {
                let mut now = 0;
                $(let begun = open & 1 << (LOOKS + $bit) != 0;
                let asked = if begun { <$look>::goes_on } else { <$look>::wanted };
                if asked(place.tap, policy, offset) {
                    now |= 1 << (LOOKS + $bit);
                    if !begun {
                        self.$field.begin(place, offset);
                    }
                    self.$field.changed(place, policy, offset);
                } else if begun {
                    self.$field.tell(place, true);
                })*
                now
            }

            fn passed<P: Pieces + ?Sized>(
                &mut self, open: u32, place: &Place<'_>, offset: u64, data: &P, bytes: u64,
            ) -> u32 {
                let mut now = 0;
                $(if open & 1 << (LOOKS + $bit) != 0 && self.$field.passed(place, offset, data, bytes) {
                    now |= 1 << (LOOKS + $bit);
                })*
                now
            }

            fn missed(&mut self, open: u32, place: &Place<'_>, offset: u64, bytes: u64) {
                $(if open & 1 << (LOOKS + $bit) != 0 {
                    self.$field.missed(place, offset, bytes);
                })*
            }

            fn tell(&mut self, open: u32, place: &Place<'_>, last: bool) {
                $(if open & 1 << (LOOKS + $bit) != 0 {
                    self.$field.tell(place, last);
                })*
            }
        }
    };
}

looks! {
    0 fingerprints: Fingerprints,
    2 messages: Messages,
    3 bodies: Bodies,
    /// What kind of content it is.
    1 class: class::Class,
}

impl Content {
    /// As new. Nobody else has the stream.
    pub fn clear(&self) {
        self.state.store(0, Relaxed);
    }

    /// The first `bytes` of `data` passed, from `offset` on. The stream is claimed.
    #[inline(always)]
    pub fn passed<P: Pieces + ?Sized>(&self, place: &Place<'_>, offset: u64, data: &P, bytes: u64) {
        let policy = process::arena().policy.load(Relaxed) & POLICY;
        let state = self.state.load(Relaxed);
        if state != policy | DECIDED {
            self.look(place, policy, state, offset, data, bytes);
        }
    }

    #[inline(never)]
    fn look<P: Pieces + ?Sized>(
        &self,
        place: &Place<'_>,
        policy: u32,
        state: u32,
        offset: u64,
        data: &P,
        bytes: u64,
    ) {
        // SAFETY: the stream is claimed, and a look's state is valid whatever it is.
        let looks = unsafe { &mut *self.looks.get() };
        let mut open = open(state);
        if state & MISSED != 0 {
            looks.missed(open, place, offset, UNKNOWN);
        }
        if state & (DECIDED | POLICY) != DECIDED | policy {
            open = looks.decide(place, policy, offset, open);
        }
        open = looks.passed(open, place, offset, data, bytes);
        self.state.store(DECIDED | policy | open, Relaxed);
    }

    /// `bytes` passed that nobody looked at; the stream goes on at `offset`. It is claimed.
    pub fn missed(&self, place: &Place<'_>, offset: u64, bytes: u64) {
        let open = open(self.state.load(Relaxed));
        if open != 0 {
            // SAFETY: as in `look`.
            unsafe { &mut *self.looks.get() }.missed(open, place, offset, bytes);
        }
    }

    /// Bytes passed beside, or may have. Needs no claim.
    #[inline]
    pub fn doubt(&self) {
        if open(self.state.load(Relaxed)) != 0 {
            self.state.fetch_or(MISSED, Relaxed);
        }
    }

    /// See [`Look::tell`]. The stream is claimed.
    #[inline]
    pub fn tell(&self, place: &Place<'_>, last: bool) {
        let open = open(self.state.load(Relaxed));
        if open != 0 {
            // SAFETY: as in `look`.
            unsafe { &mut *self.looks.get() }.tell(open, place, last);
        }
    }
}

/// The looks that are open.
#[inline]
fn open(state: u32) -> u32 {
    state & !(DECIDED | MISSED | POLICY)
}
