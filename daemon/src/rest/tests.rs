use super::*;
use crate::pipeline::StreamDigest;
use crate::tags::Tagger;
use counterfoil_abi::BLOCK;
use crossbeam::channel::{Receiver, unbounded};
use sha2::{Digest, Sha256};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const KEY: [u8; 16] = *b"sixteen bytes ..";
const NOBODY: u32 = 65_534;
/// These threads give way, and a test machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

struct Scene {
    dir: tempfile::TempDir,
    reader: Reader,
    answers: Receiver<Answer>,
}

impl Scene {
    fn new(digest: StreamDigest) -> Self {
        let (send, answers) = unbounded();
        let hear = Arc::new(move |answer| drop(send.send(answer)));
        let reader = Reader::start(Tagger::new(KEY, digest), hear).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Self { dir, reader, answers }
    }

    fn path(&self, name: &str) -> PathBuf {
        std::fs::canonicalize(self.dir.path()).unwrap().join(name)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn read(&self, ask: Ask) -> Result<AtRest, Refusal> {
        let id = ask.id;
        self.reader.ask(ask);
        let answer = self.answers.recv_timeout(PATIENCE).unwrap();
        assert_eq!(answer.id, id);
        answer.result
    }

    fn refusal(&self, ask: Ask) -> Refusal {
        self.read(ask).unwrap_err()
    }
}

fn ask(path: &Path) -> Ask {
    let stat = std::fs::symlink_metadata(path).ok();
    Ask {
        id: 7,
        path: path.as_os_str().as_bytes().to_vec(),
        inode: stat.map(|s| (s.dev(), s.ino())),
        user: User::me(),
        upto: u64::MAX,
        prefix: None,
        tags: true,
        uncached: false,
    }
}

fn bytes(n: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 24) as u8
    };
    (0..n).map(|_| next()).collect()
}

fn sha(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[test]
fn every_length_gives_its_digest_and_its_tags() {
    for digest in [StreamDigest::Mac, StreamDigest::Blake3, StreamDigest::Sha256] {
        let scene = Scene::new(digest);
        let tagger = Tagger::new(KEY, digest);
        for n in [0, 1, 16_383, 16_384, 16_385, 262_143, 262_144, 262_145, 1_000_000] {
            let content = bytes(n);
            let path = scene.file("f", &content);
            for uncached in [false, true] {
                let found = scene.read(Ask { uncached, ..ask(&path) }).unwrap();
                assert_eq!((found.bytes, found.sha256), (n as u64, sha(&content)), "{n}");
                assert!(found.steady());
                assert_eq!(found.before.size, n as u64);
                let whole = n as u64 / BLOCK;
                assert_eq!((found.tags.blocks(), found.tags.units), (whole, tagger.units()));
                for (i, block) in content.chunks(BLOCK as usize).enumerate() {
                    let tag = tagger.tag(i as u64, block);
                    match found.tags.get(i as u64) {
                        Some(at_rest) => assert_eq!(at_rest, tag, "block {i} of {n}"),
                        None => assert_eq!(found.tags.tail, Some((block.len() as u32, tag))),
                    }
                }
                assert_eq!(found.tags.tail.is_some(), !(n as u64).is_multiple_of(BLOCK));
            }
        }
    }
}

#[test]
fn what_is_asked_for_bounds_what_is_read() {
    let scene = Scene::new(StreamDigest::Mac);
    let content = bytes(700_000);
    let path = scene.file("f", &content);
    for upto in [0, 5, 16_384, 262_144, 300_001, 699_999, 700_000] {
        for uncached in [false, true] {
            let found = scene.read(Ask { upto: upto as u64, uncached, ..ask(&path) }).unwrap();
            assert_eq!((found.bytes, found.sha256), (upto as u64, sha(&content[..upto])));
            assert_eq!(found.tags.blocks(), upto as u64 / BLOCK);
        }
    }
    let found = scene.read(Ask { tags: false, ..ask(&path) }).unwrap();
    assert_eq!((found.tags.units, found.tags.blocks(), found.tags.tail), (0, 0, None));
}

#[test]
fn a_prefix_is_told_wherever_it_ends() {
    let scene = Scene::new(StreamDigest::Mac);
    let content = bytes(600_000);
    let path = scene.file("f", &content);
    let tagger = Tagger::new(KEY, StreamDigest::Mac);
    for n in [0, 1, 16_384, 20_000, 262_143, 262_144, 262_145, 524_288, 600_000] {
        let found = scene.read(Ask { prefix: Some(n as u64), ..ask(&path) }).unwrap();
        assert_eq!(found.sha256, sha(&content), "the whole is the same, prefix {n}");
        let prefix = found.prefix.unwrap();
        assert_eq!((prefix.bytes, prefix.sha256), (n as u64, sha(&content[..n])));
        let (rest, start) = (n % 16_384, n - n % 16_384);
        let tail = (rest > 0).then(|| (rest as u32, tagger.tag(n as u64 / BLOCK, &content[start..n])));
        assert_eq!(prefix.tail, tail, "prefix {n}");
    }
    assert_eq!(scene.read(Ask { prefix: Some(600_001), ..ask(&path) }).unwrap().prefix, None);
}

#[test]
fn nothing_but_the_file_that_was_meant() {
    let scene = Scene::new(StreamDigest::Mac);
    let file = scene.file("f", b"hello");
    let link = scene.path("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let linked_folder = scene.path("folder");
    std::os::unix::fs::symlink(file.parent().unwrap(), &linked_folder).unwrap();
    let inode = ask(&file).inode;
    let through = |path: &Path| Ask { inode, ..ask(path) };
    assert!(matches!(scene.refusal(through(&link)), Refusal::BadPath | Refusal::NotRegular));
    assert!(matches!(scene.refusal(through(&linked_folder.join("f"))), Refusal::BadPath));
    assert!(matches!(scene.refusal(through(&scene.path("none"))), Refusal::Gone));
    assert!(matches!(scene.refusal(through(&file.join("x"))), Refusal::Gone));
    assert!(matches!(scene.refusal(ask(file.parent().unwrap())), Refusal::NotRegular));
    assert!(matches!(scene.refusal(ask(Path::new("/dev/zero"))), Refusal::NotRegular));
    let magic = format!("/proc/{}/exe", std::process::id());
    assert!(matches!(scene.refusal(through(Path::new(&magic))), Refusal::BadPath | Refusal::NotRegular));
    for bad in ["f", "", "/a\0b"] {
        assert!(matches!(scene.refusal(through(Path::new(bad))), Refusal::BadPath), "{bad:?}");
    }
    let long = PathBuf::from("/".to_owned() + &"x/".repeat(4000));
    assert!(matches!(scene.refusal(through(&long)), Refusal::BadPath));
    let fifo = scene.path("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert!(matches!(scene.refusal(ask(&fifo)), Refusal::NotRegular));
    // The file is replaced by another of the same name.
    let other = scene.file("g", b"other");
    std::fs::rename(&other, &file).unwrap();
    assert!(matches!(scene.refusal(through(&file)), Refusal::AnotherFile));
    assert_eq!(scene.read(Ask { inode: None, ..ask(&file) }).unwrap().bytes, 5);
}

#[test]
fn with_the_users_rights_not_ours() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can act as another user");
        return;
    }
    let scene = Scene::new(StreamDigest::Mac);
    let secret = scene.file("secret", b"secret");
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let theirs = scene.file("theirs", b"theirs");
    std::os::unix::fs::chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    std::fs::set_permissions(&theirs, PermissionsExt::from_mode(0o400)).unwrap();
    let groups = scene.file("groups", b"groups");
    std::os::unix::fs::chown(&groups, Some(0), Some(100)).unwrap();
    std::fs::set_permissions(&groups, PermissionsExt::from_mode(0o040)).unwrap();
    let user = |gs: &[u32]| User { uid: NOBODY, gid: NOBODY, groups: gs.to_vec() };
    let read = |path: &Path, user: User| scene.read(Ask { user, ..ask(path) });
    assert!(matches!(read(&secret, user(&[])), Err(Refusal::Denied)));
    assert_eq!(read(&theirs, user(&[])).unwrap().bytes, 6);
    assert!(matches!(read(&groups, user(&[])), Err(Refusal::Denied)));
    assert_eq!(read(&groups, user(&[100])).unwrap().bytes, 6);
    assert_eq!(read(&secret, User::me()).unwrap().bytes, 6, "the thread is itself again");
}

#[test]
fn a_write_during_the_read_shows() {
    let scene = Scene::new(StreamDigest::Mac);
    // 4 GiB without a byte on the disk.
    let path = scene.path("big");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(4 << 30).unwrap();
    scene.reader.ask(Ask { tags: false, ..ask(&path) });
    while scene.reader.idle() {
        std::thread::yield_now();
    }
    // Cut off under the reader: it is told the end, and nothing dies.
    std::thread::sleep(Duration::from_millis(20));
    file.set_len(1000).unwrap();
    let found = scene.answers.recv_timeout(PATIENCE).unwrap().result.unwrap();
    assert!(!found.steady(), "{found:?}");
    assert_eq!(found.after.size, 1000);
}

#[test]
fn cancelling_ends_what_is_read_and_what_waits() {
    let scene = Scene::new(StreamDigest::Mac);
    let path = scene.path("endless");
    std::fs::File::create(&path).unwrap().set_len(1 << 42).unwrap();
    for id in 0..3 {
        scene.reader.ask(Ask { id, ..ask(&path) });
    }
    for id in [2, 0] {
        scene.reader.cancel(id);
        let answer = scene.answers.recv_timeout(PATIENCE).unwrap();
        assert!(answer.id == id && matches!(answer.result, Err(Refusal::Cancelled)), "{answer:?}");
    }
    // The one that is being read now ends with the reader.
    drop(scene.reader);
    let answer = scene.answers.recv_timeout(PATIENCE).unwrap();
    assert!(answer.id == 1 && matches!(answer.result, Err(Refusal::Cancelled)), "{answer:?}");
    assert!(scene.answers.recv().is_err(), "nobody is left who could answer");
}

#[test]
fn another_users_endless_file_delays_nobody() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can act as another user");
        return;
    }
    let scene = Scene::new(StreamDigest::Mac);
    let endless = scene.path("endless");
    std::fs::File::create(&endless).unwrap().set_len(1 << 42).unwrap();
    let user = User { uid: NOBODY, gid: NOBODY, groups: vec![] };
    for id in 10..20 {
        scene.reader.ask(Ask { id, user: user.clone(), ..ask(&endless) });
    }
    let small = scene.file("small", b"small");
    assert_eq!(scene.read(ask(&small)).unwrap().bytes, 5);
}

#[test]
#[ignore = "a measurement: cargo test --release -p counterfoil-daemon rest::tests::speed -- --ignored --nocapture"]
fn speed() {
    let scene = Scene::new(StreamDigest::Mac);
    let path = scene.file("f", &bytes(1 << 30));
    for tags in [false, true] {
        for uncached in [false, true] {
            // Of processor time: these threads give way to whatever else runs.
            let now = || rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            let start = now();
            let found = scene.read(Ask { tags, uncached, ..ask(&path) }).unwrap();
            let end = now();
            let seconds = (end.tv_sec - start.tv_sec) as f64 + (end.tv_nsec - start.tv_nsec) as f64 / 1e9;
            let rate = found.bytes as f64 / seconds / 1e9;
            println!("tags {tags}, uncached {}: {rate:.2} GB per second of processor", found.uncached);
        }
    }
}
