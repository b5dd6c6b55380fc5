//! What must outlive the daemon: the arenas.
//!
//! Comes in: word of each arena that is granted, and of each that is done. Goes out: nothing; a
//! later daemon gets [`Kept`] ones back through `pipeline::Options`. `listen` and the core call it,
//! `keeper` implements it.

use super::facts::Facts;
use crate::assemble::program::ArenaId;
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

/// Keeps arenas through a restart. Neither call may wait: programs that start wait behind it.
pub trait Keep: Send + Sync {
    /// Keeps one.
    fn keep(&self, arena: &Keeping<'_>);
    /// Nobody writes into it any more, and all of it was read.
    fn forget(&self, id: ArenaId);
}
