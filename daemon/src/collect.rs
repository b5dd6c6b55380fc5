//! Collect: reads the lanes of all arenas.
//!
//! Comes in: arenas of programs that said hello, and word that a process is gone. Goes out: every
//! record, checked, to the caller's function; and [`Word`]s about arenas. The core's thread calls
//! [`Collector::tick`]. Nothing a process writes can make it panic, wait or take memory.
//!
//! A quiet arena costs one load of its bell each tick, or one each [`ROUND`] where its user's board has a bell that rings
//! with it: then the caller may nap, too, until one of them calls. An arena whose bell rang is read each tick until it is
//! quiet again. Lanes of quiet arenas are looked at now and then all the same: a process may be killed between a record and
//! the bell.

#![forbid(unsafe_code)]

mod order;

use crate::arena::{Arena, ReadError};
use crate::assemble::program::ArenaId;
use crate::bells::BoardBell;
use crate::surround::Pulse;
use counterfoil_abi::arena::{self, FULL_LANES, LANES, POLICY_BOARD, POLICY_FINGERPRINTS};
use counterfoil_abi::record::Record;
use order::Order;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Seats between the one that is looked at and the one whose bell is fetched meanwhile.
const AHEAD: usize = 16;
/// In which all quiet arenas are looked at once whose user's bell is silent, nanoseconds: programs can silence that, of
/// their own user's.
const ROUND: u64 = 1_000_000_000;
/// Ticks without a record until an arena counts as quiet.
const QUIET_AFTER: u32 = 3;
/// Nanoseconds between two looks at the used lanes of a quiet arena, and at all lanes.
const LOOK_EVERY: u64 = 2_000_000_000;
const LOOK_AT_ALL_EVERY: u64 = 30_000_000_000;
/// First and last time between two looks whether anybody still maps an arena, nanoseconds.
const PROBE_FIRST: u64 = 20_000_000;
const PROBE_LAST: u64 = 1_000_000_000;
/// How often a crowded arena is searched for lanes whose thread is gone.
const FREE_EVERY: u64 = 100_000_000;

/// What there is to say about an arena besides its records.
#[derive(Debug, PartialEq)]
pub enum Word {
    /// So many records more found no room.
    Dropped(u64),
    /// It is not read any more.
    Hostile(String),
    /// Nobody maps it, and all that it held was passed on.
    Gone,
}

/// `probe_at`: its owner lives.
const NEVER: u64 = u64::MAX;

/// One arena. What each tick looks at stands here, within a cache line.
struct Seat {
    arena: Arena,
    id: ArenaId,
    /// When to look whether anybody still maps it.
    probe_at: u64,
    looked: u64,
    active: bool,
    /// One of `bells` rings when it is quiet no more.
    belled: bool,
    hostile: bool,
    gone: bool,
    quiet_ticks: u32,
    rest: Box<Rest>,
}

const _: () = assert!(size_of::<Seat>() <= 64);

struct Rest {
    /// Lanes that were ever used.
    used: Lanes,
    looked_at_all: u64,
    probe_wait: u64,
    dropped: u64,
    freed: u64,
    /// How full its fullest lane was, percent.
    fullest: u32,
    /// When it last had a record, for who looks at it from outside.
    pulse: Pulse,
}

/// Some lanes of an arena.
#[derive(Default)]
struct Lanes([u64; LANES / 64]);

impl Lanes {
    fn add(&mut self, lane: usize) {
        self.0[lane / 64] |= 1 << (lane % 64);
    }

    fn has(&self, lane: usize) -> bool {
        self.0[lane / 64] >> (lane % 64) & 1 != 0
    }
}

/// All arenas.
#[derive(Default)]
pub struct Collector {
    seats: Vec<Seat>,
    /// The users'.
    bells: Vec<Arc<BoardBell>>,
    /// Those who ring were asked to call.
    naps: bool,
    /// When the last tick was.
    ticked: u64,
    /// The next seat that is looked at although its user's bell is silent.
    turn: usize,
    /// What was left of the share of a [`ROUND`] when seats were counted, in seats times nanoseconds.
    owed: u64,
    /// Seats without one, or whose program can't ring it any more.
    unbelled: usize,
    /// One may be active.
    active: bool,
    /// How full the fullest lane was that was read, percent.
    fullest: u32,
    order: Order,
}

impl Collector {
    /// Takes an arena up; it is active at first, since its process just started. `bell`: rings with its own.
    pub fn add(&mut self, id: ArenaId, arena: Arena, bell: Option<Arc<BoardBell>>, now: u64) {
        let belled = bell.is_some();
        self.unbelled += usize::from(!belled);
        self.active = true;
        if let Some(bell) = bell
            && !self.bells.iter().any(|known| Arc::ptr_eq(known, &bell))
        {
            self.bells.push(bell);
        }
        self.seats.push(Seat {
            id,
            arena,
            active: true,
            belled,
            hostile: false,
            gone: false,
            quiet_ticks: 0,
            looked: now,
            probe_at: NEVER,
            rest: Box::new(Rest {
                used: Lanes::default(),
                looked_at_all: now,
                probe_wait: PROBE_FIRST,
                dropped: 0,
                freed: now,
                fullest: 0,
                pulse: Pulse::default(),
            }),
        });
    }

    /// The arena's sign of life.
    pub fn pulse(&self, id: ArenaId) -> Option<Pulse> {
        self.seats.iter().rfind(|s| s.id == id).map(|s| s.rest.pulse.clone())
    }

    /// The arena's owner is gone, or runs another image: when nobody maps it, it is done.
    pub fn owner_gone(&mut self, id: ArenaId) {
        if let Some(seat) = self.seats.iter_mut().find(|s| s.id == id) {
            self.active = true;
            seat.active = true;
            seat.quiet_ticks = 0;
            if seat.probe_at == NEVER {
                seat.probe_at = 0;
            }
        }
    }

    /// Has a program fingerprint more than the start of its connections.
    pub fn fingerprint(&self, id: ArenaId) {
        if let Some(seat) = self.seats.iter().find(|s| s.id == id) {
            seat.arena.set_bits(POLICY_FINGERPRINTS);
        }
    }

    /// Reads an arena no more.
    pub fn give_up(&mut self, id: ArenaId) {
        if let Some(seat) = self.seats.iter_mut().find(|s| s.id == id) {
            (seat.hostile, seat.active) = (true, false);
        }
    }

    /// Sets or clears bits of an arena's policy.
    pub fn set_policy(&self, id: ArenaId, bits: u32, on: bool) {
        if let Some(seat) = self.seats.iter().find(|s| s.id == id) {
            if on { seat.arena.set_bits(bits) } else { seat.arena.clear_bits(bits) }
        }
    }

    /// Arenas whose policy has these bits.
    pub fn with_policy(&self, bits: u32) -> impl Iterator<Item = ArenaId> {
        self.seats.iter().filter(move |s| s.arena.policy() & bits == bits).map(|s| s.id)
    }

    /// Arenas at hand.
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// How full the fullest lane was, in percent, since that was last forgotten.
    pub fn fullest(&self) -> u32 {
        self.fullest
    }

    /// Begins to measure [`Self::fullest`] anew.
    pub fn forget_fullest(&mut self) {
        self.fullest = 0;
    }

    /// May any arena have to be read soon?
    pub fn active(&self) -> bool {
        self.active
    }

    /// The memfds, for whoever keeps them through a restart.
    pub fn descriptors(&self) -> impl Iterator<Item = (ArenaId, rustix::fd::BorrowedFd<'_>)> {
        self.seats.iter().map(|s| (s.id, s.arena.fd()))
    }

    /// Reads all that was published when it was called, and perhaps more. Returns the number of
    /// records. `record` gets arena, producing process (as its namespace counts) and record. `all`: nothing may be read
    /// later than now, not even in a test of [`order`].
    pub fn tick(
        &mut self,
        now: u64,
        all: bool,
        record: &mut impl FnMut(ArenaId, u32, &Record),
        word: &mut impl FnMut(ArenaId, Word),
    ) -> u64 {
        let mut records = 0;
        self.order.mix(&mut self.seats);
        let (mut gone, mut active) = (false, false);
        // All of them, whatever the first says: an answered bell is silent.
        let rung = self.bells.iter().fold(all, |rung, bell| rung | bell.board().answer());
        let turn = self.turn(now);
        let each = rung || self.active || self.unbelled > 0;
        for at in if each { 0..self.seats.len() } else { turn } {
            if let Some(soon) = self.seats.get(at + AHEAD) {
                soon.arena.anticipate();
            }
            let seat = &mut self.seats[at];
            if !seat.active && !seat.stirs(now) {
                continue;
            }
            let late = &mut |arena, lane| !all && self.order.late(arena, lane, now);
            let read = seat.read(late, record, word);
            if seat.belled && seat.arena.policy() & POLICY_BOARD == 0 {
                seat.belled = false;
                self.unbelled += 1;
            }
            self.fullest = self.fullest.max(std::mem::take(&mut seat.rest.fullest));
            if read > 0 {
                // Relaxed: nothing else is read by its word.
                seat.rest.pulse.store(now, Ordering::Relaxed);
            }
            records += read;
            if seat.probe_at <= now {
                gone |= seat.probe(now, record, word);
            }
            active |= seat.active;
        }
        self.active = active;
        if gone {
            self.seats.retain(|s| !s.gone);
            self.unbelled = self.seats.iter().filter(|s| !s.belled).count();
        }
        records
    }

    /// The seats whose turn it is, of a [`ROUND`] over all.
    fn turn(&mut self, now: u64) -> Range<usize> {
        let since = now.saturating_sub(std::mem::replace(&mut self.ticked, now)).min(ROUND);
        let share = self.owed + since * self.seats.len() as u64;
        self.owed = share % ROUND;
        let from = if self.turn < self.seats.len() { self.turn } else { 0 };
        self.turn = (from + (share / ROUND) as usize).min(self.seats.len());
        from..self.turn
    }

    /// Whoever was quiet calls from now on when it is quiet no more. False: the caller has to look by himself.
    pub fn nap(&mut self) -> bool {
        self.naps = !self.active && self.unbelled == 0;
        // All of them, whatever the first says: who is left out would not call.
        self.naps && self.bells.iter().fold(true, |nap, bell| bell.board().nap() & nap)
    }

    /// The caller looks by himself again.
    pub fn rise(&mut self) {
        if std::mem::take(&mut self.naps) {
            self.bells.iter().for_each(|bell| bell.board().rise());
        }
    }

    /// Gives lanes back whose thread is gone, in arenas where more than half of the full ones are taken. `lives`
    /// says whether a process and thread still exist, as their namespace counts them; unsure is
    /// yes: a lane given to two threads would be worthless.
    pub fn free_lanes(&mut self, now: u64, lives: &mut impl FnMut(ArenaId, u32, u32) -> bool) {
        for seat in self.seats.iter_mut().filter(|s| s.active && !s.hostile) {
            if now.saturating_sub(seat.rest.freed) < FREE_EVERY {
                continue;
            }
            seat.rest.freed = now;
            let taken: Vec<(usize, (u32, u32))> =
                (0..seat.arena.reach()).filter_map(|lane| Some((lane, seat.arena.owner(lane)?))).collect();
            if taken.len() * 2 <= FULL_LANES {
                continue;
            }
            // Each is a question to the kernel: of many threads not all of them as often.
            seat.rest.freed += FREE_EVERY * (taken.len() / FULL_LANES) as u64;
            for (lane, (pid, tid)) in taken {
                // What it published last must be read first; that is the next tick's business.
                if !lives(seat.id, pid, tid) && !seat.arena.stirred(lane) {
                    seat.arena.free_lane(lane, (pid, tid));
                }
            }
        }
    }

    /// Observation ends: tells all programs to stop recording.
    pub fn stop_all(&mut self) {
        for seat in &self.seats {
            seat.arena.set_policy(counterfoil_abi::arena::POLICY_OFF);
        }
    }

    /// Makes the next tick read every lane.
    pub fn look_at_all(&mut self) {
        self.active = true;
        for seat in &mut self.seats {
            seat.active = true;
            seat.quiet_ticks = 0;
        }
    }
}

impl Seat {
    /// Should a quiet arena be read?
    #[inline]
    fn stirs(&mut self, now: u64) -> bool {
        if self.hostile {
            // Only its end matters.
            return self.probe_at <= now;
        }
        let mut stirs = self.arena.bell() || self.probe_at <= now;
        if !stirs && now.saturating_sub(self.looked) >= LOOK_EVERY {
            self.looked = now;
            let all = now.saturating_sub(self.rest.looked_at_all) >= LOOK_AT_ALL_EVERY;
            if all {
                self.rest.looked_at_all = now;
            }
            stirs = (0..self.arena.reach()).any(|l| (all || self.rest.used.has(l)) && self.arena.stirred(l));
        }
        if stirs {
            self.active = true;
            self.quiet_ticks = 0;
        }
        stirs
    }

    fn read(
        &mut self,
        late: &mut impl FnMut(ArenaId, usize) -> bool,
        record: &mut impl FnMut(ArenaId, u32, &Record),
        word: &mut impl FnMut(ArenaId, Word),
    ) -> u64 {
        if self.hostile {
            self.active = false;
            return 0;
        }
        let rang = self.arena.bell();
        if rang {
            // What was published before the bell is read below; who publishes from here on rings
            // again, or is seen by the ticks that this arena stays active for.
            self.arena.clear_bell();
        }
        let (mut records, mut more) = (0, false);
        for lane in 0..self.arena.reach() {
            if !self.arena.stirred(lane) {
                continue;
            }
            if late(self.id, lane) {
                more = true;
                continue;
            }
            self.rest.used.add(lane);
            let waiting = self.arena.waiting(lane).min(arena::lines(lane));
            self.rest.fullest = self.rest.fullest.max((waiting * 100 / arena::lines(lane)) as u32);
            match self.read_lane(lane, record) {
                Ok(read) => records += read,
                Err(detail) => {
                    self.hostile = true;
                    self.active = false;
                    word(self.id, Word::Hostile(detail));
                    return records;
                }
            }
        }
        if records == 0 && !rang && !more {
            self.quiet_ticks += 1;
        } else {
            self.quiet_ticks = 0;
        }
        if self.quiet_ticks == QUIET_AFTER || self.quiet_ticks.is_multiple_of(64) {
            self.count_dropped(word);
        }
        if self.quiet_ticks > QUIET_AFTER {
            self.active = false;
        }
        records
    }

    fn read_lane(
        &mut self,
        lane: usize,
        record: &mut impl FnMut(ArenaId, u32, &Record),
    ) -> Result<u64, String> {
        let id = self.id;
        let by = self.arena.owner(lane).map_or(0, |(pid, _)| pid);
        let mut unknown = false;
        let mut decoded = Record::Blocks(bytemuck::Zeroable::zeroed());
        let read = self.arena.read(lane, |lines| {
            unknown = !decoded.decode_into(lines);
            if !unknown {
                record(id, by, &decoded);
            }
            !unknown
        });
        match read {
            Ok(records) => Ok(records),
            Err(ReadError::Hostile) if unknown => Err(format!("lane {lane}: a record out of its bounds")),
            Err(error) => Err(format!("lane {lane}: {error}")),
        }
    }

    fn count_dropped(&mut self, word: &mut impl FnMut(ArenaId, Word)) {
        let lanes = (0..LANES).filter(|&lane| self.rest.used.has(lane));
        let dropped = lanes.map(|lane| self.arena.dropped(lane)).fold(0, u64::saturating_add);
        let dropped = dropped.saturating_add(self.arena.turned_away());
        if dropped > self.rest.dropped {
            word(self.id, Word::Dropped(dropped - self.rest.dropped));
            self.rest.dropped = dropped;
        }
    }

    /// Is anybody still there? True: no, and the seat is to be given up.
    fn probe(
        &mut self,
        now: u64,
        record: &mut impl FnMut(ArenaId, u32, &Record),
        word: &mut impl FnMut(ArenaId, Word),
    ) -> bool {
        // An error means that it can't be mapped again: then it can't be read again either.
        if !self.arena.close().unwrap_or(true) {
            self.probe_at = now + self.rest.probe_wait;
            self.rest.probe_wait = (self.rest.probe_wait * 2).min(PROBE_LAST);
            return false;
        }
        self.read(&mut |_, _| false, record, word);
        self.count_dropped(word);
        word(self.id, Word::Gone);
        self.gone = true;
        true
    }
}
