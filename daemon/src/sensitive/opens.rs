//! Files that were opened of late: what one is may come to be known later than that it was opened.
#![forbid(unsafe_code)]

use crate::assemble::program::ArenaId;
use crate::host::facts::Inode;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Opens remembered.
const OPENS: usize = 4096;

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
    /// The open made it, or made it empty: what had its inode before is gone.
    pub made: bool,
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
}

impl Opens {
    /// One more.
    pub fn put(&mut self, open: Open) {
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

    /// It was made, or made empty, after that moment.
    #[must_use]
    pub fn made_after(&self, moment: u64, file: Inode) -> bool {
        self.of(file).any(|open| open.made && open.time > moment)
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
            Open { arena: 1, pid: 1, number, fd, inode, time: 10, made: number == 8, path, read: None }
        };
        let numbers = |opens: &Opens, inode| opens.of((1, inode)).map(|o| o.number).collect::<Vec<_>>();
        let mut opens = Opens::default();
        opens.put(open(7, 70));
        opens.put(open(8, 70));
        assert_eq!(numbers(&opens, 70), [7, 8]);
        assert!(opens.made_after(9, (1, 70)) && !opens.made_after(10, (1, 70)));
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
}
