//! `counterfoil demo`.
#![forbid(unsafe_code)]

/// See an alteration being caught
#[derive(clap::Args)]
pub struct Args {}

/// Shows it.
pub fn demo(_: &Args) -> anyhow::Result<u8> {
    anyhow::bail!("not yet")
}
