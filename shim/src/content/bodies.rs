//! HTTP/1 messages: their bodies, without heads and chunking, are tagged block by block, so that one body is
//! known to be the same, or to differ in which block, behind other heads and in other chunks.
//!
//! Comes in: the bytes of connections. Goes out: `Body` records. A stream that does not begin as HTTP costs
//! its first line; where the framing is lost that is said, and nothing after it is believed.

mod head;

use super::{Look, Place};
use crate::lanes;
use crate::mac::{self, Mac};
use crate::stream::Pieces;
use bytemuck::Zeroable;
use counterfoil_abi::arena::POLICY_WATCHED;
use counterfoil_abi::record::{Body, Kind, Tap, UNFRAMED, WHOLE};
use counterfoil_abi::{BLOCK, UNKNOWN};
use head::{Follows, Head};

/// The longest head that is followed (nginx and Apache take less).
const MAX_HEAD: u64 = 64 * 1024;

/// Where in a message the stream stands.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// In a head, or before one.
    Head = 0,
    /// In a body, or in a chunk's data: `left` bytes of it.
    Data,
    /// Before a chunk's size, in that line.
    Size,
    /// Behind a chunk's data, in the line's end.
    DataEnd,
    /// Behind the last chunk.
    Trailer,
    /// In no message that can be followed.
    Lost,
}

impl Phase {
    /// It lies in shared memory: any byte may stand there.
    const fn of(code: u8) -> Self {
        match code {
            0 => Self::Head,
            1 => Self::Data,
            2 => Self::Size,
            3 => Self::DataEnd,
            4 => Self::Trailer,
            _ => Self::Lost,
        }
    }
}

/// See the module's text.
#[repr(C)]
pub struct Bodies {
    /// A [`Phase`].
    phase: u8,
    /// 1: in chunks.
    chunked: u8,
    /// The present message's head, and what of a line was read.
    head: Head,
    /// Where the present message begins, and how far it is from there to the body.
    began: u64,
    head_length: u64,
    /// Bytes of the body, or of the chunk, that are to come; UNKNOWN: until the end.
    left: u64,
    /// Bytes of the body so far.
    done: u64,
    /// Where the running block begins in the stream.
    block_at: u64,
    /// What was told of the running block.
    told: u64,
    message: u32,
    mac: Mac,
}

impl Look for Bodies {
    fn wanted(tap: Tap, policy: u32, offset: u64) -> bool {
        policy & POLICY_WATCHED != 0
            && offset == 0
            && matches!(tap, Tap::SockSend | Tap::SockRecv | Tap::TlsWrite | Tap::TlsRead)
    }

    fn goes_on(_: Tap, policy: u32, _: u64) -> bool {
        policy & POLICY_WATCHED != 0
    }

    fn begin(&mut self, _: &Place<'_>, offset: u64) {
        self.message = 0;
        self.next(offset);
    }

    fn passed<P: Pieces + ?Sized>(&mut self, place: &Place<'_>, offset: u64, data: &P, bytes: u64) -> bool {
        let mut at = offset;
        data.walk(0, bytes, &mut |piece| {
            self.piece(place, at, piece);
            at += piece.len() as u64;
        });
        self.phase() != Phase::Lost
    }

    fn missed(&mut self, place: &Place<'_>, offset: u64, _: u64) {
        self.lose(place, offset);
    }

    fn tell(&mut self, place: &Place<'_>, last: bool) {
        let inside = self.phase() != Phase::Head && self.phase() != Phase::Lost;
        // A body without a length ends with its stream.
        if last && self.phase() == Phase::Data && self.left == UNKNOWN && self.chunked == 0 {
            let end = self.began + self.head_length + self.done;
            self.finish(place, end);
        } else if last && inside && self.done != self.told {
            self.say(place, self.done % BLOCK, 0);
        }
    }
}

impl Bodies {
    #[inline]
    fn phase(&self) -> Phase {
        Phase::of(self.phase)
    }

    /// Another message may begin.
    fn next(&mut self, offset: u64) {
        self.phase = Phase::Head as u8;
        self.head = Head::NEW;
        (self.began, self.head_length, self.done, self.told) = (offset, 0, 0, 0);
        self.chunked = 0;
    }

    fn lose(&mut self, place: &Place<'_>, at: u64) {
        if self.phase() != Phase::Lost && (self.message > 0 || self.head.begun()) {
            let mut record = self.record(place, at);
            record.header.flags = UNFRAMED;
            lanes::push_record(place.guard, &record);
        }
        self.phase = Phase::Lost as u8;
    }

    fn piece(&mut self, place: &Place<'_>, start: u64, piece: &[u8]) {
        let mut index = 0;
        while index < piece.len() && self.phase() != Phase::Lost {
            let rest = &piece[index..];
            let at = start + index as u64;
            if self.phase() == Phase::Data {
                if self.done == 0 && self.head.belied_by(rest) {
                    return self.lose(place, at);
                }
                let now = rest.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.data(place, at, &rest[..now]);
                if self.left != UNKNOWN {
                    self.left -= now as u64;
                }
                index += now;
                if self.left == 0 {
                    self.data_ends(place, at + now as u64);
                }
                continue;
            }
            // A line, or what is there of it.
            let end = memchr::memchr(b'\n', rest);
            let now = end.map_or(rest.len(), |end| end + 1);
            index += now;
            let at = at + now as u64;
            if self.phase() == Phase::Head {
                self.head_length = at - self.began;
                if self.head_length > MAX_HEAD {
                    return self.lose(place, at);
                }
            }
            if end.is_some() && !self.head.within_line() {
                // Most are there as a whole, and are read where they stand.
                self.line(place, at, head::kept(&rest[..now]));
                continue;
            }
            self.head.add(&rest[..now]);
            if end.is_some() {
                let (line, kept) = self.head.take();
                self.line(place, at, &line[..kept]);
            } else if self.phase() == Phase::Head && !self.head.plausible() {
                self.lose(place, at);
            }
        }
    }

    /// A line has ended, and that is what is kept of it; the next byte is at `at`.
    fn line(&mut self, place: &Place<'_>, at: u64, line: &[u8]) {
        match self.phase() {
            Phase::Head => match self.head.line(line) {
                Some(Follows::More) => {}
                Some(Follows::Nothing) => self.finish(place, at),
                Some(Follows::Bytes(length)) => self.body(at, length),
                Some(Follows::Rest) => self.body(at, UNKNOWN),
                Some(Follows::Chunks) => {
                    self.chunked = 1;
                    self.phase = Phase::Size as u8;
                }
                None => self.lose(place, at),
            },
            Phase::Size => match head::chunk_size(line) {
                Some(0) => self.phase = Phase::Trailer as u8,
                Some(size) => self.body(at, size),
                None => self.lose(place, at),
            },
            Phase::DataEnd => {
                if !line.is_empty() {
                    return self.lose(place, at);
                }
                self.phase = Phase::Size as u8;
            }
            Phase::Trailer => {
                if line.is_empty() {
                    self.finish(place, at);
                }
            }
            Phase::Data | Phase::Lost => {}
        }
    }

    fn body(&mut self, at: u64, length: u64) {
        self.phase = Phase::Data as u8;
        self.left = length;
        if self.done == 0 {
            self.head_length = at - self.began;
        }
    }

    /// The body, or a chunk of it, is all there.
    fn data_ends(&mut self, place: &Place<'_>, at: u64) {
        if self.chunked != 0 {
            self.phase = Phase::DataEnd as u8;
        } else {
            self.finish(place, at);
        }
    }

    fn data(&mut self, place: &Place<'_>, mut at: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let into = self.done % BLOCK;
            if into == 0 {
                self.mac.begin(self.done);
                self.block_at = at;
            }
            let (now, later) = bytes.split_at(bytes.len().min((BLOCK - into) as usize));
            self.mac.update(now);
            self.done += now.len() as u64;
            at += now.len() as u64;
            bytes = later;
            // The last block is told with the end, if that is known to follow at once.
            let ends = self.chunked == 0 && self.left == now.len() as u64 && bytes.is_empty();
            if self.done.is_multiple_of(BLOCK) && !ends {
                self.say(place, BLOCK, 0);
            }
        }
    }

    /// The message has ended; the next one begins at `at`.
    fn finish(&mut self, place: &Place<'_>, at: u64) {
        let rest = self.done - self.told;
        if self.done == 0 {
            self.block_at = if self.chunked != 0 { self.began + self.head_length } else { at };
        }
        self.say(place, rest, WHOLE);
        self.message = self.message.wrapping_add(1);
        self.next(at);
    }

    fn record(&self, place: &Place<'_>, at: u64) -> Body {
        Body {
            header: lanes::header(Kind::Body, 1, place.tap as u8, place.object),
            at,
            message: self.message,
            head: self.head_length as u32,
            ..Zeroable::zeroed()
        }
    }

    /// The running block, of which there are `length` bytes. `length` 0 with a body: that ended with a block.
    fn say(&mut self, place: &Place<'_>, length: u64, flags: u8) {
        let mut record = self.record(place, self.block_at);
        record.header.flags = flags;
        record.length = length as u32;
        record.offset = self.done - length;
        if length > 0 {
            record.tag = mac::first_half(&self.mac.tag());
        }
        lanes::push_record(place.guard, &record);
        self.told = self.done;
    }
}

#[cfg(test)]
mod tests;
