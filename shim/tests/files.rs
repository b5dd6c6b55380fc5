//! What the library says of files, held against the files: each call of `tests/fixtures/files.c` with a
//! daemon that listens.

mod parts;

use aegis::aegis128x2::Aegis128X2Mac;
use counterfoil_abi::record::*;
use counterfoil_abi::{BLOCK, Tag};
use parts::listener::{KEY, Listener, WATCHED};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// All that was said of one object.
#[derive(Default)]
struct Object {
    opened: Option<Opened>,
    name: Vec<u8>,
    /// Tags by direction (the tap's code) and place; how much of the block each covers.
    tags: Vec<(u8, u64, u32, Tag)>,
    gaps: u32,
    file: Option<File>,
    lasts: u32,
    ended: Option<Ended>,
    /// How often it was said to have been read again.
    again: u32,
}

struct Run {
    folder: PathBuf,
    objects: Vec<Object>,
    names: Vec<(Naming, u64, String)>,
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn fixtures() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let out = parts::library().with_file_name("shim-fixtures");
        std::fs::create_dir_all(&out).expect("a folder");
        let made = Command::new("make")
            .args(["-s", "-C", concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures")])
            .arg(format!("OUT={}", out.display()))
            .args(["files", "files_chk"].map(|name| out.join(name)))
            .output()
            .expect("make");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        out
    })
}

fn content() -> Vec<u8> {
    (0..100_000u32).map(|i| (i.wrapping_mul(i) >> 5) as u8).collect()
}

/// Runs one scenario of `fixture` under `policy`.
fn scenario_of(fixture: &str, name: &str, policy: u32) -> Run {
    scenario_with(fixture, name, policy, false)
}

fn scenario_with(fixture: &str, name: &str, policy: u32, late: bool) -> Run {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("counterfoil-files-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let folder = folder.canonicalize().expect("its name");
    std::fs::write(folder.join("in"), content()).expect("input");
    let socket = folder.join("socket");
    let listener = Listener::start(&socket, policy, late);
    let out = Command::new(fixtures().join(fixture))
        .arg(&folder)
        .arg(name)
        .env("LD_PRELOAD", parts::library())
        .env("COUNTERFOIL_SOCKET", &socket)
        .env_remove("COUNTERFOIL_OFF")
        .output()
        .expect("the fixture");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && said.contains("scenario: status 0"), "{name}: {said}{:?}", out.stderr);
    let mut run = Run { folder, objects: Vec::new(), names: Vec::new() };
    run.sort(listener.heard());
    run.check_all();
    run
}

fn scenario(name: &str) -> Run {
    scenario_of("files", name, WATCHED)
}

impl Run {
    fn sort(&mut self, heard: Vec<(usize, Record)>) {
        let mut objects: BTreeMap<(usize, u32), Object> = BTreeMap::new();
        let mut piece = Vec::new();
        for (arena, record) in heard {
            let header = *record.header();
            if let Record::Named(named) = record {
                if named.at == 0 {
                    piece.clear();
                }
                assert_eq!(usize::from(named.at), piece.len(), "pieces come in order");
                piece.extend_from_slice(&named.text[..usize::from(named.length)]);
                if piece.len() == usize::from(named.total) {
                    let about = Naming::from_code(named.about).expect("decoded");
                    if about == Naming::Path {
                        let object = objects.entry((arena, header.object)).or_default();
                        assert!(object.name.is_empty(), "told once");
                        object.name.clone_from(&piece);
                    } else {
                        let name = String::from_utf8(piece.clone()).expect("UTF-8");
                        self.names.push((about, named.inode, name));
                    }
                }
                continue;
            }
            let object = objects.entry((arena, header.object)).or_default();
            match record {
                Record::Opened(opened) => {
                    assert!(object.opened.is_none() || opened.channel != Channel::File as u8, "told once");
                    object.opened = Some(opened);
                }
                Record::Blocks(blocks) => {
                    for i in 0..blocks.count as usize {
                        let length = if header.flags & PARTIAL != 0 { blocks.length } else { BLOCK as u32 };
                        object.tags.push((
                            header.tap,
                            blocks.offset + i as u64 * BLOCK,
                            length,
                            blocks.tags[i],
                        ));
                    }
                }
                Record::Gap(_) => object.gaps += 1,
                Record::File(file) => {
                    assert_eq!(object.lasts, 0, "nothing comes after the last word");
                    object.lasts += u32::from(header.flags & LAST != 0);
                    object.file = Some(file);
                }
                Record::Ended(ended) => object.ended = Some(ended),
                Record::Again(_) => object.again += 1,
                _ => {}
            }
        }
        self.objects = objects
            .into_values()
            .filter(|object| object.opened.is_some_and(|opened| opened.channel == Channel::File as u8))
            .collect();
    }

    /// What must be true of whatever was said.
    fn check_all(&self) {
        for object in &self.objects {
            let (file, ended) = (object.file.expect("a File"), object.ended.expect("an Ended"));
            assert_eq!(object.lasts, 1, "a last word");
            if file.written != 0 && file.after != Stat::default() {
                assert!(file.written >= file.after.modified, "our own last write is not somebody else's");
            }
            assert!(ended.in_total >= file.read_bytes && ended.out_total >= file.write_bytes);
            assert!(file.header.flags & (READ_DIGEST | READ_AT_REST) != (READ_DIGEST | READ_AT_REST));
            assert!(file.header.flags & (WRITE_DIGEST | WRITE_AT_REST) != (WRITE_DIGEST | WRITE_AT_REST));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Objects that were opened by this name, which moved bytes that way or were made empty.
    fn of(&self, name: &str, way: Tap) -> Vec<&Object> {
        let path = self.path(name);
        let bits =
            if way == Tap::FileRead { READ_DIGEST | READ_AT_REST } else { WRITE_DIGEST | WRITE_AT_REST };
        let named = self.objects.iter().filter(|object| object.name == path.as_os_str().as_bytes());
        named.filter(|object| object.file.is_some_and(|file| file.header.flags & bits != 0)).collect()
    }

    #[track_caller]
    fn one(&self, name: &str, way: Tap) -> &Object {
        let found = self.of(name, way);
        assert_eq!(found.len(), 1, "{name}: objects");
        found[0]
    }

    /// All of `name` was witnessed that way, in order: its digest and tags are those of what is there.
    #[track_caller]
    fn flows(&self, name: &str, way: Tap) {
        let content = std::fs::read(self.path(name)).expect("it is there");
        flowed(self.one(name, way), way, &content, name);
    }

    /// It must be read at rest, and was touched up to `total`.
    #[track_caller]
    fn rests(&self, name: &str, way: Tap, total: u64) {
        let object = self.one(name, way);
        let (file, ended) = (object.file.unwrap(), object.ended.unwrap());
        let (bit, told) = if way == Tap::FileRead {
            (READ_AT_REST, ended.in_total)
        } else {
            (WRITE_AT_REST, ended.out_total)
        };
        assert!(file.header.flags & bit != 0, "{name}: flags {:x}", file.header.flags);
        assert_eq!(told, total, "{name}: how far");
    }

    fn named(&self) -> Vec<(Naming, String)> {
        let prefix = format!("{}/", self.folder.display());
        self.names.iter().map(|(about, _, name)| (*about, name.replacen(&prefix, "", 1))).collect()
    }
}

#[track_caller]
fn flowed(object: &Object, way: Tap, content: &[u8], name: &str) {
    let (file, ended) = (object.file.unwrap(), object.ended.unwrap());
    let (bit, digest, bytes, total) = if way == Tap::FileRead {
        (READ_DIGEST, file.read_digest, file.read_bytes, ended.in_total)
    } else {
        (WRITE_DIGEST, file.write_digest, file.write_bytes, ended.out_total)
    };
    assert!(file.header.flags & bit != 0, "{name}: flags {:x}", file.header.flags);
    assert_eq!((bytes, total), (content.len() as u64, content.len() as u64), "{name}: bytes");
    assert_eq!(digest[..], Sha256::digest(content)[..], "{name}: SHA-256");
    assert_eq!(object.gaps, 0, "{name}: gaps");
    let mut covered = vec![false; content.len().div_ceil(BLOCK as usize)];
    for &(tap, offset, length, tag) in object.tags.iter().filter(|tag| tag.0 == way as u8) {
        assert_eq!(tap, way as u8);
        let block = &content[offset as usize..][..length as usize];
        assert_eq!(tag, tag_of(block, offset), "{name}: the tag at {offset}, {length} bytes");
        let whole = offset as usize + length as usize == content.len() || u64::from(length) == BLOCK;
        covered[(offset / BLOCK) as usize] |= whole;
    }
    assert!(covered.iter().all(|&covered| covered), "{name}: {covered:?}");
}

fn tag_of(block: &[u8], offset: u64) -> Tag {
    let mut mac = Aegis128X2Mac::<16>::new_with_nonce(&KEY, &u128::from(offset / BLOCK).to_le_bytes());
    mac.update(block);
    mac.finalize()
}

/// Read in order by each call, or read from the start again: the digest is the file's.
#[test]
fn reads_in_order_flow() {
    for name in
        ["read", "readv", "pread", "preadv", "head_then_all", "head_by_pread", "all_then_head", "fork_reads"]
    {
        println!("{name}");
        let run = scenario(name);
        run.flows("in", Tap::FileRead);
        let file = run.one("in", Tap::FileRead).file.unwrap();
        assert_eq!((file.before.size, file.after.size), (100_000, 100_000));
        assert_eq!(file.before, file.after, "nobody has changed it");
        assert!(file.header.flags & MADE_EMPTY == 0);
    }
}

/// The same through the calls that a fortified program makes.
#[test]
fn fortified_reads_flow() {
    for name in ["read", "pread"] {
        scenario_of("files_chk", name, WATCHED).flows("in", Tap::FileRead);
    }
}

#[test]
fn other_reads_are_at_rest() {
    for (name, total) in [
        ("out_of_order", 100_000),
        ("skipping", 100_000),
        ("map_read", 100_000),
        ("sendfile", 100_000),
        ("copy_range", 100_000),
        ("splice", 100_000),
        ("stdio", 100_000),
        ("stdio_standard", 100_000),
        ("raw", 100_000),
    ] {
        println!("{name}");
        scenario(name).rests("in", Tap::FileRead, total);
    }
}

#[test]
fn writes_in_order_flow() {
    for name in [
        "write",
        "writev",
        "pwrite",
        "pwritev",
        "truncate_harmless",
        "allocated",
        "fork",
        "dup",
        "left_open",
        "left_by_exit",
        "left_by_exec",
        "stdio_unused",
        "short_write",
        "empty",
    ] {
        println!("{name}");
        let run = scenario(name);
        run.flows(name, Tap::FileWrite);
        let file = run.one(name, Tap::FileWrite).file.unwrap();
        assert!(file.header.flags & MADE_EMPTY != 0);
        assert_eq!(file.after.size, std::fs::metadata(run.path(name)).unwrap().len());
    }
}

#[test]
fn other_writes_are_at_rest() {
    for (name, total) in [
        ("overwrite", 100_000),
        ("sparse", 100_000 + (1 << 20)),
        ("truncate_shorter", 100_000),
        ("truncate_longer", 100_000),
        ("allocated_more", 100_000),
        ("map_write", 100_000),
        ("sendfile", 100_000),
        ("copy_range", 100_000),
        ("splice", 100_000),
        ("stdio", 100_000),
        ("stdio_on_descriptor", 100_000),
        ("stdio_standard", 100_000),
        ("stdio_limit", 5000),
        ("append_by_fcntl", 100_000),
        ("raw_end", 100_000),
    ] {
        println!("{name}");
        scenario(name).rests(name, Tap::FileWrite, total);
    }
}

/// libc writes what a FILE holds when we are gone: its length is not ours to say.
#[test]
fn a_file_that_libc_writes_at_exit_is_at_rest() {
    let run = scenario("stdio_at_exit");
    let file = run.one("stdio_at_exit", Tap::FileWrite).file.unwrap();
    assert!(file.header.flags & WRITE_AT_REST != 0);
}

/// What goes on where somebody left off: the first half flowed, the second is at rest.
#[test]
fn resumed_and_appended() {
    for name in ["append", "resumed"] {
        let run = scenario(name);
        let objects = run.of(name, Tap::FileWrite);
        assert_eq!(objects.len(), 2);
        let content = std::fs::read(run.path(name)).unwrap();
        let half = if name == "append" { 1000 } else { 50_000 };
        flowed(objects[0], Tap::FileWrite, &content[..half], name);
        let (file, ended) = (objects[1].file.unwrap(), objects[1].ended.unwrap());
        assert!(file.header.flags & WRITE_AT_REST != 0 && file.header.flags & MADE_EMPTY == 0);
        assert_eq!((file.before.size, file.after.size), (half as u64, 100_000));
        assert_eq!(ended.out_total, 100_000);
    }
}

#[test]
fn both_ways() {
    let run = scenario("both_ways");
    run.flows("both_ways", Tap::FileWrite);
    run.flows("both_ways", Tap::FileRead);
    let run = scenario("big");
    run.flows("big", Tap::FileWrite);
    run.flows("big", Tap::FileRead);
}

/// Read again from the start, and it was not the same.
#[test]
fn content_that_changes_between_two_readings_is_at_rest() {
    let run = scenario("changed_between");
    run.rests("changed_between", Tap::FileRead, 50_000);
    let file = run.one("changed_between", Tap::FileRead).file.unwrap();
    assert_ne!(file.before, file.after);
}

/// The position is moved by another program image: what we read after that is not what comes next.
#[test]
fn reads_beside_another_programs() {
    let run = scenario("spawn_reads");
    let objects = run.of("in", Tap::FileRead);
    assert_eq!(objects.len(), 2, "ours, and the other program's own");
    for object in objects {
        assert!(object.file.unwrap().header.flags & READ_AT_REST != 0);
        let inherited = object.opened.unwrap().header.flags & INHERITED != 0;
        assert_eq!(object.ended.unwrap().in_total, if inherited { 2000 } else { 100_000 });
    }
}

/// Four threads read one file at once: whatever is said is true.
#[test]
fn threads() {
    let run = scenario("threads");
    let object = run.one("in", Tap::FileRead);
    let flags = object.file.unwrap().header.flags;
    if flags & READ_DIGEST != 0 {
        run.flows("in", Tap::FileRead);
    } else {
        assert!(flags & READ_AT_REST != 0);
    }
}

#[test]
fn nothing_read_is_an_empty_file_read() {
    let run = scenario("empty_read");
    run.flows("empty_read", Tap::FileRead);
    assert!(run.one("empty_read", Tap::FileRead).ended.unwrap().header.flags & IN_EOF != 0);
}

/// Nothing is said of what was only opened, and of what is the kernel's.
#[test]
fn what_is_no_content_is_not_told() {
    for name in ["only_opened", "proc", "stdio_full"] {
        let run = scenario(name);
        assert!(run.objects.is_empty(), "{name}: {:?}", String::from_utf8_lossy(&run.objects[0].name));
    }
}

/// A process that is not watched says nothing of files at all.
#[test]
fn unwatched() {
    for name in ["read", "write", "rename", "stdio", "empty"] {
        let run = scenario_of("files", name, 0);
        assert!(run.objects.is_empty() && run.names.is_empty(), "{name}");
    }
}

#[test]
fn a_file_without_a_name_has_the_one_it_had() {
    let run = scenario("unlinked");
    let content = std::fs::read(run.path("in")).unwrap();
    let object = run.one("unlinked", Tap::FileWrite);
    assert_eq!(object.ended.unwrap().out_total, content.len() as u64);
    assert!(object.file.unwrap().header.flags & WRITE_DIGEST != 0);
    assert_eq!(run.named(), [(Naming::Unlinked, "unlinked".into())]);
}

#[test]
fn names_are_told_as_they_change() {
    use Naming::{Linked, Renamed, Unlinked};
    let run = scenario("rename");
    let expected = [
        (Renamed, "folder/one"),
        (Renamed, "two"),
        (Linked, "three"),
        (Linked, "folder/four"),
        (Unlinked, "two"),
        (Unlinked, "folder/four"),
        (Renamed, "folder/five"),
        (Unlinked, "folder/five"),
    ];
    assert_eq!(run.named(), expected.map(|(about, name)| (about, name.to_owned())));
    let object = &run.objects[0];
    assert!(object.name.starts_with(run.path("folder/.file.").as_os_str().as_bytes()));
    let inode = object.opened.unwrap().inode;
    assert!(run.names.iter().all(|(_, named, _)| *named == inode), "all are that file's");
}

#[test]
fn long_names_come_in_pieces() {
    let run = scenario("long_name");
    let folder = (0..5).fold(run.folder.clone(), |folder, _| folder.join("n".repeat(200)));
    assert_eq!(run.objects[0].name, folder.join("long_name").as_os_str().as_bytes());
    assert_eq!(run.names[0].2, folder.join("longer_name").to_str().unwrap());
}

/// What a sandbox kills for is not called: no name, no position. What is known without them is said.
#[test]
fn in_a_sandbox() {
    let run = scenario("sandboxed");
    assert!(run.names.is_empty());
    let [written, read] = &run.objects[..] else { panic!("two files") };
    assert!(written.name.is_empty() && read.name.is_empty());
    let content = std::fs::read(run.path("sandboxed.new")).unwrap();
    flowed(written, Tap::FileWrite, &content, "written");
    flowed(read, Tap::FileRead, &std::fs::read(run.path("in")).unwrap(), "read");
}

/// A thousand files, and a daemon that comes late: more than one lane holds.
#[test]
fn many_files_in_a_burst() {
    let run = scenario_with("files", "many", WATCHED, true);
    let objects = run.of("in", Tap::FileRead);
    assert_eq!(objects.len(), 1000);
    assert!(objects.iter().all(|object| object.file.unwrap().read_bytes == 10));
}

/// Two threads move one position: whatever is said is true, and here nothing can be.
#[test]
fn read_and_written_at_once() {
    let run = scenario("both_at_once");
    let content = std::fs::read(run.path("both_at_once")).unwrap();
    for object in &run.objects {
        let file = object.file.unwrap();
        if file.header.flags & WRITE_DIGEST != 0 {
            assert_eq!(file.write_digest[..], Sha256::digest(&content[..file.write_bytes as usize])[..]);
        }
        if file.header.flags & READ_DIGEST != 0 {
            assert_eq!(file.read_digest[..], Sha256::digest(&content[..file.read_bytes as usize])[..]);
        }
    }
}

/// What one of them made must not be left behind, told and never ended.
#[test]
fn two_threads_use_a_descriptor_first() {
    let run = scenario("first_use_at_once");
    assert_eq!(run.objects.len(), 300, "one object for each open");
}

/// What the fixtures fill their payload with (common.c), from `from` to `to`; both are multiples of 8.
fn expected(from: u64, to: u64) -> Vec<u8> {
    let word = |n: u64| {
        let z = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (from / 8..to / 8).flat_map(|n| word(n).to_le_bytes()).collect()
}

/// A small file that is read over and over is told in full a few times a second, and in between in one line; whatever
/// isn't the same reading again is told in full.
#[test]
fn readings_over_and_over() {
    const TIMES: u32 = 10;
    let small = expected(0, 3000);
    let half = &small[..1500];
    // The last reading of each: said to be one more; in full, with this content; or at rest, that far.
    enum Last<'a> {
        Again(u32),
        Flows(&'a [u8]),
        Rests(u64),
    }
    use Last::{Again, Flows, Rests};
    for (name, last) in [
        ("again", Again(0)),
        ("again_large", Again(0)),
        ("again_left_open", Again(1)),
        ("again_half", Flows(half)),
        ("again_twice", Flows(&small)),
        ("again_dup", Flows(&small)),
        ("again_fork", Flows(&small)),
        ("again_slow", Flows(&small)),
        ("again_changed", Flows(&expected(3000, 6000))),
        ("again_grown", Flows(&expected(0, 27_000))),
        ("again_backwards", Rests(3000)),
        ("again_map", Rests(3000)),
        ("again_sendfile", Rests(3000)),
        ("again_stdio", Rests(3000)),
    ] {
        println!("{name}");
        let run = scenario(name);
        let (file, content) =
            if name == "again_large" { ("in", content()) } else { ("small", small.clone()) };
        let mut readings = run.of(file, Tap::FileRead);
        let again: u32 = readings.iter().map(|object| object.again).sum();
        let more = if let Again(more) = last { more } else { 0 };
        // A slow machine has more than a second for it.
        assert!((1..=TIMES - 4 + more).contains(&again), "{name}: {again} times");
        let rests = |object: &&Object| object.file.unwrap().header.flags & READ_AT_REST != 0;
        let apart = match last {
            Again(_) => None,
            Flows(_) => readings.pop(),
            Rests(_) => readings.iter().position(rests).map(|at| readings.remove(at)),
        };
        assert_eq!(readings.len() as u32 + again, TIMES + more, "{name}");
        readings.iter().for_each(|object| flowed(object, Tap::FileRead, &content, name));
        match (last, apart) {
            (Again(_), None) => {}
            (Flows(content), Some(object)) => flowed(object, Tap::FileRead, content, name),
            (Rests(total), Some(object)) => {
                assert_eq!(object.ended.unwrap().in_total, total, "{name}: how far")
            }
            _ => panic!("{name}: the last reading wasn't told"),
        }
        assert_eq!(
            apart.map_or(0, |object| object.again),
            0,
            "{name}: what was read before was something else"
        );
        let (opened, read) =
            (|o: &Object| o.opened.unwrap().header.time, |o: &Object| o.ended.unwrap().header.time);
        assert!(
            name != "again_slow" || apart.is_some_and(|o| read(o) - opened(o) > 150_000_000),
            "its first use"
        );
    }
}
