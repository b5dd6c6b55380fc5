//! The tag of a block, as the library makes it: the daemon's only copy of that function.
//!
//! Comes in: a block's index and bytes. Goes out: its tag under the host's key. Called by `rest`, so that a file
//! that was read at rest can be laid beside streams. What it must equal is `shim/src/mac.rs`; the
//! vectors in the tests below were printed by it.
#![forbid(unsafe_code)]

use crate::pipeline::StreamDigest;
use aegis::aegis128x2::Aegis128X2Mac;
use sha2::{Digest, Sha256};

/// A tag as the assembler keeps it: two units of 16 bytes, native order; the MAC's second one is zero.
pub type Value = [u128; 2];

/// Makes tags under one key.
#[derive(Clone)]
pub struct Tagger {
    key: [u8; 16],
    digest: StreamDigest,
}

impl Tagger {
    /// Tags under `key`, made with what `[integrity] stream_digest` says.
    #[must_use]
    pub fn new(key: [u8; 16], digest: StreamDigest) -> Self {
        Self { key, digest }
    }

    /// What makes the tags.
    #[must_use]
    pub fn digest(&self) -> StreamDigest {
        self.digest
    }

    /// Units of 16 bytes in a tag: 1 for the MAC, else 2.
    #[must_use]
    pub fn units(&self) -> usize {
        if self.digest == StreamDigest::Mac { 1 } else { 2 }
    }

    /// The tag of `bytes`, which are block number `index` of a stream, or its first bytes.
    #[must_use]
    pub fn tag(&self, index: u64, bytes: &[u8]) -> Value {
        let wide = match self.digest {
            StreamDigest::Mac => {
                let mut mac =
                    Aegis128X2Mac::<16>::new_with_nonce(&self.key, &u128::from(index).to_le_bytes());
                mac.update(bytes);
                return [u128::from_ne_bytes(mac.finalize()), 0];
            }
            StreamDigest::Blake3 => {
                let mut both = [0; 32];
                both[..16].copy_from_slice(&self.key);
                both[16..].copy_from_slice(&self.key);
                *blake3::Hasher::new_keyed(&both)
                    .update(&index.to_le_bytes())
                    .update(bytes)
                    .finalize()
                    .as_bytes()
            }
            StreamDigest::Sha256 => Sha256::new()
                .chain_update(self.key)
                .chain_update(index.to_le_bytes())
                .chain_update(bytes)
                .finalize()
                .into(),
        };
        let (first, second) = wide.split_at(16);
        let unit = |half: &[u8]| u128::from_ne_bytes(half.try_into().unwrap_or_default());
        [unit(first), unit(second)]
    }
}

impl std::fmt::Debug for Tagger {
    // The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tagger").field("digest", &self.digest).finish_non_exhaustive()
    }
}
