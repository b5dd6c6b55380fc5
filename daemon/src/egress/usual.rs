//! What is usual: which program sends how much where for whom.
//!
//! Comes in: errands as they are run, questions about one. Goes out: its [`Standing`], and during the first
//! `baseline_days` no alarm but a list of those there would have been. `bulk` and the other rules about egress ask;
//! their thread waits for no disk: a thread of its own writes, and takes up what an operator changed in the file.
#![forbid(unsafe_code)]

use super::Benign;
use crate::config::values::cidr;
use crate::ledger::LedgerError;
use crate::ledger::usual::{Approval, ERRANDS, Errand, HELD, Held, Store, Tables, Usage};
use crate::model::{Finding, Process};
use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Destinations learnt for one program and user. Who talks to more has no usual ones, and does not drive out what was
/// learnt about others.
const DESTINATIONS: usize = 2_000;
/// What was learnt is written, and what an operator changed is looked for, this often.
const PACE: Duration = Duration::from_millis(500);
/// An errand's last day is brought up to date so often.
const REFRESH: SignedDuration = SignedDuration::from_hours(1);
/// So many times the most that was seen is still usual: a backup grows.
const GROWTH: u64 = 4;
/// And to a known destination so many times the threshold, whatever was seen.
const SMALL: u64 = 8;

/// How an errand stands to the baseline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is not known.
    FirstSeen,
    /// It was learnt.
    Known {
        /// Most bytes that went out within `connection_duration`.
        peak: u64,
    },
    /// An operator said that it is in order.
    Approved {
        /// The approval's id.
        id: String,
        /// Bytes that it is good for; None: any.
        volume: Option<u64>,
    },
}

impl Standing {
    /// INTERFACE's `why.baseline`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        if *self == Self::FirstSeen { "first-seen" } else { "known" }
    }

    /// Is this volume within `connection_duration` usual? `threshold` is `data_volume_threshold`'s.
    #[must_use]
    pub fn carries(&self, bytes: u64, threshold: u64) -> bool {
        self.carried(threshold).is_some_and(|most| bytes <= most)
    }

    /// The most that is usual; None: nothing is.
    #[must_use]
    pub fn carried(&self, threshold: u64) -> Option<u64> {
        match self {
            Self::FirstSeen => None,
            Self::Known { peak } => Some(peak.saturating_mul(GROWTH).max(threshold.saturating_mul(SMALL))),
            Self::Approved { volume, .. } => Some(volume.unwrap_or(u64::MAX)),
        }
    }
}

impl Errand {
    /// The errand of a process that sends to `remote`, `ip:port`. None: it is not known which program it is.
    #[must_use]
    pub fn of(process: &Process, remote: &str) -> Option<Self> {
        let remote: SocketAddr = remote.parse().ok()?;
        let user = process.user.clone().or_else(|| process.uid.map(|uid| uid.to_string()));
        Some(Self {
            exe: process.exe.clone()?,
            destination: remote.ip(),
            port: remote.port(),
            user: user.unwrap_or_default(),
            sha256: process.sha256.clone(),
        })
    }
}

/// What there is to know, and who writes it down.
pub struct Usual {
    inner: Arc<Inner>,
    writer: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
    /// While it is learnt, findings are listed and not raised.
    mutes: bool,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    days: AtomicU32,
}

#[derive(Default)]
struct State {
    errands: BTreeMap<Errand, Usage>,
    /// Errands by program and user.
    programs: HashMap<(String, String), usize>,
    approvals: Vec<Approval>,
    held: HashMap<String, Held>,
    /// None: there is nothing to learn into.
    since: Option<Timestamp>,
    /// Not yet written.
    fresh: HashSet<Errand>,
    fresh_held: HashSet<String>,
    /// Never written yet: what the file doesn't have of the others, somebody has taken out.
    unknown: HashSet<Errand>,
    unknown_held: HashSet<String>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Usual {
    /// Nothing is usual, and nothing is learnt: for a `run` of its own, where all is first seen.
    fn default() -> Self {
        Self { inner: Arc::default(), writer: Mutex::default(), mutes: false }
    }
}

impl Usual {
    /// What is usual by the baseline in a state directory, which learns for so many days. Where it `mutes`, what is
    /// found meanwhile is listed and not raised; a `run` says what it sees and learns it at once.
    ///
    /// # Errors
    /// SQLite failed, or no thread can be started.
    pub fn open(dir: &Path, days: u32, mutes: bool) -> Result<Self, LedgerError> {
        let store = Store::open(dir)?;
        let inner = Arc::new(Inner { days: AtomicU32::new(days), ..Inner::default() });
        let edited = store.edited()?;
        inner.state().take_up(store.read()?);
        let (stop, stopped) = bounded::<()>(0);
        let writes = Arc::clone(&inner);
        let thread = std::thread::Builder::new()
            .name("baseline".into())
            .spawn(move || write(store, edited, &writes, || stopped.recv_timeout(PACE)))
            .map_err(LedgerError::Thread)?;
        Ok(Self { inner, writer: Mutex::new(Some((stop, thread))), mutes })
    }

    /// `baseline_days` after a reload.
    pub fn learn_for(&self, days: u32) {
        self.inner.days.store(days, Ordering::Relaxed);
    }

    /// There is a baseline: somebody's state directory keeps it.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.inner.state().since.is_some()
    }

    /// Is the baseline still being learnt?
    #[must_use]
    pub fn learning(&self, now: Timestamp) -> bool {
        self.inner.state().learning(now, self.inner.days.load(Ordering::Relaxed))
    }

    /// How does this errand stand? `name` is the server's, as the program asked for it.
    #[must_use]
    pub fn standing(
        &self,
        errand: &Errand,
        name: Option<&str>,
        process: &Process,
        benign: &Benign,
        now: Timestamp,
    ) -> Standing {
        let state = self.inner.state();
        let approvals: Vec<Approval> =
            state.approvals.iter().filter(|a| a.expires > now && covers(a, errand, name)).cloned().collect();
        let known = state.errands.get(errand).map(|usage| usage.peak);
        let before = known.is_none().then(|| state.before(errand)).flatten();
        // What follows may read files.
        drop(state);
        // The widest of them counts.
        let approved = approvals
            .into_iter()
            .filter(|a| benign.runs(process, a.sha256.as_deref()))
            .max_by_key(|a| a.volume.unwrap_or(u64::MAX));
        if let Some(Approval { id, volume, .. }) = approved {
            return Standing::Approved { id, volume };
        }
        // The same program after its package was upgraded: the package's list was written since.
        let upgraded = |last: Timestamp| {
            let listed = benign.executables().of(process).and_then(|e| e.listed);
            listed.and_then(|at| Timestamp::try_from(at).ok()).is_some_and(|at| at >= last)
        };
        let before = before.filter(|usage| upgraded(usage.last)).map(|usage| usage.peak);
        known.or(before).map_or(Standing::FirstSeen, |peak| Standing::Known { peak })
    }

    /// The errand is being run, and `bytes` went out within `connection_duration`; `connected`: this is a new
    /// connection. It becomes usual while the baseline is learnt.
    pub fn met(&self, errand: &Errand, name: Option<&str>, bytes: u64, connected: bool, now: Timestamp) {
        let days = self.inner.days.load(Ordering::Relaxed);
        let mut state = self.inner.state();
        let learning = state.learning(now, days);
        if !state.errands.contains_key(errand) {
            if !learning || !state.has_room(errand) {
                return;
            }
            *state.programs.entry((errand.exe.clone(), errand.user.clone())).or_default() += 1;
            let usage = Usage { first: now, last: now, times: 0, peak: 0, name: None };
            state.errands.insert(errand.clone(), usage);
            state.unknown.insert(errand.clone());
            state.fresh.insert(errand.clone());
        }
        let Some(usage) = state.errands.get_mut(errand) else { return };
        let mut news = now.duration_since(usage.last) >= REFRESH;
        if news {
            usage.last = now;
        }
        usage.times = usage.times.saturating_add(u64::from(connected));
        if learning && bytes > usage.peak {
            usage.last = usage.last.max(now);
            usage.peak = bytes;
            news = true;
        }
        if let (None, Some(name)) = (&usage.name, name) {
            usage.name = Some(name.chars().take(255).collect());
            news = true;
        }
        if news {
            state.fresh.insert(errand.clone());
        }
    }

    /// A finding that learning may hold back: it comes back where it is to be raised.
    #[must_use]
    pub fn or_hold(&self, finding: Finding) -> Option<Finding> {
        let days = self.inner.days.load(Ordering::Relaxed);
        let mut state = self.inner.state();
        if !self.mutes || !state.learning(finding.seen, days) {
            return Some(finding);
        }
        let key = finding.key.clone();
        if let Some(held) = state.held.get_mut(&key) {
            // The later word on one connection is no second one.
            let again = held.finding.transfer.is_none() || held.finding.transfer != finding.transfer;
            held.count = held.count.saturating_add(u64::from(again));
            held.finding = finding;
        } else {
            if state.held.len() >= HELD {
                let oldest = state.held.iter().min_by_key(|(_, h)| h.finding.seen).map(|(k, _)| k.clone());
                if let Some(oldest) = oldest {
                    state.held.remove(&oldest);
                    state.unknown_held.remove(&oldest);
                }
            }
            let first = finding.seen;
            state.held.insert(key.clone(), Held { finding, first, count: 1 });
            state.unknown_held.insert(key.clone());
        }
        state.fresh_held.insert(key);
        None
    }

    /// Writes what waits, and ends.
    pub fn finish(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stop, thread)) = writer {
            drop(stop);
            let _ = thread.join();
        }
    }
}

impl Drop for Usual {
    fn drop(&mut self) {
        self.finish();
    }
}

impl State {
    fn take_up(&mut self, tables: Tables) {
        self.errands.retain(|errand, _| self.unknown.contains(errand));
        self.errands.extend(tables.errands);
        self.held.retain(|key, _| self.unknown_held.contains(key));
        self.held.extend(tables.held.into_iter().map(|held| (held.finding.key.clone(), held)));
        self.fresh.retain(|errand| self.errands.contains_key(errand));
        self.fresh_held.retain(|key| self.held.contains_key(key));
        self.programs.clear();
        for errand in self.errands.keys() {
            *self.programs.entry((errand.exe.clone(), errand.user.clone())).or_default() += 1;
        }
        self.approvals = tables.approvals;
        self.since = Some(tables.since);
    }

    fn learning(&self, now: Timestamp, days: u32) -> bool {
        let hours = i64::from(days) * 24;
        self.since.is_some_and(|since| now.duration_since(since) < SignedDuration::from_hours(hours))
    }

    /// The errand as another content of the same program ran it, the latest.
    fn before(&self, errand: &Errand) -> Option<Usage> {
        let first = Errand { sha256: None, ..errand.clone() };
        let same = |e: &Errand| Errand { sha256: None, ..e.clone() } == first;
        let others = self.errands.range(&first..).take_while(|(e, _)| same(e));
        others.map(|(_, usage)| usage).max_by_key(|usage| usage.last).cloned()
    }

    fn has_room(&mut self, errand: &Errand) -> bool {
        let of_program = self.programs.get(&(errand.exe.clone(), errand.user.clone()));
        if of_program.is_some_and(|n| *n >= DESTINATIONS) {
            return false;
        }
        if self.errands.len() >= ERRANDS {
            // A tenth at once, so that a full table doesn't cost a search for each connection.
            let mut all: Vec<(Timestamp, Errand)> =
                self.errands.iter().map(|(errand, usage)| (usage.last, errand.clone())).collect();
            all.sort_unstable();
            for (_, old) in all.into_iter().take(ERRANDS / 10) {
                self.errands.remove(&old);
                self.fresh.remove(&old);
                self.unknown.remove(&old);
                if let Some(n) = self.programs.get_mut(&(old.exe, old.user)) {
                    *n = n.saturating_sub(1);
                }
            }
            self.programs.retain(|_, n| *n > 0);
        }
        true
    }

    /// What is not yet written.
    fn fresh(&mut self) -> (Vec<(Errand, Usage)>, Vec<Held>) {
        let errands = self.fresh.drain().filter_map(|e| self.errands.get_key_value(&e));
        let errands = errands.map(|(e, u)| (e.clone(), u.clone())).collect();
        let held = self.fresh_held.drain().filter_map(|k| self.held.get(&k).cloned()).collect();
        (errands, held)
    }
}

/// The writer's thread. `wait` says when it ends.
fn write(mut store: Store, mut edited: i64, inner: &Inner, wait: impl Fn() -> Result<(), RecvTimeoutError>) {
    let mut failed = false;
    loop {
        let ends = !matches!(wait(), Err(RecvTimeoutError::Timeout));
        let done = turn(&mut store, &mut edited, inner);
        match (&done, failed) {
            (Err(e), false) => tracing::error!("what is usual can't be kept: {e}"),
            (Ok(()), true) => tracing::info!("what is usual can be kept again"),
            _ => {}
        }
        failed = done.is_err();
        if ends {
            return;
        }
    }
}

fn turn(store: &mut Store, edited: &mut i64, inner: &Inner) -> Result<(), LedgerError> {
    let now = store.edited()?;
    if now != *edited {
        let tables = store.read()?;
        inner.state().take_up(tables);
        *edited = now;
        tracing::info!("the baseline was changed by an operator");
    }
    let (errands, held) = inner.state().fresh();
    if errands.is_empty() && held.is_empty() {
        return Ok(());
    }
    let written = store.write(&errands, &held);
    let mut state = inner.state();
    for (errand, _) in errands {
        if written.is_ok() {
            state.unknown.remove(&errand);
        } else if state.errands.contains_key(&errand) {
            state.fresh.insert(errand);
        }
    }
    for held in held {
        let key = held.finding.key;
        if written.is_ok() {
            state.unknown_held.remove(&key);
        } else if state.held.contains_key(&key) {
            state.fresh_held.insert(key);
        }
    }
    written
}

/// Is the errand one that the approval is about?
fn covers(approval: &Approval, errand: &Errand, name: Option<&str>) -> bool {
    let exe = errand.exe.strip_suffix(" (deleted)").unwrap_or(&errand.exe);
    approval.exe == exe
        && approval.port.is_none_or(|port| port == errand.port)
        && approval.user.as_ref().is_none_or(|user| *user == errand.user)
        && goes_to(&approval.destination, errand.destination, name)
}

/// `any`, an address, a network, a server's name, `.example.org` for all names below.
fn goes_to(destination: &str, ip: IpAddr, name: Option<&str>) -> bool {
    if destination == "any" {
        return true;
    }
    if let Ok(one) = destination.parse::<IpAddr>() {
        return one == ip;
    }
    if destination.contains('/') {
        return cidr(destination).is_ok_and(|network| network.contains(ip));
    }
    let Some(name) = name.map(str::to_ascii_lowercase) else { return false };
    let destination = destination.to_ascii_lowercase();
    match destination.strip_prefix('.') {
        Some(domain) => name == domain || name.ends_with(&destination),
        None => name == destination,
    }
}
