//! Records of files in, transfers out, without processes.

use super::chains::Gift;
use super::*;
use crate::model::{Channel as Carried, Transfer, Verdict};
use crate::rest::AtRest;
use counterfoil_abi::BLOCK;
use counterfoil_abi::record::*;
use uuid::Uuid;

mod capacity;

/// Who gives to whom, as a test tells.
#[derive(Default)]
struct Told(Vec<Gift>);

impl Live for Told {
    fn gifts(&self, to: ArenaId) -> Vec<Gift> {
        self.0.iter().filter(|g| g.to == to).cloned().collect()
    }
    fn inside(&self, _: ArenaId, _: Uuid, _: Uuid) -> Option<chains::Inside> {
        None
    }
    fn doubt(&self, _: ArenaId) -> Option<Reason> {
        None
    }
    fn dropped(&self, _: ArenaId) -> bool {
        false
    }
    fn alive(&self, _: ArenaId) -> bool {
        true
    }
}

struct Table {
    files: Files,
    live: Told,
    out: VecDeque<Judged>,
    now: u64,
    tick: u64,
}

const S: u64 = 1_000_000_000;

/// `scp` (1) ─► `ssh` (2) ─► `sshd` (3) ─► `sftp-server` (4); `sed` (5) stands alone.
fn table() -> Table {
    let surroundings = Surroundings { hostname: "host".into(), clock_offset: 0, reads_at_rest: false };
    let mut files = Files::new(surroundings, 1 << 20);
    for (arena, name) in [(1, "scp"), (2, "ssh"), (3, "sshd"), (4, "sftp-server"), (5, "sed")] {
        let mut facts = Facts::default();
        facts.process.pid = arena as u32 * 100;
        facts.process.uid = Some(0);
        facts.process.exe = Some(format!("/usr/bin/{name}"));
        files.program(arena, &Arc::new(facts));
    }
    let live = Told([(1, 2), (2, 3), (3, 4)].map(|(a, b)| gift(a, b, Carried::Pipe)).into());
    Table { files, live, out: VecDeque::new(), now: 10 * S, tick: 0 }
}

fn gift(from: ArenaId, to: ArenaId, channel: Carried) -> Gift {
    let (transfer, verdict) = (Uuid::now_v7(), None);
    Gift {
        from,
        to,
        transfer,
        channel,
        bytes: 99 * BLOCK,
        started: 0,
        last: u64::MAX,
        verdict,
        altered: Vec::new(),
    }
}

/// A file's use, from open to close.
#[derive(Clone)]
struct Used {
    arena: ArenaId,
    object: u32,
    inode: u64,
    path: &'static str,
    way: Way,
    blocks: Vec<u8>,
    tail: Option<(u32, u8)>,
    digest: Option<u8>,
    size: Option<u64>,
    at_rest: bool,
}

fn used(arena: ArenaId, object: u32, path: &'static str, way: Way, blocks: &[u8]) -> Used {
    let digest = blocks.iter().fold(7u8, |a, b| a.wrapping_mul(31).wrapping_add(*b));
    let (inode, blocks) = (arena * 1000 + u64::from(object), blocks.to_vec());
    Used {
        arena,
        object,
        inode,
        path,
        way,
        blocks,
        tail: None,
        digest: Some(digest),
        size: None,
        at_rest: false,
    }
}

impl Used {
    fn bytes(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK + self.tail.map_or(0, |(n, _)| u64::from(n))
    }
}

fn header(kind: Kind, object: u32, time: u64) -> Header {
    Header { kind: kind as u8, lines: 1, tap: 0, flags: 0, object, time }
}

fn named(object: u32, about: Naming, inode: u64, path: &str, time: u64) -> Named {
    let mut n: Named = bytemuck::Zeroable::zeroed();
    n.header = header(Kind::Named, object, time);
    (n.about, n.length, n.total) = (about as u8, path.len() as u16, path.len() as u16);
    (n.device, n.inode) = (1, inode);
    n.text[..path.len()].copy_from_slice(path.as_bytes());
    n
}

impl Table {
    fn open(&mut self, used: &Used) {
        let mut o: Opened = bytemuck::Zeroable::zeroed();
        o.header = header(Kind::Opened, used.object, self.now);
        (o.channel, o.device, o.inode) = (Channel::File as u8, 1, used.inode);
        let pid = used.arena as u32 * 100;
        assert!(self.files.opened(used.arena, pid, &o));
        let name = named(used.object, Naming::Path, used.inode, used.path, self.now);
        self.files.named(used.arena, pid, &name);
    }

    fn move_and_close(&mut self, used: &Used) {
        let written = used.way == Way::Written;
        let tap = if written { Tap::FileWrite } else { Tap::FileRead };
        let mut all = Vec::new();
        let mut block = |offset, length, flags, value: u8| {
            let mut r: Blocks = bytemuck::Zeroable::zeroed();
            r.header = header(Kind::Blocks, used.object, self.now);
            (r.header.tap, r.header.flags) = (tap as u8, flags);
            (r.offset, r.length, r.count) = (offset, length, 1);
            r.tags[0] = [value; 16];
            all.push(Record::Blocks(r));
        };
        for (i, &value) in used.blocks.iter().enumerate() {
            block(i as u64 * BLOCK, BLOCK as u32, 0, value);
        }
        if let Some((length, value)) = used.tail {
            block(used.blocks.len() as u64 * BLOCK, length, PARTIAL, value);
        }
        let mut f: File = bytemuck::Zeroable::zeroed();
        f.header = header(Kind::File, used.object, self.now);
        f.header.flags = LAST | if written { MADE_EMPTY } else { 0 };
        f.opened_with = u32::from(written);
        let size = used.size.unwrap_or(used.bytes());
        f.after = Stat { size, modified: 1, changed: 1 };
        f.before = if written { Stat { size: 0, modified: 1, changed: 1 } } else { f.after };
        if let Some(digest) = used.digest {
            f.header.flags |= if written { WRITE_DIGEST } else { READ_DIGEST };
            (f.read_bytes, f.write_bytes) = (used.bytes(), used.bytes());
            (f.read_digest, f.write_digest) = ([digest; 32], [digest; 32]);
        }
        if used.at_rest {
            f.header.flags |= if written { WRITE_AT_REST } else { READ_AT_REST };
        }
        all.push(Record::File(f));
        let mut e: Ended = bytemuck::Zeroable::zeroed();
        e.header = header(Kind::Ended, used.object, self.now);
        e.how = How::Closed as u8;
        (e.out_total, e.in_total) = if written { (used.bytes(), 0) } else { (0, used.bytes()) };
        all.push(Record::Ended(e));
        for record in all {
            self.files.told(used.arena, used.arena as u32 * 100, self.tick, &record);
        }
    }

    fn go(&mut self, used: &Used) {
        self.open(used);
        self.move_and_close(used);
    }

    fn wait(&mut self, seconds: u64) -> Vec<(Transfer, Option<String>)> {
        for _ in 0..seconds * 20 {
            self.now += S / 20;
            self.tick += 1;
            self.files.tick(self.now, self.tick, &self.live, &mut self.out);
        }
        let of = |j| match j {
            Judged::Transfer { transfer, context } => Some((*transfer, context.place)),
            _ => None,
        };
        self.out.drain(..).filter_map(of).collect()
    }
}

/// One file over the chain.
fn over(origin: &Used, destination: &Used) -> Vec<(Transfer, Option<String>)> {
    let mut t = table();
    t.go(origin);
    t.go(destination);
    let all = t.wait(20);
    assert!(t.files.is_empty());
    all
}

#[test]
fn one_file_over_three_legs() {
    let all = over(&used(1, 1, "/a/x", Way::Read, &[1, 2]), &used(4, 1, "/b/y", Way::Written, &[1, 2]));
    let [(t, _)] = &all[..] else { panic!("{all:?}") };
    assert_eq!((t.verdict, t.legs.len()), (Verdict::Intact, 3));
    let (origin, destination) = (t.origin.as_ref().unwrap(), t.destination.as_ref().unwrap());
    assert_eq!((origin.path.as_deref(), origin.pid), (Some("/a/x"), 100));
    assert_eq!((destination.path.as_deref(), destination.pid), (Some("/b/y"), 400));
    assert_eq!(origin.sha256, destination.sha256);
    assert_eq!((origin.tap, destination.tap), (Tap::FileRead, Tap::FileWrite));
}

/// What was read four times, and told once, is the origin of four files.
#[test]
fn a_file_that_was_read_again() {
    let mut t = table();
    // In a lane that is read before the one in which it is opened; while it is open; and later.
    t.files.again(1, 1, t.now);
    t.go(&used(1, 1, "/a/x", Way::Read, &[1, 2]));
    t.files.again(1, 1, t.now);
    t.wait(1);
    t.files.again(1, 1, t.now);
    t.files.again(1, 2, t.now);
    let written = |n, blocks: &[u8]| used(4, n, "/b/x", Way::Written, blocks);
    (1..=3).for_each(|n| t.go(&written(n, &[1, 2])));
    let said = t.wait(5);
    assert_eq!(said.iter().map(|(t, _)| t.verdict).collect::<Vec<_>>(), [Verdict::Intact; 3]);
    t.go(&written(4, &[8, 9]));
    let said = t.wait(20);
    assert_eq!(said.iter().map(|(t, _)| t.verdict).collect::<Vec<_>>(), [Verdict::Altered]);
    t.go(&written(5, &[6, 7]));
    assert!(t.wait(20).is_empty(), "of the four nothing is left");
}

/// Who read it may be heard of after who wrote it, or close it later.
#[test]
fn of_files_of_one_content_the_one_of_that_name_is_waited_for() {
    for open in [false, true] {
        let mut t = table();
        let origin = used(1, 3, "/a/2/x", Way::Read, &[1, 2]);
        for (object, path) in [(1, "/a/1/y"), (2, "/a/1/z")] {
            t.go(&used(1, object, path, Way::Read, &[1, 2]));
        }
        if open {
            t.open(&origin);
        }
        t.go(&used(4, 1, "/b/2/x", Way::Written, &[1, 2]));
        for _ in 0..if open { 20 } else { 3 } {
            t.now += S / 20;
            t.tick += 1;
            t.files.tick(t.now, t.tick, &t.live, &mut t.out);
        }
        if !open {
            t.now -= S;
            t.open(&origin);
            t.now += S;
        }
        t.move_and_close(&origin);
        let all = t.wait(5);
        let [(said, _)] = &all[..] else { panic!("{all:?}") };
        assert_eq!(said.origin.as_ref().unwrap().path.as_deref(), Some("/a/2/x"), "open: {open}");
    }
}

#[test]
fn bytes_do_not_flow_backwards_nor_from_strangers() {
    let all = over(&used(4, 1, "/a/x", Way::Read, &[1, 2]), &used(1, 1, "/b/x", Way::Written, &[1, 2]));
    assert!(all.is_empty(), "{all:?}");
    let all = over(&used(5, 1, "/a/x", Way::Read, &[1, 2]), &used(4, 1, "/b/x", Way::Written, &[1, 2]));
    assert!(all.is_empty(), "{all:?}");
}

#[test]
fn a_program_by_itself_copies_or_is_left_alone() {
    let copy = over(&used(5, 1, "/a", Way::Read, &[1, 2]), &used(5, 2, "/b", Way::Written, &[1, 2]));
    assert_eq!((copy.len(), copy[0].0.legs.len()), (1, 0));
    let edit = over(&used(5, 1, "/a/x", Way::Read, &[1, 2]), &used(5, 2, "/b/x", Way::Written, &[1, 3]));
    assert!(edit.is_empty(), "{edit:?}");
}

#[test]
fn an_altered_file_is_found_by_likeness_and_its_place_is_named() {
    let origin = used(1, 1, "/a/x", Way::Read, &[1, 2, 3, 4]);
    let destination = used(4, 1, "/b/other", Way::Written, &[1, 9, 3, 4]);
    let mut t = table();
    t.live.0[1].verdict = Some(Verdict::Altered);
    t.go(&origin);
    t.go(&destination);
    let all = t.wait(20);
    let [(t, place)] = &all[..] else { panic!("{all:?}") };
    assert_eq!(t.verdict, Verdict::Altered);
    assert_eq!(t.altered, [crate::model::Range { offset: BLOCK, length: BLOCK }]);
    assert_eq!(place.as_deref(), Some("between ssh and sshd (pipe)"));
}

#[test]
fn a_filter_accuses_nobody() {
    let mut t = table();
    // scp ─► sed ─► sftp-server.
    t.live.0 = vec![gift(1, 5, Carried::Pipe), gift(5, 4, Carried::Pipe)];
    t.go(&used(1, 1, "/a/x", Way::Read, &[1, 2]));
    t.go(&used(4, 1, "/b/x", Way::Written, &[1, 3]));
    let all = t.wait(20);
    assert_eq!(all[0].0.reasons, [Reason::Transformed]);
}

#[test]
fn a_killed_copy_is_truncated() {
    let mut origin = used(1, 1, "/a/x", Way::Read, &[1, 2, 3, 4]);
    origin.digest = None;
    origin.size = Some(9 * BLOCK);
    let all = over(&origin, &used(4, 1, "/b/x", Way::Written, &[1, 2]));
    let (t, _) = &all[0];
    assert_eq!((t.verdict, t.bytes.destination), (Verdict::Truncated, Some(2 * BLOCK)));
    // What was read arrived, and yet it was not all.
    let mut origin = used(1, 1, "/a/x", Way::Read, &[1, 2]);
    origin.size = Some(9 * BLOCK);
    let all = over(&origin, &used(4, 1, "/b/x", Way::Written, &[1, 2]));
    let (t, _) = &all[0];
    assert_eq!((t.verdict, t.bytes.origin), (Verdict::Truncated, Some(9 * BLOCK)));
}

#[test]
fn a_temporary_name_gives_way_to_the_final_one() {
    let mut t = table();
    let destination = used(4, 1, "/b/.x.aBc123", Way::Written, &[1]);
    t.go(&used(1, 1, "/a/x", Way::Read, &[1]));
    t.go(&destination);
    assert!(t.wait(1).is_empty(), "it may be renamed yet");
    let renamed = named(0, Naming::Renamed, destination.inode, "/b/x", t.now);
    t.files.named(4, 400, &renamed);
    let all = t.wait(1);
    assert_eq!(all[0].0.destination.as_ref().unwrap().path.as_deref(), Some("/b/x"));
    // Taken back: it never arrived.
    t.go(&used(4, 2, "/b/.y.aBc123", Way::Written, &[1]));
    t.files.named(4, 400, &named(0, Naming::Unlinked, 4002, "/b/.y.aBc123", t.now));
    assert!(t.wait(5).is_empty());
}

#[test]
fn empty_files_go_by_their_names() {
    let (origin, destination) = (used(1, 1, "/a/x", Way::Read, &[]), used(4, 1, "/b/x", Way::Written, &[]));
    let all = over(&origin, &destination);
    assert_eq!((all.len(), all[0].0.verdict), (1, Verdict::Intact));
    let other = Used { path: "/b/z", ..destination };
    assert!(over(&origin, &other).is_empty());
}

#[test]
fn a_thousand_files_none_missing_none_twice() {
    let mut t = table();
    let paths: Vec<(&'static str, &'static str)> = (0..1000)
        .map(|n| {
            let leak = |s: String| -> &'static str { Box::leak(s.into_boxed_str()) };
            (leak(format!("/a/{}/f{n}", n % 7)), leak(format!("/b/{}/f{n}", n % 7)))
        })
        .collect();
    for (n, (from, to)) in paths.iter().enumerate() {
        // Every third one has the same content, every seventh none.
        let content: &[u8] = match (n % 3, n % 7) {
            (_, 0) => &[],
            (0, _) => &[1, 2],
            _ => &[(n % 251) as u8, (n / 251) as u8 + 1, 5],
        };
        let mut origin = used(1, n as u32 + 1, from, Way::Read, content);
        let mut destination = used(4, n as u32 + 1, to, Way::Written, content);
        (origin.inode, destination.inode) = (n as u64 + 10, n as u64 + 10_000);
        t.go(&origin);
        t.go(&destination);
    }
    let all = t.wait(10);
    let mut seen = std::collections::BTreeSet::new();
    for (t, _) in &all {
        let (from, to) = (t.origin.as_ref().unwrap(), t.destination.as_ref().unwrap());
        assert_eq!(t.verdict, Verdict::Intact);
        let (from, to) = (from.path.clone().unwrap(), to.path.clone().unwrap());
        assert_eq!(from.replacen("/a/", "/b/", 1), to);
        assert!(seen.insert(to), "twice");
    }
    assert_eq!(all.len(), 1000);
}

#[test]
fn what_is_read_at_rest_is_compared_at_rest() {
    let mut t = table();
    t.files.reads_at_rest();
    for node in t.files.nodes.values_mut() {
        node.users.push((0, User { uid: 0, gid: 0, groups: Vec::new() }));
    }
    let rests = |mut u: Used| {
        (u.at_rest, u.digest, u.blocks, u.size) = (true, None, Vec::new(), Some(100));
        u
    };
    t.go(&rests(used(1, 1, "/a/x", Way::Read, &[])));
    t.go(&rests(used(4, 1, "/b/x", Way::Written, &[])));
    let mut all = Vec::new();
    let mut asked = Vec::new();
    for _ in 0..20 {
        all.extend(t.wait(1));
        for ask in std::mem::take(&mut t.files.asks) {
            let stat = Stat { size: 100, modified: 1, changed: 1 };
            let rest = AtRest {
                content: crate::content::Content::found(&counterfoil_abi::class::of(b"a")),
                inode: ask.inode.unwrap(),
                before: stat,
                after: stat,
                bytes: 100,
                sha256: [5; 32],
                tags: Default::default(),
                prefix: None,
                uncached: false,
            };
            asked.push(ask.path);
            t.files.at_rest(Answer { id: ask.id, result: Ok(rest) });
        }
    }
    assert_eq!(asked.len(), 2, "each once");
    assert_eq!((all.len(), all[0].0.verdict), (1, Verdict::Intact));
    assert!(all[0].0.origin.as_ref().unwrap().sha256.is_some());
}

#[test]
fn a_liar_fills_nothing() {
    let mut t = table();
    for n in 0..MAX_OPEN_OF_ONE + 10 {
        let mut o: Opened = bytemuck::Zeroable::zeroed();
        o.header = header(Kind::Opened, n + 1, 1);
        (o.channel, o.inode) = (Channel::File as u8, u64::from(n));
        assert_eq!(t.files.opened(5, 500, &o), n < MAX_OPEN_OF_ONE);
    }
    assert_eq!(t.files.room.used(), 0);
    t.files.gone(5, t.tick);
    t.wait(1);
    assert!(t.files.is_empty());
}

/// As of a web server's file: with each new reading the oldest goes, whatever it is found by.
#[test]
fn of_endless_readings_of_one_file_the_latest_are_known() {
    let (mut t, more) = (table(), 10);
    let origin = used(1, 1, "/a/x", Way::Read, &[1]);
    for _ in 0..readings::MAX_OF_ONE + more {
        t.go(&origin);
        t.tick += 2;
        t.files.tick(t.now, t.tick, &t.live, &mut t.out);
    }
    let latest = t.files.readings.latest(&[1]);
    assert!(latest.windows(2).all(|pair| pair[0] == pair[1] + 1), "newest first: {latest:?}");
    let newest = latest[0];
    let kept = (0..=newest).filter(|&id| t.files.readings.get(id).is_some());
    let expected: Vec<u64> = (newest + 1 - readings::MAX_OF_ONE as u64..=newest).collect();
    assert_eq!(kept.collect::<Vec<_>>(), expected);
    assert_eq!(t.files.readings.with(&[origin.digest.unwrap(); 32]), readings::MAX_OF_ONE);
    t.go(&used(4, 1, "/b/x", Way::Written, &[1]));
    assert_eq!(t.wait(20)[0].0.verdict, Verdict::Intact);
}
