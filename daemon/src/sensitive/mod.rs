//! Sensitive files: which they are, who read them, where their content went.
//!
//! ```text
//! [egress] ─► paths ─► known (a thread) ──┐
//!                                         ├─► Trail ─► Notice: SensitiveEgress
//! opens ─► origins; who gave, started, ───┘
//!          wrote, sent ─► lineage
//! ```
//! Comes in: what the assembler sees of files, programs and connections, and its tables ([`World`](lineage::World)). Goes out: notices
//! that a sensitive file left: its content was seen on a connection, or a process that had read it, or got bytes from
//! one that did, sent something. The core's thread calls [`Trail`]; while nobody reads anything sensitive, nothing is
//! looked for.
#![deny(unsafe_code)]

pub mod boards;
mod defaults;
mod firsts;
mod folders;
pub mod index;
pub mod known;
pub mod lineage;
#[expect(unsafe_code, reason = "shared memory")]
pub mod memory;
pub mod opens;
pub mod origins;
pub mod paths;
pub mod readers;
mod seen;
mod setup;
#[cfg(test)]
mod tests;
pub mod told;
mod walk;

use crate::assemble::program::ArenaId;
use crate::content::Content;
use crate::host::facts::{Facts, Inode, Proc};
use crate::host::path_text;
use crate::judged::Judged;
use crate::model::Process;
use crate::pace::{Pace, Slice};
use known::{Known, Secret};
use lineage::{Asked, Lineage, Sending, Wrote};
use opens::{Open, Opens};
use origins::{Copy, Origins, Reading, Source};
use readers::Readers;
pub use setup::Setup;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::hash::RandomState;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// Between two looks, nanoseconds.
const LOOK_EVERY: u64 = 10_000_000;
/// How long what ended is remembered while nobody reads anything sensitive: records come in any order.
const SHORT: u64 = 5_000_000_000;
/// What was told, remembered.
const TOLD: usize = 4096;

/// A file was closed, or read at rest.
#[derive(Clone, Debug)]
pub struct Closed {
    /// Whose.
    pub arena: ArenaId,
    /// Its number there.
    pub number: u32,
    /// Process id as the daemon counts it.
    pub pid: u32,
    /// When, monotonic nanoseconds.
    pub last: u64,
    /// Bytes were read; their SHA-256, where known.
    pub read: Option<Option<[u8; 32]>>,
    /// Bytes were written.
    pub wrote: Option<Wrote>,
    /// What kind of content was read, where it passed the library.
    pub read_content: Option<Content>,
    /// What kind of content was written.
    pub wrote_content: Option<Content>,
    /// Which.
    pub inode: Inode,
    /// Its name.
    pub path: Vec<u8>,
}

/// The trail of sensitive files.
pub struct Trail {
    known: Arc<Known>,
    readers: Arc<RwLock<(Readers, Duration)>>,
    proc: Arc<dyn Proc>,
    lineage: Lineage,
    origins: Origins,
    opens: Opens,
    first: firsts::Firsts,
    seen: seen::SeenContent,
    /// What was said, and on what ground.
    told: HashMap<String, u8>,
    /// Makes few bytes of what each reading was said to have led to.
    keyed: RandomState,
    /// Programs that are to be looked at closely, and those that are not any more.
    pub turned: Vec<(ArenaId, bool)>,
    up: HashMap<ArenaId, u64>,
    /// The reading with which the next walk goes on.
    next: u64,
    pace: Pace,
    tidied: u64,
}

impl Trail {
    /// A new one. `clock_offset`: the realtime clock less the monotonic one.
    #[must_use]
    pub fn new(setup: &Setup, proc: Arc<dyn Proc>, clock_offset: i128) -> Self {
        Self {
            known: setup.known.clone(),
            readers: setup.readers.clone(),
            proc,
            lineage: Lineage::new(clock_offset),
            origins: Origins::default(),
            opens: Opens::default(),
            first: firsts::Firsts::default(),
            seen: seen::SeenContent::default(),
            told: HashMap::new(),
            keyed: RandomState::new(),
            turned: Vec::new(),
            up: HashMap::new(),
            next: 0,
            pace: Pace::new(LOOK_EVERY),
            tidied: 0,
        }
    }

    /// A program said hello, at that time.
    pub fn came(&mut self, arena: ArenaId, facts: &Arc<Facts>, since: u64) {
        let parent = self.lineage.came(arena, facts, since);
        if let Some(until) = parent.and_then(|p| self.up.get(&p).copied()) {
            self.turn_up(arena, until);
        }
    }

    /// Looks at a program closely: fingerprints of all that it sends, tags of what it reads and writes.
    fn turn_up(&mut self, arena: ArenaId, until: u64) {
        if self.up.insert(arena, until).is_none() {
            self.turned.push((arena, true));
        }
    }

    /// Is it looked at closely?
    #[must_use]
    pub fn is_up(&self, arena: ArenaId) -> bool {
        self.up.contains_key(&arena)
    }

    /// Those of whose reading nothing came are as all others again.
    fn turn_down(&mut self, now: u64) {
        let Self { up, turned, .. } = self;
        up.retain(|&arena, until| {
            if *until < now {
                turned.push((arena, false));
            }
            *until >= now
        });
    }

    /// Who gave, started, wrote and sent what.
    #[must_use]
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// It forked, at that time.
    pub fn forked(&mut self, arena: ArenaId, pid: u32, time: u64) {
        if let Some(image) = self.lineage.forked(arena, pid, time)
            && let Some(until) = self.up.get(&arena).copied()
        {
            self.turn_up(image, until);
        }
    }

    /// It is gone.
    pub fn gone(&mut self, arena: ArenaId, now: u64) {
        self.lineage.gone(arena, now);
    }

    /// A transfer between two programs is over.
    pub fn gave(&mut self, from: ArenaId, given: lineage::Given) {
        self.lineage.gave(from, given);
    }

    /// A connection is over.
    pub fn sent(&mut self, from: ArenaId, sending: Sending) {
        self.lineage.sent(from, sending);
    }

    /// A file was opened.
    pub fn opened(&mut self, open: Open) {
        let place = format!("/proc/{}/fd/{}", open.pid, open.fd);
        if open.empty_at != 0 {
            self.origins.was_empty(open.inode, open.empty_at);
        }
        let copied = |trail: &mut Self| trail.copied(open.inode, open.time, Path::new(&place));
        let source = self.known.held().at(open.inode).map(|s| source(s)).or_else(|| copied(self));
        if let Some(source) = source {
            self.begin(&open, source);
        }
        self.opens.put(open);
    }

    /// What an open file is called.
    pub fn named(&mut self, arena: ArenaId, number: u32, path: &[u8]) {
        if let Some(open) = self.opens.get_mut(arena, number) {
            open.path = path.to_vec();
        }
        if let Some(reading) = self.origins.of(arena, number) {
            reading.opened_as = path_text(path);
            let (inode, copy) = (reading.inode, !reading.source.way.is_empty());
            // When it was opened it may have been closed before it could be looked at.
            if copy && self.is_another(inode, Path::new(OsStr::from_bytes(path))) {
                self.origins.overwritten(inode);
                self.origins.drop_reading(arena, number);
            }
            return;
        }
        let Some(label) = std::str::from_utf8(path).ok().and_then(|p| self.known.paths().of(p)) else {
            return;
        };
        let Some(open) = self.opens.get(arena, number).cloned() else { return };
        let (path, way) = (path_text(path).into(), Arc::from([]));
        self.begin(&open, Source { path, label, owner: None, sha256: None, way, same: true });
    }

    /// What a file is a copy of.
    fn copied(&mut self, inode: Inode, time: u64, place: &Path) -> Option<Source> {
        self.origins.copy_at(inode, time)?;
        if self.is_another(inode, place) {
            self.origins.overwritten(inode);
        }
        let copy = self.origins.copy_at(inode, time)?;
        let lasts = copy.source.same || copy.made || copy.written.saturating_add(self.window()) >= time;
        lasts.then(|| copy.source.clone())
    }

    /// The copy is gone, and its inode is another file's by now, which stands at `place`: that was made later.
    fn is_another(&self, inode: Inode, place: &Path) -> bool {
        self.origins.copy(inode).is_some_and(|copy| self.made_after(copy.written, inode, place))
    }

    /// The file at `place` has this inode, and was made after that monotonic moment.
    pub fn made_after(&self, moment: u64, inode: Inode, place: &Path) -> bool {
        let made = self.proc.made(place).filter(|(there, _)| *there == inode);
        made.is_some_and(|(_, made)| i128::from(made) > self.lineage.at(moment).as_nanosecond())
    }

    /// Somebody opened a sensitive file, or what came of one.
    fn begin(&mut self, open: &Open, source: Source) {
        let access = self.proc.access_to(open.pid, open.fd, open.inode);
        if access.is_some_and(|a| !a.reads) {
            return;
        }
        let process = self.process(open.arena, open.pid);
        let excused = process.as_ref().is_some_and(|p| self.excuses(p, &source));
        if !excused {
            self.turn_up(open.arena, open.time.saturating_add(self.window()));
        } else if !self.up.contains_key(&open.arena) {
            // It had turned itself up.
            self.turned.push((open.arena, false));
        }
        self.origins.read(
            open.number,
            Reading {
                arena: open.arena,
                pid: open.pid,
                opened_as: if open.path.is_empty() { source.path.to_string() } else { path_text(&open.path) },
                inode: open.inode,
                source,
                since: open.time,
                last: open.time,
                open: HashSet::new(),
                sure: access.is_some_and(|a| a.reads && !a.writes),
                excused,
                told: HashSet::new(),
            },
        );
    }

    fn excuses(&self, process: &Process, source: &Source) -> bool {
        let may = self.readers.read().ok().and_then(|r| r.0.may(process, &source.label));
        let (Some(sha256), Some(exe)) = (may, process.exe.as_deref()) else { return false };
        // That it is still what it should be takes longer to find out than there is time for here.
        self.known.doubt(exe, sha256);
        true
    }

    fn window(&self) -> u64 {
        let window = self.readers.read().map_or(Duration::from_secs(60), |r| r.1);
        u64::try_from(window.as_nanos()).unwrap_or(u64::MAX)
    }

    fn process(&self, arena: ArenaId, pid: u32) -> Option<Process> {
        let mut process = self.lineage.facts(arena)?.process.clone();
        process.pid = pid;
        Some(process)
    }

    /// A file was closed.
    pub fn closed(&mut self, closed: Closed) {
        let Closed { arena, number, last, .. } = closed;
        if let Some(Some(digest)) = closed.read {
            // A copy that nobody saw made is one all the same.
            let secret = self.known.held().with_digest(&digest).cloned();
            if self.origins.of(arena, number).is_none()
                && let Some(secret) = secret
            {
                let (pid, inode, path) = (closed.pid, closed.inode, closed.path.clone());
                let open =
                    Open { arena, pid, number, fd: -1, inode, time: last, empty_at: 0, path, read: None };
                self.begin(&open, source(&secret));
            }
            if let Some(reading) = self.origins.of(arena, number)
                && reading.source.sha256.is_none()
                && reading.source.way.is_empty()
            {
                reading.source.sha256 = Some(digest);
            }
        }
        self.origins.closed(arena, number, last, closed.read.is_some());
        if closed.read.is_none() {
            self.opens.remove(arena, number);
        }
        if let Some(wrote) = closed.wrote {
            if self.origins.copy(wrote.inode).is_some_and(|c| c.modified != wrote.modified && wrote.made) {
                self.origins.overwritten(wrote.inode);
            }
            if let Some(digest) = wrote.sha256 {
                self.digested(wrote.inode, digest, last);
            }
            self.lineage.wrote(arena, wrote);
            self.pace.news();
        }
    }

    /// A file's content became known: it may be a sensitive one's.
    pub fn digested(&mut self, inode: Inode, digest: [u8; 32], time: u64) {
        let held = self.known.held();
        if held.at(inode).is_some() {
            return;
        }
        if let Some(secret) = held.with_digest(&digest) {
            let copy =
                Copy { source: source(secret), written: time, made: true, modified: 0, until: u64::MAX };
            self.copy(inode, copy);
        }
    }

    /// A file got another name: it stays what it is.
    pub fn moved(&mut self, inode: Inode, time: u64) {
        if let Some(secret) = self.known.held().at(inode).cloned() {
            let copy =
                Copy { source: source(&secret), written: time, made: true, modified: 0, until: u64::MAX };
            self.origins.copied(inode, copy);
            self.known.also(inode);
        }
    }

    /// A file has a sensitive one's content, or came of it: who has opened it meanwhile has read that.
    fn copy(&mut self, inode: Inode, copy: Copy) {
        let (source, written) = (copy.source.clone(), copy.written);
        let until = self.opens.empty_after(written, inode);
        if !self.origins.copied(inode, Copy { until, ..copy }) {
            return;
        }
        if until == u64::MAX {
            self.known.also(inode);
        }
        let since = self.opens.of(inode).filter(|o| (written..until).contains(&o.time));
        let since: Vec<Open> = since.cloned().collect();
        for open in since {
            if self.origins.of(open.arena, open.number).is_none() {
                self.begin(&open, source.clone());
            }
        }
    }

    /// Every lane was read: looks where it went.
    pub fn tick(&mut self, now: u64, asked: &mut Asked<'_>, out: &mut VecDeque<Judged>) {
        if now.saturating_sub(self.tidied) > 1_000_000_000 {
            self.tidied = now;
            let quiet = self.origins.quiet();
            let window = self.window();
            let lineage = &self.lineage;
            self.origins.forget_before(now.saturating_sub(window), |a| lineage.is_gone(a));
            let kept = if quiet { SHORT } else { window.max(SHORT) };
            self.turn_down(now);
            self.lineage.forget_before(now.saturating_sub(kept));
            self.forget_firsts_before(now.saturating_sub(kept));
            self.forget_seen_before(now.saturating_sub(kept));
            if self.told.len() > TOLD {
                self.told.clear();
            }
        }
        self.lay_beside(out);
        self.say_seen(now, false, out);
        if self.origins.quiet() || !self.pace.due(now) {
            return;
        }
        let slice = self.pace.begin();
        let all = self.walk(now, asked, &slice, out);
        self.pace.end(now, &slice, all);
    }

    /// Observation ends: looks once more at everything.
    pub fn finish(&mut self, asked: &mut Asked<'_>, out: &mut VecDeque<Judged>) {
        self.wait_for_files();
        self.say_seen(u64::MAX, true, out);
        self.lay_beside(out);
        self.next = 0;
        if !self.walk(u64::MAX, asked, &Slice::last(), out) {
            tracing::warn!(
                "there was more to follow of what sensitive files were read than there was time for at the end"
            );
        }
    }
}

fn source(secret: &Secret) -> Source {
    Source {
        path: secret.path.as_str().into(),
        label: secret.label.clone(),
        owner: Some(secret.owner),
        sha256: secret.sha256,
        way: Arc::from([]),
        same: true,
    }
}
