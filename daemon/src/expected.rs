//! `[integrity] integrity_baseline`: what files are expected to hold.
//!
//! Comes in: a list as sha256sum(1) writes it, both of its formats. Goes out: an [`Expected`] for `detect`, or every
//! mistake in the list with its line. Called by `commands` at the start, at SIGHUP and for `check`.
#![forbid(unsafe_code)]

use crate::config::{Config, ConfigError, Mistake};
use crate::host::facts::path_text;
use crate::verify::checksums;
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Bytes of the longest list.
const LONGEST: u64 = 256 << 20;
/// Mistakes that are told; a file of another kind is wrong in every line.
const TOLD: usize = 20;

/// The digests that files are expected to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    by_path: HashMap<String, Entry>,
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Lower-case hex.
    pub sha256: String,
    /// The file, links resolved as far as they could be.
    pub path: PathBuf,
    /// The line that says so, from 1.
    pub line: usize,
}

/// The list that `config` names; an empty one if it names none.
///
/// # Errors
/// It can't be read, or has mistakes: then all of them (the first 20).
pub fn of(config: &Config) -> Result<Expected, ConfigError> {
    config.integrity.integrity_baseline.as_deref().map_or(Ok(Expected::default()), load)
}

/// Reads a list.
///
/// # Errors
/// It can't be read, or has mistakes.
pub fn load(list: &Path) -> Result<Expected, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: list.to_owned(), source };
    let meta = std::fs::metadata(list).map_err(unreadable)?;
    if !meta.is_file() || meta.len() > LONGEST {
        let why = if meta.is_file() { "it is longer than 256 MiB" } else { "it is no regular file" };
        return Err(unreadable(std::io::Error::other(why)));
    }
    let bytes = std::fs::read(list).map_err(unreadable)?;
    parse(&bytes, list.parent().unwrap_or(Path::new("/")))
        .map_err(|mistakes| ConfigError::Wrong { path: list.to_owned(), mistakes })
}

/// Reads the text of a list; names without a leading `/` are in `folder`.
///
/// # Errors
/// What is wrong with it, line by line.
pub fn parse(text: &[u8], folder: &Path) -> Result<Expected, Vec<Mistake>> {
    let mut expected = Expected::default();
    let mut mistakes = Vec::new();
    for (line, number) in text.split(|b| *b == b'\n').zip(1..) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() || line.starts_with(b"#") {
            continue;
        }
        let told = match checksums::read(line) {
            Ok((name, sha)) => {
                expected.put(checksums::hex(&sha), &folder.join(OsString::from_vec(name)), number)
            }
            Err(why) => Err(why.to_string()),
        };
        if let Err(message) = told {
            mistakes.push(Mistake { line: number, column: 1, message });
            if mistakes.len() >= TOLD {
                break;
            }
        }
    }
    if mistakes.is_empty() { Ok(expected) } else { Err(mistakes) }
}

impl Expected {
    /// What the file of that name is expected to hold. Names are as in transfers: links resolved, invalid UTF-8 as
    /// `\xNN`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.by_path.get(path)
    }

    /// Files in the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_path.len()
    }

    /// It expects nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    fn put(&mut self, sha256: String, path: &Path, line: usize) -> Result<(), String> {
        let path = resolved(path);
        let name = path_text(path.as_os_str().as_bytes());
        if let Some(other) = self.by_path.get(&name)
            && other.sha256 != sha256
        {
            let name = crate::escape::text(&name);
            return Err(format!("{name} stands in line {} with another digest", other.line));
        }
        self.by_path.insert(name, Entry { sha256, path, line });
        Ok(())
    }
}

/// Links resolved: those of the file itself, else those of its folder, for a file that is not there yet.
fn resolved(path: &Path) -> PathBuf {
    let folder = || {
        let folder = std::fs::canonicalize(path.parent()?).ok()?;
        Some(folder.join(path.file_name()?))
    };
    std::fs::canonicalize(path).ok().or_else(folder).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn reads_what_sha256sum_writes() {
        let dir = tempfile::tempdir().unwrap();
        let folder = std::fs::canonicalize(dir.path()).unwrap();
        let names = ["plain", "two  spaces", "back\\slash", "new\nline", "-o", "paren) = x", "é"];
        for name in names {
            std::fs::write(folder.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("plain", folder.join("link")).unwrap();
        for style in [&["--text"][..], &["--binary"], &["--tag"]] {
            let out =
                Command::new("sha256sum").args(style).arg("--").args(names).current_dir(&folder).output();
            let expected = parse(&out.unwrap().stdout, &folder).unwrap();
            assert_eq!(expected.len(), names.len(), "{style:?}");
            for name in names {
                let path = folder.join(name);
                let digest: String =
                    <sha2::Sha256 as sha2::Digest>::digest(name).iter().map(|b| format!("{b:02x}")).collect();
                let entry = expected.get(&path_text(path.as_os_str().as_bytes())).unwrap();
                assert_eq!((&entry.sha256, &entry.path), (&digest, &path), "{style:?}");
            }
        }
        let through = parse(format!("{HEX}  link\n").as_bytes(), &folder).unwrap();
        assert!(through.get(folder.join("plain").to_str().unwrap()).is_some(), "links are resolved");
        let later = parse(format!("{}  not/there/yet\n", HEX.to_uppercase()).as_bytes(), &folder).unwrap();
        assert_eq!(later.get(folder.join("not/there/yet").to_str().unwrap()).unwrap().sha256, HEX);
    }

    #[test]
    fn every_mistake_has_its_line() {
        let text = format!(
            "# a comment\n\n{HEX}  /a\nnonsense\n{HEX} /b\n{}  /c\n{HEX}  \n{}  /a\n\\{HEX}  /x\\q\n{HEX}  /a\n",
            &HEX[..40],
            HEX.replace('e', "f"),
        );
        let lines: Vec<String> =
            parse(text.as_bytes(), Path::new("/")).unwrap_err().iter().map(ToString::to_string).collect();
        let wanted = [
            ("4:", "no line of sha256sum"),
            ("5:", "no line of sha256sum"),
            ("6:", "64 hex digits"),
            ("7:", "no file"),
            ("8:", "line 3"),
            ("9:", "escapes nothing"),
        ];
        assert_eq!(lines.len(), wanted.len(), "{lines:#?}");
        for (line, (place, words)) in lines.iter().zip(wanted) {
            assert!(line.starts_with(place) && line.contains(words), "{line}");
        }
        assert_eq!(parse(&[b'x', b'\n'].repeat(1000), Path::new("/")).unwrap_err().len(), TOLD);
    }

    #[test]
    fn a_list_that_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(load(&dir.path().join("none")), Err(ConfigError::Unreadable { .. })));
        assert!(matches!(load(dir.path()), Err(ConfigError::Unreadable { .. })));
        assert!(of(&Config::default()).unwrap().is_empty());
    }
}
