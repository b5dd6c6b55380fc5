//! Servers that stay up for months and fork for each connection: each connection's transfers are told when it is over,
//! not when the server is, and an old connection with the same addresses never disturbs a new one.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::plant::{Database, postgres_programs};
use counterfoil_tests::{Observed, Run, Transfer, check, need, peers, service_sshd, skip, wait};
use std::time::Duration;

/// More than there are ports for them: each port is used again.
const SESSIONS: usize = 20;
/// A network namespace that has just these ports for who connects.
const FEW_PORTS: &str =
    "ip link set lo up; echo 40000 40005 >/proc/sys/net/ipv4/ip_local_port_range; exec \"$@\"";
const QUERIES: usize = 12;

/// Transfers of connections to `port`.
fn of_port(all: Vec<Transfer>, port: u16) -> Vec<Transfer> {
    let place = format!(":{port}");
    let at =
        |t: &Transfer, end: &str, name: &str| t.0[end][name].as_str().is_some_and(|a| a.ends_with(&place));
    let is = |t: &Transfer| {
        ["origin", "destination"].iter().any(|end| at(t, end, "local") || at(t, end, "remote"))
    };
    all.into_iter().filter(is).collect()
}

/// While the server is there, both directions of so many connections to it are told, and nothing is wrong with any.
fn told(daemon: &Daemon, port: u16, connections: usize) {
    let report = daemon.until_reported("transfers while the server runs", |report| {
        of_port(report.on("tcp"), port).len() >= 2 * connections
    });
    let all = of_port(report.on("tcp"), port);
    let wrong: Vec<String> = all.iter().filter(|t| t.verdict() != "intact").map(Transfer::shown).collect();
    assert!(wrong.is_empty(), "{} of {} transfers: {wrong:#?}", wrong.len(), all.len());
    assert!(all.len().is_multiple_of(2), "each connection is told of once in each direction: {}", all.len());
    assert!(!report.fired("disputed-claim") && !report.fired("payload-altered"));
}

#[test]
fn sshds_sessions() {
    need!("sshd", "ssh", "ssh-keygen", "unshare", "nsenter", "ip");
    if !peers::root() {
        skip!("sshd with privilege separation needs root");
    }
    let possible =
        std::process::Command::new("unshare").args(["-n", "sh", "-euc", FEW_PORTS, "sh", "true"]).status();
    if !possible.is_ok_and(|status| status.success()) {
        skip!("no network namespaces here");
    }
    let daemon = Daemon::start("");
    let (mut server, port) =
        service_sshd::start_by(&daemon, &["unshare", "-n", "sh", "-euc", FEW_PORTS, "sh"]);
    let login = service_sshd::client(&server.scratch.path().display().to_string(), port);
    let namespace = server.child.id().to_string();
    let sessions = format!("for i in $(seq {SESSIONS}); do \"$@\" true; done");
    let mut words = vec!["nsenter", "-t", &namespace, "-n", "sh", "-euc", &sessions, "sh"];
    words.extend(login.iter().map(String::as_str));
    daemon.observing(&words).limit(120).go().well();
    told(&daemon, port, SESSIONS);
    assert!(server.child.try_wait().expect("wait").is_none(), "sshd runs on");
}

#[test]
fn postgres_sessions() {
    need!("psql", "setpriv");
    if !peers::root() || postgres_programs().is_none() {
        skip!("PostgreSQL as another user needs root, and the server");
    }
    let daemon = Daemon::start("");
    let database = Database::configured(false);
    let id = database.uid.unwrap_or(65534).to_string();
    let mut words = vec!["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"];
    words.extend(database.words.iter().map(String::as_str));
    let mut server = daemon.observing(&words).own_session().start();
    // Who asks whether it is ready is observed, too: every client is.
    let script = format!(
        "ask() {{ psql -X -q -c 'SELECT 1' \"$1\"; }}\nuntil ask \"$1\" 2>/dev/null; do sleep 0.1; done\n\
         for i in $(seq {QUERIES}); do ask \"$1\"; done"
    );
    daemon.observing(&["sh", "-euc", &script, "sh", &database.url()]).go().well();
    told(&daemon, database.port, QUERIES + 1);
    assert!(server.child.try_wait().expect("wait").is_none(), "PostgreSQL runs on");
}

/// A server that reads the first bytes itself and leaves the rest to a program of its own: `who` is its environment.
fn handed_to(who: &str) -> Run {
    let server = "import os, socket, sys\n\
        listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n\
        connection, _ = listener.accept()\n\
        if os.fork() == 0:\n    \
            os.read(connection.fileno(), 10)\n    \
            os.dup2(connection.fileno(), 0)\n    \
            os.dup2(connection.fileno(), 1)\n    \
            os.execvpe('cat', ['cat'], dict(os.environ, **dict([sys.argv[2].split('=')])))\n\
        connection.close()\n\
        os.wait()\n";
    let client = "import socket, sys\n\
        server = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n\
        server.sendall(bytes(range(250)) * 200)\n\
        server.shutdown(socket.SHUT_WR)\n\
        got = server.makefile('rb').read()\n\
        assert len(got) == 49990, len(got)\n";
    let port = peers::free_port();
    let script = format!(
        "{0} server.py {port} {who} & server=$!\nlistening {port}\n{0} client.py {port}\nwait $server",
        peers::PYTHON
    );
    let run = Observed::script(&script);
    run.scratch.write("server.py", server);
    run.scratch.write("client.py", client);
    run.go().well()
}

#[test]
fn what_a_forks_program_moves_is_known_only_if_it_is_observed() {
    let run = handed_to("SEEN=1");
    for transfer in run.report.on("tcp") {
        // The block in which it was handed over is nobody's; the rest is compared.
        check!(
            run,
            transfer.verdict() != "altered" && transfer.verdict() != "truncated",
            "{}",
            transfer.shown()
        );
        check!(run, transfer.origin() == transfer.destination(), "{}", transfer.shown());
    }
    let run = handed_to("COUNTERFOIL_OFF=1");
    let all = run.report.on("tcp");
    check!(run, all.len() == 2, "{} transfers", all.len());
    for transfer in all {
        check!(run, transfer.verdict() == "unverified", "{}", transfer.shown());
        check!(run, transfer.reasons().contains(&"handed-over".to_owned()), "{}", transfer.shown());
    }
}

/// It says no last word, and its relatives share what it had.
#[test]
fn a_fork_that_is_killed() {
    let server = "import os, socket, sys\n\
        listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n\
        while True:\n    \
            connection, _ = listener.accept()\n    \
            if os.fork() == 0:\n        \
                connection.sendall(connection.recv(10))\n        \
                os.kill(os.getpid(), 9)\n    \
            connection.close()\n    \
            os.wait()\n";
    let client = "import socket, sys\n\
        server = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n\
        server.sendall(b'0123456789')\n\
        assert server.makefile('rb').read() == b'0123456789'\n";
    let (daemon, port) = (Daemon::start(""), peers::free_port());
    let (server, client) =
        (daemon.scratch.write("server.py", server), daemon.scratch.write("client.py", client));
    let words = [&server, &client].map(|script| script.display().to_string());
    let number = port.to_string();
    let mut serving = daemon.observing(&[peers::PYTHON, &words[0], &number]).start();
    wait::until(Duration::from_secs(15), "it listens", || {
        let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
        table.contains(&format!(":{port:04X} 00000000:0000 0A")).then_some(())
    });
    daemon.observing(&[peers::PYTHON, &words[1], &number]).go().well();
    let told = wait::poll(Duration::from_secs(40), || {
        Some(of_port(daemon.report().on("tcp"), port)).filter(|all| all.len() == 2)
    });
    let all = told.unwrap_or_else(|| panic!("{}", daemon.shown("both directions while the server lives")));
    for transfer in all {
        let killed =
            transfer.verdict() == "unverified" && transfer.reasons().contains(&"process-killed".to_owned());
        assert!(killed || transfer.verdict() == "intact", "{}", transfer.shown());
    }
    assert!(serving.child.try_wait().expect("wait").is_none(), "the server runs on");
}
