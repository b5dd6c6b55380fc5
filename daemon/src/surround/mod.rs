//! Surround: who stands around a watched process and could change what it transfers.
//!
//! ```text
//! core ─► Seen ─► surround (a thread) ─► Judged::Notice ─► detect
//! ```
//! Comes in: word of the core about programs that came, forked, connected or wrote into others. Goes
//! out: [`Anomaly`]s. What takes a look at `/proc` or at a file is done here, on a thread of its own
//! with a bounded queue: the core never waits for it, and what finds no room is not looked at. A look
//! costs some microseconds; how many there are a second is bounded (`watch`).
#![forbid(unsafe_code)]

mod beginnings;
mod binary;
mod clients;
pub(crate) mod code;
mod library_file;
mod tools;
mod tracer;
mod watch;

pub use beginnings::Beginning;
pub use clients::Tcp;
pub use tools::name;

use crate::assemble::program::ArenaId;
use crate::host::executables::Executables;
use crate::host::facts::{Facts, Proc, Redactor};
use crate::judged::{Anomaly, Judged, Notice};
use crate::ledger::{Baseline, Met};
use crate::model::{Connection, Process, ProcessName};
use clients::Clients;
use counterfoil_abi::record::{Touch, Written};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use jiff::Timestamp;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use watch::{Watched, descends};

/// Words that may wait.
const AHEAD: usize = 8192;
/// Between two looks around, while anything is watched. A tracer that stays for a second is found.
const EVERY: Duration = Duration::from_millis(450);
/// Services remembered.
const SERVING: usize = 4096;
/// How long `detect` may keep us waiting.
const PATIENCE: Duration = Duration::from_secs(1);

/// When a program last recorded anything, monotonic nanoseconds: who moves data is looked at first.
pub type Pulse = Arc<AtomicU64>;

/// One word from the core.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A program said hello.
    Came {
        /// Its arena.
        id: ArenaId,
        /// Who it is.
        facts: Arc<Facts>,
        /// It is one of those that are looked after.
        watched: bool,
        /// It was there before this daemon.
        adopted: bool,
        /// Its sign of life.
        pulse: Pulse,
    },
    /// It forked.
    Forked {
        /// Its arena.
        id: ArenaId,
        /// The child, as the daemon counts.
        pid: u32,
    },
    /// It has a TLS session: what is loaded now is what will carry it.
    Session {
        /// Its arena.
        id: ArenaId,
    },
    /// It came to a function of its TLS library.
    Begins {
        /// Its arena.
        id: ArenaId,
        /// The process.
        pid: u32,
        /// How that function begins in memory.
        what: Beginning,
    },
    /// It is gone, and its forks are.
    Gone {
        /// Its arena.
        id: ArenaId,
    },
    /// A process wrote into another one.
    Wrote {
        /// The writer's arena.
        id: ArenaId,
        /// The writer.
        writer: Box<Process>,
        /// The other one's pid, as the writer's namespace counts.
        target: u32,
        /// That is the daemon's namespace, too.
        same_namespace: bool,
        /// How.
        how: Touch,
        /// Where, and how much.
        written: Written,
    },
    /// One end of a TCP connection.
    Tcp(Box<Tcp>),
}

/// What it needs to know.
pub struct Settings {
    /// The seam.
    pub proc: Arc<dyn Proc>,
    /// Applied to the argv of processes that never said hello.
    pub redact: Redactor,
    /// Digests and packages.
    pub executables: Arc<Executables>,
    /// What is ordinary here; None: only what never is gets said.
    pub baseline: Option<Baseline>,
}

/// The running thread.
pub struct Surround {
    words: Sender<Seen>,
    thread: JoinHandle<()>,
}

impl Surround {
    /// Starts it; it speaks through `out`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(settings: Settings, out: Sender<Judged>) -> std::io::Result<Self> {
        let (words, receiver) = bounded(AHEAD);
        let (watched, clients, serving) = (Watched::default(), Clients::default(), HashSet::new());
        let look = Looker { settings, out, watched, clients, serving };
        let thread =
            std::thread::Builder::new().name("surround".into()).spawn(move || look.run(&receiver))?;
        Ok(Self { words, thread })
    }

    /// Passes a word on, if there is room.
    pub fn tell(&self, seen: Seen) {
        let _ = self.words.try_send(seen);
    }

    /// Looks at what was told, and ends.
    pub fn finish(self) {
        drop(self.words);
        let _ = self.thread.join();
    }
}

/// The thread's state.
struct Looker {
    settings: Settings,
    out: Sender<Judged>,
    watched: Watched,
    clients: Clients,
    /// Services that have had a client: pid and start.
    serving: HashSet<(u32, u64)>,
}

impl Looker {
    fn run(mut self, words: &Receiver<Seen>) {
        let mut next = Instant::now() + EVERY;
        loop {
            let heard = if self.watched.is_empty() {
                words.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                words.recv_deadline(next)
            };
            match heard {
                Ok(seen) => self.hear(seen),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next {
                for (process, anomaly) in self.watched.look_around(&self.settings) {
                    self.say(process, None, anomaly);
                }
                next = Instant::now() + EVERY;
            }
        }
    }

    fn hear(&mut self, seen: Seen) {
        match seen {
            Seen::Came { id, facts, watched, adopted, pulse } => {
                if watched {
                    self.settings.executables.started(&facts.process);
                    let found = self.watched.came(id, Arc::clone(&facts), pulse, &self.settings);
                    self.say_all(found);
                    if !adopted {
                        self.started(&facts.process);
                    }
                }
            }
            Seen::Forked { id, pid } => {
                self.watched.forked(id, pid);
            }
            Seen::Session { id } => {
                let found = self.watched.session(id);
                self.say_all(found);
            }
            Seen::Begins { id, pid, what } => {
                let found = self.watched.begins(id, pid, what);
                self.say_all(found);
            }
            Seen::Gone { id } => self.watched.gone(id),
            Seen::Wrote { id, writer, target, same_namespace, how, written } => {
                let Some(process) = self.watched.target(id, target, same_namespace, &self.settings) else {
                    return;
                };
                let started_it = descends(&process, writer.pid);
                let address = Some(written.address).filter(|&a| a != counterfoil_abi::UNKNOWN);
                let (length, pid) = (written.length, process.pid);
                self.say(process, None, Anomaly::MemoryWrite { writer, how, address, length, started_it });
                let found = self.watched.written_to(pid);
                self.say_all(found);
            }
            Seen::Tcp(tcp) => {
                if tcp.accepted && tcp.facts.process.exe.as_deref().is_some_and(|e| tools::serves(name(e))) {
                    self.serves(&tcp.facts);
                }
                if let Some(stranger) = self.clients.see(*tcp) {
                    self.stranger(stranger);
                }
            }
        }
    }

    /// A watched program has just started: who is it, and who started it?
    fn started(&mut self, process: &Process) {
        let Some(exe) = &process.exe else { return };
        let name = tools::name(exe);
        if tools::known(name) {
            let Settings { executables, baseline, .. } = &mut self.settings;
            if let Some(flaw) = binary::look(process, executables, baseline.as_mut()) {
                let anomaly = Anomaly::UnexpectedBinary { flaw, service: tools::serves(name) };
                // Now, while it is there.
                let mut process = process.clone();
                executables.fill(&mut process);
                self.say(process, None, anomaly);
            }
        }
        match tools::start(process) {
            tools::Start::Ordinary => {}
            tools::Start::Impossible(parent, expected) => {
                let expected = expected.iter().map(|&e| e.to_owned()).collect();
                let anomaly = Anomaly::UnexpectedParent { parent: parent.clone(), expected, learnt: false };
                self.say(process.clone(), None, anomaly);
            }
            // A service that never serves was started to check its configuration, or to be told to
            // reload: by anybody.
            tools::Start::Depends(_) if tools::serves(name) => {}
            tools::Start::Depends(parent) => self.parent(process, parent),
        }
    }

    /// A service has its first client: it was really started, and not by everybody.
    fn serves(&mut self, facts: &Facts) {
        let program = (facts.process.pid, facts.starttime);
        if self.serving.contains(&program) {
            return;
        }
        if self.serving.len() >= SERVING {
            self.serving.clear();
        }
        self.serving.insert(program);
        if let tools::Start::Depends(parent) = tools::start(&facts.process) {
            self.parent(&facts.process, parent);
        }
    }

    /// Is it ordinary here that `parent` starts this program?
    fn parent(&mut self, process: &Process, parent: &ProcessName) {
        let (Some(baseline), Some(exe)) = (&mut self.settings.baseline, &process.exe) else { return };
        if baseline.meet("parent", exe, parent.exe.as_deref().unwrap_or("")) != Met::New {
            return;
        }
        let expected = baseline.others("parent", exe).map(|(p, _)| p.to_owned()).take(8).collect();
        let anomaly = Anomaly::UnexpectedParent { parent: parent.clone(), expected, learnt: true };
        self.say(process.clone(), None, anomaly);
    }

    fn stranger(&mut self, stranger: clients::Stranger) {
        let clients::Stranger { tcp, service } = stranger;
        let Some(baseline) = &mut self.settings.baseline else { return };
        let mut process = tcp.facts.process.clone();
        process.pid = tcp.pid;
        if baseline.meet("client", &service, process.exe.as_deref().unwrap_or("")) != Met::New {
            return;
        }
        let text = crate::assemble::address_text;
        let connection = Connection {
            local: text(&tcp.local),
            remote: text(&tcp.remote),
            direction: Some("out".into()),
            ..Connection::default()
        };
        self.say(process, Some(connection), Anomaly::UnexpectedClient { service });
    }

    fn say_all(&self, found: Vec<(Process, Anomaly)>) {
        found.into_iter().for_each(|(process, anomaly)| self.say(process, None, anomaly));
    }

    fn say(&self, process: Process, connection: Option<Connection>, anomaly: Anomaly) {
        let notice = Notice {
            seen: Timestamp::now(),
            process: Some(process),
            connection,
            flow: None,
            transfer: None,
            what: crate::judged::What::Anomaly(anomaly),
        };
        let _ = self.out.send_timeout(Judged::Notice(Box::new(notice)), PATIENCE);
    }
}
