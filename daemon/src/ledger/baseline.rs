//! The baseline: what of a host is ordinary, learnt and kept beside the ledger's file.
//!
//! Comes in: pairs (a program and its parent, a service and its client, a program and its digest).
//! Goes out: whether each was met before. `surround` asks. What is new while it learns is ordinary
//! from then on; afterwards it is said, and stays new until somebody takes it in.
#![forbid(unsafe_code)]

use super::{LedgerError, place, prepare};
use rusqlite::{Connection, params};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The file's name in the state directory. Not the ledger's own: what is ordinary outlives a damaged
/// ledger, and another thread writes it.
pub(super) const FILE: &str = "baseline.sqlite";
/// Pairs in memory and on disk.
const KEPT: usize = 50_000;
/// How often the time of a pair that is met again and again is written.
const REFRESH: i64 = 3600;

const TABLE: &str = "
CREATE TABLE IF NOT EXISTS baseline (
  kind TEXT NOT NULL, subject TEXT NOT NULL, other TEXT NOT NULL,
  first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (kind, subject, other)
) WITHOUT ROWID;";
/// The row that says since when it learns.
const SINCE: (&str, &str, &str) = ("since", "", "");

/// Kind and subject.
type Subject = (String, String);

/// How a pair stands to the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// Met before.
    Known,
    /// New, and taken in: the baseline is still being learnt.
    Learnt,
    /// New. It is not taken in.
    New,
}

/// Pairs that were met, seconds since 1970 each.
pub struct Baseline {
    connection: Connection,
    /// What was met with each subject, and when last.
    met: HashMap<Subject, HashMap<String, i64>>,
    pairs: usize,
    learning: bool,
    since: i64,
    days: Arc<AtomicU32>,
}

impl Baseline {
    /// The baseline in a state directory, which learns for so many days from its beginning.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn open(dir: &Path, days: u32) -> Result<Self, LedgerError> {
        prepare(dir)?;
        let path = dir.join(FILE);
        place::create(&path)?;
        let load = || -> rusqlite::Result<Self> {
            let connection = Connection::open(&path)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.execute_batch(TABLE)?;
            let mut met: HashMap<Subject, HashMap<String, i64>> = HashMap::new();
            let mut pairs = 0;
            let mut statement = connection.prepare(
                "SELECT kind, subject, other, first, last FROM baseline ORDER BY last DESC LIMIT ?1",
            )?;
            let mut rows = statement.query([KEPT as i64])?;
            let mut since = None;
            while let Some(row) = rows.next()? {
                let subject: Subject = (row.get(0)?, row.get(1)?);
                if subject.0 == SINCE.0 {
                    since = Some(row.get(3)?);
                } else {
                    met.entry(subject).or_default().insert(row.get(2)?, row.get(4)?);
                    pairs += 1;
                }
            }
            drop(rows);
            drop(statement);
            let now = seconds(SystemTime::now());
            let mut baseline = Self {
                connection,
                met,
                pairs,
                learning: true,
                since: since.unwrap_or(now),
                days: Arc::new(days.into()),
            };
            if since.is_none() {
                baseline.write(SINCE.0, SINCE.1, SINCE.2, now);
            }
            baseline.age(now);
            Ok(baseline)
        };
        load().map_err(|source| LedgerError::Sqlite { path: path.clone(), source })
    }

    /// For how many days it learns: a reload may say otherwise.
    pub fn days(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.days)
    }

    /// Is this pair ordinary?
    pub fn meet(&mut self, kind: &str, subject: &str, other: &str) -> Met {
        let now = seconds(SystemTime::now());
        self.age(now);
        let place = (kind.to_owned(), subject.to_owned());
        if let Some(&last) = self.met.get(&place).and_then(|met| met.get(other)) {
            if now.saturating_sub(last) >= REFRESH {
                self.keep(place, other, now);
            }
            return Met::Known;
        }
        if !self.learning {
            return Met::New;
        }
        self.keep(place, other, now);
        Met::Learnt
    }

    /// What was met with `subject`, and when last.
    pub fn others(&self, kind: &str, subject: &str) -> impl Iterator<Item = (&str, SystemTime)> {
        let met = self.met.get(&(kind.to_owned(), subject.to_owned())).into_iter().flatten();
        met.map(|(other, last)| {
            (other.as_str(), UNIX_EPOCH + Duration::from_secs(u64::try_from(*last).unwrap_or(0)))
        })
    }

    /// This is ordinary from now on.
    pub fn take_in(&mut self, kind: &str, subject: &str, other: &str) {
        self.keep((kind.to_owned(), subject.to_owned()), other, seconds(SystemTime::now()));
    }

    fn age(&mut self, now: i64) {
        self.learning =
            now < self.since.saturating_add(i64::from(self.days.load(Ordering::Relaxed)) * 86_400);
    }

    fn keep(&mut self, place: Subject, other: &str, now: i64) {
        let new = self.met.get(&place).is_none_or(|met| !met.contains_key(other));
        if new && self.pairs >= KEPT {
            return;
        }
        self.pairs += usize::from(new);
        self.write(&place.0, &place.1, other, now);
        self.met.entry(place).or_default().insert(other.to_owned(), now);
    }

    /// What the disk does not take is known until the daemon ends.
    fn write(&mut self, kind: &str, subject: &str, other: &str, now: i64) {
        let written = self.connection.execute(
            "INSERT INTO baseline VALUES (?1, ?2, ?3, ?4, ?4)
             ON CONFLICT (kind, subject, other) DO UPDATE SET last = excluded.last",
            params![kind, subject, other, now],
        );
        if let Err(e) = written {
            tracing::warn!("the baseline can't be written: {e}");
        }
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_then_tells_and_remembers() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let mut baseline = Baseline::open(&state, 7).unwrap();
        assert_eq!(baseline.meet("parent", "/usr/sbin/sshd", "/bin/sh"), Met::Learnt);
        assert_eq!(baseline.meet("parent", "/usr/sbin/sshd", "/bin/sh"), Met::Known);
        drop(baseline);
        let mut later = Baseline::open(&state, 7).unwrap();
        later.days().store(0, Ordering::Relaxed);
        assert_eq!(later.meet("parent", "/usr/sbin/sshd", "/bin/sh"), Met::Known);
        for _ in 0..2 {
            assert_eq!(later.meet("parent", "/usr/sbin/sshd", "/usr/bin/python3"), Met::New);
        }
        later.take_in("parent", "/usr/sbin/sshd", "/usr/bin/python3");
        assert_eq!(later.meet("parent", "/usr/sbin/sshd", "/usr/bin/python3"), Met::Known);
        assert_eq!(later.others("parent", "/usr/sbin/sshd").count(), 2);
        assert_eq!(Baseline::open(&state, 0).unwrap().others("parent", "/usr/sbin/sshd").count(), 2);
    }
}
