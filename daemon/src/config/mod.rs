//! The configuration: what can be set, its defaults, and its mistakes.
//!
//! Comes in: a TOML file, or nothing. Goes out: a [`Config`], or every [`Mistake`] of the file at
//! once, each with line and column. Called by `commands` at the start and on SIGHUP.
#![forbid(unsafe_code)]

mod carrier;
pub mod egress;
pub mod intake;
pub mod limit;
pub mod media;
mod read;
mod section;
pub mod sink;
pub mod suppress;
pub(crate) mod values;

pub use carrier::Carrier;
pub use egress::{Egress, Sensitive};
pub use intake::{Intake, Mapping};
pub use limit::Limit;
pub use media::Media;
pub use read::parse;
pub use sink::{JsonShape, Rate, Sink, SinkKind, SyslogShape, Tls};
pub use suppress::Suppress;
pub use values::{Cidr, Facility, Ports, SyslogAddress};

use crate::redact::ArgvPrivacy;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Programs whose streams are tagged by the host's daemon (ANALYTICS, Defaults).
pub const WATCHED: &[&str] = &[
    "ssh",
    "sshd",
    "sshd-session",
    "scp",
    "sftp",
    "sftp-server",
    "rsync",
    "curl",
    "wget",
    "openssl",
    "nginx",
    "apache2",
    "haproxy",
    "stunnel",
    "lftp",
    "vsftpd",
    "git",
    "socat",
    "nc",
];

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[watch]`
    pub watch: Watch,
    /// `[integrity]`
    pub integrity: Integrity,
    /// `[egress]`
    pub egress: Egress,
    /// `[media]`
    pub media: Media,
    /// `[[sink]]`, in the file's order.
    pub sinks: Vec<Sink>,
    /// `[[intake]]`: where process alarms and values come from.
    pub intakes: Vec<Intake>,
    /// `[[alarms.limit]]`
    pub limits: Vec<Limit>,
    /// `[[alarms.carrier]]`
    pub carriers: Vec<Carrier>,
    /// `[privacy]`
    pub privacy: Privacy,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[ledger]`
    pub ledger: Ledger,
    /// `[alarms]`
    pub alarms: Alarms,
}

/// `[alarms]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Alarms {
    /// For how long an alarm is shelved where nobody says.
    pub shelving: Duration,
    /// For how long it can be at most: what is shelved for ever is forgotten.
    pub shelving_limit: Duration,
    /// `[[alarms.suppress]]`: what is off the list by design.
    pub suppress: Vec<Suppress>,
}

impl Default for Alarms {
    fn default() -> Self {
        Self {
            shelving: Duration::from_secs(8 * 3600),
            shelving_limit: Duration::from_secs(7 * 86_400),
            suppress: Vec::new(),
        }
    }
}

/// `[watch]`: what the host's daemon tags.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// Names of programs (the last part of the path), or whole paths.
    pub watched_processes: Vec<String>,
    /// A connection with neither port in here raises no alarm about its payload.
    pub monitored_ports: Ports,
    /// Networks that count as inside; an alarm says on which side its destination is.
    pub internal_ranges: Vec<Cidr>,
    /// How often the files that watched services go by are looked at; None: never.
    pub workflow_interval: Option<Duration>,
    /// Further files of that kind: transfer scripts, job lists.
    pub workflow_paths: Vec<PathBuf>,
    /// For so many days the daemon learns what is ordinary on its host, before it says what is not.
    pub baseline_days: u32,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            watched_processes: WATCHED.iter().map(|&w| w.to_owned()).collect(),
            monitored_ports: Ports::All,
            internal_ranges: Vec::new(),
            workflow_interval: Some(Duration::from_secs(60)),
            workflow_paths: Vec::new(),
            baseline_days: 7,
        }
    }
}

/// `[integrity]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Integrity {
    /// What blocks of streams are tagged with.
    pub stream_digest: StreamDigest,
    /// How often delivered files are read again.
    pub hash_check_interval: Duration,
    /// Which: files, and folders with all that is in them. Empty: none.
    pub hash_check_paths: Vec<PathBuf>,
    /// Read them past the page cache, as far as the file system lets.
    pub hash_check_uncached: bool,
    /// A list of expected digests, as sha256sum writes it.
    pub integrity_baseline: Option<PathBuf>,
}

impl Default for Integrity {
    fn default() -> Self {
        Self {
            stream_digest: StreamDigest::default(),
            hash_check_interval: Duration::from_secs(3600),
            hash_check_paths: Vec::new(),
            hash_check_uncached: false,
            integrity_baseline: None,
        }
    }
}

/// `[integrity] stream_digest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamDigest {
    /// AEGIS-128X2, a MAC: fast, stands against everyone who doesn't hold the key.
    #[default]
    Aegis,
    /// BLAKE3: stands against everyone.
    Blake3,
    /// SHA-256: stands against everyone.
    Sha256,
}

/// `[privacy]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Privacy {
    /// What of command lines is kept.
    pub argv: ArgvPrivacy,
}

/// `[ledger]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Ledger {
    /// Transfers older than this are forgotten.
    pub keep: Duration,
    /// Bytes; beyond it the oldest transfers are forgotten.
    pub max_size: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { keep: Duration::from_secs(90 * 86_400), max_size: 1 << 30 }
    }
}

/// `[metrics]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Where the OpenMetrics page is; None: nowhere. A loopback address.
    pub listen: Option<SocketAddr>,
}

/// One thing wrong in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

/// A file, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// What holds.
    pub config: Config,
    /// Keys that are known and do nothing yet.
    pub warnings: Vec<Mistake>,
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file couldn't be read.
    #[error("can't read {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has mistakes.
    #[error("{}", list(path, mistakes))]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// All of them, in the file's order.
        mistakes: Vec<Mistake>,
    },
}

fn list(path: &Path, mistakes: &[Mistake]) -> String {
    let lines: Vec<String> = mistakes.iter().map(|m| format!("{}:{m}", path.display())).collect();
    lines.join("\n")
}

/// Reads the file at `path`; None stands for no file, which is the defaults.
///
/// # Errors
/// The file can't be read, or has mistakes: then all of them.
pub fn load(path: Option<&Path>) -> Result<Parsed, ConfigError> {
    let Some(path) = path else { return Ok(Parsed::default()) };
    let bytes =
        std::fs::read(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let wrong = |mistakes| ConfigError::Wrong { path: path.to_owned(), mistakes };
    let text = String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&e.as_bytes()[..good]).into_owned();
        let (line, column) = section::place(&before, before.len());
        wrong(vec![Mistake { line, column, message: "not UTF-8, which TOML must be".into() }])
    })?;
    parse(&text).map_err(wrong)
}
