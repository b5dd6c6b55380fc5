//! The commands of `counterfoil`, and their exit statuses.
//!
//! Comes in: the command line. Goes out: an exit status. `main` calls [`main`] and does nothing
//! else.

mod alarms;
mod baseline;
mod check;
mod child;
mod daemon;
mod demo;
mod doctor;
mod exec;
mod hold;
mod inherited;
mod run;
mod transfers;
mod verify;

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

/// Counterfoil itself failed before CMD started.
pub const FAILED: u8 = 125;
/// CMD was found and can't be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// CMD was not found.
pub const NOT_FOUND: u8 = 127;
/// A negative answer.
const NO: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;

#[derive(Parser)]
#[command(
    name = "counterfoil",
    version,
    about = "Shows whether data arrived as it was sent, and where it was changed if not",
    long_about = "Shows whether data arrived as it was sent, and where it was changed if not.\n\n\
        A library is loaded into the programs at both ends of a connection. It tags the bytes where they enter a \
        transfer and where they leave it; counterfoil lays the two together and says intact, altered (which \
        bytes), truncated or unverified (why). Plaintext never leaves the program it belongs to.",
    after_help = "Examples:\n  \
        counterfoil run -- ./send-and-receive.sh      watch a command and all it starts\n  \
        counterfoil demo                              see an alteration being caught\n  \
        counterfoil verify /srv/out /mnt/in           two files, folders or manifests: equal, or where not\n  \
        counterfoil doctor curl nginx.service         what of them can be observed, and what to do\n  \
        counterfoil check /etc/counterfoil/counterfoil.toml",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Daemon(daemon::Args),
    Exec(exec::Args),
    Transfers(transfers::Args),
    Alarms(alarms::Args),
    Baseline(baseline::Args),
    Verify(verify::Args),
    Doctor(doctor::Args),
    Check(check::Args),
    Demo(demo::Args),
    #[command(name = crate::keeper::holder::COMMAND, hide = true)]
    Hold(hold::Args),
}

/// Runs the command that the command line names.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            // `run` and `exec` give CMD's status, so a mistake of their own must be told from it.
            let starts = arguments.get(1).is_some_and(|a| a == "run" || a == "exec");
            return match e.exit_code() {
                0 => ExitCode::SUCCESS,
                _ if starts => FAILED.into(),
                _ => USAGE.into(),
            };
        }
    };
    log(matches!(cli.command, Command::Daemon(_)));
    let (result, failed) = match cli.command {
        Command::Run(args) => (run::run(&args), FAILED),
        Command::Exec(args) => (exec::exec(&args), FAILED),
        Command::Daemon(args) => (daemon::daemon(&args), NO),
        Command::Transfers(args) => (transfers::transfers(&args), NO),
        Command::Doctor(args) => (doctor::doctor(&args), NO),
        Command::Verify(args) => (verify::verify(&args), NO),
        Command::Alarms(args) => (alarms::alarms(&args), NO),
        Command::Baseline(args) => (baseline::baseline(&args), NO),
        Command::Check(args) => (check::check(&args), NO),
        Command::Demo(args) => (demo::demo(&args), NO),
        Command::Hold(args) => (hold::hold(&args), NO),
    };
    result.map_or_else(
        |e| {
            say(&whole(&e));
            failed.into()
        },
        ExitCode::from,
    )
}

/// An error and its causes, without those that it names itself.
fn whole(e: &anyhow::Error) -> String {
    e.chain().fold(String::new(), |text, cause| match cause.to_string() {
        _ if text.is_empty() => cause.to_string(),
        cause if text.contains(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}

/// A message of our own, on stderr, each of its lines marked as ours.
fn say(message: &str) {
    for line in message.lines() {
        eprintln!("counterfoil: {}", crate::escape::text(line));
    }
}

/// What the stages have to say goes to stderr; the daemon says more. COUNTERFOIL_LOG chooses
/// (`debug`, `counterfoil_daemon::sinks=debug`).
fn log(daemon: bool) {
    use tracing_subscriber::EnvFilter;
    let default = if daemon { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("COUNTERFOIL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        // The journal adds the time.
        .without_time()
        .try_init();
}

/// Writes to stdout; a reader that has gone (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<bool> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(anyhow::Error::from(e).context("can't write to stdout")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn cmds_own_options_stay_its_own() {
        let cli =
            Cli::try_parse_from(["counterfoil", "run", "--quiet", "--", "curl", "--json", "x", "--", "-q"]);
        let Ok(Cli { command: Command::Run(args) }) = cli else { panic!("not run") };
        assert_eq!(args.command, ["curl", "--json", "x", "--", "-q"]);
        assert!(args.quiet && args.json.is_none());
        assert!(Cli::try_parse_from(["counterfoil", "run"]).is_err());
        assert!(Cli::try_parse_from(["counterfoil", "run", "--fail-on", "altred", "--", "x"]).is_err());
        assert!(Cli::try_parse_from(["counterfoil", "run", "--fail-on", "altered,alarm", "--", "x"]).is_ok());
    }
}
