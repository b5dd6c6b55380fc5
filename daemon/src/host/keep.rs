//! What must outlive the daemon: the arenas, and the memories that programs share.
//!
//! Comes in: word of each arena that is granted, and of each that is done; of each shared memory when it is made. Goes
//! out: nothing; a later daemon gets all of them back through `pipeline::Options`. `listen` and the core call it,
//! `keeper` implements it.

use super::facts::Facts;
use crate::assemble::program::ArenaId;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// An arena that was just made.
pub struct Keeping<'a> {
    /// Its number.
    pub id: ArenaId,
    /// Its user.
    pub uid: u32,
    /// Tags were asked for.
    pub watched: bool,
    /// Its process.
    pub facts: &'a Facts,
    /// Its memory.
    pub memfd: BorrowedFd<'a>,
    /// Its process, for good: a pid may be used again.
    pub pidfd: BorrowedFd<'a>,
}

/// An arena of an earlier daemon.
#[derive(Debug)]
#[expect(missing_docs, reason = "as in Keeping")]
pub struct Kept {
    pub id: ArenaId,
    pub uid: u32,
    pub watched: bool,
    pub facts: Facts,
    pub memfd: OwnedFd,
    pub pidfd: OwnedFd,
    /// The earlier daemon ended in order, and said what was open.
    pub said: bool,
}

impl Kept {
    /// To be kept by another keeper.
    pub fn keeping(&self) -> Keeping<'_> {
        let (memfd, pidfd) = (self.memfd.as_fd(), self.pidfd.as_fd());
        Keeping { id: self.id, uid: self.uid, watched: self.watched, facts: &self.facts, memfd, pidfd }
    }
}

/// A memory that programs share, beside their arenas: those of an earlier daemon have it still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Shared {
    /// The [matcher](counterfoil_abi::matcher).
    Matcher,
    /// The [board](counterfoil_abi::board) of a user.
    Board(u32),
}

/// Keeps arenas through a restart. No call may wait: programs that start wait behind it.
pub trait Keep: Send + Sync {
    /// Keeps one.
    fn keep(&self, arena: &Keeping<'_>);
    /// Nobody writes into it any more, and all of it was read.
    fn forget(&self, id: ArenaId);
    /// Keeps a memory, as long as there are arenas.
    fn share(&self, what: Shared, memory: BorrowedFd<'_>);
}
