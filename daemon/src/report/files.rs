//! Files in the report: each with its two paths, its digests and the way it went; a thousand of a kind in a
//! few lines.
//!
//! Comes in: transfers as they come, files and the legs that they went over. Goes out: text, before
//! everything else. Memory is bounded: of files that are alike a few are kept, of legs one line each.

use super::style::{Colour, Style};
use super::{INDENT, bytes, end, rank, strip, words};
use crate::escape::{clip, text};
use crate::model::{Channel, Endpoint, Reason, Transfer, Verdict};
use std::collections::HashMap;
use std::io::{self, Write};
use uuid::Uuid;

/// Files of a kind that are shown one by one, if they are intact …
const INTACT_SHOWN: usize = 3;
/// … and if they are not.
const SHOWN: usize = 10;
/// Kinds kept.
const KINDS: usize = 100;
/// Legs kept.
const LEGS: usize = 20_000;

/// Files on their way into the report.
#[derive(Default)]
pub struct Files {
    kinds: Vec<Kind>,
    by_likeness: HashMap<Likeness, usize>,
    beyond: u64,
    legs: HashMap<Uuid, Leg>,
}

#[derive(PartialEq, Eq, Hash)]
struct Likeness {
    verdict: Verdict,
    reasons: Vec<Reason>,
    programs: [Option<String>; 2],
}

struct Kind {
    shown: Vec<Transfer>,
    count: u64,
    bytes: u64,
}

struct Leg {
    channel: Channel,
    verdict: Verdict,
    from: Option<String>,
    to: Option<String>,
}

fn exe(end: Option<&Endpoint>) -> Option<String> {
    end.and_then(|e| e.exe.clone())
}

impl Files {
    /// Takes up a file's transfer.
    pub fn add(&mut self, t: &Transfer) {
        let likeness = Likeness {
            verdict: t.verdict,
            reasons: t.reasons.clone(),
            programs: [exe(t.origin.as_ref()), exe(t.destination.as_ref())],
        };
        let next = self.kinds.len();
        let at = match self.by_likeness.get(&likeness) {
            Some(at) => *at,
            None if next < KINDS => {
                self.by_likeness.insert(likeness, next);
                self.kinds.push(Kind { shown: Vec::new(), count: 0, bytes: 0 });
                next
            }
            None => {
                self.beyond += 1;
                return;
            }
        };
        let kind = &mut self.kinds[at];
        kind.count += 1;
        kind.bytes = kind.bytes.saturating_add(t.bytes.destination.or(t.bytes.origin).unwrap_or(0));
        let limit = if t.verdict == Verdict::Intact { INTACT_SHOWN } else { SHOWN };
        if kind.shown.len() < limit {
            kind.shown.push(t.clone());
        }
    }

    /// Takes up a transfer that a file may have gone over.
    pub fn leg(&mut self, t: &Transfer) {
        if self.legs.len() < LEGS {
            let (channel, verdict) = (t.channel, t.verdict);
            let (from, to) = (exe(t.origin.as_ref()), exe(t.destination.as_ref()));
            self.legs.insert(t.id, Leg { channel, verdict, from, to });
        }
    }

    /// Writes them, the worst last.
    ///
    /// # Errors
    /// Writing failed.
    pub fn write(mut self, quiet: bool, style: &Style, out: &mut impl Write) -> io::Result<()> {
        self.kinds.retain(|k| !(quiet && k.shown[0].verdict == Verdict::Intact));
        if self.kinds.is_empty() {
            return Ok(());
        }
        self.kinds.sort_by_key(|k| (rank(k.shown[0].verdict), k.shown[0].started));
        for kind in &self.kinds {
            for t in &kind.shown {
                self.one(t, style, out)?;
            }
            let more = kind.count - kind.shown.len() as u64;
            if more > 0 {
                let verdict = words::verdict(kind.shown[0].verdict);
                writeln!(out, "{INDENT}… and {more} more files {verdict}, {} in all", bytes(kind.bytes))?;
            }
        }
        if self.beyond > 0 {
            writeln!(out, "… and {} more files of other kinds", self.beyond)?;
        }
        writeln!(out)
    }

    fn one(&self, t: &Transfer, style: &Style, out: &mut impl Write) -> io::Result<()> {
        let colour = match t.verdict {
            Verdict::Intact => Colour::Green,
            Verdict::Altered => Colour::Red,
            Verdict::Truncated | Verdict::Unverified => Colour::Yellow,
        };
        let verdict = style.paint(colour, &format!("{:<11}", words::verdict(t.verdict)));
        let (origin, destination) = (t.origin.as_ref(), t.destination.as_ref());
        // Of an end that nobody saw, its address is known.
        let remote = origin.or(destination).and_then(|e| e.remote.as_deref());
        let path = |e: Option<&Endpoint>| {
            let known = e.map_or(remote, |e| e.path.as_deref());
            clip(&text(known.unwrap_or("?")), 200).into_owned()
        };
        let arrow = style.arrow();
        writeln!(out, "{verdict}  file  {}", path(origin))?;
        writeln!(out, "{INDENT}   {arrow}  {}  {}", path(destination), size(t))?;
        writeln!(out, "{INDENT}{} {arrow} {}{}", end(origin), end(destination), self.way(t))?;
        if let Some(strip) = strip::strip(&t.strip, style) {
            let differ = match t.verdict {
                Verdict::Altered => format!("  {} differ", words::ranges(&t.altered)),
                _ => String::new(),
            };
            writeln!(out, "{INDENT}{strip}{}", style.paint(Colour::Red, &differ))?;
        }
        let digest = |e: Option<&Endpoint>| {
            e.and_then(|e| e.sha256.as_deref()).map_or_else(|| "not known".into(), |d| text(d).into_owned())
        };
        let (read, written) = (digest(origin), digest(destination));
        if read == written {
            writeln!(out, "{INDENT}sha256 {read}")?;
        } else {
            writeln!(out, "{INDENT}sha256 read    {read}\n{INDENT}sha256 written {written}")?;
        }
        if t.verdict != Verdict::Intact {
            self.chain(t, style, out)?;
        }
        for reason in &t.reasons {
            for line in style.wrap(&words::reason(*reason, t), INDENT.len()) {
                writeln!(out, "{INDENT}{line}")?;
            }
        }
        Ok(())
    }

    /// `, over 3 legs, all intact`.
    fn way(&self, t: &Transfer) -> String {
        let verdicts: Vec<Option<Verdict>> =
            t.legs.iter().map(|id| self.legs.get(id).map(|l| l.verdict)).collect();
        let legs = match verdicts.len() {
            0 => return String::new(),
            1 => "1 leg".to_owned(),
            n => format!("{n} legs"),
        };
        let intact = verdicts.iter().filter(|v| **v == Some(Verdict::Intact)).count();
        match intact {
            n if n == verdicts.len() => format!(", over {legs}, {}intact", if n > 1 { "all " } else { "" }),
            n => format!(", over {legs}, {n} of them intact"),
        }
    }

    /// The legs, one line each.
    fn chain(&self, t: &Transfer, style: &Style, out: &mut impl Write) -> io::Result<()> {
        for id in t.legs.iter().take(32) {
            let Some(leg) = self.legs.get(id) else { continue };
            let program = |exe: &Option<String>| {
                let base = exe.as_deref().and_then(|e| e.rsplit('/').next()).unwrap_or("?");
                clip(&text(base), 40).into_owned()
            };
            let line = format!(
                "  {:<5} {} {} {}: {}",
                words::channel(leg.channel),
                program(&leg.from),
                style.arrow(),
                program(&leg.to),
                words::verdict(leg.verdict),
            );
            let colour = if leg.verdict == Verdict::Altered { Colour::Red } else { Colour::Plain };
            writeln!(out, "{INDENT}{}", style.paint(colour, &line))?;
        }
        Ok(())
    }
}

/// Bytes, and words for them.
fn size(t: &Transfer) -> String {
    match (t.bytes.origin, t.bytes.destination) {
        (Some(a), Some(b)) if a == b => bytes(a),
        (Some(a), Some(b)) if b < a && t.verdict == Verdict::Truncated => format!("{b} of {}", bytes(a)),
        (Some(a), Some(b)) => format!("{} read, {b} written", bytes(a)),
        _ => "no byte seen".into(),
    }
}
