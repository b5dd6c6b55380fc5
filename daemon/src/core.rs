//! The core: one thread that collects, assembles, joins and judges.
//!
//! Comes in: newcomers from `listen`, the arenas' lanes, pidfds that say who is gone. Goes out:
//! [`Judged`]. One thread, because a record costs less than handing it to another one.

#![forbid(unsafe_code)]

use crate::assemble::program::ArenaId;
use crate::assemble::{Assembler, Settings};
use crate::bells::Porter;
use crate::collect::{Collector, Word};
use crate::config::Media;
use crate::host::facts::{Facts, Proc};
use crate::host::keep::Keep;
use crate::host::room::Room;
use crate::judged::{Counts, Judged};
use crate::rest::{Answer, Reader, Refusal};
use crate::sensitive;
use crate::surround::{Seen, Surround};
use crate::tags::Tagger;
use counterfoil_abi::arena::{POLICY_TURNED_UP, POLICY_WATCHED};
use crossbeam::channel::{Receiver, Sender, TrySendError};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

mod clock;
mod messages;
mod newcomers;

pub use clock::{clock_offset, now, worked};
pub use messages::{Message, Outbox};
pub use newcomers::Newcomer;

/// Between two ticks while records flow.
const TICK: Duration = Duration::from_millis(1);
/// And while none do. Waking up costs more than looking at the bells (26 µs where this was measured), and an alarm
/// may take 20 ms.
const IDLE: Duration = Duration::from_millis(8);
const IDLE_MANY: Duration = Duration::from_millis(15);
const MANY: usize = 200;
/// And while whoever has something to say calls.
const NAP: Duration = Duration::from_millis(100);
/// Ticks without a record until the idle pace.
const PACE: u32 = 20;
/// While nothing comes: between two rounds of what is due by the clock alone, nanoseconds.
const LOOK_AFTER: u64 = NAP.as_nanos() as u64;
/// Between two looks for programs that turned themselves up for nothing, nanoseconds.
const SWEEP: u64 = 30_000_000_000;
/// What is heard of at one time.
const EVENTS: usize = 64;
/// The wake-up's name among the pidfds.
const WAKE: u64 = 0;
/// Said and not yet taken by the next stage, beyond which the core waits for it.
const MAX_UNSAID: usize = 65_536;

/// PID_MAX_LIMIT of a 64-bit kernel.
const GREATEST_TID: u32 = 4 << 20;

/// Totals that others may look at while the core runs.
#[derive(Debug, Default)]
pub struct SharedCounts {
    records: AtomicU64,
    dropped: AtomicU64,
}

impl SharedCounts {
    /// Totals so far.
    pub fn get(&self) -> Counts {
        Counts {
            records: self.records.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            ..Counts::default()
        }
    }
}

struct Guest {
    pidfd: OwnedFd,
    uid: u32,
    facts: Arc<Facts>,
}

/// The thread's state; while it sleeps, `listen` may use it.
pub struct Core {
    epoll: Arc<OwnedFd>,
    wake: Arc<OwnedFd>,
    messages: Receiver<Message>,
    out: Sender<Judged>,
    assembler: Assembler,
    collector: Collector,
    /// None: there is no thread for it.
    porter: Option<Porter>,
    guests: HashMap<ArenaId, Guest>,
    room: Room,
    keeper: Option<Arc<dyn Keep>>,
    proc: Arc<dyn Proc>,
    counts: Arc<SharedCounts>,
    /// What reads files at rest, once there is one to read.
    reader: Option<Reader>,
    tagger: Option<(Tagger, Outbox)>,
    surround: Option<Surround>,
    said: Counts,
    said_at: u64,
    /// How late it was at most since, in milliseconds.
    lag: u64,
    last_record: u64,
    /// Ticks since there was something to do.
    idle_ticks: u32,
    /// When what is due by the clock alone was last done.
    looked_after: u64,
    /// When those that turned themselves up were last looked for.
    swept: u64,
    /// Turned up then, for no reason that is known.
    idle: HashSet<ArenaId>,
    /// It has said its last words.
    ended: bool,
    /// Since when, how long without a record, how long at most.
    draining: Option<(u64, u64, u64)>,
}

impl Core {
    /// A core, and where to put messages for it.
    pub fn new(
        settings: Settings,
        room: Room,
        out: Sender<Judged>,
        counts: Arc<SharedCounts>,
        keeper: Option<Arc<dyn Keep>>,
        surround: Option<Surround>,
    ) -> io::Result<(Arc<Mutex<Self>>, Outbox)> {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let (sender, messages) = crossbeam::channel::bounded(4096);
        let core = Self {
            epoll,
            wake: wake.clone(),
            messages,
            out,
            proc: settings.proc.clone(),
            assembler: Assembler::new(settings),
            collector: Collector::default(),
            porter: Porter::start(wake.clone()).ok(),
            guests: HashMap::new(),
            room,
            keeper,
            counts,
            reader: None,
            tagger: None,
            surround,
            said: Counts::default(),
            said_at: 0,
            lag: 0,
            last_record: 0,
            idle_ticks: 0,
            looked_after: 0,
            swept: 0,
            idle: HashSet::new(),
            ended: false,
            draining: None,
        };
        let core = Arc::new(Mutex::new(core));
        // Weak: when the core's thread ends, whichever way, nothing of it is to stay.
        let outbox = Outbox { messages: sender, wake, core: Arc::downgrade(&core) };
        Ok((core, outbox))
    }

    /// Files are read at rest where that decides something, and tagged with this.
    pub fn reads_at_rest(&mut self, tagger: Tagger, outbox: Outbox) {
        self.assembler.files.reads_at_rest();
        self.tagger = Some((tagger, outbox));
    }

    /// Sensitive files are followed.
    pub fn follow(&mut self, setup: &sensitive::Setup) {
        self.assembler.follow(setup);
    }

    /// Media files are followed.
    ///
    /// # Errors
    /// No thread.
    pub fn follow_media(&mut self, media: Arc<RwLock<Media>>) -> std::io::Result<()> {
        self.assembler.follow_media(media)
    }

    /// Has files read that somebody asked for.
    fn ask(&mut self) {
        if self.assembler.files.asks.is_empty() {
            return;
        }
        if self.reader.is_none()
            && let Some((tagger, outbox)) = self.tagger.take()
        {
            let hear = move |answer| _ = outbox.offer(Message::AtRest(Box::new(answer)));
            self.reader = Reader::start(tagger, Arc::new(hear)).ok();
        }
        for ask in std::mem::take(&mut self.assembler.files.asks) {
            match &self.reader {
                Some(reader) => reader.ask(ask),
                None => self.assembler.files.at_rest(Answer { id: ask.id, result: Err(Refusal::Cancelled) }),
            }
        }
    }

    /// Runs until told to drain, and done with it. The caller keeps no core of his own.
    pub fn run(core: Arc<Mutex<Self>>) {
        let mut wait = Duration::ZERO;
        let mut events = Vec::with_capacity(EVENTS);
        let Ok(epoll) = core.lock().map(|this| this.epoll.clone()) else { return };
        loop {
            let due = now().saturating_add(wait.as_nanos() as u64);
            sleep(&epoll, wait, &mut events);
            // Who panicked with it left it half done: this daemon is over.
            let Ok(mut this) = core.lock() else { return };
            this.collector.rise();
            // Sleep that lasted longer than was asked for; and below, how long a round took.
            this.was_late(due);
            let began = now();
            this.wake_up(&events);
            this.hear_all();
            let read = this.collect(false);
            this.idle_ticks = if read > 0 { 0 } else { this.idle_ticks.saturating_add(1) };
            if !this.rests() || began.saturating_sub(this.looked_after) >= LOOK_AFTER {
                this.look_after();
                this.say();
            }
            if this.drained() {
                this.finish();
                return;
            }
            this.was_late(began);
            wait = this.pace(read > 1000);
        }
    }

    fn was_late(&mut self, since: u64) {
        self.lag = self.lag.max(now().saturating_sub(since) / 1_000_000);
    }

    fn pace(&mut self, busy: bool) -> Duration {
        if busy {
            Duration::ZERO
        } else if !self.rests() {
            TICK
        } else if self.porter.as_ref().is_some_and(Porter::hears) && self.collector.nap() {
            NAP
        } else if self.collector.len() > MANY {
            IDLE_MANY
        } else {
            IDLE
        }
    }

    /// Nothing has come for a while, and nothing is due soon.
    fn rests(&self) -> bool {
        self.idle_ticks >= PACE && !self.assembler.restless() && self.draining.is_none()
    }

    fn wake_up(&mut self, events: &[epoll::Event]) {
        if !events.is_empty() {
            self.idle_ticks = 0;
        }
        for event in events {
            match event.data.u64() {
                WAKE => {
                    let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
                }
                id => {
                    if let Some(guest) = self.guests.get(&id) {
                        let _ = epoll::delete(&self.epoll, &guest.pidfd);
                    }
                    self.collector.owner_gone(id);
                }
            }
        }
    }

    /// Reads everything once, and does what follows from it. `all`: whatever a test says.
    fn tick(&mut self, all: bool) {
        self.collect(all);
        self.look_after();
    }

    fn collect(&mut self, all: bool) -> u64 {
        let now = now();
        let assembler = &mut self.assembler;
        let mut words = Vec::new();
        let read = self.collector.tick(
            now,
            all,
            &mut |arena, by, record| assembler.record(arena, by, record),
            &mut |arena, word| words.push((arena, word)),
        );
        if read > 0 {
            self.last_record = now;
        }
        for (arena, word) in words {
            match word {
                Word::Dropped(records) => self.assembler.dropped(arena, records),
                Word::Hostile(detail) => self.assembler.hostile(arena, &detail),
                Word::Gone => {
                    self.assembler.gone(arena);
                    self.assembler.seen.push(Seen::Gone { id: arena });
                    if let Some(keeper) = &self.keeper {
                        keeper.forget(arena);
                    }
                    if let Some(guest) = self.guests.remove(&arena) {
                        let _ = epoll::delete(&self.epoll, &guest.pidfd);
                        self.room.give(guest.uid);
                    }
                }
            }
        }
        if self.collector.active() {
            let (guests, proc) = (&self.guests, &self.proc);
            self.collector.free_lanes(now, &mut |arena, pid, tid| {
                guests.get(&arena).is_none_or(|guest| lives(guest, proc.as_ref(), pid, tid))
            });
        }
        read
    }

    fn look_after(&mut self) {
        let now = now();
        self.looked_after = now;
        self.assembler.tick(now);
        self.turn();
        for relay in self.assembler.relaying.drain(..) {
            self.collector.fingerprint(relay);
        }
        self.ask();
        if let Some(heavy) = self.assembler.too_heavy() {
            self.collector.give_up(heavy);
            self.assembler.hostile(heavy, "it takes more room than any program's streams need");
        }
    }

    /// Programs that have to do with sensitive files are looked at closely for a while, watched or not.
    fn turn(&mut self) {
        let mut turned = self.assembler.turned();
        let now = now();
        if now.saturating_sub(self.swept) > SWEEP {
            // Some turned themselves up, and read nothing.
            self.swept = now;
            let by_itself = |arena: &ArenaId| !self.assembler.is_turned_up(*arena);
            let idle = self.collector.with_policy(POLICY_TURNED_UP).filter(by_itself).collect();
            // Not those that did so a moment ago.
            let before = std::mem::replace(&mut self.idle, idle);
            turned.extend(before.intersection(&self.idle).map(|&arena| (arena, false)));
        }
        for (arena, up) in turned {
            let watched = self.assembler.is_watched(arena);
            let bits = if watched { POLICY_TURNED_UP } else { POLICY_TURNED_UP | POLICY_WATCHED };
            self.collector.set_policy(arena, bits, up);
        }
    }

    /// Passes on what there is to say.
    fn say(&mut self) {
        let now = now();
        for seen in self.assembler.seen.drain(..) {
            if let Some(surround) = &self.surround {
                surround.tell(seen);
            }
        }
        let counts = self.assembler.counts();
        self.counts.records.store(counts.records, Ordering::Relaxed);
        self.counts.dropped.store(counts.dropped, Ordering::Relaxed);
        if now.saturating_sub(self.said_at) > 1_000_000_000 {
            let pressure = self.collector.fullest();
            let counts = Counts { sessions: self.assembler.sessions(), pressure, lag: self.lag, ..counts };
            if counts != self.said {
                (self.said, self.said_at) = (counts, now);
                self.lag = 0;
                self.collector.forget_fullest();
                self.assembler.out.push_back(Judged::Counts(Counts { at: now, ..counts }));
            }
        }
        while let Some(judged) = self.assembler.out.pop_front() {
            match self.out.try_send(judged) {
                Ok(()) => {}
                Err(TrySendError::Full(judged)) => {
                    if self.assembler.out.len() < MAX_UNSAID {
                        self.assembler.out.push_front(judged);
                        return;
                    }
                    // Nothing that ended may be lost: lanes fill up instead, and are counted.
                    if self.out.send(judged).is_err() {
                        return;
                    }
                }
                Err(TrySendError::Disconnected(_)) => {
                    self.assembler.out.clear();
                    return;
                }
            }
        }
    }

    fn drained(&mut self) -> bool {
        let Some((since, quiet, max)) = self.draining else { return false };
        let now = now();
        let (drained, still) = (now.saturating_sub(since), now.saturating_sub(self.last_record));
        // Who is left may just be ending: it gets its time. With nobody left, only a program that
        // has not said hello yet could still come.
        let patience = if self.collector.is_empty() { quiet / 5 } else { quiet };
        if drained >= max {
            return true;
        }
        if drained < patience || still < quiet {
            return false;
        }
        self.assembler.files.hurry();
        self.assembler.tick(now);
        self.ask();
        !self.assembler.files.busy()
    }

    /// The last words.
    fn finish(&mut self) {
        self.ended = true;
        for _ in 0..4 {
            self.collector.look_at_all();
            self.tick(true);
        }
        // With a keeper there may be another daemon after this one.
        if self.keeper.is_none() {
            self.collector.stop_all();
        }
        self.say();
        if let Some(surround) = self.surround.take() {
            surround.finish();
        }
        self.assembler.finish_all();
        let counts = self.assembler.counts();
        self.counts.records.store(counts.records, Ordering::Relaxed);
        self.counts.dropped.store(counts.dropped, Ordering::Relaxed);
        while let Some(judged) = self.assembler.out.pop_front() {
            if self.out.send(judged).is_err() {
                return;
            }
        }
    }
}

/// Waits for the next tick; a message or the end of a process comes sooner.
fn sleep(epoll: &OwnedFd, wait: Duration, events: &mut Vec<epoll::Event>) {
    events.clear();
    let wait = Timespec::try_from(wait).ok();
    let spare = rustix::buffer::spare_capacity(events);
    let _ = epoll::wait(epoll, spare, wait.as_ref());
}

/// Does the thread still exist? Only certainty is a no.
fn lives(guest: &Guest, proc: &dyn Proc, pid: u32, tid: u32) -> bool {
    if guest.facts.nspid.len() <= 1 {
        // A sandboxed thread can't ask for its number and gives one that none has: its lane is
        // its process's.
        return proc.thread_lives(pid, if tid > GREATEST_TID { pid } else { tid });
    }
    // In a nested namespace only the owner's own threads can be counted.
    guest.facts.nspid.last() != Some(&pid) || proc.nested_thread_lives(guest.facts.process.pid, tid)
}
