//! A hostile client and a hostile daemon (issue 2, "Safe from the first day"): they may lie about
//! themselves, but about nobody else, and they harm nobody.

use counterfoil_abi::arena::{ArenaHead, POLICY_OFF};
use counterfoil_abi::hello;
use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::hostile::{self, Client, Liar, Lie};
use counterfoil_tests::report::Report;
use counterfoil_tests::undisturbed::{FIXTURE, undisturbed};
use counterfoil_tests::{Scratch, wait};
use std::mem::offset_of;
use std::time::{Duration, Instant};

#[test]
fn lying_daemons() {
    for lie in [
        Lie::HangUp,
        Lie::Garbage(1),
        Lie::Garbage(size_of::<hello::Reply>()),
        Lie::Garbage(60_000),
        Lie::OtherAbi,
        Lie::NoArena,
        Lie::SmallArena,
        Lie::RandomArena,
        Lie::FullArena,
    ] {
        println!("{lie:?}");
        let scratch = Scratch::new();
        let liar = Liar::start(&scratch.at("socket"), lie);
        undisturbed(FIXTURE, &scratch.at("socket"));
        undisturbed("shared fork-turns", &scratch.at("socket"));
        assert!(liar.asked() > 0, "{lie:?}: the library did not even ask");
    }
}

/// A daemon that is stopped must not stop the host's programs for long.
#[test]
fn silent_daemon() {
    let scratch = Scratch::new();
    let _liar = Liar::start(&scratch.at("socket"), Lie::Silence);
    undisturbed("stream tcp send recv 10000 1000", &scratch.at("socket"));
}

#[test]
fn garbage_on_the_socket() {
    let mut daemon = Daemon::start("");
    for length in [0, 1, 7, 8, 100, size_of::<hello::Request>() - 1, size_of::<hello::Request>() + 1, 60_000]
    {
        let client = Client::connect(&daemon.socket()).expect("connect");
        let _ = client.say(&counterfoil_tests::scratch::payload(length as u64 + 1, length));
        if let Ok(answer) = client.hear() {
            assert!(answer.arena.is_none(), "{length} bytes of garbage were granted an arena");
        }
    }
    let mut request = Client::request();
    request.inherited_len = u32::MAX;
    let client = Client::connect(&daemon.socket()).expect("connect");
    client.say(bytemuck::bytes_of(&request)).expect("send");
    drop(client.hear());
    assert!(daemon.alive(), "{}", daemon.shown("it died"));
    daemon.good_session(2);
}

#[test]
fn wrong_abi_is_told() {
    let daemon = Daemon::start("");
    let mut request = Client::request();
    request.abi += 1;
    let client = Client::connect(&daemon.socket()).expect("connect");
    client.say(bytemuck::bytes_of(&request)).expect("send");
    let answer = client.hear().expect("an answer");
    let reply = answer.reply.expect("a reply");
    assert_eq!(reply.status, hello::WRONG_ABI);
    assert_eq!(reply.key, [0; 16], "the key went to somebody who is not served");
    assert!(answer.arena.is_none());
    daemon.until_logged("has the library of another version (ABI 2, this daemon's is 1)");
    let unobserved =
        |r: &Report| r.coverage().iter().any(|c| c["observed"] == false && c["reason"] == "other-version");
    daemon.until_reported("it runs unobserved", unobserved);
}

/// A daemon of another version was here before: what it left is not read, and who wrote it is told to stop.
#[test]
fn an_arena_of_another_version_is_given_up() {
    let mut daemon = Daemon::start("");
    let client = Client::connect(&daemon.socket()).expect("connect");
    client.say(bytemuck::bytes_of(&Client::request())).expect("send");
    let arena = client.hear().expect("an answer").arena.expect("an arena");
    let at = |field: usize| u64::try_from(field).expect("small");
    rustix::io::pwrite(&arena, &77u32.to_ne_bytes(), at(offset_of!(ArenaHead, abi))).expect("written");
    daemon.kill();
    daemon.launch();
    daemon.until_logged("runs on with the library of another version (ABI 77, this daemon's is 1)");
    let unobserved =
        |r: &Report| r.coverage().iter().any(|c| c["observed"] == false && c["reason"] == "other-version");
    daemon.until_reported("it runs unobserved", unobserved);
    let mut policy = [0; 4];
    assert_eq!(rustix::io::pread(&arena, &mut policy, at(offset_of!(ArenaHead, policy))), Ok(4));
    assert_eq!(u32::from_ne_bytes(policy), POLICY_OFF);
    daemon.good_session(2);
}

/// Clients that connect and say nothing don't keep others waiting.
#[test]
fn silent_clients() {
    let mut daemon = Daemon::start("");
    let _held: Vec<_> = (0..200).filter_map(|_| Client::connect(&daemon.socket()).ok()).collect();
    let started = Instant::now();
    daemon.good_session(2);
    assert!(started.elapsed() < Duration::from_secs(10), "they kept it waiting");
    assert!(daemon.alive());
}

fn arena_of(daemon: &Daemon) -> std::fs::File {
    let client = Client::connect(&daemon.socket()).expect("connect");
    client.say(bytemuck::bytes_of(&Client::request())).expect("send");
    let answer = client.hear().expect("an answer");
    assert_eq!(answer.reply.expect("a reply").status, hello::GRANTED);
    answer.arena.expect("an arena")
}

#[test]
fn arena_can_not_be_resized() {
    let daemon = Daemon::start("");
    let arena = arena_of(&daemon);
    assert!(arena.set_len(0).is_err(), "it was truncated under the daemon");
    assert!(arena.set_len(1 << 30).is_err(), "it was blown up");
}

#[test]
fn random_arenas() {
    let mut daemon = Daemon::start("");
    let mut arenas = vec![];
    for seed in 1..12 {
        let arena = arena_of(&daemon);
        // All of it; the lanes' heads and rings; the rings only, with one record said to be there.
        let from =
            [0, counterfoil_abi::arena::LANE_HEADS_AT, counterfoil_abi::arena::RINGS_AT][seed as usize % 3];
        hostile::scribble(&arena, seed, from as u64);
        hostile::ring_bell(&arena);
        if from == counterfoil_abi::arena::RINGS_AT {
            hostile::publish(&arena, std::process::id(), &records_of_every_kind(seed));
        }
        arenas.push(arena);
    }
    daemon.until_reported("hostile-arena", |r| r.fired("hostile-arena"));
    assert!(daemon.alive(), "{}", daemon.shown("it died"));
    daemon.good_session(2);
    let report = daemon.report();
    for rule in ["payload-altered", "cipher-mismatch", "payload-truncated"] {
        assert!(!report.fired(rule), "{}", daemon.shown("somebody was accused by made-up records"));
    }
}

/// A ring full of made-up words whose kinds are valid: what decodes must be bounded all the same.
fn records_of_every_kind(seed: u64) -> Vec<u64> {
    let bytes = counterfoil_tests::scratch::payload(seed, 64 * 1000);
    let mut words: Vec<u64> =
        bytes.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().expect("8"))).collect();
    for (i, line) in words.chunks_exact_mut(8).enumerate() {
        let kind = 1 + (i as u64 % 9);
        let lines = [4, 1, 1, 2, 1, 2, 1, 1, 4][i % 9];
        line[0] = (line[0] & !0xffff_ffff) | kind | (lines << 8) | ((1 + seed % 10) << 16);
        line[0] = (line[0] & 0xffff_ffff) | ((1 + i as u64 % 3) << 32);
    }
    words
}

/// A client that claims somebody else's connection is believed in nothing (DESIGN, Who may be believed).
#[test]
fn claims_on_a_connection_of_others() {
    let daemon = Daemon::start("");
    let mut waiting = daemon.observing_fixture(&format!("{FIXTURE} mark=mark wait=go")).start();
    let mark = waiting.scratch.at("mark");
    wait::until(Duration::from_secs(20), "the connection stands", || mark.exists().then_some(()));
    // All connections of the loopback, claimed with content of our own.
    let table = std::fs::read_to_string("/proc/net/tcp").expect("tcp table");
    for line in table.lines().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        if words[3] == "01" {
            claim(&daemon, words[1], words[2]);
        }
    }
    waiting.scratch.write("go", "");
    let ended = wait::poll(Duration::from_secs(20), || waiting.child.try_wait().expect("wait"));
    assert!(ended.is_some_and(|s| s.success()), "the fixture failed");
    let report = daemon.until_reported("the connection's transfers", |r| r.on("tls").len() >= 2);
    for transfer in &report.on("tls") {
        assert_eq!(transfer.verdict(), "intact", "{}", daemon.shown("the liar was believed"));
    }
    for rule in ["payload-altered", "cipher-mismatch", "record-rejected"] {
        assert!(!report.fired(rule), "{}", daemon.shown("the liar accused somebody"));
    }
}

/// Publishes an `Opened`, a block of a made-up tag and an `Ended` for a socket with these addresses.
fn claim(daemon: &Daemon, local: &str, remote: &str) {
    use bytemuck::Zeroable;
    use counterfoil_abi::record::{
        Address, Blocks, CONNECTED, Channel, Ended, Header, How, Kind, Opened, Tap,
    };
    let address = |text: &str| -> Address {
        let (ip, port) = text.split_once(':').expect("address");
        let mut out = Address::zeroed();
        out.ip[..4].copy_from_slice(&u32::from_str_radix(ip, 16).expect("ip").to_le_bytes());
        out.port = u16::from_str_radix(port, 16).expect("port");
        out.version = 4;
        out
    };
    let header = |kind: Kind, lines, tap: u8, flags| Header {
        kind: kind as u8,
        lines,
        tap,
        flags,
        object: 1,
        time: 1,
    };
    let mut opened = Opened::zeroed();
    opened.header = header(Kind::Opened, 4, 0, CONNECTED);
    opened.channel = Channel::Tcp as u8;
    opened.fd = 3;
    opened.local = address(local);
    opened.remote = address(remote);
    let mut blocks = Blocks::zeroed();
    blocks.header = header(Kind::Blocks, 1, Tap::SockSend as u8, 0);
    blocks.length = counterfoil_abi::BLOCK as u32;
    blocks.count = 1;
    blocks.tags[0] = [0x5a; 16];
    let mut ended = Ended::zeroed();
    ended.header = header(Kind::Ended, 2, 0, 0);
    ended.how = How::Closed as u8;
    ended.out_total = counterfoil_abi::BLOCK;
    ended.kernel_out = counterfoil_abi::BLOCK;
    ended.kernel_in = 0;
    let mut bytes = vec![];
    bytes.extend_from_slice(bytemuck::bytes_of(&opened));
    bytes.extend_from_slice(&bytemuck::bytes_of(&blocks)[..64]);
    bytes.extend_from_slice(bytemuck::bytes_of(&ended));
    let words: Vec<u64> =
        bytes.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().expect("8"))).collect();
    hostile::publish(&arena_of(daemon), std::process::id(), &words);
}
