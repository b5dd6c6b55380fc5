//! A channel between two programs: what each was given or gave on, and what their ciphers saw.

use super::*;
use crate::judged::SshPlace;

const CLIENT_ARENA: ArenaId = 1;
const SERVER_ARENA: ArenaId = 2;
const SOCKET: u32 = 1;
const CHANNEL: u32 = 2;
const PIPE: u32 = 3;
const OTHER: u32 = 4;
/// Blocks that pass, and a bit.
const WHOLE: u64 = 3;
const TOTAL: u64 = WHOLE * BLOCK + 9;

/// What of the way up (client to server) differs, by place.
#[derive(Default)]
struct Change {
    sealed: Option<u64>,
    opened: Option<u64>,
    written: Option<u64>,
}

fn stream(t: &mut Table, arena: ArenaId, object: u32, tap: Tap, changed: &[Option<u64>]) {
    for index in 0..WHOLE {
        let value = index as u8 + 1 + 100 * u8::from(changed.contains(&Some(index)));
        t.say(arena, block(object, tap, index, value));
    }
    let value = 77 + 100 * u8::from(changed.contains(&Some(WHOLE)));
    t.say(arena, partial(object, tap, WHOLE, 9, value));
}

fn channel(ordinal: u64, flags: u8, kind: &str) -> Record {
    opened(CHANNEL, Channel::Ssh, |o| {
        (o.device, o.inode) = (u64::from(SOCKET), ordinal);
        // 3 at the client, 5 at the server.
        o.peer_inode = if flags == CONNECTED { 3 << 32 | 5 } else { 5 << 32 | 3 };
        o.header.flags = flags;
        o.name[..kind.len()].copy_from_slice(kind.as_bytes());
        o.name_len = kind.len() as u32;
    })
}

/// A session: `ordinals` of the channel at both ends, and its kind.
fn session(change: &Change, ordinals: [u64; 2], kind: &str) -> (Table, Vec<Passage>) {
    let mut t = table(Told::default());
    t.program(CLIENT_ARENA, 0);
    t.program(SERVER_ARENA, 0);
    let (near, far) = (address(1, 40_000), address(2, 22));
    for (arena, local, remote) in [(CLIENT_ARENA, near, far), (SERVER_ARENA, far, near)] {
        t.say(
            arena,
            opened(SOCKET, Channel::Tcp, |o| {
                (o.local, o.remote, o.inode, o.device) = (local, remote, 100 + arena, 1);
            }),
        );
        // The connection's own bytes: what passes is ciphertext, and the same.
        t.say(arena, partial(SOCKET, if arena == 1 { Tap::SockSend } else { Tap::SockRecv }, 0, 20, 9));
    }
    t.say(CLIENT_ARENA, channel(ordinals[0], CONNECTED, kind));
    t.say(SERVER_ARENA, channel(ordinals[1], ACCEPTED, kind));
    // What the client reads, and something else that it reads; what the server writes.
    t.say(
        CLIENT_ARENA,
        opened(PIPE, Channel::Pipe, |o| {
            (o.inode, o.device, o.fd) = (50, 1, 0);
            o.header.flags = INHERITED;
        }),
    );
    t.say(CLIENT_ARENA, opened(OTHER, Channel::Pipe, |o| (o.inode, o.device, o.fd) = (51, 1, 8)));
    t.say(
        SERVER_ARENA,
        opened(PIPE, Channel::Pipe, |o| {
            (o.inode, o.device, o.fd) = (60, 1, 9);
            o.header.flags = PAIRED;
        }),
    );
    let up = [change.sealed, change.opened, change.written];
    stream(&mut t, CLIENT_ARENA, OTHER, Tap::PipeRead, &[Some(0), Some(1), Some(2), Some(3)]);
    stream(&mut t, CLIENT_ARENA, PIPE, Tap::PipeRead, &[]);
    stream(&mut t, CLIENT_ARENA, CHANNEL, Tap::CipherSeal, &up[..1]);
    stream(&mut t, SERVER_ARENA, CHANNEL, Tap::CipherOpen, &up[..2]);
    stream(&mut t, SERVER_ARENA, PIPE, Tap::PipeWrite, &up);
    for (object, out, inward) in [(CHANNEL, TOTAL, 0), (PIPE, 0, TOTAL), (OTHER, 0, TOTAL), (SOCKET, 20, 0)] {
        t.say(CLIENT_ARENA, ended(object, How::Closed, out, inward, |_| {}));
    }
    for (object, out, inward) in [(CHANNEL, 0, TOTAL), (PIPE, TOTAL, 0), (SOCKET, 0, 20)] {
        t.say(SERVER_ARENA, ended(object, How::Closed, out, inward, |_| {}));
    }
    for arena in [CLIENT_ARENA, SERVER_ARENA] {
        t.assembler.gone(arena);
    }
    t.wait(60);
    let passages = t.assembler.passages().cloned().collect();
    (t, passages)
}

fn outcome(passages: &[Passage], place: SshPlace) -> Option<&Outcome> {
    let mut found = passages.iter().filter(|c| c.place == place).map(|c| &c.outcome);
    let first = found.next();
    assert_eq!(found.next(), None, "{place:?} is told once");
    first
}

fn notices(t: &mut Table) -> Vec<(SshPlace, u64)> {
    let of = |j| match j {
        Judged::Notice(n) => match n.what {
            What::SshMismatch { place, altered, .. } => Some((place, altered[0].offset / BLOCK)),
            _ => None,
        },
        _ => None,
    };
    t.assembler.out.drain(..).filter_map(of).collect()
}

const PLACES: [SshPlace; 3] = [SshPlace::BeforeSealing, SshPlace::BetweenCiphers, SshPlace::AfterOpening];

#[test]
fn nothing_changed() {
    let (mut t, passages) = session(&Change::default(), [0, 0], "session exec");
    for place in PLACES {
        assert_eq!(outcome(&passages, place), Some(&Outcome::Same), "{place:?}");
    }
    // The transfers of the legs, by which a chain finds the place.
    let connection = passages.iter().find(|c| c.place == SshPlace::BetweenCiphers).and_then(|c| c.before);
    let sealing = passages.iter().find(|c| c.place == SshPlace::BeforeSealing).expect("there");
    assert!(connection.is_some() && sealing.after == connection && sealing.before != sealing.after);
    assert!(sealing.before.is_some());
    let programs = |place| passages.iter().find(|p| p.place == place).map(|p| p.programs);
    assert_eq!(programs(SshPlace::BeforeSealing), Some([CLIENT_ARENA; 2]));
    assert_eq!(programs(SshPlace::BetweenCiphers), Some([CLIENT_ARENA, SERVER_ARENA]));
    assert_eq!(programs(SshPlace::AfterOpening), Some([SERVER_ARENA; 2]));
    let said: Vec<_> = t.transfers();
    assert!(said.iter().all(|s| s.verdict != Verdict::Altered), "{said:?}");
    assert!(said.iter().any(|s| Some(s.id) == connection), "the connection's id is the one that is said");
    assert!(!said.iter().any(|s| s.bytes.origin == Some(TOTAL) && s.channel == crate::model::Channel::Tcp));
    assert!(t.empty() && t.assembler.by_tunnel.is_empty() && t.assembler.tunnels == 0);
}

#[test]
fn changed_in_each_place() {
    for index in 0..=WHOLE {
        let at = Some(index);
        let changes = [
            Change { sealed: at, ..Change::default() },
            Change { opened: at, ..Change::default() },
            Change { written: at, ..Change::default() },
        ];
        for (change, place) in changes.iter().zip(PLACES) {
            let (mut t, passages) = session(change, [0, 0], "session exec");
            assert_eq!(notices(&mut t), [(place, index)]);
            for other in PLACES.into_iter().filter(|&p| p != place) {
                assert_eq!(outcome(&passages, other), Some(&Outcome::Same), "{other:?} for {place:?}");
            }
        }
    }
}

#[test]
fn what_is_not_accused() {
    let change = Change { sealed: Some(1), ..Change::default() };
    // A terminal, and what a forwarding adds.
    for kind in ["session pty-req shell", "x11", "direct-tcpip", "session"] {
        let (mut t, passages) = session(&change, [0, 0], kind);
        assert_eq!(notices(&mut t), [], "{kind}");
        let sealing = outcome(&passages, SshPlace::BeforeSealing);
        assert_eq!(sealing, Some(&Outcome::Unknown(vec![Reason::Transformed])), "{kind}");
    }
    // Two channels that are not the ends of one.
    let change = Change { opened: Some(1), ..Change::default() };
    let (mut t, passages) = session(&change, [0, 1], "session exec");
    assert_eq!(notices(&mut t), []);
    assert_eq!(outcome(&passages, SshPlace::BetweenCiphers), None);
}
