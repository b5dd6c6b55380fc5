//! What a chain's legs can have carried.

use super::*;

/// `ssh h 'cat >x' <F; ssh h 'head -c N F' >G`: both sessions' daemons (3 and 8) got something of one listener (7).
fn two_sessions() -> Table {
    let mut t = table();
    for (arena, name) in [(6, "ssh"), (7, "sshd"), (8, "sshd")] {
        let mut facts = Facts::default();
        facts.process.exe = Some(format!("/usr/bin/{name}"));
        t.files.program(arena, &Arc::new(facts));
    }
    let little = |from, to, channel, bytes| Gift { bytes, ..gift(from, to, channel) };
    t.live.0 = vec![
        gift(2, 3, Carried::Tcp),
        little(3, 7, Carried::Pipe, 1),
        little(7, 8, Carried::Unix, 369),
        gift(8, 6, Carried::Tcp),
    ];
    t
}

#[test]
fn what_no_leg_can_have_carried_is_another_file() {
    for written in [&[1, 2][..], &[1, 2, 9, 4]] {
        for path in ["/b/part", "/a/x"] {
            let mut t = two_sessions();
            t.go(&used(2, 1, "/a/x", Way::Read, &[1, 2, 3, 4]));
            t.go(&used(6, 1, path, Way::Written, written));
            let all = t.wait(20);
            assert!(all.is_empty(), "{all:?}");
        }
    }
    // A copy is still known by its content.
    let mut t = two_sessions();
    t.go(&used(2, 1, "/a/x", Way::Read, &[1, 2]));
    t.go(&used(6, 1, "/b/y", Way::Written, &[1, 2]));
    assert_eq!(t.wait(20)[0].0.verdict, Verdict::Intact);
}

#[test]
fn what_each_leg_can_have_carried_is_accused() {
    for (written, verdict) in [(&[1, 2][..], Verdict::Truncated), (&[1, 2, 9, 4], Verdict::Altered)] {
        let mut t = two_sessions();
        // What is moved and not yet told is little.
        t.live.0[1].bytes = written.len() as u64 * BLOCK;
        t.live.0[2].bytes = t.live.0[1].bytes - 1;
        t.go(&used(2, 1, "/a/x", Way::Read, &[1, 2, 3, 4]));
        t.go(&used(6, 1, "/b/part", Way::Written, written));
        assert_eq!(t.wait(20)[0].0.verdict, verdict);
    }
}

#[test]
fn what_was_compressed_on_the_way_is_accused() {
    let long: Vec<u8> = (0..60).collect();
    // By ssh on its connection; by rsync on all legs; by ssh, but not where it is whole again.
    let few = 60 * BLOCK / 900;
    let by_ssh = [(1, 99 * BLOCK), (2, few), (3, 99 * BLOCK)];
    for (ends, legs, told) in [
        (["scp", "sftp-server"], by_ssh, true),
        (["rsync", "rsync"], [(1, few), (2, few), (3, few)], true),
        (["scp", "sftp-server"], [(1, few), (2, few), (3, few)], false),
    ] {
        let mut t = table();
        for (arena, name) in [1, 4].into_iter().zip(ends) {
            let mut facts = Facts::default();
            facts.process.exe = Some(format!("/usr/bin/{name}"));
            t.files.nodes.get_mut(&arena).unwrap().facts = Arc::new(facts);
        }
        for ((from, bytes), leg) in legs.into_iter().zip(&mut t.live.0) {
            let channel = if from == 2 { Carried::Tcp } else { Carried::Pipe };
            *leg = Gift { bytes, ..gift(from, from + 1, channel) };
            (leg.last, leg.verdict) = (u64::MAX, Some(Verdict::Unverified));
        }
        let mut other = long.clone();
        other[30] = 99;
        t.go(&used(1, 1, "/a/x", Way::Read, &long));
        t.go(&used(4, 1, "/b/x", Way::Written, &other));
        let said: Vec<Verdict> = t.wait(20).iter().map(|(t, _)| t.verdict).collect();
        assert_eq!(said, if told { vec![Verdict::Altered] } else { Vec::new() }, "{ends:?} {legs:?}");
    }
}
