//! `idle`: the daemon with 1,000 quiet observed processes.

use crate::daemon::Daemon;
use crate::report::{Goal, Row, Unit};
use crate::Bench;
use anyhow::{ensure, Context, Result};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PROCESSES: u32 = 1000;
const SETTLE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_secs(12);

/// Rows: the daemon's share of a core; its memory for each process; a process's own.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let program = bench.folder.join("processes");
    let (_, alone) = sleepers(Command::new(&program), || Ok(()))?;
    let daemon = Daemon::start(bench, "[watch]\nwatched_processes = [\"sleep\"]\n")?;
    let before = memory(&daemon)?;
    let ((share, with), observed) = sleepers(daemon.exec(&program), || {
        std::thread::sleep(SETTLE);
        let (ticks, since) = (cpu_seconds(&daemon)?, Instant::now());
        std::thread::sleep(LOOK);
        let share = (cpu_seconds(&daemon)? - ticks) / since.elapsed().as_secs_f64();
        Ok((share * 100.0, memory(&daemon)?))
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

/// Resident memory of the daemon's processes, arenas that it looked into included.
fn memory(daemon: &Daemon) -> Result<f64> {
    let mut sum = 0.0;
    for pid in daemon.pids() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        sum += rss.split_whitespace().next().context("VmRSS")?.parse::<f64>()? * 1024.0;
    }
    Ok(sum)
}

/// Processor time that the daemon's processes have used.
fn cpu_seconds(daemon: &Daemon) -> Result<f64> {
    let mut ticks = 0.0;
    for pid in daemon.pids() {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may hold anything; fields 14 and 15 of proc(5) count from before it.
        let after = stat.rsplit_once(')').context("stat")?.1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        for at in [11, 12] {
            ticks += fields.get(at).context("stat")?.parse::<f64>()?;
        }
    }
    // USER_HZ, which proc(5) counts in, is 100 on every Linux that Rust runs on.
    Ok(ticks / 100.0)
}
