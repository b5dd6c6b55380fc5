//! `tls-bulk tls-small tcp-bulk tcp-small`: steady throughput of two processes over loopback.

use crate::observed::{Account, observed, plain};
use crate::report::{Goal, Row, Unit};
use crate::{Bench, load};
use anyhow::Result;

/// One row: how much a second, and for round trips a second one: the 99th percentile of their times.
pub fn measure(bench: &Bench, name: &str, program: &str, how: &str, goal: f64) -> Result<Vec<Row>> {
    let seconds = bench.seconds.to_string();
    let arguments = [how, seconds.as_str()];
    let mut account = Account::default();
    let (mut plains, mut observeds) = (Vec::new(), Vec::new());
    // The first pair warms caches and is thrown away, its verdicts are not.
    for pair in 0..=bench.pairs {
        let alone = plain(bench, program, &arguments)?;
        let seen = if bench.plain_against_plain {
            plain(bench, program, &arguments)?
        } else {
            observed(bench, program, &arguments, &mut account, program)?
        };
        if pair > 0 {
            plains.push(alone);
            observeds.push(seen);
        }
    }
    let column = |side: &[serde_json::Value], key| {
        side.iter().map(|line| load::number(line, key)).collect::<Result<Vec<f64>>>()
    };
    let wrong = !bench.plain_against_plain && account.wrong();
    let unit = if how == "bulk" { Unit::BytesPerSecond } else { Unit::PerSecond };
    let mut rows = vec![
        Row::pairs(
            name,
            unit,
            &column(&plains, "per_second")?,
            &column(&observeds, "per_second")?,
            Goal::RatioAtLeast(goal),
        )
        .noting(account.words(), wrong),
    ];
    let mut more = |what: &str, key| -> Result<()> {
        let (plain, observed) = (column(&plains, key)?, column(&observeds, key)?);
        rows.push(Row::pairs(&format!("{name} {what}"), Unit::Nanoseconds, &plain, &observed, Goal::None));
        Ok(())
    };
    if how == "small" {
        more("p99", "p99_ns")?;
    }
    // What the two programs themselves pay: less at the mercy of what else the machine does.
    more("processor time", "processor_ns")?;
    Ok(rows)
}
