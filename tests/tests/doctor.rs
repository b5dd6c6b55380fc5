//! `counterfoil doctor` (issue 3): what can be observed and what not, why, and what to do, of real programs.

use counterfoil_tests::program::{command, counterfoil, json_lines};
use counterfoil_tests::{Observed, Run, Scratch, check, fixture, need, peers, product, skip, wait};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

/// One subject's report.
fn doctor(subject: &str) -> (Run, Value) {
    let run = counterfoil(&["doctor", "--json", subject]);
    let lines = json_lines(&run);
    check!(run, lines.len() == 1, "want one report");
    let report = lines[0].clone();
    check!(run, report["type"] == "doctor", "another type");
    let yes = report["observable"] == "yes";
    check!(run, run.code() == i32::from(!yes), "the status and the answer disagree");
    (run, report)
}

/// What a check says.
fn says(report: &Value, check: &str) -> String {
    let checks = report["checks"].as_array().expect("checks");
    let texts = checks.iter().filter(|c| c["check"] == check).filter_map(|c| c["says"].as_str());
    texts.collect::<Vec<_>>().join("; ")
}

#[test]
fn programs_with_openssl_and_gnutls() {
    need!("curl", "wget", "openssl");
    for (program, library) in [("curl", "libssl.so"), ("openssl", "libssl.so"), ("wget", "libgnutls.so")] {
        let (run, report) = doctor(program);
        check!(run, report["observable"] == "yes", "{program} is observable");
        check!(run, says(&report, "tls").contains(library), "{program}: it doesn't name {library}");
        check!(run, says(&report, "starts").contains("glibc"), "{program}");
    }
    // In words.
    let run = counterfoil(&["doctor", "curl"]).well();
    check!(run, run.stdout.contains(": can be observed\n"), "not in words");
}

#[test]
fn bundled_openssl() {
    need!("node");
    let node = peers::find("node").expect("node");
    let links = Command::new("ldd").arg(&node).output().expect("ldd");
    if String::from_utf8_lossy(&links.stdout).contains("libssl") {
        skip!("this node links the system's OpenSSL");
    }
    let (run, report) = doctor("node");
    check!(run, report["observable"] == "partly", "its TLS is not seen, the rest is");
    check!(run, says(&report, "tls").contains("inside"), "it doesn't say why");
    check!(run, run.stdout.contains("advice\":\""), "it doesn't say what to do");
}

/// Builds `source` with these options; None where that compiler isn't there.
fn built(scratch: &Scratch, compiler: &str, name: &str, source: &str, options: &[&str]) -> Option<String> {
    peers::find(compiler)?;
    let file = scratch.write(&format!("{name}.c"), source);
    let out = scratch.at(name);
    let made = Command::new(compiler).arg(file).arg("-o").arg(&out).args(options).output().expect("compiler");
    if !made.status.success() {
        println!("{compiler} {options:?}: {}", String::from_utf8_lossy(&made.stderr));
        return None;
    }
    out.to_str().map(str::to_owned)
}

const EMPTY: &str = "int main(void) { return 0; }\n";

#[test]
fn static_musl_and_other_architectures() {
    let here = Scratch::new();
    let (run, report) = doctor(&fixture("source_static"));
    check!(
        run,
        report["observable"] == "no" && says(&report, "starts").contains("static"),
        "a static program"
    );
    if let Some(pie) = built(&here, "gcc", "static-pie", EMPTY, &["-static-pie"]) {
        let (run, report) = doctor(&pie);
        check!(run, says(&report, "starts").contains("static"), "a static PIE");
    }
    match built(&here, "musl-gcc", "musl", EMPTY, &[]) {
        Some(musl) => {
            let (run, report) = doctor(&musl);
            check!(run, report["observable"] == "no" && says(&report, "starts").contains("musl"), "musl");
        }
        None => println!("skipped: no musl-gcc"),
    }
    // Another class and another machine: a good program, and two bytes of its head.
    let good = std::fs::read(fixture("source")).expect("fixture");
    for (at, value, word) in [(18, 183, "ARM64"), (18, 40, "ARM")] {
        let mut other = good.clone();
        other[at] = value;
        let (run, report) = doctor(here.write(word, other).to_str().expect("UTF-8"));
        let starts = says(&report, "starts");
        check!(run, report["observable"] == "no" && starts.contains(word), "{word}");
    }
}

/// Go's mark is a section; a toolchain is not needed to make one.
#[test]
fn built_by_go() {
    let here = Scratch::new();
    let source =
        format!("__attribute__((section(\".go.buildinfo\"),used)) static const char go[] = \"go\";\n{EMPTY}");
    let Some(program) = built(&here, "gcc", "go", &source, &[]) else { skip!("no gcc") };
    let (run, report) = doctor(&program);
    check!(run, report["observable"] == "no" && says(&report, "starts").contains("Go"), "Go");
}

/// TLS that is part of the program, by its symbols and, stripped of them, by its version.
#[test]
fn its_own_tls() {
    let here = Scratch::new();
    let source = "int SSL_write(void) { return 0; }\n\
        const char *volatile version = \"OpenSSL 3.0.13 30 Jan 2024\";\n\
        int main(void) { return SSL_write() + !version; }\n";
    for options in [&["-O0"][..], &["-O0", "-s"]] {
        let Some(program) = built(&here, "gcc", "bundled", source, options) else { skip!("no gcc") };
        let (run, report) = doctor(&program);
        let tls = says(&report, "tls");
        check!(run, report["observable"] == "partly" && tls.contains("OpenSSL 3.0.13"), "{options:?}");
    }
}

#[test]
fn more_rights_than_the_starter() {
    need!("passwd");
    let (run, report) = doctor("passwd");
    check!(run, report["observable"] == "no" && says(&report, "rights").contains("setuid"), "setuid");
    if peers::find("ssh-agent")
        .is_some_and(|p| std::fs::metadata(p).expect("file").permissions().mode() & 0o2000 != 0)
    {
        let (run, report) = doctor("ssh-agent");
        check!(run, says(&report, "rights").contains("setgid"), "setgid");
        check!(
            run,
            run.stdout.contains("no transfer goes through the agent"),
            "ssh-agent is no reason to worry"
        );
    }
    if !peers::root() || peers::missing(&["setcap"]).is_some() {
        skip!("no setcap, or not root: no file capabilities");
    }
    let here = Scratch::new();
    let program = here.at("capable");
    std::fs::copy(fixture("source"), &program).expect("copy");
    let path = program.to_str().expect("UTF-8");
    let set = Command::new("setcap").args(["cap_net_raw+ep", path]).output().expect("setcap");
    if !set.status.success() {
        skip!("this file system takes no capabilities");
    }
    let (run, report) = doctor(path);
    check!(run, says(&report, "rights").contains("capabilities"), "file capabilities");
}

#[test]
fn scripts() {
    let here = Scratch::new();
    let script = here.write("script", "#!/bin/sh\necho\n");
    let (run, report) = doctor(script.to_str().expect("UTF-8"));
    check!(run, report["observable"] == "yes" && says(&report, "script").contains("/bin/sh"), "a script");
}

#[test]
fn io_uring_by_its_import() {
    let here = Scratch::new();
    let source = "int io_uring_setup(unsigned, void *) __attribute__((weak));\n\
        int main(void) { return io_uring_setup ? 1 : 0; }\n";
    let Some(program) = built(&here, "gcc", "ring", source, &[]) else { skip!("no gcc") };
    let (run, report) = doctor(&program);
    check!(run, report["observable"] == "partly" && !says(&report, "io_uring").is_empty(), "io_uring");
}

/// A process that is observed, and the same one that isn't.
#[test]
fn processes() {
    for (observed, answer) in [(true, "yes"), (false, "no")] {
        let command = Observed::new(["sh", "-c", "echo $$ >pid; exec sleep 60"]);
        let running = if observed { command } else { command.plain() }.start();
        let pid = wait::until(Duration::from_secs(20), "it runs", || {
            let pid = std::fs::read_to_string(running.scratch.at("pid")).ok()?;
            let exe = std::fs::read_link(format!("/proc/{}/exe", pid.trim())).ok()?;
            let maps = std::fs::read_to_string(format!("/proc/{}/maps", pid.trim())).ok()?;
            // An observed one has its daemon's answer a moment later.
            (exe.ends_with("sleep") && maps.contains("memfd:counterfoil") == observed).then_some(pid)
        });
        let (run, report) = doctor(pid.trim());
        check!(run, report["kind"] == "process" && report["observable"] == answer, "observed: {observed}");
        if observed {
            check!(run, says(&report, "observed").contains("libcounterfoil.so"), "not with which library");
        } else {
            check!(run, says(&report, "observed").contains("without the library"), "not why");
        }
        let number = rustix::process::Pid::from_raw(pid.trim().parse().expect("pid")).expect("pid");
        rustix::process::kill_process(number, rustix::process::Signal::TERM).expect("kill");
        running.finish();
    }
    // Loaded and inert: nobody it could tell.
    let library = product::library();
    let mut child = Command::new("sleep")
        .arg("60")
        .env("LD_PRELOAD", library)
        .env("COUNTERFOIL_OFF", "1")
        .spawn()
        .expect("sleep");
    let pid = child.id();
    wait::until(Duration::from_secs(20), "the library is loaded", || {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
        let name = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        (maps.contains("libcounterfoil") && name.ends_with("sleep")).then_some(())
    });
    let (run, report) = doctor(&pid.to_string());
    let _ = child.kill();
    let _ = child.wait();
    check!(run, report["observable"] == "no" && run.stdout.contains("COUNTERFOIL_OFF=1"), "inert");
}

/// The loader left the library out of a process that has more rights than its starter.
#[test]
fn a_process_with_more_rights() {
    need!("setpriv", "ssh-agent");
    let agent = peers::find("ssh-agent").expect("ssh-agent");
    if !peers::root() || std::fs::metadata(&agent).expect("file").permissions().mode() & 0o2000 == 0 {
        skip!("not root, or ssh-agent is not setgid here");
    }
    let here = Scratch::new();
    std::fs::set_permissions(here.path(), PermissionsExt::from_mode(0o777)).expect("chmod");
    let mut child = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "ssh-agent", "-D", "-a"])
        .arg(here.at("agent"))
        .env("LD_PRELOAD", product::library())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("setpriv");
    let pid = child.id();
    let started = wait::poll(Duration::from_secs(20), || here.at("agent").exists().then_some(()));
    let (run, report) = doctor(&pid.to_string());
    let _ = child.kill();
    let _ = child.wait();
    assert!(started.is_some(), "the agent didn't start");
    check!(run, report["observable"] == "no" && says(&report, "observed").contains("AT_SECURE"), "not why");
}

/// systemd's answers, by a stand-in where there is no systemd: only its output is read.
#[test]
fn services() {
    let here = Scratch::new();
    let source = fixture("source");
    let answer = |more: &str| {
        let script = format!(
            "#!/bin/sh\ncat <<'END'\nId=x.service\nLoadState=loaded\nActiveState=inactive\nMainPID=0\n\
             ExecStart={{ path={source} ; argv[]={source} 1 2 ; ignore_errors=no ; pid=0 }}\n{more}\nEND\n"
        );
        let path = here.write("bin/systemctl", script);
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("chmod");
        let path = format!("{}:{}", here.at("bin").display(), std::env::var("PATH").expect("PATH"));
        command(&["doctor", "--json", "x.service"]).env("PATH", path).go()
    };
    let run = answer("Environment=LD_PRELOAD=/usr/local/lib/libcounterfoil.so").well();
    let reports = json_lines(&run);
    check!(run, reports.len() == 2 && reports[0]["kind"] == "service", "a service and its program");
    check!(run, reports[1]["path"] == source.as_str(), "its program");
    let run = answer("Environment=");
    check!(
        run,
        run.code() == 1 && run.stdout.contains("systemctl edit x.service"),
        "it doesn't say what to do"
    );
    let run = answer("Environment=LD_PRELOAD=/l/libcounterfoil.so\nRestrictAddressFamilies=AF_INET");
    check!(run, run.code() == 1 && run.stdout.contains("RestrictAddressFamilies"), "no way to the daemon");
    let path = here.write("bin/systemctl", "#!/bin/sh\necho LoadState=not-found\n");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("chmod");
    let path = here.at("bin").display().to_string();
    let run = command(&["doctor", "nosuch"]).env("PATH", path).go();
    check!(run, run.code() == 2, "there is nothing of that name");
}

#[test]
fn without_systemd() {
    let here = Scratch::new();
    let run = command(&["doctor", "x.service"]).env("PATH", here.path()).go();
    check!(run, run.code() == 2 && run.stderr.contains("no systemctl"), "it doesn't say why");
}

#[test]
fn nothing_of_that_name() {
    for subject in ["/nonexistent/program", "4000000000"] {
        let run = counterfoil(&["doctor", subject]);
        check!(run, run.code() == 2 && run.stderr.contains(subject), "{subject}: want 2, and its name");
    }
    // One that is there is still looked at.
    let run = counterfoil(&["doctor", "/nonexistent/program", "/bin/sh"]);
    check!(run, run.code() == 2 && run.stdout.contains("/bin/sh"), "the other was not looked at");
}

#[test]
fn the_installation() {
    let daemon = counterfoil_tests::daemon::Daemon::start("");
    let socket = daemon.socket().display().to_string();
    let state = daemon.state().display().to_string();
    let run = counterfoil(&["doctor", "--json", "--socket", &socket, "--state", &state]).well();
    let report = &json_lines(&run)[0];
    check!(run, says(report, "daemon").contains("answers"), "the daemon");
    check!(run, says(report, "library").contains("the loader takes it"), "the library");
    check!(run, says(report, "kernel").contains("pidfd"), "the kernel");
    let missing = command(&["doctor"]).env("COUNTERFOIL_LIB", "/nonexistent/lib.so").go();
    check!(
        missing,
        missing.code() == 1 && missing.stdout.contains("/nonexistent/lib.so"),
        "a library that isn't there"
    );
    let here = Scratch::new();
    let junk = here.write("libcounterfoil.so", "no library").display().to_string();
    let bad = command(&["doctor"]).env("COUNTERFOIL_LIB", junk).go();
    check!(bad, bad.code() == 1 && bad.stdout.contains("doesn't take it"), "a library that can't be loaded");
}
