//! The reading side of the ledger, for `transfers` and `alarms`; a daemon may be writing meanwhile.
#![forbid(unsafe_code)]

use super::{FILE, LedgerError, SCHEMA, word};
use crate::model::{Alarm, Channel, Transfer, Verdict};
use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// Which transfers.
#[derive(Clone, Copy, Debug, Default)]
pub struct TransferFilter {
    /// With this verdict.
    pub verdict: Option<Verdict>,
    /// Over this channel.
    pub channel: Option<Channel>,
    /// Ended then or later.
    pub since: Option<Timestamp>,
}

/// The reading side.
pub struct Reader {
    path: PathBuf,
    version: i64,
    pub(super) connection: Connection,
}

impl Reader {
    /// Opens the ledger in `dir`.
    ///
    /// # Errors
    /// There is none, or it can't be read.
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        let path = dir.join(FILE);
        if let Err(e) = std::fs::metadata(&path) {
            let why = match e.kind() {
                std::io::ErrorKind::NotFound => format!("holds no ledger ({FILE})"),
                _ => format!("{}: {e}", path.display()),
            };
            return Err(LedgerError::Place { dir: dir.to_owned(), why });
        }
        // Not read-only: SQLite's log needs its index file written even by readers.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)
            .and_then(|c| c.busy_timeout(Duration::from_secs(2)).map(|()| c))
            .and_then(|c| c.pragma_update(None, "query_only", true).map(|()| c))
            .map_err(|source| LedgerError::Sqlite { path: path.clone(), source })?;
        let mut reader = Self { path, version: 0, connection };
        let found = reader
            .connection
            .pragma_query_value(None, "user_version", |r| r.get::<_, i64>(0))
            .map_err(|e| reader.error(e))?;
        if found > SCHEMA {
            return Err(LedgerError::Newer { path: reader.path, found });
        }
        reader.version = found;
        Ok(reader)
    }

    /// The alarms' tables came with schema 3.
    pub(super) fn has_alarms(&self) -> Result<&Connection, LedgerError> {
        if self.version < 3 {
            return Err(LedgerError::Older { path: self.path.clone() });
        }
        Ok(&self.connection)
    }

    /// Gives the transfers that `filter` lets through to `each`, oldest first, until it says false.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn transfers(
        &self,
        filter: TransferFilter,
        mut each: impl FnMut(Transfer) -> bool,
    ) -> Result<(), LedgerError> {
        let mut sql = String::from("SELECT json FROM transfers WHERE 1");
        let mut values = Vec::new();
        if let Some(verdict) = filter.verdict {
            sql.push_str(" AND verdict = ?");
            values.push(Value::Text(word(&verdict)));
        }
        if let Some(channel) = filter.channel {
            sql.push_str(" AND channel = ?");
            values.push(Value::Text(word(&channel)));
        }
        if let Some(since) = filter.since {
            sql.push_str(" AND ended >= ?");
            values.push(Value::Integer(since.as_microsecond()));
        }
        sql.push_str(" ORDER BY ended, id");
        (|| {
            let mut statement = self.connection.prepare(&sql)?;
            let mut rows = statement.query(params_from_iter(values))?;
            while let Some(row) = rows.next()? {
                if !each(json(&row.get::<_, String>(0)?)?) {
                    break;
                }
            }
            Ok(())
        })()
        .map_err(|e| self.error(e))
    }

    /// What a stage remembered: key and words, the latest first.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn recall(&self, kind: &str) -> Result<Vec<(String, String)>, LedgerError> {
        memory(&self.connection, kind).map_err(|e| self.error(e))
    }

    /// Gives every intact file transfer to `each`, oldest first.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn delivered(&self, mut each: impl FnMut(Transfer)) -> Result<(), LedgerError> {
        (|| {
            let sql =
                "SELECT json FROM transfers WHERE verdict = 'intact' AND channel = 'file' ORDER BY ended, id";
            let mut statement = self.connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                each(json(&row.get::<_, String>(0)?)?);
            }
            Ok(())
        })()
        .map_err(|e| self.error(e))
    }

    /// One alarm.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn alarm(&self, id: Uuid) -> Result<Option<Alarm>, LedgerError> {
        super::alarms::one(self.has_alarms()?, id).map_err(|e| self.error(e))
    }

    /// All alarms, the latest first.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn alarms(&self) -> Result<Vec<Alarm>, LedgerError> {
        super::alarms::all(self.has_alarms()?).map_err(|e| self.error(e))
    }

    pub(super) fn error(&self, source: rusqlite::Error) -> LedgerError {
        LedgerError::Sqlite { path: self.path.clone(), source }
    }
}

pub(super) fn memory(connection: &Connection, kind: &str) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement =
        connection.prepare("SELECT key, json FROM memory WHERE kind = ?1 ORDER BY last DESC, key")?;
    let rows = statement.query_map([kind], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

pub(super) fn json<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e)))
}
