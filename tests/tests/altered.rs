//! Altered (issue 2, item 2): one flipped bit anywhere is found, in its own block and no other.
//! What is changed on the path between two hosts is in `on_path`.

use counterfoil_tests::{Observed, Run, check, truth, wait};
use std::time::{Duration, Instant};

const BLOCK: u64 = 16384;
const SIZE: u64 = 50_000;
/// Block borders, and the ends of the stream.
const OFFSETS: [u64; 9] = [0, 1, 8191, 16_383, 16_384, 32_767, 32_768, 49_152, SIZE - 1];

/// The block that holds `offset` of a stream of `size` bytes.
fn block_of(offset: u64, size: u64) -> (u64, u64) {
    let start = offset / BLOCK * BLOCK;
    (start, BLOCK.min(size - start))
}

/// The one transfer on `channel` is altered, just there, and an alarm says so.
fn altered_at(run: &Run, channel: &str, ranges: &[(u64, u64)]) {
    truth::sound(run);
    check!(run, run.code() == 0 && !run.stdout.contains("signal"), "the host was disturbed");
    let transfers = run.report.on(channel);
    check!(run, transfers.len() == 1, "want one transfer on {channel}");
    check!(run, transfers[0].verdict() == "altered", "not altered");
    check!(run, transfers[0].altered() == ranges, "want ranges {ranges:?}, not {:?}", transfers[0].altered());
    let id = &transfers[0].0["id"];
    let said =
        run.report.alarms().iter().any(|a| {
            a.rule() == "payload-altered" && a.0["severity"] == "critical" && a.0["transfer"] == *id
        });
    check!(run, said, "no critical payload-altered for transfer {id}");
}

fn sweep(channel: &str, point: &str, fixture: &str) {
    for offset in OFFSETS {
        let run = Observed::fixture(fixture).tampered(&format!("{point}:flip:{offset}")).go();
        altered_at(&run, channel, &[block_of(offset, SIZE)]);
        if channel == "tls" {
            check!(run, run.report.fired("cipher-mismatch"), "no cipher-mismatch at {offset}");
        }
    }
}

#[test]
fn all_of_it_is_another() {
    // Nothing is left of it but its length and its kind.
    for (channel, point, fixture) in [
        ("tcp", "sock-out", "stream tcp send recv 50000 5000"),
        ("tls", "tls-out", "tls 1.3 - write read 50000 5000"),
    ] {
        let run = Observed::fixture(fixture).tampered(&format!("{point}:flip:0:{SIZE}")).go();
        truth::sound(&run);
        let found = run.report.on(channel);
        check!(run, found.len() == 1 && found[0].altered() == [(0, SIZE)], "{channel}: {found:?}");
        let said = run.report.alarms().into_iter().find(|a| a.rule() == "payload-replaced");
        let right = said.is_some_and(|a| a.0["severity"] == "high" && a.0["transfer"] == found[0].0["id"]);
        check!(run, right, "{channel}: no payload-replaced");
    }
}

#[test]
fn tls13_below_the_sender() {
    sweep("tls", "tls-out", "tls 1.3 - write read 50000 5000");
}

#[test]
fn tls13_below_the_receiver() {
    sweep("tls", "tls-in", "tls 1.3 - write_ex read_ex 50000 7000");
}

#[test]
fn tls12_below_the_sender() {
    sweep("tls", "tls-out", "tls 1.2 - write_ex read 50000 50000");
}

#[test]
fn tls12_cbc_below_the_receiver() {
    sweep("tls", "tls-in", "tls 1.2 ECDHE-ECDSA-AES128-SHA write read 50000 5000");
}

#[test]
fn tls12_mac_first_below_the_sender() {
    sweep("tls", "tls-out", "tls 1.2 ECDHE-ECDSA-AES128-SHA write read 50000 50000 macfirst");
    sweep("tls", "tls-out", "tls 1.2 ECDHE-ECDSA-AES256-SHA384 write read 50000 5000 macfirst");
}

#[test]
fn tls12_ccm8_below_the_sender() {
    sweep("tls", "tls-out", "tls 1.2 ECDHE-ECDSA-AES128-CCM8 write read 50000 5000");
}

#[test]
fn tcp_below_the_sender() {
    sweep("tcp", "sock-out", "stream tcp send recv 50000 5000");
}

#[test]
fn tcp_below_the_receiver() {
    sweep("tcp", "sock-in", "stream tcp write read 50000 5000");
}

#[test]
fn pipe_below_the_sender() {
    sweep("pipe", "pipe-out", "stream pipe write read 50000 5000");
}

/// A few bytes between two programs of a shell that has used stdio, and among others that have its pipe and don't use it.
#[test]
fn in_a_shells_pipe() {
    let run = Observed::new(["bash", "-euc", "echo said
        (TAMPER=pipe-out:flip:2 LD_PRELOAD=\"$LD_PRELOAD:$FIXTURES/tamper.so\" cat f; sleep 0.1) | (cat; sleep 0.1)"]);
    run.scratch.write("f", b"hello");
    altered_at(&run.go(), "pipe", &[(0, 5)]);
}

#[test]
fn unix_below_the_receiver() {
    sweep("unix", "sock-in", "stream socketpair write recv 50000 5000");
}

/// The evidence of both ends: the sender's cipher got other bytes than the program gave.
#[test]
fn cipher_mismatch_names_the_side() {
    for (point, role) in [("tls-out", "origin"), ("tls-in", "destination")] {
        let run = Observed::fixture("tls 1.3 - write read 50000 5000")
            .tampered(&format!("{point}:flip:20000"))
            .go();
        let pid = run.report.on("tls")[0].0[role]["pid"].clone();
        let alarms = run.report.alarms();
        let mine: Vec<_> = alarms.iter().filter(|a| a.rule() == "cipher-mismatch").collect();
        check!(run, mine.len() == 1, "want one cipher-mismatch");
        check!(run, mine[0].0["process"]["pid"] == pid, "it accuses somebody else than the {role} {pid}");
    }
}

#[test]
fn several_changes_are_several_ranges() {
    let run = Observed::fixture("tls 1.3 - write read 100000 5000")
        .tampered("tls-out:flip:100;tls-out:flip:40000;tls-out:flip:90000")
        .go();
    altered_at(&run, "tls", &[(0, BLOCK), (2 * BLOCK, BLOCK), (5 * BLOCK, BLOCK)]);
}

#[test]
fn neighbours_are_merged() {
    let run = Observed::fixture("tls 1.3 - write read 100000 5000")
        .tampered("tls-out:flip:100;tls-out:flip:17000;tls-out:flip:99999")
        .go();
    altered_at(&run, "tls", &[(0, 2 * BLOCK), (6 * BLOCK, 100_000 - 6 * BLOCK)]);
}

/// Both directions of one connection are judged by themselves.
#[test]
fn only_the_altered_direction_is_accused() {
    let run =
        Observed::fixture("tls 1.3 - write read 50000 5000 answer=40000").tampered("tls-in:flip:45000").go();
    truth::sound(&run);
    let find =
        |bytes| run.report.on("tls").into_iter().find(|t| t.origin() == Some(bytes)).expect("a direction");
    check!(run, find(40_000).verdict() == "intact", "the answer was not changed");
    check!(run, find(50_000).altered() == [block_of(45_000, 50_000)], "the request was");
}

/// In TLS nothing can be put in or taken out but by who has the keys: that is an alteration, and it
/// says where it begins.
#[test]
fn insertions_and_deletions_in_tls() {
    for (orders, origin, destination) in [
        ("tls-out:insert:20000:3", 50_000, 50_003),
        ("tls-out:drop:20000:3", 50_000, 49_997),
        ("tls-out:repeat:22000:30", 50_000, 50_030),
        ("tls-in:insert:20000:3", 50_000, 50_003),
        ("tls-in:drop:20000:3", 50_000, 49_997),
    ] {
        let run = Observed::fixture("tls 1.3 - write read 50000 5000").tampered(orders).go();
        let longer: u64 = std::cmp::max(origin, destination);
        altered_at(&run, "tls", &[(BLOCK, longer - BLOCK)]);
        let transfer = &run.report.on("tls")[0];
        let counts = (transfer.origin(), transfer.destination());
        check!(run, counts == (Some(origin), Some(destination)), "{orders}: byte counts {counts:?}");
    }
}

/// What is left after a large deletion ends within a block, whose tag proves nothing about a part of
/// it: the far end looks truncated. The sender's own cipher knows better.
#[test]
fn large_deletion_in_tls() {
    let run = Observed::fixture("tls 1.3 - write read 50000 5000").tampered("tls-out:drop:20000:20000").go();
    truth::sound(&run);
    let transfer = &run.report.on("tls")[0];
    check!(run, ["altered", "truncated"].contains(&transfer.verdict()), "20000 bytes are missing");
    check!(run, run.report.fired("cipher-mismatch"), "fewer bytes were sealed than were written");
}

/// On plain TCP what is more than was witnessed may have bypassed us; what is less can't.
#[test]
fn insertions_and_deletions_below_plain_sockets() {
    for (orders, verdict) in [
        ("sock-out:drop:20000:3", "altered"),
        ("sock-in:insert:20000:3", "altered"),
        ("sock-out:insert:20000:3", "unverified"),
        ("sock-in:drop:20000:3", "unverified"),
    ] {
        let run = Observed::fixture("stream tcp send recv 50000 5000").tampered(orders).go();
        truth::sound(&run);
        let transfer = &run.report.on("tcp")[0];
        check!(run, transfer.verdict() == verdict, "{orders}: want {verdict}");
        if verdict == "altered" {
            check!(run, transfer.altered()[0].0 == BLOCK, "{orders}: it begins at {BLOCK}");
        } else {
            check!(
                run,
                transfer.reasons().contains(&"bypassed-bytes".into()),
                "{orders}: want bypassed-bytes"
            );
        }
    }
}

/// Changed between libssl and the socket: TLS refuses it. That is an alteration which the protocol
/// stopped; what arrived before is not accused.
#[test]
fn record_rejected_below_tls() {
    let run = Observed::fixture("tls 1.3 - write read 200000 5000").tampered("sock-out:flip:60000").go();
    truth::sound(&run);
    check!(run, run.report.fired("record-rejected"), "no record-rejected");
    check!(run, !run.report.fired("payload-altered"), "what arrived was what was sent");
    let transfer = &run.report.on("tls")[0];
    check!(run, ["truncated", "unverified"].contains(&transfer.verdict()), "it did not arrive whole");
}

/// A middleware between libssl and libcrypto that stands before us in the lookup order.
#[test]
fn above_the_cipher_witness() {
    for orders in ["seal:flip:20000", "open:flip:20000"] {
        let run = Observed::fixture("tls 1.3 - write read 50000 5000")
            .foreign("tamper.so")
            .env("TAMPER", orders)
            .go();
        truth::sound(&run);
        check!(run, !run.stdout.contains("signal"), "{orders}: the host crashed");
        let alarmed = ["cipher-mismatch", "process-anomaly", "payload-altered"];
        check!(run, alarmed.iter().any(|r| run.report.fired(r)), "{orders}: no alarm at all");
        let transfers = run.report.on("tls");
        check!(run, transfers.len() == 1, "{orders}: want one transfer");
        let transfer = &transfers[0];
        let good = transfer.verdict() == "altered"
            || (transfer.verdict() == "unverified" && transfer.reasons().contains(&"foreign-hook".into()));
        check!(run, good, "{orders}: neither altered nor foreign-hook");
    }
}

/// Who stands before us could show us anything: the stream is not vouched for.
#[test]
fn foreign_hook_is_named() {
    let run = Observed::fixture("tls 1.3 - write read 50000 5000")
        .foreign("foreign.so")
        .env("FOREIGN_CHANGES", "1")
        .go();
    truth::sound(&run);
    check!(run, !run.stdout.contains("signal"), "the host crashed");
    let transfers = run.report.on("tls");
    check!(run, transfers.len() == 1, "want one transfer");
    let transfer = &transfers[0];
    check!(run, transfer.verdict() == "unverified", "it can't be known");
    check!(run, transfer.reasons().contains(&"foreign-hook".into()), "want foreign-hook");
    let named = run
        .report
        .alarms()
        .iter()
        .any(|a| a.rule().starts_with("process-anomaly") && a.0.to_string().contains("foreign.so"));
    check!(run, named, "no process-anomaly that names the library");
}

/// An altered request on a connection that stays open is alarmed within a second.
fn alarmed_while_open(fixture: &str, orders: &str) {
    let line = format!("{fixture} mark=mark wait=go");
    let running = Observed::fixture(&line).tampered(orders).start();
    let mark = running.scratch.at("mark");
    wait::until(Duration::from_secs(20), "the request was answered", || mark.exists().then_some(()));
    let answered = Instant::now();
    let alarmed = wait::poll(Duration::from_secs(5), || {
        running.report_so_far().fired("payload-altered").then(|| answered.elapsed())
    });
    running.scratch.write("go", "");
    let run = running.finish();
    let Some(after) = alarmed else {
        panic!("no alarm while the connection was open\n{}", run.shown());
    };
    check!(run, after <= Duration::from_secs(1), "the alarm took {after:?}");
    // Repeats count up: what counts is the last word on each alarm.
    let counted: std::collections::BTreeMap<_, _> = run
        .report
        .alarms()
        .iter()
        .filter(|a| a.rule() == "payload-altered")
        .map(|a| (a.0["id"].to_string(), a.0["count"].as_u64().unwrap_or(0)))
        .collect();
    // The order holds at both ends, so that an answer may be altered, too.
    let altered = run.report.transfers().iter().filter(|t| t.verdict() == "altered").count();
    check!(run, altered >= 1, "the transfer itself is not altered");
    check!(
        run,
        counted.values().sum::<u64>() == altered as u64,
        "each is counted once, even if it is told of again at the end"
    );
}

#[test]
fn alarmed_while_open_on_tls() {
    alarmed_while_open("tls 1.3 - write read 1000 1000 answer=100", "tls-out:flip:10");
}

#[test]
fn alarmed_while_open_on_tls_below_the_receiver() {
    alarmed_while_open("tls 1.3 - write read 40000 1000 answer=100", "tls-in:flip:39999");
}

/// Sizes, pieces, calls and places that nobody chose. The seed of a failure is in its name.
#[test]
fn anywhere() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("clock");
    let mut state = u64::from(now.subsec_nanos()) | 1;
    println!("seed {state}");
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    let kinds = [
        ("tls", "tls-out", "tls 1.3 - write read"),
        ("tls", "tls-in", "tls 1.2 - write_ex read_ex"),
        ("tcp", "sock-out", "stream tcp writev recv"),
        ("tcp", "sock-in", "stream tcp send read"),
    ];
    for _ in 0..24 {
        let (channel, point, fixture) = kinds[below(4) as usize];
        let size = 1 + below(200_000);
        let piece = 1 + size / (1 + below(40));
        let offset = below(size);
        let run = Observed::fixture(&format!("{fixture} {size} {piece}"))
            .tampered(&format!("{point}:flip:{offset}"))
            .go();
        altered_at(&run, channel, &[block_of(offset, size)]);
    }
}
