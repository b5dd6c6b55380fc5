//! The gallery as the assembler calls it.

use super::*;
use crate::model::{Connection, Process};
use crate::sensitive::lineage::{Given, World, Wrote};
use crate::sensitive::origins::WAY;
use uuid::Uuid;

const SECOND: u64 = 1_000_000_000;

/// Nobody gives anything; everybody sends.
struct Sends(usize);

impl World for Sends {
    fn given(&self, _: ArenaId) -> Vec<Given> {
        Vec::new()
    }
    fn sendings(&self, from: ArenaId) -> Vec<Sending> {
        let sending = |n| {
            let remote = Some(format!("192.0.2.1:{n}"));
            let connection =
                Connection { local: Some(format!("10.0.0.1:{from}")), remote, ..Connection::default() };
            let (process, transfer) = (Process::default(), Some(Uuid::from_u128(n as u128)));
            Sending { process, connection, flow: None, transfer, opened: 1, grew: 900 * SECOND, bytes: 9 }
        };
        (0..self.0).map(sending).collect()
    }
}

fn program(pid: u32, ppid: u32, exe: &str, arguments: &[&str]) -> Arc<Facts> {
    let process = Process { pid, exe: Some(exe.into()), ..Process::default() };
    let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
    Arc::new(Facts { process, ppid, arguments, ..Facts::default() })
}

fn wrote(n: u64, time: u64) -> Wrote {
    let (inode, path) = ((2, n), format!("/srv/out/{n}"));
    Wrote { inode, path, last: time, opened: time, made: true, sha256: None, modified: 0 }
}

fn open(arena: ArenaId, number: u32, inode: Inode, time: u64) -> Open {
    Open { arena, pid: arena as u32, number, fd: -1, inode, time, empty_at: 0, path: Vec::new(), read: None }
}

fn reads(gallery: &mut Gallery, arena: ArenaId, number: u32, inode: u64, path: &str, time: u64) {
    gallery.opened(open(arena, number, (1, inode), time), |_| false);
    gallery.named(arena, number, path.as_bytes(), |_| false);
    if let Some(reading) = gallery.origins.of(arena, number) {
        reading.sure = true;
    }
}

/// However much was read, written, started and sent, a look takes its slice, and the next one goes on with the rest.
#[test]
fn a_crowd_is_looked_at_in_slices() {
    let mut gallery = Gallery::new(Arc::new(RwLock::new(Media::default()))).unwrap();
    let mut lineage = Lineage::new(0);
    let now = 1000 * SECOND;
    // A server with all its children, each of which writes; and many scripts.
    let server = program(1, 0, "/usr/sbin/server", &["server"]);
    lineage.came(1, &server, 0);
    gallery.came(1, &server, 0);
    for n in 2..300 {
        let child = program(n, 1, "/usr/bin/python3", &["python3", &format!("/tmp/{n}.py")]);
        lineage.came(n.into(), &child, 800 * SECOND);
        gallery.came(n.into(), &child, 800 * SECOND);
        (0..64).for_each(|w| lineage.wrote(n.into(), wrote(u64::from(n) * 64 + w, 900 * SECOND)));
    }
    for n in 0..300 {
        reads(&mut gallery, 1, n, n.into(), &format!("/srv/{n}.jpg"), 700 * SECOND);
    }
    for n in 0..2 * FIRSTS as u32 {
        gallery.sent_first(1000, [n.into(), 0], &Sends(1).sendings(1)[0]);
    }
    let world = Sends(100);
    let (mut looks, mut longest) = (0, 0);
    let mut out = VecDeque::new();
    loop {
        let before = crate::core::worked();
        let slice = gallery.pace.begin();
        let all = gallery.walk(now, Turn::Usual, &lineage, &mut Asked::new(&world), &slice, &mut out);
        longest = longest.max(crate::core::worked() - before);
        looks += 1;
        if all {
            break;
        }
    }
    assert!(looks > 1 && looks < 20_000, "{looks}");
    // One reading is looked at whole; this is a debug build.
    assert!(longest < SECOND, "{longest}");
}

/// Where everybody writes to one log, not everything comes of the first picture that was read; and what is told stays short.
#[test]
fn the_way_through_a_log_ends() {
    let mut gallery = Gallery::new(Arc::new(RwLock::new(Media::default()))).unwrap();
    let mut lineage = Lineage::new(0);
    let mut out = VecDeque::new();
    for n in 1..200_u64 {
        let now = n * SECOND / 10;
        let shell = program(n as u32, 0, "/usr/bin/bash", &["bash"]);
        lineage.came(n, &shell, now);
        gallery.came(n, &shell, now);
        if n == 1 {
            reads(&mut gallery, n, 3, 1, "/srv/cat.jpg", now);
        } else {
            gallery.opened(open(n, 3, (2, 7), now), |_| false);
            if let Some(reading) = gallery.origins.of(n, 3) {
                reading.sure = true;
            }
        }
        lineage.wrote(n, wrote(7, now + 1));
        let (world, slice) = (Sends(0), Slice::last());
        assert!(gallery.walk(now + 2, Turn::Usual, &lineage, &mut Asked::new(&world), &slice, &mut out));
    }
    let ways: Vec<usize> = gallery.origins.readings().map(|(_, r)| r.source.way.len()).collect();
    assert!(ways.len() > 10 && ways.iter().all(|&steps| steps <= WAY), "{ways:?}");
}

/// Who reads the copy is heard of before who made it.
#[test]
fn a_copy_that_is_heard_of_late() {
    let mut gallery = Gallery::new(Arc::new(RwLock::new(Media::default()))).unwrap();
    let inode = (1, 77);
    gallery.opened(open(2, 6, inode, 200), |_| false);
    gallery.named(2, 6, b"/tmp/other.jpg", |_| false);
    assert_eq!(&*gallery.origins.of(2, 6).unwrap().source.path, "/tmp/other.jpg");
    gallery.read_first(2, 6, 1000, [7, 7]);
    let source = Source {
        path: "/tmp/cover.jpg".into(),
        label: gallery.label.clone(),
        owner: None,
        sha256: None,
        way: Arc::from([]),
        same: true,
    };
    gallery.came_of(inode, Copy { source, written: 100, made: true, modified: 0, until: u64::MAX });
    assert_eq!(&*gallery.origins.of(2, 6).unwrap().source.path, "/tmp/cover.jpg");
    assert!(gallery.known.values().all(|(root, _)| &**root == "/tmp/cover.jpg") && gallery.known.len() == 1);
}

#[test]
fn what_has_the_inode_of_a_copy_that_is_gone_did_not_come_of_it() {
    let mut gallery = Gallery::new(Arc::new(RwLock::new(Media::default()))).unwrap();
    let source = Source {
        path: "cover.jpg".into(),
        label: gallery.label.clone(),
        owner: None,
        sha256: None,
        way: Arc::from([]),
        same: true,
    };
    let (inode, copied) = ((1, 77), Copy { source, written: 100, made: true, modified: 0, until: u64::MAX });
    gallery.came_of(inode, copied);
    gallery.opened(open(1, 5, inode, 200), |moment| moment < 50);
    assert!(gallery.origins.of(1, 5).is_some(), "the copy");
    gallery.opened(open(2, 6, inode, 300), |moment| moment < 250);
    assert!(gallery.origins.of(2, 6).is_none(), "made after the copy was");
    gallery.opened(open(3, 7, inode, 400), |_| false);
    assert!(gallery.origins.of(3, 7).is_none(), "and the copy is forgotten");
}
