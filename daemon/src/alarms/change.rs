//! What operators, sources and time do to an alarm, and how it is written down.
//!
//! Comes in: an id, an [`Event`] and who asks. Goes out: the alarm as it stands then, with the change
//! that brought it there. Called by `desk`, and by the commands where no daemon runs.
#![forbid(unsafe_code)]

use super::slot::Key;
use super::state::{Event, Refused, Standing};
use super::{Alarms, Taken, find};
use crate::model::{AlarmState, Change, Finding};
use jiff::Timestamp;
use std::sync::Arc;
use uuid::Uuid;

/// Who brings a change about, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// As the kernel says; None: nobody asked.
    pub uid: Option<u32>,
    /// That user's name.
    pub user: Option<String>,
    /// What they want, in a word or two.
    pub why: String,
    /// What they have to say.
    pub comment: Option<String>,
}

impl Asker {
    /// It came of itself.
    pub(super) fn nobody(why: &str) -> Self {
        Self { why: why.into(), ..Self::default() }
    }
}

/// Why a change can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CantChange {
    /// No one alarm is meant.
    #[error(transparent)]
    NotFound(#[from] find::NotFound),
    /// Not in its state.
    #[error("alarm {id}: {why}")]
    Refused {
        /// Which.
        id: Uuid,
        /// Why.
        why: Refused,
    },
    /// Its finding is neither in memory nor in the ledger yet.
    #[error("alarm {0} is not written down yet; try again")]
    NotYet(Uuid),
}

impl Change {
    /// A change that nobody asked for.
    pub(super) fn of_itself(at: Timestamp, from: Option<AlarmState>, to: AlarmState, why: &str) -> Self {
        Self { at, from, to, uid: None, user: None, why: why.into(), comment: None, until: None }
    }

    /// One that somebody asked for.
    #[must_use]
    pub fn asked(at: Timestamp, to: AlarmState, by: &Asker) -> Self {
        Self {
            uid: by.uid,
            user: by.user.clone(),
            comment: by.comment.clone(),
            ..Self::of_itself(at, None, to, &by.why)
        }
    }
}

impl Alarms {
    /// The alarm that `word` is the beginning or the end of the id of.
    ///
    /// # Errors
    /// None, or several.
    pub fn find(&self, word: &str) -> Result<Uuid, find::NotFound> {
        find::find(word, self.ids.keys().copied())
    }

    /// Does what an operator asks for. `fetch` gets a finding that only the ledger has.
    ///
    /// # Errors
    /// It can't be.
    pub fn change(
        &mut self,
        word: &str,
        event: Event,
        by: &Asker,
        now: Timestamp,
        fetch: impl FnOnce(Uuid) -> Option<Finding>,
    ) -> Result<Taken, CantChange> {
        let id = self.find(word)?;
        let key = self.ids[&id];
        let slot = &self.slots[&key];
        let refused = |why| CantChange::Refused { id, why };
        let standing = slot.standing.after(event).map_err(refused)?;
        self.stand(key, standing, by, now, fetch)?.ok_or(refused(Refused::Already(standing.state())))
    }

    /// A step that comes of itself, or from a source. None: no such alarm, it can't be, or it changes nothing.
    pub(super) fn step(
        &mut self,
        key: Key,
        event: Event,
        by: &Asker,
        now: Timestamp,
        fetch: impl FnOnce(Uuid) -> Option<Finding>,
    ) -> Option<Taken> {
        let standing = self.slots.get(&key)?.standing.after(event).ok()?;
        self.stand(key, standing, by, now, fetch).ok().flatten()
    }

    /// None: it changes nothing that anybody sees.
    fn stand(
        &mut self,
        key: Key,
        standing: Standing,
        by: &Asker,
        now: Timestamp,
        fetch: impl FnOnce(Uuid) -> Option<Finding>,
    ) -> Result<Option<Taken>, CantChange> {
        let Some(slot) = self.slots.get_mut(&key) else { return Ok(None) };
        if standing == slot.standing {
            return Ok(None);
        }
        // First: without it nobody could be told, and nothing may have changed then.
        let fetched = slot.finding.is_none();
        if fetched {
            slot.finding = Some(Arc::new(fetch(slot.id).ok_or(CantChange::NotYet(slot.id))?));
        }
        let seen = slot.stand(standing, |s| Change::asked(now, s.standing.state(), by));
        if !self.kept {
            slot.unwritten.clear();
        }
        let alarm = slot.alarm(None);
        self.shelve(key, standing.until());
        self.touch(key);
        if fetched {
            self.hold(key);
        }
        Ok(alarm.filter(|_| seen).map(|alarm| Taken { alarm, tell: true }))
    }
}
