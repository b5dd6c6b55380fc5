//! The alarm list's own tables: how each alarm stands, every change of it, and the load by minute.
//!
//! Comes in: [`AlarmRow`]s. Goes out: the same to the next daemon, [`Alarm`]s and their history to the
//! commands. Called by the ledger and its reader. The columns say how an alarm stands; its JSON is the last
//! finding's, and may be older.
#![forbid(unsafe_code)]

use super::Letter;
use super::read::json;
use super::word;
use crate::alarms::Minutes;
use crate::alarms::state::{Hold, HoldKind, Holder, Standing};
use crate::model::{Alarm, Change, Severity};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::sync::Arc;
use uuid::Uuid;

/// Changes kept of one alarm.
const CHANGES: i64 = 200;
/// Minutes kept: 31 days.
const MINUTES: i64 = 31 * 24 * 60;

/// Not one alarm for each key: what was done with and forgotten by the list may come up again with a new id, and two
/// programs may write at the same time.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS alarms (
  id TEXT PRIMARY KEY, key TEXT NOT NULL, rule TEXT NOT NULL, severity INTEGER NOT NULL,
  state TEXT NOT NULL, raised INTEGER NOT NULL, last INTEGER NOT NULL, count INTEGER NOT NULL,
  json TEXT NOT NULL,
  active INTEGER NOT NULL DEFAULT 1, acknowledged INTEGER NOT NULL DEFAULT 0, until INTEGER,
  theirs INTEGER NOT NULL DEFAULT 0, sort INTEGER NOT NULL DEFAULT 0, chattered INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS alarms_last ON alarms(last);
CREATE INDEX IF NOT EXISTS alarms_standing ON alarms(state, severity, last);
CREATE TABLE IF NOT EXISTS alarm_changes (
  alarm TEXT NOT NULL, at INTEGER NOT NULL, json TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS alarm_changes_alarm ON alarm_changes(alarm, at);
CREATE INDEX IF NOT EXISTS alarm_changes_at ON alarm_changes(at);
CREATE TABLE IF NOT EXISTS alarm_minutes (
  minute INTEGER PRIMARY KEY, raised INTEGER NOT NULL, repeated INTEGER NOT NULL
);";

/// The table of schema 1 and 2 had one alarm for each key, and only its state's word.
pub(super) const FROM_2: &str = "
ALTER TABLE alarms RENAME TO alarms_2;
DROP INDEX IF EXISTS alarms_last;";
/// The rest of it, with the new tables made.
pub(super) const FROM_2_MOVE: &str = "
INSERT INTO alarms (id, key, rule, severity, state, raised, last, count, json)
  SELECT id, key, rule, severity, state, raised, last, count, json FROM alarms_2;
DROP TABLE alarms_2;";

/// How an alarm stands.
#[derive(Clone, Debug)]
pub struct AlarmRow {
    /// Its id.
    pub id: Uuid,
    /// What repeats are counted by; empty where the alarm itself is not here.
    pub key: String,
    /// The rule.
    pub rule: String,
    /// Of its last finding.
    pub severity: Severity,
    /// How it stands.
    pub standing: Standing,
    /// How often it came up.
    pub count: u64,
    /// First.
    pub raised: Timestamp,
    /// Last.
    pub last: Timestamp,
    /// Rule and program as one number.
    pub sort: u64,
    /// When it last chattered.
    pub chattered: Option<Timestamp>,
    /// With its finding. None: the row is there, with an older one.
    pub alarm: Option<Arc<Alarm>>,
    /// The last change of its state, where it was read.
    pub changed: Option<Change>,
    /// Changes that are to be added.
    pub changes: Vec<Change>,
    /// What sinks are to hear of it, as soon as it is committed.
    pub letters: Vec<Arc<Letter>>,
}

impl AlarmRow {
    /// `newer`, with what this one had to add.
    pub(super) fn followed_by(self, newer: Self) -> Self {
        let mut changes = self.changes;
        changes.extend(newer.changes);
        Self { alarm: newer.alarm.or(self.alarm), changes, ..newer }
    }
}

pub(super) fn write(connection: &Connection, row: &AlarmRow) -> rusqlite::Result<()> {
    let failed = |e: serde_json::Error| rusqlite::Error::ToSqlConversionFailure(Box::new(e));
    let id = row.id.to_string();
    let severity = row.severity as i64;
    let state = word(&row.standing.state());
    let (last, until) = (row.last.as_microsecond(), row.standing.until().map(|t| t.as_microsecond()));
    let count = i64::try_from(row.count).unwrap_or(i64::MAX);
    // An older version reads every other number as its source's.
    let theirs = match row.standing.hold.map(|h| h.by) {
        None | Some(Holder::Operator) => 0,
        Some(Holder::Source) => 1,
        Some(Holder::Design) => 2,
    };
    let chattered = row.chattered.map(|t| t.as_microsecond());
    let (active, acknowledged) = (row.standing.active, row.standing.acknowledged);
    if let Some(alarm) = &row.alarm {
        let mut whole = connection.prepare_cached(
            "INSERT INTO alarms (id, key, rule, severity, state, raised, last, count, json, active, acknowledged,
               until, theirs, sort, chattered)
             VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15)
             ON CONFLICT (id) DO UPDATE SET severity = ?4, state = ?5, last = ?7, count = ?8, json = ?9, active = ?10,
               acknowledged = ?11, until = ?12, theirs = ?13, sort = ?14, chattered = ?15",
        )?;
        whole.execute(params![
            id,
            alarm.finding.key,
            row.rule,
            severity,
            state,
            row.raised.as_microsecond(),
            last,
            count,
            serde_json::to_string(alarm.as_ref()).map_err(failed)?,
            active,
            acknowledged,
            until,
            theirs,
            row.sort.cast_signed(),
            chattered,
        ])?;
    } else {
        let mut standing = connection.prepare_cached(
            "UPDATE alarms SET severity = ?2, state = ?3, last = ?4, count = ?5, active = ?6, acknowledged = ?7,
               until = ?8, theirs = ?9, chattered = ?10 WHERE id = ?1",
        )?;
        standing.execute(params![
            id,
            severity,
            state,
            last,
            count,
            active,
            acknowledged,
            until,
            theirs,
            chattered
        ])?;
    }
    let mut add = connection.prepare_cached("INSERT INTO alarm_changes VALUES (?1, ?2, ?3)")?;
    for change in &row.changes {
        add.execute(params![id, change.at.as_microsecond(), serde_json::to_string(change).map_err(failed)?])?;
    }
    Ok(())
}

pub(super) fn write_minutes(connection: &Connection, minutes: &Minutes) -> rusqlite::Result<()> {
    let mut add = connection.prepare_cached(
        "INSERT INTO alarm_minutes VALUES (?1, ?2, ?3)
         ON CONFLICT (minute) DO UPDATE SET raised = raised + ?2, repeated = repeated + ?3",
    )?;
    for (minute, raised, repeated) in minutes.iter() {
        add.execute(params![minute, raised.cast_signed(), repeated.cast_signed()])?;
    }
    Ok(())
}

/// Forgets old alarms, but none that somebody holds off the list, and old changes.
pub(super) fn tidy(connection: &Connection, before: i64, now: Timestamp) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM alarms WHERE last < ?1 AND state NOT IN ('shelved', 'suppressed', 'out-of-service')",
        [before],
    )?;
    connection
        .execute("DELETE FROM alarm_changes WHERE NOT EXISTS (SELECT 1 FROM alarms WHERE id = alarm)", [])?;
    // A condition that comes and goes all day makes two a time.
    connection.execute(
        "DELETE FROM alarm_changes WHERE rowid IN (
           SELECT rowid FROM (
             SELECT rowid, row_number() OVER (PARTITION BY alarm ORDER BY at DESC, rowid DESC) AS n FROM alarm_changes
             WHERE alarm IN (SELECT alarm FROM alarm_changes GROUP BY alarm HAVING count(*) > ?1))
           WHERE n > ?1)",
        [CHANGES],
    )?;
    connection
        .execute("DELETE FROM alarm_minutes WHERE minute < ?1", [now.as_second().div_euclid(60) - MINUTES])?;
    Ok(())
}

/// How the alarms stand: what is not done with first, then the latest first.
pub(super) fn standing(connection: &Connection, most: usize) -> rusqlite::Result<Vec<AlarmRow>> {
    let mut statement = connection.prepare(&format!(
        "SELECT id, key, rule, severity, state, raised, last, count, active, acknowledged, until, theirs, sort,
           chattered, CASE WHEN sort = 0 THEN json END, {CHANGED}
         FROM alarms ORDER BY state = 'normal', last DESC LIMIT ?1"
    ))?;
    let rows = statement.query_map([i64::try_from(most).unwrap_or(i64::MAX)], |row| {
        // Older versions didn't write it.
        let sort = match row.get::<_, Option<String>>(14)? {
            Some(text) => crate::alarms::sort_of(&json::<Alarm>(&text)?.finding),
            None => row.get::<_, i64>(12)?.cast_unsigned(),
        };
        Ok(AlarmRow {
            id: id(row, 0)?,
            key: row.get(1)?,
            rule: row.get(2)?,
            severity: severity(row.get(3)?),
            raised: time(row.get(5)?),
            last: time(row.get(6)?),
            count: row.get::<_, i64>(7)?.try_into().unwrap_or(1),
            standing: standing_of(row, 4, 8)?,
            sort,
            chattered: row.get::<_, Option<i64>>(13)?.map(time),
            alarm: None,
            changed: row.get::<_, Option<String>>(15)?.map(|text| json(&text)).transpose()?,
            changes: vec![],
            letters: vec![],
        })
    })?;
    rows.collect()
}

/// All alarms, the latest first.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<Alarm>> {
    let mut statement =
        connection.prepare(&format!("SELECT {OVERLAID} FROM alarms ORDER BY last DESC, id DESC"))?;
    let rows = statement.query_map([], overlaid)?;
    rows.collect()
}

/// One alarm.
pub(super) fn one(connection: &Connection, id: Uuid) -> rusqlite::Result<Option<Alarm>> {
    connection
        .prepare_cached(&format!("SELECT {OVERLAID} FROM alarms WHERE id = ?1"))?
        .query_row([id.to_string()], overlaid)
        .optional()
}

/// The last change of an alarm, as SQL.
macro_rules! changed {
    () => {
        "(SELECT c.json FROM alarm_changes c WHERE c.alarm = alarms.id ORDER BY c.at DESC, c.rowid DESC LIMIT 1)"
    };
}

/// What [`overlaid`] reads.
pub(super) const OVERLAID: &str = concat!("json, state, count, last, severity, ", changed!());
const CHANGED: &str = changed!();

/// An alarm from its JSON, with what is newer in the columns.
pub(super) fn overlaid(row: &Row<'_>) -> rusqlite::Result<Alarm> {
    let mut alarm: Alarm = json(&row.get::<_, String>(0)?)?;
    alarm.state = json(&format!("{:?}", row.get::<_, String>(1)?))?;
    alarm.count = row.get::<_, i64>(2)?.try_into().unwrap_or(1);
    let last = row.get(3)?;
    // The column is coarser.
    if alarm.last.as_microsecond() != last {
        alarm.last = time(last);
    }
    alarm.finding.severity = severity(row.get(4)?);
    if let Some(changed) = row.get::<_, Option<String>>(5)? {
        alarm.changed = Some(json(&changed)?);
    }
    Ok(alarm)
}

/// From the state's word in column `state`, and active, acknowledged, until, theirs from column `at` on.
fn standing_of(row: &Row<'_>, state: usize, at: usize) -> rusqlite::Result<Standing> {
    let until: Option<i64> = row.get(at + 2)?;
    let kind = match row.get_ref(state)?.as_str().unwrap_or("") {
        "shelved" => Some(HoldKind::Shelved { until: until.map_or(Timestamp::MIN, time) }),
        "suppressed" => Some(HoldKind::Suppressed),
        "out-of-service" => Some(HoldKind::OutOfService),
        _ => None,
    };
    let by = match row.get(at + 3)? {
        0 => Holder::Operator,
        2 => Holder::Design,
        _ => Holder::Source,
    };
    Ok(Standing {
        active: row.get(at)?,
        acknowledged: row.get(at + 1)?,
        hold: kind.map(|kind| Hold { kind, by }),
    })
}

pub(super) fn time(microseconds: i64) -> Timestamp {
    Timestamp::from_microsecond(microseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

pub(super) fn severity(number: i64) -> Severity {
    match number {
        0 => Severity::Info,
        1 => Severity::Low,
        2 => Severity::Medium,
        3 => Severity::High,
        _ => Severity::Critical,
    }
}

fn id(row: &Row<'_>, at: usize) -> rusqlite::Result<Uuid> {
    let text: String = row.get(at)?;
    text.parse().map_err(|e: uuid::Error| {
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(e))
    })
}
