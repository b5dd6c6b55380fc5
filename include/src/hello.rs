//! Hello: what a program image and the daemon say to each other once, when it starts.
//!
//! Over a SOCK_SEQPACKET Unix socket: one [`Request`] with its inherited descriptors, one
//! [`Reply`] that carries the arena's memfd as SCM_RIGHTS, and behind it those of the [`crate::matcher`] and of the
//! user's [`crate::board`], where sensitive files are followed. Then both close. The daemon takes the asker's identity from
//! SO_PEERCRED and nothing from the request's own word.

use crate::record::Opened;
use bytemuck::{Pod, Zeroable};

/// "cfoilhi1", little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"cfoilhi1");
/// Inherited sockets and pipes that a request may tell of.
pub const MAX_INHERITED: usize = 16;

/// What the shim sends.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Request {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`crate::ABI_VERSION`].
    pub abi: u32,
    /// pid as the asker's namespace counts it.
    pub pid: u32,
    /// Entries used in `inherited`.
    pub inherited_len: u32,
    /// 0, or why the program can't be observed: [`NO_MEMORY`]. The answer is [`DECLINED`] then.
    pub inert: u32,
    /// Sockets and pipes that were open when the program started; `header.object` is the number
    /// that the shim gave it.
    pub inherited: [Opened; MAX_INHERITED],
}

/// Its limits leave the program no room for our memory.
pub const NO_MEMORY: u32 = 1;

/// The request was granted; the memfd comes with the reply.
pub const GRANTED: u32 = 0;
/// Another ABI version.
pub const WRONG_ABI: u32 = 1;
/// The daemon doesn't want this process observed, or has no room.
pub const DECLINED: u32 = 2;

/// Where an inherited object's offsets go on.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Resume {
    /// Bytes that had been sent or written, or [`crate::UNKNOWN`] (never witnessed).
    pub out_offset: u64,
    /// Bytes that had been received or read, or [`crate::UNKNOWN`].
    pub in_offset: u64,
}

/// What the daemon answers.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Reply {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`crate::ABI_VERSION`] of the daemon.
    pub abi: u32,
    /// [`GRANTED`], [`WRONG_ABI`] or [`DECLINED`].
    pub status: u32,
    /// Size of the memfd.
    pub arena_bytes: u64,
    /// POLICY bits, as in the arena's head.
    pub policy: u32,
    /// Zero.
    pub pad: u32,
    /// The key of all tags, shared by a host or fleet.
    pub key: [u8; 16],
    /// One for each inherited entry of the request, in its order.
    pub resume: [Resume; MAX_INHERITED],
}
