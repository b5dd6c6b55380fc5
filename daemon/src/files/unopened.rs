//! Empty files that tar packs: it looks at their size and opens none of them.
//!
//! Comes in: pairs of files that went from one tar to another, and an empty file that the second one made. Goes out:
//! where in the first one's tree it would lie; that it lies there, and is empty, is found out at rest. A guess that
//! is not so says nothing.

use super::carriers::name;
use super::matching::From;
use super::names::common_parts;
use super::open::{FileEnd, Way};
use super::readings::Reading;
use super::rest::AtRestState;
use super::tags::Tags;
use super::{Delivery, Files};
use crate::assemble::program::ArenaId;
use crate::judge::Finish;
use crate::rest::Ask;
use counterfoil_abi::record::Stat;
use std::collections::HashMap;

/// Pairs of programs remembered.
const MAX_TREES: usize = 256;
/// Files asked for, of one pair.
const MAX_GUESSES: usize = 4096;

/// Where files of one tree went.
#[derive(Debug, Default)]
pub struct Tree {
    from: Vec<u8>,
    to: Vec<u8>,
    /// Where was looked.
    guessed: HashMap<Vec<u8>, u64>,
}

/// All of them, by the two programs.
pub type Trees = HashMap<(ArenaId, ArenaId), Tree>;

fn above(path: &[u8], parts: usize) -> &[u8] {
    let mut rest = path;
    for _ in 0..parts {
        rest = rest.iter().rposition(|&b| b == b'/').map_or(&[][..], |slash| &rest[..slash]);
    }
    rest
}

impl Files {
    fn packs(&self, arena: ArenaId) -> bool {
        self.nodes.get(&arena).is_some_and(|n| name(&n.facts.process) == "tar")
    }

    /// A file went from one tar to another.
    pub(super) fn learn_tree(&mut self, (arena, read): (ArenaId, Vec<u8>), written: &[u8], to: ArenaId) {
        let key = (arena, to);
        if arena == to || !self.packs(arena) || !self.packs(to) || self.trees.contains_key(&key) {
            return;
        }
        let parts = common_parts(&read, written);
        if parts == 0 {
            return;
        }
        if self.trees.len() >= MAX_TREES {
            self.trees.clear();
        }
        let (from, to) = (above(&read, parts).to_vec(), above(written, parts).to_vec());
        self.trees.insert(key, Tree { from, to, guessed: HashMap::new() });
    }

    /// Looks for an empty file where it would come from. True: an answer will come.
    pub(super) fn guess(&mut self, d: &Delivery, from: &From) -> bool {
        if d.bytes() != 0 || !self.surroundings.reads_at_rest {
            return false;
        }
        let to = d.end.arena;
        let origin =
            from.sources.iter().skip(1).map(|s| s.arena).find(|a| self.trees.contains_key(&(*a, to)));
        let Some(arena) = origin else { return false };
        let (Some(pid), Some(user)) =
            (self.nodes.get(&arena).map(|n| n.facts.process.pid), self.user(arena, 0))
        else {
            return false;
        };
        let id = self.next;
        let Some(tree) = self.trees.get_mut(&(arena, to)) else { return false };
        let Some(inside) = d.path.strip_prefix(&tree.to[..]).filter(|rest| rest.starts_with(b"/")) else {
            return false;
        };
        let path = [&tree.from[..], inside].concat();
        if let Some(id) = tree.guessed.get(&path) {
            return self.readings.get(*id).is_some_and(|r| r.rest.pending());
        }
        if tree.guessed.len() >= MAX_GUESSES || self.asked.len() >= super::MAX_ASKED {
            return false;
        }
        tree.guessed.insert(path.clone(), id);
        let end = FileEnd {
            arena,
            pid,
            way: Way::Read,
            inode: (0, 0),
            path: path.clone(),
            opened: d.end.opened,
            last: d.end.opened,
            bytes: 0,
            digest: None,
            at_rest: true,
            before: Stat::default(),
            after: Stat::default(),
            written: 0,
            read: 0,
            made_empty: false,
            failed: false,
            handed_unseen: false,
            finish: Finish::Ended,
            content: None,
            tags: Tags::default(),
            times: 1,
            doubts: Vec::new(),
        };
        self.readings.insert(id, 0, end, &mut self.room);
        let ask = id + 1;
        self.next += 2;
        self.asked.insert(ask, (Way::Read, id));
        self.asks.push(Ask {
            id: ask,
            path,
            inode: None,
            user,
            upto: 1,
            prefix: None,
            tags: false,
            uncached: false,
        });
        if let Some(reading) = self.readings.get_mut(id) {
            reading.rest = AtRestState::Asked(ask, None);
        }
        true
    }

    /// Where it may come from will be known when another file of its tree is.
    pub(super) fn may_be_guessed(&self, d: &Delivery, waited: u64) -> bool {
        const SOON: u64 = 500_000_000;
        let known = || self.trees.keys().any(|(_, to)| *to == d.end.arena);
        d.bytes() == 0 && waited < SOON && self.packs(d.end.arena) && !known()
    }

    /// It was only guessed, and nobody read it: it counts where it is empty.
    pub(super) fn was_read(reading: &Reading) -> bool {
        reading.end.inode != (0, 0) || reading.rest.had().is_some_and(|rest| rest.bytes == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::above;

    #[test]
    fn what_is_above() {
        assert_eq!(above(b"/a/b/c", 1), b"/a/b");
        assert_eq!(above(b"/a/b/c", 2), b"/a");
        assert_eq!(above(b"/a", 3), b"");
    }
}
