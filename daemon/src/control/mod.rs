//! Control: how `counterfoil alarms` reaches the alarm list that a daemon holds.
//!
//! Comes in: requests on a Unix socket beside the daemon's own. Goes out: [`Ask`]s to the desk, which
//! owns the list, and answers. A change is answered when it is committed, so what a person was told stays so,
//! whatever happens to the daemon then.
//!
//! Who may: the socket belongs to the daemon's user and the group `counterfoil`, and the kernel lets nobody else
//! through; it also says who asks (`SO_PEERCRED`). Where no daemon runs, [`offline`] does the same with the ledger
//! itself, under its lock.
#![forbid(unsafe_code)]

pub mod client;
mod group;
pub mod offline;
mod server;
#[cfg(test)]
mod tests;
mod wire;

pub use server::{Control, path};
pub use wire::{Action, Reply, Request, Shown};

use crate::alarms::Asker;
use crate::alarms::state::Event;
use crate::config;
use crate::model::Alarm;
use crossbeam::channel::{Receiver, Sender};
use jiff::{SignedDuration, Timestamp};

/// A change for the desk.
pub struct Ask {
    /// Part of the alarm's id.
    pub id: String,
    /// What to do.
    pub event: Event,
    /// For whom.
    pub by: Asker,
    /// Where the answer goes.
    pub answer: Sender<Answer>,
}

/// The desk's answer.
pub enum Answer {
    /// It is so, and will be committed.
    Done {
        /// The alarm as it stands now.
        alarm: Box<Alarm>,
        /// Says when it is committed, or why it can't be.
        committed: Receiver<Result<(), String>>,
    },
    /// It can't be.
    Refused(String),
}

/// What a person asks for, as an event at `now`.
///
/// # Errors
/// It is longer than `[alarms] shelving_limit`, or nothing.
pub fn event(action: &Action, limits: &config::Alarms, now: Timestamp) -> Result<Event, String> {
    Ok(match action {
        Action::Acknowledge => Event::Acknowledge,
        Action::Clear => Event::Clear,
        Action::Unshelve => Event::Unshelve,
        Action::Suppress => Event::Suppress,
        Action::Unsuppress => Event::Unsuppress,
        Action::OutOfService => Event::TakeOut,
        Action::InService => Event::PutBack,
        Action::Shelve { seconds } => {
            let limit = limits.shelving_limit.as_secs();
            let seconds = seconds.unwrap_or(limits.shelving.as_secs());
            if seconds == 0 || seconds > limit {
                return Err(format!(
                    "an alarm can be shelved for 1s to {}h ([alarms] shelving_limit); what is to stay away longer is \
                     suppressed",
                    limit / 3600
                ));
            }
            let span = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            Event::Shelve(now.checked_add(span).map_err(|e| e.to_string())?)
        }
    })
}
