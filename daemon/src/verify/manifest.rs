//! What a manifest says of files: an export of `counterfoil transfers`, or what `sha256sum` wrote.
//!
//! Comes in: the manifest's bytes, which anybody may have written. Goes out: a path and a digest for each file.
//! Called by `commands::verify`; [`super::plan`] lays it beside something. Bounded: a longer line or a longer list
//! is refused, as is a line that isn't understood: half a manifest would pass for a whole one.
#![forbid(unsafe_code)]

use super::bytes::Sha;
use super::checksums;
use crate::model::{Channel, Endpoint, Tap, Transfer};
use crate::portable::{self, Half, PortableError, Role};
use std::collections::BTreeMap;
use std::io::{self, BufRead};

/// Files in one manifest.
const MAX_FILES: usize = 4_000_000;
/// A line of `sha256sum`: the longest path, all of it escaped.
const MAX_LINE: usize = 16 << 10;

/// What is said of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Its SHA-256.
    Sha(Sha),
    /// The manifest knows the file, not its digest.
    Unknown,
    /// The manifest says two things.
    Conflict,
}

/// A manifest.
#[derive(Default)]
pub struct Manifest {
    /// By path.
    pub files: BTreeMap<Vec<u8>, Claim>,
    /// Ends of transfers whose other end was not observed: another manifest may have it.
    pub halves: Vec<Half>,
}

/// Why a manifest can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It can't be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// An export that is damaged.
    #[error("{0}")]
    Export(#[from] PortableError),
    /// A line that isn't sha256sum's.
    #[error(
        "line {0} is neither a sha256sum line (DIGEST  NAME) nor is this an export of counterfoil transfers: \
         write it again"
    )]
    Line(u64),
    /// Too many files.
    #[error("it names more than {MAX_FILES} files: split it")]
    Long,
}

impl Manifest {
    /// Reads a manifest of either kind. `end`: of an export only this end's files.
    ///
    /// # Errors
    /// It isn't one, or is damaged, or too large.
    pub fn read(mut from: impl BufRead, end: Option<Role>) -> Result<Self, ManifestError> {
        let start = from.fill_buf()?;
        if start.starts_with(portable::BEGINNING) { Self::export(from, end) } else { Self::sums(from) }
    }

    fn sums(mut from: impl BufRead) -> Result<Self, ManifestError> {
        let mut manifest = Self::default();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = io::Read::take(&mut from, MAX_LINE as u64 + 1).read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            // The last line may have no newline, as an editor leaves it.
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if read > MAX_LINE {
                return Err(ManifestError::Line(number));
            }
            let (name, sha) = checksums::read(text).map_err(|_| ManifestError::Line(number))?;
            let claim = Claim::Sha(sha);
            let known = manifest.files.entry(tidy(&name)).or_insert_with(|| claim.clone());
            if *known != claim {
                *known = Claim::Conflict;
            }
            if manifest.files.len() > MAX_FILES {
                return Err(ManifestError::Long);
            }
        }
        Ok(manifest)
    }

    fn export(from: impl BufRead, end: Option<Role>) -> Result<Self, ManifestError> {
        let mut manifest = Self::default();
        let mut halves = portable::Halves::default();
        let mut long = false;
        portable::read(from, |transfer| {
            halves.take(&transfer, end);
            manifest.take(&transfer, end);
            long |= manifest.files.len() > MAX_FILES;
            !long
        })?;
        if long {
            return Err(ManifestError::Long);
        }
        manifest.halves = halves.finish();
        manifest.halves.retain(|half| half.file);
        Ok(manifest)
    }

    /// A later transfer knows better than an earlier one; the two ends of one transfer may not disagree.
    fn take(&mut self, transfer: &Transfer, end: Option<Role>) {
        let ends = [(Role::Origin, &transfer.origin), (Role::Destination, &transfer.destination)];
        let files: Vec<(Vec<u8>, Claim)> = ends
            .into_iter()
            .filter(|(role, _)| end.is_none_or(|wanted| wanted == *role))
            .filter_map(|(_, e)| file(e.as_ref()?, transfer.channel))
            .collect();
        let disagree = matches!(&files[..], [(one, x), (other, y)] if one == other && x != y);
        for (path, claim) in files {
            self.files.insert(path, if disagree { Claim::Conflict } else { claim });
        }
    }

    /// Makes paths relative to `base`, and to `folder` where the other side is one. Returns how many lie elsewhere
    /// and were dropped.
    pub fn relative(&mut self, base: Option<&[u8]>, folder: Option<&[u8]>) -> u64 {
        let mut elsewhere = 0;
        for (path, claim) in std::mem::take(&mut self.files) {
            let cut = base.and_then(|b| below(&path, b)).or_else(|| folder.and_then(|f| below(&path, f)));
            let path = match cut {
                Some(cut) => cut.to_vec(),
                None if folder.is_some() && path.starts_with(b"/") => {
                    elsewhere += 1;
                    continue;
                }
                None => path,
            };
            let known = self.files.entry(path).or_insert_with(|| claim.clone());
            if *known != claim {
                *known = Claim::Conflict;
            }
        }
        elsewhere
    }
}

/// A file at one end of a transfer. (FIFOs and sockets have paths as well.)
fn file(end: &Endpoint, channel: Channel) -> Option<(Vec<u8>, Claim)> {
    let of_file =
        channel == Channel::File || matches!(end.tap, Tap::FileRead | Tap::FileWrite) || end.sha256.is_some();
    let path = portable::path_bytes(end.path.as_deref().filter(|_| of_file)?);
    let sha = end.sha256.as_deref().and_then(|s| checksums::unhex(s.as_bytes()));
    Some((tidy(&path), sha.map_or(Claim::Unknown, Claim::Sha)))
}

/// Without `./` and doubled slashes. `..` stays: such a path is told as an error, not resolved.
fn tidy(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path.split(|&b| b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    let joined = parts.join(&b'/');
    if path.starts_with(b"/") { [b"/", &joined[..]].concat() } else { joined }
}

/// `path` from `folder` on.
fn below<'p>(path: &'p [u8], folder: &[u8]) -> Option<&'p [u8]> {
    let folder = folder.strip_suffix(b"/").unwrap_or(folder);
    path.strip_prefix(folder)?.strip_prefix(b"/").filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(text: &str) -> Result<Manifest, ManifestError> {
        Manifest::read(text.as_bytes(), None)
    }

    #[test]
    fn a_sha256sum_file() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let m = sums(&format!("{a}  ./x/y\n{b} */abs//z\r\n{a}  x/y")).unwrap();
        assert_eq!(m.files[&b"x/y"[..]], Claim::Sha([0xaa; 32]));
        assert_eq!(m.files[&b"/abs/z"[..]], Claim::Sha([0xbb; 32]));
        assert_eq!(sums(&format!("{a}  x\n{b}  x\n")).unwrap().files[&b"x"[..]], Claim::Conflict);
        assert!(matches!(sums(&format!("{a}  x\nnonsense\n")), Err(ManifestError::Line(2))));
        assert!(matches!(sums(&format!("{a}  {}", "x".repeat(20_000))), Err(ManifestError::Line(1))));
        assert!(sums("").unwrap().files.is_empty());
    }

    #[test]
    fn paths_relative_to_a_folder() {
        let a = "a".repeat(64);
        let text = format!("{a}  /srv/in/x\n{a}  /srv/in2/y\n{a}  rel/z\n{a}  /old/w/v\n");
        let mut m = sums(&text).unwrap();
        assert_eq!(m.relative(None, Some(b"/srv/in")), 2);
        assert_eq!(m.files.keys().collect::<Vec<_>>(), [&b"rel/z"[..], b"x"]);
        let mut m = sums(&text).unwrap();
        assert_eq!(m.relative(Some(b"/old/w/"), Some(b"/srv/in")), 1);
        assert_eq!(m.files.keys().collect::<Vec<_>>(), [&b"rel/z"[..], b"v", b"x"]);
        let mut m = sums(&text).unwrap();
        assert_eq!(m.relative(Some(b"/"), None), 0);
        assert!(m.files.contains_key(&b"srv/in/x"[..]));
    }

    /// Whatever is read, it ends, within bounds and without a panic.
    #[test]
    fn random_bytes_are_survived() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..3000 {
            let mut bytes = vec![];
            for _ in 0..round % 200 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes.push(state as u8);
            }
            if let Ok(mut manifest) = Manifest::read(&bytes[..], None) {
                manifest.relative(Some(b"/x"), Some(b"/"));
                assert!(bytes.is_empty() || !manifest.files.is_empty());
            }
        }
    }
}
