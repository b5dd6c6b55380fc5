//! A private directory for as long as it is needed: the session's socket, the demo's scenery.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A directory with a name that nobody can guess; removed with what is in it when dropped.
pub struct Place {
    dir: PathBuf,
}

impl Place {
    /// Makes one with the permission bits `mode`.
    ///
    /// # Errors
    /// Nowhere can a directory be made whose name is short enough for a socket in it.
    pub fn make(mode: u32) -> io::Result<Self> {
        let mut candidates = vec![];
        if !rustix::process::geteuid().is_root() {
            candidates.extend(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
        }
        // sockaddr_un holds 107 bytes, and a TMPDIR may be long: /tmp is the last resort.
        candidates.extend([std::env::temp_dir(), PathBuf::from("/tmp")]);
        let name = format!("counterfoil-{}", uuid::Uuid::now_v7().simple());
        let mut last = io::Error::other("no directory for temporary files");
        for parent in candidates {
            let dir = parent.join(&name);
            if dir.as_os_str().len() > 90 || !dir.is_absolute() {
                continue;
            }
            // Made closed: the umask may be anything.
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => {
                    let place = Self { dir };
                    fs::set_permissions(&place.dir, Permissions::from_mode(mode))?;
                    return Ok(place);
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_private_and_goes_away() {
        for mode in [0o700, 0o711] {
            let place = Place::make(mode).unwrap();
            let dir = place.path().to_owned();
            assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, mode);
            assert!(dir.as_os_str().len() < 100);
            fs::create_dir(dir.join("deep")).unwrap();
            drop(place);
            assert!(!dir.exists());
        }
    }
}
