//! Tags that wait for the other end's tags.
//!
//! Comes in: tags of whole blocks, mostly in order. Goes out: the tag of a block, once. Memory is
//! bounded by a [`Budget`] that all streams share, and by a share of it for each stream.

use std::collections::{BTreeMap, VecDeque};

/// A tag or digest: 16 bytes, or 32 in both halves. Zero is kept for "none".
pub type Value = [u128; 2];

/// How far from the dense part a block may be and still be kept there.
const NEAR: u64 = 256;
/// What an entry of the sparse part is counted as.
const SPARSE_BYTES: usize = 96;

/// Room that a stream keeps when nothing waits, in units: what the lanes hold of it when they are read is waiting
/// again in a moment, and ten thousand streams may take 40 MB for that.
const KEPT: usize = 256;

/// Bytes of waiting tags, over all streams.
#[derive(Debug)]
pub struct Budget {
    used: usize,
    limit: usize,
}

impl Budget {
    /// So many bytes.
    pub fn new(limit: usize) -> Self {
        Self { used: 0, limit }
    }

    /// Bytes that wait now.
    pub fn used(&self) -> usize {
        self.used
    }

    fn take(&mut self, bytes: usize) -> bool {
        if self.used + bytes > self.limit {
            return false;
        }
        self.used += bytes;
        true
    }

    fn give(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
    }
}

/// Waiting tags of one stream.
#[derive(Debug, Default)]
pub struct Pending {
    first: u64,
    /// One or two units for each block from `first` on; zero where there is none.
    dense: VecDeque<u128>,
    sparse: BTreeMap<u64, Value>,
    held: usize,
}

impl Pending {
    /// Keeps `value` for `block`. False: there is no room, and it is not kept.
    #[inline]
    pub fn put(&mut self, block: u64, value: Value, units: usize, budget: &mut Budget) -> bool {
        if self.dense.is_empty() {
            self.first = block;
        }
        let len = (self.dense.len() / units) as u64;
        if block >= self.first && block - self.first <= len + NEAR {
            let at = (block - self.first) as usize * units;
            let more = (at + units).saturating_sub(self.dense.len());
            if !self.room(more * 16, budget) {
                return false;
            }
            if more == units {
                // One by one: that needs no call to copy 16 bytes.
                self.dense.push_back(value[0]);
                if units == 2 {
                    self.dense.push_back(value[1]);
                }
            } else {
                self.dense.resize(self.dense.len() + more, 0);
                for (i, unit) in value[..units].iter().enumerate() {
                    self.dense[at + i] = *unit;
                }
            }
            true
        } else if block < self.first && self.first - block <= NEAR {
            let more = (self.first - block) as usize * units;
            if !self.room(more * 16, budget) {
                return false;
            }
            for _ in 0..more {
                self.dense.push_front(0);
            }
            self.first = block;
            for (i, unit) in value[..units].iter().enumerate() {
                self.dense[i] = *unit;
            }
            true
        } else {
            if !self.room(SPARSE_BYTES, budget) {
                return false;
            }
            if self.sparse.insert(block, value).is_some() {
                self.unroom(SPARSE_BYTES, budget);
            }
            true
        }
    }

    /// Takes out what is kept for `block`.
    #[inline]
    pub fn take(&mut self, block: u64, units: usize, budget: &mut Budget) -> Option<Value> {
        let at = usize::try_from(block.wrapping_sub(self.first)).ok()?.checked_mul(units);
        if let Some(found) = at.and_then(|at| self.dense_at(at, units)) {
            let at = (block - self.first) as usize * units;
            for i in 0..units {
                self.dense[at + i] = 0;
            }
            self.trim(units, budget);
            return Some(found);
        }
        let found = self.sparse.remove(&block)?;
        self.unroom(SPARSE_BYTES, budget);
        Some(found)
    }

    fn dense_at(&self, at: usize, units: usize) -> Option<Value> {
        let mut value = [*self.dense.get(at)?, 0];
        if units == 2 {
            value[1] = *self.dense.get(at + 1)?;
        }
        (value != [0, 0]).then_some(value)
    }

    /// Drops the leading blocks that hold nothing.
    fn trim(&mut self, units: usize, budget: &mut Budget) {
        let mut dropped = 0;
        while self.dense.front() == Some(&0) && (units == 1 || self.dense.get(1) == Some(&0)) {
            for _ in 0..units {
                self.dense.pop_front();
            }
            self.first = self.first.wrapping_add(1);
            dropped += units * 16;
        }
        self.unroom(dropped, budget);
        if self.dense.is_empty() && self.dense.capacity() > KEPT {
            self.dense = VecDeque::new();
        }
    }

    /// Takes everything out, in order.
    pub fn drain(&mut self, units: usize, budget: &mut Budget) -> Vec<(u64, Value)> {
        let mut all: Vec<(u64, Value)> = Vec::with_capacity(self.dense.len() / units);
        for i in 0..self.dense.len() / units {
            if let Some(value) = self.dense_at(i * units, units) {
                all.push((self.first + i as u64, value));
            }
        }
        all.extend(self.sparse.iter().map(|(&block, &value)| (block, value)));
        self.clear(budget);
        all
    }

    /// Forgets everything.
    pub fn clear(&mut self, budget: &mut Budget) {
        budget.give(self.held);
        *self = Self::default();
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.dense.is_empty() && self.sparse.is_empty()
    }

    /// Bytes held of the budget.
    pub fn held(&self) -> usize {
        self.held
    }

    fn room(&mut self, bytes: usize, budget: &mut Budget) -> bool {
        // One stream gets at most an eighth, so that a liar can't take it all from the others.
        if self.held + bytes > budget.limit / 8 || !budget.take(bytes) {
            return false;
        }
        self.held += bytes;
        true
    }

    fn unroom(&mut self, bytes: usize, budget: &mut Budget) {
        self.held = self.held.saturating_sub(bytes);
        budget.give(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_once_in_any_order() {
        for units in [1, 2] {
            let mut budget = Budget::new(1 << 20);
            let mut p = Pending::default();
            let blocks = [5u64, 3, 4, 100, 1 << 40, 6, 0, 400, 5000];
            for &b in &blocks {
                assert!(p.put(b, [u128::from(b) + 1, (units - 1) as u128], units, &mut budget));
            }
            assert_eq!(p.take(7, units, &mut budget), None);
            for &b in &[0u64, 1 << 40, 6, 5000, 5, 4, 3, 400, 100] {
                let value = p.take(b, units, &mut budget);
                assert_eq!(value, Some([u128::from(b) + 1, (units - 1) as u128]), "block {b}");
                assert_eq!(p.take(b, units, &mut budget), None);
            }
            assert!(p.is_empty());
            assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn the_budget_holds() {
        let mut budget = Budget::new(16 * 80);
        let mut p = Pending::default();
        for b in 0..10 {
            assert!(p.put(b, [1, 0], 1, &mut budget));
        }
        assert!(!p.put(10, [1, 0], 1, &mut budget), "an eighth is one stream's share");
        assert!(!p.put(u64::MAX, [1, 0], 1, &mut budget));
        p.clear(&mut budget);
        assert_eq!(budget.used(), 0);
    }
}
