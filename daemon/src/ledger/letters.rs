//! Letters: what the sinks are to hear of alarms, on its way through the ledger.
//!
//! Comes in: [`Letter`]s, each with the row of its alarm or behind it. Goes out: the same to the next daemon, where this one
//! ended before every sink had them. Called by the ledger and, with a number of its own, by `control::offline`.
//!
//! ```text
//! row, letter ─► one transaction ─► committed ─► sinks' queues (spool) ─► taken out of here
//! ```
//! So a sink never hears of what the ledger doesn't know, and hears of everything that it knows. Numbers grow; each queue keeps
//! the highest that it has, and passes over what comes again.
#![forbid(unsafe_code)]

use super::read::json;
use crate::model::Alarm;
use rusqlite::{Connection, params};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS letters (number INTEGER PRIMARY KEY, json TEXT NOT NULL);";

/// An alarm as it stood when the sinks were to hear of it.
#[derive(Debug)]
pub struct Letter {
    /// Each has a higher one than those before. 0: none, and it is not kept.
    pub number: u64,
    /// What they hear.
    pub alarm: Arc<Alarm>,
    committed: AtomicBool,
}

impl Letter {
    /// A letter that the ledger doesn't have yet.
    #[must_use]
    pub fn new(number: u64, alarm: Arc<Alarm>) -> Self {
        Self { number, alarm, committed: AtomicBool::new(false) }
    }

    /// The ledger has its alarm.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        // With the Release in `commit`: whoever sees it finds the row.
        self.committed.load(Ordering::Acquire)
    }

    pub(super) fn commit(&self) {
        self.committed.store(true, Ordering::Release);
    }
}

pub(super) fn write(connection: &Connection, letters: &VecDeque<Arc<Letter>>) -> rusqlite::Result<()> {
    let failed = |e: serde_json::Error| rusqlite::Error::ToSqlConversionFailure(Box::new(e));
    let mut add = connection.prepare_cached("INSERT OR REPLACE INTO letters VALUES (?1, ?2)")?;
    for letter in letters.iter().filter(|l| l.number > 0) {
        let text = serde_json::to_string(letter.alarm.as_ref()).map_err(failed)?;
        add.execute(params![letter.number.cast_signed(), text])?;
    }
    Ok(())
}

/// Every sink has those up to here.
pub(super) fn delivered(connection: &Connection, up_to: u64) -> rusqlite::Result<()> {
    let up_to = i64::try_from(up_to).unwrap_or(i64::MAX);
    connection.prepare_cached("DELETE FROM letters WHERE number <= ?1")?.execute([up_to]).map(drop)
}

/// Those that some sink may not have, in order.
pub(super) fn undelivered(connection: &Connection) -> rusqlite::Result<Vec<Letter>> {
    let mut statement = connection.prepare("SELECT number, json FROM letters ORDER BY number")?;
    let rows = statement.query_map([], |row| {
        let letter =
            Letter::new(row.get::<_, i64>(0)?.cast_unsigned(), Arc::new(json(&row.get::<_, String>(1)?)?));
        letter.commit();
        Ok(letter)
    })?;
    rows.collect()
}
