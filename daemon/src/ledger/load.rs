//! How much the alarm list asks of who reads it: ISA-18.2's measures, for `alarms stats`.
#![forbid(unsafe_code)]

use super::alarms::{severity, time};
use super::{LedgerError, Reader};
use crate::model::Severity;
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one operator can handle in ten minutes; more is a flood (ISA-18.2, EEMUA 191).
pub const FLOOD: u64 = 10;
/// Alarms named of each kind.
const NAMED: usize = 10;
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The measures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Taken when.
    pub at: Timestamp,
    /// How many alarms are in each state.
    pub states: BTreeMap<String, u64>,
    /// Of those that stand (unacknowledged, acknowledged), how many of each severity.
    pub standing: BTreeMap<String, u64>,
    /// Alarms that came up, or came up again, in the last ten minutes.
    pub last_10_minutes: u64,
    /// Findings counted towards alarms in the last ten minutes, beside those.
    pub repeats_10_minutes: u64,
    /// Alarms per ten minutes, on average of the last day (or since the first, if that is less).
    pub average_10_minutes: f64,
    /// The most in any ten minutes of the last day.
    pub peak_10_minutes: u64,
    /// When those ten minutes began.
    pub peak_at: Option<Timestamp>,
    /// Part of the last day's ten minutes that were a flood: more than [`FLOOD`].
    pub flood_share: f64,
    /// Alarms that stand for more than a day since they came up.
    pub stale: Vec<Named>,
    /// How many.
    pub stale_count: u64,
    /// Alarms that came up three times within a minute, in the last day.
    pub chattering: Vec<Named>,
    /// How many.
    pub chattering_count: u64,
    /// The alarms with the most occurrences.
    pub most_frequent: Vec<Named>,
    /// All occurrences of all alarms.
    pub occurrences: u64,
}

/// One alarm in a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Named {
    /// Its id.
    pub id: String,
    /// Its rule.
    pub rule: String,
    /// Its severity.
    pub severity: Severity,
    /// Its title.
    pub title: String,
    /// Occurrences.
    pub count: u64,
    /// Since when it stands.
    pub since: Timestamp,
    /// Its last occurrence.
    pub last: Timestamp,
}

impl Reader {
    /// The list's measures at `now`.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn load(&self, now: Timestamp) -> Result<Load, LedgerError> {
        let connection = self.has_alarms()?;
        load(connection, now).map_err(|e| self.error(e))
    }
}

fn load(connection: &Connection, now: Timestamp) -> rusqlite::Result<Load> {
    let day_ago = now.saturating_sub(DAY).unwrap_or(Timestamp::MIN);
    let mut load = Load { at: now, ..Load::default() };
    let mut states = connection.prepare("SELECT state, count(*), sum(count) FROM alarms GROUP BY state")?;
    for row in states.query_map([], |r| Ok((r.get(0)?, r.get::<_, i64>(1)?, r.get::<_, i64>(2)?)))? {
        let (state, alarms, occurrences): (String, _, _) = row?;
        load.states.insert(state, alarms.cast_unsigned());
        load.occurrences += occurrences.cast_unsigned();
    }
    let mut standing = connection.prepare(
        "SELECT severity, count(*) FROM alarms WHERE state IN ('unacknowledged', 'acknowledged') GROUP BY severity",
    )?;
    for row in standing.query_map([], |r| Ok((r.get(0)?, r.get::<_, i64>(1)?)))? {
        let (number, alarms) = row?;
        load.standing.insert(super::word(&severity(number)), alarms.cast_unsigned());
    }
    rates(connection, now, &mut load)?;

    let since = "coalesce((SELECT max(at) FROM alarm_changes c WHERE c.alarm = alarms.id
        AND json_extract(c.json, '$.to') = 'unacknowledged'), raised)";
    let of = |condition: &str, order: &str| -> rusqlite::Result<(Vec<Named>, u64)> {
        let sql = format!(
            "SELECT id, rule, severity, json_extract(json, '$.title'), count, {since} AS since, last FROM alarms
             WHERE {condition} ORDER BY {order} LIMIT {NAMED}"
        );
        let mut statement = connection.prepare(&sql)?;
        let rows = statement.query_map([], |r| {
            Ok(Named {
                id: r.get(0)?,
                rule: r.get(1)?,
                severity: severity(r.get(2)?),
                title: r.get::<_, Option<String>>(3)?.unwrap_or_default(),
                count: r.get::<_, i64>(4)?.cast_unsigned(),
                since: time(r.get(5)?),
                last: time(r.get(6)?),
            })
        })?;
        let named = rows.collect::<rusqlite::Result<_>>()?;
        let count = format!(
            "SELECT count(*) FROM (SELECT {since} AS since, * FROM alarms) AS alarms WHERE {condition}"
        );
        Ok((named, connection.query_row(&count, [], |r| r.get::<_, i64>(0))?.cast_unsigned()))
    };
    let day = day_ago.as_microsecond();
    (load.stale, load.stale_count) =
        of(&format!("state IN ('unacknowledged', 'acknowledged') AND since < {day}"), "since")?;
    (load.chattering, load.chattering_count) = of(&format!("chattered >= {day}"), "count DESC")?;
    load.most_frequent = of("1", "count DESC, last DESC")?.0;
    Ok(load)
}

/// The rates, from the counts by minute. Ten minutes begin at any minute, so a burst is not cut in two.
fn rates(connection: &Connection, now: Timestamp, load: &mut Load) -> rusqlite::Result<()> {
    let this = now.as_second().div_euclid(60);
    let mut statement = connection
        .prepare("SELECT minute, raised, repeated FROM alarm_minutes WHERE minute > ?1 AND minute <= ?2")?;
    let rows = statement.query_map([this - 24 * 60, this], |r| {
        Ok((r.get::<_, i64>(0)?, (r.get::<_, i64>(1)?.cast_unsigned(), r.get::<_, i64>(2)?.cast_unsigned())))
    })?;
    let minutes: BTreeMap<i64, (u64, u64)> = rows.collect::<rusqlite::Result<_>>()?;
    for (raised, repeated) in minutes.range(this - 9..).map(|(_, counts)| *counts) {
        load.last_10_minutes += raised;
        load.repeats_10_minutes += repeated;
    }
    let Some((&first, _)) = minutes.first_key_value() else { return Ok(()) };
    let total: u64 = minutes.values().map(|(raised, _)| raised).sum();
    let tens = ((this - first + 1) as f64 / 10.0).max(1.0);
    load.average_10_minutes = total as f64 / tens;
    let (mut floods, mut windows) = (0u32, 0u32);
    for begin in first - 9..=this - 9 {
        let mut window =
            minutes.range(begin..begin + 10).map(|(minute, (raised, _))| (minute, raised)).peekable();
        let from = window.peek().map(|(minute, _)| **minute);
        let raised: u64 = window.map(|(_, raised)| raised).sum();
        windows += 1;
        floods += u32::from(raised > FLOOD);
        if raised > load.peak_10_minutes {
            load.peak_10_minutes = raised;
            load.peak_at = from.and_then(|minute| Timestamp::from_second(minute * 60).ok());
        }
    }
    load.flood_share = f64::from(floods) / f64::from(windows.max(1));
    Ok(())
}
