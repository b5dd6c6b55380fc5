//! The tags of one file as one program read or wrote it.
//!
//! Comes in: blocks, a partial tag and gaps, in any order. Goes out: a tag by its place, as often as it
//! is asked for: one file may have gone to several places. Memory is bounded by a [`Room`] that all
//! files share.

use crate::assemble::manifest::{GapSpan, Partial, TagKind};
use crate::assemble::pending::Value;
use crate::model::Reason;
use counterfoil_abi::BLOCK;

/// How far beyond the last tag the next one may be: a lane that is read later may have what is between.
const MAX_HOLE: u64 = 4096;
/// Gaps kept.
const MAX_GAPS: usize = 16;

/// Bytes of tags, over all files.
#[derive(Debug)]
pub struct Room {
    used: usize,
    limit: usize,
}

impl Room {
    /// So many bytes.
    pub fn new(limit: usize) -> Self {
        Self { used: 0, limit }
    }

    /// Little is left.
    pub fn scarce(&self) -> bool {
        self.used > self.limit / 4 * 3
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used
    }
}

/// One file's tags.
#[derive(Debug, Default)]
pub struct Tags {
    kind: Option<TagKind>,
    /// One or two units for each block from the start on; zero where there is none.
    units: Vec<u128>,
    /// The partial that reaches furthest.
    pub partial: Option<Partial>,
    /// Not witnessed.
    pub gaps: Vec<GapSpan>,
    /// There was no room for one of them.
    pub shed: bool,
}

impl Tags {
    /// Tags of a whole file that was read at rest.
    pub fn of(kind: TagKind, units: Vec<u128>, partial: Option<Partial>) -> Self {
        Self { kind: Some(kind), units, partial, ..Self::default() }
    }

    /// What they are; None before the first.
    pub fn kind(&self) -> Option<TagKind> {
        self.kind
    }

    fn is(&mut self, kind: TagKind) -> bool {
        *self.kind.get_or_insert(kind) == kind
    }

    /// Notes a block's tag.
    pub fn put(&mut self, block: u64, value: Value, kind: TagKind, room: &mut Room) {
        if !self.is(kind) {
            self.shed = true;
            return;
        }
        let step = kind.units();
        let known = (self.units.len() / step) as u64;
        let end = block.saturating_add(1).saturating_mul(step as u64);
        let more = usize::try_from(end).unwrap_or(usize::MAX).saturating_sub(self.units.len());
        // One file gets at most a quarter, so that one can't take it all from the others.
        let bytes = more.saturating_mul(16);
        let ours = self.units.len() * 16;
        if block > known + MAX_HOLE || room.used + bytes > room.limit || ours + bytes > room.limit / 4 {
            self.shed = true;
            return;
        }
        room.used += bytes;
        if more > 0 {
            self.units.resize(end as usize, 0);
        }
        let at = block as usize * step;
        self.units[at..at + step].copy_from_slice(&value[..step]);
    }

    /// Notes a partial tag; the one that reaches furthest is kept.
    pub fn put_partial(&mut self, partial: Partial, kind: TagKind) {
        if self.is(kind) && self.partial.is_none_or(|p| partial.end() > p.end()) {
            self.partial = Some(partial);
        }
    }

    /// Notes a gap.
    pub fn gap(&mut self, gap: GapSpan) {
        if self.gaps.len() < MAX_GAPS {
            self.gaps.push(gap);
        } else {
            self.shed = true;
        }
    }

    /// A whole block's tag.
    pub fn get(&self, block: u64) -> Option<Value> {
        let step = self.kind?.units();
        let at = usize::try_from(block).ok()?.checked_mul(step)?;
        let mut value = [*self.units.get(at)?, 0];
        if step == 2 {
            value[1] = *self.units.get(at + 1)?;
        }
        (value != [0, 0]).then_some(value)
    }

    /// Whole blocks up to the last one that has a tag.
    pub fn blocks(&self) -> u64 {
        self.kind.map_or(0, |kind| (self.units.len() / kind.units()) as u64)
    }

    /// Whole blocks that have a tag.
    pub fn tagged(&self) -> u64 {
        (0..self.blocks()).filter(|&b| self.get(b).is_some()).count() as u64
    }

    /// Bytes of the first `total` that have a tag.
    pub fn witnessed(&self, total: u64) -> u64 {
        let whole = (0..self.blocks().min(total / BLOCK)).filter(|&b| self.get(b).is_some()).count();
        let tail = self.partial.filter(|p| p.end() == total).map_or(0, |p| u64::from(p.length));
        whole as u64 * BLOCK + tail
    }

    /// Why it is not whole, where it isn't.
    pub fn reasons(&self) -> impl Iterator<Item = Reason> {
        let shed = self.shed.then_some(Reason::RecordsDropped);
        self.gaps.iter().map(|g| g.reason).chain(shed)
    }

    /// Of some blocks here and there, is one the same? Quick, for files of which half has to be.
    pub fn resemble(&self, other: &Self) -> bool {
        const LOOKED_AT: u64 = 64;
        let blocks = self.blocks().min(other.blocks());
        let step = (blocks / LOOKED_AT).max(1);
        self.kind == other.kind
            && (0..blocks)
                .step_by(usize::try_from(step).unwrap_or(usize::MAX))
                .any(|b| self.get(b).is_some() && self.get(b) == other.get(b))
    }

    /// Equal and differing whole blocks at equal places.
    pub fn compared(&self, other: &Self) -> Compared {
        let mut found = Compared::default();
        if self.kind.is_none() || self.kind != other.kind {
            return found;
        }
        for block in 0..self.blocks().max(other.blocks()) {
            match (self.get(block), other.get(block)) {
                (Some(a), Some(b)) if a == b => found.same += 1,
                (Some(_), Some(_)) => {
                    found.first_difference = found.first_difference.or(Some(block));
                    found.differ += 1;
                }
                _ => {}
            }
        }
        if let (Some(a), Some(b)) = (self.partial, other.partial)
            && (a.offset, a.length) == (b.offset, b.length)
        {
            found.tail = Some(a.value == b.value);
        }
        found
    }

    /// Gives its room back.
    pub fn clear(&mut self, room: &mut Room) {
        room.used = room.used.saturating_sub(self.units.len() * 16);
        *self = Self::default();
    }
}

/// What came of laying two files' tags side by side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Equal whole blocks.
    pub same: u64,
    /// Differing whole blocks.
    pub differ: u64,
    /// The first of those.
    pub first_difference: Option<u64>,
    /// The last block of both, where it is as long at both: is it equal?
    pub tail: Option<bool>,
}

impl Compared {
    /// At least half of what could be compared is the same.
    pub fn mostly_same(&self) -> bool {
        let (same, differ) = (self.same + u64::from(self.tail == Some(true)), self.differ);
        same > 0 && same >= differ + u64::from(self.tail == Some(false))
    }

    /// Enough was compared to say so, and nothing of it is the same.
    pub fn nothing_in_common(&self) -> bool {
        self.same == 0 && self.tail != Some(true) && (self.differ > 0 || self.tail == Some(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(values: &[u128], room: &mut Room) -> Tags {
        let mut tags = Tags::default();
        for (i, &v) in values.iter().enumerate() {
            tags.put(i as u64, [v, 0], TagKind::Mac, room);
        }
        tags
    }

    #[test]
    fn tags_are_laid_side_by_side_as_often_as_one_likes() {
        let mut room = Room::new(1 << 20);
        let (a, b) = (tags(&[1, 2, 3, 4], &mut room), tags(&[1, 9, 3], &mut room));
        for _ in 0..2 {
            let found = a.compared(&b);
            assert_eq!((found.same, found.differ, found.first_difference), (2, 1, Some(1)));
            assert!(found.mostly_same());
        }
        assert!(a.compared(&tags(&[5, 6, 7, 8], &mut room)).nothing_in_common());
    }

    #[test]
    fn room_is_bounded_and_given_back() {
        let mut room = Room::new(64 * 16);
        let mut one = tags(&[1; 20], &mut room);
        assert_eq!((one.tagged(), one.shed), (16, true), "a quarter is one file's share");
        one.put(1 << 50, [1, 0], TagKind::Mac, &mut room);
        assert_eq!(one.blocks(), 16, "nothing that far off");
        one.clear(&mut room);
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn order_does_not_matter() {
        let mut room = Room::new(1 << 20);
        let mut late = Tags::default();
        for block in [3u64, 0, 2, 1] {
            late.put(block, [u128::from(block) + 1, 0], TagKind::Mac, &mut room);
        }
        let all = late.compared(&tags(&[1, 2, 3, 4], &mut room));
        assert_eq!((all.same, all.differ), (4, 0));
    }
}
