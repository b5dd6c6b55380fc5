//! Programs that say hello, lie, fill their lanes and go.

use crate::fake::{self, Shim};
use crate::harness::*;
use counterfoil_abi::BLOCK;
use counterfoil_abi::record::*;
use counterfoil_daemon::judged::{Judged, What};
use counterfoil_daemon::model::Verdict;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

#[test]
fn a_hostile_arena_is_said_once_and_hurts_nobody() {
    let mut daemon = start(|_| {});
    let mut state = 12345u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut liars = Vec::new();
    for _ in 0..8 {
        let shim = Shim::hello(&daemon.socket);
        let words = counterfoil_abi::arena::ARENA_BYTES / 8;
        for i in (64..words).step_by(7) {
            unsafe { shim.map.as_mut_ptr().cast::<u64>().add(i).write(random()) };
        }
        shim.head().bell.store(1, std::sync::atomic::Ordering::Relaxed);
        liars.push(shim);
    }
    for _ in 0..8 {
        let notice = daemon.notice();
        assert!(matches!(notice.what, What::HostileArena { .. }), "{notice:?}");
    }
    // Records that decode, and lie.
    let mut liar = Shim::hello(&daemon.socket);
    for i in 0..20_000u64 {
        let mut lines = [[0u64; 8]; MAX_LINES];
        let kind = 1 + (random() % 9) as u8;
        let count: u8 = [4, 1, 1, 2, 1, 2, 1, 1, 4][usize::from(kind) - 1];
        for line in &mut lines[..usize::from(count)] {
            line.iter_mut().for_each(|w| *w = if random() % 3 == 0 { random() } else { random() % 20 });
        }
        let tap = (random() % 11) << 16;
        lines[0][0] = u64::from(kind) | u64::from(count) << 8 | tap | (random() % 40) << 32;
        if Record::decode(&lines[..usize::from(count)]).is_some() {
            while !liar.push_lines((i % 64) as usize, &lines[..usize::from(count)]) {
                std::thread::yield_now();
            }
        }
    }
    tls(&daemon, 1, &content(100), &content(100));
    let t = daemon.until(|j| match j {
        Judged::Transfer { transfer, .. } if transfer.flow.as_deref() == Some(&"01".repeat(16)) => {
            Some((**transfer).clone())
        }
        _ => None,
    });
    assert_eq!(t.verdict, Verdict::Intact);
    let hostile = daemon
        .heard
        .iter()
        .filter(|j| matches!(j, Judged::Notice(n) if matches!(n.what, What::HostileArena { .. })));
    assert_eq!(hostile.count(), 8);
}

#[test]
fn full_lanes_are_counted_and_never_altered() {
    let mut daemon = start(|_| {});
    let mut client = Shim::hello(&daemon.socket);
    let mut server = Shim::hello(&daemon.socket);
    client.tls(1, 9, true);
    server.tls(1, 9, false);
    let mut dropped = 0u64;
    for block in 0..200_000u64 {
        let ok = client.block(0, 1, Tap::TlsWrite, block * BLOCK, fake::tag(b"x", block));
        dropped += u64::from(!ok);
    }
    if dropped == 0 {
        eprintln!("skipped: the daemon kept up with everything");
        return;
    }
    let n = daemon.notice();
    let What::RecordsDropped { records } = n.what else { panic!("{n:?}") };
    assert!(records > 0 && records <= dropped);
    // The end is a record like any other: in a lane that is still full it would be dropped, too.
    let lane = client.lane_head(0);
    let deadline = Instant::now() + Duration::from_secs(5);
    while lane.tail.load(Ordering::Relaxed) != lane.head.load(Ordering::Relaxed) {
        assert!(Instant::now() < deadline, "the lane is read");
        std::thread::sleep(Duration::from_millis(1));
    }
    client.end(1, How::Freed, 200_000 * BLOCK, 0, |_| {});
    server.block(0, 1, Tap::TlsRead, 0, fake::tag(b"y", 0));
    server.end(1, How::Freed, 0, BLOCK, |_| {});
    let t = daemon.transfer();
    assert_eq!(
        (t.verdict, t.reasons.first()),
        (Verdict::Unverified, Some(&Reason::RecordsDropped)),
        "{t:#?}"
    );
}

#[test]
fn hellos_are_answered_quickly_and_garbage_is_ignored() {
    let daemon = start(|_| {});
    let _silent: Vec<_> = (0..600).map(|_| fake::connect(&daemon.socket)).collect();
    let garbage = fake::connect(&daemon.socket);
    assert!(fake::ask(&garbage, b"GET / HTTP/1.1").is_none());
    let mut wrong = fake::request(&[]);
    wrong.abi = 99;
    let other = fake::connect(&daemon.socket);
    let (reply, memfd) = fake::ask(&other, bytemuck::bytes_of(&wrong)).unwrap();
    assert_eq!((reply.status, memfd.is_some()), (counterfoil_abi::hello::WRONG_ABI, false));
    assert_eq!(reply.key, [0; 16]);
    let mut times: Vec<Duration> = (0..50)
        .map(|_| {
            let began = Instant::now();
            drop(Shim::hello(&daemon.socket));
            began.elapsed()
        })
        .collect();
    times.sort();
    println!("hello: median {:?}, slowest {:?}", times[25], times[49]);
    assert!(times[25] < Duration::from_millis(5));
    let (granted, declined, garbage) = daemon.handle.as_ref().unwrap().hellos();
    assert_eq!((granted, declined, garbage), (50, 1, 1));
}

#[test]
fn only_allowed_users_and_watched_programs_are_observed() {
    use counterfoil_daemon::host::facts::Watch;
    let mine = rustix::process::geteuid().as_raw();
    let daemon = start(|o| o.allowed_uids = Some(vec![mine + 1]));
    let fd = fake::connect(&daemon.socket);
    let (reply, memfd) = fake::ask(&fd, bytemuck::bytes_of(&fake::request(&[]))).unwrap();
    assert_eq!((reply.status, memfd.is_some()), (counterfoil_abi::hello::DECLINED, false));
    let mut daemon = start(|o| {
        o.watch = std::sync::Arc::new(|_| Watch::Unwatched);
        o.redact = std::sync::Arc::new(|_| vec!["redacted".into()]);
    });
    let mut shim = Shim::hello(&daemon.socket);
    assert_eq!(shim.reply.policy, 0);
    shim.tls(1, 1, true);
    shim.end(1, How::Freed, 5, 0, |_| {});
    let t = daemon.transfer();
    assert_eq!(t.reasons, [Reason::PeerNotObserved, Reason::AttachedLate]);
    assert_eq!(t.origin.unwrap().argv, Some(vec!["redacted".to_owned()]));
}

#[test]
fn lanes_of_threads_that_are_gone_are_freed() {
    use std::sync::atomic::Ordering::Relaxed;
    let daemon = start(|_| {});
    let mut shim = Shim::hello(&daemon.socket);
    let (me, gone) = (u64::from(std::process::id()), (1 << 22) - 1);
    for lane in 0..40 {
        let tid = if lane < 20 { me } else { gone };
        shim.lane_head(lane).owner.store(me << 32 | tid, Relaxed);
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while shim.lane_head(20).owner.load(Relaxed) != 0 {
        assert!(Instant::now() < deadline, "not freed");
        // Only arenas in use are looked through.
        shim.tls(1, 1, true);
        std::thread::yield_now();
    }
    assert!((1..20).all(|lane| shim.lane_head(lane).owner.load(Relaxed) != 0), "the living keep theirs");
}
