//! From who read something to where it may have gone.
#![forbid(unsafe_code)]

use super::lineage::{Reach, Sending, World};
use super::origins::{Copy, Source};
use super::told::{Ground, SensitiveEgress, Step};
use super::{TOLD, Trail};
use crate::judged::{Judged, Notice, What};
use crate::model::{FileFact, Range};
use std::collections::{HashSet, VecDeque};
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
    chain: Vec<Step>,
}

impl Trail {
    /// Walks from every reading that counts.
    pub(super) fn walk(&mut self, now: u64, world: &dyn World, out: &mut VecDeque<Judged>) {
        let window = self.window();
        let starts: Vec<From> = self.starts(now);
        for from in starts {
            let reached = self.lineage.reach(world, from.arena, from.since);
            for reach in &reached {
                self.turn_up(reach.arena, from.last.saturating_add(window));
                self.files_of(&from, reach);
                for sending in self.lineage.sendings(world, reach.arena) {
                    let since = from.last.max(reach.since);
                    if sending.grew < reach.since || sending.grew > since.saturating_add(window) {
                        continue;
                    }
                    let steps = from.chain.iter().chain(&reach.steps).cloned().collect();
                    self.say(from.id, &from.source, &sending, Ground::Lineage, steps, out);
                }
            }
            self.session(&from, &reached, now, world, out);
        }
    }

    fn starts(&mut self, now: u64) -> Vec<From> {
        let lineage = &self.lineage;
        let known = &self.known;
        let altered = |arena| {
            let exe = lineage.facts(arena).and_then(|f| f.process.exe.as_deref());
            exe.is_some_and(|exe| known.altered(exe))
        };
        let counts = self.origins.readings().filter(|(_, r)| r.sure && (!r.excused || altered(r.arena)));
        let starts = counts.map(|(id, r)| {
            let mut chain = r.source.way.to_vec();
            chain.push(Step {
                at: lineage.at(r.since),
                did: "read",
                process: crate::model::ProcessName { pid: r.pid, ..lineage.name(r.arena) },
                to: None,
                over: None,
                transfer: None,
                file: Some(r.opened_as.clone()),
            });
            let last = if r.open.is_empty() || lineage.is_gone(r.arena) { r.last } else { now };
            From { id, arena: r.arena, since: r.since, last, source: r.source.clone(), chain }
        });
        starts.collect()
    }

    /// What was written after the reading came of it.
    fn files_of(&mut self, from: &From, reach: &Reach) {
        let wrote: Vec<_> =
            self.lineage.written(reach.arena).filter(|w| w.last >= reach.since).cloned().collect();
        let held = self.known.held();
        for w in wrote {
            let digest = w
                .sha256
                .or_else(|| self.origins.copy(w.inode).filter(|c| c.source.same).and(from.source.sha256));
            if held.at(w.inode).is_some() {
                continue;
            }
            let mut way: Vec<Step> = from.chain.iter().chain(&reach.steps).cloned().collect();
            way.push(Step {
                at: self.lineage.at(w.last),
                did: "wrote",
                process: self.lineage.name(reach.arena),
                to: None,
                over: None,
                transfer: None,
                file: Some(w.path.clone()),
            });
            let copy = Copy {
                source: Source {
                    way: way.into(),
                    same: digest.is_some() && digest == from.source.sha256,
                    ..from.source.clone()
                },
                written: w.last,
                made: w.made && w.opened.saturating_add(1_000_000_000) >= reach.since,
                modified: w.modified,
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
        world: &dyn World,
        out: &mut VecDeque<Judged>,
    ) {
        let window = self.window();
        let Some(facts) = self.lineage.facts(from.arena).cloned() else { return };
        let Some(session) = facts.process.session.filter(|&s| s != 0) else { return };
        let reached: HashSet<u64> = reached.iter().map(|r| r.arena).collect();
        let others: Vec<u64> = self.lineage.in_session(session).filter(|a| !reached.contains(a)).collect();
        for arena in others {
            let same_user = self.lineage.facts(arena).is_some_and(|f| f.process.uid == facts.process.uid);
            for sending in self.lineage.sendings(world, arena) {
                let after =
                    sending.opened >= from.since && sending.opened <= from.last.saturating_add(window);
                // A better ground may come to be known; at the end there is nothing to wait for.
                let waited = now >= sending.grew.saturating_add(PATIENCE);
                if same_user && after && waited {
                    self.say(from.id, &from.source, &sending, Ground::Session, from.chain.clone(), out);
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
        let chain = self.starts(u64::MAX).into_iter().find(|f| f.source.path == source.path).map(|f| f.chain);
        self.say(0, source, sending, Ground::Content { spans }, chain.unwrap_or_default(), out);
    }

    /// Says it, unless that was said on no worse ground.
    fn say(
        &mut self,
        reading: u64,
        source: &Source,
        sending: &Sending,
        ground: Ground,
        mut chain: Vec<Step>,
        out: &mut VecDeque<Judged>,
    ) {
        let rank = match &ground {
            Ground::Content { .. } => 3,
            Ground::Lineage => 2,
            Ground::Session => 1,
        };
        let (process, connection) = (&sending.process, &sending.connection);
        let to = connection.remote.clone().unwrap_or_default();
        let key = format!("{} {:?} {to} {:?}", source.path, process.exe, process.uid);
        if let Some(reading) = self.origins.reading(reading)
            && !reading.told.insert(format!("{rank} {key}"))
        {
            return;
        }
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
        let seen = self.lineage.at(sending.grew);
        chain.push(Step {
            at: seen,
            did: "sent",
            process: crate::model::ProcessName { pid: process.pid, exe: process.exe.clone() },
            to: None,
            over: None,
            transfer: sending.transfer,
            file: None,
        });
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
