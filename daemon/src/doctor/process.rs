//! What of a running process is observed now, and why not more.
//!
//! Comes in: a process id. Goes out: a report, from `/proc` alone. Called by `commands::doctor` and
//! [`super::service`]. What is mapped counts here, not what is linked; the program's file is looked at for what it has
//! inside.
#![forbid(unsafe_code)]

use super::image::{Elf, Image, look};
use super::{Kind, Mark, Report, base, tls, watched};
use crate::library;
use procfs::process::{FDTarget, MMapPath, Process};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Descriptors that are looked at.
const DESCRIPTORS: usize = 65_536;
/// What the daemon's shared memory is called where it is mapped.
const ARENA: &str = "/memfd:counterfoil";

/// Looks at process `pid`.
#[must_use]
pub fn examine(subject: &str, pid: u32) -> Report {
    let mut report = Report::new(subject, Kind::Process);
    report.pid = Some(pid);
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let process = match i32::try_from(pid).ok().map(Process::new) {
        Some(Ok(process)) if directory.exists() => process,
        _ => {
            report.add("process", Mark::Nothing, format!("there is no process {pid}"));
            return report;
        }
    };
    let exe = directory.join("exe");
    match std::fs::read_link(&exe) {
        Ok(path) => report.path = Some(path),
        // Kernel threads have none.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            report.add(
                "process",
                Mark::Nothing,
                "a kernel thread, or a process that has ended: it runs no program",
            );
            return report;
        }
        Err(e) => {
            closed(&mut report, &e);
            return report;
        }
    }
    let maps = match process.maps() {
        Ok(maps) => maps,
        Err(e) => {
            closed(&mut report, &std::io::Error::other(e));
            return report;
        }
    };
    let mapped: BTreeSet<String> = maps
        .iter()
        .filter_map(|m| match &m.pathname {
            MMapPath::Path(path) => Some(crate::escape::bytes(path.as_os_str().as_bytes())),
            MMapPath::Other(name) => Some(name.clone()),
            _ => None,
        })
        .collect();
    let elf = match File::open(&exe).ok().and_then(|f| look(f).ok()) {
        Some(Image::Elf(elf)) => *elf,
        _ => Elf::default(),
    };
    let observed = witness(&mut report, &process, &mapped, &elf);
    content(&mut report, &mapped, &elf, observed);
    if let Some(path) = report.path.clone() {
        watched::check(&mut report, &path);
    }
    rings(&mut report, &process);
    surroundings(&mut report, &process, pid);
    report
}

fn closed(report: &mut Report, e: &std::io::Error) {
    let why = e.to_string();
    let why = why.split(" (os error").next().unwrap_or(&why);
    report.add("process", Mark::Nothing, format!("it can't be looked at: {why}"));
    report.advise("run this as root, or as the process's own user");
}

fn loaded(mapped: &BTreeSet<String>, name: &str) -> Option<String> {
    mapped.iter().find(|m| base(m.trim_end_matches(" (deleted)")).starts_with(name)).cloned()
}

/// Is the library in it, and does it record?
fn witness(report: &mut Report, process: &Process, mapped: &BTreeSet<String>, elf: &Elf) -> bool {
    let arena = mapped.iter().any(|m| m.starts_with(ARENA));
    match (loaded(mapped, library::NAME), arena) {
        (Some(library), true) => {
            report.add(
                "observed",
                Mark::Good,
                format!("yes: {library} is loaded, and shares memory with a daemon"),
            );
            if library.ends_with(" (deleted)") {
                report.add("library", Mark::Warning, "its library was replaced since it started");
                report.advise("restart it to have the new one");
            }
            true
        }
        (Some(library), false) => {
            report.add("observed", Mark::Nothing, format!("no: {library} is loaded, and has no daemon"));
            let off = environment(process, "COUNTERFOIL_OFF").as_deref() == Some("1");
            report.advise(if off {
                "COUNTERFOIL_OFF=1 is in its environment: restart it without"
            } else {
                "the daemon wasn't there when it started, or declined it (see the daemon's log): restart it"
            });
            false
        }
        (None, _) => {
            let (why, advice) = why_not(process, elf);
            report.add("observed", Mark::Nothing, format!("no: {why}"));
            report.advise(advice);
            false
        }
    }
}

fn why_not(process: &Process, elf: &Elf) -> (String, &'static str) {
    const RESTART: &str = "restart it with counterfoil exec -- CMD, or for a service with the drop-in of \
        docs/operating.md; counterfoil doctor BINARY says what will be seen then";
    let preload = environment(process, "LD_PRELOAD").unwrap_or_default();
    if elf.bits != 0 && elf.go {
        ("it is built by Go, and makes its system calls itself".into(), "observe the other end")
    } else if elf.bits != 0 && elf.interpreter.is_none() && !elf.is_loader() {
        (
            "it is static: there is no loader that could load the library".into(),
            "use a dynamically linked build",
        )
    } else if elf.bits != 0 && (!elf.our_kind() || !elf.our_loader() && !elf.is_loader()) {
        ("its architecture or C library is another".into(), "use a build for this system's glibc")
    } else if secure(process) {
        (
            "it runs with more rights than its starter (AT_SECURE), so the loader left preloaded libraries out".into(),
            "start it from a process that has these rights already",
        )
    } else if preload.contains(library::NAME) {
        (
            format!("LD_PRELOAD names the library ({preload}), and the loader could not load it"),
            "see that this user can read that file, and that it is there in its root directory",
        )
    } else if let Some(parent) = observed_parent(process) {
        (
            format!(
                "its parent, process {parent}, has the library, and the environment was cleared on the way to it"
            ),
            "see the alarm coverage-lost, which names it, and counterfoil doctor for its program",
        )
    } else {
        ("it was started without the library".into(), RESTART)
    }
}

fn observed_parent(process: &Process) -> Option<i32> {
    let parent = process.stat().ok()?.ppid;
    let maps = Process::new(parent).ok()?.maps().ok()?;
    let ours = |path: &Path| path.file_name().is_some_and(|n| n == library::NAME);
    maps.iter().any(|m| matches!(&m.pathname, MMapPath::Path(p) if ours(p))).then_some(parent)
}

/// A variable as it was when the program started.
fn environment(process: &Process, name: &str) -> Option<String> {
    let all = process.environ().ok()?;
    all.get(std::ffi::OsStr::new(name)).map(|v| crate::escape::bytes(v.as_bytes()))
}

/// AT_SECURE (getauxval(3)).
fn secure(process: &Process) -> bool {
    const AT_SECURE: u64 = 23;
    process.auxv().is_ok_and(|auxv| auxv.get(&AT_SECURE).is_some_and(|v| *v != 0))
}

/// Which TLS it has loaded.
fn content(report: &mut Report, mapped: &BTreeSet<String>, elf: &Elf, observed: bool) {
    let names: Vec<(String, String)> = mapped
        .iter()
        .filter(|m| m.contains(".so"))
        .map(|m| match m.strip_suffix(" (deleted)") {
            Some(name) => (name.to_owned(), ", replaced on disk since".to_owned()),
            None => (m.clone(), String::new()),
        })
        .collect();
    let linked = tls::libraries(report, &names);
    if !tls::inside(report, elf, linked) && !linked {
        let says = "no TLS library is loaded now: TCP, pipes and files are what there is to see";
        report.add("tls", Mark::Info, says);
    }
    if linked && observed {
        super::bypasses::kernel_tls(report);
    }
}

/// Does it have an io_uring?
fn rings(report: &mut Report, process: &Process) {
    let Ok(descriptors) = process.fd() else { return };
    let rings = descriptors
        .take(DESCRIPTORS)
        .flatten()
        .filter(|fd| matches!(&fd.target, FDTarget::AnonInode(name) if name.contains("io_uring")))
        .count();
    if rings > 0 {
        report.add(
            "io_uring",
            Mark::Part,
            format!("it has {rings} io_uring: bytes that go that way are counted, not seen"),
        );
        report.advise(
            "switch it off in the program's configuration, or on the host: sysctl kernel.io_uring_disabled=2",
        );
    }
}

/// What may stand between it and the daemon.
fn surroundings(report: &mut Report, process: &Process, pid: u32) {
    let differs = |name: &str| {
        let link = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/{name}"));
        matches!((link(&pid.to_string()), link("self")), (Ok(its), Ok(ours)) if its != ours)
    };
    if differs("mnt") {
        report.add(
            "place",
            Mark::Info,
            "it has its own mounts (a container or a unit's sandbox): library and socket must be in them",
        );
    }
    if let Ok(root) = std::fs::read_link(format!("/proc/{pid}/root"))
        && root != Path::new("/")
    {
        report.add(
            "place",
            Mark::Info,
            format!("its root is {}: library and socket must be in it", root.display()),
        );
    }
    if let Ok(status) = process.status() {
        if status.tracerpid != 0 {
            report.add(
                "tracer",
                Mark::Warning,
                format!("process {} traces it, and can change what it reads and writes", status.tracerpid),
            );
            report.advise("find out who that is and why");
        }
        if status.seccomp == Some(2) {
            report.add(
                "sandbox",
                Mark::Info,
                "it has a seccomp sandbox: the library makes no system call where bytes pass",
            );
        }
    }
}
