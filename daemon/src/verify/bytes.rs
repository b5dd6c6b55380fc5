//! Two open files, byte by byte.
//!
//! Comes in: two files. Goes out: both lengths and SHA-256, and the blocks in which they differ. Called by
//! [`super::compare`], from several threads. Reads ahead while it hashes, so that one big pair keeps two
//! processors busy; holds four buffers of at most 1 MiB. While the two are the same one hash is enough for both.
#![forbid(unsafe_code)]

use super::{RANGES, Side, Trouble};
use crate::model::Range;
use counterfoil_abi::BLOCK;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

/// Bytes that are read at once, of each file.
const CHUNK: usize = 1 << 20;

/// A SHA-256.
pub type Sha = [u8; 32];

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: Sha,
}

/// What two files hold, and where that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The one.
    pub a: Content,
    /// The other.
    pub b: Content,
    /// Where the first byte differs that both have.
    pub first: Option<u64>,
    /// Blocks that differ, as far as both files go; neighbours merged, at most [`RANGES`].
    pub ranges: Vec<Range>,
    /// Ranges beyond those.
    pub more: u64,
}

impl Compared {
    /// Not a byte differs.
    #[must_use]
    pub fn equal(&self) -> bool {
        self.a == self.b && self.first.is_none()
    }
}

/// Compares two files. `progress` hears of bytes as they are done, of the longer file's.
///
/// # Errors
/// One can't be read, or changes meanwhile.
pub fn compare(a: &File, b: &File, progress: &(dyn Fn(u64) + Sync)) -> Result<Compared, Trouble> {
    let (mut one, mut other) = (Reader::new(a, Side::A)?, Reader::new(b, Side::B)?);
    let room = one.room().max(other.room());
    let mut now = (vec![0; room], vec![0; room]);
    let mut next = (vec![0; room], vec![0; room]);
    let mut sums = Sums::Both(Sha256::new());
    let mut found = Differences::default();
    let mut read = (one.fill(&mut now.0)?, other.fill(&mut now.1)?);
    let mut at = 0;
    while read != (0, 0) {
        let (mine, its) = (&now.0[..read.0], &now.1[..read.1]);
        let more = read.0 == room || read.1 == room;
        let mut work = || {
            found.look(at, mine, its);
            sums.take(mine, its);
        };
        let mut ahead = || Ok::<_, Trouble>((one.fill(&mut next.0)?, other.fill(&mut next.1)?));
        let following = if more && room == CHUNK {
            rayon::join(work, ahead).1?
        } else {
            work();
            if more { ahead()? } else { (0, 0) }
        };
        at += read.0.max(read.1) as u64;
        progress(read.0.max(read.1) as u64);
        std::mem::swap(&mut now, &mut next);
        read = following;
    }
    let (first, second) = sums.finish();
    let a = Content { bytes: one.done()?, sha256: first };
    let b = Content { bytes: other.done()?, sha256: second };
    Ok(Compared { a, b, first: found.first, ranges: found.ranges, more: found.more })
}

/// One file's content.
///
/// # Errors
/// It can't be read, or changes meanwhile.
pub fn content(file: &File, side: Side, progress: &(dyn Fn(u64) + Sync)) -> Result<Content, Trouble> {
    let mut reader = Reader::new(file, side)?;
    let mut buffer = vec![0; reader.room()];
    let mut sum = Sha256::new();
    loop {
        let read = reader.fill(&mut buffer)?;
        sum.update(&buffer[..read]);
        progress(read as u64);
        if read < buffer.len() {
            return Ok(Content { bytes: reader.done()?, sha256: sum.finalize().into() });
        }
    }
}

/// A file that must not change while it is read.
struct Reader<'a> {
    file: &'a File,
    side: Side,
    before: Stamp,
    read: u64,
}

/// Length, and the times that a change moves.
type Stamp = (u64, (i64, i64), (i64, i64));

impl<'a> Reader<'a> {
    fn new(file: &'a File, side: Side) -> Result<Self, Trouble> {
        let mut reader = Self { file, side, before: (0, (0, 0), (0, 0)), read: 0 };
        reader.before = reader.stamp()?;
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Sequential);
        Ok(reader)
    }

    fn stamp(&self) -> Result<Stamp, Trouble> {
        let meta = self.file.metadata().map_err(|e| Trouble::of(self.side, &e))?;
        Ok((meta.len(), (meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())))
    }

    /// A buffer's size: whole blocks, and no more than this file needs.
    fn room(&self) -> usize {
        let blocks = usize::try_from(self.before.0 / BLOCK + 1).unwrap_or(usize::MAX);
        blocks.saturating_mul(BLOCK as usize).min(CHUNK)
    }

    /// Fills the buffer; less only at the end of the file.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let mut have = 0;
        while have < buffer.len() {
            match self.file.read(&mut buffer[have..]) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Trouble::of(self.side, &e)),
            }
        }
        self.read += have as u64;
        Ok(have)
    }

    fn done(&self) -> Result<u64, Trouble> {
        if self.stamp()? != self.before {
            return Err(Trouble::changed(self.side));
        }
        Ok(self.read)
    }
}

enum Sums {
    Both(Sha256),
    Each(Sha256, Sha256),
}

impl Sums {
    fn take(&mut self, a: &[u8], b: &[u8]) {
        if let Self::Both(sum) = self
            && a != b
        {
            *self = Self::Each(sum.clone(), sum.clone());
        }
        match self {
            Self::Both(sum) => sum.update(a),
            Self::Each(one, other) if a.len() + b.len() >= CHUNK => {
                rayon::join(|| one.update(a), || other.update(b));
            }
            Self::Each(one, other) => {
                one.update(a);
                other.update(b);
            }
        }
    }

    fn finish(self) -> (Sha, Sha) {
        match self {
            Self::Both(sum) => {
                let sum = sum.finalize().into();
                (sum, sum)
            }
            Self::Each(one, other) => (one.finalize().into(), other.finalize().into()),
        }
    }
}

#[derive(Default)]
struct Differences {
    first: Option<u64>,
    ranges: Vec<Range>,
    more: u64,
    /// Where the last range ends, listed or not.
    end: u64,
}

impl Differences {
    /// `offset` is a multiple of a block.
    fn look(&mut self, offset: u64, a: &[u8], b: &[u8]) {
        let common = a.len().min(b.len());
        let (a, b) = (&a[..common], &b[..common]);
        if a == b {
            return;
        }
        let blocks = a.chunks(BLOCK as usize).zip(b.chunks(BLOCK as usize));
        for (at, (one, other)) in (offset..).step_by(BLOCK as usize).zip(blocks) {
            if one == other {
                continue;
            }
            if self.first.is_none() {
                let byte = one.iter().zip(other).position(|(x, y)| x != y).unwrap_or(0);
                self.first = Some(at + byte as u64);
            }
            let length = one.len() as u64;
            let neighbour = self.end == at && at > 0;
            let room = self.ranges.len() < RANGES;
            match self.ranges.last_mut().filter(|last| neighbour && last.offset + last.length == at) {
                Some(last) => last.length += length,
                None if room => self.ranges.push(Range { offset: at, length }),
                // A neighbour lengthens a range that is not listed either.
                None => self.more += u64::from(!neighbour),
            }
            self.end = at + length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file.reopen().unwrap()
    }

    fn compared(a: &[u8], b: &[u8]) -> Compared {
        compare(&file(a), &file(b), &|_| {}).unwrap()
    }

    fn payload(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i % 251) as u8 ^ (i >> 13) as u8).collect()
    }

    fn sha(bytes: &[u8]) -> Sha {
        Sha256::digest(bytes).into()
    }

    #[test]
    fn equal_files_of_every_awkward_length() {
        for length in [0, 1, 16_383, 16_384, 16_385, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let bytes = payload(length);
            let found = compared(&bytes, &bytes);
            assert!(found.equal(), "{length}");
            assert_eq!(found.a, Content { bytes: length as u64, sha256: sha(&bytes) }, "{length}");
            let one = content(&file(&bytes), Side::A, &|_| {}).unwrap();
            assert_eq!(one, found.a, "{length}");
        }
    }

    #[test]
    fn blocks_that_differ_are_named_and_merged() {
        let a = payload(2 * CHUNK + 20_000);
        let mut b = a.clone();
        // The last byte of a block and the first of the next; one over a chunk's edge; the last byte of all.
        for at in [32_767, 32_768, CHUNK - 1, CHUNK, a.len() - 1] {
            b[at] ^= 1;
        }
        let found = compared(&a, &b);
        assert!(!found.equal());
        assert_eq!(found.first, Some(32_767));
        let range = |offset: usize, length: usize| Range { offset: offset as u64, length: length as u64 };
        let last = a.len() / 16_384 * 16_384;
        assert_eq!(
            found.ranges,
            [range(16_384, 32_768), range(CHUNK - 16_384, 32_768), range(last, a.len() - last)]
        );
        assert_eq!((found.a.sha256, found.b.sha256), (sha(&a), sha(&b)));
    }

    #[test]
    fn a_shorter_file_is_a_prefix_or_not() {
        let a = payload(3 * CHUNK);
        for cut in [0, 1, 20_000, CHUNK, 2 * CHUNK + 1] {
            for swapped in [false, true] {
                let b = &a[..cut];
                let found = if swapped { compared(b, &a) } else { compared(&a, b) };
                let (long, short) = if swapped { (found.b, found.a) } else { (found.a, found.b) };
                assert!(!found.equal() && found.first.is_none() && found.ranges.is_empty(), "{cut}");
                assert_eq!((long.bytes, short.bytes), (a.len() as u64, cut as u64));
                assert_eq!((long.sha256, short.sha256), (sha(&a), sha(b)));
            }
        }
    }

    #[test]
    fn ranges_are_bounded_and_the_rest_counted() {
        let block = BLOCK as usize;
        let a = vec![0; block * (2 * RANGES + 200)];
        let mut b = a.clone();
        for i in (0..b.len()).step_by(2 * block) {
            b[i] = 1;
        }
        // Two neighbours among those that are not listed are one.
        let last = b.len() - block;
        b[last] = 1;
        let found = compared(&a, &b);
        assert_eq!((found.ranges.len(), found.more), (RANGES, 100));
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_not_judged() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), payload(3 * CHUNK)).unwrap();
        let a = File::open(path.path()).unwrap();
        let writer = File::options().append(true).open(path.path()).unwrap();
        let grow = |_| (&writer).write_all(b"x").unwrap();
        let trouble = content(&a, Side::B, &grow).unwrap_err();
        assert!(trouble.why.contains("changed"), "{trouble:?}");
        assert_eq!(trouble.side, Side::B);
    }
}
