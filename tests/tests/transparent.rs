//! Transparent (issue 2, item 5): with and without the library a program writes the same, ends the
//! same, and sees the same of itself.

use counterfoil_tests::hostile::{Liar, Lie};
use counterfoil_tests::{Observed, Run, Scratch, check, for_each_case, peers, product, truth};

fn same(line: &str) {
    let observed = Observed::fixture(line).stderr_apart().env("TMPDIR", "/tmp").go();
    agree(line, &observed);
}

/// The same where a daemon granted an arena and then never reads: all lanes fill up.
fn same_while_nobody_reads(line: &str) {
    let scratch = Scratch::new();
    let socket = scratch.at("socket");
    let daemon = Liar::start(&socket, Lie::Deaf);
    let observed = Observed::fixture(line).stderr_apart().plain().env("TMPDIR", "/tmp");
    let observed = observed.env("LD_PRELOAD", product::library()).env("COUNTERFOIL_SOCKET", &socket).go();
    check!(observed, daemon.asked() > 0, "the library was not loaded");
    agree(line, &observed);
}

fn agree(line: &str, observed: &Run) {
    let plain = Observed::fixture(line).stderr_apart().plain().env("TMPDIR", "/tmp").go();
    let own = |run: &Run| std::fs::read_to_string(run.scratch.at("own")).expect("its stderr");
    check!(plain, plain.code() != 99, "the fixture is broken");
    check!(observed, observed.stdout == plain.stdout, "stdout differs; plain was:\n{}", plain.stdout);
    check!(
        observed,
        own(observed) == own(&plain),
        "stderr differs: {:?}, plain {:?}",
        own(observed),
        own(&plain)
    );
    check!(observed, observed.code() == plain.code(), "exit status differs: plain {}", plain.code());
}

macro_rules! tests {
    ($($name:ident : $line:literal, [$($truth:literal),*];)*) => {
        $(#[test]
        fn $name() {
            same($line);
        })*

        mod while_nobody_reads {
            $(#[test]
            fn $name() {
                super::same_while_nobody_reads($line);
            })*
        }
    };
}

for_each_case!(tests);

/// Every call on files: the same results, the same errors, the same positions.
#[test]
fn files() {
    same("files -");
    same("files_chk - read pread preadv head_by_pread");
}

#[test]
fn files_while_nobody_reads() {
    same_while_nobody_reads("files -");
}

/// What the kernel refuses to read or write it refuses in the observed program, too, and what it moves of it is no alteration.
#[test]
fn bad_pointers() {
    same("faults");
    same_while_nobody_reads("faults");
    let run = Observed::fixture("faults").go().well();
    truth::blameless(&run);
    for (channel, verdict) in [("tcp", "unverified"), ("unix", "unverified"), ("pipe", "intact")] {
        let transfers = run.report.on(channel);
        let sent = transfers.iter().find(|t| t.origin() > Some(0)).expect(channel);
        assert_eq!(sent.verdict(), verdict, "{}", run.shown());
        assert!(sent.verdict() == "intact" || sent.reasons() == ["bypassed-bytes"], "{}", run.shown());
    }
}

/// A program that allows itself little memory (vsftpd does) has as much of it as it needs.
#[test]
fn room_for_addresses() {
    let run = Observed::new([
        peers::PYTHON,
        "-c",
        "import mmap, resource
resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))
mmap.mmap(-1, 64 << 20)[0] = 1
print('done')",
    ]);
    let run = run.go().well();
    check!(run, run.stdout == "done\n", "it had no room");
}

/// A relative that may map no more leaves the others no larger than they need to be.
#[test]
fn a_cramped_child_makes_nobody_large() {
    let run = Observed::new([
        peers::PYTHON,
        "-c",
        "import os, resource
def size():
    with open('/proc/self/status') as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith('VmSize'))
before = size()
if os.fork() == 0:
    resource.setrlimit(resource.RLIMIT_AS, (before + (2 << 20),) * 2)
    kept = [os.pipe() for _ in range(200)]
    os._exit(0)
os.wait()
for _ in range(100):
    for i, o in [os.pipe() for _ in range(60)]:
        os.write(o, b'x'), os.read(i, 1), os.close(i), os.close(o)
print(size() - before >> 20)",
    ]);
    let run = run.go().well();
    let grown: u64 = run.stdout.trim().parse().expect("a number of MiB");
    check!(run, grown < 64, "it grew by {grown} MiB");
}

/// `--quiet` means it: a program that says nothing leaves stderr empty.
#[test]
fn quiet_is_quiet() {
    let run = Observed::new(["true"]).option("--quiet").go().well();
    check!(run, run.stdout.is_empty() && run.stderr.is_empty(), "it said something");
}

/// Nothing on stdout: it belongs to the program.
#[test]
fn report_goes_to_stderr() {
    let run = Observed::fixture("source 20000 5000").go().well();
    check!(run, run.stdout.chars().count() > 0, "the program's bytes are gone");
    check!(run, !run.stdout.contains("intact"), "the report stands on stdout");
}

/// Switched off, the library does nothing at all.
#[test]
fn off_is_off() {
    for line in ["stream tcp send recv 30000 5000", "tls 1.3 - write read 30000 5000"] {
        let run = Observed::fixture(line).env("COUNTERFOIL_OFF", "1").go().well();
        check!(run, run.report.transfers().is_empty(), "something was witnessed");
    }
}
