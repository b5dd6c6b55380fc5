//! What a stream says of the block that it is in: when it turns round, is left for a while, or ends.

use super::Stream;
use super::claim::TELLING;
use super::run::push_partial;
use crate::content::Place;
use crate::thread::Guard;
use core::sync::atomic::Ordering;
use counterfoil_abi::BLOCK;
use counterfoil_abi::record::{Reason, Tap};

impl Stream {
    /// Emits the tag of the running block as far as it goes, unless that was done. The stream is
    /// claimed.
    #[inline]
    pub fn tell(&self, guard: &Guard, object: u32, tap: Tap) {
        self.tell_with(guard, object, tap, None);
    }

    /// [`Self::tell`]. Where `witness`, another tap of the same bytes, has come to the same, the record says so of both.
    #[inline(always)]
    fn tell_with(&self, guard: &Guard, object: u32, tap: Tap, witness: Option<&Self>) {
        let offset = self.offset();
        if !self.has_partial(offset) {
            return;
        }
        self.told.store(offset, Ordering::Relaxed);
        // SAFETY: claimed, both.
        let state = |stream: &Self| unsafe { &*stream.mac.get() };
        let same = |witness: &&Self| {
            witness.offset() == offset && witness.has_partial(offset) && state(witness).is_as(state(self))
        };
        let witness = witness.filter(same);
        if let Some(witness) = witness {
            witness.told.store(offset, Ordering::Relaxed);
        }
        let length = offset % BLOCK;
        push_partial(guard, object, tap, offset - length, length, &state(self).tag(), witness.is_some());
    }

    /// The running block has a tag as far as `offset`, which wasn't told.
    #[inline]
    fn has_partial(&self, offset: u64) -> bool {
        !offset.is_multiple_of(BLOCK)
            && self.told.load(Ordering::Relaxed) != offset
            && self.broken.load(Ordering::Relaxed) == 0
    }

    /// [`Self::tell`] for who holds no claim: does nothing when somebody is in a call. `last`: nothing
    /// follows, at least from this process.
    #[inline(always)]
    pub fn try_tell(&self, guard: &Guard, object: u32, tap: Tap, last: bool) {
        if self.hold() {
            self.tell_all(guard, object, tap, last, None);
            self.release_left();
        }
    }

    /// [`Self::try_tell`] of two taps of the same bytes: of ours, and of the cipher witness's.
    #[inline(always)]
    pub fn try_tell_both(&self, guard: &Guard, object: u32, taps: (Tap, Tap), witness: &Self, last: bool) {
        if !self.hold() {
            return witness.try_tell(guard, object, taps.1, false);
        }
        let held = witness.hold();
        self.tell_all(guard, object, taps.0, last, held.then_some(witness));
        if held {
            witness.tell_all(guard, object, taps.1, false, None);
            witness.release_left();
        }
        self.release_left();
    }

    /// Takes the stream for a moment, to tell; not if somebody is in a call on it.
    #[inline]
    fn hold(&self) -> bool {
        self.claim.compare_exchange(0, TELLING, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// What there is to tell, content included; of `witness` what can be told with it.
    #[inline(always)]
    fn tell_all(&self, guard: &Guard, object: u32, tap: Tap, last: bool, witness: Option<&Self>) {
        if self.missed.load(Ordering::Relaxed) != 0 {
            self.missed.store(0, Ordering::Relaxed);
            self.doubt(guard, object, tap, Reason::BypassedBytes);
        }
        self.tell_with(guard, object, tap, witness);
        self.content.tell(&Place { guard, object, tap }, last);
    }

    /// There is something to tell.
    #[inline]
    pub fn untold(&self) -> bool {
        self.told.load(Ordering::Relaxed) != self.offset()
    }
}
