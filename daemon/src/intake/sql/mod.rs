//! A table or view, polled by a key that grows.
//!
//! Comes in: `[[intake]] kind = "sql"` and how far it was read before. Goes out: batches with the place that follows
//! them. The table is only ever read.
#![forbid(unsafe_code)]

mod postgres;
mod sqlite;

use super::cursor::Cursor;
use super::report::Around;
use super::{AGAIN, Door, KIND, LONGEST};
use crate::config::intake::{Database, Sql};
use crate::ledger::Note;
use jiff::Timestamp;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Rows of one query.
const ROWS: usize = 500;
/// How often the place is kept though nothing came: the ledger forgets what is old.
const KEPT_EVERY: Duration = Duration::from_secs(3600);
/// How long a query may take.
const QUERY: Duration = Duration::from_secs(10);

/// One row: its key, and all its columns as one object; None: it is too long.
struct Row {
    key: i64,
    object: Option<Value>,
}

/// A database, connected.
trait Table {
    /// The highest key; None: there is no row.
    fn highest(&mut self) -> Result<Option<i64>, String>;
    /// Up to [`ROWS`] rows with keys above `above`, in order.
    fn rows(&mut self, above: i64) -> Result<Vec<Row>, String>;
}

pub(super) fn run(sql: &Sql, mut door: Door, kept: Option<String>) {
    let mut cursor: Option<Cursor> = kept.and_then(|json| serde_json::from_str(&json).ok());
    let mut table: Option<Box<dyn Table>> = None;
    let mut kept_at = Instant::now();
    while !door.is_over() {
        match poll(sql, &mut door, &mut table, &mut cursor) {
            Ok(()) => {
                door.well();
                if kept_at.elapsed() >= KEPT_EVERY
                    && let Some(cursor) = &cursor
                {
                    kept_at = Instant::now();
                    door.hand(vec![], Note::new(KIND, &door.from.clone(), cursor), None);
                }
                door.sleep(sql.every);
            }
            Err(why) => {
                table = None;
                door.lost(&why);
                door.sleep(sql.every.max(AGAIN));
            }
        }
    }
}

fn poll(
    sql: &Sql,
    door: &mut Door,
    table: &mut Option<Box<dyn Table>>,
    cursor: &mut Option<Cursor>,
) -> Result<(), String> {
    if table.is_none() {
        *table = Some(match &sql.database {
            Database::Sqlite(path) => Box::new(sqlite::File::open(path, sql)?),
            Database::Postgres { url, access } => Box::new(postgres::Server::connect(url, access, sql)?),
        });
    }
    let Some(table) = table else { return Ok(()) };
    let place = |cursor: &Cursor, door: &Door| Note::new(KIND, &door.from, cursor);
    if cursor.is_none() {
        // The first time ever: what is there by now is history, unless it was asked for.
        let begin = if sql.from_start { i64::MIN } else { table.highest()?.unwrap_or(i64::MIN) };
        let first = Cursor::at(begin);
        tracing::info!("intake {}: begins behind row {begin}", door.from);
        door.hand(vec![], place(&first, door), None);
        *cursor = Some(first);
    }
    let Some(cursor) = cursor else { return Ok(()) };
    let mut above = cursor.floor();
    loop {
        let rows = table.rows(above)?;
        let now = Timestamp::now().as_second();
        let full = rows.len() == ROWS;
        let before = cursor.clone();
        let mut words = Vec::new();
        for row in rows {
            above = above.max(row.key);
            if !cursor.take(row.key, now) {
                continue;
            }
            match row.object {
                Some(object) => words.extend(door.read(&object, Around::default())),
                None => door.refuse("the row is longer than 64 KiB"),
            }
        }
        if !full {
            cursor.settle(now, i64::try_from(sql.settle.as_secs()).unwrap_or(i64::MAX));
        }
        if *cursor != before && !door.hand(words, place(cursor, door), None) {
            return Ok(());
        }
        if !full {
            return Ok(());
        }
    }
}

/// A name as SQL writes it, so that it is nothing but a name.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn table_name(sql: &Sql) -> String {
    sql.table.iter().map(|part| quoted(part)).collect::<Vec<_>>().join(".")
}
