//! `counterfoil exec -- CMD`: CMD observed by a daemon that is already there.
#![forbid(unsafe_code)]

use super::daemon::{Probe, default_socket};
use super::{child, inherited, say};
use crate::library;
use anyhow::bail;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// Run a command observed by the host's daemon
///
/// Sets LD_PRELOAD and COUNTERFOIL_SOCKET and becomes CMD; nothing stands between it and its caller. What was
/// transferred is in the daemon's ledger (`counterfoil transfers`) and its alarms.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  counterfoil exec -- curl -T report.csv https://host/in/
  ExecStart=/usr/bin/counterfoil exec -- /usr/sbin/nginx -g 'daemon off;'

Exit status: CMD's own; 125 if the daemon does not answer or the library is missing; 126, 127 as shells use them.")]
pub struct Args {
    /// The daemon's socket [default: COUNTERFOIL_SOCKET, else /run/counterfoil/counterfoil.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The command, and its arguments
    #[arg(value_name = "CMD", required = true, last = true)]
    command: Vec<OsString>,
}

/// Becomes CMD; returns only if that failed.
pub fn exec(args: &Args) -> anyhow::Result<u8> {
    let socket = args.socket.clone().unwrap_or_else(default_socket);
    let socket = std::path::absolute(&socket)?;
    match super::daemon::probe(&socket) {
        Probe::Answers => {}
        Probe::Nobody => bail!(
            "no daemon answers on {}. Start it (systemctl start counterfoil, or counterfoil daemon), or name its \
             socket with --socket",
            socket.display()
        ),
        Probe::Unreachable(e) => bail!("can't reach the daemon's socket {}: {e}", socket.display()),
    }
    let library = library::find()?;
    let mut command = Command::new(&args.command[0]);
    command
        .args(&args.command[1..])
        .env("LD_PRELOAD", library::preload(&library, std::env::var_os("LD_PRELOAD").as_deref()))
        .env("COUNTERFOIL_SOCKET", &socket);
    inherited::pass_on(&mut command);
    let error = child::explain(&args.command[0], command.exec());
    say(&error.to_string());
    Ok(error.status())
}
