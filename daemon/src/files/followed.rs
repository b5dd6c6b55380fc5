//! What a file's end tells those who follow sensitive files.
#![forbid(unsafe_code)]

use super::open::{FileEnd, Way};
use crate::host::path_text;
use crate::sensitive::Closed;
use crate::sensitive::lineage::Wrote;

/// One open file's ends, `any` of them for what they share.
pub(super) fn closed(number: u32, any: &FileEnd, ends: &[FileEnd]) -> Closed {
    let of = |way: Way| ends.iter().find(|end| end.way == way);
    Closed {
        arena: any.arena,
        number,
        pid: any.pid,
        last: any.last,
        read: of(Way::Read).filter(|end| end.bytes > 0 || end.at_rest).map(|end| end.digest),
        wrote: of(Way::Written).filter(|end| end.bytes > 0 || end.at_rest).map(|end| Wrote {
            inode: end.inode,
            path: path_text(&end.path),
            last: end.last,
            opened: end.opened,
            made: end.made_empty,
            sha256: end.digest,
            modified: end.after.modified,
        }),
        read_content: of(Way::Read).and_then(|end| end.content),
        wrote_content: of(Way::Written).and_then(|end| end.content),
        inode: any.inode,
        path: any.path.clone(),
    }
}
