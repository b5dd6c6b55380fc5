//! Files that were opened of late: what one is may come to be known later than that it was opened.
#![forbid(unsafe_code)]

use crate::assemble::program::ArenaId;
use crate::host::facts::Inode;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Opens remembered, and files that were empty.
const OPENS: usize = 4096;
/// Times at which one was empty.
const TIMES: usize = 8;

/// An open file, as it came.
#[derive(Clone, Debug)]
pub struct Open {
    /// Whose.
    pub arena: ArenaId,
    /// Its process id.
    pub pid: u32,
    /// Its number there.
    pub number: u32,
    /// Its descriptor, -1 unknown.
    pub fd: i32,
    /// Which.
    pub inode: Inode,
    /// When it was opened, monotonic nanoseconds.
    pub time: u64,
    /// When it was seen to be empty, 0: it wasn't. What had its inode before is gone.
    pub empty_at: u64,
    /// Its name; empty: not heard of yet.
    pub path: Vec<u8>,
    /// When it was closed, after bytes were read.
    pub read: Option<u64>,
}

/// The latest of them.
#[derive(Debug, Default)]
pub struct Opens {
    all: BTreeMap<u64, Open>,
    by_number: HashMap<(ArenaId, u32), u64>,
    by_file: HashMap<Inode, BTreeSet<u64>>,
    next: u64,
    /// When files were seen to be empty, oldest first.
    empty: HashMap<Inode, VecDeque<u64>>,
    emptied: VecDeque<Inode>,
}

impl Opens {
    /// One more.
    pub fn put(&mut self, open: Open) {
        if open.empty_at != 0 {
            self.was_empty(open.inode, open.empty_at);
        }
        self.remove(open.arena, open.number);
        if self.all.len() >= OPENS
            && let Some((at, oldest)) = self.all.pop_first()
        {
            self.forget(at, &oldest);
        }
        self.next += 1;
        self.by_number.insert((open.arena, open.number), self.next);
        self.by_file.entry(open.inode).or_default().insert(self.next);
        self.all.insert(self.next, open);
    }

    /// The file that has this number there.
    #[must_use]
    pub fn get(&self, arena: ArenaId, number: u32) -> Option<&Open> {
        self.all.get(self.by_number.get(&(arena, number))?)
    }

    /// The file that has this number there.
    pub fn get_mut(&mut self, arena: ArenaId, number: u32) -> Option<&mut Open> {
        self.all.get_mut(self.by_number.get(&(arena, number))?)
    }

    /// Who has opened it, oldest first.
    pub fn of(&self, file: Inode) -> impl Iterator<Item = &Open> {
        self.by_file.get(&file).into_iter().flatten().filter_map(|at| self.all.get(at))
    }

    fn was_empty(&mut self, file: Inode, at: u64) {
        let times = self.empty.entry(file).or_default();
        if times.is_empty() {
            self.emptied.push_back(file);
        }
        if times.len() >= TIMES {
            times.pop_front();
        }
        times.push_back(at);
        if self.emptied.len() > OPENS
            && let Some(oldest) = self.emptied.pop_front()
        {
            self.empty.remove(&oldest);
        }
    }

    /// When it was first seen to be empty after that moment, `u64::MAX`: it wasn't.
    #[must_use]
    pub fn empty_after(&self, moment: u64, file: Inode) -> u64 {
        let times = self.empty.get(&file).into_iter().flatten().copied();
        times.filter(|&at| at > moment).min().unwrap_or(u64::MAX)
    }

    /// Forgets it.
    pub fn remove(&mut self, arena: ArenaId, number: u32) {
        if let Some(at) = self.by_number.get(&(arena, number)).copied()
            && let Some(open) = self.all.remove(&at)
        {
            self.forget(at, &open);
        }
    }

    fn forget(&mut self, at: u64, open: &Open) {
        self.by_number.remove(&(open.arena, open.number));
        if let Some(all) = self.by_file.get_mut(&open.inode) {
            all.remove(&at);
            if all.is_empty() {
                self.by_file.remove(&open.inode);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_number_and_by_file_as_long_as_there_is_room() {
        let open = |number, inode| {
            let (fd, inode, path) = (-1, (1, inode), Vec::new());
            Open { arena: 1, pid: 1, number, fd, inode, time: 0, empty_at: 0, path, read: None }
        };
        let numbers = |opens: &Opens, inode| opens.of((1, inode)).map(|o| o.number).collect::<Vec<_>>();
        let mut opens = Opens::default();
        opens.put(open(7, 70));
        opens.put(open(8, 70));
        assert_eq!(numbers(&opens, 70), [7, 8]);
        opens.put(open(7, 71));
        assert_eq!(
            (numbers(&opens, 70), numbers(&opens, 71)),
            (vec![8], vec![7]),
            "its number was used again"
        );
        (100..100 + OPENS as u32).for_each(|n| opens.put(open(n, 9)));
        assert!(opens.get(1, 8).is_none() && numbers(&opens, 70).is_empty());
        (0..200 + OPENS as u32).for_each(|n| opens.remove(1, n));
        assert!(opens.all.is_empty() && opens.by_number.is_empty() && opens.by_file.is_empty());
    }

    #[test]
    fn a_file_that_was_empty() {
        let open = |inode, empty_at| Open {
            arena: 1,
            pid: 1,
            number: 7,
            fd: -1,
            inode: (1, inode),
            time: 100,
            empty_at,
            path: Vec::new(),
            read: None,
        };
        let mut opens = Opens::default();
        opens.put(open(70, 20));
        opens.put(open(70, 30));
        opens.remove(1, 7);
        assert_eq!([10, 20, 30].map(|after| opens.empty_after(after, (1, 70))), [20, 30, u64::MAX]);
        (1000..1000 + OPENS as u64).for_each(|inode| opens.put(open(inode, 5)));
        assert_eq!(opens.empty_after(0, (1, 70)), u64::MAX, "forgotten");
        (0..100).for_each(|at| opens.put(open(1001, at)));
        assert!(opens.empty.len() == OPENS && opens.empty[&(1, 1001)].len() == TIMES);
    }
}
