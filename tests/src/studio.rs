//! A folder with pictures, programs that work on them, and what was found of that (AN0332).

use crate::observed::{Observed, Run};
use crate::report::Alarm;
use crate::scratch::Scratch;
use crate::sink::Sink;
use crate::{check, peers, pictures};

/// Python 3 with Pillow, which makes the pictures.
pub fn pillow() -> bool {
    let tried = std::process::Command::new(peers::PYTHON).args(["-c", "import PIL"]).output();
    tried.is_ok_and(|o| o.status.success())
}

/// Ends the test early where there is no Pillow.
#[macro_export]
macro_rules! need_pillow {
    () => {
        if !$crate::studio::pillow() {
            $crate::skip!("python3-pil is not installed (tests/install-peers.sh)");
        }
    };
}

/// What a script that was taken out of a picture does, so that it shows: it leaves a file `ran`. (outguess spoils the last
/// byte.)
pub const PAYLOAD: &str = "echo it ran >ran #\n";

/// Codes something into the lowest bits of a picture: its arguments are that one and the one that it writes.
pub const LSB: &str = "import sys\nfrom PIL import Image\nim = Image.open(sys.argv[1]); p = im.load()\n\
    for i, c in enumerate(b'secret' * 20): p[i, 0] = (p[i, 0][0] & ~1 | c & 1,) + p[i, 0][1:]\nim.save(sys.argv[2])\n";

/// A folder with pictures (`cover.jpg` …), `payload.sh`, `note.txt` and whatever a test puts there.
pub struct Studio {
    /// The folder.
    pub scratch: Scratch,
    options: Vec<String>,
}

impl Default for Studio {
    fn default() -> Self {
        Self::new()
    }
}

impl Studio {
    /// One.
    pub fn new() -> Self {
        let scratch = Scratch::new();
        pictures::make(&scratch);
        scratch.write("payload.sh", PAYLOAD);
        scratch.write("note.txt", "meet me at noon\n".repeat(400));
        Self { scratch, options: Vec::new() }
    }

    /// One with `count` pictures in the folder `photos`.
    pub fn library(count: usize) -> Self {
        let studio = Self::new();
        pictures::library(&studio.scratch, "photos", count);
        studio
    }

    /// A file in it.
    pub fn with(self, name: &str, content: &str) -> Self {
        self.scratch.write(name, content);
        self
    }

    /// What was done before anybody looked: shell.
    pub fn before(self, commands: &str) -> Self {
        pictures::run(&self.scratch, &["sh", "-euc", commands]);
        self
    }

    /// With this configuration, in which `$HERE` is the folder.
    pub fn config(mut self, text: &str) -> Self {
        let here = self.path("");
        let file = self.scratch.write("counterfoil.toml", text.replace("$HERE", here.trim_end_matches('/')));
        self.options = vec!["--config".into(), file.display().to_string()];
        self
    }

    /// A file's path, links resolved.
    pub fn path(&self, name: &str) -> String {
        self.scratch.path().canonicalize().expect("scratch").join(name).display().to_string()
    }

    /// Runs `commands`, in which `$P` is the port of somebody who listens to everything, and `$PY` Python.
    pub fn go(self, commands: &str) -> Run {
        let sink = Sink::start();
        let mut session = Observed::script(commands).env("P", sink.port().to_string()).limit(180);
        // Not what somebody has put before the system's own tools.
        session = session.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("PY", peers::PYTHON);
        for option in self.options {
            session = session.option(option);
        }
        session.scratch = self.scratch;
        session.go().well()
    }
}

/// The alarms of this analytic, each word about them.
pub fn found(run: &Run) -> Vec<Alarm> {
    run.report.alarms().into_iter().filter(|a| a.0["analytic"] == "AN0332").collect()
}

/// The one alarm about `file`, with this rule, just as severe.
pub fn alarm(run: &Run, rule: &str, severity: &str, file: &str) -> Alarm {
    let all = found(run);
    let about = |a: &&Alarm| a.0["file"]["path"].as_str().is_some_and(|p| p.ends_with(&format!("/{file}")));
    let said: Vec<_> =
        all.iter().map(|a| format!("{} {} {}", a.rule(), a.0["severity"], a.0["file"]["path"])).collect();
    let alarm = all.iter().rfind(about);
    check!(
        run,
        alarm.is_some_and(|a| a.rule() == rule && a.0["severity"] == severity),
        "no {severity} {rule} on {file}: {said:?}"
    );
    let alarm = alarm.expect("checked").clone();
    let ids: std::collections::BTreeSet<String> =
        all.iter().filter(about).map(|a| a.0["id"].to_string()).collect();
    check!(run, ids.len() == 1, "{file} has several alarms: {said:?}");
    check!(run, alarm.0["technique"] == "T1027.003", "{}", alarm.0["technique"]);
    let chain = alarm.0["evidence"]["chain"].as_array().cloned().unwrap_or_default();
    let times: Vec<&str> = chain.iter().filter_map(|s| s["at"].as_str()).collect();
    check!(run, !times.is_empty() && times.is_sorted(), "in order, with times: {chain:#?}");
    alarm
}

/// The links of its chain that are called so, or all of them.
pub fn links(alarm: &Alarm) -> Vec<String> {
    let links = alarm.0["evidence"]["links"].as_array().cloned().unwrap_or_default();
    links.iter().map(|l| l["link"].as_str().unwrap_or("").to_owned()).collect()
}

/// The first link of this kind.
pub fn link(alarm: &Alarm, kind: &str) -> serde_json::Value {
    let links = alarm.0["evidence"]["links"].as_array().cloned().unwrap_or_default();
    links.into_iter().find(|l| l["link"] == kind).unwrap_or_default()
}

/// It raised nothing.
pub fn nothing(run: &Run) {
    let all: Vec<_> = found(run).iter().map(|a| format!("{} {}", a.rule(), a.0["message"])).collect();
    check!(run, all.is_empty(), "{all:#?}");
}

/// Tries every case before it fails: what went wrong with each stands in the output.
pub fn every<T>(cases: impl IntoIterator<Item = T>, one: impl Fn(T)) {
    let tried = cases.into_iter().map(|case| {
        // A case that panics leaves nothing behind that the next one would use.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one(case))).is_err()
    });
    let failed = tried.filter(|&failed| failed).count();
    assert!(failed == 0, "{failed} cases failed");
}
