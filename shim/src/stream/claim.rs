//! Who has a stream: one call at a time.
//!
//! Two threads, or two processes of a family, may be in calls on one stream: the second is not held up, and a gap says what that
//! makes doubtful.

use super::Stream;
use crate::lanes;
use crate::thread::{self, Claim, Guard};
use core::sync::atomic::Ordering;
use counterfoil_abi::record::{Reason, Tap};

/// In `claim`: somebody only tells what there is, and is done in a moment.
pub const TELLING: u64 = 1;
/// How often a call looks again while somebody tells: some 20 µs, in which a teller that lives is done.
const LOOKS: u32 = 10_000;

#[inline(always)]
fn remember(guard: &Guard, claim: Claim) {
    if let Some(free) = guard.thread.claims.iter().find(|c| c.get().stream.is_null()) {
        free.set(claim);
    }
}

impl Stream {
    /// Takes the stream for one call. False: somebody else is in a call on it, and a gap says so.
    #[inline(always)]
    pub fn claim(&self, guard: &Guard, object: u32, tap: Tap) -> bool {
        let me = lanes::identity(guard.thread);
        // Acquire pairs with the release in `release`: the state is as the last holder left it.
        if let Err(other) = self.claim.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed)
            && !self.contend(guard, object, tap, me, other)
        {
            return false;
        }
        remember(guard, Claim { stream: self, number: object, tap: tap as u8 });
        if self.missed.load(Ordering::Relaxed) != 0 {
            self.missed.store(0, Ordering::Relaxed);
            self.doubt(guard, object, tap, Reason::BypassedBytes);
        }
        true
    }

    /// Takes the stream for one call, unless somebody else is in a call on it or a call was missed: no
    /// gap is told, the caller gives the stream up for good.
    pub fn take(&self, guard: &Guard, object: u32, tap: Tap) -> bool {
        let me = lanes::identity(guard.thread);
        for _ in 0..LOOKS {
            // Acquire pairs with the release in `release`.
            match self.claim.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) if self.missed() => {
                    self.release_left();
                    return false;
                }
                Ok(_) => {
                    remember(guard, Claim { stream: self, number: object, tap: tap as u8 });
                    return true;
                }
                Err(TELLING) => core::hint::spin_loop(),
                Err(_) => return false,
            }
        }
        false
    }

    /// Somebody is in a call on it. Seen by at least one of two who each take one stream and then ask for
    /// the other.
    pub fn busy(&self) -> bool {
        core::sync::atomic::fence(Ordering::SeqCst);
        !matches!(self.claim.load(Ordering::Relaxed), 0 | TELLING)
    }

    /// Another thread of this process is in a call on it.
    pub fn busy_beside(&self, guard: &Guard) -> bool {
        let (me, who) = (lanes::identity(guard.thread), self.claim.load(Ordering::Relaxed));
        who > TELLING && who != me && who >> 32 == me >> 32
    }

    /// A call on this stream could not be recorded.
    pub fn missed(&self) -> bool {
        self.missed.load(Ordering::Relaxed) != 0
    }

    /// `other` has the stream. True: it is ours after all.
    #[cold]
    fn contend(&self, guard: &Guard, object: u32, tap: Tap, me: u64, mut other: u64) -> bool {
        let take = |from| self.claim.compare_exchange(from, me, Ordering::Acquire, Ordering::Relaxed);
        for _ in 0..LOOKS {
            if other != TELLING {
                break;
            }
            core::hint::spin_loop();
            match take(0) {
                Ok(_) => return true,
                Err(now) => other = now,
            }
        }
        // Whatever passes now passes beside what the other one does; or before, if it was cancelled or
        // killed in its call.
        self.doubt(guard, object, tap, Reason::SharedDescriptor);
        if other == TELLING {
            return take(other).is_ok();
        }
        let ours = lanes::is_gone(other) && take(other).is_ok();
        if ours {
            self.tear(guard, object, tap);
        }
        ours
    }

    /// Gives the stream back.
    #[inline(always)]
    pub fn release(&self) {
        for claim in &thread::current().claims {
            if core::ptr::eq(claim.get().stream, self) {
                claim.set(Claim::NONE);
            }
        }
        self.release_left();
    }

    /// Gives the stream back; the thread has forgotten it.
    #[inline]
    pub fn release_left(&self) {
        // Pairs with the acquire in `claim`.
        self.claim.store(0, Ordering::Release);
    }

    /// A call on this stream that can't be recorded now.
    pub fn miss(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }
}
