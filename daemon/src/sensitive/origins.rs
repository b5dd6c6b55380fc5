//! Who read which sensitive file, and which files have its content, or may have it.
#![forbid(unsafe_code)]

use super::paths::Label;
use super::told::Step;
use crate::assemble::program::ArenaId;
use crate::host::facts::Inode;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Readings remembered.
const READINGS: usize = 2048;
/// Copies and files that came of one: as many as files that were written are remembered, or each would be news again
/// and again.
const COPIES: usize = super::lineage::MANY;
/// Steps of the longest way by which a file came of another: where everything is written to one log, in the end
/// everything came of everything.
pub const WAY: usize = 48;

/// What was read: a sensitive file, or a file that has its content or came of it.
#[derive(Clone, Debug)]
pub struct Source {
    /// The sensitive file's path.
    pub path: Arc<str>,
    /// What it is.
    pub label: Arc<Label>,
    /// Whose it is, where known.
    pub owner: Option<u32>,
    /// SHA-256 of the sensitive file, where known.
    pub sha256: Option<[u8; 32]>,
    /// How its content came into the file that was read; empty: it is that file, or nobody saw how.
    pub way: Arc<[Step]>,
    /// The content is the sensitive file's; else it came of it.
    pub same: bool,
}

/// A file that a process read.
#[derive(Debug)]
pub struct Reading {
    /// Who.
    pub arena: ArenaId,
    /// Its process id.
    pub pid: u32,
    /// The name that was opened.
    pub opened_as: String,
    /// Which.
    pub inode: Inode,
    /// What.
    pub source: Source,
    /// When it was opened, monotonic nanoseconds.
    pub since: u64,
    /// When it was last open.
    pub last: u64,
    /// Numbers under which it has it open.
    pub open: HashSet<u32>,
    /// It was read: the descriptor is for nothing else, or bytes passed.
    pub sure: bool,
    /// To read it is its program's work.
    pub excused: bool,
    /// Destinations that were told.
    pub told: HashSet<u64>,
}

/// A file with a sensitive one's content, or one that came of it.
#[derive(Clone, Debug)]
pub struct Copy {
    /// What of.
    pub source: Source,
    /// When it was written, monotonic nanoseconds.
    pub written: u64,
    /// It was made by who had read the other: what is in it came of that. Else it was only written to.
    pub made: bool,
    /// st_mtim when it was closed, 0 unknown: other content has another one.
    pub modified: u64,
    /// When it was no copy any more, `u64::MAX`: it still is.
    pub until: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Origins {
    readings: BTreeMap<u64, Reading>,
    by_file: HashMap<(ArenaId, Inode), u64>,
    by_number: HashMap<(ArenaId, u32), u64>,
    copies: HashMap<Inode, Arc<Copy>>,
    order: VecDeque<Inode>,
    next: u64,
}

impl Origins {
    /// Nobody read anything of late.
    #[must_use]
    pub fn quiet(&self) -> bool {
        self.readings.is_empty()
    }

    /// All readings, oldest first.
    pub fn readings(&self) -> impl Iterator<Item = (u64, &Reading)> {
        self.readings.iter().map(|(&id, r)| (id, r))
    }

    /// Their numbers from this one on, oldest first.
    #[must_use]
    pub fn from(&self, id: u64) -> Vec<u64> {
        self.readings.range(id..).map(|(&id, _)| id).collect()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Reading> {
        self.readings.get(&id)
    }

    /// One of them.
    pub fn reading(&mut self, id: u64) -> Option<&mut Reading> {
        self.readings.get_mut(&id)
    }

    /// The reading that this open file is part of.
    pub fn of(&mut self, arena: ArenaId, number: u32) -> Option<&mut Reading> {
        self.readings.get_mut(self.by_number.get(&(arena, number))?)
    }

    /// One more, or more of one that is known.
    pub fn read(&mut self, number: u32, new: Reading) {
        let file = (new.arena, new.inode);
        self.by_number.remove(&(new.arena, number));
        if let Some(id) = self.by_file.get(&file)
            && let Some(known) = self.readings.get_mut(id)
        {
            known.last = known.last.max(new.last);
            known.open.insert(number);
            known.sure |= new.sure;
            self.by_number.insert((new.arena, number), *id);
            return;
        }
        while self.readings.len() >= READINGS {
            let Some(&oldest) = self.readings.keys().next() else { break };
            self.forget(oldest);
        }
        self.next += 1;
        self.by_file.insert(file, self.next);
        self.by_number.insert((new.arena, number), self.next);
        let mut new = new;
        new.open.insert(number);
        self.readings.insert(self.next, new);
    }

    /// It is closed. `read`: bytes passed.
    pub fn closed(&mut self, arena: ArenaId, number: u32, last: u64, read: bool) {
        let Some(id) = self.by_number.remove(&(arena, number)) else { return };
        let Some(reading) = self.readings.get_mut(&id) else { return };
        reading.open.remove(&number);
        reading.last = reading.last.max(last);
        reading.sure |= read;
        if !reading.sure && reading.open.is_empty() {
            self.forget(id);
        }
    }

    /// What was opened there is none.
    pub fn drop_reading(&mut self, arena: ArenaId, number: u32) {
        if let Some(&id) = self.by_number.get(&(arena, number)) {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: u64) {
        let Some(reading) = self.readings.remove(&id) else { return };
        self.by_file.remove(&(reading.arena, reading.inode));
        for number in reading.open {
            self.by_number.remove(&(reading.arena, number));
        }
    }

    /// Forgets what was over before `time`; what is open is not over.
    pub fn forget_before(&mut self, time: u64, gone: impl Fn(ArenaId) -> bool) {
        let over = |r: &Reading| r.last < time && (r.open.is_empty() || gone(r.arena));
        let old: Vec<u64> = self.readings.iter().filter(|(_, r)| over(r)).map(|(&id, _)| id).collect();
        old.into_iter().for_each(|id| self.forget(id));
        self.copies.retain(|_, c| c.until >= time && (c.source.same || c.made || c.written >= time));
        let copies = &self.copies;
        self.order.retain(|inode| copies.contains_key(inode));
    }

    /// The copy that this file is.
    #[must_use]
    pub fn copy(&self, inode: Inode) -> Option<&Arc<Copy>> {
        self.copy_at(inode, u64::MAX - 1)
    }

    /// The copy that this file was, if it still was one at that time.
    #[must_use]
    pub fn copy_at(&self, inode: Inode, time: u64) -> Option<&Arc<Copy>> {
        self.copies.get(&inode).filter(|copy| time < copy.until)
    }

    /// The same again says nothing new; a copy to the byte is better knowledge than one that came of it.
    #[must_use]
    pub fn knows(&self, inode: Inode, written: u64, same: bool) -> bool {
        self.copies.get(&inode).is_some_and(|k| k.written >= written && (k.source.same || !same))
    }

    /// A file has a sensitive one's content, or came of it. True: that is news.
    pub fn copied(&mut self, inode: Inode, copy: Copy) -> bool {
        if self.knows(inode, copy.written, copy.source.same) {
            return false;
        }
        if !self.copies.contains_key(&inode) {
            if self.order.len() >= COPIES
                && let Some(oldest) = self.order.pop_front()
            {
                self.copies.remove(&oldest);
            }
            self.order.push_back(inode);
        }
        self.copies.insert(inode, Arc::new(copy));
        true
    }

    /// It was empty at that time: what was written before is gone.
    pub fn was_empty(&mut self, inode: Inode, time: u64) {
        if let Some(copy) = self.copies.get_mut(&inode).filter(|copy| copy.written < time) {
            let until = copy.until.min(time);
            Arc::make_mut(copy).until = until;
        }
    }

    /// It is another file's inode by now, or has other content.
    pub fn overwritten(&mut self, inode: Inode) {
        if self.copies.remove(&inode).is_some() {
            self.order.retain(|i| *i != inode);
        }
    }
}
