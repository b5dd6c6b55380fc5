//! The arena: one memfd for one observed program image and all its forks.
//!
//! ```text
//! 0      ArenaHead           one page
//! 4096   LaneHead × LANES    128 bytes each
//! 69632  ring × FULL_LANES   LANE_LINES × 64 bytes each
//!        ring × the others   SHORT_LINES × 64 bytes each
//! ```
//! Sparse: only what is touched takes memory. Sealed against resizing by the daemon.

use crate::lane::{LANE_LINES, LaneHead, Slot};
use core::sync::atomic::{AtomicU32, AtomicU64};

/// "cfoilarn", little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"cfoilarn");
/// Lanes in an arena: threads of a program, and of all its forks, that can record at a time.
pub const LANES: usize = 512;
/// The first so many have room for bursts. The others are for programs with more threads or forks, each of which has less to say.
pub const FULL_LANES: usize = 64;
/// Lines in the ring of one of the others.
pub const SHORT_LINES: u64 = 256;
/// Where the lane heads begin.
pub const LANE_HEADS_AT: usize = 4096;
/// Where the rings begin.
pub const RINGS_AT: usize = LANE_HEADS_AT + LANES * size_of::<LaneHead>();
/// Bytes in an arena.
pub const ARENA_BYTES: usize = ring_at(LANES);

/// Policy: tags are wanted (the process is watched). Without it only counts are.
pub const POLICY_WATCHED: u32 = 1;
/// Policy: stop recording.
pub const POLICY_OFF: u32 = 2;
/// Policy: block digests are BLAKE3, not the MAC.
pub const POLICY_BLAKE3: u32 = 4;
/// Policy: block digests are SHA-256, not the MAC.
pub const POLICY_SHA256: u32 = 8;
/// Policy: all content is fingerprinted, not only the start of each stream: it may be found again in
/// another stream.
pub const POLICY_FINGERPRINTS: u32 = 16;
/// Policy: it has to do with sensitive content: fingerprints are dense, and of all taps. The program may
/// set this bit by itself.
pub const POLICY_TURNED_UP: u32 = 32;

/// Policy: the process was given its user's [board](crate::board), and rings its bell. Cleared by the process where it
/// can't call the daemon any more: in a sandbox.
pub const POLICY_BOARD: u32 = 64;

/// Policy: the messages in streams that carry MQTT are told one by one.
pub const POLICY_MESSAGES: u32 = 128;

/// First page of an arena.
#[repr(C)]
pub struct ArenaHead {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`crate::ABI_VERSION`].
    pub abi: u32,
    /// [`LANES`].
    pub lanes: u32,
    /// This arena's number, the daemon's choice.
    pub id: u64,
    /// POLICY bits. Written by the daemon, but for [`POLICY_TURNED_UP`] and [`POLICY_BOARD`].
    pub policy: AtomicU32,
    /// Lanes from here on were never claimed, or below [`FULL_LANES`]. Written by the shim.
    pub reach: AtomicU32,
    pad: [u32; 8],
    /// Written by the shim (a line of its own): 1 when something was published since the daemon
    /// last cleared it. A hint that lets the daemon pass over quiet arenas; it sweeps all of them
    /// now and then.
    pub bell: AtomicU32,
    pad2: u32,
    /// Records that found no free lane.
    pub no_lane: AtomicU64,
    /// Objects that found no free slot.
    pub no_object: AtomicU64,
    pad3: [u64; 5],
}

/// Where lane `index`'s control words are, from the arena's start.
pub const fn lane_head_at(index: usize) -> usize {
    LANE_HEADS_AT + index * size_of::<LaneHead>()
}

/// Lines in lane `index`'s ring.
pub const fn lines(index: usize) -> u64 {
    if index < FULL_LANES { LANE_LINES } else { SHORT_LINES }
}

/// Where lane `index`'s ring is, from the arena's start.
pub const fn ring_at(index: usize) -> usize {
    let full = if index < FULL_LANES { index } else { FULL_LANES };
    let lines = full * LANE_LINES as usize + (index - full) * SHORT_LINES as usize;
    RINGS_AT + lines * size_of::<Slot>()
}
