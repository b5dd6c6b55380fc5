//! The lines of `sha256sum`, read and written.
//!
//! Comes in: a line, or a path and a digest. Goes out: the other. Called by [`super::manifest`] and by the
//! export of a ledger. Both of its forms are read, `DIGEST  NAME` (with `*` for binary) and
//! `SHA256 (NAME) = DIGEST`; a backslash before the line says that the name is escaped.
#![forbid(unsafe_code)]

use super::bytes::Sha;
use std::fmt::Write;

/// A digest in hex.
#[must_use]
pub fn hex(sha: &Sha) -> String {
    sha.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 64 hex digits.
#[must_use]
pub fn unhex(text: &[u8]) -> Option<Sha> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut sha = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in sha.iter_mut().zip(text.chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(sha)
}

/// Why a line is none of `sha256sum`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Anything else.
    #[error("no line of sha256sum: write `<64 hex digits>  /path`, or `SHA256 (/path) = <64 hex digits>`")]
    Form,
    /// Of another sum's program.
    #[error("a SHA-256 has 64 hex digits; other digests can't be compared")]
    Digest,
    /// A name that can't be one.
    #[error("it names no file")]
    Name,
    /// A line that begins with a backslash escapes its name.
    #[error("a backslash that escapes nothing")]
    Escape,
}

/// A line's name and digest, without its newline.
///
/// # Errors
/// It is no such line.
pub fn read(line: &[u8]) -> Result<(Vec<u8>, Sha), Wrong> {
    let (escaped, line) = match line.strip_prefix(b"\\") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (digest, name) = if let Some(tagged) = line.strip_prefix(b"SHA256 (") {
        let middle = tagged.windows(4).rposition(|w| w == b") = ").ok_or(Wrong::Form)?;
        (&tagged[middle + 4..], &tagged[..middle])
    } else {
        let space = line.iter().position(|b| *b == b' ').ok_or(Wrong::Form)?;
        let (digest, rest) = line.split_at(space);
        (digest, rest.strip_prefix(b"  ").or_else(|| rest.strip_prefix(b" *")).ok_or(Wrong::Form)?)
    };
    let hexadecimal = digest.iter().all(u8::is_ascii_hexdigit);
    let sha = unhex(digest).ok_or(if hexadecimal { Wrong::Digest } else { Wrong::Form })?;
    let name = if escaped { unescape(name).ok_or(Wrong::Escape)? } else { name.to_vec() };
    if name.is_empty() || name.contains(&0) { Err(Wrong::Name) } else { Ok((name, sha)) }
}

/// The line for a name, with its newline.
#[must_use]
pub fn line(name: &[u8], sha256: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 68);
    if name.iter().any(|b| matches!(b, b'\\' | b'\n' | b'\r')) {
        out.push(b'\\');
    }
    out.extend_from_slice(sha256.as_bytes());
    out.extend_from_slice(b"  ");
    for &byte in name {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            byte => out.push(byte),
        }
    }
    out.push(b'\n');
    out
}

fn unescape(name: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(&byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                b'r' => b'\r',
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_sha256sum_writes_is_read_and_what_is_written_it_checks() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let names: [&[u8]; 6] =
            [b"plain", b" two  blanks", b"new\nline", b"back\\slash", b"(x) = y", b"not\xffutf8"];
        for (i, name) in names.iter().enumerate() {
            std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(name)), [i as u8]).unwrap();
        }
        let mut sheet = vec![];
        for tag in [&["-b"][..], &["-t"], &["--tag"]] {
            let mut command = Command::new("sha256sum");
            command.current_dir(dir.path()).args(tag).arg("--");
            command.args(names.iter().map(|n| std::ffi::OsStr::from_bytes(n)));
            let out = command.output().unwrap();
            assert!(out.status.success());
            let lines: Vec<_> = out.stdout.split(|&b| b == b'\n').filter(|l| !l.is_empty()).collect();
            assert_eq!(lines.len(), names.len());
            for (printed, name) in lines.iter().zip(names) {
                let (read_name, sha) = read(printed).unwrap_or_else(|e| panic!("{printed:?}: {e}"));
                assert_eq!(read_name, name);
                sheet.extend(line(&read_name, &hex(&sha)));
            }
        }
        std::fs::write(dir.path().join("SUMS"), sheet).unwrap();
        let checked = Command::new("sha256sum")
            .current_dir(dir.path())
            .args(["-c", "--strict", "SUMS"])
            .output()
            .unwrap();
        assert!(checked.status.success(), "{checked:?}");
    }

    #[test]
    fn other_lines_are_refused() {
        let sha = "a".repeat(64);
        let bad = [
            String::new(),
            sha.clone(),
            format!("{sha}  "),
            format!("{sha} x"),
            format!("{}  x", &sha[1..]),
            format!("g{}  x", &sha[1..]),
            format!("\\{sha}  bad\\escape"),
            format!("\\{sha}  ends\\"),
            format!("{sha}  nul\0"),
            format!("SHA256 (x = {sha}"),
            format!("SHA256 () = {sha}"),
            "SHA256 (".into(),
            format!("MD5 (x) = {sha}"),
        ];
        for line in bad {
            assert!(read(line.as_bytes()).is_err(), "{line:?}");
        }
        assert!(read(format!("{}  x", sha.to_uppercase()).as_bytes()).is_ok());
    }
}
