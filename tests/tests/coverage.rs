//! Coverage: what a watched program starts is watched, whatever environment it gets; what can't be
//! watched is said; and either way the program that starts it sees what it would see without us.

use counterfoil_tests::{Observed, Run, check, fixtures::fixture, need, peers, product, skip, truth};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Every way to start a program that glibc offers.
const WAYS: [&str; 12] = [
    "execve",
    "execv",
    "execvp",
    "execvpe",
    "execl",
    "execlp",
    "execle",
    "fexecve",
    "fexecve_path",
    "execveat",
    "posix_spawn",
    "posix_spawnp",
];

/// `start WAY OPTIONS PROGRAM`, with the library and without, and that both agree.
fn start(way: &str, options: &str, program: &str) -> Run {
    let line = format!("start {way} {options} {program}");
    let plain = Observed::fixture(&line).plain().go();
    check!(plain, plain.code() != 99, "the fixture is broken");
    let run = Observed::fixture(&line).option("--quiet").go();
    check!(run, run.stdout == plain.stdout, "stdout differs; plain was:\n{}", plain.stdout);
    // A report with an alarm in it follows, `--quiet` or not.
    check!(run, run.stderr.starts_with(&plain.stderr), "stderr differs; plain was:\n{}", plain.stderr);
    check!(run, !run.stderr.contains("ld.so"), "the loader complains");
    check!(run, run.code() == plain.code(), "exit status differs: plain {}", plain.code());
    run
}

/// How often a program (a path's end) was said to be observed, or not to be and why.
fn said(run: &Run, program: &str, reason: Option<&str>) -> usize {
    let lines = run.report.coverage();
    let of = lines.iter().filter(|l| l["exe"].as_str().is_some_and(|e| e.ends_with(program)));
    of.filter(|l| l["observed"] == reason.is_none() && l["reason"].as_str() == reason).count()
}

fn observed_twice(run: &Run) {
    check!(run, said(run, "/start", None) == 2, "want both the starter and the started observed");
}

#[test]
fn a_scrubbed_environment_loses_nothing() {
    let program = fixture("start");
    for way in WAYS {
        let run = start(way, "scrub", &program);
        check!(run, run.code() == 7 && run.stdout.contains("with 0 variables"), "{way}: it didn't start");
        observed_twice(&run);
    }
}

#[test]
fn a_vfork_child_starts_observed_programs() {
    let program = fixture("start");
    for way in ["execve", "execv", "execlp"] {
        for options in ["scrub vfork", "big vfork", "big child", "child"] {
            observed_twice(&start(way, options, &program));
        }
    }
}

#[test]
fn env_and_shells_start_observed_programs() {
    let program = fixture("start");
    for shell in ["sh", "bash", "dash"] {
        need!(shell);
        let run = Observed::new([shell, "-c", &format!("env -i {program} here; true")])
            .option("--quiet")
            .go()
            .well();
        check!(run, said(&run, "/start", None) == 1, "{shell}: env -i got it past us");
    }
    need!(peers::PYTHON);
    let script =
        format!("import subprocess; exit(subprocess.run(['{program}', 'here'], env={{}}).returncode)");
    let run = Observed::new([peers::PYTHON, "-c", &script]).option("--quiet").go();
    check!(
        run,
        run.code() == 7 && said(&run, "/start", None) == 1,
        "Python's empty environment got it past us"
    );
}

#[test]
fn a_start_that_fails_fails_as_before() {
    let here = fixture("start");
    let folder = Path::new(&here).parent().expect("a folder").display().to_string();
    for way in ["execve", "execvp", "posix_spawn", "fexecve", "execl"] {
        for program in ["/nonexistent/program", &folder, "/etc/hostname", "no-such-program"] {
            start(way, "scrub", program);
        }
    }
    let run = start("fault", "scrub", "x");
    check!(run, run.stdout == "errno 14\n", "a bad pointer is EFAULT");
}

#[test]
fn a_static_program_is_said_to_be_unobserved() {
    let program = fixture("start_static");
    for way in ["execve", "execvp", "fexecve", "posix_spawn"] {
        for options in ["", "scrub", "vfork"] {
            let run = start(way, options, &program);
            check!(run, run.code() == 7, "{way}: it didn't start");
            check!(run, said(&run, "/start_static", Some("static")) == 1, "{way} {options}: not said");
        }
    }
}

#[test]
fn a_script_is_judged_by_its_interpreter() {
    let session = Observed::script(
        "rc=0; ./dynamic || rc=$?; [ $rc = 7 ]; rc=0; ./static || rc=$?; [ $rc = 7 ]
         rc=0; env -i ./dynamic || rc=$?; [ $rc = 7 ]; rc=0; env -i ./static || rc=$?; [ $rc = 7 ]",
    );
    for (name, program) in [("dynamic", "start"), ("static", "start_static")] {
        let path = session.scratch.write(name, format!("#!{} here\n", fixture(program)));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    let run = session.option("--quiet").go().well();
    check!(run, said(&run, "/start", None) == 2, "the dynamic interpreter is observed");
    check!(run, said(&run, "/static", Some("static")) == 2, "the static one is not, and that is said");
}

/// musl's loader would load the library, and die of it.
#[test]
fn another_libc_runs_without_the_library() {
    need!("musl-gcc");
    let session = Observed::script(
        "musl-gcc -o musl \"$SOURCE\"; rc=0; ./musl here 2>said || rc=$?; env -i ./musl here 2>>said || true; [ ! -s said ]; exit $rc",
    );
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/start.c");
    let run = session.env("SOURCE", source).option("--quiet").limit(120).go();
    check!(run, run.code() == 7, "it doesn't run as it would");
    check!(run, said(&run, "/musl", Some("other-abi")) == 2, "both starts are said");
}

#[test]
fn a_setuid_program_is_said_to_be_unobserved() {
    if !peers::root() {
        skip!("needs root to make a setuid program");
    }
    need!("setpriv");
    let session = Observed::script(
        "chmod 755 .; cp $FIXTURES/start suid; chmod 4755 suid; rc=0
         setpriv --reuid 65534 --clear-groups ./suid here || rc=$?; [ $rc = 7 ]
         rc=0; ./suid here || rc=$?; [ $rc = 7 ]",
    );
    let run = session.option("--quiet").go().well();
    check!(run, said(&run, "/suid", Some("setuid")) == 1, "as nobody: not observed, and said");
    check!(run, said(&run, "/suid", None) == 1, "as root it raises nothing, and is observed");
}

/// Without our entry in its environment: the loader would complain on its stderr. With the library
/// in it, the daemon is still out of reach.
#[test]
fn a_chroot_without_the_library_is_said_to_be_unobserved() {
    if !peers::root() {
        skip!("needs root to chroot");
    }
    let session = Observed::script(
        "mkdir -p root/bin; cp $FIXTURES/start root/bin
         for file in $(ldd $FIXTURES/start | grep -v counterfoil | grep -o '/[^ ]*'); do mkdir -p root$(dirname $file); cp -L $file root$file; done
         rc=0; chroot root /bin/start here 2>said || rc=$?; [ $rc = 7 ]; [ ! -s said ]
         mkdir -p root$(dirname $LD_PRELOAD); cp -L $LD_PRELOAD root$LD_PRELOAD
         rc=0; chroot root /bin/start here 2>said || rc=$?; [ $rc = 7 ]; [ ! -s said ]",
    );
    let run = session.option("--quiet").go().well();
    check!(run, said(&run, "/bin/start", Some("no-preload")) == 2, "not said");
}

#[test]
fn switched_off_is_off() {
    let line = format!("env -i COUNTERFOIL_OFF=1 {} here; true", fixture("start"));
    let run = Observed::new(["sh", "-c", &line]).option("--quiet").go().well();
    check!(run, said(&run, "/start", None) == 0, "COUNTERFOIL_OFF=1 was overruled");
    check!(run, run.stdout.contains("with 1 variables"), "it got more than it was given");
    check!(run, product::library().exists(), "the library is there");
}

/// Dovecot's programs start under such a limit: it is no reason not to see them.
#[test]
fn a_limit_of_addresses() {
    let run =
        Observed::script("ulimit -v 262144; exec $FIXTURES/stream tcp send recv 100000 5000").go().well();
    let found = run.report.on("tcp");
    check!(
        run,
        found.iter().any(|t| t.verdict() == "intact" && t.origin() == Some(100_000)),
        "it was not seen"
    );
}

/// One that leaves us too little room is left to the program, and that is said.
#[test]
fn a_narrow_limit_of_addresses() {
    let run = Observed::script("ulimit -v 100000; $FIXTURES/stream tcp send recv 100000 5000").go().well();
    check!(run, run.report.on("tcp").is_empty(), "it was seen");
    let said = run.report.coverage();
    let stream = said.iter().find(|c| c["exe"].as_str().is_some_and(|exe| exe.ends_with("/stream")));
    check!(run, stream.is_some_and(|c| c["observed"] == false && c["reason"] == "no-memory"), "{said:?}");
    check!(run, run.report.fired("coverage-lost"), "no alarm");
}

/// Whoever isn't observed and has a connection, too, may send on it when all who are observed have closed it.
#[test]
fn what_others_send_on_a_connection_accuses_nobody() {
    // Its limit leaves the library no room; only the daemon learns that.
    let run = Observed::fixture("handed narrow").go().well();
    truth::blameless(&run);
    truth::holds(&run, &["tcp 30000 35000 unverified:handed-over", "rest"]);
    // It had made the connection.
    let run = Observed::script("COUNTERFOIL_OFF=1 $FIXTURES/handed had").go().well();
    truth::blameless(&run);
    truth::holds(&run, &["tcp 30000 35000 unverified:attached-late", "rest"]);
}
