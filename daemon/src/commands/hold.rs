//! The keeper's hidden command: see `crate::keeper`. The daemon starts it, with its end of the wire as
//! stdin.
#![forbid(unsafe_code)]

use crate::keeper::holder;
use std::os::fd::AsFd;
use std::path::PathBuf;

/// Hold arenas for a daemon (it starts this by itself)
#[derive(clap::Args)]
pub struct Args {
    /// The daemon's state directory
    state: PathBuf,
}

/// Holds them.
pub fn hold(args: &Args) -> anyhow::Result<u8> {
    crate::pipeline::raise_descriptor_limit();
    let wire = std::io::stdin().as_fd().try_clone_to_owned()?;
    // Ours alone: the end of the daemon must be the end of the wire, and the other way round.
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    holder::hold(&args.state, wire)?;
    Ok(0)
}
