//! Records about content, wherever it passes.

use super::{Header, LINE, MAX_LINES};
use crate::prints::{MAX_BITS, Print};
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

const _: () = assert!(size_of::<Prints>() == MAX_LINES * LINE);

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
