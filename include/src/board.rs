//! The board: pipes through which sensitive content may pass.
//!
//! One memory for all observed processes of one user, behind the arena's and the matcher's in the hello reply. A process
//! that has to do with sensitive content puts up which pipes it can write to; who reads from one of them turns itself
//! up before it sees the first byte, since the daemon would tell it too late. Numbers only. Who scribbles on it makes the
//! same user's programs look closer than they need, or not close enough: nothing is concluded from it. It has a bell, too, that
//! tells the daemon that one of those programs is quiet no more; who keeps clearing it delays the others' records a little.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// "cfoilbrd", little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"cfoilbrd");
/// Pipes that it holds: the latest.
pub const NOTICES: usize = 62;
/// Bytes in a board.
pub const BOARD_BYTES: usize = size_of::<Board>();

/// The memory. Valid whatever its bytes are.
#[repr(C)]
pub struct Board {
    /// [`MAGIC`].
    pub magic: u64,
    /// How often something was put up.
    pub count: AtomicU32,
    /// The place of the next one.
    next: AtomicU32,
    /// Zero, or a pipe's [`crate::matcher::key`].
    pub notices: [AtomicU64; NOTICES],
    /// An arena of this user's that was quiet has rung its own: one look for all of them. In a line of its own, since
    /// the daemon clears it and every call looks at what stands above.
    bell: AtomicU64,
    rest: [u64; 7],
}

const _: () = assert!(core::mem::offset_of!(Board, bell).is_multiple_of(64));

impl Default for Board {
    fn default() -> Self {
        Self::empty()
    }
}

impl Board {
    /// With nothing on it.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            magic: MAGIC,
            count: AtomicU32::new(0),
            next: AtomicU32::new(0),
            notices: [const { AtomicU64::new(0) }; NOTICES],
            bell: AtomicU64::new(0),
            rest: [0; 7],
        }
    }

    /// By who rings its arena's bell, after that.
    #[inline]
    pub fn ring(&self) {
        // Pairs with the acquire in `answer`: who hears of it finds the arena's.
        self.bell.store(1, Ordering::Release);
    }

    /// By the daemon, before it looks at the arenas: has somebody rung since the last time?
    #[inline]
    #[must_use]
    pub fn answer(&self) -> bool {
        self.bell.load(Ordering::Relaxed) != 0 && self.bell.swap(0, Ordering::Acquire) != 0
    }

    /// Changes with every pipe that is put up.
    #[inline]
    #[must_use]
    pub fn count(&self) -> u32 {
        // Pairs with the release in `put`.
        self.count.load(Ordering::Acquire)
    }

    /// Puts up a pipe.
    pub fn put(&self, key: u64) {
        if !self.has(key) {
            let at = self.next.fetch_add(1, Ordering::Relaxed) as usize % NOTICES;
            self.notices[at].store(key, Ordering::Relaxed);
        }
        // Whoever turned down meanwhile is to hear of it again.
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Is this pipe on it?
    #[must_use]
    pub fn has(&self, key: u64) -> bool {
        self.notices.iter().any(|notice| notice.load(Ordering::Relaxed) == key)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::matcher::key;

    #[test]
    fn the_latest_are_on_it() {
        let board = Board::empty();
        assert!(!board.has(key(13, 1)) && board.count() == 0);
        (1..=100).for_each(|pipe| board.put(key(13, pipe)));
        assert!((40..=100).all(|pipe| board.has(key(13, pipe))) && !board.has(key(13, 1)));
        let count = board.count();
        board.put(key(13, 100));
        assert!(board.count() != count, "told again");
        assert!(board.has(key(13, 40)), "and nothing lost its place");
    }

    #[test]
    fn many_at_once_lose_nothing() {
        let board = Board::empty();
        std::thread::scope(|scope| {
            for n in 0..6 {
                let board = &board;
                scope.spawn(move || (1..=10).for_each(|pipe| board.put(key(n + 1, pipe))));
            }
        });
        assert!((0..6).all(|n| (1..=10).all(|pipe| board.has(key(n + 1, pipe)))));
    }
}
