//! Never falsely altered (issue 2, item 3): each fixture's verdicts are what it declares, and no
//! rule accuses anybody where nothing was changed.

use counterfoil_tests::scratch::payload;
use counterfoil_tests::{Observed, Transfer, check, for_each_case, peers, truth};

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

/// What other threads make and close while one forks is as much the child's as it is: neither over early, nor never.
#[test]
fn made_and_closed_beside_forks() {
    let run = Observed::fixture("forks").go().well();
    truth::blameless(&run);
    let transfers = run.report.on("tcp");
    assert!(transfers.len() > 50, "{}", run.shown());
    let whole = |t: &Transfer| t.verdict() == "intact" && t.origin() == Some(300);
    assert!(transfers.iter().all(whole), "{}", run.shown());
}

/// To a path where the last listener left a connection that it never accepted, by one program: which one of both the next
/// accepts, the path doesn't say.
const GHOSTS: &str = "
import os, socket, threading
path = 'ghost'
def listen():
    if os.path.exists(path): os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path); listener.listen()
    return listener
def sends(text):
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(path); end.sendall(text)
for n in range(40):
    listener = listen()
    sends(b'%05d' % n * 20)
    listener.close()
    listener = listen()
    sender = threading.Thread(target=sends, args=[b'%04d.' % n * (10 + n % 2 * 10)])
    sender.start()
    end, _ = listener.accept()
    while end.recv(100): pass
    end.close(); sender.join(); listener.close()
";

#[test]
fn what_nobody_accepted() {
    truth::blameless(&Observed::new([peers::PYTHON, "-c", GHOSTS]).go().well());
}

/// More than the library has room for at first: of a parent, of its child, and of each what the other one hasn't.
const MANY: &str = "
import os
def use(number):
    pipes = [os.pipe() for _ in range(number)]
    for n, (into, out) in enumerate(pipes): os.write(out, n.to_bytes(2, 'big') * 100)
    for n, (into, out) in enumerate(pipes):
        assert os.read(into, 1000) == n.to_bytes(2, 'big') * 100
        os.write(out, b'again')
    return pipes
def done(pipes):
    for into, out in pipes:
        os.close(out); assert os.read(into, 1000) == b'again'; os.close(into)
mine = use(150)
child = os.fork()
theirs = use(200 if child else 300)
done(theirs)
if child:
    done(mine)
    assert os.waitpid(child, 0)[1] == 0
os._exit(0)
";

#[test]
fn many_at_once_in_a_family() {
    let run = Observed::new([peers::PYTHON, "-c", MANY]).go().well();
    truth::blameless(&run);
    let pipes = run.report.on("pipe");
    assert_eq!(pipes.len(), 650, "{}", run.shown());
    let whole = pipes.iter().filter(|t| t.verdict() == "intact" && t.origin() == Some(205)).count();
    assert_eq!(whole, 650, "{}", run.shown());
}

#[test]
fn a_fork_that_fails() {
    let run = Observed::fixture("forks fail").go();
    check!(run, run.code() == 0, "the fixture is broken");
    let transfers = run.report.on("tcp");
    check!(run, transfers.len() == 1 && transfers[0].verdict() == "intact", "{transfers:?}");
}

/// At each end of a shell's pipe one program whose stdio no hook sees, and one that is seen; as many bytes of each kind.
fn partly_through_stdio(script: &str) {
    let run = Observed::script(script);
    run.scratch.write("f", payload(6, 100_000));
    let run = run.go().well();
    truth::blameless(&run);
    let pipes = run.report.on("pipe");
    assert!(!pipes.is_empty() && pipes.iter().all(|t| t.verdict() == "unverified"), "{}", run.shown());
}

#[test]
fn lines_through_a_shells_pipe() {
    partly_through_stdio("(/bin/echo line1; echo line2) | (read x; sed -n p)");
}

#[test]
fn a_file_and_a_line_through_a_shells_pipe() {
    partly_through_stdio(
        "(cat f; /bin/echo line) | (dd of=g bs=1000 count=100 iflag=fullblock 2>/dev/null; sed -n p)",
    );
    partly_through_stdio(
        "(/bin/echo line; cat f) | (sed -un 1p; dd of=g bs=1000 count=100 iflag=fullblock 2>/dev/null)",
    );
}

/// More than a call takes, and a socket that becomes another connection.
const ODD_CALLS: &str = "
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
class Piece(ctypes.Structure): _fields_ = [('at', ctypes.c_void_p), ('length', ctypes.c_size_t)]
class Message(ctypes.Structure):
    _fields_ = [('name', ctypes.c_void_p), ('name_length', ctypes.c_uint), ('pieces', ctypes.c_void_p), ('count', ctypes.c_size_t),
                ('control', ctypes.c_void_p), ('control_length', ctypes.c_size_t), ('flags', ctypes.c_size_t), ('sent', ctypes.c_size_t)]
listener = socket.create_server(('127.0.0.1', 0), backlog=9)
def pair():
    a = socket.create_connection(listener.getsockname())
    return a, listener.accept()[0]
def full(of, size):
    data = b''
    while len(data) < size: data += of.recv(65536)
    return data
# 1100 messages, of which the kernel takes 1024.
a, b = pair()
data = ctypes.create_string_buffer(os.urandom(100))
piece = Piece(ctypes.addressof(data), 100)
messages = (Message * 1100)(*[Message(None, 0, ctypes.addressof(piece), 1, None, 0, 0, 0) for _ in range(1100)])
assert libc.sendmmsg(a.fileno(), messages, 1100, 0) == 1024
assert full(b, 102_400) == data.raw[:100] * 1024
a.sendall(b'x' * 50_000); full(b, 50_000)
a.close(); b.close()
# A length that no buffer has: refused, or as much as can be read.
a, b = pair()
a.sendall(b'y' * 1000); full(b, 1000)
libc.send.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.send.restype = ctypes.c_ssize_t
sent = libc.send(a.fileno(), ctypes.addressof(data), 2**64 - 1, socket.MSG_DONTWAIT)
if sent > 0: full(b, sent)
a.sendall(b'z' * 50_000); full(b, 50_000)
a.close(); b.close()
# The same socket, three connections.
a = socket.socket()
for n in range(3):
    a.connect(listener.getsockname())
    b = listener.accept()[0]
    a.sendall(bytes([n]) * 40_000); full(b, 40_000)
    b.sendall(bytes([n]) * 30_000); full(a, 30_000)
    b.close()
    assert libc.connect(a.fileno(), bytes(16), 16) == 0
a.close()
";

#[test]
fn odd_calls() {
    let run = Observed::new([peers::PYTHON, "-c", ODD_CALLS]).go().well();
    truth::blameless(&run);
    let transfers = run.report.on("tcp");
    assert!(transfers.iter().all(|t| matches!(t.verdict(), "intact" | "unverified")), "{}", run.shown());
    let whole = transfers.iter().find(|t| t.origin() == Some(152_400)).expect("the messages");
    assert_eq!(whole.verdict(), "intact", "{}", run.shown());
}
