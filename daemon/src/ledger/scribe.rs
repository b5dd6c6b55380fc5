//! The scribe: writes the ledger on a thread of its own, so that a slow disk delays no alarm.
//!
//! Comes in: transfers and alarms. Goes out: committed rows; word in the log when the disk fails, and
//! when it is well again. Called by `desk`.
#![forbid(unsafe_code)]

use super::{AlarmRow, Ledger, Letter, Note, WAITING};
use crate::alarms::Minutes;
use crate::config;
use crate::model::Transfer;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often what could not be written is tried again, and old rows are looked for.
const SETTLE: Duration = Duration::from_secs(1);
/// Alarms that may be on their way into the file. Who has more keeps them: none is given up.
const ALARMS: usize = 4096;
/// Rows in one transaction.
const BATCH: usize = 4096;

enum Order {
    Transfer(Arc<Transfer>),
    Alarm(Box<AlarmRow>, Option<Sender<Result<(), String>>>),
    Letter(Arc<Letter>),
    Delivered(u64),
    Minutes(Minutes),
    Limit(config::Ledger),
    Remember(Note),
    /// What follows goes into one transaction …
    Together,
    /// … up to here.
    Done,
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
    /// Alarms that were taken and are not committed.
    in_hand: Arc<AtomicUsize>,
    committed: Receiver<()>,
    /// The last transaction failed.
    failing: Arc<AtomicBool>,
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
        let in_hand = Arc::new(AtomicUsize::new(0));
        let failing = Arc::new(AtomicBool::new(false));
        let counters = (Arc::clone(&full), Arc::clone(&in_hand), Arc::clone(&failing));
        let (word, committed) = bounded(1);
        let thread = std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || write(ledger, &waiting, &counters.0, &counters.1, (&counters.2, &word)))?;
        Ok(Self { orders, full, in_hand, committed, failing, thread })
    }

    /// A final transfer.
    pub fn transfer(&self, transfer: Arc<Transfer>) {
        self.order(Order::Transfer(transfer));
    }

    /// There is room for more alarms.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.in_hand.load(Ordering::Relaxed) < ALARMS && !self.orders.is_full()
    }

    /// How an alarm stands now. Whoever wants to know when it is committed, or that it can't be, gives
    /// `done`. Given back where there is no room.
    ///
    /// # Errors
    /// No room: here it is again.
    pub fn alarm(
        &self,
        row: Box<AlarmRow>,
        done: Option<Sender<Result<(), String>>>,
    ) -> Result<(), Box<AlarmRow>> {
        self.in_hand.fetch_add(1, Ordering::Relaxed);
        self.orders.try_send(Order::Alarm(row, done)).map_err(|e| {
            self.in_hand.fetch_sub(1, Ordering::Relaxed);
            match e.into_inner() {
                Order::Alarm(row, _) => row,
                _ => unreachable!("it is what was sent"),
            }
        })
    }

    /// What the sinks are to hear of an alarm whose row came before. False: there is no room.
    #[must_use]
    pub fn letter(&self, letter: Arc<Letter>) -> bool {
        self.orders.try_send(Order::Letter(letter)).is_ok()
    }

    /// Says so when letters were committed, or could not be.
    #[must_use]
    pub fn committed(&self) -> Receiver<()> {
        self.committed.clone()
    }

    /// The ledger can't be written.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Every sink has the letters up to this number.
    pub fn delivered(&self, number: u64) {
        self.order(Order::Delivered(number));
    }

    /// What follows is committed as a whole, up to [`Self::together_done`], which has to come soon.
    pub fn together(&self) {
        self.order(Order::Together);
    }

    /// See [`Self::together`].
    pub fn together_done(&self) {
        self.order(Order::Done);
    }

    /// What a stage wants to find again: committed behind all that was said before, or with it.
    pub fn keep(&self, note: Note) {
        self.order(Order::Remember(note));
    }

    /// How many alarms came up in which minute.
    pub fn minutes(&self, minutes: Minutes) {
        self.order(Order::Minutes(minutes));
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

fn write(
    mut ledger: Ledger,
    orders: &Receiver<Order>,
    full: &AtomicU64,
    in_hand: &AtomicUsize,
    (failing, committed): (&AtomicBool, &Sender<()>),
) {
    let mut failed = false;
    let (mut alarms, mut letters) = (0, 0);
    let mut waiting = Vec::new();
    let together = Cell::new(false);
    loop {
        let ended = match orders.recv_timeout(SETTLE) {
            Ok(order) => {
                let mut over = |order| match order {
                    Order::Alarm(row, done) => {
                        alarms += 1;
                        letters += row.letters.len();
                        waiting.extend(done);
                        ledger.alarm(*row);
                        false
                    }
                    Order::Letter(letter) => {
                        letters += 1;
                        ledger.letter(letter);
                        false
                    }
                    Order::Together | Order::Done => {
                        together.set(matches!(order, Order::Together));
                        false
                    }
                    other => !take(&mut ledger, other),
                };
                // What came meanwhile goes into the same transaction.
                let mut ended = std::iter::once(order).chain(orders.try_iter()).take(BATCH).any(&mut over);
                for _ in 0..BATCH {
                    if ended || !together.get() {
                        break;
                    }
                    let Ok(order) = orders.recv_timeout(SETTLE) else { break };
                    ended = over(order);
                }
                ended
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
        failing.store(failed, Ordering::Relaxed);
        if letters > 0 {
            // One word is enough, however often it is said.
            let _ = committed.try_send(());
        }
        for done in waiting.drain(..) {
            // Whoever asked may have gone.
            let _ = done.try_send(now.as_ref().map(|&()| ()).map_err(ToString::to_string));
        }
        if !failed {
            letters = 0;
            in_hand.fetch_sub(std::mem::take(&mut alarms), Ordering::Relaxed);
        }
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
        Order::Alarm(row, _) => ledger.alarm(*row),
        Order::Letter(letter) => ledger.letter(letter),
        Order::Delivered(number) => ledger.delivered(number),
        Order::Minutes(minutes) => ledger.minutes(&minutes),
        Order::Limit(limits) => ledger.limit(limits),
        Order::Remember(note) => ledger.remember(note),
        Order::Together | Order::Done => {}
    }
    true
}
