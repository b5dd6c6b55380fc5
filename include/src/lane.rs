//! A lane: a ring of 64-byte lines with one producer (a thread of an observed process) and one
//! consumer (the daemon).
//!
//! A record is published by one release store of `head`, so a producer killed at any instruction
//! leaves no torn record. Neither side waits: a full lane refuses, and the producer counts.
//! Slots are atomics on both sides because the other side may be hostile: a race is then a wrong
//! value, which the reader checks, and never undefined behaviour.

use crate::record::{Line, MAX_LINES};
#[cfg(not(loom))]
use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};

/// Lines in a lane's ring, at most: 256 KiB. A power of two, as all lengths of rings.
#[cfg(not(loom))]
pub const LANE_LINES: u64 = 4096;
/// Small under loom, so that wrapping is explored.
#[cfg(loom)]
pub const LANE_LINES: u64 = 4;

/// Lines that a producer is about to need: a call says one or two.
#[cfg(all(target_arch = "x86_64", not(loom)))]
const SOON: u64 = 2;

/// Set in an owner's tid that is not a thread's number (the thread could not ask for it): its lane
/// is freed when its process is gone, not before.
pub const NO_TID: u32 = 1 << 31;

/// One line of the ring.
pub type Slot = [AtomicU64; 8];

/// The control words of a lane: one cache line for each side.
#[repr(C, align(128))]
pub struct LaneHead {
    /// Lines published since the lane was made. Written by the producer.
    pub head: AtomicU64,
    /// Who produces: pid << 32 | tid as its namespace counts them, 0 when free.
    pub owner: AtomicU64,
    /// Records that found no room. Written by the producer.
    pub dropped: AtomicU64,
    pad: [u64; 5],
    /// Lines consumed. Written by the consumer.
    pub tail: AtomicU64,
    pad2: [u64; 7],
}

#[cfg(loom)]
#[expect(
    clippy::new_without_default,
    reason = "only loom's tests make one; elsewhere the kernel's zeroes are one"
)]
impl LaneHead {
    /// An empty lane. Under loom an atomic can't be made of zeroed memory.
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { head: zero(), owner: zero(), dropped: zero(), pad: [0; 5], tail: zero(), pad2: [0; 7] }
    }
}

/// The writing side; it lives in the producing thread.
pub struct Producer {
    lane: *const LaneHead,
    ring: *const Slot,
    /// Lines in the ring.
    lines: u64,
    head: u64,
    /// What `tail` was when last looked at: the consumer's line is read only when this says "full".
    seen_tail: u64,
}

impl Producer {
    /// Takes up producing where the lane stands.
    ///
    /// # Safety
    /// `lane` and `ring` (with so many slots, a power of two) stay mapped while this lives, and the caller
    /// has claimed the lane: nobody else produces into it.
    pub unsafe fn new(lane: *const LaneHead, ring: *const Slot, lines: u64) -> Self {
        debug_assert!(lines.is_power_of_two());
        // SAFETY: `lane` is mapped (contract).
        let (head, tail) =
            unsafe { ((*lane).head.load(Ordering::Relaxed), (*lane).tail.load(Ordering::Acquire)) };
        Self { lane, ring, lines, head, seen_tail: tail }
    }

    /// More than half of the lane waits to be read: what can be said later is better not said now.
    #[inline]
    pub fn is_crowded(&mut self) -> bool {
        if self.head.wrapping_sub(self.seen_tail) <= self.lines / 2 {
            return false;
        }
        // SAFETY: mapped (contract of `new`). Acquire as in `push`.
        self.seen_tail = unsafe { (*self.lane).tail.load(Ordering::Acquire) };
        self.head.wrapping_sub(self.seen_tail) > self.lines / 2
    }

    /// Publishes one record. False: there was no room, and the lane's `dropped` was counted up.
    #[inline]
    pub fn push(&mut self, record: &[Line]) -> bool {
        if !self.has_room(record.len() as u64) {
            return false;
        }
        for (ahead, line) in (0..).zip(record) {
            self.put(ahead, line);
        }
        self.publish(record.len() as u64);
        true
    }

    /// [`Self::push`] of a record of one line, as most are.
    #[inline]
    pub fn push_line(&mut self, line: &Line) -> bool {
        let room = self.has_room(1);
        if room {
            self.put(0, line);
            self.publish(1);
        }
        room
    }

    #[inline]
    fn has_room(&mut self, need: u64) -> bool {
        self.free() >= need || self.has_room_by_now(need)
    }

    /// Lines that were free when we last looked. A hostile or confused consumer may move the tail anywhere: a
    /// nonsensical distance reads as "full".
    #[inline]
    fn free(&self) -> u64 {
        self.lines.saturating_sub(self.head.wrapping_sub(self.seen_tail))
    }

    #[cold]
    fn has_room_by_now(&mut self, need: u64) -> bool {
        // SAFETY: mapped (contract of `new`).
        let lane = unsafe { &*self.lane };
        // Pairs with the release store in `Consumer::release`: slots below it are free again.
        self.seen_tail = lane.tail.load(Ordering::Acquire);
        let room = self.free() >= need;
        if !room {
            lane.dropped.store(lane.dropped.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        room
    }

    /// One line, `ahead` lines behind what is published.
    #[inline]
    fn put(&self, ahead: u64, line: &Line) {
        let at = (self.head.wrapping_add(ahead) & (self.lines - 1)) as usize;
        // SAFETY: `at` is below `lines`, which is how long the ring is.
        let slot = unsafe { &*self.ring.add(at) };
        for (word, value) in slot.iter().zip(line) {
            word.store(*value, Ordering::Relaxed);
        }
    }

    #[inline]
    fn publish(&mut self, lines: u64) {
        self.head = self.head.wrapping_add(lines);
        // SAFETY: mapped (contract of `new`). Pairs with the acquire load in `Consumer::waiting`: publishes the lines.
        unsafe { (*self.lane).head.store(self.head, Ordering::Release) };
        self.expect();
    }

    /// The lines behind the last record were read by the consumer's processor a lap ago, and a store to such a line
    /// takes as long as a hundred instructions. Whatever waits for all stores (an atomic exchange) would wait for it:
    /// so they are asked for now, and are here when the next record comes.
    #[inline]
    fn expect(&self) {
        #[cfg(all(target_arch = "x86_64", not(loom)))]
        for ahead in 0..SOON {
            let at = (self.head.wrapping_add(ahead) & (self.lines - 1)) as usize;
            // SAFETY: only a hint, of an address within the ring.
            unsafe {
                core::arch::asm!("prefetchw byte ptr [{}]", in(reg) self.ring.add(at), options(nostack, preserves_flags));
            }
        }
    }
}

/// The producer wrote a position or a length that can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hostile;

/// The reading side; the daemon's.
pub struct Consumer {
    lane: *const LaneHead,
    ring: *const Slot,
    /// Lines in the ring.
    lines: u64,
    tail: u64,
}

// SAFETY: the pointers lead to memory shared between processes and touched through atomics only.
unsafe impl Send for Consumer {}

impl Consumer {
    /// Goes on where the lane's own `tail` says.
    ///
    /// # Safety
    /// `lane` and `ring` (with so many slots, a power of two) stay mapped while this lives, and nobody else
    /// consumes.
    pub unsafe fn new(lane: *const LaneHead, ring: *const Slot, lines: u64) -> Self {
        debug_assert!(lines.is_power_of_two());
        // SAFETY: mapped (contract).
        let tail = unsafe { (*lane).tail.load(Ordering::Relaxed) };
        Self { lane, ring, lines, tail }
    }

    /// Lines published and not yet consumed.
    pub fn waiting(&self) -> Result<u64, Hostile> {
        // SAFETY: mapped (contract of `new`).
        // Pairs with the release store in `Producer::push`.
        let head = unsafe { (*self.lane).head.load(Ordering::Acquire) };
        let waiting = head.wrapping_sub(self.tail);
        if waiting > self.lines { Err(Hostile) } else { Ok(waiting) }
    }

    /// Copies the next record out of the ring. `waiting` is what [`Self::waiting`] returned, less
    /// what was taken since. The room is given back by [`Self::release`].
    #[inline]
    pub fn next(&mut self, waiting: u64, out: &mut [Line; MAX_LINES]) -> Result<usize, Hostile> {
        self.copy_line(0, &mut out[0]);
        let lines = usize::from(out[0][0].to_le_bytes()[1]);
        if lines == 0 || lines > MAX_LINES || lines as u64 > waiting {
            return Err(Hostile);
        }
        // Mostly there is one line.
        for (line, at) in out[1..lines].iter_mut().zip(1..) {
            self.copy_line(at, line);
        }
        self.tail = self.tail.wrapping_add(lines as u64);
        Ok(lines)
    }

    #[inline]
    fn copy_line(&self, ahead: u64, out: &mut Line) {
        let at = (self.tail.wrapping_add(ahead) & (self.lines - 1)) as usize;
        // SAFETY: `at` is below `lines`, which is how long the ring is.
        let slot = unsafe { &*self.ring.add(at) };
        for (value, word) in out.iter_mut().zip(slot) {
            *value = word.load(Ordering::Relaxed);
        }
    }

    /// Gives the room of all records taken so far back to the producer.
    pub fn release(&self) {
        // SAFETY: mapped (contract of `new`).
        // Pairs with the acquire load of `tail` in `Producer::push`.
        unsafe { (*self.lane).tail.store(self.tail, Ordering::Release) };
    }

    /// Gives up on what is in the lane (after [`Hostile`]).
    pub fn skip_all(&mut self) {
        // SAFETY: mapped (contract of `new`).
        self.tail = unsafe { (*self.lane).head.load(Ordering::Acquire) };
        self.release();
    }
}
