//! Tags on their way into records: whole blocks in a row, and the gaps between them.
//!
//! Called by [`Stream`](super::Stream), which knows where it stands.

use crate::lanes;
use crate::mac::{self, Wide};
use crate::process;
use crate::thread::Guard;
use bytemuck::Zeroable;
use counterfoil_abi::BLOCK;
use counterfoil_abi::record::{Blocks, Gap, Kind, LINE, Line, Reason, Tap, WIDE, lines_for_tags};

/// Whole blocks in a row, on their way into one record.
pub struct Run {
    /// Where it begins.
    pub start: u64,
    record: Blocks,
    /// There is, or was, something in it.
    pub any: bool,
}

impl Run {
    /// An empty one.
    #[inline]
    pub fn new(offset: u64) -> Self {
        Self { start: offset, record: Zeroable::zeroed(), any: false }
    }

    /// The next block has this tag.
    #[inline]
    pub fn add(&mut self, guard: &Guard, object: u32, tap: Tap, tag: &Wide) {
        if !self.any {
            self.record.offset = self.start - self.start % BLOCK;
            self.any = true;
        }
        let index = self.record.count as usize;
        put(&mut self.record, index, tag);
        self.record.count += 1;
        self.record.length += BLOCK as u32;
        if (self.record.count as usize + 1) * units() > self.record.tags.len() {
            self.flush(guard, object, tap);
        }
    }

    /// Passes over a block that has no tag.
    pub fn skip_block(&mut self, guard: &Guard, object: u32, tap: Tap) {
        self.flush(guard, object, tap);
        let next = if self.any { self.record.offset } else { self.start - self.start % BLOCK } + BLOCK;
        self.record.offset = next;
        self.any = true;
    }

    /// What comes next begins in the block that `offset` lies in (or ends).
    pub fn restart(&mut self, guard: &Guard, object: u32, tap: Tap, offset: u64) {
        self.flush(guard, object, tap);
        self.record.offset = offset.next_multiple_of(BLOCK);
        self.any = true;
    }

    /// Says what there is.
    #[inline]
    pub fn flush(&mut self, guard: &Guard, object: u32, tap: Tap) {
        if self.record.count == 0 {
            return;
        }
        self.record.header = lanes::header(Kind::Blocks, 1, tap as u8, object);
        push_blocks(guard, &mut self.record);
        self.record.offset += u64::from(self.record.length);
        self.record.length = 0;
        self.record.count = 0;
    }
}

/// Units of a record that one tag takes.
#[inline]
fn units() -> usize {
    process::settings().function.units()
}

/// Writes a tag where the record's `index`th belongs.
#[inline]
pub fn put(record: &mut Blocks, index: usize, tag: &Wide) {
    if units() == 1 {
        record.tags[index] = mac::first_half(tag);
    } else {
        record.tags[2 * index] = mac::first_half(tag);
        record.tags[2 * index + 1] = mac::second_half(tag);
    }
}

/// Says them.
pub fn push_blocks(guard: &Guard, record: &mut Blocks) {
    let lines = lines_for_tags(record.count as usize * units());
    record.header.lines = lines as u8;
    if units() == 2 {
        record.header.flags |= WIDE;
    }
    let bytes = bytemuck::bytes_of(record);
    let lines: &[Line] = bytemuck::cast_slice(&bytes[..lines * LINE]);
    lanes::push(guard, lines);
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
