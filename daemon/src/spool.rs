//! Lines that wait for a receiver that is away: on disk where there is a state directory, so that
//! they outlive the daemon; else in memory.
//!
//! Comes in: formatted lines. Goes out: the same, oldest first, when the receiver is back. Called
//! by `sinks::syslog`. Bounded: beyond its size the oldest lines are given up, and counted.
//!
//! This is the one place that knows bincode (pinned: 2.0.1 is its last real release). An entry is
//! its encoded length as four little-endian bytes, then the encoding. What can't be read back,
//! because it was torn by a full disk or a lost machine, ends the file.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// One waiting line.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct Entry {
    /// Microseconds since 1970, for who looks into the file.
    queued: i64,
    line: Vec<u8>,
}

/// Bytes that may wait.
pub const LIMIT: usize = 16 << 20;

/// The queue.
pub struct Spool {
    waiting: VecDeque<Entry>,
    bytes: usize,
    limit: usize,
    given_up: u64,
    file: Option<Disk>,
}

struct Disk {
    path: PathBuf,
    file: File,
    /// Entries were taken out since the file was written.
    stale: bool,
}

impl Spool {
    /// A queue in memory.
    #[must_use]
    pub fn in_memory(limit: usize) -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, limit, given_up: 0, file: None }
    }

    /// A queue in the file `path`, with what an earlier daemon left there.
    ///
    /// # Errors
    /// The file can't be opened or read.
    pub fn on_disk(path: &Path, limit: usize) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let mut bytes = Vec::new();
        // Twice the limit: entries that were sent may still stand before those that wait.
        Read::by_ref(&mut file).take(2 * limit as u64 + 1).read_to_end(&mut bytes)?;
        let mut spool = Self::in_memory(limit);
        let mut rest = &bytes[..];
        while let Some((entry, after)) = decode(rest) {
            rest = after;
            spool.keep(entry);
        }
        spool.file = Some(Disk { path: path.to_owned(), file, stale: !rest.is_empty() });
        spool.settle();
        Ok(spool)
    }

    /// True if nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lines given up since the last call, because too many waited.
    pub fn given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }

    /// Queues a line.
    pub fn push(&mut self, line: &[u8]) {
        let entry = Entry { queued: jiff::Timestamp::now().as_microsecond(), line: line.to_vec() };
        // A write that fails (full disk) leaves the line in memory, where it waits as well.
        if let (Some(disk), Some(bytes)) = (&mut self.file, encode(&entry)) {
            disk.stale |= disk.file.write_all(&bytes).is_err();
        }
        self.keep(entry);
        // Rewritten when half of it is past, so each byte is written twice at most.
        if self
            .file
            .as_ref()
            .is_some_and(|d| d.file.metadata().is_ok_and(|m| m.len() > 2 * self.limit as u64))
        {
            self.rewrite();
        }
    }

    /// Gives the lines to `send`, oldest first, until it fails or none is left.
    ///
    /// # Errors
    /// What `send` said; the line that failed still waits.
    pub fn drain(&mut self, mut send: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut result = Ok(());
        while let Some(entry) = self.waiting.front() {
            if let Err(e) = send(&entry.line) {
                result = Err(e);
                break;
            }
            self.bytes -= cost(entry);
            self.waiting.pop_front();
            if let Some(disk) = &mut self.file {
                disk.stale = true;
            }
        }
        self.settle();
        result
    }

    fn keep(&mut self, entry: Entry) {
        self.bytes += cost(&entry);
        self.waiting.push_back(entry);
        while self.bytes > self.limit {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.bytes -= cost(&oldest);
            self.given_up += 1;
        }
    }

    /// Makes the file hold what waits, where it holds more or has a torn end.
    fn settle(&mut self) {
        if self.file.as_ref().is_some_and(|d| d.stale) {
            self.rewrite();
        }
    }

    fn rewrite(&mut self) {
        let Some(disk) = &mut self.file else { return };
        let fresh = disk.path.with_extension("new");
        let written = (|| {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&fresh)?;
            file.set_len(0)?;
            for entry in &self.waiting {
                file.write_all(&encode(entry).ok_or(io::ErrorKind::InvalidData)?)?;
            }
            fs::rename(&fresh, &disk.path)?;
            Ok::<_, io::Error>(file)
        })();
        // A failure leaves the old file: its lines would be sent twice, none would be lost.
        if let Ok(file) = written {
            (disk.file, disk.stale) = (file, false);
        }
    }
}

/// What a line costs: itself, and about what stands round it on disk.
fn cost(entry: &Entry) -> usize {
    entry.line.len() + 32
}

fn encode(entry: &Entry) -> Option<Vec<u8>> {
    let body = bincode::encode_to_vec(entry, bincode::config::standard()).ok()?;
    let mut out = u32::try_from(body.len()).ok()?.to_le_bytes().to_vec();
    out.extend_from_slice(&body);
    Some(out)
}

fn decode(bytes: &[u8]) -> Option<(Entry, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let body = rest.get(..length)?;
    // The limit keeps a length inside the body from asking for memory that the file doesn't have.
    let config = bincode::config::standard().with_limit::<{ 1 << 20 }>();
    let (entry, used) = bincode::decode_from_slice::<Entry, _>(body, config).ok()?;
    (used == length).then(|| (entry, &rest[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(spool: &mut Spool) -> Vec<String> {
        let mut out = vec![];
        spool
            .drain(|line| {
                out.push(String::from_utf8(line.to_vec()).unwrap());
                Ok(())
            })
            .unwrap();
        out
    }

    #[test]
    fn lines_outlive_the_daemon_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut spool = Spool::on_disk(&path, LIMIT).unwrap();
        for i in 0..100 {
            spool.push(format!("line {i}").as_bytes());
        }
        drop(spool); // as kill -9 would: nothing runs at the end
        let mut spool = Spool::on_disk(&path, LIMIT).unwrap();
        let mut sent = 0;
        // The receiver goes away again after 40.
        let _ = spool.drain(|_| {
            sent += 1;
            if sent > 40 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
        });
        drop(spool);
        let mut spool = Spool::on_disk(&path, LIMIT).unwrap();
        let left = lines(&mut spool);
        assert_eq!(left.len(), 60);
        assert_eq!((left[0].as_str(), left[59].as_str()), ("line 40", "line 99"));
        assert_eq!(fs::metadata(&path).unwrap().len(), 0, "nothing is left behind");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn too_much_gives_up_the_oldest_and_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut spool = Spool::on_disk(&path, 4200).unwrap();
        for i in 0..1000 {
            spool.push(format!("{i:010}").as_bytes());
        }
        assert_eq!(spool.given_up(), 900);
        assert!(fs::metadata(&path).unwrap().len() <= 8400 + 64, "the file is bounded too");
        drop(spool);
        let left = lines(&mut Spool::on_disk(&path, 4200).unwrap());
        assert_eq!(left.last().unwrap(), "0000000999");
        assert!(left.len() <= 100);
    }

    #[test]
    fn a_torn_or_hostile_file_gives_what_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut spool = Spool::on_disk(&path, LIMIT).unwrap();
        spool.push(b"whole");
        spool.push(b"torn");
        drop(spool);
        let bytes = fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let left = lines(&mut Spool::on_disk(&path, LIMIT).unwrap());
            assert!(left.is_empty() || left == ["whole"], "cut at {cut}: {left:?}");
        }
        for junk in [vec![0xff; 4096], vec![0; 64], [&[200, 0, 0, 0][..], &[0xfd; 200]].concat()] {
            fs::write(&path, junk).unwrap();
            let mut spool = Spool::on_disk(&path, LIMIT).unwrap();
            let _ = lines(&mut spool);
            spool.push(b"next");
            drop(spool);
            assert_eq!(lines(&mut Spool::on_disk(&path, LIMIT).unwrap()), ["next"]);
        }
    }

    #[test]
    fn in_memory() {
        let mut spool = Spool::in_memory(2 * 37);
        for line in [&b"aaaaa"[..], b"bbbbb", b"ccccc"] {
            spool.push(line);
        }
        assert_eq!((lines(&mut spool), spool.given_up()), (vec!["bbbbb".into(), "ccccc".into()], 1));
        assert!(spool.is_empty());
    }
}
