//! Who usually sends what where: the part of the baseline that the rules about egress ask, on disk.
//!
//! Comes in: errands that were run, approvals, what learning held back. Goes out: the same. `egress::usual` keeps
//! it in memory and writes it, `commands::baseline` lists and edits it meanwhile: what an operator changed is counted,
//! so that a running daemon sees it. It stands in the baseline's file, in tables of its own.
#![forbid(unsafe_code)]

use super::baseline::FILE;
use super::{LedgerError, place, prepare};
use crate::model::Finding;
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const TABLES: &str = "
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS errands (
  exe TEXT NOT NULL, sha256 TEXT NOT NULL, destination TEXT NOT NULL, port INTEGER NOT NULL, user TEXT NOT NULL,
  first INTEGER NOT NULL, last INTEGER NOT NULL, times INTEGER NOT NULL, peak INTEGER NOT NULL, name TEXT,
  PRIMARY KEY (exe, sha256, destination, port, user)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS approvals (id TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS held (
  key TEXT PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, count INTEGER NOT NULL, json TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS learning (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
COMMIT;";

/// Errands in memory and on disk.
pub const ERRANDS: usize = 20_000;
/// Findings that learning held back, likewise.
pub const HELD: usize = 1_000;

/// A program that sends something somewhere for somebody.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Errand {
    /// Its path.
    pub exe: String,
    /// To whom.
    pub destination: IpAddr,
    /// Its service there.
    pub port: u16,
    /// For whom: a user's name, or number where he has none.
    pub user: String,
    /// The program's digest, where it could be read. Last: what differs in it alone stands together when sorted.
    pub sha256: Option<String>,
}

/// What is known of an errand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// First connection.
    pub first: Timestamp,
    /// Last sign of one.
    pub last: Timestamp,
    /// Connections.
    pub times: u64,
    /// Most bytes that went out within `connection_duration`, while it was learnt.
    pub peak: u64,
    /// The server's name, as the program asked for it.
    pub name: Option<String>,
}

/// An operator's word that something is in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Its name, for `reset`.
    pub id: String,
    /// The program's path.
    pub exe: String,
    /// The digest it must have; None: root owns it, and it runs what stands at its path.
    pub sha256: Option<String>,
    /// `any`, an address, a network, a server's name, or `.example.org` for all names below.
    pub destination: String,
    /// None: any.
    pub port: Option<u16>,
    /// None: any.
    pub user: Option<String>,
    /// Bytes within `connection_duration`; None: any.
    pub volume: Option<u64>,
    /// Who answers for it.
    pub owner: String,
    /// Why it is in order.
    pub reason: String,
    /// Until when.
    pub expires: Timestamp,
    /// When it was given.
    pub approved: Timestamp,
    /// The user who gave it.
    pub by: u32,
}

/// A finding that was not raised because the baseline was still being learnt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The latest.
    pub finding: Finding,
    /// When it was first found.
    pub first: Timestamp,
    /// How often.
    pub count: u64,
}

/// Everything at once.
#[derive(Debug, Default)]
pub struct Tables {
    /// Errands, the latest first.
    pub errands: Vec<(Errand, Usage)>,
    /// Approvals, expired ones too.
    pub approvals: Vec<Approval>,
    /// What was held back, the latest first.
    pub held: Vec<Held>,
    /// Learning began.
    pub since: Timestamp,
}

/// The file.
pub struct Store {
    connection: Connection,
    path: PathBuf,
}

impl Store {
    /// The store in a state directory, made where there is none.
    ///
    /// # Errors
    /// The directory is not ours, or SQLite failed.
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        prepare(dir)?;
        let path = dir.join(FILE);
        place::create(&path)?;
        let open = || {
            let connection = Connection::open(&path)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.execute_batch(TABLES)?;
            connection.execute(
                "INSERT OR IGNORE INTO learning VALUES ('since', ?1)",
                [Timestamp::now().as_second()],
            )?;
            Ok(connection)
        };
        let connection = open().map_err(|source| LedgerError::Sqlite { path: path.clone(), source })?;
        Ok(Self { connection, path })
    }

    /// The store that a daemon made; there must be one.
    ///
    /// # Errors
    /// There is none, or SQLite failed.
    pub fn existing(dir: &Path) -> Result<Self, LedgerError> {
        if !dir.join(FILE).is_file() {
            let why = format!("holds no baseline ({FILE}): no daemon has run with it yet");
            return Err(LedgerError::Place { dir: dir.to_owned(), why });
        }
        Self::open(dir)
    }

    /// Everything that is kept.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn read(&self) -> Result<Tables, LedgerError> {
        let read = || {
            let mut tables = Tables { since: at(self.value("since")?), ..Tables::default() };
            let mut statement = self.connection.prepare(
                "SELECT exe, sha256, destination, port, user, first, last, times, peak, name FROM errands
                 ORDER BY last DESC LIMIT ?1",
            )?;
            let rows = statement.query_map([ERRANDS as i64], |row| Ok(errand(row)))?;
            for row in rows {
                // What somebody else wrote into the file is skipped, not believed.
                tables.errands.extend(row?.ok());
            }
            let mut statement = self.connection.prepare("SELECT json FROM approvals ORDER BY id")?;
            for json in statement.query_map([], |row| row.get::<_, String>(0))? {
                tables.approvals.extend(serde_json::from_str(&json?));
            }
            let mut statement = self
                .connection
                .prepare("SELECT first, count, json FROM held ORDER BY last DESC, key LIMIT ?1")?;
            let rows = statement.query_map([HELD as i64], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
            })?;
            for row in rows {
                let (first, count, json) = row?;
                if let Ok(finding) = serde_json::from_str(&json) {
                    tables.held.push(Held { finding, first: at(first), count: count.unsigned_abs() });
                }
            }
            Ok(tables)
        };
        read().map_err(|e| self.error(e))
    }

    /// Writes what was learnt, in one transaction.
    ///
    /// # Errors
    /// SQLite failed: nothing of it was written.
    pub fn write(&mut self, errands: &[(Errand, Usage)], held: &[Held]) -> Result<(), LedgerError> {
        let path = self.path.clone();
        let mut write = || {
            let transaction = self.connection.transaction()?;
            for (errand, usage) in errands {
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO errands VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)")?
                    .execute(params![
                        errand.exe,
                        errand.sha256.as_deref().unwrap_or(""),
                        errand.destination.to_string(),
                        errand.port,
                        errand.user,
                        usage.first.as_second(),
                        usage.last.as_second(),
                        i64::try_from(usage.times).unwrap_or(i64::MAX),
                        i64::try_from(usage.peak).unwrap_or(i64::MAX),
                        usage.name,
                    ])?;
            }
            for held in held {
                let json = serde_json::to_string(&held.finding)
                    .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
                transaction.prepare_cached("INSERT OR REPLACE INTO held VALUES (?1,?2,?3,?4,?5)")?.execute(
                    params![
                        held.finding.key,
                        held.first.as_second(),
                        held.finding.seen.as_second(),
                        i64::try_from(held.count).unwrap_or(i64::MAX),
                        json,
                    ],
                )?;
            }
            if !errands.is_empty() || !held.is_empty() {
                // The oldest beyond the bounds.
                transaction.execute(
                    "DELETE FROM errands WHERE (exe, sha256, destination, port, user) IN (SELECT exe, sha256,
                     destination, port, user FROM errands ORDER BY last DESC LIMIT -1 OFFSET ?1)",
                    [ERRANDS as i64],
                )?;
                transaction.execute(
                    "DELETE FROM held WHERE key IN (SELECT key FROM held ORDER BY last DESC LIMIT -1 OFFSET ?1)",
                    [HELD as i64],
                )?;
            }
            transaction.commit()
        };
        write().map_err(|source| LedgerError::Sqlite { path, source })
    }

    /// How often an operator changed something.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn edited(&self) -> Result<i64, LedgerError> {
        self.value("edited").map_err(|e| self.error(e))
    }

    /// Keeps an approval, in place of one with the same id.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn approve(&mut self, approval: &Approval) -> Result<(), LedgerError> {
        let json = serde_json::to_string(approval).unwrap_or_default();
        self.edit("INSERT OR REPLACE INTO approvals VALUES (?1, ?2)", params![approval.id, json]).map(drop)
    }

    /// Takes an approval back. False: there was none.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn revoke(&mut self, id: &str) -> Result<bool, LedgerError> {
        self.edit("DELETE FROM approvals WHERE id = ?1", [id]).map(|n| n > 0)
    }

    /// Forgets an errand. False: it was not known.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn forget(&mut self, errand: &Errand) -> Result<bool, LedgerError> {
        let Errand { exe, sha256, destination, port, user } = errand;
        let sql = "DELETE FROM errands WHERE exe=?1 AND sha256=?2 AND destination=?3 AND port=?4 AND user=?5";
        let sha256 = sha256.as_deref().unwrap_or("");
        self.edit(sql, params![exe, sha256, destination.to_string(), port, user]).map(|n| n > 0)
    }

    /// Forgets what was held back, all of it or what has this key.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn forget_held(&mut self, key: Option<&str>) -> Result<usize, LedgerError> {
        match key {
            Some(key) => self.edit("DELETE FROM held WHERE key = ?1", [key]),
            None => self.edit("DELETE FROM held", []),
        }
    }

    /// Forgets every errand, and learns anew from now on. Approvals stay.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn begin_again(&mut self) -> Result<usize, LedgerError> {
        let gone = self.edit("DELETE FROM errands", [])?;
        self.forget_held(None)?;
        let now = Timestamp::now().as_second();
        self.edit("INSERT OR REPLACE INTO learning VALUES ('since', ?1)", [now])?;
        Ok(gone)
    }

    /// One change of an operator's: made, and counted.
    fn edit(&mut self, sql: &str, params: impl rusqlite::Params) -> Result<usize, LedgerError> {
        let path = self.path.clone();
        let edit = || {
            let transaction = self.connection.transaction()?;
            let changed = transaction.execute(sql, params)?;
            if changed == 0 {
                return Ok(0);
            }
            transaction.execute(
                "INSERT INTO learning VALUES ('edited', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1",
                [],
            )?;
            transaction.commit()?;
            Ok(changed)
        };
        edit().map_err(|source| LedgerError::Sqlite { path, source })
    }

    fn value(&self, name: &str) -> rusqlite::Result<i64> {
        let mut statement = self.connection.prepare_cached("SELECT value FROM learning WHERE name = ?1")?;
        let mut rows = statement.query([name])?;
        rows.next()?.map_or(Ok(0), |row| row.get(0))
    }

    fn error(&self, source: rusqlite::Error) -> LedgerError {
        LedgerError::Sqlite { path: self.path.clone(), source }
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or_default()
}

fn errand(row: &Row<'_>) -> anyhow::Result<(Errand, Usage)> {
    let errand = Errand {
        exe: row.get(0)?,
        sha256: Some(row.get::<_, String>(1)?).filter(|s| !s.is_empty()),
        destination: row.get::<_, String>(2)?.parse()?,
        port: row.get(3)?,
        user: row.get(4)?,
    };
    let usage = Usage {
        first: at(row.get(5)?),
        last: at(row.get(6)?),
        times: row.get::<_, i64>(7)?.unsigned_abs(),
        peak: row.get::<_, i64>(8)?.unsigned_abs(),
        name: row.get(9)?,
    };
    Ok((errand, usage))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn curl(destination: &str) -> Errand {
        Errand {
            exe: "/usr/bin/curl".into(),
            sha256: Some("ab".into()),
            destination: destination.parse().unwrap(),
            port: 443,
            user: "backup".into(),
        }
    }

    fn usage(peak: u64) -> Usage {
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        Usage { first: at, last: at, times: 1, peak, name: None }
    }

    #[test]
    fn everything_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("state")).unwrap();
        let held = Held {
            finding: crate::detect::finding("bulk-egress", crate::model::Severity::High, sample::moment()),
            first: at(1),
            count: 3,
        };
        let errands = [(curl("10.0.0.1"), usage(5)), (curl("fd00::1"), usage(7))];
        store.write(&errands, std::slice::from_ref(&held)).unwrap();
        let approval = Approval {
            id: "a1".into(),
            exe: "/usr/bin/rsync".into(),
            sha256: None,
            destination: "10.0.0.0/8".into(),
            port: Some(873),
            user: None,
            volume: None,
            owner: "ops".into(),
            reason: "nightly".into(),
            expires: at(2_000_000_000),
            approved: at(1),
            by: 0,
        };
        let edits = store.edited().unwrap();
        store.approve(&approval).unwrap();
        assert_eq!(store.edited().unwrap(), edits + 1);
        drop(store);
        let mut store = Store::existing(&dir.path().join("state")).unwrap();
        let tables = store.read().unwrap();
        let mut found = tables.errands.clone();
        found.sort_by_key(|(e, _)| e.clone());
        assert_eq!(found, errands);
        assert_eq!((tables.approvals, tables.held), (vec![approval], vec![held]));
        assert!(store.forget(&errands[0].0).unwrap() && !store.forget(&errands[0].0).unwrap());
        assert!(store.revoke("a1").unwrap());
        assert_eq!(store.begin_again().unwrap(), 1);
        let tables = store.read().unwrap();
        assert!(tables.errands.is_empty() && tables.approvals.is_empty() && tables.held.is_empty());
        assert!(tables.since.as_second() > 1_700_000_000);
    }

    #[test]
    fn what_nobody_wrote_is_named_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let Err(e) = Store::existing(dir.path()) else { panic!("there is none") };
        assert!(e.to_string().contains("holds no baseline"), "{e}");
    }
}
