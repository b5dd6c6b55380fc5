//! Who is next: users in turn, each with one file at a time.
//!
//! Comes in: [`Ask`]s. Goes out: the same, to whichever thread is free. Called by `worker`. So a user with ten thousand
//! files, or one without end, delays nobody else's.
#![forbid(unsafe_code)]

use super::Ask;
use std::collections::{BTreeMap, HashSet, VecDeque};

/// Asks that wait, of all users together …
const ALL: usize = 65_536;
/// … and of one.
const OF_ONE: usize = 32_768;

#[derive(Default)]
pub(super) struct Queue {
    waiting: BTreeMap<u32, VecDeque<Ask>>,
    held: usize,
    /// Users whose file is being read.
    busy: HashSet<u32>,
    /// The user who was served last.
    last: u32,
}

impl Queue {
    /// False: no room.
    pub(super) fn put(&mut self, ask: Ask) -> bool {
        let of_one = self.waiting.get(&ask.user.uid).map_or(0, VecDeque::len);
        if self.held >= ALL || of_one >= OF_ONE {
            return false;
        }
        self.held += 1;
        self.waiting.entry(ask.user.uid).or_default().push_back(ask);
        true
    }

    /// The next one; [`Self::done`] must follow.
    pub(super) fn take(&mut self) -> Option<Ask> {
        let free = |uid: &&u32| !self.busy.contains(uid);
        let after = self.waiting.range(self.last.saturating_add(1)..).map(|(uid, _)| uid);
        let uid = *after.chain(self.waiting.keys()).find(free)?;
        let line = self.waiting.get_mut(&uid)?;
        let ask = line.pop_front()?;
        if line.is_empty() {
            self.waiting.remove(&uid);
        }
        self.held -= 1;
        self.busy.insert(uid);
        self.last = uid;
        Some(ask)
    }

    /// That user's file was read.
    pub(super) fn done(&mut self, uid: u32) {
        self.busy.remove(&uid);
    }

    /// Takes out an ask that still waits.
    pub(super) fn cancel(&mut self, id: u64) -> Option<Ask> {
        let (&uid, line) = self.waiting.iter_mut().find(|(_, line)| line.iter().any(|a| a.id == id))?;
        let at = line.iter().position(|a| a.id == id)?;
        let ask = line.remove(at)?;
        if line.is_empty() {
            self.waiting.remove(&uid);
        }
        self.held -= 1;
        Some(ask)
    }

    /// Takes out everything.
    pub(super) fn drain(&mut self) -> Vec<Ask> {
        self.held = 0;
        std::mem::take(&mut self.waiting).into_values().flatten().collect()
    }

    /// Somebody waits who could be served.
    pub(super) fn has_work(&self) -> bool {
        self.waiting.keys().any(|uid| !self.busy.contains(uid))
    }
}

#[cfg(test)]
mod tests {
    use super::super::User;
    use super::*;

    fn ask(id: u64, uid: u32) -> Ask {
        let user = User { uid, gid: 0, groups: vec![] };
        Ask { id, path: vec![], inode: None, user, upto: 0, prefix: None, tags: false, uncached: false }
    }

    #[test]
    fn users_take_turns_one_file_each() {
        let mut queue = Queue::default();
        for id in 0..3 {
            assert!(queue.put(ask(id, 1000)));
        }
        assert!(queue.put(ask(10, 0)) && queue.put(ask(20, u32::MAX - 1)));
        let next = |queue: &mut Queue| queue.take().map(|a| a.id);
        assert_eq!(next(&mut queue), Some(0));
        assert_eq!(next(&mut queue), Some(20), "1000 is being served");
        assert_eq!(next(&mut queue), Some(10));
        assert_eq!(next(&mut queue), None);
        queue.done(1000);
        assert!(queue.has_work());
        assert_eq!(queue.cancel(1).map(|a| a.id), Some(1));
        assert!(queue.cancel(1).is_none());
        assert_eq!(next(&mut queue), Some(2));
        queue.done(1000);
        assert_eq!(next(&mut queue), None);
    }

    #[test]
    fn nobody_fills_it_for_others() {
        let mut queue = Queue::default();
        let taken = (0..ALL as u64).filter(|id| queue.put(ask(*id, 7))).count();
        assert_eq!(taken, OF_ONE);
        assert!(queue.put(ask(0, 8)));
        assert_eq!(queue.drain().len(), OF_ONE + 1);
        assert!(queue.put(ask(0, 7)));
    }
}
