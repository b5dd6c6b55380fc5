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
pub mod told;
mod walk;

use crate::assemble::pending::Value;
use crate::assemble::program::ArenaId;
use crate::config::Media;
use crate::content::Content;
use crate::host::facts::{Facts, Inode};
use crate::host::path_text;
use crate::judged::Judged;
use crate::model::{Class, Severity};
use crate::rest::User;
use crate::sensitive::Closed;
use crate::sensitive::lineage::{Lineage, Sending, World};
use crate::sensitive::origins::{Copy, Origins, Reading, Source};
use crate::sensitive::paths::Label;
use counterfoil_abi::record::Magic;
use look::{Looker, Seen};
use ran::{Ran, Tool};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

/// Beginnings of streams remembered while nobody reads a picture: each is looked at for each sending of a walk.
const LATELY: usize = 64;
/// Opens and beginnings of files and streams remembered.
const OPENS: usize = 4096;
/// Programs remembered.
const PROGRAMS: usize = 20_000;
/// Chains remembered, and what was seen of files.
const CHAINS: usize = 2048;
/// Between two looks, nanoseconds; more where they take long.
const LOOK_EVERY: u64 = 200_000_000;
/// How long it takes until a program's work with one picture can be told from its work with many.
const SETTLE: u64 = 10_000_000_000;
/// How late a program may be heard of.
const LATE: u64 = 2_000_000_000;
/// How long answers are waited for beyond that.
const ANSWERS: u64 = 2_000_000_000;
/// A script or program that was taken out of the picture.
const CAME_OUT: &str = "came out of it";

/// An open file, as it came.
struct Open {
    arena: ArenaId,
    pid: u32,
    number: u32,
    inode: Inode,
    time: u64,
    path: Vec<u8>,
    /// When it was closed, after bytes were read.
    read: Option<u64>,
}

/// A program, as far as this goes.
struct Doing {
    ran: Ran,
    exe: String,
    ppid: u32,
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
    opens: VecDeque<Open>,
    firsts: VecDeque<((ArenaId, u32), First)>,
    streams: VecDeque<(First, Sending)>,
    /// First blocks of media files, by the file that it began with.
    known: HashMap<First, Arc<str>>,
    roots: HashMap<Inode, Arc<str>>,
    doing: HashMap<ArenaId, Doing>,
    /// What programs of one parent and name read, each of them one or a few.
    batches: HashMap<(u32, String), HashSet<Arc<str>>>,
    said: HashMap<Arc<str>, Said>,
    scripts: HashMap<String, Option<Script>>,
    pictures: HashMap<String, Option<told::Link>>,
    shots: changed::Shots,
    looked: u64,
    took: u64,
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
            opens: VecDeque::new(),
            firsts: VecDeque::new(),
            streams: VecDeque::new(),
            known: HashMap::new(),
            roots: HashMap::new(),
            doing: HashMap::new(),
            batches: HashMap::new(),
            said: HashMap::new(),
            scripts: HashMap::new(),
            pictures: HashMap::new(),
            shots: changed::Shots::default(),
            looked: 0,
            took: 0,
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
        let doing = Doing {
            ran,
            exe: facts.process.exe.clone().unwrap_or_default(),
            ppid: facts.ppid,
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
    pub fn opened(
        &mut self,
        arena: ArenaId,
        pid: u32,
        number: u32,
        inode: Inode,
        time: u64,
        made_after: impl Fn(u64) -> bool,
    ) {
        if self.opens.len() >= OPENS {
            self.opens.pop_front();
        }
        self.opens.push_back(Open { arena, pid, number, inode, time, path: Vec::new(), read: None });
        if self.origins.copy(inode).is_some_and(|copy| made_after(copy.written)) {
            self.origins.overwritten(inode);
            self.roots.remove(&inode);
        }
        if let Some(copy) = self.origins.copy(inode) {
            let source = copy.source.clone();
            self.begin(arena, number, Some(source), false);
        }
    }

    /// What an open file is called. `made_after`: as for [`Self::opened`], when it may have been closed already.
    pub fn named(&mut self, arena: ArenaId, number: u32, path: &[u8], made_after: impl Fn(u64) -> bool) {
        let Some(open) = self.opens.iter_mut().rev().find(|o| o.arena == arena && o.number == number) else {
            return;
        };
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
        if !self.origins.copied(inode, copy) {
            return;
        }
        let since = self.opens.iter().filter(|o| o.inode == inode && o.time >= written);
        let since: Vec<_> = since.map(|o| (o.arena, o.number, o.read)).collect();
        for (arena, number, read) in since {
            if let Some(reading) = self.origins.of(arena, number) {
                // It was heard of before the copy was: it looked like a picture of its own.
                let own = reading.source.way.is_empty() && reading.source.path != source.path;
                if own {
                    let before = std::mem::replace(&mut reading.source, source.clone());
                    self.known.values_mut().filter(|root| **root == before.path).for_each(|root| {
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
        let Some(open) = self.opens.iter().rev().find(|o| o.arena == arena && o.number == number) else {
            return;
        };
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
        self.opens.retain(|o| (o.arena, o.number) != (arena, number) || closed.read.is_some());
        if let Some(open) = self.opens.iter_mut().rev().find(|o| (o.arena, o.number) == (arena, number)) {
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
            self.looked = 0;
        }
    }

    /// A file that is being read begins with this.
    pub fn read_first(&mut self, arena: ArenaId, number: u32, length: u32, tag: Value) {
        if self.firsts.len() >= OPENS {
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
        let root = reading.source.path.clone();
        let first = self.firsts.iter().rev().find(|(of, _)| *of == (arena, number));
        if let Some((_, first)) = first {
            self.known.insert(*first, root);
        }
    }

    /// A stream to somewhere else begins with this. Remembered even if no picture was read yet: its sender's lane may be
    /// read before the reader's.
    pub fn sent_first(&mut self, length: u32, tag: Value, sending: impl FnOnce() -> Option<Sending>) {
        let Some(sending) = sending() else { return };
        let most = if self.origins.quiet() { LATELY } else { OPENS };
        while self.streams.len() >= most {
            self.streams.pop_front();
        }
        self.streams.push_back(((length, tag), sending));
    }

    /// A stream to somewhere else carries a picture.
    pub fn sent_picture(
        &mut self,
        format: Magic,
        size: (u32, u32),
        sending: impl FnOnce() -> Option<Sending>,
    ) {
        if let Some(sending) = sending() {
            self.shots.sent(format, size, sending);
        }
    }

    /// Every lane was read.
    pub fn tick(&mut self, now: u64, lineage: &Lineage, world: &dyn World, out: &mut VecDeque<Judged>) {
        while let Some(seen) = self.looker.answer() {
            self.seen(seen);
        }
        if now.saturating_sub(self.tidied) > 1_000_000_000 {
            self.tidied = now;
            self.tidy(now.saturating_sub(self.window()), lineage);
        }
        if self.origins.quiet()
            || now.saturating_sub(self.looked) < LOOK_EVERY.max(self.took.saturating_mul(20))
        {
            return;
        }
        let before = crate::core::worked();
        self.walk(now, Turn::Usual, lineage, world, out);
        self.looked = now;
        self.took = crate::core::worked().saturating_sub(before);
    }

    /// Observation ends: nothing is waited for but what is being looked at, and that not for long.
    pub fn finish(&mut self, now: u64, lineage: &Lineage, world: &dyn World, out: &mut VecDeque<Judged>) {
        if self.origins.quiet() {
            return;
        }
        self.walk(now, Turn::Ask, lineage, world, out);
        let until = Instant::now() + Duration::from_nanos(ANSWERS);
        while let Some(seen) = self.looker.wait(until) {
            self.seen(seen);
        }
        self.walk(now, Turn::Last, lineage, world, out);
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
        self.doing.retain(|_, d| d.gone.is_none_or(|at| at >= before));
        self.streams.retain(|(_, s)| s.grew >= before);
        self.shots.forget_before(before);
        if self.origins.quiet() {
            self.said.clear();
            self.scripts.clear();
            self.pictures.clear();
            self.batches.clear();
            self.known.clear();
            self.roots.clear();
            self.shots.clear();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Who reads the copy is heard of before who made it.
    #[test]
    fn a_copy_that_is_heard_of_late() {
        let mut gallery = Gallery::new(Arc::new(RwLock::new(Media::default()))).unwrap();
        let inode = (1, 77);
        gallery.opened(2, 11, 6, inode, 200, |_| false);
        gallery.named(2, 6, b"/tmp/other.jpg", |_| false);
        assert_eq!(&*gallery.origins.of(2, 6).unwrap().source.path, "/tmp/other.jpg");
        gallery.read_first(2, 6, 1000, [7, 7]);
        let source = Source {
            path: "/tmp/cover.jpg".into(),
            label: gallery.label.clone(),
            owner: None,
            sha256: None,
            way: Arc::from([]),
            same: true,
        };
        gallery.came_of(inode, Copy { source, written: 100, made: true, modified: 0 });
        assert_eq!(&*gallery.origins.of(2, 6).unwrap().source.path, "/tmp/cover.jpg");
        assert!(gallery.known.values().all(|root| &**root == "/tmp/cover.jpg") && gallery.known.len() == 1);
    }

    #[test]
    fn what_has_the_inode_of_a_copy_that_is_gone_did_not_come_of_it() {
        let mut gallery = Gallery::new(Arc::new(RwLock::new(Media::default()))).unwrap();
        let source = Source {
            path: "cover.jpg".into(),
            label: gallery.label.clone(),
            owner: None,
            sha256: None,
            way: Arc::from([]),
            same: true,
        };
        let (inode, copied) = ((1, 77), Copy { source, written: 100, made: true, modified: 0 });
        gallery.came_of(inode, copied);
        gallery.opened(1, 10, 5, inode, 200, |moment| moment < 50);
        assert!(gallery.origins.of(1, 5).is_some(), "the copy");
        gallery.opened(2, 11, 6, inode, 300, |moment| moment < 250);
        assert!(gallery.origins.of(2, 6).is_none(), "made after the copy was");
        gallery.opened(3, 12, 7, inode, 400, |_| false);
        assert!(gallery.origins.of(3, 7).is_none(), "and the copy is forgotten");
    }
}
