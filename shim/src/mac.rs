//! The tag of one block, as it grows: AEGIS-128X2 as a MAC, or on request (`stream_digest`) BLAKE3 or
//! SHA-256, which stand against who holds the key, too.
//!
//! All are keyed for the host and start from the block's index. So equal content at equal offsets has
//! equal tags at every tap, and a tag tells nothing of its content to who hasn't got the key.

use crate::process;
use aegis::aegis128x2::Aegis128X2Mac;
use core::ffi::{c_int, c_void};
use core::mem::{ManuallyDrop, MaybeUninit};
use core::sync::atomic::{AtomicI32, Ordering};
use counterfoil_abi::arena::{POLICY_BLAKE3, POLICY_SHA256};
use counterfoil_abi::sha256::Sha256;
use counterfoil_abi::{BLOCK, Tag};

/// Bytes of the longest tag.
pub const WIDEST: usize = 32;
/// Bytes of AEGIS's.
const SHORT: usize = 16;

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
///
/// It lies in memory that a family of forks shares, and a relative may write anything there. AEGIS (its place
/// is its length's remainder) and [`Sha256`] are memory-safe at any bytes' value. `blake3`'s state is not, and
/// is used only where the daemon asked for it.
#[repr(C)]
pub struct Mac {
    /// A [`Function`].
    function: u8,
    state: State,
}

#[repr(C)]
union State {
    none: (),
    aegis: ManuallyDrop<Aegis128X2Mac<16>>,
    blake3: ManuallyDrop<blake3::Hasher>,
    sha256: Sha256,
}

unsafe extern "C" {
    /// See csrc/late.c.
    static counterfoil_tags: AtomicI32;
}

// libaegis's own, behind the crate's functions, which move states about: in place, a state's gaps stay as they were,
// so that equal states are equal bytes; and what is copied to be ended is copied once.
unsafe extern "C" {
    fn aegis128x2_mac_init(state: *mut c_void, key: *const u8, nonce: *const u8);
    fn aegis128x2_mac_final(state: *mut c_void, tag: *mut u8, length: usize) -> c_int;
}

/// Lets libaegis look at the processor. By the constructor, before any tag is made: whoever finds it half done can't go on, and a
/// hook must not wait.
pub fn prepare() {
    // SAFETY: the C side's own int.
    unsafe { counterfoil_tags.store(1, Ordering::Relaxed) };
    let _ = Aegis128X2Mac::<16>::new(&[0; 16]);
}

/// The nonce of what is not a block of a stream: a ClientHello's random.
const HELLO: u64 = u64::MAX;

impl Mac {
    /// Nothing yet; `begin` comes first.
    #[inline]
    pub const fn new() -> Self {
        Self { function: Function::None as u8, state: State { none: () } }
    }

    #[inline]
    fn function(&self) -> Function {
        match self.function {
            1 => Function::Aegis,
            2 if blake3_is_asked_for() => Function::Blake3,
            3 => Function::Sha256,
            _ => Function::None,
        }
    }

    /// Starts the block that `offset` lies in.
    #[inline]
    pub fn begin(&mut self, offset: u64) {
        self.start(process::settings().function, offset / BLOCK);
    }

    #[inline]
    fn start(&mut self, function: Function, index: u64) {
        self.function = function as u8;
        match function {
            Function::Blake3 => self.start_blake3(index),
            Function::Sha256 => self.start_sha256(index),
            Function::Aegis | Function::None => {
                self.function = Function::Aegis as u8;
                let nonce = u128::from(index).to_le_bytes();
                let state = (&raw mut self.state.aegis).cast();
                // SAFETY: as the crate calls it; the state, the key and the nonce are of these types' sizes.
                unsafe { aegis128x2_mac_init(state, process::settings().key.as_ptr(), nonce.as_ptr()) };
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
        let mut state = Sha256::new();
        state.update(&process::settings().key);
        state.update(&index.to_le_bytes());
        self.state.sha256 = state;
    }

    /// Adds bytes of the block.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        // SAFETY: `function` says which member was set.
        unsafe {
            match self.function() {
                Function::Aegis => (*self.state.aegis).update(bytes),
                Function::Blake3 => drop((*self.state.blake3).update(bytes)),
                Function::Sha256 => self.state.sha256.update(bytes),
                Function::None => {}
            }
        }
    }

    /// The tag of what was added so far; the state goes on.
    #[inline(always)]
    pub fn tag(&self) -> Wide {
        // A short one fills the first half.
        let mut wide = [0; WIDEST];
        if self.function() != Function::Aegis {
            self.hash(&mut wide);
            return wide;
        }
        let mut copy = MaybeUninit::<Aegis128X2Mac<16>>::uninit();
        // SAFETY: `function` says which member was set. As the crate calls it, on a copy that is thrown away.
        unsafe {
            core::ptr::copy_nonoverlapping((&raw const self.state.aegis).cast(), copy.as_mut_ptr(), 1);
            aegis128x2_mac_final(copy.as_mut_ptr().cast(), wide.as_mut_ptr(), SHORT);
        }
        wide
    }

    /// Both have come to the same state, so that their tags are equal. Where that can't be seen cheaply: no.
    #[inline]
    pub fn is_as(&self, other: &Self) -> bool {
        const BYTES: usize = size_of::<Aegis128X2Mac<16>>();
        if self.function() != Function::Aegis || other.function() != Function::Aegis {
            return false;
        }
        let bytes = |mac: &Self| (&raw const mac.state.aegis).cast::<[u8; BYTES]>();
        // SAFETY: `function` says which member was set: bytes of libaegis's, in memory that was zeroed.
        unsafe { *bytes(self) == *bytes(other) }
    }

    #[cold]
    #[inline(never)]
    fn hash(&self, wide: &mut Wide) {
        // SAFETY: `function` says which member was set.
        unsafe {
            match self.function() {
                Function::Blake3 => *wide = *(*self.state.blake3).finalize().as_bytes(),
                Function::Sha256 => *wide = self.state.sha256.digest(),
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
            match other.function() {
                Function::Aegis => copy(&raw const other.state.aegis, &raw mut self.state.aegis),
                Function::Blake3 => copy(&raw const other.state.blake3, &raw mut self.state.blake3),
                Function::Sha256 => copy(&raw const other.state.sha256, &raw mut self.state.sha256),
                Function::None => {}
            }
        }
    }
}

#[cold]
fn blake3_is_asked_for() -> bool {
    #[cfg(test)]
    if tests::ALL_FUNCTIONS.get() {
        return true;
    }
    process::settings().function == Function::Blake3
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        /// Whatever the settings say.
        pub static ALL_FUNCTIONS: Cell<bool> = const { Cell::new(false) };
    }

    /// The same lines stand in `daemon/src/tags.rs`: what the daemon makes of a file at rest must equal these.
    #[test]
    fn known_answers() {
        assert_eq!(process::settings().key, [0; 16], "no test of this crate sets another");
        ALL_FUNCTIONS.set(true);
        let content: Vec<u8> = (0..BLOCK as u32).map(|i| (i * 7 + i / 256) as u8).collect();
        for (function, index, length, answer) in [
            (Function::Aegis, 0, 16_384, "709aeeb54c42df178f02625ad7d8c9c8"),
            (Function::Aegis, 3, 16_384, "89ad0ba7c52e2fbb9ac579bc017ac8dc"),
            (Function::Aegis, 1 << 40, 1_000, "1015e6e54d996ce34c344d65f4e117fb"),
            (Function::Blake3, 3, 16_384, "6106ed34d3fce30742735bce37d7adcdb6ca6804e6e5e37a7229646416bfbeb7"),
            (Function::Blake3, 0, 1, "853dffb1f8491145d553de1172652bd2f29186e294f116217233bc7d97fc85ff"),
            (Function::Sha256, 3, 16_384, "2783f932857b163f590bf576fbfaa2373aacd0e173e1c7919b747c3da33aa1e8"),
            (Function::Sha256, 0, 1, "61126de1b795b976f3ac878f48e88fa77a87d7308ba57c7642b9e1068403a496"),
        ] {
            let mut mac = Mac::new();
            mac.start(function, index);
            // In two pieces, as a stream comes.
            mac.update(&content[..length / 3]);
            mac.update(&content[length / 3..length]);
            let wide = mac.tag();
            let hex: String = wide[..function.units() * 16].iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, answer, "{function:?} {index} {length}");
        }
    }

    #[test]
    fn states_are_the_same_after_the_same_content_only() {
        let content: Vec<u8> = (0..2000u32).map(|i| i as u8).collect();
        let after = |pieces: &[&[u8]]| {
            // As streams do: in memory that was zeroed, and used before.
            // SAFETY: all zero is a state that was not begun.
            let mut mac: Box<Mac> = Box::new(unsafe { core::mem::zeroed() });
            for index in [7, 3] {
                mac.start(Function::Aegis, index);
                pieces.iter().for_each(|piece| mac.update(piece));
            }
            mac
        };
        let whole = after(&[&content]);
        assert!(whole.is_as(&after(&[&content])));
        assert!(whole.is_as(&after(&[&content[..256], &content[256..]])), "in other pieces, and whole units");
        for changed in [0, 1_000, 1_999] {
            let mut other = content.clone();
            other[changed] ^= 1;
            assert!(!whole.is_as(&after(&[&other])), "{changed}");
        }
        assert!(!whole.is_as(&after(&[&content[..1_999]])));
        let mut elsewhere = after(&[&content]);
        elsewhere.start(Function::Aegis, 4);
        elsewhere.update(&content);
        assert!(!whole.is_as(&elsewhere), "another block");
    }
}
