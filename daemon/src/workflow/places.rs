//! Which files watched services go by.
//!
//! Comes in: `[watch]`, and places that were learnt from running programs. Goes out: a list of files, and the patterns
//! that it was made from. Called by [`super::Workflow`] at each look: a pattern may have further files by then.
#![forbid(unsafe_code)]

use super::Listed;
use crate::config::Watch;
use crate::rest::User;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Files of one pattern that are looked at.
const OF_ONE: usize = 500;
/// Places that are learnt.
const LEARNT: usize = 2000;
/// Users whose files are looked at.
const USERS: usize = 500;
/// Bytes of a configuration that is read for what it includes, or of a job for what it starts.
const READ: u64 = 1 << 20;

/// What a file is to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum What {
    Configuration,
    /// Who may log in.
    Keys,
    /// Code that TLS loads.
    Provider,
    /// A systemd unit, or a part of one.
    Unit,
    /// A cron job.
    Job,
    /// What starts a transfer.
    Script,
    /// On `workflow_paths`.
    Listed,
}

impl What {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Keys => "login keys",
            Self::Provider => "provider",
            Self::Unit => "unit",
            Self::Job => "job",
            Self::Script => "transfer script",
            Self::Listed => "listed file",
        }
    }
}

/// A file's part in a workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) what: What,
    /// The service, or who started what.
    pub(super) of: String,
    /// What it was found by.
    pub(super) pattern: String,
    /// Whose rights to read it with: the user's who chooses what is there.
    #[serde(skip)]
    pub(super) user: Option<User>,
    /// A job counts only if it starts one of these.
    #[serde(skip)]
    starts: Vec<String>,
}

impl Place {
    pub(super) fn new(what: What, of: &str, pattern: String) -> Self {
        Self { what, of: of.into(), pattern, user: None, starts: vec![] }
    }

    /// It starts a watched program, if it is a job.
    pub(super) fn ours(&self, path: &Path) -> bool {
        self.what == What::Job && starts(&text(path), &self.starts)
    }

    /// False for a change that is none of our business. `ours`: it starts a watched program, or did.
    pub(super) fn matters(&self, ours: bool) -> bool {
        self.what != What::Job || ours
    }
}

/// Programs, what the files are to them, and where they are.
type Source = (&'static [&'static str], What, &'static [&'static str]);

const SSH: &[&str] = &["ssh", "scp", "sftp", "rsync", "git"];
const SSHD: &[&str] = &["sshd", "sshd-session", "sftp-server"];
const TLS: &[&str] =
    &["openssl", "curl", "wget", "nginx", "apache2", "haproxy", "stunnel", "lftp", "vsftpd", "git", "socat"];

/// Where services have what they go by. Absolute; `*` stands within one name.
const SOURCES: &[Source] = &[
    (SSH, What::Configuration, &["/etc/ssh/ssh_config", "/etc/ssh/ssh_config.d/*.conf"]),
    (
        SSHD,
        What::Configuration,
        &["/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/*.conf", "/etc/pam.d/sshd", "/etc/default/ssh"],
    ),
    (
        TLS,
        What::Configuration,
        &[
            "/etc/ssl/openssl.cnf",
            "/usr/lib/ssl/openssl.cnf",
            "/etc/pki/tls/openssl.cnf",
            "/etc/gnutls/config",
        ],
    ),
    (
        TLS,
        What::Provider,
        &[
            "/usr/lib/*/ossl-modules/*.so",
            "/usr/lib64/ossl-modules/*.so",
            "/usr/lib/*/engines-3/*.so",
            "/usr/lib64/engines-3/*.so",
        ],
    ),
    (
        &["nginx"],
        What::Configuration,
        &["/etc/nginx/*.conf", "/etc/nginx/*/*.conf", "/etc/nginx/sites-enabled/*", "/etc/nginx/snippets/*"],
    ),
    (
        &["apache2"],
        What::Configuration,
        &["/etc/apache2/*.conf", "/etc/apache2/*-enabled/*.conf", "/etc/httpd/conf*/*.conf"],
    ),
    (&["haproxy"], What::Configuration, &["/etc/haproxy/*.cfg"]),
    (&["stunnel"], What::Configuration, &["/etc/stunnel/*.conf"]),
    (&["vsftpd"], What::Configuration, &["/etc/vsftpd.conf"]),
    (&["lftp"], What::Configuration, &["/etc/lftp.conf"]),
    (&["rsync"], What::Configuration, &["/etc/rsyncd.conf", "/etc/rsyncd.secrets"]),
    (&["wget"], What::Configuration, &["/etc/wgetrc"]),
    (&["git"], What::Configuration, &["/etc/gitconfig"]),
];

/// The same in users' homes.
const HOMES: &[Source] = &[
    (SSH, What::Configuration, &[".ssh/config"]),
    (SSHD, What::Keys, &[".ssh/authorized_keys", ".ssh/authorized_keys2"]),
    (SSHD, What::Configuration, &[".ssh/rc"]),
    (&["curl"], What::Configuration, &[".curlrc"]),
    (&["wget"], What::Configuration, &[".wgetrc"]),
];

/// Of every program that has a dynamic loader.
const LOADER: &str = "/etc/ld.so.preload";

const JOBS: &[&str] = &[
    "/etc/crontab",
    "/etc/cron.d/*",
    "/etc/cron.hourly/*",
    "/etc/cron.daily/*",
    "/etc/cron.weekly/*",
    "/etc/cron.monthly/*",
    "/var/spool/cron/crontabs/*",
];

/// The files.
pub(super) struct Places {
    root: PathBuf,
    programs: Vec<String>,
    extra: Vec<PathBuf>,
    learnt: HashMap<PathBuf, Place>,
}

impl Places {
    pub(super) fn new(watch: &Watch, root: &Path) -> Self {
        let mut places =
            Self { root: root.to_owned(), programs: vec![], extra: vec![], learnt: HashMap::new() };
        places.reload(watch);
        places
    }

    pub(super) fn reload(&mut self, watch: &Watch) {
        self.programs.clone_from(&watch.watched_processes);
        self.extra.clone_from(&watch.workflow_paths);
    }

    /// A place that a running program showed. True: it is new.
    pub(super) fn learn(&mut self, path: PathBuf, place: Place) -> bool {
        self.learnt.len() < LEARNT && self.learnt.insert(path, place).is_none()
    }

    /// The places that running programs showed.
    pub(super) fn learnt(&self) -> &HashMap<PathBuf, Place> {
        &self.learnt
    }

    /// The program is a watched one.
    pub(super) fn watches(&self, exe: Option<&str>) -> bool {
        let Some(exe) = exe else { return false };
        let name = exe.rsplit('/').next().unwrap_or(exe);
        self.programs.iter().any(|p| p == exe || p == name)
    }

    /// The part that a file had which is not there any more.
    pub(super) fn of(&self, path: &Path) -> Option<Place> {
        let (patterns, _) = self.patterns();
        let mut all = patterns.into_iter().chain(self.learnt.values().cloned());
        let matches =
            |p: &Place| glob::Pattern::new(&p.pattern).is_ok_and(|g| g.matches_path_with(path, STRICT));
        all.find(matches).or_else(|| self.learnt.get(path).cloned())
    }

    /// The files that are there, and the patterns that were asked.
    pub(super) fn list(&self) -> (Listed, HashSet<String>) {
        let mut listed = Listed::new();
        let (places, mut asked) = self.patterns();
        for place in places {
            asked.insert(place.pattern.clone());
            for path in matching(&place.pattern) {
                // Not what users' own files include: they would choose what we look for, and where.
                if place.what == What::Configuration && place.of.starts_with("ssh") && place.user.is_none() {
                    for pattern in self.includes(&path) {
                        let further = Place { pattern, ..place.clone() };
                        asked.insert(further.pattern.clone());
                        for path in matching(&further.pattern) {
                            listed.entry(path).or_insert_with(|| further.clone());
                        }
                    }
                }
                listed.entry(path).or_insert_with(|| place.clone());
            }
        }
        for (path, place) in &self.learnt {
            listed.entry(path.clone()).or_insert_with(|| place.clone());
            asked.insert(place.pattern.clone());
        }
        (listed, asked)
    }

    fn patterns(&self) -> (Vec<Place>, HashSet<String>) {
        let mut places = Vec::new();
        let under = |path: &str| self.root.join(path.trim_start_matches('/')).to_string_lossy().into_owned();
        let first = |programs: &[&'static str]| {
            let watched =
                |name: &&&'static str| self.programs.iter().any(|p| p.rsplit('/').next() == Some(**name));
            programs.iter().find(watched).copied()
        };
        for (programs, what, paths) in SOURCES {
            let Some(of) = first(programs) else { continue };
            places.extend(paths.iter().map(|path| Place::new(*what, of, under(path))));
        }
        if !self.programs.is_empty() {
            places.push(Place::new(What::Provider, "every program", under(LOADER)));
            places.extend(JOBS.iter().map(|path| Place {
                starts: self.programs.iter().map(|p| p.rsplit('/').next().unwrap_or(p).to_owned()).collect(),
                ..Place::new(What::Job, "cron", under(path))
            }));
        }
        for (user, home) in users(&self.root.join("etc/passwd")) {
            for (programs, what, paths) in HOMES {
                let Some(of) = first(programs) else { continue };
                let home = home.trim_end_matches('/');
                places.extend(paths.iter().map(|path| Place {
                    user: Some(user.clone()),
                    ..Place::new(*what, of, under(&format!("{}/{path}", glob::Pattern::escape(home))))
                }));
            }
        }
        for path in &self.extra {
            let pattern = glob::Pattern::escape(&path.to_string_lossy());
            places.push(Place::new(What::Listed, "workflow_paths", pattern));
        }
        (places, HashSet::new())
    }

    /// What ssh's configuration includes, as patterns.
    fn includes(&self, path: &Path) -> Vec<String> {
        let text = text(path);
        let lines = text.lines().filter_map(|line| {
            let (word, rest) = line.trim().split_once([' ', '\t', '='])?;
            word.eq_ignore_ascii_case("include").then_some(rest)
        });
        let names = lines.flat_map(str::split_whitespace).map(|n| n.trim_matches('"'));
        let absolute = |name: &str| match name.strip_prefix('/') {
            Some(rest) => Some(self.root.join(rest)),
            // ~/ is some user's, whose own files are listed already.
            None if name.starts_with('~') || name.starts_with('=') => None,
            None => Some(path.parent()?.join(name)),
        };
        names.filter_map(absolute).map(|p| p.to_string_lossy().into_owned()).take(32).collect()
    }
}

const STRICT: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Files that a service would read; not what editors and package managers leave beside them.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let Ok(paths) = glob::glob_with(pattern, STRICT) else { return vec![] };
    let left = |name: &str| {
        name.ends_with('~')
            || [".swp", ".bak", ".orig", ".rpmnew", ".rpmsave", ".ucf-dist", ".ucf-old"]
                .iter()
                .any(|e| name.ends_with(e))
            || name.contains(".dpkg-")
    };
    let wanted = |p: &PathBuf| p.is_file() && !p.file_name().is_none_or(|n| left(&n.to_string_lossy()));
    paths.flatten().filter(wanted).take(OF_ONE).collect()
}

/// The folders that a pattern's files are in.
pub(super) fn folders(pattern: &str) -> Vec<PathBuf> {
    let Some((folder, _)) = pattern.rsplit_once('/') else { return vec![] };
    let Ok(paths) = glob::glob_with(folder, STRICT) else { return vec![] };
    paths.flatten().filter(|p| p.is_dir()).take(OF_ONE).collect()
}

/// Users who can log in, and their homes.
fn users(passwd: &Path) -> Vec<(User, String)> {
    let text = text(passwd);
    let user = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, uid, gid, _, home, shell] = fields[..] else { return None };
        let real = home.len() > 1
            && home.starts_with('/')
            && !shell.ends_with("nologin")
            && !shell.ends_with("false");
        let user = User { uid: uid.parse().ok()?, gid: gid.parse().ok()?, groups: vec![] };
        real.then(|| (user, home.to_owned()))
    };
    text.lines().filter_map(user).take(USERS).collect()
}

/// The beginning of a text file; nothing if it can't be read.
fn text(path: &Path) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    let mut read = || {
        let file = std::fs::File::open(path)?;
        if file.metadata()?.is_file() { file.take(READ).read_to_end(&mut bytes) } else { Ok(0) }
    };
    let _ = read();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One of the programs stands in it as a word.
fn starts(text: &str, programs: &[String]) -> bool {
    let code = text.lines().filter(|l| !l.trim_start().starts_with('#'));
    let mut words =
        code.flat_map(|l| l.split(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '+'))));
    words.any(|w| programs.iter().any(|p| p == w))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_ours_if_it_starts_a_watched_program() {
        let programs = ["scp".to_owned(), "sftp-server".to_owned()];
        assert!(starts("0 3 * * * pay /usr/bin/scp -q /srv/a b:", &programs));
        assert!(!starts("0 3 * * * pay /usr/bin/escp -q\n# scp\n", &programs));
        assert!(starts("exec sftp-server", &programs) && !starts("sftp-server2", &programs));
    }

    #[test]
    fn what_editors_leave_is_no_configuration() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.conf", "b.conf~", ".a.conf.swp", "c.conf.dpkg-new", "d"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let all = matching(&format!("{}/*", dir.path().display()));
        let names: Vec<_> = all.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.conf", "d"]);
    }
}
