//! Opening a file whose path others may change, and nothing but a regular one.
#![forbid(unsafe_code)]

use rustix::fs::{Mode, OFlags};
use std::fs::{File, Metadata};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Opens `path` for reading if it is a regular file and `suits` says so. It is looked at before it is opened:
/// the mere opening of a device can do something.
pub fn open(path: &Path, suits: impl FnOnce(&Metadata) -> bool) -> Option<File> {
    let looking = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, looking, Mode::empty()).ok()?);
    let meta = file.metadata().ok()?;
    if !meta.is_file() || !suits(&meta) {
        return None;
    }
    // This very file, whatever stands at its path by now; without waiting for who has a lease on it.
    let same = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Some(File::from(rustix::fs::open(same, flags, Mode::empty()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let (link, fifo) = (dir.path().join("link"), dir.path().join("fifo"));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert!(open(&file, |_| true).is_some());
        assert!(open(&file, |_| false).is_none());
        for no in [&link, &fifo, &dir.path().to_owned(), &dir.path().join("none")] {
            assert!(open(no, |_| true).is_none(), "{}", no.display());
        }
    }
}
