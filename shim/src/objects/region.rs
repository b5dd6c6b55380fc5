//! Where objects stand: memory that the constructor maps, and more of it as it is needed.

use super::Object;
use crate::process;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// Objects that a family can have open at once.
pub const SLOTS: u32 = 32768;
/// They are mapped in chunks, as they are needed: a program may have little room for addresses, or lock all that it has. The
/// first one holds [`FEW`] slots, each of the others as many as all before it.
const CHUNKS: usize = (SLOTS / FEW).trailing_zeros() as usize + 1;
const PAGE: usize = 4096;
/// Bytes that stay mapped from the start.
pub const FIRST_BYTES: usize = pages_of(0).end;

#[repr(C, align(64))]
pub struct Counters {
    pub last_number: AtomicU32,
    pub look_from: AtomicU32,
    /// Slots from here on were never used; 0 stands for [`FEW`].
    pub ceiling: AtomicU32,
    /// Slots that were given back last, one more than its index each, 0: taken. What was used a moment ago is at
    /// hand, where a program opens one file after the other.
    pub given_back: [AtomicU32; GIVEN_BACK],
    /// How many were: the oldest of them stands where the next one will.
    pub given: AtomicU32,
}

/// Not the last one is used again at once, since another thread may still be in a call on what it was.
pub const GIVEN_BACK: usize = 64;

/// Slots that are used in turn as long as one of them is free: not all of them, since what was used once
/// takes memory.
pub const FEW: u32 = 256;

static REGION: AtomicPtr<Counters> = AtomicPtr::new(core::ptr::null_mut());
/// Where slot 0 would be if all were in one piece with each chunk; null: it is not mapped in this process.
static CHUNK: [AtomicPtr<Object>; CHUNKS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; CHUNKS];
/// How large the memory is that a family shares.
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// Which chunk a slot is in.
#[inline]
fn chunk_of(index: u32) -> usize {
    (u32::BITS - (index / FEW).leading_zeros()) as usize
}

/// A chunk's pages within the region, from the last page of the chunk before: by that it is found.
const fn pages_of(chunk: usize) -> core::ops::Range<usize> {
    const fn end(chunk: usize) -> usize {
        (size_of::<Counters>() + ((FEW as usize) << chunk) * size_of::<Object>()).next_multiple_of(PAGE)
    }
    let first = if chunk == 0 { 0 } else { end(chunk - 1) - PAGE };
    first..end(chunk)
}

/// Sizes that the region may have, the largest first: room for all slots, for a half of them, …
pub fn sizes() -> impl Iterator<Item = usize> {
    (0..CHUNKS).rev().map(|chunk| pages_of(chunk).end)
}

/// Hands the region its memory: shared, zeroed, `bytes` of it. What is not needed yet is given back; by the last page that is kept
/// the rest is found again.
///
/// # Safety
/// One of [`sizes`], mapped for this.
pub unsafe fn provide(region: *mut u8, bytes: usize) {
    if bytes > FIRST_BYTES {
        // SAFETY: contract; nobody knows of it yet. If the kernel refuses, it stays.
        let _ = unsafe { rustix::mm::munmap(region.add(FIRST_BYTES).cast(), bytes - FIRST_BYTES) };
    }
    BYTES.store(bytes, Ordering::Relaxed);
    REGION.store(region.cast(), Ordering::Relaxed);
    // SAFETY: the slots stand behind the counters.
    CHUNK[0].store(unsafe { region.cast::<Counters>().add(1) }.cast(), Ordering::Relaxed);
}

pub fn counters() -> &'static Counters {
    // SAFETY: mapped for good, and all atomics.
    unsafe { &*REGION.load(Ordering::Relaxed) }
}

/// What stands in a slot, if its chunk is mapped here.
#[inline]
pub fn slot(index: u32) -> Option<&'static Object> {
    debug_assert!(index < SLOTS);
    // Acquire pairs with the release in `map`.
    let base = CHUNK[chunk_of(index)].load(Ordering::Acquire);
    // SAFETY: the chunk is mapped for good and holds this slot; an Object is valid at any bytes' value.
    (!base.is_null()).then(|| unsafe { &*base.wrapping_add(index as usize) })
}

/// What stands in a slot; its chunk is mapped if that was never done.
pub fn reach(index: u32) -> Option<&'static Object> {
    slot(index).or_else(|| {
        map(chunk_of(index))?;
        slot(index)
    })
}

/// Maps a chunk, and those before it: their last page is mapped once more, with those behind it. (A length of 0 stands for
/// that, of shared memory: mremap(2).) None: the kernel refuses, and what there is must do.
#[cold]
fn map(chunk: usize) -> Option<()> {
    /// It did so once.
    static REFUSED: AtomicBool = AtomicBool::new(false);
    let before = chunk.checked_sub(1).filter(|_| pages_of(chunk).end <= BYTES.load(Ordering::Relaxed))?;
    if CHUNK[before].load(Ordering::Acquire).is_null() {
        map(before)?;
    }
    if process::sandboxed() || REFUSED.load(Ordering::Relaxed) {
        return None;
    }
    let pages = pages_of(chunk);
    let from_slots = pages.start - size_of::<Counters>();
    let page = CHUNK[before].load(Ordering::Acquire).wrapping_byte_add(from_slots);
    let may_move = rustix::mm::MremapFlags::MAYMOVE;
    // SAFETY: the page stays mapped, and the mapping is a new one, at an address of the kernel's choice.
    let at = unsafe { rustix::mm::mremap(page.cast(), 0, pages.len(), may_move) };
    let Ok(at) = at else {
        REFUSED.store(true, Ordering::Relaxed);
        return None;
    };
    let slots = at.wrapping_byte_sub(from_slots);
    // Release pairs with the acquire in `slot`.
    let first = CHUNK[chunk].compare_exchange(
        core::ptr::null_mut(),
        slots.cast(),
        Ordering::Release,
        Ordering::Relaxed,
    );
    if first.is_err() {
        // SAFETY: nobody was shown it.
        let _ = unsafe { rustix::mm::munmap(at, pages.len()) };
    }
    Some(())
}

/// The object in which this address lies, if it lies in one.
pub fn around(address: usize) -> Option<&'static Object> {
    (0..CHUNKS).find_map(|chunk| {
        let first = CHUNK[chunk].load(Ordering::Acquire);
        let index = address.wrapping_sub(first.addr()) / size_of::<Object>();
        let index = u32::try_from(index).ok().filter(|&index| index < SLOTS && chunk_of(index) == chunk)?;
        slot(index)
    })
}

#[cfg(test)]
mod tests;
