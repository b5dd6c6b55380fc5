//! Transfers as a file that another host can read.
//!
//! Comes in: transfers of a ledger, or such a file, which anybody may have written. Goes out: the other. Called by
//! `commands::transfers` and `verify::manifest`.
//!
//! JSON Lines, so that a person can read it and jq can, too: a header, one `transfer` object a line as everywhere
//! else, and a last line with their number and the SHA-256 of all before it. A file that was cut off or damaged is
//! known by that and refused whole; it is no signature, and keeps nobody from writing another file. What is read is
//! bounded ([`read`]) and believed in nothing: it is shown as another host's word, beside our own.
#![forbid(unsafe_code)]

mod pair;
mod read;
mod write;

pub use pair::{Half, Halves, Pair, Role, pair};
pub use read::{Header, PortableError, read};
pub use write::Writer;

/// How such a file begins.
pub const BEGINNING: &[u8] = br#"{"type":"manifest","#;
/// What its header calls it.
const FORMAT: &str = "counterfoil-transfers";
/// Raised when an old program could misread a new file.
const VERSION: u64 = 1;

/// A path of our JSON as bytes: `\xNN` where that stands for a byte that isn't UTF-8. (A name that itself has a
/// backslash before such digits can't be told from that.)
#[must_use]
pub fn path_bytes(path: &str) -> Vec<u8> {
    let hex = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if bytes[at..].starts_with(b"\\x")
            && let (Some(high @ 8..), Some(low)) = (hex(bytes.get(at + 2)), hex(bytes.get(at + 3)))
        {
            out.push(high << 4 | low);
            at += 4;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests;
