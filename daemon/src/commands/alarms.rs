//! `counterfoil alarms`: the alarm list: what is in it, and what people do with it.
#![forbid(unsafe_code)]

mod change;
mod row;
mod source;
mod stats;
mod watch;
mod whole;

use super::{NO, print, say};
use crate::config::values::duration;
use crate::control::Action;
use crate::ledger::Filter;
use crate::model::{AlarmState, Analytic, Severity};
use crate::report::style::Style;
use crate::sinks::alarm_json;
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use source::Source;
use std::path::PathBuf;

/// List alarms, show one, and change their states
///
/// An alarm stands for all findings of one rule about one program, file, destination and user; how often it happened
/// is its count. Without options those that somebody has to look at are listed (unacknowledged, acknowledged,
/// returned), the gravest of them first.
///
/// Changing a state takes root or membership in the group counterfoil, or the user whose daemon it is; it is
/// recorded with who asked, and told to the sinks. With a daemon it goes through its control socket, without one
/// through the ledger. Once the command says so, no crash undoes it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  counterfoil alarms                                     what somebody has to look at
  counterfoil alarms show 5f3a                           the first or last digits of an id are enough
  counterfoil alarms ack 5f3a --comment 'ticket 4711'
  counterfoil alarms shelve 5f3a --for 2h
  counterfoil alarms --severity high --since 1h --exe sftp-server --destination 10.0.0.7
  counterfoil alarms clear --rule coverage-lost          all that the filters let through
  counterfoil alarms --watch
  counterfoil alarms list --all --json | jq 'select(.severity==\"critical\")'
  counterfoil alarms stats

Exit status: 0; 1 if there is no such alarm, a change can't be or may not be made, or there is no ledger; 2 for a wrong
command line.")]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// The daemon's state directory [default: /var/lib/counterfoil]
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<PathBuf>,
    /// The daemon's socket, to reach the one that listens there [default: COUNTERFOIL_SOCKET, else /run/…]
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// JSON Lines
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// Go on listing, as alarms come and change
    #[arg(long, global = true, help_heading = "Listing")]
    watch: bool,
    /// The latest first, not the gravest
    #[arg(long, global = true, help_heading = "Listing")]
    latest: bool,
    /// At most so many [default: 1000; with --json all]
    #[arg(long, global = true, value_name = "N", help_heading = "Listing")]
    limit: Option<u32>,
}

#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Filters (patterns have * and ?)")]
struct FilterArgs {
    /// In one of these states
    #[arg(long, global = true, value_name = "STATE,…", value_delimiter = ',')]
    status: Vec<StateArg>,
    /// In whatever state
    #[arg(long, global = true, conflicts_with = "status")]
    all: bool,
    /// At least so severe
    #[arg(long, global = true, value_name = "SEVERITY")]
    severity: Option<SeverityArg>,
    /// Of this rule
    #[arg(long, global = true, value_name = "RULE")]
    rule: Option<String>,
    /// Of this analytic
    #[arg(long, global = true, value_name = "ANALYTIC", ignore_case = true)]
    analytic: Option<AnalyticArg>,
    /// About this program: its path, or the end of it
    #[arg(long, global = true, value_name = "PROGRAM")]
    exe: Option<String>,
    /// About this file: its path, or the end of it
    #[arg(long, global = true, value_name = "PATH")]
    file: Option<String>,
    /// With this destination: an address, with or without port, or the server's name
    #[arg(long, global = true, value_name = "ADDRESS")]
    destination: Option<String>,
    /// Of a process of this user: name or number
    #[arg(long, global = true, value_name = "USER")]
    user: Option<String>,
    /// Of this point: a process alarm's tag
    #[arg(long, global = true, value_name = "TAG")]
    tag: Option<String>,
    /// Seen or changed since then: a time (2026-03-04T05:06:07Z) or a span (90s, 15min, 2h, 7d)
    #[arg(long, global = true, value_name = "T", value_parser = super::transfers::since)]
    since: Option<Timestamp>,
}

#[derive(Subcommand)]
enum What {
    /// List alarms (the default)
    List,
    /// Show one with everything that is known: evidence, blocks, chain, history, what to check next
    Show {
        /// Its id, or as much of its beginning or end as is unique
        id: String,
    },
    /// Measures of the list: alarms per 10 minutes, standing, stale, chattering, most frequent
    Stats,
    /// Acknowledge: somebody has seen it, and sees to it
    Ack(ChangeArgs),
    /// Clear: it is dealt with. It comes back if it happens again
    Clear(ChangeArgs),
    /// Shelve: off the list for a time, and by itself back on it
    Shelve {
        /// For how long (90s, 15min, 2h, 7d) [default: [alarms] shelving, 8h]
        #[arg(long = "for", value_name = "D", value_parser = seconds)]
        span: Option<u64>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Take off the shelf before its time
    Unshelve(ChangeArgs),
    /// Suppress by design: off the list until it is unsuppressed; say why
    Suppress(ReasonArgs),
    /// Undo suppress
    Unsuppress(ChangeArgs),
    /// Take out of service, for maintenance, until it is put back; say why
    OutOfService(ReasonArgs),
    /// Put back in service
    InService(ChangeArgs),
}

#[derive(clap::Args, Clone)]
struct ChangeArgs {
    /// Their ids, or as much of their beginnings or ends as is unique; none: all that the filters let through
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// For the record
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

#[derive(clap::Args, Clone)]
struct ReasonArgs {
    /// Their ids, or as much of their beginnings or ends as is unique
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// Why
    #[arg(long, value_name = "TEXT", required = true)]
    comment: String,
}

impl From<ReasonArgs> for ChangeArgs {
    fn from(args: ReasonArgs) -> Self {
        Self { ids: args.ids, comment: Some(args.comment) }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum StateArg {
    Unacknowledged,
    Acknowledged,
    Returned,
    Shelved,
    Suppressed,
    OutOfService,
    Normal,
}

#[derive(Clone, Copy, ValueEnum)]
enum SeverityArg {
    Info,
    Low,
    Medium,
    High,
    Critical,
}

#[derive(Clone, Copy, ValueEnum)]
enum AnalyticArg {
    An0703,
    An0989,
    An0332,
    Dc0109,
    #[value(name = "self")]
    Itself,
}

fn seconds(argument: &str) -> Result<u64, String> {
    duration(argument).map(|d| d.as_secs())
}

/// What is listed where nobody says: what somebody has to look at.
const OPEN: [AlarmState; 3] = [AlarmState::Unacknowledged, AlarmState::Acknowledged, AlarmState::Returned];
/// Listed where nobody says how many.
const LINES: u32 = 1000;

/// Does what is asked for.
pub fn alarms(args: &Args) -> anyhow::Result<u8> {
    let change = |action, change: &ChangeArgs| change::change(args, action, change);
    match &args.what {
        None | Some(What::List) if args.watch => watch::watch(args),
        None | Some(What::List) => list(args),
        Some(_) if args.watch => usage("--watch goes with the list"),
        Some(What::Show { id }) => whole::show(args, id),
        Some(What::Stats) => stats::stats(args),
        Some(What::Ack(c)) => change(Action::Acknowledge, c),
        Some(What::Clear(c)) => change(Action::Clear, c),
        Some(What::Shelve { span, change: c }) => change(Action::Shelve { seconds: *span }, c),
        Some(What::Unshelve(c)) => change(Action::Unshelve, c),
        Some(What::Suppress(c)) => change(Action::Suppress, &c.clone().into()),
        Some(What::Unsuppress(c)) => change(Action::Unsuppress, c),
        Some(What::OutOfService(c)) => change(Action::OutOfService, &c.clone().into()),
        Some(What::InService(c)) => change(Action::InService, c),
    }
}

fn usage(why: &str) -> anyhow::Result<u8> {
    say(why);
    Ok(super::USAGE)
}

fn list(args: &Args) -> anyhow::Result<u8> {
    let mut source = Source::reading(args)?;
    let filter = args.filter();
    let style = Style::stdout();
    let (mut shown, mut result) = (0u64, Ok(()));
    let all = source.list(&filter, &mut |alarm| {
        shown += 1;
        let line = if args.json { alarm_json(&alarm).to_string() + "\n" } else { row::row(&alarm, &style) };
        match print(&line) {
            Ok(go_on) => go_on,
            Err(e) => {
                result = Err(e);
                false
            }
        }
    })?;
    result?;
    if !args.json {
        if all > shown {
            say(&format!("{shown} of {all} alarms; --limit N lists more"));
        }
        let held = held(&mut source, &filter)?;
        match (shown, held) {
            (0, 0) => say("no alarm"),
            (0, held) => say(&format!("no alarm; {held} held off the list (--all)")),
            (_, 0) => {}
            (_, held) => say(&format!("besides, {held} held off the list (--all)")),
        }
    }
    Ok(0)
}

/// How many more would be listed, were they not shelved, suppressed or out of service; of what is open.
fn held(source: &mut Source, filter: &Filter) -> anyhow::Result<u64> {
    if filter.states != OPEN {
        return Ok(0);
    }
    let states = vec![AlarmState::Shelved, AlarmState::Suppressed, AlarmState::OutOfService];
    source.list(&Filter { states, limit: Some(0), ..filter.clone() }, &mut |_| true)
}

impl Args {
    fn filter(&self) -> Filter {
        let f = &self.filter;
        let states = if f.all {
            vec![]
        } else if f.status.is_empty() {
            OPEN.to_vec()
        } else {
            f.status.iter().map(|s| s.state()).collect()
        };
        Filter {
            states,
            severity: f.severity.map(|s| s.severity()),
            rule: f.rule.clone(),
            analytic: f.analytic.map(|a| a.analytic()),
            exe: f.exe.clone(),
            file: f.file.clone(),
            destination: f.destination.clone(),
            user: f.user.clone(),
            tag: f.tag.clone(),
            since: f.since,
            latest_first: self.latest,
            limit: self.limit.or((!self.json).then_some(LINES)),
        }
    }

    /// At least one filter was given.
    fn is_filtered(&self) -> bool {
        let f = &self.filter;
        f.all
            || !f.status.is_empty()
            || f.severity.is_some()
            || f.analytic.is_some()
            || f.since.is_some()
            || [&f.rule, &f.exe, &f.file, &f.destination, &f.user, &f.tag].iter().any(|t| t.is_some())
    }
}

impl StateArg {
    fn state(self) -> AlarmState {
        match self {
            Self::Unacknowledged => AlarmState::Unacknowledged,
            Self::Acknowledged => AlarmState::Acknowledged,
            Self::Returned => AlarmState::Returned,
            Self::Shelved => AlarmState::Shelved,
            Self::Suppressed => AlarmState::Suppressed,
            Self::OutOfService => AlarmState::OutOfService,
            Self::Normal => AlarmState::Normal,
        }
    }
}

impl SeverityArg {
    fn severity(self) -> Severity {
        match self {
            Self::Info => Severity::Info,
            Self::Low => Severity::Low,
            Self::Medium => Severity::Medium,
            Self::High => Severity::High,
            Self::Critical => Severity::Critical,
        }
    }
}

impl AnalyticArg {
    fn analytic(self) -> Analytic {
        match self {
            Self::An0703 => Analytic::An0703,
            Self::An0989 => Analytic::An0989,
            Self::An0332 => Analytic::An0332,
            Self::Dc0109 => Analytic::Dc0109,
            Self::Itself => Analytic::Itself,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarms::state::word;

    #[test]
    fn the_states_have_the_contracts_names() {
        for arg in StateArg::value_variants() {
            assert_eq!(arg.to_possible_value().unwrap().get_name(), word(arg.state()));
        }
    }
}
