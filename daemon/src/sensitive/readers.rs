//! Whose work it is to read a sensitive file.
//!
//! Comes in: a process and a label. Goes out: whether that is its work. A program is known by the path that the kernel
//! resolved, where only root can have put it; never by its name: `/tmp/sshd` is nobody. That it is still what its
//! package brought is looked up later, by a thread that may take its time.
#![forbid(unsafe_code)]

use super::defaults::READERS;
use super::paths::{Label, STRICT};
use crate::config::egress;
use crate::egress::benign::roots_own;
use crate::model::Process;
use glob::Pattern;
use md5::{Digest, Md5};
use sha2::Sha256;
use std::fs;
use std::path::Path;

/// Larger programs are not held against dpkg's lists.
const LARGEST: u64 = 128 << 20;

/// Programs and the labels that they read.
#[derive(Debug)]
pub struct Readers {
    built_in: Vec<(Pattern, &'static [&'static str])>,
    /// `known_benign_processes` that are not among the built-in ones: they may read anything.
    own: Vec<egress::Benign>,
}

impl Readers {
    /// The built-in ones, and those of `known_benign_processes` that somebody added.
    #[must_use]
    pub fn new(list: &[egress::Benign]) -> Self {
        let built_in = READERS.iter().flat_map(|(programs, labels)| {
            programs.iter().filter_map(|p| Pattern::new(p).ok()).map(|p| (p, *labels))
        });
        let added =
            list.iter().filter(|b| !egress::BENIGN.iter().any(|built_in| b.path == Path::new(built_in)));
        // What stands there is what counts, not a link to it.
        let resolved = added.map(|b| {
            let folder = b.path.as_os_str().as_encoded_bytes().ends_with(b"/");
            let mut path = b.path.canonicalize().unwrap_or_else(|_| b.path.clone());
            if folder {
                path.push("");
            }
            egress::Benign { path, sha256: b.sha256.clone() }
        });
        Self { built_in: built_in.collect(), own: resolved.collect() }
    }

    /// Is reading that the process's work? The digest, if any, is what its program must have.
    #[must_use]
    pub fn may(&self, process: &Process, label: &Label) -> Option<Option<String>> {
        let exe = process.exe.as_deref().filter(|_| process.container.is_none())?;
        let path = Path::new(exe);
        let listed = |own: &&egress::Benign| match own.path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            true => path.parent() == Some(own.path.as_path()),
            false => path == own.path,
        };
        if let Some(own) = self.own.iter().find(listed)
            && (own.sha256.is_some() || roots_own(path))
        {
            return Some(own.sha256.clone());
        }
        let built_in = |(pattern, labels): &(Pattern, &'static [&'static str])| {
            labels.contains(&label.name.as_str()) && pattern.matches_with(exe, STRICT)
        };
        (self.built_in.iter().any(built_in) && roots_own(path)).then_some(None)
    }
}

/// The program is not what it should be: it hasn't this digest, or it is not, to the byte, what its package brought.
/// Slow: it reads dpkg's lists.
pub(super) fn altered(path: &Path, sha256: Option<&str>) -> bool {
    let Some(expected) = sha256 else { return altered_in(Path::new("/var/lib/dpkg/info"), path) };
    let content = fs::metadata(path).ok().filter(|m| m.is_file() && m.len() <= LARGEST);
    let content = content.and_then(|_| fs::read(path).ok());
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    content.is_none_or(|content| !hex(&Sha256::digest(&content)).eq_ignore_ascii_case(expected))
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

    fn own(path: &Path, sha256: Option<&str>) -> Readers {
        Readers::new(&[egress::Benign { path: path.into(), sha256: sha256.map(str::to_owned) }])
    }

    #[test]
    fn by_path_and_only_for_its_work() {
        let list = crate::config::Egress::default().known_benign_processes;
        let readers = Readers::new(&list);
        let may = |exe: &str, what: &str| readers.may(&runs(exe), &label(what)).is_some();
        assert!(may("/usr/bin/passwd", "password hashes"));
        assert!(!may("/usr/bin/passwd", "SSH private key"));
        assert!(!may("/usr/bin/dash", "password hashes"));
        assert!(readers.may(&Process::default(), &label("password hashes")).is_none());
        let contained = Process { container: Some("ab12".into()), ..runs("/usr/bin/passwd") };
        assert!(readers.may(&contained, &label("password hashes")).is_none(), "its /usr is another one");
    }

    #[test]
    fn an_added_one_may_read_anything_and_a_trusted_name_elsewhere_nothing() {
        assert!(
            own(Path::new("/bin/cat"), None).may(&runs("/usr/bin/cat"), &label("x")).is_some(),
            "resolved"
        );
        assert!(own(Path::new("/usr/bin/"), None).may(&runs("/usr/bin/cat"), &label("x")).is_some());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("passwd");
        fs::copy("/usr/bin/passwd", &path).unwrap();
        let there = runs(path.to_str().unwrap());
        assert!(Readers::new(&[]).may(&there, &label("password hashes")).is_none());
        // Listed, and others may write on its way: only with its digest.
        assert!(own(&path, None).may(&there, &label("x")).is_none());
        let digest: String =
            Sha256::digest(fs::read(&path).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(own(&path, Some(&digest)).may(&there, &label("x")), Some(Some(digest.clone())));
        assert!(!altered(&path, Some(&digest)) && altered(&path, Some("00")));
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
