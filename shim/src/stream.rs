//! The bytes through one tap of one object in one direction: where they stand, and the running tag
//! of the block they are in.
//!
//! A call claims the stream before the real call and releases it after; the order of bytes is known
//! only then. Who finds it claimed leaves a gap of unknown length, and goes on.
//! Streams live in memory that a family of forks shares (see [`crate::objects`]).

use crate::content::{Content, Place};
use crate::mac::Mac;
use crate::thread::Guard;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use counterfoil_abi::record::{Reason, Tap};
use counterfoil_abi::{BLOCK, UNKNOWN};

mod claim;
pub mod offer;
mod run;
mod tell;

use offer::Body;
pub use offer::Offer;
use run::{Run, push_gap};

/// See the module's text.
#[repr(C, align(64))]
pub struct Stream {
    /// Who is in a call ([`lanes::identity`]); 0 nobody.
    claim: AtomicU64,
    /// Bytes that passed, gaps of known length included.
    offset: AtomicU64,
    /// Where the last partial tag was emitted, or the last whole block ended.
    told: AtomicU64,
    /// Calls that could not be recorded (inside another recording).
    missed: AtomicU32,
    /// 1: the running block has a gap; tags begin again at the next block.
    broken: AtomicU32,
    /// State of the running block, where `offset` is inside one and it is not broken.
    mac: UnsafeCell<Mac>,
    /// What is found in its content.
    content: Content,
}

// SAFETY: `mac` is touched only by who holds `claim`.
unsafe impl Sync for Stream {}

/// Bytes in up to a few pieces (iovec).
pub trait Pieces {
    /// Calls `each` with up to `limit` bytes after `skip`, in order.
    fn walk(&self, skip: u64, limit: u64, each: &mut dyn FnMut(&[u8]));
}

impl Pieces for [u8] {
    #[inline]
    fn walk(&self, skip: u64, limit: u64, each: &mut dyn FnMut(&[u8])) {
        let from = (skip as usize).min(self.len());
        let to = from + (limit as usize).min(self.len() - from);
        each(&self[from..to]);
    }
}

impl Stream {
    /// Bytes passed so far.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Relaxed)
    }

    /// Goes on at `offset`, where another program image left off.
    pub fn resume(&self, guard: &Guard, object: u32, tap: Tap, offset: u64) {
        self.offset.store(offset, Ordering::Relaxed);
        self.told.store(offset, Ordering::Relaxed);
        let into = offset % BLOCK;
        if into != 0 {
            self.broken.store(1, Ordering::Relaxed);
            push_gap(guard, object, tap, offset, BLOCK - into, Reason::HandedOver);
        }
    }

    /// From here on offsets may be shifted. Needs no claim.
    pub fn doubt(&self, guard: &Guard, object: u32, tap: Tap, reason: Reason) {
        self.content.doubt();
        push_gap(guard, object, tap, self.offset(), UNKNOWN, reason);
    }

    /// [`Self::doubt`] about what has passed since `offset`.
    pub fn doubt_from(&self, guard: &Guard, object: u32, tap: Tap, offset: u64, reason: Reason) {
        self.content.doubt();
        push_gap(guard, object, tap, offset, UNKNOWN, reason);
    }

    /// Whoever had the stream left it in the middle of a recording: the running block's state may be half of one.
    #[cold]
    pub fn tear(&self, guard: &Guard, object: u32, tap: Tap) {
        self.broken.store(1, Ordering::Relaxed);
        self.doubt_from(guard, object, tap, self.told.load(Ordering::Relaxed), Reason::SharedDescriptor);
    }

    /// `bytes` passed without a tag; the content of the first `looked` of them was [looked at](Self::look). The
    /// stream is claimed.
    pub fn skip(&self, guard: &Guard, object: u32, tap: Tap, bytes: u64, looked: u64, reason: Reason) {
        if bytes == 0 {
            return;
        }
        self.tell(guard, object, tap);
        let offset = self.offset();
        push_gap(guard, object, tap, offset, bytes, reason);
        if looked < bytes {
            self.content.missed(&Place { guard, object, tap }, offset + bytes, bytes - looked);
        }
        self.offset.store(offset + bytes, Ordering::Relaxed);
        self.told.store(offset + bytes, Ordering::Relaxed);
        self.broken.store(u32::from(!(offset + bytes).is_multiple_of(BLOCK)), Ordering::Relaxed);
    }

    /// `bytes` passed and are only counted: the running block has no tag. Needs no claim.
    #[inline]
    pub fn count(&self, bytes: u64) {
        self.content.doubt();
        self.broken.store(1, Ordering::Relaxed);
        self.offset.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Looks at content that passes `ahead` bytes from here, and counts nothing. The stream is claimed.
    pub fn look(&self, guard: &Guard, object: u32, tap: Tap, ahead: u64, data: &[u8]) {
        let place = Place { guard, object, tap };
        self.content.passed(&place, self.offset() + ahead, data, data.len() as u64);
    }

    /// [`Self::count`] of bytes whose content is looked at. The stream is claimed.
    pub fn looked<P: Pieces + ?Sized>(&self, guard: &Guard, object: u32, tap: Tap, data: &P, bytes: u64) {
        let offset = self.offset();
        self.content.passed(&Place { guard, object, tap }, offset, data, bytes);
        self.passed(bytes);
    }

    /// [`Self::count`] of bytes whose content was [looked at](Self::look).
    pub fn passed(&self, bytes: u64) {
        self.broken.store(1, Ordering::Relaxed);
        // Who does not get the stream counts at the same time.
        self.offset.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Begins again at 0: what passed turned out not to have, and no tag was emitted yet; or a file is read
    /// a second time, and its tags will be the same.
    pub fn restart(&self) {
        self.content.clear();
        self.offset.store(0, Ordering::Relaxed);
        self.told.store(0, Ordering::Relaxed);
        self.broken.store(0, Ordering::Relaxed);
    }

    /// Nobody was told of any of it.
    pub fn is_untold(&self) -> bool {
        self.told.load(Ordering::Relaxed) == 0
    }

    /// `bytes` came in. The stream is claimed, and the call has returned.
    #[inline(always)]
    pub fn took<P: Pieces + ?Sized>(&self, guard: &Guard, object: u32, tap: Tap, data: &P, bytes: u64) {
        let offset = self.offset();
        self.tagged(guard, object, tap, data, bytes);
        self.content.passed(&Place { guard, object, tap }, offset, data, bytes);
    }

    /// [`Self::took`] for bytes whose content is looked at elsewhere: they are only tagged.
    #[inline(always)]
    pub fn tagged<P: Pieces + ?Sized>(&self, guard: &Guard, object: u32, tap: Tap, data: &P, bytes: u64) {
        if !self.tagged_within(data, bytes) {
            self.tagged_blocks(guard, object, tap, data, bytes);
        }
    }

    /// [`Self::tagged`] where no block ends, which is most often. False: it's not so.
    #[inline(always)]
    fn tagged_within<P: Pieces + ?Sized>(&self, data: &P, bytes: u64) -> bool {
        let start = self.offset();
        let begins = start.is_multiple_of(BLOCK);
        if start % BLOCK + bytes >= BLOCK || !begins && self.broken.load(Ordering::Relaxed) != 0 {
            return false;
        }
        // SAFETY: claimed.
        let mac = unsafe { &mut *self.mac.get() };
        if begins {
            mac.begin(start);
            self.broken.store(0, Ordering::Relaxed);
        }
        let mut end = start;
        data.walk(0, bytes, &mut |piece| {
            mac.update(piece);
            end += piece.len() as u64;
        });
        self.offset.store(end, Ordering::Relaxed);
        true
    }

    #[inline(never)]
    fn tagged_blocks<P: Pieces + ?Sized>(&self, guard: &Guard, object: u32, tap: Tap, data: &P, bytes: u64) {
        let mut offset = self.offset();
        let mut run = Run::new(offset);
        // SAFETY: claimed.
        let mac = unsafe { &mut *self.mac.get() };
        let mut broken = self.broken.load(Ordering::Relaxed) != 0;
        data.walk(0, bytes, &mut |mut piece| {
            while !piece.is_empty() {
                let into = offset % BLOCK;
                let (now, later) = piece.split_at(piece.len().min((BLOCK - into) as usize));
                piece = later;
                if into == 0 {
                    broken = false;
                    mac.begin(offset);
                }
                offset += now.len() as u64;
                if broken {
                    run.restart(guard, object, tap, offset);
                    continue;
                }
                mac.update(now);
                if offset.is_multiple_of(BLOCK) {
                    run.add(guard, object, tap, &mac.tag());
                }
            }
        });
        run.flush(guard, object, tap);
        self.broken.store(u32::from(broken), Ordering::Relaxed);
        self.offset.store(offset, Ordering::Relaxed);
        if run.any {
            self.told.store(offset - offset % BLOCK, Ordering::Relaxed);
        }
    }

    /// `data` is about to be written: computes its tags into `offer`, or keeps it there if it is short. The stream
    /// is claimed. False: there is no room for the offer, and the call can't be tagged.
    #[inline(always)]
    pub fn offer<P: Pieces + ?Sized>(&self, guard: &Guard, data: &P, bytes: u64, offer: &mut Offer) -> bool {
        let Some(offer) = offer.begin(guard.thread, self.offset(), bytes) else { return false };
        if offer.is_small() {
            offer.keep(data);
        } else {
            self.offer_tags(data, offer);
        }
        true
    }

    /// Of an offer that isn't small.
    #[inline(never)]
    fn offer_tags<P: Pieces + ?Sized>(&self, data: &P, offer: &mut Body) {
        offer.make_room();
        let (mut offset, bytes) = (offer.start, offer.offered);
        let into = offset % BLOCK;
        let within = bytes - offer.beyond;
        let mut count = 0;
        let (rest, tags) = offer.parts();
        if into != 0 && self.broken.load(Ordering::Relaxed) == 0 {
            // SAFETY: claimed.
            rest.copy_from(unsafe { &*self.mac.get() });
        } else if into != 0 {
            // A state to throw away: this block's tag is not used.
            rest.begin(offset);
        }
        data.walk(0, within, &mut |mut piece| {
            while !piece.is_empty() {
                let into = offset % BLOCK;
                if into == 0 {
                    rest.begin(offset);
                }
                let (now, later) = piece.split_at(piece.len().min((BLOCK - into) as usize));
                piece = later;
                offset += now.len() as u64;
                rest.update(now);
                if offset.is_multiple_of(BLOCK) {
                    tags[count] = MaybeUninit::new(rest.tag());
                    count += 1;
                }
            }
        });
        offer.count = count;
    }

    /// The write took `accepted` of the offered bytes. The stream is claimed.
    #[inline(always)]
    pub fn accepted<P: Pieces + ?Sized>(
        &self,
        guard: &Guard,
        object: u32,
        tap: Tap,
        data: &P,
        offer: &mut Offer,
        accepted: u64,
    ) {
        // SAFETY: the stream is claimed to write.
        let offer = unsafe { offer.body() };
        if !offer.pending || accepted == 0 {
            return;
        }
        if accepted > offer.offered {
            // More than there was: whatever that was, it was not this.
            offer.done();
            return self.skip(guard, object, tap, accepted, 0, Reason::BypassedBytes);
        }
        let end = offer.start + accepted;
        if offer.is_small() {
            self.accepted_small(offer, end);
        } else {
            self.accepted_tags(guard, object, tap, data, offer, end);
        }
        self.content.passed(&Place { guard, object, tap }, end - accepted, data, accepted);
    }

    /// Of an offer that isn't small, what passed up to `end`.
    #[inline(never)]
    fn accepted_tags<P: Pieces + ?Sized>(
        &self,
        guard: &Guard,
        object: u32,
        tap: Tap,
        data: &P,
        offer: &mut Body,
        end: u64,
    ) {
        let whole = (end / BLOCK - offer.start / BLOCK) as usize;
        let first_broken = self.broken.load(Ordering::Relaxed) != 0 && !offer.start.is_multiple_of(BLOCK);
        let mut run = Run::new(offer.start);
        for i in 0..whole {
            match offer.tag(i) {
                Some(_) if i == 0 && first_broken => run.skip_block(guard, object, tap),
                Some(tag) => run.add(guard, object, tap, &tag),
                None => break,
            }
        }
        run.flush(guard, object, tap);
        let still_broken = first_broken && whole == 0;
        if end == offer.start + offer.offered && offer.beyond == 0 {
            if !still_broken && !end.is_multiple_of(BLOCK) {
                // SAFETY: claimed.
                unsafe { &mut *self.mac.get() }.copy_from(&offer.rest);
            }
        } else if !still_broken {
            self.settle(guard, object, tap, data, offer, end);
        }
        self.broken.store(
            u32::from(
                still_broken || (self.broken.load(Ordering::Relaxed) == 2 && !end.is_multiple_of(BLOCK)),
            ),
            Ordering::Relaxed,
        );
        self.offset.store(end, Ordering::Relaxed);
        if run.any {
            self.told.store(end - end % BLOCK, Ordering::Relaxed);
        }
        offer.done();
    }

    /// The first bytes of what was kept passed, up to `end`, which lies in the same block.
    #[inline(always)]
    fn accepted_small(&self, offer: &mut Body, end: u64) {
        let begins = offer.start.is_multiple_of(BLOCK);
        if begins || self.broken.load(Ordering::Relaxed) == 0 {
            // SAFETY: claimed.
            let mac = unsafe { &mut *self.mac.get() };
            if begins {
                mac.begin(offer.start);
                self.broken.store(0, Ordering::Relaxed);
            }
            mac.update(offer.kept((end - offer.start) as usize));
        }
        self.offset.store(end, Ordering::Relaxed);
        offer.done();
    }

    /// Less was accepted than was offered, or more was offered than tags were computed for: makes
    /// the running state right for `end`. Sets `broken` to 2 where the buffer changed meanwhile.
    #[cold]
    fn settle<P: Pieces + ?Sized>(
        &self,
        guard: &Guard,
        object: u32,
        tap: Tap,
        data: &P,
        offer: &mut Body,
        end: u64,
    ) {
        let start = offer.start;
        let whole = (end / BLOCK - start / BLOCK) as usize;
        let known = whole.min(offer.count);
        self.broken.store(0, Ordering::Relaxed);
        if whole > offer.count {
            // Blocks behind the provisional ones: tagged from the buffer as it is now. An in-place
            // change below us would be missed there, so they count as not witnessed.
            let from = start - start % BLOCK + (known as u64) * BLOCK;
            push_gap(guard, object, tap, from, end - end % BLOCK - from, Reason::BypassedBytes);
        }
        let block = end - end % BLOCK;
        let from = block.max(start);
        // The running block again from the buffer; and on to what `offer` knows, to see whether
        // the buffer is still what it was before the call.
        // SAFETY: claimed.
        let mac = unsafe { &mut *self.mac.get() };
        if block >= start {
            mac.begin(block);
        }
        data.walk(from - start, end - from, &mut |piece| mac.update(piece));
        let upto = (block + BLOCK).min(start + offer.offered);
        let expected = if upto == block + BLOCK {
            offer.tag(whole)
        } else if offer.beyond == 0 {
            Some(offer.rest.tag())
        } else {
            None
        };
        let check = &mut offer.rest;
        check.copy_from(mac);
        data.walk(end - start, upto - end, &mut |piece| check.update(piece));
        if expected != Some(check.tag()) && end != block {
            push_gap(guard, object, tap, block, BLOCK, Reason::BypassedBytes);
            self.broken.store(2, Ordering::Relaxed);
        }
    }

    /// As new.
    pub fn clear(&self) {
        self.restart();
        self.missed.store(0, Ordering::Relaxed);
        self.claim.store(0, Ordering::Release);
    }
}

#[cfg(test)]
pub mod tests;
