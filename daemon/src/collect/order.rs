//! In which order lanes are read: any will do.
//!
//! A program is heard of when its lane is read, another one's lane may be read before or after it, and what a thread does
//! next may be published a while after it was done. So nothing may depend on it. A debug build in whose environment
//! `COUNTERFOIL_TEST_ORDER` is so many milliseconds reads lanes in an order of chance, and some of them that much later:
//! `make test-order`. No other build knows of that.
#![forbid(unsafe_code)]

use crate::assemble::program::ArenaId;

/// As they come.
#[cfg(not(debug_assertions))]
#[derive(Default)]
pub(super) struct Order;

#[cfg(not(debug_assertions))]
impl Order {
    pub fn mix<T>(&mut self, _: &mut [T]) {}

    #[inline(always)]
    pub fn late(&mut self, _: ArenaId, _: usize, _: u64) -> bool {
        false
    }
}

/// As they come, or any other.
#[cfg(debug_assertions)]
pub(super) struct Order {
    /// How late at most, nanoseconds.
    most: Option<u64>,
    dice: u64,
    /// Lanes, and until when they are not read.
    late: std::collections::HashMap<(ArenaId, usize), u64>,
}

#[cfg(debug_assertions)]
impl Default for Order {
    fn default() -> Self {
        let most = std::env::var("COUNTERFOIL_TEST_ORDER").ok().and_then(|most| most.parse::<u64>().ok());
        Self { most: most.map(|ms| ms * 1_000_000), dice: crate::core::now() | 1, late: Default::default() }
    }
}

#[cfg(debug_assertions)]
impl Order {
    /// Below `end`.
    fn throw(&mut self, end: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) % end.max(1)
    }

    /// Puts arenas in an order.
    pub fn mix<T>(&mut self, all: &mut [T]) {
        if self.most.is_some() {
            (1..all.len()).rev().for_each(|i| all.swap(i, self.throw(i as u64 + 1) as usize));
        }
    }

    /// Is this lane not to be read yet? One of three that have something to tell isn't, for a while.
    pub fn late(&mut self, arena: ArenaId, lane: usize, now: u64) -> bool {
        let Some(most) = self.most else { return false };
        if let Some(until) = self.late.get(&(arena, lane)).copied() {
            let late = now < until;
            if !late {
                self.late.remove(&(arena, lane));
            }
            return late;
        }
        let late = self.throw(3) == 0;
        if late {
            let until = now + self.throw(most);
            self.late.insert((arena, lane), until);
        }
        late
    }
}
