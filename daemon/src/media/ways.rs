//! What was seen of what was sent, found again by the way it went.
#![forbid(unsafe_code)]

use crate::sensitive::lineage::Sending;
use std::collections::{HashMap, VecDeque};
use uuid::Uuid;

/// Seen things remembered.
const SEEN: usize = 4096;

/// By what one sending is known again: it has one of these in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Way {
    Transfer(Uuid),
    Between(Option<String>, Option<String>),
}

fn ways(sending: &Sending) -> impl Iterator<Item = Way> {
    let (local, remote) = (sending.connection.local.clone(), sending.connection.remote.clone());
    sending.transfer.map(Way::Transfer).into_iter().chain([Way::Between(local, remote)])
}

/// The latest of them.
#[derive(Debug)]
pub(super) struct Ways<T> {
    order: VecDeque<(u64, Vec<Way>)>,
    /// Of each way in the same order.
    of: HashMap<Way, VecDeque<T>>,
}

impl<T> Default for Ways<T> {
    fn default() -> Self {
        Self { order: VecDeque::new(), of: HashMap::new() }
    }
}

impl<T: Copy> Ways<T> {
    /// This was seen of it.
    pub fn put(&mut self, seen: T, sending: &Sending) {
        while self.order.len() >= SEEN {
            self.forget_oldest();
        }
        let ways: Vec<Way> = ways(sending).collect();
        for way in &ways {
            self.of.entry(way.clone()).or_default().push_back(seen);
        }
        self.order.push_back((sending.grew, ways));
    }

    /// What was seen of it.
    pub fn get(&self, sending: &Sending) -> impl Iterator<Item = T> + Clone {
        let seen: Vec<&VecDeque<T>> = ways(sending).filter_map(|way| self.of.get(&way)).collect();
        seen.into_iter().flatten().copied()
    }

    /// Forgets what went before `time`.
    pub fn forget_before(&mut self, time: u64) {
        while self.order.front().is_some_and(|(grew, _)| *grew < time) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        for way in self.order.pop_front().into_iter().flat_map(|(_, ways)| ways) {
            if let Some(seen) = self.of.get_mut(&way) {
                seen.pop_front();
                if seen.is_empty() {
                    self.of.remove(&way);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Connection, Process};

    fn sending(transfer: Option<u128>, local: &str, grew: u64) -> Sending {
        let connection = Connection { local: Some(local.into()), ..Connection::default() };
        let transfer = transfer.map(Uuid::from_u128);
        Sending { process: Process::default(), connection, flow: None, transfer, opened: 0, grew, bytes: 1 }
    }

    #[test]
    fn by_transfer_or_by_addresses() {
        let mut all = Ways::default();
        all.put('a', &sending(Some(1), "10.0.0.1:1", 10));
        all.put('b', &sending(None, "10.0.0.1:2", 20));
        let get = |all: &Ways<char>, s: Sending| all.get(&s).collect::<String>();
        assert_eq!(get(&all, sending(Some(1), "10.0.0.1:9", 0)), "a");
        assert_eq!(get(&all, sending(Some(7), "10.0.0.1:2", 0)), "b");
        assert_eq!(get(&all, sending(Some(7), "10.0.0.1:3", 0)), "");
        all.forget_before(15);
        assert_eq!(get(&all, sending(Some(1), "10.0.0.1:1", 0)), "");
        for n in 0..2 * SEEN as u64 {
            all.put('c', &sending(Some(n.into()), "10.0.0.1:2", 30));
        }
        assert_eq!(get(&all, sending(None, "10.0.0.1:2", 0)).len(), SEEN, "the latest");
        all.forget_before(31);
        assert!(all.of.is_empty() && all.order.is_empty());
    }
}
