//! `delivered-file-changed`: delivered files, read again and again.
//!
//! Comes in: final file transfers, what observed processes do to files, and what `rest` found in a file. Goes out:
//! which files to read now, and [`Finding`]s. Called by [`watcher`], which has the clock and the reader; here time is
//! a parameter. What is known of each file is kept in the ledger.
//!
//! A difference is said when it was found twice, [`GRACE`] apart, with nothing heard of an observed writer meanwhile: the word
//! of a write comes when the file is closed. Then once, until it changes again.
#![forbid(unsafe_code)]

mod entry;
mod finding;
#[cfg(test)]
mod tests;
pub mod watcher;

use crate::config::Integrity;
use crate::judged::{Deed, DeedKind};
use crate::ledger::Memory;
use crate::model::{Channel, Finding, Transfer, Verdict};
use crate::rest::{Answer, Ask, AtRest, Refusal, Tags, User};
use entry::{By, Entry, Seen, hex};
use finding::Found;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The stage's name in the ledger.
pub const KIND: &str = "delivered";
/// Files that are looked after; beyond it the ones that were delivered first are not.
const KEPT: usize = 100_000;
/// Units of tags that are held, of all files together: 64 MiB. Files beyond it have no ranges in their alarms.
const TAGS: usize = 4 << 20;
/// Between two looks at a file that seems to have changed; no longer than the interval.
const GRACE: SignedDuration = SignedDuration::from_secs(5);
/// An entry's last day in the ledger is brought up to date so often.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The files that are looked after.
pub struct Delivered {
    settings: Settings,
    files: HashMap<String, File>,
    due: BTreeSet<(Timestamp, String)>,
    /// Where a file was when it was last seen.
    by_inode: HashMap<(u64, u64), String>,
    /// Asks under way: the file, and its epoch then.
    reading: HashMap<u64, (String, u64)>,
    asks: u64,
    tags: usize,
    memory: Option<Memory>,
}

struct Settings {
    interval: SignedDuration,
    paths: Vec<PathBuf>,
    uncached: bool,
}

struct File {
    entry: Entry,
    /// Of the content that is expected, if there was room.
    tags: Tags,
    due: Timestamp,
    /// Counts baselines: an answer that was asked for before the latest one says nothing.
    epoch: u64,
    /// What the last look found, if it was not what was expected.
    suspect: Option<String>,
}

impl Delivered {
    /// Nothing yet; [`Self::resume`] brings what an earlier daemon knew.
    #[must_use]
    pub fn new(settings: &Integrity, memory: Option<Memory>) -> Self {
        Self {
            settings: Settings::new(settings),
            files: HashMap::new(),
            due: BTreeSet::new(),
            by_inode: HashMap::new(),
            reading: HashMap::new(),
            asks: 0,
            tags: 0,
            memory,
        }
    }

    /// Goes on with what an earlier daemon remembered.
    pub fn resume(&mut self, now: Timestamp, recalled: Vec<(String, String)>) {
        for (path, json) in recalled {
            if let Ok(entry) = serde_json::from_str::<Entry>(&json)
                && self.settings.covers(&path)
            {
                let due = entry
                    .seen
                    .as_ref()
                    .map_or(now, |s| s.at.saturating_add(self.settings.interval).unwrap_or(now));
                self.insert(path, entry, due.max(now));
            }
        }
    }

    /// Other settings, after a reload.
    pub fn reload(&mut self, settings: &Integrity) {
        self.settings = Settings::new(settings);
        let gone: Vec<String> = self.files.keys().filter(|p| !self.settings.covers(p)).cloned().collect();
        for path in gone {
            self.remove(&path);
        }
    }

    /// One final transfer. `live`: it ended just now; else it was read from the ledger.
    pub fn transfer(&mut self, now: Timestamp, transfer: &Transfer, live: bool) {
        let Some(end) = transfer.destination.as_ref().filter(|_| transfer.channel == Channel::File) else {
            return;
        };
        let Some(path) = end.path.as_ref().filter(|p| self.settings.covers(p)) else { return };
        if self.files.get(path).is_some_and(|f| !f.entry.yields_to(transfer, end.pid)) {
            return;
        }
        let entry = Entry {
            sha256: end.sha256.clone(),
            bytes: end.bytes,
            delivered: transfer.ended,
            by: By::of_transfer(transfer),
            from_ledger: !live,
            seen: None,
            said: None,
        };
        if transfer.verdict == Verdict::Intact && entry.sha256.is_some() {
            self.insert(path.clone(), entry, self.soon(now));
        } else if self.files.contains_key(path) {
            // It was written over, by somebody who is observed: what is there now is to stay.
            self.insert(path.clone(), Entry { sha256: None, ..entry }, self.soon(now));
        } else {
            return;
        }
        self.persist(path);
    }

    /// What an observed process did to a file.
    pub fn deed(&mut self, now: Timestamp, deed: &Deed) {
        if deed.kind == DeedKind::Renamed
            && let Some(from) =
                deed.inode.and_then(|i| self.by_inode.get(&i)).filter(|p| **p != deed.path).cloned()
        {
            return self.follow(now, &from, deed);
        }
        let Some(file) = self.files.get(&deed.path) else { return };
        // The delivery's own write may be told after it.
        if deed.seen <= file.entry.delivered {
            return;
        }
        // Who says so may lie: what still is as it was last seen was not written, and what is there was not removed.
        match deed.kind {
            DeedKind::Removed if entry::is_there(&deed.path) => return,
            DeedKind::Removed => return self.remove(&deed.path),
            DeedKind::Written if file.entry.untouched(&deed.path) => return,
            DeedKind::Written | DeedKind::Renamed => {}
        }
        let entry = Entry {
            sha256: None,
            delivered: deed.seen,
            by: By::of_process(&deed.process),
            seen: None,
            said: None,
            ..file.entry.clone()
        };
        self.insert(deed.path.clone(), entry, self.soon(now));
        self.persist(&deed.path);
    }

    /// A delivered file has another name now, by an observed process.
    fn follow(&mut self, now: Timestamp, from: &str, deed: &Deed) {
        let Some(file) = self.files.get(from).filter(|_| !entry::is_there(from)) else { return };
        let entry = Entry { delivered: deed.seen, ..file.entry.clone() };
        self.remove(from);
        if self.settings.covers(&deed.path) {
            self.insert(deed.path.clone(), entry, self.soon(now));
            self.persist(&deed.path);
        }
    }

    /// When the next file is due.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The file that is due, if one is.
    pub fn ask(&mut self, now: Timestamp) -> Option<Ask> {
        let (_, path) = self.due.first().filter(|(at, _)| *at <= now).cloned()?;
        self.due.pop_first();
        let file = self.files.get(&path)?;
        self.asks += 1;
        self.reading.insert(self.asks, (path.clone(), file.epoch));
        Some(Ask {
            id: self.asks,
            path: entry::bytes_of(&path),
            inode: None,
            // The folder is the operator's choice, and what is found goes to the operator alone.
            user: User::me(),
            upto: u64::MAX,
            prefix: file.entry.sha256.as_ref().map(|_| file.entry.bytes),
            tags: self.tags < TAGS,
            uncached: self.settings.uncached,
        })
    }

    /// What was found in a file.
    pub fn answer(&mut self, now: Timestamp, answer: Answer) -> Option<Finding> {
        let (path, epoch) = self.reading.remove(&answer.id)?;
        let file = self.files.get_mut(&path).filter(|f| f.epoch == epoch)?;
        let found = match answer.result {
            Ok(at_rest) if !at_rest.steady() => {
                self.schedule(&path, self.soon(now));
                return None;
            }
            Ok(at_rest) => Found::Content(Box::new(at_rest)),
            Err(Refusal::Gone) if self.settings.root_is_there(&path) => Found::Gone,
            Err(Refusal::NotRegular | Refusal::BadPath) => Found::NotRegular,
            Err(why) => {
                tracing::debug!("{} can't be checked: {why}", crate::escape::text(&path));
                let again = now.saturating_add(self.settings.interval).unwrap_or(now);
                self.schedule(&path, again);
                return None;
            }
        };
        let word = found.word();
        if file.entry.sha256.is_none()
            && let Found::Content(at_rest) = &found
        {
            file.entry.sha256 = Some(word.clone());
            file.entry.bytes = at_rest.bytes;
        }
        if file.entry.sha256.as_ref() == Some(&word) {
            self.equal(now, &path, found);
            return None;
        }
        self.differs(now, &path, found, word)
    }

    fn equal(&mut self, now: Timestamp, path: &str, found: Found) {
        let next = now.saturating_add(self.settings.interval).unwrap_or(now);
        self.schedule(path, next);
        let (Some(file), Found::Content(at_rest)) = (self.files.get_mut(path), found) else { return };
        let AtRest { tags, before, inode, .. } = *at_rest;
        let seen =
            Seen { at: now, size: before.size, modified: before.modified, changed: before.changed, inode };
        let was = file.entry.seen.replace(seen);
        if let Some(was) = was.as_ref().filter(|w| w.inode != inode) {
            self.by_inode.remove(&was.inode);
        }
        self.by_inode.insert(inode, path.to_owned());
        let said = file.entry.said.take();
        file.suspect = None;
        file.entry.from_ledger = false;
        self.tags = self.tags.saturating_sub(file.tags.whole.len()) + tags.whole.len();
        file.tags = tags;
        if said.is_some() || was.is_none_or(|w| now.duration_since(w.at) >= DAY) {
            self.persist(path);
        }
    }

    fn differs(&mut self, now: Timestamp, path: &str, found: Found, word: String) -> Option<Finding> {
        let (soon, later) = (self.soon(now), now.saturating_add(self.settings.interval).unwrap_or(now));
        let file = self.files.get_mut(path)?;
        let old = file.entry.from_ledger && file.entry.seen.is_none();
        if matches!(found, Found::Gone) && file.entry.seen.is_none() {
            // It was never there since we look: delivered, used and cleared away, as inboxes are.
            self.remove(path);
            return None;
        }
        if file.entry.said.as_ref() == Some(&word) {
            self.schedule(path, later);
            return None;
        }
        if file.suspect.as_ref() != Some(&word) {
            file.suspect = Some(word);
            self.schedule(path, soon);
            return None;
        }
        let finding = finding::changed(now, path, &file.entry, &file.tags, &found, old);
        if matches!(found, Found::Gone) {
            self.remove(path);
            return Some(finding);
        }
        file.entry.said = Some(word);
        self.schedule(path, later);
        self.persist(path);
        Some(finding)
    }

    /// Files that are looked after.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// None is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// No path is opted in.
    #[must_use]
    pub fn off(&self) -> bool {
        self.settings.paths.is_empty()
    }

    fn soon(&self, now: Timestamp) -> Timestamp {
        now.saturating_add(GRACE.min(self.settings.interval)).unwrap_or(now)
    }

    /// In place of what was known of that path.
    fn insert(&mut self, path: String, entry: Entry, due: Timestamp) {
        let epoch = self.files.get(&path).map_or(0, |f| f.epoch) + 1;
        self.drop_file(&path);
        if self.files.len() >= KEPT {
            let first = self.files.iter().min_by_key(|(_, f)| f.entry.delivered).map(|(p, _)| p.clone());
            if let Some(first) = first {
                self.remove(&first);
            }
        }
        self.due.insert((due, path.clone()));
        if let Some(seen) = &entry.seen {
            self.by_inode.insert(seen.inode, path.clone());
        }
        self.files.insert(path, File { entry, tags: Tags::default(), due, epoch, suspect: None });
    }

    fn schedule(&mut self, path: &str, due: Timestamp) {
        let Some(file) = self.files.get_mut(path) else { return };
        self.due.remove(&(file.due, path.to_owned()));
        file.due = due;
        self.due.insert((due, path.to_owned()));
    }

    fn remove(&mut self, path: &str) {
        self.drop_file(path);
        if let Some(memory) = &self.memory {
            memory.forget(path);
        }
    }

    fn drop_file(&mut self, path: &str) {
        if let Some(file) = self.files.remove(path) {
            self.due.remove(&(file.due, path.to_owned()));
            if let Some(seen) = file.entry.seen {
                self.by_inode.remove(&seen.inode);
            }
            self.tags = self.tags.saturating_sub(file.tags.whole.len());
        }
    }

    fn persist(&self, path: &str) {
        if let (Some(memory), Some(file)) = (&self.memory, self.files.get(path)) {
            memory.remember(path, &file.entry);
        }
    }
}

impl Settings {
    fn new(settings: &Integrity) -> Self {
        let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX / 2).max(1);
        Self {
            interval: SignedDuration::from_secs(seconds(settings.hash_check_interval)),
            // Transfers have paths with links resolved.
            paths: settings
                .hash_check_paths
                .iter()
                .flat_map(|p| [std::fs::canonicalize(p).unwrap_or_else(|_| p.clone()), p.clone()])
                .collect(),
            uncached: settings.hash_check_uncached,
        }
    }

    fn covers(&self, path: &str) -> bool {
        self.paths.iter().any(|p| Path::new(path).starts_with(p))
    }

    /// The folder that was opted in is there: else its file system is away, and its files are not gone.
    fn root_is_there(&self, path: &str) -> bool {
        let mut roots = self.paths.iter().filter(|p| Path::new(path).starts_with(p));
        roots.any(|p| p.exists() || Path::new(path) == p.as_path())
    }
}

/// The digest as alarms show it.
fn digest_words(at_rest: &AtRest) -> String {
    hex(&at_rest.sha256)
}
