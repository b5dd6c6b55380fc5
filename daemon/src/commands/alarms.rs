//! `counterfoil alarms`: the alarm list of a ledger.
#![forbid(unsafe_code)]

use super::{NO, print, say};
use crate::escape::{clip, text};
use crate::ledger::Reader;
use crate::model::{Alarm, AlarmState};
use crate::report::{self, words};
use crate::session::default_state;
use crate::sinks::alarm_json;
use clap::Subcommand;
use serde_json::Value;
use std::path::PathBuf;

/// List alarms, or show one
///
/// An alarm stands for all findings of one rule about one program, destination and user; how often it happened is
/// its count. The latest come first.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  counterfoil alarms
  counterfoil alarms show 0197      the first digits of an id are enough
  counterfoil alarms list --json | jq 'select(.severity==\"critical\")'

Exit status: 0; 1 if there is no such alarm or no ledger.")]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// The daemon's state directory [default: /var/lib/counterfoil]
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<PathBuf>,
    /// JSON Lines
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// List all of them (the default)
    List,
    /// Show one with everything that is known
    Show {
        /// Its id, or as much of its beginning as is unique
        id: String,
    },
}

/// Lists or shows.
pub fn alarms(args: &Args) -> anyhow::Result<u8> {
    let reader = Reader::open(&args.state.clone().unwrap_or_else(default_state))?;
    let all = reader.alarms()?;
    let Some(What::Show { id }) = &args.what else {
        for alarm in &all {
            let line = if args.json { alarm_json(alarm).to_string() + "\n" } else { row(alarm) };
            if !print(&line)? {
                break;
            }
        }
        return Ok(0);
    };
    let wanted = id.to_lowercase();
    let found: Vec<&Alarm> = all.iter().filter(|a| a.id.to_string().starts_with(&wanted)).collect();
    match found[..] {
        [alarm] => {
            print(&if args.json { alarm_json(alarm).to_string() + "\n" } else { whole(alarm) })?;
            Ok(0)
        }
        [] => {
            say(&format!("no alarm's id begins with {id}"));
            Ok(NO)
        }
        _ => {
            say(&format!("{} alarms' ids begin with {id}; give more of it", found.len()));
            Ok(NO)
        }
    }
}

fn state(state: AlarmState) -> String {
    serde_json::to_value(state).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn row(a: &Alarm) -> String {
    let f = &a.finding;
    format!(
        "{}  {}  {:<8}  {:<14}  {:>5}×  {}: {}\n",
        a.id,
        a.last.strftime("%Y-%m-%d %H:%M:%SZ"),
        words::severity(f.severity),
        state(a.state),
        a.count,
        text(&f.rule),
        clip(&text(&f.title), 120),
    )
}

/// Every fact, one a line.
fn whole(a: &Alarm) -> String {
    let f = &a.finding;
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!("{name:<14} {}\n", text(value)));
        }
    };
    line("alarm", &a.id.to_string());
    line("rule", &f.rule);
    line("severity", words::severity(f.severity));
    line("technique", f.technique.as_deref().unwrap_or(""));
    line("confidence", f.confidence.as_deref().unwrap_or(""));
    line("state", &state(a.state));
    line("count", &a.count.to_string());
    line("raised", &a.raised.to_string());
    line("last", &a.last.to_string());
    line("title", &f.title);
    line("message", &f.message);
    line("next", &f.next);
    if let Some(p) = &f.process {
        line("process", &report::process_name(p));
        line("  exe", p.exe.as_deref().unwrap_or(""));
        line("  sha256", p.sha256.as_deref().unwrap_or(""));
        line("  argv", &p.argv.as_ref().map(|a| a.join(" ")).unwrap_or_default());
        line("  user", p.user.as_deref().unwrap_or(""));
        line("  unit", p.unit.as_deref().unwrap_or(""));
        let parents: Vec<String> =
            p.parents.iter().map(|p| format!("{} ({})", p.exe.as_deref().unwrap_or("?"), p.pid)).collect();
        line("  parents", &parents.join(" < "));
    }
    if let Some(c) = &f.connection {
        line("local", c.local.as_deref().unwrap_or(""));
        line("remote", c.remote.as_deref().unwrap_or(""));
        line("server name", c.server_name.as_deref().unwrap_or(""));
    }
    line("file", f.file.as_ref().and_then(|x| x.path.as_deref()).unwrap_or(""));
    line("transfer", &f.transfer.map(|t| t.to_string()).unwrap_or_default());
    line("flow", f.flow.as_deref().unwrap_or(""));
    if !f.altered.is_empty() {
        line("altered", &words::ranges(&f.altered));
    }
    let reasons: Vec<&str> = f.reasons.iter().map(|r| r.word()).collect();
    line("reasons", &reasons.join(", "));
    if let Value::Object(evidence) = &f.evidence {
        for (name, value) in evidence.iter().filter(|(_, v)| !v.is_null()) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            line(&format!("  {name}"), &clip(&value, 400));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{alarms::Alarms, detect::Rules, judged::Judged, model::Verdict, sample};

    #[test]
    fn a_row_and_the_whole() {
        let transfer = Box::new(sample::transfer(Verdict::Altered));
        let judged = Judged::Transfer { transfer, context: Box::new(sample::context()) };
        let mut a = Alarms::default().take(Rules::default().findings(&judged).remove(0)).alarm;
        let line = row(&a);
        assert!(line.contains("CRITICAL") && line.contains("1×  payload-altered: Data changed"), "{line}");
        a.finding.process.as_mut().unwrap().exe = Some("/x\x1b[2J\ny".into());
        let whole = whole(&a);
        assert!(!whole.contains('\x1b') && whole.contains("/x\\x1b[2J\\x0ay"), "{whole}");
        assert!(whole.contains("altered        bytes 16384–32767"), "{whole}");
        assert!(whole.contains("parents      /usr/lib/systemd/systemd (1)"), "{whole}");
    }
}
