//! Inside ssh and sshd (issue 3): what their ciphers saw is what they were given, and what they gave on.
//! Privilege separation and its sandbox are on, and nothing in the server's configuration helps us.

use counterfoil_tests::openssh::Sshd;
use counterfoil_tests::scratch::payload;
use counterfoil_tests::{Observed, Run, check, need, peers, truth};

/// One of each kind: who proves a packet, and when.
const CIPHERS: [&str; 4] = [
    "-c chacha20-poly1305@openssh.com",
    "-c aes128-gcm@openssh.com",
    "-c aes256-ctr -m hmac-sha2-256-etm@openssh.com",
    "-c aes256-ctr -m hmac-sha2-256",
];
const BLOCK: u64 = 16384;

/// Sends a file there and back.
const THERE_AND_BACK: &str = "cat in | ssh -F $F OPTIONS h cat | cat >out\ncmp in out";

fn there_and_back(sshd: &Sshd, options: &str, size: usize) -> Observed {
    let run = sshd
        .with(&THERE_AND_BACK.replace("OPTIONS", options))
        .env("COUNTERFOIL_LOG", "counterfoil_daemon::assemble::ssh=debug");
    run.scratch.write("in", payload(7, size));
    run
}

/// All three comparisons were made of one channel in both directions, of every byte.
fn compared(run: &Run) {
    compared_all(run, 1);
}

fn compared_all(run: &Run, channels: usize) {
    for place in ["BeforeSealing", "BetweenCiphers", "AfterOpening"] {
        let line = format!("ssh channel place={place} outcome=Same");
        let found = run.stderr.lines().filter(|l| l.contains(&line)).count();
        check!(run, found == 2 * channels, "want {place} in both directions of {channels}, not {found}");
    }
}

/// All that went over the connection was compared and is the same, and nobody is accused.
fn clean(run: &Run, least: u64) {
    truth::blameless(run);
    let tcp = run.report.on("tcp");
    let both = tcp.iter().filter(|t| t.verdict() == "intact" && t.origin() >= Some(least));
    check!(run, both.count() >= 1, "no connection of {least} bytes is intact");
}

#[test]
fn there_and_back_with_each_kind_of_cipher() {
    need!("sshd", "ssh", "ssh-keygen");
    let sshd = Sshd::default();
    for options in CIPHERS {
        for size in [1, 1000, 16_384, 100_000, 3_000_000] {
            let run = there_and_back(&sshd, options, size).go().well();
            clean(&run, size as u64);
            compared(&run);
        }
    }
}

/// A channel's comparisons, of which there must be just one, in `place`, at these bytes.
fn mismatch(run: &Run, place: &str, program: &str, range: (u64, u64)) {
    truth::sound(run);
    let found: Vec<_> = run.report.alarms().into_iter().filter(|a| a.rule() == "cipher-mismatch").collect();
    check!(run, found.len() == 1, "want one cipher-mismatch, not {}", found.len());
    let alarm = &found[0].0;
    check!(run, alarm["evidence"]["place"] == place, "place {}", alarm["evidence"]["place"]);
    check!(run, alarm["severity"] == "critical", "severity {}", alarm["severity"]);
    let exe = alarm["process"]["exe"].as_str().unwrap_or_default();
    check!(run, exe.ends_with(&format!("/{program}")), "said of {exe}");
    let ranges = alarm["altered"].as_array().cloned().unwrap_or_default();
    check!(run, ranges.len() == 1, "want one range");
    let said = (ranges[0]["offset"].as_u64(), ranges[0]["length"].as_u64());
    check!(run, said == (Some(range.0), Some(range.1)), "want {range:?}, not {said:?}");
    check!(run, alarm["transfer"].is_string(), "names no transfer");
    let tcp = run.report.on("tcp");
    check!(run, tcp.iter().any(|t| t.0["id"] == alarm["transfer"]), "names a transfer that is not there");
}

fn block_of(offset: u64, size: u64) -> (u64, u64) {
    let start = offset / BLOCK * BLOCK;
    (start, BLOCK.min(size - start))
}

const SIZES: [(usize, u64); 3] = [(50_000, 20_000), (50_000, 49_999), (300, 17)];

#[test]
fn changed_in_ssh_before_it_is_encrypted() {
    need!("sshd", "ssh", "ssh-keygen");
    let sshd = Sshd::default();
    for options in &CIPHERS[..3] {
        for (size, offset) in SIZES {
            let run = there_and_back(&sshd, options, size)
                .foreign("ssh_tamper.so")
                .env("SSH_TAMPER", format!("ssh:seal:{offset}"))
                .go();
            mismatch(&run, "before-encryption", "ssh", block_of(offset, size as u64));
        }
    }
}

#[test]
fn changed_in_sshd_after_it_is_decrypted() {
    need!("sshd", "ssh", "ssh-keygen");
    let sshd = Sshd::default();
    for options in &CIPHERS[..3] {
        for (size, offset) in SIZES {
            let run = there_and_back(&sshd, options, size)
                .foreign("ssh_tamper.so")
                .env("SSH_TAMPER", format!("sshd:open:{offset}"))
                .go();
            mismatch(&run, "after-decryption", "sshd", block_of(offset, size as u64));
        }
    }
}

#[test]
fn changed_below_the_cipher_witness() {
    need!("sshd", "ssh", "ssh-keygen");
    let sshd = Sshd::default();
    for orders in ["ssh:seal:20000", "sshd:open:20000"] {
        let run = there_and_back(&sshd, CIPHERS[0], 50_000)
            .underneath("ssh_tamper.so")
            .env("SSH_TAMPER", orders)
            .go();
        mismatch(&run, "between-ciphers", "ssh", block_of(20_000, 50_000));
    }
}

#[test]
fn scp_both_ways() {
    need!("sshd", "ssh", "scp", "ssh-keygen");
    let sshd = Sshd::default();
    for options in ["", "-C", "-O"] {
        for size in [0usize, 10, 3_000_000] {
            let run = sshd.with(&format!(
                "scp -q -F $F {options} in h:$PWD/up\ncmp in up\nscp -q -F $F {options} h:$PWD/up down\ncmp in down"
            ));
            run.scratch.write("in", payload(3, size));
            let run = run.go().well();
            clean(&run, 1);
        }
    }
}

#[test]
fn compression_is_not_accused() {
    need!("sshd", "ssh", "ssh-keygen");
    let sshd = Sshd::default();
    for options in CIPHERS {
        let run = there_and_back(&sshd, &format!("-C {options}"), 200_000).go().well();
        clean(&run, 1);
    }
}

#[test]
fn a_hundred_megabytes() {
    need!("sshd", "ssh", "ssh-keygen");
    let sshd = Sshd::default();
    let run = there_and_back(&sshd, "", 100_000_000).go().well();
    clean(&run, 100_000_000);
    compared(&run);
}

#[test]
fn several_channels_on_one_connection() {
    need!("sshd", "ssh", "ssh-keygen");
    let sshd = Sshd::new("", "ControlPath ./mux\nControlPersist no\n");
    let run = sshd.with(
        "ssh -F $F -M -N h & master=$!\nawait test -S mux\n\
         for i in 1 2 3 4; do cat in$i | ssh -F $F h cat | cat >out$i & all=\"${all-} $!\"; done\nwait $all\n\
         ssh -F $F -O exit h\nwait $master || true\nfor i in 1 2 3 4; do cmp in$i out$i; done",
    );
    let run = run.env("COUNTERFOIL_LOG", "counterfoil_daemon::assemble::ssh=debug");
    for i in 1..=4u8 {
        run.scratch.write(&format!("in{i}"), payload(u64::from(i), 400_000 * usize::from(i)));
    }
    let run = run.go().well();
    truth::blameless(&run);
    compared_all(&run, 4);
}

#[test]
fn keys_are_exchanged_again() {
    need!("sshd", "ssh", "ssh-keygen");
    let sshd = Sshd::default();
    for options in CIPHERS {
        let run = there_and_back(&sshd, &format!("{options} -o RekeyLimit=300K"), 2_000_000).go().well();
        clean(&run, 2_000_000);
        compared(&run);
    }
}

#[test]
fn what_a_terminal_and_a_lost_end_do_is_no_alteration() {
    need!("sshd", "ssh", "ssh-keygen");
    let sshd = Sshd::default();
    // A terminal turns line ends; its input is echoed.
    let run = sshd.with("printf 'echo a; echo b >&2; exit\\n' | ssh -F $F -tt h sh >out 2>&1");
    truth::blameless(&run.go().well());
    // Error output goes where output goes, in between.
    let run = sshd.with(
        "ssh -F $F h \"cat $PWD/in; echo one >&2; sleep 1; cat $PWD/in; echo two >&2; cat $PWD/in\" 2>&1 | cat >out\n\
         [ $(stat -c %s out) = 600008 ]",
    );
    run.scratch.write("in", payload(6, 200_000));
    truth::blameless(&run.go().well());
    // The command doesn't read all, or there is no command that reads.
    for command in ["head -c 1000", "true", "'cat >/dev/null; echo failed >&2; exit 3'"] {
        let run = sshd.with(&format!("cat in | ssh -F $F h {command} >out || true"));
        run.scratch.write("in", payload(9, 500_000));
        truth::blameless(&run.go().well());
    }
    // ssh is killed in the middle.
    let run = sshd.with(
        "(cat in; sleep 5) | ssh -F $F h \"cat >$PWD/got\" & \n\
         await sh -c '[ \"$(stat -c %s got)\" = 500000 ]'\nkill -9 $!\nwait $! || true",
    );
    run.scratch.write("in", payload(9, 500_000));
    truth::blameless(&run.go().well());
}

/// A bit is flipped on the way, in an established connection.
fn on_the_way(options: &str, way: &str, offset: u64) -> Run {
    // A MAC after encryption shows only in what OpenSSH says, and at LogLevel ERROR it says nothing.
    on_the_way_to(&Sshd::new("", "LogLevel INFO"), options, way, offset)
}

fn on_the_way_to(sshd: &Sshd, options: &str, way: &str, offset: u64) -> Run {
    let port = peers::free_port();
    let run = sshd.with(&format!(
        "{} {} {port} {} {way} {offset} & proxy=$!\nawait test -e proxy.ready\n\
         cat in | ssh -F $F -p {port} {options} h cat | cat >out || true\nwait $proxy",
        peers::PYTHON,
        peers::script("flip_proxy.py"),
        sshd.port,
    ));
    run.scratch.write("in", payload(5, 1_000_000));
    run.go()
}

#[test]
fn a_packet_changed_on_the_way_is_rejected() {
    need!("sshd", "ssh", "ssh-keygen");
    for options in CIPHERS {
        for (way, program) in [("up", "sshd"), ("down", "ssh")] {
            let run = on_the_way(options, way, 300_000);
            truth::sound(&run);
            let found: Vec<_> =
                run.report.alarms().into_iter().filter(|a| a.rule() == "record-rejected").collect();
            check!(run, found.len() == 1, "{options} {way}: want one record-rejected, not {}", found.len());
            let exe = found[0].0["process"]["exe"].as_str().unwrap_or_default();
            check!(run, exe.ends_with(&format!("/{program}")), "{options} {way}: said of {exe}");
            check!(run, found[0].0["severity"] == "high", "severity {}", found[0].0["severity"]);
            // That the proxy is seen to have changed what it passed on is true.
            let mismatch = run.report.fired("cipher-mismatch");
            check!(run, !mismatch, "{options} {way}: falsely alarmed: cipher-mismatch");
        }
    }
}

#[test]
fn a_rejected_packet_that_only_syslog_hears_of() {
    need!("sshd", "ssh", "ssh-keygen");
    // Neither end writes a word to a descriptor.
    let sshd = Sshd::quiet();
    for options in
        ["-c aes128-ctr -m hmac-sha2-256", "-c aes256-ctr -m hmac-sha2-512", "-c aes128-gcm@openssh.com"]
    {
        for (way, program) in [("up", "sshd"), ("down", "ssh")] {
            let run = on_the_way_to(&sshd, options, way, 300_000);
            truth::sound(&run);
            let alarms = run.report.alarms().into_iter();
            let found: Vec<_> = alarms.filter(|a| a.rule() == "record-rejected").collect();
            check!(run, found.len() == 1, "{options} {way}: {} record-rejected", found.len());
            let exe = found[0].0["process"]["exe"].as_str().unwrap_or_default();
            check!(run, exe.ends_with(&format!("/{program}")), "{options} {way}: said of {exe}");
        }
        // And nothing where nothing was changed.
        let run = there_and_back(&sshd, options, 200_000).go().well();
        clean(&run, 200_000);
        compared(&run);
    }
}

#[test]
fn a_command_that_prints_the_words_rejects_nothing() {
    need!("sshd", "ssh", "ssh-keygen");
    let sshd = Sshd::default();
    for options in CIPHERS {
        let run = sshd.with(&format!(
            "ssh -F $F {options} h 'printf \"ssh_dispatch_run_fatal: message authentication code incorrect\\r\\n\" >&2' \
             2>said || true\ngrep -q 'code incorrect' said"
        ));
        truth::blameless(&run.go().well());
    }
}

#[test]
fn a_session_that_gave_up_root() {
    need!("sshd", "ssh", "sftp", "ssh-keygen");
    if !peers::root() {
        counterfoil_tests::skip!("needs root, to be another user");
    }
    // The monitor stays root, the session is a fork of it as that user, and sftp a fork of that.
    let sshd = Sshd::new("ForceCommand internal-sftp", "");
    let run = sshd
        .with(
            "chmod 777 .\nprintf \"put in $PWD/up\\nget $PWD/up down\\n\" >batch\n\
             sftp -q -F $F -b batch nobody@h\ncmp in down",
        )
        .env("COUNTERFOIL_LOG", "counterfoil_daemon::assemble::ssh=debug");
    run.scratch.write("in", payload(11, 1_000_000));
    let run = run.go().well();
    clean(&run, 1_000_000);
    compared(&run);
}
