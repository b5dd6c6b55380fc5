//! A file that a program has open, and what its records say of it.
//!
//! Comes in: the records of one object. Goes out: [`FileEnd`]s when it is closed, one for what was read
//! and one for what was written.

use super::tags::{Room, Tags};
use crate::assemble::manifest::{GapSpan, Partial, TagKind};
use crate::assemble::pending::Value;
use crate::assemble::program::ArenaId;
use crate::content::Content;
use crate::host::facts::Inode;
use crate::judge::Finish;
use crate::model::Reason;
use counterfoil_abi::record::{self, Blocks, Ended, File, Gap, How, Opened, Record, Stat, Tap};
use counterfoil_abi::{BLOCK, Tag};

/// open(2)'s access mode: O_WRONLY, O_RDWR.
const ACCESS_MODE: u32 = 3;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the file into the program.
    Read = 0,
    /// From the program into the file.
    Written = 1,
}

impl Way {
    fn of(tap: u8) -> Option<Self> {
        match Tap::from_code(tap)? {
            Tap::FileRead => Some(Self::Read),
            Tap::FileWrite => Some(Self::Written),
            _ => None,
        }
    }
}

/// One open file of one program.
#[derive(Debug)]
pub struct OpenFile {
    /// Whose.
    pub arena: ArenaId,
    /// What it is.
    pub inode: Inode,
    /// Name when it was opened.
    pub path: Vec<u8>,
    /// First record, monotonic nanoseconds.
    pub opened: u64,
    /// Last record.
    pub last: u64,
    /// Who moved bytes, else who opened it: its process id as the daemon counts it.
    pub by: u32,
    /// It has said its last word.
    pub done: bool,
    /// When that is to be taken up; 0: not yet.
    pub due: u64,
    flags: u8,
    moved: bool,
    file: Option<File>,
    ended: Option<Ended>,
    content: [Option<Content>; 2],
    tags: [Tags; 2],
    reach: [u64; 2],
    again: u32,
}

/// What one program read from a file, or wrote to it, from open to close.
#[derive(Debug)]
pub struct FileEnd {
    /// Whose.
    pub arena: ArenaId,
    /// Process id as the daemon counts it.
    pub pid: u32,
    /// Which way.
    pub way: Way,
    /// What it is.
    pub inode: Inode,
    /// Name when it was opened.
    pub path: Vec<u8>,
    /// First record, monotonic nanoseconds.
    pub opened: u64,
    /// Last record.
    pub last: u64,
    /// Bytes that passed, from the file's start.
    pub bytes: u64,
    /// SHA-256 of them.
    pub digest: Option<[u8; 32]>,
    /// What passed is not in the stream as a whole.
    pub at_rest: bool,
    /// As it was opened; all zero: not asked.
    pub before: Stat,
    /// As it was closed.
    pub after: Stat,
    /// When our last write was done, realtime nanoseconds; 0: there was none.
    pub written: u64,
    /// When our last read was done, realtime nanoseconds; 0: not known.
    pub read: u64,
    /// The open made it, or made it empty.
    pub made_empty: bool,
    /// A write did not fit.
    pub failed: bool,
    /// A program that is not observed was given the descriptor.
    pub handed_unseen: bool,
    /// How it came to its end.
    pub finish: Finish,
    /// What kind of content passed.
    pub content: Option<Content>,
    /// Its tags.
    pub tags: Tags,
    /// How often it was read so, or written.
    pub times: u32,
    /// What makes all of it uncertain.
    pub doubts: Vec<Reason>,
}

fn unit(tag: &Tag) -> u128 {
    u128::from_ne_bytes(*tag)
}

fn value(tags: &[Tag], index: usize, kind: TagKind) -> Value {
    match kind {
        TagKind::Mac => [unit(&tags[index]), 0],
        TagKind::Wide => [unit(&tags[2 * index]), unit(&tags[2 * index + 1])],
    }
}

impl OpenFile {
    /// A new one.
    pub fn new(arena: ArenaId, by: u32, opened: &Opened) -> Self {
        let name = &opened.name[..(opened.name_len as usize).min(opened.name.len())];
        Self {
            arena,
            inode: (opened.device, opened.inode),
            path: name.to_vec(),
            opened: opened.header.time,
            last: opened.header.time,
            by,
            done: false,
            due: 0,
            flags: opened.header.flags,
            moved: false,
            file: None,
            ended: None,
            tags: [Tags::default(), Tags::default()],
            content: [None; 2],
            reach: [0; 2],
            again: 0,
        }
    }

    /// More is known of it.
    pub fn learn(&mut self, opened: &Opened) {
        self.flags |= opened.header.flags;
        if self.inode.1 == 0 {
            self.inode = (opened.device, opened.inode);
        }
    }

    /// One more record of it.
    pub fn told(&mut self, by: u32, record: &Record, room: &mut Room) {
        self.last = self.last.max(record.header().time);
        match record {
            Record::Blocks(blocks) => self.blocks(by, blocks, room),
            Record::Gap(gap) => self.gap(gap),
            Record::Classed(classed) => {
                if let (Some(way), Some(content)) = (Way::of(classed.header.tap), Content::of(classed)) {
                    Content::better(&mut self.content[way as usize], content);
                }
            }
            Record::File(file) => {
                // Lanes are read one after the other: the later one counts.
                if self.file.is_none_or(|f| f.header.time <= file.header.time) {
                    self.file = Some(*file);
                }
                self.done |= file.header.flags & record::LAST != 0;
            }
            Record::Ended(ended) => {
                if self.ended.is_none_or(|e| e.header.time <= ended.header.time) {
                    self.ended = Some(*ended);
                }
                for (way, total) in [(Way::Written, ended.out_total), (Way::Read, ended.in_total)] {
                    self.reach[way as usize] = self.reach[way as usize].max(total);
                }
                let over =
                    matches!(How::from_code(ended.how), Some(How::Closed | How::ClosedUnseen | How::Freed));
                self.done |= over;
            }
            _ => {}
        }
    }

    /// It was read so many times more.
    pub fn again(&mut self, times: u32, time: u64) {
        self.again = self.again.saturating_add(times);
        self.last = self.last.max(time);
    }

    fn moved_by(&mut self, by: u32) {
        if !self.moved {
            (self.moved, self.by) = (true, by);
        }
    }

    fn blocks(&mut self, by: u32, blocks: &Blocks, room: &mut Room) {
        let Some(way) = Way::of(blocks.header.tap) else { return };
        self.moved_by(by);
        let d = way as usize;
        let end = blocks.offset.saturating_add(u64::from(blocks.length));
        self.reach[d] = self.reach[d].max(end);
        let wide = blocks.header.flags & record::WIDE != 0;
        let kind = if wide { TagKind::Wide } else { TagKind::Mac };
        if blocks.header.flags & record::PARTIAL != 0 {
            let value = value(&blocks.tags, 0, kind);
            let partial = Partial { offset: blocks.offset, length: blocks.length, value };
            self.tags[d].put_partial(partial, kind);
            return;
        }
        for index in 0..blocks.count as usize {
            let block = blocks.offset / BLOCK + index as u64;
            self.tags[d].put(block, value(&blocks.tags, index, kind), kind, room);
        }
    }

    fn gap(&mut self, gap: &Gap) {
        let (Some(way), Some(reason)) = (Way::of(gap.header.tap), Reason::from_code(gap.reason)) else {
            return;
        };
        self.tags[way as usize].gap(GapSpan { offset: gap.offset, length: gap.length, reason });
    }

    fn finish(&self) -> Finish {
        let how = self.ended.and_then(|e| How::from_code(e.how));
        match how {
            _ if self.done => Finish::Ended,
            Some(How::Exited | How::Execed) => Finish::Ended,
            _ => Finish::Killed,
        }
    }

    /// It is over: what was read and what was written. `open`: observation ended before it did.
    pub fn ends(mut self, open: bool, doubts: &[Reason], room: &mut Room) -> Vec<FileEnd> {
        let finish = match self.finish() {
            Finish::Killed if open => Finish::Open,
            finish => finish,
        };
        let mut ends = Vec::new();
        for way in [Way::Read, Way::Written] {
            let mut tags = std::mem::take(&mut self.tags[way as usize]);
            match self.end(way, finish) {
                Some(end) => ends.push(FileEnd { tags, doubts: doubts.to_vec(), ..end }),
                None => tags.clear(room),
            }
        }
        ends
    }

    fn end(&self, way: Way, finish: Finish) -> Option<FileEnd> {
        let file = self.file.as_ref();
        let flags = file.map_or(0, |f| f.header.flags);
        let (before, after) = file.map_or_else(Default::default, |f| (f.before, f.after));
        let reach = self.reach[way as usize];
        let (rest, has, digested, digest) = match (way, file) {
            (Way::Read, Some(f)) => {
                (record::READ_AT_REST, record::READ_DIGEST, f.read_bytes, Some(f.read_digest))
            }
            (Way::Written, Some(f)) => {
                (record::WRITE_AT_REST, record::WRITE_DIGEST, f.write_bytes, Some(f.write_digest))
            }
            (Way::Read, None) => (record::READ_AT_REST, record::READ_DIGEST, 0, None),
            (Way::Written, None) => (record::WRITE_AT_REST, record::WRITE_DIGEST, 0, None),
        };
        let at_rest = flags & rest != 0;
        let digest = digest.filter(|_| flags & has != 0 && !at_rest && digested >= reach);
        let bytes = if digest.is_some() { digested } else { reach };
        // Empty files have no bytes to be seen by: opened to be read, or made to be written.
        let mode = file.map_or(0, |f| f.opened_with & ACCESS_MODE);
        let asked = after != Stat::default();
        let empty = match way {
            Way::Read => mode != 1 && asked && after.size == 0 && before.size == 0,
            Way::Written => mode != 0 && asked && after.size == 0 && flags & record::MADE_EMPTY != 0,
        };
        if bytes == 0 && !at_rest && !empty {
            return None;
        }
        Some(FileEnd {
            arena: self.arena,
            pid: self.by,
            way,
            inode: self.inode,
            path: self.path.clone(),
            opened: self.opened,
            last: self.last,
            bytes,
            digest: digest.or_else(|| empty.then(empty_digest)),
            at_rest,
            before,
            after,
            written: file.map_or(0, |f| f.written),
            read: file.map_or(0, |f| f.read),
            made_empty: flags & record::MADE_EMPTY != 0,
            failed: self.said(record::FAILED),
            handed_unseen: self.said(record::HANDED_UNSEEN),
            finish,
            content: self.content[way as usize],
            tags: Tags::default(),
            times: if way == Way::Read { self.again.saturating_add(1) } else { 1 },
            doubts: Vec::new(),
        })
    }

    /// A flag of its end.
    fn said(&self, flag: u8) -> bool {
        self.ended.is_some_and(|e| e.header.flags & flag != 0)
    }

    /// It may be one that is being read.
    pub fn reads(&self) -> bool {
        self.reach[Way::Read as usize] > 0 || self.file.is_none_or(|f| f.opened_with & ACCESS_MODE != 1)
    }

    /// Gives its room back.
    pub fn clear(mut self, room: &mut Room) {
        self.tags.iter_mut().for_each(|t| t.clear(room));
    }
}

/// SHA-256 of nothing.
fn empty_digest() -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest([]).into()
}
