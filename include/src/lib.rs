//! The ABI between the preloaded library (shim) and the daemon.
//!
//! Comes in: facts about bytes that passed a tap. Goes out: the same facts, as [`record`]s in a
//! [`lane`] of an [`arena`]. The shim writes, the daemon reads; neither imports the other.
//! `counterfoil.h` beside this crate is the C mirror of every layout here; a test keeps them equal.
#![no_std]

pub mod arena;
pub mod board;
pub mod build_id;
pub mod class;
pub mod hello;
pub mod images;
pub mod lane;
pub mod matcher;
pub mod prints;
pub mod record;
pub mod sha256;

/// Version of everything in this crate. A daemon refuses a shim of another version and says so; the
/// shim then stays inert. A daemon that takes the place of one of another version gives up the arenas of that one.
///
/// It goes up with the first change after a release of any layout, code or meaning in this crate. Still 1, as there was no
/// release yet: until then library and daemon fit if they were built from the same sources, and nothing but the sizes of
/// the arena and of the messages tells others apart. What stays as it is in every version: the `magic` and `abi` of each
/// message, the status of a reply, and the arena's head up to and with `policy`.
pub const ABI_VERSION: u32 = 1;

/// Bytes in one block of a stream; blocks lie at multiples of this from the stream's start.
pub const BLOCK: u64 = 16 * 1024;

/// The keyed MAC of one block.
pub type Tag = [u8; 16];

/// "Not known", wherever a length or a count of bytes may be unknown.
pub const UNKNOWN: u64 = u64::MAX;
