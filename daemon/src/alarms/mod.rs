//! Alarms: findings kept and counted, one for each key, in the states of ISA-18.2.
//!
//! Comes in: [`Finding`]s, the end of their conditions, what operators decide, and time. Goes out: the
//! [`Alarm`] as it stands then, whether the sinks hear of it, and what the ledger has to keep. Called
//! by `desk`.
//!
//! Quiet by construction: the first occurrence is told at once, repeats when their number doubles
//! or after a minute; `coverage-lost` once a day; what is held off the list not at all. Every change of
//! a state is told. One transfer counts once towards one alarm, so an alteration that was alarmed
//! while the connection was open is not counted again at its end.
//!
//! Bounded: see [`room`]; the findings of the latest alarms only are in memory.
#![forbid(unsafe_code)]

mod change;
mod counted;
mod design;
pub mod entry;
mod find;
mod rate;
pub mod room;
mod slot;
pub mod state;
#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;

pub use change::{Asker, CantChange};
pub use find::{NotFound, find};
pub use rate::Minutes;
pub use slot::sort_of;

use crate::config::Suppress;
use crate::ledger::AlarmRow;
use crate::model::{Alarm, AlarmState, Change, Finding, Severity};
use counted::Counted;
use jiff::{SignedDuration, Timestamp};
use room::{Given, Room};
use slot::{Key, Slot};
use state::{Event, HoldKind};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Findings in memory: those of the latest alarms.
const WHOLE: usize = 4096;
/// Alarms that may wait for the ledger with their findings; while so many wait, new ones are counted together.
const UNWRITTEN: usize = 2048;
/// How often room is looked for.
const SWEEP: Duration = Duration::from_secs(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// How long a process alarm's source can shelve it where it doesn't say.
const SHELF: SignedDuration = SignedDuration::from_hours(8);

/// The alarm list.
pub struct Alarms {
    slots: HashMap<Key, Slot>,
    ids: BTreeMap<Uuid, Key>,
    room: Room,
    counted: Counted,
    /// Whose finding is in memory, in the order of getting there.
    whole: VecDeque<Key>,
    /// What the ledger doesn't have yet.
    unwritten: HashSet<Key>,
    /// There is a ledger.
    kept: bool,
    /// Counted up, and untold when their findings had to go.
    leaving: Vec<Alarm>,
    rate: Minutes,
    shelf: SignedDuration,
    /// What is suppressed by design now.
    design: Vec<Suppress>,
    /// What is on a shelf, and until when.
    shelved: HashMap<Key, Timestamp>,
    /// When room was last looked for.
    swept: Option<Instant>,
}

impl Default for Alarms {
    fn default() -> Self {
        Self {
            slots: HashMap::new(),
            ids: BTreeMap::new(),
            room: Room::default(),
            counted: Counted::default(),
            whole: VecDeque::new(),
            unwritten: HashSet::new(),
            kept: false,
            leaving: Vec::new(),
            rate: Minutes::default(),
            shelf: SHELF,
            design: Vec::new(),
            shelved: HashMap::new(),
            swept: None,
        }
    }
}

/// What became of a finding.
#[derive(Debug)]
pub struct Taken {
    /// The alarm as it stands now.
    pub alarm: Alarm,
    /// The sinks hear of it.
    pub tell: bool,
}

impl Alarms {
    /// Goes on with alarms from the ledger, which is going to be told what becomes of them.
    #[must_use]
    pub fn resume(rows: impl IntoIterator<Item = AlarmRow>) -> Self {
        let mut alarms = Self { kept: true, ..Self::default() };
        for row in rows {
            let key = Key::of(&row.key);
            if alarms.ids.len() >= room::ALL || alarms.slots.contains_key(&key) {
                continue;
            }
            alarms.add(key, Slot::kept(&row));
        }
        alarms
    }

    /// For how long something is shelved where nobody says.
    pub fn shelving(&mut self, shelf: Duration) {
        self.shelf = SignedDuration::try_from(shelf).unwrap_or(SHELF);
    }

    /// Raises an alarm, or counts the finding towards the one that has its key.
    pub fn take(&mut self, finding: Finding) -> Taken {
        let again = !self.counted.first_time(&finding);
        let key = Key::of(&finding.key);
        if self.slots.contains_key(&key) {
            return self.repeat(key, finding, again);
        }
        let crowded = self.unwritten.len() >= UNWRITTEN;
        let sort = sort_of(&finding);
        if self.room.for_one(&finding.rule, sort) != Given::Own {
            self.sweep();
        }
        let finding = match self.room.for_one(&finding.rule, sort) {
            Given::Own if !crowded => return self.raise(key, finding),
            Given::WithItsSort if !crowded => room::with_its_sort(finding),
            _ => room::with_its_rule(finding),
        };
        let key = Key::of(&finding.key);
        if self.slots.contains_key(&key) {
            self.repeat(key, finding, false)
        } else {
            self.raise(key, finding)
        }
    }

    fn raise(&mut self, key: Key, finding: Finding) -> Taken {
        let (seen, kept) = (finding.seen, self.kept);
        let design = self.by_design(&finding);
        let mut slot = Slot::new(Uuid::now_v7(), finding);
        slot.note(Change::of_itself(seen, None, AlarmState::Unacknowledged, "raised"));
        let tell = design.is_none();
        if let Some(by) = design {
            slot.by_design(seen, &by);
        }
        if !kept {
            slot.unwritten.clear();
        }
        self.rate.raised(seen);
        let alarm = slot.alarm(None).expect("a new one is whole");
        self.add(key, slot);
        self.hold(key);
        self.touch(key);
        Taken { alarm, tell }
    }

    /// A finding whose key has an alarm.
    fn repeat(&mut self, key: Key, finding: Finding, again: bool) -> Taken {
        let crowded = self.unwritten.len() >= UNWRITTEN;
        let design = self.by_design(&finding);
        let slot = self.slots.get_mut(&key).expect("looked up");
        let seen = finding.seen;
        slot.fresh = true;
        slot.last = slot.last.max(seen);
        let worse = finding.severity > slot.severity;
        // A condition that goes on is no new occurrence of it.
        let goes_on = finding.point.is_some() && slot.standing.active;
        let tell = if again {
            // The last word on a transfer that was counted: it knows more, if it is about the one
            // that the alarm shows.
            let shown = slot.finding.as_ref();
            let same = finding.transfer.is_some() && shown.is_some_and(|f| f.transfer == finding.transfer);
            let news = same && shown.is_some_and(|f| f.altered != finding.altered || f.why != finding.why);
            // Or it is graver: then that is what is to be told, whatever the alarm showed.
            if same || worse {
                slot.severity = finding.severity;
                slot.finding = Some(Arc::new(finding.clone()));
            }
            news || worse
        } else if goes_on {
            slot.severity = finding.severity;
            worse
        } else {
            slot.occurred(seen);
            let graver = finding.severity > slot.worst;
            slot.severity = finding.severity;
            let mut standing = slot.standing.after(Event::Occurred).unwrap_or(slot.standing);
            let mut why = "occurred again";
            // Whoever shelved it did not mean this.
            if graver && standing.hold.is_some_and(|h| matches!(h.kind, HoldKind::Shelved { .. })) {
                standing.hold = None;
                why = "graver than when it was shelved";
            }
            let changed = slot.stand(standing, |s| Change::of_itself(seen, None, s.standing.state(), why));
            if changed {
                self.rate.raised(seen);
            } else {
                self.rate.repeated(seen);
            }
            let since = seen.duration_since(slot.told);
            changed
                || worse
                || match finding.rule.as_str() {
                    "coverage-lost" => since >= DAY,
                    _ => slot.count >= slot.told_count.saturating_mul(2) || since >= MINUTE,
                }
        };
        slot.worst = slot.worst.max(slot.severity);
        let tell = tell && slot.standing.hold.is_none();
        // The sinks may know of it as of one that stands.
        let tell = design.is_some_and(|by| slot.by_design(seen, &by)) || tell;
        let until = slot.standing.until();
        if tell && !again {
            (slot.told, slot.told_count) = (seen, slot.count);
        }
        if !self.kept {
            slot.unwritten.clear();
        }
        let alarm = if again {
            slot.alarm(Some(&finding)).expect("comes with it")
        } else {
            let was_here = slot.finding.replace(Arc::new(finding)).is_some();
            let alarm = slot.alarm(None).expect("it is whole");
            match (was_here, crowded) {
                (true, _) => {}
                (false, false) => self.hold(key),
                // What the ledger can't take now is not kept either: its row will say how often.
                (false, true) => slot.finding = None,
            }
            alarm
        };
        self.shelve(key, until);
        self.touch(key);
        Taken { alarm, tell }
    }

    /// A condition is over. None: no alarm has this key, or it was known.
    pub fn returned(
        &mut self,
        word: &entry::Returned,
        fetch: impl FnOnce(Uuid) -> Option<Finding>,
    ) -> Option<Taken> {
        let by = Asker::nobody("returned to normal");
        let key = Key::of(&word.key);
        if let Some(point) = &word.point
            && let Some(slot) = self.slots.get_mut(&key)
            && let Some(finding) = &mut slot.finding
        {
            Arc::make_mut(finding).point = Some(point.clone());
        }
        self.step(key, Event::Returned, &by, word.seen, fetch)
    }

    /// What a source says of its own alarm. None: no alarm has this key, or it was known.
    pub fn said(&mut self, word: &entry::Said, fetch: impl FnOnce(Uuid) -> Option<Finding>) -> Option<Taken> {
        let by = Asker { user: word.by.clone(), ..Asker::nobody("its source says so") };
        let until =
            word.until.unwrap_or_else(|| word.seen.saturating_add(self.shelf).unwrap_or(Timestamp::MAX));
        self.step(Key::of(&word.key), Event::Said(word.state, until), &by, word.seen, fetch)
    }

    /// When the next shelf ends.
    #[must_use]
    pub fn next_end(&self) -> Option<Timestamp> {
        self.shelved.values().min().copied()
    }

    /// Takes down what has been on its shelf for long enough.
    pub fn end_shelves(
        &mut self,
        now: Timestamp,
        mut fetch: impl FnMut(Uuid) -> Option<Finding>,
    ) -> Vec<Taken> {
        let keys: Vec<Key> =
            self.shelved.iter().filter(|(_, until)| **until <= now).map(|(key, _)| *key).collect();
        let by = Asker::nobody("its time on the shelf is over");
        keys.into_iter().filter_map(|key| self.step(key, Event::Unshelve, &by, now, &mut fetch)).collect()
    }

    /// Every alarm that was raised or counted up by this process and is still in memory, the worst first, then in
    /// order of their raising.
    #[must_use]
    pub fn list(&self) -> Vec<Alarm> {
        let mut all: Vec<Alarm> =
            self.slots.values().filter(|s| s.fresh).filter_map(|s| s.alarm(None)).collect();
        all.sort_by_key(|a| (std::cmp::Reverse(a.finding.severity), a.raised, a.id));
        all
    }

    /// How many alarms of each rule were raised or counted up by this process.
    #[must_use]
    pub fn by_rule(&self) -> BTreeMap<String, u64> {
        let mut rules = BTreeMap::new();
        for slot in self.slots.values().filter(|s| s.fresh) {
            *rules.entry(slot.rule.to_string()).or_default() += 1;
        }
        rules
    }

    /// How many alarms of each rule and severity are in which state.
    #[must_use]
    pub fn by_state(&self) -> HashMap<(Arc<str>, Severity, AlarmState), u64> {
        let mut all = HashMap::new();
        for slot in self.slots.values() {
            *all.entry((Arc::clone(&slot.rule), slot.severity, slot.standing.state())).or_default() += 1;
        }
        all
    }

    /// Alarms that were counted up since the sinks last heard of them.
    #[must_use]
    pub fn untold(&self) -> Vec<Alarm> {
        let untold = |s: &&Slot| s.count != s.told_count && s.standing.hold.is_none();
        self.slots.values().filter(untold).filter_map(|s| s.alarm(None)).collect()
    }

    /// Alarms whose last count the sinks have to hear now, because they leave memory.
    pub fn leaving(&mut self) -> Vec<Alarm> {
        std::mem::take(&mut self.leaving)
    }

    /// How many wait for the ledger.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        self.unwritten.len()
    }

    /// Something for the ledger.
    pub fn next_write(&mut self) -> Option<AlarmRow> {
        let key = *self.unwritten.iter().next()?;
        self.unwritten.remove(&key);
        Some(self.slots.get_mut(&key)?.row())
    }

    /// One alarm for the ledger.
    pub fn write_of(&mut self, id: Uuid) -> Option<AlarmRow> {
        let key = self.ids.get(&id)?;
        if !self.unwritten.remove(key) {
            return None;
        }
        Some(self.slots.get_mut(key)?.row())
    }

    /// An alarm as it stands, if its finding is in memory or comes from `fetch`.
    pub fn get(&self, id: Uuid, fetch: impl FnOnce(Uuid) -> Option<Finding>) -> Option<Alarm> {
        let slot = self.slots.get(self.ids.get(&id)?)?;
        if slot.finding.is_some() { slot.alarm(None) } else { slot.alarm(fetch(id).as_ref()) }
    }

    /// The ledger could not take it now.
    pub fn put_back(&mut self, row: AlarmRow) {
        let Some(key) = self.ids.get(&row.id) else { return };
        if let Some(slot) = self.slots.get_mut(key) {
            slot.unwritten.splice(0..0, row.changes);
            self.unwritten.insert(*key);
        }
    }

    /// How many alarms and repeats there were in each minute, since the last call.
    pub fn minutes(&mut self) -> Minutes {
        std::mem::take(&mut self.rate)
    }

    /// Forgets what the ledger forgot: alarms that nobody holds, last seen before `before`.
    pub fn forget(&mut self, before: Timestamp) {
        let old = |s: &Slot| s.last < before && s.standing.hold.is_none();
        self.drop_where(old);
    }

    /// Makes room where there is none: what is done with goes out of the list, and stays in the ledger. Not at
    /// every finding of a flood: it takes a look at all.
    fn sweep(&mut self) {
        if self.swept.is_none_or(|t| t.elapsed() >= SWEEP) {
            self.swept = Some(Instant::now());
            self.drop_where(|s| s.standing.state() == AlarmState::Normal);
        }
    }

    /// Whether it is on a shelf.
    fn shelve(&mut self, key: Key, until: Option<Timestamp>) {
        match until {
            Some(until) => self.shelved.insert(key, until),
            None => self.shelved.remove(&key),
        };
    }

    fn drop_where(&mut self, gone: impl Fn(&Slot) -> bool) {
        let unwritten = &self.unwritten;
        let keys: Vec<Key> =
            self.slots.iter().filter(|(k, s)| gone(s) && !unwritten.contains(k)).map(|(k, _)| *k).collect();
        for key in keys {
            if let Some(slot) = self.slots.remove(&key) {
                self.ids.remove(&slot.id);
                self.room.give(&slot.rule, slot.sort);
                self.shelved.remove(&key);
            }
        }
    }

    fn add(&mut self, key: Key, slot: Slot) {
        self.room.take(&slot.rule, slot.sort);
        self.shelve(key, slot.standing.until());
        self.ids.insert(slot.id, key);
        self.slots.insert(key, slot);
    }

    fn touch(&mut self, key: Key) {
        if self.kept {
            self.unwritten.insert(key);
        }
    }

    /// Its finding came into memory; another's may have to go.
    fn hold(&mut self, key: Key) {
        self.whole.push_back(key);
        while self.whole.len() > WHOLE {
            let Some(oldest) = self.whole.pop_front() else { return };
            if self.unwritten.contains(&oldest) {
                self.whole.push_back(oldest);
                return;
            }
            let Some(slot) = self.slots.get_mut(&oldest) else { continue };
            if slot.count != slot.told_count && slot.standing.hold.is_none() {
                self.leaving.extend(slot.alarm(None));
                (slot.told, slot.told_count) = (slot.last, slot.count);
            }
            slot.finding = None;
        }
    }
}
