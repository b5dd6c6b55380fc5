//! The folders in which sensitive files may appear: what lies in them now, and word when that changes.
//!
//! Comes in: patterns of whole paths. Goes out: the files that fit one ([`Lister`]), and whether something happened to
//! a name that may be a sensitive file's ([`Folders`]). Called by `known`, on its thread. Most patterns lie in folders
//! that don't exist, in each of many homes, and some homes are folders where everybody writes all the time (`/dev` is
//! one by some lists of users): neither may cost anything.
#![forbid(unsafe_code)]

use super::paths::{Paths, STRICT};
use glob::Pattern;
use rustix::fs::inotify::{self, WatchFlags as W};
use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Files, or folders, of one pattern.
const OF_ONE: usize = 2_000;
/// Folders watched.
const FOLDERS: usize = 4096;
const ANY: &str = "*";

fn is_plain(pattern: &str) -> bool {
    !pattern.contains(['*', '?', '['])
}

/// Finds what fits patterns; remembers for one look which folders there are.
#[derive(Default)]
pub(super) struct Lister {
    there: HashMap<PathBuf, bool>,
}

impl Lister {
    /// Is this a folder? One that lies in none is not asked for.
    fn is_there(&mut self, folder: &Path) -> bool {
        if let Some(&there) = self.there.get(folder) {
            return there;
        }
        let there = folder.parent().is_none_or(|above| self.is_there(above)) && folder.is_dir();
        self.there.insert(folder.to_owned(), there);
        there
    }

    /// Paths that fit. A name without a wildcard is not looked at: it may lead to nothing.
    pub(super) fn list(&mut self, pattern: &str) -> Vec<PathBuf> {
        let Some((folder, _)) = pattern.rsplit_once('/') else { return Vec::new() };
        let plain = match folder.find(['*', '?', '[']) {
            Some(wild) => &folder[..folder[..wild].rfind('/').unwrap_or(0)],
            None => folder,
        };
        let plain = if plain.is_empty() { "/" } else { plain };
        if !self.is_there(Path::new(plain)) {
            return Vec::new();
        }
        if is_plain(pattern) {
            return vec![pattern.into()];
        }
        glob::glob_with(pattern, STRICT).into_iter().flatten().flatten().take(OF_ONE).collect()
    }
}

/// The folders, watched.
pub(super) struct Folders {
    inotify: OwnedFd,
    /// Names in each, as patterns, that may be sensitive, or lead to what is.
    names: HashMap<i32, Vec<Pattern>>,
}

impl Folders {
    /// Watches them from now on. None: the kernel has no room.
    pub(super) fn watch(paths: &Paths) -> Option<Self> {
        let flags =
            W::CREATE | W::MOVED_TO | W::MOVED_FROM | W::DELETE | W::CLOSE_WRITE | W::ATTRIB | W::ONLYDIR;
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
        let mut names: HashMap<i32, Vec<Pattern>> = HashMap::new();
        for (folder, of) in folders(paths) {
            if let Ok(watch) = inotify::add_watch(&inotify, &folder, flags) {
                let of = of.iter().filter_map(|name| Pattern::new(name).ok());
                names.entry(watch).or_default().extend(of);
            }
        }
        Some(Self { inotify, names })
    }

    /// To wait at.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.inotify
    }

    /// Takes what was said. Was there something that matters?
    pub(super) fn changed(&self) -> bool {
        let mut room = [MaybeUninit::uninit(); 8192];
        let mut reader = inotify::Reader::new(&self.inotify, &mut room);
        let mut matters = false;
        while let Ok(event) = reader.next() {
            // Without a name it is the folder itself, or that there was too much to say.
            matters |= match (self.names.get(&event.wd()), event.file_name().map(|name| name.to_str())) {
                (Some(names), Some(Ok(name))) => names.iter().any(|of| of.matches_with(name, STRICT)),
                _ => true,
            };
        }
        matters
    }
}

/// The folders that are there, and the names in each that matter.
fn folders(paths: &Paths) -> HashMap<PathBuf, Vec<String>> {
    let mut found: HashMap<PathBuf, Vec<String>> = HashMap::new();
    let mut lister = Lister::default();
    let mut put = |folder: PathBuf, name: &str| {
        let room = found.len() < FOLDERS || found.contains_key(&folder);
        if room {
            let names = found.entry(folder).or_default();
            if !names.iter().any(|n| n == name || n == ANY) {
                names.push(name.to_owned());
            }
        }
    };
    for (pattern, _) in paths.to_look_for() {
        let Some((folder, name)) = pattern.rsplit_once('/').filter(|(folder, _)| !folder.is_empty()) else {
            continue;
        };
        if !is_plain(folder) {
            // Which of its names lead on to another pattern's files is not worth finding out.
            lister.list(folder).into_iter().for_each(|folder| put(folder, ANY));
        } else if lister.is_there(Path::new(folder)) {
            put(folder.into(), name);
        }
    }
    // A folder that is made in a watched one may be the next on the way to a pattern's files.
    for (pattern, _) in paths.to_look_for() {
        let mut rest = pattern.as_str();
        while let Some((folder, name)) = rest.rsplit_once('/') {
            if let Some(names) = found.get_mut(Path::new(folder))
                && !names.iter().any(|n| n == name || n == ANY)
            {
                names.push(name.to_owned());
            }
            rest = folder;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Egress, Sensitive};
    use crate::model::Severity;
    use std::fs;

    fn paths(patterns: &[PathBuf]) -> Paths {
        let own = |path: &PathBuf| Sensitive {
            path: path.to_str().unwrap().into(),
            label: "mine".into(),
            severity: Severity::Low,
        };
        let sensitive = patterns.iter().map(own).collect();
        let egress = Egress { sensitive, sensitive_paths: Some(vec![]), ..Egress::default() };
        Paths::new(&egress, vec![])
    }

    #[test]
    fn only_names_that_may_be_sensitive_matter() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("any/one")).unwrap();
        let patterns = ["key.*", "plain", "sub/deep/secret", "any/*/token"].map(at);
        let folders = Folders::watch(&paths(&patterns)).unwrap();
        let after = |what: &dyn Fn()| {
            folders.changed();
            what();
            folders.changed()
        };
        assert!(!after(&|| fs::write(at("other"), "x").unwrap()));
        assert!(!after(&|| fs::write(at("a-key.x"), "x").unwrap()));
        assert!(after(&|| fs::write(at("key.pem"), "x").unwrap()));
        assert!(after(&|| fs::write(at("plain"), "x").unwrap()));
        assert!(after(&|| fs::rename(at("plain"), at("elsewhere")).unwrap()), "it went");
        assert!(after(&|| fs::rename(at("other"), at("plain")).unwrap()), "it came");
        assert!(after(&|| fs::create_dir(at("sub")).unwrap()), "on the way to another");
        assert!(after(&|| fs::write(at("any/one/thing"), "x").unwrap()), "found by a wildcard: any name");
        assert!(after(&|| fs::remove_dir_all(at("any")).unwrap()), "the folder itself");
    }

    #[test]
    fn what_fits_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir_all(at("a/c")).unwrap();
        for file in ["a/b/one", "a/c/one", "a/b/two"] {
            fs::write(at(file), "x").unwrap();
        }
        let mut lister = Lister::default();
        let mut of = |pattern: &str| lister.list(at(pattern).to_str().unwrap());
        assert_eq!(of("a/*/one"), [at("a/b/one"), at("a/c/one")]);
        assert_eq!(of("a/b/t*"), [at("a/b/two")]);
        assert_eq!(of("a/b/two"), [at("a/b/two")]);
        assert_eq!(of("a/x/y/two"), Vec::<PathBuf>::new());
        assert_eq!(of("x/*/one"), Vec::<PathBuf>::new());
        assert_eq!(Lister::default().list("/et?").len(), 1, "in the root, too");
    }
}
