//! `https`: nginx serves a file of 1 KiB over TLS to wrk, connections kept alive.
//!
//! nginx is started by `counterfoil run`, wrk is not, so that the row is nginx's. So nobody knows what arrived, and no
//! transfer can be `intact`: what is checked is said in the row instead.

use crate::observed::Account;
use crate::report::{Goal, Row, Unit};
use crate::{Bench, load};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::process::Command;

/// What a server may say about a client that nobody observes.
const ALONE: &str = "unverified (peer-not-observed)";

/// Requests a second, the 99th percentile of their times, and the worker's processor time for one.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    for program in ["nginx", "wrk", "curl", "openssl", "python3", "taskset"] {
        if !load::installed(program)? {
            return Ok(vec![Row::skipped("https", format!("{program} is not installed"))]);
        }
    }
    let mut account = Account::default();
    let (mut plains, mut observeds) = (Vec::new(), Vec::new());
    // The first pair warms caches and is thrown away, its verdicts are not.
    for pair in 0..=bench.pairs {
        let alone = served(bench, None)?;
        let seen =
            if bench.plain_against_plain { served(bench, None)? } else { served(bench, Some(&mut account))? };
        if pair > 0 {
            plains.push(alone);
            observeds.push(seen);
        }
    }
    let wrong = !bench.plain_against_plain && account.wrong_unless(ALONE);
    let mut rows = Vec::new();
    for (name, key, unit, goal) in [
        ("https", "per_second", Unit::PerSecond, Goal::RatioAtLeast(0.95)),
        ("https p99", "p99_ns", Unit::Nanoseconds, Goal::RatioAtMost(1.10)),
        ("https processor time", "processor_ns", Unit::Nanoseconds, Goal::None),
    ] {
        let column =
            |side: &[Value]| side.iter().map(|line| load::number(line, key)).collect::<Result<Vec<f64>>>();
        rows.push(Row::pairs(name, unit, &column(&plains)?, &column(&observeds)?, goal));
    }
    let requests: f64 = observeds.iter().filter_map(|line| line["requests"].as_f64()).sum();
    let note = format!(
        "wrk not observed, so none can be intact: {}, 0 of {requests} requests failed",
        account.words()
    );
    let first = rows.remove(0).noting(note, wrong);
    rows.insert(0, first);
    Ok(rows)
}

/// One run; with an account, observed.
fn served(bench: &Bench, account: Option<&mut Account>) -> Result<Value> {
    let lines = bench.folder.join("run.jsonl");
    std::fs::remove_file(&lines).ok();
    let mut command = Command::new("sh");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/load/https.sh")).arg(&bench.folder);
    // wrk takes whole seconds.
    command.arg(format!("{:.0}", bench.seconds.ceil().max(1.0)));
    if account.is_some() {
        command.arg(&bench.program).arg("run").arg("--json").arg(&lines).args(["--quiet", "--"]);
    }
    let result = load::run(command)?;
    ensure!(load::number(&result, "requests")? > 0.0, "no request was answered");
    ensure!(load::number(&result, "failed")? == 0.0, "requests failed: {result}");
    if let Some(account) = account {
        let said = std::fs::read_to_string(&lines).with_context(|| format!("{}", lines.display()))?;
        account.add(&said, "tls")?;
    }
    Ok(result)
}
