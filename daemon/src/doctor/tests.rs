use super::*;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn find<'r>(report: &'r Report, name: &str) -> Option<&'r Check> {
    report.checks.iter().find(|c| c.name == name)
}

#[test]
fn the_worst_decides() {
    let mut report = Report::new("x", Kind::Program);
    assert!(report.observable());
    report.add("a", Mark::Warning, "w");
    assert_eq!((report.observable(), report.answer()), (true, "yes"));
    report.add("b", Mark::Part, "p").advise("do");
    assert_eq!((report.observable(), report.answer()), (false, "partly"));
    report.add("c", Mark::Nothing, "n");
    assert_eq!(report.answer(), "no");
    assert_eq!(report.checks[1].advice.as_deref(), Some("do"));
}

#[test]
fn this_test_is_a_program_that_loads_the_library() {
    let report = program::examine("me", &std::env::current_exe().unwrap());
    let starts = find(&report, "starts").unwrap();
    assert_eq!(starts.mark, Mark::Good, "{report:?}");
}

#[test]
fn what_is_no_program_is_said() {
    for path in ["/etc/passwd", "/dev/null", "/", "/nonexistent", "/etc"] {
        let report = program::examine(path, Path::new(path));
        assert_eq!(report.answer(), "no", "{path}: {report:?}");
    }
}

#[test]
fn scripts_lead_to_their_interpreter_and_loops_end() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let sh = program::examine("sh", &write("sh", "#!/bin/sh\n"));
    assert!(sh.observable() && find(&sh, "script").is_some(), "{sh:?}");
    let env = program::examine("env", &write("env-script", "#!/usr/bin/env sh\n"));
    assert!(env.observable(), "{env:?}");
    let path = dir.path().join("loop");
    write("loop", &format!("#!{}\n", path.display()));
    assert_eq!(program::examine("loop", &path).answer(), "no");
}

struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_process_without_the_library_is_not_observed() {
    let sleeper = Sleeper(Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap());
    let report = process::examine("x", sleeper.0.id());
    let observed = find(&report, "observed").unwrap();
    assert_eq!(observed.mark, Mark::Nothing);
    assert!(observed.says.contains("without the library") && observed.advice.is_some(), "{report:?}");
    assert_eq!(process::examine("x", 4_000_000_000).answer(), "no");
}

#[test]
fn a_ring_is_noticed() {
    // The kernel may not have it, or forbid it.
    let script = "import ctypes,time,sys\nlibc=ctypes.CDLL(None)\np=(ctypes.c_char*120)()\n\
        fd=libc.syscall(425,4,p)\nprint(fd,flush=True)\ntime.sleep(60)\n";
    let Ok(mut child) = Command::new("python3").args(["-c", script]).stdout(Stdio::piped()).spawn() else {
        println!("skipped: no python3");
        return;
    };
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    let ring = Sleeper(child);
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    if line.trim().starts_with('-') {
        println!("skipped: the kernel gives no io_uring");
        return;
    }
    let report = process::examine("x", ring.0.id());
    assert_eq!(find(&report, "io_uring").map(|c| c.mark), Some(Mark::Part), "{report:?}");
}
