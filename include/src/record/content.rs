//! Records about content, wherever it passes.

use super::{Header, LINE, MAX_LINES};
use crate::prints::{MAX_BITS, Print};
use crate::{BLOCK, Tag};
use bytemuck::{Pod, Zeroable};

/// One window of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sample {
    /// Where it ends, from the record's `offset`.
    pub end: u32,
    /// Its fingerprint, see [`crate::prints`].
    pub print: Print,
}

const HEAD: usize = size_of::<Header>() + 16;
/// Samples in the longest [`Prints`] record.
pub const MAX_SAMPLES: usize = (MAX_LINES * LINE - HEAD) / size_of::<Sample>();

/// [`super::Kind::Prints`]: fingerprints of a span of a stream. All windows that end in the span and that
/// content and density choose are here; where no record covers a stream it was not looked at. One to
/// five lines: as many as the samples need.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Prints {
    /// Common part.
    pub header: Header,
    /// Where the span begins.
    pub offset: u64,
    /// Its bytes.
    pub length: u32,
    /// One place in 2^bits was taken.
    pub bits: u8,
    /// How many.
    pub count: u8,
    /// Zero.
    pub pad: [u8; 2],
    /// In order.
    pub samples: [Sample; MAX_SAMPLES],
}

/// Lines that a [`Prints`] record of `count` samples spans.
pub const fn lines_for_samples(count: usize) -> usize {
    (HEAD + count * size_of::<Sample>()).div_ceil(LINE)
}

/// [`Body::header`]'s flags: the message ends with this block.
pub const WHOLE: u8 = 1;
/// [`Body::header`]'s flags: from `at` on nobody knows what is head and what is body.
pub const UNFRAMED: u8 = 2;

/// [`super::Kind::Body`]: one block of an HTTP/1 message's body, without its head and without what chunks it. Blocks
/// lie at multiples of [`crate::BLOCK`] from the body's start, so one body has the same tags behind any head
/// and in any chunks, and the tags of a file of the same content. One line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Body {
    /// Common part; flags: [`WHOLE`], [`UNFRAMED`].
    pub header: Header,
    /// Where it begins in the stream.
    pub at: u64,
    /// Where it begins in the body.
    pub offset: u64,
    /// Its bytes: a whole block, or the body ends here or was told before it ended; 0: there is no body.
    pub length: u32,
    /// How many messages came before in this stream.
    pub message: u32,
    /// Bytes from the message's start to its body: the head, and what opens the first chunk.
    pub head: u32,
    /// Zero.
    pub pad: u32,
    /// The first 16 bytes of the block's tag.
    pub tag: Tag,
}

const _: () = {
    assert!(size_of::<Prints>() == MAX_LINES * LINE);
    assert!(size_of::<Body>() == LINE);
};

impl Body {
    /// Its fields are within their bounds.
    pub(super) fn fits(&self) -> bool {
        self.at < super::UNPLAUSIBLE
            && self.offset < super::UNPLAUSIBLE
            && self.offset.is_multiple_of(BLOCK)
            && u64::from(self.length) <= BLOCK
            && u64::from(self.head) <= self.at
    }
}

impl Prints {
    /// Its fields are within their bounds, and it has the lines that it needs.
    pub(super) fn fits(&self, lines: usize) -> bool {
        let count = usize::from(self.count);
        let mut last = 0;
        count <= MAX_SAMPLES
            && lines_for_samples(count) == lines
            && self.offset < super::UNPLAUSIBLE
            && (1..=MAX_BITS).contains(&u32::from(self.bits))
            && self.samples[..count].iter().all(|s| core::mem::replace(&mut last, s.end) < s.end)
            && last <= self.length
    }
}
