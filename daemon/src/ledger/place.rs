//! The state directory: ours, and closed to everyone else.
#![forbid(unsafe_code)]

use super::LedgerError;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Makes `dir` (0700) if it isn't there, and closes it to others if it is open to them.
///
/// # Errors
/// It is no directory, belongs to another user, or can't be made.
pub fn prepare(dir: &Path) -> Result<(), LedgerError> {
    let wrong = |why: String| LedgerError::Place { dir: dir.to_owned(), why };
    match fs::metadata(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| wrong(format!("can't be made: {e}")))?,
        Err(e) => return Err(wrong(e.to_string())),
        Ok(_) => {}
    }
    let meta = fs::metadata(dir).map_err(|e| wrong(e.to_string()))?;
    if !meta.is_dir() {
        return Err(wrong("is no directory".into()));
    }
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me {
        return Err(wrong(format!("belongs to user {}, not to {me} who runs this", meta.uid())));
    }
    // The parents of a directory that we made may be open; its own bits are what counts. What
    // others could read before stays theirs, so a directory in common use is refused.
    if meta.mode() & 0o1000 != 0 {
        return Err(wrong("is shared by everyone (sticky); name one of its own inside it".into()));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
            .map_err(|e| wrong(format!("can't be closed to others: {e}")))?;
    }
    Ok(())
}

/// Makes the file for its owner alone; SQLite gives its companions the same mode.
pub(super) fn create(path: &Path) -> Result<(), LedgerError> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop).map_err(|e| {
        LedgerError::Place {
            dir: path.parent().unwrap_or(path).to_owned(),
            why: format!("can't open {}: {e}", path.display()),
        }
    })
}

/// Renames a damaged ledger and its companions.
pub(super) fn put_aside(path: &Path) -> Result<PathBuf, LedgerError> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let named = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = named(&format!(".damaged-{stamp}"));
    fs::rename(path, &aside).map_err(|e| LedgerError::Place {
        dir: path.parent().unwrap_or(path).to_owned(),
        why: format!("{} is damaged and can't be put aside: {e}", path.display()),
    })?;
    // A stale log would be played into the new file.
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(named(suffix));
    }
    Ok(aside)
}
