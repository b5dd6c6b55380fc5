//! The messages in a stream, one by one: MQTT 3.1, 3.1.1 and 5.
//!
//! Comes in: a stream's bytes. Goes out: a `Message` record for each packet that matters: who subscribed to what, and of
//! each message its topic (a name, as a file has one) and its payload's fingerprint, so that it is found again behind a
//! broker that frames it anew. The payload itself stays here.
//!
//! A stream is MQTT if it begins with CONNECT, or the other way with CONNACK; all others are dropped after their first
//! bytes. What can't be followed, since something was missed or is no MQTT after all, is said to be lost, once.

use super::{Look, Place};
use crate::stream::Pieces;
use crate::{lanes, process};
use bytemuck::Zeroable;
use counterfoil_abi::arena::{POLICY_MESSAGES, POLICY_WATCHED};
use counterfoil_abi::record::{
    BROKER, Kind, LINE, Line, MAX_TEXT, Message, Packet, Tap, hasher, lines_for_text,
};
use counterfoil_abi::sha256::Sha256;

/// Bytes of a packet before its payload that are looked at: a packet with more is not told.
const HEAD: usize = 512;
/// The longest CONNECT and CONNACK by which a stream is known: the properties of MQTT 5 and a will are in there.
const LONGEST_FIRST: u32 = 256 * 1024;

/// Where in a packet the stream stands.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum At {
    /// Before its first byte.
    Begin = 0,
    /// In its length.
    Length,
    /// In what is gathered in `head`.
    Head,
    /// In the payload of a message.
    Payload,
    /// In what doesn't matter.
    Rest,
    /// Nowhere: it is not followed.
    Lost,
}

impl At {
    /// A thread that left a call half way may have left any state, but never another byte than these.
    const fn new(code: u8) -> Self {
        match code {
            0 => Self::Begin,
            1 => Self::Length,
            2 => Self::Head,
            3 => Self::Payload,
            4 => Self::Rest,
            _ => Self::Lost,
        }
    }
}

/// See the module's text.
#[repr(C)]
pub struct Messages {
    at: u8,
    /// The stream was known to be MQTT.
    known: u8,
    /// This process is the broker.
    broker: u8,
    /// MQTT's version.
    level: u8,
    /// The packet's first byte.
    first: u8,
    /// Bytes of its length so far.
    length_bytes: u8,
    head_len: u16,
    /// Bytes of the packet behind its length, and those that have not passed yet.
    length: u32,
    left: u32,
    sequence: u32,
    payload: u32,
    /// Where it began.
    offset: u64,
    head: [u8; HEAD],
    hasher: Sha256,
}

impl Look for Messages {
    fn wanted(tap: Tap, policy: u32, _: u64) -> bool {
        let both = POLICY_MESSAGES | POLICY_WATCHED;
        policy & both == both && matches!(tap, Tap::TlsWrite | Tap::TlsRead | Tap::SockSend | Tap::SockRecv)
    }

    fn begin(&mut self, _: &Place<'_>, offset: u64) {
        // Only the beginning tells.
        self.at = if offset == 0 { At::Begin } else { At::Lost } as u8;
        (self.known, self.broker, self.level) = (0, 0, 0);
        (self.first, self.length_bytes, self.head_len) = (0, 0, 0);
        (self.length, self.left, self.sequence, self.payload, self.offset) = (0, 0, 0, 0, 0);
    }

    fn passed<P: Pieces + ?Sized>(&mut self, place: &Place<'_>, offset: u64, data: &P, bytes: u64) -> bool {
        let mut at = offset;
        data.walk(0, bytes, &mut |piece| {
            let mut rest = piece;
            while !rest.is_empty() && At::new(self.at) != At::Lost {
                let taken = self.step(place, at, rest).clamp(1, rest.len());
                at += taken as u64;
                rest = &rest[taken..];
            }
        });
        At::new(self.at) != At::Lost
    }

    fn missed(&mut self, place: &Place<'_>, _: u64, _: u64) {
        self.lose(place);
    }
}

impl Messages {
    /// Takes some of `bytes`, which begin at `offset`; returns how many.
    #[inline(never)]
    fn step(&mut self, place: &Place<'_>, offset: u64, bytes: &[u8]) -> usize {
        match At::new(self.at) {
            At::Begin => {
                (self.first, self.length, self.length_bytes, self.head_len) = (bytes[0], 0, 0, 0);
                (self.offset, self.payload) = (offset, 0);
                self.at = At::Length as u8;
                if !self.may_begin() {
                    self.lose(place);
                }
                1
            }
            At::Length => {
                self.length |= u32::from(bytes[0] & 127) << (7 * u32::from(self.length_bytes & 3));
                self.length_bytes += 1;
                if bytes[0] & 128 == 0 {
                    self.left = self.length;
                    self.at = At::Head as u8;
                    if self.known == 0 && self.length > LONGEST_FIRST {
                        self.lose(place);
                    } else {
                        self.headed(place);
                    }
                } else if self.length_bytes >= 4 {
                    self.lose(place);
                }
                1
            }
            At::Head => {
                let from = usize::from(self.head_len).min(HEAD);
                // Byte by byte as long as it isn't known: what follows may be the payload.
                let wanted = self.wanted_head().unwrap_or(from + 1).min(HEAD);
                let taken = wanted.saturating_sub(from).min(bytes.len()).min(self.left as usize);
                if let Some(to) = self.head.get_mut(from..from + taken) {
                    to.copy_from_slice(&bytes[..taken]);
                }
                self.head_len = (from + taken) as u16;
                self.left -= taken as u32;
                self.headed(place);
                taken
            }
            At::Payload => {
                let taken = bytes.len().min(self.left as usize);
                self.hasher.update(&bytes[..taken]);
                self.left -= taken as u32;
                self.through(place);
                taken
            }
            At::Rest => {
                let taken = bytes.len().min(self.left as usize);
                self.left -= taken as u32;
                self.through(place);
                taken
            }
            At::Lost => bytes.len(),
        }
    }

    /// Can a packet with this first byte stand here?
    fn may_begin(&self) -> bool {
        let (kind, flags) = (self.first >> 4, self.first & 15);
        if self.known == 0 {
            return self.first == 0x10 || self.first == 0x20;
        }
        match kind {
            // CONNECT and CONNACK come once.
            0..=2 => false,
            3 => flags & 6 != 6,
            6 | 8 | 10 => flags == 2,
            15 => flags == 0 && self.level == 5,
            _ => flags == 0,
        }
    }

    /// How much of the packet is to be gathered; None: that depends on bytes that have not come yet. More than
    /// [`HEAD`]: it can't be.
    fn wanted_head(&self) -> Option<usize> {
        let all = self.length as usize;
        let head = self.gathered();
        let wanted = match self.first >> 4 {
            // Protocol name, level, flags.
            1 => 2 + usize::from(be16(head, 0)?) + 2,
            2 => 2,
            3 => {
                let qos = usize::from(self.first >> 1 & 3);
                let fixed = 2 + usize::from(be16(head, 0)?) + if qos > 0 { 2 } else { 0 };
                if self.level == 5 { properties_end(head, fixed)? } else { fixed }
            }
            4 | 5 => 2,
            8..=10 => all,
            _ => 0,
        };
        Some(wanted.min(all))
    }

    fn gathered(&self) -> &[u8] {
        &self.head[..usize::from(self.head_len).min(HEAD)]
    }

    /// Something was gathered: goes on when that is all.
    fn headed(&mut self, place: &Place<'_>) {
        let whole = match self.wanted_head() {
            Some(wanted) if wanted <= usize::from(self.head_len) => true,
            // What is too long is passed over.
            Some(wanted) => wanted > HEAD,
            None => usize::from(self.head_len) >= HEAD || self.left == 0,
        };
        if !whole {
            return;
        }
        let good = match self.first >> 4 {
            1 => self.connect(place),
            2 => self.connack(place),
            3 => {
                self.publish_begins();
                return self.through(place);
            }
            4 => self.short(place, Packet::Puback),
            5 => self.short(place, Packet::Pubrec),
            8 => self.filters(place, Packet::Subscribe, 1),
            9 => self.answers(place),
            10 => self.filters(place, Packet::Unsubscribe, 0),
            12 => self.short(place, Packet::Pingreq),
            13 => self.short(place, Packet::Pingresp),
            14 => self.short(place, Packet::Disconnect),
            _ => true,
        };
        if !good {
            return self.lose(place);
        }
        self.at = At::Rest as u8;
        self.through(place);
    }

    /// The packet may have ended.
    fn through(&mut self, place: &Place<'_>) {
        if self.left > 0 || At::new(self.at) == At::Lost {
            return;
        }
        if At::new(self.at) == At::Payload {
            self.publish(place);
        }
        self.at = At::Begin as u8;
    }

    fn connect(&mut self, place: &Place<'_>) -> bool {
        let head = self.gathered();
        let level = match head {
            [0, 4, b'M', b'Q', b'T', b'T', level @ (4 | 5), ..] => *level,
            [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, ..] => 3,
            _ => return false,
        };
        // A bridge sets the highest bit of its level; it is a client as others are, and is not followed.
        (self.known, self.level) = (1, level);
        self.broker = u8::from(matches!(place.tap, Tap::TlsRead | Tap::SockRecv));
        self.short(place, Packet::Connect)
    }

    fn connack(&mut self, place: &Place<'_>) -> bool {
        // Acknowledge flags, return code; version 5 has properties behind them.
        let good = match (self.gathered(), self.length) {
            ([0 | 1, 0..=5], 2) => true,
            ([0 | 1, code], 3..) => *code == 0 || *code >= 0x80,
            _ => false,
        };
        if !good {
            return false;
        }
        (self.known, self.level) = (1, if self.length == 2 { 4 } else { 5 });
        self.broker = u8::from(matches!(place.tap, Tap::TlsWrite | Tap::SockSend));
        self.short(place, Packet::Connack)
    }

    fn publish_begins(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
        self.payload = self.left;
        if self.topic().is_none() {
            self.at = At::Rest as u8;
            return;
        }
        self.hasher = hasher(&process::settings().key);
        self.at = At::Payload as u8;
    }

    /// The message's topic, packet identifier and alias; None: it can't be told.
    fn topic(&self) -> Option<(&[u8], u16, u16)> {
        let head = self.gathered();
        let wanted = self.wanted_head()?;
        let topic = head.get(2..2 + usize::from(be16(head, 0)?))?;
        if wanted > head.len() || topic.len() > MAX_TEXT {
            return None;
        }
        let mut at = 2 + topic.len();
        let mut id = 0;
        if self.first & 6 != 0 {
            id = be16(head, at)?;
            at += 2;
        }
        let alias = if self.level == 5 { alias(head, at)? } else { 0 };
        Some((topic, id, alias))
    }

    fn publish(&self, place: &Place<'_>) {
        let Some((topic, id, alias)) = self.topic() else { return };
        let mut record = self.record(place, Packet::Publish, self.first & 15);
        record.fingerprint.copy_from_slice(&self.hasher.digest()[..16]);
        (record.id, record.alias, record.payload) = (id, alias, self.payload);
        tell(place, record, topic);
    }

    fn short(&self, place: &Place<'_>, packet: Packet) -> bool {
        let mut record = self.record(place, packet, 0);
        if matches!(packet, Packet::Puback | Packet::Pubrec) {
            let Some(id) = be16(self.gathered(), 0) else { return false };
            record.id = id;
        }
        tell(place, record, b"");
        true
    }

    /// Each filter of a SUBSCRIBE or UNSUBSCRIBE; `more` bytes of options follow each.
    fn filters(&self, place: &Place<'_>, packet: Packet, more: usize) -> bool {
        let head = self.gathered();
        let Some(id) = be16(head, 0) else { return false };
        let behind = if self.level == 5 { properties_end(head, 2) } else { Some(2) };
        let Some(mut at) = behind else { return true };
        while let Some(length) = be16(head, at) {
            let end = at + 2 + usize::from(length);
            let (Some(filter), Some(options)) = (head.get(at + 2..end), head.get(end..end + more)) else {
                break;
            };
            let qos = options.first().map_or(0, |o| o & 3);
            let mut record = self.record(place, packet, qos << 1);
            record.id = id;
            // A filter that is too long is told without its text: nobody can know what it covers.
            tell(place, record, if filter.len() > MAX_TEXT { b"" } else { filter });
            at = end + more;
        }
        true
    }

    fn answers(&self, place: &Place<'_>) -> bool {
        let head = self.gathered();
        let Some(id) = be16(head, 0) else { return false };
        let behind = if self.level == 5 { properties_end(head, 2) } else { Some(2) };
        let codes = behind.and_then(|at| head.get(at..)).unwrap_or(b"");
        let mut record = self.record(place, Packet::Suback, 0);
        record.id = id;
        tell(place, record, &codes[..codes.len().min(MAX_TEXT)]);
        true
    }

    /// A record of the packet; `flags` as MQTT has them in its first byte.
    fn record(&self, place: &Place<'_>, packet: Packet, flags: u8) -> Message {
        let mut record = Message::zeroed();
        record.header = lanes::header(Kind::Message, 1, place.tap as u8, place.object);
        let flags = flags >> 1 & 3 | (flags & 1) << 2 | flags & 8;
        record.header.flags = flags | if self.broker != 0 { BROKER } else { 0 };
        record.packet = packet as u8;
        record.level = self.level;
        record.offset = self.offset;
        record.length = 1 + u32::from(self.length_bytes) + self.length;
        record.sequence = self.sequence;
        record
    }

    /// Follows it no more; says so if it was MQTT.
    fn lose(&mut self, place: &Place<'_>) {
        if self.known != 0 && At::new(self.at) != At::Lost {
            tell(place, self.record(place, Packet::Lost, 0), b"");
        }
        self.at = At::Lost as u8;
    }
}

#[inline(never)]
fn tell(place: &Place<'_>, mut record: Message, text: &[u8]) {
    let Some(to) = record.text.get_mut(..text.len()) else { return };
    to.copy_from_slice(text);
    record.text_len = text.len() as u16;
    let lines = lines_for_text(text.len());
    record.header.lines = lines as u8;
    let bytes = bytemuck::bytes_of(&record);
    let all: &[Line] = bytemuck::cast_slice(&bytes[..lines * LINE]);
    // Tags matter more where a lane is crowded: `sequence` tells what was left out.
    lanes::push_spare(place.guard, all, false);
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A variable byte integer at `at`, and where it ends.
fn varint(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut value = 0;
    for i in 0..4 {
        let byte = *bytes.get(at + i)?;
        value |= usize::from(byte & 127) << (7 * i);
        if byte & 128 == 0 {
            return Some((value, at + i + 1));
        }
    }
    // No length at all: further than anything is gathered.
    Some((HEAD, at + 4))
}

/// Where the properties that begin at `at` end.
fn properties_end(bytes: &[u8], at: usize) -> Option<usize> {
    let (length, begin) = varint(bytes, at)?;
    Some(begin + length)
}

/// The topic alias among the properties that begin at `at`; 0: there is none. None: they are not well-formed.
fn alias(bytes: &[u8], at: usize) -> Option<u16> {
    let (length, mut at) = varint(bytes, at)?;
    let end = at + length;
    while at < end {
        let property = *bytes.get(at)?;
        at += 1;
        // MQTT 5, 2.2.2.2: those that a PUBLISH may have.
        at += match property {
            0x23 => return be16(bytes, at),
            0x01 => 1,
            0x02 => 4,
            0x0b => varint(bytes, at)?.1 - at,
            0x03 | 0x08 | 0x09 => 2 + usize::from(be16(bytes, at)?),
            0x26 => {
                let name = 2 + usize::from(be16(bytes, at)?);
                name + 2 + usize::from(be16(bytes, at + name)?)
            }
            _ => return None,
        };
    }
    Some(0)
}

#[cfg(test)]
mod tests;
