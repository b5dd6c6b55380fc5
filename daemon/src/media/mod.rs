//! Media files: who read them, with which tools, what came of that, and where it went (AN0332).
//!
//! ```text
//! classes, names ─► readings ─┐
//! programs ─► ran ────────────┼─► walk ─► chain ─► Notice: Media
//! lineage (who gave, started, ┘      ▲
//!          wrote, sent)            look (a thread)
//! ```
//! Comes in: what the assembler sees of files, programs and connections, and the trail's [`Lineage`]. Goes out: one notice
//! for each media file with which something was done that is no ordinary work, and again when more of it is known.
//! While nobody reads a media file, nothing is looked for.
//!
//! A media file is known by its content where it was seen to pass; where it was not (stdio, mappings, what the kernel
//! copies), by its name.
#![forbid(unsafe_code)]

mod chain;
mod changed;
mod look;
mod ordinary;
pub mod picture;
pub mod ran;
mod round;
#[cfg(test)]
mod tests;
pub mod told;
mod walk;
mod ways;

use crate::assemble::pending::Value;
use crate::assemble::program::ArenaId;
use crate::config::Media;
use crate::content::Content;
use crate::host::facts::{Facts, Inode};
use crate::host::path_text;
use crate::judged::Judged;
use crate::model::{Class, Severity};
use crate::pace::{Pace, Slice};
use crate::rest::User;
use crate::sensitive::Closed;
use crate::sensitive::lineage::{Asked, Lineage, Sending};
use crate::sensitive::opens::{Open, Opens};
use crate::sensitive::origins::{Copy, Origins, Reading, Source};
use crate::sensitive::paths::Label;
use counterfoil_abi::record::Magic;
use look::{Looker, Seen};
use ran::{Ran, Tool};
use round::Round;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};
use ways::Ways;

/// Beginnings of files remembered.
const FIRSTS: usize = 4096;
/// Programs remembered.
const PROGRAMS: usize = 20_000;
/// Chains remembered, and what was seen of files.
const CHAINS: usize = 2048;
/// Between two looks, nanoseconds.
const LOOK_EVERY: u64 = 200_000_000;
/// How long it takes until a program's work with one picture can be told from its work with many.
const SETTLE: u64 = 10_000_000_000;
/// How late a program may be heard of.
const LATE: u64 = 2_000_000_000;
/// How long answers are waited for beyond that.
const ANSWERS: u64 = 2_000_000_000;
/// A script or program that was taken out of the picture.
const CAME_OUT: &str = "came out of it";

/// A program, as far as this goes.
struct Doing {
    ran: Ran,
    exe: String,
    /// Its parent and name: who works through a library may do it by a program for each picture.
    batch: (u32, Arc<str>),
    born: u64,
    gone: Option<u64>,
    /// Different media files that it read.
    media: HashSet<Arc<str>>,
    user: Option<User>,
    /// Libraries for pictures that it has loaded: [`counterfoil_abi::images::LIBRARIES`].
    libraries: u32,
}

/// A script's text and age.
struct Script {
    text: Vec<u8>,
    changed: Option<u64>,
}

/// What has been said of a media file, and when more can be.
#[derive(Default)]
struct Said {
    /// When it was first read.
    since: u64,
    class: Option<Class>,
    said: BTreeSet<chain::Kind>,
    asked: bool,
}

/// What a walk is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// To say what has settled.
    Usual,
    /// To ask what is needed to say the last.
    Ask,
    /// To say the last.
    Last,
}

/// First block of a file or stream: its length and tag.
type First = (u32, Value);

/// See the module's text.
pub struct Gallery {
    media: Arc<RwLock<Media>>,
    looker: Looker,
    label: Arc<Label>,
    origins: Origins,
    opens: Opens,
    firsts: VecDeque<((ArenaId, u32), First)>,
    /// What streams to somewhere else begin with.
    streams: Ways<First>,
    /// First blocks of media files: by the file that it began with, and when that was read.
    known: HashMap<First, (Arc<str>, u64)>,
    roots: HashMap<Inode, Arc<str>>,
    doing: HashMap<ArenaId, Doing>,
    /// Who runs a file, as its program or script.
    runs: HashMap<String, Vec<ArenaId>>,
    /// What programs of one parent and name read, each of them one or a few.
    batches: HashMap<(u32, Arc<str>), HashSet<Arc<str>>>,
    said: HashMap<Arc<str>, Said>,
    scripts: HashMap<String, Option<Script>>,
    pictures: HashMap<String, Option<told::Link>>,
    shots: changed::Shots,
    /// As far as the last walk came.
    round: Option<Round>,
    pace: Pace,
    tidied: u64,
}

impl Gallery {
    /// An empty one.
    ///
    /// # Errors
    /// No thread.
    pub fn new(media: Arc<RwLock<Media>>) -> std::io::Result<Self> {
        Ok(Self {
            media,
            looker: Looker::start()?,
            label: Arc::new(Label { name: "media".into(), severity: Severity::Critical }),
            origins: Origins::default(),
            opens: Opens::default(),
            firsts: VecDeque::new(),
            streams: Ways::default(),
            known: HashMap::new(),
            roots: HashMap::new(),
            doing: HashMap::new(),
            runs: HashMap::new(),
            batches: HashMap::new(),
            said: HashMap::new(),
            scripts: HashMap::new(),
            pictures: HashMap::new(),
            shots: changed::Shots::default(),
            round: None,
            pace: Pace::new(LOOK_EVERY),
            tidied: 0,
        })
    }

    fn settings(&self) -> std::sync::RwLockReadGuard<'_, Media> {
        self.media.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn window(&self) -> u64 {
        u64::try_from(self.settings().time_window.as_nanos()).unwrap_or(u64::MAX)
    }

    /// A program said hello.
    pub fn came(&mut self, arena: ArenaId, facts: &Facts, now: u64) {
        if self.doing.len() >= PROGRAMS {
            return;
        }
        let ran = ran::ran(&facts.process, &facts.arguments, &self.settings());
        let exe = facts.process.exe.clone().unwrap_or_default();
        for path in BTreeSet::from([exe.as_str(), ran.script().unwrap_or_default()]) {
            // Of a file without a name nobody knows that it was run.
            if path.is_empty() {
                continue;
            }
            self.runs.entry(path.to_owned()).or_default().push(arena);
        }
        let batch = (facts.ppid, ran.name.as_str().into());
        let doing = Doing {
            ran,
            exe,
            batch,
            born: now,
            gone: None,
            media: HashSet::new(),
            user: facts.rights.clone(),
            libraries: 0,
        };
        self.doing.insert(arena, doing);
    }

    /// It has libraries for pictures loaded: a bit for each.
    pub fn loaded(&mut self, arena: ArenaId, libraries: u32) {
        if let Some(doing) = self.doing.get_mut(&arena) {
            doing.libraries |= libraries;
        }
    }

    /// It is gone.
    pub fn gone(&mut self, arena: ArenaId, now: u64) {
        if let Some(doing) = self.doing.get_mut(&arena) {
            doing.gone = Some(now);
        }
    }

    /// A file was opened. `made_after`: it was made after that moment, so it isn't what had its inode then.
    pub fn opened(&mut self, open: Open, made_after: impl Fn(u64) -> bool) {
        let Open { arena, number, inode, time, empty_at, .. } = open;
        self.opens.put(open);
        if empty_at != 0 {
            self.origins.was_empty(inode, empty_at);
            self.roots.remove(&inode);
        }
        if self.origins.copy_at(inode, time).is_some_and(|copy| made_after(copy.written)) {
            self.origins.overwritten(inode);
            self.roots.remove(&inode);
        }
        if let Some(copy) = self.origins.copy_at(inode, time) {
            let source = copy.source.clone();
            self.begin(arena, number, Some(source), false);
        }
    }

    /// What an open file is called. `made_after`: as for [`Self::opened`], when it may have been closed already.
    pub fn named(&mut self, arena: ArenaId, number: u32, path: &[u8], made_after: impl Fn(u64) -> bool) {
        let Some(open) = self.opens.get_mut(arena, number) else { return };
        open.path = path.to_vec();
        let text = path_text(path);
        if let Some(reading) = self.origins.of(arena, number) {
            reading.opened_as = text.clone();
            let (inode, copy) = (reading.inode, !reading.source.way.is_empty());
            let another = copy && self.origins.copy(inode).is_some_and(|copy| made_after(copy.written));
            if !another {
                return;
            }
            self.origins.overwritten(inode);
            self.origins.drop_reading(arena, number);
        }
        // What steghide or stegsnow work on is of interest, whatever it is.
        let tool = self.doing.get(&arena).is_some_and(|d| d.ran.tool == Some(Tool::Hides));
        if picture::named(&text) || tool && !ordinary::system(&text) {
            self.begin(arena, number, None, false);
        }
    }

    /// What kind of content passed from an open file.
    pub fn read(&mut self, arena: ArenaId, number: u32, content: Content) {
        if content.class != Class::Media {
            return;
        }
        if let Some(reading) = self.origins.of(arena, number) {
            reading.sure = true;
        } else {
            self.begin(arena, number, None, true);
        }
        if let Some(reading) = self.origins.of(arena, number) {
            let root = reading.source.path.clone();
            if reading.source.way.is_empty() {
                self.said.entry(root).or_default().class = Some(content.class);
            }
        }
    }

    /// A file came of a media file: who has opened it meanwhile has read that.
    fn came_of(&mut self, inode: Inode, copy: Copy) {
        let (source, written) = (copy.source.clone(), copy.written);
        let until = self.opens.empty_after(written, inode);
        if !self.origins.copied(inode, Copy { until, ..copy }) {
            return;
        }
        let since = self.opens.of(inode).filter(|o| (written..until).contains(&o.time));
        let since: Vec<_> = since.map(|o| (o.arena, o.number, o.read)).collect();
        for (arena, number, read) in since {
            if let Some(reading) = self.origins.of(arena, number) {
                // It was heard of before the copy was: it looked like a picture of its own.
                let own = reading.source.way.is_empty() && reading.source.path != source.path;
                if own {
                    let before = std::mem::replace(&mut reading.source, source.clone());
                    self.known.values_mut().filter(|(root, _)| *root == before.path).for_each(|(root, _)| {
                        *root = source.path.clone();
                    });
                }
                continue;
            }
            self.begin(arena, number, Some(source.clone()), false);
            if let Some(last) = read {
                self.origins.closed(arena, number, last, true);
            }
        }
    }

    /// Somebody opened a media file, or what came of one.
    fn begin(&mut self, arena: ArenaId, number: u32, source: Option<Source>, sure: bool) {
        let Some(open) = self.opens.get(arena, number) else { return };
        let name = path_text(&open.path);
        let (pid, inode, time) = (open.pid, open.inode, open.time);
        if name.is_empty() && source.is_none() {
            return;
        }
        let source = source.unwrap_or_else(|| {
            let path = self.roots.entry(inode).or_insert_with(|| name.as_str().into()).clone();
            let way = Arc::from([]);
            Source { path, label: self.label.clone(), owner: None, sha256: None, way, same: true }
        });
        let opened_as = if name.is_empty() { source.path.to_string() } else { name };
        let reading = Reading {
            arena,
            pid,
            opened_as,
            inode,
            source,
            since: time,
            last: time,
            open: HashSet::new(),
            sure,
            excused: false,
            told: HashSet::new(),
        };
        self.origins.read(number, reading);
        self.know(arena, number);
    }

    /// A file was closed.
    pub fn closed(&mut self, closed: &Closed) {
        let (arena, number) = (closed.arena, closed.number);
        if closed.read == Some(None)
            && let Some(born) = self.doing.get(&arena).map(|d| d.born)
            && let Some(reading) = self.origins.of(arena, number)
        {
            // Through stdio, or mapped: when it was opened is told when it is closed, and that its program came may
            // have been heard late.
            reading.since = reading.since.min(born.saturating_sub(LATE));
        }
        self.shot(closed);
        self.origins.closed(arena, number, closed.last, closed.read.is_some());
        // What was read may yet turn out to have come of a media file.
        if closed.read.is_none() {
            self.opens.remove(arena, number);
        } else if let Some(open) = self.opens.get_mut(arena, number) {
            open.read = Some(closed.last);
        }
        if let Some(wrote) = &closed.wrote
            && wrote.made
            && self.origins.copy(wrote.inode).is_some_and(|c| c.modified != wrote.modified)
        {
            // Other content by now; what it comes from shows when its writer is looked at.
            self.origins.overwritten(wrote.inode);
        }
        if closed.wrote.is_some() {
            self.roots.remove(&closed.inode);
            self.pictures.remove(&path_text(&closed.path));
            self.pace.news();
        }
    }

    /// A file that is being read begins with this.
    pub fn read_first(&mut self, arena: ArenaId, number: u32, length: u32, tag: Value) {
        if self.firsts.len() >= FIRSTS {
            self.firsts.pop_front();
        }
        self.firsts.push_back(((arena, number), (length, tag)));
        self.know(arena, number);
    }

    /// What a media file begins with, if it is one that is open.
    fn know(&mut self, arena: ArenaId, number: u32) {
        let Some(reading) = self.origins.of(arena, number).filter(|r| r.source.way.is_empty()) else {
            return;
        };
        let read = (reading.source.path.clone(), reading.since);
        let first = self.firsts.iter().rev().find(|(of, _)| *of == (arena, number));
        if let Some((_, first)) = first {
            self.known.insert(*first, read);
        }
    }

    /// A stream to somewhere else begins with this. Remembered even if no picture was read yet: its sender's lane may be
    /// read before the reader's.
    pub fn sent_first(&mut self, length: u32, tag: Value, sending: &Sending) {
        self.streams.put((length, tag), sending);
    }

    /// A stream to somewhere else carries a picture.
    pub fn sent_picture(
        &mut self,
        format: Magic,
        size: (u32, u32),
        sending: impl FnOnce() -> Option<Sending>,
    ) {
        if let Some(sending) = sending() {
            self.shots.sent(format, size, &sending);
        }
    }

    /// Every lane was read.
    pub fn tick(&mut self, now: u64, lineage: &Lineage, asked: &mut Asked<'_>, out: &mut VecDeque<Judged>) {
        while let Some(seen) = self.looker.answer() {
            self.seen(seen);
        }
        if now.saturating_sub(self.tidied) > 1_000_000_000 {
            self.tidied = now;
            self.tidy(now.saturating_sub(self.window()), lineage);
        }
        if self.origins.quiet() || !self.pace.due(now) {
            return;
        }
        let slice = self.pace.begin();
        let all = self.walk(now, Turn::Usual, lineage, asked, &slice, out);
        self.pace.end(now, &slice, all);
    }

    /// Observation ends: nothing is waited for but what is being looked at, and that not for long.
    pub fn finish(&mut self, now: u64, lineage: &Lineage, asked: &mut Asked<'_>, out: &mut VecDeque<Judged>) {
        if self.origins.quiet() {
            return;
        }
        let mut all = self.walk(now, Turn::Ask, lineage, asked, &Slice::last(), out);
        let until = Instant::now() + Duration::from_nanos(ANSWERS);
        while let Some(seen) = self.looker.wait(until) {
            self.seen(seen);
        }
        all &= self.walk(now, Turn::Last, lineage, asked, &Slice::last(), out);
        if !all {
            tracing::warn!(
                "there was more to follow of what pictures were read than there was time for at the end"
            );
        }
    }

    fn seen(&mut self, seen: Seen) {
        match seen {
            Seen::Script { path, text, changed } => {
                self.scripts.insert(path, Some(Script { text, changed }));
            }
            Seen::Picture { path, behind, content, shot } => {
                if let Some(shot) = shot {
                    self.shots.found(&path, shot);
                }
                let tolerated = self.settings().mime_header_mismatch_tolerance;
                let behind = behind.filter(|b| b.bytes > tolerated || b.magic.is_some());
                let link = (behind.is_some() || content.is_some()).then(|| told::Link::Mismatch {
                    path: path.clone(),
                    behind,
                    content,
                });
                self.pictures.insert(path, link);
            }
        }
    }

    fn tidy(&mut self, before: u64, lineage: &Lineage) {
        self.origins.forget_before(before, |arena| lineage.is_gone(arena));
        let programs = self.doing.len();
        self.doing.retain(|_, d| d.gone.is_none_or(|at| at >= before));
        if self.doing.len() < programs {
            let doing = &self.doing;
            self.runs.retain(|_, who| {
                who.retain(|arena| doing.contains_key(arena));
                !who.is_empty()
            });
        }
        self.streams.forget_before(before);
        self.known.retain(|_, (_, since)| *since >= before);
        self.shots.forget_before(before);
        if self.origins.quiet() {
            self.said.clear();
            self.scripts.clear();
            self.pictures.clear();
            self.batches.clear();
            self.known.clear();
            self.roots.clear();
            self.shots.clear();
            self.round = None;
        }
        for full in [self.said.len(), self.pictures.len(), self.scripts.len(), self.batches.len()] {
            if full > CHAINS {
                self.said.clear();
                self.pictures.clear();
                self.scripts.clear();
                self.batches.clear();
            }
        }
        if self.known.len() > CHAINS || self.roots.len() > 4 * CHAINS {
            self.known.clear();
            self.roots.clear();
        }
    }
}
