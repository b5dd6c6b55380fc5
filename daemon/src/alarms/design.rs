//! Alarms that are off the list by design: `[[alarms.suppress]]`.
//!
//! Comes in: the entries that hold today. Goes out: who suppresses a finding's alarm, and which alarms have to be looked at again
//! when the entries change. Called by the list itself, and by `desk`.
#![forbid(unsafe_code)]

use super::change::Asker;
use super::state::{Event, Holder};
use super::{Alarms, Taken};
use crate::config::Suppress;
use crate::model::{AlarmState, Finding};
use jiff::Timestamp;
use uuid::Uuid;

const WHY: &str = "suppressed by design";

impl Alarms {
    /// These hold from now on. Goes out: alarms that may be suppressed by them, or no more.
    pub fn design(&mut self, entries: Vec<Suppress>) -> Vec<Uuid> {
        self.design = entries;
        let concerned = |s: &&super::Slot| match s.standing.hold {
            Some(hold) => hold.by == Holder::Design,
            None => {
                s.standing.state() != AlarmState::Normal && self.design.iter().any(|d| d.of_rule(&s.rule))
            }
        };
        self.slots.values().filter(concerned).map(|s| s.id).collect()
    }

    /// Looks at one of them again. None: it stands as before.
    pub fn redesign(
        &mut self,
        id: Uuid,
        now: Timestamp,
        fetch: impl FnOnce(Uuid) -> Option<Finding>,
    ) -> Option<Taken> {
        let key = *self.ids.get(&id)?;
        let slot = self.slots.get(&key)?;
        let held = slot.standing.hold.is_some_and(|h| h.by == Holder::Design);
        let finding = slot.finding.as_deref().cloned().or_else(|| fetch(id))?;
        let (event, by) = match (held, self.by_design(&finding)) {
            (false, Some(by)) => (Event::Design, by),
            (true, None) => (Event::DesignOver, Asker::nobody("its suppression by design is over")),
            _ => return None,
        };
        self.step(key, event, &by, now, |_| Some(finding))
    }

    /// Something is suppressed, or may be.
    #[must_use]
    pub fn is_designed(&self) -> bool {
        !self.design.is_empty()
    }

    /// Who suppresses this finding's alarm, and why.
    pub(super) fn by_design(&self, finding: &Finding) -> Option<Asker> {
        let entry = self.design.iter().find(|entry| entry.fits(finding))?;
        Some(Asker { user: Some(entry.owner.clone()), comment: Some(entry.answer()), ..Asker::nobody(WHY) })
    }
}
