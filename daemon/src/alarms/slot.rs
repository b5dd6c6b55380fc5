//! What the list keeps of each alarm: little, so that there is room for many. The finding itself is
//! kept of the latest only; the ledger has all of them.
#![forbid(unsafe_code)]

use super::change::Asker;
use super::state::{Event, Standing};
use crate::model::{Alarm, Change, Finding, Severity};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use uuid::Uuid;

/// An alarm that comes up so often within [`CHATTER`] chatters (ISA-18.2: three times a minute).
const CHATTERS: usize = 3;
const CHATTER: SignedDuration = SignedDuration::from_mins(1);
/// Changes that may wait to be written; beyond it the oldest go.
const CHANGES: usize = 16;

/// The sort of alarms that count several together.
const TOGETHER: u64 = 1;

/// A finding's key in 16 bytes. Keys hold names that observed programs choose: a keyless hash that
/// nobody can build collisions for keeps them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 16]);

impl Key {
    /// Of a finding's key.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self(short(blake3::hash(key.as_bytes())))
    }
}

/// Of which sort an alarm is: its rule, and the program or source that it is about. One sort can't
/// fill the list.
#[must_use]
pub fn sort_of(finding: &Finding) -> u64 {
    // What counts those that found no room takes none away.
    if finding.evidence["together"] == true {
        return TOGETHER;
    }
    let process = finding.process.as_ref();
    // By its path: its digest is not always known by then, and one program is one sort.
    let about = process.and_then(|p| p.exe.as_ref().or(p.sha256.as_ref()));
    let mut hasher = blake3::Hasher::new();
    hasher.update(finding.rule.as_bytes()).update(&[0]);
    hasher.update(about.map_or("", String::as_str).as_bytes());
    u64::from_le_bytes(short(hasher.finalize()))
}

fn short<const N: usize>(hash: blake3::Hash) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&hash.as_bytes()[..N]);
    out
}

/// One alarm in the list.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub id: Uuid,
    pub rule: Arc<str>,
    pub sort: u64,
    pub standing: Standing,
    /// Of the last finding.
    pub severity: Severity,
    /// The worst that it ever was.
    pub worst: Severity,
    pub count: u64,
    pub raised: Timestamp,
    pub last: Timestamp,
    pub told: Timestamp,
    pub told_count: u64,
    /// Raised or counted up since this process began, not only found in the ledger.
    pub fresh: bool,
    /// The two occurrences before the last.
    recent: [Timestamp; CHATTERS - 1],
    /// When it last came up so often that it is of no use.
    pub chattered: Option<Timestamp>,
    pub changed: Option<Arc<Change>>,
    /// Changes that no ledger has yet.
    pub unwritten: Vec<Change>,
    /// None: only the ledger has it.
    pub finding: Option<Arc<Finding>>,
}

impl Slot {
    pub fn new(id: Uuid, finding: Finding) -> Self {
        let seen = finding.seen;
        Self {
            id,
            rule: finding.rule.as_str().into(),
            sort: sort_of(&finding),
            standing: Standing::NEW,
            severity: finding.severity,
            worst: finding.severity,
            count: 1,
            raised: seen,
            last: seen,
            told: seen,
            told_count: 1,
            fresh: true,
            recent: [Timestamp::MIN, seen],
            chattered: None,
            changed: None,
            unwritten: Vec::new(),
            finding: Some(Arc::new(finding)),
        }
    }

    /// For the ledger, with the changes that it doesn't have.
    pub fn row(&mut self) -> crate::ledger::AlarmRow {
        crate::ledger::AlarmRow {
            id: self.id,
            key: String::new(),
            rule: self.rule.to_string(),
            severity: self.severity,
            standing: self.standing,
            count: self.count,
            raised: self.raised,
            last: self.last,
            sort: self.sort,
            chattered: self.chattered,
            alarm: self.alarm(None).map(Arc::new),
            changed: None,
            changes: std::mem::take(&mut self.unwritten),
            letters: vec![],
        }
    }

    /// Found in the ledger.
    pub fn kept(row: &crate::ledger::AlarmRow) -> Self {
        Self {
            id: row.id,
            rule: row.rule.as_str().into(),
            sort: row.sort,
            standing: row.standing,
            severity: row.severity,
            worst: row.severity,
            count: row.count,
            raised: row.raised,
            last: row.last,
            told: row.last,
            told_count: row.count,
            fresh: false,
            recent: [Timestamp::MIN; CHATTERS - 1],
            chattered: row.chattered,
            changed: row.changed.clone().map(Arc::new),
            unwritten: Vec::new(),
            finding: None,
        }
    }

    /// One more occurrence.
    pub fn occurred(&mut self, at: Timestamp) {
        self.count = self.count.saturating_add(1);
        if self.recent[0] != Timestamp::MIN && at.duration_since(self.recent[0]) <= CHATTER {
            self.chattered = Some(at);
        }
        self.recent.rotate_left(1);
        self.recent[CHATTERS - 2] = at;
    }

    /// Into another standing. True: into another state as well, and the change is to be written.
    pub fn stand(&mut self, standing: Standing, change: impl FnOnce(&Self) -> Change) -> bool {
        let (from, before) = (self.standing.state(), self.standing);
        self.standing = standing;
        if from == standing.state() && before.until() == standing.until() {
            return false;
        }
        let change =
            Change { from: Some(from), to: standing.state(), until: standing.until(), ..change(self) };
        self.note(change);
        true
    }

    /// Off the list, as the configuration says; nothing where it is held already. True: it is now.
    pub fn by_design(&mut self, at: Timestamp, by: &Asker) -> bool {
        self.standing
            .after(Event::Design)
            .is_ok_and(|standing| self.stand(standing, |_| Change::asked(at, standing.state(), by)))
    }

    /// A change that has to be written.
    pub fn note(&mut self, change: Change) {
        self.changed = Some(Arc::new(change.clone()));
        if self.unwritten.len() >= CHANGES {
            self.unwritten.remove(0);
        }
        self.unwritten.push(change);
    }

    /// The alarm as the world sees it, if the finding is here or comes with the call.
    pub fn alarm(&self, finding: Option<&Finding>) -> Option<Alarm> {
        Some(Alarm {
            id: self.id,
            finding: self.finding.as_deref().or(finding)?.clone(),
            state: self.standing.state(),
            count: self.count,
            raised: self.raised,
            last: self.last,
            changed: self.changed.as_deref().cloned(),
        })
    }
}
