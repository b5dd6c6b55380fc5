//! Assemble: records become manifests, and manifests of two ends become pairs.
//!
//! Comes in: programs that said hello, and their records in any order. Goes out: [`Judged`]. The
//! core's thread calls it for each record that `collect` read, and once a tick. What a hostile
//! program says about itself is its own affair; every table here is bounded.

#![forbid(unsafe_code)]

mod apply;
mod claims;
mod finish;
mod join;
mod lost;
pub mod manifest;
pub mod object;
mod outward;
pub mod pair;
pub mod pending;
pub mod program;
pub mod runs;
pub mod slab;
#[cfg(test)]
mod tests;
mod watch;

use crate::host::facts::{Facts, Inode, Proc};
use crate::judge::Finish;
use crate::judged::{Counts, Judged, What};
use crate::model::{Coverage, Reason};
use counterfoil_abi::UNKNOWN;
use counterfoil_abi::hello::Resume;
use counterfoil_abi::record::{self, Address, Channel, Record};
use object::{Object, Proof, Use};
use pair::Pair;
use pending::Budget;
use program::{ArenaId, Inherited, MAX_EARLY, Program};
use slab::{Key, Slab};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Objects at once; a program that opens more has them counted as dropped.
const MAX_OBJECTS: usize = 200_000;
/// Records between two looks at how much room the tables take: they add at most 64 bytes each.
const WEIGH_AFTER: u64 = 500_000;
/// Ticks after an `Ended` until it counts: by then every lane was read again.
const SETTLE: u64 = 2;

/// What the tables need to know.
pub struct Settings {
    /// Stands in every endpoint.
    pub hostname: String,
    /// Bytes of waiting tags.
    pub tag_budget: usize,
    /// How long an ended end waits for its other end to appear.
    pub peer_wait: Duration,
    /// The seam.
    pub proc: Arc<dyn Proc>,
    /// The realtime clock less the monotonic one, nanoseconds.
    pub clock_offset: i128,
}

/// A connection and direction on its way to a verdict.
pub struct Transfer {
    id: Uuid,
    pair: Pair,
    origin: Option<Key>,
    destination: Option<Key>,
    /// It was said that it is altered, while it was open.
    said: bool,
}

impl Transfer {
    fn new(origin: Option<Key>, destination: Option<Key>) -> Self {
        let pair = Pair { joined: origin.is_some() && destination.is_some(), ..Pair::default() };
        Self { id: Uuid::now_v7(), pair, origin, destination, said: false }
    }
}

/// The ends of one TLS flow.
#[derive(Default)]
struct FlowEnds {
    client: Option<Key>,
    server: Option<Key>,
}

/// A difference that waits until no gap can turn up before it.
#[derive(Clone, Copy, PartialEq)]
enum Suspect {
    Transfer(Key),
    Cipher(Key, object::Direction),
}

/// All tables.
pub struct Assembler {
    settings: Settings,
    programs: HashMap<ArenaId, Program>,
    objects: Slab<Object>,
    transfers: Slab<Transfer>,
    by_inode: HashMap<Inode, Key>,
    by_flow: HashMap<[u8; 16], FlowEnds>,
    by_addresses: HashMap<(Address, Address), Vec<Key>>,
    by_path: HashMap<Vec<u8>, Vec<Key>>,
    /// Unix sockets that were named as a peer and are not known yet, and who named them.
    wanted: HashMap<Inode, Key>,
    budget: Budget,
    /// The object of the last record: records come in runs.
    last: Option<(ArenaId, u32, Key)>,
    /// Monotonic nanoseconds.
    now: u64,
    tick: u64,
    /// Objects whose uses ended, with the tick when that counts.
    settling: VecDeque<(u64, Key)>,
    /// Objects looked at again later, by time.
    later: BTreeSet<(u64, Key)>,
    suspects: Vec<(u64, Suspect)>,
    counts: Counts,
    /// Records when the tables were last weighed.
    weighed: u64,
    /// What is to be said.
    pub out: VecDeque<Judged>,
}

impl Assembler {
    /// Empty tables.
    pub fn new(settings: Settings) -> Self {
        let budget = Budget::new(settings.tag_budget);
        Self {
            settings,
            programs: HashMap::new(),
            objects: Slab::default(),
            transfers: Slab::default(),
            by_inode: HashMap::new(),
            by_flow: HashMap::new(),
            by_addresses: HashMap::new(),
            by_path: HashMap::new(),
            wanted: HashMap::new(),
            budget,
            last: None,
            now: 0,
            tick: 0,
            settling: VecDeque::new(),
            later: BTreeSet::new(),
            suspects: Vec::new(),
            counts: Counts::default(),
            weighed: 0,
            out: VecDeque::new(),
        }
    }

    /// Totals so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes of tags that wait for another end.
    pub fn waiting_bytes(&self) -> usize {
        self.budget.used()
    }

    /// A program said hello. All that its predecessors published has been recorded already, so the
    /// answer says where each inherited object goes on, in the order of `inherited`.
    pub fn register(
        &mut self,
        arena: ArenaId,
        facts: Arc<Facts>,
        watched: bool,
        inherited: Vec<Inherited>,
    ) -> Vec<Resume> {
        self.out.push_back(Judged::Coverage(Coverage {
            pid: facts.process.pid,
            exe: facts.process.exe.clone(),
            observed: true,
            reason: None,
        }));
        self.programs.insert(arena, Program::new(facts, watched, inherited.clone()));
        inherited.iter().map(|i| self.take_over(arena, i)).collect()
    }

    /// The new program's use of an object that is known, if the kernel says that it has it.
    fn take_over(&mut self, arena: ArenaId, inherited: &Inherited) -> Resume {
        let never = Resume { out_offset: UNKNOWN, in_offset: UNKNOWN };
        if !inherited.held {
            return never;
        }
        let Some(&key) = self.by_inode.get(&inherited.inode) else { return never };
        let Some(object) = self.objects.get_mut(key) else { return never };
        let [out_offset, in_offset] =
            [object::Direction::Out, object::Direction::In].map(|d| object.total(d));
        object.uses.push(Use {
            arena,
            number: inherited.number,
            fd: -1,
            flags: record::INHERITED | record::RESUMED,
            proof: Proof::Held,
            access: inherited.access,
            resumed: [out_offset, in_offset],
            extent: [out_offset, in_offset],
            by: [0; 2],
            ended: None,
            finish: None,
        });
        if let Some(program) = self.programs.get_mut(&arena) {
            program.numbers.insert(inherited.number, key);
        }
        Resume { out_offset, in_offset }
    }

    /// A process that was declined at hello.
    pub fn declined(&mut self, facts: &Facts) {
        self.out.push_back(Judged::Coverage(Coverage {
            pid: facts.process.pid,
            exe: facts.process.exe.clone(),
            observed: false,
            reason: Some("declined".into()),
        }));
    }

    /// One record of a lane whose thread belongs to process `by`.
    #[inline]
    pub fn record(&mut self, arena: ArenaId, by: u32, record: &Record) {
        self.counts.records += 1;
        let number = record.header().object;
        match record {
            Record::Opened(opened) => self.opened(arena, by, opened),
            Record::Forked(forked) => self.forked(arena, forked),
            Record::Note(note) => self.note(arena, by, note),
            _ => match self.locate(arena, number) {
                Some(key) => self.apply(arena, by, number, key, record),
                None => self.keep_early(arena, by, number, record),
            },
        }
    }

    #[inline]
    fn locate(&mut self, arena: ArenaId, number: u32) -> Option<Key> {
        if let Some((a, n, key)) = self.last
            && a == arena
            && n == number
        {
            return Some(key);
        }
        let key = *self.programs.get(&arena)?.numbers.get(&number)?;
        self.last = Some((arena, number, key));
        Some(key)
    }

    fn keep_early(&mut self, arena: ArenaId, by: u32, number: u32, record: &Record) {
        self.note_lost(arena, by, number, record);
        let Some(program) = self.programs.get_mut(&arena) else { return };
        if program.early.len() < MAX_EARLY {
            program.early.push((number, by, Box::new(*record)));
            program.early_age = 0;
        }
    }

    /// Records of it were lost: `records` of them since the last call.
    pub fn dropped(&mut self, arena: ArenaId, records: u64) {
        // A hostile program's own number.
        self.counts.dropped = self.counts.dropped.saturating_add(records);
        let Some(program) = self.programs.get_mut(&arena) else { return };
        program.dropped = true;
        self.notice(arena, 0, What::RecordsDropped { records });
    }

    /// Its arena holds what no library of ours writes, and is read no further: its streams end here.
    pub fn hostile(&mut self, arena: ArenaId, detail: &str) {
        let Some(program) = self.programs.get_mut(&arena) else { return };
        (program.dropped, program.hostile) = (true, true);
        program.early.clear();
        let keys: BTreeSet<Key> = program.numbers.values().copied().collect();
        for key in keys {
            let Some(object) = self.objects.get_mut(key) else { continue };
            let uses = object.uses.iter_mut().filter(|u| u.arena == arena);
            uses.for_each(|u| u.finish = u.finish.or(Some(Finish::Ended)));
            self.settle_soon(key);
        }
        let detail = detail.to_owned();
        self.notice(arena, 0, What::HostileArena { detail });
    }

    /// The arena that takes the most room, if all together take too much: tags have a budget, but a
    /// stream in a thousand pieces takes room, too. Looked at only after many records.
    pub fn too_heavy(&mut self) -> Option<ArenaId> {
        if self.counts.records - self.weighed < WEIGH_AFTER {
            return None;
        }
        self.weighed = self.counts.records;
        let mut weights: HashMap<ArenaId, usize> = HashMap::new();
        for key in self.objects.keys() {
            let Some(object) = self.objects.get(key) else { continue };
            let legs = object.legs.iter().flatten().filter_map(|&leg| self.transfers.get(leg));
            let legs: usize = legs.map(|t| t.pair.weight() / 2).sum();
            let cipher: usize = object.cipher.iter().flatten().map(|p| p.weight()).sum();
            let Some(user) = object.uses.last() else { continue };
            *weights.entry(user.arena).or_default() += size_of::<Object>() + legs + cipher;
        }
        let total: usize = weights.values().sum();
        let heaviest = weights.into_iter().max_by_key(|&(_, weight)| weight)?;
        (total > self.settings.tag_budget.saturating_mul(4)).then_some(heaviest.0)
    }

    /// Nobody maps its arena any more, and all that it held was recorded.
    pub fn gone(&mut self, arena: ArenaId) {
        let Some(program) = self.programs.get_mut(&arena) else { return };
        program.gone = true;
        program.early.clear();
        self.say_lost(arena, true);
        let Some(program) = self.programs.get_mut(&arena) else { return };
        let keys: BTreeSet<Key> = program.numbers.values().copied().collect();
        for key in keys {
            let Some(object) = self.objects.get_mut(key) else { continue };
            object.uses.iter_mut().filter(|u| u.arena == arena).for_each(Use::gone);
            self.settle_soon(key);
        }
        self.forget_program_if_done(arena);
    }

    fn forget_program_if_done(&mut self, arena: ArenaId) {
        if self.programs.get(&arena).is_some_and(|p| p.gone && p.numbers.is_empty()) {
            self.programs.remove(&arena);
            self.last = None;
        }
    }

    /// All lanes of all arenas that stirred were read. `now` is monotonic nanoseconds.
    pub fn tick(&mut self, now: u64) {
        self.now = now;
        self.tick += 1;
        while let Some(&(due, key)) = self.settling.front() {
            if due > self.tick {
                break;
            }
            self.settling.pop_front();
            if let Some(object) = self.objects.get_mut(key) {
                object.settling = false;
            }
            self.settle(key);
        }
        while let Some(&(due, key)) = self.later.first() {
            if due > now {
                break;
            }
            self.later.pop_first();
            if let Some(object) = self.objects.get_mut(key) {
                object.look_at = 0;
            }
            self.settle(key);
        }
        if !self.suspects.is_empty() {
            self.look_at_suspects();
        }
        if self.tick.is_multiple_of(64) {
            self.forget_early();
        }
    }

    /// Is anything due soon, so that ticks should not be far apart?
    pub fn restless(&self) -> bool {
        !self.settling.is_empty() || !self.suspects.is_empty()
    }

    fn forget_early(&mut self) {
        let with_lost: Vec<ArenaId> =
            self.programs.iter().filter(|(_, p)| !p.lost.is_empty()).map(|(id, _)| *id).collect();
        for arena in with_lost {
            self.say_lost(arena, false);
        }
        for program in self.programs.values_mut().filter(|p| !p.early.is_empty()) {
            program.early_age += 1;
            if program.early_age > 16 {
                program.early = Vec::new();
            }
        }
    }

    /// Observation ends: what is open is judged as it stands.
    pub fn finish_all(&mut self) {
        self.tick += SETTLE;
        for key in self.objects.keys() {
            self.say_cipher(key);
        }
        for key in self.transfers.keys() {
            self.judge(key);
        }
        let with_lost: Vec<ArenaId> = self.programs.keys().copied().collect();
        for arena in with_lost {
            self.say_lost(arena, true);
        }
        self.out.push_back(Judged::Counts(self.counts));
    }

    /// The daemon was restarted: the arenas that it took up again have a past that it doesn't know.
    /// `now` is monotonic nanoseconds; `said`: the last daemon ended in order and said what was open.
    pub fn restarted(&mut self, arena: ArenaId, now: u64, said: bool) {
        if let Some(program) = self.programs.get_mut(&arena) {
            program.restarted = true;
            program.adopted_at = now;
            program.said = said;
        }
    }

    fn object_limit_reached(&mut self) -> bool {
        let reached = self.objects.len() >= MAX_OBJECTS;
        if reached {
            self.counts.dropped = self.counts.dropped.saturating_add(1);
        }
        reached
    }

    /// What makes a program's streams of this channel uncertain as a whole.
    fn program_doubt(&self, arena: ArenaId, channel: Channel) -> Option<Reason> {
        let program = self.programs.get(&arena)?;
        if program.hostile {
            return Some(Reason::RecordsDropped);
        }
        program.foreign_hook(channel).then_some(Reason::ForeignHook)
    }
}
