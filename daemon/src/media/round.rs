//! A walk goes round: every reading once, picture by picture, in as many slices as it takes.
#![forbid(unsafe_code)]

use super::chain::Chain;
use super::look::Ask;
use super::ordinary::approved;
use super::ran::Code;
use super::walk::Works;
use super::{Doing, Gallery, Turn};
use crate::assemble::program::ArenaId;
use crate::judged::Judged;
use crate::pace::Slice;
use crate::sensitive::lineage::{Asked, Lineage};
use crate::sensitive::origins::{Reading, Source};
use crate::sensitive::told::Step;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

/// As far as it has come.
pub(super) struct Round {
    turn: Turn,
    piles: VecDeque<Pile>,
    /// Scripts that are nothing that was installed, by when they were started.
    scripts: Vec<(u64, ArenaId)>,
}

/// What is known of one picture so far.
struct Pile {
    root: Arc<str>,
    /// Still to be looked at.
    readings: VecDeque<u64>,
    /// Looked at.
    from: Vec<From>,
    chain: Chain,
}

/// A reading, as far as a walk needs it.
pub(super) struct From {
    pub arena: u64,
    pub pid: u32,
    pub opened_as: String,
    pub since: u64,
    pub last: u64,
    pub source: Source,
    read: Step,
}

impl From {
    fn of(r: &Reading, now: u64, lineage: &Lineage) -> Self {
        let read = lineage.read_step(r);
        let open = !r.open.is_empty() && !lineage.is_gone(r.arena);
        Self {
            arena: r.arena,
            pid: r.pid,
            opened_as: r.opened_as.clone(),
            since: r.since,
            last: if open { now } else { r.last },
            source: r.source.clone(),
            read,
        }
    }

    /// How it came there.
    pub fn chain(&self) -> impl Iterator<Item = Step> {
        self.source.way.iter().chain([&self.read]).cloned()
    }

    /// It is the picture itself that was read.
    pub fn own(&self) -> bool {
        self.source.way.is_empty()
    }
}

impl Gallery {
    /// Goes on where the last walk had to leave off. False: this one had to, too.
    pub(super) fn walk(
        &mut self,
        now: u64,
        turn: Turn,
        lineage: &Lineage,
        asked: &mut Asked<'_>,
        slice: &Slice,
        out: &mut VecDeque<Judged>,
    ) -> bool {
        let begun = self.round.take().filter(|round| round.turn == turn);
        let mut round = begun.unwrap_or_else(|| self.begin_round(now, turn));
        let mut works = Works::new();
        while let Some(pile) = round.piles.front_mut() {
            if let Some(id) = pile.readings.pop_front() {
                // It may have turned out to come of another one meanwhile.
                let reading = self.origins.get(id).filter(|r| r.source.path == pile.root);
                if let Some(from) = reading.map(|r| From::of(r, now, lineage)) {
                    self.reading(&mut pile.chain, &from, lineage, asked, &mut works);
                    pile.from.push(from);
                }
            } else if let Some(Pile { root, from, mut chain, .. }) = round.piles.pop_front() {
                self.named_by_scripts(&mut chain, &root, &from, &round.scripts, lineage);
                self.judge(root, chain, &from, now, turn, lineage, out);
            }
            if slice.over() {
                self.round = Some(round);
                return false;
            }
        }
        true
    }

    fn begin_round(&mut self, now: u64, turn: Turn) -> Round {
        let readings = || self.origins.readings().filter(|(_, r)| r.sure);
        let counted: Vec<_> = readings().map(|(_, r)| (r.arena, r.since, r.source.path.clone())).collect();
        for (arena, since, root) in counted {
            let said = self.said.entry(root.clone()).or_default();
            if said.since == 0 || since < said.since {
                said.since = since;
            }
            self.counted(arena, &root);
        }
        // What a tool hides or takes out is not the medium, where it read one, too.
        let medium = |r: &Reading| {
            let class = self.said.get(&r.source.path).and_then(|said| said.class);
            class.is_some() || super::picture::named(&r.source.path)
        };
        let readings = || self.origins.readings().filter(|(_, r)| r.sure);
        let with: HashSet<u64> = readings().filter(|(_, r)| medium(r)).map(|(_, r)| r.arena).collect();
        let mut piles: BTreeMap<Arc<str>, VecDeque<u64>> = BTreeMap::new();
        let mut span: Option<(u64, u64)> = None;
        for (id, r) in readings().filter(|(_, r)| medium(r) || !with.contains(&r.arena)) {
            piles.entry(r.source.path.clone()).or_default().push_back(id);
            let (since, last) = span.unwrap_or((r.since, r.last));
            let last = last.max(if r.open.is_empty() { r.last } else { now });
            span = Some((since.min(r.since), last));
        }
        let pile = |(root, readings)| Pile { root, readings, from: Vec::new(), chain: Chain::default() };
        let piles = piles.into_iter().map(pile).collect();
        let scripts = span.map(|(since, last)| self.scripts_near(since, last)).unwrap_or_default();
        Round { turn, piles, scripts }
    }

    /// Scripts that were started then, or shortly before or after; has those looked at of which nothing is known yet.
    fn scripts_near(&mut self, since: u64, last: u64) -> Vec<(u64, ArenaId)> {
        let span = since.saturating_sub(self.window())..=last.saturating_add(self.window());
        let near =
            |d: &Doing| span.contains(&d.born) && d.ran.code.is_some() && !approved(&self.settings(), d);
        let mut asks = Vec::new();
        let mut found = Vec::new();
        for (&arena, doing) in self.doing.iter().filter(|(_, d)| near(d)) {
            if let Some(Code::File(script)) = &doing.ran.code
                && !self.scripts.contains_key(script)
                && let Some(user) = &doing.user
            {
                asks.push(Ask { path: script.clone(), inode: None, user: user.clone(), script: true });
            }
            if self.unusual(doing) == Some(true) && !self.many(arena) {
                found.push((doing.born, arena));
            }
        }
        for ask in asks {
            let path = ask.path.clone();
            if self.looker.ask(ask) {
                self.scripts.insert(path, None);
            }
        }
        found.sort_unstable();
        found
    }
}
