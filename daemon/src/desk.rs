//! The desk: everything behind `judge`, in one visible list.
//!
//! ```text
//! Judged ─┬► detect ──────────────┬► alarms ─► sinks, JSON Lines
//!         ├► habits, egress ──────┤     └────► ledger
//!         └► delivered, workflow ─┘ (threads of their own)
//! ```
//! Comes in: [`Judged`] from a channel. Goes out: alarms to sinks, transfers and alarms to the
//! ledger, and at the end an [`Outcome`] for `run`'s report. One thread, which waits for no disk and no
//! receiver: sinks and scribe have their own.
#![forbid(unsafe_code)]

use crate::alarms::entry::{Entry, Word};
use crate::alarms::{Alarms, Taken, room};
use crate::config::Config;
use crate::control::{self, Answer, Ask, Control, offline};
use crate::delivered;
use crate::detect::Rules;
use crate::egress::{Egress, Usual};
use crate::expected::Expected;
use crate::habits::{self, Habits};
use crate::host::executables::Executables;
use crate::host::facts::{Proc, Redactor};
use crate::intake::Batch;
use crate::judged::{Anomaly, Judged, What};
use crate::ledger::{Ledger, LedgerError, Note, Owner, Reader, Scribe};
use crate::metrics::{Metrics, page::Page};
use crate::model::{Alarm, Endpoint, Finding, Process, Summary, Transfer};
use crate::operations::station::Station;
use crate::report::Gathered;
use crate::sinks::{JsonLines, Message, Sinks};
use crate::workflow;
use crossbeam::channel::Receiver;
use jiff::Timestamp;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long the ledger may not know of a repeat. What is raised or changed goes there at once.
const SETTLE: Duration = Duration::from_millis(250);
/// Between two counts of the list for its metrics.
const COUNT: Duration = Duration::from_secs(1);
/// A clock that jumps is noticed after this long.
const LOOK: Duration = Duration::from_secs(60);
/// How often alarms that the ledger has forgotten are forgotten here, too.
const FORGET: Duration = Duration::from_secs(3600);
/// How long sinks may take at the end to send what they have.
const FAREWELL: Duration = Duration::from_secs(2);

/// Everything behind `judge`.
pub struct Desk {
    rules: Rules,
    alarms: Alarms,
    metrics: Metrics,
    /// Where the metrics can be read, and the page.
    page: Option<(SocketAddr, Page)>,
    /// When the list's numbers were counted last.
    counted_list: Option<Instant>,
    sinks: Sinks,
    state: Option<PathBuf>,
    /// The state directory's alarm list is ours to go on with.
    owner: Option<Owner>,
    /// Where people change alarms.
    control: Option<Control>,
    asks: Receiver<Ask>,
    scribe: Option<Scribe>,
    /// None without a ledger: habits take longer than a `run`.
    habits: Option<Habits>,
    watchers: Option<Watchers>,
    /// What operations say.
    station: Station,
    /// Up to where intakes were read, as soon as the ledger has all that came up to there.
    places: Vec<Note>,
    /// What the watchers find.
    late: Receiver<Finding>,
    /// Alarms from outside.
    entry: (Entry, Receiver<Word>),
    /// When repeats have to be in the ledger, and shelves may be over.
    settle: Option<Instant>,
    /// When a shelf may be over.
    shelves: Option<Instant>,
    /// When what is old is forgotten.
    forget: Instant,
    /// How long the ledger keeps things.
    keep: Duration,
    /// For findings that are no longer in memory.
    reader: Option<Reader>,
    json: Option<JsonLines>,
    gathered: Option<Gathered>,
    executables: Arc<Executables>,
    egress: Egress,
    summary: Summary,
}

/// The stages that look at files by themselves.
struct Watchers {
    delivered: delivered::watcher::Watcher,
    workflow: workflow::watcher::Watcher,
}

/// What a reload brings.
pub struct Reload {
    /// The settings.
    pub config: Config,
    /// The digests that files are expected to have.
    pub expected: Arc<Expected>,
    /// Takes secrets out of argument lists.
    pub redact: Redactor,
}

/// What is known at the end.
pub struct Outcome {
    /// The transfers, for the report.
    pub gathered: Gathered,
    /// The alarms.
    pub alarms: Vec<Alarm>,
    /// The counts.
    pub summary: Summary,
    /// Lines that could not be written to `--json`'s file.
    pub json_lost: u64,
}

impl Desk {
    /// A desk with its rules and sinks as configured, and a ledger where `state` names a directory.
    ///
    /// # Errors
    /// The ledger can't be opened.
    pub fn open(config: &Config, state: Option<PathBuf>) -> Result<Self, LedgerError> {
        let ledger = state.as_deref().map(|dir| Ledger::open(dir, config.ledger.clone())).transpose()?;
        let mut owner = None;
        if let Some(dir) = &state {
            match Owner::claim(dir, "daemon or run")? {
                Ok(claimed) => owner = Some(claimed),
                // Two runs at once: both are kept, each with alarms of its own.
                Err(e) => tracing::warn!("{e}: this one's alarms stand beside the others"),
            }
        }
        let mut alarms = match &ledger {
            Some(ledger) if owner.is_some() => Alarms::resume(ledger.standing(room::ALL)?),
            Some(_) => Alarms::resume([]),
            None => Alarms::default(),
        };
        alarms.shelving(config.alarms.shelving);
        let recalled = ledger.as_ref().map(|l| l.recall(habits::KIND)).transpose()?;
        let places = ledger.as_ref().map(|l| l.recall(Station::KIND)).transpose()?.unwrap_or_default();
        let station = Station::open(config, places).map_err(LedgerError::Thread)?;
        let scribe = ledger.map(Scribe::start).transpose().map_err(LedgerError::Thread)?;
        let habits = recalled.map(|r| Habits::new(r, scribe.as_ref().map(|s| s.memory(habits::KIND))));
        let metrics = Metrics::default();
        metrics.list(&alarms.by_state());
        let executables: Arc<Executables> = Arc::default();
        Ok(Self {
            egress: Egress::new(config, Arc::default(), Arc::clone(&executables)),
            rules: Rules::new(config.watch.clone()),
            alarms,
            sinks: Sinks::start(&config.sinks, state.as_deref(), &metrics),
            page: config.metrics.listen.and_then(|address| page(address, &metrics)),
            counted_list: None,
            metrics,
            state,
            owner,
            control: None,
            asks: crossbeam::channel::never(),
            scribe,
            habits,
            watchers: None,
            station,
            places: Vec::new(),
            late: crossbeam::channel::never(),
            entry: Entry::new(),
            settle: None,
            shelves: None,
            forget: Instant::now() + FORGET,
            keep: config.ledger.keep,
            reader: None,
            json: None,
            gathered: None,
            executables,
            summary: Summary::default(),
        })
    }

    /// The alarm list of the state directory is this desk's.
    #[must_use]
    pub fn owns(&self) -> bool {
        self.owner.is_some()
    }

    /// Lets people change alarms, by a control socket beside `socket`, where the alarm list is this desk's. What was
    /// changed while no daemon ran is told to the sinks now.
    #[must_use]
    pub fn controlled(mut self, config: &Config, socket: &Path) -> Self {
        let (Some(state), true) = (self.state.clone(), self.owns()) else { return self };
        let (sender, asks) = crossbeam::channel::bounded(16);
        match Control::listen(socket, &state, config.alarms.clone(), sender) {
            Ok(control) => (self.control, self.asks) = (Some(control), asks),
            Err(e) => tracing::error!(
                "alarms can't be changed while this runs: {}: {e}",
                control::path(socket).display()
            ),
        }
        let untold = Reader::open(&state).and_then(|r| r.recall(offline::UNTOLD)).unwrap_or_default();
        for (id, _) in untold {
            let (from, reader) = (self.state.as_deref(), &mut self.reader);
            let alarm = id.parse().ok().and_then(|id| self.alarms.get(id, |id| fetch(from, reader, id)));
            alarm.into_iter().for_each(|alarm| self.tell(alarm));
            if let Some(scribe) = &self.scribe {
                scribe.memory(offline::UNTOLD).forget(&id);
            }
        }
        self
    }

    /// The door for alarms from outside.
    #[must_use]
    pub fn entry(&self) -> Entry {
        self.entry.0.clone()
    }

    /// The digests and packages that its alarms show.
    #[must_use]
    pub fn executables(&self) -> Arc<Executables> {
        Arc::clone(&self.executables)
    }

    /// Keeps transfers for a report, and writes every event to `json` as it comes: for `run`.
    #[must_use]
    pub fn reporting(mut self, json: Option<JsonLines>) -> Self {
        self.gathered = Some(Gathered::default());
        self.json = json;
        self
    }

    /// With the key of all tags.
    #[must_use]
    pub fn keyed(mut self, key: [u8; 16]) -> Self {
        self.station.keyed(key);
        self
    }

    /// With digests that files are expected to have.
    #[must_use]
    pub fn expecting(mut self, expected: Arc<Expected>) -> Self {
        self.rules = self.rules.expecting(expected);
        self
    }

    /// With what is usual on this host; without it every destination is first seen.
    #[must_use]
    pub fn knowing(mut self, config: &Config, usual: Usual) -> Self {
        self.egress = Egress::new(config, Arc::new(usual), Arc::clone(&self.executables));
        self
    }

    /// Looks after delivered files, and after what watched services go by: for the host's daemon. Does nothing
    /// without a ledger.
    ///
    /// # Errors
    /// A thread can't be started, or the ledger not be read.
    pub fn watching(
        mut self,
        config: &Config,
        proc: Arc<dyn Proc>,
        redact: Redactor,
    ) -> Result<Self, LedgerError> {
        let (Some(scribe), Some(state)) = (&self.scribe, &self.state) else { return Ok(self) };
        let recall = |kind| Reader::open(state).and_then(|r| r.recall(kind));
        // Unbounded: a desk that ends waits for the watchers and reads no more. Files are read more slowly than this is.
        let (findings, late) = crossbeam::channel::unbounded();
        let delivered = delivered::watcher::Watcher::start(
            &config.integrity,
            state.clone(),
            recall(delivered::KIND)?,
            scribe.memory(delivered::KIND),
            findings.clone(),
        );
        let workflow = workflow::watcher::Watcher::start(
            &config.watch,
            proc,
            redact,
            recall(workflow::KIND)?,
            scribe.memory(workflow::KIND),
            findings,
        );
        let (delivered, workflow) =
            (delivered.map_err(LedgerError::Thread)?, workflow.map_err(LedgerError::Thread)?);
        self.watchers = Some(Watchers { delivered, workflow });
        self.late = late;
        Ok(self)
    }

    /// Works until `judged` ends. A configuration that comes through `reloads` holds from then on.
    #[must_use]
    pub fn serve(mut self, judged: &Receiver<Judged>, reloads: &Receiver<Reload>) -> Outcome {
        self.plan_shelves();
        loop {
            let next = [self.settle, self.shelves].into_iter().flatten().fold(self.forget, Instant::min);
            let time = crossbeam::channel::at(next);
            crossbeam::channel::select! {
                recv(time) -> _ => self.on_time(),
                recv(self.asks) -> ask => match ask {
                    Ok(ask) => self.asked(ask),
                    Err(_) => self.asks = crossbeam::channel::never(),
                },
                recv(self.entry.1) -> word => if let Ok(word) = word {
                    self.hear(word);
                },
                recv(judged) -> word => match word {
                    Ok(word) => self.take(word),
                    Err(_) => break,
                },
                recv(self.late) -> finding => match finding {
                    Ok(finding) => self.found(finding),
                    Err(_) => self.late = crossbeam::channel::never(),
                },
                recv(self.station.batches) -> batch => match batch {
                    Ok(batch) => self.reported(batch),
                    Err(_) => self.station.batches = crossbeam::channel::never(),
                },
                recv(self.station.clock) -> _ => {
                    let outcomes = self.station.operations.tick();
                    outcomes.into_iter().for_each(|outcome| self.hear(outcome));
                },
                recv(reloads) -> news => match news {
                    Ok(news) => self.reload(news),
                    // Nobody reloads any more.
                    Err(_) => {
                        judged.iter().for_each(|word| self.take(word));
                        break;
                    }
                },
            }
        }
        self.finish()
    }

    /// One word from `judge`.
    pub fn take(&mut self, mut judged: Judged) {
        tidy_argv(&mut judged);
        let mut findings = self.rules.findings(&judged);
        if !findings.is_empty() {
            // What an alarm shows, and what its repeats are counted by. Findings are rare: nobody else
            // pays for it.
            identify(&mut judged, &self.executables);
            findings = self.rules.findings(&judged);
        }
        if let (Judged::Transfer { transfer, context }, Some(habits)) = (&judged, &mut self.habits) {
            findings.extend(habits.take(transfer, context));
        }
        findings = findings.into_iter().filter_map(|finding| self.egress.weigh(finding)).collect();
        findings.extend(self.egress.take(&mut judged));
        findings.into_iter().for_each(|finding| self.found(finding));
        if let Some(watchers) = &self.watchers {
            watchers.workflow.take(&judged);
        }
        match judged {
            Judged::Transfer { transfer, .. } => self.transfer(*transfer),
            Judged::Coverage(coverage) => {
                self.metrics.coverage(&coverage);
                if coverage.observed {
                    self.summary.processes_observed += 1;
                } else {
                    self.summary.processes_not_observed += 1;
                }
                if let Some(json) = &mut self.json {
                    json.coverage(&coverage);
                }
                self.sinks.send(&Message::Coverage(Arc::new(coverage)));
            }
            Judged::Counts(counts) => {
                self.station.operations.counts(counts);
                self.metrics.counts(&counts);
                self.summary.records = counts.records;
                self.summary.dropped = counts.dropped;
            }
            Judged::Deed(deed) => {
                if let Some(watchers) = &self.watchers {
                    watchers.delivered.deed(&deed);
                }
            }
            Judged::Carried(carried) => self.station.operations.carried(&carried),
            Judged::Notice(_) | Judged::Traffic(_) => {}
        }
    }

    /// What an intake said, and up to where it was read, which is kept behind it.
    fn reported(&mut self, mut batch: Batch) {
        let outcomes = self.station.take(&mut batch);
        if let Some(scribe) = &self.scribe {
            scribe.together();
        }
        outcomes.into_iter().for_each(|outcome| self.hear(outcome));
        self.places.extend(batch.place);
        self.write();
        if let Some(scribe) = &self.scribe {
            scribe.together_done();
        }
        if let Some(taken) = batch.taken {
            let _ = taken.send(());
        }
    }

    fn found(&mut self, finding: Finding) {
        let follows = self.station.operations.found(&finding);
        self.raised(finding);
        follows.into_iter().for_each(|finding| self.raised(finding));
    }

    fn raised(&mut self, finding: Finding) {
        let taken = self.alarms.take(finding);
        self.metrics.found(&taken.alarm);
        // A repeat can wait a moment for others; what is raised can't.
        let urgent = taken.alarm.changed.as_ref().is_some_and(|c| c.at == taken.alarm.last);
        self.say(taken);
        if urgent {
            self.write();
        } else {
            self.settle.get_or_insert_with(|| Instant::now() + SETTLE);
        }
    }

    /// A word from outside.
    fn hear(&mut self, word: Word) {
        let (state, reader) = (&self.state, &mut self.reader);
        let fetch = |id| fetch(state.as_deref(), reader, id);
        let taken = match word {
            Word::Raise(finding) => return self.found(*finding),
            Word::Returned(word) => self.alarms.returned(&word, fetch),
            Word::Said(word) => self.alarms.said(&word, fetch),
        };
        if let Some(taken) = taken {
            self.say(taken);
        }
        self.plan_shelves();
        self.write();
    }

    /// A person changes an alarm. They are answered when it is committed.
    fn asked(&mut self, ask: Ask) {
        let (state, reader) = (&self.state, &mut self.reader);
        let changed = self
            .alarms
            .change(&ask.id, ask.event, &ask.by, Timestamp::now(), |id| fetch(state.as_deref(), reader, id));
        let answer = match changed {
            Err(why) => Answer::Refused(why.to_string()),
            Ok(taken) => {
                let (done, committed) = crossbeam::channel::bounded(1);
                let full = "it waits for the disk, with too much else";
                if let (Some(scribe), Some(row)) = (&self.scribe, self.alarms.write_of(taken.alarm.id))
                    && let Err(row) = scribe.alarm(Box::new(row), Some(done.clone()))
                {
                    self.alarms.put_back(*row);
                    let _ = done.send(Err(full.into()));
                }
                let alarm = Box::new(taken.alarm.clone());
                self.say(taken);
                Answer::Done { alarm, committed }
            }
        };
        // Whoever asked may have gone.
        let _ = ask.answer.try_send(answer);
        self.plan_shelves();
        self.write();
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        if self.shelves.is_some_and(|t| t <= now) {
            let (state, reader) = (&self.state, &mut self.reader);
            let back = self.alarms.end_shelves(Timestamp::now(), |id| fetch(state.as_deref(), reader, id));
            back.into_iter().for_each(|taken| self.say(taken));
            self.plan_shelves();
        }
        if self.forget <= now {
            self.forget = now + FORGET;
            if let Ok(before) = Timestamp::now().checked_sub(self.keep) {
                self.alarms.forget(before);
            }
        }
        self.write();
    }

    /// When to look at the shelves again.
    fn plan_shelves(&mut self) {
        self.shelves = self.alarms.next_end().map(|end| {
            let left = Duration::try_from(end.duration_since(Timestamp::now())).unwrap_or_default();
            Instant::now() + left.min(LOOK)
        });
    }

    /// Tells the sinks, where they are to hear of it.
    fn say(&mut self, taken: Taken) {
        if taken.tell {
            self.tell(taken.alarm);
        }
        for alarm in self.alarms.leaving() {
            self.tell(alarm);
        }
    }

    fn tell(&mut self, alarm: Alarm) {
        if let Some(json) = &mut self.json {
            json.alarm(&alarm);
        }
        self.sinks.send(&Message::Alarm(Arc::new(alarm)));
    }

    /// Gives the ledger what it doesn't have yet, as far as it has room.
    fn write(&mut self) {
        self.settle = None;
        self.count_list();
        let Some(scribe) = &self.scribe else { return };
        while scribe.has_room() {
            let Some(row) = self.alarms.next_write() else { break };
            if let Err(row) = scribe.alarm(Box::new(row), None) {
                self.alarms.put_back(*row);
                break;
            }
        }
        let minutes = self.alarms.minutes();
        if !minutes.is_empty() {
            scribe.minutes(minutes);
        }
        if self.alarms.unwritten() > 0 {
            self.settle = Some(Instant::now() + SETTLE);
        } else {
            // Behind the alarms that came up to there.
            self.places.drain(..).for_each(|place| scribe.keep(place));
        }
    }

    /// The list's numbers, where someone can see them; not for each step of a flood.
    fn count_list(&mut self) {
        if self.page.is_none() {
            return;
        }
        if self.counted_list.is_some_and(|t| t.elapsed() < COUNT) {
            self.settle = Some(Instant::now() + SETTLE);
            return;
        }
        self.counted_list = Some(Instant::now());
        self.metrics.list(&self.alarms.by_state());
    }

    /// At the end: everything, unless the disk takes nothing any more.
    fn write_all(&mut self) {
        let end = Instant::now() + FAREWELL;
        self.write();
        while self.scribe.is_some() && self.alarms.unwritten() > 0 {
            if Instant::now() >= end {
                tracing::error!("{} alarms could not be written down", self.alarms.unwritten());
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
            self.write();
        }
    }

    fn transfer(&mut self, transfer: Transfer) {
        self.metrics.transfer(&transfer);
        if let Ok(serde_json::Value::String(word)) = serde_json::to_value(transfer.verdict) {
            *self.summary.transfers.entry(word).or_default() += 1;
        }
        if let Some(json) = &mut self.json {
            json.transfer(&transfer);
        }
        if let Some(gathered) = &mut self.gathered {
            gathered.add(&transfer);
        }
        self.station.operations.transfer(&transfer);
        let transfer = Arc::new(transfer);
        if let Some(scribe) = &self.scribe {
            scribe.transfer(Arc::clone(&transfer));
        }
        if let Some(watchers) = &self.watchers {
            watchers.delivered.transfer(&transfer);
        }
        self.sinks.send(&Message::Transfer(transfer));
    }

    /// Takes up a new configuration. Messages on their way to the old sinks are still sent.
    fn reload(&mut self, news: Reload) {
        let config = &news.config;
        self.alarms.shelving(config.alarms.shelving);
        self.keep = config.ledger.keep;
        if let Some(control) = &self.control {
            control.limit(config.alarms.clone());
        }
        self.rules = Rules::new(config.watch.clone()).expecting(news.expected);
        self.egress.reload(config);
        if let Some(watchers) = &self.watchers {
            watchers.delivered.reload(&config.integrity);
            watchers.workflow.reload(&config.watch, &news.redact);
        }
        if let Some(scribe) = &self.scribe {
            scribe.limit(config.ledger.clone());
        }
        self.restation(config);
        // The old ones first: they and the new ones may share a spool.
        std::mem::take(&mut self.sinks).finish(FAREWELL);
        self.sinks = Sinks::start(&config.sinks, self.state.as_deref(), &self.metrics);
        if self.page.as_ref().map(|(address, _)| *address) != config.metrics.listen {
            self.page = None;
            self.page = config.metrics.listen.and_then(|address| page(address, &self.metrics));
        }
    }

    /// Other intakes and limits. Where nothing of them changed they go on undisturbed.
    fn restation(&mut self, config: &Config) {
        if self.station.is_as(config) {
            return;
        }
        self.station.finish().into_iter().for_each(|batch| self.reported(batch));
        let places = self.station.places();
        match Station::open(config, places) {
            Ok(mut station) => {
                self.station.key().into_iter().for_each(|key| station.keyed(key));
                self.station = station;
            }
            Err(e) => tracing::error!("intakes can't be started: {e}"),
        }
    }

    fn finish(mut self) -> Outcome {
        self.station.finish().into_iter().for_each(|batch| self.reported(batch));
        // Whoever asks now finds nobody, and does it on the ledger when this has ended.
        self.control = None;
        let asks: Vec<Ask> = self.asks.try_iter().collect();
        asks.into_iter().for_each(|ask| self.asked(ask));
        if let Some(Watchers { delivered, workflow }) = self.watchers.take() {
            delivered.finish();
            workflow.finish();
            let late: Vec<Finding> = self.late.try_iter().collect();
            late.into_iter().for_each(|finding| self.found(finding));
        }
        let outside: Vec<Word> = self.entry.1.try_iter().collect();
        outside.into_iter().for_each(|word| self.hear(word));
        // Behind all findings that say something about a message's way.
        self.station.operations.finish().into_iter().for_each(|finding| self.raised(finding));
        let alarms = self.alarms.list();
        self.summary.alarms = self.alarms.by_rule();
        for alarm in self.alarms.untold() {
            self.tell(alarm);
        }
        self.write_all();
        if let Some(json) = &mut self.json {
            json.summary(&self.summary);
        }
        self.sinks.finish(FAREWELL);
        drop(self.habits);
        self.egress.finish();
        if let Some(scribe) = self.scribe {
            scribe.finish();
        }
        Outcome {
            gathered: self.gathered.unwrap_or_default(),
            alarms,
            summary: self.summary,
            json_lost: self.json.map_or(0, |j| j.lost()),
        }
    }
}

/// The page of metrics. Without it the daemon works as well.
fn page(address: SocketAddr, metrics: &Metrics) -> Option<(SocketAddr, Page)> {
    let opened = Page::open(address, metrics.clone());
    opened
        .map(|page| (address, page))
        .inspect_err(|e| tracing::error!("no page of metrics at {address}: {e}"))
        .ok()
}

/// A finding that only the ledger has.
fn fetch(state: Option<&Path>, reader: &mut Option<Reader>, id: Uuid) -> Option<Finding> {
    if reader.is_none() {
        *reader = Reader::open(state?).inspect_err(|e| tracing::error!("{e}")).ok();
    }
    reader.as_ref()?.alarm(id).inspect_err(|e| tracing::error!("{e}")).ok()?.map(|a| a.finding)
}

/// An argument list that `[privacy]` or the kernel left empty is absent.
fn tidy_argv(judged: &mut Judged) {
    let empty = |argv: &mut Option<Vec<String>>| {
        if argv.as_ref().is_some_and(Vec::is_empty) {
            *argv = None;
        }
    };
    let end = |e: &mut Option<Endpoint>| e.iter_mut().for_each(|e| empty(&mut e.argv));
    let process = |p: &mut Option<Process>| p.iter_mut().for_each(|p| empty(&mut p.argv));
    match judged {
        Judged::Transfer { transfer, context } => {
            end(&mut transfer.origin);
            end(&mut transfer.destination);
            process(&mut context.origin);
            process(&mut context.destination);
        }
        Judged::Notice(notice) => process(&mut notice.process),
        Judged::Traffic(reading) if reading.process.argv.as_ref().is_some_and(Vec::is_empty) => {
            reading.process.argv = None
        }
        Judged::Deed(deed) if deed.process.argv.as_ref().is_some_and(Vec::is_empty) => {
            deed.process.argv = None
        }
        Judged::Traffic(_)
        | Judged::Deed(_)
        | Judged::Coverage(_)
        | Judged::Counts(_)
        | Judged::Carried(_) => {}
    }
}

/// Digest and package of every process that an alarm may name.
fn identify(judged: &mut Judged, executables: &Arc<Executables>) {
    let fill = |p: &mut Option<Process>| p.iter_mut().for_each(|p| executables.fill(p));
    match judged {
        Judged::Transfer { context, .. } => {
            fill(&mut context.origin);
            fill(&mut context.destination);
        }
        Judged::Notice(notice) => {
            fill(&mut notice.process);
            if let What::Anomaly(
                Anomaly::Tracer { tracer: by, .. } | Anomaly::MemoryWrite { writer: by, .. },
            ) = &mut notice.what
            {
                executables.fill(by);
            }
        }
        // Egress asks for itself: what is usual goes by the digest.
        Judged::Traffic(_)
        | Judged::Deed(_)
        | Judged::Coverage(_)
        | Judged::Counts(_)
        | Judged::Carried(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judged::{Counts, What};
    use crate::ledger::TransferFilter;
    use crate::model::{Coverage, Verdict};
    use crate::sample;
    use crossbeam::channel::{bounded, never};

    fn word(verdict: Verdict) -> Judged {
        let mut transfer = sample::transfer(verdict);
        transfer.ended = jiff::Timestamp::now();
        Judged::Transfer { transfer: Box::new(transfer), context: Box::new(sample::context()) }
    }

    #[test]
    fn everything_comes_out_everywhere() {
        let dir = tempfile::tempdir().unwrap();
        let (state, json) = (dir.path().join("state"), dir.path().join("events.jsonl"));
        let desk = Desk::open(&Config::default(), Some(state.clone())).unwrap();
        let desk = desk.reporting(Some(JsonLines::create(&json).unwrap()));
        let (sender, receiver) = bounded(64);
        let altered = word(Verdict::Altered);
        let Judged::Transfer { transfer, context } = &altered else { unreachable!() };
        // Alarmed while open, then final: one alarm, counted once.
        let mut open = sample::notice(What::AlteredWhileOpen {
            channel: transfer.channel,
            altered: transfer.altered.clone(),
            peer: context.destination.clone(),
        });
        open.transfer = Some(transfer.id);
        let observed =
            |observed| Judged::Coverage(Coverage { pid: 1, exe: Some("/x".into()), observed, reason: None });
        for w in [
            observed(true),
            observed(false),
            Judged::Notice(Box::new(open)),
            word(Verdict::Intact),
            altered.clone(),
            word(Verdict::Unverified),
            Judged::Counts(Counts { records: 7, ..Counts::default() }),
        ] {
            sender.send(w).unwrap();
        }
        drop(sender);
        let outcome = desk.serve(&receiver, &never());
        assert_eq!(outcome.alarms.len(), 1);
        assert_eq!(outcome.alarms[0].count, 1);
        assert_eq!(outcome.summary.transfers["intact"], 1);
        assert_eq!(outcome.summary.alarms["payload-altered"], 1);
        assert_eq!((outcome.summary.processes_observed, outcome.summary.processes_not_observed), (1, 1));
        let text = std::fs::read_to_string(&json).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let types: Vec<&str> = lines.iter().map(|l| l["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["coverage", "coverage", "alarm", "transfer", "transfer", "transfer", "summary"]);
        assert_eq!(lines[6]["records"], 7);
        let reader = Reader::open(&state).unwrap();
        assert_eq!(reader.alarms().unwrap(), outcome.alarms);
        let mut n = 0;
        reader
            .transfers(TransferFilter::default(), |_| {
                n += 1;
                true
            })
            .unwrap();
        assert_eq!(n, 3);
        // The next daemon goes on counting.
        let desk = Desk::open(&Config::default(), Some(state)).unwrap();
        let (sender, receiver) = bounded(1);
        sender.send(word(Verdict::Altered)).unwrap();
        drop(sender);
        assert_eq!(desk.serve(&receiver, &never()).alarms[0].count, 2);
    }

    #[test]
    fn a_reload_changes_the_rules() {
        let mut desk = Desk::open(&Config::default(), None).unwrap().reporting(None);
        desk.take(word(Verdict::Altered));
        let text = "[watch]\nmonitored_ports = [25]";
        desk.reload(Reload {
            config: crate::config::parse(text).unwrap().config,
            expected: Arc::default(),
            redact: Arc::new(|argv| argv),
        });
        desk.take(word(Verdict::Altered));
        assert_eq!(desk.finish().alarms[0].count, 1);
    }

    #[test]
    fn no_arguments_are_null() {
        let mut judged = word(Verdict::Intact);
        if let Judged::Transfer { transfer, .. } = &mut judged {
            transfer.origin.as_mut().unwrap().argv = Some(vec![]);
        }
        tidy_argv(&mut judged);
        let Judged::Transfer { transfer, .. } = judged else { unreachable!() };
        assert_eq!(transfer.origin.unwrap().argv, None);
        assert!(transfer.destination.unwrap().argv.is_some());
    }
}
