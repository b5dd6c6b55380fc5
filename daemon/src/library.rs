//! Where libcounterfoil.so is, and the environment that loads it.
//!
//! Called by `session` and `commands::exec`.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The library's file name.
pub const NAME: &str = "libcounterfoil.so";

/// Why the library can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// It isn't anywhere.
    #[error("{NAME} was not found in {}. Put it beside the program or in its ../lib, or name it with COUNTERFOIL_LIB", places.join(" or "))]
    NotFound {
        /// Where it was looked for.
        places: Vec<String>,
    },
    /// LD_PRELOAD has no way to write this path.
    #[error("{}: LD_PRELOAD can't hold a path with a space or a colon; move the library", path.display())]
    Unwritable {
        /// The path.
        path: PathBuf,
    },
}

/// Finds the library: COUNTERFOIL_LIB if it is set, else beside the program, else in `../lib`.
///
/// # Errors
/// It is in none of them, or at a path that LD_PRELOAD can't hold.
pub fn find() -> Result<PathBuf, LibraryError> {
    let program = std::env::current_exe().unwrap_or_default();
    let folder = program.parent().unwrap_or(Path::new("."));
    look(std::env::var_os("COUNTERFOIL_LIB").as_deref(), folder)
}

fn look(named: Option<&OsStr>, folder: &Path) -> Result<PathBuf, LibraryError> {
    let places = match named {
        Some(named) if !named.is_empty() => vec![PathBuf::from(named)],
        _ => vec![folder.join(NAME), folder.join("../lib").join(NAME)],
    };
    let found = places.iter().filter(|p| p.is_file()).find_map(|p| p.canonicalize().ok());
    let Some(path) = found else {
        let places = places.iter().map(|p| p.display().to_string()).collect();
        return Err(LibraryError::NotFound { places });
    };
    if path.as_os_str().as_bytes().iter().any(|b| b" :\t\n".contains(b)) {
        return Err(LibraryError::Unwritable { path });
    }
    Ok(path)
}

/// LD_PRELOAD with the library before what is there already.
#[must_use]
pub fn preload(library: &Path, existing: Option<&OsStr>) -> OsString {
    let mut value = library.as_os_str().to_owned();
    if let Some(existing) = existing.filter(|e| !e.is_empty()) {
        value.push(":");
        value.push(existing);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let bin = root.join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(root.join("lib")).unwrap();
        let message = look(None, &bin).unwrap_err().to_string();
        assert!(message.contains("COUNTERFOIL_LIB") && message.contains("../lib"), "{message}");
        std::fs::write(root.join("lib").join(NAME), "").unwrap();
        assert_eq!(look(None, &bin).unwrap(), root.join("lib").join(NAME));
        std::fs::write(bin.join(NAME), "").unwrap();
        assert_eq!(look(None, &bin).unwrap(), bin.join(NAME));
        assert_eq!(look(Some(OsStr::new("")), &bin).unwrap(), bin.join(NAME));
        let other = root.join("other.so");
        assert!(look(Some(other.as_os_str()), &bin).is_err(), "what was named counts, and nothing else");
        std::fs::write(&other, "").unwrap();
        assert_eq!(look(Some(other.as_os_str()), &bin).unwrap(), other);
        let spaced = root.join("a b.so");
        std::fs::write(&spaced, "").unwrap();
        assert!(matches!(look(Some(spaced.as_os_str()), &bin), Err(LibraryError::Unwritable { .. })));
    }

    #[test]
    fn an_existing_preload_stays_behind_ours() {
        let lib = Path::new("/x/l.so");
        assert_eq!(preload(lib, None), "/x/l.so");
        assert_eq!(preload(lib, Some(OsStr::new(""))), "/x/l.so");
        assert_eq!(preload(lib, Some(OsStr::new("/a.so b.so"))), "/x/l.so:/a.so b.so");
    }
}
