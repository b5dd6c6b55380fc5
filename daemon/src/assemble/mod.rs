//! Assemble: records become manifests, and manifests of two ends become pairs.
//!
//! Comes in: programs that said hello, and their records in any order. Goes out: [`Judged`]. The
//! core's thread calls it for each record that `collect` read, and once a tick. What a hostile
//! program says about itself is its own affair; every table here is bounded.

#![forbid(unsafe_code)]

mod apply;
mod bodies;
mod claims;
mod datagrams;
mod filed;
mod finish;
mod gifts;
mod handed;
mod join;
mod lives;
mod lone;
mod lost;
pub mod manifest;
mod messages;
pub mod meter;
pub mod object;
mod onward;
mod orphans;
mod outward;
pub mod pair;
pub(crate) mod passed;
mod paths;
pub mod pending;
pub mod program;
mod relay;
pub mod runs;
mod samples;
mod sending;
pub mod slab;
mod ssh;
mod taken;
#[cfg(test)]
mod tests;
pub mod trace;
mod watch;

pub(crate) use outward::text as address_text;

use crate::files::{Files, Surroundings};
use crate::host::facts::{Inode, Proc};
use crate::judged::{Counts, Judged};
use crate::media::Gallery;
use crate::model::Reason;
use crate::sensitive::Trail;
use crate::sensitive::lineage::Asked;
use crate::surround::Seen;
use counterfoil_abi::record::{Address, Channel, Record};
use gifts::Standing;
use object::Object;
use pair::Pair;
use pending::Budget;
use program::{ArenaId, MAX_EARLY, MOST_EARLY, Program};
use samples::Taken;
use slab::{Key, Slab};
pub use ssh::{Outcome, Passage};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Objects at once; a program that opens more has them counted as dropped.
const MAX_OBJECTS: usize = 200_000;
/// Words for `surround` in one tick.
const MAX_SEEN: usize = 4096;
/// Ticks after an `Ended` until it counts: by then every lane was read again.
const SETTLE: u64 = 2;

/// Fingerprints and bodies' tags of all streams, bytes.
const CONTENT_BYTES: usize = 64 << 20;
/// Records that came before their object, bytes.
const EARLY_BYTES: usize = 16 << 20;
/// Objects that are found without a look into the tables.
const RECENT: usize = 128;
/// Of the time between two ticks at most so much is time waited, nanoseconds: a daemon that was held up has not looked.
const STALL: u64 = 250_000_000;

/// Where an object may stand among them.
#[inline]
fn recent_place(arena: ArenaId, number: u32) -> usize {
    (arena as usize).wrapping_mul(31).wrapping_add(number as usize) % RECENT
}

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
    /// What programs that are not observed were started with, the latest: it may be told of only later.
    held_unseen: VecDeque<Inode>,
    by_flow: HashMap<[u8; 16], FlowEnds>,
    by_addresses: HashMap<(Address, Address), Vec<Key>>,
    by_path: HashMap<Vec<u8>, paths::SamePath>,
    /// Unix sockets that were named as a peer and are not known yet, and who named them.
    wanted: HashMap<Inode, Key>,
    /// Ends of SSH channels.
    by_tunnel: HashMap<ssh::Name, Key>,
    /// How many there are.
    tunnels: usize,
    passages: VecDeque<Passage>,
    budget: Budget,
    /// Objects of late records, each at the place of its number: records come in runs, and few objects'
    /// runs take turns.
    recent: [Option<(ArenaId, u32, Key)>; RECENT],
    /// Monotonic nanoseconds.
    now: u64,
    /// The time by which waits are measured: a moment in which no lane was read is none in which anything could have come.
    patience: u64,
    tick: u64,
    /// Objects whose uses ended, with the tick when that counts.
    settling: VecDeque<(u64, Key)>,
    /// Objects looked at again later, by time.
    later: BTreeSet<(u64, Key)>,
    suspects: Vec<(u64, Suspect)>,
    /// Connections that are read from time to time, by when.
    metered: BTreeSet<(u64, Key)>,
    relays: relay::Relays,
    orphans: orphans::Orphans,
    /// Programs that turned out to accept connections as well as to make them: what passes through them may be
    /// found again. Whoever calls takes it out after each tick.
    pub relaying: Vec<ArenaId>,
    /// Room for what is kept of streams' content.
    shelf: samples::Shelf,
    /// And for records that came before their object.
    early: samples::Shelf,
    counts: Counts,
    /// Records when the tables were last weighed.
    weighed: u64,
    /// Connections with messages so far.
    lines: u64,
    /// What was read and written, and what became of it.
    pub files: Files,
    /// What became of sensitive files; None: nobody wants to know.
    pub trail: Option<Trail>,
    /// What became of media files; None: nobody wants to know.
    pub gallery: Option<Gallery>,
    /// What is to be said.
    pub out: VecDeque<Judged>,
    /// What `surround` may want to look at. Whoever calls takes it out after each tick.
    pub seen: Vec<Seen>,
}

impl Assembler {
    /// Empty tables.
    pub fn new(settings: Settings) -> Self {
        let budget = Budget::new(settings.tag_budget);
        let surroundings = Surroundings {
            hostname: settings.hostname.clone(),
            clock_offset: settings.clock_offset,
            reads_at_rest: false,
        };
        let files = Files::new(surroundings, settings.tag_budget);
        Self {
            settings,
            files,
            trail: None,
            gallery: None,
            programs: HashMap::new(),
            objects: Slab::default(),
            transfers: Slab::default(),
            by_inode: HashMap::new(),
            held_unseen: VecDeque::new(),
            by_flow: HashMap::new(),
            by_addresses: HashMap::new(),
            by_path: HashMap::new(),
            wanted: HashMap::new(),
            by_tunnel: HashMap::new(),
            tunnels: 0,
            passages: VecDeque::new(),
            budget,
            recent: [None; RECENT],
            now: 0,
            patience: 0,
            tick: 0,
            settling: VecDeque::new(),
            later: BTreeSet::new(),
            suspects: Vec::new(),
            metered: BTreeSet::new(),
            relays: relay::Relays::default(),
            orphans: orphans::Orphans::default(),
            relaying: Vec::new(),
            shelf: samples::Shelf::new(CONTENT_BYTES),
            early: samples::Shelf::new(EARLY_BYTES),
            counts: Counts::default(),
            weighed: 0,
            lines: 0,
            out: VecDeque::new(),
            seen: Vec::new(),
        }
    }

    /// Totals so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Sockets, pipes and TLS sessions that are open.
    pub fn sessions(&self) -> u64 {
        self.objects.len() as u64
    }

    /// Bytes of tags that wait for another end.
    pub fn waiting_bytes(&self) -> usize {
        self.budget.used()
    }

    /// One record of a lane whose thread belongs to process `by`.
    #[inline]
    pub fn record(&mut self, arena: ArenaId, by: u32, record: &Record) {
        self.counts.records += 1;
        let number = record.header().object;
        match record {
            Record::Opened(opened) if opened.channel == Channel::File as u8 => {
                self.file_opened(arena, by, opened)
            }
            Record::Opened(opened) => self.opened(arena, by, opened),
            // A file's first name may be in a lane that is read before the one that says it was opened.
            Record::Named(named) if number == 0 || self.files.knows(arena, number) => {
                self.file_named(arena, by, named);
            }
            Record::Forked(forked) => self.forked(arena, forked),
            Record::Note(note) => self.note(arena, by, note),
            Record::Again(again) => self.files.again(arena, number, again.header.time),
            _ => match self.locate(arena, number) {
                Some(key) => self.apply(arena, by, number, key, record),
                None if self.file_told(arena, by, record) => {}
                None => self.keep_early(arena, by, number, record),
            },
        }
    }

    #[inline]
    fn locate(&mut self, arena: ArenaId, number: u32) -> Option<Key> {
        let place = recent_place(arena, number);
        if let Some((a, n, key)) = self.recent[place]
            && a == arena
            && n == number
        {
            return Some(key);
        }
        let key = *self.programs.get(&arena)?.numbers.get(&number)?;
        self.recent[place] = Some((arena, number, key));
        Some(key)
    }

    fn keep_early(&mut self, arena: ArenaId, by: u32, number: u32, record: &Record) {
        self.note_lost(arena, by, number, record);
        let Some(program) = self.programs.get_mut(&arena) else { return };
        let mut taken = Taken::default();
        let more = program.early.len() < MOST_EARLY && taken.more(size_of::<Record>(), &self.early);
        if more || program.early.len() < MAX_EARLY {
            program.early.push((number, by, Box::new(*record), taken));
            program.early_age = 0;
        }
    }

    /// All lanes of all arenas that stirred were read. `now` is monotonic nanoseconds.
    pub fn tick(&mut self, now: u64) {
        self.patience += now.saturating_sub(self.now).min(STALL);
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
        self.read_meters();
        self.end_orphans();
        if !self.suspects.is_empty() {
            self.look_at_suspects();
        }
        self.settle_relays(false);
        let standing = Standing::of(
            (&self.programs, &self.objects, &self.transfers),
            &self.passages,
            &self.relays,
            &*self.settings.proc,
        );
        self.files.tick(now, self.tick, &standing, &mut self.out);
        if let Some(trail) = &mut self.trail {
            for closed in self.files.closed.drain(..) {
                if let Some(gallery) = &mut self.gallery {
                    gallery.closed(&closed);
                }
                trail.closed(closed);
            }
            self.files.digested.drain(..).for_each(|(inode, digest)| trail.digested(inode, digest, now));
            let mut asked = Asked::new(&standing);
            trail.tick(now, &mut asked, &mut self.out);
            if let Some(gallery) = &mut self.gallery {
                gallery.tick(now, trail.lineage(), &mut asked, &mut self.out);
            }
        }
        if self.tick.is_multiple_of(64) {
            self.forget_early();
        }
    }

    fn see(&mut self, seen: Seen) {
        if self.seen.len() < MAX_SEEN {
            self.seen.push(seen);
        }
    }

    /// Is anything due soon, so that ticks should not be far apart?
    pub fn restless(&self) -> bool {
        !self.settling.is_empty() || !self.suspects.is_empty() || self.files.busy()
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
        self.follow_to_the_end();
        for key in self.objects.keys() {
            self.join_in_order(key);
            self.read_last(key);
            self.say_cipher(key);
            self.say_tunnel(key);
        }
        for key in self.transfers.keys() {
            self.judge(key);
        }
        self.settle_relays(true);
        let standing = Standing::of(
            (&self.programs, &self.objects, &self.transfers),
            &self.passages,
            &self.relays,
            &*self.settings.proc,
        );
        self.files.finish(&standing, &mut self.out);
        let with_lost: Vec<ArenaId> = self.programs.keys().copied().collect();
        for arena in with_lost {
            self.say_lost(arena, true);
        }
        self.out.push_back(Judged::Counts(self.counts));
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
