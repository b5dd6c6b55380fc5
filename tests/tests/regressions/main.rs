//! One test for each bug that was found, named for it.

use counterfoil_tests::{Observed, check, truth};

/// A library before ours wrapped `SSL_write` and called on by RTLD_NEXT: our hook looked the function up
/// in its caller, found the wrapper again, and the host died of endless recursion.
#[test]
fn wrapper_before_us_recursed() {
    let run = Observed::fixture("tls 1.3 - write read 50000 5000").foreign("foreign.so").go();
    truth::blameless(&run);
    check!(run, run.stdout.contains("server: got 50000"), "the host crashed");
}

/// The second half of a connection came from a process that had got the descriptor by SCM_RIGHTS: its
/// offsets were unknown, and were compared from 0 all the same.
#[test]
fn passed_descriptor_was_called_altered() {
    let run = Observed::fixture("shared passed").go().well();
    truth::blameless(&run);
}

/// A library behind ours made every stream `foreign-hook`, so that an alteration which both ends
/// prove was only `unverified`.
#[test]
fn library_behind_us_took_the_verdict_away() {
    let run =
        Observed::fixture("stream tcp send recv 50000 5000").tampered("sock-out:flip:49999").go().well();
    truth::holds(&run, &["tcp 50000 50000 altered"]);
    // And one that changes nothing takes nothing away.
    let run = Observed::fixture("stream tcp send recv 50000 5000").tampered("pipe-out:flip:0").go().well();
    truth::holds(&run, &["tcp 50000 50000 intact"]);
}

/// A forked child that shared a descriptor and ended in order was said to have been killed.
#[test]
fn child_that_ended_was_called_killed() {
    let run = Observed::fixture("shared fork-turns").go().well();
    for transfer in run.report.transfers() {
        check!(run, !transfer.reasons().contains(&"process-killed".into()), "nobody was killed");
    }
}

/// An exec'd image that left by `return` with its connection on descriptor 1 was said to have been killed.
#[test]
fn inetd_service_was_called_killed() {
    let run = Observed::fixture("process inetd").go().well();
    truth::holds(&run, &["tcp 50000 50000 intact", "tcp 9000 9000 intact"]);
}

/// Where SSL_write does the handshake, it opens records too. Their ciphertext was taken for content that
/// is sealed, once in 256 records, by its last byte; and an honest program was accused.
#[test]
fn handshake_inside_ssl_write() {
    let line = "tls 1.3 - write read 40000 8192 lazy connections=200";
    let run = Observed::fixture(line).go().well();
    truth::blameless(&run);
    truth::holds(&run, &["tls 40000 40000 intact"; 200]);
}
