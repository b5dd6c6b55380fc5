//! `[egress]`: what leaves this host, how much of it is too much, and which files should not.
//!
//! Comes in: the section. Goes out: [`Egress`]. Called by `read`.
#![forbid(unsafe_code)]

use super::section::{Mistakes, Section, article};
use super::values::{absolute, duration, severity, size};
use crate::model::Severity;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// Programs that work with secrets by trade; each is believed as long as root owns it and nobody else may change it.
/// A path that ends with `/` stands for the programs in that folder.
pub const BENIGN: &[&str] = &[
    "/usr/sbin/sshd",
    "/usr/lib/openssh/",
    "/usr/libexec/openssh/",
    "/usr/bin/ssh-agent",
    "/usr/bin/ssh-add",
    "/usr/bin/ssh-keygen",
    "/usr/bin/sudo",
    "/usr/sbin/visudo",
    "/usr/bin/login",
    "/usr/bin/su",
    "/usr/bin/passwd",
    "/usr/bin/chage",
    "/usr/bin/chfn",
    "/usr/bin/chsh",
    "/usr/bin/gpasswd",
    "/usr/bin/newgrp",
    "/usr/bin/expiry",
    "/usr/sbin/unix_chkpwd",
    "/usr/sbin/unix_update",
    "/usr/sbin/chpasswd",
    "/usr/sbin/useradd",
    "/usr/sbin/userdel",
    "/usr/sbin/usermod",
    "/usr/sbin/groupadd",
    "/usr/sbin/groupdel",
    "/usr/sbin/groupmod",
    "/usr/sbin/pwck",
    "/usr/sbin/grpck",
    "/usr/sbin/pwconv",
    "/usr/sbin/grpconv",
    "/usr/sbin/cron",
    "/usr/sbin/crond",
    "/usr/sbin/atd",
    "/usr/bin/crontab",
    "/usr/bin/gpg",
    "/usr/bin/gpg-agent",
    "/usr/lib/polkit-1/polkitd",
    "/usr/lib/systemd/",
    "/usr/bin/apt",
    "/usr/bin/apt-get",
    "/usr/lib/apt/methods/",
    "/usr/bin/dpkg",
    "/usr/bin/rpm",
    "/usr/bin/dnf5",
];

/// `[egress]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Egress {
    /// Programs about which the rules of this analytic say nothing.
    pub known_benign_processes: Vec<Benign>,
    /// Where the class of a payload is not known: from so many bits a byte on it counts as encrypted.
    pub outbound_entropy_score: f64,
    /// What went one way within so long belongs together.
    pub connection_duration: Duration,
    /// From here on it is bulk.
    pub data_volume_threshold: Volume,
    /// A read and an egress this close together belong together.
    pub time_window: Duration,
    /// Patterns of sensitive files in place of the built-in ones; None: those.
    pub sensitive_paths: Option<Vec<String>>,
    /// `[[egress.sensitive]]`, besides them.
    pub sensitive: Vec<Sensitive>,
}

/// One `[[egress.sensitive]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sensitive {
    /// A path or pattern; `~` is every user's home.
    pub path: String,
    /// What its alarms call it.
    pub label: String,
    /// An alarm about it is at most this severe.
    pub severity: Severity,
}

impl Default for Egress {
    fn default() -> Self {
        let benign = |path: &&str| Benign { path: path.into(), sha256: None };
        Self {
            known_benign_processes: BENIGN.iter().map(benign).collect(),
            outbound_entropy_score: 7.9,
            connection_duration: Duration::from_secs(3600),
            data_volume_threshold: Volume { bytes: 1 << 20, within: Duration::from_secs(300) },
            time_window: Duration::from_secs(60),
            sensitive_paths: None,
            sensitive: Vec::new(),
        }
    }
}

/// One program of `known_benign_processes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Benign {
    /// Its path, or with a `/` at its end the folder it lies in.
    pub path: PathBuf,
    /// The digest it must have, lower-case hex; None: that of the file at its path.
    pub sha256: Option<String>,
}

/// Bytes in a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// So many …
    pub bytes: u64,
    /// … within so long are a burst; what takes longer, up to `connection_duration`, is a drip.
    pub within: Duration,
}

/// `1MiB in 5min`; `1MiB` alone keeps the window.
pub(super) fn volume(text: &str) -> Result<Volume, String> {
    let (bytes, within) = match text.split_once(" in ") {
        Some((bytes, within)) => (bytes, duration(within.trim())?),
        None => (text, Egress::default().data_volume_threshold.within),
    };
    let bytes = size(bytes).map_err(|_| format!("`{text}` is no volume; write `1MiB in 5min`"))?;
    if bytes == 0 || within < Duration::from_secs(1) {
        return Err(format!("`{text}`: at least 1 byte in at least 1s"));
    }
    Ok(Volume { bytes, within })
}

pub(super) fn read(mut s: Section<'_, '_>, egress: &mut Egress, m: &mut Mistakes) {
    if let Some(programs) = s.array("known_benign_processes", "paths", m) {
        egress.known_benign_processes.clear();
        for (value, span) in programs {
            match benign(value, span.clone(), m) {
                Some(Ok(program)) => egress.known_benign_processes.push(program),
                Some(Err(why)) => m.at(&span, format!("known_benign_processes: {why}")),
                None => {}
            }
        }
    }
    if let Some((_, value, span)) = s.take("outbound_entropy_score") {
        let number = match value {
            DeValue::Float(f) => f.as_str().parse().ok(),
            DeValue::Integer(i) => i.to_string().parse().ok(),
            _ => None,
        };
        match number.filter(|n| (0.0..=8.0).contains(n)) {
            Some(score) => egress.outbound_entropy_score = score,
            None => m.at(&span, "outbound_entropy_score must be bits a byte, 0 to 8, as 7.9"),
        }
    }
    let span = |text: &str| match duration(text)? {
        span if span < Duration::from_secs(1) => Err("at least 1s".into()),
        span => Ok(span),
    };
    if let Some(span) = s.parsed("connection_duration", m, span) {
        egress.connection_duration = span;
    }
    if let Some(volume) = s.parsed("data_volume_threshold", m, volume) {
        egress.data_volume_threshold = volume;
    }
    if let Some(span) = s.parsed("time_window", m, span) {
        egress.time_window = span;
    }
    sensitive_files(&mut s, egress, m);
    s.finish(m);
}

fn sensitive_files(s: &mut Section<'_, '_>, egress: &mut Egress, m: &mut Mistakes) {
    if let Some(list) = s.array("sensitive_paths", "paths", m) {
        let paths = list.into_iter().filter_map(|(value, span)| match value.as_str().map(pattern) {
            Some(Ok(path)) => Some(path),
            Some(Err(why)) => {
                m.at(&span, format!("sensitive_paths: {why}"));
                None
            }
            None => {
                m.at(&span, format!("a path must be a string, not {}", article(value)));
                None
            }
        });
        egress.sensitive_paths = Some(paths.collect());
    }
    let Some((key_span, value, _)) = s.take("sensitive") else { return };
    let Some(array) = value.as_array() else {
        m.at(&key_span, "it is written [[egress.sensitive]], with two brackets, as there may be several");
        return;
    };
    for element in array.iter() {
        match element.get_ref() {
            DeValue::Table(table) => {
                let one = Section::new("[[egress.sensitive]]", table, element.span());
                egress.sensitive.extend(sensitive(one, m));
            }
            other => {
                m.at(&element.span(), format!("a sensitive file must be a table, not {}", article(other)));
            }
        }
    }
}

fn sensitive(mut s: Section<'_, '_>, m: &mut Mistakes) -> Option<Sensitive> {
    let span = s.span.clone();
    let path = match s.string("path", m) {
        Some((text, span)) => pattern(text).map_err(|why| m.at(&span, format!("path: {why}"))).ok(),
        None => {
            m.at(&span, "a sensitive file needs a path");
            None
        }
    };
    let label = s.string("label", m).map_or_else(|| "sensitive".to_owned(), |(text, _)| text.to_owned());
    let severity = s.parsed("severity", m, severity).unwrap_or(Severity::Critical);
    s.finish(m);
    Some(Sensitive { path: path?, label, severity })
}

/// A path from `/` on, or from `~/`, that may be a pattern.
fn pattern(text: &str) -> Result<String, String> {
    if !text.starts_with('/') && !text.starts_with("~/") {
        return Err(format!("`{text}` must begin with `/`, or with `~/` for every user's home"));
    }
    glob::Pattern::new(text).map_err(|e| format!("`{text}` is no pattern: {}", e.msg))?;
    Ok(text.to_owned())
}

/// `"/path"`, or `{ path = "/path", sha256 = "…" }`. None: its mistakes are noted.
fn benign(
    value: &DeValue<'_>,
    span: std::ops::Range<usize>,
    m: &mut Mistakes,
) -> Option<Result<Benign, String>> {
    let never_by_name =
        |why: String| format!("{why}; a program is known by its path, never by its name alone");
    if let Some(path) = value.as_str() {
        return Some(absolute(path).map(|path| Benign { path, sha256: None }).map_err(never_by_name));
    }
    let Some(table) = value.as_table() else {
        return Some(Err(format!("a program must be a path, or {{ path, sha256 }}, not {}", article(value))));
    };
    let mut s = Section::new("known_benign_processes", table, span.clone());
    let path = s.parsed("path", m, absolute);
    let sha256 = s.parsed("sha256", m, |text| {
        let hex = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if hex { Ok(text.to_ascii_lowercase()) } else { Err("64 hex digits".to_owned()) }
    });
    s.finish(m);
    match path {
        Some(path) => Some(Ok(Benign { path, sha256 })),
        None if table.contains_key("path") => None,
        None => Some(Err("a program needs a path".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn every_key() {
        let text = r#"[egress]
known_benign_processes = ["/usr/bin/rsync", { path = "/opt/backup/", sha256 = "AB00000000000000000000000000000000000000000000000000000000000000" }]
outbound_entropy_score = 7.5
connection_duration = "2h"
data_volume_threshold = "4 MiB in 10 min"
time_window = "30s"
"#;
        let egress = parse(text).unwrap().config.egress;
        assert_eq!(egress.known_benign_processes[0], Benign { path: "/usr/bin/rsync".into(), sha256: None });
        assert!(egress.known_benign_processes[1].sha256.as_ref().unwrap().starts_with("ab0"));
        assert_eq!(egress.outbound_entropy_score, 7.5);
        assert_eq!(egress.connection_duration, Duration::from_secs(7200));
        let volume = Volume { bytes: 4 << 20, within: Duration::from_secs(600) };
        assert_eq!(egress.data_volume_threshold, volume);
        assert_eq!(egress.time_window, Duration::from_secs(30));
        let alone = parse("[egress]\ndata_volume_threshold = \"64KiB\"").unwrap().config.egress;
        let volume = Volume { bytes: 64 << 10, within: Duration::from_secs(300) };
        assert_eq!(alone.data_volume_threshold, volume);
    }

    #[test]
    fn sensitive_ones() {
        let text = "[egress]\nsensitive_paths = [\"~/.ssh/id_*\", \"/etc/shadow\"]\n[[egress.sensitive]]\n\
                    path = \"/srv/keys/**/*.pem\"\nlabel = \"payment key\"\nseverity = \"high\"\n\
                    [[egress.sensitive]]\npath = \"/srv/list\"\n";
        let egress = parse(text).unwrap().config.egress;
        assert_eq!(egress.sensitive_paths.unwrap(), ["~/.ssh/id_*", "/etc/shadow"]);
        assert_eq!(egress.sensitive[0].severity, Severity::High);
        assert_eq!(egress.sensitive[0].label, "payment key");
        let other = (&*egress.sensitive[1].label, egress.sensitive[1].severity);
        assert_eq!(other, ("sensitive", Severity::Critical));
    }

    #[test]
    fn mistakes_and_where() {
        let wrong = |line: &str, words: &str| {
            let found = parse(&format!("[egress]\n{line}\n")).expect_err(line);
            assert_eq!((found.len(), found[0].line), (1, 2), "{line} {found:?}");
            assert!(found[0].message.contains(words), "{line} {found:?}");
        };
        wrong("known_benign_processes = [\"sshd\"]", "never by its name");
        wrong("known_benign_processes = [{ path = \"/x\", sha256 = \"00\" }]", "64 hex digits");
        wrong("known_benign_processes = [{ }]", "needs a path");
        wrong("known_benign_processes = [7]", "must be a path");
        wrong("outbound_entropy_score = 9", "0 to 8");
        wrong("outbound_entropy_score = \"high\"", "0 to 8");
        wrong("connection_duration = \"1ms\"", "at least 1s");
        wrong("data_volume_threshold = \"1MiB per 5min\"", "1MiB in 5min");
        wrong("data_volume_threshold = \"0 in 5min\"", "at least 1 byte");
        wrong("sensitive_paths = [\"etc/shadow\"]", "must begin with");
        wrong("sensitive_paths = [\"/a/***\"]", "no pattern");
        wrong("sensitive = { path = \"/a\" }", "two brackets");
        wrong("sensitive = [{ label = \"x\" }]", "needs a path");
        wrong("sensitive = [{ path = \"/a\", severty = \"low\" }]", "did you mean `severity`");
        wrong("data_volume_treshold = \"1MiB\"", "did you mean `data_volume_threshold`?");
    }
}
