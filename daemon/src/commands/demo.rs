//! `counterfoil demo`: see `crate::demo`.
#![forbid(unsafe_code)]

use crate::report::style::Style;
use std::io::Write;

/// See an alteration being caught
///
/// Real curl uploads a payment file over TLS to a real openssl server, once clean, once with a library inside curl
/// that changes an amount between the program and the cipher. Needs curl, openssl and a C compiler; takes a few
/// seconds, talks to this machine only, and leaves nothing behind.
#[derive(clap::Args)]
#[command(after_help = "Exit status: 0 if it showed what it should, 1 if not.")]
pub struct Args {}

/// Shows it.
pub fn demo(_: &Args) -> anyhow::Result<u8> {
    let mut out = std::io::stdout().lock();
    crate::demo::show(&mut out, &Style::stdout())?;
    out.flush()?;
    Ok(0)
}
