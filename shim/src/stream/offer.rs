//! A write that has not been made yet.

use crate::mac::{Mac, Wide};
use crate::scratch::Scratch;
use core::mem::MaybeUninit;
use counterfoil_abi::BLOCK;

/// Tags that fit into an offer itself (256 KiB of data); a longer write takes a scratch area.
const INLINE: usize = 16;

/// What a write's tags will be if all of it is accepted. Uninitialised until [`Offer::begin`]: it lies
/// in every sending hook's frame, and most calls need none of it.
pub struct Offer(MaybeUninit<Body>);

/// What [`super::Stream`] works with.
pub struct Body {
    /// The stream's offset.
    pub start: u64,
    /// Bytes offered.
    pub offered: u64,
    /// Tags of whole blocks.
    pub count: usize,
    /// Bytes at the end for which no room for tags could be had.
    pub beyond: u64,
    /// It may still be accepted.
    pub pending: bool,
    /// State after the last byte that was tagged; of no use where that is a block's end.
    pub rest: Mac,
    scratch: Option<Scratch>,
    inline: [MaybeUninit<Wide>; INLINE],
}

impl Offer {
    /// Room for one offer.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// Starts it: `bytes` bytes from `start` on.
    #[inline]
    pub(super) fn begin(&mut self, start: u64, bytes: u64) -> &mut Body {
        let at = self.0.as_mut_ptr();
        let into = start % BLOCK;
        let scratch = if into + bytes > INLINE as u64 * BLOCK { Scratch::take() } else { None };
        // SAFETY: `at` is ours. Every field is written but `inline`, which needs no value.
        unsafe {
            (&raw mut (*at).start).write(start);
            (&raw mut (*at).offered).write(bytes);
            (&raw mut (*at).count).write(0);
            (&raw mut (*at).pending).write(true);
            (&raw mut (*at).scratch).write(scratch);
            Mac::prepare(&raw mut (*at).rest);
            (&raw mut (*at).beyond).write(0);
            let body = &mut *at;
            body.beyond = bytes.saturating_sub(body.parts().1.len() as u64 * BLOCK - into);
            body
        }
    }

    /// What was begun.
    ///
    /// # Safety
    /// [`Self::begin`] came before: whoever claims a stream to write begins an offer.
    #[inline]
    pub(super) unsafe fn body(&mut self) -> &mut Body {
        // SAFETY: contract.
        unsafe { self.0.assume_init_mut() }
    }

    /// A mark of the content offered: equal content at one place of a stream has equal marks. Never 0.
    ///
    /// # Safety
    /// As [`Self::body`].
    pub unsafe fn mark(&mut self) -> u64 {
        // SAFETY: contract.
        let body = unsafe { self.body() };
        let mut mark = body.offered;
        for index in 0..body.count {
            mark = mark.rotate_left(7) ^ body.tag(index).map_or(0, |tag| eight(&tag));
        }
        if body.beyond == 0 && !(body.start + body.offered).is_multiple_of(BLOCK) {
            mark ^= eight(&body.rest.tag());
        }
        mark | 1
    }
}

impl Body {
    /// The state at the end, and room for tags.
    #[inline]
    pub fn parts(&mut self) -> (&mut Mac, &mut [MaybeUninit<Wide>]) {
        let tags = match &mut self.scratch {
            Some(scratch) => scratch.tags(),
            None => &mut self.inline[..],
        };
        (&mut self.rest, tags)
    }

    /// The tag of the `index`th block.
    #[inline]
    pub fn tag(&mut self, index: usize) -> Option<Wide> {
        // SAFETY: `Stream::offer` has set the first `count`.
        (index < self.count).then(|| unsafe { self.parts().1[index].assume_init() })
    }

    /// It is settled, one way or the other.
    #[inline]
    pub fn done(&mut self) {
        self.pending = false;
        if let Some(scratch) = self.scratch.take() {
            scratch.give_back();
        }
    }
}

fn eight(tag: &Wide) -> u64 {
    let mut half = [0; 8];
    half.copy_from_slice(&tag[..8]);
    u64::from_le_bytes(half)
}
