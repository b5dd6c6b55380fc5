//! Records about the messages in a stream (MQTT), one by one.

use super::{Header, LINE};
use crate::sha256::Sha256;
use bytemuck::{Pod, Zeroable};

wire_enum! {
/// What a [`Message`] is about: MQTT's packet types, of those that are told.
Packet {
    /// No packet: the stream can't be followed from here on.
    Lost = 0 "lost",
    /// The client's first.
    Connect = 1 "connect",
    /// The broker's answer.
    Connack = 2 "connack",
    /// A message. `text` is its topic, empty where only `alias` names it.
    Publish = 3 "publish",
    /// It was taken (QoS 1).
    Puback = 4 "puback",
    /// It was taken (QoS 2).
    Pubrec = 5 "pubrec",
    /// One filter of a subscription: `text`; its QoS is in the flags.
    Subscribe = 8 "subscribe",
    /// The answer: `text` has one byte for each filter, in their order.
    Suback = 9 "suback",
    /// One filter of those that are not wanted any more.
    Unsubscribe = 10 "unsubscribe",
    /// The client asks whether the broker lives.
    Pingreq = 12 "pingreq",
    /// The broker lives.
    Pingresp = 13 "pingresp",
    /// The client, or the broker, goes.
    Disconnect = 14 "disconnect",
}
}

/// [`Message::header`]'s flags: the QoS.
pub const QOS: u8 = 3;
/// [`Message::header`]'s flags: the broker had kept it, or shall.
pub const RETAINED: u8 = 4;
/// [`Message::header`]'s flags: it was sent before, perhaps.
pub const DUPLICATE: u8 = 8;
/// [`Message::header`]'s flags: this process is the broker.
pub const BROKER: u8 = 16;

/// Bytes of the longest text that is told; a message with a longer topic is not.
pub const MAX_TEXT: usize = 3 * LINE;

/// [`super::Kind::Message`]: a packet of a stream that carries MQTT. One to four lines: as many as its text needs.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Message {
    /// Common part; flags: [`QOS`] ….
    pub header: Header,
    /// Where the packet begins in the stream.
    pub offset: u64,
    /// Bytes of the packet.
    pub length: u32,
    /// The how manieth [`Packet::Publish`] of the stream it is, from 1. Those that are not told count, too.
    pub sequence: u32,
    /// Keyed SHA-256 of the payload ([`hasher`]), the first half.
    pub fingerprint: [u8; 16],
    /// Bytes of the payload.
    pub payload: u32,
    /// MQTT's packet identifier, 0 where there is none.
    pub id: u16,
    /// MQTT 5's topic alias, 0 where there is none.
    pub alias: u16,
    /// A [`Packet`].
    pub packet: u8,
    /// MQTT's version: 3 (3.1), 4 (3.1.1) or 5.
    pub level: u8,
    /// Bytes used in `text`.
    pub text_len: u16,
    /// Zero.
    pub pad: [u8; 4],
    /// Names: not necessarily UTF-8.
    pub text: [u8; MAX_TEXT],
}

/// Lines that a [`Message`] record with a text of this length spans.
pub const fn lines_for_text(length: usize) -> usize {
    1 + length.div_ceil(LINE)
}

const _: () = assert!(size_of::<Message>() == 4 * LINE);

impl Message {
    /// Its fields are within their bounds, and it has the lines that it needs.
    pub(super) fn fits(&self, lines: usize) -> bool {
        let text = usize::from(self.text_len);
        Packet::from_code(self.packet).is_some()
            && text <= MAX_TEXT
            && lines_for_text(text) == lines
            && self.offset < super::UNPLAUSIBLE
            && self.payload <= self.length
    }
}

/// What makes [`Message::fingerprint`] of a payload, under the key of all tags. A function of its own: the same bytes
/// have another tag as a block of a stream. The key comes first, in a block of its own; only half of the digest is
/// told, so nothing can be appended to what was hashed. Not BLAKE3: its state, in memory that processes of unequal
/// rights may share, is not memory-safe at any bytes' value, and [`Sha256`] is.
#[must_use]
pub fn hasher(key: &[u8; 16]) -> Sha256 {
    let mut first = [0; 64];
    first[..16].copy_from_slice(key);
    first[16..35].copy_from_slice(b"counterfoil message");
    let mut hasher = Sha256::new();
    hasher.update(&first);
    hasher
}

/// [`Message::fingerprint`] of a whole payload.
#[must_use]
pub fn fingerprint(key: &[u8; 16], payload: &[u8]) -> [u8; 16] {
    let mut hasher = hasher(key);
    hasher.update(payload);
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.digest()[..16]);
    half
}
