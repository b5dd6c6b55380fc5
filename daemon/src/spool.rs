//! Lines on their way to a receiver: on disk where there is a state directory, so that they outlive the daemon; else in
//! memory.
//!
//! Comes in: formatted lines. Goes out: the same, oldest first. Called by `sinks::post`. A line stands here until the
//! receiver is known to have it: those that were handed over and may have to go again are *under way*. Bounded: beyond
//! its size the oldest lines that are not under way are given up, and counted.
//!
//! On disk it is one file of records, appended to: a line (its encoded length as four little-endian bytes, then the
//! encoding), or a removal ([`REMOVED`], then from which place and how many). What can't be read back, because it was
//! torn by a full disk or a lost machine, ends the file. Only the lines' places are kept in memory.
//!
//! Lines come with the number of their letter ([`crate::ledger::Letter`]), or 0. The highest that came is kept beside the
//! file (`.mark`) before what says so there is lost, so that after a kill no letter is queued twice, and none is passed over.
//!
//! This is the one place that knows bincode (pinned: 2.0.1 is its last real release).
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Stands where a length would: lines were taken out.
const REMOVED: u32 = u32::MAX;
/// Bytes of the longest record. Lines are far shorter; a length beyond it is damage.
const LONGEST: u32 = 1 << 20;
/// Beside a length: the line has a number.
const NUMBERED: u32 = 1 << 31;
/// The file with the highest number.
const MARK: &str = "mark";
/// What a line costs besides itself: about what stands round it.
const OVERHEAD: u64 = 32;

/// A record's content.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct Entry {
    /// Microseconds since 1970, for who looks into the file.
    queued: i64,
    line: Vec<u8>,
}

/// The same of a line with a number.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct Numbered {
    number: u64,
    entry: Entry,
}

/// Where a waiting line is.
enum Line {
    Disk {
        at: u64,
        record: u32,
        length: u32,
    },
    /// There is no disk, or it was full.
    Memory(Vec<u8>),
}

impl Line {
    fn cost(&self) -> u64 {
        OVERHEAD
            + match self {
                Self::Disk { length, .. } => u64::from(*length),
                Self::Memory(line) => line.len() as u64,
            }
    }
}

/// The queue.
pub struct Spool {
    waiting: VecDeque<Line>,
    /// So many of the oldest were handed over.
    under_way: usize,
    bytes: u64,
    limit: u64,
    given_up: u64,
    /// The highest number that came.
    passed: u64,
    file: Option<Disk>,
}

struct Disk {
    path: PathBuf,
    file: File,
    /// Up to here it is sound.
    end: u64,
    mark: Option<File>,
    /// The number in it.
    marked: u64,
}

impl Spool {
    /// A queue in memory.
    #[must_use]
    pub fn in_memory(limit: u64) -> Self {
        Self { waiting: VecDeque::new(), under_way: 0, bytes: 0, limit, given_up: 0, passed: 0, file: None }
    }

    /// A queue in the file `path`, with what an earlier daemon left there. The file has at most about twice `limit`.
    ///
    /// # Errors
    /// The file can't be opened or read.
    pub fn on_disk(path: &Path, limit: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let mut spool = Self::in_memory(limit);
        let marked = read_mark(&path.with_extension(MARK));
        spool.passed = marked;
        let mut records = BufReader::with_capacity(64 << 10, &file);
        let mut end = 0;
        while let Some((record, length)) = read_record(&mut records)? {
            match record {
                Record::Line { length: line, number } => {
                    spool.passed = spool.passed.max(number);
                    spool.keep(Line::Disk { at: end, record: length, length: line })
                }
                Record::Removed { from, count } => spool.drop_range(from as usize, count as usize),
            }
            end += u64::from(length);
        }
        spool.file = Some(Disk { path: path.to_owned(), file, end, mark: None, marked });
        // What follows the last sound record would hide what is appended.
        spool.tidy(true);
        // Not before: what was given up then has its removals behind it.
        spool.bound();
        Ok(spool)
    }

    /// Lines that are here, those under way too.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True if nothing is here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lines that were handed over and not yet taken.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Lines given up since the last call, because too many waited.
    pub fn given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }

    /// The highest number that ever came.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// What has this number needs no line here.
    pub fn pass(&mut self, number: u64) {
        self.passed = self.passed.max(number);
    }

    /// Keeps the highest number, so that it outlives the daemon.
    pub fn note(&mut self) {
        if let Some(disk) = &mut self.file {
            disk.note(self.passed);
        }
    }

    /// Queues a line; 0 is no number.
    pub fn push(&mut self, line: &[u8], number: u64) {
        let stored = self.file.as_mut().and_then(|disk| disk.append(line, number));
        self.pass(number);
        self.keep(stored.unwrap_or_else(|| Line::Memory(line.to_vec())));
        self.bound();
        self.tidy(false);
    }

    /// The oldest line that is not under way.
    pub fn next_line(&mut self) -> Option<Vec<u8>> {
        loop {
            let line = match self.waiting.get(self.under_way)? {
                Line::Memory(line) => Some(line.clone()),
                Line::Disk { at, record, .. } => self.file.as_ref().and_then(|d| d.line(*at, *record)),
            };
            if line.is_some() {
                return line;
            }
            // Someone has damaged the file below us.
            self.given_up += 1;
            self.drop_range(self.under_way, 1);
        }
    }

    /// What [`next_line`](Self::next_line) gave can't be sent, ever.
    pub fn give_up(&mut self) {
        if self.under_way < self.waiting.len() {
            self.given_up += 1;
            self.remove(self.under_way, 1);
            self.tidy(false);
        }
    }

    /// What [`next_line`](Self::next_line) gave is under way.
    pub fn sent(&mut self) {
        self.under_way = (self.under_way + 1).min(self.waiting.len());
    }

    /// The receiver has the `count` oldest lines under way.
    pub fn taken(&mut self, count: usize) {
        let count = count.min(self.under_way);
        if count > 0 {
            self.under_way -= count;
            self.remove(0, count);
            self.tidy(false);
        }
    }

    /// What was under way has to go again.
    pub fn again(&mut self) {
        self.under_way = 0;
    }

    fn keep(&mut self, line: Line) {
        self.bytes += line.cost();
        self.waiting.push_back(line);
    }

    /// Gives up what is beyond the limit.
    fn bound(&mut self) {
        let (mut bytes, mut too_many) = (self.bytes, 0);
        for line in self.waiting.iter().skip(self.under_way) {
            if bytes <= self.limit {
                break;
            }
            bytes -= line.cost();
            too_many += 1;
        }
        if too_many > 0 {
            self.given_up += too_many as u64;
            self.remove(self.under_way, too_many);
        }
    }

    /// Takes lines out, on disk too.
    fn remove(&mut self, from: usize, count: usize) {
        let on_disk = |l: &&Line| matches!(l, Line::Disk { .. });
        let before = self.waiting.iter().take(from).filter(on_disk).count();
        let of_them = self.waiting.iter().skip(from).take(count).filter(on_disk).count();
        self.drop_range(from, count);
        if let Some(disk) = &mut self.file
            && of_them > 0
            && !self.waiting.is_empty()
        {
            disk.removed(before, of_them);
        }
    }

    fn drop_range(&mut self, from: usize, count: usize) {
        let end = from.saturating_add(count).min(self.waiting.len());
        for line in self.waiting.drain(from.min(end)..end) {
            self.bytes -= line.cost();
        }
    }

    /// Empties the file where nothing waits; writes it anew where more than half of it is past, so each byte is
    /// written twice at most.
    fn tidy(&mut self, torn: bool) {
        let Some(disk) = &mut self.file else { return };
        if self.waiting.is_empty() {
            disk.note(self.passed);
            if (torn || disk.end > 0) && disk.file.set_len(0).is_ok() {
                disk.end = 0;
            }
        } else if disk.end > self.limit.saturating_mul(2).max(64 << 10) {
            disk.note(self.passed);
            // A failure leaves the old file: nothing is lost, and the next line tries again.
            let _ = self.rewrite();
        } else if torn {
            let _ = disk.file.set_len(disk.end);
        }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let Some(old) = &self.file else { return Ok(()) };
        let path = old.path.with_extension("new");
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        file.set_len(0)?;
        let mut fresh = Disk { path: old.path.clone(), file, end: 0, mark: None, marked: old.marked };
        let mut places = VecDeque::with_capacity(self.waiting.len());
        for line in &self.waiting {
            let bytes = match line {
                Line::Memory(line) => Some(line.clone()),
                Line::Disk { at, record, .. } => old.line(*at, *record),
            };
            let bytes = bytes.ok_or(io::ErrorKind::InvalidData)?;
            places.push_back(fresh.append(&bytes, 0).ok_or(io::ErrorKind::StorageFull)?);
        }
        fs::rename(&path, &old.path)?;
        (self.waiting, self.file) = (places, Some(fresh));
        Ok(())
    }
}

impl Disk {
    /// Appends a line. None: the disk doesn't take it.
    fn append(&mut self, line: &[u8], number: u64) -> Option<Line> {
        let entry = Entry { queued: jiff::Timestamp::now().as_microsecond(), line: line.to_vec() };
        let config = bincode::config::standard();
        let (flag, body) = match number {
            0 => (0, bincode::encode_to_vec(&entry, config)),
            _ => (NUMBERED, bincode::encode_to_vec(Numbered { number, entry }, config)),
        };
        let body = body.ok()?;
        let length = u32::try_from(body.len()).ok().filter(|l| *l < LONGEST)?;
        let at = self.end;
        self.write(&[&(flag | length).to_le_bytes()[..], &body].concat()).then_some(Line::Disk {
            at,
            record: 4 + length,
            length: line.len() as u32,
        })
    }

    /// Keeps the highest number. Where the disk takes nothing, letters may be queued once more after a kill.
    fn note(&mut self, passed: u64) {
        if passed == self.marked {
            return;
        }
        if self.mark.is_none() {
            let path = self.path.with_extension(MARK);
            let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
            self.mark = options.ok();
        }
        // Of one length, in one place: no half of it is ever there.
        let text = format!("{passed:020}\n");
        if self.mark.as_ref().is_some_and(|f| f.write_all_at(text.as_bytes(), 0).is_ok()) {
            self.marked = passed;
        }
    }

    fn removed(&mut self, from: usize, count: usize) {
        let bytes: Vec<u8> =
            [REMOVED, from as u32, count as u32].iter().flat_map(|n| n.to_le_bytes()).collect();
        // If the disk is full, these lines will be sent once more by the next daemon.
        self.write(&bytes);
    }

    fn write(&mut self, bytes: &[u8]) -> bool {
        let written = self.file.write_all(bytes).is_ok();
        if written {
            self.end += bytes.len() as u64;
        } else {
            // Half a record would hide all that follow.
            let _ = self.file.set_len(self.end);
        }
        written
    }

    fn line(&self, at: u64, record: u32) -> Option<Vec<u8>> {
        let mut bytes = vec![0; record as usize];
        self.file.read_exact_at(&mut bytes, at).ok()?;
        let head = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
        decode(bytes.get(4..)?, head & NUMBERED != 0).map(|n| n.entry.line)
    }
}

enum Record {
    Line { length: u32, number: u64 },
    Removed { from: u32, count: u32 },
}

/// The next record and its length; None at the end of what is sound.
fn read_record(from: &mut impl Read) -> io::Result<Option<(Record, u32)>> {
    let mut number = || {
        let mut bytes = [0; 4];
        match from.read_exact(&mut bytes) {
            Ok(()) => Ok(Some(u32::from_le_bytes(bytes))),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    };
    let Some(head) = number()? else { return Ok(None) };
    if head == REMOVED {
        let (Some(from), Some(count)) = (number()?, number()?) else { return Ok(None) };
        return Ok(Some((Record::Removed { from, count }, 12)));
    }
    let (length, numbered) = (head & !NUMBERED, head & NUMBERED != 0);
    if length >= LONGEST {
        return Ok(None);
    }
    let mut body = vec![0; length as usize];
    match from.read_exact(&mut body) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    let line = |n: Numbered| Record::Line { length: n.entry.line.len() as u32, number: n.number };
    Ok(decode(&body, numbered).map(|n| (line(n), 4 + length)))
}

fn decode(body: &[u8], numbered: bool) -> Option<Numbered> {
    // The limit keeps a length inside the body from asking for memory that the file doesn't have.
    let config = bincode::config::standard().with_limit::<{ LONGEST as usize }>();
    let (numbered, used) = if numbered {
        bincode::decode_from_slice::<Numbered, _>(body, config).ok()?
    } else {
        let (entry, used) = bincode::decode_from_slice::<Entry, _>(body, config).ok()?;
        (Numbered { number: 0, entry }, used)
    };
    (used == body.len()).then_some(numbered)
}

fn read_mark(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// The highest number that any queue in the folder `dir` has noted, also of receivers that are no longer configured.
#[must_use]
pub fn highest(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|f| f.path());
    files.filter(|f| f.extension().is_some_and(|e| e == MARK)).map(|f| read_mark(&f)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
