//! `flows`: 10,000 connections open at once, both ends observed, and the daemon's memory meanwhile.

use crate::daemon::Daemon;
use crate::observed::Account;
use crate::report::{Goal, Row, Unit};
use crate::statistics::Spread;
use crate::{Bench, load};
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const FLOWS: usize = 10_000;
/// Two directions of each.
const TRANSFERS: u64 = 2 * FLOWS as u64;
/// How long the last verdict may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the daemon's memory.
const PACE: Duration = Duration::from_millis(20);

/// The daemon's memory at its highest, and how long it takes to open, use and close them all.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let program = bench.folder.join("flows");
    let mut account = Account::default();
    let (mut plains, mut observeds, mut peaks) = (Vec::new(), Vec::new(), Vec::new());
    let runs = bench.pairs.min(3);
    for _ in 0..runs {
        plains.push(time(Command::new(&program))?);
        if bench.plain_against_plain {
            observeds.push(time(Command::new(&program))?);
        } else {
            let (taken, peak) = observed(bench, &program, &mut account)?;
            observeds.push(taken);
            peaks.push(peak);
        }
    }
    let row = Row::pairs("flows: time", Unit::Nanoseconds, &plains, &observeds, Goal::None);
    let Some(peaks) = Spread::of(&peaks) else { return Ok(vec![row]) };
    let told: u64 = account.verdicts.values().sum();
    let wrong = account.wrong() || told != TRANSFERS * runs as u64;
    let note = format!("{} of {} transfers told: {}", told, TRANSFERS * runs as u64, account.words());
    let memory = Row::spread("flows: daemon's memory", Unit::Bytes, peaks, Goal::AtMost(200e6));
    Ok(vec![memory.noting(note, wrong), row])
}

/// From the first connection's opening to the last one's end.
fn time(mut command: Command) -> Result<f64> {
    command.arg(FLOWS.to_string());
    let line = load::run(command)?;
    ["open_ns", "round_ns", "close_ns"].iter().map(|key| load::number(&line, key)).sum()
}

/// How long it took, and the daemon's memory at its highest, until every verdict was said.
fn observed(bench: &Bench, program: &Path, account: &mut Account) -> Result<(f64, f64)> {
    let said = bench.folder.join("flows.jsonl");
    std::fs::remove_file(&said).ok();
    // Free now, and the daemon takes it at once.
    let metrics = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let config = format!(
        "[watch]\nwatched_processes = [\"flows\"]\n[metrics]\nlisten = \"{metrics}\"\n\
         [[sink]]\nkind = \"jsonl\"\npath = \"{}\"\n",
        said.display()
    );
    let daemon = Daemon::start(bench, &config)?;
    let command = daemon.exec(program);
    let running = std::thread::spawn(move || time(command));
    let mut peak: f64 = 0.0;
    while !running.is_finished() {
        peak = peak.max(daemon.memory()?);
        std::thread::sleep(PACE);
    }
    let taken = running.join().expect("the thread only runs a program")?;
    let deadline = Instant::now() + PATIENCE;
    let lines = loop {
        peak = peak.max(daemon.memory()?);
        let lines = std::fs::read_to_string(&said).unwrap_or_default();
        let told = lines.lines().filter(|line| line.contains("\"type\":\"transfer\"")).count();
        // What is missing by then is missing in the row, too.
        if told as u64 >= TRANSFERS || Instant::now() > deadline {
            break lines;
        }
        std::thread::sleep(PACE);
    };
    account.add(&lines, "tcp")?;
    // A daemon says no summary; its metrics have what a summary would.
    account.no_summary = 0;
    let page = page(metrics)?;
    account.records += counter(&page, "counterfoil_records_total")?;
    account.dropped += counter(&page, "counterfoil_records_dropped_total")?;
    Ok((taken, peak))
}

fn page(address: SocketAddr) -> Result<String> {
    let mut connection = TcpStream::connect(address).context("the daemon's metrics")?;
    connection.set_read_timeout(Some(PATIENCE))?;
    write!(connection, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    connection.read_to_string(&mut page)?;
    Ok(page)
}

fn counter(page: &str, name: &str) -> Result<u64> {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|v| v.trim().parse().ok()).with_context(|| format!("no {name} in {page}"))
}
