//! Two manifests laid side by side: the tally.
//!
//! Comes in: tags and gaps of either side, in any order, before or after the two were joined. Goes
//! out: which blocks are the same and which differ. Tags are compared as they come and dropped, so
//! that a pair takes room only for what one side is ahead of the other.

use super::manifest::{GapSpan, Manifest, Partial, TagKind};
use super::pending::{Budget, Value};
use super::runs::Runs;
use counterfoil_abi::BLOCK;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who wrote.
    Origin,
    /// Who read.
    Destination,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Origin => Self::Destination,
            Self::Destination => Self::Origin,
        }
    }
}

/// Two manifests and what came of comparing them.
#[derive(Debug, Default)]
pub struct Pair {
    /// Who wrote.
    pub origin: Manifest,
    /// Who read.
    pub destination: Manifest,
    /// Blocks whose tags are equal.
    pub same: Runs,
    /// Blocks whose tags differ, or partial tags of them.
    pub differs: Runs,
    /// Differing partials: where they end, for the gap rule. Few: one is enough for a block.
    pub differing_partials: Vec<(u64, u64)>,
    /// The equal partial that reaches furthest: offset and length.
    pub same_partial: Option<(u64, u32)>,
    /// The one of a side's [`Manifest::clear`] is equal.
    pub same_clear: Option<(u64, u32)>,
    /// Both sides are known to belong together.
    pub joined: bool,
}

impl Pair {
    /// A pair with both sides known from the start.
    pub fn joined() -> Self {
        Self { joined: true, ..Self::default() }
    }

    /// One side.
    pub fn side(&self, side: Side) -> &Manifest {
        match side {
            Side::Origin => &self.origin,
            Side::Destination => &self.destination,
        }
    }

    /// One side.
    pub fn side_mut(&mut self, side: Side) -> &mut Manifest {
        self.sides(side).0
    }

    fn sides(&mut self, side: Side) -> (&mut Manifest, &mut Manifest) {
        match side {
            Side::Origin => (&mut self.origin, &mut self.destination),
            Side::Destination => (&mut self.destination, &mut self.origin),
        }
    }

    /// A whole block's tag. True: it differs from the other side's.
    #[inline]
    pub fn block(
        &mut self,
        side: Side,
        block: u64,
        value: Value,
        kind: TagKind,
        budget: &mut Budget,
    ) -> bool {
        let joined = self.joined;
        let (ours, theirs) = self.sides(side);
        if !ours.note(block, value, kind) {
            return false;
        }
        if joined
            && theirs.kind == Some(kind)
            && let Some(other) = theirs.pending.take(block, kind.units(), budget)
        {
            return self.compared(block, value == other);
        }
        ours.keep(block, value, kind, budget);
        false
    }

    fn compared(&mut self, block: u64, same: bool) -> bool {
        if same {
            self.same.insert(block);
        } else {
            self.differs.insert(block);
        }
        !same
    }

    /// A partial tag. True: it differs from the other side's.
    pub fn partial(&mut self, side: Side, partial: Partial, kind: TagKind) -> bool {
        let joined = self.joined;
        let (ours, theirs) = self.sides(side);
        if !ours.note_partial(partial, kind) {
            return false;
        }
        if joined
            && theirs.kind == Some(kind)
            && let Some(other) = theirs.take_partial(partial.offset, partial.length)
        {
            return self.compared_partial(partial, other.value);
        }
        ours.keep_partial(partial);
        false
    }

    fn compared_partial(&mut self, ours: Partial, other: Value) -> bool {
        if ours.value == other {
            let place = (ours.offset, ours.length);
            let clear =
                |side: &Manifest| side.clear.is_some_and(|clear| (clear.offset, clear.length) == place);
            if clear(&self.origin) || clear(&self.destination) {
                self.same_clear = Some(place);
            }
            let furthest = self.same_partial.map_or(0, |(o, l)| o + u64::from(l));
            if ours.end() > furthest {
                self.same_partial = Some(place);
            }
            return false;
        }
        let block = ours.offset / BLOCK;
        if !self.differs.contains(block) {
            self.differs.insert(block);
            if self.differing_partials.len() < 1024 {
                self.differing_partials.push((block, ours.end()));
            }
        }
        true
    }

    /// TLS seems to begin here: what was tagged so far is what was said in the clear, if a session is seen.
    pub fn seems_to_begin_tls(&mut self, side: Side) {
        let ours = self.sides(side).0;
        ours.clear = ours.last_partial;
        let place = ours.clear.map(|clear| (clear.offset, clear.length));
        if place.is_some() && self.same_partial == place {
            self.same_clear = place;
        }
    }

    /// It ends at `total`, where TLS began: tags that reach further are not its own.
    pub fn ends_in_the_clear(&mut self, total: u64) {
        let mut beyond = false;
        for side in [&mut self.origin, &mut self.destination] {
            if side.last_partial.is_some_and(|last| last.end() > total) {
                beyond = true;
                side.last_partial = side.clear.filter(|clear| clear.end() == total);
            }
        }
        if beyond {
            self.same_partial = self.same_clear;
        }
    }

    /// A gap.
    pub fn gap(&mut self, side: Side, gap: GapSpan) {
        self.sides(side).0.gap(gap);
    }

    /// Lays `other`, of which only `side` has anything, beside this one, which has only the other
    /// side. True: something differs.
    pub fn join(&mut self, side: Side, mut other: Pair, budget: &mut Budget) -> bool {
        let theirs = std::mem::take(other.sides(side).0);
        *self.sides(side).0 = theirs;
        self.joined = true;
        self.compare_waiting(budget)
    }

    /// Compares all that waits on both sides.
    fn compare_waiting(&mut self, budget: &mut Budget) -> bool {
        let (Some(kind), Some(other_kind)) = (self.origin.kind, self.destination.kind) else { return false };
        if kind != other_kind {
            return false;
        }
        let mut found = false;
        for (block, value) in self.origin.pending.drain(kind.units(), budget) {
            match self.destination.pending.take(block, kind.units(), budget) {
                Some(other) => found |= self.compared(block, value == other),
                None => self.origin.keep(block, value, kind, budget),
            }
        }
        for partial in std::mem::take(&mut self.origin.partials) {
            match self.destination.take_partial(partial.offset, partial.length) {
                Some(other) => found |= self.compared_partial(partial, other.value),
                None => self.origin.keep_partial(partial),
            }
        }
        found
    }

    /// Blocks that differ, less those that a gap of unknown length before or in them explains.
    pub fn proven_differences(&self) -> Vec<u64> {
        let until = self.origin.certain_until().min(self.destination.certain_until());
        self.differs
            .below(until.div_ceil(BLOCK))
            .flat_map(|(start, end)| start..end.min(start + MAX_LISTED))
            .filter(|&block| {
                let whole = (block + 1).saturating_mul(BLOCK);
                let end =
                    self.differing_partials.iter().find(|&&(b, _)| b == block).map_or(whole, |&(_, end)| end);
                end <= until
            })
            .collect()
    }

    /// Bytes that it takes, tags in the budget not counted.
    pub fn weight(&self) -> usize {
        size_of::<Self>()
            + self.origin.weight()
            + self.destination.weight()
            + self.same.weight()
            + self.differs.weight()
            + 16 * self.differing_partials.len()
    }

    /// Forgets what waits: for pairs whose other side may never come (the cipher witness).
    pub fn forget_waiting(&mut self, budget: &mut Budget) {
        self.origin.pending.clear(budget);
        self.destination.pending.clear(budget);
        self.origin.partials.clear();
        self.destination.partials.clear();
    }
}

/// Blocks of one differing run that are looked at one by one (16 GiB of stream).
const MAX_LISTED: u64 = 1 << 20;
