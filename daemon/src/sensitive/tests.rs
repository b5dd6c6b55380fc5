//! The trail as the assembler calls it: synthetic opens, prints and connections; real files, and the real thread that
//! knows them.

use super::lineage::{Asked, Given, Sending, World};
use super::opens::Open;
use super::told::{Ground, SensitiveEgress};
use super::{Closed, Setup, Trail};
use crate::assemble::program::ArenaId;
use crate::config::{Egress, Sensitive};
use crate::host::facts::{Facts, Inode, RealProc};
use crate::judged::{Judged, What};
use crate::model::{Connection, Process, Severity};
use crate::pipeline::StreamDigest;
use crate::tags::Tagger;
use bytemuck::Zeroable;
use counterfoil_abi::prints::{Sampler, Window};
use counterfoil_abi::record::{MAX_SAMPLES, Prints, Sample};
use std::collections::{HashMap, VecDeque};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEY: [u8; 16] = *b"0123456789abcdef";
const SECOND: u64 = 1_000_000_000;

/// Who gives what to whom, and who sends.
#[derive(Default)]
struct Still {
    given: HashMap<ArenaId, Vec<Given>>,
    sendings: HashMap<ArenaId, Vec<Sending>>,
}

impl World for Still {
    fn given(&self, from: ArenaId) -> Vec<Given> {
        self.given.get(&from).cloned().unwrap_or_default()
    }
    fn sendings(&self, from: ArenaId) -> Vec<Sending> {
        self.sendings.get(&from).cloned().unwrap_or_default()
    }
}

struct Case {
    dir: tempfile::TempDir,
    _setup: Setup,
    trail: Trail,
    world: Still,
    out: VecDeque<Judged>,
    /// Never beyond the real one: what waits goes by it.
    now: u64,
}

/// Content that no form has.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        b'!' + (x >> 32) as u8 % 90
    };
    (0..length).map(|_| next()).collect()
}

impl Case {
    /// Everything that is called `secret*` in its folder is sensitive.
    fn new(files: &[(&str, &[u8])]) -> Self {
        // What happens here comes after all that the disk has of it.
        Self::at(files, 3600)
    }

    /// Its first moment is so many seconds from now, by the clock of files.
    fn at(files: &[(&str, &[u8])], seconds: i128) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let path = dir.path().join("secret*").to_str().unwrap().to_owned();
        let own = Sensitive { path, label: "mine".into(), severity: Severity::Critical };
        let egress = Egress { sensitive: vec![own], sensitive_paths: Some(vec![]), ..Egress::default() };
        let setup = Setup::start(&egress, Tagger::new(KEY, StreamDigest::Mac), &KEY, None).unwrap();
        let clock = crate::core::clock_offset() + i128::from(crate::core::now());
        let offset = clock + (seconds - 1000) * i128::from(SECOND);
        let trail = Trail::new(&setup, Arc::new(RealProc::default()), offset);
        let until = Instant::now() + Duration::from_secs(60);
        while trail.known.unread() {
            assert!(Instant::now() < until, "the files are never read");
            std::thread::yield_now();
        }
        Self { dir, _setup: setup, trail, world: Still::default(), out: VecDeque::new(), now: 1000 * SECOND }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn inode(&self, name: &str) -> Inode {
        let meta = fs::metadata(self.path(name)).unwrap();
        (meta.dev(), meta.ino())
    }

    fn program(&mut self, arena: ArenaId, ppid: u32) {
        let process = process(arena);
        let facts = Facts { process, ppid, ..Facts::default() };
        self.trail.came(arena, &Arc::new(facts), self.now);
    }

    /// A program reads a file from its beginning to its end.
    fn reads(&mut self, arena: ArenaId, name: &str) {
        let inode = self.inode(name);
        let path = self.path(name).to_str().unwrap().to_owned();
        // This test's own standard input is open to be read at least.
        self.trail.opened(open(arena, u32::MAX, -1, inode, self.now));
        self.trail.named(arena, 7, path.as_bytes());
        self.now += 1000;
        self.trail.closed(closed(arena, self.now, inode, path.into_bytes()));
    }

    fn sends(&mut self, arena: ArenaId) {
        let sending = sending(arena, self.now + 1000);
        self.world.sendings.entry(arena).or_default().push(sending);
    }

    /// A stream with this content, its prints taken one place in 2^bits.
    fn stream(&mut self, stream: (ArenaId, u32), content: &[u8], bits: u32) {
        let mut samples = Vec::new();
        Sampler::new(&KEY).feed(&mut Window::default(), content, bits, |end, print| {
            samples.push(Sample { end: end as u32, print });
        });
        for part in samples.chunks(MAX_SAMPLES) {
            let mut prints = Prints::zeroed();
            (prints.count, prints.length, prints.bits) = (part.len() as u8, content.len() as u32, bits as u8);
            prints.header.time = self.now;
            prints.samples[..part.len()].copy_from_slice(part);
            let sending = sending(stream.0, self.now);
            self.trail.printed(stream, &prints, || Some(sending));
        }
    }

    /// All that there is to say by now, and a while later.
    fn said(&mut self) -> Vec<(Arc<SensitiveEgress>, u32)> {
        self.now += 2 * SECOND;
        self.trail.tick(self.now, &mut Asked::new(&self.world), &mut self.out);
        let mut said = Vec::new();
        for judged in self.out.drain(..) {
            if let Judged::Notice(notice) = judged
                && let What::SensitiveEgress(egress) = notice.what
            {
                said.push((egress, notice.process.unwrap().pid));
            }
        }
        said
    }

    fn proven(&mut self) -> Vec<String> {
        let name = |egress: &SensitiveEgress| {
            egress.file.path.as_deref().unwrap_or("").rsplit('/').next().unwrap_or("").to_owned()
        };
        let content = |e: &SensitiveEgress| matches!(e.ground, Ground::Content { .. });
        self.said().iter().filter(|(e, _)| content(e)).map(|(e, _)| name(e)).collect()
    }
}

/// A file with number 7.
fn open(arena: ArenaId, pid: u32, fd: i32, inode: Inode, time: u64) -> Open {
    Open { arena, pid, number: 7, fd, inode, time, empty_at: 0, path: Vec::new(), read: None }
}

/// The file with number 7 was read to its end.
fn closed(arena: ArenaId, last: u64, inode: Inode, path: Vec<u8>) -> Closed {
    Closed {
        arena,
        number: 7,
        pid: 1,
        last,
        read: Some(None),
        wrote: None,
        read_content: None,
        wrote_content: None,
        inode,
        path,
    }
}

fn process(arena: ArenaId) -> Process {
    Process {
        pid: arena as u32 + 100,
        exe: Some(format!("/bin/p{arena}")),
        uid: Some(0),
        ..Process::default()
    }
}

fn sending(arena: ArenaId, time: u64) -> Sending {
    let remote = Some(format!("192.0.2.1:{}", 1000 + arena));
    let connection = Connection { local: Some("192.0.2.9:40000".into()), remote, ..Connection::default() };
    let transfer = Some(uuid::Uuid::now_v7());
    Sending { process: process(arena), connection, flow: None, transfer, opened: 0, grew: time, bytes: 10 }
}

#[test]
fn content_is_known_again_whole_or_in_part_and_behind_other_things() {
    let secret = noise(1, 4000);
    let mut case = Case::new(&[("secret", &secret)]);
    case.program(1, 1);
    case.stream((1, 1), &[&b"PUT / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &secret].concat(), 4);
    let said = case.said();
    assert_eq!(said.len(), 1);
    let Ground::Content { spans } = &said[0].0.ground else { panic!("{:?}", said[0].0) };
    let seen: u64 = spans.iter().map(|s| s.length).sum();
    assert!(spans.len() == 1 && (3800..=4000).contains(&seen), "{spans:?}");
    // A part of it, sparsely looked at; one more time it is not said.
    case.program(2, 1);
    case.stream((2, 1), &secret[1000..2500], 6);
    assert_eq!(case.proven(), ["secret"]);
    assert!(case.proven().is_empty());
}

#[test]
fn a_hundred_bytes_are_enough_and_thirty_are_not() {
    let contents: Vec<Vec<u8>> = (0..20).map(|seed| noise(seed + 10, 100)).collect();
    let names: Vec<String> = (0..20).map(|n| format!("secret-{n}")).collect();
    let files: Vec<(&str, &[u8])> =
        names.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)).collect();
    let mut case = Case::new(&files);
    for (name, secret) in files {
        case.stream((1, 1), &secret[..40], 3);
        assert!(case.proven().is_empty(), "{name}");
        case.stream((2, 1), &[&noise(99, 1000)[..], secret].concat(), 3);
        assert_eq!(case.proven(), [name]);
    }
}

/// By the time that an open is heard of, its descriptor's number may be that of something else.
#[test]
fn the_number_of_its_descriptor_was_used_again() {
    let mut case = Case::new(&[("secret", &noise(3, 500)), ("other", b"")]);
    let other = fs::File::options().write(true).open(case.path("other")).unwrap();
    case.program(1, 0);
    let (inode, pid) = (case.inode("secret"), std::process::id());
    case.trail.opened(open(1, pid, other.as_raw_fd(), inode, case.now));
    case.now += 1000;
    let path = case.path("secret").to_str().unwrap().as_bytes().to_vec();
    case.trail.closed(closed(1, case.now, inode, path));
    case.sends(1);
    assert_eq!(case.said().len(), 1, "it read the file and sent something");
}

#[test]
fn pieces_over_connections_of_their_own_count_together() {
    let secret = noise(80, 600);
    let mut case = Case::new(&[("secret", &secret)]);
    // One program sends them one after the other, each on another stream.
    for (number, piece) in (1..).zip(secret.chunks(50)) {
        case.stream((1, number), piece, 3);
    }
    let found = case.proven();
    assert!(!found.is_empty() && found.iter().all(|name| name == "secret"), "{found:?}");
}

#[test]
fn what_many_files_have_proves_nothing_of_any() {
    let head = super::defaults::FORMS[0].as_bytes();
    let key = |seed| [head, &noise(seed, 300)].concat();
    let public = noise(50, 400);
    let lies_beside = [&key(1)[..], &public].concat();
    let mut case = Case::new(&[("secret", &lies_beside), ("public", &public)]);
    case.stream((1, 1), &key(2), 3);
    assert!(case.proven().is_empty(), "another key with the same head");
    case.stream((2, 1), &public, 3);
    assert!(case.proven().is_empty(), "what everyone may read beside it");
    case.stream((3, 1), &key(1), 3);
    assert_eq!(case.proven(), ["secret"]);
    // The same text in three files that are sensitive is a form, too.
    let form = noise(60, 500);
    let with_form = |seed| [&form[..], &noise(seed, 200)].concat();
    let (a, b, c) = (with_form(1), with_form(2), with_form(3));
    let mut case = Case::new(&[("secret-a", &a), ("secret-b", &b), ("secret-c", &c)]);
    case.stream((1, 1), &with_form(4), 3);
    assert!(case.proven().is_empty());
    case.stream((2, 1), &b, 3);
    assert_eq!(case.proven(), ["secret-b"]);
}

#[test]
fn a_copy_beside_it_makes_it_no_common_text() {
    let secret = noise(70, 1000);
    let mut case = Case::new(&[("secret", &secret), ("backup", &secret)]);
    case.stream((1, 1), &secret, 4);
    assert_eq!(case.proven(), ["secret"]);
}

#[test]
fn a_file_that_comes_later_is_found_in_what_went_before() {
    let mut case = Case::new(&[("secret", &noise(1, 500))]);
    // Somebody reads something sensitive: from now on streams are remembered.
    case.program(1, 1);
    case.reads(1, "secret");
    let later = noise(2, 500);
    case.stream((2, 1), &later, 4);
    assert!(case.proven().is_empty());
    fs::write(case.path("secret-2"), &later).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let found = case.proven();
        if found == ["secret-2"] {
            break;
        }
        assert!(found.is_empty() && Instant::now() < until, "{found:?}");
        case.now -= 2 * SECOND;
        std::thread::yield_now();
    }
}

#[test]
fn who_read_it_and_who_got_bytes_of_that_and_sent() {
    let mut case = Case::new(&[("secret", &noise(1, 500)), ("other", b"x")]);
    (1..=4).for_each(|arena| case.program(arena, 1));
    case.reads(1, "other");
    for arena in [1, 2, 4] {
        case.sends(arena);
    }
    assert!(case.said().is_empty(), "nobody read anything sensitive");
    case.reads(1, "secret");
    case.sends(2);
    case.sends(4);
    let (channel, transfer) = (crate::model::Channel::Pipe, uuid::Uuid::nil());
    let given = Given { to: 2, transfer, channel, started: 0, last: u64::MAX };
    case.world.given.insert(1, vec![given]);
    let said = case.said();
    let who: Vec<u32> = said.iter().map(|(_, pid)| *pid).collect();
    assert_eq!(who, [102], "1 sent before, 4 has nothing to do with it");
    let did: Vec<&str> = said[0].0.chain.iter().map(|s| s.did).collect();
    assert_eq!(did, ["read", "passed bytes to", "sent"]);
    // Much later it is another matter.
    case.now += 100 * SECOND;
    case.sends(1);
    assert!(case.said().is_empty());
}

/// Who read what was written after a reading, an hour later, and sent something. `seconds`: see [`Case::at`]. `made`:
/// somebody made the file anew meanwhile.
fn what_was_written_after(seconds: i128, made: bool) -> Vec<(Arc<SensitiveEgress>, u32)> {
    let mut case = Case::at(&[("secret", &noise(1, 500))], seconds);
    (1..=2).for_each(|arena| case.program(arena, 1));
    case.reads(1, "secret");
    fs::write(case.path("packed"), "packed").unwrap();
    let (inode, path) = (case.inode("packed"), case.path("packed").to_str().unwrap().to_owned());
    let wrote = super::Wrote {
        inode,
        path: path.clone(),
        last: case.now + 10,
        opened: case.now,
        made: true,
        sha256: None,
        modified: 0,
    };
    let closed = Closed {
        arena: 1,
        number: 8,
        pid: 1,
        last: case.now + 10,
        read: None,
        wrote: Some(wrote),
        read_content: None,
        wrote_content: None,
        inode,
        path: path.into_bytes(),
    };
    case.trail.closed(closed);
    assert!(case.said().is_empty());
    // An hour later somebody else reads it.
    case.now += 3600 * SECOND;
    if made {
        let empty_at = case.now - 10;
        case.trail.opened(Open { empty_at, number: 9, ..open(2, u32::MAX, -1, inode, case.now - 5) });
    }
    case.reads(2, "packed");
    case.sends(2);
    case.said()
}

#[test]
fn what_was_written_after_came_of_it() {
    let said = what_was_written_after(3600, false);
    assert_eq!(said.len(), 1);
    let did: Vec<&str> = said[0].0.chain.iter().map(|s| s.did).collect();
    assert_eq!(did, ["read", "wrote", "read", "sent"]);
}

/// The inode of what was written is another file's by now, which was made later.
#[test]
fn what_has_its_inode_did_not() {
    assert_eq!(what_was_written_after(-3600, false), []);
}

/// Its inode was given to another one, which may be gone again before anybody can look.
#[test]
fn what_was_made_anew_did_not() {
    assert_eq!(what_was_written_after(3600, true), []);
}

/// It was made anew before it was heard that the other one had been a copy.
#[test]
fn what_was_made_anew_before_that_was_heard_of() {
    let mut case = Case::new(&[("secret", &noise(1, 500)), ("other", b"other")]);
    case.program(1, 1);
    let inode = case.inode("other");
    case.trail.opened(Open { empty_at: case.now, ..open(1, u32::MAX, -1, inode, case.now) });
    let digest = *case.trail.known.held().at(case.inode("secret")).unwrap().sha256.as_ref().unwrap();
    case.trail.digested(inode, digest, case.now - 10);
    assert!(case.trail.origins.copy(inode).is_none() && case.trail.origins.quiet());
    case.trail.digested(inode, digest, case.now + 10);
    assert!(case.trail.origins.copy(inode).is_some());
}

/// Somebody read the copy after it was written and before it was made anew; that it was one was heard of last.
#[test]
fn who_read_it_before_it_was_made_anew() {
    let mut case = Case::new(&[("secret", &noise(1, 500)), ("other", b"other")]);
    (1..=3).for_each(|arena| case.program(arena, 1));
    let (inode, now) = (case.inode("other"), case.now);
    case.trail.opened(open(1, u32::MAX, -1, inode, now + 20));
    case.trail.opened(Open { empty_at: now + 30, ..open(2, u32::MAX, -1, inode, now + 30) });
    case.trail.opened(open(3, u32::MAX, -1, inode, now + 40));
    let digest = *case.trail.known.held().at(case.inode("secret")).unwrap().sha256.as_ref().unwrap();
    case.trail.digested(inode, digest, now + 10);
    assert!(case.trail.origins.of(1, 7).is_some(), "it read the copy");
    assert!(case.trail.origins.of(2, 7).is_none() && case.trail.origins.of(3, 7).is_none());
    // And one that is heard of late.
    case.trail.opened(Open { number: 8, ..open(1, u32::MAX, -1, inode, now + 25) });
    assert!(case.trail.origins.of(1, 8).is_some() && case.trail.origins.copy(inode).is_none());
}
