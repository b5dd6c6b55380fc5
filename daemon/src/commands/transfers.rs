//! `counterfoil transfers`: the ledger's transfers, for people or as JSON Lines; out to a file for another host, and
//! another host's in.
#![forbid(unsafe_code)]

mod exchange;
mod paths;
mod row;

use super::print;
use super::verify::End;
use crate::config::values::duration;
use crate::ledger::{Reader, TransferFilter};
use crate::model::{Channel, Class, Transfer, Verdict};
use crate::report::style::Style;
use crate::session::default_state;
use crate::sinks::transfer_json;
use clap::ValueEnum;
use jiff::Timestamp;
use paths::Paths;
use row::row;
use std::path::PathBuf;

/// List the transfers in a ledger: who sent what to whom, when, and did it arrive
///
/// Oldest first, one a line. With --json each is one JSON object, as `run --json` writes them. --export writes them to
/// a file for another host; --import takes such a file in, beside our own transfers and never among them; --compare
/// lays the two together: what was sent here beside what another host received, and the other way round.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  counterfoil transfers --since 1h
  counterfoil transfers --channel file --path /srv/in        files below a folder
  counterfoil transfers --channel file --path '*.csv'        files of that name, in any folder
  counterfoil transfers --class encrypted --since 1d
  counterfoil transfers --verdict altered --json | jq .altered
  counterfoil transfers --since 2026-03-04T05:00:00Z --state ~/c-state
  counterfoil transfers --export - --format sha256sum --end destination | sha256sum -c

  On alpha:  counterfoil transfers --since 1d --export alpha.jsonl
  On beta:   counterfoil transfers --import alpha.jsonl && counterfoil transfers --compare

Exit status: 0; 1 if there is no ledger, a file can't be imported or exported, or --compare finds a
difference or nothing; 2 for a wrong command line.")]
pub struct Args {
    /// The daemon's state directory [default: /var/lib/counterfoil]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Only those with this verdict
    #[arg(long)]
    verdict: Option<VerdictArg>,
    /// Only those over this channel; `file` is a file that was read at one end and written at the other
    #[arg(long)]
    channel: Option<ChannelArg>,
    /// Only those with this kind of content
    #[arg(long)]
    class: Option<ClassArg>,
    /// Only those of which an end has this path: a folder or file, or a pattern (* ? [a-z], ** also across folders);
    /// a pattern without a slash is compared with the file's name
    #[arg(long, value_name = "PATH", value_parser = Paths::new)]
    path: Option<Paths>,
    /// Only those that ended since then: a time (2026-03-04T05:06:07Z) or a span (90s, 15min, 2h, 7d)
    #[arg(long, value_name = "T", value_parser = since)]
    since: Option<Timestamp>,
    /// JSON Lines
    #[arg(long)]
    json: bool,
    /// Write them to a file that another host can import and `verify` can read (- for stdout)
    #[arg(long, value_name = "FILE", group = "what")]
    export: Option<PathBuf>,
    /// How to export
    #[arg(long, value_name = "FORMAT", requires = "export", default_value = "transfers")]
    format: Format,
    /// Of sha256sum's lines, only the files at this end
    #[arg(long, value_name = "END", requires = "export")]
    end: Option<End>,
    /// Take in what another host exported
    #[arg(long, value_name = "FILE", group = "what", conflicts_with_all = ["verdict", "channel", "class", "path", "since", "json"])]
    import: Option<PathBuf>,
    /// List what was imported, in place of our own
    #[arg(long, group = "what")]
    imported: bool,
    /// Lay what was imported beside our own, by the connections that both have seen
    #[arg(long, group = "what", conflicts_with_all = ["verdict", "channel", "class", "since"])]
    compare: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum VerdictArg {
    Intact,
    Altered,
    Truncated,
    Unverified,
}

#[derive(Clone, Copy, ValueEnum)]
enum ChannelArg {
    Tls,
    Tcp,
    Unix,
    Pipe,
    File,
    Datagram,
}

#[derive(Clone, Copy, ValueEnum)]
enum ClassArg {
    Empty,
    Text,
    Structured,
    Compressed,
    Media,
    Encrypted,
    Binary,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Everything, to be imported or verified
    Transfers,
    /// The files' digests, for `sha256sum -c` and for `[integrity] integrity_baseline`
    Sha256sum,
}

/// A moment, or a span before now.
pub(super) fn since(argument: &str) -> Result<Timestamp, String> {
    if let Ok(moment) = argument.parse() {
        return Ok(moment);
    }
    let span = duration(argument)
        .map_err(|_| "write a time (2026-03-04T05:06:07Z) or a span (90s, 15min, 2h, 7d)".to_owned())?;
    Timestamp::now().checked_sub(span).map_err(|e| e.to_string())
}

/// Lists, exports, imports or compares them.
pub fn transfers(args: &Args) -> anyhow::Result<u8> {
    let state = args.state.clone().unwrap_or_else(default_state);
    if let Some(file) = &args.import {
        return exchange::import(&state, file);
    }
    let reader = Reader::open(&state)?;
    if let Some(file) = &args.export {
        return exchange::export(&reader, args, file);
    }
    if args.compare {
        return exchange::compare(&reader, args);
    }
    let style = Style::stdout();
    let mut result = Ok(());
    let mut tell = |line: String| match print(&line) {
        Ok(go_on) => go_on,
        Err(e) => {
            result = Err(e);
            false
        }
    };
    if args.imported {
        reader.imported(|host, t| {
            let mut line = transfer_json(&t);
            line["imported_from"] = host.into();
            let from = crate::escape::text(host).into_owned();
            !args.wants(&t)
                || tell(if args.json {
                    line.to_string() + "\n"
                } else {
                    format!("{from}: {}", row(&t, &style))
                })
        })?;
    } else {
        reader.transfers(args.filter(), |t| {
            !args.wants(&t)
                || tell(if args.json { transfer_json(&t).to_string() + "\n" } else { row(&t, &style) })
        })?;
    }
    result.map(|()| 0)
}

impl Args {
    /// What the ledger itself can leave out.
    fn filter(&self) -> TransferFilter {
        TransferFilter {
            verdict: self.verdict.map(|v| match v {
                VerdictArg::Intact => Verdict::Intact,
                VerdictArg::Altered => Verdict::Altered,
                VerdictArg::Truncated => Verdict::Truncated,
                VerdictArg::Unverified => Verdict::Unverified,
            }),
            channel: self.channel.map(|c| match c {
                ChannelArg::Tls => Channel::Tls,
                ChannelArg::Tcp => Channel::Tcp,
                ChannelArg::Unix => Channel::Unix,
                ChannelArg::Pipe => Channel::Pipe,
                ChannelArg::File => Channel::File,
                ChannelArg::Datagram => Channel::Datagram,
            }),
            since: self.since,
        }
    }

    fn class(&self) -> Option<Class> {
        self.class.map(|c| match c {
            ClassArg::Empty => Class::Empty,
            ClassArg::Text => Class::Text,
            ClassArg::Structured => Class::Structured,
            ClassArg::Compressed => Class::Compressed,
            ClassArg::Media => Class::Media,
            ClassArg::Encrypted => Class::Encrypted,
            ClassArg::Binary => Class::Binary,
        })
    }

    /// All of the filter.
    fn wants(&self, t: &Transfer) -> bool {
        let TransferFilter { verdict, channel, since } = self.filter();
        let ends = || [&t.origin, &t.destination].into_iter().flatten();
        verdict.is_none_or(|v| v == t.verdict)
            && channel.is_none_or(|c| c == t.channel)
            && since.is_none_or(|s| s <= t.ended)
            && self.class().is_none_or(|c| t.class == Some(c))
            && self.path.as_ref().is_none_or(|p| ends().any(|e| e.path.as_deref().is_some_and(|e| p.fit(e))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_when() {
        assert_eq!(since("2026-03-04T05:06:07Z").unwrap().as_second(), 1_772_600_767);
        let hour = Timestamp::now().as_second() - since("1h").unwrap().as_second();
        assert!((3600..3610).contains(&hour));
        assert!(since("yesterday").is_err());
    }
}
