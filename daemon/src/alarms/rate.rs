//! How many alarms come up in each minute, for `alarms stats`: the list's load on who reads it.
#![forbid(unsafe_code)]

use jiff::Timestamp;
use std::collections::BTreeMap;

/// Minutes kept until somebody takes them; a clock that jumps makes no more.
const KEPT: usize = 4096;

/// Counts by minute since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Minutes(BTreeMap<i64, (u64, u64)>);

impl Minutes {
    /// An alarm came up: raised, or once more after it was seen or over.
    pub(super) fn raised(&mut self, at: Timestamp) {
        self.of(at).0 += 1;
    }

    /// A finding was counted towards an alarm that nobody had seen yet, or that is held.
    pub(super) fn repeated(&mut self, at: Timestamp) {
        self.of(at).1 += 1;
    }

    /// Nothing came.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Minute, alarms that came up, repeats.
    pub fn iter(&self) -> impl Iterator<Item = (i64, u64, u64)> + '_ {
        self.0.iter().map(|(minute, (raised, repeated))| (*minute, *raised, *repeated))
    }

    /// Adds what others counted.
    pub fn add(&mut self, more: &Self) {
        for (minute, raised, repeated) in more.iter() {
            let mine = self.0.entry(minute).or_default();
            (mine.0, mine.1) = (mine.0 + raised, mine.1 + repeated);
        }
    }

    fn of(&mut self, at: Timestamp) -> &mut (u64, u64) {
        if self.0.len() >= KEPT {
            self.0.pop_first();
        }
        self.0.entry(at.as_second().div_euclid(60)).or_default()
    }
}
