//! Files at rest: reads a file that a program named, as that program's user, and says what is in it.
//!
//! Comes in: an [`Ask`]. Goes out, later and from another thread: an [`Answer`] with SHA-256, block tags and what
//! fstat said before and after, or why not. Called by `assemble` for what was not read or written in order, and by
//! `delivered`. The host comes first: threads of low priority, one for a user at most, a bounded queue.
//!
//! The path is the word of a process that may lie. So the file is opened with that user's rights
//! ([`open`]), and it must be the file (device and inode) that the process had open.

mod identity;
mod open;
mod priority;
mod queue;
mod read;
#[cfg(test)]
mod tests;
mod worker;

pub use identity::User;
pub use priority::give_way;
pub use worker::Reader;

use crate::content::Content;
use crate::pipeline::StreamDigest;
use crate::tags::{Tagger, Value};
use counterfoil_abi::record::Stat;
use std::io;

/// What to read.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Comes back in the answer. The asker's own numbering.
    pub id: u64,
    /// Absolute, links resolved, not necessarily UTF-8.
    pub path: Vec<u8>,
    /// The file that must be there: st_dev and st_ino; None takes whichever is there.
    pub inode: Option<(u64, u64)>,
    /// Whose rights to read it with.
    pub user: User,
    /// Read this many bytes at most.
    pub upto: u64,
    /// Also say what the first so many bytes are.
    pub prefix: Option<u64>,
    /// Make block tags.
    pub tags: bool,
    /// Past the page cache, as far as the file system lets: shows what the disk has.
    pub uncached: bool,
}

/// What came of an [`Ask`].
#[derive(Debug)]
pub struct Answer {
    /// The ask's.
    pub id: u64,
    /// The file, or why not.
    pub result: Result<AtRest, Refusal>,
}

/// A file, read from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtRest {
    /// st_dev and st_ino.
    pub inode: (u64, u64),
    /// What fstat said before the first byte was read …
    pub before: Stat,
    /// … and after the last. Not equal: somebody wrote meanwhile, and digest and tags may mix old and new.
    pub after: Stat,
    /// Bytes read: to the file's end, or `upto`.
    pub bytes: u64,
    /// Of these bytes.
    pub sha256: [u8; 32],
    /// What kind of content it is.
    pub content: Content,
    /// Of these bytes, where asked for.
    pub tags: Tags,
    /// Of the first bytes, where asked for and there are as many.
    pub prefix: Option<Prefix>,
    /// It was read past the page cache.
    pub uncached: bool,
}

impl AtRest {
    /// Nobody wrote while it was read.
    #[must_use]
    pub fn steady(&self) -> bool {
        self.before == self.after
    }
}

/// The tags of a file's blocks, the same as those of a stream with the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Units of 16 bytes in a tag: 1, or 2 where `stream_digest` is not the MAC. 0: none were made.
    pub units: usize,
    /// Whole blocks from the file's start, `units` each. Fewer than the file has where it is beyond
    /// [`MAX_TAGGED`].
    pub whole: Vec<u128>,
    /// The last block's, if it is not whole: its length and tag.
    pub tail: Option<(u32, Value)>,
}

impl Tags {
    /// Whole blocks.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.whole.len().checked_div(self.units).unwrap_or(0) as u64
    }

    /// The tag of a whole block.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<Value> {
        let at = usize::try_from(index).ok()?.checked_mul(self.units)?;
        match self.whole.get(at..at.checked_add(self.units)?)? {
            [one] => Some([*one, 0]),
            [one, two] => Some([*one, *two]),
            _ => None,
        }
    }
}

/// The first bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// How many.
    pub bytes: u64,
    /// Of these.
    pub sha256: [u8; 32],
    /// The last block's within them, if it is not whole: its length and tag.
    pub tail: Option<(u32, Value)>,
}

/// A file's first bytes that are tagged; beyond there is the digest alone. 64 GiB: 64 MiB of tags.
pub const MAX_TAGGED: u64 = 64 << 30;

/// Reads one file on this thread, for who has a thread to spare. No tags.
///
/// # Errors
/// As in an [`Answer`].
pub fn once(ask: &Ask) -> Result<AtRest, Refusal> {
    let none = Tagger::new([0; 16], StreamDigest::Mac);
    let ask = Ask { tags: false, ..ask.clone() };
    read::read(&open::open(&ask)?, &ask, &none, &mut read::Buffer::new(), || true)
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nothing has that name.
    #[error("there is no such file")]
    Gone,
    /// The name leads to another file than the one that was asked for.
    #[error("the name leads to another file by now")]
    AnotherFile,
    /// A folder, device, FIFO or socket.
    #[error("it is no regular file")]
    NotRegular,
    /// The path is relative, holds a NUL or a symbolic link, or is too long.
    #[error("the path is not one that links were resolved in")]
    BadPath,
    /// The user may not read it.
    #[error("its user may not read it")]
    Denied,
    /// This daemon can't act for that user.
    #[error("only root can read on behalf of another user")]
    OtherUser,
    /// Too many wait.
    #[error("too many files wait to be read")]
    Busy,
    /// [`Reader::cancel`], or the reader ended.
    #[error("it is not wanted any more")]
    Cancelled,
    /// The file system.
    #[error("{0}")]
    Failed(#[from] io::Error),
}

/// What fstat says of a file that was peeked at. Times are seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Peeked {
    /// st_size.
    pub size: u64,
    /// st_mtim.
    pub modified: u64,
    /// st_ctim.
    pub changed: u64,
    /// Root owns it and nobody else may write to it.
    pub settled: bool,
}

/// The first bytes of a file, for who has a thread to spare and keeps none of them. Opened as for an [`Ask`].
///
/// # Errors
/// As in an [`Answer`].
pub fn peek(
    path: &[u8],
    inode: Option<(u64, u64)>,
    user: &User,
    upto: usize,
) -> Result<(Vec<u8>, Peeked), Refusal> {
    let ask = Ask {
        id: 0,
        path: path.to_vec(),
        inode,
        user: user.clone(),
        upto: upto as u64,
        prefix: None,
        tags: false,
        uncached: false,
    };
    read::first(&open::open(&ask)?, upto)
}
