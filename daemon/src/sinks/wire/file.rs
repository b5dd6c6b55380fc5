//! Lines at the end of a file.
//!
//! A daemon that is killed behind a write has not noted that the line was taken, and its successor sends it again. The file's own
//! end says what it has: such lines are passed over, and one that is there in part is written whole in its place.
#![forbid(unsafe_code)]

use super::Wire;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Lines under way at once.
const WINDOW: usize = 64;
/// As much of an earlier daemon's file is looked at: more than may be under way.
const TAIL: u64 = 1 << 20;

/// A file that is appended to, and begun anew where log rotation has renamed it.
pub(in crate::sinks) struct Appended {
    path: PathBuf,
    file: Option<File>,
    written: usize,
    /// What the file had at its end when it was opened first, as far as no line has answered for it.
    before: Before,
}

enum Before {
    Unknown,
    /// This, behind the lines that came again.
    Has(Vec<u8>),
    Over,
}

impl Appended {
    pub(in crate::sinks) fn to(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, written: 0, before: Before::Unknown }
    }

    /// An earlier daemon has written this line. What it wrote half is cut off.
    fn is_there(&mut self, line: &[u8]) -> io::Result<bool> {
        let rest = match std::mem::replace(&mut self.before, Before::Over) {
            Before::Over => return Ok(false),
            Before::Has(rest) => rest,
            Before::Unknown => {
                let tail = self.tail().unwrap_or_default();
                match last_line(&tail, line) {
                    Some(at) => tail[at..].to_vec(),
                    None => tail[tail.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1)..].to_vec(),
                }
            }
        };
        if let Some(behind) = rest.strip_prefix(line) {
            self.before = Before::Has(behind.to_vec());
            return Ok(true);
        }
        if !rest.is_empty()
            && line.starts_with(&rest)
            && let Some(file) = &self.file
        {
            file.set_len(file.metadata()?.len().saturating_sub(rest.len() as u64))?;
        }
        Ok(false)
    }

    fn tail(&self) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        let meta = file.metadata()?;
        let mut tail = Vec::new();
        if meta.is_file() {
            file.seek(SeekFrom::Start(meta.len().saturating_sub(TAIL)))?;
            file.take(TAIL).read_to_end(&mut tail)?;
        }
        Ok(tail)
    }

    fn same(&self) -> bool {
        let open = self.file.as_ref().and_then(|f| f.metadata().ok());
        let named = std::fs::metadata(&self.path).ok();
        open.zip(named).is_some_and(|(a, b)| (a.dev(), a.ino()) == (b.dev(), b.ino()))
    }
}

impl Wire for Appended {
    fn window(&self) -> usize {
        WINDOW
    }

    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        if !self.same() {
            let options = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path);
            self.file = Some(options?);
        }
        if self.is_there(line)? {
            self.written += 1;
            return Ok(());
        }
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let before = file.metadata()?;
        file.write_all(line).inspect_err(|_| {
            // A full disk takes half a line: it goes again whole.
            if before.is_file() {
                let _ = file.set_len(before.len());
            }
        })?;
        self.written += 1;
        Ok(())
    }

    fn taken(&mut self) -> (usize, io::Result<()>) {
        (std::mem::take(&mut self.written), Ok(()))
    }
}

/// Where `line` begins one of the last lines of `text`, the last time. Further back it is an older one that looks alike.
fn last_line(text: &[u8], line: &[u8]) -> Option<usize> {
    let mut end = text.len();
    for _ in 0..=WINDOW {
        // From one line's beginning to the one before.
        let start = text[..end].iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        if text[start..].starts_with(line) {
            return Some(start);
        }
        end = start.checked_sub(1)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_daemon_wrote_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let all = ["one\n", "two\n", "three\n", "four\n"];
        let whole = all.concat();
        // Killed behind any byte; the first line, or the first two, were known to be there.
        for known in 0..3 {
            let before: usize = all[..known].iter().map(|l| l.len()).sum();
            for cut in before..=whole.len() {
                std::fs::write(&path, &whole[..cut]).unwrap();
                let mut wire = Appended::to(&path);
                all[known..].iter().for_each(|line| wire.send(line.as_bytes()).unwrap());
                assert_eq!(wire.taken().0, all.len() - known);
                assert_eq!(std::fs::read_to_string(&path).unwrap(), whole, "{known} {cut}");
            }
        }
        // What comes behind them is new, even if it looks alike; and another's words stay.
        std::fs::write(&path, "one\nhalf a line of another").unwrap();
        let mut wire = Appended::to(&path);
        ["one\n", "one\n"].iter().for_each(|line| wire.send(line.as_bytes()).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("one\nhalf a line of another") && text.ends_with("one\n"), "{text}");
    }
}
