//! What the tests of the built library share: the library, and a daemon that only listens.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod listener;

use std::path::PathBuf;
use std::process::Command;

/// Builds the library (Cargo doesn't build a cdylib for a test) as this test was built, and says
/// where it is: beside the `deps` folder that this test is in.
pub fn library() -> PathBuf {
    let test = std::env::current_exe().expect("this test's own path");
    let built = test.parent().and_then(|deps| deps.parent()).expect("target/<profile>");
    let profile = match built.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME"), "--profile", profile, "--target-dir"])
        .arg(built.parent().expect("target"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    assert!(cargo.status.success(), "cargo build: {}", String::from_utf8_lossy(&cargo.stderr));
    built.join("libcounterfoil.so")
}
