//! Plaintext stays inside (issue 2, item 4): a marker that is sent 10,000 times, from a file and from
//! stdin, is found in nothing that leaves the observed process.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::{Scratch, need, observed, peers, skip, wait};
use std::fs;
use std::io::Read;
use std::net::UdpSocket;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const MARKER: &str = "Quittance-7f3a-of-the-heron";
const TIMES: usize = 10_000;

/// How often the marker stands in `bytes`, as itself or in hex.
fn found(bytes: &[u8]) -> usize {
    let hex: String = MARKER.bytes().map(|b| format!("{b:02x}")).collect();
    [MARKER.as_bytes(), hex.as_bytes(), &hex.to_uppercase().into_bytes()]
        .iter()
        .map(|needle| memchr::memmem::find_iter(bytes, needle).count())
        .sum()
}

/// A process's whole memory, arenas that it maps included: more than its core file would hold.
fn found_in_memory(pid: u32) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
    let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("mem");
    let mut total = 0;
    for line in maps.lines().filter(|l| l.contains(" r") && !l.contains("[v")) {
        let range = line.split(' ').next().expect("range");
        let (from, to) = range.split_once('-').expect("range");
        let number = |text| u64::from_str_radix(text, 16).expect("address");
        let (from, to) = (number(from), number(to));
        let mut bytes = vec![0; (to - from) as usize];
        let n = memory.read_at(&mut bytes, from).unwrap_or(0);
        total += found(&bytes[..n]);
    }
    total
}

/// Files below a folder that hold the marker.
fn found_below(folder: &Path) -> Vec<String> {
    let mut holding = vec![];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            holding.extend(found_below(&path));
        } else if found(&fs::read(&path).unwrap_or_default()) > 0 {
            holding.push(path.display().to_string());
        }
    }
    holding
}

#[test]
fn marker_stays_inside() {
    need!("nginx", "curl", "openssl");
    if !peers::root() {
        skip!("not root: the daemon's memory can't be read");
    }
    let syslog = UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    syslog.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
    let address = syslog.local_addr().expect("address");
    let sink = format!("[[sink]]\nkind = \"syslog\"\naddress = \"udp:{address}\"\n");
    let mut daemon = Daemon::start(&sink);

    // The session: an upload from a file, one from stdin, both changed on the way so that alarms,
    // with all their evidence, are written too; then it stays there, to be looked into.
    let port = peers::free_port();
    let plain = peers::free_port();
    let script = format!(
        "await() {{ until \"$@\" >/dev/null 2>&1; do sleep 0.01; done; }}\n\
         nginx -c \"$PWD/nginx.conf\" & server=$!\nmkfifo hold\n\
         openssl s_server -accept 127.0.0.1:{plain} -cert cert.pem -key key.pem -quiet -naccept 1 <hold >got2 &\nexec 9>hold\n\
         {}\n{}\n\
         TAMPER=tls-out:flip:100000 LD_PRELOAD=\"$LD_PRELOAD:$FIXTURES/tamper.so\" \\\n\
         curl -sS --http1.1 --cacert cert.pem -T data https://localhost:{port}/up/got1 2>/dev/null\n\
         cat data | openssl s_client -connect 127.0.0.1:{plain} -quiet -no_ign_eof -nocommands >/dev/null 2>&1\n\
         cat data | \"$FIXTURES/sink\"\n\
         touch sent; until test -e go; do sleep 0.02; done\n\
         kill -QUIT $server; wait $server",
        observed::listening(port),
        observed::listening(plain),
    );
    let session = daemon.observing(&["sh", "-euc", &script]);
    peers::nginx(&session.scratch, port, "");
    session.scratch.write("data", format!("{MARKER}\n").repeat(TIMES));
    let running = session.start();
    let sent = running.scratch.at("sent");
    wait::until(Duration::from_secs(40), "everything was sent", || sent.exists().then_some(()));

    // That the search can find what is there: in the programs' own files.
    assert_eq!(found(&fs::read(running.scratch.at("got2")).expect("got2")), TIMES, "it did not arrive");
    daemon.until_reported("transfers", |r| r.on("tls").iter().any(|t| t.origin() > Some(270_000)));
    let control = Scratch::new();
    control.write("held", MARKER);
    assert_eq!(found_below(control.path()).len(), 1, "the search is blind");
    let held = format!("{MARKER}!");
    assert!(found_in_memory(std::process::id()) > 0, "the search is blind in memory: {held}");

    assert_eq!(found_in_memory(daemon.pid()), 0, "in the daemon's memory or an arena");
    core_file(&daemon);

    running.scratch.write("go", "");
    let run = running.finish();
    assert!(run.status.success(), "{}", run.shown());
    daemon.until_reported("payload-altered", |r| r.fired("payload-altered"));
    let mut lines = vec![];
    let mut datagram = vec![0; 65_536];
    while let Ok(n) = syslog.recv(&mut datagram) {
        lines.push(String::from_utf8_lossy(&datagram[..n]).into_owned());
    }
    assert!(lines.iter().any(|l| l.contains("payload-altered")), "no syslog line of the alarm: {lines:#?}");
    assert_eq!(found(lines.join("\n").as_bytes()), 0, "in syslog");
    assert_eq!(found_in_memory(daemon.pid()), 0, "in the daemon's memory, at the end");
    daemon.stop();
    assert_eq!(found_below(daemon.state()), Vec::<String>::new(), "in the ledger");
    assert_eq!(found_below(daemon.scratch.path()), Vec::<String>::new(), "in log or report");
}

/// A core file as gdb writes it.
fn core_file(daemon: &Daemon) {
    if peers::find("gcore").is_none() {
        println!("skipped: gdb is not installed, no core file was searched");
        return;
    }
    let prefix = daemon.scratch.at("core");
    let pid = daemon.pid().to_string();
    let done = Command::new("gcore")
        .arg("-o")
        .arg(&prefix)
        .arg(&pid)
        .env_remove("LD_PRELOAD")
        .output()
        .expect("gcore");
    let core = daemon.scratch.at(&format!("core.{pid}"));
    if !done.status.success() || !core.exists() {
        println!("skipped: gcore: {}", String::from_utf8_lossy(&done.stderr));
        return;
    }
    let mut bytes = vec![];
    fs::File::open(&core).expect("core").read_to_end(&mut bytes).expect("core");
    assert!(bytes.len() > 100_000, "that is no core file");
    assert_eq!(found(&bytes), 0, "in the daemon's core file");
    fs::remove_file(core).expect("core");
}

/// Passwords on the command line are somebody's plaintext, too.
#[test]
fn secrets_in_arguments_are_redacted() {
    let run = counterfoil_tests::Observed::new([
        "sh",
        "-c",
        "\"$FIXTURES/source\" 20000 3000 --password=hunter2-heron -u joe:hunter2-heron --token hunter2-heron | cat | \"$FIXTURES/sink\"",
    ])
    .go()
    .well();
    counterfoil_tests::check!(run, !run.report.transfers().is_empty(), "nothing was witnessed");
    let report = fs::read_to_string(run.scratch.at("events.jsonl")).expect("report");
    counterfoil_tests::check!(run, !report.contains("hunter2-heron"), "the secret stands in the report");
    counterfoil_tests::check!(run, !run.stderr.contains("hunter2-heron"), "the secret stands on stderr");
}
