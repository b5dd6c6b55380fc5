//! What stands against what.
//!
//! Comes in: the two operands. Goes out: for each name either the finding already, or what has to be read for it.
//! Called by [`super::compare`]. Folders are listed here, side by side; contents are not touched.
#![forbid(unsafe_code)]

use super::folder::{Folder, Kind, Listed};
use super::manifest::{Claim, Manifest};
use super::{Entry, Facts, Operand, Side, State, Trouble};
use crate::portable;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// What is to be done for one name.
pub enum Planned {
    /// It is known already.
    Told(Entry),
    /// It has to be read.
    Read {
        /// Relative to both sides.
        path: Vec<u8>,
        /// What of it.
        task: Task,
        /// How much that will be.
        bytes: u64,
    },
}

/// What has to be read.
pub enum Task {
    /// Both files, byte by byte.
    Bytes,
    /// One file's digest, to be laid beside what a manifest says.
    Digest {
        /// What it says.
        listed: Facts,
        /// The side that is a folder.
        in_folder: Side,
    },
}

impl Planned {
    /// Its name.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        match self {
            Self::Told(entry) => &entry.path,
            Self::Read { path, .. } => path,
        }
    }

    /// What is to be read for it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Told(_) => 0,
            Self::Read { bytes, .. } => *bytes,
        }
    }
}

/// Lays them side by side. The number is of what stands beside a manifest's files, where that is no difference.
pub fn plan(a: &Operand, b: &Operand, exact: bool) -> (Vec<Planned>, u64) {
    match (a, b) {
        (Operand::File(x), Operand::File(y)) => {
            let length = |f: &std::fs::File| f.metadata().map_or(0, |m| m.len());
            let bytes = length(x).max(length(y));
            (vec![Planned::Read { path: vec![], task: Task::Bytes, bytes }], 0)
        }
        (Operand::Folder(x), Operand::Folder(y)) => (folders(x, y), 0),
        (Operand::Manifest(m), Operand::Folder(f)) => manifest_and_folder(m, f, Side::B, exact),
        (Operand::Folder(f), Operand::Manifest(m)) => manifest_and_folder(m, f, Side::A, exact),
        (Operand::Manifest(x), Operand::Manifest(y)) => (manifests(x, y), 0),
        (Operand::File(_), _) | (_, Operand::File(_)) => {
            let why = "a file can only be compared with a file";
            (vec![Planned::Told(Entry::trouble(b"", None, None, why))], 0)
        }
    }
}

fn folders(a: &Folder, b: &Folder) -> Vec<Planned> {
    let mut out = Vec::new();
    let mut open = vec![vec![]];
    while let Some(at) = open.pop() {
        let lists = a
            .list(&at)
            .map_err(|e| Trouble::of(Side::A, &e))
            .and_then(|x| Ok((x, b.list(&at).map_err(|e| Trouble::of(Side::B, &e))?)));
        match lists {
            Err(trouble) => out.push(Planned::Told(Entry::trouble(&at, None, None, trouble.why))),
            Ok((x, y)) => merge(x, y, |name, one, other| {
                let path = join(&at, name);
                match pair(&path, one, other) {
                    Some(planned) => out.push(planned),
                    None => open.push(path),
                }
            }),
        }
    }
    out
}

type Found = Option<Result<Kind, std::io::Error>>;

/// Two sorted lists as one.
fn merge(a: Vec<Listed>, b: Vec<Listed>, mut each: impl FnMut(&[u8], Found, Found)) {
    let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((x, _)), Some((y, _))) => x.cmp(y),
        };
        let one = if order == Ordering::Greater { None } else { a.next() };
        let other = if order == Ordering::Less { None } else { b.next() };
        let (one, other) = (one.unzip(), other.unzip());
        if let Some(name) = one.0.or(other.0) {
            each(&name, one.1, other.1);
        }
    }
}

/// What there is to do for one name; None: both are folders, look inside.
fn pair(path: &[u8], one: Found, other: Found) -> Option<Planned> {
    let told = |state, a: Option<&Kind>, b: Option<&Kind>| {
        Some(Planned::Told(Entry::new(path, state, a.map(Facts::of), b.map(Facts::of))))
    };
    let (one, other) = match (one.transpose(), other.transpose()) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(e), _) => return Some(trouble(path, Side::A, &e)),
        (_, Err(e)) => return Some(trouble(path, Side::B, &e)),
    };
    match (&one, &other) {
        (Some(Kind::Folder), Some(Kind::Folder)) => None,
        (Some(Kind::File(x)), Some(Kind::File(y))) => {
            Some(Planned::Read { path: path.to_vec(), task: Task::Bytes, bytes: (*x).max(*y) })
        }
        (Some(Kind::Link(x)), Some(Kind::Link(y))) => {
            told(if x == y { State::Equal } else { State::Different }, one.as_ref(), other.as_ref())
        }
        (Some(Kind::Special(x)), Some(Kind::Special(y))) if x == y => {
            told(State::Skipped, one.as_ref(), other.as_ref())
        }
        (Some(_), None) => told(State::Missing, one.as_ref(), None),
        (None, Some(_)) => told(State::Extra, None, other.as_ref()),
        _ => told(State::Type, one.as_ref(), other.as_ref()),
    }
}

fn trouble(path: &[u8], side: Side, e: &std::io::Error) -> Planned {
    Planned::Told(Entry::trouble(path, None, None, Trouble::of(side, e).why))
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

fn facts(claim: &Claim) -> Facts {
    let sha256 = if let Claim::Sha(sha) = claim { Some(*sha) } else { None };
    Facts { kind: "file", sha256, ..Facts::default() }
}

/// Why a claim can't be compared.
fn doubt(claim: &Claim, side: Side) -> Option<String> {
    let side = side.word();
    match claim {
        Claim::Sha(_) => None,
        Claim::Unknown => Some(format!("{side} has no SHA-256 of it")),
        Claim::Conflict => {
            Some(format!("{side} has two different SHA-256 of it; of an export choose one end with --end"))
        }
    }
}

fn manifest_and_folder(m: &Manifest, folder: &Folder, in_folder: Side, exact: bool) -> (Vec<Planned>, u64) {
    let listing = if in_folder == Side::A { Side::B } else { Side::A };
    let order = |listed: Option<Facts>, found: Option<Facts>| {
        if in_folder == Side::A { (found, listed) } else { (listed, found) }
    };
    let mut out = Vec::new();
    for (path, claim) in &m.files {
        let entry = |state, found: Option<Facts>| {
            let (a, b) = order(Some(facts(claim)), found);
            Planned::Told(Entry::new(path, state, a, b))
        };
        if path.starts_with(b"/") || path.split(|&b| b == b'/').any(|part| part == b"..") {
            let why = "this path leads out of the folder; it was not followed";
            out.push(Planned::Told(Entry::trouble(path, None, None, why)));
            continue;
        }
        out.push(match folder.look(path) {
            Err(e) => trouble(path, in_folder, &e),
            Ok(None) => entry(if in_folder == Side::B { State::Missing } else { State::Extra }, None),
            Ok(Some(kind @ Kind::File(bytes))) => match doubt(claim, listing) {
                None => Planned::Read {
                    path: path.clone(),
                    task: Task::Digest { listed: facts(claim), in_folder },
                    bytes,
                },
                Some(why) => {
                    let (a, b) = order(Some(facts(claim)), Some(Facts::of(&kind)));
                    Planned::Told(Entry::trouble(path, a, b, why))
                }
            },
            Ok(Some(kind)) => entry(State::Type, Some(Facts::of(&kind))),
        });
    }
    let mut beside = 0;
    others(folder, &m.files, |path, found| {
        if exact || found.is_err() {
            out.push(match found {
                Ok(kind) => {
                    let (a, b) = order(None, Some(Facts::of(&kind)));
                    let state = if in_folder == Side::B { State::Extra } else { State::Missing };
                    Planned::Told(Entry::new(path, state, a, b))
                }
                Err(e) => trouble(path, in_folder, &e),
            });
        } else {
            beside += 1;
        }
    });
    (out, beside)
}

/// What is in a folder and not among `known`; folders themselves don't count.
fn others(
    folder: &Folder,
    known: &BTreeMap<Vec<u8>, Claim>,
    mut each: impl FnMut(&[u8], Result<Kind, std::io::Error>),
) {
    let mut open = vec![vec![]];
    while let Some(at) = open.pop() {
        match folder.list(&at) {
            Err(e) => each(&at, Err(e)),
            Ok(list) => {
                for (name, kind) in list {
                    let path = join(&at, &name);
                    match kind {
                        Ok(Kind::Folder) => open.push(path),
                        kind if !known.contains_key(&path) => each(&path, kind),
                        _ => {}
                    }
                }
            }
        }
    }
}

fn manifests(a: &Manifest, b: &Manifest) -> Vec<Planned> {
    let (pairs, shared) = portable::pair(&a.halves, &b.halves);
    if shared {
        return pairs.into_iter().map(|p| Planned::Told(half_pair(&p))).collect();
    }
    let mut out = Vec::new();
    let paths: std::collections::BTreeSet<&Vec<u8>> = a.files.keys().chain(b.files.keys()).collect();
    for path in paths {
        let (one, other) = (a.files.get(path), b.files.get(path));
        let (x, y) = (one.map(facts), other.map(facts));
        let why = one
            .and_then(|c| doubt(c, Side::A))
            .or_else(|| other.and_then(|c| doubt(c, Side::B)))
            .filter(|_| one.is_some() && other.is_some());
        let state = match (one, other) {
            (Some(_), None) => State::Missing,
            (None, _) => State::Extra,
            _ if why.is_some() => State::Error,
            (one, other) if one == other => State::Equal,
            _ => State::Different,
        };
        out.push(Planned::Told(Entry { why, ..Entry::new(path, state, x, y) }));
    }
    out
}

/// Two ends of one connection, from two hosts.
fn half_pair(pair: &portable::Pair<'_>) -> Entry {
    let facts = |half: &portable::Half| Facts {
        kind: "file",
        bytes: Some(half.bytes),
        sha256: half.sha256,
        target: None,
    };
    let (a, b) = (pair.a.map(facts), pair.b.map(facts));
    let state = match (&a, &b, pair.equal()) {
        (Some(_), None, _) => State::Missing,
        (None, _, _) => State::Extra,
        (_, _, Some(true)) => State::Equal,
        (_, _, Some(false)) => State::Different,
        (_, _, None) => State::Error,
    };
    let why = (state == State::Error).then(|| "one side has no SHA-256 of it".to_owned());
    Entry { why, ..Entry::new(pair.name().as_bytes(), state, a, b) }
}
