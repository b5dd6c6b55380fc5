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
//!
//! `open` makes one, `list` keeps the alarm list, `letters` holds what the ledger has to have before sinks hear of it, `shown`
//! fills in what alarms show.
#![forbid(unsafe_code)]

mod letters;
mod list;
mod open;
mod shown;
#[cfg(test)]
mod tests;

use crate::alarms::Alarms;
use crate::alarms::entry::{Entry, Word};
use crate::config::{Config, Suppress};
use crate::control::{Ask, Control};
use crate::delivered;
use crate::detect::Rules;
use crate::egress::Egress;
use crate::expected::Expected;
use crate::habits::Habits;
use crate::host::executables::Executables;
use crate::host::facts::Redactor;
use crate::judged::Judged;
use crate::ledger::{Note, Owner, Reader, Scribe};
use crate::metrics::{Metrics, page::Page};
use crate::model::{Alarm, Finding, Summary, Transfer};
use crate::operations::station::Station;
use crate::report::Gathered;
use crate::sinks::{JsonLines, Message, Sinks};
use crate::workflow;
use crossbeam::channel::Receiver;
use jiff::civil::Date;
use letters::Letters;
use open::page;
use shown::{identify, tidy_argv};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// What the sinks are to hear.
    letters: Letters,
    /// The ledger has some of it.
    committed: Receiver<()>,
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
    /// What is suppressed by design, and the day for which that was looked at.
    design: (Vec<Suppress>, Date),
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
    /// Works until `judged` ends. A configuration that comes through `reloads` holds from then on.
    #[must_use]
    pub fn serve(mut self, judged: &Receiver<Judged>, reloads: &Receiver<Reload>) -> Outcome {
        self.redesign(self.design.0.clone());
        self.plan_shelves();
        loop {
            let next = [self.settle, self.shelves, self.letters.due()]
                .into_iter()
                .flatten()
                .fold(self.forget, Instant::min);
            let time = crossbeam::channel::at(next);
            crossbeam::channel::select! {
                recv(time) -> _ => self.on_time(),
                recv(self.committed) -> word => match word {
                    Ok(()) => self.post(),
                    Err(_) => self.committed = crossbeam::channel::never(),
                },
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
        self.redesign(config.alarms.suppress.clone());
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
        self.letters.sent().for_each(|letter| self.sinks.letter(letter));
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
        self.post_all();
        let stored = std::mem::take(&mut self.sinks).finish(FAREWELL);
        if let (Some(number), Some(scribe)) = (self.letters.stored(stored), &self.scribe) {
            scribe.delivered(number);
        }
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
