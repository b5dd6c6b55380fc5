//! Records about files.
//!
//! A file's streams count from the file's start: a stream's offset is a place in the file. While a
//! descriptor's calls go through the file in order from 0 there are tags and a digest; what is not
//! read or written in order is read again at rest, by the daemon ([`READ_AT_REST`],
//! [`WRITE_AT_REST`]).

use super::{Header, LINE};
use bytemuck::{Pod, Zeroable};

wire_enum! {
/// What a [`Named`] says of a file.
Naming {
    /// A descriptor of it was opened, by this name. Comes once per object.
    Path = 1 "path",
    /// It has this name now (rename); another file of that name is gone.
    Renamed = 2 "renamed",
    /// It has this name, too (link).
    Linked = 3 "linked",
    /// It has this name no longer.
    Unlinked = 4 "unlinked",
}
}

/// Bytes of a name in one [`Named`].
pub const NAME_PIECE: usize = 216;
/// PATH_MAX: longer names are not told.
pub const MAX_NAME: usize = 4096;

/// [`super::Kind::Named`]: a name, or a piece of a long one; the pieces of one name come in order, in one
/// lane, with nothing between. Four lines.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Named {
    /// Common part; the object is 0 where only the inode is known.
    pub header: Header,
    /// A [`Naming`].
    pub about: u8,
    /// Zero.
    pub pad: u8,
    /// Bytes used in `text`.
    pub length: u16,
    /// Where this piece begins in the whole name.
    pub at: u16,
    /// Bytes of the whole name, at most [`MAX_NAME`].
    pub total: u16,
    /// st_dev.
    pub device: u64,
    /// st_ino.
    pub inode: u64,
    /// Absolute, not necessarily UTF-8. Links in it are resolved for [`Naming::Path`]; for the others the
    /// folder's may not be.
    pub text: [u8; NAME_PIECE],
}

/// [`File::header`]'s flags: `read_digest` is the SHA-256 of the first `read_bytes` bytes as they were read.
pub const READ_DIGEST: u8 = 1;
/// [`File::header`]'s flags: `write_digest` is the SHA-256 of the first `write_bytes` bytes as they were written.
pub const WRITE_DIGEST: u8 = 2;
/// [`File::header`]'s flags: what was read is not in the stream as a whole (out of order, mapped, copied by
/// the kernel, through stdio): it must be read at rest.
pub const READ_AT_REST: u8 = 4;
/// [`File::header`]'s flags: likewise for what was written.
pub const WRITE_AT_REST: u8 = 8;
/// [`File::header`]'s flags: the open made it, or made it empty.
pub const MADE_EMPTY: u8 = 16;
/// [`File::header`]'s flags: this descriptor's last word (it is closed everywhere).
pub const LAST: u8 = 32;

/// What fstat says of a file. Times are nanoseconds since 1970; all zero: not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Stat {
    /// st_size.
    pub size: u64,
    /// st_mtim.
    pub modified: u64,
    /// st_ctim.
    pub changed: u64,
}

/// [`super::Kind::File`]: a file as it was when it was opened and as it is now. Comes before the `Ended` of its
/// object; the latest one counts. Three lines.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct File {
    /// Common part; flags: [`READ_DIGEST`] ….
    pub header: Header,
    /// open(2)'s flags.
    pub opened_with: u32,
    /// Zero.
    pub pad: u32,
    /// When it was opened, or first seen.
    pub before: Stat,
    /// At this record.
    pub after: Stat,
    /// Bytes that `read_digest` covers.
    pub read_bytes: u64,
    /// Bytes that `write_digest` covers.
    pub write_bytes: u64,
    /// SHA-256.
    pub read_digest: [u8; 32],
    /// SHA-256.
    pub write_digest: [u8; 32],
    /// When our last write was done, CLOCK_REALTIME nanoseconds; 0: there was none. A later `modified` is
    /// somebody else's. [`super::UNPLAUSIBLE`]: ours may still come (a mapping, what libc writes at exit).
    pub written: u64,
    /// When our last read was done, CLOCK_REALTIME nanoseconds; 0: not known. A later `modified` is no change of what was read.
    pub read: u64,
    /// Zero.
    pub pad2: [u8; 24],
}

/// [`super::Kind::Again`]: a file was opened, read as a whole and closed once more, unchanged since the header's object
/// was told, and with the same content. One line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Again {
    /// Common part; the object is an earlier reading's, closed by now. The tap is [`super::Tap::FileRead`].
    pub header: Header,
    /// Zero.
    pub pad: [u8; 48],
}

const _: () = {
    assert!(size_of::<Again>() == LINE);
    assert!(size_of::<Named>() == 4 * LINE);
    assert!(size_of::<File>() == 3 * LINE);
};

impl Named {
    /// Its fields are within their bounds.
    pub(super) fn fits(&self) -> bool {
        let (length, at, total) = (usize::from(self.length), usize::from(self.at), usize::from(self.total));
        Naming::from_code(self.about).is_some()
            && length <= NAME_PIECE
            && total <= MAX_NAME
            && at + length <= total
            && (length > 0 || total == 0)
    }
}
