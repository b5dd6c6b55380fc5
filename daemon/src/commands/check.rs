//! `counterfoil check`: the configuration's mistakes, all of them at once.
#![forbid(unsafe_code)]

use super::{NO, daemon::CONFIG, print, say};
use crate::config::{self, ConfigError};
use crate::escape;
use crate::expected;
use crate::ledger::{Filter, Reader};
use crate::report::words;
use crate::session::default_state;
use std::path::PathBuf;

/// Check a configuration file
///
/// Names every mistake at once, each with line and column, and says which keys do nothing yet. A daemon told to
/// reload a file with mistakes keeps its old configuration.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  counterfoil check
  counterfoil check ./counterfoil.toml && systemctl reload counterfoil
  counterfoil check --dry-run ./counterfoil.toml         what its [[alarms.suppress]] would hold back

Exit status: 0 if the file can be used, 1 if it can't, 2 for a wrong command line.")]
pub struct Args {
    /// The file [default: /etc/counterfoil/counterfoil.toml]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Also lay each [[alarms.suppress]] beside the alarms that are in the ledger: what it would have held back
    #[arg(long)]
    dry_run: bool,
    /// The state directory with that ledger [default: /var/lib/counterfoil]
    #[arg(long, value_name = "DIR", requires = "dry_run")]
    state: Option<PathBuf>,
}

/// Checks one file.
pub fn check(args: &Args) -> anyhow::Result<u8> {
    let file = args.file.clone().unwrap_or_else(|| PathBuf::from(CONFIG));
    if args.file.is_none() && !file.exists() {
        print(&format!("{CONFIG} is not there: the defaults hold\n"))?;
        return Ok(0);
    }
    let loaded = config::load(Some(&file)).and_then(|parsed| Ok((expected::of(&parsed.config)?, parsed)));
    match loaded {
        Ok((expected, parsed)) => {
            let name = escape::bytes(file.as_os_str().as_encoded_bytes());
            let mut out = String::new();
            for warning in &parsed.warnings {
                out.push_str(&format!("{name}:{warning}\n"));
            }
            let files = match expected.len() {
                0 => String::new(),
                n => format!("; {n} files have expected digests"),
            };
            let wrong = crate::sinks::mistakes(&parsed.config.sinks);
            if !wrong.is_empty() {
                print(&out)?;
                for why in &wrong {
                    eprintln!("{name}: {}", escape::text(why));
                }
                return Ok(NO);
            }
            out.push_str(&format!(
                "{name}: good{}{}{}{files}\n",
                sinks(&parsed.config),
                intakes(&parsed.config),
                suppressed(&parsed.config)
            ));
            if args.dry_run {
                out.push_str(&dry_run(args, &parsed.config)?);
            }
            print(&out)?;
            Ok(0)
        }
        Err(e @ ConfigError::Unreadable { .. }) => Err(e.into()),
        // The file, or the list of digests that it names.
        Err(ConfigError::Wrong { path, mistakes }) => {
            // Bare, as compilers do it: editors jump to file:line:column.
            for mistake in &mistakes {
                let line = format!("{}:{mistake}", path.display());
                eprintln!("{}", escape::text(&line));
            }
            let n = mistakes.len();
            say(&format!("{n} mistake{}", if n == 1 { "" } else { "s" }));
            Ok(NO)
        }
    }
}

/// What is off the list by design.
fn suppressed(config: &config::Config) -> String {
    let today = jiff::Zoned::now().date();
    match config.alarms.suppress.iter().filter(|s| s.holds(today)).count() {
        0 => String::new(),
        1 => "; 1 sort of alarms is suppressed by design".into(),
        n => format!("; {n} sorts of alarms are suppressed by design"),
    }
}

/// Alarms named of each entry.
const NAMED: usize = 5;

/// What each entry would have held back of what the ledger has.
fn dry_run(args: &Args, config: &config::Config) -> anyhow::Result<String> {
    let reader = Reader::open(&args.state.clone().unwrap_or_else(default_state))?;
    let mut found = vec![(0u64, 0u64, Vec::new()); config.alarms.suppress.len()];
    let (mut all, mut untouched) = (0, 0);
    reader.list(&Filter { latest_first: true, ..Filter::default() }, |alarm| {
        let mut fits = false;
        for (entry, (alarms, occurrences, named)) in config.alarms.suppress.iter().zip(&mut found) {
            if entry.fits(&alarm.finding) {
                fits = true;
                (*alarms, *occurrences) = (*alarms + 1, *occurrences + alarm.count);
                if named.len() < NAMED {
                    named.push(format!(
                        "    {}  {}  {}\n",
                        alarm.id,
                        words::severity(alarm.finding.severity),
                        escape::clip(&escape::text(&alarm.finding.title), 120)
                    ));
                }
            }
        }
        (all, untouched) = (all + 1, untouched + u64::from(!fits));
        true
    })?;
    let mut out =
        format!("dry run: {} of {all} alarms in the ledger would have been held back\n", all - untouched);
    let today = jiff::Zoned::now().date();
    for (entry, (alarms, occurrences, named)) in config.alarms.suppress.iter().zip(found) {
        let over = if entry.holds(today) { "" } else { "; it is over" };
        let line = format!("  {entry}: {alarms} alarms, {occurrences} occurrences: {}{over}", entry.answer());
        out.push_str(&escape::text(&line));
        out.push('\n');
        out.extend(named);
    }
    Ok(out)
}

/// Where process alarms come from.
fn intakes(config: &config::Config) -> String {
    let names: Vec<&str> = config.intakes.iter().map(|i| i.name.as_str()).collect();
    match names.is_empty() {
        true => String::new(),
        false => format!("; process alarms come from {}", names.join(", ")),
    }
}

/// Where alarms go, as that is what one most wants to be sure of.
fn sinks(config: &config::Config) -> String {
    let names: Vec<String> =
        config.sinks.iter().map(|s| escape::text(&s.kind.to_string()).into_owned()).collect();
    match names.len() {
        0 => "; no [[sink]], so alarms are kept in the ledger and sent nowhere".into(),
        _ => format!("; alarms go to {}", names.join(", ")),
    }
}
