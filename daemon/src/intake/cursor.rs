//! How far a table was read, so that no row is missed or taken twice.
//!
//! Comes in: the keys of rows as they are read. Goes out: which are new, and from where to read the next time. Pure;
//! called by `sql`, which keeps it over restarts.
//!
//! A key that grows is not the whole truth: of two writers, the one that took the lower number may commit later
//! (PostgreSQL's sequences). So below the highest key that was read, numbers that were not there are waited for, for
//! as long as `settle`.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Keys remembered above the floor; beyond it the floor rises, and what comes below it is not read.
const REMEMBERED: usize = 4096;

/// See the module's text. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    /// Every row up to this key is done with.
    floor: i64,
    /// Rows above it that were read, and when.
    read: BTreeMap<i64, i64>,
}

impl Cursor {
    /// Everything up to `floor` is done with.
    #[must_use]
    pub fn at(floor: i64) -> Self {
        Self { floor, read: BTreeMap::new() }
    }

    /// Rows above this are to be read again.
    #[must_use]
    pub fn floor(&self) -> i64 {
        self.floor
    }

    /// True: the row with this key is new, and is taken now.
    pub fn take(&mut self, key: i64, now: i64) -> bool {
        if key <= self.floor || self.read.contains_key(&key) {
            return false;
        }
        if self.floor == i64::MIN {
            // The first row of all: there is nothing below it to wait for.
            self.floor = key.saturating_sub(1);
        }
        self.read.insert(key, now);
        while self.read.len() > REMEMBERED {
            self.rise();
        }
        true
    }

    /// Lets the floor rise over rows without a gap, and over gaps that nobody filled in `settle` seconds.
    pub fn settle(&mut self, now: i64, settle: i64) {
        while let Some((&key, &at)) = self.read.first_key_value() {
            if Some(key) != self.floor.checked_add(1) && now.saturating_sub(at) < settle {
                return;
            }
            self.rise();
        }
    }

    fn rise(&mut self) {
        if let Some((key, _)) = self.read.pop_first() {
            self.floor = key;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_once() {
        let mut c = Cursor::at(10);
        assert!(!c.take(10, 0) && c.take(11, 0) && c.take(12, 0) && !c.take(11, 0));
        c.settle(0, 60);
        assert_eq!((c.floor(), c.read.len()), (12, 0));
        assert!(!c.take(12, 0));
    }

    #[test]
    fn a_row_that_is_committed_late_is_taken() {
        let mut c = Cursor::at(0);
        assert!(c.take(1, 0) && c.take(3, 0));
        c.settle(59, 60);
        assert_eq!(c.floor(), 1);
        assert!(c.take(2, 59), "late, and not missed");
        c.settle(59, 60);
        assert_eq!(c.floor(), 3);
        // A number that was rolled back never comes.
        assert!(c.take(5, 100));
        c.settle(159, 60);
        assert_eq!(c.floor(), 3);
        c.settle(160, 60);
        assert_eq!(c.floor(), 5);
    }

    #[test]
    fn it_survives_being_kept() {
        let mut c = Cursor::at(0);
        c.take(7, 1);
        c.take(i64::MAX, 2);
        let mut back: Cursor = serde_json::from_str(&serde_json::to_string(&c).unwrap()).unwrap();
        assert_eq!(back, c);
        assert!(!back.take(7, 3) && !back.take(i64::MAX, 3) && back.take(8, 3));
    }

    #[test]
    fn nothing_is_waited_for_below_the_first_row() {
        let mut c = Cursor::at(i64::MIN);
        assert!(c.take(1000, 0));
        c.settle(0, 60);
        assert_eq!(c.floor(), 1000);
    }

    #[test]
    fn memory_is_bounded() {
        let mut c = Cursor::at(0);
        for key in 0..100_000 {
            assert!(c.take(key * 10 + 5, 0));
            assert!(c.read.len() <= REMEMBERED);
        }
        assert!(!c.take(5, 0));
    }
}
