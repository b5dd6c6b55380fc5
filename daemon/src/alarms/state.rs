//! The states of an alarm, after ISA-18.2 (IEC 62682), and every step between them.
//!
//! Comes in: how an alarm stands, and an [`Event`]. Goes out: how it stands then, or why that can't
//! be. Called by the alarm list, and by `control` where no daemon runs. Nothing else changes a state.
//!
//! Three facts make a state: does the condition hold, has somebody seen it, and is it held off the
//! list. What is held goes on following the condition, so that it comes back as it really stands.
#![forbid(unsafe_code)]

use crate::model::AlarmState;
use jiff::Timestamp;

/// How an alarm stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The condition holds, as far as is known. A finding that has no end of its own stays so until
    /// somebody clears it.
    pub active: bool,
    /// Somebody has seen the last occurrence.
    pub acknowledged: bool,
    /// Held off the list.
    pub hold: Option<Hold>,
}

/// Held off the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// How.
    pub kind: HoldKind,
    /// Who says so.
    pub by: Holder,
}

/// Who holds an alarm off the list, and can take that back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// An operator.
    Operator,
    /// The source of a process alarm; operators may take it back, too.
    Source,
    /// The configuration (`[[alarms.suppress]]`), and nobody else.
    Design,
}

/// In which way an alarm is held off the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldKind {
    /// By an operator, for a time.
    Shelved {
        /// When that ends.
        until: Timestamp,
    },
    /// By design: it means nothing in the present mode of operation.
    Suppressed,
    /// For maintenance.
    OutOfService,
}

/// What can happen to an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its condition came up, or did so once more.
    Occurred,
    /// Its condition is over, says who measures it.
    Returned,
    /// Somebody has seen it.
    Acknowledge,
    /// Off the list until then.
    Shelve(Timestamp),
    /// Back from the shelf.
    Unshelve,
    /// Off the list by design.
    Suppress,
    /// No longer so.
    Unsuppress,
    /// Off the list by the configuration.
    Design,
    /// The configuration says so no more.
    DesignOver,
    /// Off the list for maintenance.
    TakeOut,
    /// Back in service.
    PutBack,
    /// Somebody says that it is dealt with.
    Clear,
    /// What the source of a process alarm says of its own alarm; a shelf's end goes with it.
    Said(AlarmState, Timestamp),
}

/// Why an event can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is so already.
    #[error("it is {} already", word(*.0))]
    Already(AlarmState),
    /// The alarm is held off the list.
    #[error("it is {}: {} first", word(*.0), release(*.0))]
    Held(AlarmState),
    /// The configuration holds it.
    #[error("it is suppressed by design: its [[alarms.suppress]] has to go from the configuration")]
    Design,
    /// It is not held in this way.
    #[error("it is not {}, it is {}", word(*.wanted), word(*.is))]
    Not {
        /// What it would have to be.
        wanted: AlarmState,
        /// What it is.
        is: AlarmState,
    },
}

/// The state's word in JSON, tables and commands.
#[must_use]
pub fn word(state: AlarmState) -> &'static str {
    match state {
        AlarmState::Unacknowledged => "unacknowledged",
        AlarmState::Acknowledged => "acknowledged",
        AlarmState::Returned => "returned",
        AlarmState::Shelved => "shelved",
        AlarmState::Suppressed => "suppressed",
        AlarmState::OutOfService => "out-of-service",
        AlarmState::Normal => "normal",
    }
}

/// The command that takes an alarm out of this state.
fn release(state: AlarmState) -> &'static str {
    match state {
        AlarmState::Suppressed => "unsuppress it",
        AlarmState::OutOfService => "put it back in-service",
        _ => "unshelve it",
    }
}

impl Standing {
    /// An alarm that has just come up.
    pub const NEW: Self = Self { active: true, acknowledged: false, hold: None };

    /// The one word for it.
    #[must_use]
    pub fn state(&self) -> AlarmState {
        match (self.hold.map(|h| h.kind), self.active, self.acknowledged) {
            (Some(HoldKind::Shelved { .. }), _, _) => AlarmState::Shelved,
            (Some(HoldKind::Suppressed), _, _) => AlarmState::Suppressed,
            (Some(HoldKind::OutOfService), _, _) => AlarmState::OutOfService,
            (None, true, false) => AlarmState::Unacknowledged,
            (None, true, true) => AlarmState::Acknowledged,
            (None, false, false) => AlarmState::Returned,
            (None, false, true) => AlarmState::Normal,
        }
    }

    /// When it comes off the shelf by itself.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        match self.hold?.kind {
            HoldKind::Shelved { until } => Some(until),
            _ => None,
        }
    }

    /// How it stands after `event`.
    ///
    /// # Errors
    /// The event can't be in this state.
    pub fn after(self, event: Event) -> Result<Self, Refused> {
        let is = self.state();
        let free = || if self.hold.is_some() { Err(Refused::Held(is)) } else { Ok(()) };
        let held_by = |kind, by| Self { hold: Some(Hold { kind, by }), ..self };
        let held = |kind| held_by(kind, Holder::Operator);
        let design = self.hold.is_some_and(|h| h.by == Holder::Design);
        let taken_off =
            |wanted| if is == wanted { Ok(self.released()) } else { Err(Refused::Not { wanted, is }) };
        match event {
            Event::Occurred => Ok(Self { active: true, acknowledged: false, ..self }),
            Event::Returned => Ok(Self { active: false, ..self }),
            Event::Acknowledge => {
                free()?;
                match is {
                    AlarmState::Acknowledged | AlarmState::Normal => Err(Refused::Already(is)),
                    _ => Ok(Self { acknowledged: true, ..self }),
                }
            }
            Event::Clear => {
                free()?;
                match is {
                    AlarmState::Normal => Err(Refused::Already(is)),
                    _ => Ok(Self { active: false, acknowledged: true, hold: None }),
                }
            }
            // Again: another time limit.
            Event::Shelve(until) if is == AlarmState::Shelved => Ok(held(HoldKind::Shelved { until })),
            Event::Shelve(until) => free().map(|()| held(HoldKind::Shelved { until })),
            Event::Suppress => free().map(|()| held(HoldKind::Suppressed)),
            Event::TakeOut => free().map(|()| held(HoldKind::OutOfService)),
            Event::Unshelve => taken_off(AlarmState::Shelved),
            Event::Design => free().map(|()| held_by(HoldKind::Suppressed, Holder::Design)),
            Event::DesignOver if design => Ok(self.released()),
            Event::DesignOver => Err(Refused::Not { wanted: AlarmState::Suppressed, is }),
            Event::Unsuppress if design => Err(Refused::Design),
            Event::Unsuppress => taken_off(AlarmState::Suppressed),
            Event::PutBack => taken_off(AlarmState::OutOfService),
            Event::Said(state, until) => Ok(self.said(state, until)),
        }
    }

    /// Back on the list. What is still going on then is announced anew (IEC 62682): whoever shelved
    /// it may have gone home.
    fn released(self) -> Self {
        Self { hold: None, acknowledged: self.acknowledged && !self.active, ..self }
    }

    /// The source's word counts for its own condition and acknowledgement, and for what it holds
    /// itself; what our operators hold stays held, and what they have seen stays seen.
    fn said(self, state: AlarmState, until: Timestamp) -> Self {
        let theirs = |kind| Some(Hold { kind, by: Holder::Source });
        let ours = self.hold.filter(|h| h.by != Holder::Source);
        match state {
            AlarmState::Unacknowledged if self.active => Self { hold: ours, ..self },
            AlarmState::Unacknowledged => Self { active: true, acknowledged: false, hold: ours },
            AlarmState::Acknowledged => Self { active: true, acknowledged: true, hold: ours },
            AlarmState::Returned => Self { active: false, hold: ours, ..self },
            AlarmState::Normal => Self { active: false, acknowledged: true, hold: ours },
            AlarmState::Shelved => Self { hold: ours.or(theirs(HoldKind::Shelved { until })), ..self },
            AlarmState::Suppressed => Self { hold: ours.or(theirs(HoldKind::Suppressed)), ..self },
            AlarmState::OutOfService => Self { hold: ours.or(theirs(HoldKind::OutOfService)), ..self },
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
