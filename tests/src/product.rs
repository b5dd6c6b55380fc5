//! Where the built product is: `COUNTERFOIL_BIN`, or what this workspace builds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The `counterfoil` program, with `libcounterfoil.so` beside it.
pub fn program() -> &'static Path {
    // A failure is kept, too: it is the same for every test.
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = PROGRAM.get_or_init(|| match std::env::var_os("COUNTERFOIL_BIN") {
        Some(path) => std::fs::canonicalize(path).map_err(|e| format!("COUNTERFOIL_BIN: {e}")),
        None => build(),
    });
    found.as_ref().unwrap_or_else(|why| panic!("{why}"))
}

/// `libcounterfoil.so`.
pub fn library() -> PathBuf {
    match std::env::var_os("COUNTERFOIL_LIB") {
        Some(path) => path.into(),
        None => program().with_file_name("libcounterfoil.so"),
    }
}

/// The folder of this profile, such as `target/debug`, from where this test runs.
pub fn profile_folder() -> PathBuf {
    let mut folder = std::env::current_exe().expect("own path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    folder
}

/// Builds program and library in the profile that this test was built in: a stale one would make
/// every test a lie. Takes a moment where there is nothing to do.
fn build() -> Result<PathBuf, String> {
    let folder = profile_folder();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--quiet", "-p", "counterfoil-daemon", "-p", "counterfoil-shim"]);
    cargo.arg("--target-dir").arg(folder.parent().expect("target folder"));
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo");
    if built.status.success() {
        Ok(folder.join("counterfoil"))
    } else {
        Err(format!("the product does not build:\n{}", String::from_utf8_lossy(&built.stderr)))
    }
}
