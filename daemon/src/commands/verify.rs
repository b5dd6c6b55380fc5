//! `counterfoil verify A B`: files, folders or manifests: equal, or where not.
#![forbid(unsafe_code)]

mod words;

use super::{NO, USAGE, print, say};
use crate::portable::Role;
use crate::report::style::Style;
use crate::verify::folder::{Folder, regular};
use crate::verify::manifest::Manifest;
use crate::verify::{self, Entry, Listener, Operand, State};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Compare two files, two folders, or a manifest with either
///
/// Reads both, computes their SHA-256, and says "equal", or which files differ and in which blocks of 16 KiB. Folders
/// are compared with all that is in them: names, contents, and where links point (they are not followed). Owners,
/// modes and times are not compared. What could not be compared, such as a FIFO or a file that this user may not
/// read, is said, and is not equal.
#[derive(clap::Args)]
#[command(after_help = "Manifests:
  A file beside a folder is a manifest: an export of `counterfoil transfers`, or what `sha256sum`
  wrote. Two files are compared byte by byte; with --manifest both are manifests. Paths in a
  manifest are relative to the folder, or absolute and below it or below --base. Other files of the
  folder don't matter, unless with --exact. Exports of two hosts are laid together by the
  connections that they share: what one sent, the other received.

Examples:
  counterfoil verify report.csv /mnt/backup/report.csv
  counterfoil verify /srv/out /mnt/in
  sha256sum *.iso >SUMS; counterfoil verify SUMS /mnt/mirror
  counterfoil transfers --export t.jsonl; counterfoil verify t.jsonl /srv/in --end destination
  counterfoil verify --manifest alpha.jsonl beta.jsonl
  counterfoil verify --json A B | jq -r 'select(.state==\"different\").path'

Exit status: 0 equal; 1 not equal, or not all could be compared; 2 A or B can't be used as given.")]
pub struct Args {
    /// A file, a folder, or a manifest
    #[arg(value_name = "A")]
    a: PathBuf,
    /// What it is compared with
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Files are manifests, not contents
    #[arg(long)]
    manifest: bool,
    /// Of an export, only the files at this end of its transfers
    #[arg(long, value_name = "END")]
    end: Option<End>,
    /// Cut this folder from the beginning of a manifest's paths
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// What a folder has beside a manifest's files is a difference
    #[arg(long)]
    exact: bool,
    /// Say nothing, only give the exit status
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
    /// JSON Lines: an object for each entry that isn't equal, and a summary
    #[arg(long)]
    json: bool,
}

/// An end of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum End {
    /// What was read and sent
    Origin,
    /// What was received and written
    Destination,
}

impl End {
    pub(super) fn role(self) -> Role {
        match self {
            Self::Origin => Role::Origin,
            Self::Destination => Role::Destination,
        }
    }
}

/// Why A or B can't be used: exit status and message.
struct Refused(u8, String);

/// Compares.
pub fn verify(args: &Args) -> anyhow::Result<u8> {
    let (a, b, elsewhere) = match operands(args) {
        Ok(ready) => ready,
        Err(Refused(status, message)) => {
            say(&message);
            return Ok(status);
        }
    };
    let single = matches!((&a, &b), (Operand::File(_), Operand::File(_)));
    let bar = Bar::new(args.quiet);
    let style = Style::stdout();
    let mut written = Ok(true);
    let mut digest = None;
    let summary = verify::compare(&a, &b, args.exact, &bar, |entry| {
        digest = entry.a.as_ref().and_then(|a| a.sha256).filter(|_| single);
        if args.quiet || (entry.state == State::Equal && !(single && args.json)) {
            return true;
        }
        let text = if args.json { words::json(entry, args) } else { words::entry(entry, args, &style) };
        written = bar.0.suspend(|| print(&text));
        matches!(written, Ok(true))
    });
    bar.0.finish_and_clear();
    if !written? {
        return Ok(NO);
    }
    if !args.quiet {
        let text = if args.json {
            words::summary_json(&summary, elsewhere, args)
        } else {
            words::summary(&summary, elsewhere, digest.as_ref(), &style)
        };
        print(&text)?;
    }
    Ok(if summary.all_equal() { 0 } else { NO })
}

fn operands(args: &Args) -> Result<(Operand, Operand, u64), Refused> {
    let folder = |path: &Path| match std::fs::metadata(path) {
        Ok(meta) => Ok(meta.is_dir()),
        Err(e) => Err(Refused(USAGE, format!("{}: {e}", path.display()))),
    };
    let (first, second) = (folder(&args.a)?, folder(&args.b)?);
    let manifests = args.manifest || first != second;
    if !manifests && (args.end.is_some() || args.base.is_some() || args.exact) {
        let message = "--end, --base and --exact are for manifests; two files are manifests with --manifest";
        return Err(Refused(USAGE, message.into()));
    }
    let mut a = operand(&args.a, first, manifests, args.end)?;
    let mut b = operand(&args.b, second, manifests, args.end)?;
    let mut elsewhere = 0;
    for (mine, other, path) in
        [(&mut a, second.then_some(&args.b), &args.a), (&mut b, first.then_some(&args.a), &args.b)]
    {
        let Operand::Manifest(manifest) = mine else { continue };
        if manifest.files.is_empty() {
            return Err(Refused(
                NO,
                format!("{}: it names no file, so there is nothing to compare", path.display()),
            ));
        }
        let beside = other.and_then(|f| f.canonicalize().ok());
        let base = args.base.as_deref().map(|b| b.as_os_str().as_bytes());
        let out = manifest.relative(base, beside.as_deref().map(|f| f.as_os_str().as_bytes()));
        if manifest.files.is_empty() {
            return Err(Refused(
                USAGE,
                format!(
                    "none of the {out} files that {} names lies in {}. Say with --base which folder their paths begin with",
                    path.display(),
                    other.unwrap_or(path).display()
                ),
            ));
        }
        elsewhere += out;
    }
    Ok((a, b, elsewhere))
}

fn operand(path: &Path, folder: bool, manifests: bool, end: Option<End>) -> Result<Operand, Refused> {
    let refused = |e: &dyn std::fmt::Display| Refused(USAGE, format!("{}: {e}", path.display()));
    if folder {
        return Folder::new(path).map(Operand::Folder).map_err(|e| refused(&e));
    }
    let file = open(path).map_err(|e| refused(&e))?;
    if !manifests {
        return Ok(Operand::File(file));
    }
    let manifest = Manifest::read(BufReader::with_capacity(1 << 16, file), end.map(End::role));
    manifest.map(Operand::Manifest).map_err(|e| Refused(NO, format!("{}: {e}", path.display())))
}

/// Opens a regular file; nothing else, which might make us wait or do something.
fn open(path: &Path) -> std::io::Result<File> {
    let no =
        |_| std::io::Error::other("neither a file nor a folder; copy its content to a file and compare that");
    if !std::fs::metadata(path)?.is_file() {
        return Err(no(()));
    }
    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    regular(file).map_err(|_| no(()))
}

/// How far it is; drawn on stderr if that is a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new(quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self(bar)
    }
}

impl Listener for Bar {
    fn total(&self, bytes: u64) {
        self.0.set_length(bytes);
    }

    fn progress(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

/// What an entry is called where its path is empty: the two files themselves.
fn name(entry: &Entry, args: &Args) -> String {
    if entry.path.is_empty() {
        crate::escape::bytes(args.b.as_os_str().as_bytes())
    } else {
        crate::escape::bytes(&entry.path)
    }
}
