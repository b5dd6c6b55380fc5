//! Which file that was read is the one that was written: by content, by likeness, by name.
//!
//! Comes in: a delivery, the programs that its bytes may come from. Goes out: the reading that it comes
//! from, and how that is known.

use super::capacity::NOT_TOLD_YET;
use super::carriers::{Carrier, carrier};
use super::chains::{Gift, Live, Source};
use super::names::{base, stands_for};
use super::open::Way;
use super::readings::Reading;
use super::{Delivery, Files};
use crate::assemble::program::ArenaId;
use std::cmp::Reverse;
use std::collections::HashMap;

/// How long before a file is opened to be written its origin may have been closed, where only its name tells.
const NEAR: u64 = 60_000_000_000;
/// Bytes that two files of one program don't have in common by chance.
const TELLING: u64 = 64;
/// Files read at rest to find out whether they are the origin of one delivery.
const MAX_TRIED: usize = 4;
/// Readings of one likeness for which a way is looked for.
const MAX_WAYS: usize = 64;

/// How origin and destination found each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// Same SHA-256 and length.
    Digest,
    /// Mostly the same blocks.
    Likeness,
    /// Same name, or nothing else of that length on the way.
    Name,
}

/// The programs that bytes may come from.
pub(super) struct From {
    pub sources: Vec<Source>,
    places: HashMap<ArenaId, usize>,
    arenas: Vec<ArenaId>,
}

impl From {
    pub fn new(sources: Vec<Source>) -> Self {
        let places = sources.iter().enumerate().map(|(i, s)| (s.arena, i)).collect();
        let arenas = sources.iter().map(|s| s.arena).collect();
        Self { sources, places, arenas }
    }

    /// Another program than the writer itself.
    fn remote(&self, reading: &Reading) -> Option<bool> {
        self.places.get(&reading.end.arena).map(|&place| place > 0)
    }

    /// How likely bytes come from there: over legs that carried as much, and over few of them. (Who
    /// compresses carries less; then none does.)
    fn near(&self, reading: &Reading, delivery: &Delivery) -> (bool, Reverse<usize>) {
        let legs = self.source(reading.end.arena).map_or(&[][..], |s| &s.legs);
        let carried = |leg: &Gift| leg.bytes.saturating_add(NOT_TOLD_YET) >= delivery.bytes();
        (legs.iter().all(carried), Reverse(legs.len()))
    }

    pub fn source(&self, arena: ArenaId) -> Option<&Source> {
        self.places.get(&arena).map(|&place| &self.sources[place])
    }

    fn others(&self) -> &[ArenaId] {
        self.arenas.get(1..).unwrap_or_default()
    }
}

/// The name that a delivery has or will have.
fn wanted(delivery: &Delivery) -> &[u8] {
    let name = base(&delivery.path);
    stands_for(name).unwrap_or(name)
}

/// It was there before, and is not the written file itself.
fn may_be(reading: &Reading, delivery: &Delivery) -> bool {
    // What has no bytes is first heard of when it is closed.
    let before = reading.end.opened <= delivery.end.last || reading.end.bytes == 0;
    reading.end.inode != delivery.end.inode && before
}

impl Files {
    /// By content alone.
    pub(super) fn by_digest(&self, delivery: &Delivery, from: &From) -> Option<u64> {
        let digest = delivery.digest()?;
        let name = wanted(delivery);
        let suits = |r: &Reading| {
            let remote = from.remote(r).filter(|_| may_be(r, delivery))?;
            let named = base(&r.end.path) == name;
            // Files of no bytes are all alike, and within one program a few bytes may be by chance.
            let telling = match delivery.bytes() {
                0 => named,
                1..TELLING => named || remote || self.carrier(delivery.end.arena) > Carrier::No,
                _ => true,
            };
            telling.then_some((remote, from.near(r, delivery), named))
        };
        // A thousand files of one content are told apart by their names.
        let named = self.readings.with_name(&from.arenas, name, &delivery.path, |r| {
            suits(r).filter(|_| r.digest() == Some(digest) && r.bytes() == delivery.bytes())
        });
        let remote = |id: &u64| self.readings.get(*id).and_then(|r| from.remote(r)) == Some(true);
        named
            .filter(|id| remote(id) || from.others().is_empty())
            .or_else(|| self.readings.with_digest(&digest, &delivery.path, suits))
            .or(named)
    }

    /// Is it worth knowing what was written?
    pub(super) fn plausible(&self, delivery: &Delivery, from: &From) -> bool {
        let size = delivery.size();
        self.readings
            .latest(&from.arenas)
            .into_iter()
            .filter_map(|id| self.readings.get(id))
            .any(|r| may_be(r, delivery) && (from.remote(r) == Some(true) || r.bytes() == size))
    }

    /// Somebody on the way still has a file open that it may come from. `named`: only one of its name counts.
    pub(super) fn still_read(&self, delivery: &Delivery, from: &From, named: bool) -> bool {
        self.open.values().any(|file| {
            from.places.contains_key(&file.arena)
                && file.inode != delivery.end.inode
                && file.opened <= delivery.end.last
                && file.reads()
                && (!named || base(&file.path) == wanted(delivery))
        })
    }

    /// This was read under another name, and is not all that was read with that content: the one that it comes from may be
    /// heard of later.
    pub(super) fn one_of_many(&self, delivery: &Delivery, reading: u64) -> bool {
        self.readings.get(reading).is_some_and(|r| {
            base(&r.end.path) != wanted(delivery) && r.digest().is_some_and(|d| self.readings.with(&d) > 1)
        })
    }

    /// Readings whose content is not known and that it may come from.
    pub(super) fn unknown(&self, delivery: &Delivery, from: &From) -> Vec<u64> {
        let name = wanted(delivery);
        let known = |r: &Reading| r.digest().is_some() || !(r.rest.unasked(None) || r.rest.pending());
        let mut found: Vec<(bool, u64)> = Vec::new();
        let named = self.readings.with_name(&from.arenas, name, &delivery.path, |r| {
            (!known(r) && may_be(r, delivery) && from.remote(r).is_some()).then_some(())
        });
        if let Some(id) = named {
            return vec![id];
        }
        for id in self.readings.latest(&from.arenas) {
            let Some(r) = self.readings.get(id) else { continue };
            if known(r) || !may_be(r, delivery) || r.bytes() != delivery.bytes() {
                continue;
            }
            found.push((!r.unmatched(), id));
            if found.len() >= MAX_TRIED {
                break;
            }
        }
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// By blocks, by name, or because nothing else comes into question. A program by itself is not
    /// accused: these look at others only, and at those from which it can have come ([`Self::way`]).
    pub(super) fn by_likeness(&self, delivery: &Delivery, from: &From, live: &dyn Live) -> Option<(u64, By)> {
        let near = |r: &Reading| {
            let late = r.end.last.saturating_add(NEAR) < delivery.end.opened;
            may_be(r, delivery) && !late && r.bytes() > 0 && Self::was_read(r)
        };
        let others: Vec<(u64, &Reading)> = self
            .readings
            .latest(from.others())
            .into_iter()
            .filter_map(|id| self.readings.get(id).map(|r| (id, r)))
            .filter(|(_, r)| near(r))
            .collect();
        let alike = others.iter().filter_map(|&(id, r)| {
            if !r.end.tags.resemble(&delivery.end.tags) {
                return None;
            }
            let compared = r.end.tags.compared(&delivery.end.tags);
            let whole = compared.same + compared.differ
                >= delivery.end.bytes.min(r.end.bytes) / (2 * counterfoil_abi::BLOCK);
            let legs = from.source(r.end.arena).map_or(0, |s| s.legs.len());
            (compared.mostly_same() && compared.same > 0 && whole).then_some((
                compared.same,
                r.unmatched(),
                Reverse(legs),
                id,
            ))
        });
        let mut alike: Vec<_> = alike.collect();
        alike.sort_unstable_by(|a, b| b.cmp(a));
        let comes = |id: u64| self.readings.get(id).is_some_and(|r| self.way(delivery, r, live).is_some());
        if let Some(&(.., id)) = alike.iter().take(MAX_WAYS).find(|(.., id)| comes(*id)) {
            return Some((id, By::Likeness));
        }
        // What this program edits in place is its own affair (`wget -k`).
        if self
            .readings
            .latest(&from.arenas[..1])
            .into_iter()
            .filter_map(|id| self.readings.get(id))
            .any(|r| r.end.inode == delivery.end.inode || r.end.path == delivery.path)
        {
            return None;
        }
        let same_length = |r: &Reading| r.bytes() == delivery.bytes();
        let named = self.readings.with_name(from.others(), wanted(delivery), &delivery.path, |r| {
            (near(r) && r.unmatched()).then(|| (same_length(r), from.near(r, delivery)))
        });
        let named =
            named.filter(|&id| comes(id)).and_then(|id| self.readings.get(id).map(|r| (id, same_length(r))));
        if let Some((id, true)) = named {
            return Some((id, By::Name));
        }
        // A name alone says little where something else has the length.
        let mut alone =
            others.iter().filter(|(_, r)| r.unmatched() && same_length(r) && from.near(r, delivery).0);
        match (alone.next(), alone.next()) {
            (Some(&(id, r)), None) if self.all_carry(r.end.arena, from) && comes(id) => Some((id, By::Name)),
            _ => named.map(|(id, _)| (id, By::Name)),
        }
    }

    /// All programs from there to the writer pass on what they get.
    fn all_carry(&self, arena: ArenaId, from: &From) -> bool {
        let Some(source) = from.source(arena) else { return false };
        let nodes = std::iter::once(arena).chain(source.legs.iter().map(|leg| leg.to));
        nodes.into_iter().all(|a| self.carrier(a) > Carrier::No)
    }

    /// What a program is to what passes through it.
    pub(super) fn carrier(&self, arena: ArenaId) -> Carrier {
        self.nodes.get(&arena).map_or(Carrier::No, |n| carrier(&n.facts))
    }

    /// Asks for a file to be read at rest. False: nobody reads.
    pub(super) fn ask_reading(&mut self, id: u64, prefix: Option<u64>) -> bool {
        let Some(r) = self.readings.get(id) else { return false };
        let (inode, arena, pid) = (r.end.inode, r.end.arena, r.end.pid);
        let uid = self.uid(arena);
        let path = self.names.now(inode, &r.end.path, r.end.opened, arena, uid);
        let path = path.unwrap_or_else(|| r.end.path.clone());
        let state = self.ask(path, inode, arena, pid, prefix, (Way::Read, id));
        let asked = state.pending();
        if let Some(r) = self.readings.get_mut(id) {
            r.rest = state;
        }
        asked
    }
}
