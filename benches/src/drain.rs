//! `drain`: records a second that one core of the daemon takes from lanes to verdicts.
//!
//! No program is observed: a load program writes the records itself, as fast as they are taken. What is
//! counted is the daemon's processor time until every verdict is said, so what the load program costs on a
//! machine with few cores is not in it.

use crate::daemon::Daemon;
use crate::observed::Account;
use crate::report::{Goal, Row, Unit};
use crate::statistics::Spread;
use crate::{Bench, load};
use anyhow::{Result, bail};
use std::process::Command;
use std::time::{Duration, Instant};

const FLOWS: usize = 16;
const BLOCKS: &str = "60000";

/// One row.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let mut speeds = Vec::new();
    let mut account = Account::default();
    for _ in 0..bench.pairs.min(5) {
        let said = bench.folder.join("drain.jsonl");
        std::fs::remove_file(&said).ok();
        let config = format!(
            "[watch]\nwatched_processes = [\"drain\"]\n[[sink]]\nkind = \"jsonl\"\npath = \"{}\"\n",
            said.display()
        );
        let daemon = Daemon::start(bench, &config)?;
        let before = daemon.cpu_seconds()?;
        let mut command = Command::new(bench.folder.join("drain"));
        command.arg(daemon.socket()).arg(FLOWS.to_string()).arg(BLOCKS);
        let records = load::number(&load::run(command)?, "records")?;
        let deadline = Instant::now() + Duration::from_secs(30);
        let lines = loop {
            let lines = std::fs::read_to_string(&said).unwrap_or_default();
            if lines.lines().filter(|line| line.contains("\"type\":\"transfer\"")).count() >= FLOWS {
                break lines;
            }
            if Instant::now() > deadline {
                bail!("not every flow got its verdict in 30 s:\n{lines}");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        speeds.push(records / (daemon.cpu_seconds()? - before));
        account.add(&lines, "tls")?;
    }
    // A daemon says no summary; its drops would show as verdicts.
    account.no_summary = 0;
    let words = account.verdicts.iter().map(|(v, n)| format!("{n} {v}")).collect::<Vec<_>>().join(", ");
    let spread = Spread::of(&speeds);
    Ok(spread
        .map(|s| Row::spread("drain", Unit::RecordsPerSecond, s, Goal::AtLeast(5e6)))
        .into_iter()
        .map(|row| row.noting(words.clone(), account.wrong()))
        .collect())
}
