//! Bad input (issue 2, item 7): whatever answers, dies, lies or is full, the host program runs on as if
//! nothing were loaded, and the daemon serves the others.

use counterfoil_abi::hello;
use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::hostile::{self, Client, Liar, Lie};
use counterfoil_tests::{Observed, Scratch, check, peers, product, skip, truth, wait};
use rustix::process::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

const FIXTURE: &str = "tls 1.3 - write read 100000 5000 answer=3000";

/// A fixture with the library loaded, by whatever answers at `socket`.
fn preloaded(line: &str, socket: &Path) -> Observed {
    Observed::fixture(line).plain().env("LD_PRELOAD", product::library()).env("COUNTERFOIL_SOCKET", socket)
}

/// It says and does the same as without the library, and about as fast.
fn undisturbed(line: &str, socket: &Path) {
    let plain = Observed::fixture(line).plain().go();
    let started = Instant::now();
    let run = preloaded(line, socket).go();
    check!(run, run.stdout == plain.stdout, "stdout differs; plain was:\n{}", plain.stdout);
    check!(run, run.stderr == plain.stderr, "stderr differs; plain was:\n{}", plain.stderr);
    check!(run, run.code() == plain.code(), "status differs; plain was {}", plain.code());
    check!(run, started.elapsed() < Duration::from_secs(5), "it was held up");
}

#[test]
fn no_daemon() {
    for path in ["/nonexistent/socket", "/etc/passwd", "/", "", "relative"] {
        undisturbed(FIXTURE, Path::new(path));
    }
    undisturbed(FIXTURE, Path::new(&"x".repeat(4000)));
}

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

fn good_session(daemon: &Daemon, expected: usize) {
    let run = daemon.observing_fixture(FIXTURE).go().well();
    check!(run, run.stdout.contains("got 100000"), "the fixture itself failed");
    let report = daemon.until_reported("a good session's transfers", |r| r.on("tls").len() >= expected);
    for transfer in &report.on("tls") {
        assert_eq!(transfer.verdict(), "intact", "{}", daemon.shown("a good session"));
    }
}

#[test]
fn daemon_judges_what_exec_runs() {
    let mut daemon = Daemon::start("");
    good_session(&daemon, 2);
    let status = daemon.stop();
    assert!(status.success(), "{}", daemon.shown("it did not end well"));
    let ledger = daemon.ledger().well();
    check!(ledger, ledger.stdout.lines().count() == 2, "the ledger has two transfers");
    for line in ledger.stdout.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(value["verdict"], "intact");
        assert!(daemon.report().lines.iter().any(|l| l["id"] == value["id"]), "another id than reported");
    }
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
    good_session(&daemon, 2);
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
}

/// Clients that connect and say nothing don't keep others waiting.
#[test]
fn silent_clients() {
    let mut daemon = Daemon::start("");
    let _held: Vec<_> = (0..200).filter_map(|_| Client::connect(&daemon.socket()).ok()).collect();
    let started = Instant::now();
    good_session(&daemon, 2);
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
    good_session(&daemon, 2);
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

/// The daemon is killed while a connection is open: the host goes on, and what was published before
/// is not lost when it comes back.
#[test]
fn daemon_killed_in_the_middle() {
    let mut daemon = Daemon::start("");
    good_session(&daemon, 2);
    let running = daemon.observing_fixture(&format!("{FIXTURE} mark=mark wait=go")).start();
    let mark = running.scratch.at("mark");
    wait::until(Duration::from_secs(20), "the connection stands", || mark.exists().then_some(()));
    daemon.kill();
    running.scratch.write("go", "");
    let run = running.finish();
    check!(run, run.status.success(), "the host was disturbed");
    check!(run, run.stdout.contains("server: got 100000"), "the host was disturbed");
    // Programs that start while nobody is there run as well.
    undisturbed("stream tcp send recv 10000 1000", &daemon.socket());

    daemon.launch();
    let ledger = daemon.ledger().well();
    check!(ledger, ledger.stdout.lines().count() >= 2, "what had ended before is lost");
    let run = daemon.observing_fixture("stream tcp send recv 50000 5000").go().well();
    check!(run, run.stdout.contains("got 50000"), "the fixture itself failed");
    daemon.until_reported("a transfer after the restart", |r| {
        r.on("tcp").iter().any(|t| t.verdict() == "intact" && t.origin() == Some(50_000))
    });
}

/// Stopped, not dead: observed programs don't wait for it.
#[test]
fn stopped_daemon() {
    let daemon = Daemon::start("");
    let running = daemon.observing_fixture("shared torrent").start();
    daemon.signal(Signal::STOP);
    let run = running.finish();
    daemon.signal(Signal::CONT);
    check!(run, run.stdout.contains("400000"), "the host waited for the daemon");
}

#[test]
fn full_disk() {
    if !peers::root() {
        skip!("not root: no file system to fill");
    }
    let scratch = Scratch::new();
    let state = scratch.at("small");
    std::fs::create_dir(&state).expect("folder");
    let options = c"size=512k,mode=0700";
    if rustix::mount::mount("tmpfs", &state, "tmpfs", rustix::mount::MountFlags::empty(), options).is_err() {
        skip!("no mounts here");
    }
    let mounted = Mounted(state.clone());
    let mut daemon = Daemon::start_in(scratch, state.clone(), "");
    good_session(&daemon, 2);
    // Filled to the last byte.
    let mut hog = std::fs::File::create(state.join("hog")).expect("hog");
    while std::io::Write::write_all(&mut hog, &[0; 4096]).is_ok() {}
    for round in 2..5 {
        let run = daemon.observing_fixture(FIXTURE).go();
        check!(run, run.status.success(), "the host was disturbed");
        // Verdicts still go to the sinks that have room.
        daemon.until_reported("transfers on a full disk", |r| r.on("tls").len() >= 2 * round);
    }
    assert!(daemon.alive(), "{}", daemon.shown("it died of a full disk"));
    let log = std::fs::read_to_string(daemon.scratch.at("log")).expect("log");
    assert!(
        ["full", "space"].iter().any(|word| log.contains(word)),
        "{}",
        daemon.shown("it doesn't say that the disk is full")
    );
    daemon.kill();
    drop(mounted);
}

struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn unknown_configuration_key() {
    let scratch = Scratch::new();
    let config =
        scratch.write("bad.toml", "[watch]\nwatched_proceses = []\n[egres]\n[[sink]]\nkind = \"pigeon\"\n");
    let program = product::program().display().to_string();
    let path = config.display().to_string();
    let run = Observed::new([program.as_str(), "check", &path]).plain().go();
    check!(run, run.code() != 0, "it was taken");
    let said = format!("{}{}", run.stdout, run.stderr);
    // Every mistake at once, each with its place and the nearest known name.
    for part in ["2:1", "watched_processes", "egress", "pigeon"] {
        check!(run, said.contains(part), "it doesn't say {part:?}");
    }
    let run = Observed::new(["touch", "ran"]).option("--config").option(&path).go();
    check!(run, run.code() == 125, "want 125");
    check!(run, run.stderr.contains("watched_processes"), "it doesn't name the nearest known key");
    check!(run, !run.scratch.at("ran").exists(), "the command was started all the same");
    let good = scratch.write("good.toml", "[watch]\nwatched_processes = [\"curl\"]\n").display().to_string();
    Observed::new([program.as_str(), "check", &good]).plain().go().well();
}

#[test]
fn library_missing() {
    let run = Observed::new(["touch", "ran"]).env("COUNTERFOIL_LIB", "/nonexistent/libcounterfoil.so").go();
    check!(run, run.code() == 125, "want 125");
    check!(run, run.stderr.contains("/nonexistent/libcounterfoil.so"), "it doesn't say what is missing");
    check!(run, !run.scratch.at("ran").exists(), "the command was started, unobserved");
}

#[test]
fn report_that_can_not_be_written() {
    let run = Observed::new(["true"]).option("--json").option("/dev/full").go();
    check!(run, run.stderr.contains("/dev/full"), "it doesn't say that the report is lost");
    let run = Observed::new(["touch", "ran"]).option("--json").option("/nonexistent/folder/file").go();
    check!(run, run.code() == 125, "want 125");
    check!(run, run.stderr.contains("/nonexistent/folder"), "it doesn't say what");
}

#[test]
fn state_is_private() {
    let daemon = Daemon::start("");
    good_session(&daemon, 2);
    let mode = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).expect("state").permissions().mode() & 0o777
    };
    assert_eq!(mode(daemon.state()), 0o700, "the state folder");
    for entry in std::fs::read_dir(daemon.state()).expect("state").flatten() {
        assert_eq!(mode(&entry.path()) & 0o077, 0, "{:?} is open to others", entry.path());
    }
}

/// Full lanes: what was lost is said, and nobody is accused.
#[test]
fn flood_of_connections() {
    let run = Observed::fixture("shared crowd").go().well();
    truth::blameless(&run);
    for transfer in run.report.transfers().iter().filter(|t| t.verdict() != "intact") {
        let known = ["records-dropped", "shared-descriptor", "peer-not-observed", "still-open"];
        check!(run, transfer.reasons().iter().any(|r| known.contains(&r.as_str())), "{}", transfer.shown());
    }
    let total = run.report.on("unix").len();
    check!(
        run,
        total == 6000 || run.report.fired("records-dropped"),
        "{total} of 6000, and not a word of loss"
    );
}
