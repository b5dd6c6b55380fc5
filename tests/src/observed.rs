//! A command, run as it is or under `counterfoil run`, and what came of it.

use crate::report::Report;
use crate::scratch::Scratch;
use crate::{fixtures, product, wait};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A command to be run.
pub struct Observed {
    words: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    options: Vec<OsString>,
    stdin: Option<PathBuf>,
    limit: Duration,
    observed: bool,
    session: bool,
    /// Where it runs, and where its output and report go.
    pub scratch: Scratch,
}

impl Observed {
    /// A command line of words.
    pub fn new<S: Into<OsString>>(words: impl IntoIterator<Item = S>) -> Self {
        Self {
            words: words.into_iter().map(Into::into).collect(),
            environment: vec![],
            options: vec![],
            stdin: None,
            limit: Duration::from_secs(60),
            observed: true,
            session: false,
            scratch: Scratch::new(),
        }
    }

    /// A fixture and its arguments, separated by blanks.
    pub fn fixture(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let program = fixtures::fixture(words.next().expect("a fixture's name"));
        Self::new(std::iter::once(program).chain(words.map(str::to_owned)))
    }

    /// A script for `sh -eu`. `$FIXTURES` is the fixtures' folder, `await COMMAND` waits until it succeeds,
    /// a line `listening PORT` until somebody listens there, without connecting to it and without a pipe.
    pub fn script(text: &str) -> Self {
        const PRELUDE: &str = "await() { n=0; until \"$@\" >/dev/null 2>&1; do n=$((n+1)); \
            [ $n -lt 1500 ] || { echo \"await: $*\" >&2; exit 99; }; sleep 0.01; done; }\n";
        let mut script = PRELUDE.to_owned();
        for line in text.lines() {
            match line.trim().strip_prefix("listening ").map(str::parse::<u16>) {
                Some(Ok(port)) => script += &listening(port),
                _ => script += line,
            }
            script.push('\n');
        }
        Self::new(["sh", "-euc", &script])
    }

    /// One variable more.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// One option of `counterfoil run` more.
    pub fn option(mut self, word: impl Into<OsString>) -> Self {
        self.options.push(word.into());
        self
    }

    /// What stands on its standard input; else nothing does.
    pub fn stdin(mut self, content: impl AsRef<[u8]>) -> Self {
        self.stdin = Some(self.scratch.write("stdin", content));
        self
    }

    /// Its standard error goes to the file `own` of the scratch folder, apart from `counterfoil`'s report.
    pub fn stderr_apart(mut self) -> Self {
        let mut words: Vec<OsString> =
            vec!["sh".into(), "-c".into(), "exec \"$@\" 2>own".into(), "sh".into()];
        words.append(&mut self.words);
        self.words = words;
        self
    }

    /// How long it may take; 60 s else.
    pub fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// In a session of its own, as services, jobs of cron and logins are.
    pub fn own_session(mut self) -> Self {
        self.session = true;
        self
    }

    /// Without the library.
    pub fn plain(mut self) -> Self {
        self.observed = false;
        self
    }

    /// With `tamper.so` below the hooks, under these orders (see `fixtures/tamper.c`).
    pub fn tampered(self, orders: &str) -> Self {
        self.preloaded("$LD_PRELOAD:$0", "tamper.so").env("TAMPER", orders)
    }

    /// With one of the fixtures' libraries below the hooks.
    pub fn underneath(self, library: &str) -> Self {
        self.preloaded("$LD_PRELOAD:$0", library)
    }

    /// With one of the fixtures' libraries above the hooks.
    pub fn foreign(self, library: &str) -> Self {
        self.preloaded("$0:$LD_PRELOAD", library)
    }

    fn preloaded(mut self, order: &str, library: &str) -> Self {
        let script = format!("export LD_PRELOAD=\"{order}\"; exec \"$@\"");
        let mut words: Vec<OsString> =
            vec!["sh".into(), "-c".into(), script.into(), fixtures::fixture(library).into()];
        words.append(&mut self.words);
        self.words = words;
        self
    }

    /// Starts it.
    pub fn start(self) -> Running {
        let json = self.scratch.at("events.jsonl");
        let mut words: Vec<OsString> = vec![];
        if self.session {
            // It is no leader of a group yet: setsid(1) goes on as the same process.
            words.push("setsid".into());
        }
        if self.observed {
            words.extend([product::program().into(), "run".into()]);
            if !self.options.iter().any(|o| o == "--json") {
                words.extend(["--json".into(), json.clone().into()]);
            }
            words.extend(self.options.iter().cloned());
            words.push("--".into());
        }
        words.extend(self.words.iter().cloned());
        let file = |name| File::create(self.scratch.at(name)).expect("output file");
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .current_dir(self.scratch.path())
            .env("FIXTURES", fixtures::folder())
            .env("TMPDIR", self.scratch.path())
            .env_remove("LD_PRELOAD")
            .envs(self.environment.iter().cloned())
            .stdin(match &self.stdin {
                Some(path) => File::open(path).expect("stdin").into(),
                None => Stdio::null(),
            })
            .stdout(file("stdout"))
            .stderr(file("stderr"));
        if !self.session {
            command.process_group(0);
        }
        let child = command.spawn().unwrap_or_else(|e| panic!("{:?}: {e}", words[0]));
        Running { child, words, limit: self.limit, scratch: self.scratch, json, over: false }
    }

    /// Runs it to its end.
    pub fn go(self) -> Run {
        self.start().finish()
    }
}

/// Shell for "wait until somebody listens on that port".
pub fn listening(port: u16) -> String {
    format!("await grep -qiE ':{port:04X} 0+:0000 0A' /proc/net/tcp /proc/net/tcp6")
}

/// A command on its way.
pub struct Running {
    /// The child: `counterfoil run`, or the command itself.
    pub child: Child,
    /// Where it runs.
    pub scratch: Scratch,
    /// Where its report grows.
    pub json: PathBuf,
    words: Vec<OsString>,
    limit: Duration,
    over: bool,
}

impl Running {
    /// What was reported up to now; a line that is still being written is left out.
    pub fn report_so_far(&self) -> Report {
        Report::read(&self.json)
    }

    /// Waits for the end. Past its limit the whole process group is killed and the test fails.
    pub fn finish(mut self) -> Run {
        let status = wait::poll(self.limit, || self.child.try_wait().expect("wait"));
        self.over = status.is_some();
        let text = |name| {
            let bytes = std::fs::read(self.scratch.at(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let run = Run {
            status: status.unwrap_or_default(),
            stdout: text("stdout"),
            stderr: text("stderr"),
            report: Report::read(&self.json),
            words: self.words.clone(),
            scratch: std::mem::replace(&mut self.scratch, Scratch::new()),
        };
        assert!(status.is_some(), "it didn't end within {:?}\n{}", self.limit, run.shown());
        run
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            if let Some(group) = rustix::process::Pid::from_raw(self.child.id() as i32) {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = self.child.wait();
        }
    }
}

/// What came of a command.
pub struct Run {
    /// Its exit status, or that of `counterfoil run`.
    pub status: ExitStatus,
    /// What it wrote.
    pub stdout: String,
    /// What it and `counterfoil` wrote.
    pub stderr: String,
    /// What was reported; empty where it ran unobserved.
    pub report: Report,
    /// Where it ran.
    pub scratch: Scratch,
    words: Vec<OsString>,
}

impl Run {
    /// Exit code, or 128 + signal as shells say it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Panics unless the command ended with 0.
    pub fn well(self) -> Self {
        check_status(&self);
        self
    }

    /// Everything that a failing test shows.
    pub fn shown(&self) -> String {
        let quoted = |word: &OsString| match word.to_string_lossy() {
            plain if !plain.contains(|c: char| c.is_whitespace() || "'$\"".contains(c)) => plain.into_owned(),
            odd => format!("'{}'", odd.replace('\'', "'\\''")),
        };
        let words: Vec<_> = self.words.iter().map(quoted).collect();
        let cut = |text: &str| text.chars().take(6000).collect::<String>();
        format!(
            "cwd:     {}\ncommand: {}\nstatus:  {:?}\nstdout:\n{}\nstderr:\n{}\nreport:\n{}",
            self.scratch.path().display(),
            words.join(" "),
            self.status,
            cut(&self.stdout),
            cut(&self.stderr),
            cut(&self.report.shown()),
        )
    }
}

fn check_status(run: &Run) {
    assert!(run.status.success(), "it failed\n{}", run.shown());
}
