//! `start`: fork, exec and end of `true`, started by an observed process.

use crate::daemon::Daemon;
use crate::report::{Goal, Row, Unit};
use crate::{Bench, load};
use anyhow::Result;
use std::process::Command;

const TIMES: &str = "200";

/// One row, the median of 200 starts, in nanoseconds.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let daemon = Daemon::start(bench, "")?;
    let program = bench.folder.join("processes");
    let once = |mut command: Command| {
        command.args(["start", TIMES, "/bin/true"]);
        load::number(&load::run(command)?, "p50_ns")
    };
    let (mut plain, mut observed) = (Vec::new(), Vec::new());
    for _ in 0..bench.pairs {
        plain.push(once(Command::new(&program))?);
        let seen = if bench.plain_against_plain { Command::new(&program) } else { daemon.exec(&program) };
        observed.push(once(seen)?);
    }
    Ok(vec![Row::pairs("start", Unit::Nanoseconds, &plain, &observed, Goal::MoreAtMost(1e6))])
}
