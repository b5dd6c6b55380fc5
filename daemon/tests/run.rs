//! `counterfoil run` as its users meet it: exit statuses, signals, descriptors, and what it says when
//! it can't start. The library loaded here is an empty one: what is observed is for other tests.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A library that does nothing, built once.
fn library() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("libcounterfoil.so");
        let built = Command::new("cc").args(["-shared", "-x", "c", "/dev/null", "-o"]).arg(&path).status();
        assert!(built.unwrap().success(), "cc builds an empty library");
        (dir, path)
    });
    path
}

fn counterfoil() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_counterfoil"));
    command.env("COUNTERFOIL_LIB", library()).env_remove("COUNTERFOIL_SOCKET").stdin(Stdio::null());
    command
}

fn run(options: &[&str], cmd: &[&str]) -> Output {
    let output = counterfoil().arg("run").args(options).arg("--").args(cmd).output().unwrap();
    println!("run {options:?} -- {cmd:?}: {output:?}");
    output
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn cmds_exit_status_is_ours() {
    for (cmd, status) in [
        (&["/bin/true"][..], 0),
        (&["/bin/false"], 1),
        (&["sh", "-c", "exit 3"], 3),
        (&["sh", "-c", "exit 255"], 255),
        (&["sh", "-c", "kill -TERM $$"], 128 + libc::SIGTERM),
        (&["sh", "-c", "kill -KILL $$"], 128 + libc::SIGKILL),
        (&["sh", "-c", "kill -SEGV $$"], 128 + libc::SIGSEGV),
        (&["/no/such/program"], 127),
        (&["no-such-program-anywhere"], 127),
        (&["/etc/passwd"], 126),
        (&["/"], 126),
    ] {
        assert_eq!(run(&[], cmd).status.code(), Some(status), "{cmd:?}");
    }
}

#[test]
fn stdin_stdout_and_stderr_are_cmds() {
    let mut child = counterfoil()
        .args(["run", "--quiet", "--", "sh", "-c", "cat; echo problem >&2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    use std::io::Write;
    child.stdin.take().unwrap().write_all(b"a\0b\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"a\0b\n");
    assert_eq!(output.stderr, b"problem\n", "--quiet adds nothing");
    let loud = run(&[], &["echo", "x"]);
    assert_eq!(stdout(&loud), "x\n", "nothing of ours on stdout");
    assert!(stderr(&loud).lines().last().unwrap().starts_with("counterfoil: "), "a summary at the end");
}

#[test]
fn cmd_gets_two_variables_and_no_descriptor() {
    let plain = Command::new("sh").args(["-c", "ls -x /proc/self/fd"]).stdin(Stdio::null()).output().unwrap();
    let shown = run(
        &["--quiet"],
        &["sh", "-c", "ls -x /proc/self/fd; echo \"$LD_PRELOAD\"; ls -d \"$COUNTERFOIL_SOCKET\""],
    );
    let text = stdout(&shown);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], stdout(&plain).trim_end());
    assert_eq!(lines[1], library().canonicalize().unwrap().to_str().unwrap());
    let socket = Path::new(lines[2]);
    assert!(socket.is_absolute() && !socket.exists(), "removed at the end: {socket:?}");
    assert!(!socket.parent().unwrap().exists());
    let mut preloaded = counterfoil();
    preloaded.args(["run", "-q", "--", "sh", "-c", "echo $LD_PRELOAD"]).env("LD_PRELOAD", library());
    let text = stdout(&preloaded.output().unwrap());
    assert_eq!(text.matches("libcounterfoil.so").count(), 2, "an existing preload stays: {text}");
}

/// The lines of /proc/self/status about signals.
fn dispositions(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    let text = stdout(&output);
    let wanted = ["SigBlk", "SigIgn", "SigCgt", "ShdPnd"];
    text.lines().filter(|l| wanted.iter().any(|w| l.starts_with(w))).map(str::to_owned).collect()
}

#[test]
fn cmd_starts_with_the_signals_we_were_started_with() {
    let status = ["cat", "/proc/self/status"];
    for ignored in
        [&[][..], &[libc::SIGPIPE], &[libc::SIGINT, libc::SIGQUIT], &[libc::SIGHUP, libc::SIGCHLD, 40]]
    {
        let prepare = |command: &mut Command| {
            let ignored = ignored.to_vec();
            // SAFETY: async-signal-safe calls only.
            unsafe {
                command.pre_exec(move || {
                    libc::signal(libc::SIGPIPE, libc::SIG_DFL);
                    for signal in &ignored {
                        libc::signal(*signal, libc::SIG_IGN);
                    }
                    let mut mask: libc::sigset_t = std::mem::zeroed();
                    libc::sigaddset(&mut mask, libc::SIGUSR1);
                    libc::sigprocmask(libc::SIG_SETMASK, &mask, std::ptr::null_mut());
                    Ok(())
                });
            }
        };
        let mut plain = Command::new(status[0]);
        prepare(plain.arg(status[1]));
        let mut observed = counterfoil();
        prepare(observed.args(["run", "-q", "--"]).args(status));
        let plain = dispositions(&mut plain);
        assert!(plain.len() >= 3);
        assert_eq!(dispositions(&mut observed), plain, "ignoring {ignored:?}");
    }
}

#[test]
fn closed_standard_descriptors_stay_closed() {
    let script = "exec \"$0\" run -q -- sh -c 'ls /proc/self/fd | head -c 100' <&- 2>&-";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_counterfoil")])
        .env("COUNTERFOIL_LIB", library())
        .output()
        .unwrap();
    // 0 is the directory that ls reads, where 0 was free; 2 stays closed.
    let text = stdout(&output);
    assert!(!text.lines().any(|l| l == "2") && text.lines().any(|l| l == "1"), "{text:?}");
}

/// Starts `script` under run, waits for its "ready", and gives the pid of counterfoil.
fn started(script: &str) -> (std::process::Child, std::io::BufReader<std::process::ChildStdout>) {
    use std::io::BufRead;
    let mut command = counterfoil();
    command.args(["run", "-q", "--", "sh", "-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
    // In a group of its own, so that this test can signal it like a terminal; and a shell can't trap
    // what it was started with ignored (nohup, CI).
    let ready = || {
        for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGUSR1, libc::SIGUSR2] {
            // SAFETY: async-signal-safe.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        // SAFETY: async-signal-safe.
        (unsafe { libc::setpgid(0, 0) } == 0).then_some(()).ok_or_else(std::io::Error::last_os_error)
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(ready) };
    let mut child = command.spawn().unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, out)
}

fn ended(child: &mut std::process::Child) -> std::process::ExitStatus {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < end, "it did not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: a signal to a child (or its group) of this test.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

#[test]
fn signals_to_us_go_on_to_cmd() {
    for (signal, name) in
        [(libc::SIGTERM, "TERM"), (libc::SIGHUP, "HUP"), (libc::SIGUSR1, "USR1"), (libc::SIGUSR2, "USR2")]
    {
        let script = format!("trap 'exit 42' {name}; echo ready; while :; do sleep 0.02; done");
        let (mut child, _out) = started(&script);
        kill(child.id() as i32, signal);
        assert_eq!(ended(&mut child).code(), Some(42), "{name}");
    }
}

#[test]
fn the_terminals_interrupt_is_cmds_business() {
    let script = "trap 'echo caught; n=1' INT; echo ready; while [ -z \"$n\" ]; do sleep 0.02; done; exit 7";
    let (mut child, mut out) = started(script);
    // As a terminal does: to the whole group, us included.
    kill(-(child.id() as i32), libc::SIGINT);
    assert_eq!(ended(&mut child).code(), Some(7));
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).unwrap();
    assert_eq!(rest, "caught\n", "once");
    let (mut child, _out) = started("echo ready; while :; do sleep 0.02; done");
    kill(-(child.id() as i32), libc::SIGINT);
    let status = ended(&mut child);
    assert_eq!((status.code(), status.signal()), (Some(128 + libc::SIGINT), None));
}

#[test]
fn what_cmd_leaves_running_is_not_waited_for_long() {
    let begin = Instant::now();
    let output = counterfoil()
        .args(["run", "-q", "--", "sh", "-c", "sleep 30 >/dev/null 2>&1 & echo $!"])
        .output()
        .unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    kill(stdout(&output).trim().parse().unwrap(), libc::SIGKILL);
    assert!(output.status.success());
}

#[test]
fn what_fails_before_cmd_starts_is_125_and_cmd_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join("marker");
    let touch = format!("touch {}", marker.display());
    let wrong = dir.path().join("wrong.toml");
    std::fs::write(&wrong, "[wach]\n").unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (options, words) in [
        (vec!["--json", "/no/such/dir/x.jsonl"], "can't write to /no/such/dir/x.jsonl"),
        (vec!["--config", "/no/such/file.toml"], "can't read /no/such/file.toml"),
        (vec!["--config", wrong.to_str().unwrap()], "did you mean `watch`?"),
        (vec!["--state", file.to_str().unwrap()], "is no directory"),
        (vec!["--no-such-option"], "--no-such-option"),
        (vec!["--fail-on", "nothing"], "altered"),
    ] {
        let output = run(&options, &["sh", "-c", &touch]);
        assert_eq!(output.status.code(), Some(125), "{options:?}");
        assert!(stderr(&output).contains(words), "{options:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    let without =
        counterfoil().args(["run", "--", "sh", "-c", &touch]).env("COUNTERFOIL_LIB", "/no/lib.so").output();
    let without = without.unwrap();
    assert_eq!(without.status.code(), Some(125));
    assert!(
        stderr(&without).contains("libcounterfoil.so was not found in /no/lib.so"),
        "{}",
        stderr(&without)
    );
    assert!(!marker.exists());
    assert_eq!(counterfoil().arg("run").output().unwrap().status.code(), Some(125), "no CMD");
}

#[test]
fn json_ends_with_the_summary() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    std::fs::write(&path, "old\n").unwrap();
    assert!(run(&["--json", path.to_str().unwrap()], &["/bin/true"]).status.success());
    let text = std::fs::read_to_string(&path).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["type"], "summary");
    for field in ["transfers", "alarms", "records", "dropped", "processes_observed", "processes_not_observed"]
    {
        assert!(!last[field].is_null(), "{field} in {last}");
    }
    assert!(!text.contains("old"));
}

#[test]
fn other_commands_and_their_statuses() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good.toml");
    let wrong = dir.path().join("wrong.toml");
    std::fs::write(&good, "[privacy]\nargv = \"none\"\n[fleet]\n").unwrap();
    std::fs::write(&wrong, "[wach]\n[privacy]\nargv = \"hashed\"\n").unwrap();
    let state = dir.path().to_str().unwrap();
    let missing = dir.path().join("nobody");
    for (arguments, status, words) in [
        (vec!["check", good.to_str().unwrap()], 0, ":3:2: [fleet] does nothing yet"),
        (vec!["check", wrong.to_str().unwrap()], 1, "wrong.toml:3:8: argv:"),
        (vec!["check", "/no/such"], 1, "can't read"),
        (vec!["transfers", "--state", state], 1, "holds no ledger"),
        (vec!["alarms", "--state", state], 1, "holds no ledger"),
        (vec!["transfers", "--since", "yesterday"], 2, "write a time"),
        (vec!["nonsense"], 2, "nonsense"),
        (vec!["--help"], 0, "Examples:"),
        (vec!["run", "--help"], 0, "Exit status:"),
        (vec!["exec", "--socket", missing.to_str().unwrap(), "--", "true"], 125, "no daemon answers"),
    ] {
        let output = counterfoil().args(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
        let said = stdout(&output) + &stderr(&output);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}
