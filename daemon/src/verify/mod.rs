//! Verify: are two files, folders or manifests the same, and if not, where not?
//!
//! Comes in: two [`Operand`]s. Goes out: an [`Entry`] for each that differs or could not be compared, in the
//! order of paths, and a [`Summary`]. Called by `commands::verify`. What stands in the way of an answer (a file
//! that may not be read, a FIFO, a file that changes meanwhile) is never "equal".
//!
//! [`plan`] says what stands against what, without reading contents; then the contents are read, several
//! files at once.
#![forbid(unsafe_code)]

pub mod bytes;
pub mod checksums;
pub mod folder;
pub mod manifest;
pub mod plan;

use crate::model::Range;
use bytes::{Content, Sha};
use folder::{Folder, Kind};
use manifest::Manifest;
use plan::{Planned, Task};
use rayon::prelude::*;
use std::fs::File;
use std::io;

/// Ranges that are listed of one file.
pub const RANGES: usize = 512;
/// Files that are read before the next findings are told.
const BATCH: usize = 256;

/// What is compared.
pub enum Operand {
    /// One file's bytes.
    File(File),
    /// All that is in a folder.
    Folder(Folder),
    /// What a manifest says of files.
    Manifest(Manifest),
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum Side {
    A,
    B,
}

impl Side {
    /// `A` or `B`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// On which side.
    pub side: Side,
    /// What it is, and what to do.
    pub why: String,
}

impl Trouble {
    fn of(side: Side, e: &io::Error) -> Self {
        use rustix::io::Errno;
        let advice = match Errno::from_io_error(e) {
            Some(Errno::ACCESS | Errno::PERM) => ": run this as a user who may read it",
            Some(Errno::NOENT | Errno::LOOP) => {
                ": it was removed or replaced meanwhile; try again when nobody changes the folder"
            }
            Some(Errno::IO) => ": the disk or network behind it failed; the kernel's log (dmesg) says more",
            _ => "",
        };
        // Without Rust's "(os error 13)".
        let text = e.to_string();
        let text = text.split(" (os error").next().unwrap_or(&text);
        Self { side, why: format!("can't read it in {}: {text}{advice}", side.word()) }
    }

    fn changed(side: Side) -> Self {
        let why =
            format!("it changed in {} while it was read; try again when nobody writes to it", side.word());
        Self { side, why }
    }
}

/// How an entry compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The same.
    Equal,
    /// The same name, other content.
    Different,
    /// A has it, B hasn't.
    Missing,
    /// B has it, A hasn't.
    Extra,
    /// A file here, a folder or link there.
    Type,
    /// Not a file, folder or link: it was not opened.
    Skipped,
    /// No answer; `why` says why.
    Error,
}

impl State {
    /// Its word in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Type => "type",
            Self::Skipped => "skipped",
            Self::Error => "error",
        }
    }
}

/// What one side has under a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `file`, `folder`, `link`, `fifo` …
    pub kind: &'static str,
    /// A file's length, where known.
    pub bytes: Option<u64>,
    /// A file's SHA-256, where known.
    pub sha256: Option<Sha>,
    /// A link's target.
    pub target: Option<Vec<u8>>,
}

impl Facts {
    fn of(kind: &Kind) -> Self {
        let mut facts = Self { kind: kind.word(), ..Self::default() };
        match kind {
            Kind::File(bytes) => facts.bytes = Some(*bytes),
            Kind::Link(target) => facts.target = Some(target.clone()),
            Kind::Folder | Kind::Special(_) => {}
        }
        facts
    }

    fn content(content: Content) -> Self {
        Self { kind: "file", bytes: Some(content.bytes), sha256: Some(content.sha256), target: None }
    }
}

/// One name, compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to both sides; empty for two files.
    pub path: Vec<u8>,
    /// How it compares.
    pub state: State,
    /// What A has.
    pub a: Option<Facts>,
    /// What B has.
    pub b: Option<Facts>,
    /// Where the first byte differs that both have; None where only digests were compared.
    pub first: Option<u64>,
    /// Blocks that differ, as far as both go.
    pub ranges: Vec<Range>,
    /// Ranges beyond those.
    pub more: u64,
    /// Why there is no answer, or what else is to be said.
    pub why: Option<String>,
}

impl Entry {
    fn new(path: &[u8], state: State, a: Option<Facts>, b: Option<Facts>) -> Self {
        Self { path: path.to_vec(), state, a, b, first: None, ranges: vec![], more: 0, why: None }
    }

    fn trouble(path: &[u8], a: Option<Facts>, b: Option<Facts>, why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..Self::new(path, State::Error, a, b) }
    }
}

/// How it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as State")]
pub struct Summary {
    pub equal: u64,
    pub different: u64,
    pub missing: u64,
    pub extra: u64,
    pub types: u64,
    pub skipped: u64,
    pub errors: u64,
    /// What B has beside a manifest's files, which is no difference.
    pub beside: u64,
    /// Bytes compared.
    pub bytes: u64,
}

impl Summary {
    /// Everything was compared, and everything is the same.
    #[must_use]
    pub fn all_equal(&self) -> bool {
        let Self { different, missing, extra, types, skipped, errors, .. } = *self;
        different + missing + extra + types + skipped + errors == 0
    }

    fn count(&mut self, entry: &Entry) {
        let counter = match entry.state {
            State::Equal => &mut self.equal,
            State::Different => &mut self.different,
            State::Missing => &mut self.missing,
            State::Extra => &mut self.extra,
            State::Type => &mut self.types,
            State::Skipped => &mut self.skipped,
            State::Error => &mut self.errors,
        };
        *counter += 1;
        let bytes = |f: &Option<Facts>| f.as_ref().and_then(|f| f.bytes).unwrap_or(0);
        if matches!(entry.state, State::Equal | State::Different) {
            self.bytes = self.bytes.saturating_add(bytes(&entry.a).max(bytes(&entry.b)));
        }
    }
}

/// Who listens.
pub trait Listener: Sync {
    /// So many bytes are to be read.
    fn total(&self, bytes: u64);
    /// So many more were.
    fn progress(&self, bytes: u64);
}

/// Compares. `tell` gets every entry, the equal ones as well; false from it ends the work early.
/// `exact`: what B has beside the files that a manifest A names counts as extra.
pub fn compare(
    a: &Operand,
    b: &Operand,
    exact: bool,
    listener: &dyn Listener,
    mut tell: impl FnMut(&Entry) -> bool,
) -> Summary {
    let (mut planned, beside) = plan::plan(a, b, exact);
    planned.sort_by(|x, y| x.path().cmp(y.path()));
    listener.total(planned.iter().map(Planned::bytes).fold(0, u64::saturating_add));
    let mut summary = Summary { beside, ..Summary::default() };
    for batch in planned.chunks(BATCH) {
        let entries: Vec<Entry> = batch.par_iter().map(|p| settle(p, a, b, listener)).collect();
        for entry in &entries {
            summary.count(entry);
            if !tell(entry) {
                return summary;
            }
        }
    }
    summary
}

fn settle(planned: &Planned, a: &Operand, b: &Operand, listener: &dyn Listener) -> Entry {
    match planned {
        Planned::Told(entry) => entry.clone(),
        Planned::Read { path, task, .. } => {
            read(path, task, a, b, listener).unwrap_or_else(|t| Entry::trouble(path, None, None, t.why))
        }
    }
}

fn read(
    path: &[u8],
    task: &Task,
    a: &Operand,
    b: &Operand,
    listener: &dyn Listener,
) -> Result<Entry, Trouble> {
    let progress = |bytes| listener.progress(bytes);
    match task {
        Task::Bytes => {
            let compared = bytes::compare(&open(a, Side::A, path)?, &open(b, Side::B, path)?, &progress)?;
            let state = if compared.equal() { State::Equal } else { State::Different };
            Ok(Entry {
                first: compared.first,
                ranges: compared.ranges,
                more: compared.more,
                ..Entry::new(path, state, Some(Facts::content(compared.a)), Some(Facts::content(compared.b)))
            })
        }
        Task::Digest { listed, in_folder } => {
            let operand = if *in_folder == Side::A { a } else { b };
            let found = bytes::content(&open(operand, *in_folder, path)?, *in_folder, &progress)?;
            let same = listed.sha256 == Some(found.sha256) && listed.bytes.is_none_or(|b| b == found.bytes);
            let (found, listed) = (Some(Facts::content(found)), Some(listed.clone()));
            let (a, b) = if *in_folder == Side::A { (found, listed) } else { (listed, found) };
            Ok(Entry::new(path, if same { State::Equal } else { State::Different }, a, b))
        }
    }
}

fn open(operand: &Operand, side: Side, path: &[u8]) -> Result<File, Trouble> {
    match operand {
        Operand::File(file) => file.try_clone(),
        Operand::Folder(folder) => folder.open(path),
        Operand::Manifest(_) => Err(io::Error::other("a manifest has no contents")),
    }
    .map_err(|e| Trouble::of(side, &e))
}

#[cfg(test)]
mod tests;
