//! Other hosts' transfers, kept beside our own and never among them.
//!
//! Comes in: transfers that a portable file had, with the host that it says it is from. Goes out: the same. Called by
//! `commands::transfers`. They are another host's word: they get a table of their own, so that nothing imported can
//! replace or imitate what was witnessed here.
#![forbid(unsafe_code)]

use super::{FILE, LedgerError, Reader, open, prepare, read::json};
use crate::model::Transfer;
use jiff::Timestamp;
use rusqlite::{Connection, params};
use std::path::{Path, PathBuf};

/// Transfers in one transaction: a daemon that writes meanwhile waits no longer than for these.
const BATCH: usize = 4096;

/// The table. A newer import of the same transfer replaces the older.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS imported (
  host TEXT NOT NULL, id TEXT NOT NULL, ended INTEGER NOT NULL, at INTEGER NOT NULL, json TEXT NOT NULL,
  PRIMARY KEY (host, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS imported_ended ON imported(ended);
CREATE INDEX IF NOT EXISTS imported_at ON imported(at);";

/// Takes another host's transfers in.
pub struct Importer {
    path: PathBuf,
    connection: Connection,
    host: String,
    at: Timestamp,
    waiting: Vec<Transfer>,
}

impl Importer {
    /// Opens the ledger in `dir`, or makes one, for transfers of `host`.
    ///
    /// # Errors
    /// The directory or SQLite.
    pub fn open(dir: &Path, host: &str) -> Result<Self, LedgerError> {
        prepare(dir)?;
        let path = dir.join(FILE);
        let connection = open(&path)?;
        Ok(Self { path, connection, host: host.to_owned(), at: Timestamp::now(), waiting: vec![] })
    }

    /// One transfer.
    ///
    /// # Errors
    /// SQLite.
    pub fn put(&mut self, transfer: Transfer) -> Result<(), LedgerError> {
        self.waiting.push(transfer);
        if self.waiting.len() >= BATCH { self.commit() } else { Ok(()) }
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// SQLite.
    pub fn commit(&mut self) -> Result<(), LedgerError> {
        let written = (|| {
            let transaction = self.connection.transaction()?;
            {
                let mut insert =
                    transaction.prepare_cached("INSERT OR REPLACE INTO imported VALUES (?1,?2,?3,?4,?5)")?;
                for t in &self.waiting {
                    let text = serde_json::to_string(t)
                        .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
                    let (ended, at) = (t.ended.as_microsecond(), self.at.as_microsecond());
                    insert.execute(params![self.host, t.id.to_string(), ended, at, text])?;
                }
            }
            transaction.commit()
        })();
        written.map_err(|source| LedgerError::Sqlite { path: self.path.clone(), source })?;
        self.waiting.clear();
        Ok(())
    }
}

impl Reader {
    /// Gives what was imported to `each`, with the host that it is from, oldest first, until it says false.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn imported(&self, mut each: impl FnMut(&str, Transfer) -> bool) -> Result<(), LedgerError> {
        (|| {
            // An older daemon's ledger has no such table.
            if !self.connection.table_exists(None, "imported")? {
                return Ok(());
            }
            let mut statement =
                self.connection.prepare("SELECT host, json FROM imported ORDER BY ended, host, id")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                if !each(&row.get::<_, String>(0)?, json(&row.get::<_, String>(1)?)?) {
                    break;
                }
            }
            Ok(())
        })()
        .map_err(|e| self.error(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, TransferFilter};
    use crate::model::Verdict;
    use crate::{config, sample};
    use std::sync::Arc;

    fn imported(dir: &Path) -> Vec<(String, Transfer)> {
        let mut out = vec![];
        let reader = Reader::open(dir).unwrap();
        reader
            .imported(|host, t| {
                out.push((host.to_owned(), t));
                true
            })
            .unwrap();
        out
    }

    #[test]
    fn imported_transfers_stay_apart() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path(), config::Ledger::default()).unwrap();
        let mut ours = sample::transfer(Verdict::Altered);
        ours.ended = Timestamp::now();
        ledger.transfer(Arc::new(ours.clone()));
        ledger.commit().unwrap();
        // Another host claims the same id, and that all was well.
        let theirs = Transfer { verdict: Verdict::Intact, ..ours.clone() };
        for _ in 0..2 {
            let mut importer = Importer::open(dir.path(), "beta").unwrap();
            importer.put(theirs.clone()).unwrap();
            importer.commit().unwrap();
        }
        assert_eq!(imported(dir.path()), [("beta".to_owned(), theirs)]);
        let mut found = vec![];
        let reader = Reader::open(dir.path()).unwrap();
        reader
            .transfers(TransferFilter::default(), |t| {
                found.push(t);
                true
            })
            .unwrap();
        assert_eq!(found, [ours]);
    }

    #[test]
    fn imported_transfers_go_first_where_room_is_short() {
        let dir = tempfile::tempdir().unwrap();
        let mut importer = Importer::open(dir.path(), "beta").unwrap();
        for _ in 0..3000 {
            importer.put(sample::transfer(Verdict::Intact)).unwrap();
        }
        importer.commit().unwrap();
        let limits = config::Ledger { max_size: 1 << 20, ..config::Ledger::default() };
        let mut ledger = Ledger::open(dir.path(), limits).unwrap();
        for _ in 0..100 {
            let mut own = sample::transfer(Verdict::Intact);
            own.ended = Timestamp::now();
            ledger.transfer(Arc::new(own));
        }
        ledger.commit().unwrap();
        assert!(imported(dir.path()).len() < 3000);
        let mut own = 0;
        let reader = Reader::open(dir.path()).unwrap();
        reader
            .transfers(TransferFilter::default(), |_| {
                own += 1;
                true
            })
            .unwrap();
        assert_eq!(own, 100);
    }

    #[test]
    fn a_ledger_without_the_table_has_nothing_imported() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path(), config::Ledger::default()).unwrap();
        ledger.commit().unwrap();
        ledger.connection.as_ref().unwrap().execute_batch("DROP TABLE imported").unwrap();
        assert!(imported(dir.path()).is_empty());
    }
}
