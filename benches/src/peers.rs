//! `peers`: the same loads under other tools that watch a program, for comparison: bpftrace with uprobes that
//! only count `SSL_write` and `SSL_read`, strace with the calls that carry data. Only those that are installed.

use crate::observed::plain;
use crate::report::{Goal, Row, Unit};
use crate::{Bench, load};
use anyhow::{Context, Result};
use std::process::Command;

/// A row for each tool and load.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for tool in ["bpftrace", "strace"] {
        for how in ["bulk", "small"] {
            let name = format!("peers: tls-{how} under {tool}");
            rows.push(
                under(bench, tool, how, &name).unwrap_or_else(|why| Row::skipped(&name, format!("{why:#}"))),
            );
        }
    }
    Ok(rows)
}

fn under(bench: &Bench, tool: &str, how: &str, name: &str) -> Result<Row> {
    let seconds = bench.seconds.to_string();
    let program = bench.folder.join("tls");
    let (mut alone, mut watched) = (Vec::new(), Vec::new());
    for _ in 0..bench.pairs.min(3) {
        alone.push(load::number(&plain(bench, "tls", &[how, &seconds])?, "per_second")?);
        let mut command = Command::new(tool);
        if tool == "bpftrace" {
            let libssl = libssl_of(&program)?;
            let probes = format!(
                "uprobe:{libssl}:SSL_write {{ @w = count(); }} uprobe:{libssl}:SSL_read {{ @r = count(); }}"
            );
            let line = format!("{} {how} {seconds}", program.display());
            command.args(["-q", "-o", "/dev/null", "-e", &probes, "-c", &line]);
        } else {
            let calls = "trace=read,write,sendto,recvfrom,sendmsg,recvmsg";
            command.args(["-f", "-o", "/dev/null", "-e", calls]).arg(&program).args([how, &seconds]);
        }
        watched.push(load::number(&load::run(command)?, "per_second")?);
    }
    let unit = if how == "bulk" { Unit::BytesPerSecond } else { Unit::PerSecond };
    Ok(Row::pairs(name, unit, &alone, &watched, Goal::None))
}

fn libssl_of(program: &std::path::Path) -> Result<String> {
    let out = Command::new("ldd").arg(program).output()?;
    let lines = String::from_utf8_lossy(&out.stdout);
    let line = lines.lines().find(|line| line.contains("libssl")).context("ldd names no libssl")?;
    Ok(line.split_whitespace().nth(2).context("ldd names no path of libssl")?.to_string())
}
