//! Who gave bytes to whom.
//!
//! Comes in: a [`Gift`] for each transfer whose two ends are known, while it is open ([`Live`]) and after
//! it was judged. Goes out: the programs from which a program's bytes may have come, each with the legs
//! between. A program is one node, its forks with it; all walks are bounded.

use super::abroad::Lone;
use super::place::Found;
use crate::assemble::program::ArenaId;
use crate::model::{Channel, Range, Reason, Verdict};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use uuid::Uuid;

/// Gifts remembered of one receiver.
const MAX_GIFTS: usize = 512;
/// Gifts remembered.
const MAX_ALL: usize = 100_000;
/// Programs that one walk finds: as many as may give to one at the same time.
const MAX_NODES: usize = 512;
/// Gifts that one walk looks at, and takes along.
const MAX_STEPS: usize = 64 * MAX_GIFTS;
/// Legs of the longest chain.
const MAX_LEGS: usize = 16;

/// One program gave bytes to another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Gift {
    /// Who wrote.
    pub from: ArenaId,
    /// Who read.
    pub to: ArenaId,
    /// The leg.
    pub transfer: Uuid,
    /// What carries it.
    pub channel: Channel,
    /// Bytes so far.
    pub bytes: u64,
    /// First record, monotonic nanoseconds.
    pub started: u64,
    /// Last record; `u64::MAX` while it is open.
    pub last: u64,
    /// None while it is open.
    pub verdict: Option<Verdict>,
    /// Where it was altered.
    pub altered: Vec<Range>,
}

/// What was found between what a program got by one leg and what it gave on by the next.
#[derive(Clone, Debug, PartialEq)]
pub struct Inside {
    /// At which moment: `before encryption`.
    pub when: &'static str,
    /// What was found.
    pub found: Found,
    /// Where it differs.
    pub ranges: Vec<Range>,
}

/// Gifts that are not over, and what else the tables know of the programs.
pub trait Live {
    /// What `to` is being given, in no order.
    fn gifts(&self, to: ArenaId) -> Vec<Gift>;
    /// What a program got by the transfer `before` beside what it gave on by `after`; None: nobody compared.
    fn inside(&self, program: ArenaId, before: Uuid, after: Uuid) -> Option<Inside>;
    /// What makes all of a program's files uncertain.
    fn doubt(&self, arena: ArenaId) -> Option<Reason>;
    /// Records of it were lost.
    fn dropped(&self, arena: ArenaId) -> bool;
    /// What a program got from nobody that is known may yet turn out to have come from somebody.
    fn hopes(&self, _arena: ArenaId) -> bool {
        false
    }
    /// A connection that is not over, by which a program gets something from nobody that is known.
    fn lone(&self, _arena: ArenaId) -> Option<Lone> {
        None
    }
    /// It has not ended.
    fn alive(&self, arena: ArenaId) -> bool;
}

/// A program that may be where bytes came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// It.
    pub arena: ArenaId,
    /// The legs from it, in the bytes' order.
    pub legs: Vec<Gift>,
}

/// Gifts that are over.
#[derive(Debug, Default)]
pub struct Chains {
    into: HashMap<ArenaId, VecDeque<Gift>>,
    count: usize,
}

impl Chains {
    /// Remembers a gift that is over.
    pub fn over(&mut self, gift: Gift) {
        if gift.from == gift.to || self.count >= MAX_ALL {
            return;
        }
        let gifts = self.into.entry(gift.to).or_default();
        if gifts.len() >= MAX_GIFTS {
            gifts.pop_front();
            self.count -= 1;
        }
        gifts.push_back(gift);
        self.count += 1;
    }

    /// Forgets what was over before `time`.
    pub fn forget_before(&mut self, time: u64) {
        let mut kept = 0;
        self.into.retain(|_, gifts| {
            gifts.retain(|g| g.last >= time);
            kept += gifts.len();
            !gifts.is_empty()
        });
        self.count = kept;
    }

    /// More than half of what can be remembered is.
    pub fn crowded(&self) -> bool {
        self.count > MAX_ALL / 2
    }

    /// Everybody in it.
    pub fn arenas(&self) -> HashSet<ArenaId> {
        self.into.values().flatten().flat_map(|g| [g.from, g.to]).collect()
    }

    /// The programs whose bytes may have reached `to` between these two times, nearest first, `to` itself
    /// before all.
    pub fn sources(&self, live: &dyn Live, to: ArenaId, since: u64, until: u64) -> Vec<Source> {
        self.sources_over(live, to, since, until, |_| true)
    }

    /// The same, over such legs only.
    pub fn sources_over(
        &self,
        live: &dyn Live,
        to: ArenaId,
        since: u64,
        until: u64,
        suits: impl Fn(&Gift) -> bool,
    ) -> Vec<Source> {
        let mut sources = vec![Source { arena: to, legs: Vec::new() }];
        let mut seen = HashSet::from([to]);
        let (mut at, mut steps) = (0, 0);
        while at < sources.len() && steps < MAX_STEPS {
            let (arena, depth) = (sources[at].arena, sources[at].legs.len());
            if depth < MAX_LEGS {
                let (gifts, looked_at) = self.nearest(live, arena, since, until);
                steps += looked_at;
                for gift in gifts.into_iter().filter(&suits) {
                    if sources.len() < MAX_NODES && seen.insert(gift.from) {
                        steps += depth + 1;
                        let mut legs = vec![gift];
                        legs.extend(sources[at].legs.iter().cloned());
                        sources.push(Source { arena: legs[0].from, legs });
                    }
                }
            }
            at += 1;
        }
        sources
    }

    /// Who gave directly to `to`: of several connections from one giver the one that carried most. Who gave last by
    /// `until` comes first, since a server that many give to has more givers than are looked at. And how many gifts
    /// there were to look at.
    fn nearest(&self, live: &dyn Live, to: ArenaId, since: u64, until: u64) -> (Vec<Gift>, usize) {
        let over = self.into.get(&to).into_iter().flatten().cloned();
        let mut best: Vec<Gift> = Vec::new();
        let mut places: HashMap<ArenaId, usize> = HashMap::new();
        let mut all = 0;
        for gift in live.gifts(to).into_iter().chain(over) {
            all += 1;
            if gift.from == to || gift.started > until || gift.last < since {
                continue;
            }
            match places.get(&gift.from) {
                Some(&place) if best[place].bytes >= gift.bytes => {}
                Some(&place) => best[place] = gift,
                None => {
                    places.insert(gift.from, best.len());
                    best.push(gift);
                }
            }
        }
        best.sort_by_key(|gift| Reverse((gift.last.min(until), gift.started)));
        (best, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct None0;
    impl Live for None0 {
        fn gifts(&self, _: ArenaId) -> Vec<Gift> {
            Vec::new()
        }
        fn inside(&self, _: ArenaId, _: Uuid, _: Uuid) -> Option<Inside> {
            None
        }
        fn doubt(&self, _: ArenaId) -> Option<Reason> {
            None
        }
        fn dropped(&self, _: ArenaId) -> bool {
            false
        }
        fn alive(&self, _: ArenaId) -> bool {
            true
        }
    }

    fn gift(from: ArenaId, to: ArenaId, bytes: u64, started: u64, last: u64) -> Gift {
        let transfer = Uuid::now_v7();
        let (channel, verdict) = (Channel::Tcp, Some(Verdict::Intact));
        Gift { from, to, transfer, channel, bytes, started, last, verdict, altered: Vec::new() }
    }

    #[test]
    fn legs_stand_in_the_bytes_order() {
        let mut chains = Chains::default();
        let legs = [gift(1, 2, 10, 0, 9), gift(2, 3, 10, 0, 9), gift(3, 4, 10, 0, 9)];
        legs.iter().for_each(|g| chains.over(g.clone()));
        let found = chains.sources(&None0, 4, 0, 10);
        let origin = found.iter().find(|s| s.arena == 1).unwrap();
        assert_eq!(origin.legs, legs);
        assert_eq!(found[0].arena, 4);
        assert_eq!(chains.sources(&None0, 1, 0, 10).len(), 1, "backwards only");
    }

    #[test]
    fn what_was_over_before_or_began_after_does_not_count() {
        let mut chains = Chains::default();
        chains.over(gift(1, 2, 10, 0, 9));
        assert_eq!(chains.sources(&None0, 2, 10, 20).len(), 1);
        chains.over(gift(1, 2, 10, 30, 40));
        assert_eq!(chains.sources(&None0, 2, 10, 20).len(), 1);
        assert_eq!(chains.sources(&None0, 2, 10, 35).len(), 2);
        chains.forget_before(41);
        assert_eq!(chains.sources(&None0, 2, 0, 100).len(), 1);
    }

    #[test]
    fn of_more_givers_than_are_looked_at_those_that_gave_last_count() {
        let mut chains = Chains::default();
        // Each has a circle of friends, so that all together are more than are looked at.
        for n in 0..500 {
            chains.over(gift(1000 + n, 1, 10, n * 10, n * 10 + 9));
            (0..9).for_each(|friend| chains.over(gift(2000 + n * 10 + friend, 1000 + n, 10, 0, 9)));
        }
        for (n, until) in [(0, 9), (1, 18), (250, 2505), (499, 5000)] {
            let found = chains.sources(&None0, 1, 0, until);
            assert!(found.iter().any(|s| s.arena == 1000 + n), "{n} up to {until}");
            let later = |s: &&Source| (1000..2000).contains(&s.arena) && s.arena > 1000 + n;
            assert_eq!(found.iter().find(later).map(|s| s.arena), None, "nobody who came later");
            assert!(found.len() <= MAX_NODES);
        }
    }

    #[test]
    fn circles_and_crowds_end() {
        let mut chains = Chains::default();
        for n in 0..500u64 {
            chains.over(gift(n, n + 1, 1, 0, 9));
            chains.over(gift(n + 1, n, 1, 0, 9));
            chains.over(gift(n + 1000, 250, 1, 0, 9));
        }
        assert!(chains.sources(&None0, 250, 0, 10).len() <= MAX_NODES);
        for _ in 0..2 * MAX_GIFTS {
            chains.over(gift(7, 8, 1, 0, 9));
        }
        assert!(chains.into[&8].len() <= MAX_GIFTS);
    }
}
