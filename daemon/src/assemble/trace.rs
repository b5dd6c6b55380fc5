//! What is left of a stream's tags when they have been compared: enough to know the same content when it
//! passes again elsewhere.
//!
//! Comes in: tags of whole blocks, about in order. Goes out: [`Content`], once the stream has ended and
//! every byte of it was tagged. [`super::relay`] compares two of them.

use super::manifest::{Manifest, TagKind};
use super::pending::Value;
use counterfoil_abi::BLOCK;
use std::sync::Arc;

/// Blocks that are remembered of one stream (1 GiB of it, half a megabyte of memory).
const MAX_BLOCKS: u64 = 65_536;
/// How far ahead of the others a block may come: lanes are read one after the other.
const AHEAD: u64 = 256;

/// Short forms of a stream's tags, by block; zero where none has come.
#[derive(Debug, Default)]
pub struct Trace {
    folds: Vec<u64>,
    lost: bool,
}

/// A tag's short form. Never zero.
fn fold(value: Value) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let both = value[0] ^ value[1].rotate_left(32);
    (both as u64).wrapping_mul(ODD).wrapping_add((both >> 64) as u64) | 1
}

impl Trace {
    /// Notes a block's tag.
    #[inline]
    pub fn note(&mut self, block: u64, value: Value) {
        let known = self.folds.len() as u64;
        if block == known && block < MAX_BLOCKS {
            self.folds.push(fold(value));
        } else if block < MAX_BLOCKS && block <= known + AHEAD {
            if block > known {
                self.folds.resize(block as usize + 1, 0);
            }
            self.folds[block as usize] = fold(value);
        } else {
            self.lost = true;
        }
    }

    /// Bytes on the heap.
    pub fn weight(&self) -> usize {
        self.folds.capacity() * 8
    }
}

/// All of a stream, block by block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Bytes.
    pub total: u64,
    /// What its tags are: others can't be compared.
    pub kind: TagKind,
    blocks: Arc<[u64]>,
    /// The last block's, if it is not whole.
    tail: Option<u64>,
}

impl Content {
    /// What passed through a stream of `total` bytes; None unless every byte has a tag.
    pub fn of(manifest: &mut Manifest, total: u64) -> Option<Self> {
        let trace = std::mem::take(&mut manifest.trace);
        let (whole, rest) = (total / BLOCK, total % BLOCK);
        let blocks = trace.folds;
        if trace.lost || !manifest.gaps.is_empty() || blocks.len() as u64 != whole || blocks.contains(&0) {
            return None;
        }
        let last = manifest.last_partial.filter(|p| p.end() == total && p.offset == whole * BLOCK);
        if rest > 0 && last.is_none() {
            return None;
        }
        let tail = last.filter(|_| rest > 0).map(|p| fold(p.value));
        Some(Self { total, kind: manifest.kind?, blocks: blocks.into(), tail })
    }

    /// Blocks, the last one included.
    pub fn count(&self) -> usize {
        self.blocks.len() + usize::from(self.tail.is_some())
    }

    /// It is `bytes` bytes with these tags.
    pub fn is(&self, bytes: u64, tag: impl Fn(u64) -> Option<Value>) -> bool {
        let all = || self.blocks.iter().copied().chain(self.tail);
        self.total == bytes && (0..).zip(all()).all(|(block, ours)| tag(block).map(fold) == Some(ours))
    }

    /// Where two contents of one length differ, as block numbers; None where they have less than half in
    /// common, or can't be compared.
    pub fn differences(&self, other: &Self) -> Option<Vec<u64>> {
        if self.total != other.total || self.kind != other.kind || self.count() != other.count() {
            return None;
        }
        let blocks = self.blocks.iter().zip(other.blocks.iter()).map(|(a, b)| a != b);
        let all = blocks.chain(std::iter::once(self.tail != other.tail).filter(|_| self.tail.is_some()));
        let found: Vec<u64> =
            (0..).zip(all).filter_map(|(block, differs)| differs.then_some(block)).collect();
        (found.len() * 2 <= self.count() && (found.is_empty() || found.len() < self.count())).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assemble::manifest::{GapSpan, Partial};
    use counterfoil_abi::record::Reason;

    fn content(tags: &[u8], tail: Option<u8>) -> Option<Content> {
        let mut manifest = Manifest::default();
        for (block, &tag) in tags.iter().enumerate().rev() {
            manifest.note(block as u64, [u128::from(tag), 0], TagKind::Mac);
        }
        let whole = tags.len() as u64 * BLOCK;
        if let Some(tag) = tail {
            let value = [u128::from(tag), 0];
            manifest.note_partial(Partial { offset: whole, length: 7, value }, TagKind::Mac);
        }
        Content::of(&mut manifest, whole + if tail.is_some() { 7 } else { 0 })
    }

    #[test]
    fn same_content_differs_nowhere_and_a_change_shows_in_its_block() {
        let a = content(&[2, 4, 6, 8], Some(10)).unwrap();
        assert_eq!(a.differences(&a.clone()), Some(vec![]));
        assert_eq!(a.differences(&content(&[2, 4, 66, 8], Some(10)).unwrap()), Some(vec![2]));
        assert_eq!(a.differences(&content(&[2, 4, 6, 8], Some(12)).unwrap()), Some(vec![4]));
        assert_eq!(a.differences(&content(&[12, 14, 16, 8], Some(10)).unwrap()), None, "less than half");
        assert_eq!(a.differences(&content(&[2, 4, 6], Some(10)).unwrap()), None, "another length");
    }

    #[test]
    fn one_block_is_the_same_or_another_story() {
        let a = content(&[], Some(2)).unwrap();
        assert_eq!(a.differences(&a.clone()), Some(vec![]));
        assert_eq!(a.differences(&content(&[], Some(4)).unwrap()), None);
    }

    #[test]
    fn what_was_not_all_seen_is_no_content() {
        let mut missing = Manifest::default();
        missing.note(1, [3, 0], TagKind::Mac);
        assert_eq!(Content::of(&mut missing, 2 * BLOCK), None);
        let mut gap = Manifest::default();
        gap.note(0, [3, 0], TagKind::Mac);
        gap.gap(GapSpan { offset: 0, length: 1, reason: Reason::KernelCopy });
        assert_eq!(Content::of(&mut gap, BLOCK), None);
    }
}
