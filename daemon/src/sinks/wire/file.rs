//! Lines at the end of a file.
#![forbid(unsafe_code)]

use super::Wire;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file that is appended to, and begun anew where log rotation has renamed it.
pub(in crate::sinks) struct Appended {
    path: PathBuf,
    file: Option<File>,
    written: usize,
}

impl Appended {
    pub(in crate::sinks) fn to(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, written: 0 }
    }

    fn same(&self) -> bool {
        let open = self.file.as_ref().and_then(|f| f.metadata().ok());
        let named = std::fs::metadata(&self.path).ok();
        open.zip(named).is_some_and(|(a, b)| (a.dev(), a.ino()) == (b.dev(), b.ino()))
    }
}

impl Wire for Appended {
    fn window(&self) -> usize {
        64
    }

    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        if !self.same() {
            let options = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path);
            self.file = Some(options?);
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
