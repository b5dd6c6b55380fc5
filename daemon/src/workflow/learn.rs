//! What a running transfer shows of its workflow: the unit that it belongs to, the scripts that started it.
#![forbid(unsafe_code)]

use super::places::{Place, What};
use crate::host::facts::Facts;
use std::path::{Path, PathBuf};

/// Programs that run scripts; versions may follow (`python3.11`).
const INTERPRETERS: &[&str] =
    &["sh", "bash", "dash", "ash", "zsh", "ksh", "python", "perl", "ruby", "node", "php", "lua"];
/// Where systemd has units, the strongest first.
const UNITS: &[&str] =
    &["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// What is put there is new each time.
const PASSING: &[&str] = &["/tmp", "/var/tmp", "/dev", "/proc", "/run/user"];

/// The places. `of` asks for a process above it.
pub(super) fn from(facts: &Facts, of: impl Fn(u32) -> Option<Facts>) -> Vec<(PathBuf, Place)> {
    let mut found = Vec::new();
    let name = facts.process.exe.as_deref().and_then(|e| e.rsplit('/').next()).unwrap_or("a program");
    if let Some(unit) =
        facts.process.unit.as_ref().filter(|u| u.ends_with(".service") && !u.starts_with("user@"))
    {
        for folder in UNITS {
            let file = Path::new(folder).join(unit);
            if file.is_file() {
                found.push((file.clone(), Place::new(What::Unit, name, pattern(&file))));
            }
            let parts = Path::new(folder).join(format!("{unit}.d"));
            for part in std::fs::read_dir(&parts).into_iter().flatten().flatten().take(64) {
                let path = part.path();
                if path.extension().is_some_and(|e| e == "conf") {
                    found.push((path, Place::new(What::Unit, name, format!("{}/*.conf", pattern(&parts)))));
                }
            }
        }
    }
    for parent in &facts.process.parents {
        let Some(above) = of(parent.pid) else { continue };
        if let Some(script) = script(&above) {
            found.push((script.clone(), Place::new(What::Script, name, pattern(&script))));
        }
    }
    found
}

fn pattern(path: &Path) -> String {
    glob::Pattern::escape(&path.to_string_lossy())
}

/// The file that an interpreter runs.
fn script(facts: &Facts) -> Option<PathBuf> {
    let exe = facts.process.exe.as_deref()?.rsplit('/').next()?;
    let bare = exe.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    if !INTERPRETERS.contains(&bare) {
        return None;
    }
    for argument in facts.process.argv.as_ref()?.iter().skip(1) {
        if matches!(argument.as_str(), "-c" | "-m" | "-e" | "-s" | "-")
            && !(argument == "-e" && bare.ends_with("sh"))
        {
            return None;
        }
        if argument.starts_with(['-', '+']) {
            continue;
        }
        let path = Path::new(facts.process.cwd.as_deref().unwrap_or("/")).join(argument);
        let path = std::fs::canonicalize(path).ok().filter(|p| p.is_file())?;
        return (!PASSING.iter().any(|p| path.starts_with(p))).then_some(path);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Process, ProcessName};

    fn facts(exe: &str, argv: &[&str], cwd: &str) -> Facts {
        let argv = Some(argv.iter().map(|a| (*a).to_owned()).collect());
        let process = Process { exe: Some(exe.into()), argv, cwd: Some(cwd.into()), ..Process::default() };
        Facts { process, ..Facts::default() }
    }

    #[test]
    fn scripts_are_found_above() {
        // Not in a folder for passing things.
        let cargo = std::fs::canonicalize(env!("CARGO_MANIFEST_DIR")).unwrap();
        if PASSING.iter().any(|p| cargo.starts_with(p)) {
            let of = |argv: &[&str]| script(&facts("/bin/bash", argv, "/etc"));
            assert_eq!(of(&["bash", "-x", "passwd"]), Some("/etc/passwd".into()));
        }
        let of = |exe: &str, argv: &[&str]| script(&facts(exe, argv, "/etc"));
        assert_eq!(of("/usr/bin/dash", &["sh", "-e", "/etc/passwd", "x"]), Some("/etc/passwd".into()));
        assert_eq!(of("/usr/bin/python3.11", &["python3", "passwd"]), Some("/etc/passwd".into()));
        assert_eq!(of("/bin/bash", &["bash", "-c", "scp /etc/passwd x:"]), None);
        assert_eq!(of("/usr/bin/python3.11", &["python3", "-m", "passwd"]), None);
        assert_eq!(of("/bin/bash", &["-bash"]), None);
        assert_eq!(of("/usr/bin/make", &["make", "passwd"]), None);
        assert_eq!(of("/bin/sh", &["sh", "/proc/self/status"]), None, "it passes");
    }

    #[test]
    fn the_parents_of_a_transfer_are_asked() {
        let mut scp = facts("/usr/bin/scp", &["scp"], "/");
        scp.process.parents = vec![ProcessName { pid: 7, exe: None }, ProcessName { pid: 8, exe: None }];
        let above = |pid| (pid == 7).then(|| facts("/bin/sh", &["sh", "/etc/passwd"], "/"));
        let found = from(&scp, above);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, Path::new("/etc/passwd"));
        assert_eq!((found[0].1.what, found[0].1.of.as_str()), (What::Script, "scp"));
    }
}
