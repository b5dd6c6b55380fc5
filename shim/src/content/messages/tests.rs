use super::*;
use crate::objects::{self, Object};
use crate::stream::tests as streams;
use crate::thread::Guard;
use counterfoil_abi::record::{Channel, DUPLICATE, QOS, RETAINED, Reason, Record, fingerprint};
use std::sync::atomic::Ordering::Relaxed;

/// What is told of a packet, in words.
fn told() -> Vec<String> {
    let mut all = Vec::new();
    for record in streams::drain() {
        let Record::Message(m) = record else { continue };
        let flags = m.header.flags;
        let flag = |bit, word| if flags & bit != 0 { word } else { "" };
        let text = String::from_utf8_lossy(&m.text[..usize::from(m.text_len)]).into_owned();
        let mut line = format!("{} {text}", Packet::from_code(m.packet).unwrap().word());
        if m.packet == Packet::Publish as u8 {
            let print: String = m.fingerprint[..4].iter().map(|b| format!("{b:02x}")).collect();
            line += &format!(" #{} q{} {} of {print}", m.sequence, flags & QOS, m.payload);
        }
        if m.packet == Packet::Subscribe as u8 {
            line += &format!(" q{}", flags & QOS);
        }
        if m.alias != 0 {
            line += &format!(" alias {}", m.alias);
        }
        line += flag(RETAINED, " retained");
        line += flag(DUPLICATE, " duplicate");
        line += flag(BROKER, " broker");
        all.push(line);
    }
    all
}

fn print_of(payload: &[u8]) -> String {
    fingerprint(streams::KEY, payload)[..4].iter().map(|b| format!("{b:02x}")).collect()
}

fn on() {
    process::arena().policy.store(POLICY_WATCHED | POLICY_MESSAGES, Relaxed);
}

fn object(channel: Channel) -> &'static Object {
    objects::make(channel).and_then(objects::get).unwrap()
}

fn receive(object: &Object, content: &[u8], piece: usize) {
    let guard = Guard::enter().unwrap();
    let tap = object.taps().1;
    for piece in content.chunks(piece) {
        assert!(object.into.claim(&guard, object.number(), tap));
        object.into.took(&guard, object.number(), tap, piece, piece.len() as u64);
        object.into.release();
    }
}

/// A packet: its first byte, and what is in it.
fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![first];
    let mut length = body.len();
    loop {
        let more = length > 127;
        out.push((length & 127) as u8 | if more { 128 } else { 0 });
        length >>= 7;
        if !more {
            break;
        }
    }
    out.extend(body);
    out
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn connect(level: u8) -> Vec<u8> {
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    packet(0x10, &[&text("MQTT"), &[level, 2, 0, 60], properties, &text("client")])
}

fn publish(flags: u8, topic: &str, payload: &[u8]) -> Vec<u8> {
    let id: &[u8] = if flags & 6 != 0 { &[0, 7] } else { &[] };
    packet(0x30 | flags, &[&text(topic), id, payload])
}

#[test]
fn a_clients_stream_in_any_pieces() {
    let _alone = streams::alone();
    on();
    let long = vec![b'x'; 70_000];
    let subscribe = packet(0x82, &[&[0, 1], &text("plant/#"), &[1], &text("other/+"), &[0]]);
    let stream = [
        connect(4),
        subscribe,
        publish(0, "plant/t", b"92.4"),
        publish(0b1011, "plant/t", &long),
        packet(0xc0, &[]),
        publish(0, "plant/empty", b""),
        packet(0xe0, &[]),
    ]
    .concat();
    for piece in [1, 2, 3, 7, 100, 1 << 20] {
        receive(object(Channel::Tls), &stream, piece);
        assert_eq!(
            told(),
            [
                "connect  broker".to_owned(),
                "subscribe plant/# q1 broker".to_owned(),
                "subscribe other/+ q0 broker".to_owned(),
                format!("publish plant/t #1 q0 4 of {} broker", print_of(b"92.4")),
                format!("publish plant/t #2 q1 70000 of {} retained duplicate broker", print_of(&long)),
                "pingreq  broker".to_owned(),
                format!("publish plant/empty #3 q0 0 of {} broker", print_of(b"")),
                "disconnect  broker".to_owned(),
            ],
            "{piece}"
        );
    }
}

#[test]
fn a_brokers_answers() {
    let _alone = streams::alone();
    on();
    let stream = [
        packet(0x20, &[&[0, 0]]),
        packet(0x90, &[&[0, 1], &[1, 0x80]]),
        packet(0x40, &[&[0, 7]]),
        publish(0, "a", b"1"),
        packet(0xd0, &[]),
    ]
    .concat();
    receive(object(Channel::Tcp), &stream, 1);
    assert_eq!(
        told(),
        [
            "connack ".to_owned(),
            "suback \u{1}\u{fffd}".to_owned(),
            "puback ".to_owned(),
            format!("publish a #1 q0 1 of {}", print_of(b"1")),
            "pingresp ".to_owned(),
        ]
    );
}

#[test]
fn mqtt_5() {
    let _alone = streams::alone();
    on();
    // A content type, a user property, and the alias 9.
    let properties = [&[3][..], &text("json"), &[0x26], &text("k"), &text("v"), &[0x23, 0, 9]].concat();
    let with = |topic: &str, payload: &[u8]| {
        packet(0x30, &[&text(topic), &[properties.len() as u8], &properties, payload])
    };
    let subscribe = packet(0x82, &[&[0, 1], &[0], &text("plant/#"), &[2]]);
    let stream =
        [connect(5), subscribe, with("t", b"1"), with("", b"2"), packet(0x30, &[&text("u"), &[0], b"3"])]
            .concat();
    for piece in [1, 5, 1 << 20] {
        receive(object(Channel::Tls), &stream, piece);
        assert_eq!(
            told(),
            [
                "connect  broker".to_owned(),
                "subscribe plant/# q2 broker".to_owned(),
                format!("publish t #1 q0 1 of {} alias 9 broker", print_of(b"1")),
                format!("publish  #2 q0 1 of {} alias 9 broker", print_of(b"2")),
                format!("publish u #3 q0 1 of {} broker", print_of(b"3")),
            ],
            "{piece}"
        );
    }
}

#[test]
fn what_is_too_long_to_be_told_is_counted() {
    let _alone = streams::alone();
    on();
    let topic = "t".repeat(MAX_TEXT + 1);
    let huge = "t".repeat(HEAD * 2);
    let stream =
        [connect(4), publish(2, &topic, b"1"), publish(2, &huge, b"1"), publish(0, "t", b"2")].concat();
    for piece in [1, 1 << 20] {
        receive(object(Channel::Tls), &stream, piece);
        let told = told();
        assert_eq!(told[1..], [format!("publish t #3 q0 1 of {} broker", print_of(b"2"))]);
    }
}

#[test]
fn other_streams_are_left_alone() {
    let _alone = streams::alone();
    on();
    for start in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\x10\x80\x80\x80\x80\x01",
        b"\x10\x0c\x00\x04MQTX\x04",
        b"\x20\x02\x09\x09",
        b"\x20 is a blank, and so is more of this",
        b"\x16\x03\x01\x02\x00",
        b"\x10\xff\xff\xff\x7fMQTT",
    ] {
        let stream = [start, &publish(0, "a", b"1")].concat();
        receive(object(Channel::Tcp), &stream, 1);
        assert_eq!(told(), Vec::<String>::new(), "{start:?}");
    }
    // And nothing where nobody asked.
    process::arena().policy.store(POLICY_WATCHED, Relaxed);
    receive(object(Channel::Tls), &[connect(4), publish(0, "a", b"1")].concat(), 99);
    assert_eq!(told(), Vec::<String>::new());
}

#[test]
fn what_can_not_be_followed_is_lost_once() {
    let _alone = streams::alone();
    on();
    // No packet begins so.
    receive(object(Channel::Tls), &[connect(4), vec![0x00, 0x00], connect(4)].concat(), 1);
    assert_eq!(told(), ["connect  broker", "lost  broker"]);
    // Something passed that nobody saw.
    let object = object(Channel::Tls);
    receive(object, &connect(4), 99);
    let guard = Guard::enter().unwrap();
    let tap = object.taps().1;
    assert!(object.into.claim(&guard, object.number(), tap));
    object.into.skip(&guard, object.number(), tap, 5, 0, Reason::BypassedBytes);
    object.into.release();
    drop(guard);
    receive(object, &publish(0, "a", b"1"), 99);
    assert_eq!(told(), ["connect  broker", "lost  broker"]);
}

#[test]
fn nonsense_does_no_harm() {
    let _alone = streams::alone();
    on();
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..3000 {
        let mut stream = connect(if x & 1 == 0 { 4 } else { 5 });
        for _ in 0..200 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            // Mostly short packets, so that many begin.
            stream.push(if x & 0x300 == 0 { 0x30 | (x >> 32) as u8 & 15 } else { (x >> 40) as u8 & 31 });
        }
        receive(object(Channel::Tls), &stream, 1 + (x as usize & 63));
        told();
    }
}
