//! The tag of one block: AEGIS-128X2 as a MAC, keyed for the host, with the block's index as nonce.
//! So equal content at equal offsets has equal tags at every tap.

use crate::process;
use aegis::aegis128x2::Aegis128X2Mac;
use counterfoil_abi::{BLOCK, Tag};

/// The running state of a block that is not yet whole.
#[derive(Clone)]
pub struct Mac(Aegis128X2Mac<16>);

impl Mac {
    /// For the block that `offset` lies in.
    #[inline]
    pub fn at(offset: u64) -> Self {
        Self::with_nonce(u128::from(offset / BLOCK))
    }

    /// For what is not a block of a stream: a ClientHello's random.
    pub fn of_hello() -> Self {
        Self::with_nonce(u128::MAX)
    }

    #[inline]
    fn with_nonce(nonce: u128) -> Self {
        Self(Aegis128X2Mac::new_with_nonce(&process::settings().key, &nonce.to_le_bytes()))
    }

    /// Adds bytes of the block.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The tag of what was added so far. Takes the state: clone it to go on.
    #[inline]
    pub fn tag(self) -> Tag {
        self.0.finalize()
    }
}
