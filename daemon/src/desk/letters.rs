//! Letters on their way: into the ledger first, then to the sinks, and remembered until each of these has them on disk.
//!
//! Comes in: alarms that the sinks are to hear of. Goes out: letters for the scribe, then for the sinks, in one order. Called by
//! `desk::list`. A ledger that can't be written silences nobody: what is wrong is told then without it.
#![forbid(unsafe_code)]

use crate::ledger::Letter;
use crate::model::Alarm;
use crate::sinks;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// So long a letter waits for its commit, if the disk says neither yes nor no.
const PATIENCE: Duration = Duration::from_secs(30);
/// Letters that are remembered for sinks: who is further behind has lost some, and counted them.
const REMEMBERED: usize = 2 * sinks::QUEUE;

/// Letters on their way.
#[derive(Default)]
pub(super) struct Letters {
    /// The number of the next; None: they have none, as the list is another's.
    next: Option<u64>,
    /// Not at the sinks, the oldest first, and since when.
    waiting: VecDeque<(Arc<Letter>, Instant)>,
    /// Those of them that the scribe doesn't have: they go with their alarm's row.
    here: HashMap<Uuid, Vec<Arc<Letter>>>,
    /// At the sinks, and maybe not in each one's queue.
    sent: VecDeque<Arc<Letter>>,
}

impl Letters {
    /// Goes on with those of an earlier daemon that some sink may not have; no sink has one with a number above `highest`.
    pub fn resume(undelivered: Vec<Letter>, highest: u64) -> Self {
        let last = undelivered.last().map_or(0, |l| l.number).max(highest);
        let sent = undelivered.into_iter().map(Arc::new).collect();
        Self { next: Some(last + 1), sent, ..Self::default() }
    }

    /// One more.
    pub fn add(&mut self, alarm: Alarm, now: Instant) {
        let number = self.next.unwrap_or(0);
        self.next = self.next.map(|n| n + 1);
        let letter = Arc::new(Letter::new(number, Arc::new(alarm)));
        self.here.entry(letter.alarm.id).or_default().push(Arc::clone(&letter));
        self.waiting.push_back((letter, now));
    }

    /// Alarms about which the scribe has to have something.
    pub fn to_give(&self) -> Vec<Uuid> {
        self.here.keys().copied().collect()
    }

    /// All letters about an alarm that the scribe doesn't have, in order: it gets them now.
    pub fn give(&mut self, alarm: Uuid) -> Vec<Arc<Letter>> {
        self.here.remove(&alarm).unwrap_or_default()
    }

    /// It could not take them.
    pub fn put_back(&mut self, alarm: Uuid, letters: Vec<Arc<Letter>>) {
        if !letters.is_empty() {
            self.here.entry(alarm).or_default().splice(0..0, letters);
        }
    }

    /// The next one for the sinks; committed, unless `anyway`.
    pub fn send_next(&mut self, now: Instant, anyway: bool) -> Option<Arc<Letter>> {
        let (letter, since) = self.waiting.front()?;
        if !anyway && !letter.is_committed() && now.saturating_duration_since(*since) < PATIENCE {
            return None;
        }
        let (letter, _) = self.waiting.pop_front()?;
        if let Entry::Occupied(mut here) = self.here.entry(letter.alarm.id) {
            // It is told without the ledger, then.
            here.get_mut().retain(|l| !Arc::ptr_eq(l, &letter));
            if here.get().is_empty() {
                here.remove();
            }
        }
        if letter.number > 0 {
            self.sent.push_back(Arc::clone(&letter));
            if self.sent.len() > REMEMBERED {
                self.sent.pop_front();
            }
        }
        Some(letter)
    }

    /// When the oldest has waited for long enough.
    pub fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|(_, since)| *since + PATIENCE)
    }

    /// Sent, and maybe not in each sink's queue.
    pub fn sent(&self) -> impl Iterator<Item = &Arc<Letter>> {
        self.sent.iter()
    }

    /// Forgets what every sink has. Up to which number, where there is something new to say.
    pub fn stored(&mut self, stored: Option<u64>) -> Option<u64> {
        let stored = stored?;
        let mut last = None;
        while self.sent.front().is_some_and(|l| l.number <= stored) {
            last = self.sent.pop_front().map(|l| l.number);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::tests::alarm;

    fn other(id: u128) -> Alarm {
        Alarm { id: Uuid::from_u128(id), ..alarm() }
    }

    fn numbers(letters: &[Arc<Letter>]) -> Vec<u64> {
        letters.iter().map(|l| l.number).collect()
    }

    #[test]
    fn in_order_when_committed_and_late_rather_than_never() {
        let mut letters = Letters::resume(vec![Letter::new(4, Arc::new(alarm()))], 2);
        let start = Instant::now();
        letters.add(other(1), start);
        letters.add(other(2), start + PATIENCE / 2);
        letters.add(other(1), start + PATIENCE / 2);
        assert_eq!(letters.sent().map(|l| l.number).collect::<Vec<_>>(), [4]);
        assert_eq!(letters.to_give().len(), 2);
        let given = letters.give(Uuid::from_u128(1));
        assert_eq!(numbers(&given), [5, 7]);
        letters.put_back(Uuid::from_u128(1), given);
        assert!(letters.send_next(start, false).is_none(), "not committed");
        assert_eq!(letters.due(), Some(start + PATIENCE));
        // The disk takes nothing: it is told nevertheless, each in its time, and the ledger needs it no more.
        assert_eq!(letters.send_next(start + PATIENCE, false).map(|l| l.number), Some(5));
        assert!(letters.send_next(start + PATIENCE, false).is_none());
        assert_eq!(numbers(&letters.give(Uuid::from_u128(1))), [7]);
        assert_eq!(letters.stored(None), None);
        assert_eq!(letters.stored(Some(3)), None);
        assert_eq!(letters.stored(Some(5)), Some(5));
        assert_eq!(letters.stored(Some(9)), None, "said once");
        assert_eq!(letters.send_next(start + PATIENCE * 2, false).map(|l| l.number), Some(6));
        assert!(letters.to_give().is_empty(), "nothing is kept of what was told");
        assert_eq!(letters.send_next(start + PATIENCE * 2, false).map(|l| l.number), Some(7));
        assert_eq!(letters.due(), None);
    }

    #[test]
    fn who_does_not_own_the_list_numbers_nothing() {
        let mut letters = Letters::default();
        let start = Instant::now();
        letters.add(alarm(), start);
        letters.add(alarm(), start);
        assert!(letters.send_next(start, false).is_none());
        assert_eq!(letters.send_next(start, true).map(|l| l.number), Some(0));
        assert_eq!(letters.send_next(start, true).map(|l| l.number), Some(0));
        assert_eq!(letters.sent().count(), 0);
    }
}
