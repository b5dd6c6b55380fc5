//! The tag of one block, as it grows: AEGIS-128X2 as a MAC, or on request (`stream_digest`) BLAKE3 or
//! SHA-256, which stand against who holds the key, too.
//!
//! All are keyed for the host and start from the block's index. So equal content at equal offsets has
//! equal tags at every tap, and a tag tells nothing of its content to who hasn't got the key.

use crate::process;
use aegis::aegis128x2::Aegis128X2Mac;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicI32, Ordering};
use counterfoil_abi::arena::{POLICY_BLAKE3, POLICY_SHA256};
use counterfoil_abi::{BLOCK, Tag};
use sha2::{Digest as _, Sha256};

/// Bytes of the longest tag.
pub const WIDEST: usize = 32;

/// Which function makes the tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Function {
    /// Not begun. Zero, because streams lie in zeroed memory.
    None = 0,
    /// 16 bytes.
    Aegis,
    /// 32 bytes.
    Blake3,
    /// 32 bytes.
    Sha256,
}

impl Function {
    /// What a policy asks for.
    pub fn of_policy(policy: u32) -> Self {
        match policy {
            p if p & POLICY_BLAKE3 != 0 => Self::Blake3,
            p if p & POLICY_SHA256 != 0 => Self::Sha256,
            _ => Self::Aegis,
        }
    }

    /// Units of a record that one tag takes.
    #[inline]
    pub fn units(self) -> usize {
        if matches!(self, Self::Blake3 | Self::Sha256) { 2 } else { 1 }
    }
}

/// A tag; the MAC's fill the first half.
pub type Wide = [u8; WIDEST];

/// The running state of a block that is not yet whole. It is changed in place and never moved: the
/// states are large, and only the one in use is touched.
#[repr(C)]
pub struct Mac {
    function: Function,
    state: State,
}

#[repr(C)]
union State {
    none: (),
    aegis: ManuallyDrop<Aegis128X2Mac<16>>,
    blake3: ManuallyDrop<blake3::Hasher>,
    sha256: ManuallyDrop<Sha256>,
}

unsafe extern "C" {
    /// See csrc/late.c.
    static counterfoil_tags: AtomicI32;
}

/// The nonce of what is not a block of a stream: a ClientHello's random.
const HELLO: u64 = u64::MAX;

impl Mac {
    /// Nothing yet; `begin` comes first.
    #[inline]
    pub const fn new() -> Self {
        Self { function: Function::None, state: State { none: () } }
    }

    /// Starts the block that `offset` lies in.
    #[inline]
    pub fn begin(&mut self, offset: u64) {
        self.start(process::settings().function, offset / BLOCK);
    }

    #[inline]
    fn start(&mut self, function: Function, index: u64) {
        self.function = function;
        match function {
            Function::Blake3 => self.start_blake3(index),
            Function::Sha256 => self.start_sha256(index),
            Function::Aegis | Function::None => {
                // SAFETY: the C side's own int; libaegis looks at the processor now, if it hasn't.
                unsafe { counterfoil_tags.store(1, Ordering::Relaxed) };
                let state =
                    Aegis128X2Mac::new_with_nonce(&process::settings().key, &u128::from(index).to_le_bytes());
                self.function = Function::Aegis;
                self.state.aegis = ManuallyDrop::new(state);
            }
        }
    }

    /// Apart, so that its large state is not in everybody's stack frame.
    #[cold]
    #[inline(never)]
    fn start_blake3(&mut self, index: u64) {
        let mut state = blake3::Hasher::new_keyed(&both_halves(&process::settings().key));
        state.update(&index.to_le_bytes());
        self.state.blake3 = ManuallyDrop::new(state);
    }

    #[cold]
    #[inline(never)]
    fn start_sha256(&mut self, index: u64) {
        let state = Sha256::new().chain_update(process::settings().key).chain_update(index.to_le_bytes());
        self.state.sha256 = ManuallyDrop::new(state);
    }

    /// Adds bytes of the block.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        // SAFETY: `function` says which member was set.
        unsafe {
            match self.function {
                Function::Aegis => (*self.state.aegis).update(bytes),
                Function::Blake3 => drop((*self.state.blake3).update(bytes)),
                Function::Sha256 => sha2::Digest::update(&mut *self.state.sha256, bytes),
                Function::None => {}
            }
        }
    }

    /// The tag of what was added so far; the state goes on.
    #[inline]
    pub fn tag(&self) -> Wide {
        let mut wide = [0; WIDEST];
        if self.function == Function::Aegis {
            // SAFETY: `function` says which member was set.
            let state = unsafe { Aegis128X2Mac::clone(&self.state.aegis) };
            wide[..16].copy_from_slice(&state.finalize());
        } else {
            self.hash(&mut wide);
        }
        wide
    }

    #[cold]
    #[inline(never)]
    fn hash(&self, wide: &mut Wide) {
        // SAFETY: `function` says which member was set.
        unsafe {
            match self.function {
                Function::Blake3 => *wide = *(*self.state.blake3).finalize().as_bytes(),
                Function::Sha256 => *wide = Sha256::clone(&self.state.sha256).finalize().into(),
                Function::Aegis | Function::None => {}
            }
        }
    }

    /// Takes over another's state.
    #[inline]
    pub fn copy_from(&mut self, other: &Self) {
        self.function = other.function;
        // SAFETY: `function` says which member was set. libaegis lets a state be copied as bytes where
        // its alignment is kept, which the union's is; the hashers are plain values.
        unsafe {
            match other.function {
                Function::Aegis => copy(&raw const other.state.aegis, &raw mut self.state.aegis),
                Function::Blake3 => copy(&raw const other.state.blake3, &raw mut self.state.blake3),
                Function::Sha256 => copy(&raw const other.state.sha256, &raw mut self.state.sha256),
                Function::None => {}
            }
        }
    }
}

/// # Safety
/// As `ptr::copy_nonoverlapping`, of one value.
#[inline]
unsafe fn copy<T>(from: *const T, to: *mut T) {
    // SAFETY: contract.
    unsafe { core::ptr::copy_nonoverlapping(from, to, 1) };
}

fn both_halves(key: &[u8; 16]) -> [u8; 32] {
    let mut both = [0; 32];
    both[..16].copy_from_slice(key);
    both[16..].copy_from_slice(key);
    both
}

/// The keyed tag of a ClientHello's random.
pub fn hello_tag(random: &[u8]) -> Tag {
    let mut mac = Mac::new();
    mac.start(Function::Aegis, HELLO);
    mac.update(random);
    first_half(&mac.tag())
}

/// The part of a tag that the MAC fills.
#[inline]
pub fn first_half(wide: &Wide) -> Tag {
    let mut tag = [0; 16];
    tag.copy_from_slice(&wide[..16]);
    tag
}

/// The rest of it.
#[inline]
pub fn second_half(wide: &Wide) -> Tag {
    let mut tag = [0; 16];
    tag.copy_from_slice(&wide[16..]);
    tag
}
