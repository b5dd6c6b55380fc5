//! `untouched`: write(2) and read(2) on a file in a process that has the library and isn't watched.

use crate::daemon::Daemon;
use crate::report::{Goal, Row, Unit};
use crate::{Bench, load};
use anyhow::Result;
use std::process::Command;

/// Two rows, nanoseconds a call.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let daemon = Daemon::start(bench, "[watch]\nwatched_processes = []\n")?;
    let program = bench.folder.join("calls");
    // In memory, so that it's the call that is timed and no disk.
    let shared = std::path::Path::new("/dev/shm");
    let folder = if shared.is_dir() { shared } else { bench.folder.as_path() };
    let file = folder.join(format!("counterfoil-bench-{}", std::process::id()));
    let (mut plain, mut observed) = ([vec![], vec![]], [vec![], vec![]]);
    let once = |mut command: Command, into: &mut [Vec<f64>; 2]| -> Result<()> {
        command.arg(&file);
        let line = load::run(command)?;
        into[0].push(load::number(&line, "write_ns")?);
        into[1].push(load::number(&line, "read_ns")?);
        Ok(())
    };
    for _ in 0..bench.pairs {
        once(Command::new(&program), &mut plain)?;
        let seen = if bench.plain_against_plain { Command::new(&program) } else { daemon.exec(&program) };
        once(seen, &mut observed)?;
    }
    let row = |name, at: usize| {
        Row::pairs(name, Unit::Nanoseconds, &plain[at], &observed[at], Goal::MoreAtMost(10.0))
    };
    Ok(vec![row("untouched write", 0), row("untouched read", 1)])
}
