use super::*;
use crate::ledger::Ledger;
use crate::model::{Transfer, Verdict};
use crate::verify::folder::Folder;
use crate::verify::manifest::Manifest;
use crate::verify::{self, Operand};
use crate::{config, sample};
use clap::Parser;
use std::process::Command;
use std::sync::Arc;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn args(words: &[&str]) -> Args {
    Line::parse_from(std::iter::once("transfers").chain(words.iter().copied())).args
}

/// A file that went from `from` to `to`, with its content's digest.
fn sent(from: &Path, to: &Path, content: &[u8]) -> Transfer {
    use sha2::{Digest, Sha256};
    let mut t = sample::transfer(Verdict::Intact);
    (t.channel, t.flow, t.ended) = (Channel::File, None, jiff::Timestamp::now());
    let sha = hex(&Sha256::digest(content).into());
    for (end, path, tap) in [(&mut t.origin, from, Tap::FileRead), (&mut t.destination, to, Tap::FileWrite)] {
        let end = end.as_mut().unwrap();
        let path = crate::host::facts::path_text(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
        (end.path, end.sha256, end.tap) = (Some(path), Some(sha.clone()), tap);
    }
    t
}

/// A ledger of files that were sent from `out` to `in`, and are there.
fn ledger() -> (tempfile::TempDir, Reader) {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let state = root.join("state");
    let mut ledger = Ledger::open(&state, config::Ledger::default()).unwrap();
    for name in [&b"one"[..], b"two words", b"new\nline", b"not-\xff-utf8"] {
        let name = std::ffi::OsStr::from_bytes(name);
        for folder in ["out", "in"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
            std::fs::write(root.join(folder).join(name), name.as_bytes()).unwrap();
        }
        let (from, to) = (root.join("out").join(name), root.join("in").join(name));
        ledger.transfer(Arc::new(sent(&from, &to, b"an earlier content")));
        ledger.commit().unwrap();
        ledger.transfer(Arc::new(sent(&from, &to, name.as_bytes())));
        ledger.commit().unwrap();
    }
    // A socket has a path as well, and is no file.
    let mut stream = sample::transfer(Verdict::Intact);
    stream.ended = jiff::Timestamp::now();
    stream.origin.as_mut().unwrap().path = Some("/run/socket".into());
    ledger.transfer(Arc::new(stream));
    ledger.commit().unwrap();
    drop(ledger);
    let reader = Reader::open(&state).unwrap();
    (dir, reader)
}

#[test]
fn sha256sum_checks_what_a_ledger_says_of_files() {
    let (dir, reader) = ledger();
    let sheet = dir.path().join("SUMS");
    let name = sheet.to_str().unwrap();
    assert_eq!(export(&reader, &args(&["--export", name, "--format", "sha256sum"]), &sheet).unwrap(), 0);
    let check = || Command::new("sha256sum").args(["-c", "--strict", name]).output().unwrap();
    let checked = check();
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(checked.stdout.split(|&b| b == b'\n').count() - 1, 8, "both ends of four files");
    std::fs::write(dir.path().join("in/one"), "changed").unwrap();
    assert!(!check().status.success());
    let origin = args(&["--export", name, "--format", "sha256sum", "--end", "origin"]);
    export(&reader, &origin, &sheet).unwrap();
    assert!(check().status.success(), "the origin's are as they were");
    let one = args(&["--export", name, "--format", "sha256sum", "--path", "one", "--channel", "file"]);
    export(&reader, &one, &sheet).unwrap();
    assert_eq!(std::fs::read_to_string(&sheet).unwrap().lines().count(), 2);
}

#[test]
fn an_export_is_a_manifest_of_the_files() {
    struct Nobody;
    impl verify::Listener for Nobody {
        fn total(&self, _: u64) {}
        fn progress(&self, _: u64) {}
    }
    let (dir, reader) = ledger();
    let root = dir.path().canonicalize().unwrap();
    let file = root.join("t.jsonl");
    export(&reader, &args(&["--export", file.to_str().unwrap()]), &file).unwrap();
    let verified = |end| {
        let mut manifest = Manifest::read(BufReader::new(File::open(&file).unwrap()), end).unwrap();
        let folder = root.join("in");
        let elsewhere = manifest.relative(None, Some(folder.to_str().unwrap().as_bytes()));
        let folder = Operand::Folder(Folder::new(&folder).unwrap());
        (verify::compare(&Operand::Manifest(manifest), &folder, true, &Nobody, |_| true), elsewhere)
    };
    let (summary, elsewhere) = verified(None);
    assert!(summary.all_equal() && summary.equal == 4 && elsewhere == 4, "{summary:?} {elsewhere}");
    std::fs::write(root.join("in/two words"), "changed").unwrap();
    let (summary, elsewhere) = verified(Some(Role::Destination));
    assert_eq!((summary.different, summary.equal, elsewhere), (1, 3, 0));
}

#[test]
fn nothing_is_left_of_an_export_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    std::fs::write(&path, "before").unwrap();
    let mut out = Out::create(&path).unwrap();
    out.write_all(b"half").unwrap();
    drop(out);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    // A link stays one.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let mut out = Out::create(&link).unwrap();
    out.write_all(b"after").unwrap();
    out.finish().unwrap();
    assert!(link.is_symlink());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "after");
}
