//! The bytes through one tap of one object in one direction: where they stand, and the running tag
//! of the block they are in.
//!
//! A call claims the stream before the real call and releases it after; the order of bytes is known
//! only then. Who finds it claimed leaves a gap of unknown length, and goes on.
//! Streams live in memory that a family of forks shares (see [`crate::objects`]).

use crate::content::{Content, Place};
use crate::lanes;
use crate::mac::{self, Mac, Wide};
use crate::process;
use crate::thread::{self, Claim, Guard};
use bytemuck::Zeroable;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use counterfoil_abi::record::{Blocks, Gap, Kind, LINE, Line, PARTIAL, Reason, Tap, WIDE, lines_for_tags};
use counterfoil_abi::{BLOCK, UNKNOWN};

pub mod offer;

use offer::Body;
pub use offer::Offer;

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

/// In `claim`: somebody only tells what there is, and is done in a moment.
const TELLING: u64 = 1;
/// How often a call looks again while somebody tells: some 20 µs, in which a teller that lives is done.
const LOOKS: u32 = 10_000;

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

fn remember(guard: &Guard, claim: Claim) {
    if let Some(free) = guard.thread.claims.iter().find(|c| c.get().stream.is_null()) {
        free.set(claim);
    }
}

impl Stream {
    /// Takes the stream for one call. False: somebody else is in a call on it, and a gap says so.
    #[inline]
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
        (other == TELLING || lanes::is_gone(other)) && take(other).is_ok()
    }

    /// Gives the stream back.
    #[inline]
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

    /// `bytes` came in. The stream is claimed, and the call has returned.
    #[inline]
    pub fn took<P: Pieces + ?Sized>(&self, guard: &Guard, object: u32, tap: Tap, data: &P, bytes: u64) {
        let offset = self.offset();
        self.tagged(guard, object, tap, data, bytes);
        self.content.passed(&Place { guard, object, tap }, offset, data, bytes);
    }

    /// [`Self::took`] for bytes whose content is looked at elsewhere: they are only tagged.
    #[inline]
    pub fn tagged<P: Pieces + ?Sized>(&self, guard: &Guard, object: u32, tap: Tap, data: &P, bytes: u64) {
        let mut run = Run::new(self.offset());
        // SAFETY: claimed.
        let mac = unsafe { &mut *self.mac.get() };
        let mut offset = run.start;
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

    /// `data` is about to be written: computes its tags into `offer`. The stream is claimed. False: there
    /// is no room for the offer, and the call can't be tagged.
    #[inline]
    pub fn offer<P: Pieces + ?Sized>(&self, guard: &Guard, data: &P, bytes: u64, offer: &mut Offer) -> bool {
        let mut offset = self.offset();
        let Some(offer) = offer.begin(guard.thread, offset, bytes) else { return false };
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
        true
    }

    /// The call failed: nothing of the offer counts.
    #[inline]
    pub fn refused(&self, offer: &mut Offer) {
        // SAFETY: the stream is claimed to write.
        unsafe { offer.body() }.done();
    }

    /// The write took `accepted` of the offered bytes. The stream is claimed.
    #[inline]
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
        let end = offer.start + accepted;
        let whole = (end / BLOCK - offer.start / BLOCK) as usize;
        let first_broken = self.broken.load(Ordering::Relaxed) != 0 && !offer.start.is_multiple_of(BLOCK);
        let mut run = Run::new(offer.start - offer.start % BLOCK);
        for i in 0..whole {
            match offer.tag(i) {
                Some(_) if i == 0 && first_broken => run.skip_block(guard, object, tap),
                Some(tag) => run.add(guard, object, tap, &tag),
                None => break,
            }
        }
        run.flush(guard, object, tap);
        let still_broken = first_broken && whole == 0;
        if accepted == offer.offered && offer.beyond == 0 {
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
        let start = offer.start;
        offer.done();
        self.content.passed(&Place { guard, object, tap }, start, data, accepted);
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

    /// Emits the tag of the running block as far as it goes, unless that was done. The stream is
    /// claimed.
    #[inline]
    pub fn tell(&self, guard: &Guard, object: u32, tap: Tap) {
        let offset = self.offset();
        let length = offset % BLOCK;
        if length == 0
            || self.told.load(Ordering::Relaxed) == offset
            || self.broken.load(Ordering::Relaxed) != 0
        {
            return;
        }
        self.told.store(offset, Ordering::Relaxed);
        let mut record = Blocks {
            header: lanes::header(Kind::Blocks, 1, tap as u8, object),
            offset: offset - length,
            length: length as u32,
            count: 1,
            ..Zeroable::zeroed()
        };
        record.header.flags = PARTIAL;
        // SAFETY: claimed.
        put(&mut record, 0, &unsafe { &*self.mac.get() }.tag());
        push_blocks(guard, &mut record);
    }

    /// [`Self::tell`] for who holds no claim: does nothing when somebody is in a call. `last`: nothing
    /// follows, at least from this process.
    pub fn try_tell(&self, guard: &Guard, object: u32, tap: Tap, last: bool) {
        if self.claim.compare_exchange(0, TELLING, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            if self.missed.swap(0, Ordering::Relaxed) != 0 {
                self.doubt(guard, object, tap, Reason::BypassedBytes);
            }
            self.tell(guard, object, tap);
            self.content.tell(&Place { guard, object, tap }, last);
            self.release_left();
        }
    }

    /// There is something to tell.
    #[inline]
    pub fn untold(&self) -> bool {
        self.told.load(Ordering::Relaxed) != self.offset()
    }
}

/// Whole blocks in a row, on their way into one record.
struct Run {
    start: u64,
    record: Blocks,
    any: bool,
}

impl Run {
    #[inline]
    fn new(offset: u64) -> Self {
        Self { start: offset, record: Zeroable::zeroed(), any: false }
    }

    #[inline]
    fn add(&mut self, guard: &Guard, object: u32, tap: Tap, tag: &Wide) {
        if !self.any {
            self.record.offset = self.start - self.start % BLOCK;
            self.any = true;
        }
        let index = self.record.count as usize;
        put(&mut self.record, index, tag);
        self.record.count += 1;
        self.record.length += BLOCK as u32;
        if (self.record.count as usize + 1) * units() > self.record.tags.len() {
            self.flush(guard, object, tap);
        }
    }

    /// Passes over a block that has no tag.
    fn skip_block(&mut self, guard: &Guard, object: u32, tap: Tap) {
        self.flush(guard, object, tap);
        let next = if self.any { self.record.offset } else { self.start - self.start % BLOCK } + BLOCK;
        self.record.offset = next;
        self.any = true;
    }

    /// What comes next begins in the block that `offset` lies in (or ends).
    fn restart(&mut self, guard: &Guard, object: u32, tap: Tap, offset: u64) {
        self.flush(guard, object, tap);
        self.record.offset = offset.next_multiple_of(BLOCK);
        self.any = true;
    }

    #[inline]
    fn flush(&mut self, guard: &Guard, object: u32, tap: Tap) {
        if self.record.count == 0 {
            return;
        }
        self.record.header = lanes::header(Kind::Blocks, 1, tap as u8, object);
        push_blocks(guard, &mut self.record);
        self.record.offset += u64::from(self.record.length);
        self.record.length = 0;
        self.record.count = 0;
    }
}

/// Units of a record that one tag takes.
#[inline]
fn units() -> usize {
    process::settings().function.units()
}

/// Writes a tag where the record's `index`th belongs.
#[inline]
fn put(record: &mut Blocks, index: usize, tag: &Wide) {
    if units() == 1 {
        record.tags[index] = mac::first_half(tag);
    } else {
        record.tags[2 * index] = mac::first_half(tag);
        record.tags[2 * index + 1] = mac::second_half(tag);
    }
}

fn push_blocks(guard: &Guard, record: &mut Blocks) {
    let lines = lines_for_tags(record.count as usize * units());
    record.header.lines = lines as u8;
    if units() == 2 {
        record.header.flags |= WIDE;
    }
    let bytes = bytemuck::bytes_of(record);
    let lines: &[Line] = bytemuck::cast_slice(&bytes[..lines * LINE]);
    lanes::push(guard, lines);
}

fn push_gap(guard: &Guard, object: u32, tap: Tap, offset: u64, length: u64, reason: Reason) {
    let record = Gap {
        header: lanes::header(Kind::Gap, 1, tap as u8, object),
        offset,
        length,
        reason: reason as u8,
        pad: [0; 31],
    };
    lanes::push_record(guard, &record);
}

impl Stream {
    /// As new.
    pub fn clear(&self) {
        self.restart();
        self.missed.store(0, Ordering::Relaxed);
        self.claim.store(0, Ordering::Release);
    }
}

#[cfg(test)]
pub mod tests;
