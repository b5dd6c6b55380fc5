//! The memory of the boards, one for each user, on which observed processes tell each other of their pipes.
//!
//! Comes in: whose process says hello. Goes out: a descriptor for its hello reply. The daemon reads nothing of it: what
//! stands there is only the users' own word. Sealed: nobody can make it shorter.
#![forbid(unsafe_code)]

use counterfoil_abi::board::{BOARD_BYTES, MAGIC};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Users that have one: of those that come later nobody hears of the other's pipes.
const USERS: usize = 256;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Boards(HashMap<u32, OwnedFd>);

impl Boards {
    /// This user's.
    pub fn of(&mut self, uid: u32) -> Option<BorrowedFd<'_>> {
        if !self.0.contains_key(&uid) && self.0.len() < USERS {
            self.0.insert(uid, board().ok()?);
        }
        self.0.get(&uid).map(AsFd::as_fd)
    }
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
        assert_eq!((0..2000).filter(|&uid| boards.of(uid).is_some()).count(), USERS);
    }
}
