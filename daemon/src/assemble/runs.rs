//! A set of block numbers as sorted, disjoint runs: one pair of numbers for a stream that came in
//! order, however long it is.
//!
//! Comes in: block numbers, in any order. Goes out: what is covered, and what is missing.

/// More runs than this are refused: only a liar's stream is in so many pieces, and memory is bounded.
const MAX_RUNS: usize = 1024;

/// Half-open runs of block numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(Vec<(u64, u64)>);

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It was not there before.
    New,
    /// It was there.
    Old,
    /// There is no room for another run.
    Refused,
}

impl Runs {
    /// Adds one block.
    #[inline]
    pub fn insert(&mut self, block: u64) -> Inserted {
        match self.0.last_mut() {
            Some((_, end)) if *end == block => {
                *end = block.saturating_add(1);
                Inserted::New
            }
            None => {
                self.0.push((block, block.saturating_add(1)));
                Inserted::New
            }
            Some(_) => self.insert_anywhere(block),
        }
    }

    fn insert_anywhere(&mut self, block: u64) -> Inserted {
        let after = self.0.partition_point(|&(start, _)| start <= block);
        if after > 0 && block < self.0[after - 1].1 {
            return Inserted::Old;
        }
        let joins_left = after > 0 && self.0[after - 1].1 == block;
        let joins_right = self.0.get(after).is_some_and(|&(start, _)| start == block + 1);
        match (joins_left, joins_right) {
            (true, true) => {
                self.0[after - 1].1 = self.0[after].1;
                self.0.remove(after);
            }
            (true, false) => self.0[after - 1].1 = block + 1,
            (false, true) => self.0[after].0 = block,
            (false, false) if self.0.len() >= MAX_RUNS => return Inserted::Refused,
            (false, false) => self.0.insert(after, (block, block + 1)),
        }
        Inserted::New
    }

    /// Is the block in the set?
    pub fn contains(&self, block: u64) -> bool {
        let after = self.0.partition_point(|&(start, _)| start <= block);
        after > 0 && block < self.0[after - 1].1
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes on the heap.
    pub fn weight(&self) -> usize {
        self.0.len() * size_of::<(u64, u64)>()
    }

    /// One past the greatest block, 0 if empty.
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |&(_, end)| end)
    }

    /// How many blocks below `limit` are in it.
    pub fn count_below(&self, limit: u64) -> u64 {
        self.0.iter().map(|&(s, e)| e.min(limit).saturating_sub(s)).sum()
    }

    /// The runs below `limit`, cut there.
    pub fn below(&self, limit: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(move |&(s, e)| (s, e.min(limit))).filter(|(s, e)| s < e)
    }

    /// The runs below `limit` that are not in it.
    pub fn missing_below(&self, limit: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut at = 0;
        for (start, end) in self.below(limit) {
            if at < start {
                missing.push((at, start));
            }
            at = end;
        }
        if at < limit {
            missing.push((at, limit));
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(blocks: &[u64]) -> Runs {
        let mut runs = Runs::default();
        for &b in blocks {
            runs.insert(b);
        }
        runs
    }

    #[test]
    fn any_order_gives_the_same_runs() {
        assert_eq!(set(&[0, 1, 2, 5, 6]), set(&[6, 1, 5, 0, 2]));
        assert_eq!(set(&[0, 2, 1]).0, [(0, 3)]);
        assert_eq!(set(&[2, 1, 0]).0, [(0, 3)]);
        assert_eq!(set(&[7, 9, 8, 8, 7]).0, [(7, 10)]);
    }

    #[test]
    fn missing_is_the_complement() {
        assert_eq!(set(&[1, 2, 5]).missing_below(7), [(0, 1), (3, 5), (6, 7)]);
        assert_eq!(set(&[1, 2, 5]).missing_below(2), [(0, 1)]);
        assert_eq!(set(&[]).missing_below(2), [(0, 2)]);
        assert_eq!(set(&[0, 1]).missing_below(2), []);
    }

    #[test]
    fn a_set_in_too_many_pieces_is_refused() {
        let mut runs = Runs::default();
        for b in 0..MAX_RUNS as u64 {
            assert_eq!(runs.insert(b * 2), Inserted::New);
        }
        assert_eq!(runs.insert(u64::MAX - 1), Inserted::Refused);
        assert_eq!(runs.insert(0), Inserted::Old);
        assert_eq!(runs.insert(1), Inserted::New);
    }
}
