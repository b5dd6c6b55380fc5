//! The memory of the boards, one for each user, on which observed processes tell each other of their pipes.
//!
//! Comes in: whose process says hello. Goes out: a descriptor for its hello reply, and the board's bell for `collect`. The daemon
//! reads nothing else of it: what stands there is only the users' own word. Sealed: nobody can make it shorter. They outlive this daemon, as the
//! [matcher's](super::memory) does.
#![forbid(unsafe_code)]

use crate::bells::BoardBell;
use crate::host::keep::{Keep, Shared};
use counterfoil_abi::board::{BOARD_BYTES, MAGIC};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Users that have one: of those that come later nobody hears of the other's pipes.
const USERS: usize = 256;

/// See the module's text.
#[derive(Default)]
pub struct Boards {
    boards: HashMap<u32, Made>,
    keeper: Option<Arc<dyn Keep>>,
}

struct Made {
    memory: OwnedFd,
    bell: Option<Arc<BoardBell>>,
}

impl Made {
    fn new(memory: OwnedFd) -> Self {
        let bell = BoardBell::map(memory.as_fd()).ok().map(Arc::new);
        Self { memory, bell }
    }
}

impl Boards {
    /// Those that an earlier daemon left, and where they are kept for the next.
    pub fn new(before: HashMap<Shared, OwnedFd>, keeper: Option<Arc<dyn Keep>>) -> Self {
        let of = |(what, board)| match what {
            Shared::Board(uid) => Some((uid, board)),
            Shared::Matcher => None,
        };
        let boards = before.into_iter().filter_map(of).filter(|(_, board)| is_one(board)).take(USERS);
        Self { boards: boards.map(|(uid, board)| (uid, Made::new(board))).collect(), keeper }
    }

    /// This user's.
    pub fn of(&mut self, uid: u32) -> Option<BorrowedFd<'_>> {
        if !self.boards.contains_key(&uid) && self.boards.len() < USERS {
            let board = board().ok()?;
            if let Some(keeper) = &self.keeper {
                keeper.share(Shared::Board(uid), board.as_fd());
            }
            self.boards.insert(uid, Made::new(board));
        }
        self.boards.get(&uid).map(|board| board.memory.as_fd())
    }

    /// The bell of this user's.
    pub fn bell(&mut self, uid: u32) -> Option<Arc<BoardBell>> {
        self.of(uid)?;
        self.known(uid)
    }

    /// Its bell, if this user has a board.
    pub fn known(&self, uid: u32) -> Option<Arc<BoardBell>> {
        self.boards.get(&uid)?.bell.clone()
    }
}

/// As large as it must be, and never shorter.
fn is_one(board: &OwnedFd) -> bool {
    let sealed = fcntl_get_seals(board).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
    sealed && fstat(board).is_ok_and(|stat| stat.st_size == BOARD_BYTES as i64)
}

fn board() -> io::Result<OwnedFd> {
    let fd = memfd_create("counterfoil-board", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, BOARD_BYTES as u64)?;
    rustix::io::pwrite(&fd, &MAGIC.to_ne_bytes(), 0)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_for_each_user_and_not_without_end() {
        let mut boards = Boards::default();
        let inode = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).unwrap().st_ino;
        let (mine, theirs) = (inode(boards.of(0).unwrap()), inode(boards.of(1000).unwrap()));
        assert!(mine != theirs && inode(boards.of(0).unwrap()) == mine);
        assert!(ftruncate(boards.of(0).unwrap(), 0).is_err());
        let kept = boards.boards.remove(&1000).unwrap().memory;
        // Of another version, or not sealed.
        let strange = memfd_create("strange", MemfdFlags::CLOEXEC).unwrap();
        let mut next = Boards::new([(Shared::Board(1000), kept), (Shared::Board(7), strange)].into(), None);
        assert!(fstat(next.of(7).unwrap()).unwrap().st_size == BOARD_BYTES as i64);
        assert!(inode(next.of(1000).unwrap()) == theirs && inode(next.of(0).unwrap()) != mine);
        assert_eq!((0..2000).filter(|&uid| boards.of(uid).is_some()).count(), USERS);
    }
}
