//! An approval from a command line.
#![forbid(unsafe_code)]

use super::{Entry, find};
use crate::config::values::{cidr, duration, size};
use crate::egress::benign::roots_own;
use crate::host::executables::Executables;
use crate::ledger::usual::{Approval, Errand, Tables};
use anyhow::{Context, bail};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::net::IpAddr;
use std::path::Path;

#[derive(clap::Args)]
pub(super) struct Args {
    /// What to approve: an id as `list` or `would-have-raised` shows it; the options below change parts of it
    #[arg(value_name = "ID", required_unless_present = "exe")]
    id: Option<String>,
    /// The program's path
    #[arg(long, value_name = "PATH", requires = "destination")]
    exe: Option<String>,
    /// The digest it must have. Needed, and taken from the file, where not only root may change the program
    #[arg(long, value_name = "HEX", value_parser = digest)]
    sha256: Option<String>,
    /// An address, a network, a server's name as the program asks for it (TLS), `.example.org` for all below it, `any`
    #[arg(long, value_name = "WHERE", value_parser = destination)]
    destination: Option<String>,
    /// Only this port
    #[arg(long)]
    port: Option<u16>,
    /// Only for this user
    #[arg(long)]
    user: Option<String>,
    /// Only so much within connection_duration
    #[arg(long, value_name = "SIZE", value_parser = size)]
    volume: Option<u64>,
    /// Who answers for it
    #[arg(long, value_parser = some)]
    owner: String,
    /// Why it is in order
    #[arg(long, value_parser = some)]
    reason: String,
    /// Until when: a span (90d), a day (2027-01-31) or a moment (2027-01-31T12:00:00Z)
    #[arg(long, value_name = "T", value_parser = expiry)]
    expires: Timestamp,
}

fn some(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it can't be empty".into()),
        text => Ok(text.chars().take(500).collect()),
    }
}

fn digest(text: &str) -> Result<String, String> {
    let hex = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if hex { Ok(text.to_ascii_lowercase()) } else { Err("64 hex digits, as sha256sum writes them".into()) }
}

fn destination(text: &str) -> Result<String, String> {
    if text == "any" || text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    if text.contains('/') {
        return cidr(text).map(|_| text.to_owned());
    }
    let name = text.len() <= 253
        && text.contains('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    // `10.0.0.300` is a mistake and no name.
    if name && text.bytes().any(|b| b.is_ascii_alphabetic()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("write an address, a network (10.2.0.0/16), a server's name (backup.example.org), `.example.org` for all below \
         it, or `any`; the port goes into --port"
        .into())
}

fn expiry(text: &str) -> Result<Timestamp, String> {
    let now = Timestamp::now();
    let day = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|day| day.timestamp());
    let moment = text.parse().ok().or_else(day);
    let moment = match moment {
        Some(moment) => moment,
        None => duration(text).ok().and_then(|span| now.checked_add(span).ok()).ok_or_else(|| {
            "write a span (90d), a day (2027-01-31) or a moment (2027-01-31T12:00:00Z)".to_owned()
        })?,
    };
    if moment > now { Ok(moment) } else { Err("that is over already".into()) }
}

/// The approval that was asked for; None: there is no such entry, and that was said.
pub(super) fn approval(args: &Args, tables: &Tables) -> anyhow::Result<Option<Approval>> {
    let base = match args.id.as_deref().map(|id| find(tables, id)) {
        None => None,
        Some(None) => return Ok(None),
        Some(Some(Entry::Errand(errand, _))) => Some(errand.clone()),
        Some(Some(Entry::Held(held))) => {
            let finding = &held.finding;
            let remote = finding.connection.as_ref().and_then(|c| c.remote.as_deref());
            let errand = finding.process.as_ref().zip(remote).and_then(|(p, remote)| Errand::of(p, remote));
            Some(errand.context("that finding names no program or no destination; approve it with --exe")?)
        }
        Some(Some(Entry::Approval(_))) => bail!("that is approved already; `reset` it to take it back"),
    };
    let exe = match (&args.exe, &base) {
        (Some(exe), _) => {
            let path = std::fs::canonicalize(exe).with_context(|| exe.clone())?;
            path.to_str().context("the program's path is not UTF-8")?.to_owned()
        }
        (None, Some(errand)) => errand.exe.clone(),
        (None, None) => bail!("name an id or --exe"),
    };
    let there = Path::new(&exe);
    // What others may change is known by its content only: what was seen, or what is there now.
    let pinned = || base.as_ref().and_then(|e| e.sha256.clone()).or_else(|| Executables::default().at(there));
    let sha256 = match &args.sha256 {
        Some(sha256) => Some(sha256.clone()),
        None if roots_own(there) => None,
        None => Some(pinned().with_context(|| {
            format!("not only root may change {exe}, and it can't be read; give its --sha256")
        })?),
    };
    let destination = args.destination.clone().or_else(|| base.as_ref().map(|e| e.destination.to_string()));
    let approved = Timestamp::now();
    let mut approval = Approval {
        id: String::new(),
        exe,
        sha256,
        destination: destination.context("name a --destination")?,
        port: args.port.or_else(|| base.as_ref().map(|e| e.port)),
        user: args.user.clone().or_else(|| base.map(|e| e.user)),
        volume: args.volume,
        owner: args.owner.clone(),
        reason: args.reason.clone(),
        expires: args.expires,
        approved,
        by: rustix::process::getuid().as_raw(),
    };
    approval.id = super::digest(format!("approval {approval:?}"));
    Ok(Some(approval))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_and_expiries() {
        for good in ["any", "10.0.0.1", "fd00::/8", "10.0.0.0/8", "S3.Example.org", ".example.org"] {
            assert!(destination(good).is_ok(), "{good}");
        }
        for bad in ["", "10.0.0.0/40", "10.0.0.300", "host:443", "all", "a b.c", "*.example.org"] {
            assert!(destination(bad).is_err(), "{bad}");
        }
        assert!(expiry("90d").unwrap() > Timestamp::now());
        assert_eq!(expiry("2100-01-31").unwrap().to_string(), "2100-01-31T00:00:00Z");
        assert!(expiry("2001-01-31").unwrap_err().contains("over"));
        assert!(expiry("never").is_err() && some("  ").is_err() && digest("ab").is_err());
    }
}
