//! The desk's alarm list: findings, people, sources and time change it; sinks and ledger hear of it.
//!
//! Comes in: [`Finding`]s, [`Word`]s, [`Ask`]s, time. Goes out: alarms to sinks and ledger, answers. Called by `desk`.
#![forbid(unsafe_code)]

use super::{Desk, FAREWELL, FORGET};
use crate::alarms::Taken;
use crate::alarms::entry::Word;
use crate::config::Suppress;
use crate::control::{Answer, Ask};
use crate::intake::Batch;
use crate::ledger::{AlarmRow, Reader, Scribe};
use crate::model::{Alarm, Finding};
use crate::sinks::Message;
use crossbeam::channel::{RecvTimeoutError, Sender};
use jiff::Timestamp;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long the ledger may not know of a repeat. What is raised or changed goes there at once.
const SETTLE: Duration = Duration::from_millis(250);
/// Between two counts of the list for its metrics.
const COUNT: Duration = Duration::from_secs(1);
/// A clock that jumps is noticed after this long.
const LOOK: Duration = Duration::from_secs(60);

impl Desk {
    /// What an intake said, and up to where it was read, which is kept behind it.
    pub(super) fn reported(&mut self, mut batch: Batch) {
        let outcomes = self.station.take(&mut batch);
        if let Some(scribe) = &self.scribe {
            scribe.together();
        }
        outcomes.into_iter().for_each(|outcome| self.hear(outcome));
        self.places.extend(batch.place);
        self.write();
        if let Some(scribe) = &self.scribe {
            scribe.together_done();
        }
        if let Some(taken) = batch.taken {
            let _ = taken.send(());
        }
    }

    pub(super) fn found(&mut self, finding: Finding) {
        let follows = self.station.operations.found(&finding);
        self.raised(finding);
        follows.into_iter().for_each(|finding| self.raised(finding));
    }

    pub(super) fn raised(&mut self, finding: Finding) {
        let taken = self.alarms.take(finding);
        self.metrics.found(&taken.alarm);
        let id = taken.alarm.id;
        // A repeat can wait a moment for others; what is raised can't.
        let urgent = taken.alarm.changed.as_ref().is_some_and(|c| c.at == taken.alarm.last);
        self.say(taken);
        if urgent {
            self.give_one(id);
        }
        self.give_letters();
        self.settle.get_or_insert_with(|| Instant::now() + SETTLE);
    }

    /// A word from outside.
    pub(super) fn hear(&mut self, word: Word) {
        let (state, reader) = (&self.state, &mut self.reader);
        let fetch = |id| fetch(state.as_deref(), reader, id);
        let taken = match word {
            Word::Raise(finding) => return self.found(*finding),
            Word::Returned(word) => self.alarms.returned(&word, fetch),
            Word::Said(word) => self.alarms.said(&word, fetch),
        };
        if let Some(taken) = taken {
            self.say(taken);
        }
        self.plan_shelves();
        self.write();
    }

    /// A person changes an alarm. They are answered when it is committed.
    pub(super) fn asked(&mut self, ask: Ask) {
        let (state, reader) = (&self.state, &mut self.reader);
        let changed = self
            .alarms
            .change(&ask.id, ask.event, &ask.by, Timestamp::now(), |id| fetch(state.as_deref(), reader, id));
        let answer = match changed {
            Err(why) => Answer::Refused(why.to_string()),
            Ok(taken) => {
                let (done, committed) = crossbeam::channel::bounded(1);
                let full = "it waits for the disk, with too much else";
                let alarm = Box::new(taken.alarm.clone());
                self.say(taken);
                if let Some(row) = self.alarms.write_of(alarm.id)
                    && !self.give(row, Some(done.clone()))
                {
                    let _ = done.send(Err(full.into()));
                }
                Answer::Done { alarm, committed }
            }
        };
        // Whoever asked may have gone.
        let _ = ask.answer.try_send(answer);
        self.plan_shelves();
        self.write();
    }

    pub(super) fn on_time(&mut self) {
        let now = Instant::now();
        if self.shelves.is_some_and(|t| t <= now) {
            let (state, reader) = (&self.state, &mut self.reader);
            let back = self.alarms.end_shelves(Timestamp::now(), |id| fetch(state.as_deref(), reader, id));
            back.into_iter().for_each(|taken| self.say(taken));
            if jiff::Zoned::now().date() != self.design.1 {
                // What held until yesterday is over.
                self.redesign(self.design.0.clone());
            }
            self.plan_shelves();
        }
        if self.forget <= now {
            self.forget = now + FORGET;
            if let Ok(before) = Timestamp::now().checked_sub(self.keep) {
                self.alarms.forget(before);
            }
        }
        self.write();
    }

    /// When to look at the shelves again, and at the calendar.
    pub(super) fn plan_shelves(&mut self) {
        let end = self.alarms.next_end().map(|end| {
            let left = Duration::try_from(end.duration_since(Timestamp::now())).unwrap_or_default();
            left.min(LOOK)
        });
        let day = self.alarms.is_designed().then_some(LOOK);
        self.shelves = end.into_iter().chain(day).min().map(|left| Instant::now() + left);
    }

    /// What is suppressed by design from now on.
    pub(super) fn redesign(&mut self, entries: Vec<Suppress>) {
        let today = jiff::Zoned::now().date();
        let now = entries.iter().filter(|e| e.holds(today)).cloned().collect();
        self.design = (entries, today);
        for id in self.alarms.design(now) {
            let (state, reader) = (&self.state, &mut self.reader);
            let taken = self.alarms.redesign(id, Timestamp::now(), |id| fetch(state.as_deref(), reader, id));
            if let Some(taken) = taken {
                self.say(taken);
            }
        }
        self.plan_shelves();
        self.write();
    }

    /// Tells the sinks, where they are to hear of it.
    pub(super) fn say(&mut self, taken: Taken) {
        if taken.tell {
            self.tell(taken.alarm);
        }
        for alarm in self.alarms.leaving() {
            self.tell(alarm);
        }
    }

    /// A letter, where there is a ledger that has to have it first.
    pub(super) fn tell(&mut self, alarm: Alarm) {
        if let Some(json) = &mut self.json {
            json.alarm(&alarm);
        }
        if self.sinks.is_empty() {
            return;
        }
        if self.scribe.is_some() {
            self.letters.add(alarm, Instant::now());
        } else {
            self.sinks.send(&Message::Alarm(Arc::new(alarm)));
        }
    }

    /// Sends what is committed; all, where nothing can be.
    pub(super) fn post(&mut self) {
        let fails = self.scribe.as_ref().is_none_or(Scribe::fails);
        self.send_letters(fails);
    }

    fn send_letters(&mut self, anyway: bool) {
        let now = Instant::now();
        while let Some(letter) = self.letters.send_next(now, anyway) {
            self.sinks.letter(&letter);
        }
        if let Some(scribe) = &self.scribe
            && let Some(number) = self.letters.stored(self.sinks.stored())
        {
            scribe.delivered(number);
        }
        if !self.sinks.is_empty() && self.letters.sent().next().is_some() {
            // To look whether they have it.
            self.settle.get_or_insert_with(|| Instant::now() + SETTLE);
        }
    }

    /// At the end: every letter, with its commit or, at last, without.
    pub(super) fn post_all(&mut self) {
        let end = Instant::now() + FAREWELL;
        self.post();
        while self.letters.due().is_some() && Instant::now() < end {
            if let Err(RecvTimeoutError::Disconnected) = self.committed.recv_deadline(end) {
                self.committed = crossbeam::channel::never();
            }
            self.post();
        }
        self.send_letters(true);
    }

    /// Gives the ledger how an alarm stands, and in the same breath what the sinks are to hear of it. False: it has no room.
    fn give(&mut self, mut row: AlarmRow, done: Option<Sender<Result<(), String>>>) -> bool {
        let Some(scribe) = &self.scribe else { return false };
        row.letters = self.letters.give(row.id);
        let Err(mut row) = scribe.alarm(Box::new(row), done) else { return true };
        self.letters.put_back(row.id, std::mem::take(&mut row.letters));
        self.alarms.put_back(*row);
        false
    }

    /// Gives the ledger one alarm, or what is to be told of it where the rest is there already. False: it has no room.
    fn give_one(&mut self, id: Uuid) -> bool {
        if let Some(row) = self.alarms.write_of(id) {
            return self.give(row, None);
        }
        let Some(scribe) = &self.scribe else { return false };
        let mut letters = self.letters.give(id).into_iter();
        while let Some(letter) = letters.next() {
            if !scribe.letter(Arc::clone(&letter)) {
                self.letters.put_back(id, std::iter::once(letter).chain(letters).collect());
                return false;
            }
        }
        true
    }

    /// Gives the ledger all that sinks are to hear of, as far as it has room.
    fn give_letters(&mut self) {
        for id in self.letters.to_give() {
            if !self.scribe.as_ref().is_some_and(Scribe::has_room) || !self.give_one(id) {
                break;
            }
        }
    }

    /// Gives the ledger what it doesn't have yet, as far as it has room.
    pub(super) fn write(&mut self) {
        self.settle = None;
        self.count_list();
        self.give_letters();
        self.post();
        while self.scribe.as_ref().is_some_and(Scribe::has_room) {
            let Some(row) = self.alarms.next_write() else { break };
            if !self.give(row, None) {
                break;
            }
        }
        let Some(scribe) = &self.scribe else { return };
        let minutes = self.alarms.minutes();
        if !minutes.is_empty() {
            scribe.minutes(minutes);
        }
        if self.alarms.unwritten() > 0 || !self.letters.to_give().is_empty() {
            self.settle = Some(Instant::now() + SETTLE);
        } else {
            // Behind the alarms that came up to there.
            self.places.drain(..).for_each(|place| scribe.keep(place));
        }
    }

    /// The list's numbers, where someone can see them; not for each step of a flood.
    pub(super) fn count_list(&mut self) {
        if self.page.is_none() {
            return;
        }
        if self.counted_list.is_some_and(|t| t.elapsed() < COUNT) {
            self.settle = Some(Instant::now() + SETTLE);
            return;
        }
        self.counted_list = Some(Instant::now());
        self.metrics.list(&self.alarms.by_state());
    }

    /// At the end: everything, unless the disk takes nothing any more.
    pub(super) fn write_all(&mut self) {
        let end = Instant::now() + FAREWELL;
        self.write();
        while self.scribe.is_some() && (self.alarms.unwritten() > 0 || !self.letters.to_give().is_empty()) {
            if Instant::now() >= end {
                tracing::error!("{} alarms could not be written down", self.alarms.unwritten());
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
            self.write();
        }
    }
}

/// A finding that only the ledger has.
fn fetch(state: Option<&Path>, reader: &mut Option<Reader>, id: Uuid) -> Option<Finding> {
    if reader.is_none() {
        *reader = Reader::open(state?).inspect_err(|e| tracing::error!("{e}")).ok();
    }
    reader.as_ref()?.alarm(id).inspect_err(|e| tracing::error!("{e}")).ok()?.map(|a| a.finding)
}
