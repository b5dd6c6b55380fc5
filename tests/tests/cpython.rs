//! CPython's own tests (issue 2, item 5): with and without the library, the same tests fail.

use counterfoil_tests::{Observed, Run, check, need, peers, skip};
use std::collections::BTreeSet;

/// Runs test modules of Debian's Python. `filter`: options of `-m test`.
fn regrtest(modules: &str, filter: &str, observed: bool) -> Run {
    let words = format!(
        "env --default-signal=INT {} -m test -v -u network,-urlfetch,-largefile -i *VSOCK* {filter} {modules}",
        peers::PYTHON
    );
    let session = Observed::new(words.split_whitespace()).limit(900).env("PYTHONDONTWRITEBYTECODE", "1");
    if observed { session.option("--quiet").go() } else { session.plain().go() }
}

/// The tests that failed, and how many there were.
fn outcome(run: &Run) -> (BTreeSet<String>, usize) {
    let all = format!("{}\n{}", run.stdout, run.stderr);
    let failed = all
        .lines()
        .filter(|l| l.starts_with("FAIL: ") || l.starts_with("ERROR: "))
        .map(str::to_owned)
        .collect();
    let count =
        all.lines().filter_map(|l| l.strip_prefix("Ran ")?.split(' ').next()?.parse::<usize>().ok()).sum();
    (failed, count)
}

fn same(modules: &str, filter: &str) {
    need!(peers::PYTHON);
    let installed =
        Observed::new([peers::PYTHON, "-c", "import test.test_socket, test.test_ssl"]).plain().go();
    if !installed.status.success() {
        skip!("libpython3-testsuite is not installed (tests/install-peers.sh)");
    }
    let plain = regrtest(modules, filter, false);
    let observed = regrtest(modules, filter, true);
    let ((plain_failed, plain_count), (failed, count)) = (outcome(&plain), outcome(&observed));
    check!(plain, plain_count > 0, "no test ran");
    check!(observed, count == plain_count, "{count} tests ran, {plain_count} without the library");
    let more: Vec<_> = failed.difference(&plain_failed).collect();
    check!(observed, more.is_empty(), "only with the library: {more:#?}");
    let fewer: Vec<_> = plain_failed.difference(&failed).collect();
    check!(observed, fewer.is_empty(), "only without the library: {fewer:#?}");
    println!("{modules}: {count} tests, {} fail with and without", failed.len());
}

/// Less than a minute of it: sockets that pass descriptors, TLS by threads, sub-processes.
#[test]
fn short() {
    same(
        "test_ssl test_socket test_subprocess",
        "-m test_read_write -m test_nonblocking_send -m test_echo -m *MemoryBIO* -m *SSLObject* -m *NetworkedBIO* \
         -m *SendmsgStream* -m *RecvmsgIntoTCP* -m *RecvmsgSCMRights* -m *NonBlockingTCP* -m *SendfileUsingSend* \
         -m *POSIXProcessTestCase* -m test_session*",
    );
}

/// All of it: minutes. `make test-cpython` runs these.
#[test]
#[ignore = "takes minutes"]
fn test_socket() {
    same("test_socket", "");
}

#[test]
#[ignore = "takes minutes"]
fn test_ssl() {
    same("test_ssl", "");
}

#[test]
#[ignore = "takes minutes"]
fn test_asyncio() {
    same("test_asyncio", "");
}

#[test]
#[ignore = "takes minutes"]
fn test_subprocess() {
    same("test_subprocess", "");
}
