//! Sockets that nobody has any more, and nobody said so: who had one was killed, and its relatives, who share its
//! arena, live on.
//!
//! Comes in: now and then, the tables. Goes out: ends. The kernel's word counts: it lists the sockets that somebody has.

use super::object::{Object, Use};
use super::slab::Key;
use super::{ArenaId, Assembler};
use crate::host::facts::Inode;
use counterfoil_abi::record::Channel;
use std::collections::{BTreeMap, BTreeSet};

/// Between two looks, nanoseconds. What two looks in turn don't find is gone: its last word would have been read.
const PAUSE: u64 = 5_000_000_000;
/// As long as no other end is known to be over. A table of ten thousand sockets takes 20 ms to read.
const LONG_PAUSE: u64 = 30_000_000_000;
/// What moved something a moment ago is there.
const IDLE: u64 = 3_000_000_000;
/// Network namespaces looked at in one go.
const MOST_NAMESPACES: usize = 16;
/// Processes of a family that are asked whether they have one that is not listed.
const MOST_ASKED: usize = 64;
/// Sockets for which that is done in one look: each answer takes a process's descriptors to read, and nothing else is
/// read meanwhile.
const MOST_SOUGHT: usize = 32;

/// What the last look has left.
#[derive(Default)]
pub struct Orphans {
    looked: u64,
    read: u64,
    missing: BTreeSet<Key>,
    /// The last that was sought; the next look begins behind it.
    sought: Option<Key>,
}

impl Assembler {
    /// Ends what is gone.
    pub(super) fn end_orphans(&mut self) {
        if self.now.saturating_sub(self.orphans.looked) < PAUSE {
            return;
        }
        self.orphans.looked = self.now;
        let mut idle: BTreeMap<Option<u64>, Vec<Key>> = BTreeMap::new();
        let mut pressing = !self.orphans.missing.is_empty();
        for key in self.objects.keys() {
            let Some(object) = self.objects.get(key) else { continue };
            let socket = matches!(object.channel, Channel::Tcp | Channel::Unix) && object.inode.is_some();
            if socket && !object.ended() && self.now.saturating_sub(object.last) >= IDLE {
                idle.entry(object.net_namespace).or_default().push(key);
                pressing |= object.peer.is_some_and(|peer| self.objects.get(peer).is_none_or(Object::ended));
            }
        }
        if idle.is_empty() || !pressing && self.now.saturating_sub(self.orphans.read) < LONG_PAUSE {
            return;
        }
        self.orphans.read = self.now;
        let before = std::mem::take(&mut self.orphans.missing);
        let mut left = MOST_SOUGHT;
        for mut keys in idle.into_values().take(MOST_NAMESPACES) {
            let pid = keys.iter().find_map(|&key| self.living(self.objects.get(key)?).next());
            let Some(there) = pid.and_then(|pid| self.settings.proc.sockets(pid)) else { continue };
            keys.sort_unstable();
            let behind = self.orphans.sought.map_or(0, |last| keys.partition_point(|&key| key <= last));
            keys.rotate_left(behind);
            for key in keys {
                let Some(object) = self.objects.get(key) else { continue };
                let Some(inode) = object.inode.filter(|(_, number)| !there.contains(number)) else {
                    continue;
                };
                if left == 0 {
                    // What was missing is so until it is looked for again.
                    self.orphans.missing.extend(before.get(&key));
                    continue;
                }
                left -= 1;
                self.orphans.sought = Some(key);
                // One that is connected to nothing any more is not listed, and held all the same.
                if self.had(object, inode) {
                    continue;
                }
                if before.contains(&key) {
                    self.orphaned(key);
                } else {
                    self.orphans.missing.insert(key);
                }
            }
        }
    }

    fn orphaned(&mut self, key: Key) {
        if let Some(object) = self.objects.get_mut(key) {
            object.uses.iter_mut().for_each(Use::gone);
            self.messages_end(key);
            self.settle_soon(key);
        }
    }

    fn had(&self, object: &Object, inode: Inode) -> bool {
        self.living(object).take(MOST_ASKED).any(|pid| self.settings.proc.holds(pid, inode) != Some(false))
    }

    /// Processes that live of those that may have it.
    fn living<'a>(&'a self, object: &'a Object) -> impl Iterator<Item = u32> + 'a {
        let arenas: BTreeSet<ArenaId> =
            object.uses.iter().filter(|u| u.finish.is_none()).map(|u| u.arena).collect();
        let programs = arenas.into_iter().filter_map(|arena| self.programs.get(&arena));
        let all = programs
            .flat_map(|p| [p.facts.process.pid].into_iter().chain(p.children.values().map(|c| c.pid)));
        all.filter(|&pid| self.settings.proc.thread_lives(pid, pid))
    }

    /// Whoever moved its bytes is gone, and said nothing.
    pub(super) fn movers_gone(&self, object: &Object) -> bool {
        let gone = |u: &Use| {
            self.programs.get(&u.arena).is_none_or(|program| {
                let mut by = u.by.into_iter().filter(|&by| by != 0).peekable();
                by.peek().is_some()
                    && by.all(|by| program.is_gone(by, |pid| self.settings.proc.thread_lives(pid, pid)))
            })
        };
        object.uses.iter().filter(|u| u.finish.is_none()).all(gone)
    }
}
