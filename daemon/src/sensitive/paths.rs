//! Which paths are sensitive.
//!
//! Comes in: `[egress]`, and the homes of users. Goes out: the [`Label`] of a path, and patterns to look for files with.
//! Called for each file that a watched process opens: a path that is not sensitive costs a few look-ups.
#![forbid(unsafe_code)]

use super::defaults::{KINDS, PUBLIC};
use crate::config::Egress;
use crate::model::Severity;
use glob::{MatchOptions, Pattern};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Homes that are looked at.
const HOMES: usize = 500;

/// As a shell matches: `*` stands within one name, and a dot matters.
pub(super) const STRICT: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// What a sensitive file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// What alarms call it.
    pub name: String,
    /// An alarm about it is at most this severe.
    pub severity: Severity,
}

#[derive(Debug)]
struct Entry {
    pattern: Pattern,
    text: String,
    label: Arc<Label>,
    /// A built-in one leaves public halves out.
    built_in: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Paths {
    exact: HashMap<String, Arc<Label>>,
    patterns: Vec<Entry>,
    in_homes: Vec<Entry>,
    homes: Vec<PathBuf>,
}

impl Paths {
    /// Those of a configuration, in these homes.
    #[must_use]
    pub fn new(egress: &Egress, mut homes: Vec<PathBuf>) -> Self {
        homes.sort();
        homes.dedup();
        // In `/` nobody has a home, even where a list says so.
        homes.retain(|home| home.is_absolute() && home.parent().is_some());
        homes.truncate(HOMES);
        let mut paths = Self { homes, ..Self::default() };
        for own in &egress.sensitive {
            let label = Arc::new(Label { name: own.label.clone(), severity: own.severity });
            paths.put(&own.path, &label, false);
        }
        if let Some(own) = &egress.sensitive_paths {
            let label = Arc::new(Label { name: "sensitive".into(), severity: Severity::Critical });
            own.iter().for_each(|path| paths.put(path, &label, false));
        } else {
            for (name, severity, places) in KINDS {
                let label = Arc::new(Label { name: (*name).to_owned(), severity: *severity });
                places.iter().for_each(|path| paths.put(path, &label, true));
            }
        }
        paths
    }

    fn put(&mut self, text: &str, label: &Arc<Label>, built_in: bool) {
        let rest = text.strip_prefix("~/");
        let plain = rest.is_none() && !text.contains(['*', '?', '[']);
        if plain {
            // The first one that names it counts.
            self.exact.entry(text.to_owned()).or_insert_with(|| label.clone());
            return;
        }
        let text = rest.unwrap_or(text);
        let Ok(pattern) = Pattern::new(text) else { return };
        let entry = Entry { pattern, text: text.to_owned(), label: label.clone(), built_in };
        if rest.is_some() { self.in_homes.push(entry) } else { self.patterns.push(entry) }
    }

    /// The label of this path, if it is sensitive. The path is resolved.
    #[must_use]
    pub fn of(&self, path: &str) -> Option<Arc<Label>> {
        if let Some(label) = self.exact.get(path) {
            return Some(label.clone());
        }
        let public = path.ends_with(PUBLIC);
        let fits = |e: &&Entry, text: &str| !(e.built_in && public) && e.pattern.matches_with(text, STRICT);
        if let Some(entry) = self.patterns.iter().find(|e| fits(e, path)) {
            return Some(entry.label.clone());
        }
        let above = Path::new(path).ancestors().skip(1);
        let home = above
            .into_iter()
            .find(|above| self.homes.binary_search_by(|h| h.as_path().cmp(above)).is_ok())?;
        let inside = path.get(home.as_os_str().len() + 1..)?;
        self.in_homes.iter().find(|e| fits(e, inside)).map(|e| e.label.clone())
    }

    /// What to look for: patterns of whole paths, each with its home.
    pub(super) fn to_look_for(&self) -> impl Iterator<Item = (String, Option<&Path>)> {
        let exact = self.exact.keys().map(|path| (Pattern::escape(path), None));
        let patterns = self.patterns.iter().map(|e| (e.text.clone(), None));
        let in_homes = self.homes.iter().flat_map(|home| {
            let base = Pattern::escape(&home.to_string_lossy());
            self.in_homes.iter().map(move |e| (format!("{base}/{}", e.text), Some(home.as_path())))
        });
        exact.chain(patterns).chain(in_homes)
    }

    /// How many patterns there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.exact.len() + self.patterns.len() + self.in_homes.len()
    }

    /// Nothing is sensitive.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The homes of all users, and of who runs this.
#[must_use]
pub fn homes() -> Vec<PathBuf> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut homes: Vec<PathBuf> =
        passwd.lines().filter_map(|line| line.split(':').nth(5)).map(PathBuf::from).collect();
    homes.extend(std::env::var_os("HOME").map(PathBuf::from));
    // Resolved, as the paths are that processes are seen to open.
    homes.iter().filter_map(|home| home.canonicalize().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sensitive;

    fn of(paths: &Paths, path: &str) -> Option<String> {
        paths.of(path).map(|l| l.name.clone())
    }

    #[test]
    fn the_built_in_ones() {
        let paths = Paths::new(&Egress::default(), vec!["/root".into(), "/home/ann".into(), "/".into()]);
        for (path, label) in [
            ("/etc/shadow", "password hashes"),
            ("/etc/sudoers.d/admins", "sudo rules"),
            ("/etc/ssh/ssh_host_ed25519_key", "SSH host key"),
            ("/root/.ssh/id_rsa", "SSH private key"),
            ("/home/ann/.aws/credentials", "AWS credentials"),
            ("/home/ann/.config/google-chrome/Default/Login Data", "browser credentials"),
        ] {
            assert_eq!(of(&paths, path).as_deref(), Some(label), "{path}");
        }
        for path in [
            "/etc/passwd",
            "/etc/ssh/ssh_host_ed25519_key.pub",
            "/root/.ssh/id_rsa.pub",
            "/root/.ssh/known_hosts",
            "/home/bob/.aws/credentials",
            "/.netrc",
            "/home/ann/sub/.netrc",
            "/etc/shadow/x",
            "",
        ] {
            assert_eq!(of(&paths, path), None, "{path}");
        }
    }

    #[test]
    fn ones_own_come_first_and_may_stand_alone() {
        let own = |path: &str| Sensitive { path: path.into(), label: "mine".into(), severity: Severity::Low };
        let egress =
            Egress { sensitive: vec![own("/etc/shadow"), own("/srv/**/*.pub")], ..Egress::default() };
        let paths = Paths::new(&egress, vec![]);
        assert_eq!(of(&paths, "/etc/shadow").as_deref(), Some("mine"));
        assert_eq!(of(&paths, "/srv/a/b/c.pub").as_deref(), Some("mine"));
        assert_eq!(of(&paths, "/etc/gshadow").as_deref(), Some("password hashes"));
        let alone = Egress { sensitive_paths: Some(vec!["/a/*".into()]), ..Egress::default() };
        let paths = Paths::new(&alone, vec![]);
        assert_eq!(of(&paths, "/a/b").as_deref(), Some("sensitive"));
        assert_eq!(of(&paths, "/a/b/c"), None);
        assert_eq!(of(&paths, "/etc/shadow"), None);
        let none = Egress { sensitive_paths: Some(vec![]), ..Egress::default() };
        assert!(Paths::new(&none, vec![]).is_empty());
    }
}
