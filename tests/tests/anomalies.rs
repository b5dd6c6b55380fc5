//! Process anomalies (issue 3, item 7): each is provoked with real tools and found, with its evidence.
//! That ordinary work raises none is in `quiet`.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::observed::Running;
use counterfoil_tests::{Alarm, Observed, Report, check, need, peers, service_sshd, skip, wait};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const WAITING: &str = "tls 1.3 - write read 100000 5000 answer=3000 mark=mark wait=go";

/// The anomalies of one kind.
fn anomalies(report: &Report, kind: &str) -> Vec<Alarm> {
    let of = |a: &Alarm| a.rule() == "process-anomaly" && a.0["evidence"]["anomaly"] == kind;
    report.alarms().into_iter().filter(of).collect()
}

/// Waits for the first of a kind.
fn found(daemon: &Daemon, kind: &str) -> Value {
    let report = daemon.until_reported(kind, |r| !anomalies(r, kind).is_empty());
    anomalies(&report, kind).remove(0).0
}

/// No anomaly but of these kinds.
fn only(daemon: &Daemon, kinds: &[&str]) {
    let others: Vec<Alarm> = daemon
        .report()
        .alarms()
        .into_iter()
        .filter(|a| a.rule() == "process-anomaly" && !kinds.iter().any(|k| a.0["evidence"]["anomaly"] == *k))
        .collect();
    assert!(others.is_empty(), "{}", daemon.shown(&format!("only {kinds:?}, not {others:?}")));
}

/// A fixture in the middle of a connection, and its pid.
fn in_the_middle(daemon: &Daemon) -> (Running, u32) {
    let running = daemon.observing_fixture(WAITING).start();
    let mark = running.scratch.at("mark");
    wait::until(PATIENCE, "the connection stands", || mark.exists().then_some(()));
    let pid = running.child.id();
    (running, pid)
}

/// It ends as if nothing had been.
fn undisturbed(running: Running) {
    running.scratch.write("go", "");
    let run = running.finish().well();
    check!(run, run.stdout.contains("got 100000"), "the host was disturbed");
}

/// gdb attaches, does this, and stays until [`released`]: however late the daemon looks, it is there.
fn gdb_at(running: &Running, order: &str) -> Child {
    let id = running.child.id().to_string();
    let stay = format!("shell until [ -e {} ]; do sleep 0.05; done", running.scratch.at("seen").display());
    unobserved(&["gdb", "-nx", "-batch", "-p", &id, "-ex", order, "-ex", &stay])
}

fn released(running: &Running, mut gdb: Child) {
    running.scratch.write("seen", "");
    gdb.wait().expect("gdb");
}

fn unobserved(words: &[&str]) -> Child {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env_remove("LD_PRELOAD").stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|e| panic!("{words:?}: {e}"))
}

fn name(value: &Value) -> &str {
    value.as_str().unwrap_or("").rsplit('/').next().unwrap_or("")
}

fn is_digest(value: &Value) -> bool {
    value.as_str().is_some_and(|s| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[test]
fn gdb_attaches() {
    need!("gdb");
    let daemon = Daemon::start("");
    let (running, pid) = in_the_middle(&daemon);
    let gdb = gdb_at(&running, "info program");
    let alarm = found(&daemon, "tracer");
    let tracer = &alarm["evidence"]["tracer"];
    let right = alarm["severity"] == "high"
        && alarm["process"]["pid"] == pid
        && name(&tracer["exe"]) == "gdb"
        && tracer["pid"] == gdb.id()
        && tracer["argv"][0] == "gdb"
        && !tracer["argv"].to_string().contains("sleep")
        && tracer["user"].is_string()
        && tracer["package"] == "gdb"
        && is_digest(&tracer["sha256"])
        && is_digest(&alarm["process"]["sha256"]);
    assert!(right, "{}", daemon.shown(&alarm.to_string()));
    // (Its arguments are redacted as everybody's are.) What repeats are counted by is the program, not the name that it has today.
    assert!(
        alarm["key"].to_string().contains(alarm["process"]["sha256"].as_str().unwrap()),
        "{}",
        alarm["key"]
    );
    released(&running, gdb);
    undisturbed(running);
    only(&daemon, &["tracer"]);
}

/// A fork is one of those that are looked after, too: it never said hello.
#[test]
fn a_fork_is_traced() {
    need!("strace");
    let daemon = Daemon::start("");
    let (running, pid) = in_the_middle(&daemon);
    let children = format!("/proc/{pid}/task/{pid}/children");
    let child = std::fs::read_to_string(children).expect("children");
    let child: u32 = child.trim().parse().expect("one child");
    let mut strace = unobserved(&["strace", "-qq", "-o", "/dev/null", "-p", &child.to_string()]);
    let alarm = found(&daemon, "tracer");
    let right = alarm["process"]["pid"] == child && alarm["process"]["parents"][0]["pid"] == pid;
    assert!(right, "{}", daemon.shown(&alarm.to_string()));
    strace.kill().expect("kill");
    strace.wait().expect("strace");
    undisturbed(running);
}

#[test]
fn strace_attaches_again_and_again() {
    need!("strace");
    let daemon = Daemon::start("");
    let (running, pid) = in_the_middle(&daemon);
    for count in 1..=2 {
        let mut strace = unobserved(&["strace", "-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()]);
        daemon.until_reported("a tracer, counted up", |r| {
            anomalies(r, "tracer").iter().any(|a| a.0["count"] == count)
        });
        strace.kill().expect("kill");
        strace.wait().expect("strace");
        // The next one's number is another, whether or not the daemon saw this one go.
        let status = format!("/proc/{pid}/status");
        wait::until(PATIENCE, "nobody traces", || {
            std::fs::read_to_string(&status).ok()?.contains("TracerPid:\t0\n").then_some(())
        });
    }
    assert_eq!(name(&found(&daemon, "tracer")["evidence"]["tracer"]["exe"]), "strace");
    undisturbed(running);
}

/// A program that was started under a tracer: said, but as what it mostly is, somebody at work.
#[test]
fn strace_starts_it() {
    need!("strace");
    let program = counterfoil_tests::fixture("tls");
    let mut words = vec!["strace", "-f", "-qq", "-o", "trace", &program];
    words.extend(WAITING.split(' ').skip(1));
    let running = Observed::new(words).start();
    // It goes on only when its tracer was seen.
    let seen = |r: &Report| !anomalies(r, "tracer").is_empty();
    wait::until(PATIENCE, "a tracer", || seen(&running.report_so_far()).then_some(()));
    running.scratch.write("go", "");
    let run = running.finish().well();
    let said = anomalies(&run.report, "tracer");
    check!(run, !said.is_empty(), "not said");
    for alarm in &said {
        let evidence = &alarm.0["evidence"];
        let right = alarm.0["severity"] == "low"
            && evidence["started_it"] == true
            && name(&evidence["tracer"]["exe"]) == "strace";
        check!(run, right, "not as it was: {}", alarm.0);
    }
    check!(
        run,
        run.report.on("tls").iter().all(|t| t.verdict() == "intact"),
        "the verdict is the bytes' own"
    );
}

#[test]
fn an_observed_gdb_sets_a_variable() {
    need!("gdb");
    let daemon = Daemon::start("");
    let (running, pid) = in_the_middle(&daemon);
    let id = pid.to_string();
    let run = daemon.observing(&["gdb", "-nx", "-batch", "-p", &id, "-ex", "set var chunk = chunk"]).go();
    let alarm = found(&daemon, "memory-write");
    let evidence = &alarm["evidence"];
    let right = alarm["severity"] == "high"
        && alarm["process"]["pid"] == pid
        && name(&evidence["writer"]["exe"]) == "gdb"
        && ["proc-mem", "ptrace"].iter().any(|how| evidence["how"] == *how);
    check!(run, right, "{}", daemon.shown(&alarm.to_string()));
    undisturbed(running);
    // Whether gdb stayed long enough to be seen as a tracer, too, is a matter of chance.
    only(&daemon, &["memory-write", "tracer"]);
}

/// Each way, by a program that is observed but not watched; reading is none of them.
#[test]
fn every_way_to_write() {
    for way in ["process-vm-writev", "pwrite", "write", "read"] {
        let daemon = Daemon::start("");
        let (running, pid) = in_the_middle(&daemon);
        let script = peers::script("write_into.py");
        let run = daemon.observing(&[peers::PYTHON, &script, &pid.to_string(), way]).go().well();
        if way == "read" {
            undisturbed(running);
            daemon.until_reported("the transfers", |r| r.on("tls").len() >= 2);
            only(&daemon, &[]);
            continue;
        }
        let alarm = found(&daemon, "memory-write");
        let evidence = &alarm["evidence"];
        let how = if way == "process-vm-writev" { way } else { "proc-mem" };
        let right = evidence["how"] == how
            && evidence["length"] == 8
            && evidence["address"].is_string() == (way != "write")
            && name(&evidence["writer"]["exe"]).starts_with("python3")
            && alarm["process"]["pid"] == pid;
        check!(run, right, "{way}: {}", daemon.shown(&alarm.to_string()));
        undisturbed(running);
        only(&daemon, &["memory-write"]);
    }
}

/// Nobody's business: the target is not one of those that are looked after.
#[test]
fn a_write_into_an_unwatched_process() {
    let daemon = Daemon::start("");
    let mut sleeper = daemon.observing(&["sleep", "60"]).start();
    let pid = sleeper.child.id();
    let comm = format!("/proc/{pid}/comm");
    wait::until(PATIENCE, "sleep runs", || (std::fs::read_to_string(&comm).ok()? == "sleep\n").then_some(()));
    let script = peers::script("write_into.py");
    daemon.observing(&[peers::PYTHON, &script, &pid.to_string(), "pwrite"]).go().well();
    daemon.good_session(2);
    only(&daemon, &[]);
    sleeper.child.kill().expect("kill");
}

/// An inline hook: no symbol is replaced, and yet other code runs. The program is over at once, mostly before the daemon could
/// look at its code: its library tells.
#[test]
fn ssl_write_is_patched() {
    if !cfg!(target_arch = "x86_64") {
        skip!("patch.c knows x86-64 only");
    }
    for order in ["", "flip"] {
        let run = Observed::fixture("tls 1.3 - write read 100000 5000")
            .foreign("patch.so")
            .env("PATCH", order)
            .go()
            .well();
        let said = anomalies(&run.report, "code-patched");
        check!(run, !said.is_empty(), "not found");
        for alarm in &said {
            let evidence = &alarm.0["evidence"];
            let memory = evidence["memory"].as_str().unwrap_or("");
            let right = evidence["symbol"] == "SSL_write"
                && evidence["object"].to_string().contains("libssl")
                && memory.starts_with("ff2500000000")
                && evidence["file"].as_str().is_some_and(|f| f.len() == memory.len() && f != memory)
                && alarm.0["severity"] == "high";
            check!(run, right, "{}", alarm.0);
        }
        if order == "flip" {
            check!(
                run,
                run.report.fired("payload-altered") || run.report.fired("cipher-mismatch"),
                "it also changed data"
            );
        }
    }
}

/// Who asks by a handle is given our hook, and may put its code there: then that is what differs from its file.
#[test]
fn our_own_hook_is_patched() {
    if !cfg!(target_arch = "x86_64") {
        skip!("patch.c knows x86-64 only");
    }
    let run = Observed::fixture("asked patched").go().well();
    let said = anomalies(&run.report, "code-patched");
    check!(run, !said.is_empty(), "not found");
    for alarm in &said {
        let evidence = &alarm.0["evidence"];
        let right =
            evidence["symbol"] == "SSL_write" && evidence["object"].to_string().contains("libcounterfoil");
        check!(run, right, "{}", alarm.0);
    }
}

/// A debugger that nobody observes writes into a library's code.
#[test]
fn gdb_patches_a_library() {
    need!("gdb");
    let daemon = Daemon::start("");
    let (running, pid) = in_the_middle(&daemon);
    let poke = "set *(unsigned char *)((char *)&SSL_CTX_set_srp_password + 5) = 0xcc";
    let gdb = gdb_at(&running, poke);
    let alarm = found(&daemon, "code-patched");
    let evidence = &alarm["evidence"];
    let right = alarm["process"]["pid"] == pid
        && evidence["symbol"] == "SSL_CTX_set_srp_password"
        && evidence["differing"] == 1
        && evidence["memory"].as_str().is_some_and(|m| m.starts_with("cc"));
    assert!(right, "{}", daemon.shown(&alarm.to_string()));
    released(&running, gdb);
    undisturbed(running);
    only(&daemon, &["code-patched", "tracer"]);
}

/// What an upgrade does: another file takes the library's place while it is in use.
#[test]
fn an_upgraded_library_is_not_patched() {
    need!("strace", "cp");
    let daemon = Daemon::start("");
    let scratch = counterfoil_tests::Scratch::new();
    let folder = std::fs::read_to_string("/proc/self/maps").ok().and_then(|maps| {
        let line = maps.lines().find(|l| l.ends_with("/libc.so.6"))?.to_owned();
        Some(line[line.find('/')?..].strip_suffix("/libc.so.6")?.to_owned())
    });
    let folder = folder.expect("where libraries are");
    for library in ["libssl.so.3", "libcrypto.so.3"] {
        std::fs::copy(format!("{folder}/{library}"), scratch.at(library)).expect("copy");
    }
    let running = daemon.observing_fixture(WAITING).env("LD_LIBRARY_PATH", scratch.path()).start();
    let mark = running.scratch.at("mark");
    wait::until(PATIENCE, "the connection stands", || mark.exists().then_some(()));
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", running.child.id())).expect("maps");
    assert!(maps.contains(scratch.at("libssl.so.3").to_str().expect("path")), "not our copy:\n{maps}");
    for library in ["libssl.so.3", "libcrypto.so.3"] {
        let mut other = std::fs::read(scratch.at(library)).expect("read");
        other.iter_mut().for_each(|b| *b ^= 0x55);
        let new = scratch.write("new", other);
        std::fs::rename(new, scratch.at(library)).expect("rename");
    }
    // Whoever is traced has its code looked at.
    let mut strace = unobserved(&["strace", "-qq", "-o", "/dev/null", "-p", &running.child.id().to_string()]);
    // That is said when the look around is over, code and all.
    found(&daemon, "tracer");
    strace.kill().expect("kill");
    strace.wait().expect("strace");
    undisturbed(running);
    only(&daemon, &["tracer"]);
}

/// A second preload answers for `SSL_write`: high, or low where it is a known tool, but never another verdict.
#[test]
fn a_second_preload() {
    let run = Observed::fixture("tls 1.3 - write read 50000 5000").foreign("foreign.so").go().well();
    let said = anomalies(&run.report, "foreign-hook");
    check!(
        run,
        said.iter().all(|a| a.0["severity"] == "high") && !said.is_empty(),
        "want foreign-hook, high"
    );
    check!(run, is_digest(&said[0].0["process"]["sha256"]), "whose program");
}

/// The address sanitizer stands before `read` and `write`: nothing is vouched for, and nobody is alarmed.
#[test]
fn a_known_preload_is_low() {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"];
    let versions = || (5..12).map(|v| format!("libasan.so.{v}"));
    let mut libraries = folders.iter().flat_map(|f| versions().map(move |v| format!("{f}/{v}")));
    let Some(library) = libraries.find(|l| std::path::Path::new(l).exists()) else {
        skip!("no libasan (it comes with gcc)");
    };
    let script = format!(
        "export LD_PRELOAD={library}:$LD_PRELOAD ASAN_OPTIONS=detect_leaks=0\n\
         exec $FIXTURES/stream socketpair write read 50000 5000"
    );
    let run = Observed::script(&script).go().well();
    let said = anomalies(&run.report, "foreign-hook");
    check!(run, !said.is_empty() && said.iter().all(|a| a.0["severity"] == "low"), "want foreign-hook, low");
    check!(run, said.iter().all(|a| a.0["evidence"]["known_preload"] == true), "and known");
    let unix = run.report.on("unix");
    let unverified = unix.iter().all(|t| t.verdict() == "unverified" && t.reasons() == ["foreign-hook"]);
    check!(run, !unix.is_empty() && unverified, "the verdict is not better for that");
}

const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";

#[test]
fn sftp_server_by_somebody_else() {
    if !std::path::Path::new(SFTP_SERVER).exists() {
        skip!("no sftp-server");
    }
    let daemon = Daemon::start("");
    let start = format!("import subprocess; subprocess.run([{SFTP_SERVER:?}], stdin=subprocess.DEVNULL)");
    let run = daemon.observing(&[peers::PYTHON, "-c", &start]).go().well();
    let alarm = found(&daemon, "unexpected-parent");
    let evidence = &alarm["evidence"];
    let right = name(&alarm["process"]["exe"]) == "sftp-server"
        && name(&evidence["parent"]["exe"]).starts_with("python3")
        && evidence["basis"] == "built-in"
        && evidence["expected"].to_string().contains("sshd");
    check!(run, right, "{}", daemon.shown(&alarm.to_string()));
    only(&daemon, &["unexpected-parent"]);
}

/// Who starts sshd on this host is learnt: the same is silent afterwards, somebody else is not, once it serves.
#[test]
fn sshd_by_somebody_new() {
    need!("sshd", "ssh", "ssh-keygen");
    if !peers::root() {
        skip!("sshd with privilege separation needs root");
    }
    let serve = |daemon: &Daemon, starter: &[&str]| {
        let (server, port) = service_sshd::start_by(daemon, starter);
        let login = service_sshd::client(&server.scratch.path().display().to_string(), port);
        let words: Vec<&str> = login.iter().map(String::as_str).chain(["true"]).collect();
        daemon.observing(&words).go().well();
        // Whoever started it, and what it started, end with it.
        drop(server);
    };
    const SHELL: &[&str] = &["sh", "-c", "\"$@\"; true", "sh"];
    const PYTHON: &[&str] = &[peers::PYTHON, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])"];
    let mut daemon = Daemon::start("");
    serve(&daemon, SHELL);
    only(&daemon, &[]);
    daemon.again_watching("baseline_days = 0");
    serve(&daemon, SHELL);
    // Its configuration is checked by anybody.
    let check: Vec<&str> =
        PYTHON.iter().copied().chain(["/usr/sbin/sshd", "-t", "-f", "/dev/null"]).collect();
    daemon.observing(&check).go();
    daemon.good_session(2);
    only(&daemon, &[]);
    serve(&daemon, PYTHON);
    let alarm = found(&daemon, "unexpected-parent");
    let evidence = &alarm["evidence"];
    let right = name(&alarm["process"]["exe"]) == "sshd"
        && name(&evidence["parent"]["exe"]).starts_with("python3")
        && evidence["basis"] == "baseline"
        && evidence["expected"].to_string().contains("sh")
        && alarm["why"]["tunable"] == "baseline_days";
    assert!(right, "{}", daemon.shown(&alarm.to_string()));
    only(&daemon, &["unexpected-parent"]);
}

/// A file that is as old as the process, and the process gone: it could have been put there since, and its digest
/// isn't said to be the program's.
fn settled(path: &Path) {
    wait::until(PATIENCE, "a moment has passed", || {
        let changed = std::fs::metadata(path).ok()?.modified().ok()?;
        changed.elapsed().is_ok_and(|age| age > Duration::from_secs(3)).then_some(())
    });
}

#[test]
fn a_copy_under_a_services_name() {
    need!("ssh");
    let daemon = Daemon::start("");
    let scratch = counterfoil_tests::Scratch::new();
    let folder = scratch.at("open");
    std::fs::create_dir(&folder).expect("folder");
    peers::prepare(&scratch, &["chmod", "777", "open"]);
    let copy = folder.join("sshd").display().to_string();
    std::fs::copy(peers::find("ssh").expect("ssh"), &copy).expect("copy");
    settled(copy.as_ref());
    let run = daemon.observing(&[&copy, "-V"]).go().well();
    let alarm = found(&daemon, "unexpected-binary");
    let evidence = &alarm["evidence"];
    let right = evidence["flaw"] == "open-folder"
        && evidence["exe"] == copy.as_str()
        && evidence["sha256"] == alarm["process"]["sha256"]
        && is_digest(&evidence["sha256"])
        && alarm["process"]["package"].is_null()
        && alarm["severity"] == "high";
    check!(run, right, "{}", daemon.shown(&alarm.to_string()));
}

/// Runs a program that lies in no file, and waits until that is said. What came before it has been looked at then, too: one
/// thread does, in turn.
fn in_memory(daemon: &Daemon) {
    let script = "import os; m = os.memfd_create('sshd', 0); \
        os.write(m, open('/usr/bin/curl', 'rb').read()); \
        os.execve(m, ['sshd', '--version'], os.environ)";
    daemon.observing(&[peers::PYTHON, "-c", script]).go().well();
    daemon.until_reported("memfd", |r| !flawed(r, "memfd").is_empty());
}

fn flawed(report: &Report, flaw: &str) -> Vec<Alarm> {
    let of = |a: &Alarm| a.0["evidence"]["flaw"] == flaw;
    anomalies(report, "unexpected-binary").into_iter().filter(of).collect()
}

#[test]
fn a_service_in_memory() {
    need!("curl");
    in_memory(&Daemon::start(""));
}

/// The binary of a tool is replaced under its path, and it is no package's doing.
#[test]
fn a_replaced_binary() {
    need!("curl", "openssl");
    if !peers::root() {
        skip!("only root has a folder that nobody else may write to");
    }
    let folder = std::path::PathBuf::from(format!("/var/lib/counterfoil-test-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("folder");
    let path = folder.join("curl");
    let tool = path.display().to_string();
    std::fs::copy("/usr/bin/curl", &path).expect("copy");
    settled(&path);
    let daemon = Daemon::start("");
    for _ in 0..2 {
        daemon.observing(&[&tool, "--version"]).go().well();
    }
    in_memory(&daemon);
    let all = anomalies(&daemon.report(), "unexpected-binary").len();
    assert_eq!(all, flawed(&daemon.report(), "memfd").len(), "{}", daemon.shown("only memfd"));
    only(&daemon, &["unexpected-binary"]);
    std::fs::remove_file(&path).expect("remove");
    std::fs::copy("/usr/bin/openssl", &path).expect("copy");
    settled(&path);
    daemon.observing(&[&tool, "version"]).go().well();
    let alarm = wait::poll(PATIENCE, || flawed(&daemon.report(), "replaced").pop());
    let _ = std::fs::remove_dir_all(&folder);
    let alarm = alarm.unwrap_or_else(|| panic!("{}", daemon.shown("no replaced binary"))).0;
    let evidence = &alarm["evidence"];
    let right =
        is_digest(&evidence["was"]) && evidence["was"] != evidence["sha256"] && alarm["severity"] == "medium";
    assert!(right, "{}", daemon.shown(&alarm.to_string()));
}

/// Something that is no ssh client knocks at an sshd.
#[test]
fn a_strange_client_of_sshd() {
    need!("sshd", "ssh", "ssh-keygen");
    if !peers::root() {
        skip!("sshd with privilege separation needs root");
    }
    let mut daemon = Daemon::watching("baseline_days = 0");
    let (mut server, port) = service_sshd::start(&daemon);
    let scratch = server.scratch.path().display().to_string();
    let login = service_sshd::client(&scratch, port);
    let words: Vec<&str> = login.iter().map(String::as_str).chain(["true"]).collect();
    daemon.observing(&words).go().well();
    only(&daemon, &["unexpected-parent"]);
    let knock = format!("import socket; print(socket.create_connection(('127.0.0.1', {port})).recv(4))");
    let run = daemon.observing(&[peers::PYTHON, "-c", &knock]).go().well();
    let alarm = found(&daemon, "unexpected-client");
    let right = name(&alarm["process"]["exe"]).starts_with("python3")
        && name(&alarm["evidence"]["service"]) == "sshd"
        && alarm["connection"]["remote"] == format!("127.0.0.1:{port}");
    check!(run, right, "{}", daemon.shown(&alarm.to_string()));
    server.child.kill().expect("kill");
    daemon.stop();
}
