//! `[egress]`: which files are sensitive, who reads them for its work, and how far apart reading and sending may be.
#![forbid(unsafe_code)]

use super::section::{Mistakes, Section, article};
use super::values::{absolute, duration, severity};
use crate::model::Severity;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// `[egress]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Egress {
    /// Patterns in place of the built-in ones; None: those.
    pub sensitive_paths: Option<Vec<String>>,
    /// `[[egress.sensitive]]`, besides them.
    pub sensitive: Vec<Sensitive>,
    /// Programs that read sensitive files for their work, besides the built-in ones.
    pub known_benign_processes: Vec<PathBuf>,
    /// How far apart a sensitive read and an egress may be to belong together.
    pub time_window: Duration,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            sensitive_paths: None,
            sensitive: Vec::new(),
            known_benign_processes: Vec::new(),
            time_window: Duration::from_secs(60),
        }
    }
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

/// Reads the section.
pub(super) fn egress(mut s: Section<'_, '_>, egress: &mut Egress, m: &mut Mistakes) {
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
    if let Some((key_span, value, _)) = s.take("sensitive") {
        match value.as_array() {
            Some(array) => {
                for element in array.iter() {
                    match element.get_ref() {
                        DeValue::Table(table) => {
                            let one = Section::new("[[egress.sensitive]]", table, element.span());
                            egress.sensitive.extend(sensitive(one, m));
                        }
                        other => m.at(
                            &element.span(),
                            format!("a sensitive file must be a table, not {}", article(other)),
                        ),
                    }
                }
            }
            None => m.at(
                &key_span,
                "it is written [[egress.sensitive]], with two brackets, as there may be several",
            ),
        }
    }
    if let Some(list) = s.array("known_benign_processes", "paths of programs", m) {
        for (value, span) in list {
            match value.as_str().map(absolute) {
                Some(Ok(path)) => egress.known_benign_processes.push(path),
                Some(Err(_)) => m.at(
                    &span,
                    "known_benign_processes: a program is known by its path from `/` on; a name can be anyone's",
                ),
                None => m.at(&span, format!("a path must be a string, not {}", article(value))),
            }
        }
    }
    if let Some(window) = s.parsed("time_window", m, |text| match duration(text)? {
        window if window < Duration::from_secs(1) => Err("at least 1s".into()),
        window => Ok(window),
    }) {
        egress.time_window = window;
    }
    s.later(&["outbound_entropy_score", "connection_duration", "data_volume_threshold"], m);
    s.finish(m);
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

#[cfg(test)]
mod tests {
    use crate::config::parse;
    use crate::model::Severity;
    use std::time::Duration;

    #[test]
    fn all_of_it() {
        let text = "[egress]\nsensitive_paths = [\"~/.ssh/id_*\", \"/etc/shadow\"]\nknown_benign_processes = [\"/opt/backup\"]\n\
                    time_window = \"2min\"\n[[egress.sensitive]]\npath = \"/srv/keys/**/*.pem\"\nlabel = \"payment key\"\nseverity = \"high\"\n\
                    [[egress.sensitive]]\npath = \"/srv/list\"\n";
        let egress = parse(text).unwrap().config.egress;
        assert_eq!(egress.sensitive_paths.unwrap(), ["~/.ssh/id_*", "/etc/shadow"]);
        assert_eq!(egress.time_window, Duration::from_secs(120));
        assert_eq!(egress.sensitive[0].severity, Severity::High);
        assert_eq!(egress.sensitive[0].label, "payment key");
        assert_eq!(
            (&*egress.sensitive[1].label, egress.sensitive[1].severity),
            ("sensitive", Severity::Critical)
        );
    }

    #[test]
    fn mistakes() {
        for (text, place, says) in [
            ("[egress]\nsensitive_paths = [\"etc/shadow\"]\n", (2, 20), "must begin with"),
            ("[egress]\nsensitive_paths = [\"/a/***\"]\n", (2, 20), "no pattern"),
            ("[egress]\nknown_benign_processes = [\"sshd\"]\n", (2, 27), "a name can be anyone's"),
            ("[egress]\ntime_window = \"5\"\n", (2, 15), "span of time"),
            ("[egress.sensitive]\npath = \"/a\"\n", (1, 9), "two brackets"),
            ("[[egress.sensitive]]\nlabel = \"x\"\n", (1, 1), "needs a path"),
            ("[[egress.sensitive]]\npath = \"/a\"\nseverty = \"low\"\n", (3, 1), "did you mean `severity`"),
        ] {
            let mistakes = parse(text).unwrap_err();
            assert!(
                mistakes.iter().any(|m| (m.line, m.column) == place && m.message.contains(says)),
                "{text}: {mistakes:?}"
            );
        }
    }
}
