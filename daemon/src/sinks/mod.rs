//! Sinks: where alarms are sent.
//!
//! ```text
//! Message ─► throttle ─► shape (a line) ─► post (kept until it is taken) ─► wire ─► receiver
//! ```
//! Comes in: [`Message`]s. Goes out: syslog lines, journal entries, JSON Lines. Called by `desk`. Each sink has a
//! thread and a bounded queue of its own: a receiver that is away or slow delays neither the others
//! nor the stages before. To every sink goes a heartbeat with a number, so that silence says
//! something: a dead daemon and lost datagrams both show.
#![forbid(unsafe_code)]

mod cef;
mod ecs;
mod facts;
mod journald;
mod jsonl;
mod ocsf;
mod post;
pub mod syslog;
mod throttle;
mod wire;

pub use jsonl::{JsonLines, alarm_json, transfer_json};
pub use throttle::Withheld;

use crate::config::{self, JsonShape, SinkKind, SyslogShape};
use crate::ledger::Letter;
use crate::metrics::{Metrics, SinkMetrics};
use crate::model::{Alarm, Coverage, Transfer};
use crate::spool::{self, Spool};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use post::{Post, Shape};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use throttle::Throttle;

/// Messages that may wait for a sink's thread.
pub(crate) const QUEUE: usize = 16_384;

/// Messages that a sink takes up before it looks at its receiver.
const AT_ONCE: usize = 256;
/// The folder of the sinks' queues in a state directory.
const SPOOL: &str = "spool";

/// What is sent.
#[derive(Clone, Debug)]
pub enum Message {
    /// An alarm, raised or counted up.
    Alarm(Arc<Alarm>),
    /// A final transfer.
    Transfer(Arc<Transfer>),
    /// A process is, or is not, observed.
    Coverage(Arc<Coverage>),
    /// The daemon lives.
    Heartbeat(Heartbeat),
    /// What this sink's receiver was not told.
    Withheld(Arc<Withheld>),
}

/// The daemon lives.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// From 1, for each sink by itself.
    pub sequence: u64,
    /// Messages given to this sink so far, heartbeats not counted.
    pub sent: u64,
    /// Messages that found this sink's queue full, or were given up while its receiver was away.
    pub dropped: u64,
    /// Since the sink was opened.
    pub uptime: Duration,
}

/// All sinks, running.
#[derive(Default)]
pub struct Sinks {
    running: Vec<Running>,
    /// When all is to be over.
    end: Arc<OnceLock<Instant>>,
}

struct Running {
    /// Messages with their letter's number, or 0.
    queue: Sender<(u64, Message)>,
    /// Letters up to this number are in its spool, or need no line there.
    stored: Arc<AtomicU64>,
    /// It wants every event, not alarms alone.
    everything: bool,
    full: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Sinks {
    /// Opens the configured sinks. What waits for a receiver is kept under `state` where there is
    /// one. A receiver that isn't there yet is no error: it is tried again and again.
    #[must_use]
    pub fn start(configured: &[config::Sink], state: Option<&Path>, metrics: &Metrics) -> Self {
        let spools = state.map(|s| s.join(SPOOL));
        if let Some(dir) = &spools
            && let Err(e) = crate::ledger::prepare(dir)
        {
            tracing::error!("{e}; what waits for a receiver is kept in memory only");
        }
        let end = Arc::default();
        let running = configured
            .iter()
            .map(|sink| {
                let post = open(sink, spools.as_deref());
                let metrics = metrics.sink(post.name());
                run(post, sink, metrics, Arc::clone(&end))
            })
            .collect();
        Self { running, end }
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Letters up to this number are in every sink's queue. None: there are no sinks.
    #[must_use]
    pub fn stored(&self) -> Option<u64> {
        // With the Release in `serve`: what is stored is in the file by then.
        self.running.iter().map(|s| s.stored.load(Ordering::Acquire)).min()
    }

    /// Gives `message` to every sink. Never waits.
    pub fn send(&self, message: &Message) {
        self.give(0, message);
    }

    /// Gives a letter to every sink that does not have it yet. Never waits.
    pub fn letter(&self, letter: &Letter) {
        self.give(letter.number, &Message::Alarm(Arc::clone(&letter.alarm)));
    }

    fn give(&self, number: u64, message: &Message) {
        let alarm = matches!(message, Message::Alarm(_));
        for sink in self.running.iter().filter(|s| alarm || s.everything) {
            match sink.queue.try_send((number, message.clone())) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
                Err(TrySendError::Full(_)) => {
                    sink.full.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Sends what is queued, for at most `max`, and ends. What a receiver that is away has not got
    /// stays in its spool. Gives what [`stored`](Self::stored) would then.
    pub fn finish(self, max: Duration) -> Option<u64> {
        let stored: Vec<_> = self.running.iter().map(|s| Arc::clone(&s.stored)).collect();
        let end = Instant::now() + max;
        let _ = self.end.set(end);
        let threads: Vec<JoinHandle<()>> = self
            .running
            .into_iter()
            .map(|r| {
                drop(r.queue);
                r.thread
            })
            .collect();
        // A name that is being looked up may take longer: that thread ends with the process.
        let patience = end + Duration::from_millis(100);
        for thread in threads {
            while !thread.is_finished() && Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(2));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
        stored.iter().map(|s| s.load(Ordering::Acquire)).min()
    }
}

/// The highest number that a letter may have had which a sink has, also one that is no longer configured.
#[must_use]
pub fn highest(state: &Path) -> u64 {
    let noted = spool::highest(&state.join(SPOOL));
    // A daemon that is killed has not noted what it took last.
    if noted == 0 { 0 } else { noted + AT_ONCE as u64 }
}

/// What is wrong with the files that the sinks' settings name, for `check`.
#[must_use]
pub fn mistakes(configured: &[config::Sink]) -> Vec<String> {
    let tls = |sink: &config::Sink| match &sink.kind {
        SinkKind::Syslog { address: config::SyslogAddress::Tls(_), tls, .. } => {
            wire::tls::config(tls).err().map(|why| format!("{}: {why}", sink.kind))
        }
        _ => None,
    };
    configured.iter().filter_map(tls).collect()
}

/// A sink's shape, way and queue.
fn open(sink: &config::Sink, spools: Option<&Path>) -> Post {
    let name = sink.kind.to_string();
    let (shape, wire): (Box<dyn Shape>, _) = match &sink.kind {
        SinkKind::Syslog { address, facility, shape, tls } => {
            let lines = match shape {
                SyslogShape::Rfc5424 => syslog::Lines::new(*facility),
                SyslogShape::Cef => syslog::Lines::cef(*facility),
            };
            (Box::new(lines), wire::open(address, tls))
        }
        SinkKind::Journald { socket } => (Box::new(journald::Entries), wire::datagrams(socket)),
        SinkKind::Jsonl { path, shape } => {
            let shape: Box<dyn Shape> = match shape {
                JsonShape::Counterfoil => Box::new(jsonl::Events),
                JsonShape::Ecs => Box::new(ecs::Documents::default()),
                JsonShape::Ocsf => Box::new(ocsf::Findings::default()),
            };
            (shape, Box::new(wire::Appended::to(path)))
        }
    };
    let spool = match spools {
        None => Spool::in_memory(sink.queue_size),
        Some(dir) => {
            let digest = Sha256::digest(&name);
            let file =
                dir.join(format!("{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3]));
            Spool::on_disk(&file, sink.queue_size).unwrap_or_else(|e| {
                tracing::error!(
                    "{name}: can't keep lines in {}: {e}; keeping them in memory",
                    file.display()
                );
                Spool::in_memory(sink.queue_size)
            })
        }
    };
    Post::new(name, shape, wire, spool)
}

fn run(post: Post, sink: &config::Sink, metrics: SinkMetrics, end: Arc<OnceLock<Instant>>) -> Running {
    let (queue, messages) = bounded(QUEUE);
    let full = Arc::new(AtomicU64::new(0));
    let stored = Arc::new(AtomicU64::new(post.passed()));
    let everything = matches!(sink.kind, SinkKind::Jsonl { shape: JsonShape::Counterfoil, .. });
    let server = Server {
        post,
        min: sink.min_severity,
        every: sink.heartbeat,
        throttle: Throttle::new(sink.rate_limit),
        full: Arc::clone(&full),
        stored: Arc::clone(&stored),
        metrics,
        end,
    };
    let thread = std::thread::Builder::new()
        .name("sink".into())
        .spawn(move || server.serve(&messages))
        .expect("a thread can be started");
    Running { queue, stored, everything, full, thread }
}

/// One sink's thread.
struct Server {
    post: Post,
    min: crate::model::Severity,
    every: Option<Duration>,
    throttle: Throttle,
    full: Arc<AtomicU64>,
    stored: Arc<AtomicU64>,
    metrics: SinkMetrics,
    end: Arc<OnceLock<Instant>>,
}

impl Server {
    fn serve(mut self, messages: &Receiver<(u64, Message)>) {
        let started = Instant::now();
        let mut beat = Heartbeat { sequence: 0, sent: 0, dropped: 0, uptime: Duration::ZERO };
        let mut next = self.every.map(|e| started + e);
        // What an earlier daemon left goes first.
        let mut again = self.post.pump();
        loop {
            let now = Instant::now();
            if next.is_some_and(|n| n <= now) {
                beat.sequence += 1;
                beat.uptime = started.elapsed();
                self.post.send(&Message::Heartbeat(beat), 0);
                next = self.every.map(|e| now + e);
            }
            self.say_withheld(now, false);
            let due = [next, self.throttle.due(), again.map(|a| now + a)].into_iter().flatten().min();
            let wait = due.map_or(Duration::from_secs(3600), |d| d.saturating_duration_since(now));
            match messages.recv_timeout(wait) {
                Ok(message) => {
                    // All that is there, before a look at the receiver; but not for ever.
                    for (number, message) in std::iter::once(message).chain(messages.try_iter()).take(AT_ONCE)
                    {
                        self.take(number, &message, &mut beat);
                        // Also where it needs no line.
                        self.post.pass(number);
                    }
                    // Before anything of it is taken by the receiver, and its line is gone.
                    self.post.note();
                    self.stored.store(self.post.passed(), Ordering::Release);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            again = self.post.pump();
            self.account(&mut beat);
        }
        self.say_withheld(Instant::now(), true);
        let end = self.end.get().copied().unwrap_or_else(Instant::now);
        self.post.finish(end);
        self.account(&mut beat);
    }

    fn take(&mut self, number: u64, message: &Message, beat: &mut Heartbeat) {
        if number > 0 && number <= self.post.passed() {
            // An earlier daemon had come so far.
            return;
        }
        if let Message::Alarm(alarm) = message {
            if alarm.finding.severity < self.min {
                return;
            }
            if !self.throttle.allows(alarm, Instant::now()) {
                self.metrics.held_back(1);
                return;
            }
        }
        beat.sent += 1;
        self.metrics.sent();
        self.post.send(message, number);
    }

    fn say_withheld(&mut self, now: Instant, last: bool) {
        if let Some(withheld) = self.throttle.summary(now, last) {
            self.post.send(&Message::Withheld(Arc::new(withheld)), 0);
        }
    }

    fn account(&mut self, beat: &mut Heartbeat) {
        let lost = self.post.given_up() + self.full.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::error!("{}: {lost} messages given up, too many waited", self.post.name());
            beat.dropped += lost;
            self.throttle.gave_up(lost);
            self.metrics.dropped(lost);
        }
        self.metrics.state(self.post.waiting(), self.post.away());
    }
}

#[cfg(test)]
mod shape_tests;
#[cfg(test)]
pub(crate) mod tests;
