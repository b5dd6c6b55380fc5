//! `counterfoil demo` shows what it promises, in time, and leaves nothing behind.

use counterfoil_tests::{Scratch, need, product};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn it_shows_an_alteration_being_caught() {
    need!("curl", "openssl", "cc");
    let scratch = Scratch::new();
    let began = Instant::now();
    let output = Command::new(product::program())
        .arg("demo")
        .env("TMPDIR", scratch.path())
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::null())
        .output()
        .expect("demo");
    let text = String::from_utf8_lossy(&output.stdout);
    let shown = format!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}");
    assert!(began.elapsed() < Duration::from_secs(60), "it took {:?}", began.elapsed());
    // Clean first: two directions, no alarm.
    let (clean, tampered) = text.split_once("\n2  ").expect("two scenes");
    assert!(clean.contains("2 transfers: 2 intact; no alarm"), "{shown}");
    assert!(tampered.contains("bytes 32768–49151 differ"), "the range: {shown}");
    assert!(tampered.contains("CRITICAL     cipher-mismatch"), "{shown}");
    // The syslog line, whole.
    let line =
        tampered.lines().find(|l| l.contains("counterfoil@32473") && l.contains("rule=\"payload-altered\""));
    let line = line.unwrap_or_else(|| panic!("no syslog line: {shown}"));
    assert!(line.starts_with("<82>1 ") && line.contains("altered=\"32768+16384\""), "{line}");
    let left: Vec<_> = std::fs::read_dir(scratch.path()).expect("scratch").flatten().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}
