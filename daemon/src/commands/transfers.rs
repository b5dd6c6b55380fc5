//! `counterfoil transfers`: the ledger's transfers, for people or as JSON Lines.
#![forbid(unsafe_code)]

use super::print;
use crate::config::values::duration;
use crate::escape::{clip, text};
use crate::ledger::{Reader, TransferFilter};
use crate::model::{Transfer, Verdict};
use crate::report::{self, style::Style, words};
use crate::session::default_state;
use crate::sinks::transfer_json;
use clap::ValueEnum;
use jiff::Timestamp;
use std::path::PathBuf;

/// List the transfers in a ledger
///
/// Oldest first, one a line. With --json each is one JSON object, as `run --json` writes them.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  counterfoil transfers --since 1h
  counterfoil transfers --verdict altered --json | jq .altered
  counterfoil transfers --since 2026-03-04T05:00:00Z --state ~/c-state")]
pub struct Args {
    /// The daemon's state directory [default: /var/lib/counterfoil]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Only those with this verdict
    #[arg(long)]
    verdict: Option<VerdictArg>,
    /// Only those that ended since then: a time (2026-03-04T05:06:07Z) or a span (90s, 15min, 2h, 7d)
    #[arg(long, value_name = "T", value_parser = since)]
    since: Option<Timestamp>,
    /// JSON Lines
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum VerdictArg {
    Intact,
    Altered,
    Truncated,
    Unverified,
}

/// A moment, or a span before now.
fn since(argument: &str) -> Result<Timestamp, String> {
    if let Ok(moment) = argument.parse() {
        return Ok(moment);
    }
    let span = duration(argument)
        .map_err(|_| "write a time (2026-03-04T05:06:07Z) or a span (90s, 15min, 2h, 7d)".to_owned())?;
    Timestamp::now().checked_sub(span).map_err(|e| e.to_string())
}

/// Lists them.
pub fn transfers(args: &Args) -> anyhow::Result<u8> {
    let reader = Reader::open(&args.state.clone().unwrap_or_else(default_state))?;
    let verdict = args.verdict.map(|v| match v {
        VerdictArg::Intact => Verdict::Intact,
        VerdictArg::Altered => Verdict::Altered,
        VerdictArg::Truncated => Verdict::Truncated,
        VerdictArg::Unverified => Verdict::Unverified,
    });
    let style = Style::stdout();
    let mut result = Ok(());
    reader.transfers(TransferFilter { verdict, since: args.since }, |t| {
        let line = if args.json { transfer_json(&t).to_string() + "\n" } else { row(&t, &style) };
        match print(&line) {
            Ok(go_on) => go_on,
            Err(e) => {
                result = Err(e);
                false
            }
        }
    })?;
    result.map(|()| 0)
}

/// `2026-03-04 05:06:07Z  ALTERED  TLS  curl (pid 11) → nginx (pid 22)  65536  bytes 16384–32767`.
fn row(t: &Transfer, style: &Style) -> String {
    let bytes = match (t.bytes.origin, t.bytes.destination) {
        (Some(a), Some(b)) if a == b => a.to_string(),
        (a, b) => {
            let one = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
            format!("{}/{}", one(a), one(b))
        }
    };
    let mut more: Vec<String> = t.reasons.iter().map(|r| r.word().to_owned()).collect();
    if !t.altered.is_empty() {
        more.insert(0, words::ranges(&t.altered));
    }
    let remote = t.origin.as_ref().and_then(|e| e.remote.as_deref());
    let remote = remote.or_else(|| t.destination.as_ref().and_then(|e| e.local.as_deref())).unwrap_or("");
    let line = format!(
        "{}  {:<10}  {:<5}  {} {} {}  {}  {}  {}",
        t.ended.strftime("%Y-%m-%d %H:%M:%SZ"),
        words::verdict(t.verdict),
        words::channel(t.channel),
        report::endpoint_name(t.origin.as_ref()),
        style.arrow(),
        report::endpoint_name(t.destination.as_ref()),
        clip(&text(remote), 64),
        bytes,
        more.join(", "),
    );
    line.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn rows() {
        assert_eq!(
            row(&sample::transfer(Verdict::Altered), &Style::plain()),
            "2026-03-04 05:06:07Z  ALTERED     TLS    curl (pid 11) → nginx (pid 22)  10.0.0.2:443  65536  \
             bytes 16384–32767\n"
        );
        let mut t = sample::transfer(Verdict::Truncated);
        t.origin.as_mut().unwrap().exe = Some("/bin/a\nb".into());
        let row = row(&t, &Style::plain());
        assert!(row.contains("65536/40000") && row.contains("a\\x0ab (pid 11)"), "{row}");
        assert_eq!(row.matches('\n').count(), 1);
    }

    #[test]
    fn since_when() {
        assert_eq!(since("2026-03-04T05:06:07Z").unwrap().as_second(), 1_772_600_767);
        let hour = Timestamp::now().as_second() - since("1h").unwrap().as_second();
        assert!((3600..3610).contains(&hour));
        assert!(since("yesterday").is_err());
    }
}
