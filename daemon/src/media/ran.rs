//! What a program was told to do: which script an interpreter runs, which tool this is, which files its arguments name.
//!
//! Comes in: a process and its arguments before they are redacted. Goes out: a [`Ran`]. Called once for each program.
#![forbid(unsafe_code)]

use crate::config::media::{Interpreter, Media};
use crate::model::Process;

/// Arguments that are looked at.
const ARGUMENTS: usize = 256;
/// Longer values are nobody's caption.
const CAPTION: usize = 512;

/// What an interpreter runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    /// A script, absolute.
    File(String),
    /// Code on its command line.
    Inline,
    /// A module of its own, by name.
    Module(String),
    /// What its standard input says, or a person.
    Input,
}

/// What kind of tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// It hides data in files, or looks for it there.
    Hides,
    /// It reads and writes what a media file carries besides; `payload`: it was told to write something that is no
    /// caption.
    Metadata {
        /// See above.
        payload: bool,
    },
    /// It makes one picture of another.
    Converts,
}

/// What a program is, to this analytic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Its name, as a person would type it.
    pub name: String,
    /// It is a monitored tool.
    pub tool: Option<Tool>,
    /// It is an interpreter, and no tool that is written as a script.
    pub code: Option<Code>,
    /// Absolute paths that its arguments may name.
    pub files: Vec<String>,
}

impl Ran {
    /// The script.
    #[must_use]
    pub fn script(&self) -> Option<&str> {
        match &self.code {
            Some(Code::File(path)) => Some(path),
            _ => None,
        }
    }
}

/// The last part of a path.
#[must_use]
pub fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Is `name` that of `tool`, or of a version of it? (`python3.11`, `convert-im6.q16`)
fn is(name: &str, tool: &str) -> bool {
    name.strip_prefix(tool).is_some_and(|rest| {
        rest.is_empty() || rest.starts_with("-im") || rest.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    })
}

/// An absolute path without `.` and `..`; links are not followed.
#[must_use]
pub fn absolute(path: &str, cwd: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let from = if path.starts_with('/') { "" } else { cwd };
    for part in from.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Reads a command line.
#[must_use]
pub fn ran(process: &Process, arguments: &[String], media: &Media) -> Ran {
    let exe = process.exe.as_deref().unwrap_or_default();
    let cwd = process.cwd.as_deref().unwrap_or("/");
    let exe = exe.strip_suffix(" (deleted)").unwrap_or(exe);
    let called = arguments.first().map_or("", |first| base(first));
    let interpreter =
        media.script_interpreter_match.iter().find(|i| is(base(exe), &i.name) || is(called, &i.name));
    let rest = arguments.get(1..).unwrap_or_default();
    let rest = &rest[..rest.len().min(ARGUMENTS)];
    let (code, rest) = match interpreter {
        Some(interpreter) => {
            let (code, rest) = code(interpreter, rest, cwd);
            (Some(code), rest)
        }
        None => (None, rest),
    };
    // exiftool is Perl's, binwalk Python's.
    let (name, path) = match &code {
        Some(Code::File(script)) => (base(script), script.as_str()),
        Some(Code::Module(module)) => (module.as_str(), module.as_str()),
        _ => (base(exe), exe),
    };
    let listed = |tool: &String| {
        if tool.starts_with('/') {
            tool == path
        } else {
            is(name, tool) || code.is_none() && is(called, tool)
        }
    };
    let tool = media.monitored_tools_list.iter().find(|tool| listed(tool)).map(|tool| match base(tool) {
        "exiftool" | "exiv2" => Tool::Metadata { payload: payload(rest) },
        "convert" | "magick" | "mogrify" | "composite" | "montage" | "identify" | "conjure" | "stream" => {
            Tool::Converts
        }
        _ => Tool::Hides,
    });
    let files =
        rest.iter().filter(|a| !a.starts_with('-') && !a.is_empty()).map(|a| absolute(a, cwd)).collect();
    let name = if tool.is_some() || code.is_none() { name } else { base(exe) };
    Ran { name: name.to_owned(), code: code.filter(|_| tool.is_none()), tool, files }
}

/// What an interpreter runs, and the arguments behind that.
fn code<'a>(interpreter: &Interpreter, arguments: &'a [String], cwd: &str) -> (Code, &'a [String]) {
    let mut at = 0;
    while let Some(argument) = arguments.get(at) {
        at += 1;
        let behind = arguments.get(at..).unwrap_or_default();
        if argument == "-" {
            return (Code::Input, behind);
        }
        if argument == "--" {
            continue;
        }
        let Some(letters) = argument.strip_prefix('-').filter(|l| !l.is_empty()) else {
            if argument.starts_with('+') {
                continue;
            }
            return (Code::File(absolute(argument, cwd)), behind);
        };
        if let Some(long) = letters.strip_prefix('-') {
            let (name, value) =
                long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            if matches!(name, "eval" | "print" | "run" | "command") {
                return (
                    Code::Inline,
                    if value.is_some() { behind } else { behind.get(1..).unwrap_or_default() },
                );
            }
            continue;
        }
        for (i, letter) in letters.char_indices() {
            let attached = &letters[i + letter.len_utf8()..];
            // The value stands in the same word or is the next one; code behind `sh -ec` is always the next.
            let shell = interpreter.inline == "c" && interpreter.module.is_empty();
            let next =
                || if attached.is_empty() || shell { behind.get(1..).unwrap_or_default() } else { behind };
            if interpreter.inline.contains(letter) {
                return (Code::Inline, next());
            }
            if interpreter.module.contains(letter) {
                let module = if attached.is_empty() { behind.first().map_or("", |s| s) } else { attached };
                return (Code::Module(module.to_owned()), next());
            }
            if interpreter.value.contains(letter) {
                at += usize::from(attached.is_empty() || shell);
                break;
            }
        }
    }
    (Code::Input, &[])
}

/// Arguments that write into metadata what is no caption: from a file, or long, or code.
fn payload(arguments: &[String]) -> bool {
    const CODE: [&str; 14] = [
        "#!", "<?", "<script", "$(", "`", "eval", "exec", "base64", "| sh", "|sh", "import ", "curl ",
        "wget ", "/bin/",
    ];
    let no_caption = |value: &str| value.len() > CAPTION || CODE.iter().any(|code| value.contains(code));
    arguments.iter().enumerate().any(|(at, argument)| {
        // exiv2: `-M'set KEY VALUE'`, `-c COMMENT`, both apart or in one word.
        let before = at.checked_sub(1).and_then(|at| arguments.get(at)).map_or("", |a| a);
        let command = argument.strip_prefix("-M").unwrap_or(argument);
        if command.starts_with("set ") || command.starts_with("add ") || before == "-c" {
            return no_caption(command);
        }
        // exiftool: `-TAG=VALUE`, `-TAG<=FILE`.
        match argument.strip_prefix('-').map(|tag| (tag, tag.split_once('='))) {
            Some((tag, Some((name, value)))) => {
                name.ends_with('<') || value.starts_with("<=") || tag.contains("<=") || no_caption(value)
            }
            Some((tag, None)) => tag.strip_prefix('c').is_some_and(no_caption),
            None => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(exe: &str, line: &str) -> Ran {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let process = Process { exe: Some(exe.into()), cwd: Some("/home/ann".into()), ..Process::default() };
        ran(&process, &arguments, &Media::default())
    }

    #[test]
    fn what_interpreters_run() {
        let file = |path: &str| Some(Code::File(path.to_owned()));
        for (exe, line, expected) in [
            ("/usr/bin/python3.11", "python3 a.py x.png", file("/home/ann/a.py")),
            ("/usr/bin/python3.11", "python3 -B -W ignore ../b/a.py", file("/home/b/a.py")),
            ("/usr/bin/python3.11", "python3 -c code x.png", Some(Code::Inline)),
            ("/usr/bin/python3.11", "python3 -Bc code", Some(Code::Inline)),
            ("/usr/bin/python3.11", "python3 -m http.server 80", Some(Code::Module("http.server".into()))),
            ("/usr/bin/python3.11", "python3 - x.png", Some(Code::Input)),
            ("/usr/bin/python3.11", "python3", Some(Code::Input)),
            ("/usr/bin/dash", "sh -euc code", Some(Code::Inline)),
            ("/usr/bin/dash", "sh", Some(Code::Input)),
            ("/usr/bin/bash", "bash --norc /tmp/./x.sh", file("/tmp/x.sh")),
            ("/usr/bin/perl", "perl -ne print", Some(Code::Inline)),
            ("/usr/bin/perl", "perl -w /usr/bin/thing", file("/usr/bin/thing")),
            ("/usr/bin/cat", "cat x", None),
        ] {
            assert_eq!(of(exe, line).code, expected, "{line}");
        }
        assert_eq!(of("/usr/bin/python3.11", "python3 a.py -v x.png").files, ["/home/ann/x.png"]);
        assert_eq!(of("/usr/bin/dash", "sh -c code name x.png").files, ["/home/ann/name", "/home/ann/x.png"]);
    }

    #[test]
    fn tools() {
        let tool = |exe, line| of(exe, line).tool;
        assert_eq!(tool("/usr/bin/steghide", "steghide embed -cf a.jpg"), Some(Tool::Hides));
        assert_eq!(tool("/usr/bin/python3.11", "python3 /usr/bin/binwalk a.jpg"), Some(Tool::Hides));
        assert_eq!(tool("/usr/bin/convert-im6.q16", "convert a b"), Some(Tool::Converts));
        let exif = |line| tool("/usr/bin/perl", line);
        assert_eq!(exif("/usr/bin/perl -w /usr/bin/exiftool a.jpg"), Some(Tool::Metadata { payload: false }));
        assert_eq!(
            exif("perl /usr/bin/exiftool -Comment=Venice a.jpg"),
            Some(Tool::Metadata { payload: false })
        );
        assert_eq!(
            exif("perl /usr/bin/exiftool -Comment<=x.sh a.jpg"),
            Some(Tool::Metadata { payload: true })
        );
        assert_eq!(
            exif("perl /usr/bin/exiftool -Comment=#!/bin/sh a.jpg"),
            Some(Tool::Metadata { payload: true })
        );
        for (words, expected) in [
            (&["exiv2", "-Mset Exif.Image.Artist curl http://a|sh", "a.jpg"][..], true),
            (&["exiv2", "-M", "add Iptc.Caption $(id)", "a.jpg"], true),
            (&["exiv2", "-c", "eval x", "a.jpg"], true),
            (&["exiv2", "-ceval x", "a.jpg"], true),
            (&["exiv2", "-Mset Exif.Image.Artist Ann", "-c", "at the lake", "/usr/bin/a.jpg"], false),
            (&["exiv2", "pr", "/bin/a.jpg"], false),
        ] {
            let words: Vec<String> = words.iter().map(|&w| w.to_owned()).collect();
            let process = Process { exe: Some("/usr/bin/exiv2".into()), ..Process::default() };
            let ran = ran(&process, &words, &Media::default());
            assert_eq!(ran.tool, Some(Tool::Metadata { payload: expected }), "{words:?}");
        }
        assert_eq!(tool("/usr/bin/perl", "perl /usr/bin/prename a.jpg"), None);
        assert_eq!(of("/usr/bin/perl", "perl /usr/bin/exiftool a.jpg").code, None);
    }
}
