//! Files: what was read, what was written, and which of these are one file's way.
//!
//! Comes in: the records of file objects, who gives bytes to whom ([`chains::Live`]), and files at rest.
//! Goes out: [`Judged::Transfer`]s with channel `file`, once a written file and the file that it comes
//! from are both known. The assembler calls it. Every table is bounded; what a liar says of its files
//! makes its own transfers wrong and nobody else's.
//!
//! ```text
//! open ─► readings ─┐
//!    └──► deliveries ┴─► resolve (chains, at rest) ─► judge::files ─► outward
//! of connections whose other end nobody sees ─► abroad
//! ```
#![forbid(unsafe_code)]

pub mod abroad;
mod capacity;
pub mod carriers;
mod case;
pub mod chains;
mod deeds;
mod followed;
mod matching;
pub mod names;
pub mod open;
mod outward;
pub mod place;
mod readings;
mod resolve;
mod rest;
pub mod tags;
#[cfg(test)]
mod tests;
mod unopened;

use crate::assemble::program::ArenaId;
use crate::host::facts::Facts;
use crate::host::facts::Inode;
use crate::judged::{DeedKind, Judged};
use crate::model::Reason;
use crate::rest::{Answer, Ask, User};
use crate::sensitive::Closed;
use chains::{Chains, Live};
use counterfoil_abi::record::{Named, Naming, Opened, Record};
use names::Names;
use open::{FileEnd, OpenFile, Way};
use readings::Readings;
use rest::AtRestState;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use tags::Room;

/// Files open at once.
const MAX_OPEN: usize = 200_000;
/// Of one program.
const MAX_OPEN_OF_ONE: u32 = 20_000;
/// Written files whose origin is being looked for.
const MAX_DELIVERIES: usize = 100_000;
/// Programs remembered.
const MAX_NODES: usize = 50_000;
/// Users remembered of one program.
const MAX_USERS: usize = 64;
/// Files that were read again before they were told.
const MAX_EARLY: usize = 4096;
/// Files being read at rest.
const MAX_ASKED: usize = 256;
/// How long things that are over are remembered, nanoseconds.
const REMEMBERED: u64 = 600_000_000_000;
/// Ticks until every lane was read again.
const SETTLE: u64 = 2;

/// What the files need to know of their surroundings.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Stands in every endpoint.
    pub hostname: String,
    /// The realtime clock less the monotonic one, nanoseconds.
    pub clock_offset: i128,
    /// Somebody answers what is in [`Files::asks`].
    pub reads_at_rest: bool,
}

/// A program that has files or gave bytes.
pub(crate) struct Node {
    pub facts: Arc<Facts>,
    users: Vec<(u32, User)>,
}

/// A written file whose origin is being looked for.
pub(crate) struct Delivery {
    pub end: FileEnd,
    pub rest: AtRestState,
    /// When it was over, monotonic nanoseconds.
    pub since: u64,
    /// Nothing more is to be had before observation ends.
    pub parked: bool,
    /// Looks so far.
    pub looks: u32,
    /// The name that it had when it was last looked at.
    pub path: Vec<u8>,
}

/// All tables.
pub struct Files {
    surroundings: Surroundings,
    open: HashMap<(ArenaId, u32), OpenFile>,
    open_of: HashMap<ArenaId, u32>,
    /// How often files were read again that nobody has opened yet, and when last.
    early: HashMap<(ArenaId, u32), (u32, u64)>,
    /// Files that were closed, with the tick when that counts.
    closing: VecDeque<(u64, (ArenaId, u32))>,
    names: Names,
    room: Room,
    readings: Readings,
    abroad: abroad::Abroad,
    trees: unopened::Trees,
    deliveries: BTreeMap<u64, Delivery>,
    /// When each is looked at again.
    due: BTreeSet<(u64, u64)>,
    pub(crate) chains: Chains,
    nodes: HashMap<ArenaId, Node>,
    /// What waits for an answer: a reading or a delivery.
    asked: HashMap<u64, (Way, u64)>,
    next: u64,
    now: u64,
    tidied: u64,
    /// Observation is about to end.
    hurried: bool,
    /// Files to be read at rest.
    pub asks: Vec<Ask>,
    /// What was done to files, and not yet said.
    deeds: VecDeque<Judged>,
    /// Files that were closed, for who follows sensitive ones; nobody else takes them out.
    pub(crate) closed: Vec<Closed>,
    /// And those whose content became known later.
    pub(crate) digested: Vec<(Inode, [u8; 32])>,
    /// Somebody does.
    followed: bool,
}

impl Files {
    /// Empty tables. `room`: bytes of tags.
    pub fn new(surroundings: Surroundings, room: usize) -> Self {
        Self {
            surroundings,
            open: HashMap::new(),
            open_of: HashMap::new(),
            early: HashMap::new(),
            closing: VecDeque::new(),
            names: Names::default(),
            room: Room::new(room),
            readings: Readings::default(),
            abroad: abroad::Abroad::default(),
            trees: unopened::Trees::new(),
            deliveries: BTreeMap::new(),
            due: BTreeSet::new(),
            chains: Chains::default(),
            nodes: HashMap::new(),
            asked: HashMap::new(),
            next: 1,
            now: 0,
            tidied: 0,
            hurried: false,
            asks: Vec::new(),
            deeds: VecDeque::new(),
            closed: Vec::new(),
            digested: Vec::new(),
            followed: false,
        }
    }

    /// A program that has a file or gave bytes.
    pub fn program(&mut self, arena: ArenaId, facts: &Arc<Facts>) {
        if self.nodes.len() < MAX_NODES {
            self.nodes.entry(arena).or_insert_with(|| Node { facts: facts.clone(), users: Vec::new() });
        }
    }

    /// Somebody answers what is in [`Files::asks`] from now on.
    pub fn reads_at_rest(&mut self) {
        self.surroundings.reads_at_rest = true;
    }

    /// Somebody takes out what is in [`Files::closed`] from now on.
    pub(crate) fn followed(&mut self) {
        self.followed = true;
    }

    /// A file was opened. False: there is no room for it.
    pub fn opened(&mut self, arena: ArenaId, pid: u32, opened: &Opened) -> bool {
        let key = (arena, opened.header.object);
        if let Some(file) = self.open.get_mut(&key) {
            file.learn(opened);
            return true;
        }
        let of_one = self.open_of.entry(arena).or_default();
        if self.open.len() >= MAX_OPEN || *of_one >= MAX_OPEN_OF_ONE {
            return false;
        }
        *of_one += 1;
        let mut file = OpenFile::new(arena, pid, opened);
        if let Some((times, last)) = self.early.remove(&key) {
            file.again(times, last);
        }
        self.open.insert(key, file);
        self.remember_user(arena, pid);
        true
    }

    /// Whose rights the file was opened with; later its process may be gone.
    fn remember_user(&mut self, arena: ArenaId, pid: u32) {
        if !self.surroundings.reads_at_rest {
            return;
        }
        let Some(node) = self.nodes.get_mut(&arena) else { return };
        if node.users.len() < MAX_USERS && !node.users.iter().any(|(p, _)| *p == pid) {
            node.users.extend(User::of_process(pid).map(|user| (pid, user)));
        }
    }

    /// A record of an object. False: it is no file that is known.
    pub fn told(&mut self, arena: ArenaId, pid: u32, tick: u64, record: &Record) -> bool {
        let key = (arena, record.header().object);
        let Some(file) = self.open.get_mut(&key) else { return false };
        file.told(pid, record, &mut self.room);
        if file.done && file.due == 0 {
            file.due = tick + SETTLE;
            self.closing.push_back((file.due, key));
        }
        true
    }

    /// A file was read once more as a whole, as it was when it had that number.
    pub fn again(&mut self, arena: ArenaId, number: u32, time: u64) {
        let key = (arena, number);
        if let Some(file) = self.open.get_mut(&key) {
            file.again(1, time);
        } else if !self.readings.again(arena, number, time)
            && (self.early.len() < MAX_EARLY || self.early.contains_key(&key))
        {
            // Lanes are read one after the other: it may have been told in one that comes later.
            let (times, last) = self.early.entry(key).or_default();
            (*times, *last) = (times.saturating_add(1), time.max(*last));
        }
    }

    /// It was said to be open, and not yet closed.
    pub fn knows(&self, arena: ArenaId, number: u32) -> bool {
        self.open.contains_key(&(arena, number))
    }

    /// A file's name. `pid`: who says so.
    pub fn named(&mut self, arena: ArenaId, pid: u32, named: &Named) {
        let Some(name) = self.names.piece(arena, pid, named) else { return };
        if name.about == Naming::Path {
            if let Some(file) = self.open.get_mut(&(arena, named.header.object)) {
                file.path = name.path;
            }
            return;
        }
        let deed = match name.about {
            Naming::Renamed => Some(DeedKind::Renamed),
            Naming::Unlinked => Some(DeedKind::Removed),
            Naming::Path | Naming::Linked => None,
        };
        if let Some(kind) = deed {
            let inode = (named.device, named.inode);
            self.deed(arena, pid, named.header.time, &name.path, inode, kind);
        }
        let uid = self.nodes.get(&arena).and_then(|n| n.facts.process.uid);
        self.names.changed((named.device, named.inode), named.header.time, arena, uid, name);
    }

    /// Its program is gone: what it had open is closed.
    pub fn gone(&mut self, arena: ArenaId, tick: u64) {
        if self.open_of.get(&arena).is_none_or(|&n| n == 0) {
            return;
        }
        for (key, file) in self.open.iter_mut().filter(|((a, _), _)| *a == arena) {
            if file.due == 0 {
                file.due = tick + SETTLE;
                self.closing.push_back((file.due, *key));
            }
        }
    }

    /// Every lane was read: takes up what was closed, looks for origins.
    pub fn tick(&mut self, now: u64, tick: u64, live: &dyn Live, out: &mut VecDeque<Judged>) {
        self.now = now;
        while let Some(&(due, key)) = self.closing.front()
            && due <= tick
        {
            self.closing.pop_front();
            self.close(key, false, live);
        }
        out.append(&mut self.deeds);
        while let Some(&(at, id)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            self.look(id, live, false, out);
        }
        self.say_sent(false, live, out);
        if now.saturating_sub(self.tidied) > 5_000_000_000 {
            self.tidy();
        }
    }

    fn close(&mut self, key: (ArenaId, u32), open: bool, live: &dyn Live) {
        let Some(file) = self.open.remove(&key) else { return };
        if let Some(n) = self.open_of.get_mut(&key.0) {
            *n -= 1;
            if *n == 0 {
                self.open_of.remove(&key.0);
            }
        }
        let doubt: Vec<Reason> = live.doubt(key.0).into_iter().collect();
        let ends = file.ends(open, &doubt, &mut self.room);
        if self.followed
            && let Some(any) = ends.first()
        {
            let closed = followed::closed(key.1, any, &ends);
            self.closed.push(closed);
        }
        for end in ends {
            let id = self.next;
            self.next += 1;
            self.written(&end);
            match end.way {
                Way::Read => self.readings.insert(id, key.1, end, &mut self.room),
                Way::Written if self.deliveries.len() < MAX_DELIVERIES => {
                    let (path, since) = (end.path.clone(), self.now);
                    let rest = AtRestState::default();
                    self.deliveries.insert(id, Delivery { end, rest, since, parked: false, looks: 0, path });
                    self.due.insert((self.now, id));
                }
                Way::Written => {}
            }
        }
    }

    /// A file was read at rest, or can't be.
    pub fn at_rest(&mut self, answer: Answer) {
        let Some((way, id)) = self.asked.remove(&answer.id) else { return };
        let state = match way {
            Way::Read => self.readings.get_mut(id).map(|r| &mut r.rest),
            Way::Written => self.deliveries.get_mut(&id).map(|d| &mut d.rest),
        };
        let Some(state) = state else { return };
        let AtRestState::Asked(_, prefix) = *state else { return };
        if let (Way::Written, true, Ok(rest)) = (way, self.followed, &answer.result)
            && let Some(delivery) = self.deliveries.get(&id)
        {
            self.digested.push((delivery.end.inode, rest.sha256));
        }
        let state = match way {
            Way::Read => self.readings.get_mut(id).map(|r| &mut r.rest),
            Way::Written => self.deliveries.get_mut(&id).map(|d| &mut d.rest),
        };
        let Some(state) = state else { return };
        *state = match answer.result {
            Ok(rest) => AtRestState::Had(Box::new(rest), prefix),
            Err(_) => AtRestState::Refused,
        };
        match way {
            Way::Read => {
                self.readings.digested(id);
                if self.hurried {
                    self.due = self.deliveries.keys().map(|&id| (0, id)).collect();
                }
            }
            Way::Written => {
                self.due.retain(|&(_, d)| d != id);
                self.due.insert((self.now, id));
            }
        }
    }

    /// Something is on its way to a transfer: observation should not end just now.
    pub fn busy(&self) -> bool {
        !self.asked.is_empty()
            || !self.closing.is_empty()
            || self.hurried && self.deliveries.values().any(|d| !d.parked)
    }

    /// Observation is about to end: nothing is waited for any more but files that are being read at rest.
    pub fn hurry(&mut self) {
        if !self.hurried {
            self.hurried = true;
            self.due = self.deliveries.keys().map(|&id| (0, id)).collect();
        }
    }

    /// Observation ends: says what can be said.
    pub fn finish(&mut self, live: &dyn Live, out: &mut VecDeque<Judged>) {
        let mut keys: Vec<(u64, (ArenaId, u32))> = self.open.iter().map(|(k, f)| (f.opened, *k)).collect();
        keys.sort_unstable();
        for (_, key) in keys {
            let open = self.open.get(&key).is_some_and(|f| f.due == 0);
            self.close(key, open, live);
        }
        out.append(&mut self.deeds);
        let ids: Vec<u64> = self.deliveries.keys().copied().collect();
        for id in ids {
            self.look(id, live, true, out);
        }
        self.say_sent(true, live, out);
    }

    fn tidy(&mut self) {
        self.tidied = self.now;
        let before = self.now.saturating_sub(REMEMBERED);
        self.chains.forget_before(before);
        for seconds in [60, 10] {
            if self.chains.crowded() {
                self.chains.forget_before(self.now.saturating_sub(seconds * 1_000_000_000));
            }
        }
        self.names.forget_before(before);
        self.early.clear();
        self.forget_abroad();
        let scarce = self.room.scarce();
        self.readings.forget_before(before, &mut self.room, scarce);
        if self.nodes.len() > MAX_NODES / 2 {
            let used: std::collections::HashSet<ArenaId> = self.chains.arenas();
            let (open_of, readings) = (&self.open_of, &self.readings);
            self.nodes.retain(|a, _| open_of.contains_key(a) || used.contains(a) || readings.has(*a));
        }
    }

    /// What an open file is called.
    pub(crate) fn path_of(&self, arena: ArenaId, number: u32) -> Option<&[u8]> {
        self.open.get(&(arena, number)).map(|f| &f.path[..])
    }

    /// Nothing is held of anybody.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.deliveries.is_empty() && self.asked.is_empty()
    }
}
