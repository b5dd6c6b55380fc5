//! Files that were read, kept for a while: what is written somewhere may come from them.
//!
//! Comes in: [`FileEnd`]s of what was read. Goes out: those that a written file may come from, found by
//! content or by name, without looking at all of them.

use super::names::{base, common_parts};
use super::open::FileEnd;
use super::rest::AtRestState;
use super::tags::Room;
use crate::assemble::program::ArenaId;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Readings kept.
const MAX_ALL: usize = 100_000;
/// Of one program.
pub(super) const MAX_OF_ONE: usize = 20_000;
/// Looked at for one written file, of one program.
const MAX_OF_EACH: usize = 256;
/// Looked at for one written file.
const MAX_LOOK: usize = 1024;

/// A file that was read.
#[derive(Debug)]
pub struct Reading {
    /// As it was read.
    pub end: FileEnd,
    /// As it lay there afterwards.
    pub rest: AtRestState,
    /// Deliveries that come from it.
    pub matched: u32,
    /// How often it was said to have gone to somebody whom nobody observes.
    pub sent: u32,
    /// Its object's number.
    number: u32,
}

impl Reading {
    /// SHA-256 of what was read.
    pub fn digest(&self) -> Option<[u8; 32]> {
        self.end.digest.or_else(|| self.rest.had().map(|r| r.sha256))
    }

    /// It was read more often than deliveries come from it.
    pub fn unmatched(&self) -> bool {
        self.end.times > self.matched
    }

    /// How many of the times that it was read nothing is known to have come of.
    pub fn left(&self) -> u32 {
        self.end.times.saturating_sub(self.matched).saturating_sub(self.sent)
    }

    /// Bytes that were read; of the file, where it has to be read at rest.
    pub fn bytes(&self) -> u64 {
        match self.rest.had() {
            _ if self.end.digest.is_some() => self.end.bytes,
            Some(rest) => rest.bytes,
            None if self.end.at_rest => self.end.after.size.max(self.end.bytes),
            None => self.end.bytes,
        }
    }
}

/// Oldest first. A set: a web server reads one file ten thousand times a second, and each of them is forgotten again.
type Ids = BTreeSet<u64>;

/// All of them.
#[derive(Debug, Default)]
pub struct Readings {
    all: BTreeMap<u64, Reading>,
    by_digest: HashMap<[u8; 32], Ids>,
    by_name: HashMap<(ArenaId, Vec<u8>), Ids>,
    by_arena: HashMap<ArenaId, Ids>,
    by_number: HashMap<(ArenaId, u32), u64>,
}

impl Readings {
    /// One of them.
    pub fn get(&self, id: u64) -> Option<&Reading> {
        self.all.get(&id)
    }

    /// One of them. What it is found by must not be changed.
    pub fn get_mut(&mut self, id: u64) -> Option<&mut Reading> {
        self.all.get_mut(&id)
    }

    /// Is any of this program's there?
    pub fn has(&self, arena: ArenaId) -> bool {
        self.by_arena.contains_key(&arena)
    }

    /// What had that number there was read once more. False: it isn't known.
    pub fn again(&mut self, arena: ArenaId, number: u32, time: u64) -> bool {
        let Some(reading) = self.by_number.get(&(arena, number)).and_then(|id| self.all.get_mut(id)) else {
            return false;
        };
        reading.end.times = reading.end.times.saturating_add(1);
        reading.end.last = reading.end.last.max(time);
        true
    }

    /// Keeps one more. `number`: its object's.
    pub fn insert(&mut self, id: u64, number: u32, end: FileEnd, room: &mut Room) {
        let of_one = self.by_arena.get(&end.arena).filter(|ids| ids.len() >= MAX_OF_ONE);
        let oldest = of_one.and_then(|ids| ids.first().copied());
        let oldest = oldest
            .or_else(|| self.all.first_key_value().map(|(&id, _)| id).filter(|_| self.all.len() >= MAX_ALL));
        if let Some(oldest) = oldest {
            self.remove(oldest, room);
        }
        if let Some(digest) = end.digest {
            self.by_digest.entry(digest).or_default().insert(id);
        }
        let name = (end.arena, base(&end.path).to_vec());
        self.by_name.entry(name).or_default().insert(id);
        self.by_arena.entry(end.arena).or_default().insert(id);
        self.by_number.insert((end.arena, number), id);
        self.all.insert(id, Reading { end, rest: AtRestState::default(), matched: 0, sent: 0, number });
    }

    /// Its content became known.
    pub fn digested(&mut self, id: u64) {
        let Some(digest) = self.all.get(&id).and_then(Reading::digest) else { return };
        self.by_digest.entry(digest).or_default().insert(id);
    }

    fn remove(&mut self, id: u64, room: &mut Room) {
        let Some(mut reading) = self.all.remove(&id) else { return };
        if let Some(digest) = reading.digest() {
            drop_from(&mut self.by_digest, &digest, id);
        }
        let name = (reading.end.arena, base(&reading.end.path).to_vec());
        drop_from(&mut self.by_name, &name, id);
        drop_from(&mut self.by_arena, &reading.end.arena, id);
        let number = (reading.end.arena, reading.number);
        if self.by_number.get(&number) == Some(&id) {
            self.by_number.remove(&number);
        }
        reading.end.tags.clear(room);
    }

    /// Forgets what was over before `time`, and the oldest tags where room gets scarce.
    pub fn forget_before(&mut self, time: u64, room: &mut Room, scarce: bool) {
        let old: Vec<u64> = self.all.iter().filter(|(_, r)| r.end.last < time).map(|(&id, _)| id).collect();
        old.into_iter().for_each(|id| self.remove(id, room));
        if scarce {
            let half = self.all.len().div_ceil(2);
            self.all.values_mut().take(half).for_each(|r| {
                r.end.tags.clear(room);
                r.end.tags.shed = true;
            });
        }
    }

    /// How many have this content.
    pub fn with(&self, digest: &[u8; 32]) -> usize {
        self.by_digest.get(digest).map_or(0, Ids::len)
    }

    /// The best one with this content, of those for which `suits` gives a rank. `path`: the written file's.
    pub fn with_digest<R: Ord>(
        &self,
        digest: &[u8; 32],
        path: &[u8],
        suits: impl Fn(&Reading) -> Option<R>,
    ) -> Option<u64> {
        let ids = self.by_digest.get(digest)?;
        self.best(ids.iter().copied(), path, suits)
    }

    /// The best one of these programs with this name.
    pub fn with_name<R: Ord>(
        &self,
        arenas: &[ArenaId],
        name: &[u8],
        path: &[u8],
        suits: impl Fn(&Reading) -> Option<R>,
    ) -> Option<u64> {
        let ids = arenas.iter().filter_map(|&a| self.by_name.get(&(a, name.to_vec()))).flatten();
        self.best(ids.copied(), path, suits)
    }

    /// The latest of these programs, newest first.
    pub fn latest(&self, arenas: &[ArenaId]) -> Vec<u64> {
        let of = |a: &ArenaId| {
            self.by_arena.get(a).into_iter().flat_map(|ids| ids.iter().rev().take(MAX_OF_EACH).copied())
        };
        arenas.iter().flat_map(of).take(MAX_LOOK).collect()
    }

    fn best<R: Ord>(
        &self,
        ids: impl Iterator<Item = u64>,
        path: &[u8],
        suits: impl Fn(&Reading) -> Option<R>,
    ) -> Option<u64> {
        let ranked = ids.take(4 * MAX_LOOK).filter_map(|id| {
            let reading = self.all.get(&id)?;
            let rank = suits(reading)?;
            let alike = common_parts(&reading.end.path, path);
            // Of several the first one is next.
            Some(((rank, alike, reading.unmatched(), std::cmp::Reverse(id)), id))
        });
        ranked.max_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, id)| id)
    }
}

fn drop_from<K: std::hash::Hash + Eq>(index: &mut HashMap<K, Ids>, key: &K, id: u64) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
