//! A write that has not been made yet.

use super::Pieces;
use crate::lanes;
use crate::mac::{Mac, Wide};
use crate::scratch::Scratch;
use crate::thread::{self, Thread};
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use counterfoil_abi::BLOCK;
use counterfoil_abi::arena::LANES;

/// Tags that fit into an offer itself (1 MiB of data); a longer write takes a scratch area.
const INLINE: usize = 64;
const _: () = assert!(SMALL as usize <= INLINE * size_of::<Wide>());

/// Bytes of a write that is kept as it is: less than two copies of a running state.
const SMALL: u64 = 1024;

/// What a write's tags will be if all of it is accepted. Only a pointer: the rest lies in memory that
/// the constructor mapped, because a hook may run on a signal handler's small stack.
pub struct Offer(*mut Body);

/// Offers that one thread may have open at once: its own call's, and a signal handler's.
const DEEP: usize = 2;
/// Bytes that the constructor maps.
pub const POOL_BYTES: usize = LANES * DEEP * size_of::<Body>();

static POOL: AtomicPtr<Body> = AtomicPtr::new(null_mut());

/// Hands the pool its memory: private, a part for each lane.
pub fn provide(pool: *mut Body) {
    POOL.store(pool, Ordering::Relaxed);
}

/// What [`super::Stream`] works with.
pub struct Body {
    /// The stream's offset.
    pub start: u64,
    /// Bytes offered.
    pub offered: u64,
    /// Tags of whole blocks.
    pub count: usize,
    /// Bytes at the end for which no room for tags could be had.
    pub beyond: u64,
    /// It may still be accepted.
    pub pending: bool,
    /// Which of its thread's.
    place: u8,
    /// No block ends in it: its bytes are kept in the place of tags, and the running state takes them in when they
    /// were accepted.
    small: bool,
    /// State after the last byte that was tagged; of no use where that is a block's end.
    pub rest: Mac,
    scratch: Option<Scratch>,
    inline: [MaybeUninit<Wide>; INLINE],
}

impl Offer {
    /// No offer yet.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(null_mut())
    }

    /// Starts it: `bytes` bytes from `start` on. None: this thread has no room for one more.
    #[inline(always)]
    pub(super) fn begin(&mut self, thread: &'static Thread, start: u64, bytes: u64) -> Option<&mut Body> {
        let open = thread.offers.get();
        let place = open.trailing_ones() as usize;
        let lane = lanes::index(thread)?;
        if place >= DEEP {
            return None;
        }
        thread.offers.set(open | 1 << place);
        // SAFETY: the pool has DEEP places for each lane; this lane is this thread's, and `offers` says
        // that the place is free. Zeroed memory and what an earlier offer left are valid bodies.
        let body = unsafe {
            self.0 = POOL.load(Ordering::Relaxed).add(lane * DEEP + place);
            &mut *self.0
        };
        body.start = start;
        body.offered = bytes;
        body.count = 0;
        body.beyond = 0;
        body.pending = true;
        body.place = place as u8;
        body.small = bytes <= SMALL && start % BLOCK + bytes < BLOCK;
        Some(body)
    }

    /// What was begun.
    ///
    /// # Safety
    /// [`Self::begin`] came before: whoever claims a stream to write begins an offer.
    #[inline]
    pub(super) unsafe fn body(&mut self) -> &mut Body {
        // SAFETY: contract; the place stays this offer's until it is done.
        unsafe { &mut *self.0 }
    }

    /// The call failed: nothing of it counts, if it was begun.
    #[inline]
    pub fn withdraw(&mut self) {
        // SAFETY: null, or a place in the pool, which stays this offer's until it is done.
        if let Some(body) = unsafe { self.0.as_mut() } {
            body.done();
        }
    }

    /// A mark of the content offered: equal content at one place of a stream has equal marks. Never 0.
    ///
    /// # Safety
    /// As [`Self::body`].
    pub unsafe fn mark(&mut self) -> u64 {
        // SAFETY: contract.
        let body = unsafe { self.body() };
        if body.is_small() {
            // There is little stack: in the place of the state that a small offer has no use for.
            let Body { start, offered, rest, inline, .. } = body;
            rest.begin(*start);
            rest.update(bytes_in(inline, *offered as usize));
            return (*offered ^ eight(&rest.tag())) | 1;
        }
        let mut mark = body.offered;
        for index in 0..body.count {
            mark = mark.rotate_left(7) ^ body.tag(index).map_or(0, |tag| eight(&tag));
        }
        if body.beyond == 0 && !(body.start + body.offered).is_multiple_of(BLOCK) {
            mark ^= eight(&body.rest.tag());
        }
        mark | 1
    }
}

impl Body {
    /// See [`Self::keep`].
    #[inline]
    pub fn is_small(&self) -> bool {
        self.small
    }

    /// Of a small offer: its bytes, as they are before the call.
    #[inline(always)]
    pub fn keep<P: Pieces + ?Sized>(&mut self, data: &P) {
        let (place, room) = (self.inline.as_mut_ptr().cast::<u8>(), self.offered as usize);
        let mut filled = 0;
        data.walk(0, self.offered, &mut |piece| {
            let now = piece.len().min(room - filled);
            // SAFETY: `room` bytes are there: a small offer's fit.
            unsafe { copy(piece.as_ptr(), place.add(filled), now) };
            filled += now;
        });
        // Fewer were there than the call was told of: it will fail, or the program changes its list meanwhile.
        // SAFETY: as above.
        unsafe { place.add(filled).write_bytes(0, room - filled) };
    }

    /// The first `bytes` of what was kept.
    #[inline]
    pub fn kept(&self, bytes: usize) -> &[u8] {
        bytes_in(&self.inline, bytes.min(self.offered as usize))
    }

    /// Of an offer that isn't small: room for its tags.
    #[inline]
    pub fn make_room(&mut self) {
        let into = self.start % BLOCK;
        self.scratch = if into + self.offered > INLINE as u64 * BLOCK { Scratch::take() } else { None };
        self.beyond = self.offered.saturating_sub(self.parts().1.len() as u64 * BLOCK - into);
    }

    /// The state at the end, and room for tags.
    #[inline]
    pub fn parts(&mut self) -> (&mut Mac, &mut [MaybeUninit<Wide>]) {
        let tags = match &mut self.scratch {
            Some(scratch) => scratch.tags(),
            None => &mut self.inline[..],
        };
        (&mut self.rest, tags)
    }

    /// The tag of the `index`th block.
    #[inline]
    pub fn tag(&mut self, index: usize) -> Option<Wide> {
        // SAFETY: `Stream::offer` has set the first `count`.
        (index < self.count).then(|| unsafe { self.parts().1[index].assume_init() })
    }

    /// It is settled, one way or the other.
    #[inline(always)]
    pub fn done(&mut self) {
        if core::mem::replace(&mut self.pending, false) {
            if self.small {
                // What the program wrote stays nowhere.
                let bytes = self.offered as usize;
                // SAFETY: as in `keep`.
                unsafe { self.inline.as_mut_ptr().cast::<u8>().write_bytes(0, bytes) };
            }
            let offers = &thread::current().offers;
            offers.set(offers.get() & !(1 << self.place));
        }
        if let Some(scratch) = self.scratch.take() {
            scratch.give_back();
        }
    }
}

/// Not by memcpy: what stands in its place in this process may be what changes data on their way, and would change our
/// copy with them.
///
/// # Safety
/// As `ptr::copy_nonoverlapping`, of bytes.
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: contract; the direction flag is clear in every function (System V ABI, 3.2.3).
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rcx") bytes => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    for at in 0..bytes {
        // SAFETY: contract. Volatile, so that no loop becomes a call of memcpy.
        unsafe { to.add(at).write_volatile(from.add(at).read()) };
    }
}

/// Of a small offer: the first `bytes` of those that it offers.
#[inline]
fn bytes_in(place: &[MaybeUninit<Wide>; INLINE], bytes: usize) -> &[u8] {
    // SAFETY: zeroed memory, in which `keep` has set as many as are offered.
    unsafe { core::slice::from_raw_parts(place.as_ptr().cast(), bytes) }
}

fn eight(tag: &Wide) -> u64 {
    let mut half = [0; 8];
    half.copy_from_slice(&tag[..8]);
    u64::from_le_bytes(half)
}
