//! Room for the tags of one very long write. Mapped by the constructor, so that no hook allocates.

use crate::mac::Wide;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use counterfoil_abi::BLOCK;

/// Areas in the pool: long writes that may be under way at once in one process.
pub const AREAS: usize = 8;
/// Tags in one area: no single write moves more (Linux: MAX_RW_COUNT, just below 2 GiB).
const TAGS: usize = ((2u64 << 30) / BLOCK) as usize + 1;

/// Bytes that the constructor maps for one of them.
pub const AREA_BYTES: usize = TAGS * size_of::<Wide>();

static POOL: AtomicPtr<MaybeUninit<Wide>> = AtomicPtr::new(core::ptr::null_mut());
static TAKEN: AtomicU32 = AtomicU32::new(0);
/// Those that aren't there, a bit each.
static MISSING: AtomicU32 = AtomicU32::new(0);

/// One area, taken. An area whose call was left by siglongjmp or cancellation stays taken until
/// the next fork; with none left, long writes have a gap.
pub struct Scratch(usize);

/// Hands the pool its memory: so many areas.
pub fn provide(pool: *mut MaybeUninit<Wide>, areas: usize) {
    POOL.store(pool, Ordering::Relaxed);
    MISSING.store(!0 << areas, Ordering::Relaxed);
    reset();
}

/// In a forked child: other threads' areas are free again.
pub fn reset() {
    TAKEN.store(MISSING.load(Ordering::Relaxed), Ordering::Relaxed);
}

impl Scratch {
    /// An area, if one is free.
    #[cold]
    pub fn take() -> Option<Self> {
        let taken = TAKEN.load(Ordering::Relaxed);
        let index = taken.trailing_ones() as usize;
        // Acquire pairs with the release in `give_back`: the area's last user is done with it.
        (index < AREAS
            && TAKEN
                .compare_exchange(taken, taken | 1 << index, Ordering::Acquire, Ordering::Relaxed)
                .is_ok())
        .then_some(Self(index))
    }

    /// The area.
    pub fn tags(&mut self) -> &mut [MaybeUninit<Wide>] {
        // SAFETY: the pool holds so many areas, mapped for good; `TAKEN` makes this one ours alone.
        unsafe { core::slice::from_raw_parts_mut(POOL.load(Ordering::Relaxed).add(self.0 * TAGS), TAGS) }
    }

    /// The area as bytes, for names.
    pub fn bytes(&mut self) -> &mut [MaybeUninit<u8>] {
        let tags = self.tags();
        // SAFETY: the same memory; bytes need no alignment.
        unsafe { core::slice::from_raw_parts_mut(tags.as_mut_ptr().cast(), size_of_val(tags)) }
    }

    /// Gives it back. Not a destructor: an offer lives across the real call, which may be left by
    /// a forced unwind.
    pub fn give_back(self) {
        // Pairs with the acquire in `take`.
        TAKEN.fetch_and(!(1 << self.0), Ordering::Release);
    }
}
