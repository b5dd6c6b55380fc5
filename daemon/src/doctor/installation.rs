//! The installation itself: is everything there that observing needs?
//!
//! Comes in: where daemon, state and configuration are. Goes out: a report. Called by `commands::doctor` where nothing
//! was named. Starts `/bin/true` once with the library, inert, to see that the loader takes it.
#![forbid(unsafe_code)]

use super::{Kind, Mark, Report};
use crate::library;
use crate::{config, ledger};
use rustix::fs::{Access, AtFlags, CWD, MemfdFlags, SealFlags};
use rustix::process::PidfdFlags;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the daemon's socket said.
#[derive(Clone, Debug)]
pub enum Socket {
    /// A daemon is there.
    Answers,
    /// Nobody is.
    Nobody,
    /// It can't be reached.
    Unreachable(String),
}

/// Where things are.
pub struct Places {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// What is there.
    pub answer: Socket,
    /// The daemon's state directory.
    pub state: PathBuf,
    /// The configuration.
    pub config: PathBuf,
}

/// Looks at all of it.
#[must_use]
pub fn examine(places: &Places) -> Report {
    let mut report = Report::new("this installation", Kind::Installation);
    the_library(&mut report);
    daemon(&mut report, places);
    configuration(&mut report, places);
    kernel(&mut report);
    preload(&mut report);
    surroundings(&mut report);
    report
}

fn the_library(report: &mut Report) {
    let path = match library::find() {
        Ok(path) => path,
        Err(e) => {
            report.add("library", Mark::Nothing, e.to_string());
            report.advise("make install puts it in place");
            return;
        }
    };
    report.path = Some(path.clone());
    match loads(&path) {
        Ok(()) => {
            report.add("library", Mark::Good, format!("{}: the loader takes it", path.display()));
        }
        Err(said) => {
            report.add(
                "library",
                Mark::Nothing,
                format!("{}: the loader doesn't take it: {said}", path.display()),
            );
            report.advise("build and install it on this system: make install");
        }
    }
    for place in path.ancestors().filter(|p| !p.as_os_str().is_empty()) {
        let Ok(meta) = std::fs::metadata(place) else { continue };
        let (open, needed) = if meta.is_dir() {
            (meta.mode() & 0o001, "chmod o+x")
        } else {
            (meta.mode() & 0o004, "chmod o+r")
        };
        if open == 0 {
            let says =
                format!("other users can't read it ({}): what runs as them goes unobserved", place.display());
            report.add("library", Mark::Warning, says);
            report.advise(format!("{needed} {}, or make install", place.display()));
        }
        let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0;
        if meta.uid() != 0 || (meta.mode() & 0o022 != 0 && !sticky) {
            let says =
                format!("others than root can replace it ({}): not for programs of root", place.display());
            report.add("library", Mark::Warning, says);
            report.advise("make install puts it where only root can write");
            break;
        }
    }
}

/// Does a program load the library without a word from the loader?
fn loads(library: &Path) -> Result<(), String> {
    let mut command = Command::new("/bin/true");
    command.env("LD_PRELOAD", library).env("COUNTERFOIL_OFF", "1").stdin(Stdio::null());
    let output = command.output().map_err(|e| format!("/bin/true can't be started: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match said.lines().next() {
        Some(line) => Err(crate::escape::text(line).into_owned()),
        None if output.status.success() => Ok(()),
        None => Err(format!("/bin/true ended with {}", output.status)),
    }
}

fn daemon(report: &mut Report, places: &Places) {
    let socket = places.socket.display();
    match &places.answer {
        Socket::Answers => {
            report.add("daemon", Mark::Good, format!("it answers on {socket}"));
            let writable =
                rustix::fs::accessat(CWD, &places.socket, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
            let mode = std::fs::metadata(&places.socket).map_or(0, |m| m.mode());
            if !writable || mode & 0o002 == 0 {
                report.add(
                    "daemon",
                    Mark::Warning,
                    format!("not every user may speak to {socket} (mode {:o})", mode & 0o777),
                );
                report.advise(
                    "programs of other users run unobserved; the daemon makes its socket 0666, so restart it",
                );
            }
        }
        Socket::Nobody => {
            report.add(
                "daemon",
                Mark::Warning,
                format!("none answers on {socket}: only counterfoil run observes, which brings its own"),
            );
            report.advise("systemctl enable --now counterfoil, or counterfoil daemon");
        }
        Socket::Unreachable(why) => {
            report.add("daemon", Mark::Part, format!("{socket} can't be reached: {why}"));
            report.advise("see the permissions of the socket and of its folder");
        }
    }
    match ledger::Reader::open(&places.state) {
        Ok(_) => {
            report.add("ledger", Mark::Good, format!("in {}", places.state.display()));
        }
        Err(e) => {
            // No daemon, no ledger: said once.
            let mark = if matches!(places.answer, Socket::Answers) { Mark::Warning } else { Mark::Info };
            report.add("ledger", mark, e.to_string());
        }
    }
}

fn configuration(report: &mut Report, places: &Places) {
    let path = places.config.display();
    if !places.config.exists() {
        report.add("configuration", Mark::Info, format!("{path} is not there: the defaults apply"));
        return;
    }
    match config::load(Some(&places.config)) {
        Ok(parsed) if parsed.warnings.is_empty() => {
            report.add("configuration", Mark::Good, format!("{path} has no mistakes"));
        }
        Ok(parsed) => {
            report.add("configuration", Mark::Warning, format!("{path}: {} warnings", parsed.warnings.len()));
            report.advise(format!("counterfoil check {path}"));
        }
        Err(_) => {
            report.add(
                "configuration",
                Mark::Part,
                format!("{path} has mistakes: the daemon doesn't start with it"),
            );
            report.advise(format!("counterfoil check {path} names them all"));
        }
    }
}

/// What the daemon needs of the kernel.
fn kernel(report: &mut Report) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let sealed =
        rustix::fs::memfd_create("counterfoil-doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .and_then(|fd| {
                rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            });
    let own = rustix::process::getpid();
    let pidfd = rustix::process::pidfd_open(own, PidfdFlags::empty());
    let diagnostics = rustix::net::socket(
        rustix::net::AddressFamily::NETLINK,
        rustix::net::SocketType::DGRAM,
        Some(rustix::net::netlink::SOCK_DIAG),
    );
    let mut missing = false;
    for (ok, what, mark, advice) in [
        (
            sealed.is_ok(),
            "sealed shared memory (memfd)",
            Mark::Nothing,
            "Linux 3.17 or newer; in a container see its seccomp profile",
        ),
        (
            pidfd.is_ok(),
            "pidfd_open",
            Mark::Nothing,
            "Linux 5.3 or newer; in a container see its seccomp profile",
        ),
        (
            diagnostics.is_ok(),
            "socket diagnostics (sock_diag)",
            Mark::Part,
            "byte counts of connections can't be compared; modprobe inet_diag",
        ),
    ] {
        if !ok {
            missing = true;
            report.add("kernel", mark, format!("Linux {release} has no {what} here"));
            report.advise(advice);
        }
    }
    if !missing {
        report.add(
            "kernel",
            Mark::Good,
            format!("Linux {release}: sealed memory, pidfd, socket diagnostics"),
        );
    }
    if let Ok(scope) = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope") {
        let (mark, means) = match scope.trim() {
            "0" => (Mark::Warning, "every process may change any other of its user"),
            "1" => (Mark::Good, "a process may only trace its children"),
            "2" => (Mark::Good, "only root may trace"),
            _ => (Mark::Good, "nobody may trace"),
        };
        report.add("ptrace", mark, format!("kernel.yama.ptrace_scope is {}: {means}", scope.trim()));
        if mark == Mark::Warning {
            report.advise("sysctl kernel.yama.ptrace_scope=1: a traced program's data can be changed after it was witnessed");
        }
    }
}

/// Other libraries that are loaded into everything.
fn preload(report: &mut Report) {
    let Ok(text) = std::fs::read_to_string("/etc/ld.so.preload") else { return };
    let entries: Vec<&str> = text
        .lines()
        .map(|l| l.split('#').next().unwrap_or(""))
        .flat_map(|l| l.split([' ', ':', '\t']))
        .filter(|e| !e.is_empty())
        .collect();
    if entries.is_empty() {
        return;
    }
    let ours = entries.iter().any(|e| super::base(e) == library::NAME);
    let others: Vec<&str> = entries.into_iter().filter(|e| super::base(e) != library::NAME).collect();
    if ours {
        report.add(
            "preload",
            Mark::Info,
            "/etc/ld.so.preload has the library: every program of the host loads it",
        );
    }
    if !others.is_empty() {
        let says = format!(
            "/etc/ld.so.preload has {}: streams whose functions it answers are foreign-hook",
            others.join(", ")
        );
        report.add("preload", Mark::Warning, crate::escape::text(&says).into_owned());
        report.advise("find out who put it there; what it changes below the library is not seen");
    }
}

fn surroundings(report: &mut Report) {
    if std::env::var_os("COUNTERFOIL_OFF").is_some_and(|v| v == "1") {
        report.add(
            "environment",
            Mark::Warning,
            "COUNTERFOIL_OFF=1 is set here: what this shell starts is not observed",
        );
        report.advise("unset COUNTERFOIL_OFF");
    }
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if descriptors.maximum.is_some_and(|m| m < 4096) {
        let says = format!(
            "at most {} open files: a daemon started here observes about as many processes / 3",
            descriptors.maximum.unwrap_or(0)
        );
        report.add("limits", Mark::Warning, says);
        report.advise("ulimit -n, or LimitNOFILE= in the unit");
    }
}
