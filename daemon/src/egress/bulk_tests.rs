use super::*;
use crate::config::Config;
use crate::egress::{Benign, Egress, Usual};
use crate::ledger::usual::{Approval, Store};
use crate::model::{Channel, Connection};
use crate::sample;
use jiff::SignedDuration;
use std::path::Path;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

struct World {
    config: Config,
    usual: Usual,
    benign: Benign,
    bulk: Bulk,
    now: Timestamp,
}

impl World {
    /// A `run` of its own.
    fn run() -> Self {
        Self::with(Usual::default())
    }

    fn with(usual: Usual) -> Self {
        let now = Timestamp::now();
        Self { config: Config::default(), usual, benign: Benign::default(), bulk: Bulk::default(), now }
    }

    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// One reading more of a connection that began with `first`.
    fn read(&mut self, change: impl FnOnce(&mut Reading)) -> Option<Finding> {
        let mut reading = Reading {
            seen: self.now,
            opened: self.now - SignedDuration::from_secs(2),
            process: sample::process(12, "/usr/bin/curl"),
            connection: Connection {
                local: Some("10.0.0.1:40000".into()),
                remote: Some("10.0.0.2:443".into()),
                direction: Some("out".into()),
                ..Connection::default()
            },
            channel: Channel::Tcp,
            flow: None,
            transfer: Some(Uuid::from_u128(1)),
            class: Some(Class::Encrypted),
            entropy: None,
            encoded: false,
            sealed: false,
            sent: 0,
            received: 0,
            first: false,
            ended: false,
        };
        change(&mut reading);
        let connection = &mut reading.connection;
        connection.bytes_out.get_or_insert(reading.sent);
        connection.bytes_in.get_or_insert(reading.received);
        let parts = Parts { config: &self.config.egress, usual: &self.usual, benign: &self.benign };
        self.bulk.take(&reading, &parts).and_then(|finding| self.usual.or_hold(finding))
    }

    fn sends(&mut self, bytes: u64, class: Class) -> Option<Finding> {
        self.read(|r| (r.sent, r.class) = (bytes, Some(class)))
    }
}

#[test]
fn a_burst_of_encrypted_data_to_a_new_destination() {
    let mut world = World::run();
    assert_eq!(world.sends(MIB - 1, Class::Encrypted), None);
    let f = world.sends(1, Class::Encrypted).unwrap();
    assert_eq!((f.analytic, f.rule.as_str(), f.severity), (Analytic::An0989, "bulk-egress", Severity::High));
    assert_eq!(f.technique.as_deref(), Some("T1041"));
    assert_eq!(
        f.why,
        json!({"tunable": "data_volume_threshold", "value": MIB, "threshold": MIB, "window": "5min", "baseline": "first-seen"})
    );
    assert_eq!(
        (f.evidence["pattern"].as_str(), f.evidence["class"].as_str()),
        (Some("burst"), Some("encrypted"))
    );
    assert!(
        f.title.starts_with("curl (pid 12) sent 1.0 MiB of encrypted data to 10.0.0.2:443"),
        "{}",
        f.title
    );
    // It is said again when it has doubled, and at its end, not with every reading.
    assert_eq!(world.sends(MIB / 2, Class::Encrypted), None);
    assert!(world.sends(MIB / 2, Class::Encrypted).is_some());
    assert_eq!(world.sends(100, Class::Encrypted), None);
    let last = world.read(|r| r.ended = true).unwrap();
    assert_eq!(last.evidence["connection_open"], json!(false));
    assert_eq!(last.key, f.key);
}

#[test]
fn what_is_no_bulk() {
    for class in [Class::Text, Class::Structured, Class::Empty] {
        assert_eq!(World::run().sends(100 * MIB, class), None, "{class:?}");
    }
    for class in [Class::Compressed, Class::Media, Class::Binary] {
        assert!(World::run().sends(2 * MIB, class).is_some(), "{class:?}");
    }
    // A download, and its acknowledgements.
    let download = |r: &mut Reading| (r.sent, r.received) = (2 * MIB, 100 * MIB);
    assert_eq!(World::run().read(download), None);
    // No class: entropy decides, then whether anything but TLS is seen of it.
    let of = |entropy, sealed| {
        World::run().read(|r| (r.sent, r.class, r.entropy, r.sealed) = (2 * MIB, None, entropy, sealed))
    };
    assert_eq!(of(Some(7.99), false).unwrap().evidence["basis"], "entropy");
    assert_eq!(of(Some(6.0), true), None);
    assert_eq!(of(None, true).unwrap().evidence["basis"], "protocol");
    assert_eq!(of(None, false), None, "nothing is known of it");
    let base64 = World::run()
        .read(|r| (r.sent, r.class, r.encoded) = (2 * MIB, Some(Class::Structured), true))
        .unwrap();
    assert_eq!(
        (base64.evidence["basis"].as_str(), base64.evidence["class"].as_str()),
        (Some("encoding"), Some("structured"))
    );
}

#[test]
fn a_drip_over_successive_connections_is_one() {
    let mut world = World::run();
    let mut found = vec![];
    // 20 KiB a minute: 1.2 MiB an hour, 100 KiB in five minutes.
    for minute in 0..120u16 {
        found.extend(world.read(|r| {
            (r.sent, r.first, r.ended) = (20 * 1024, true, true);
            r.transfer = Some(Uuid::from_u128(minute.into()));
            r.connection.local = Some(format!("10.0.0.1:{}", 40_000 + minute));
        }));
        world.pass(60);
    }
    assert_eq!(found.len(), 1, "said once, not with every connection: {found:#?}");
    let f = &found[0];
    assert_eq!((f.evidence["pattern"].as_str(), f.why["window"].as_str()), (Some("drip"), Some("1h")));
    assert!(f.evidence["connections"].as_u64().unwrap() >= 50, "{}", f.evidence);
    // A slower one is not: 10 KiB a minute.
    let mut world = World::run();
    for _ in 0..240 {
        assert_eq!(world.sends(10 * 1024, Class::Encrypted), None);
        world.pass(60);
    }
    // And what was sent elsewhere, or by another user, is another's.
    let mut world = World::run();
    for n in 0..10u8 {
        let found = world.read(|r| {
            r.sent = MIB / 2;
            r.connection.remote = Some(format!("10.0.1.{n}:443"));
        });
        assert_eq!(found, None);
        assert_eq!(world.read(|r| (r.sent, r.process.user) = (MIB / 20, Some(format!("u{n}")))), None);
    }
}

#[test]
fn learning_lists_and_then_it_is_usual() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut world = World::with(Usual::open(&state, 7, true).unwrap());
    assert_eq!(world.sends(20 * MIB, Class::Encrypted), None);
    world.pass(10);
    assert_eq!(world.sends(30 * MIB, Class::Encrypted), None);
    drop(world);
    let tables = Store::existing(&state).unwrap().read().unwrap();
    assert_eq!((tables.errands.len(), tables.errands[0].1.peak), (1, 50 * MIB));
    assert_eq!(tables.held.len(), 1);
    assert_eq!(
        (tables.held[0].count, tables.held[0].finding.why["baseline"].as_str()),
        (1, Some("first-seen"))
    );
    // Learnt.
    let mut world = World::with(Usual::open(&state, 0, true).unwrap());
    assert_eq!(world.sends(50 * MIB, Class::Encrypted), None);
    assert_eq!(world.sends(150 * MIB, Class::Encrypted), None, "a backup grows");
    let more = world.sends(MIB, Class::Encrypted).unwrap();
    assert_eq!(
        (more.why["baseline"].as_str(), more.evidence["usual_volume"].as_u64()),
        (Some("known"), Some(200 * MIB))
    );
    let elsewhere = world.read(|r| (r.sent, r.connection.remote) = (2 * MIB, Some("10.0.0.9:443".into())));
    assert_eq!(elsewhere.unwrap().why["baseline"], "first-seen");
    let other_port = world.read(|r| (r.sent, r.connection.remote) = (2 * MIB, Some("10.0.0.2:4444".into())));
    assert_eq!(other_port.unwrap().why["baseline"], "first-seen");
    let another = world.read(|r| (r.sent, r.process.sha256) = (2 * MIB, Some("00".into())));
    assert_eq!(another.unwrap().why["baseline"], "first-seen", "another content at its path");
    assert!(!world.usual.learning(world.now));
    world.usual.learn_for(8);
    assert!(world.usual.learning(world.now), "as a reload says");
}

#[test]
fn a_run_with_state_says_what_it_sees_once_and_learns_it() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut world = World::with(Usual::open(&state, 7, false).unwrap());
    assert!(world.sends(2 * MIB, Class::Encrypted).is_some());
    drop(world);
    let mut world = World::with(Usual::open(&state, 7, false).unwrap());
    assert_eq!(world.sends(2 * MIB, Class::Encrypted), None);
}

fn approval(exe: &Path, destination: &str, volume: Option<u64>) -> Approval {
    let now = Timestamp::now();
    Approval {
        id: "a1".into(),
        exe: exe.to_str().unwrap().into(),
        sha256: None,
        destination: destination.into(),
        port: None,
        user: None,
        volume,
        owner: "ops".into(),
        reason: "nightly backup".into(),
        expires: now + SignedDuration::from_hours(1),
        approved: now,
        by: 0,
    }
}

#[test]
fn an_approval_counts_for_its_program_destination_volume_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    // This very process, under the name of a program that it is not, is none that is approved.
    let exe = std::fs::canonicalize("/bin/sleep").unwrap();
    let mut child = std::process::Command::new(&exe).arg("60").spawn().unwrap();
    while std::fs::read_link(format!("/proc/{}/exe", child.id())).ok().as_ref() != Some(&exe) {
        std::thread::yield_now();
    }
    let sends = |world: &mut World, pid: u32| {
        world.read(|r| {
            (r.process.pid, r.process.exe, r.process.sha256) = (pid, exe.to_str().map(str::to_owned), None);
            (r.sent, r.connection.server_name) = (2 * MIB, Some("Backup.Example.org".into()));
        })
    };
    for (destination, covered) in [
        ("any", true),
        ("10.0.0.2", true),
        ("10.0.0.0/24", true),
        ("10.0.1.0/24", false),
        ("backup.example.org", true),
        (".example.org", true),
        (".ample.org", false),
    ] {
        Store::open(&state).unwrap().approve(&approval(&exe, destination, None)).unwrap();
        let mut world = World::with(Usual::open(&state, 0, true).unwrap());
        assert_eq!(sends(&mut world, child.id()).is_none(), covered, "{destination}");
    }
    Store::open(&state).unwrap().approve(&approval(&exe, "any", Some(MIB))).unwrap();
    let mut world = World::with(Usual::open(&state, 0, true).unwrap());
    let f = sends(&mut world, child.id()).unwrap();
    assert!(f.message.contains("a1"), "{}", f.message);
    Store::open(&state).unwrap().approve(&approval(&exe, "any", None)).unwrap();
    let mut world = World::with(Usual::open(&state, 0, true).unwrap());
    assert!(sends(&mut world, std::process::id()).is_some(), "another program, that says it is this one");
    world.pass(3700);
    assert!(sends(&mut world, child.id()).is_some(), "expired");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_daemon_takes_up_what_an_operator_changed() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let world = World::with(Usual::open(&state, 7, true).unwrap());
    let errand = Errand::of(&sample::process(1, "/usr/bin/curl"), "10.0.0.2:443").unwrap();
    world.usual.met(&errand, None, 5, true, world.now);
    let process = sample::process(1, "/usr/bin/curl");
    let standing = || world.usual.standing(&errand, None, &process, &world.benign, world.now);
    assert_eq!(standing(), Standing::Known { peak: 5 });
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let mut store = Store::open(&state).unwrap();
    // Once it is written it can be reset.
    while !store.forget(&errand).unwrap() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    while standing() != Standing::FirstSeen {
        assert!(std::time::Instant::now() < deadline, "the reset was not taken up");
        std::thread::yield_now();
    }
}

#[test]
fn what_is_correlated_is_weighed_and_what_is_proven_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let now = Timestamp::now();
    let of = |remote: &str, confidence: &str, bytes: u64| {
        let mut f = detect::finding("sensitive-egress", Severity::High, now);
        f.analytic = Analytic::An0989;
        f.confidence = Some(confidence.into());
        f.process = Some(sample::process(12, "/usr/bin/curl"));
        f.connection =
            Some(Connection { remote: Some(remote.into()), bytes_out: Some(bytes), ..sample::connection() });
        f
    };
    let stage = |days, mutes| {
        let config = Config::default();
        Egress::new(&config, Arc::new(Usual::open(&state, days, mutes).unwrap()), Arc::default())
    };
    let (known, new) = ("10.0.0.2:443", "10.0.0.3:443");
    let learning = stage(7, true);
    let errand = Errand::of(&sample::process(12, "/usr/bin/curl"), known).unwrap();
    learning.usual.met(&errand, None, 1000, true, now);
    assert_eq!(learning.weigh(of(new, "correlated", 10)), None, "listed");
    assert!(learning.weigh(of(new, "proven", 10)).is_some(), "never muted");
    learning.finish();
    assert_eq!(Store::existing(&state).unwrap().read().unwrap().held.len(), 1);
    let stage = stage(0, true);
    let baseline = |f: Finding| stage.weigh(f).map(|f| f.why["baseline"].as_str().map(str::to_owned));
    let (first, usual) = (Some(Some("first-seen".to_owned())), Some(Some("known".to_owned())));
    assert_eq!(baseline(of(known, "correlated", 1000)), None);
    assert_eq!(baseline(of(known, "proven", 1000)), usual);
    assert_eq!(baseline(of(known, "correlated", 100 * MIB)), usual, "more than is usual");
    assert_eq!(baseline(of(new, "correlated", 10)), first);
    assert_eq!(baseline(of(new, "proven", 10)), first);
}

#[test]
fn tables_are_bounded() {
    let mut world = World::run();
    for n in 0..SERIES + 10 {
        world.read(|r| (r.sent, r.process.user) = (1, Some(format!("u{n}"))));
    }
    assert!(world.bulk.series.len() <= SERIES);
    let dir = tempfile::tempdir().unwrap();
    let usual = Usual::open(&dir.path().join("state"), 7, true).unwrap();
    let process = sample::process(1, "/usr/bin/curl");
    let of =
        |n: u32| Errand::of(&process, &format!("10.{}.{}.{}:443", n >> 16, n >> 8 & 255, n & 255)).unwrap();
    for n in 0..2100 {
        usual.met(&of(n), None, 1, true, world.now);
    }
    let known = |n| usual.standing(&of(n), None, &process, &world.benign, world.now) != Standing::FirstSeen;
    assert!(known(0) && known(1999) && !known(2000), "one program does not fill the baseline");
}
