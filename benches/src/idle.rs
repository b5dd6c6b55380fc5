//! `idle`: the daemon with 1,000 quiet observed processes.

use crate::Bench;
use crate::daemon::Daemon;
use crate::report::{Goal, Row, Unit};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PROCESSES: u32 = 1000;
const SETTLE: Duration = Duration::from_secs(3);
/// Longer than what the daemon does each half minute.
const LOOK: Duration = Duration::from_secs(45);

/// Rows: the daemon's share of a core; its memory for each process; a process's own.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let program = bench.folder.join("processes");
    let (_, alone) = sleepers(Command::new(&program), || Ok(()))?;
    let daemon = Daemon::start(bench, "[watch]\nwatched_processes = [\"sleep\"]\n")?;
    let before = daemon.memory()?;
    let ((share, with), observed) = sleepers(daemon.exec(&program), || {
        std::thread::sleep(SETTLE);
        let (spent, since) = (daemon.fine_seconds()?, Instant::now());
        std::thread::sleep(LOOK);
        let share = (daemon.fine_seconds()? - spent) / since.elapsed().as_secs_f64();
        Ok((share * 100.0, daemon.memory()?))
    })?;
    let each = |bytes: f64| bytes / f64::from(PROCESSES);
    Ok(vec![
        Row::single("idle", Unit::PercentOfCore, share, Goal::AtMost(0.5)),
        Row::single("idle: daemon's memory per process", Unit::Bytes, each(with - before), Goal::None),
        Row::pairs("idle: memory of one process", Unit::Bytes, &[alone], &[observed], Goal::None),
    ])
}

/// Starts them, does `meanwhile`, ends them. Also what one of them has to itself, in bytes.
fn sleepers<T>(mut command: Command, meanwhile: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    command.arg("idle").arg(PROCESSES.to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut line)?;
    let ready: Value = serde_json::from_str(&line).with_context(|| format!("printed {line:?}"))?;
    let result = meanwhile();
    let own = own_memory(ready["pid"].as_u64().context("pid")?);
    drop(child.stdin.take());
    ensure!(child.wait()?.success(), "the sleepers failed");
    Ok((result?, own?))
}

/// Private memory of a process, in bytes.
fn own_memory(pid: u64) -> Result<f64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kilobytes = |line: &str| line.split_whitespace().nth(1)?.parse::<f64>().ok();
    Ok(rollup.lines().filter(|line| line.starts_with("Private_")).filter_map(kilobytes).sum::<f64>() * 1024.0)
}
