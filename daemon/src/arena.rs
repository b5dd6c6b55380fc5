//! The daemon's view of an arena: with `bells` the only unsafe code of the stages.
//!
//! Comes in: a sealed memfd. Goes out: safe accessors to its head and lanes, and
//! [`Consumer`]s. `host` makes arenas, `collect` reads them. Control words and rings are two
//! mappings: a quiet arena costs three pages, and its rings are never mapped.

use counterfoil_abi::arena::{
    ARENA_BYTES, ArenaHead, FULL_LANES, LANE_HEADS_AT, LANES, MAGIC, POLICY_OFF, RINGS_AT, lines, ring_at,
};
use counterfoil_abi::lane::{Consumer, Hostile, LaneHead, Slot};
use counterfoil_abi::record::{Line, MAX_LINES};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

/// Makes an arena's memfd: sized, headed, and sealed against resizing, so that nobody can cut it
/// under the daemon (SIGBUS). It is not sealed against further seals: that is how the daemon
/// learns that no process maps it any more ([`Arena::close`]).
pub fn create(id: u64, policy: u32) -> io::Result<OwnedFd> {
    let fd = memfd_create("counterfoil", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, ARENA_BYTES as u64)?;
    let mut head = [0u8; 40];
    head[0..8].copy_from_slice(&MAGIC.to_ne_bytes());
    head[8..12].copy_from_slice(&counterfoil_abi::ABI_VERSION.to_ne_bytes());
    head[12..16].copy_from_slice(&(LANES as u32).to_ne_bytes());
    head[16..24].copy_from_slice(&id.to_ne_bytes());
    head[24..28].copy_from_slice(&policy.to_ne_bytes());
    let mut written = 0;
    while written < head.len() {
        written += rustix::io::pwrite(&fd, &head[written..], written as u64)?;
    }
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(fd)
}

/// The ABI version of an arena that another daemon made. None: it is none.
pub fn version(fd: &OwnedFd) -> Option<u32> {
    let mut head = [0u8; 12];
    let whole = rustix::io::pread(fd, &mut head, 0).ok()? == head.len();
    let (magic, abi) = head.split_first_chunk()?;
    (whole && u64::from_ne_bytes(*magic) == MAGIC)
        .then(|| u32::from_ne_bytes(abi.try_into().unwrap_or_default()))
}

/// It is of this daemon's version, and as large as that.
pub fn fits(fd: &OwnedFd) -> bool {
    let large = rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_size as u64 == ARENA_BYTES as u64);
    large && version(fd) == Some(counterfoil_abi::ABI_VERSION)
}

/// Nobody will read it: its programs need not record. (Where the policy stands is the same in all versions.)
pub fn give_up(fd: &OwnedFd) {
    let at = std::mem::offset_of!(ArenaHead, policy) as u64;
    let _ = rustix::io::pwrite(fd, &POLICY_OFF.to_ne_bytes(), at);
}

/// A mapped arena. Small, so that a thousand bells can be looked at without touching much else.
pub struct Arena {
    /// Where `rest.control` is mapped.
    base: *const u8,
    rest: Box<Rest>,
}

// SAFETY: the pointers lead to mappings that the arena owns, touched through atomics only.
unsafe impl Send for Arena {}

struct Rest {
    control: MmapRaw,
    rings: Option<MmapRaw>,
    lanes: Vec<Option<Consumer>>,
    fd: OwnedFd,
    /// Nobody else maps it; our mapping is private.
    closed: bool,
}

impl Arena {
    /// Maps the control words of an arena.
    pub fn map(fd: OwnedFd) -> io::Result<Self> {
        if rustix::fs::fstat(&fd)?.st_size as u64 != ARENA_BYTES as u64 {
            return Err(io::Error::other("not an arena's size"));
        }
        let control = map_shared(&fd, 0, RINGS_AT)?;
        let base = control.as_ptr();
        Ok(Self { base, rest: Box::new(Rest { control, rings: None, lanes: Vec::new(), fd, closed: false }) })
    }

    /// Gives the control words another mapping.
    fn remap(&mut self, control: MmapRaw) {
        self.base = control.as_ptr();
        self.rest.control = control;
    }

    /// The memfd.
    pub fn fd(&self) -> rustix::fd::BorrowedFd<'_> {
        self.rest.fd.as_fd()
    }

    fn head(&self) -> &ArenaHead {
        // SAFETY: the mapping is RINGS_AT bytes, page-aligned, lives as long as self, and begins with an
        // ArenaHead. What the other side may write at the same time are the atomics; the plain
        // fields are never read through this reference.
        unsafe { &*self.base.cast::<ArenaHead>() }
    }

    fn lane_head(&self, lane: usize) -> &LaneHead {
        assert!(lane < LANES);
        // SAFETY: LANES lane heads follow LANE_HEADS_AT within the mapping, 128-aligned; all their
        // fields that are read are atomics.
        unsafe { &*self.base.add(LANE_HEADS_AT).cast::<LaneHead>().add(lane) }
    }

    /// Was something published since the bell was cleared?
    #[inline]
    pub fn bell(&self) -> bool {
        self.head().bell.load(Ordering::Relaxed) != 0
    }

    /// The bell is looked at soon. Each is a page of its own, a miss of the cache and of the TLB: a thousand of them
    /// cost less when several are fetched at once.
    #[inline]
    pub fn anticipate(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint to the processor, which reads and faults nowhere. (Rust has one for other processors, but
        // not in its stable library.)
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>((&raw const self.head().bell).cast());
        }
    }

    /// Clears the bell. The caller looks at the lanes again at least one tick later, so no fence is
    /// needed against a producer that saw the old value.
    pub fn clear_bell(&self) {
        self.head().bell.store(0, Ordering::Relaxed);
    }

    /// Sets the policy word.
    pub fn set_policy(&self, policy: u32) {
        self.head().policy.store(policy, Ordering::Relaxed);
    }

    /// Sets some bits of the policy word, whatever the program has made of the others.
    pub fn set_bits(&self, bits: u32) {
        self.head().policy.fetch_or(bits, Ordering::Relaxed);
    }

    /// The policy word, of which the program may set bits, too.
    pub fn policy(&self) -> u32 {
        self.head().policy.load(Ordering::Relaxed)
    }

    /// Clears some.
    pub fn clear_bits(&self, bits: u32) {
        self.head().policy.fetch_and(!bits, Ordering::Relaxed);
    }

    /// Records that found no free lane, and objects that found no slot.
    pub fn turned_away(&self) -> u64 {
        let head = self.head();
        head.no_lane.load(Ordering::Relaxed).saturating_add(head.no_object.load(Ordering::Relaxed))
    }

    /// Lanes that may be in use: those below.
    pub fn reach(&self) -> usize {
        (self.head().reach.load(Ordering::Relaxed) as usize).clamp(FULL_LANES, LANES)
    }

    /// Who produces into the lane: pid and tid as its namespace counts them.
    pub fn owner(&self, lane: usize) -> Option<(u32, u32)> {
        let owner = self.lane_head(lane).owner.load(Ordering::Relaxed);
        (owner != 0).then_some(((owner >> 32) as u32, owner as u32))
    }

    /// Gives a lane back whose thread is gone, if `owner` still has it.
    pub fn free_lane(&self, lane: usize, owner: (u32, u32)) {
        let word = u64::from(owner.0) << 32 | u64::from(owner.1);
        // Release: what we consumed is consumed before another thread claims the lane.
        let _ = self.lane_head(lane).owner.compare_exchange(word, 0, Ordering::Release, Ordering::Relaxed);
    }

    /// Records that found no room in the lane.
    pub fn dropped(&self, lane: usize) -> u64 {
        self.lane_head(lane).dropped.load(Ordering::Relaxed)
    }

    /// Has the lane moved since it was last consumed? One load, rings need not be mapped.
    #[inline]
    pub fn stirred(&self, lane: usize) -> bool {
        let head = self.lane_head(lane);
        head.head.load(Ordering::Relaxed) != head.tail.load(Ordering::Relaxed)
    }

    /// Lines that wait in the lane, as it says itself: it may lie.
    pub fn waiting(&self, lane: usize) -> u64 {
        let head = self.lane_head(lane);
        head.head.load(Ordering::Relaxed).wrapping_sub(head.tail.load(Ordering::Relaxed))
    }

    /// Takes what is in the lane (at most one ring), record by record, and gives the room back.
    /// `f` returns false to stop at once: the rest of the lane is given up.
    pub fn read(&mut self, lane: usize, mut f: impl FnMut(&[Line]) -> bool) -> Result<u64, ReadError> {
        let consumer = self.consumer(lane)?;
        let mut waiting = consumer.waiting()?;
        let mut out = [[0u64; 8]; MAX_LINES];
        let mut records = 0;
        let mut unreleased = 0;
        while waiting > 0 {
            let lines = match consumer.next(waiting, &mut out) {
                Ok(lines) => lines,
                Err(hostile) => {
                    consumer.skip_all();
                    return Err(hostile.into());
                }
            };
            waiting -= lines as u64;
            records += 1;
            unreleased += lines;
            if !f(&out[..lines]) {
                consumer.skip_all();
                return Err(Hostile.into());
            }
            if unreleased >= 256 {
                consumer.release();
                unreleased = 0;
            }
        }
        if unreleased > 0 {
            consumer.release();
        }
        Ok(records)
    }

    fn consumer(&mut self, lane: usize) -> io::Result<&mut Consumer> {
        assert!(lane < LANES);
        if self.rest.rings.is_none() {
            let rings = if self.rest.closed {
                map_private(&self.rest.fd, RINGS_AT, ARENA_BYTES - RINGS_AT)?
            } else {
                map_shared(&self.rest.fd, RINGS_AT, ARENA_BYTES - RINGS_AT)?
            };
            self.rest.rings = Some(rings);
        }
        if self.rest.lanes.len() <= lane {
            // Most programs need the first ones only.
            self.rest.lanes.resize_with(lane + 1, || None);
        }
        let rings = self.rest.rings.as_ref().ok_or_else(|| io::Error::other("not mapped"))?.as_ptr();
        let head: *const LaneHead = self.lane_head(lane);
        Ok(self.rest.lanes[lane].get_or_insert_with(|| {
            // SAFETY: `lane` is below LANES, so the ring lies within the mapping.
            let ring = unsafe { rings.add(ring_at(lane) - RINGS_AT) }.cast::<Slot>();
            // SAFETY: both mappings live as long as self, and `lanes` is cleared before either is
            // dropped (`unmap`; field order does not matter: a Consumer has no Drop). This daemon
            // is the only consumer: it alone has this `Arena`.
            unsafe { Consumer::new(head, ring, lines(lane)) }
        }))
    }

    /// Finds out whether any process still maps the arena, and if none does, makes sure that none
    /// ever will: sealing against writes succeeds only when there is no writable mapping.
    /// True: nobody maps it; what is in it now is all there will be. It can still be read.
    pub fn close(&mut self) -> io::Result<bool> {
        if self.rest.closed {
            return Ok(true);
        }
        self.rest.lanes.clear();
        self.rest.rings = None;
        let placeholder = MmapOptions::new().len(RINGS_AT).map_anon()?;
        self.remap(placeholder.into());
        let sealed = fcntl_add_seals(&self.rest.fd, SealFlags::WRITE);
        match sealed {
            Ok(()) => {
                self.remap(map_private(&self.rest.fd, 0, RINGS_AT)?);
                self.rest.closed = true;
                Ok(true)
            }
            Err(rustix::io::Errno::BUSY) => {
                self.remap(map_shared(&self.rest.fd, 0, RINGS_AT)?);
                Ok(false)
            }
            Err(_) => {
                // Somebody sealed the seals: a liar, whose arena is read once more and given up.
                self.remap(map_private(&self.rest.fd, 0, RINGS_AT)?);
                self.rest.closed = true;
                Ok(true)
            }
        }
    }
}

fn map_shared(fd: &OwnedFd, offset: usize, len: usize) -> io::Result<MmapRaw> {
    MmapOptions::new().offset(offset as u64).len(len).map_raw(fd)
}

/// A copy-on-write view: a sealed memfd has no shared writable one.
fn map_private(fd: &OwnedFd, offset: usize, len: usize) -> io::Result<MmapRaw> {
    // SAFETY: the memfd is sealed against shrinking (checked by its size and our own seals), so no
    // access can fault; the mapping is only touched through atomics.
    let map = unsafe { MmapOptions::new().offset(offset as u64).len(len).map_copy(fd) }?;
    Ok(map.into())
}

/// Why a lane could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It holds what no library of ours writes.
    #[error("a lane's positions or lengths can't be")]
    Hostile,
    /// It could not be mapped.
    #[error("cannot map an arena: {0}")]
    Map(#[from] io::Error),
}

impl From<Hostile> for ReadError {
    fn from(_: Hostile) -> Self {
        Self::Hostile
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_is_closed_only_when_nobody_else_maps_it() {
        let fd = create(7, 0).unwrap();
        let theirs = map_shared(&fd.try_clone().unwrap(), 0, ARENA_BYTES).unwrap();
        let mut arena = Arena::map(fd).unwrap();
        assert!(!arena.close().unwrap());
        // SAFETY: within the mapping, as in `Arena::head`.
        unsafe { &*theirs.as_ptr().cast::<ArenaHead>() }.bell.store(1, Ordering::Relaxed);
        assert!(arena.bell(), "still shared after the look");
        drop(theirs);
        assert!(arena.close().unwrap());
        assert!(arena.bell());
        assert!(!arena.stirred(63));
        assert_eq!(arena.read(63, |_| true).unwrap(), 0);
    }

    #[test]
    fn an_arena_of_another_version_is_known_and_given_up() {
        let fd = create(7, 0).unwrap();
        assert!(fits(&fd));
        rustix::io::pwrite(&fd, &77u32.to_ne_bytes(), 8).unwrap();
        assert!(version(&fd) == Some(77) && !fits(&fd));
        give_up(&fd);
        assert_eq!(Arena::map(fd).unwrap().policy(), POLICY_OFF);
        let other = memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(version(&other), None);
    }

    #[test]
    fn an_arena_cannot_be_resized() {
        let fd = create(7, 0).unwrap();
        assert!(ftruncate(&fd, 0).is_err());
        assert!(ftruncate(&fd, 1 << 40).is_err());
    }
}
