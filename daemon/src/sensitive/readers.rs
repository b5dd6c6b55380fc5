//! Whose work it is to read a sensitive file.
//!
//! Comes in: a process and a label. Goes out: whether that is its work. A program is known by the path that the kernel
//! resolved, where only root can have put it; never by its name: `/tmp/sshd` is nobody.
#![forbid(unsafe_code)]

use super::defaults::READERS;
use super::paths::{Label, STRICT};
use crate::model::Process;
use glob::Pattern;
use md5::{Digest, Md5};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Larger programs are not held against dpkg's lists.
const LARGEST: u64 = 128 << 20;

/// Programs and the labels that they read.
#[derive(Debug)]
pub struct Readers {
    built_in: Vec<(Pattern, &'static [&'static str])>,
    own: Vec<PathBuf>,
}

impl Readers {
    /// The built-in ones and these.
    #[must_use]
    pub fn new(own: &[PathBuf]) -> Self {
        let built_in = READERS.iter().flat_map(|(programs, labels)| {
            programs.iter().filter_map(|p| Pattern::new(p).ok()).map(|p| (p, *labels))
        });
        // What stands there is what counts, not a link to it.
        let own = own.iter().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone())).collect();
        Self { built_in: built_in.collect(), own }
    }

    /// Is reading that the process's work?
    #[must_use]
    pub fn may(&self, process: &Process, label: &Label) -> bool {
        let Some(exe) = process.exe.as_deref().filter(|_| process.container.is_none()) else { return false };
        let built_in = |(pattern, labels): &(Pattern, &'static [&'static str])| {
            labels.contains(&label.name.as_str()) && pattern.matches_with(exe, STRICT)
        };
        (self.own.iter().any(|own| own == Path::new(exe)) || self.built_in.iter().any(built_in))
            && only_roots(Path::new(exe))
    }
}

/// Nobody but root can have put that there.
fn only_roots(path: &Path) -> bool {
    let roots = |meta: &Metadata| meta.uid() == 0 && meta.mode() & 0o022 == 0;
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && roots(&meta))
        && path
            .ancestors()
            .skip(1)
            .all(|above| fs::symlink_metadata(above).is_ok_and(|m| m.is_dir() && roots(&m)))
}

/// The program is not, to the byte, what its package brought. Unknown packages say nothing. Slow: it reads dpkg's lists.
pub(super) fn altered(path: &Path) -> bool {
    altered_in(Path::new("/var/lib/dpkg/info"), path)
}

fn altered_in(lists: &Path, path: &Path) -> bool {
    let Some(inside) = path.to_str().and_then(|p| p.strip_prefix('/')) else { return false };
    // Packages from before the merge of /usr name files by their old places.
    let names = [Some(inside), inside.strip_prefix("usr/")];
    let mut recorded: Vec<String> = Vec::new();
    for list in fs::read_dir(lists).into_iter().flatten().flatten() {
        if list.path().extension().is_none_or(|e| e != "md5sums") {
            continue;
        }
        let text = fs::read_to_string(list.path()).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once("  "));
        recorded.extend(lines.filter(|(_, file)| names.contains(&Some(file))).map(|(sum, _)| sum.to_owned()));
    }
    if recorded.is_empty() || fs::metadata(path).is_ok_and(|m| m.len() > LARGEST) {
        return false;
    }
    let Ok(content) = fs::read(path) else { return false };
    let sum: String = Md5::digest(&content).iter().map(|b| format!("{b:02x}")).collect();
    !recorded.contains(&sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Severity;

    fn label(name: &str) -> Label {
        Label { name: name.into(), severity: Severity::Critical }
    }

    fn runs(exe: &str) -> Process {
        Process { exe: Some(exe.into()), ..Process::default() }
    }

    #[test]
    fn by_path_and_only_for_its_work() {
        let readers = Readers::new(&[]);
        assert!(readers.may(&runs("/usr/bin/passwd"), &label("password hashes")));
        assert!(!readers.may(&runs("/usr/bin/passwd"), &label("SSH private key")));
        assert!(!readers.may(&runs("/bin/sh"), &label("password hashes")));
        assert!(!readers.may(&Process::default(), &label("password hashes")));
        let contained = Process { container: Some("ab12".into()), ..runs("/usr/bin/passwd") };
        assert!(!readers.may(&contained, &label("password hashes")), "its /usr is another one");
    }

    #[test]
    fn a_trusted_name_elsewhere_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("passwd");
        fs::copy("/usr/bin/passwd", &path).unwrap();
        let exe = path.to_str().unwrap();
        // Even on the list it isn't believed: its folder is not only root's, or it isn't root's.
        for readers in [Readers::new(&[]), Readers::new(std::slice::from_ref(&path))] {
            assert!(!readers.may(&runs(exe), &label("password hashes")) || only_roots(&path));
        }
        assert!(!Readers::new(&[]).may(&runs(exe), &label("password hashes")));
        assert!(!only_roots(Path::new("/tmp/anything")));
    }

    #[test]
    fn other_bytes_than_the_packages() {
        let lists = tempfile::tempdir().unwrap();
        let path = lists.path().join("program");
        fs::write(&path, "hello\n").unwrap();
        let inside = path.to_str().unwrap().trim_start_matches('/').to_owned();
        let put =
            |sum: &str| fs::write(lists.path().join("x.md5sums"), format!("{sum}  {inside}\n")).unwrap();
        assert!(!altered_in(lists.path(), &path), "no package has it");
        put("b1946ac92492d2347c6235b4d2611184");
        assert!(!altered_in(lists.path(), &path));
        put("00000000000000000000000000000000");
        assert!(altered_in(lists.path(), &path));
    }
}
