//! Transfers as gifts from program to program, for the chains that `files` looks for.

use super::finish::tls_from;
use super::object::{Direction, Object, Use};
use super::passed::How;
use super::program::{ArenaId, Program};
use super::relay::Relays;
use super::sending::{given, passes};
use super::slab::{Key, Slab};
use super::{Assembler, Outcome, Passage, Transfer};
use crate::files::abroad::Lone;
use crate::files::chains::{Gift, Inside, Live};
use crate::files::place::Found;
use crate::host::facts::Proc;
use crate::judge::Judgement;
use crate::judged::SshPlace;
use crate::model::{self, Reason, Verdict};
use crate::sensitive::lineage::Given;
use counterfoil_abi::record::Channel;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use uuid::Uuid;

/// Objects of one program that are looked at.
pub(super) const MAX_OBJECTS: usize = 4096;
/// Users of one end that count as giver or receiver.
const MAX_USERS: usize = 8;

/// The tables as they stand.
pub struct Standing<'a> {
    pub programs: &'a HashMap<ArenaId, Program>,
    pub objects: &'a Slab<Object>,
    pub transfers: &'a Slab<Transfer>,
    pub passages: &'a VecDeque<Passage>,
    pub relays: &'a Relays,
    pub proc: &'a dyn Proc,
    /// Processes that live, of programs that were asked about.
    pub(super) living: RefCell<HashMap<ArenaId, Rc<[u32]>>>,
}

/// Who moved bytes in a direction; while nobody is known to, who was given that end, else who came last.
fn users(object: &Object, direction: Direction) -> Vec<ArenaId> {
    let given = |u: &&Use| {
        u.access.is_some_and(|a| match direction {
            Direction::Out => a.writes && !a.reads,
            Direction::In => a.reads && !a.writes,
        })
    };
    let mut users: Vec<&Use> = object.uses.iter().filter(|u| u.active(direction)).collect();
    if users.is_empty() {
        users = object.uses.iter().filter(given).collect();
    }
    if users.is_empty() && object.channel != Channel::Pipe {
        users.extend(object.uses.last());
    }
    let mut arenas: Vec<ArenaId> = Vec::new();
    for user in users {
        if arenas.len() < MAX_USERS && !arenas.contains(&user.arena) {
            arenas.push(user.arena);
        }
    }
    arenas
}

impl<'a> Standing<'a> {
    pub(super) fn of(
        (programs, objects, transfers): (&'a HashMap<ArenaId, Program>, &'a Slab<Object>, &'a Slab<Transfer>),
        passages: &'a VecDeque<Passage>,
        relays: &'a Relays,
        proc: &'a dyn Proc,
    ) -> Self {
        Self { programs, objects, transfers, passages, relays, proc, living: RefCell::default() }
    }
}

impl Standing<'_> {
    pub(super) fn gifts_over(&self, leg: Key, judgement: Option<&Judgement>) -> Vec<Gift> {
        let Some(transfer) = self.transfers.get(leg) else { return Vec::new() };
        gifts(self.objects, transfer, judgement)
    }
}

/// A transfer's gifts; none where one of its ends is not known.
fn gifts(objects: &Slab<Object>, transfer: &Transfer, judgement: Option<&Judgement>) -> Vec<Gift> {
    let ends = [transfer.origin, transfer.destination].map(|k| k.and_then(|k| objects.get(k)));
    let [Some(origin), Some(destination)] = ends else { return Vec::new() };
    // A channel of ssh is part of its connection, which is the leg.
    if origin.channel == Channel::Ssh {
        return Vec::new();
    }
    // What is TLS of a connection is the session's gift, and no transfer of the connection's own.
    let clip = tls_from(Some(origin), Some(destination));
    let bytes = origin.total(Direction::Out).max(destination.total(Direction::In)).min(clip);
    if bytes == 0 && (judgement.is_some() || clip == 0) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for from in users(origin, Direction::Out) {
        for to in users(destination, Direction::In).into_iter().filter(|&to| to != from) {
            found.push(Gift {
                from,
                to,
                transfer: transfer.id,
                channel: origin.model_channel(),
                bytes,
                started: origin.opened.min(destination.opened),
                last: if judgement.is_some() { origin.last.max(destination.last) } else { u64::MAX },
                verdict: match judgement {
                    Some(judgement) => Some(judgement.verdict),
                    None => transfer.said.then_some(Verdict::Altered),
                },
                altered: judgement.map_or_else(Vec::new, |j| j.altered.iter().take(64).copied().collect()),
            });
        }
    }
    found
}

impl Live for Standing<'_> {
    fn gifts(&self, to: ArenaId) -> Vec<Gift> {
        let Some(program) = self.programs.get(&to) else { return Vec::new() };
        let mut legs: HashSet<Key> = HashSet::new();
        for key in program.numbers.values().take(MAX_OBJECTS) {
            legs.extend(self.objects.get(*key).and_then(|o| o.legs[Direction::In as usize]));
        }
        legs.into_iter().flat_map(|leg| self.gifts_over(leg, None)).filter(|g| g.to == to).collect()
    }

    fn inside(&self, program: ArenaId, before: Uuid, after: Uuid) -> Option<Inside> {
        if let Some(found) = self.relays.inside(program, before, after) {
            let outcome = match found.how {
                How::Altered => Found::Altered,
                _ if found.complete => Found::Intact,
                _ => Found::Unknown,
            };
            return Some(Inside {
                when: "before it passed it on",
                found: outcome,
                ranges: found.differs.clone(),
            });
        }
        let between =
            |p: &&Passage| p.programs == [program; 2] && p.before == Some(before) && p.after == Some(after);
        let passage = self.passages.iter().rev().find(between)?;
        let when = match passage.place {
            SshPlace::BeforeSealing => "before encryption",
            SshPlace::AfterOpening => "after decryption",
            SshPlace::BetweenCiphers => return None,
        };
        let (found, ranges) = match &passage.outcome {
            Outcome::Same => (Found::Intact, Vec::new()),
            Outcome::Differs(ranges) => (Found::Altered, ranges.clone()),
            Outcome::Unknown(_) => (Found::Unknown, Vec::new()),
        };
        Some(Inside { when, found, ranges })
    }

    fn hopes(&self, arena: ArenaId) -> bool {
        let alone = |key: &Key| {
            let Some(object) = self.objects.get(*key) else { return false };
            let connection = matches!(object.channel, Channel::Tcp | Channel::Tls | Channel::GnuTls);
            let leg = object.legs[Direction::In as usize].and_then(|leg| self.transfers.get(leg));
            connection && object.carries_tls.is_none() && leg.is_some_and(|leg| leg.origin.is_none())
        };
        let open = |p: &Program| p.numbers.values().take(MAX_OBJECTS).any(alone);
        self.relays.waits_for(arena) || self.programs.get(&arena).is_some_and(open)
    }

    fn lone(&self, arena: ArenaId) -> Option<Lone> {
        self.lone_of(arena)
    }

    fn doubt(&self, arena: ArenaId) -> Option<Reason> {
        let program = self.programs.get(&arena)?;
        if program.hostile {
            return Some(Reason::RecordsDropped);
        }
        program.foreign_hook(Channel::File).then_some(Reason::ForeignHook)
    }

    fn dropped(&self, arena: ArenaId) -> bool {
        self.programs.get(&arena).is_some_and(|p| p.dropped)
    }

    fn alive(&self, arena: ArenaId) -> bool {
        self.programs.get(&arena).is_some_and(|p| !p.gone)
    }
}

impl Assembler {
    /// A transfer is over: who gave to whom is remembered for the files that went over it.
    pub(super) fn remember_gifts(&mut self, transfer: &Transfer, judgement: &Judgement) {
        for gift in gifts(&self.objects, transfer, Some(judgement)) {
            for arena in [gift.from, gift.to] {
                if let Some(program) = self.programs.get(&arena) {
                    self.files.program(arena, &program.facts);
                }
            }
            let named = transfer.origin.and_then(|k| self.objects.get(k)).is_none_or(|o| !o.path.is_empty());
            if let Some(trail) = &mut self.trail
                && passes(gift.channel, named)
            {
                trail.gave(gift.from, given(&gift));
            }
            self.files.chains.over(gift);
        }
    }

    /// A program is gone that stood at an end of a pipe in a pipeline and was not seen to move a byte: what libc's stdio moves
    /// is not seen (`base64 FILE | fold`), so something may have passed between it and who stands at the other end.
    pub(super) fn remember_unseen(&mut self, key: Key, arena: ArenaId) {
        let (Some(trail), Some(pipe)) = (&mut self.trail, self.objects.get_mut(key)) else { return };
        if pipe.channel != Channel::Pipe || pipe.legs != [None; 2] || !pipe.path.is_empty() {
            return;
        }
        let stood: Vec<(ArenaId, Direction)> =
            pipe.uses.iter().filter_map(|u| Some((u.arena, end(u)?))).collect();
        for one in stood {
            if pipe.stood.len() < MAX_USERS && !pipe.stood.contains(&one) {
                pipe.stood.push(one);
            }
        }
        let (started, last) = (pipe.opened, pipe.last);
        let all =
            |direction| pipe.stood.iter().filter(move |(_, d)| *d == direction).map(|(arena, _)| *arena);
        for from in all(Direction::Out) {
            for to in all(Direction::In).filter(|&to| to != from && (to == arena || from == arena)) {
                let transfer = Uuid::nil();
                trail.gave(from, Given { to, transfer, channel: model::Channel::Pipe, started, last });
            }
        }
    }
}

/// Which end of a pipeline's pipe it has as standard input or output.
fn end(user: &Use) -> Option<Direction> {
    match (user.access.map(|a| (a.reads, a.writes))?, user.fd) {
        ((false, true), 1 | 2) => Some(Direction::Out),
        ((true, false), 0) => Some(Direction::In),
        _ => None,
    }
}
