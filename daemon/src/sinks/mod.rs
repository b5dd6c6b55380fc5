//! Sinks: where alarms are sent.
//!
//! Comes in: [`Message`]s. Goes out: syslog lines and JSON Lines. Called by `desk`. Each sink has a
//! thread and a bounded queue of its own: a receiver that is away or slow delays neither the others
//! nor the stages before. To every sink goes a heartbeat with a number, so that silence says
//! something: a dead daemon and lost datagrams both show.
#![forbid(unsafe_code)]

mod jsonl;
pub mod syslog;
mod wire;

pub use jsonl::{JsonLines, alarm_json, transfer_json};

use crate::config::{self, SinkKind};
use crate::model::{Alarm, Coverage, Transfer};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Messages that may wait for one sink.
const QUEUE: usize = 4096;
/// How often a sink that has lines waiting is asked to try again.
const RETRY: Duration = Duration::from_millis(500);

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

/// A place to send to. Delivering must not block for longer than a second or two.
pub trait Sink: Send {
    /// What it is, for messages about it: `syslog udp:…`.
    fn name(&self) -> &str;
    /// Sends, or keeps for later what can't be sent now.
    fn send(&mut self, message: &Message);
    /// Tries what was kept. True: something still waits.
    fn retry(&mut self) -> bool;
    /// Messages given up since the last call.
    fn given_up(&mut self) -> u64;
}

/// All sinks, running.
#[derive(Default)]
pub struct Sinks {
    running: Vec<Running>,
}

struct Running {
    queue: Sender<Message>,
    full: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Sinks {
    /// Opens the configured sinks. What waits for a receiver is kept under `state` where there is
    /// one. A receiver that isn't there yet is no error: it is tried again and again.
    #[must_use]
    pub fn start(configured: &[config::Sink], state: Option<&Path>) -> Self {
        let spools = state.map(|s| s.join("spool"));
        if let Some(dir) = &spools
            && let Err(e) = crate::ledger::prepare(dir)
        {
            tracing::error!("{e}; what waits for a receiver is kept in memory only");
        }
        let running = configured
            .iter()
            .map(|c| {
                let sink: Box<dyn Sink> = match &c.kind {
                    SinkKind::Syslog { address, facility } => {
                        Box::new(syslog::Syslog::open(address, *facility, spools.as_deref()))
                    }
                    SinkKind::Jsonl { path } => Box::new(JsonLines::lazy(path)),
                };
                run(sink, c.min_severity, c.heartbeat)
            })
            .collect();
        Self { running }
    }

    /// Gives `message` to every sink. Never waits.
    pub fn send(&self, message: &Message) {
        for sink in &self.running {
            match sink.queue.try_send(message.clone()) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
                Err(TrySendError::Full(_)) => {
                    sink.full.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Sends what is queued, for at most `max`, and ends. What a receiver that is away has not got
    /// stays in its spool.
    pub fn finish(self, max: Duration) {
        let end = Instant::now() + max;
        let threads: Vec<JoinHandle<()>> = self
            .running
            .into_iter()
            .map(|r| {
                drop(r.queue);
                r.thread
            })
            .collect();
        for thread in threads {
            while !thread.is_finished() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

fn run(sink: Box<dyn Sink>, min: crate::model::Severity, heartbeat: Option<Duration>) -> Running {
    let (queue, messages) = bounded(QUEUE);
    let full = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&full);
    let thread = std::thread::Builder::new()
        .name("sink".into())
        .spawn(move || serve(sink, &messages, min, heartbeat, &counter))
        .expect("a thread can be started");
    Running { queue, full, thread }
}

fn serve(
    mut sink: Box<dyn Sink>,
    messages: &Receiver<Message>,
    min: crate::model::Severity,
    every: Option<Duration>,
    full: &AtomicU64,
) {
    let started = Instant::now();
    let mut beat = Heartbeat { sequence: 0, sent: 0, dropped: 0, uptime: Duration::ZERO };
    let mut next = every.map(|e| started + e);
    let mut waits = false;
    loop {
        let now = Instant::now();
        if next.is_some_and(|n| n <= now) {
            beat.sequence += 1;
            beat.uptime = started.elapsed();
            sink.send(&Message::Heartbeat(beat));
            next = every.map(|e| now + e);
        }
        let until_beat = next.map_or(Duration::from_secs(3600), |n| n.saturating_duration_since(now));
        match messages.recv_timeout(if waits { until_beat.min(RETRY) } else { until_beat }) {
            Ok(Message::Alarm(a)) if a.finding.severity < min => {}
            Ok(message) => {
                beat.sent += 1;
                sink.send(&message);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                sink.retry();
                return;
            }
        }
        waits = sink.retry();
        let lost = sink.given_up() + full.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::error!("sink {}: {lost} messages given up, too many waited", sink.name());
            beat.dropped += lost;
        }
    }
}

#[cfg(test)]
mod tests;
