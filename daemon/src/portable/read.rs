//! Reads a portable file, which anybody may have written.
#![forbid(unsafe_code)]

use super::{FORMAT, VERSION};
use crate::escape::clip;
use crate::model::{Endpoint, ProcessName, Transfer};
use crate::verify::checksums::{hex, unhex};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::io::{self, BufRead, Read};

/// Longest line. A transfer's own is some kilobytes; its argv and `also` are bounded where they are made.
const MAX_LINE: usize = 1 << 20;
/// Transfers in one file.
const MAX_TRANSFERS: u64 = 1_000_000;
/// Characters of one text: a path of 4096 bytes, all of them written `\xNN`.
const MAX_TEXT: usize = 4 * 4096;
/// Texts in one list.
const MAX_LIST: usize = 4096;

/// What a file says of itself.
#[derive(Clone, Debug, Deserialize)]
pub struct Header {
    format: String,
    version: u64,
    /// The host whose ledger it is.
    pub host: String,
    /// When it was written.
    pub exported: jiff::Timestamp,
}

#[derive(Deserialize)]
struct End {
    transfers: u64,
    sha256: String,
}

/// What kind a line is.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PortableError {
    /// Reading failed.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// It is something else.
    #[error("this is no export of counterfoil transfers (its first line is another)")]
    Other,
    /// A newer program wrote it.
    #[error(
        "a newer counterfoil wrote it (version {0}, this one knows {VERSION}): use that, or export it again"
    )]
    Newer(u64),
    /// A line is wrong.
    #[error("line {line}: {why}. The file is damaged, or was not written by counterfoil: export it again")]
    Line {
        /// Which, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Its end is missing.
    #[error("it ends before its last line: it was cut off. Copy it again")]
    Cut,
    /// Its last line doesn't fit to the others.
    #[error("its contents are not what was written (the SHA-256 in its last line is another). Copy it again")]
    Damaged,
}

/// Reads a file; `each` gets its transfers until it says false. Only when this returns well is the file known to be
/// whole.
///
/// # Errors
/// It isn't such a file, is damaged, or goes beyond a bound.
pub fn read(mut from: impl BufRead, mut each: impl FnMut(Transfer) -> bool) -> Result<Header, PortableError> {
    let mut line = Vec::new();
    let mut sum = Sha256::new();
    if !next(&mut from, &mut line)? {
        return Err(PortableError::Other);
    }
    let header: Header = serde_json::from_slice(&line).map_err(|_| PortableError::Other)?;
    if header.format != FORMAT {
        return Err(PortableError::Other);
    }
    if header.version > VERSION {
        return Err(PortableError::Newer(header.version));
    }
    let mut transfers = 0;
    for number in 2_u64.. {
        let wrong = |why: String| {
            // An error may quote what it didn't understand, however long that is.
            let why = clip(&why, 200).into_owned();
            PortableError::Line { line: number, why }
        };
        if line.len() > MAX_LINE {
            return Err(wrong(format!("it is longer than {MAX_LINE} bytes")));
        }
        sum.update(&line);
        if !next(&mut from, &mut line)? {
            return Err(PortableError::Cut);
        }
        let kind: Line<'_> = serde_json::from_slice(&line).map_err(|e| wrong(e.to_string()))?;
        match &*kind.kind {
            "transfer" => {
                transfers += 1;
                if transfers > MAX_TRANSFERS {
                    return Err(wrong(format!("more than {MAX_TRANSFERS} transfers")));
                }
                let transfer: Transfer = serde_json::from_slice(&line).map_err(|e| wrong(e.to_string()))?;
                sound(&transfer).map_err(|why| wrong(why.into()))?;
                if !each(transfer) {
                    return Ok(header);
                }
            }
            "end" => {
                let end: End = serde_json::from_slice(&line).map_err(|e| wrong(e.to_string()))?;
                let found = hex(&sum.finalize().into());
                if found != end.sha256 || end.transfers != transfers {
                    return Err(PortableError::Damaged);
                }
                return if next(&mut from, &mut line)? { Err(PortableError::Damaged) } else { Ok(header) };
            }
            other => {
                return Err(wrong(format!("no line has the type {other:?}")));
            }
        }
    }
    Err(PortableError::Cut)
}

/// The next line, with its newline: without one the file was cut off. False: the end.
fn next(from: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, PortableError> {
    line.clear();
    let read = from.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', line)?;
    if read > 0 && read <= MAX_LINE && !line.ends_with(b"\n") {
        return Err(PortableError::Cut);
    }
    Ok(read > 0)
}

/// What our own transfers always are, and what all that handles them relies on.
fn sound(t: &Transfer) -> Result<(), &'static str> {
    let text = |s: &Option<String>| s.as_ref().is_none_or(|s| s.len() <= MAX_TEXT);
    let digits = |s: &Option<String>, n: usize| {
        s.as_ref().is_none_or(|s| s.len() == n && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    };
    let names = |list: &[ProcessName]| list.len() <= MAX_LIST && list.iter().all(|p| text(&p.exe));
    if !digits(&t.flow, 32) {
        return Err("its flow is not 32 hex digits");
    }
    for end in [&t.origin, &t.destination].into_iter().flatten() {
        let Endpoint { host, exe, argv, parent, local, remote, path, sha256, also, .. } = end;
        if host.len() > 255 || [exe, local, remote, path].into_iter().any(|s| !text(s)) {
            return Err("a text in it is too long");
        }
        if sha256.as_ref().is_some_and(|s| unhex(s.as_bytes()).is_none()) {
            return Err("a SHA-256 in it is not 64 hex digits");
        }
        let long = |a: &Vec<String>| a.len() > MAX_LIST || a.iter().any(|s| s.len() > 16 * MAX_TEXT);
        if argv.as_ref().is_some_and(long) || !names(also) || parent.as_ref().is_some_and(|p| !text(&p.exe)) {
            return Err("a list or a text in it is too long");
        }
    }
    if t.legs.len() > MAX_LIST || t.altered.len() > 1 << 16 || t.reasons.len() > 64 || t.strip.len() > 1 << 16
    {
        return Err("a list in it is too long");
    }
    if [&t.origin_digest, &t.destination_digest].into_iter().any(|s| !text(s)) {
        return Err("a text in it is too long");
    }
    let mut end = 0;
    for range in &t.altered {
        let Some(next) = range.offset.checked_add(range.length) else {
            return Err("a range in it has no end");
        };
        if range.offset < end {
            return Err("its ranges are not in order");
        }
        end = next;
    }
    Ok(())
}
