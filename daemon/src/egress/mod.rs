//! Egress: what leaves this host, held against what usually does. The rules of AN0989.
//!
//! Comes in: [`Judged`]. Goes out: [`Finding`]s that are to be raised; what learning holds back is listed by [`Usual`].
//! Called by `desk`.
#![forbid(unsafe_code)]

pub mod benign;
mod bulk;
mod media;
mod series;
pub mod usual;

pub use benign::Benign;
pub use usual::{Standing, Usual};

use crate::config::{self, Config};
use crate::host::executables::Executables;
use crate::judged::{Judged, Reading};
use crate::ledger::usual::Errand;
use crate::model::{Analytic, Finding};
use std::net::SocketAddr;
use std::sync::Arc;

/// The stage.
pub struct Egress {
    config: config::Egress,
    watch: config::Watch,
    executables: Arc<Executables>,
    /// What is usual.
    pub usual: Arc<Usual>,
    /// Who is believed.
    pub benign: Arc<Benign>,
    bulk: bulk::Bulk,
}

/// What every rule of this stage needs.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// The tunables.
    pub config: &'a config::Egress,
    /// What is usual.
    pub usual: &'a Usual,
    /// Who is believed.
    pub benign: &'a Benign,
}

impl Egress {
    /// With what is configured, and what is usual here.
    #[must_use]
    pub fn new(config: &Config, usual: Arc<Usual>, executables: Arc<Executables>) -> Self {
        let benign = Benign::new(&config.egress.known_benign_processes, Arc::clone(&executables));
        Self {
            config: config.egress.clone(),
            watch: config.watch.clone(),
            executables,
            usual,
            benign: Arc::new(benign),
            bulk: bulk::Bulk::default(),
        }
    }

    /// A configuration that was read again.
    pub fn reload(&mut self, config: &Config) {
        self.usual.learn_for(config.watch.baseline_days);
        self.benign =
            Arc::new(Benign::new(&config.egress.known_benign_processes, Arc::clone(&self.executables)));
        (self.config, self.watch) = (config.egress.clone(), config.watch.clone());
    }

    /// One word from `judge`.
    pub fn take(&mut self, judged: &mut Judged) -> Vec<Finding> {
        let Judged::Traffic(reading) = judged else { return vec![] };
        if !self.leaves(reading) {
            return vec![];
        }
        self.executables.fill(&mut reading.process);
        let parts = Parts { config: &self.config, usual: &self.usual, benign: &self.benign };
        self.bulk.take(reading, &parts).and_then(|finding| self.usual.or_hold(finding)).into_iter().collect()
    }

    /// A finding of `detect`, held against what is usual: what is only correlated needs an unusual destination, port or
    /// volume. None: it has none, or learning lists it. What is proven is always raised; of a media file, which is no
    /// secret, only where its destination is not usual either.
    #[must_use]
    pub fn weigh(&self, mut finding: Finding) -> Option<Finding> {
        let media = media::only_sent(&finding);
        let connection =
            finding.connection.as_ref().filter(|_| finding.analytic == Analytic::An0989 || media);
        let (Some(process), Some(connection)) = (finding.process.as_ref(), connection) else {
            return Some(finding);
        };
        let remote = connection.remote.as_deref();
        let Some(errand) = remote.and_then(|remote| Errand::of(process, remote)) else {
            return Some(finding);
        };
        let (name, now) = (connection.server_name.as_deref(), finding.seen);
        let parts = Parts { config: &self.config, usual: &self.usual, benign: &self.benign };
        let standing = self.bulk.standing(&errand, name, process, &parts, now);
        let usual =
            standing.carries(connection.bytes_out.unwrap_or(0), self.config.data_volume_threshold.bytes);
        finding.why["baseline"] = standing.word().into();
        match finding.confidence.as_deref() {
            Some("proven") if !(media && usual) => Some(finding),
            _ if usual => None,
            _ => self.usual.or_hold(finding),
        }
    }

    /// Is it egress at all: to a port that is monitored, and not inside?
    fn leaves(&self, reading: &Reading) -> bool {
        let Some(remote) = reading.connection.remote.as_ref().and_then(|r| r.parse::<SocketAddr>().ok())
        else {
            return false;
        };
        self.watch.monitored_ports.contains(remote.port())
            && !self.watch.internal_ranges.iter().any(|range| range.contains(remote.ip()))
    }

    /// Writes what was learnt, and ends.
    pub fn finish(self) {
        self.usual.finish();
    }
}

/// `1.5 MiB`, as people say it.
#[must_use]
pub fn amount(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = "bytes";
    for larger in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    match unit {
        "bytes" => format!("{bytes} bytes"),
        _ if value < 10.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}
