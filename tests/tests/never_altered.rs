//! Never falsely altered (issue 2, item 3): each fixture's verdicts are what it declares, and no
//! rule accuses anybody where nothing was changed.

use counterfoil_tests::{Observed, check, for_each_case, peers, truth};

fn holds(line: &str, truths: &[&str]) {
    let run = Observed::fixture(line).go();
    check!(run, run.code() != 99, "the fixture is broken");
    truth::blameless(&run);
    truth::holds(&run, truths);
}

macro_rules! tests {
    ($($name:ident : $line:literal, [$($truth:literal),*];)*) => {
        $(#[test]
        fn $name() {
            holds($line, &[$($truth),*]);
        })*
    };
}

for_each_case!(tests);

/// Each sending call against each receiving one, in pieces that fall on no border.
#[test]
fn every_call_by_every_call() {
    for channel in ["tcp", "socketpair"] {
        for send in ["send", "more", "sendto", "sendmsg", "write", "writev", "dontwait"] {
            for receive in ["recv", "waitall", "read", "recvfrom", "peek", "dontwait", "readv", "recvmsg"] {
                let name = if channel == "tcp" { "tcp" } else { "unix" };
                let line = format!("stream {channel} {send} {receive} 70001 1237");
                holds(&line, &[&format!("{name} 70001 70001 intact")]);
            }
        }
    }
}

/// Connections side by side don't mix.
#[test]
fn side_by_side() {
    let script = "for i in 1 2 3 4 5 6; do \"$FIXTURES/tls\" 1.3 - write read 90000 777 answer=500 >/dev/null & done\n\
        for i in 1 2 3 4; do \"$FIXTURES/stream\" tcp send recv 90000 777 >/dev/null & done\nwait";
    let run = Observed::script(script).go().well();
    truth::blameless(&run);
    let mut truths = vec!["tls 90000 90000 intact"; 6];
    truths.extend(["tls 500 500 intact"; 6]);
    truths.extend(["tcp 90000 90000 intact"; 4]);
    truth::holds(&run, &truths);
}

/// A descriptor is closed under two threads that are in calls on it, and 180 connections come after it: what those calls move in
/// the end is none of theirs.
const CLOSED_UNDER_CALLS: &str = "
import os, socket, threading, time
listener = socket.create_server(('127.0.0.1', 0), backlog=200)
def pair():
    a = socket.create_connection(listener.getsockname())
    return a, listener.accept()[0]
def full(of, size):
    data = b''
    while len(data) < size: data += of.recv(65536)
    return data
# A thread waits for bytes, another for room, while their descriptors are closed under them.
a, b = pair()
c, d = pair()
c.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10000)
waits = [threading.Thread(target=os.read, args=(a.fileno(), 5000)),
         threading.Thread(target=os.write, args=(c.fileno(), bytes(9_000_000)))]
for wait in waits: wait.start()
time.sleep(0.5)
os.close(a.detach()); os.close(c.detach())
for _ in range(100):
    for end in pair(): end.close()
pairs = [pair() for _ in range(80)]
b.sendall(b'late' * 250)
full(d, 9_000_000)
for wait in waits: wait.join()
for n, (one, other) in enumerate(pairs):
    for x, y in ((one, other), (other, one)):
        data = bytes([n]) * 40_000 + os.urandom(10)
        x.sendall(data)
        assert full(y, len(data)) == data
";

#[test]
fn closed_under_calls() {
    let run = Observed::new([peers::PYTHON, "-c", CLOSED_UNDER_CALLS]).go().well();
    truth::blameless(&run);
    let transfers = run.report.on("tcp");
    let (whole, doubtful): (Vec<_>, Vec<_>) = transfers.iter().partition(|t| t.origin() == Some(40_010));
    assert_eq!(whole.len(), 160, "{}", run.shown());
    assert!(whole.iter().all(|t| t.verdict() == "intact"), "{}", run.shown());
    assert!(doubtful.len() == 2 && doubtful.iter().all(|t| t.verdict() == "unverified"), "{}", run.shown());
}
