//! The board: pipes through which sensitive content may pass.
//!
//! One memory for all observed processes of one user, behind the arena's and the matcher's in the hello reply. A process
//! that has to do with sensitive content puts up which pipes it can write to; who reads from one of them turns itself
//! up before it sees the first byte, since the daemon would tell it too late. Numbers only. Who scribbles on it makes the
//! same user's programs look closer than they need, or not close enough: nothing is concluded from it. It has a bell, too, that
//! tells the daemon that one of those programs is quiet no more, and a word by which that program calls it out of a nap; who
//! keeps clearing them delays the others' records a little.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

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
    /// The daemon naps: who rings calls it, too.
    napping: AtomicU32,
    /// How often it was called; a futex.
    calls: AtomicU32,
    rest: [u64; 6],
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
            napping: AtomicU32::new(0),
            calls: AtomicU32::new(0),
            rest: [0; 6],
        }
    }

    /// By who rings its arena's bell, after that.
    #[inline]
    pub fn ring(&self) {
        // Pairs with the acquire in `answer`: who hears of it finds the arena's.
        self.bell.store(1, Ordering::Release);
    }

    /// By who has rung, if it can make a system call: does the daemon nap? Then it waits for [`Self::calls`] to be woken.
    #[inline]
    #[must_use]
    pub fn call(&self) -> bool {
        // Pairs with the one in `nap`: either we see that it naps, or it sees that we rang.
        fence(Ordering::SeqCst);
        // The first who comes is enough.
        let first = self.napping.load(Ordering::Relaxed) != 0 && self.napping.swap(0, Ordering::Relaxed) != 0;
        if first {
            self.calls.fetch_add(1, Ordering::Relaxed);
        }
        first
    }

    /// The word that changes with every call: a futex, shared between processes.
    pub fn calls(&self) -> &AtomicU32 {
        &self.calls
    }

    /// By the daemon, before it looks at the arenas: has somebody rung since the last time?
    #[inline]
    #[must_use]
    pub fn answer(&self) -> bool {
        self.bell.load(Ordering::Relaxed) != 0 && self.bell.swap(0, Ordering::Acquire) != 0
    }

    /// By the daemon: who rings from now on calls. False: somebody has rung, it is no time for that.
    #[must_use]
    pub fn nap(&self) -> bool {
        self.napping.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.bell.load(Ordering::Relaxed) == 0
    }

    /// By the daemon: it looks by itself again.
    pub fn rise(&self) {
        self.napping.store(0, Ordering::Relaxed);
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
    fn who_naps_is_called_once() {
        let board = Board::empty();
        board.ring();
        assert!(!board.call() && !board.nap(), "it looks by itself, and has something to look at");
        assert!(board.answer() && board.nap());
        board.ring();
        assert!(board.call() && !board.call());
        assert_eq!(board.calls().load(Ordering::Relaxed), 1);
        assert!(board.answer() && board.nap());
        board.rise();
        board.ring();
        assert!(!board.call());
    }

    #[test]
    fn a_ring_is_seen_or_calls() {
        let board = Board::empty();
        let turn = AtomicU32::new(0);
        let until = |at| {
            let mut looks = 0;
            while turn.load(Ordering::Acquire) < at {
                looks += 1;
                if looks % 1000 == 0 {
                    std::thread::yield_now();
                }
            }
        };
        let mut missed = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..100_000 {
                    until(2 * n + 1);
                    board.ring();
                    let _ = board.call();
                    turn.store(2 * n + 2, Ordering::Release);
                }
            });
            for n in 0..100_000 {
                let before = board.calls().load(Ordering::Relaxed);
                turn.store(2 * n + 1, Ordering::Release);
                let naps = board.nap();
                until(2 * n + 2);
                let called = board.calls().load(Ordering::Relaxed) != before;
                missed += u32::from(naps && !called);
                board.rise();
                let _ = board.answer();
            }
        });
        assert_eq!(missed, 0, "it sleeps, and nobody wakes it");
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
