//! The scribe: writes the ledger on a thread of its own, so that a slow disk delays no alarm.
//!
//! Comes in: transfers and alarms. Goes out: committed rows; word in the log when the disk fails, and
//! when it is well again. Called by `desk`.
#![forbid(unsafe_code)]

use super::{Ledger, Note, WAITING};
use crate::config;
use crate::model::{Alarm, Transfer};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often what could not be written is tried again, and old rows are looked for.
const SETTLE: Duration = Duration::from_secs(1);
/// Rows in one transaction.
const BATCH: usize = 4096;

enum Order {
    Transfer(Arc<Transfer>),
    Alarm(Arc<Alarm>),
    Limit(config::Ledger),
    Remember(Note),
    End,
}

/// Where a stage puts what it wants to find again after a restart.
#[derive(Clone)]
pub struct Memory {
    kind: &'static str,
    orders: Sender<Order>,
    full: Arc<AtomicU64>,
}

impl Memory {
    /// Keeps `value` under `key`, in place of what was there. Never waits.
    pub fn remember(&self, key: &str, value: &impl serde::Serialize) {
        match serde_json::to_string(value) {
            Ok(json) => self.note(key, Some(json)),
            Err(e) => tracing::error!("{} of {} can't be kept: {e}", key, self.kind),
        }
    }

    /// Drops what is kept under `key`.
    pub fn forget(&self, key: &str) {
        self.note(key, None);
    }

    fn note(&self, key: &str, json: Option<String>) {
        let order = Order::Remember(Note { kind: self.kind, key: key.to_owned(), json });
        if let Err(TrySendError::Full(_)) = self.orders.try_send(order) {
            self.full.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A ledger that is written.
pub struct Scribe {
    orders: Sender<Order>,
    full: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Scribe {
    /// Starts writing `ledger`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(ledger: Ledger) -> std::io::Result<Self> {
        let (orders, waiting) = bounded(WAITING);
        let full = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&full);
        let thread = std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || write(ledger, &waiting, &counter))?;
        Ok(Self { orders, full, thread })
    }

    /// A final transfer.
    pub fn transfer(&self, transfer: Arc<Transfer>) {
        self.order(Order::Transfer(transfer));
    }

    /// An alarm as it stands now.
    pub fn alarm(&self, alarm: Arc<Alarm>) {
        self.order(Order::Alarm(alarm));
    }

    /// What a stage wants to find again: behind all that was said before, so that never more was kept.
    pub fn keep(&self, note: Note) {
        self.order(Order::Remember(note));
    }

    /// A stage's memory.
    #[must_use]
    pub fn memory(&self, kind: &'static str) -> Memory {
        Memory { kind, orders: self.orders.clone(), full: Arc::clone(&self.full) }
    }

    /// Other limits, after a reload.
    pub fn limit(&self, limits: config::Ledger) {
        self.order(Order::Limit(limits));
    }

    /// Writes what waits, and ends. What a [`Memory`] is given later is lost.
    pub fn finish(self) {
        let _ = self.orders.send(Order::End);
        let _ = self.thread.join();
    }

    fn order(&self, order: Order) {
        if let Err(TrySendError::Full(_)) = self.orders.try_send(order) {
            self.full.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(mut ledger: Ledger, orders: &Receiver<Order>, full: &AtomicU64) {
    let mut failed = false;
    loop {
        let ended = match orders.recv_timeout(SETTLE) {
            Ok(order) => {
                // What came meanwhile goes into the same transaction.
                std::iter::once(order).chain(orders.try_iter()).take(BATCH).any(|o| !take(&mut ledger, o))
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        let now = ledger.commit();
        match (&now, failed) {
            (Err(e), false) => tracing::error!("{e}"),
            (Ok(()), true) => tracing::info!("the ledger can be written again"),
            _ => {}
        }
        failed = now.is_err();
        let lost = ledger.lost() + full.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::error!("{lost} ledger entries given up: too many waited for the disk");
        }
        if ended {
            return;
        }
    }
}

/// False: that was the last one.
fn take(ledger: &mut Ledger, order: Order) -> bool {
    match order {
        Order::End => return false,
        Order::Transfer(transfer) => ledger.transfer(transfer),
        Order::Alarm(alarm) => ledger.alarm(alarm),
        Order::Limit(limits) => ledger.limit(limits),
        Order::Remember(note) => ledger.remember(note),
    }
    true
}
