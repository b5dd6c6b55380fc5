//! What of a program will be observed when it is started.
//!
//! Comes in: a path. Goes out: a report. Called by `commands::doctor`, [`super::service`] and, for the file that a
//! process runs, [`super::process`].
#![forbid(unsafe_code)]

use super::image::{Elf, Image, look};
use super::libraries::{self, Library};
use super::{Kind, Mark, Report, base, bypasses, tls, watched};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// `#!` files that name each other (the kernel stops at 5).
const DEPTH: usize = 5;

/// Looks at the program at `path`.
#[must_use]
pub fn examine(subject: &str, path: &Path) -> Report {
    let mut report = Report::new(subject, Kind::Program);
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    report.path = Some(real.clone());
    match open(&real) {
        Ok(file) => follow(&mut report, &real, file, DEPTH),
        Err(e) => unreadable(&mut report, &real, &e),
    }
    report
}

/// Opens a regular file, without waiting for anything.
fn open(path: &Path) -> io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn unreadable(report: &mut Report, path: &Path, e: &io::Error) {
    report.add("file", Mark::Nothing, format!("{} can't be looked at: {e}", path.display()));
    if e.kind() == io::ErrorKind::PermissionDenied {
        report.advise("run this as root: nothing is known about it now");
    }
}

fn follow(report: &mut Report, path: &Path, file: File, depth: usize) {
    match look(&file) {
        Err(e) => unreadable(report, path, &e),
        Ok(Image::Other) => {
            report.add(
                "starts",
                Mark::Nothing,
                "neither an ELF program nor a script: the kernel can't start it",
            );
            report.advise("if binfmt_misc starts it (java, qemu, wine), ask about that interpreter");
        }
        Ok(Image::Script(interpreter)) => script(report, path, &interpreter, depth),
        Ok(Image::Elf(elf)) => {
            privileges(report, path, &file);
            if loads(report, path, &elf) {
                content(report, path, &elf);
                children(report, path);
                if report.worst() < Mark::Nothing {
                    watched::check(report, path);
                }
            }
        }
    }
}

fn script(report: &mut Report, path: &Path, interpreter: &str, depth: usize) {
    report.add(
        "script",
        Mark::Info,
        format!("a script: {interpreter} runs it, and that is what is observed"),
    );
    if base(interpreter) == "env" {
        let wanted = env_target(path);
        match wanted.as_deref().and_then(|w| Some((w, find(w)?))) {
            Some((name, real)) => {
                report.add("script", Mark::Info, format!("env starts {name}, here {}", real.display()));
                next(report, &real, depth);
                return;
            }
            None => {
                report.add("script", Mark::Warning, "env looks for its interpreter in PATH; here it isn't");
            }
        }
    }
    next(report, Path::new(interpreter), depth);
}

fn next(report: &mut Report, path: &Path, depth: usize) {
    if depth == 0 {
        report.add("script", Mark::Nothing, "scripts that name each other: the kernel gives up");
        return;
    }
    match open(path) {
        Ok(file) => follow(report, path, file, depth - 1),
        Err(e) => unreadable(report, path, &e),
    }
}

/// `#!/usr/bin/env [-S] [A=B] NAME`.
fn env_target(path: &Path) -> Option<String> {
    let mut head = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(open(path).ok()?, 256), &mut head).ok()?;
    let line = String::from_utf8_lossy(head.split(|&b| b == b'\n').next()?).into_owned();
    line.split_whitespace()
        .skip_while(|w| base(w.trim_start_matches("#!")) != "env")
        .skip(1)
        .find(|w| !w.starts_with('-') && !w.contains('='))
        .map(str::to_owned)
}

/// Where a program is: PATH, and the administrator's folders.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders
        .map(|f| f.join(program))
        .find(|p| std::fs::metadata(p).is_ok_and(|m| m.is_file() && m.mode() & 0o111 != 0))
}

/// A loader doesn't read LD_PRELOAD's paths for a program that gives more rights than its starter has (AT_SECURE).
fn privileges(report: &mut Report, path: &Path, file: &File) {
    let Ok(meta) = file.metadata() else { return };
    if rustix::fs::fstatvfs(file).is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID)) {
        return;
    }
    let group = meta.mode() & 0o2010 == 0o2010;
    let capabilities = rustix::fs::fgetxattr(file, "security.capability", &mut [0_u8; 64][..])
        .is_ok_and(|length| length > 0);
    let says = if meta.mode() & 0o4000 != 0 {
        format!("setuid (uid {})", meta.uid())
    } else if group {
        format!("setgid (gid {})", meta.gid())
    } else if capabilities {
        "file capabilities".to_owned()
    } else {
        return;
    };
    let who = match (meta.mode() & 0o4000 != 0, group) {
        (true, _) => format!("Started by uid {} itself it is observed", meta.uid()),
        (_, true) => format!("Started with gid {} it is observed", meta.gid()),
        _ => "Started by root it is observed".to_owned(),
    };
    report.add(
        "rights",
        Mark::Nothing,
        format!("{says}: started by others, the loader leaves preloaded libraries out. {who}"),
    );
    let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    report.advise(match &*name {
        "ssh-agent" => {
            "nothing to do: no transfer goes through the agent (it is setgid against being traced); \
             ssh and sshd themselves are observed"
        }
        "sudo" | "su" | "doas" | "pkexec" => {
            "observe what it starts: sudo counterfoil exec -- CMD, in place of counterfoil exec -- sudo CMD"
        }
        _ => "start it from a process that has these rights already, if its transfers matter",
    });
}

/// Whether the library gets into it.
fn loads(report: &mut Report, path: &Path, elf: &Elf) -> bool {
    let architecture = elf.architecture();
    let no = |report: &mut Report, says: String, advice: &str| {
        report.add("starts", Mark::Nothing, says);
        report.advise(advice);
        false
    };
    if elf.go {
        let how = if elf.interpreter.is_some() { "" } else { ", static" };
        return no(
            report,
            format!(
                "{architecture}{how}, built by Go: it makes its system calls itself, and has its own TLS"
            ),
            "nothing in it can be hooked; the other end, or a proxy before it that is observed, can be",
        );
    }
    if !elf.our_kind() {
        return no(
            report,
            format!("{architecture}: the library is built for another architecture"),
            "install a build of this program for this architecture",
        );
    }
    match elf.interpreter.as_deref() {
        None if elf.is_loader() => {
            report.add(
                "starts",
                Mark::Good,
                format!("{architecture}, the loader itself: it reads LD_PRELOAD"),
            );
            true
        }
        None => no(
            report,
            format!("{architecture}, static (no PT_INTERP): there is no loader that could load the library"),
            "use a dynamically linked build (busybox-static: busybox); the other end can be observed",
        ),
        Some(interpreter) if interpreter.contains("ld-musl") => no(
            report,
            format!("{architecture}, musl ({interpreter}): the library is built for glibc, and is kept out"),
            "use a build for glibc",
        ),
        Some(interpreter) if !elf.our_loader() => no(
            report,
            format!("{architecture}, loader {interpreter}: not the one that the library is built for"),
            "use a build for this system's glibc",
        ),
        Some(interpreter) if !Path::new(interpreter).exists() => no(
            report,
            format!("its loader {interpreter} isn't there: it can't start"),
            "install the libc that it is built for",
        ),
        Some(_) => {
            report.add("starts", Mark::Good, format!("{architecture}, glibc: it loads the library"));
            report.path.get_or_insert_with(|| path.to_owned());
            true
        }
    }
}

/// What of its data is seen.
fn content(report: &mut Report, path: &Path, elf: &Elf) {
    if elf.bare {
        report.add(
            "libraries",
            Mark::Warning,
            "it has no section table: which libraries it needs can't be told",
        );
        report.advise("start it and ask about its process: counterfoil doctor PID");
    }
    let libraries = libraries::of(path, elf);
    for missing in libraries.iter().filter(|l| l.path.is_none()).take(4) {
        let says = format!("{} ({}) was not found where the loader looks", missing.name, how(missing, path));
        report.add("libraries", Mark::Warning, says);
    }
    let named: Vec<(String, String)> = libraries
        .iter()
        .map(|l| {
            let by = if direct(l, path) { String::new() } else { format!(", through {}", l.wanted_by) };
            (l.name.clone(), by)
        })
        .collect();
    let linked = tls::libraries(report, &named);
    let mut inside = tls::inside(report, elf, linked);
    for library in libraries.iter().filter(|l| l.tls_inside && !base(&l.name).starts_with("libssl.so")) {
        inside = true;
        let says =
            format!("TLS inside {}: seen only where it is called through the loader's tables", library.name);
        report.add("tls", Mark::Part, says);
        report.advise("try it: counterfoil run -- CMD says what it saw");
    }
    if !linked && !inside && !elf.bare {
        let crypto = libraries.iter().any(|l| l.name.starts_with("libcrypto.so"));
        report.add(
            "tls",
            Mark::Info,
            if crypto {
                "no TLS library; libcrypto alone, for checksums or a protocol of its own: TCP, pipes and files are seen, and of OpenSSH what its channels carry"
            } else {
                "no TLS library is linked: TCP, pipes and files are seen, and OpenSSL or GnuTLS if it loads them later"
            },
        );
    }
    bypasses::check(report, elf, &libraries, linked);
}

fn direct(library: &Library, path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy() == library.wanted_by)
}

fn how(library: &Library, path: &Path) -> String {
    if direct(library, path) { "needed".into() } else { format!("needed by {}", library.wanted_by) }
}

/// Programs that start others with an environment of their own making.
const SCRUBBERS: [&str; 10] =
    ["sshd", "sshd-session", "sudo", "su", "doas", "runuser", "cron", "crond", "atd", "login"];

fn children(report: &mut Report, path: &Path) {
    let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    if SCRUBBERS.contains(&&*name) {
        let says = "it clears the environment of what it starts: the library puts itself back there, \
            but never across a change of user into root";
        report.add("children", Mark::Info, says);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_env_will_start() {
        let dir = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            std::fs::write(dir.path().join("s"), text).unwrap();
            env_target(&dir.path().join("s"))
        };
        assert_eq!(of("#!/usr/bin/env python3\n").as_deref(), Some("python3"));
        assert_eq!(of("#! /usr/bin/env -S A=1 perl -w\n").as_deref(), Some("perl"));
        assert_eq!(of("#!/usr/bin/env\n"), None);
    }
}
