//! Intake: process alarms and values, from where operations keep them.
//!
//! ```text
//! sql · syslog · mqtt · jsonl ─► object ─► report ─► batch ─► operations (behind desk)
//! ```
//! Comes in: `[[intake]]`. Goes out: [`Batch`]es to `desk`, each with the place up to which its intake was read; `desk`
//! keeps both in one go. One thread for each intake; one that can't be reached is tried again, and said to be lost.
//! Everything that comes is somebody else's text: bounded here, escaped in [`report`].
#![forbid(unsafe_code)]

mod cursor;
mod frames;
mod listen;
mod mqtt;
pub mod report;
mod sql;
mod syslog;
mod tls;

pub use report::{Condition, Report, State};

use crate::config::intake::{Intake as Settings, IntakeKind};
use crate::ledger::Note;
use crossbeam::channel::{Receiver, SendTimeoutError, Sender, bounded};
use report::Around;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What positions are kept under in the ledger.
pub const KIND: &str = "intake";
/// Bytes of the longest object that is looked at.
const LONGEST: usize = 64 * 1024;
/// Batches that may wait for `desk`.
const WAITING: usize = 256;
/// Between two looks whether it is over.
const LOOK: Duration = Duration::from_millis(100);
/// Between two attempts to reach a source.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a source may be out of reach until that is an alarm.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is said in the log what was refused.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// How long the end waits for threads that hang in somebody else's network.
const FAREWELL: Duration = Duration::from_secs(2);

/// What came, in its order.
#[derive(Debug)]
pub struct Batch {
    /// Which intake it came by.
    pub from: Arc<str>,
    /// The reports, and what else there is to say.
    pub words: Vec<Word>,
    /// Up to where the source was read; to be kept together with what became of the words.
    pub place: Option<Note>,
    /// Told when the words were taken.
    pub taken: Option<Sender<()>>,
}

/// One thing that an intake says.
#[derive(Debug)]
pub enum Word {
    /// An alarm or a value.
    Report(Box<Report>),
    /// A message arrived here, and with this content: for `carriage`.
    Arrived {
        /// The MQTT topic.
        topic: String,
        /// What it held.
        payload: Vec<u8>,
        /// The broker had kept it: it may be older than anything that was observed.
        retained: bool,
    },
    /// Whether the subscription stands from now on.
    Stands(bool),
    /// The source has been out of reach for a while.
    Lost {
        /// Why.
        why: String,
    },
    /// It is back.
    Back,
}

/// All intakes, running.
pub struct Intakes {
    running: Vec<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    batches: Receiver<Batch>,
}

impl Intakes {
    /// Starts them. `recalled` is what [`KIND`] has in the ledger.
    ///
    /// # Errors
    /// A thread can't be started.
    pub fn start(settings: &[Settings], recalled: Vec<(String, String)>) -> std::io::Result<Self> {
        let (sender, batches) = bounded(WAITING);
        let over = Arc::new(AtomicBool::new(false));
        let mut recalled: HashMap<String, String> = recalled.into_iter().collect();
        let mut running = Vec::new();
        for settings in settings {
            let door = Door::new(settings.clone(), sender.clone(), over.clone());
            let kept = recalled.remove(&settings.name);
            let thread = std::thread::Builder::new().name(format!("intake {}", settings.name));
            running.push(thread.spawn(move || work(door, kept))?);
        }
        Ok(Self { running, over, batches })
    }

    /// Where batches come out. It ends when no intake runs any more.
    #[must_use]
    pub fn batches(&self) -> Receiver<Batch> {
        self.batches.clone()
    }

    /// Ends them. What was read and not taken is read again the next time.
    pub fn finish(self) {
        self.over.store(true, Ordering::Release);
        drop(self.batches);
        let until = Instant::now() + FAREWELL;
        for thread in self.running {
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

fn work(door: Door, kept: Option<String>) {
    match &door.settings.kind {
        IntakeKind::Sql(sql) => sql::run(&sql.clone(), door, kept),
        IntakeKind::Mqtt(mqtt) => mqtt::run(&mqtt.clone(), door),
        IntakeKind::Syslog(address) => listen::run(&address.clone(), frames::Kind::Syslog, door),
        IntakeKind::Jsonl(address) => listen::run(&address.clone(), frames::Kind::Lines, door),
    }
}

/// What an intake's thread has of the others: where its words go, and whether it is over.
struct Door {
    settings: Settings,
    from: Arc<str>,
    out: Sender<Batch>,
    over: Arc<AtomicBool>,
    refused: u64,
    refused_why: &'static str,
    said: Option<Instant>,
    lost_since: Option<Instant>,
    lost_said: bool,
}

impl Door {
    fn new(settings: Settings, out: Sender<Batch>, over: Arc<AtomicBool>) -> Self {
        let from = Arc::from(settings.name.as_str());
        Self {
            settings,
            from,
            out,
            over,
            refused: 0,
            refused_why: "",
            said: None,
            lost_since: None,
            lost_said: false,
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Sleeps, unless it is over.
    fn sleep(&self, long: Duration) {
        let until = Instant::now() + long;
        while !self.is_over() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// An object's report; None, and counted, if it is none.
    fn read(&mut self, object: &Value, around: Around<'_>) -> Option<Word> {
        match report::read(object, around, &self.settings.mapping) {
            Ok(report) if report.tag.starts_with(crate::config::limit::OWN) => {
                self.refuse("its tag begins with `counterfoil.`, as Counterfoil's own do");
                None
            }
            Ok(report) => Some(Word::Report(Box::new(report))),
            Err(why) => {
                self.refuse(why);
                None
            }
        }
    }

    /// The report of an object in JSON.
    fn parse(&mut self, json: &[u8], around: Around<'_>) -> Option<Word> {
        match serde_json::from_slice::<Value>(json) {
            Ok(object) => self.read(&object, around),
            Err(_) => {
                self.refuse("it is no JSON");
                None
            }
        }
    }

    /// Counts something that was refused, and says so now and then.
    fn refuse(&mut self, why: &'static str) {
        self.refused += 1;
        self.refused_why = why;
        if self.said.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
            tracing::warn!("intake {}: {} refused so far, the last because {why}", self.from, self.refused);
            self.said = Some(Instant::now());
        }
    }

    /// Hands words over, and waits until they are taken up. False: it is over.
    fn hand(&mut self, words: Vec<Word>, place: Option<Note>, taken: Option<Sender<()>>) -> bool {
        let mut batch = Batch { from: self.from.clone(), words, place, taken };
        loop {
            if self.is_over() {
                return false;
            }
            match self.out.send_timeout(batch, LOOK) {
                Ok(()) => return true,
                Err(SendTimeoutError::Timeout(again)) => batch = again,
                Err(SendTimeoutError::Disconnected(_)) => return false,
            }
        }
    }

    /// The source can't be reached.
    fn lost(&mut self, why: &str) {
        let since = *self.lost_since.get_or_insert_with(|| {
            tracing::warn!("intake {}: {why}", self.from);
            Instant::now()
        });
        if !self.lost_said && since.elapsed() >= PATIENCE {
            self.lost_said = true;
            let why = crate::escape::clip(&crate::escape::text(why), 300).into_owned();
            self.hand(vec![Word::Lost { why }], None, None);
        }
    }

    /// The source answers.
    fn well(&mut self) {
        if self.lost_since.take().is_some() {
            tracing::info!("intake {}: it answers again", self.from);
        }
        if std::mem::take(&mut self.lost_said) {
            self.hand(vec![Word::Back], None, None);
        }
    }
}
