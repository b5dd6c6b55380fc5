//! `[media]`: pictures, sound and video, and who works with them.
//!
//! Comes in: the section. Goes out: [`Media`]. Called by `read`.
#![forbid(unsafe_code)]

use super::section::{Mistakes, Section, article};
use super::values::{absolute, duration, size};
use jiff::civil::Date;
use std::path::PathBuf;
use std::time::Duration;
use toml::de::DeValue;

/// Tools that hide data in media, find it there, or rewrite what media files carry besides.
pub const TOOLS: &[&str] = &[
    "steghide",
    "outguess",
    "stegsnow",
    "zsteg",
    "binwalk",
    "exiftool",
    "exiv2",
    "convert",
    "magick",
    "mogrify",
    "composite",
    "montage",
    "identify",
    "conjure",
    "stream",
];

/// Interpreters, and which of their options say what they run: code itself, a module by name; and which others
/// take a value that is not the script.
const INTERPRETERS: &[(&str, &str, &str, &str)] = &[
    ("sh", "c", "", "oO"),
    ("bash", "c", "", "oO"),
    ("dash", "c", "", "o"),
    ("zsh", "c", "", "o"),
    ("python", "c", "m", "WXQ"),
    ("perl", "eE", "", ""),
    ("ruby", "e", "", "CEIr"),
    ("node", "ep", "", "r"),
    ("php", "rBRE", "", "cdzS"),
    ("lua", "e", "", "l"),
];

/// `[media]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Media {
    /// Names of tools, or their paths.
    pub monitored_tools_list: Vec<String>,
    /// Programs that run scripts.
    pub script_interpreter_match: Vec<Interpreter>,
    /// A media file's reading and what follows from it belong together for so long.
    pub time_window: Duration,
    /// So many bytes may stand behind a picture's end.
    pub mime_header_mismatch_tolerance: u64,
    /// A script that is older, outside temporary and home folders, is an installed one.
    pub script_age: Duration,
    /// Work that somebody answers for.
    pub approved_workflows: Vec<Workflow>,
}

/// One program that runs scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// Its name, without the digits and dots of a version.
    pub name: String,
    /// Options before code.
    pub inline: String,
    /// Options before the name of a module.
    pub module: String,
    /// Options with another value.
    pub value: String,
}

/// One of `approved_workflows`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workflow {
    /// The script or program.
    pub path: PathBuf,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// The last day on which that holds.
    pub expires: Date,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            monitored_tools_list: TOOLS.iter().map(|&t| t.to_owned()).collect(),
            script_interpreter_match: INTERPRETERS.iter().map(|i| i.0).map(interpreter).collect(),
            time_window: Duration::from_secs(300),
            mime_header_mismatch_tolerance: 64,
            script_age: Duration::from_secs(86_400),
            approved_workflows: Vec::new(),
        }
    }
}

/// One that is known by name has its options, another one the usual `-c`.
fn interpreter(name: &str) -> Interpreter {
    let known = INTERPRETERS.iter().find(|i| i.0 == name).unwrap_or(&("", "c", "", ""));
    Interpreter { name: name.into(), inline: known.1.into(), module: known.2.into(), value: known.3.into() }
}

pub(super) fn read(mut s: Section<'_, '_>, media: &mut Media, m: &mut Mistakes) {
    if let Some(list) = s.array("monitored_tools_list", "names", m) {
        media.monitored_tools_list.clear();
        for (value, span) in list {
            match value.as_str() {
                Some(name) if !name.is_empty() => media.monitored_tools_list.push(name.to_owned()),
                _ => m.at(&span, "monitored_tools_list: a tool is a name or a path"),
            }
        }
    }
    if let Some(list) = s.array("script_interpreter_match", "interpreters", m) {
        media.script_interpreter_match.clear();
        for (value, span) in list {
            if let Some(name) = value.as_str() {
                media.script_interpreter_match.push(interpreter(name));
            } else if let Some(table) = value.as_table() {
                let mut one = Section::new("script_interpreter_match", table, span.clone());
                let text = |s: &mut Section<'_, '_>, key, m: &mut Mistakes| {
                    s.string(key, m).map(|(text, _)| text.to_owned())
                };
                let name = text(&mut one, "name", m);
                let known = interpreter(name.as_deref().unwrap_or_default());
                let inline = text(&mut one, "inline", m).unwrap_or(known.inline);
                let module = text(&mut one, "module", m).unwrap_or(known.module);
                let others = text(&mut one, "value", m).unwrap_or(known.value);
                one.finish(m);
                match name {
                    Some(name) => {
                        let one = Interpreter { name, inline, module, value: others };
                        media.script_interpreter_match.push(one);
                    }
                    None => m.at(&span, "an interpreter needs a name"),
                }
            } else {
                m.at(
                    &span,
                    format!(
                        "an interpreter must be a name or {{ name, inline, module, value }}, not {}",
                        article(value)
                    ),
                );
            }
        }
    }
    let at_least = |text: &str| match duration(text)? {
        span if span < Duration::from_secs(1) => Err("at least 1s".into()),
        span => Ok(span),
    };
    if let Some(span) = s.parsed("time_window", m, at_least) {
        media.time_window = span;
    }
    if let Some((_, value, span)) = s.take("mime_header_mismatch_tolerance") {
        let bytes = match value {
            DeValue::Integer(i) => i.to_string().parse().ok(),
            value => value.as_str().and_then(|text| size(text).ok()),
        };
        match bytes {
            Some(bytes) => media.mime_header_mismatch_tolerance = bytes,
            None => m.at(&span, "mime_header_mismatch_tolerance: so many bytes, as 64 or \"1KiB\""),
        }
    }
    if let Some(age) = s.parsed("script_age", m, duration) {
        media.script_age = age;
    }
    if let Some((key, value, _)) = s.take("approved_workflows") {
        match value.as_array() {
            None => m.at(
                &key,
                "it is written [[media.approved_workflows]], with two brackets, as there may be several",
            ),
            Some(array) => {
                for element in array.iter() {
                    match element.get_ref() {
                        DeValue::Table(table) => {
                            let one = Section::new("[[media.approved_workflows]]", table, element.span());
                            media.approved_workflows.extend(workflow(one, m));
                        }
                        other => m.at(
                            &element.span(),
                            format!("a workflow must be a table, not {}", article(other)),
                        ),
                    }
                }
            }
        }
    }
    s.finish(m);
}

fn workflow(mut s: Section<'_, '_>, m: &mut Mistakes) -> Option<Workflow> {
    let span = s.span.clone();
    let path = s.parsed("path", m, absolute);
    let owner = s.string("owner", m).map(|(text, _)| text.to_owned());
    let reason = s.string("reason", m).map(|(text, _)| text.to_owned());
    let day = |text: &str| text.parse::<Date>().map_err(|_| format!("`{text}` is no day; write 2026-12-31"));
    let expires = s.parsed("expires", m, day);
    s.finish(m);
    let (Some(path), Some(owner), Some(reason), Some(expires)) = (path, owner, reason, expires) else {
        m.at(&span, "an approved workflow needs a path, an owner, a reason and a day on which it expires");
        return None;
    };
    if expires < jiff::Zoned::now().date() {
        m.warn(&span, format!("the approval of {} expired on {expires}", path.display()));
    }
    Some(Workflow { path, owner, reason, expires })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn every_key() {
        let text = r#"[media]
monitored_tools_list = ["steghide", "/opt/stego"]
script_interpreter_match = ["python", { name = "tclsh", inline = "", module = "", value = "e" }]
time_window = "10min"
mime_header_mismatch_tolerance = "1KiB"
script_age = "7d"
[[media.approved_workflows]]
path = "/srv/resize.py"
owner = "ann"
reason = "thumbnails"
expires = "2100-01-31"
"#;
        let media = parse(text).unwrap().config.media;
        assert_eq!(media.monitored_tools_list, ["steghide", "/opt/stego"]);
        assert_eq!(
            (&*media.script_interpreter_match[0].inline, &*media.script_interpreter_match[0].module),
            ("c", "m")
        );
        assert_eq!(&media.script_interpreter_match[1].value, "e");
        assert_eq!(media.time_window, Duration::from_secs(600));
        assert_eq!(media.mime_header_mismatch_tolerance, 1024);
        assert_eq!(media.script_age, Duration::from_secs(7 * 86_400));
        assert_eq!(media.approved_workflows[0].owner, "ann");
    }

    #[test]
    fn mistakes_and_where() {
        let wrong = |lines: &str, words: &str| {
            let found = parse(&format!("[media]\n{lines}\n")).expect_err(lines);
            assert!(found.iter().any(|f| f.message.contains(words)), "{lines} {found:?}");
        };
        wrong("monitored_tools_list = [7]", "a name or a path");
        wrong("script_interpreter_match = [{ inline = \"c\" }]", "needs a name");
        wrong("mime_header_mismatch_tolerance = -1", "so many bytes");
        wrong("time_window = \"1ms\"", "at least 1s");
        wrong(
            "[[media.approved_workflows]]\npath = \"/x\"\nowner = \"a\"\nreason = \"b\"",
            "a day on which it expires",
        );
        wrong("[[media.approved_workflows]]\npath = \"/x\"\nexpires = \"soon\"", "is no day");
        wrong("script_aeg = \"1d\"", "did you mean `script_age`?");
        let old =
            "[[media.approved_workflows]]\npath=\"/x\"\nowner=\"a\"\nreason=\"b\"\nexpires=\"2001-01-01\"";
        assert!(parse(old).unwrap().warnings[0].message.contains("expired on 2001-01-01"));
    }
}
