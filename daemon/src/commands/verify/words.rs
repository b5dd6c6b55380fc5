//! What `verify` says, for people and as JSON.
#![forbid(unsafe_code)]

use super::{Args, name};
use crate::escape::bytes;
use crate::report::style::{Colour, Style};
use crate::report::words::ranges;
use crate::verify::bytes::Sha;
use crate::verify::checksums::hex;
use crate::verify::{Entry, Facts, State, Summary};
use serde_json::{Value, json};
use std::os::unix::ffi::OsStrExt;

/// Columns of the first word.
const WORD: usize = 10;

/// `DIFFERENT  sub/name`, and below it where and how.
pub fn entry(entry: &Entry, args: &Args, style: &Style) -> String {
    let (word, colour) = match entry.state {
        State::Equal => ("equal", Colour::Green),
        State::Different => ("DIFFERENT", Colour::Red),
        State::Missing => ("only in A", Colour::Red),
        State::Extra => ("only in B", Colour::Yellow),
        State::Type => ("OTHER KIND", Colour::Red),
        State::Skipped => ("skipped", Colour::Yellow),
        State::Error => ("ERROR", Colour::Red),
    };
    let mut out = style.paint(colour, word) + &" ".repeat(WORD.saturating_sub(word.len()));
    out += &format!("  {}{}\n", name(entry, args), slash(entry));
    for line in details(entry) {
        out += &format!("{:WORD$}  {line}\n", "");
    }
    out
}

fn slash(entry: &Entry) -> &'static str {
    let folder = |f: &Option<Facts>| f.as_ref().is_some_and(|f| f.kind == "folder");
    let only = matches!(entry.state, State::Missing | State::Extra);
    if only && (folder(&entry.a) || folder(&entry.b)) { "/ (a folder and all in it)" } else { "" }
}

fn details(entry: &Entry) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(why) = &entry.why {
        lines.push(crate::escape::text(why).into_owned());
    }
    let (Some(a), Some(b)) = (&entry.a, &entry.b) else { return lines };
    match entry.state {
        State::Type => lines.push(format!("a {} in A, a {} in B", a.kind, b.kind)),
        State::Skipped => lines.push(format!("a {} in both: not opened, not compared", a.kind)),
        State::Different => {
            if let Some(first) = entry.first {
                let more =
                    if entry.more > 0 { format!(" and {} more ranges", entry.more) } else { String::new() };
                lines.push(format!("{}{more} differ, the first byte at {first}", ranges(&entry.ranges)));
            }
            lines.extend(lengths(entry, a, b));
            for (side, facts) in [("A", a), ("B", b)] {
                lines.extend(facts.target.as_ref().map(|t| format!("{side} points to {}", bytes(t))));
                lines.extend(facts.sha256.as_ref().map(|s| format!("{side} sha256 {}", hex(s))));
            }
        }
        State::Equal | State::Missing | State::Extra | State::Error => {}
    }
    lines
}

/// Which is shorter, and what is there of it.
fn lengths(entry: &Entry, a: &Facts, b: &Facts) -> Option<String> {
    let (x, y) = (a.bytes?, b.bytes?);
    if x == y {
        return None;
    }
    let (short, long, side) = if x < y { (x, y, "A") } else { (y, x, "B") };
    let prefix = if entry.first.is_none() { ", the same up to there" } else { "" };
    Some(format!("{side} ends after {short} of {long} bytes{prefix}"))
}

/// The last line. `digest`: two files were compared, and this is what they are.
pub fn summary(s: &Summary, elsewhere: u64, digest: Option<&Sha>, style: &Style) -> String {
    let mut out = if s.all_equal() {
        let bytes = count(s.bytes, "byte", "bytes");
        let what = match digest {
            Some(sha) => format!("{bytes}, sha256 {}", hex(sha)),
            None => format!("{}, {bytes}", count(s.equal, "entry", "entries")),
        };
        format!("{}: {what}", style.paint(Colour::Green, "equal"))
    } else {
        let parts: Vec<String> = [
            (s.different, "different"),
            (s.missing, "only in A"),
            (s.extra, "only in B"),
            (s.types, "of another kind"),
            (s.skipped, "skipped"),
            (s.errors, "not compared"),
            (s.equal, "equal"),
        ]
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, word)| format!("{n} {word}"))
        .collect();
        format!("{}: {}", style.paint(Colour::Red, "not equal"), parts.join(", "))
    };
    if s.beside > 0 {
        out += &format!("; {} in the folder that the manifest doesn't name", s.beside);
    }
    if elsewhere > 0 {
        out += &format!("; {elsewhere} of the manifest's files lie elsewhere and were not looked at");
    }
    out + "\n"
}

fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// An entry as a JSON line.
pub fn json(entry: &Entry, args: &Args) -> String {
    let facts = |f: &Option<Facts>| {
        f.as_ref().map_or(Value::Null, |f| {
            json!({ "kind": f.kind, "bytes": f.bytes, "sha256": f.sha256.as_ref().map(hex),
                    "target": f.target.as_ref().map(|t| bytes(t)) })
        })
    };
    let value = json!({
        "type": "verify", "path": name(entry, args), "state": entry.state.word(),
        "a": facts(&entry.a), "b": facts(&entry.b), "first": entry.first, "differs": entry.ranges,
        "more_ranges": entry.more, "why": entry.why,
    });
    value.to_string() + "\n"
}

/// The summary as a JSON line.
pub fn summary_json(s: &Summary, elsewhere: u64, args: &Args) -> String {
    let path = |p: &std::path::Path| bytes(p.as_os_str().as_bytes());
    let value = json!({
        "type": "verify-summary", "a": path(&args.a), "b": path(&args.b), "verdict": if s.all_equal() { "equal" } else { "not-equal" },
        "equal": s.equal, "different": s.different, "missing": s.missing, "extra": s.extra, "other_kind": s.types,
        "skipped": s.skipped, "errors": s.errors, "beside": s.beside, "elsewhere": elsewhere, "bytes": s.bytes,
    });
    value.to_string() + "\n"
}
