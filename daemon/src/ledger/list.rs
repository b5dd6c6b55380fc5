//! Which alarms: the filters of `counterfoil alarms`, as SQL.
//!
//! Comes in: a [`Filter`]. Goes out: alarms, the gravest first or the latest. Called by the commands, and by `control`
//! for who may not read the file.
#![forbid(unsafe_code)]

use super::alarms::{OVERLAID, overlaid};
use super::read::json;
use super::{LedgerError, Reader, word};
use crate::model::{Alarm, AlarmState, Analytic, Change, Severity, Transfer};
use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{OptionalExtension, params_from_iter};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Which alarms, and in which order. Texts are a whole value, or a pattern (`*`, `?`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// In one of these states; none: in any.
    pub states: Vec<AlarmState>,
    /// At least so severe.
    pub severity: Option<Severity>,
    /// The rule.
    pub rule: Option<String>,
    /// The analytic.
    pub analytic: Option<Analytic>,
    /// The process's program: its path, or the end of it.
    pub exe: Option<String>,
    /// The file's path, or the end of it.
    pub file: Option<String>,
    /// The connection's remote address, with or without port, or the server's name.
    pub destination: Option<String>,
    /// The process's user, by name or number.
    pub user: Option<String>,
    /// A process alarm's tag.
    pub tag: Option<String>,
    /// Last seen, or changed, then or later.
    pub since: Option<Timestamp>,
    /// The latest first; else the gravest first, and of these the latest.
    pub latest_first: bool,
    /// At most so many.
    pub limit: Option<u32>,
}

impl Filter {
    fn conditions(&self) -> (String, Vec<Value>) {
        let mut sql = String::from("1");
        let mut values = Vec::new();
        let mut add = |condition: &str, value: Value| {
            values.push(value);
            sql.push_str(&format!(" AND ({})", condition.replace('@', &format!("?{}", values.len()))));
        };
        if !self.states.is_empty() {
            let words: Vec<String> = self.states.iter().map(word).collect();
            // Words of our own, none of which holds another.
            add("instr(@, ' ' || state || ' ')", Value::Text(format!(" {} ", words.join(" "))));
        }
        if let Some(severity) = self.severity {
            add("severity >= @", Value::Integer(severity as i64));
        }
        if let Some(since) = self.since {
            let changed = "SELECT max(at) FROM alarm_changes c WHERE c.alarm = alarms.id";
            add(&format!("max(last, coalesce(({changed}), 0)) >= @"), Value::Integer(since.as_microsecond()));
        }
        if let Some(analytic) = &self.analytic {
            add("json_extract(json, '$.analytic') = @", Value::Text(word(analytic)));
        }
        if let Some(rule) = &self.rule {
            add("rule GLOB @", pattern(rule));
        }
        for (path, value) in [("$.process.exe", &self.exe), ("$.file.path", &self.file)] {
            if let Some(value) = value {
                let at = format!("json_extract(json, '{path}')");
                add(&format!("{at} GLOB @ OR {at} GLOB '*/' || @"), pattern(value));
            }
        }
        if let Some(to) = &self.destination {
            let (remote, name) = (
                "json_extract(json, '$.connection.remote')",
                "json_extract(json, '$.connection.server_name')",
            );
            let any = format!(
                "{remote} GLOB @ OR {remote} GLOB @ || ':*' OR {remote} GLOB '[[]' || @ || ']:*' OR {name} GLOB @"
            );
            add(&any, pattern(to));
        }
        if let Some(user) = &self.user {
            let either = "json_extract(json, '$.process.user') GLOB @ OR json_extract(json, '$.process.uid') || '' = @";
            add(either, pattern(user));
        }
        if let Some(tag) = &self.tag {
            add("json_extract(json, '$.point.tag') GLOB @", pattern(tag));
        }
        (sql, values)
    }
}

/// `*` and `?` are what people know; a bracket, as in an address or a `[kthread]`, is itself.
fn pattern(text: &str) -> Value {
    Value::Text(text.replace('[', "[[]"))
}

impl Reader {
    /// Gives the alarms that `filter` lets through to `each`, until it says false.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn list(&self, filter: &Filter, mut each: impl FnMut(Alarm) -> bool) -> Result<(), LedgerError> {
        let connection = self.has_alarms()?;
        let (conditions, values) = filter.conditions();
        let order = if filter.latest_first {
            "last DESC, id DESC"
        } else {
            // What nobody has seen, then what goes on, then the others.
            "CASE state WHEN 'unacknowledged' THEN 0 WHEN 'acknowledged' THEN 1 WHEN 'returned' THEN 1 ELSE 2 END,
             severity DESC, last DESC, id DESC"
        };
        let limit = filter.limit.map_or(-1, i64::from);
        let sql = format!("SELECT {OVERLAID} FROM alarms WHERE {conditions} ORDER BY {order} LIMIT {limit}");
        (|| {
            let mut statement = connection.prepare(&sql)?;
            let mut rows = statement.query(params_from_iter(values))?;
            while let Some(row) = rows.next()? {
                if !each(overlaid(row)?) {
                    break;
                }
            }
            Ok(())
        })()
        .map_err(|e| self.error(e))
    }

    /// How many alarms `filter` lets through, its limit apart.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn count(&self, filter: &Filter) -> Result<u64, LedgerError> {
        let (conditions, values) = filter.conditions();
        let sql = format!("SELECT count(*) FROM alarms WHERE {conditions}");
        self.has_alarms()?
            .query_row(&sql, params_from_iter(values), |row| row.get::<_, i64>(0))
            .map(|n| n.try_into().unwrap_or(0))
            .map_err(|e| self.error(e))
    }

    /// Every alarm's id.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn alarm_ids(&self) -> Result<Vec<Uuid>, LedgerError> {
        let connection = self.has_alarms()?;
        (|| {
            let mut statement = connection.prepare("SELECT id FROM alarms")?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.map(|text| Ok(text?.parse().unwrap_or_default())).collect::<rusqlite::Result<_>>()
        })()
        .map_err(|e| self.error(e))
    }

    /// Every change of an alarm's state, the oldest first.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn history(&self, id: Uuid) -> Result<Vec<Change>, LedgerError> {
        let connection = self.has_alarms()?;
        (|| {
            let mut statement =
                connection.prepare("SELECT json FROM alarm_changes WHERE alarm = ?1 ORDER BY at, rowid")?;
            let rows = statement.query_map([id.to_string()], |row| row.get::<_, String>(0))?;
            rows.map(|text| json(&text?)).collect::<rusqlite::Result<_>>()
        })()
        .map_err(|e| self.error(e))
    }

    /// One transfer.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn transfer(&self, id: Uuid) -> Result<Option<Transfer>, LedgerError> {
        self.connection
            .query_row("SELECT json FROM transfers WHERE id = ?1", [id.to_string()], |row| {
                row.get::<_, String>(0)
            })
            .optional()
            .and_then(|text| text.map(|t| json(&t)).transpose())
            .map_err(|e| self.error(e))
    }
}
