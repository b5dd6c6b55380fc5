//! SHA-256 whose running state is plain numbers: valid whatever its bytes are.
//!
//! States lie in memory that a family of forks shares, and a relative with fewer rights may write anything
//! into it (sshd's sandboxed child shares with its monitor). `sha2`'s own buffer trusts its position; here that
//! follows from the length. The compression is `sha2`'s.

use bytemuck::{Pod, Zeroable};
use sha2::block_api::compress256;

const BLOCK: usize = 64;
/// FIPS 180-4, 5.3.3.
const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// See the module's text.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Sha256 {
    state: [u32; 8],
    /// Bytes so far.
    length: u64,
    /// Those of them that make no whole block yet.
    rest: [u8; BLOCK],
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl Sha256 {
    /// Of nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: START, length: 0, rest: [0; BLOCK] }
    }

    /// Adds bytes.
    #[inline]
    pub fn update(&mut self, mut bytes: &[u8]) {
        let have = (self.length % BLOCK as u64) as usize;
        self.length = self.length.wrapping_add(bytes.len() as u64);
        if have > 0 {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - have));
            self.rest[have..have + now.len()].copy_from_slice(now);
            if have + now.len() < BLOCK {
                return;
            }
            compress256(&mut self.state, &[self.rest]);
            bytes = later;
        }
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        compress256(&mut self.state, blocks);
        self.rest[..rest.len()].copy_from_slice(rest);
    }

    /// The digest of all bytes so far; the state goes on.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut state = self.state;
        let have = (self.length % BLOCK as u64) as usize;
        // FIPS 180-4, 5.1.1: a one bit, zeros, the length in bits.
        let mut last = [[0; BLOCK]; 2];
        let padded = last.as_flattened_mut();
        padded[..have].copy_from_slice(&self.rest[..have]);
        padded[have] = 0x80;
        let blocks = if have + 9 > BLOCK { 2 } else { 1 };
        let bits = self.length.wrapping_mul(8).to_be_bytes();
        padded[blocks * BLOCK - 8..blocks * BLOCK].copy_from_slice(&bits);
        compress256(&mut state, &last[..blocks]);
        let mut digest = [0; 32];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use sha2::Digest as _;
    use std::vec::Vec;

    #[test]
    fn as_sha2_does_it_however_it_is_cut() {
        let content: Vec<u8> = (0..1000u32).map(|i| (i * 31 + i / 7) as u8).collect();
        for length in (0..200).chain([999, 1000]) {
            for piece in [1, 7, 63, 64, 65, 1000] {
                let mut state = Sha256::new();
                content[..length].chunks(piece).for_each(|part| state.update(part));
                let expected: [u8; 32] = sha2::Sha256::digest(&content[..length]).into();
                assert_eq!(state.digest(), expected, "{length} bytes in pieces of {piece}");
            }
        }
    }

    #[test]
    fn any_state_is_valid() {
        let mut state: Sha256 = bytemuck::pod_read_unaligned(&[0xff; size_of::<Sha256>()]);
        state.update(&[1; 200]);
        let _ = state.digest();
    }
}
