//! What `run` says at the end, on stderr: the files, each transfer, then the alarms, then one line.
//!
//! Comes in: final transfers, alarms, the summary. Goes out: text for a person, the worst last,
//! where the eye is. Called by `commands::run` and `commands::demo`. Transfers that are alike are
//! gathered as they come, so memory and text stay small whatever was transferred.
#![forbid(unsafe_code)]

mod files;
mod strip;
pub mod style;
#[cfg(test)]
mod tests;
pub mod words;

use crate::escape::{clip, text};
use crate::model::{Alarm, Endpoint, Process, ProcessName, Severity, Summary, Transfer, Verdict};
use std::collections::HashMap;
use std::io::{self, Write};
use style::{Colour, Style};

/// Transfers shown one by one for each group of those that are alike.
const SHOWN: usize = 3;
/// Groups kept; what comes beyond is only counted.
const GROUPS: usize = 500;

/// Transfers on their way into the report.
#[derive(Default)]
pub struct Gathered {
    files: files::Files,
    groups: Vec<Group>,
    by_likeness: HashMap<Likeness, usize>,
    /// Transfers that found no group.
    beyond: u64,
}

#[derive(PartialEq, Eq, Hash)]
struct Likeness {
    verdict: Verdict,
    channel: crate::model::Channel,
    reasons: Vec<crate::model::Reason>,
    origin: Option<String>,
    destination: Option<String>,
}

struct Group {
    shown: Vec<Transfer>,
    count: u64,
    bytes: u64,
}

impl Gathered {
    /// Takes up one transfer.
    pub fn add(&mut self, transfer: &Transfer) {
        if transfer.channel == crate::model::Channel::File {
            return self.files.add(transfer);
        }
        self.files.leg(transfer);
        let exe = |e: &Option<Endpoint>| e.as_ref().map(|e| e.exe.clone().unwrap_or_default());
        let likeness = Likeness {
            verdict: transfer.verdict,
            channel: transfer.channel,
            reasons: transfer.reasons.clone(),
            origin: exe(&transfer.origin),
            destination: exe(&transfer.destination),
        };
        let next = self.groups.len();
        let at = match self.by_likeness.get(&likeness) {
            Some(at) => *at,
            None if next < GROUPS => {
                self.by_likeness.insert(likeness, next);
                self.groups.push(Group { shown: Vec::new(), count: 0, bytes: 0 });
                next
            }
            None => {
                self.beyond += 1;
                return;
            }
        };
        let group = &mut self.groups[at];
        group.count += 1;
        group.bytes = group.bytes.saturating_add(size(transfer).0);
        if group.shown.len() < SHOWN {
            group.shown.push(transfer.clone());
        }
    }

    /// Writes the report. `quiet`: nothing at all if everything is intact and nothing alarmed, and
    /// nothing about what is intact otherwise.
    ///
    /// # Errors
    /// Writing failed.
    pub fn write(
        mut self,
        alarms: &[Alarm],
        summary: &Summary,
        quiet: bool,
        style: &Style,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let intact = summary.transfers.keys().all(|verdict| verdict == "intact");
        if quiet && intact && alarms.is_empty() {
            return Ok(());
        }
        self.groups.retain(|g| !(quiet && g.shown[0].verdict == Verdict::Intact));
        self.groups.sort_by_key(|g| (rank(g.shown[0].verdict), g.shown[0].started));
        writeln!(out)?;
        self.files.write(quiet, style, out)?;
        for group in &self.groups {
            for transfer in &group.shown {
                one(transfer, style, out)?;
            }
            let more = group.count - group.shown.len() as u64;
            if more > 0 {
                writeln!(out, "{}  … and {more} more like these, {} bytes in all", INDENT, group.bytes)?;
            }
        }
        if self.beyond > 0 {
            writeln!(out, "… and {} more transfers of other kinds", self.beyond)?;
        }
        if !self.groups.is_empty() {
            writeln!(out)?;
        }
        if !alarms.is_empty() {
            self::alarms(alarms, style, out)?;
        }
        writeln!(out, "{}", style.paint(Colour::Bold, &format!("counterfoil: {}", last_line(summary))))
    }
}

const INDENT: &str = "             ";

/// Worst last.
fn rank(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Intact => 0,
        Verdict::Unverified => 1,
        Verdict::Truncated => 2,
        Verdict::Altered => 3,
    }
}

/// Bytes, and words for them.
fn size(t: &Transfer) -> (u64, String) {
    match (t.bytes.origin, t.bytes.destination) {
        (Some(a), Some(b)) if a == b => (a, bytes(a)),
        (Some(a), Some(b)) => (a.max(b), format!("{} written, {b} read", bytes(a))),
        (Some(a), None) => (a, format!("{} written", bytes(a))),
        (None, Some(b)) => (b, format!("{} read", bytes(b))),
        (None, None) => (0, "no byte seen".into()),
    }
}

fn bytes(n: u64) -> String {
    format!("{n} byte{}", if n == 1 { "" } else { "s" })
}

fn one(t: &Transfer, style: &Style, out: &mut impl Write) -> io::Result<()> {
    let colour = match t.verdict {
        Verdict::Intact => Colour::Green,
        Verdict::Altered => Colour::Red,
        Verdict::Truncated | Verdict::Unverified => Colour::Yellow,
    };
    let verdict = style.paint(colour, &format!("{:<11}", words::verdict(t.verdict)));
    let channel = words::channel(t.channel);
    writeln!(
        out,
        "{verdict}  {channel:<5} {} {} {}  {}",
        end(t.origin.as_ref()),
        style.arrow(),
        end(t.destination.as_ref()),
        size(t).1
    )?;
    if let Some(route) = route(t, style) {
        writeln!(out, "{INDENT}{route}")?;
    }
    if let Some(strip) = strip::strip(&t.strip, style) {
        let differ = match t.verdict {
            Verdict::Altered => format!("  {} differ", words::ranges(&t.altered)),
            _ => String::new(),
        };
        writeln!(out, "{INDENT}{strip}{}", style.paint(Colour::Red, &differ))?;
    }
    let digests = (&t.origin_digest, &t.destination_digest);
    if let (Verdict::Altered | Verdict::Truncated, (Some(wrote), Some(read))) = (t.verdict, digests)
        && wrote != read
    {
        writeln!(out, "{INDENT}digest written {}", clip(&text(wrote), 64))?;
        writeln!(out, "{INDENT}digest read    {}", clip(&text(read), 64))?;
    }
    for reason in &t.reasons {
        for line in style.wrap(&words::reason(*reason, t), INDENT.len()) {
            writeln!(out, "{INDENT}{line}")?;
        }
    }
    Ok(())
}

/// `curl (pid 11)`, or that nobody looked.
fn end(end: Option<&Endpoint>) -> String {
    let Some(e) = end else { return "(not observed)".into() };
    let more = match e.also.len() {
        0 => String::new(),
        1 => format!(" and {}", name(&e.also[0])),
        n => format!(" and {n} more processes"),
    };
    format!("{}{more}", name(&ProcessName { pid: e.pid, exe: e.exe.clone() }))
}

fn name(p: &ProcessName) -> String {
    let base = p.exe.as_deref().and_then(|e| e.rsplit('/').next()).filter(|n| !n.is_empty());
    format!("{} (pid {})", clip(&text(base.unwrap_or("?")), 40), p.pid)
}

/// Addresses or a path, as the end that was observed knows them.
fn route(t: &Transfer, style: &Style) -> Option<String> {
    let address = |a: &Option<String>| clip(&text(a.as_deref().unwrap_or("?")), 120).into_owned();
    let arrow = style.arrow();
    let path = |e: &Option<Endpoint>| e.as_ref().and_then(|e| e.path.clone());
    match (&t.origin, &t.destination) {
        (Some(o), _) if o.local.is_some() || o.remote.is_some() => {
            Some(format!("{} {arrow} {}", address(&o.local), address(&o.remote)))
        }
        (_, Some(d)) if d.local.is_some() || d.remote.is_some() => {
            Some(format!("{} {arrow} {}", address(&d.remote), address(&d.local)))
        }
        _ => path(&t.origin).or_else(|| path(&t.destination)).map(|p| clip(&text(&p), 160).into_owned()),
    }
}

fn alarms(alarms: &[Alarm], style: &Style, out: &mut impl Write) -> io::Result<()> {
    let mut sorted: Vec<&Alarm> = alarms.iter().collect();
    sorted.sort_by_key(|a| (a.finding.severity, a.raised));
    for alarm in sorted {
        let f = &alarm.finding;
        let colour = match f.severity {
            Severity::Critical | Severity::High => Colour::Red,
            Severity::Medium => Colour::Yellow,
            Severity::Low | Severity::Info => Colour::Plain,
        };
        let severity = style.paint(colour, &format!("{:<11}", words::severity(f.severity)));
        let times = if alarm.count > 1 { format!(", {} times", alarm.count) } else { String::new() };
        writeln!(out, "{severity}  {}{times}: {}", text(&f.rule), clip(&text(&f.title), 200))?;
        let width = INDENT.len();
        for line in style.wrap(&clip(&text(&f.message), 600), width) {
            writeln!(out, "{INDENT}{line}")?;
        }
        for line in style.wrap(&format!("Next: {}", clip(&text(&f.next), 600)), width) {
            writeln!(out, "{INDENT}{line}")?;
        }
    }
    writeln!(out)
}

/// `2 transfers intact, 1 altered; 1 alarm (1 payload-altered); 3 processes observed`.
fn last_line(s: &Summary) -> String {
    let total: u64 = s.transfers.values().sum();
    let mut parts = Vec::new();
    parts.push(match total {
        0 => "no transfer seen".to_owned(),
        n => {
            let verdicts: Vec<String> = ["altered", "truncated", "unverified", "intact"]
                .iter()
                .filter_map(|v| s.transfers.get(*v).filter(|n| **n > 0).map(|n| format!("{n} {v}")))
                .collect();
            format!("{n} transfer{}: {}", if n == 1 { "" } else { "s" }, verdicts.join(", "))
        }
    });
    let alarms: u64 = s.alarms.values().sum();
    if alarms > 0 {
        let rules: Vec<String> = s.alarms.iter().map(|(rule, n)| format!("{n} {}", text(rule))).collect();
        parts.push(format!("{alarms} alarm{} ({})", if alarms == 1 { "" } else { "s" }, rules.join(", ")));
    } else {
        parts.push("no alarm".into());
    }
    let observed = s.processes_observed;
    parts.push(format!("{observed} process{} observed", if observed == 1 { "" } else { "es" }));
    if s.processes_not_observed > 0 {
        parts.push(format!("{} NOT observed", s.processes_not_observed));
    }
    if s.dropped > 0 {
        parts.push(format!("{} of {} records LOST", s.dropped, s.records + s.dropped));
    }
    parts.join("; ")
}

/// One transfer with its route and its strip of blocks, as in the report.
#[must_use]
pub fn transfer(t: &Transfer, style: &Style) -> String {
    let mut out = Vec::new();
    let _ = one(t, style, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// `exe (pid N)` of a process, for tables.
#[must_use]
pub fn process_name(p: &Process) -> String {
    name(&ProcessName { pid: p.pid, exe: p.exe.clone() })
}

/// `exe (pid N)` of an endpoint, or that nobody looked, for tables.
#[must_use]
pub fn endpoint_name(e: Option<&Endpoint>) -> String {
    end(e)
}
