//! The instrumented binaries of `fixtures/`, built once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Their folder.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let out = crate::product::profile_folder().with_file_name("fixtures");
        std::fs::create_dir_all(&out).expect("fixtures folder");
        let lock = std::fs::File::create(out.join(".lock")).expect("lock file");
        // Test programs may run side by side: one builds, the others wait and find it built.
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("lock");
        let made = Command::new("make")
            .arg("-s")
            .arg("-C")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"))
            .arg(format!("OUT={}", out.display()))
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL")
            .output()
            .expect("make");
        assert!(
            made.status.success() && made.stderr.is_empty(),
            "fixtures don't build without a warning:\n{}{}",
            String::from_utf8_lossy(&made.stdout),
            String::from_utf8_lossy(&made.stderr)
        );
        out
    })
}

/// One of them, by name.
pub fn fixture(name: &str) -> String {
    folder().join(name).to_str().expect("UTF-8 path").to_owned()
}
