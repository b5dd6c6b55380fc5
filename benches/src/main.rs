//! `make bench`: what observation costs.
//!
//! Comes in: a built `counterfoil`. Goes out: a table, as Markdown on stdout and with JSON in a folder.
//! Each number is measured with and without observation in turn (A B A B …) in one session, because
//! machines are noisy. A benchmark never fails by its time, only by a wrong verdict; what was lost stands
//! beside the speed.
#![forbid(unsafe_code)]

mod alarm;
mod calls;
mod daemon;
mod drain;
mod flows;
mod https;
mod idle;
mod load;
mod observed;
mod peers;
mod report;
mod scp;
mod start;
mod statistics;
mod throughput;

use anyhow::{Context, Result, bail};
use clap::Parser;
use report::Row;
use std::path::PathBuf;

/// Measures observed programs against the same programs alone.
#[derive(Parser)]
struct Options {
    /// The built counterfoil; its library lies beside it.
    #[arg(long)]
    program: PathBuf,
    /// Where bench.md and bench.json go.
    #[arg(long, default_value = "bench-results")]
    out: PathBuf,
    /// Only these (comma between): tls-bulk tls-small https tcp-bulk tcp-small untouched start drain alarm idle flows scp
    /// peers.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Pairs of runs.
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// Seconds that a load program counts for, after warming up.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// The load programs alone, without counterfoil: shows how noisy the machine is.
    #[arg(long)]
    plain_against_plain: bool,
}

/// What every benchmark is given.
pub struct Bench {
    program: PathBuf,
    /// Compiled load programs, and everything that runs leave behind.
    folder: PathBuf,
    pairs: usize,
    seconds: f64,
    plain_against_plain: bool,
}

type Measure = fn(&Bench) -> Result<Vec<Row>>;

const ALL: [(&str, Measure); 13] = [
    ("tls-bulk", |b| throughput::measure(b, "tls-bulk", "tls", "bulk", 0.92)),
    ("tls-small", |b| throughput::measure(b, "tls-small", "tls", "small", 0.92)),
    ("https", https::measure),
    ("tcp-bulk", |b| throughput::measure(b, "tcp-bulk", "tcp", "bulk", 0.85)),
    ("tcp-small", |b| throughput::measure(b, "tcp-small", "tcp", "small", 0.95)),
    ("untouched", calls::measure),
    ("start", start::measure),
    ("drain", drain::measure),
    ("alarm", alarm::measure),
    ("idle", idle::measure),
    ("flows", flows::measure),
    ("scp", scp::measure),
    ("peers", peers::measure),
];

fn main() -> Result<()> {
    let options = Options::parse();
    for name in &options.only {
        if !ALL.iter().any(|(known, _)| known == name) {
            let names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
            bail!("no benchmark is called {name}; there are: {}", names.join(" "));
        }
    }
    let program = options
        .program
        .canonicalize()
        .with_context(|| format!("{} is not there: run make build", options.program.display()))?;
    let folder = std::env::temp_dir().join(format!("counterfoil-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    load::compile(&folder)?;
    let bench = Bench {
        program,
        folder: folder.clone(),
        pairs: options.pairs,
        seconds: options.seconds,
        plain_against_plain: options.plain_against_plain,
    };

    let mut rows = Vec::new();
    for (name, measure) in ALL {
        if !options.only.is_empty() && !options.only.iter().any(|wanted| wanted == name) {
            continue;
        }
        eprintln!("{name} …");
        match measure(&bench) {
            Ok(measured) => rows.extend(measured),
            Err(error) => rows.push(Row::failed(name, format!("{error:#}"))),
        }
    }
    report::write(&options.out, &rows)?;
    std::fs::remove_dir_all(&folder).ok();
    let wrong: Vec<&str> = rows.iter().filter(|row| row.wrong).map(|row| row.name.as_str()).collect();
    if !wrong.is_empty() {
        bail!("wrong or missing verdicts in: {}", wrong.join(" "));
    }
    Ok(())
}
