//! `counterfoil verify A B` (issue 3, Ledger): equal, or where not; what could not be compared is never equal.

use counterfoil_tests::program::{command, counterfoil, json_lines};
use counterfoil_tests::scratch::payload;
use counterfoil_tests::{Scratch, check, need, peers, skip};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().expect("UTF-8").to_owned()
}

#[test]
fn two_files() {
    let here = Scratch::new();
    let content = payload(1, 200_000);
    let a = text(here.write("a", &content));
    let b = text(here.write("b", &content));
    let run = counterfoil(&["verify", &a, &b]).well();
    check!(
        run,
        run.stdout.starts_with("equal: 200000 bytes, sha256 ") && run.stderr.is_empty(),
        "it says something else"
    );

    let mut bad = content.clone();
    bad[70_000] ^= 1;
    bad[90_000] ^= 1;
    let c = text(here.write("c", &bad));
    let run = counterfoil(&["verify", &a, &c]);
    check!(run, run.code() == 1, "want 1");
    check!(run, run.stdout.contains("bytes 65536–98303 differ, the first byte at 70000"), "not where");
    check!(run, !run.stdout.contains('\x1b'), "colour without a terminal");
    // Both digests are sha256sum's.
    for file in [&a, &c] {
        let sum = Command::new("sha256sum").arg(file).output().expect("sha256sum");
        let sum = String::from_utf8(sum.stdout).expect("text");
        check!(run, run.stdout.contains(&sum[..64]), "another SHA-256 than sha256sum's");
    }
    let run = counterfoil(&["verify", "--json", &a, &c]);
    let lines = json_lines(&run);
    check!(run, lines.len() == 2 && lines[0]["type"] == "verify", "want an entry and a summary");
    check!(run, lines[0]["state"] == "different" && lines[0]["first"] == 70_000, "wrong entry");
    check!(
        run,
        lines[0]["differs"] == serde_json::json!([{ "offset": 65_536, "length": 32_768 }]),
        "wrong range"
    );
    check!(run, lines[1]["verdict"] == "not-equal" && lines[1]["different"] == 1, "wrong summary");

    let short = text(here.write("short", &content[..50_000]));
    let run = counterfoil(&["verify", &a, &short]);
    check!(run, run.code() == 1, "want 1");
    check!(
        run,
        run.stdout.contains("B ends after 50000 of 200000 bytes, the same up to there"),
        "not how short"
    );
    let quiet = counterfoil(&["verify", "-q", &a, &short]);
    check!(quiet, quiet.code() == 1 && quiet.stdout.is_empty() && quiet.stderr.is_empty(), "not quiet");
}

#[test]
fn what_can_not_be_compared_is_usage() {
    let here = Scratch::new();
    let file = text(here.write("file", "x"));
    let fifo = text(here.at("fifo"));
    peers::prepare(&here, &["mkfifo", &fifo]);
    std::fs::create_dir(here.at("folder")).expect("folder");
    let folder = text(here.at("folder"));
    for arguments in [
        &["verify"][..],
        &["verify", &file],
        &["verify", &file, "/nonexistent"],
        &["verify", &file, &fifo],
        &["verify", "/dev/zero", &file],
        &["verify", &file, &file, "--exact"],
        &["verify", "--no-such-option", &file, &file],
    ] {
        let run = counterfoil(arguments);
        check!(run, run.code() == 2, "{arguments:?}: want 2");
        check!(run, !run.stderr.is_empty(), "{arguments:?}: not a word");
    }
    // A file beside a folder is a manifest, and this one isn't.
    let run = counterfoil(&["verify", &file, &folder]);
    check!(run, run.code() == 1 && run.stderr.contains("sha256sum"), "it doesn't say what it wants");
}

/// One thousand files and one of each kind of trouble; nothing is opened that should not be.
#[test]
fn two_folders() {
    let here = Scratch::new();
    for i in 0..1000 {
        here.write(&format!("a/{}/{i}", i % 10), payload(i, 3000));
    }
    std::fs::write(here.at("a/big"), payload(7, 5 << 20)).expect("file");
    symlink("/etc/shadow", here.at("a/link")).expect("link");
    peers::prepare(&here, &["cp", "-a", "a", "b"]);
    let (a, b) = (text(here.at("a")), text(here.at("b")));
    let run = counterfoil(&["verify", &a, &b]).well();
    check!(run, run.stdout.starts_with("equal: 1002 entries, "), "it says something else");
    // The same through links to the folders, and with a slash.
    symlink(&b, here.at("alias")).expect("link");
    counterfoil(&["verify", &format!("{a}/"), &text(here.at("alias"))]).well();

    let odd = "4/\u{1b}[31m\n";
    here.write(&format!("b/{odd}"), "x");
    std::fs::remove_file(here.at("b/5/15")).expect("remove");
    here.write("b/6/16", payload(99, 3000));
    std::fs::remove_file(here.at("b/link")).expect("remove");
    symlink("/etc/passwd", here.at("b/link")).expect("link");
    std::fs::remove_file(here.at("b/7/17")).expect("remove");
    std::fs::create_dir(here.at("b/7/17")).expect("folder");
    for side in ["a", "b"] {
        peers::prepare(&here, &["mkfifo", &text(here.at(&format!("{side}/pipe")))]);
    }
    let started = Instant::now();
    let run = counterfoil(&["verify", &a, &b]);
    check!(run, started.elapsed() < Duration::from_secs(60), "it waited for the FIFO");
    check!(run, run.code() == 1, "want 1");
    for line in [
        "only in B   4/\\x1b[31m\\x0a",
        "only in A   5/15",
        "DIFFERENT   6/16",
        "OTHER KIND  7/17",
        "DIFFERENT   link",
        "A points to /etc/shadow",
        "skipped     pipe",
        "not equal: 2 different, 1 only in A, 1 only in B, 1 of another kind, 1 skipped, 998 equal",
    ] {
        check!(run, run.stdout.contains(line), "it doesn't say {line:?}");
    }
    let lines = json_lines(&counterfoil(&["verify", "--json", &a, &b]));
    let states: Vec<_> = lines.iter().filter_map(|l| l["state"].as_str()).collect();
    assert_eq!(states, ["extra", "missing", "different", "type", "different", "skipped"]);
}

#[test]
fn a_file_that_may_not_be_read_is_not_equal() {
    if !peers::root() {
        skip!("not root: no other user to be");
    }
    need!("setpriv");
    let here = Scratch::new();
    for side in ["a", "b"] {
        here.write(&format!("{side}/secret"), "same");
        here.write(&format!("{side}/open"), "same");
    }
    std::fs::set_permissions(here.at("b/secret"), PermissionsExt::from_mode(0o600)).expect("chmod");
    std::fs::set_permissions(here.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
    let program = here.at("counterfoil");
    std::fs::copy(counterfoil_tests::product::program(), &program).expect("copy");
    let words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", &text(&program), "verify"];
    let words = words.iter().map(|w| (*w).to_owned()).chain([text(here.at("a")), text(here.at("b"))]);
    let run = counterfoil_tests::Observed::new(words).plain().go();
    check!(run, run.code() == 1, "want 1");
    check!(run, run.stdout.contains("ERROR") && run.stdout.contains("secret"), "it doesn't name the file");
    check!(run, run.stdout.contains("run this as a user who may read it"), "it doesn't say what to do");
    check!(run, run.stdout.contains("1 not compared, 1 equal"), "the others were not compared");
}

#[test]
fn what_sha256sum_wrote_beside_a_folder() {
    let here = Scratch::new();
    for i in 0..20 {
        here.write(&format!("in/{i}"), payload(i, 40_000));
    }
    let sums = |names: &str, to: &str| {
        let script = format!("cd in && sha256sum {names} >../{to}");
        peers::prepare(&here, &["sh", "-c", &script]);
        text(here.at(to))
    };
    let folder = text(here.at("in"));
    let all = sums("*", "ALL");
    counterfoil(&["verify", &all, &folder]).well();
    counterfoil(&["verify", "--exact", &folder, &all]).well();
    let some = sums("--tag 1 2 3", "SOME");
    let run = counterfoil(&["verify", &some, &folder]).well();
    check!(
        run,
        run.stdout.contains("17 in the folder that the manifest doesn't name"),
        "it hides the others"
    );
    let run = counterfoil(&["verify", "--exact", &some, &folder]);
    check!(run, run.code() == 1 && run.stdout.contains("17 only in B"), "--exact takes others");
    // Absolute paths, here and moved.
    let absolute = sums("\"$PWD\"/1 \"$PWD\"/2", "ABSOLUTE");
    counterfoil(&["verify", &absolute, &folder]).well();
    peers::prepare(&here, &["cp", "-a", "in", "moved"]);
    let moved = text(here.at("moved"));
    let run = counterfoil(&["verify", &absolute, &moved]);
    check!(run, run.code() == 2 && run.stderr.contains("--base"), "it doesn't say how");
    counterfoil(&["verify", &absolute, &moved, "--base", &folder]).well();

    here.write("in/3", "changed");
    std::fs::remove_file(here.at("in/4")).expect("remove");
    let run = counterfoil(&["verify", &all, &folder]);
    check!(run, run.code() == 1, "want 1");
    check!(run, run.stdout.contains("DIFFERENT   3") && run.stdout.contains("only in A   4"), "not which");
    let later = sums("*", "LATER");
    let run = counterfoil(&["verify", "--manifest", &all, &later]);
    check!(run, run.stdout.contains("not equal: 1 different, 1 only in A, 18 equal"), "two manifests");
    let run = counterfoil(&["verify", "--manifest", &all, &all]).well();
    check!(run, run.stdout.starts_with("equal: 20 entries"), "a manifest and itself");
    // Without --manifest they are files: nothing in a file can choose how it is compared.
    let run = counterfoil(&["verify", &all, &later]);
    check!(run, run.code() == 1 && run.stdout.contains("differ, the first byte at"), "not compared as bytes");
}

/// A whole file is read in bounded memory, and faster than twice `sha256sum`.
#[test]
fn four_gibibytes() {
    let here = Scratch::new();
    let sparse = |name: &str| {
        let file = std::fs::File::create(here.at(name)).expect("file");
        file.set_len(4 << 30).expect("room for a sparse file");
        file
    };
    let (_, b) = (sparse("a"), sparse("b"));
    let program = text(counterfoil_tests::product::program());
    let both = [text(here.at("a")), text(here.at("b"))];
    // 400 MB of address space: far less than the files.
    let limited = "ulimit -v 400000; exec \"$@\"";
    let words = ["sh", "-c", limited, "sh", &program, "verify", &both[0], &both[1]];
    let run = counterfoil_tests::Observed::new(words).plain().limit(300).go().well();
    check!(run, run.stdout.starts_with("equal: 4294967296 bytes, sha256 "), "it says something else");
    std::os::unix::fs::FileExt::write_all_at(&b, b"x", (4 << 30) - 1).expect("write");
    let run = counterfoil_tests::Observed::new(words).plain().limit(300).go();
    check!(run, run.code() == 1, "want 1");
    check!(
        run,
        run.stdout.contains("bytes 4294950912–4294967295 differ, the first byte at 4294967295"),
        "not where"
    );
}

/// The bar is drawn on a terminal, and nowhere else.
#[test]
fn a_terminal_gets_colour_and_a_pipe_gets_none() {
    need!("script");
    let here = Scratch::new();
    let a = text(here.write("a", payload(1, 100_000)));
    let b = text(here.write("b", payload(2, 100_000)));
    let line = format!("{} verify {a} {b}", text(counterfoil_tests::product::program()));
    let run = counterfoil_tests::Observed::new(["script", "-qec", &line, "/dev/null"])
        .plain()
        .env("TERM", "xterm")
        .go();
    check!(run, run.code() == 1 && run.stdout.contains("\x1b[1;31mDIFFERENT"), "no colour on a terminal");
    let plain = command(&["verify", &a, &b]).env("TERM", "xterm").go();
    check!(plain, !plain.stdout.contains('\x1b') && plain.stderr.is_empty(), "colour or a bar in a pipe");
    let no = counterfoil_tests::Observed::new(["script", "-qec", &line, "/dev/null"])
        .plain()
        .env("TERM", "xterm")
        .env("NO_COLOR", "1")
        .go();
    check!(no, !no.stdout.contains("\x1b[1;31m"), "NO_COLOR is not honoured");
}

/// The reader of the output has gone: no panic, and no "equal".
#[test]
fn a_closed_pipe() {
    let here = Scratch::new();
    for i in 0..500 {
        here.write(&format!("a/{i}"), "1");
        here.write(&format!("b/{i}"), "2");
    }
    let program = text(counterfoil_tests::product::program());
    let script = format!("set -o pipefail; {program} verify a b | head -1; echo ${{PIPESTATUS[0]}} >status");
    peers::prepare(&here, &["bash", "-c", &script]);
    let status = std::fs::read_to_string(here.at("status")).expect("status");
    assert_eq!(status.trim(), "1");
}
