//! The post: lines kept until their receiver has them, whatever becomes of the way to it.
//!
//! Comes in: messages. Goes out: lines on a [`Wire`], in order; each once, as far as the wire can tell that it was taken, and
//! again where it can't. Called by `sinks`, from each sink's own thread.
#![forbid(unsafe_code)]

use super::Message;
use super::wire::Wire;
use crate::spool::Spool;
use std::time::{Duration, Instant};

/// Between attempts at a receiver that is away: from, and at most. An outage of ten minutes costs some fifty attempts.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(15);
/// Breaks further apart than this are not the same trouble.
const AT_ONCE: Duration = Duration::from_secs(1);
/// For so long a receiver on this host is looked at without a pause, once it was given something. It takes microseconds to
/// read, and the sooner that is seen, the less is in doubt when it goes away.
const AT_HAND: Duration = Duration::from_millis(1);
/// Between looks at what is under way: from, and at most.
const LOOK: Duration = Duration::from_micros(50);
const LOOK_LONGEST: Duration = Duration::from_millis(20);
/// A receiver on this host is looked at as often as this, for so long after it was given something.
const LOOK_HERE: Duration = Duration::from_micros(200);
const HERE: Duration = Duration::from_secs(2);

/// Makes lines. None: this kind of message has none.
pub(super) trait Shape: Send {
    /// The line of a message.
    fn line(&mut self, message: &Message) -> Option<Vec<u8>>;
}

/// One receiver.
pub(super) struct Post {
    name: String,
    shape: Box<dyn Shape>,
    wire: Box<dyn Wire>,
    spool: Spool,
    away: Option<Away>,
    /// When the way broke last.
    broke: Option<Instant>,
    /// When a line was handed over or taken last.
    moved: Instant,
    look: Duration,
}

/// The receiver is away: when to try next.
struct Away {
    next: Instant,
    pause: Duration,
    /// Why, as it was said last.
    why: String,
}

impl Away {
    fn left(&self, now: Instant) -> Option<Duration> {
        self.next.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

impl Post {
    pub(super) fn new(name: String, shape: Box<dyn Shape>, wire: Box<dyn Wire>, spool: Spool) -> Self {
        Self { name, shape, wire, spool, away: None, broke: None, moved: Instant::now(), look: LOOK }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Takes a message up, with its letter's number or 0. Sending is [`pump`](Self::pump)'s.
    pub(super) fn send(&mut self, message: &Message, number: u64) {
        if let Some(line) = self.shape.line(message) {
            self.spool.push(&line, number);
        }
    }

    /// The highest number that came.
    pub(super) fn passed(&self) -> u64 {
        self.spool.passed()
    }

    /// A letter that may need no line.
    pub(super) fn pass(&mut self, number: u64) {
        self.spool.pass(number);
    }

    /// Keeps the highest number, also over `kill -9`.
    pub(super) fn note(&mut self) {
        self.spool.note();
    }

    /// Lines that wait or are under way.
    pub(super) fn waiting(&self) -> usize {
        self.spool.len()
    }

    /// Since its last attempt the receiver is away.
    pub(super) fn away(&self) -> bool {
        self.away.is_some()
    }

    /// Lines given up since the last call.
    pub(super) fn given_up(&mut self) -> u64 {
        self.spool.given_up()
    }

    /// Sends what can be sent, and looks what was taken. When to call again; None: when there is a new message.
    pub(super) fn pump(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if let Some(left) = self.away.as_ref().and_then(|a| a.left(now)) {
            return Some(left);
        }
        let mut moved = false;
        let patience = now + AT_HAND;
        loop {
            // A way without lines is looked at, too: to who has closed it nothing is written in vain.
            let (taken, stands) = self.wire.taken();
            self.took(taken);
            let before = self.spool.under_way();
            if let Err(e) = stands.and_then(|()| self.hand_over()) {
                let (taken, _) = self.wire.taken();
                self.took(taken);
                return self.broken(&e, now);
            }
            if taken > 0 || self.spool.under_way() > before {
                moved = true;
            } else if self.wire.here() && self.spool.under_way() > 0 && Instant::now() < patience {
                std::thread::yield_now();
            } else {
                break;
            }
        }
        if self.spool.is_empty() {
            self.look = LOOK;
            return None;
        }
        if moved {
            self.moved = now;
        }
        let longest = if self.wire.here() && now - self.moved < HERE { LOOK_HERE } else { LOOK_LONGEST };
        self.look = if moved { LOOK } else { (self.look * 2).min(longest) };
        Some(self.look)
    }

    fn took(&mut self, lines: usize) {
        self.spool.taken(lines);
        if lines > 0
            && let Some(away) = self.away.take()
        {
            tracing::info!("{}: back (it was: {})", self.name, away.why);
        }
    }

    fn hand_over(&mut self) -> std::io::Result<()> {
        while self.spool.under_way() < self.wire.window() {
            let Some(line) = self.spool.next_line() else { break };
            match self.wire.send(&line) {
                Ok(()) => self.spool.sent(),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                // Too long for a datagram here, and for ever: it must not hold up all others.
                Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) => self.spool.give_up(),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The way broke, or can't be had: what is under way goes again.
    fn broken(&mut self, e: &std::io::Error, now: Instant) -> Option<Duration> {
        self.spool.again();
        // A receiver may close a connection that it finds idle, or be started anew: once again at once, then.
        let first = self.broke.is_none_or(|t| now - t > AT_ONCE);
        self.broke = Some(now);
        if self.spool.is_empty() {
            return None;
        }
        if first && self.away.is_none() {
            return Some(LOOK);
        }
        let why = e.to_string();
        let pause = self.away.as_ref().map_or(FIRST, |a| (a.pause * 2).min(LONGEST));
        if self.away.as_ref().is_none_or(|a| a.why != why) {
            tracing::warn!("{}: {why}; lines wait until it is back", self.name);
        }
        self.away = Some(Away { next: now + pause, pause, why });
        Some(pause)
    }

    /// Ends, until `end` at the latest. What was not taken by then stays on disk, for the next daemon.
    pub(super) fn finish(&mut self, end: Instant) {
        while let Some(pause) = self.pump() {
            let now = Instant::now();
            if now >= end || self.away.as_ref().is_some_and(|a| a.left(now).is_some()) {
                return;
            }
            if self.spool.under_way() == self.spool.len() {
                self.wire.ending();
            }
            std::thread::sleep(pause.min(end.saturating_duration_since(Instant::now())));
        }
    }
}
