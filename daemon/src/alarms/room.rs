//! Who may have an alarm of its own, so that a flood of one sort leaves room for all others, and the
//! list can still be read. What finds no room is counted together, by sort, so counts stay exact.
#![forbid(unsafe_code)]

use crate::model::{FileFact, Finding};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

/// Alarms of one rule about one program or source.
pub const OF_ONE_SORT: usize = 1_000;
/// Alarms of one rule.
pub const OF_ONE_RULE: usize = 10_000;
/// Alarms at all. About 400 bytes each, and some kilobytes for the latest.
pub const ALL: usize = 50_000;

/// How many there are of each.
#[derive(Default)]
pub(super) struct Room {
    sorts: HashMap<u64, usize>,
    rules: HashMap<Arc<str>, usize>,
    all: usize,
}

/// Who gets how much room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// An alarm of its own.
    Own,
    /// One with the others of its rule about the same program.
    WithItsSort,
    /// One with all others of its rule.
    WithItsRule,
}

impl Room {
    pub fn for_one(&self, rule: &str, sort: u64) -> Given {
        if self.all >= ALL || self.rules.get(rule).is_some_and(|n| *n >= OF_ONE_RULE) {
            Given::WithItsRule
        } else if self.sorts.get(&sort).is_some_and(|n| *n >= OF_ONE_SORT) {
            Given::WithItsSort
        } else {
            Given::Own
        }
    }

    pub fn take(&mut self, rule: &Arc<str>, sort: u64) {
        *self.sorts.entry(sort).or_default() += 1;
        *self.rules.entry(Arc::clone(rule)).or_default() += 1;
        self.all += 1;
    }

    pub fn give(&mut self, rule: &Arc<str>, sort: u64) {
        if let Some(n) = self.sorts.get_mut(&sort) {
            *n -= 1;
            if *n == 0 {
                self.sorts.remove(&sort);
            }
        }
        if let Some(n) = self.rules.get_mut(rule) {
            *n = n.saturating_sub(1);
        }
        self.all = self.all.saturating_sub(1);
    }
}

/// The finding, counted with others of its rule about the same program.
pub(super) fn with_its_sort(finding: Finding) -> Finding {
    let about = finding.process.as_ref().and_then(|p| p.exe.clone());
    let about = about.map_or_else(|| "one source".to_owned(), |exe| format!("{exe:?}"));
    let key = format!("{} together sort={:016x}", finding.rule, super::sort_of(&finding));
    together(finding, key, &format!("about {about}"), OF_ONE_SORT)
}

/// The finding, counted with all others of its rule.
pub(super) fn with_its_rule(finding: Finding) -> Finding {
    let key = format!("{} together", finding.rule);
    together(finding, key, "at all", OF_ONE_RULE)
}

fn together(mut finding: Finding, key: String, about: &str, limit: usize) -> Finding {
    finding.message = format!(
        "A flood: more than {limit} alarms of {} {about} stand, or come faster than they can be written down. Each \
         further finding is counted here; the last one was: {}",
        finding.rule, finding.message
    );
    finding.title = format!("More alarms of {} {about} than are listed one by one", finding.rule);
    finding.next = "Find out what they have in common: who starts the program, what changed on it or on the network \
                    before the first of them. Clear those that are dealt with: they make room, and what comes then is \
                    listed by itself again."
        .into();
    finding.evidence = json!({"together": true, "last": finding.evidence});
    // These are the last one's only; the list must not look as if all of them were.
    finding.file = None::<FileFact>;
    finding.connection = None;
    finding.transfer = None;
    finding.flow = None;
    finding.altered.clear();
    finding.point = None;
    finding.key = key;
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sort_leaves_room_for_others() {
        let mut room = Room::default();
        let rule: Arc<str> = "payload-altered".into();
        for _ in 0..OF_ONE_SORT {
            assert_eq!(room.for_one(&rule, 1), Given::Own);
            room.take(&rule, 1);
        }
        assert_eq!(room.for_one(&rule, 1), Given::WithItsSort);
        assert_eq!(room.for_one(&rule, 2), Given::Own);
        room.give(&rule, 1);
        assert_eq!(room.for_one(&rule, 1), Given::Own);
        for sort in 10..10 + OF_ONE_RULE as u64 {
            room.take(&rule, sort);
        }
        assert_eq!(room.for_one(&rule, 2), Given::WithItsRule);
        assert_eq!(room.for_one("other", 2), Given::Own);
    }
}
