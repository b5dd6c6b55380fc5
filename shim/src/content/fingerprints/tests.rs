use super::*;
use crate::objects::{self, Object};
use crate::stream::{Offer, tests as streams};
use crate::thread::Guard;
use counterfoil_abi::arena::POLICY_WATCHED;
use counterfoil_abi::prints::Sampler;
use counterfoil_abi::record::{Channel, Reason, Record};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

/// What was said since the last time: prints by where their windows end, and the spans.
#[derive(Default)]
struct Told {
    prints: BTreeMap<u64, Print>,
    /// From, to, bits.
    spans: Vec<(u64, u64, u32)>,
}

impl Told {
    fn now(tap: Tap) -> Self {
        let mut told = Self::default();
        for record in streams::drain() {
            let Record::Prints(r) = record else { continue };
            assert_eq!(r.header.tap, tap as u8);
            for sample in &r.samples[..usize::from(r.count)] {
                told.prints.insert(r.offset + u64::from(sample.end), sample.print);
            }
            let span = (r.offset, r.offset + u64::from(r.length), u32::from(r.bits));
            match told.spans.last_mut() {
                Some(last) if last.1 == span.0 && last.2 == span.2 => last.1 = span.1,
                _ => told.spans.push(span),
            }
        }
        told
    }
}

/// The prints of `content` at one density, computed at once.
fn model(content: &[u8], bits: u32) -> BTreeMap<u64, Print> {
    let mut out = BTreeMap::new();
    Sampler::new(streams::KEY).feed(&mut Window::default(), content, bits, |end, print| {
        out.insert(end as u64, print);
    });
    out
}

fn policy(bits: u32) {
    process::arena().policy.store(POLICY_WATCHED | bits, Relaxed);
}

fn object(channel: Channel) -> &'static Object {
    objects::make(channel).and_then(objects::get).unwrap()
}

fn receive(object: &Object, content: &[u8]) {
    let guard = Guard::enter().unwrap();
    let tap = object.taps().1;
    assert!(object.into.claim(&guard, object.number(), tap));
    object.into.took(&guard, object.number(), tap, content, content.len() as u64);
    object.into.release();
}

fn send(object: &Object, content: &[u8], accepted: u64) {
    let guard = Guard::enter().unwrap();
    let tap = object.taps().0;
    let mut offer = Offer::new();
    assert!(object.out.claim(&guard, object.number(), tap));
    assert!(object.out.offer(&guard, content, content.len() as u64, &mut offer));
    object.out.accepted(&guard, object.number(), tap, content, &mut offer, accepted);
    object.out.release();
}

#[test]
fn the_start_of_every_connection() {
    let _alone = streams::alone();
    policy(0);
    let content = noise(1, 100_000);
    let object = object(Channel::Tcp);
    for piece in content.chunks(3000) {
        receive(object, piece);
    }
    let told = Told::now(Tap::SockRecv);
    assert_eq!(told.spans, [(0, 4096, 4), (4096, 16_384, 6), (16_384, 65_536, 8)]);
    let mut expected = model(&content[..65_536], 8);
    expected.extend(model(&content[..16_384], 6));
    expected.extend(model(&content[..4096], 4));
    assert!(told.prints == expected, "{} and {}", told.prints.len(), expected.len());
}

#[test]
fn what_a_write_took_and_no_more() {
    let _alone = streams::alone();
    policy(0);
    let content = noise(2, 6000);
    let object = object(Channel::Tls);
    send(object, &content[..3000], 1000);
    send(object, &content[1000..3000], 2000);
    send(object, &content[3000..], 3000);
    object.tell(&Guard::enter().unwrap(), true);
    let told = Told::now(Tap::TlsWrite);
    assert_eq!(told.spans, [(0, 4096, 4), (4096, 6000, 6)]);
    let mut expected = model(&content, 6);
    expected.extend(model(&content[..4096], 4));
    assert!(told.prints == expected);
}

#[test]
fn who_asks_gets_more_on_streams_that_are_open() {
    let _alone = streams::alone();
    policy(0);
    let content = noise(3, 400_000);
    let object = object(Channel::Tcp);
    receive(object, &content[..100_000]);
    Told::now(Tap::SockRecv);
    policy(POLICY_FINGERPRINTS);
    receive(object, &content[100_000..200_000]);
    policy(0);
    receive(object, &content[200_000..300_000]);
    let told = Told::now(Tap::SockRecv);
    assert_eq!(told.spans, [(131_072, 147_456, 6)]);
    assert!(
        told.prints.len() > 100
            && told.prints.iter().all(|(end, print)| model(&content, 6).get(end) == Some(print))
    );
    // A file and a pipe have none until their process is turned up; then they are dense.
    for (channel, tap) in [(Channel::Pipe, Tap::PipeRead), (Channel::File, Tap::FileRead)] {
        let object = super::tests::object(channel);
        receive(object, &content[..500]);
        assert!(Told::now(tap).spans.is_empty());
        super::super::turn_up();
        receive(object, &content[500..20_000]);
        let told = Told::now(tap);
        policy(0);
        assert_eq!(told.spans, [(500, 20_000, 3)]);
        assert!(told.prints.len() > 2000);
    }
}

#[test]
fn nothing_is_said_across_what_was_not_seen() {
    let _alone = streams::alone();
    policy(0);
    let content = noise(4, 3000);
    let object = object(Channel::Tcp);
    receive(object, &content[..1000]);
    let guard = Guard::enter().unwrap();
    assert!(object.into.claim(&guard, object.number(), Tap::SockRecv));
    object.into.skip(&guard, object.number(), Tap::SockRecv, 5, 0, Reason::KernelCopy);
    object.into.release();
    drop(guard);
    receive(object, &content[1000..2000]);
    object.into.count(7);
    receive(object, &content[2000..]);
    object.tell(&Guard::enter().unwrap(), true);
    let told = Told::now(Tap::SockRecv);
    assert_eq!(told.spans, [(0, 1000, 4), (1005, 2005, 4), (2012, 3012, 4)]);
    for (from, base) in [(0, 0), (1000, 1005), (2000, 2012)] {
        for (end, print) in model(&content[from..from + 1000], 4) {
            assert_eq!(told.prints.get(&(base + end)), Some(&print));
        }
    }
}

#[test]
fn the_cipher_inside_tls_is_not_looked_at_twice() {
    let _alone = streams::alone();
    policy(POLICY_TURNED_UP);
    let object = object(Channel::Tls);
    let guard = Guard::enter().unwrap();
    let content = noise(5, 1000);
    assert!(object.seal.claim(&guard, object.number(), Tap::CipherSeal));
    object.seal.tagged(&guard, object.number(), Tap::CipherSeal, &content[..], 1000);
    object.seal.release();
    policy(0);
    assert!(Told::now(Tap::CipherSeal).spans.is_empty());
}
