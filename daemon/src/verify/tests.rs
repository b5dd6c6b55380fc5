use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;

struct Nobody;

impl Listener for Nobody {
    fn total(&self, _: u64) {}
    fn progress(&self, _: u64) {}
}

/// Every name's state, and the summary.
fn verified(a: &Operand, b: &Operand, exact: bool) -> (BTreeMap<String, State>, Summary) {
    let mut states = BTreeMap::new();
    let mut last = vec![];
    let summary = compare(a, b, exact, &Nobody, |entry| {
        assert!(entry.path >= last, "out of order");
        last = entry.path.clone();
        states.insert(String::from_utf8_lossy(&entry.path).into_owned(), entry.state);
        true
    });
    (states, summary)
}

fn folder(path: &Path) -> Operand {
    Operand::Folder(Folder::new(path).unwrap())
}

fn sums(text: &str) -> Operand {
    Operand::Manifest(Manifest::read(text.as_bytes(), None).unwrap())
}

/// Two equal trees.
fn trees() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for side in ["a", "b"] {
        let root = dir.path().join(side);
        std::fs::create_dir_all(root.join("sub/deep")).unwrap();
        std::fs::create_dir_all(root.join("empty")).unwrap();
        for i in 0..1000 {
            std::fs::write(root.join(format!("sub/{i}")), format!("content {i}")).unwrap();
        }
        std::fs::write(root.join("sub/deep/file"), vec![7; 100_000]).unwrap();
        symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    }
    dir
}

#[test]
fn equal_folders_are_equal() {
    let dir = trees();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let (_, summary) = verified(&folder(&a), &folder(&b), false);
    assert!(summary.all_equal(), "{summary:?}");
    assert_eq!(summary.equal, 1002, "1001 files and a link");
}

#[test]
fn every_kind_of_difference_is_told() {
    let dir = trees();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    std::fs::write(b.join("sub/7"), "content 8").unwrap();
    std::fs::remove_file(b.join("sub/8")).unwrap();
    std::fs::write(b.join("sub/extra"), "").unwrap();
    std::fs::create_dir(b.join("folder-extra")).unwrap();
    std::fs::write(b.join("folder-extra/inside"), "").unwrap();
    std::fs::remove_dir(b.join("empty")).unwrap();
    std::fs::write(b.join("empty"), "").unwrap();
    std::fs::remove_file(b.join("dangling")).unwrap();
    symlink("/somewhere/else", b.join("dangling")).unwrap();
    for root in [&a, &b] {
        rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
    }
    let (mut states, summary) = verified(&folder(&a), &folder(&b), false);
    states.retain(|_, s| *s != State::Equal);
    let want = [
        ("dangling", State::Different),
        ("empty", State::Type),
        ("folder-extra", State::Extra),
        ("pipe", State::Skipped),
        ("sub/7", State::Different),
        ("sub/8", State::Missing),
        ("sub/extra", State::Extra),
    ];
    assert_eq!(states, want.map(|(n, s)| (n.to_owned(), s)).into());
    assert!(!summary.all_equal());
    assert_eq!((summary.extra, summary.skipped, summary.equal), (2, 1, 999));
}

#[test]
fn a_fifo_alone_is_not_equal() {
    let dir = tempfile::tempdir().unwrap();
    for root in ["a", "b"].map(|s| dir.path().join(s)) {
        std::fs::create_dir(&root).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, root.join("p"), fifo, 0o600.into(), 0).unwrap();
    }
    let (_, summary) = verified(&folder(&dir.path().join("a")), &folder(&dir.path().join("b")), false);
    assert!(summary.skipped == 1 && !summary.all_equal());
}

fn sha(content: &str) -> String {
    use sha2::{Digest, Sha256};
    checksums::hex(&Sha256::digest(content).into())
}

#[test]
fn a_manifest_beside_a_folder() {
    let dir = trees();
    let b = dir.path().join("b");
    symlink("/etc/passwd", b.join("sub/link")).unwrap();
    let text = format!(
        "{}  sub/1\n{}  sub/2\n{}  sub/none\n{}  ../b/sub/3\n{}  /sub/4\n{}  sub/link\n",
        sha("content 1"),
        sha("content X"),
        sha("x"),
        sha("content 3"),
        sha("content 4"),
        sha("x"),
    );
    for swapped in [false, true] {
        let (m, f) = (sums(&text), folder(&b));
        let (states, summary) = if swapped { verified(&f, &m, false) } else { verified(&m, &f, false) };
        let want = [
            ("../b/sub/3", State::Error),
            ("/sub/4", State::Error),
            ("sub/1", State::Equal),
            ("sub/2", State::Different),
            ("sub/link", State::Type),
            ("sub/none", if swapped { State::Extra } else { State::Missing }),
        ];
        assert_eq!(states, want.map(|(n, s)| (n.to_owned(), s)).into());
        // 1000 + deep/file + dangling, without 1 and 2.
        assert_eq!(summary.beside, 1000);
    }
    let one = format!("{}  sub/1\n", sha("content 1"));
    assert!(verified(&sums(&one), &folder(&b), false).1.all_equal());
    let (_, exact) = verified(&sums(&one), &folder(&b), true);
    assert!(!exact.all_equal() && exact.extra == 1002 && exact.beside == 0, "{exact:?}");
}

#[test]
fn two_manifests() {
    let text = |lines: &[(&str, &str)]| {
        lines.iter().map(|(name, content)| format!("{}  {name}\n", sha(content))).collect::<String>()
    };
    let a = text(&[("x", "1"), ("y", "2"), ("z", "3"), ("twice", "1"), ("twice", "2")]);
    let b = text(&[("x", "1"), ("y", "other"), ("w", "4"), ("twice", "1")]);
    let (states, _) = verified(&sums(&a), &sums(&b), false);
    let want = [
        ("twice", State::Error),
        ("w", State::Extra),
        ("x", State::Equal),
        ("y", State::Different),
        ("z", State::Missing),
    ];
    assert_eq!(states, want.map(|(n, s)| (n.to_owned(), s)).into());
}

#[test]
fn what_may_not_be_read_is_an_error_with_advice() {
    if rustix::process::geteuid().is_root() {
        println!("skipped: root may read everything");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let dir = trees();
    let closed = dir.path().join("b/sub/5");
    std::fs::set_permissions(closed, std::fs::Permissions::from_mode(0o0)).unwrap();
    let (states, summary) = verified(&folder(&dir.path().join("a")), &folder(&dir.path().join("b")), false);
    assert_eq!(states["sub/5"], State::Error);
    assert!(!summary.all_equal());
}
