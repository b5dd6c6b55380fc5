//! `workflow-changed`: the files that watched services go by, and who changed one.
//!
//! Comes in: programs that were observed, what processes do to files, and the time. Goes out: [`Finding`]s. Called by
//! [`watcher`], on a thread of its own. [`places`] says which files; each is known by its digest, which is kept in
//! the ledger, so that a change while no daemon ran is found, too.
//!
//! Quiet by construction: a place is first learnt, then watched; a file counts as changed when its content is
//! another one and has been at rest for a moment; what a package brings is said as that.

mod finding;
mod learn;
mod packages;
mod places;
#[cfg(test)]
mod tests;
pub mod watcher;
mod witness;

use crate::config::Watch;
use crate::host::facts::Facts;
use crate::ledger::Memory;
use crate::model::{Finding, Process};
use crate::rest::{self, Ask, Refusal, User};
use jiff::{SignedDuration, Timestamp};
use places::{Place, Places, What};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The stage's name in the ledger.
pub const KIND: &str = "workflow";
/// A file is looked into when nobody has written to it for so long …
const REST: SignedDuration = SignedDuration::from_secs(2);
/// … or after this, if somebody never stops.
const RESTLESS: SignedDuration = SignedDuration::from_mins(2);
/// Deeds that are remembered, and how long.
const DEEDS: usize = 4096;
const MEMORY: SignedDuration = SignedDuration::from_mins(15);
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Bytes of a file that are read: configuration is shorter, a provider, too.
const LONGEST: u64 = 64 << 20;

/// What is known.
pub struct Workflow {
    places: Places,
    files: HashMap<PathBuf, Known>,
    /// Patterns whose files were learnt: a further file is new from then on.
    patterns: HashSet<String>,
    deeds: VecDeque<Done>,
    memory: Option<Memory>,
    root: PathBuf,
    /// The latest look.
    looked: Option<Timestamp>,
    /// The files of that, and their names in text.
    listed: Vec<PathBuf>,
    names: HashSet<String>,
    /// When all was last written into the ledger anew: it forgets what is old.
    refreshed: Option<Timestamp>,
}

/// A file as it was last seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    /// None: it is not there.
    sha256: Option<String>,
    mark: Option<Mark>,
    /// When it was last found to be so.
    checked: Timestamp,
    /// It looks otherwise since then.
    #[serde(skip)]
    restless: Option<Timestamp>,
    /// A job that starts watched programs.
    #[serde(default)]
    ours: bool,
}

/// In place of a digest, of a file that its user may not read.
const UNREADABLE: &str = "unreadable";

/// What changes whenever a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    inode: (u64, u64),
    size: u64,
    modified: i128,
    changed: i128,
}

impl Mark {
    fn of(path: &Path) -> Option<Self> {
        let m = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        let nanos = |s: i64, n: i64| i128::from(s) * 1_000_000_000 + i128::from(n);
        Some(Self {
            inode: (m.dev(), m.ino()),
            size: m.size(),
            modified: nanos(m.mtime(), m.mtime_nsec()),
            changed: nanos(m.ctime(), m.ctime_nsec()),
        })
    }
}

/// Somebody wrote to a file.
#[derive(Clone, Debug)]
pub struct Done {
    /// When.
    pub at: Timestamp,
    /// The file's name then.
    pub path: String,
    /// Device and inode: a file that was written under another name and then renamed is found by it.
    pub inode: Option<(u64, u64)>,
    /// Who.
    pub process: Process,
}

/// A file that is another one than it was.
struct Change<'a> {
    place: &'a Place,
    path: &'a Path,
    was: Known,
    now: Option<(String, Mark)>,
    by: Option<Process>,
    package: Option<String>,
}

impl Workflow {
    /// What an earlier daemon knew, below `root` (`/`, but for tests).
    #[must_use]
    pub fn new(watch: &Watch, root: &Path, recalled: Vec<(String, String)>, memory: Option<Memory>) -> Self {
        let mut workflow = Self {
            places: Places::new(watch, root),
            files: HashMap::new(),
            patterns: HashSet::new(),
            deeds: VecDeque::new(),
            memory,
            root: root.to_owned(),
            looked: None,
            listed: Vec::new(),
            names: HashSet::new(),
            refreshed: None,
        };
        for (key, json) in recalled {
            match key.split_once(' ') {
                Some(("pattern", pattern)) => drop(workflow.patterns.insert(pattern.to_owned())),
                Some(("learnt", path)) => {
                    if let Ok(place) = serde_json::from_str(&json) {
                        workflow.places.learn(PathBuf::from(path), place);
                    }
                }
                Some(("file", path)) => {
                    if let Ok(known) = serde_json::from_str::<Known>(&json) {
                        workflow.files.insert(path.into(), known);
                    }
                }
                _ => {}
            }
        }
        workflow
    }

    /// Other settings, after a reload.
    pub fn reload(&mut self, watch: &Watch) {
        self.places.reload(watch);
    }

    /// A watched program said hello: its unit, and the scripts above it, are places from now on.
    pub fn program(&mut self, facts: &Facts, of: impl Fn(u32) -> Option<Facts>) {
        if !self.places.watches(facts.process.exe.as_deref()) {
            return;
        }
        for (path, place) in learn::from(facts, of) {
            if self.places.learn(path.clone(), place.clone())
                && let (Some(memory), Some(path)) = (&self.memory, path.to_str())
            {
                memory.remember(&format!("learnt {path}"), &place);
            }
        }
    }

    /// Somebody wrote to a file.
    pub fn done(&mut self, done: Done) {
        while self.deeds.len() >= DEEDS
            || self.deeds.front().is_some_and(|d| done.at.duration_since(d.at) > MEMORY)
        {
            self.deeds.pop_front();
        }
        self.deeds.push_back(done);
    }

    /// Folders in which a change is worth hearing of, as of the latest look.
    #[must_use]
    pub fn folders(&self) -> HashSet<PathBuf> {
        let of = |path: &PathBuf| Some(std::fs::canonicalize(path).ok()?.parent()?.to_owned());
        // Of patterns, too: a folder may be empty yet.
        self.listed
            .iter()
            .filter_map(of)
            .chain(self.patterns.iter().flat_map(|p| places::folders(p)))
            .collect()
    }

    /// Looks at every file. True: one was written to just now, so come again soon.
    pub fn look(&mut self, now: Timestamp) -> (Vec<Finding>, bool) {
        let (listed, patterns) = self.places.list();
        let mut found = Vec::new();
        let mut soon = false;
        for (path, place) in &listed {
            let new_here = !self.patterns.contains(&place.pattern);
            soon |= self.file(now, path, place, new_here, &mut found);
        }
        let gone: Vec<(PathBuf, Place)> = self
            .files
            .iter()
            .filter(|(path, known)| known.sha256.is_some() && !listed.contains_key(*path))
            .filter_map(|(path, _)| Some((path.clone(), self.places.of(path)?)))
            .collect();
        for (path, place) in gone {
            soon |= self.file(now, &path, &place, false, &mut found);
        }
        for pattern in patterns {
            if self.patterns.insert(pattern.clone())
                && let Some(memory) = &self.memory
            {
                memory.remember(&format!("pattern {pattern}"), &());
            }
        }
        self.looked = Some(now);
        self.refresh(now);
        self.listed = listed.keys().cloned().collect();
        self.names = listed.keys().map(|p| crate::host::facts::path_text(p.as_os_str().as_bytes())).collect();
        (found, soon)
    }

    /// A file of a workflow was written: a look is worth while.
    #[must_use]
    pub fn concerns(&self, done: &Done) -> bool {
        self.names.contains(&done.path)
    }

    /// True: come again soon.
    fn file(
        &mut self,
        now: Timestamp,
        path: &Path,
        place: &Place,
        new_here: bool,
        found: &mut Vec<Finding>,
    ) -> bool {
        let mark = Mark::of(path);
        let checked = self.looked.unwrap_or(now);
        let fresh = Known { sha256: None, mark: None, checked, restless: None, ours: false };
        let first = !self.files.contains_key(path);
        let known = self.files.entry(path.to_owned()).or_insert(fresh);
        if !first && known.mark == mark {
            known.restless = None;
            known.checked = now;
            return false;
        }
        let learning = first && new_here;
        let since = *known.restless.get_or_insert(now);
        let young = |m: Mark| now.as_nanosecond().saturating_sub(m.changed.max(m.modified)) < REST.as_nanos();
        let moving = match mark {
            Some(mark) => young(mark) && now.duration_since(since) < RESTLESS,
            // Editors move the old file away before the new one is there.
            None => now.duration_since(since) < REST,
        };
        if moving && !learning {
            return true;
        }
        if mark.is_none() && place.what == What::Script {
            // It starts nothing while it is away; when it comes back it is compared with what it was.
            known.mark = None;
            return false;
        }
        let digest = match mark.map(|_| digest(path, place.user.as_ref())) {
            None => None,
            Some(Ok(digest)) => Some(digest),
            Some(Err(Refusal::Gone)) => return true,
            Some(Err(why)) => {
                tracing::debug!("{} can't be looked into: {why}", path.display());
                Some(UNREADABLE.to_owned())
            }
        };
        let ours = place.ours(path);
        let is = Known { sha256: digest.clone(), mark, checked: now, restless: None, ours };
        let was = std::mem::replace(known, is);
        self.persist(path);
        let unreadable = |d: &Option<String>| d.as_deref() == Some(UNREADABLE);
        if learning || was.sha256 == digest || unreadable(&was.sha256) || unreadable(&digest) {
            return false;
        }
        if !place.matters(was.ours || ours) {
            return false;
        }
        let change = Change {
            place,
            path,
            by: self.who(path, mark, was.checked),
            package: None,
            now: digest.zip(mark),
            was,
        };
        // No package brings what is in a home, and it is not read with our rights.
        let package = match place.user {
            Some(_) => None,
            None => packages::brought(&self.root, path, change.by.as_ref()),
        };
        found.push(finding::changed(now, &Change { package, ..change }));
        false
    }

    /// Who wrote to it last, as far as that was seen.
    fn who(&self, path: &Path, mark: Option<Mark>, since: Timestamp) -> Option<Process> {
        let resolved = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let names =
            [path, resolved.as_path()].map(|p| crate::host::facts::path_text(p.as_os_str().as_bytes()));
        let inode = mark.map(|m| m.inode);
        let mine = |d: &&Done| names.contains(&d.path) || (inode.is_some() && d.inode == inode);
        // A deed may be told a moment before the look that it was too late for.
        let from = since.saturating_sub(REST).unwrap_or(since);
        self.deeds.iter().rev().filter(|d| d.at >= from).find(mine).map(|d| d.process.clone())
    }

    fn refresh(&mut self, now: Timestamp) {
        let fresh = self.refreshed.get_or_insert(now);
        let Some(memory) = self.memory.as_ref().filter(|_| now.duration_since(*fresh) >= DAY) else { return };
        *fresh = now;
        self.patterns.iter().for_each(|p| memory.remember(&format!("pattern {p}"), &()));
        for (path, place) in self.places.learnt() {
            if let Some(path) = path.to_str() {
                memory.remember(&format!("learnt {path}"), place);
            }
        }
        self.files.keys().for_each(|path| self.persist(path));
    }

    fn persist(&self, path: &Path) {
        if let (Some(memory), Some(known), Some(name)) = (&self.memory, self.files.get(path), path.to_str()) {
            memory.remember(&format!("file {name}"), known);
        }
    }

    #[cfg(test)]
    fn known(&self) -> BTreeMap<&Path, &Known> {
        self.files.iter().map(|(p, k)| (p.as_path(), k)).collect()
    }
}

/// What is in it, read with its owner's rights where a user chose what the name leads to.
fn digest(path: &Path, user: Option<&User>) -> Result<String, Refusal> {
    let resolved = std::fs::canonicalize(path)?;
    let ask = Ask {
        id: 0,
        path: resolved.as_os_str().as_bytes().to_vec(),
        inode: None,
        user: user.cloned().unwrap_or_else(User::me),
        upto: LONGEST,
        prefix: None,
        tags: false,
        uncached: false,
    };
    let found = rest::once(&ask)?;
    Ok(found.sha256.iter().map(|b| format!("{b:02x}")).collect())
}

/// What stands in the ledger for a place that was learnt.
type Listed = BTreeMap<PathBuf, Place>;
