use super::*;

const LIMIT: u64 = 16 << 20;

/// Sends everything, at most `window` under way at once.
fn lines(spool: &mut Spool, window: usize) -> Vec<String> {
    let mut out = vec![];
    while !spool.is_empty() {
        while spool.under_way() < window
            && let Some(line) = spool.next_line()
        {
            out.push(String::from_utf8(line).unwrap());
            spool.sent();
        }
        spool.taken(1);
    }
    out
}

#[test]
fn lines_outlive_the_daemon_in_order_and_none_that_was_taken_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut spool = Spool::on_disk(&path, LIMIT).unwrap();
    for i in 0..100 {
        spool.push(format!("line {i}").as_bytes(), 0);
    }
    drop(spool); // as kill -9 would: nothing runs at the end
    let mut spool = Spool::on_disk(&path, LIMIT).unwrap();
    for _ in 0..50 {
        spool.next_line().unwrap();
        spool.sent();
    }
    // 40 are known to have arrived, ten are under way.
    spool.taken(40);
    assert_eq!((spool.under_way(), spool.len()), (10, 60));
    drop(spool);
    let mut spool = Spool::on_disk(&path, LIMIT).unwrap();
    let left = lines(&mut spool, 7);
    assert_eq!(left.len(), 60);
    assert_eq!((left[0].as_str(), left[59].as_str()), ("line 40", "line 99"));
    assert_eq!(fs::metadata(&path).unwrap().len(), 0, "nothing is left behind");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_was_under_way_goes_again() {
    let mut spool = Spool::in_memory(LIMIT);
    for line in ["a", "b", "c"] {
        spool.push(line.as_bytes(), 0);
    }
    assert_eq!(spool.next_line().unwrap(), b"a");
    spool.sent();
    assert_eq!(spool.next_line().unwrap(), b"b");
    spool.sent();
    spool.taken(1);
    spool.again();
    assert_eq!(lines(&mut spool, 1), ["b", "c"]);
}

#[test]
fn too_much_gives_up_the_oldest_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    // 100 lines of 42.
    let mut spool = Spool::on_disk(&path, 4200).unwrap();
    spool.push(b"0000000000", 0);
    spool.next_line().unwrap();
    spool.sent();
    for i in 1..5000 {
        spool.push(format!("{i:010}").as_bytes(), 0);
    }
    assert_eq!(spool.given_up(), 4900);
    assert!(fs::metadata(&path).unwrap().len() <= (64 << 10) + 64, "the file is bounded too");
    drop(spool);
    let mut spool = Spool::on_disk(&path, 4200).unwrap();
    assert_eq!(spool.given_up(), 0, "and it is not counted twice");
    let left = lines(&mut spool, 3);
    assert_eq!(left[0], "0000000000", "what is under way is never given up");
    assert_eq!((left[1].as_str(), left[99].as_str()), ("0000004901", "0000004999"));
}

#[test]
fn a_torn_or_hostile_file_gives_what_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut spool = Spool::on_disk(&path, LIMIT).unwrap();
    spool.push(b"past", 0);
    spool.push(b"whole", 0);
    spool.push(b"torn", 0);
    spool.next_line().unwrap();
    spool.sent();
    spool.taken(1);
    drop(spool);
    let bytes = fs::read(&path).unwrap();
    for cut in 0..bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let mut spool = Spool::on_disk(&path, LIMIT).unwrap();
        spool.push(b"next", 0);
        drop(spool);
        let left = lines(&mut Spool::on_disk(&path, LIMIT).unwrap(), 1);
        let all = ["past", "whole", "torn"];
        let sound = left.len() - 1;
        assert_eq!(
            (&left[..sound], left[sound].as_str()),
            (&all.map(String::from)[..sound], "next"),
            "{cut}"
        );
    }
    let removal = [[0xff; 4], [9, 0, 0, 0], [0xff; 4]].concat();
    for junk in [vec![0xff; 4096], vec![0; 64], [&[200, 0, 0, 0][..], &[0xfd; 200]].concat(), removal] {
        fs::write(&path, junk).unwrap();
        let mut spool = Spool::on_disk(&path, LIMIT).unwrap();
        let _ = lines(&mut spool, 1);
        spool.push(b"next", 0);
        drop(spool);
        assert_eq!(lines(&mut Spool::on_disk(&path, LIMIT).unwrap(), 1), ["next"]);
    }
}

#[test]
fn in_memory() {
    let mut spool = Spool::in_memory(2 * 37);
    for line in [&b"aaaaa"[..], b"bbbbb", b"ccccc"] {
        spool.push(line, 0);
    }
    assert_eq!((lines(&mut spool, 2), spool.given_up()), (vec!["bbbbb".into(), "ccccc".into()], 1));
    assert!(spool.is_empty());
}

#[test]
fn a_long_outage_under_load_keeps_the_file_bounded_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut spool = Spool::on_disk(&path, 128 << 10).unwrap();
    let line = |i: u32| format!("{i:08}{}", "x".repeat(500));
    for i in 0..5000 {
        spool.push(line(i).as_bytes(), 0);
        assert!(fs::metadata(&path).unwrap().len() <= (256 << 10) + 1024);
    }
    let gone = spool.given_up();
    let left = lines(&mut spool, 16);
    assert_eq!(gone as usize + left.len(), 5000);
    assert_eq!(left[0], line(gone as u32));
    assert_eq!(left.last().unwrap(), &line(4999));
}

#[test]
fn the_highest_number_outlives_the_daemon_with_the_lines_and_without() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut spool = Spool::on_disk(&path, LIMIT).unwrap();
    spool.push(b"plain", 0);
    spool.push(b"seven", 7);
    drop(spool);
    // Nothing was noted: the line itself says it.
    assert_eq!(highest(dir.path()), 0);
    let mut spool = Spool::on_disk(&path, LIMIT).unwrap();
    assert_eq!(spool.passed(), 7);
    assert_eq!(lines(&mut spool, 2), ["plain", "seven"]);
    assert_eq!(fs::metadata(&path).unwrap().len(), 0, "nothing is left behind");
    drop(spool);
    let mut spool = Spool::on_disk(&path, LIMIT).unwrap();
    assert_eq!(spool.passed(), 7);
    // One that has no line.
    spool.pass(9);
    spool.note();
    drop(spool);
    assert_eq!(Spool::on_disk(&path, LIMIT).unwrap().passed(), 9);
    assert_eq!(highest(dir.path()), 9);
    // Written anew, the lines have no numbers any more; the mark does.
    let mut spool = Spool::on_disk(&path, 64 << 10).unwrap();
    for i in 10..2000 {
        spool.push(&[b'x'; 100], i);
    }
    drop(spool);
    assert_eq!(Spool::on_disk(&path, 64 << 10).unwrap().passed(), 1999);
    // What an older version wrote is read: its lines have no numbers.
    assert!(!fs::read(&path).unwrap().is_empty());
    for junk in ["", "x", "-1", "99999999999999999999999"] {
        fs::write(path.with_extension("mark"), junk).unwrap();
        fs::write(&path, b"").unwrap();
        assert_eq!(Spool::on_disk(&path, LIMIT).unwrap().passed(), 0, "{junk:?}");
    }
}
