//! What others tell the core, and how it hears of it.
//!
//! Comes in: [`Message`]s of any thread, through an [`Outbox`]. They wait until the core wakes; a newcomer doesn't, if the core
//! sleeps.
#![forbid(unsafe_code)]

use super::{Core, Newcomer, now};
use crate::host::facts::{Facts, Inode};
use crate::rest::Answer;
use crossbeam::channel::Sender;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// What others tell the core.
pub enum Message {
    /// A program said hello.
    Newcomer(Box<Newcomer>),
    /// A program was declined, for this reason.
    Declined(Arc<Facts>, &'static str),
    /// A program that is not observed was started with these.
    HeldUnseen(Vec<Inode>),
    /// A file was read at rest.
    AtRest(Box<Answer>),
    /// End when no record has come for `quiet`, or after `max`.
    Drain {
        #[expect(missing_docs, reason = "as said")]
        quiet: Duration,
        #[expect(missing_docs, reason = "as said")]
        max: Duration,
    },
}

/// Where to put messages for the core, and how to wake it.
#[derive(Clone)]
pub struct Outbox {
    pub(super) messages: Sender<Message>,
    pub(super) wake: Arc<OwnedFd>,
    pub(super) core: Weak<Mutex<Core>>,
}

impl Outbox {
    /// Puts a message in; lost only if the core has ended.
    pub fn send(&self, message: Message) {
        let _ = self.messages.send(message);
        self.wake();
    }

    /// Puts a message in if there is room: a program waits behind it. False: there was none.
    pub fn offer(&self, message: Message) -> bool {
        let taken = self.messages.try_send(message).is_ok();
        self.wake();
        taken
    }

    /// Puts a newcomer in if there is room.
    ///
    /// # Errors
    /// There was none: here it is again.
    pub fn announce(&self, newcomer: Box<Newcomer>) -> Result<(), Box<Newcomer>> {
        let put = self.messages.try_send(Message::Newcomer(newcomer));
        self.wake();
        put.map_err(|full| match full.into_inner() {
            Message::Newcomer(newcomer) => newcomer,
            _ => unreachable!("it is what was put in"),
        })
    }

    /// Has a newcomer welcomed before this returns, if the core sleeps: that its thread wakes, and then
    /// this one again, would cost the program that waits more than all the rest. The core has to be
    /// woken afterwards. If it is awake it gets a message like any other.
    ///
    /// # Errors
    /// There was no room: here it is again.
    pub fn introduce(&self, newcomer: Box<Newcomer>) -> Result<(), Box<Newcomer>> {
        if let Some(core) = self.core.upgrade()
            && let Ok(mut core) = core.try_lock()
            && !core.ended
        {
            // What was sent before is heard before.
            core.hear_all();
            core.welcome(*newcomer);
            return Ok(());
        }
        self.announce(newcomer)
    }

    /// Ends the core's sleep.
    pub fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

impl Core {
    pub(super) fn hear_all(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            self.hear(message);
        }
    }

    fn hear(&mut self, message: Message) {
        self.idle_ticks = 0;
        match message {
            Message::Newcomer(newcomer) => self.welcome(*newcomer),
            Message::AtRest(answer) => self.assembler.files.at_rest(*answer),
            Message::Declined(facts, why) => self.assembler.declined(&facts, why),
            // Before anything more is read: what it did may be over by now, and would be judged.
            Message::HeldUnseen(held) => self.assembler.held_unseen(&held),
            Message::Drain { quiet, max } => {
                let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
                self.draining = Some((now(), nanos(quiet), nanos(max)));
            }
        }
    }
}
