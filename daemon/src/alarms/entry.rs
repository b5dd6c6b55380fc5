//! The door for alarms that come from outside: process alarms of an installation, and what other
//! threads of the daemon find.
//!
//! Comes in: findings, the end of a condition, and what a source says of its own alarm's state. Goes
//! out: the same words, one after the other, to the desk, which owns the list. Called by `intake`.
//!
//! A finding from outside carries its `point`: `{"tag","condition","value","limit","unit",
//! "source_time"}`, and `seen` is when *we* learnt of it. Its `key` names the condition, such as
//! `process-alarm tag="TI-101" condition="HI"`: with the same key it is ended later. While the
//! condition holds, raising it again only brings its value up to date; it counts, and has to be
//! acknowledged again, when it has been over in between.
#![forbid(unsafe_code)]

use crate::model::{AlarmState, Finding};
use crossbeam::channel::{Receiver, Sender, bounded};
use jiff::Timestamp;

/// Words that may wait for the desk; who has more waits, too.
const AHEAD: usize = 1024;

/// One word from outside.
#[derive(Clone, Debug)]
pub enum Word {
    /// A condition came up, or has another value.
    Raise(Box<Finding>),
    /// A condition is over.
    Returned(Returned),
    /// What the source says of its own alarm.
    Said(Said),
}

/// The end of a condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Returned {
    /// The finding's key.
    pub key: String,
    /// When we learnt of it.
    pub seen: Timestamp,
    /// The point's last word, in place of the finding's, if there is one.
    pub point: Option<serde_json::Value>,
}

/// What the source says of its own alarm: an operator there acknowledged it, say. Raise it first.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// The finding's key.
    pub key: String,
    /// When we learnt of it.
    pub seen: Timestamp,
    /// The state there.
    pub state: AlarmState,
    /// Who did it, as the source names them, and the source.
    pub by: Option<String>,
    /// When a shelf there ends. None: as `[alarms] shelving` says.
    pub until: Option<Timestamp>,
}

/// The door; can be cloned for each who needs it.
#[derive(Clone, Debug)]
pub struct Entry(Sender<Word>);

impl Entry {
    /// A door, and where its words come out.
    #[must_use]
    pub fn new() -> (Self, Receiver<Word>) {
        let (sender, receiver) = bounded(AHEAD);
        (Self(sender), receiver)
    }

    /// A finding. Waits while the desk is behind. False: the desk has ended.
    pub fn raise(&self, finding: Finding) -> bool {
        self.0.send(Word::Raise(Box::new(finding))).is_ok()
    }

    /// Back to normal. A key that no alarm has is no mistake. False: the desk has ended.
    pub fn returned(&self, returned: Returned) -> bool {
        self.0.send(Word::Returned(returned)).is_ok()
    }

    /// The source's own state. False: the desk has ended.
    pub fn said(&self, said: Said) -> bool {
        self.0.send(Word::Said(said)).is_ok()
    }
}
