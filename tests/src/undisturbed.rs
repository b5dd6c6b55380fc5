//! The host comes first: whatever answers at the library's socket, a program does what it would do
//! without the library.

use crate::check;
use crate::observed::Observed;
use crate::product;
use std::path::Path;
use std::time::{Duration, Instant};

/// A session with something of everything: sockets, TLS, forks, both directions.
pub const FIXTURE: &str = "tls 1.3 - write read 100000 5000 answer=3000";

/// A fixture with the library loaded, by whatever answers at `socket`.
pub fn preloaded(line: &str, socket: &Path) -> Observed {
    Observed::fixture(line).plain().env("LD_PRELOAD", product::library()).env("COUNTERFOIL_SOCKET", socket)
}

/// Panics unless it says and does the same as without the library, and about as fast.
pub fn undisturbed(line: &str, socket: &Path) {
    let plain = Observed::fixture(line).plain().go();
    let started = Instant::now();
    let run = preloaded(line, socket).go();
    check!(run, run.stdout == plain.stdout, "stdout differs; plain was:\n{}", plain.stdout);
    check!(run, run.stderr == plain.stderr, "stderr differs; plain was:\n{}", plain.stderr);
    check!(run, run.code() == plain.code(), "status differs; plain was {}", plain.code());
    check!(run, started.elapsed() < Duration::from_secs(5), "it was held up");
}
