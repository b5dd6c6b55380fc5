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

#[cfg(test)]
mod tests {
    use super::*;
    use counterfoil_abi::BLOCK;

    /// The same lines stand in `shim/src/mac.rs`, and its tests hold them.
    #[test]
    fn known_answers() {
        let content: Vec<u8> = (0..BLOCK as u32).map(|i| (i * 7 + i / 256) as u8).collect();
        for (digest, index, length, answer) in [
            (StreamDigest::Mac, 0, 16_384, "709aeeb54c42df178f02625ad7d8c9c8"),
            (StreamDigest::Mac, 3, 16_384, "89ad0ba7c52e2fbb9ac579bc017ac8dc"),
            (StreamDigest::Mac, 1 << 40, 1_000, "1015e6e54d996ce34c344d65f4e117fb"),
            (
                StreamDigest::Blake3,
                3,
                16_384,
                "6106ed34d3fce30742735bce37d7adcdb6ca6804e6e5e37a7229646416bfbeb7",
            ),
            (StreamDigest::Blake3, 0, 1, "853dffb1f8491145d553de1172652bd2f29186e294f116217233bc7d97fc85ff"),
            (
                StreamDigest::Sha256,
                3,
                16_384,
                "2783f932857b163f590bf576fbfaa2373aacd0e173e1c7919b747c3da33aa1e8",
            ),
            (StreamDigest::Sha256, 0, 1, "61126de1b795b976f3ac878f48e88fa77a87d7308ba57c7642b9e1068403a496"),
        ] {
            let tagger = Tagger::new([0; 16], digest);
            let units = &tagger.tag(index, &content[..length])[..tagger.units()];
            let hex: String =
                units.iter().flat_map(|u| u.to_ne_bytes()).map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, answer, "{digest:?} {index} {length}");
        }
    }
}
