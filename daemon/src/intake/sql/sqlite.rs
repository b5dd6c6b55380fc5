//! A SQLite file.
#![forbid(unsafe_code)]

use super::{LONGEST, QUERY, ROWS, Row, Table, quoted, table_name};
use crate::config::intake::Sql;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, params};
use serde_json::{Map, Value};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Instructions between two looks at the clock.
const LOOK_AFTER: i32 = 10_000;

/// The file, open to read.
pub(super) struct File {
    path: PathBuf,
    /// Another file under the same name is another database.
    inode: (u64, u64),
    connection: Connection,
    highest: String,
    rows: String,
    clock: Arc<Clock>,
}

/// Until when a query may run, in milliseconds since `start`.
struct Clock {
    start: Instant,
    until: AtomicU64,
}

impl Clock {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl File {
    pub(super) fn open(path: &Path, sql: &Sql) -> Result<Self, String> {
        let wrong = |e: rusqlite::Error| format!("{}: {e}", path.display());
        let inode = inode(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(wrong)?;
        let set = |connection: &Connection| -> rusqlite::Result<()> {
            connection.busy_timeout(Duration::from_secs(2))?;
            // The file is somebody else's, and may be made to harm who reads it.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
            connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, 4 << 20)?;
            connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
            connection.pragma_update(None, "cell_size_check", true)?;
            connection.pragma_update(None, "query_only", true)
        };
        set(&connection).map_err(wrong)?;
        let clock = Arc::new(Clock { start: Instant::now(), until: AtomicU64::new(u64::MAX) });
        let watch = Arc::clone(&clock);
        connection
            .progress_handler(LOOK_AFTER, Some(move || watch.now() > watch.until.load(Ordering::Relaxed)))
            .map_err(wrong)?;
        let (key, table) = (quoted(&sql.key), table_name(sql));
        Ok(Self {
            path: path.to_owned(),
            inode,
            connection,
            highest: format!("SELECT max({key}) FROM {table}"),
            // `"name"` of a column that isn't there would be a text to SQLite; behind the table's alias it is an error.
            rows: format!(
                "SELECT t.{key}, t.* FROM {table} AS t WHERE t.{key} > ?1 ORDER BY t.{key} LIMIT {ROWS}"
            ),
            clock,
        })
    }

    /// The same file still, and time begins to count.
    fn ready(&self) -> Result<(), String> {
        if inode(&self.path)? != self.inode {
            return Err(format!("{} was replaced by another file", self.path.display()));
        }
        let until = self.clock.now().saturating_add(QUERY.as_millis() as u64);
        self.clock.until.store(until, Ordering::Relaxed);
        Ok(())
    }
}

fn inode(path: &Path) -> Result<(u64, u64), String> {
    let meta = std::fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?;
    match meta.is_file() {
        true => Ok((meta.dev(), meta.ino())),
        false => Err(format!("{} is no regular file", path.display())),
    }
}

impl Table for File {
    fn highest(&mut self) -> Result<Option<i64>, String> {
        self.ready()?;
        let said = |e: rusqlite::Error| format!("{}: {e}", self.path.display());
        self.connection.query_row(&self.highest, [], |row| row.get(0)).map_err(said)
    }

    fn rows(&mut self, above: i64) -> Result<Vec<Row>, String> {
        self.ready()?;
        let said = |e: rusqlite::Error| format!("{}: {e}", self.path.display());
        let mut query = self.connection.prepare_cached(&self.rows).map_err(said)?;
        let names: Vec<String> = query.column_names().skip(1).map(str::to_owned).collect();
        let mut rows = query.query(params![above]).map_err(said)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(said)? {
            let key: i64 = row.get(0).map_err(|_| {
                format!(
                    "{}: the key must be a whole number, and has to be there in every row",
                    self.path.display()
                )
            })?;
            let mut object = Map::new();
            let mut length = 0;
            for (i, name) in names.iter().enumerate() {
                let value = match row.get_ref(i + 1).map_err(said)? {
                    ValueRef::Integer(n) => Value::from(n),
                    ValueRef::Real(n) => Value::from(n),
                    ValueRef::Text(text) => {
                        length += text.len();
                        Value::from(String::from_utf8_lossy(&text[..text.len().min(LONGEST)]).into_owned())
                    }
                    // Nothing that is asked for is one.
                    ValueRef::Null | ValueRef::Blob(_) => Value::Null,
                };
                object.insert(name.clone(), value);
            }
            found.push(Row { key, object: (length <= LONGEST).then_some(Value::Object(object)) });
        }
        Ok(found)
    }
}
