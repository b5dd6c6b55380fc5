//! `counterfoil run -- CMD`: CMD and all it starts, under a daemon of its own.
#![forbid(unsafe_code)]

use super::{child, say};
use crate::config;
use crate::model::Summary;
use crate::report::style::Style;
use crate::session::Session;
use clap::ValueEnum;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// Watch a command and everything it starts
///
/// CMD keeps its stdin, stdout, stderr, signals and exit status. At the end a report on stderr says what was
/// transferred and whether it arrived as it was sent. Needs no root and no set-up. Both ends of a connection must
/// run under the same `run` to be compared; an end that does not is said to be unobserved.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  counterfoil run -- ./nightly-upload.sh
  counterfoil run --fail-on altered,truncated -- rsync -a src/ host:dst/
  counterfoil run --quiet --json events.jsonl -- make test
  counterfoil run --state ~/.cache/counterfoil -- CMD   then: counterfoil transfers --state ~/.cache/counterfoil

Exit status:
  CMD's own, or 128+n if signal n ended it; 3 if --fail-on matched; 125 if counterfoil itself failed before CMD
  started; 126 if CMD can't be executed; 127 if it was not found.

Environment:
  COUNTERFOIL_LIB    where libcounterfoil.so is, if not beside the program or in its ../lib
  COUNTERFOIL_OFF=1  the library stays inert
  NO_COLOR           no colour in the report")]
pub struct Args {
    /// Read settings from this file (see `counterfoil check`); alarms are sent only if it says where to
    #[arg(long, value_name = "FILE", overrides_with = "config")]
    pub config: Option<PathBuf>,
    /// Write every event to this file as JSON Lines; the last line is the summary
    #[arg(long, value_name = "FILE", overrides_with = "json")]
    pub json: Option<PathBuf>,
    /// Exit with 3 if there was any of these
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub fail_on: Vec<FailOn>,
    /// Keep the ledger of transfers and alarms in this directory
    #[arg(long, value_name = "DIR", overrides_with = "state")]
    pub state: Option<PathBuf>,
    /// Say nothing if everything is intact
    #[arg(long, short, overrides_with = "quiet")]
    pub quiet: bool,
    /// The command to watch, and its arguments
    #[arg(value_name = "CMD", required = true, last = true)]
    pub command: Vec<OsString>,
}

/// What `--fail-on` can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Data differs
    Altered,
    /// Data was cut short
    Truncated,
    /// Nobody can know
    Unverified,
    /// Any alarm
    Alarm,
}

impl FailOn {
    fn matches(self, summary: &Summary) -> bool {
        let some = |verdict: &str| summary.transfers.get(verdict).is_some_and(|n| *n > 0);
        match self {
            Self::Altered => some("altered"),
            Self::Truncated => some("truncated"),
            Self::Unverified => some("unverified"),
            Self::Alarm => summary.alarms.values().any(|n| *n > 0),
        }
    }
}

/// `--fail-on` matched.
const MATCHED: u8 = 3;

/// Runs CMD. The result is the exit status.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let parsed = config::load(args.config.as_deref())?;
    let session = Session::start(&parsed.config, args.json.as_deref(), args.state.as_deref())?;
    let mut command = Command::new(&args.command[0]);
    session.observe(command.args(&args.command[1..]));
    let started = child::run(command);
    let outcome = session.finish();
    let status = match started {
        Ok(status) => child::code(status),
        Err(e) => {
            say(&e.to_string());
            return Ok(e.status());
        }
    };
    // In one piece, so that what CMD left running can't write into the middle of it.
    let mut report = Vec::new();
    outcome.gathered.write(&outcome.alarms, &outcome.summary, args.quiet, &Style::stderr(), &mut report)?;
    // stderr may be closed or full; CMD's status counts all the same.
    let _ = std::io::stderr().lock().write_all(&report);
    if outcome.json_lost > 0 {
        say(&format!("{} lines could not be written to --json's file", outcome.json_lost));
    }
    let failed = args.fail_on.iter().any(|f| f.matches(&outcome.summary));
    Ok(if failed { MATCHED } else { status })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_on_what() {
        let mut summary = Summary::default();
        summary.transfers.insert("intact".into(), 5);
        summary.transfers.insert("truncated".into(), 1);
        summary.transfers.insert("altered".into(), 0);
        assert!(FailOn::Truncated.matches(&summary));
        assert!(!FailOn::Altered.matches(&summary) && !FailOn::Unverified.matches(&summary));
        assert!(!FailOn::Alarm.matches(&summary));
        summary.alarms.insert("coverage-lost".into(), 1);
        assert!(FailOn::Alarm.matches(&summary));
    }
}
