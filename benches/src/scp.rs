//! `scp`: one big file over the loopback, with SHA-256 at both ends; against plain scp, and against what people do
//! instead: `sha256sum` at both ends afterwards.

use crate::observed::Account;
use crate::report::{Goal, Row, Unit};
use crate::{Bench, load};
use anyhow::{Context, Result};
use std::process::Command;

/// 1 GiB, as MEASURING has it.
const MEBIBYTES: &str = "1024";

/// Observed against plain, and `sha256sum` against plain.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    for program in ["ssh", "scp", "ssh-keygen", "python3"] {
        if !load::installed(program)? {
            return Ok(vec![Row::skipped("scp", format!("{program} is not installed"))]);
        }
    }
    let mut account = Account::default();
    let (mut plains, mut observeds, mut sums) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..=bench.pairs.min(3) {
        let alone = time(script(bench, "sh", &[]))?;
        let seen = if bench.plain_against_plain {
            time(script(bench, "sh", &[]))?
        } else {
            observed(bench, &mut account)?
        };
        let summed = time(script(bench, "sh", &["sums"]))?;
        // The first round warms caches.
        if pair > 0 {
            plains.push(alone);
            observeds.push(seen);
            sums.push(summed);
        }
    }
    let wrong = !bench.plain_against_plain && account.wrong();
    Ok(vec![
        Row::pairs("scp", Unit::Nanoseconds, &plains, &observeds, Goal::RatioAtMost(1.05))
            .noting(account.words(), wrong),
        Row::pairs("scp, then sha256sum at both ends", Unit::Nanoseconds, &plains, &sums, Goal::None),
    ])
}

fn script(bench: &Bench, program: &str, more: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/load/scp.sh"));
    command.arg(&bench.folder).arg(MEBIBYTES).args(more);
    command
}

fn time(command: Command) -> Result<f64> {
    load::number(&load::run(command)?, "nanoseconds")
}

fn observed(bench: &Bench, account: &mut Account) -> Result<f64> {
    let lines = bench.folder.join("run.jsonl");
    std::fs::remove_file(&lines).ok();
    let mut command = Command::new(&bench.program);
    command.arg("run").arg("--json").arg(&lines).args(["--quiet", "--", "sh"]);
    let whole = script(bench, "sh", &[]);
    command.args(whole.get_args());
    let taken = time(command)?;
    let said = std::fs::read_to_string(&lines).with_context(|| format!("{}", lines.display()))?;
    account.add(&said, "file")?;
    Ok(taken)
}
