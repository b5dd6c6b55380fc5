//! The load programs: C, compiled when a benchmark starts, each prints its result as one JSON line.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// Builds every load program into `folder`.
pub fn compile(folder: &Path) -> Result<()> {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/load");
    let here = folder.display();
    // `alarm` is `tls` with the tampering library in between. --no-as-needed: nothing refers to it by name.
    for arguments in [
        "tcp.c -o tcp".to_string(),
        "flows.c -o flows".into(),
        "calls.c -o calls".into(),
        "drain.c -o drain".into(),
        "processes.c -o processes".into(),
        "tamper.c -o libtamper.so -fPIC -shared".into(),
        "tls.c -o tls -lssl -lcrypto".into(),
        format!("tls.c -o alarm -L{here} -Wl,--no-as-needed -ltamper -Wl,-rpath,{here} -lssl -lcrypto"),
    ] {
        let words = arguments.split(' ').scan(false, |is_output, word| {
            let path = match word {
                w if std::mem::replace(is_output, w == "-o") => folder.join(w).into_os_string(),
                w if w.ends_with(".c") => Path::new(sources).join(w).into_os_string(),
                w => w.into(),
            };
            Some(path)
        });
        let out = Command::new("cc").args(["-O2", "-Wall", "-Wextra"]).args(words).output().context("cc")?;
        ensure!(out.status.success(), "cc {arguments}\n{}", String::from_utf8_lossy(&out.stderr));
    }
    Ok(())
}

/// Is this program in PATH, or where administrators' are?
pub fn installed(program: &str) -> Result<bool> {
    let look = "PATH=$PATH:/usr/sbin command -v \"$0\" >/dev/null";
    Ok(Command::new("sh").args(["-c", look, program]).status()?.success())
}

/// Runs a load program to its end; its one JSON line.
pub fn run(mut command: Command) -> Result<Value> {
    let shown = format!("{command:?}");
    json(command.output().context(shown.clone())?).with_context(|| shown)
}

fn json(out: Output) -> Result<Value> {
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if !out.status.success() {
        bail!("{}\n{stdout}{stderr}", out.status);
    }
    serde_json::from_str(stdout.trim()).with_context(|| format!("printed {stdout:?} {stderr}"))
}

/// A number of a load program's line.
pub fn number(line: &Value, key: &str) -> Result<f64> {
    line[key].as_f64().with_context(|| format!("no number {key} in {line}"))
}
