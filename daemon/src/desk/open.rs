//! How a desk comes to be: its rules, sinks and ledger as configured, and what else it is given.
//!
//! Comes in: the configuration, a state directory. Goes out: a [`Desk`] that can serve. Called by `core` and `run`.
#![forbid(unsafe_code)]

use super::letters::Letters;
use super::{Desk, FORGET, Watchers};
use crate::alarms::entry::Entry;
use crate::alarms::{Alarms, room};
use crate::config::Config;
use crate::control::{self, Control};
use crate::delivered;
use crate::detect::Rules;
use crate::egress::{Egress, Usual};
use crate::expected::Expected;
use crate::habits::{self, Habits};
use crate::host::executables::Executables;
use crate::host::facts::{Proc, Redactor};
use crate::ledger::{Ledger, LedgerError, Owner, Reader, Scribe};
use crate::metrics::{Metrics, page::Page};
use crate::model::Summary;
use crate::operations::station::Station;
use crate::report::Gathered;
use crate::sinks::{self, JsonLines, Sinks};
use crate::workflow;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

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
        let metrics = Metrics::default();
        metrics.list(&alarms.by_state());
        let sinks = Sinks::start(&config.sinks, state.as_deref(), &metrics);
        let letters = match (&ledger, &state) {
            (Some(ledger), Some(dir)) if owner.is_some() => {
                Letters::resume(ledger.undelivered()?, sinks::highest(dir))
            }
            _ => Letters::default(),
        };
        letters.sent().for_each(|letter| sinks.letter(letter));
        let scribe = ledger.map(Scribe::start).transpose().map_err(LedgerError::Thread)?;
        let habits = recalled.map(|r| Habits::new(r, scribe.as_ref().map(|s| s.memory(habits::KIND))));
        let executables: Arc<Executables> = Arc::default();
        Ok(Self {
            egress: Egress::new(config, Arc::default(), Arc::clone(&executables)),
            rules: Rules::new(config.watch.clone()),
            alarms,
            sinks,
            page: config.metrics.listen.and_then(|address| page(address, &metrics)),
            counted_list: None,
            metrics,
            state,
            owner,
            control: None,
            asks: crossbeam::channel::never(),
            committed: scribe.as_ref().map_or_else(crossbeam::channel::never, Scribe::committed),
            scribe,
            letters,
            habits,
            watchers: None,
            station,
            places: Vec::new(),
            late: crossbeam::channel::never(),
            entry: Entry::new(),
            settle: None,
            shelves: None,
            design: (config.alarms.suppress.clone(), jiff::Zoned::now().date()),
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

    /// Lets people change alarms, by a control socket beside `socket`, where the alarm list is this desk's.
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
        if let (true, Some(scribe)) = (self.sinks.is_empty(), &self.scribe) {
            // Nobody is to hear what was changed while no daemon ran.
            scribe.delivered(u64::MAX);
            self.letters.stored(Some(u64::MAX));
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
}

/// The page of metrics. Without it the daemon works as well.
pub(super) fn page(address: SocketAddr, metrics: &Metrics) -> Option<(SocketAddr, Page)> {
    let opened = Page::open(address, metrics.clone());
    opened
        .map(|page| (address, page))
        .inspect_err(|e| tracing::error!("no page of metrics at {address}: {e}"))
        .ok()
}
