//! Whose alarm list it is: one program at a time goes on with the alarms of a state directory and changes
//! their states.
//!
//! Comes in: a state directory. Goes out: a lock on its file `lock`, which the kernel takes back when the
//! program ends, however it ends. Called by `desk`, and by `control::offline` for the moment of a change.
#![forbid(unsafe_code)]

use super::LedgerError;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const FILE: &str = "lock";
/// A command holds the list for a moment; a daemon that was killed may not be quite gone.
const PATIENCE: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(20);

/// The alarm list is this program's as long as it has this.
#[derive(Debug)]
pub struct Owner(File);

/// Another program has it.
#[derive(Debug, thiserror::Error)]
#[error("{} is in use by {holder}", dir.display())]
pub struct InUse {
    dir: std::path::PathBuf,
    holder: String,
}

impl Owner {
    /// Claims the alarm list of `dir`, which must be there. `what` stands in the file, for who finds it taken.
    ///
    /// # Errors
    /// The outer: the file can't be opened. The inner: another program has it.
    pub fn claim(dir: &Path, what: &str) -> Result<Result<Self, InUse>, LedgerError> {
        let wrong = |why: String| LedgerError::Place { dir: dir.to_owned(), why: format!("{FILE}: {why}") };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join(FILE))
            .map_err(|e| wrong(e.to_string()))?;
        let end = Instant::now() + PATIENCE;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if Instant::now() < end => std::thread::sleep(AGAIN),
                Err(Errno::WOULDBLOCK) => {
                    let mut holder = String::new();
                    let _ = Read::by_ref(&mut file).take(200).read_to_string(&mut holder);
                    return Ok(Err(InUse { dir: dir.to_owned(), holder: holder.trim().to_owned() }));
                }
                Err(e) => return Err(wrong(e.to_string())),
            }
        }
        // Only words for people: a full disk is no reason to refuse.
        let _ = file
            .set_len(0)
            .and_then(|()| writeln!(file, "counterfoil {what}, process {}", std::process::id()));
        Ok(Ok(Self(file)))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.set_len(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner::claim(dir.path(), "daemon").unwrap().unwrap();
        let other = Owner::claim(dir.path(), "alarms").unwrap().unwrap_err().to_string();
        assert!(other.contains("in use by counterfoil daemon, process "), "{other}");
        drop(owner);
        assert!(Owner::claim(dir.path(), "alarms").unwrap().is_ok());
    }
}
