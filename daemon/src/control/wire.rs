//! What is said on the control socket: one JSON object a line, a request, then its replies, the last of which is
//! [`Reply::End`], [`Reply::Refused`] or [`Reply::Failed`].
#![forbid(unsafe_code)]

use crate::ledger::{Filter, Load};
use crate::model::{Alarm, Change, Transfer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read, Write};

/// A request is no longer than this.
pub(super) const REQUEST: u64 = 64 << 10;
/// A reply is no longer than this: an alarm with its history and its transfer.
pub(super) const REPLY: u64 = 64 << 20;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Request {
    /// Another state for an alarm.
    Change {
        /// Part of its id.
        id: String,
        /// Which.
        action: Action,
        /// What the asker has to say.
        comment: Option<String>,
    },
    /// Alarms.
    List {
        /// Which.
        filter: Filter,
    },
    /// One alarm, with all that is known.
    Show {
        /// Part of its id.
        id: String,
    },
    /// The list's measures.
    Stats,
}

/// What a person can do with an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "see alarms::state::Event")]
pub enum Action {
    Acknowledge,
    Clear,
    Shelve {
        /// None: as configured.
        seconds: Option<u64>,
    },
    Unshelve,
    Suppress,
    Unsuppress,
    OutOfService,
    InService,
}

impl Action {
    /// In a word, for the history.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Acknowledge => "acknowledge",
            Self::Clear => "clear",
            Self::Shelve { .. } => "shelve",
            Self::Unshelve => "unshelve",
            Self::Suppress => "suppress",
            Self::Unsuppress => "unsuppress",
            Self::OutOfService => "out-of-service",
            Self::InService => "in-service",
        }
    }
}

/// One alarm, with all that is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// As it stands.
    pub alarm: Alarm,
    /// Every change of its state.
    pub history: Vec<Change>,
    /// What it is about, where that is still in the ledger.
    pub transfer: Option<Transfer>,
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// An alarm of a list, or one that was changed.
    Alarm(Box<Alarm>),
    /// One with all that is known.
    Shown(Box<Shown>),
    /// The measures.
    Stats(Box<Load>),
    /// That is all; of so many that fit, for a list.
    End(u64),
    /// It can't be, for a reason that is no fault.
    Refused(String),
    /// It went wrong.
    Failed(String),
}

pub(super) fn write(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    out.write_all(&line)
}

/// None: the other side has ended.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl BufRead, most: u64) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.take(most).read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a line that is too long, or without an end"))
        }
    }
}
