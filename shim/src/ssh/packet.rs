//! What an SSH packet says (RFC 4253, 6; RFC 4254).
//!
//! Comes in: a packet's plaintext from its padding length on. Goes out: the few messages that open,
//! close and fill channels. Whoever calls may hand in things that are no packets at all (a program
//! enciphers its private keys with the same function): every length must fit.

#![forbid(unsafe_code)]

/// A packet's beginning that is enough to understand it; only data go on behind it.
pub const HEAD: usize = 80;
/// Where a [`Message::Data`]'s bytes stand: padding length, type, channel, length.
pub const DATA_AT: usize = 10;

/// A message that matters here. Channels are named as their receiver counts them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// Bytes of a channel: `length` of them from [`DATA_AT`] on.
    Data { channel: u32, length: usize },
    /// Its sender wants a channel, which it calls `sender`.
    Open { kind: &'a [u8], sender: u32 },
    /// `recipient`, which the other side asked for, is `sender` here.
    Confirmation { recipient: u32, sender: u32 },
    /// `recipient` will not be.
    Failure { recipient: u32 },
    /// No more data come.
    Eof { channel: u32 },
    /// The channel is done with.
    Close { channel: u32 },
    /// What is to happen in a channel: `exec`, `pty-req` ….
    Request { channel: u32, kind: &'a [u8] },
    /// The connection ends, and why: in OpenSSH's words for it.
    Disconnect { text: &'a [u8] },
    /// Any other that SSH knows.
    Other { number: u8 },
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A name at `at`: printable ASCII (RFC 4251, 6).
fn name(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let length = word(bytes, at)? as usize;
    let name = bytes.get(at + 4..)?.get(..length)?;
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(name)
}

/// Messages that there are (RFC 4250, 4.1, and OpenSSH's ping and pong).
fn is_known(number: u8) -> bool {
    matches!(number, 1..=8 | 20..=21 | 30..=49 | 50..=53 | 60..=66 | 80..=82 | 90..=100 | 192..=193)
}

/// The message in a packet of `total` bytes, the padding length counted; `head` is its beginning,
/// [`HEAD`] bytes or all. None: this is no packet, or its payload is compressed.
pub fn read(head: &[u8], total: usize) -> Option<Message<'_>> {
    const PADDING: usize = 4;
    let (padding, number) = (usize::from(*head.first()?), *head.get(1)?);
    let payload = total.checked_sub(1 + padding).filter(|&p| p > 0 && padding >= PADDING)?;
    if !is_known(number) {
        return None;
    }
    let channel = || word(head, 2);
    Some(match number {
        1 => {
            let text = word(head, 6).and_then(|length| head.get(10..)?.get(..length as usize));
            Message::Disconnect { text: text.unwrap_or_default() }
        }
        90 => Message::Open { kind: name(head, 2)?, sender: word(head, 6 + word(head, 2)? as usize)? },
        91 if payload >= 17 => Message::Confirmation { recipient: channel()?, sender: word(head, 6)? },
        92 if payload >= 17 => Message::Failure { recipient: channel()? },
        94 => {
            let length = word(head, 6)? as usize;
            (payload.checked_sub(9)? == length).then_some(Message::Data { channel: channel()?, length })?
        }
        96 if payload == 5 => Message::Eof { channel: channel()? },
        97 if payload == 5 => Message::Close { channel: channel()? },
        98 => Message::Request { channel: channel()?, kind: name(head, 6)? },
        91 | 92 | 96 | 97 => return None,
        _ => Message::Other { number },
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A packet around `payload`, from its padding length on; `before`: bytes of the length that counts
    /// as well, when it comes to whole blocks.
    pub fn padded(payload: &[u8], before: usize) -> Vec<u8> {
        let short = 16 - (before + 1 + payload.len()) % 16;
        let padding = if short < 4 { short + 16 } else { short };
        [&[padding as u8][..], payload, &vec![0x55; padding]].concat()
    }

    fn packet(payload: &[u8]) -> Vec<u8> {
        padded(payload, 4)
    }

    /// A string as SSH writes it.
    pub fn text(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
    }

    #[test]
    fn messages_of_channels() {
        let open = packet(&[&[90][..], &text(b"session"), &[0, 0, 0, 7], &[0; 8]].concat());
        assert_eq!(read(&open, open.len()), Some(Message::Open { kind: b"session", sender: 7 }));
        let confirmation = packet(&[&[91, 0, 0, 0, 7, 0, 0, 0, 3][..], &[0; 8]].concat());
        let expected = Message::Confirmation { recipient: 7, sender: 3 };
        assert_eq!(read(&confirmation, confirmation.len()), Some(expected));
        let request = packet(&[&[98, 0, 0, 0, 3][..], &text(b"exec"), &[1], &text(b"cat")].concat());
        assert_eq!(read(&request, request.len()), Some(Message::Request { channel: 3, kind: b"exec" }));
        let data = packet(&[&[94, 0, 0, 0, 3][..], &text(b"pay 10")].concat());
        assert_eq!(read(&data, data.len()), Some(Message::Data { channel: 3, length: 6 }));
        assert_eq!(&data[DATA_AT..DATA_AT + 6], b"pay 10");
        let close = packet(&[97, 0, 0, 0, 3]);
        assert_eq!(read(&close, close.len()), Some(Message::Close { channel: 3 }));
        let ignore = packet(&[&[2][..], &text(b"nothing")].concat());
        assert_eq!(read(&ignore, ignore.len()), Some(Message::Other { number: 2 }));
        let end = packet(&[&[1, 0, 0, 0, 2][..], &text(b"Packet corrupt"), &text(b"")].concat());
        assert_eq!(read(&end, end.len()), Some(Message::Disconnect { text: b"Packet corrupt" }));
        let cut = packet(&[1, 0, 0, 0, 2, 0, 0, 9, 9]);
        assert_eq!(read(&cut, cut.len()), Some(Message::Disconnect { text: b"" }));
    }

    #[test]
    fn what_is_no_packet() {
        // A private key as OpenSSH enciphers it in memory: a name first, so no padding length.
        let key = [&text(b"ssh-ed25519")[..], &text(&[7; 32]), &text(&[9; 64])].concat();
        assert_eq!(read(&key, key.len()), None);
        // The first bytes of a zlib stream.
        let squeezed = packet(&[0x78, 0x9c, 0x4a, 0x2a, 0x2d, 0, 0, 0, 0, 0, 0]);
        assert_eq!(read(&squeezed, squeezed.len()), None);
        // Lengths that don't fit.
        let mut data = packet(&[&[94, 0, 0, 0, 3][..], &text(b"pay 10")].concat());
        data[9] = 7;
        assert_eq!(read(&data, data.len()), None);
        for total in 0..8 {
            assert_eq!(read(&[20, 94, 0, 0, 0, 0, 0, 0][..total], total), None);
        }
        assert_eq!(read(&packet(&[97, 0, 0, 0, 3, 0]), 32), None);
    }
}
