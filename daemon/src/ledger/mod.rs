//! The ledger: every final transfer and every alarm, in SQLite.
//!
//! Comes in: [`Transfer`]s and [`AlarmRow`]s. Goes out: the same, to `transfers`, `alarms` and the next
//! daemon. Called by the scribe (writes) and `commands` (reads).
//!
//! Each row is the outward JSON, with columns beside it for what is searched by. Rows gather in
//! memory and go in one transaction; write-ahead logging without a sync at each commit outlives
//! `kill -9` at any instruction (what was committed is in the kernel), and a lost machine costs the
//! last moments, never the file. What can't be written, as on a full disk, waits, bounded, and is
//! tried again.
#![forbid(unsafe_code)]

mod alarms;
mod baseline;
mod imported;
mod letters;
mod list;
mod load;
mod owner;
mod place;
mod read;
mod scribe;
#[cfg(test)]
mod tests;
pub mod usual;

pub use alarms::AlarmRow;
pub use baseline::{Baseline, Met};
pub use imported::Importer;
pub use letters::Letter;
pub use list::Filter;
pub use load::{FLOOD, Load, Named};
pub use owner::{InUse, Owner};
pub use place::prepare;
pub use read::{Reader, TransferFilter};
pub use scribe::{Memory, Scribe};

use crate::alarms::Minutes;
use crate::model::Transfer;
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, params};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// The file's name in the state directory.
pub const FILE: &str = "ledger.sqlite";
/// Version of the tables below (`PRAGMA user_version`). 2 added `memory`, 3 how alarms stand and their changes; older
/// files get them when they are opened.
const SCHEMA: i64 = 3;
/// Rows that may wait to be written.
const WAITING: usize = 20_000;
/// How often old rows are looked for.
const TIDY: Duration = Duration::from_secs(600);

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS transfers (
  id TEXT PRIMARY KEY, ended INTEGER NOT NULL, verdict TEXT NOT NULL, channel TEXT NOT NULL,
  flow TEXT, origin_exe TEXT, destination_exe TEXT, json TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS transfers_ended ON transfers(ended);
CREATE INDEX IF NOT EXISTS transfers_verdict ON transfers(verdict, ended);
CREATE TABLE IF NOT EXISTS memory (
  kind TEXT NOT NULL, key TEXT NOT NULL, last INTEGER NOT NULL, json TEXT NOT NULL,
  PRIMARY KEY (kind, key)
) WITHOUT ROWID;
PRAGMA user_version = 3;";

/// Why the ledger can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The state directory.
    #[error("state directory {}: {why}", dir.display())]
    Place {
        /// Which.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// SQLite.
    #[error("ledger {}: {source}{}", path.display(), hint(source))]
    Sqlite {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
    /// No thread to write it.
    #[error("no thread can be started: {0}")]
    Thread(std::io::Error),
    /// The file's tables are older than what is asked of them.
    #[error("ledger {} is an older version's: start this version's daemon on it once, and it is brought up to date", path.display())]
    Older {
        /// Which file.
        path: PathBuf,
    },
    /// The file's tables are newer than this program.
    #[error("ledger {} was written by a newer version of counterfoil (schema {found}, this one knows {SCHEMA})", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
}

impl LedgerError {
    /// The disk is full.
    fn is_full(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if source.sqlite_error_code() == Some(ErrorCode::DiskFull))
    }
}

fn hint(e: &rusqlite::Error) -> &'static str {
    match e.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            ". Free some space; what happened meanwhile is kept in memory and written then"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ". Another program holds it",
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
            ". May this user write there?"
        }
        _ => "",
    }
}

enum Row {
    Transfer(Arc<Transfer>),
    Memory(Note),
}

/// What a stage wants to find again after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The stage's name.
    pub kind: &'static str,
    /// Its own key.
    pub key: String,
    /// Its own words; None: forget it.
    pub json: Option<String>,
}

impl Note {
    /// `value`, to be kept under `key`.
    #[must_use]
    pub fn new(kind: &'static str, key: &str, value: &impl serde::Serialize) -> Option<Self> {
        let json = serde_json::to_string(value)
            .inspect_err(|e| tracing::error!("{key} of {kind} can't be kept: {e}"));
        json.ok().map(|json| Self { kind, key: key.to_owned(), json: Some(json) })
    }
}

/// The writing side.
pub struct Ledger {
    path: PathBuf,
    limits: crate::config::Ledger,
    /// None while the disk was too full to make the tables.
    connection: Option<Connection>,
    waiting: VecDeque<Row>,
    /// One for each alarm: the latest counts, and none is given up.
    alarms: HashMap<Uuid, AlarmRow>,
    minutes: Minutes,
    letters: VecDeque<Arc<Letter>>,
    /// Letters up to here are in every sink's queue.
    delivered: u64,
    lost: u64,
    tidied: Option<Instant>,
}

impl Ledger {
    /// Opens the ledger in `dir`, making both where they aren't there. A file that is no database,
    /// or a damaged one, is put aside under another name and a new one begun. On a full disk
    /// everything waits, and is tried again with each [`Self::commit`].
    ///
    /// # Errors
    /// The directory belongs to someone else or can't be made, or SQLite fails otherwise.
    pub fn open(dir: &Path, limits: crate::config::Ledger) -> Result<Self, LedgerError> {
        prepare(dir)?;
        let path = dir.join(FILE);
        let connection = match open(&path) {
            Ok(connection) => Some(connection),
            Err(e) if e.is_full() => {
                tracing::error!("{e}");
                None
            }
            Err(e) => return Err(e),
        };
        Ok(Self {
            path,
            limits,
            connection,
            waiting: VecDeque::new(),
            alarms: HashMap::new(),
            minutes: Minutes::default(),
            letters: VecDeque::new(),
            delivered: 0,
            lost: 0,
            tidied: None,
        })
    }

    /// Queues a transfer.
    pub fn transfer(&mut self, transfer: Arc<Transfer>) {
        self.queue(Row::Transfer(transfer));
    }

    /// Queues how an alarm stands now, the changes that brought it there, and what is to be told of it.
    pub fn alarm(&mut self, mut row: AlarmRow) {
        self.letters.extend(row.letters.drain(..));
        let row = match self.alarms.remove(&row.id) {
            Some(older) => older.followed_by(row),
            None => row,
        };
        self.alarms.insert(row.id, row);
    }

    /// Queues how many alarms came up in which minute.
    pub fn minutes(&mut self, minutes: &Minutes) {
        self.minutes.add(minutes);
    }

    /// Queues a letter whose alarm's row came before.
    pub fn letter(&mut self, letter: Arc<Letter>) {
        self.letters.push_back(letter);
    }

    /// Every sink has the letters up to `number`.
    pub fn delivered(&mut self, number: u64) {
        self.delivered = self.delivered.max(number);
    }

    /// Queues what a stage remembers.
    pub fn remember(&mut self, note: Note) {
        self.queue(Row::Memory(note));
    }

    fn queue(&mut self, row: Row) {
        if self.waiting.len() >= WAITING {
            // What a stage remembers is worth more than a transfer: the oldest transfer goes first.
            let at = self.waiting.iter().position(|r| matches!(r, Row::Transfer(_))).unwrap_or(0);
            self.waiting.remove(at);
            self.lost += 1;
        }
        self.waiting.push_back(row);
    }

    /// Writes what waits, in one transaction, and now and then forgets what is old.
    ///
    /// # Errors
    /// SQLite failed: everything still waits and goes with the next call.
    pub fn commit(&mut self) -> Result<(), LedgerError> {
        self.write()?;
        let Some(connection) = &self.connection else { return Ok(()) };
        if self.tidied.is_none_or(|t| t.elapsed() >= TIDY) {
            self.tidied = Some(Instant::now());
            tidy(connection, &self.limits, Timestamp::now())
                .map_err(|source| LedgerError::Sqlite { path: self.path.clone(), source })?;
        }
        Ok(())
    }

    /// Writes what waits, in one transaction.
    ///
    /// # Errors
    /// SQLite failed: everything still waits and goes with the next call.
    pub fn write(&mut self) -> Result<(), LedgerError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(open(&self.path)?),
        };
        let error = |source| LedgerError::Sqlite { path: self.path.clone(), source };
        let nothing = self.waiting.is_empty() && self.alarms.is_empty() && self.minutes.is_empty();
        if !(nothing && self.letters.is_empty() && self.delivered == 0) {
            let letters = (&self.letters, self.delivered);
            write(connection, &self.waiting, self.alarms.values(), &self.minutes, letters).map_err(error)?;
            self.waiting.clear();
            self.alarms.clear();
            self.minutes = Minutes::default();
            self.letters.drain(..).for_each(|letter| letter.commit());
            self.delivered = 0;
        }
        Ok(())
    }

    /// Rows that were given up because too many waited, since the last call.
    pub fn lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// How the alarms of earlier daemons stand: those that are not done with first, then the latest first.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn standing(&self, most: usize) -> Result<Vec<AlarmRow>, LedgerError> {
        let Some(connection) = &self.connection else { return Ok(vec![]) };
        alarms::standing(connection, most)
            .map_err(|source| LedgerError::Sqlite { path: self.path.clone(), source })
    }

    /// Letters of an earlier daemon that some sink may not have, in order.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn undelivered(&self) -> Result<Vec<Letter>, LedgerError> {
        let Some(connection) = &self.connection else { return Ok(vec![]) };
        letters::undelivered(connection)
            .map_err(|source| LedgerError::Sqlite { path: self.path.clone(), source })
    }

    /// What a stage of an earlier daemon remembered: key and words, the latest first.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn recall(&self, kind: &str) -> Result<Vec<(String, String)>, LedgerError> {
        let Some(connection) = &self.connection else { return Ok(vec![]) };
        read::memory(connection, kind)
            .map_err(|source| LedgerError::Sqlite { path: self.path.clone(), source })
    }

    /// Other limits, after a reload.
    pub fn limit(&mut self, limits: crate::config::Ledger) {
        self.limits = limits;
        self.tidied = None;
    }
}

fn tidy(connection: &Connection, limits: &crate::config::Ledger, now: Timestamp) -> rusqlite::Result<()> {
    let keep = i64::try_from(limits.keep.as_micros()).unwrap_or(i64::MAX);
    let before = now.as_microsecond().saturating_sub(keep);
    connection.execute("DELETE FROM transfers WHERE ended < ?1", [before])?;
    alarms::tidy(connection, before, now)?;
    connection.execute("DELETE FROM memory WHERE last < ?1", [before])?;
    // By our own clock: the times in it are another's word.
    connection.execute("DELETE FROM imported WHERE at < ?1", [before])?;
    while used(connection)? > limits.max_size {
        // What another host says can be had again; what was witnessed here can't.
        let imported = connection.execute(
            "DELETE FROM imported WHERE (host, id) IN
             (SELECT host, id FROM imported ORDER BY at LIMIT 1 + (SELECT count(*) FROM imported) / 10)",
            [],
        )?;
        if imported > 0 {
            continue;
        }
        let gone = connection.execute(
            "DELETE FROM transfers WHERE id IN
             (SELECT id FROM transfers ORDER BY ended LIMIT 1 + (SELECT count(*) FROM transfers) / 10)",
            [],
        )?;
        if gone == 0 {
            break;
        }
    }
    // Gives the room back to the file system; that a reader is in the way is no failure.
    connection.execute_batch("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)").or(Ok(()))
}

/// Bytes in use.
fn used(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name| connection.pragma_query_value(None, name, |r| r.get::<_, i64>(0));
    let bytes = (pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Opens the file, or a new one in place of a damaged one.
fn open(path: &Path) -> Result<Connection, LedgerError> {
    place::create(path)?;
    let damaged = match connect(path) {
        Err(LedgerError::Sqlite { source, .. })
            if matches!(
                source.sqlite_error_code(),
                Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
            ) =>
        {
            source
        }
        other => return other,
    };
    let aside = place::put_aside(path)?;
    tracing::error!(
        "ledger {} is damaged ({damaged}); it is kept as {}, and a new one begins",
        path.display(),
        aside.display()
    );
    place::create(path)?;
    connect(path)
}

fn connect(path: &Path) -> Result<Connection, LedgerError> {
    let sqlite = |source| LedgerError::Sqlite { path: path.to_owned(), source };
    let connection = Connection::open(path).map_err(sqlite)?;
    let version = (|| {
        connection.busy_timeout(Duration::from_secs(2))?;
        // Before the first table, or it has no effect.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_query_value(None, "user_version", |r| r.get::<_, i64>(0))
    })()
    .map_err(sqlite)?;
    if version > SCHEMA {
        return Err(LedgerError::Newer { path: path.to_owned(), found: version });
    }
    make_tables(&connection, version).map_err(sqlite)?;
    Ok(connection)
}

/// All or none, for two programs may come at the same time.
fn make_tables(connection: &Connection, version: i64) -> rusqlite::Result<()> {
    if version == SCHEMA {
        connection.execute_batch(letters::TABLE)?;
        return connection.execute_batch(imported::TABLE);
    }
    let made = (|| {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        // Another may have done it while this one waited.
        let version = connection.pragma_query_value(None, "user_version", |r| r.get::<_, i64>(0))?;
        let old = version == 1 || version == 2;
        connection.execute_batch(if old { alarms::FROM_2 } else { "" })?;
        connection.execute_batch(TABLES)?;
        connection.execute_batch(alarms::TABLES)?;
        connection.execute_batch(if old { alarms::FROM_2_MOVE } else { "" })?;
        connection.execute_batch(letters::TABLE)?;
        connection.execute_batch(imported::TABLE)?;
        connection.execute_batch("COMMIT")
    })();
    made.inspect_err(|_| drop(connection.execute_batch("ROLLBACK")))
}

fn write<'a>(
    connection: &mut Connection,
    rows: &VecDeque<Row>,
    standing: impl Iterator<Item = &'a AlarmRow>,
    minutes: &Minutes,
    (letters, delivered): (&VecDeque<Arc<Letter>>, u64),
) -> rusqlite::Result<()> {
    let json = |e: serde_json::Error| rusqlite::Error::ToSqlConversionFailure(Box::new(e));
    let transaction = connection.transaction()?;
    for row in standing {
        alarms::write(&transaction, row)?;
    }
    alarms::write_minutes(&transaction, minutes)?;
    letters::write(&transaction, letters)?;
    if delivered > 0 {
        letters::delivered(&transaction, delivered)?;
    }
    {
        let mut transfers = transaction
            .prepare_cached("INSERT OR REPLACE INTO transfers VALUES (?1,?2,?3,?4,?5,?6,?7,?8)")?;
        let mut remember =
            transaction.prepare_cached("INSERT OR REPLACE INTO memory VALUES (?1,?2,?3,?4)")?;
        let mut forget = transaction.prepare_cached("DELETE FROM memory WHERE kind = ?1 AND key = ?2")?;
        for row in rows {
            match row {
                Row::Memory(Note { kind, key, json: Some(json) }) => {
                    remember.execute(params![kind, key, Timestamp::now().as_microsecond(), json])?
                }
                Row::Memory(Note { kind, key, json: None }) => forget.execute(params![kind, key])?,
                Row::Transfer(t) => transfers.execute(params![
                    t.id.to_string(),
                    t.ended.as_microsecond(),
                    word(&t.verdict),
                    word(&t.channel),
                    t.flow,
                    t.origin.as_ref().and_then(|e| e.exe.as_ref()),
                    t.destination.as_ref().and_then(|e| e.exe.as_ref()),
                    serde_json::to_string(t.as_ref()).map_err(json)?,
                ])?,
            };
        }
    }
    transaction.commit()
}

/// A value's word in JSON.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
