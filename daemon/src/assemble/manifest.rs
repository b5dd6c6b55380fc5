//! A manifest: what is known of one stream, whatever order its records came in.
//!
//! Comes in: blocks, partial tags and gaps of one tap of one object. Goes out: what was tagged,
//! what was not and why. [`super::pair`] compares two of them; `judge` reads them.

use super::bodies::Bodies;
use super::pending::{Budget, Pending, Value};
use super::runs::{Inserted, Runs};
use super::samples::Samples;
use super::trace::Trace;
use counterfoil_abi::record::Reason;
use counterfoil_abi::{BLOCK, UNKNOWN};

/// Gaps kept one by one; beyond, they are widened into one.
const MAX_GAPS: usize = 64;
/// Partial tags kept for comparison; a stream that turns round often sheds the oldest.
const MAX_PARTIALS: usize = 32;

/// What a stream's tags are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagKind {
    /// 16 bytes, the MAC.
    Mac,
    /// 32 bytes, BLAKE3 or SHA-256.
    Wide,
}

impl TagKind {
    /// Units of 16 bytes in a tag.
    pub fn units(self) -> usize {
        match self {
            Self::Mac => 1,
            Self::Wide => 2,
        }
    }
}

/// A span that was not witnessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapSpan {
    /// Where it begins.
    pub offset: u64,
    /// Bytes, or UNKNOWN.
    pub length: u64,
    /// Why.
    pub reason: Reason,
}

/// The tag of the first `length` bytes of the block at `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// A multiple of BLOCK.
    pub offset: u64,
    /// Less than BLOCK.
    pub length: u32,
    /// The tag.
    pub value: Value,
}

impl Partial {
    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.length))
    }
}

/// One stream.
#[derive(Debug, Default)]
pub struct Manifest {
    /// What its tags are; None before the first.
    pub kind: Option<TagKind>,
    /// Whole blocks tagged.
    pub seen: Runs,
    /// Tags that wait for the other end's.
    pub pending: Pending,
    /// Partial tags that wait for the other end's, oldest first.
    pub partials: Vec<Partial>,
    /// The partial that reaches furthest.
    pub last_partial: Option<Partial>,
    /// The one that reached furthest where TLS seemed to begin: what was said in the clear ends there.
    pub clear: Option<Partial>,
    /// Not witnessed.
    pub gaps: Vec<GapSpan>,
    /// Greatest offset that a tag or a gap of known length reaches.
    pub extent: u64,
    /// What the same content is known by elsewhere.
    pub trace: Trace,
    /// And wherever it stands in another stream.
    pub samples: Samples,
    /// What it carries as bodies of messages.
    pub bodies: Bodies,
    /// Tags were refused: no room, or of another kind than the first.
    pub refused: bool,
    /// Order-independent sum over (block, tag), for the digest.
    sum: u128,
}

/// Spreads a block's tag so that equal sums mean equal tags at equal places.
fn spread(place: u64, value: Value) -> u128 {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let placed = value[0] ^ value[1].rotate_left(64) ^ u128::from(place).wrapping_mul(ODD);
    let mixed = (placed ^ (placed >> 61)).wrapping_mul(ODD);
    mixed ^ (mixed >> 67)
}

impl Manifest {
    /// Notes that `block` was tagged. False: it was before, or can't be kept.
    #[inline]
    pub fn note(&mut self, block: u64, value: Value, kind: TagKind) -> bool {
        if self.kind != Some(kind) {
            if self.kind.is_some() {
                self.refused = true;
                return false;
            }
            self.kind = Some(kind);
        }
        match self.seen.insert(block) {
            Inserted::New => {
                self.trace.note(block, value);
                self.sum = self.sum.wrapping_add(spread(block, value));
                self.extent = self.extent.max((block + 1).saturating_mul(BLOCK));
                true
            }
            Inserted::Old => false,
            Inserted::Refused => {
                self.refused = true;
                false
            }
        }
    }

    /// Keeps a tag for later. What can't be kept is as if not seen: the comparison will miss it.
    #[inline]
    pub fn keep(&mut self, block: u64, value: Value, kind: TagKind, budget: &mut Budget) {
        if !self.pending.put(block, value, kind.units(), budget) {
            self.refused = true;
        }
    }

    /// Notes a partial tag. False: its kind is another than the first tag's.
    pub fn note_partial(&mut self, partial: Partial, kind: TagKind) -> bool {
        if *self.kind.get_or_insert(kind) != kind {
            self.refused = true;
            return false;
        }
        self.extent = self.extent.max(partial.end());
        if self.last_partial.is_none_or(|last| partial.end() > last.end()) {
            self.last_partial = Some(partial);
        }
        true
    }

    /// Keeps a partial for later.
    pub fn keep_partial(&mut self, partial: Partial) {
        if self.partials.iter().any(|p| (p.offset, p.length) == (partial.offset, partial.length)) {
            return;
        }
        if self.partials.len() >= MAX_PARTIALS {
            // The one that reaches least far is the least likely to be the last.
            if let Some(least) = (0..self.partials.len()).min_by_key(|&i| self.partials[i].end()) {
                self.partials.remove(least);
            }
        }
        self.partials.push(partial);
    }

    /// Takes out the waiting partial of the same place.
    pub fn take_partial(&mut self, offset: u64, length: u32) -> Option<Partial> {
        let at = self.partials.iter().rposition(|p| (p.offset, p.length) == (offset, length))?;
        Some(self.partials.remove(at))
    }

    /// Notes a gap.
    pub fn gap(&mut self, gap: GapSpan) {
        if gap.length == 0 || self.gaps.contains(&gap) {
            return;
        }
        if gap.length != UNKNOWN {
            self.extent = self.extent.max(gap.offset.saturating_add(gap.length));
            let neighbour = self
                .gaps
                .iter_mut()
                .find(|g| g.reason == gap.reason && g.length != UNKNOWN && g.offset + g.length == gap.offset);
            if let Some(g) = neighbour {
                g.length += gap.length;
                return;
            }
        }
        if self.gaps.len() >= MAX_GAPS {
            // No room to say exactly where: everything from the first on is uncertain.
            let first = self.gaps.iter().map(|g| g.offset).min().unwrap_or(0).min(gap.offset);
            self.gaps.truncate(MAX_GAPS - 1);
            if let Some(g) = self.gaps.last_mut() {
                *g = GapSpan { offset: first, length: UNKNOWN, reason: gap.reason };
            }
            return;
        }
        self.gaps.push(gap);
    }

    /// Where the first gap of unknown length begins, UNKNOWN if there is none: a difference after
    /// it proves nothing.
    pub fn certain_until(&self) -> u64 {
        self.gaps.iter().filter(|g| g.length == UNKNOWN).map(|g| g.offset).min().unwrap_or(UNKNOWN)
    }

    /// Does a gap touch the block?
    pub fn gap_in(&self, block: u64) -> Option<Reason> {
        let (start, end) = (block.saturating_mul(BLOCK), block.saturating_add(1).saturating_mul(BLOCK));
        self.gaps
            .iter()
            .find(|g| g.offset < end && (g.length == UNKNOWN || g.offset + g.length > start))
            .map(|g| g.reason)
    }

    /// Bytes below `total` that were tagged.
    pub fn witnessed(&self, total: u64) -> u64 {
        let whole = total / BLOCK;
        let tail = self
            .last_partial
            .filter(|p| p.end() <= total && p.offset >= self.seen.end() * BLOCK)
            .map_or(0, |p| u64::from(p.length));
        self.seen.count_below(whole) * BLOCK + tail
    }

    /// Bytes on the heap, tags in the budget not counted.
    pub fn weight(&self) -> usize {
        self.seen.weight()
            + self.trace.weight()
            + self.partials.len() * size_of::<Partial>()
            + self.gaps.len() * size_of::<GapSpan>()
    }

    /// Hex digest over all tags of a stream of `total` bytes; None where one is missing.
    pub fn digest(&self, total: u64) -> Option<String> {
        let (whole, rest) = (total / BLOCK, total % BLOCK);
        if total == 0 || self.seen.count_below(whole) != whole || self.seen.end() > whole {
            return None;
        }
        let mut sum = self.sum;
        if rest > 0 {
            let last = self.last_partial.filter(|p| p.end() == total && p.offset == whole * BLOCK)?;
            sum = sum.wrapping_add(spread(whole.wrapping_add(u64::from(last.length) << 48), last.value));
        }
        Some(format!("{sum:032x}"))
    }
}
