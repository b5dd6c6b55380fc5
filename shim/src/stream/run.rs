//! Tags on their way into records: whole blocks in a row, and the gaps between them.
//!
//! Called by [`Stream`](super::Stream), which knows where it stands.

use crate::lanes;
use crate::mac::{self, Wide};
use crate::process;
use crate::thread::Guard;
use bytemuck::{Pod, Zeroable};
use core::mem::offset_of;
use counterfoil_abi::record::{
    Blocks, FIRST_LINE_TAGS, Gap, Header, Kind, LINE, Line, PARTIAL, Reason, Tap, WIDE, WITNESSED,
    lines_for_tags,
};
use counterfoil_abi::{BLOCK, Tag as Unit};

/// Whole blocks in a row, on their way into one record.
pub struct Run {
    /// Where the next one begins.
    next: u64,
    /// A block was tagged, or passed over.
    pub any: bool,
    /// Made when there is a whole block: most calls end none.
    record: Option<Blocks>,
}

impl Run {
    /// An empty one, that begins with the block that `offset` lies in.
    #[inline]
    pub fn new(offset: u64) -> Self {
        Self { next: offset - offset % BLOCK, any: false, record: None }
    }

    /// The next block has this tag.
    #[inline]
    pub fn add(&mut self, guard: &Guard, object: u32, tap: Tap, tag: &Wide) {
        self.any = true;
        let next = self.next;
        let record = self.record.get_or_insert_with(|| Blocks { offset: next, ..Zeroable::zeroed() });
        put(record, record.count as usize, tag);
        record.count += 1;
        record.length += BLOCK as u32;
        self.next += BLOCK;
        if (record.count as usize + 1) * units() > record.tags.len() {
            self.flush(guard, object, tap);
        }
    }

    /// Passes over a block that has no tag.
    pub fn skip_block(&mut self, guard: &Guard, object: u32, tap: Tap) {
        self.flush(guard, object, tap);
        self.next += BLOCK;
        self.any = true;
    }

    /// What comes next begins in the block that `offset` lies in (or ends).
    pub fn restart(&mut self, guard: &Guard, object: u32, tap: Tap, offset: u64) {
        self.flush(guard, object, tap);
        self.next = offset.next_multiple_of(BLOCK);
        self.any = true;
    }

    /// Says what there is.
    #[inline]
    pub fn flush(&mut self, guard: &Guard, object: u32, tap: Tap) {
        let Some(mut record) = self.record.take() else { return };
        let lines = lines_for_tags(record.count as usize * units());
        record.header = header(lines, 0, tap, object);
        let bytes = bytemuck::bytes_of(&record);
        let lines: &[Line] = bytemuck::cast_slice(&bytes[..lines * LINE]);
        lanes::push(guard, lines);
    }
}

/// Units of a record that one tag takes.
#[inline]
fn units() -> usize {
    process::settings().function.units()
}

/// Writes a tag where the record's `index`th belongs.
#[inline]
fn put(record: &mut Blocks, index: usize, tag: &Wide) {
    if units() == 1 {
        record.tags[index] = mac::first_half(tag);
    } else {
        record.tags[2 * index] = mac::first_half(tag);
        record.tags[2 * index + 1] = mac::second_half(tag);
    }
}

#[inline(always)]
fn header(lines: usize, flags: u8, tap: Tap, object: u32) -> Header {
    let mut header = lanes::header(Kind::Blocks, lines, tap as u8, object);
    header.flags = flags | if units() == 2 { WIDE } else { 0 };
    header
}

/// A [`Blocks`] record of one tag: its first line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct One {
    header: Header,
    offset: u64,
    length: u32,
    count: u32,
    tags: [Unit; FIRST_LINE_TAGS],
}

const _: () = assert!(
    size_of::<One>() == LINE
        && offset_of!(One, offset) == offset_of!(Blocks, offset)
        && offset_of!(One, length) == offset_of!(Blocks, length)
        && offset_of!(One, count) == offset_of!(Blocks, count)
        && offset_of!(One, tags) == offset_of!(Blocks, tags)
);

/// Says how far the running block, which begins at `offset`, has come; the cipher witness, too, if it is `witnessed`.
#[inline(always)]
pub fn push_partial(
    guard: &Guard,
    object: u32,
    tap: Tap,
    offset: u64,
    length: u64,
    tag: &Wide,
    witnessed: bool,
) {
    // The second half is the MAC's zeros, which nobody reads.
    let tags = [mac::first_half(tag), mac::second_half(tag)];
    let header = header(1, if witnessed { PARTIAL | WITNESSED } else { PARTIAL }, tap, object);
    lanes::push_record(guard, &One { header, offset, length: length as u32, count: 1, tags });
}

/// Says that bytes have no tag.
pub fn push_gap(guard: &Guard, object: u32, tap: Tap, offset: u64, length: u64, reason: Reason) {
    let record = Gap {
        header: lanes::header(Kind::Gap, 1, tap as u8, object),
        offset,
        length,
        reason: reason as u8,
        pad: [0; 31],
    };
    lanes::push_record(guard, &record);
}
