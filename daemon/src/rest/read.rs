//! Reads an open file from its start, and digests it.
//!
//! Comes in: a file. Goes out: an [`AtRest`]. Called by `worker`. By pread into a buffer, never mapped: whoever
//! owns the file could cut it off under a mapping, which is SIGBUS.
#![forbid(unsafe_code)]

use super::open::Opened;
use super::{Ask, AtRest, MAX_TAGGED, Prefix, Refusal, Tags};
use crate::content::Content;
use crate::tags::Tagger;
use bytemuck::Zeroable;
use counterfoil_abi::BLOCK;
use counterfoil_abi::class::Look;
use counterfoil_abi::record::Stat;
use rustix::fs::{Advice, fadvise, fstat};
use rustix::io::{Errno, pread};
use sha2::{Digest, Sha256};

/// Bytes read at once: whole blocks, and little enough to be still in the processor's cache when digested.
const CHUNK: usize = 256 * 1024;
/// What O_DIRECT may want of addresses and offsets.
const ALIGNED: usize = 4096;

/// The buffer of one thread.
pub(super) struct Buffer(Vec<u8>);

impl Buffer {
    pub(super) fn new() -> Self {
        Self(vec![0; CHUNK + ALIGNED])
    }

    /// What was read is nobody's any more: plaintext stays in this process no longer than it must.
    pub(super) fn wipe(&mut self) {
        self.0.fill(0);
    }

    fn aligned(&mut self) -> &mut [u8] {
        let off = self.0.as_ptr().align_offset(ALIGNED).min(ALIGNED);
        &mut self.0[off..off + CHUNK]
    }
}

/// Reads. `go_on` is asked before each chunk, and hears that there was progress by that.
pub(super) fn read(
    opened: &Opened,
    ask: &Ask,
    tagger: &Tagger,
    buffer: &mut Buffer,
    mut go_on: impl FnMut() -> bool,
) -> Result<AtRest, Refusal> {
    let file = &opened.file;
    let (inode, before) = stat(file)?;
    if ask.uncached && !opened.direct {
        // Clean pages only; what is dirty has not reached the disk yet.
        let _ = fadvise(file, 0, None, Advice::DontNeed);
    }
    let mut work = Work::new(ask, tagger);
    let buffer = buffer.aligned();
    loop {
        let want = ask.upto.saturating_sub(work.bytes);
        if want == 0 {
            break;
        }
        if !go_on() {
            return Err(Refusal::Cancelled);
        }
        let got = fill(opened, buffer, work.bytes, want)?;
        let got = got.min(usize::try_from(want).unwrap_or(usize::MAX));
        work.take(&buffer[..got]);
        if got < CHUNK {
            break;
        }
    }
    let (_, after) = stat(file)?;
    Ok(work.finish(inode, before, after, opened.direct))
}

/// Fills the buffer as far as the file goes; more than `want` is not needed.
fn fill(opened: &Opened, buffer: &mut [u8], at: u64, want: u64) -> Result<usize, Refusal> {
    let room = match opened.direct {
        true => buffer.len(),
        false => buffer.len().min(usize::try_from(want).unwrap_or(usize::MAX)),
    };
    let mut got = 0;
    while got < room {
        match pread(&opened.file, &mut buffer[got..room], at + got as u64) {
            Ok(0) => break,
            Ok(n) => {
                got += n;
                if opened.direct && !got.is_multiple_of(ALIGNED) {
                    break;
                }
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(Refusal::Failed(e.into())),
        }
    }
    Ok(got)
}

/// Device and inode, and the rest.
fn stat(file: &rustix::fd::OwnedFd) -> Result<((u64, u64), Stat), Refusal> {
    let s = fstat(file).map_err(|e| Refusal::Failed(e.into()))?;
    let nanos = |seconds: i64, nanos: u64| {
        u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(nanos)
    };
    let stat = Stat {
        size: u64::try_from(s.st_size).unwrap_or(0),
        modified: nanos(s.st_mtime, s.st_mtime_nsec),
        changed: nanos(s.st_ctime, s.st_ctime_nsec),
    };
    Ok(((s.st_dev, s.st_ino), stat))
}

/// It keeps a file's first bytes, and is wiped as [`Buffer`] is.
struct Wiped(Box<Look>);

impl Drop for Wiped {
    fn drop(&mut self) {
        *self.0 = Look::zeroed();
        // Nobody reads it any more, which is no reason to leave this out.
        std::hint::black_box(&*self.0);
    }
}

/// What was digested so far. Bytes come in whole chunks, but for the last.
struct Work<'a> {
    bytes: u64,
    sha: Sha256,
    look: Wiped,
    tagger: Option<&'a Tagger>,
    tags: Tags,
    wanted_prefix: Option<u64>,
    prefix: Option<Prefix>,
}

impl<'a> Work<'a> {
    fn new(ask: &Ask, tagger: &'a Tagger) -> Self {
        let tags = Tags { units: if ask.tags { tagger.units() } else { 0 }, ..Tags::default() };
        let tagger = ask.tags.then_some(tagger);
        let mut work = Self {
            bytes: 0,
            sha: Sha256::new(),
            look: Wiped(Box::new(Look::zeroed())),
            tagger,
            tags,
            wanted_prefix: ask.prefix,
            prefix: None,
        };
        work.prefix_within(&[]);
        work
    }

    fn take(&mut self, bytes: &[u8]) {
        let first = self.bytes / BLOCK;
        if let Some(tagger) = self.tagger {
            for (index, block) in (first..).zip(bytes.chunks(BLOCK as usize)) {
                if index >= MAX_TAGGED / BLOCK {
                    break;
                }
                let tag = tagger.tag(index, block);
                if block.len() as u64 == BLOCK {
                    self.tags.whole.extend_from_slice(&tag[..self.tags.units]);
                } else {
                    self.tags.tail = Some((block.len() as u32, tag));
                }
            }
        }
        self.look.0.add(bytes);
        let done = self.prefix_within(bytes);
        self.sha.update(&bytes[done..]);
        self.bytes += bytes.len() as u64;
    }

    /// Digests the part of `bytes` that belongs to the prefix, if that ends here; says how much that was.
    fn prefix_within(&mut self, bytes: &[u8]) -> usize {
        let Some(wanted) = self.wanted_prefix else { return 0 };
        let Some(end) = wanted.checked_sub(self.bytes).and_then(|e| usize::try_from(e).ok()) else {
            return 0;
        };
        if end > bytes.len() {
            return 0;
        }
        self.wanted_prefix = None;
        self.sha.update(&bytes[..end]);
        let rest = (wanted % BLOCK) as usize;
        let tail = self.tagger.filter(|_| rest > 0 && wanted < MAX_TAGGED);
        let tail = tail.map(|t| (rest as u32, t.tag(wanted / BLOCK, &bytes[end - rest..end])));
        self.prefix = Some(Prefix { bytes: wanted, sha256: self.sha.clone().finalize().into(), tail });
        end
    }

    fn finish(mut self, inode: (u64, u64), before: Stat, after: Stat, uncached: bool) -> AtRest {
        AtRest {
            inode,
            before,
            after,
            bytes: self.bytes,
            sha256: self.sha.finalize().into(),
            content: Content::found(&self.look.0.found()),
            tags: self.tags,
            prefix: self.prefix,
            uncached,
        }
    }
}

/// The first bytes, and what fstat says.
pub(super) fn first(opened: &Opened, upto: usize) -> Result<(Vec<u8>, super::Peeked), Refusal> {
    let s = fstat(&opened.file).map_err(|e| Refusal::Failed(e.into()))?;
    let size = u64::try_from(s.st_size).unwrap_or(0);
    let mut content = vec![0; upto.min(usize::try_from(size).unwrap_or(usize::MAX))];
    let got = fill(opened, &mut content, 0, upto as u64)?;
    content.truncate(got);
    let seconds = |t: i64| u64::try_from(t).unwrap_or(0);
    let peeked = super::Peeked {
        size,
        modified: seconds(s.st_mtime),
        changed: seconds(s.st_ctime),
        settled: s.st_uid == 0 && s.st_mode & 0o022 == 0,
    };
    Ok((content, peeked))
}
