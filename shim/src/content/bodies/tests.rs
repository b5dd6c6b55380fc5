use super::*;
use crate::objects::{self, Object};
use crate::process;
use crate::stream::tests as streams;
use crate::thread::Guard;
use counterfoil_abi::Tag;
use counterfoil_abi::record::{Channel, Record};
use std::sync::atomic::Ordering::Relaxed;

/// A message as it was told.
#[derive(Debug, Default, PartialEq)]
struct Message {
    /// Where its head and where its body begins.
    at: (u64, u64),
    /// Bytes of its body.
    length: u64,
    tags: Vec<Tag>,
    whole: bool,
}

/// All that was told since the last time, and whether the framing was lost.
fn told() -> (Vec<Message>, bool) {
    let (mut messages, mut lost): (Vec<Message>, bool) = (Vec::new(), false);
    for record in streams::drain() {
        let Record::Body(r) = record else { continue };
        if r.header.flags & UNFRAMED != 0 {
            lost = true;
            continue;
        }
        let number = r.message as usize;
        if number == messages.len() {
            let at = (r.at - u64::from(r.head), r.at);
            messages.push(Message { at, ..Message::default() });
        }
        let message = &mut messages[number];
        assert_eq!(r.offset, message.length);
        message.length += u64::from(r.length);
        if r.length > 0 {
            message.tags.push(r.tag);
        }
        message.whole = r.header.flags & WHOLE != 0;
    }
    (messages, lost)
}

/// What is told of a stream that comes in pieces of `piece` bytes.
fn of(stream: &[u8], piece: usize) -> (Vec<Message>, bool) {
    process::arena().policy.store(POLICY_WATCHED, Relaxed);
    streams::drain();
    let object: &Object = objects::make(Channel::Tcp).and_then(objects::get).unwrap();
    let guard = Guard::enter().unwrap();
    for part in stream.chunks(piece) {
        assert!(object.into.claim(&guard, object.number(), Tap::SockRecv));
        object.into.took(&guard, object.number(), Tap::SockRecv, part, part.len() as u64);
        object.into.release();
    }
    object.tell(&guard, true);
    told()
}

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// The tags of a file of this content.
fn tags(content: &[u8]) -> Vec<Tag> {
    let mut mac = Mac::new();
    let blocks = content.chunks(BLOCK as usize);
    blocks
        .enumerate()
        .map(|(index, block)| {
            mac.begin(index as u64 * BLOCK);
            mac.update(block);
            mac::first_half(&mac.tag())
        })
        .collect()
}

fn with_length(head: &str, content: &[u8]) -> Vec<u8> {
    let mut stream = format!("{head}\r\nContent-Length: {}\r\n\r\n", content.len()).into_bytes();
    stream.extend(content);
    stream
}

fn chunked(head: &str, content: &[u8], size: usize) -> Vec<u8> {
    let mut stream = format!("{head}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in content.chunks(size) {
        stream.extend(format!("{:X};x=y\r\n", chunk.len()).bytes());
        stream.extend(chunk);
        stream.extend(b"\r\n");
    }
    stream.extend(b"0\r\nTrailer: x\r\n\r\n");
    stream
}

const PUT: &str = "PUT /a HTTP/1.1\r\nHost: b";

#[test]
fn a_body_has_the_tags_of_its_file_behind_any_head_and_in_any_chunks() {
    let _alone = streams::alone();
    for length in [1, 100, 16_384, 40_000, 49_152] {
        let content = body(length);
        let streams = [
            with_length(PUT, &content),
            with_length("HTTP/1.1 200 OK\r\nVia: 1.1 proxy", &content),
            chunked(PUT, &content, 1000),
            chunked(PUT, &content, 16_384),
            [b"HTTP/1.0 200 OK\r\n\r\n", &content[..]].concat(),
        ];
        for (which, stream) in streams.iter().enumerate() {
            for piece in [1, 77, 4096, 1 << 20] {
                let (messages, lost) = of(stream, piece);
                assert!(!lost && messages.len() == 1, "{which}: {messages:?}");
                assert_eq!((messages[0].length, messages[0].whole), (length as u64, true), "{which}");
                assert!(messages[0].tags == tags(&content), "{which}, {length} in pieces of {piece}");
                assert_eq!(messages[0].at.0, 0);
            }
        }
    }
}

#[test]
fn messages_that_follow_each_other() {
    let _alone = streams::alone();
    let content = body(20_000);
    let first = with_length(PUT, &content);
    let second = b"GET /c HTTP/1.1\r\nHost: d\r\n\r\n";
    let third = chunked(PUT, &content[1..], 999);
    let (messages, lost) = of(&[&first[..], second, &third].concat(), 1500);
    assert!(!lost);
    let lengths: Vec<_> = messages.iter().map(|m| (m.length, m.whole)).collect();
    assert_eq!(lengths, [(20_000, true), (0, true), (19_999, true)]);
    let began = [0, first.len(), first.len() + second.len()].map(|n| n as u64);
    assert_eq!(messages.iter().map(|m| m.at.0).collect::<Vec<_>>(), began);
    // What has no body by its status.
    let responses =
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
    let (messages, lost) = of(responses, 7);
    assert!(!lost);
    assert_eq!(messages.iter().map(|m| m.length).collect::<Vec<_>>(), [0, 0, 3]);
}

#[test]
fn a_body_that_ends_early_is_not_whole() {
    let _alone = streams::alone();
    let content = body(40_000);
    for stream in [with_length(PUT, &content), chunked(PUT, &content, 50_000)] {
        let (messages, lost) = of(&stream[..30_000], 4000);
        assert!(!lost);
        assert!(!messages[0].whole && messages[0].length > 16_384 && messages[0].length < 30_000);
        assert_eq!(messages[0].tags[0], tags(&content)[0]);
    }
}

#[test]
fn a_length_without_a_body_is_noticed() {
    let _alone = streams::alone();
    let answer = with_length("HTTP/1.1 200 OK", &body(300));
    let request = with_length("PUT /b HTTP/1.1\r\nExpect: 100-continue", &body(300));
    // The answer to HEAD, and the next one; a body that was refused, and the next request.
    for (head, next) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n"[..], &answer),
        (b"HTTP/1.1 200 OK\r\n\r\n", &answer),
        (b"PUT /a HTTP/1.1\r\nContent-Length: 300\r\nexpect: 100-continue\r\n\r\n", &request),
    ] {
        for piece in [1, 9, 4096] {
            let (messages, lost) = of(&[head, next].concat(), piece);
            assert!(lost && messages.is_empty(), "{}: {messages:?}", head.escape_ascii());
        }
    }
    let (messages, lost) = of(&request, 50);
    assert!(!lost && messages[0].whole);
}

#[test]
fn what_is_no_http_is_left_alone() {
    let _alone = streams::alone();
    for stream in
        [&b"SSH-2.0-OpenSSH_9.2\r\nabc"[..], b"EHLO there\r\nMAIL FROM:<a@b>\r\n", b"\x16\x03\x01", b"GET\n"]
    {
        let (messages, lost) = of(stream, 5);
        assert!(messages.is_empty(), "{messages:?}");
        assert!(!lost || stream.starts_with(b"EHLO"));
    }
    // Protocols that begin like it: nothing is believed from there on, and that is said.
    for stream in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n\x16\x03\x01",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n\x81\x05Hello",
        b"PUT /a HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"PUT /a HTTP/1.1\r\nContent-Length: 1\r\n\r\nabc\x00\x01\x02",
    ] {
        let (_, lost) = of(stream, 6);
        assert!(lost, "{}", stream.escape_ascii());
    }
}
