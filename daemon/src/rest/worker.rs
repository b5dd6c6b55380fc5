//! The threads that read.
//!
//! Comes in: [`Ask`]s, in any number. Goes out: one [`Answer`] for each, by the function given at the start. A file
//! system can keep a thread for ever (a FUSE mount whose server sleeps, a lost NFS server): where all threads stand
//! still, another one is started, up to a bound.
#![forbid(unsafe_code)]

use super::open::open;
use super::priority::{self, Pace};
use super::queue::Queue;
use super::read::{Buffer, read};
use super::{Answer, Ask, Refusal};
use crate::tags::Tagger;
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Threads at the start: one user's endless file leaves one for the others.
const AT_FIRST: usize = 2;
/// Threads at most.
const AT_MOST: usize = 8;
/// Without a chunk for so long a thread counts as stuck.
const STUCK: Duration = Duration::from_secs(10);
/// How long the end waits for chunks that are being read.
const FAREWELL: Duration = Duration::from_secs(1);

/// Hears answers, from any thread; must not block for long.
pub type Hear = Arc<dyn Fn(Answer) + Send + Sync>;

/// Reads files at rest.
pub struct Reader {
    shared: Arc<Shared>,
}

struct Shared {
    tagger: Tagger,
    hear: Hear,
    pace: Pace,
    state: Mutex<State>,
    work: Condvar,
    /// A thread has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// What is being read, by the ask's id: when its thread last got on, and whether it is still wanted.
    reading: HashMap<u64, Reading>,
    threads: usize,
    stop: bool,
}

struct Reading {
    since: Instant,
    cancelled: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Starts the threads, for files that a verdict waits for.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(tagger: Tagger, hear: Hear) -> io::Result<Self> {
        Self::at(Pace::Verdict, tagger, hear)
    }

    /// The same for files that nobody waits for: they are read when nothing else wants the processor.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn leisurely(tagger: Tagger, hear: Hear) -> io::Result<Self> {
        Self::at(Pace::Leisure, tagger, hear)
    }

    fn at(pace: Pace, tagger: Tagger, hear: Hear) -> io::Result<Self> {
        let state = Mutex::new(State::default());
        let (work, ended) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { tagger, hear, pace, state, work, ended });
        let reader = Self { shared };
        for _ in 0..AT_FIRST {
            reader.spawn()?;
        }
        Ok(reader)
    }

    /// Asks for a file; ids in use must differ. Never waits. The answer may come before this returns.
    pub fn ask(&self, ask: Ask) {
        let mut state = self.shared.state();
        let id = ask.id;
        if state.stop || !state.queue.put(ask) {
            let why = if state.stop { Refusal::Cancelled } else { Refusal::Busy };
            drop(state);
            return (self.shared.hear)(Answer { id, result: Err(why) });
        }
        let stuck = state.reading.values().filter(|r| r.since.elapsed() > STUCK).count();
        let more = stuck >= state.threads && state.threads < AT_MOST || state.threads < AT_FIRST;
        drop(state);
        if more && let Err(e) = self.spawn() {
            tracing::warn!("no further thread to read files with: {e}");
        }
        self.shared.work.notify_one();
    }

    /// That file is not wanted any more: its answer is a refusal, soon.
    pub fn cancel(&self, id: u64) {
        let mut state = self.shared.state();
        if let Some(reading) = state.reading.get_mut(&id) {
            reading.cancelled = true;
        } else if state.queue.cancel(id).is_some() {
            drop(state);
            (self.shared.hear)(Answer { id, result: Err(Refusal::Cancelled) });
        }
    }

    /// Nothing waits and nothing is being read.
    #[must_use]
    pub fn idle(&self) -> bool {
        let state = self.shared.state();
        state.reading.is_empty() && !state.queue.has_work()
    }

    fn spawn(&self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        shared.state().threads += 1;
        let started = std::thread::Builder::new().name("rest".into()).spawn(move || {
            // Also where the thread panics.
            struct Gone(Arc<Shared>);
            impl Drop for Gone {
                fn drop(&mut self) {
                    self.0.state().threads -= 1;
                    self.0.ended.notify_all();
                }
            }
            let gone = Gone(shared);
            priority::take(gone.0.pace);
            work(&gone.0);
        });
        started.map(drop).inspect_err(|_| self.shared.state().threads -= 1)
    }
}

impl Drop for Reader {
    /// Refuses what waits, and waits a moment for what is being read. A thread that is stuck is left behind.
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.stop = true;
        let left = state.queue.drain();
        self.shared.work.notify_all();
        let (state, _) = self
            .shared
            .ended
            .wait_timeout_while(state, FAREWELL, |s| s.threads > 0)
            .unwrap_or_else(PoisonError::into_inner);
        drop(state);
        for ask in left {
            (self.shared.hear)(Answer { id: ask.id, result: Err(Refusal::Cancelled) });
        }
    }
}

fn work(shared: &Shared) {
    let mut buffer = Buffer::new();
    loop {
        let mut state = shared.state();
        let ask = loop {
            if state.stop {
                return;
            }
            if let Some(ask) = state.queue.take() {
                break ask;
            }
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.reading.insert(ask.id, Reading { since: Instant::now(), cancelled: false });
        drop(state);
        let outcome = catch_unwind(AssertUnwindSafe(|| answer(shared, &ask, &mut buffer)));
        buffer.wipe();
        // Who panicked may still be somebody else: that thread ends, and the next ask starts another.
        let panicked = outcome.is_err();
        let result =
            outcome.unwrap_or_else(|_| Err(Refusal::Failed(io::Error::other("the reader panicked"))));
        let mut state = shared.state();
        state.reading.remove(&ask.id);
        state.queue.done(ask.user.uid);
        let more = state.queue.has_work();
        drop(state);
        if more {
            shared.work.notify_one();
        }
        (shared.hear)(Answer { id: ask.id, result });
        if panicked {
            return;
        }
    }
}

fn answer(shared: &Shared, ask: &Ask, buffer: &mut Buffer) -> Result<super::AtRest, Refusal> {
    let opened = open(ask)?;
    read(&opened, ask, &shared.tagger, buffer, || {
        let mut state = shared.state();
        let stop = state.stop;
        match state.reading.get_mut(&ask.id) {
            Some(reading) => {
                reading.since = Instant::now();
                !stop && !reading.cancelled
            }
            None => false,
        }
    })
}
