//! From who read something to where it may have gone.
#![forbid(unsafe_code)]

use super::lineage::{Asked, Reach, Sending, Wrote};
use super::origins::{Copy, Source, WAY};
use super::told::{Ground, SensitiveEgress, Step};
use super::{TOLD, Trail};
use crate::judged::{Judged, Notice, What};
use crate::model::{FileFact, Range};
use crate::pace::Slice;
use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

/// Before the same session is ground enough, nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

/// A reading, as far as a walk needs it.
struct From {
    id: u64,
    arena: u64,
    since: u64,
    last: u64,
    source: Source,
    read: Step,
}

impl From {
    /// How it came there.
    fn chain(&self) -> impl Iterator<Item = Step> {
        self.source.way.iter().chain([&self.read]).cloned()
    }
}

impl Trail {
    /// Walks from every reading that counts, from where the last walk had to leave off. False: this one had to, too.
    pub(super) fn walk(
        &mut self,
        now: u64,
        asked: &mut Asked<'_>,
        slice: &Slice,
        out: &mut VecDeque<Judged>,
    ) -> bool {
        for id in self.origins.from(self.next) {
            self.next = id + 1;
            if let Some(from) = self.start(id, now) {
                self.follow_on(&from, now, asked, out);
            }
            if slice.over() {
                return false;
            }
        }
        self.next = 0;
        true
    }

    fn follow_on(&mut self, from: &From, now: u64, asked: &mut Asked<'_>, out: &mut VecDeque<Judged>) {
        let window = self.window();
        let reached = self.lineage.reach(asked, from.arena, from.since);
        for reach in &reached {
            self.turn_up(reach.arena, from.last.saturating_add(window));
            self.files_of(from, &reached, reach, asked);
            let until = from.last.max(reach.since).saturating_add(window);
            for sending in self.lineage.sendings(asked, reach.arena).iter() {
                if (reach.since..=until).contains(&sending.grew) {
                    let chain =
                        |trail: &Self| from.chain().chain(trail.lineage.steps(&reached, reach)).collect();
                    self.say(from.id, &from.source, sending, Ground::Lineage, chain, out);
                }
            }
        }
        self.session(from, &reached, now, asked, out);
    }

    fn start(&self, id: u64, now: u64) -> Option<From> {
        let lineage = &self.lineage;
        let altered = |arena| {
            let exe = lineage.facts(arena).and_then(|f| f.process.exe.as_deref());
            exe.is_some_and(|exe| self.known.altered(exe))
        };
        let r = self.origins.get(id).filter(|r| r.sure && (!r.excused || altered(r.arena)))?;
        let read = lineage.read_step(r);
        let last = if r.open.is_empty() || lineage.is_gone(r.arena) { r.last } else { now };
        Some(From { id, arena: r.arena, since: r.since, last, source: r.source.clone(), read })
    }

    /// What was written after the reading came of it.
    fn files_of(&mut self, from: &From, reached: &[Reach], reach: &Reach, asked: &mut Asked<'_>) {
        // With the reading, and the writing.
        if from.source.way.len() + reach.depth + 2 > WAY {
            return;
        }
        let held = self.known.held();
        let same = |w: &Wrote| {
            let copied = || self.origins.copy(w.inode).filter(|c| c.source.same).and(from.source.sha256);
            let digest = w.sha256.or_else(copied);
            digest.is_some() && digest == from.source.sha256
        };
        let span = reach.since..asked.unseen(reach.arena, reach.since, Arc::as_ptr(&from.source.path).addr());
        let wrote = self.lineage.written(reach.arena).filter(|w| span.contains(&w.last));
        let wrote = wrote.map(|w| (w, same(w)));
        let news = |(w, same): &(&Wrote, bool)| {
            held.at(w.inode).is_none() && !self.origins.knows(w.inode, w.last, *same)
        };
        let news: Vec<(Wrote, bool)> = wrote.filter(news).map(|(w, same)| (w.clone(), same)).collect();
        for (w, same) in news {
            let wrote = self.lineage.wrote_step(&w, reach.arena);
            let way = from.chain().chain(self.lineage.steps(reached, reach)).chain([wrote]).collect();
            let copy = Copy {
                source: Source { way, same, ..from.source.clone() },
                written: w.last,
                made: w.made && w.opened.saturating_add(1_000_000_000) >= reach.since,
                modified: w.modified,
                until: u64::MAX,
            };
            self.copy(w.inode, copy);
        }
    }

    /// Others in the same session, who sent something afterwards: a terminal can be copied from.
    fn session(
        &mut self,
        from: &From,
        reached: &[Reach],
        now: u64,
        asked: &mut Asked<'_>,
        out: &mut VecDeque<Judged>,
    ) {
        let window = self.window();
        let Some(facts) = self.lineage.facts(from.arena).cloned() else { return };
        let Some(session) = facts.process.session.filter(|&s| s != 0) else { return };
        let reached: HashSet<u64> = reached.iter().map(|r| r.arena).collect();
        let others: Vec<u64> = self.lineage.in_session(session).filter(|a| !reached.contains(a)).collect();
        for arena in others {
            let same_user = self.lineage.facts(arena).is_some_and(|f| f.process.uid == facts.process.uid);
            for sending in self.lineage.sendings(asked, arena).iter() {
                let after =
                    sending.opened >= from.since && sending.opened <= from.last.saturating_add(window);
                // A better ground may come to be known; at the end there is nothing to wait for.
                let waited = now >= sending.grew.saturating_add(PATIENCE);
                if same_user && after && waited {
                    let chain = |_: &Self| from.chain().collect();
                    self.say(from.id, &from.source, sending, Ground::Session, chain, out);
                }
            }
        }
    }

    /// A sensitive file's content was seen on a connection.
    pub(super) fn proven(
        &mut self,
        source: &Source,
        sending: &Sending,
        spans: Vec<Range>,
        out: &mut VecDeque<Judged>,
    ) {
        // Who read it, where that was seen.
        let chain = |trail: &Self| {
            let all = trail.origins.readings().filter(|(_, r)| r.source.path == source.path);
            let mut starts = all.filter_map(|(id, _)| trail.start(id, u64::MAX));
            starts.next().map(|from| from.chain().collect()).unwrap_or_default()
        };
        self.say(0, source, sending, Ground::Content { spans }, chain, out);
    }

    /// Says it, unless that was said on no worse ground.
    fn say(
        &mut self,
        reading: u64,
        source: &Source,
        sending: &Sending,
        ground: Ground,
        chain: impl FnOnce(&Self) -> Vec<Step>,
        out: &mut VecDeque<Judged>,
    ) {
        let rank = match &ground {
            Ground::Content { .. } => 3,
            Ground::Lineage => 2,
            Ground::Session => 1,
        };
        let (process, connection) = (&sending.process, &sending.connection);
        if let Some(reading) = self.origins.reading(reading)
            && !reading.told.insert(self.keyed.hash_one((
                rank,
                &process.exe,
                process.uid,
                &connection.remote,
            )))
        {
            return;
        }
        let to = connection.remote.clone().unwrap_or_default();
        let key = format!("{} {:?} {to} {:?}", source.path, process.exe, process.uid);
        let known = self.told.get(&key).copied().unwrap_or(0);
        if known > rank || known == 3 && self.told.contains_key(&format!("{key} {:?}", connection.local)) {
            return;
        }
        if self.told.len() <= 2 * TOLD {
            self.told.insert(key.clone(), rank);
            if rank == 3 {
                self.told.insert(format!("{key} {:?}", connection.local), rank);
            }
        }
        let sent = self.lineage.sent_step(sending);
        let seen = sent.at;
        let mut chain = chain(self);
        chain.push(sent);
        let hex = |digest: [u8; 32]| digest.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let what = SensitiveEgress {
            file: FileFact {
                path: Some(source.path.to_string()),
                label: Some(source.label.name.clone()),
                sha256: source.sha256.map(hex),
                class: None,
            },
            severity: source.label.severity,
            ground,
            chain,
            window: self.window() / 1_000_000_000,
        };
        out.push_back(Judged::Notice(Box::new(Notice {
            seen,
            process: Some(process.clone()),
            connection: Some(connection.clone()),
            flow: sending.flow.clone(),
            transfer: sending.transfer,
            what: What::SensitiveEgress(Arc::new(what)),
        })));
    }
}
