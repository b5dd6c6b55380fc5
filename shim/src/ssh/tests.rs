//! A connection as OpenSSH drives each kind of cipher, with a cipher that any child can break.

use super::packet::tests::{padded, text};
use super::*;
use crate::stream::tests::{alone, drain};
use counterfoil_abi::record::Record;
use counterfoil_abi::record::{ACCEPTED, CONNECTED, Channel, Tap};

/// How a cipher is driven (see `calls`).
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mode {
    Chacha,
    Gcm,
    MacAfter,
    MacBefore,
}

const MODES: [Mode; 4] = [Mode::Chacha, Mode::Gcm, Mode::MacAfter, Mode::MacBefore];

/// One end: what it knows, and the calls that it makes.
struct End {
    mode: Mode,
    state: State,
    /// Its channels' objects: what this test's own process does besides is recorded, too.
    objects: Vec<u32>,
}

fn turned(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|b| b ^ 0xa5).collect()
}

impl End {
    fn new(mode: Mode) -> Self {
        Self { mode, state: State::new(), objects: Vec::new() }
    }

    /// What was told of its channels since the last time.
    fn told(&mut self) -> Vec<Record> {
        let mut all = drain();
        for record in &all {
            if let Record::Opened(o) = record
                && o.channel == Channel::Ssh as u8
            {
                self.objects.push(o.header.object);
            }
        }
        let cipher = [Tap::CipherSeal as u8, Tap::CipherOpen as u8];
        all.retain(|record| {
            let header = record.header();
            self.objects.contains(&header.object) || cipher.contains(&header.tap)
        });
        all
    }

    fn packet(&self, payload: &[u8]) -> Vec<u8> {
        padded(payload, if self.mode == Mode::MacBefore { 4 } else { 0 })
    }

    fn call(&mut self, encrypts: bool, out: &mut [u8], input: &[u8]) {
        let guard = Guard::enter().expect("active");
        let call = Call { encrypts, out: out.as_mut_ptr(), input: input.as_ptr(), length: input.len() };
        let next = self.state.before(&guard, &call);
        out.copy_from_slice(&turned(input));
        self.state.after(&guard, &call, next, input.len() as i32);
    }

    fn bare(&mut self, encrypts: bool, input: &[u8], result: i32) {
        let guard = Guard::enter().expect("active");
        let at = if input.is_empty() { core::ptr::null() } else { input.as_ptr() };
        let call = Call { encrypts, out: core::ptr::null_mut(), input: at, length: input.len() };
        let next = self.state.before(&guard, &call);
        self.state.after(&guard, &call, next, result);
    }

    fn key(&mut self) {
        let guard = Guard::enter().expect("active");
        let mut key = [0u8; 32];
        let call = Call { encrypts: true, out: key.as_mut_ptr(), input: key.as_ptr(), length: 32 };
        let next = self.state.before(&guard, &call);
        key = [0x77; 32];
        self.state.after(&guard, &call, next, i32::from(key[0]));
    }

    fn seals(&mut self, payload: &[u8]) {
        let plain = self.packet(payload);
        let length = (plain.len() as u32).to_be_bytes();
        let mut room = vec![0; plain.len() + 4];
        match self.mode {
            Mode::Chacha => {
                self.key();
                self.call(true, &mut room[..4], &length);
                self.call(true, &mut room[4..], &plain);
            }
            Mode::Gcm => {
                self.bare(true, &length, 4);
                self.call(true, &mut room[4..], &plain);
                self.bare(true, &[], 0);
            }
            Mode::MacAfter => self.call(true, &mut room[4..], &plain),
            Mode::MacBefore => self.call(true, &mut room, &[&length[..], &plain].concat()),
        }
    }

    fn opens(&mut self, payload: &[u8]) {
        self.gets(payload, true);
    }

    /// A packet comes in; `right`: its MAC.
    fn gets(&mut self, payload: &[u8], right: bool) {
        let sealed = turned(&self.packet(payload));
        let clear = (sealed.len() as u32).to_be_bytes();
        let length = turned(&clear);
        let mut room = vec![0; sealed.len()];
        match self.mode {
            Mode::Chacha => {
                self.call(false, &mut [0; 4], &length);
                self.key();
                if right {
                    self.call(true, &mut [0; 4], &length);
                    self.call(true, &mut room, &sealed);
                }
            }
            Mode::Gcm => {
                self.bare(false, &clear, 4);
                self.call(false, &mut room, &sealed);
                self.bare(false, &[], if right { 0 } else { -1 });
            }
            Mode::MacAfter if right => self.call(false, &mut room, &sealed),
            Mode::MacAfter => {}
            Mode::MacBefore => {
                let whole = [&length[..], &sealed].concat();
                self.call(false, &mut [0; 16], &whole[..16]);
                // The rest has not arrived yet; something goes out meanwhile.
                self.seals(&[&[2][..], &text(b"nothing")].concat());
                self.call(false, &mut room[12..], &whole[16..]);
            }
        }
    }

    /// The channel 3, which the other end calls 5.
    fn asks(&mut self) {
        self.seals(&[&[90][..], &text(b"session"), &[0, 0, 0, 3], &[0; 8]].concat());
        self.opens(&[&[91, 0, 0, 0, 3, 0, 0, 0, 5][..], &[0; 8]].concat());
        self.seals(&[&[98, 0, 0, 0, 5][..], &text(b"exec"), &[1], &text(b"cat")].concat());
    }
}

fn data(channel: u8, bytes: &[u8]) -> Vec<u8> {
    [&[94, 0, 0, 0, channel][..], &text(bytes)].concat()
}

fn totals(records: &[Record]) -> Vec<(u64, u64)> {
    let ended = |r: &Record| match r {
        Record::Ended(e) => Some((e.out_total, e.in_total)),
        _ => None,
    };
    records.iter().filter_map(ended).collect()
}

#[test]
fn a_channel_with_each_kind_of_cipher() {
    let _alone = alone();
    for mode in MODES {
        let mut end = End::new(mode);
        end.seals(&[&[5][..], &text(b"ssh-userauth")].concat());
        assert!(end.told().is_empty(), "{mode:?}: nothing is told before there is a channel");
        end.asks();
        let content: Vec<u8> = (0..40_000u32).map(|i| (i * 7) as u8).collect();
        for piece in content.chunks(32_768) {
            end.seals(&data(5, piece));
        }
        for piece in content.chunks(9_999) {
            end.opens(&data(3, piece));
        }
        // Packets of all lengths, that of a MAC's key among them.
        for size in 0..100 {
            end.seals(&data(5, &content[..size]));
            end.opens(&data(3, &content[..size]));
        }
        end.seals(&data(9, b"to a channel that nobody knows"));
        end.seals(&[97, 0, 0, 0, 5]);
        end.opens(&[97, 0, 0, 0, 3]);
        let records = end.told();
        let opened: Vec<_> = records
            .iter()
            .filter_map(|r| match r {
                Record::Opened(o) => Some(o),
                _ => None,
            })
            .collect();
        let last = opened.last().expect("opened");
        assert_eq!(&last.name[..last.name_len as usize], b"session exec", "{mode:?}");
        assert_eq!((last.inode, last.header.flags, last.channel), (0, CONNECTED, Channel::Ssh as u8));
        assert_eq!(totals(&records), [(44_950, 44_950)], "{mode:?}");
        // The same content has the same tags on both sides.
        let tags = |tap: Tap| -> Vec<(u64, u32, counterfoil_abi::Tag)> {
            let mut tags = Vec::new();
            for record in &records {
                if let Record::Blocks(b) = record
                    && b.header.tap == tap as u8
                {
                    let each = if b.count == 1 { b.length } else { 16_384 };
                    for i in 0..b.count {
                        tags.push((b.offset + u64::from(i) * 16_384, each, b.tags[i as usize]));
                    }
                }
            }
            tags
        };
        assert_eq!(tags(Tap::CipherSeal), tags(Tap::CipherOpen), "{mode:?}");
        assert_eq!(tags(Tap::CipherSeal).len(), 3, "{mode:?}: two blocks and the rest");
    }
}

#[test]
fn channels_are_counted_for_each_asker() {
    let _alone = alone();
    let mut end = End::new(Mode::Gcm);
    end.asks();
    // The other end asks for one, is refused another, and gets a third.
    for sender in [7u8, 8, 9] {
        end.opens(&[&[90][..], &text(b"forwarded-tcpip"), &[0, 0, 0, sender], &[0; 8]].concat());
        match sender {
            8 => end.seals(&[&[92, 0, 0, 0, 8][..], &[0; 12]].concat()),
            _ => end.seals(&[&[91, 0, 0, 0, sender, 0, 0, 0, sender + 10][..], &[0; 8]].concat()),
        }
    }
    let named: Vec<(u64, u8)> = end
        .told()
        .iter()
        .filter_map(|r| match r {
            Record::Opened(o) => Some((o.inode, o.header.flags)),
            _ => None,
        })
        .collect();
    assert_eq!(named, [(0, CONNECTED), (0, CONNECTED), (0, ACCEPTED), (1, ACCEPTED)]);
}

#[test]
fn private_keys_are_never_tagged() {
    let _alone = alone();
    let key = [&text(b"ssh-ed25519")[..], &text(&[7; 32]), &text(&[9; 64])].concat();
    for mode in MODES {
        let mut end = End::new(mode);
        let shield = |end: &mut End| {
            let mut room = vec![0; key.len()];
            end.call(true, &mut room, &key);
            end.call(false, &mut vec![0; key.len()], &turned(&key));
        };
        shield(&mut end);
        end.asks();
        end.told();
        // In the middle of a connection, too: sshd signs when keys are exchanged again.
        shield(&mut end);
        end.seals(&data(5, b"pay 10"));
        shield(&mut end);
        end.seals(&[97, 0, 0, 0, 5]);
        end.opens(&[97, 0, 0, 0, 3]);
        assert_eq!(totals(&end.told()), [(6, 0)], "{mode:?}: and the channel goes on");
    }
}

#[test]
fn a_compressed_connection_has_no_channels() {
    let _alone = alone();
    for mode in [Mode::Chacha, Mode::Gcm, Mode::MacBefore] {
        let mut end = End::new(mode);
        end.asks();
        end.seals(&data(5, b"pay 10"));
        // A message number that there is, by chance, must not be believed either.
        end.seals(&[0x78, 0x9c, 94, 0, 0, 0, 5]);
        end.seals(&data(5, b"pay 99"));
        end.opens(&data(3, b"thanks"));
        end.opens(&[97, 0, 0, 0, 3]);
        let records = end.told();
        let doubts: Vec<(u64, u8)> = records
            .iter()
            .filter_map(|r| match r {
                Record::Gap(g) => Some((g.offset, g.reason)),
                _ => None,
            })
            .collect();
        assert_eq!(doubts, [(6, Reason::Transformed as u8)], "{mode:?}");
    }
}

#[test]
fn a_wrong_mac_shows_in_the_calls() {
    let _alone = alone();
    for mode in [Mode::Chacha, Mode::Gcm] {
        let mut end = End::new(mode);
        end.asks();
        end.opens(&data(3, b"pay 10"));
        assert!(!end.state.calls.refused_last());
        end.told();
        end.gets(&data(3, b"pay 99"), false);
        end.seals(&[97, 0, 0, 0, 5]);
        end.opens(&[97, 0, 0, 0, 3]);
        let records = end.told();
        let doubts: Vec<u64> = records
            .iter()
            .filter_map(|r| match r {
                Record::Gap(g) => Some(g.offset),
                _ => None,
            })
            .collect();
        // GCM deciphers first: those bytes are told of, and stand behind a gap.
        match mode {
            Mode::Gcm => assert_eq!((totals(&records), doubts), (vec![(0, 12)], vec![6])),
            _ => assert_eq!((totals(&records), doubts), (vec![(0, 6)], vec![])),
        }
    }
    let mut end = End::new(Mode::Chacha);
    end.asks();
    end.gets(&data(3, b"pay 99"), false);
    assert!(end.state.calls.refused_last(), "as the process's last call");
}
