//! What was counted towards an alarm already: a transfer counts once, however often it is spoken of.
#![forbid(unsafe_code)]

use crate::model::{Analytic, Finding};
use std::collections::{HashSet, VecDeque};

/// Pairs of an alarm and what was counted towards it once, remembered.
const COUNTED: usize = 65_536;

/// The latest pairs.
#[derive(Default)]
pub(super) struct Counted {
    pairs: HashSet<(String, String)>,
    order: VecDeque<(String, String)>,
}

impl Counted {
    /// False if this was counted already: the same transfer, or, for a library that answers for many
    /// functions of a process, the same process.
    pub fn first_time(&mut self, finding: &Finding) -> bool {
        let process = finding.process.as_ref().filter(|_| finding.rule == "process-anomaly");
        // Another tracer, or another writer, is another occurrence.
        let by = |name: &str| finding.evidence[name]["pid"].as_u64().unwrap_or(0);
        let process = process.map(|p| format!("{} {:?} {} {}", p.pid, p.started, by("tracer"), by("writer")));
        // A file can change many times after the one transfer that brought it.
        let transfer = finding.transfer.filter(|_| finding.rule != "delivered-file-changed");
        // One socket may send datagrams to many.
        let to = finding.connection.as_ref().filter(|_| finding.analytic == Analytic::An0989);
        let to = to.and_then(|c| c.remote.as_deref()).unwrap_or_default();
        let Some(what) = transfer.map(|t| format!("{t} {to}")).or(process) else { return true };
        // The key, not the rule: two libraries in one process are two anomalies of one transfer.
        let pair = (finding.key.clone(), what);
        if !self.pairs.insert(pair.clone()) {
            return false;
        }
        self.order.push_back(pair);
        if self.order.len() > COUNTED
            && let Some(oldest) = self.order.pop_front()
        {
            self.pairs.remove(&oldest);
        }
        true
    }
}
