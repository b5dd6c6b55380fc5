//! A PostgreSQL server.
#![forbid(unsafe_code)]

use super::super::tls;
use super::{LONGEST, QUERY, ROWS, Row, Table, quoted, table_name};
use crate::config::intake::{Access, Sql};
use postgres::config::SslMode;
use postgres::{Client, Config, NoTls, Statement};
use std::time::Duration;
use tokio_postgres_rustls::MakeRustlsConnect;

const CONNECT: Duration = Duration::from_secs(5);

/// A connection, and what is asked of it.
pub(super) struct Server {
    client: Client,
    highest: Statement,
    rows: Statement,
}

impl Server {
    pub(super) fn connect(url: &str, access: &Access, sql: &Sql) -> Result<Self, String> {
        let mut config: Config = url.parse().map_err(|e| said(&e))?;
        if let Some(password) = tls::password(access)? {
            config.password(password);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_application_name().is_none() {
            config.application_name("counterfoil");
        }
        // What the kernel says after a cable was pulled takes hours otherwise.
        config.keepalives_idle(Duration::from_secs(30)).tcp_user_timeout(QUERY * 2);
        let own = config.get_options().unwrap_or("").to_owned();
        config.options(&format!(
            "{own} -c statement_timeout={} -c default_transaction_read_only=on -c DateStyle=ISO -c TimeZone=UTC",
            QUERY.as_millis()
        ));
        let mut client = match config.get_ssl_mode() {
            SslMode::Disable => config.connect(NoTls),
            _ => config.connect(MakeRustlsConnect::new(tls::client(access)?)),
        }
        .map_err(|e| said(&e))?;
        let (key, table) = (quoted(&sql.key), table_name(sql));
        let highest = format!("SELECT max(t.{key})::bigint FROM {table} AS t");
        // The server makes the object: all its types are text by then.
        let rows = format!(
            "SELECT key, CASE WHEN length(object) <= {LONGEST} THEN object END FROM \
             (SELECT t.{key}::bigint AS key, to_jsonb(t)::text AS object FROM {table} AS t \
             WHERE t.{key} > $1::bigint ORDER BY t.{key} LIMIT {ROWS}) AS r ORDER BY key"
        );
        let highest = client.prepare(&highest).map_err(|e| said(&e))?;
        let rows = client.prepare(&rows).map_err(|e| said(&e))?;
        Ok(Self { client, highest, rows })
    }
}

/// The whole chain: the outer error says little.
fn said(e: &postgres::Error) -> String {
    let mut text = e.to_string();
    let mut source = std::error::Error::source(e);
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    format!("PostgreSQL: {text}")
}

impl Table for Server {
    fn highest(&mut self) -> Result<Option<i64>, String> {
        self.client.query_one(&self.highest, &[]).and_then(|row| row.try_get(0)).map_err(|e| said(&e))
    }

    fn rows(&mut self, above: i64) -> Result<Vec<Row>, String> {
        let rows = self.client.query(&self.rows, &[&above]).map_err(|e| said(&e))?;
        rows.iter()
            .map(|row| {
                let (key, json): (i64, Option<&str>) =
                    (row.try_get(0).map_err(|e| said(&e))?, row.try_get(1).map_err(|e| said(&e))?);
                Ok(Row { key, object: json.and_then(|json| serde_json::from_str(json).ok()) })
            })
            .collect()
    }
}
