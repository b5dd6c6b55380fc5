//! Which files are sensitive changes while a program runs: it is found to take away what became sensitive after it had
//! started, whether its daemon read that or another one by then, just as a program that starts now.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::observed::Running;
use counterfoil_tests::scratch::Scratch;
use counterfoil_tests::sink::Sink;
use counterfoil_tests::{Alarm, need, peers, wait};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// For each name that comes on `orders`: reads the file and sends it, with nothing in between. Who looks at the program
/// only because of that open looks too late to see all of it leave.
const PYTHON: &str = "import os, socket
orders = os.fdopen(os.open('orders', os.O_RDWR))
open('there', 'w').close()
for name in orders:
    d = open(name.strip(), 'rb').read()
    s = socket.create_connection(('127.0.0.1', PORT)); s.sendall(d); s.close()
";
/// A daemon, what is sensitive for it, and who takes everything.
struct Scene {
    daemon: Daemon,
    secrets: PathBuf,
    sink: Sink,
    made: usize,
}

/// Files of the folder whose names begin so are sensitive, and no others.
fn sensitive(secrets: &Path, beginning: &str) -> String {
    format!(
        "[egress]\nsensitive_paths = []\n[[egress.sensitive]]\npath = \"{}/{beginning}*\"\nlabel = \"hashes\"\n",
        secrets.display()
    )
}

impl Scene {
    fn new() -> Self {
        let scratch = Scratch::new();
        let secrets = scratch.path().canonicalize().expect("scratch").join("secrets");
        std::fs::create_dir(&secrets).expect("folder");
        let (state, config) = (scratch.at("state"), sensitive(&secrets, "first"));
        Self { daemon: Daemon::start_in(scratch, state, &config), secrets, sink: Sink::start(), made: 0 }
    }

    /// A file that no other is like.
    fn secret(&mut self, beginning: &str) -> PathBuf {
        self.made += 1;
        let path = self.secrets.join(format!("{beginning}-{}", self.made));
        let hash = |n: usize| {
            let bytes = counterfoil_tests::scratch::payload((self.made * 100 + n) as u64, 43);
            bytes.iter().map(|b| char::from(b'a' + b % 26)).collect::<String>()
        };
        let lines: String = (0..3).map(|n| format!("user{n}:$6${}:19700:0:99999:7:::\n", hash(n))).collect();
        std::fs::write(&path, lines).expect("secret");
        path
    }

    fn program(&self) -> Running {
        let text = PYTHON.replace("PORT", &self.sink.port().to_string());
        let scratch = Scratch::new();
        let made = std::process::Command::new("mkfifo").arg(scratch.at("orders")).status();
        assert!(made.expect("mkfifo").success());
        let mut session = self.daemon.observing(&[peers::PYTHON, "-c", &text]).limit(300);
        session.scratch = scratch;
        let running = session.start();
        let there = running.scratch.at("there");
        wait::until(PATIENCE, "the program runs", || there.exists().then_some(()));
        running
    }

    /// What was said of this file, when this process sent it.
    fn said(&self, file: &Path, by: u32) -> Vec<Alarm> {
        let of = |a: &Alarm| a.0["file"]["path"] == *file.to_string_lossy() && a.0["process"]["pid"] == by;
        let mut alarms = self.daemon.report().alarms();
        alarms.retain(|a| a.rule() == "sensitive-egress" && of(a));
        alarms
    }

    /// All of the file was seen to leave: the process was looked at closely before it sent the first byte.
    fn is_whole(&self, file: &Path, by: u32) -> Option<()> {
        let whole = format!("bytes 0–{} of ", std::fs::metadata(file).expect("secret").len() - 1);
        let said = self.said(file, by);
        said.iter()
            .any(|a| {
                let message = a.0["message"].as_str().unwrap_or_default();
                a.0["confidence"] == "proven" && message.starts_with(&whole)
            })
            .then_some(())
    }

    /// What is configured now holds: a program that starts now and takes such a file away is found.
    fn until_it_holds(&mut self, beginning: &str) {
        let holds = wait::poll(PATIENCE, || {
            let file = self.secret(beginning);
            let running = self.program();
            let pid = running.child.id();
            order(&running, &file);
            wait::poll(Duration::from_secs(3), || self.is_whole(&file, pid))
        });
        assert!(holds.is_some(), "{}", self.daemon.shown("a program that starts now is found"));
    }

    /// The program that was there all the time is told to take such a file away, once, and found.
    fn is_found(&mut self, running: &Running, beginning: &str) {
        let file = self.secret(beginning);
        self.until_it_holds(beginning);
        order(running, &file);
        let found = wait::poll(PATIENCE, || self.is_whole(&file, running.child.id()));
        assert!(found.is_some(), "{}", self.daemon.shown(&format!("all of {} is proven", file.display())));
    }
}

fn order(running: &Running, file: &Path) {
    // For reading, too: then opening it waits for nobody.
    let mut orders =
        std::fs::File::options().read(true).write(true).open(running.scratch.at("orders")).expect("orders");
    writeln!(orders, "{}", file.display()).expect("order");
}

/// SIGHUP.
#[test]
fn a_daemon_reads_its_configuration_again() {
    need!(peers::PYTHON);
    let mut scene = Scene::new();
    let (one, other) = (scene.program(), scene.program());
    let config = sensitive(&scene.secrets, "second");
    scene.daemon.reload_with(&config);
    scene.is_found(&one, "second");
    scene.is_found(&other, "second");
}

/// Killed or ended in order, and another one with another configuration in its place, more than once.
#[test]
fn a_daemon_takes_the_place_of_another() {
    need!(peers::PYTHON);
    let mut scene = Scene::new();
    let (one, other) = (scene.program(), scene.program());
    let before = scene.secret("first");
    scene.daemon.kill();
    scene.daemon.launch_with(&sensitive(&scene.secrets, "second"));
    scene.is_found(&one, "second");
    scene.is_found(&other, "second");
    // What is not sensitive any more is not looked at.
    order(&one, &before);
    scene.is_found(&one, "second");
    assert!(
        scene.said(&before, one.child.id()).is_empty(),
        "{}",
        scene.daemon.shown("the first is no secret")
    );
    scene.daemon.stop();
    scene.daemon.launch_with(&sensitive(&scene.secrets, "third"));
    scene.is_found(&one, "third");
    scene.is_found(&other, "third");
    // And is kept up to date.
    scene.daemon.reload_with(&sensitive(&scene.secrets, "fourth"));
    scene.is_found(&one, "fourth");
}
