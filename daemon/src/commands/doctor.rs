//! `counterfoil doctor`: what can be observed, what not, why, and what to do.
#![forbid(unsafe_code)]

use super::daemon::{CONFIG, Probe, default_socket, probe};
use super::{NO, USAGE, print, say};
use crate::doctor::installation::{self, Places, Socket};
use crate::doctor::service::{self, Unknown};
use crate::doctor::{Mark, Report, process, program};
use crate::escape::text;
use crate::report::style::{Colour, Style};
use crate::session::default_state;
use serde_json::json;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Say what of a program, process or service can be observed, and what to do about the rest
///
/// Looks at the files, at /proc and at systemd's settings; starts nothing of what it looks at. Without a name it looks
/// at the installation itself: library, daemon, kernel.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  counterfoil doctor                      is everything in place?
  counterfoil doctor curl /opt/app/bin/x  programs, by name or path
  counterfoil doctor 4711                 a running process
  counterfoil doctor nginx.service        a service: its settings, its program, its main process
  counterfoil doctor --json node | jq -r '.checks[] | select(.advice) | .advice'

A number is a process; a name with a slash a file; a name that ends in .service a unit; any other
name a program in PATH, or else a unit.

Exit status: 0 everything can be observed; 1 something can't; 2 there is nothing of that name.")]
pub struct Args {
    /// Programs, process ids, services
    #[arg(value_name = "BINARY|PID|SERVICE")]
    subjects: Vec<String>,
    /// The daemon's socket [default: COUNTERFOIL_SOCKET, else /run/counterfoil/counterfoil.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The daemon's state directory [default: /var/lib/counterfoil]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// JSON Lines
    #[arg(long)]
    json: bool,
}

/// Looks, and says.
pub fn doctor(args: &Args) -> anyhow::Result<u8> {
    let style = Style::stdout();
    let mut status = 0;
    let mut reports = Vec::new();
    if args.subjects.is_empty() {
        reports.push(installation::examine(&places(args)));
    }
    for subject in &args.subjects {
        match examine(subject) {
            Ok(found) => reports.extend(found),
            Err(why) => {
                say(&format!("{subject}: {why}"));
                status = USAGE;
            }
        }
    }
    for (at, report) in reports.iter().enumerate() {
        if status == 0 && !report.observable() {
            status = NO;
        }
        let text = if args.json { as_json(report) } else { table(report, at > 0, &style) };
        if !print(&text)? {
            break;
        }
    }
    Ok(status)
}

fn places(args: &Args) -> Places {
    let socket = args.socket.clone().unwrap_or_else(default_socket);
    let answer = match probe(&socket) {
        Probe::Answers => Socket::Answers,
        Probe::Nobody => Socket::Nobody,
        Probe::Unreachable(e) => Socket::Unreachable(e.to_string()),
    };
    let state = args.state.clone().unwrap_or_else(default_state);
    Places { socket, answer, state, config: CONFIG.into() }
}

/// What `subject` is, and how it is.
fn examine(subject: &str) -> Result<Vec<Report>, String> {
    if let Ok(pid) = subject.parse::<u32>() {
        return match Path::new("/proc").join(subject).exists() {
            true => Ok(vec![process::examine(subject, pid)]),
            false => Err("there is no such process".into()),
        };
    }
    let unit = subject.ends_with(".service") && !subject.contains('/');
    if subject.contains('/') {
        let path = Path::new(subject);
        return match std::fs::metadata(path) {
            Ok(_) => Ok(vec![program::examine(subject, path)]),
            Err(e) => Err(e.to_string()),
        };
    }
    if let Some(path) = program::find(subject).filter(|_| !unit) {
        return Ok(vec![program::examine(subject, &path)]);
    }
    service::examine(subject).map_err(|unknown| match unknown {
        Unknown::NoSuch if unit => "systemd knows no such service".into(),
        Unknown::NoSuch => "neither a program in PATH nor a service; for a file write its path".into(),
        Unknown::NoSystemd(why) if unit => format!("{why}. Ask about its program or its process id"),
        Unknown::NoSystemd(why) => {
            format!("no program in PATH, and as a service it can't be looked up ({why})")
        }
    })
}

fn table(report: &Report, behind_another: bool, style: &Style) -> String {
    let (colour, says) = match report.answer() {
        "yes" => (Colour::Green, "can be observed"),
        "partly" => (Colour::Yellow, "can be observed in part"),
        _ => (Colour::Red, "can't be observed"),
    };
    let says = match (report.kind, report.answer()) {
        (crate::doctor::Kind::Installation, "yes") => "is ready",
        (crate::doctor::Kind::Installation, _) => "is not ready",
        (crate::doctor::Kind::Process, "yes") => "is observed",
        (crate::doctor::Kind::Process, "partly") => "is observed in part",
        (crate::doctor::Kind::Process, _) => "is not observed",
        _ => says,
    };
    let mut out = if behind_another { "\n".to_owned() } else { String::new() };
    let path = report.path.as_ref().map(|p| crate::escape::bytes(p.as_os_str().as_bytes()));
    let path = path.filter(|p| *p != report.subject).map(|p| format!(" ({p})")).unwrap_or_default();
    out += &format!("{}{path}: {}\n", text(&report.subject), style.paint(colour, says));
    let width = report.checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
    for check in &report.checks {
        let (colour, sign, word) = match check.mark {
            Mark::Info => (Colour::Plain, "·", "-"),
            Mark::Good => (Colour::Green, "✓", "ok"),
            Mark::Warning => (Colour::Yellow, "!", "!"),
            Mark::Part | Mark::Nothing => (Colour::Red, "✗", "NO"),
        };
        let sign = if style.unicode { sign } else { word };
        let sign = format!(
            "{}{}",
            style.paint(colour, sign),
            " ".repeat(2_usize.saturating_sub(sign.chars().count()))
        );
        let indent = 2 + 2 + 1 + width + 2;
        let mut lines = style.wrap(&text(&check.says), indent).into_iter();
        let first = lines.next().unwrap_or_default();
        out += &format!("  {sign} {:<width$}  {first}\n", check.name);
        for line in lines {
            out += &format!("{:indent$}{line}\n", "");
        }
        let advice = check.advice.as_deref().map(text).unwrap_or_default();
        let arrow = style.arrow();
        for (at, line) in style.wrap(&advice, indent + 3).iter().filter(|l| !l.is_empty()).enumerate() {
            let lead = if at == 0 { format!("{arrow:<2} ") } else { "   ".into() };
            out += &format!("{:indent$}{lead}{line}\n", "");
        }
    }
    out
}

fn as_json(report: &Report) -> String {
    let checks: Vec<_> = report
        .checks
        .iter()
        .map(|c| json!({ "check": c.name, "mark": c.mark.word(), "says": c.says, "advice": c.advice }))
        .collect();
    let value = json!({
        "type": "doctor", "subject": report.subject, "kind": report.kind.word(),
        "path": report.path.as_ref().map(|p| crate::escape::bytes(p.as_os_str().as_bytes())), "pid": report.pid,
        "observable": report.answer(), "checks": checks,
    });
    value.to_string() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Check, Kind};

    #[test]
    fn a_table_says_it_in_words_first() {
        let check = |name, mark, says: &str, advice: Option<&str>| Check {
            name,
            mark,
            says: says.into(),
            advice: advice.map(str::to_owned),
        };
        let report = Report {
            subject: "nod\u{1b}e".into(),
            kind: Kind::Program,
            path: Some("/usr/bin/node".into()),
            pid: None,
            checks: vec![
                check("starts", Mark::Good, "64-bit", None),
                check("tls", Mark::Part, "inside", Some("another build")),
            ],
        };
        assert_eq!(
            table(&report, false, &Style::plain()),
            "nod\\x1be (/usr/bin/node): can be observed in part\n  ✓  starts  64-bit\n  ✗  tls     inside\n             \
             →  another build\n"
        );
        let plain = Style { unicode: false, ..Style::plain() };
        assert!(table(&report, false, &plain).is_ascii());
    }
}
