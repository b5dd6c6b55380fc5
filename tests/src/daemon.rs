//! A host daemon of one test's own: `counterfoil daemon` with its own socket, state and sinks.

use crate::observed::{Observed, Run};
use crate::report::{Alarm, Report};
use crate::scratch::Scratch;
use crate::{check, fixtures, product, undisturbed, wait};
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

/// Programs that these tests want watched, whatever the defaults are.
const WATCHED: &str = "sh dash stream tls shared tcp_end source sink process openssl curl nginx cat dd ssh sshd \
    sshd-session scp sftp sftp-server rsync git wget mosquitto mosquitto_pub mosquitto_sub psql postgres nc \
    nc.openbsd socat";

const READ_AGAIN: &str = "configuration read again";

/// The daemon.
pub struct Daemon {
    /// Its folder: socket, state, configuration, log.
    pub scratch: Scratch,
    child: Option<Child>,
    state: PathBuf,
    /// The value of `watched_processes`.
    watched: Vec<String>,
    /// Configuration beside `[watch]`.
    more: String,
    /// HOME, where it is not the test's.
    home: Option<PathBuf>,
}

impl Daemon {
    /// With the default state folder inside the scratch folder.
    pub fn start(more: &str) -> Self {
        let scratch = Scratch::new();
        let state = scratch.at("state");
        Self::start_in(scratch, state, more)
    }

    /// With further keys of `[watch]`.
    pub fn watching(keys: &str) -> Self {
        let scratch = Scratch::new();
        let state = scratch.at("state");
        Self::configured(scratch, state, keys, "")
    }

    /// With a state folder of the test's choice; `more` is further configuration.
    pub fn start_in(scratch: Scratch, state: PathBuf, more: &str) -> Self {
        Self::configured(scratch, state, "", more)
    }

    /// As a host has it: watching `watched` and nothing else, with a user's home.
    pub fn of_a_host(home: &Path, watched: &[String], more: &str) -> Self {
        let scratch = Scratch::new();
        let state = scratch.at("state");
        let (watched, home) = (watched.to_vec(), Some(home.to_owned()));
        let mut daemon = Self { scratch, child: None, state, watched, more: more.into(), home };
        daemon.configure("");
        daemon.launch();
        daemon
    }

    /// Ends it, and starts it again on the same state with other keys of `[watch]`.
    pub fn again_watching(&mut self, keys: &str) {
        self.stop();
        self.configure(keys);
        self.launch();
    }

    /// Has it read its configuration again, with other keys of `[watch]`.
    pub fn reload_watching(&self, keys: &str) {
        self.configure(keys);
        self.signal(Signal::HUP);
        self.until_logged(READ_AGAIN);
    }

    /// Has it read its configuration again, with other sections beside `[watch]`.
    pub fn reload_with(&mut self, more: &str) {
        let before = self.times_logged(READ_AGAIN);
        self.more = more.into();
        self.configure("");
        self.signal(Signal::HUP);
        let read =
            wait::poll(Duration::from_secs(15), || (self.times_logged(READ_AGAIN) > before).then_some(()));
        assert!(read.is_some(), "{}", self.shown(READ_AGAIN));
    }

    /// Ends it, and starts it again on the same state with other sections beside `[watch]`.
    pub fn again_with(&mut self, more: &str) {
        self.stop();
        self.launch_with(more);
    }

    /// Starts it again on the same state with other sections beside `[watch]`.
    pub fn launch_with(&mut self, more: &str) {
        self.more = more.into();
        self.configure("");
        self.launch();
    }

    fn times_logged(&self, what: &str) -> usize {
        let log = std::fs::read(self.scratch.at("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).matches(what).count()
    }

    /// Waits until its log says so.
    pub fn until_logged(&self, what: &str) {
        wait::until(Duration::from_secs(15), self.shown(what), || {
            let log = std::fs::read(self.scratch.at("log")).unwrap_or_default();
            String::from_utf8_lossy(&log).contains(what).then_some(())
        });
    }

    fn configured(scratch: Scratch, state: PathBuf, keys: &str, more: &str) -> Self {
        let watched = WATCHED.split_whitespace().map(str::to_owned).collect();
        let mut daemon = Self { scratch, child: None, state, watched, more: more.into(), home: None };
        daemon.configure(keys);
        daemon.launch();
        daemon
    }

    fn configure(&self, keys: &str) {
        let watched: Vec<_> = self.watched.iter().map(|w| format!("{w:?}")).collect();
        let config = format!(
            "[watch]\nwatched_processes = [{}]\n{keys}\n[[sink]]\nkind = \"jsonl\"\npath = {:?}\n{}\n",
            watched.join(", "),
            self.scratch.at("events.jsonl"),
            self.more,
        );
        self.scratch.write("config.toml", config);
    }

    /// Starts it, or starts it again on the same state.
    pub fn launch(&mut self) {
        self.spawn(&[]);
        // A connection tells: the socket's file may be an earlier daemon's.
        let listens = wait::poll(Duration::from_secs(15), || {
            assert!(self.alive(), "{}", self.shown("the daemon ended"));
            crate::hostile::Client::connect(&self.socket()).ok().map(drop)
        });
        // Not before: what it reported may be a lot to read.
        assert!(listens.is_some(), "{}", self.shown("the daemon does not listen"));
    }

    /// The same, and it ends without a word just before the `nth` change of a file in whose path `part` occurs (see
    /// `fixtures/die.c`). False: that was before it listened.
    pub fn launch_dying(&mut self, part: &str, nth: u32) -> bool {
        let library = fixtures::fixture("die.so");
        self.spawn(&[("LD_PRELOAD", &library), ("DIE", &format!("{part}:{nth}"))]);
        let lives = wait::poll(Duration::from_secs(15), || {
            if !self.alive() {
                return Some(false);
            }
            crate::hostile::Client::connect(&self.socket()).ok().map(|_| true)
        });
        lives.unwrap_or_else(|| panic!("{}", self.shown("the daemon neither listens nor ends")))
    }

    fn spawn(&mut self, environment: &[(&str, &str)]) {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.scratch.at("log")).expect("log");
        // As an engineer types it: from where he is.
        let here = |path: PathBuf| path.strip_prefix(self.scratch.path()).map(Path::to_owned).unwrap_or(path);
        let child = Command::new(product::program())
            .arg("daemon")
            .arg("--config")
            .arg(here(self.scratch.at("config.toml")))
            .arg("--socket")
            .arg(here(self.socket()))
            .arg("--state")
            .arg(here(self.state.clone()))
            .current_dir(self.scratch.path())
            .env_remove("LD_PRELOAD")
            .envs(self.home.iter().map(|home| ("HOME", home)))
            .envs(environment.iter().copied())
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("daemon");
        self.child = Some(child);
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.scratch.at("socket")
    }

    /// Where its state is.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|c| c.try_wait().expect("wait").is_none())
    }

    /// A command that it observes. (`--json` goes to `events.jsonl` of the daemon, not of the run.)
    pub fn observing(&self, words: &[&str]) -> Observed {
        let mut all: Vec<String> = vec![product::program().display().to_string(), "exec".into()];
        all.extend(["--socket".into(), self.socket().display().to_string(), "--".into()]);
        all.extend(words.iter().map(|w| w.to_string()));
        Observed::new(all).plain()
    }

    /// A fixture that it observes.
    pub fn observing_fixture(&self, line: &str) -> Observed {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let program = fixtures::fixture(words[0]);
        words[0] = &program;
        self.observing(&words)
    }

    /// What it reported up to now.
    pub fn report(&self) -> Report {
        Report::read(&self.scratch.at("events.jsonl"))
    }

    /// The alarms that it reported up to now.
    pub fn alarms(&self) -> Vec<Alarm> {
        Report::only(&self.scratch.at("events.jsonl"), "alarm").alarms()
    }

    /// Waits until its report says so.
    pub fn until_reported(&self, what: &str, look: impl Fn(&Report) -> bool) -> Report {
        wait::until(Duration::from_secs(15), self.shown(what), || Some(self.report()).filter(&look))
    }

    /// Runs a clean session and panics unless it is judged so; `expected` TLS transfers are to be
    /// reported by then.
    pub fn good_session(&self, expected: usize) {
        let run = self.observing_fixture(undisturbed::FIXTURE).go().well();
        check!(run, run.stdout.contains("got 100000"), "the fixture itself failed");
        let report = self.until_reported("a good session's transfers", |r| r.on("tls").len() >= expected);
        for transfer in &report.on("tls") {
            assert_eq!(transfer.verdict(), "intact", "{}", self.shown("a good session"));
        }
    }

    /// The transfers in its ledger.
    pub fn ledger(&self) -> Run {
        let state = self.state.display().to_string();
        let program = product::program().display().to_string();
        Observed::new([program.as_str(), "transfers", "--state", &state, "--json"]).plain().go()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid() as i32).expect("pid"), signal).expect("kill");
    }

    /// Asks it to end, and waits.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_end()
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait_end();
    }

    fn wait_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("running");
        let ended = wait::poll(Duration::from_secs(15), || child.try_wait().expect("wait"));
        ended.unwrap_or_else(|| {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{}", self.shown("the daemon didn't end"))
        })
    }

    /// For a failing test: what it logged and reported.
    pub fn shown(&self, what: &str) -> String {
        let log = std::fs::read(self.scratch.at("log")).unwrap_or_default();
        let config = std::fs::read_to_string(self.scratch.at("config.toml")).unwrap_or_default();
        format!(
            "{what}\nfolder: {}\nconfig:\n{config}\nlog:\n{}\nreport:\n{}",
            self.scratch.path().display(),
            String::from_utf8_lossy(&log),
            self.report().shown()
        )
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
