//! `[[intake]]`: where operations say what they know.
//!
//! Comes in: its tables. Goes out: [`Intake`]s and mistakes. Called by `read`.
#![forbid(unsafe_code)]

use super::read::required;
use super::section::{Mistakes, Section, article, nearest, tables};
use super::values::{SyslogAddress, absolute, duration, one_of, syslog_address};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What can be mapped.
const FIELDS: &[&str] =
    &["tag", "condition", "value", "limit", "unit", "state", "time", "severity", "message"];

/// One `[[intake]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Intake {
    /// What it is called in alarms; a position is kept under it.
    pub name: String,
    /// What it is.
    pub kind: IntakeKind,
    /// Where things are in what comes.
    pub mapping: Mapping,
}

/// Where process alarms and values come from.
#[derive(Clone, Debug, PartialEq)]
pub enum IntakeKind {
    /// A table or view with a key that grows.
    Sql(Sql),
    /// RFC 5424 messages, sent to us.
    Syslog(SyslogAddress),
    /// JSON Lines, sent to us.
    Jsonl(SyslogAddress),
    /// An MQTT broker.
    Mqtt(Mqtt),
}

/// `kind = "sql"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sql {
    /// Where the table is.
    pub database: Database,
    /// Table or view, with its schema if need be.
    pub table: Vec<String>,
    /// The column that grows.
    pub key: String,
    /// How often it is looked at.
    pub every: Duration,
    /// The first time, begin with the first row, not with the next one.
    pub from_start: bool,
    /// How long a number that was left out is waited for.
    pub settle: Duration,
}

/// A database.
#[derive(Clone, Debug, PartialEq)]
pub enum Database {
    /// A file.
    Sqlite(PathBuf),
    /// A connection URL, without a password.
    Postgres {
        /// `postgresql://user@host:port/name`.
        url: String,
        /// How to prove who we are, and who they are.
        access: Access,
    },
}

/// What opens a connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// Certificates that are believed (PEM); None: the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key (PEM).
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// `kind = "mqtt"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mqtt {
    /// `host`.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// TLS.
    pub tls: bool,
    /// Topic filters.
    pub topics: Vec<String>,
    /// Who we are to the broker; it keeps messages for us under this name while we are away.
    pub client_id: Option<String>,
    /// The broker's name for us.
    pub user: Option<String>,
    /// How to prove it.
    pub access: Access,
}

/// Where things are in what comes, and what its words mean.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mapping {
    /// Our name to theirs: a key, a dotted path, a JSON pointer, `$topic` or `$payload`.
    pub fields: BTreeMap<String, String>,
    /// Their word to ours.
    pub words: BTreeMap<String, String>,
}

impl Mapping {
    /// What `name` is called there, if it was said.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// A value in our words.
    #[must_use]
    pub fn translated(&self, value: &serde_json::Value) -> serde_json::Value {
        let word = match value {
            serde_json::Value::String(word) => self.words.get(word.trim()),
            serde_json::Value::Number(_) | serde_json::Value::Bool(_) => self.words.get(&value.to_string()),
            _ => None,
        };
        word.map_or_else(|| value.clone(), |w| serde_json::Value::String(w.clone()))
    }
}

/// All `[[intake]]`.
pub(super) fn intakes(file: &mut Section<'_, '_>, m: &mut Mistakes) -> Vec<Intake> {
    let mut all: Vec<Intake> = Vec::new();
    for s in tables(file, "intake", "[[intake]]", m) {
        let span = s.span.clone();
        let Some(intake) = intake(s, m) else { continue };
        if all.iter().any(|i| i.name == intake.name) {
            m.at(&span, format!("two intakes are called `{}`; give each a name of its own", intake.name));
        }
        all.push(intake);
    }
    all
}

#[derive(Clone, Copy)]
enum Kind {
    Sql,
    Syslog,
    Mqtt,
    Jsonl,
}

fn intake(mut s: Section<'_, '_>, m: &mut Mistakes) -> Option<Intake> {
    let kinds = [("sql", Kind::Sql), ("syslog", Kind::Syslog), ("mqtt", Kind::Mqtt), ("jsonl", Kind::Jsonl)];
    let span = s.span.clone();
    let Some((word, kind_span)) = s.string("kind", m) else {
        m.at(&span, "an intake needs a kind: \"sql\", \"syslog\", \"mqtt\" or \"jsonl\"");
        return None;
    };
    let kind = one_of(word, &kinds).map_err(|why| m.at(&kind_span, format!("kind: {why}"))).ok()?;
    let name = s.parsed("name", m, name).unwrap_or_else(|| word.to_owned());
    let mapping =
        Mapping { fields: pairs(&mut s, "fields", FIELDS, m), words: pairs(&mut s, "words", &[], m) };
    let kind = match kind {
        Kind::Sql => sql(&mut s, m).map(IntakeKind::Sql),
        Kind::Mqtt => mqtt(&mut s, m).map(IntakeKind::Mqtt),
        Kind::Syslog => listen(&mut s, m).map(IntakeKind::Syslog),
        Kind::Jsonl => {
            let span = s.span.clone();
            match listen(&mut s, m) {
                Some(SyslogAddress::Udp(_)) => {
                    m.at(&span, "JSON Lines come over \"unix:/path\" or \"tcp:host:port\"");
                    None
                }
                other => other.map(IntakeKind::Jsonl),
            }
        }
    };
    s.finish(m);
    Some(Intake { name, kind: kind?, mapping })
}

fn name(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match !text.is_empty() && text.len() <= 64 && text.chars().all(fine) {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}`: letters, digits, `-`, `_` and `.`, at most 64")),
    }
}

fn listen(s: &mut Section<'_, '_>, m: &mut Mistakes) -> Option<SyslogAddress> {
    let missing = "it needs an address to listen on: listen = \"unix:/run/…\" or \"tcp:127.0.0.1:6514\"";
    required(s, "listen", missing, m, |text| match syslog_address(text)? {
        SyslogAddress::Tls(_) => {
            Err("an intake listens on \"unix:\", \"udp:\" or \"tcp:\"; let a syslog daemon end TLS before it"
                .into())
        }
        address => Ok(address),
    })
}

fn access(s: &mut Section<'_, '_>, m: &mut Mistakes) -> Access {
    let span = s.span.clone();
    let password_file = s.parsed("password_file", m, absolute);
    let ca = s.parsed("ca", m, absolute);
    let (own, key) = (s.parsed("certificate", m, absolute), s.parsed("certificate_key", m, absolute));
    if own.is_some() != key.is_some() {
        m.at(&span, "certificate and certificate_key come together");
    }
    Access { password_file, ca, certificate: own.zip(key) }
}

fn sql(s: &mut Section<'_, '_>, m: &mut Mistakes) -> Option<Sql> {
    let missing = "it needs a database: \"sqlite:/path\" or \"postgresql://user@host/name\"";
    let database = required(s, "database", missing, m, |text| match text.split_once(':') {
        Some(("sqlite", path)) => absolute(path).map(Database::Sqlite),
        Some(("postgresql" | "postgres", _)) => {
            let config: postgres::Config = text.parse().map_err(|e| format!("no PostgreSQL URL: {e}"))?;
            match config.get_password() {
                Some(_) => Err("a password doesn't belong here: name a file with it as password_file".into()),
                None => Ok(Database::Postgres { url: text.to_owned(), access: Access::default() }),
            }
        }
        _ => Err(format!("`{text}`: write \"sqlite:/path\" or \"postgresql://user@host/name\"")),
    });
    let table = required(s, "table", "it needs a table, or a view", m, |text| {
        let parts: Vec<String> = text.split('.').map(str::to_owned).collect();
        match parts.iter().all(|p| !p.is_empty() && p.len() < 64 && !p.contains('\0')) && parts.len() <= 3 {
            true => Ok(parts),
            false => Err(format!("`{text}` is no name of a table")),
        }
    });
    let key = required(s, "key", "it needs a key: the column with a whole number that grows", m, |text| {
        match text.is_empty() || text.len() > 63 || text.contains('\0') {
            true => Err(format!("`{text}` is no name of a column")),
            false => Ok(text.to_owned()),
        }
    });
    let every = s.parsed("every", m, at_least(100)).unwrap_or(Duration::from_secs(1));
    let settle = s.parsed("settle", m, duration).unwrap_or(Duration::from_secs(60));
    let from_start = s.parsed("from", m, |t| one_of(t, &[("start", true), ("now", false)])).unwrap_or(false);
    let database = match database {
        Some(Database::Postgres { url, .. }) => Some(Database::Postgres { url, access: access(s, m) }),
        other => other,
    };
    Some(Sql { database: database?, table: table?, key: key?, every, from_start, settle })
}

pub(super) fn at_least(millis: u64) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| match duration(text)? {
        d if d < Duration::from_millis(millis) => Err(format!("at least {millis}ms")),
        d => Ok(d),
    }
}

fn mqtt(s: &mut Section<'_, '_>, m: &mut Mistakes) -> Option<Mqtt> {
    let missing = "it needs a broker: \"tls:host:8883\" or \"tcp:host:1883\"";
    let broker = required(s, "broker", missing, m, |text| {
        let form = || format!("`{text}`: write \"tls:host:8883\" or \"tcp:host:1883\"");
        let (scheme, rest) = text.split_once(':').ok_or_else(form)?;
        let tls = one_of(scheme, &[("tls", true), ("tcp", false)]).map_err(|_| form())?;
        // The same rules for hosts and ports as elsewhere.
        syslog_address(&format!("tcp:{rest}")).map_err(|_| form())?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(form)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok((host, port.parse().map_err(|_| form())?, tls))
    });
    let topics = topics(s, m);
    if topics.is_empty() {
        m.at(&s.span.clone(), "it needs topics: an array of topic filters, as [\"plant/+/alarm\"]");
    }
    let client_id = s.parsed("client_id", m, name);
    let user = s.string("user", m).map(|(user, _)| user.to_owned());
    let access = access(s, m);
    let (host, port, tls) = broker?;
    Some(Mqtt { host, port, tls, topics, client_id, user, access })
}

pub(super) fn topics(s: &mut Section<'_, '_>, m: &mut Mistakes) -> Vec<String> {
    let mut all = Vec::new();
    for (value, span) in s.array("topics", "topic filters", m).unwrap_or_default() {
        match value.as_str() {
            Some(filter) if is_filter(filter) => all.push(filter.to_owned()),
            Some(filter) => m.at(&span, format!("`{filter}` is no topic filter: `+` stands for one whole level, `#` for all that are left, at the end")),
            None => m.at(&span, format!("a topic filter must be a string, not {}", article(value))),
        }
    }
    all
}

/// MQTT 3.1.1, 4.7.1.
fn is_filter(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    let mut good = !filter.is_empty() && filter.len() <= 256 && !filter.contains('\0');
    while let Some(level) = levels.next() {
        good &= match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            other => !other.contains(['+', '#']),
        };
    }
    good
}

/// A table of strings. With `known` the keys must be among them.
fn pairs(
    s: &mut Section<'_, '_>,
    key: &'static str,
    known: &'static [&'static str],
    m: &mut Mistakes,
) -> BTreeMap<String, String> {
    let Some((_, value, span)) = s.take(key) else { return BTreeMap::new() };
    let Some(table) = value.as_table() else {
        m.at(&span, format!("{key} must be a table, as {{ tag = \"name\" }}, not {}", article(value)));
        return BTreeMap::new();
    };
    let mut found = BTreeMap::new();
    for (name, value) in table {
        if !known.is_empty() && !known.contains(&name.get_ref().as_ref()) {
            let near = nearest(name.get_ref(), known);
            m.at(
                &name.span(),
                format!("unknown field `{}` in {key}{near}", crate::escape::text(name.get_ref())),
            );
            continue;
        }
        match value.get_ref().as_str() {
            Some(text) => _ = found.insert(name.get_ref().to_string(), text.to_owned()),
            None => m.at(&value.span(), format!("{key}: a string, not {}", article(value.get_ref()))),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn mistakes(text: &str) -> Vec<String> {
        parse(text).expect_err(text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_kind() {
        let text = r##"
[[intake]]
name = "historian"
kind = "sql"
database = "postgresql://reader@db.plant:5432/ops?sslmode=require"
password_file = "/etc/counterfoil/ops.password"
ca = "/etc/ssl/plant.pem"
table = "ops.alarms"
key = "id"
every = "500ms"
from = "start"
fields = { tag = "tagname", value = "pv" }
words = { "HochHoch" = "HIHI", "0" = "normal" }
[[intake]]
kind = "sql"
database = "sqlite:/var/lib/ops/alarms.db"
table = "alarms"
key = "rowid"
[[intake]]
kind = "syslog"
listen = "udp:127.0.0.1:5514"
[[intake]]
kind = "mqtt"
broker = "tls:[::1]:8883"
topics = ["plant/+/alarm", "plant/#"]
user = "counterfoil"
certificate = "/a"
certificate_key = "/b"
[[intake]]
kind = "jsonl"
listen = "unix:/run/ops.sock"
[[alarms.limit]]
variable = "TI-101"
hihi = 95
hi = 90.5
lo = -10
deadband = 2
on_delay = "5s"
off_delay = "10s"
unit = "°C"
[[alarms.limit]]
variable = "counterfoil.lag"
hi = 500
[[alarms.carrier]]
topics = ["plant/#"]
wait = "5s"
[[alarms.carrier]]
tag = "TI-101"
program = "psql"
service = "5432"
"##;
        let config = parse(text).unwrap_or_else(|e| panic!("{e:#?}")).config;
        let names: Vec<&str> = config.intakes.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["historian", "sql", "syslog", "mqtt", "jsonl"]);
        let IntakeKind::Sql(sql) = &config.intakes[0].kind else { panic!() };
        assert_eq!(
            (sql.table.join("."), sql.from_start, sql.every.as_millis()),
            ("ops.alarms".into(), true, 500)
        );
        let Database::Postgres { access, .. } = &sql.database else { panic!() };
        assert!(access.password_file.is_some() && access.ca.is_some());
        assert_eq!(config.intakes[0].mapping.field("value"), Some("pv"));
        let IntakeKind::Mqtt(mqtt) = &config.intakes[3].kind else { panic!() };
        assert_eq!((mqtt.host.as_str(), mqtt.port, mqtt.tls, mqtt.topics.len()), ("::1", 8883, true, 2));
        let limit = &config.limits[0];
        assert_eq!(
            (limit.hihi, limit.hi, limit.lo, limit.lolo, limit.deadband),
            (Some(95.0), Some(90.5), Some(-10.0), None, 2.0)
        );
        assert_eq!(config.carriers[0].wait, Duration::from_secs(5));
        assert_eq!(config.carriers[1].tag.as_deref(), Some("TI-101"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("[intake]\nkind = \"sql\"\n", "[[intake]]"),
            ("[[intake]]\nname = \"x\"\n", "needs a kind"),
            ("[[intake]]\nkind = \"mqt\"\n", "did you mean `mqtt`?"),
            ("[[intake]]\nkind = \"mqtt\"\ntopics = [\"a\"]\n", "needs a broker"),
            ("[[intake]]\nkind = \"mqtt\"\nbroker = \"tcp:h:1883\"\n", "needs topics"),
            (
                "[[intake]]\nkind = \"mqtt\"\nbroker = \"tcp:h:1883\"\ntopics = [\"a/#/b\"]\n",
                "no topic filter",
            ),
            ("[[intake]]\nkind = \"mqtt\"\nbroker = \"h\"\ntopics = [\"a\"]\n", "tls:host:8883"),
            (
                "[[intake]]\nkind = \"sql\"\ndatabase = \"mysql:x\"\ntable = \"t\"\nkey = \"id\"\n",
                "sqlite:/path",
            ),
            (
                "[[intake]]\nkind = \"sql\"\ndatabase = \"postgresql://u:secret@h/d\"\ntable = \"t\"\nkey = \"id\"\n",
                "password_file",
            ),
            ("[[intake]]\nkind = \"sql\"\ndatabase = \"sqlite:/x\"\nkey = \"id\"\n", "needs a table"),
            (
                "[[intake]]\nkind = \"sql\"\ndatabase = \"sqlite:/x\"\ntable = \"t\"\nkey = \"id\"\npasword_file = \"/x\"\n",
                "unknown key `pasword_file`",
            ),
            ("[[intake]]\nkind = \"jsonl\"\nlisten = \"udp:h:1\"\n", "JSON Lines come over"),
            (
                "[[intake]]\nkind = \"jsonl\"\nlisten = \"unix:/a\"\n[[intake]]\nkind = \"jsonl\"\nlisten = \"unix:/b\"\n",
                "two intakes",
            ),
            (
                "[[intake]]\nkind = \"syslog\"\nlisten = \"unix:/a\"\nfields = { tga = \"x\" }\n",
                "did you mean `tag`?",
            ),
            ("[[intake]]\nkind = \"syslog\"\nlisten = \"tls:h:6514\"\n", "let a syslog daemon end TLS"),
            ("[[alarms.limit]]\nhi = 1\n", "needs a variable"),
            ("[[alarms.limit]]\nvariable = \"x\"\n", "at least one of"),
            ("[[alarms.limit]]\nvariable = \"x\"\nhi = 1\nlo = 2\n", "in order"),
            ("[[alarms.limit]]\nvariable = \"x\"\nhi = \"1\"\n", "must be a number"),
            ("[[alarms.limit]]\nvariable = \"x\"\nhi = nan\n", "must be a number"),
            ("[[alarms.limit]]\nvariable = \"counterfoil.lga\"\nhi = 1\n", "did you mean `counterfoil.lag`?"),
            ("[[alarms.carrier]]\ntag = \"x\"\n", "needs topics"),
            ("[[alarms.carrier]]\nprogram = \"psql\"\n", "needs the tag"),
        ] {
            let found = mistakes(text);
            assert!(found.iter().any(|f| f.contains(words)), "{text}\n{found:#?}");
        }
    }
}
