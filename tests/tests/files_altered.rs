//! Files that were changed on the way: the alarm names the range and the place (issue 3, item 2).

use counterfoil_tests::scratch::payload;
use counterfoil_tests::sshd::Sshd;
use counterfoil_tests::{Observed, Run, Scratch, Transfer, check, need_sshd, truth};

/// Bytes of the file.
const SIZE: usize = 1_000_000;

/// `commands` beside an sshd whose sftp-server is started by the script `sftp`, in which `real` stands for it.
fn session(sftp: &str, commands: &str) -> Observed {
    let scratch = Scratch::new();
    let script = Sshd::new(&scratch).behind(&scratch, sftp).around(commands);
    let mut session = Observed::script(&script).limit(120);
    session.scratch = scratch;
    session.scratch.write("src/f", payload(5, SIZE));
    std::fs::create_dir_all(session.scratch.at("dst")).expect("dst");
    session
}

/// The one file transfer, altered; its only range holds what differs on the disk, and no block more.
fn altered(run: &Run, from: u64, to: u64) -> Transfer {
    truth::sound(run);
    let all = run.report.on("file");
    let found: Vec<_> = all.into_iter().filter(|t| t.verdict() == "altered").collect();
    check!(run, found.len() == 1, "{} altered files", found.len());
    let t = found[0].clone();
    let (start, end) = (from / 16_384 * 16_384, to.div_ceil(16_384) * 16_384);
    let within = |&(offset, length): &(u64, u64)| offset >= start && offset + length <= end;
    check!(run, t.altered().iter().all(within), "ranges {:?}, not in {start}..{end}", t.altered());
    check!(run, t.0["origin"]["sha256"].is_string(), "no digest");
    t
}

fn place(run: &Run, rule: &str) -> String {
    let alarms = run.report.alarms();
    let file = |a: &&counterfoil_tests::Alarm| a.0["evidence"]["channel"] == "file" && a.rule() == rule;
    let found = alarms.iter().find(file);
    check!(run, found.is_some(), "no {rule} about a file");
    found.and_then(|a| a.0["evidence"]["place"].as_str()).unwrap_or("").to_owned()
}

/// The first byte in which two files differ.
fn first_difference(run: &Run, a: &str, b: &str) -> u64 {
    let [a, b] = [a, b].map(|name| std::fs::read(run.scratch.at(name)).expect("file"));
    a.iter().zip(&b).position(|(x, y)| x != y).expect("they are the same") as u64
}

#[test]
fn between_scp_and_ssh() {
    need_sshd!();
    // ssh is started without what tampers with scp's writes.
    let run = session(
        "exec real",
        "printf '#!/bin/sh\nexport LD_PRELOAD=\"${LD_PRELOAD%%:*}\"; unset TAMPER\nexec ssh -F %s/ssh_config \"$@\"\n' $here >clean\n\
         chmod +x clean\n\
         TAMPER=sock-out:flip:500000 LD_PRELOAD=\"$LD_PRELOAD:$FIXTURES/tamper.so\" command scp -q -S $here/clean \
         -F ssh_config src/f far:$here/dst/f",
    );
    let run = run.go().well();
    let at = first_difference(&run, "src/f", "dst/f");
    let t = altered(&run, at, at + 1);
    check!(run, (t.program("origin"), t.program("destination")) == ("scp", "sftp-server"), "{}", t.shown());
    let place = place(&run, "payload-altered");
    check!(run, place == "between scp and ssh (unix socket pair)", "place {place:?}");
}

#[test]
fn in_sftp_server_before_it_writes() {
    need_sshd!();
    // What it is given is what was sent, and what it writes is not: changed in its own memory.
    let marker: String = payload(5, SIZE)[500_000..500_016].iter().map(|b| format!("{b:02x}")).collect();
    let run = session(
        &format!("INSIDE={marker} LD_PRELOAD=\"$LD_PRELOAD:$FIXTURES/inside.so\" exec real"),
        "scp src/f far:$here/dst/f",
    );
    let run = run.go().well();
    let at = first_difference(&run, "src/f", "dst/f");
    altered(&run, at, at + 1);
    let place = place(&run, "payload-altered");
    check!(run, place.contains("sftp-server") && !place.contains("between"), "place {place:?}");
}

#[test]
fn the_source_while_it_is_read() {
    need_sshd!();
    let run = session(
        "exec real",
        "scp -l 8000 src/f far:$here/dst/f & copy=$!\n\
         await sh -c 'test $(stat -c %s dst/f) -gt 300000'\n\
         printf changed | dd of=src/f bs=1 seek=20000 conv=notrunc 2>/dev/null\nwait $copy",
    );
    let run = run.go().well();
    altered(&run, 20_000, 20_007);
    let place = place(&run, "payload-altered");
    check!(run, place == "source changed while it was read", "place {place:?}");
}

#[test]
fn in_a_pipe_between_two_cats() {
    let run = Observed::script(
        "mkdir -p dst; TAMPER=pipe-out:flip:500000 LD_PRELOAD=\"$LD_PRELOAD:$FIXTURES/tamper.so\" cat src/f | cat | dd of=dst/f 2>/dev/null",
    );
    run.scratch.write("src/f", payload(5, SIZE));
    let run = run.go().well();
    let at = first_difference(&run, "src/f", "dst/f");
    check!(run, at == 500_000, "{at}");
    altered(&run, at, at + 1);
    let place = place(&run, "payload-altered");
    check!(run, place == "between cat and cat (pipe)", "place {place:?}");
}

#[test]
fn a_second_writer_at_the_destination() {
    need_sshd!();
    let run = session(
        "exec real",
        "scp -l 8000 src/f far:$here/dst/f & copy=$!\n\
         await sh -c 'test $(stat -c %s dst/f) -gt 300000'\n\
         n=0; while kill -0 $copy 2>/dev/null; do printf $n | dd of=dst/f bs=1 seek=20000 conv=notrunc 2>/dev/null; \
         n=$((n+1)); sleep 0.05; done; wait $copy",
    );
    let run = run.go().well();
    truth::sound(&run);
    let t = run.report.on("file").into_iter().find(|t| t.program("destination") == "sftp-server");
    let t = t.expect("a file transfer");
    // Either it was seen when the file was closed, or it was written to after that: then what was
    // delivered was as it should be.
    check!(run, t.verdict() != "altered" && t.verdict() != "truncated", "{}", t.shown());
}

#[test]
fn another_file_in_its_place() {
    let run = Observed::script(
        "mkdir -p dst; TAMPER=pipe-out:flip:0:1000000 LD_PRELOAD=\"$LD_PRELOAD:$FIXTURES/tamper.so\" cat src/f | cat | dd of=dst/f 2>/dev/null",
    );
    run.scratch.write("src/f", payload(5, SIZE));
    let run = run.go().well();
    altered(&run, 0, SIZE as u64);
    let place = place(&run, "payload-replaced");
    check!(run, place == "between cat and cat (pipe)", "place {place:?}");
}

/// ssh's cipher gets something else than ssh was given, or sshd's gives something else on.
fn inside_ssh(orders: &str, wanted: &str) {
    let mut run = session("exec real", "scp src/f far:$here/dst/f");
    run = run.foreign("ssh_tamper.so").env("SSH_TAMPER", orders);
    let run = run.go().well();
    let at = first_difference(&run, "src/f", "dst/f");
    altered(&run, at, at + 1);
    let place = place(&run, "payload-altered");
    check!(run, place == wanted, "place {place:?}");
}

#[test]
fn in_ssh_before_encryption() {
    need_sshd!();
    inside_ssh("ssh:seal:500000", "inside ssh, before encryption");
}

#[test]
fn in_sshd_after_decryption() {
    need_sshd!();
    inside_ssh("sshd:open:500000", "inside sshd, after decryption");
}

#[test]
fn another_kind_of_file_in_its_place() {
    // As long, and nothing the same; but of another kind: altered, and not replaced by its like.
    let run = Observed::script(
        "mkdir -p dst; TAMPER=pipe-out:flip:0:1000000 LD_PRELOAD=\"$LD_PRELOAD:$FIXTURES/tamper.so\" cat src/f | cat | dd of=dst/f 2>/dev/null",
    );
    // What has its lowest bits turned is no gzip any more.
    let mut content = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    content.extend(payload(5, SIZE - 10));
    run.scratch.write("src/f", content);
    let run = run.go().well();
    altered(&run, 0, SIZE as u64);
    place(&run, "payload-altered");
    check!(run, !run.report.fired("payload-replaced"), "it is of another kind");
}
