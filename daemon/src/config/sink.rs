//! `[[sink]]`: where alarms go, and how.
//!
//! Comes in: the file's `[[sink]]` tables. Goes out: [`Sink`]s, or mistakes with their place. Called by `read`.
#![forbid(unsafe_code)]

use super::read::{least, or_off, required};
use super::section::{Mistakes, Section, article};
use super::values::{
    Facility, SyslogAddress, absolute, duration, facility, one_of, severity, size, syslog_address,
};
use crate::model::Severity;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// How often a sink hears that the daemon lives, unless configured.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(60);
/// Bytes of lines that may wait for a receiver, unless configured.
const QUEUE: u64 = 16 << 20;
/// Where journald listens.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// One `[[sink]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sink {
    /// Where it goes.
    pub kind: SinkKind,
    /// Alarms below this are not sent.
    pub min_severity: Severity,
    /// How often the sink says that the daemon lives; None: never.
    pub heartbeat: Option<Duration>,
    /// So many alarms at most; what is held back is counted and said. None: all.
    pub rate_limit: Option<Rate>,
    /// Bytes of lines that may wait for its receiver.
    pub queue_size: u64,
}

impl Sink {
    /// A sink as it is where only its kind is configured.
    #[must_use]
    pub fn of(kind: SinkKind) -> Self {
        Self {
            kind,
            min_severity: Severity::Info,
            heartbeat: Some(HEARTBEAT),
            rate_limit: None,
            queue_size: QUEUE,
        }
    }
}

/// Where a sink sends.
#[derive(Clone, Debug, PartialEq)]
pub enum SinkKind {
    /// RFC 5424.
    Syslog {
        /// Transport and receiver.
        address: SyslogAddress,
        /// authpriv unless configured.
        facility: Facility,
        /// What stands in a line.
        shape: SyslogShape,
        /// For `tls:`.
        tls: Tls,
    },
    /// JSON Lines, appended to a file.
    Jsonl {
        /// The file.
        path: PathBuf,
        /// Whose names the fields have.
        shape: JsonShape,
    },
    /// journald's own protocol.
    Journald {
        /// Its socket.
        socket: PathBuf,
    },
}

impl std::fmt::Display for SinkKind {
    /// `syslog udp:log:514`, as messages name it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Syslog { address, shape: SyslogShape::Rfc5424, .. } => write!(f, "syslog {address}"),
            Self::Syslog { address, shape: SyslogShape::Cef, .. } => write!(f, "syslog (cef) {address}"),
            Self::Jsonl { path, shape: JsonShape::Counterfoil } => write!(f, "jsonl {}", path.display()),
            Self::Jsonl { path, shape: JsonShape::Ecs } => write!(f, "jsonl (ecs) {}", path.display()),
            Self::Jsonl { path, shape: JsonShape::Ocsf } => write!(f, "jsonl (ocsf) {}", path.display()),
            Self::Journald { socket } => write!(f, "journald {}", socket.display()),
        }
    }
}

/// `format` of a syslog sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyslogShape {
    /// Structured data.
    #[default]
    Rfc5424,
    /// ArcSight's Common Event Format in the message.
    Cef,
}

/// `format` of a jsonl sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JsonShape {
    /// Our own: every event, every field.
    #[default]
    Counterfoil,
    /// Elastic Common Schema 9: alarms.
    Ecs,
    /// OCSF Detection Finding: alarms.
    Ocsf,
}

/// What `tls:` goes by. Files are PEM, and read anew for each connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Whom to believe; None: whom this host believes.
    pub ca: Option<PathBuf>,
    /// Our own certificate with its chain, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in the receiver's certificate; None: the address's host.
    pub server_name: Option<String>,
}

/// So many in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At most so many, all at once if need be …
    pub count: u32,
    /// … in so long.
    pub per: Duration,
}

/// Reads all `[[sink]]` tables.
pub(super) fn read(file: &mut Section<'_, '_>, sinks: &mut Vec<Sink>, m: &mut Mistakes) {
    let Some((key_span, value, _)) = file.take("sink") else { return };
    let Some(array) = value.as_array() else {
        m.at(&key_span, "a sink is written [[sink]], with two brackets, as there may be several");
        return;
    };
    for element in array.iter() {
        let Some(table) = element.get_ref().as_table() else {
            m.at(&element.span(), format!("a sink must be a table, not {}", article(element.get_ref())));
            continue;
        };
        let Some(sink) = one(Section::new("[[sink]]", table, element.span()), m) else { continue };
        // Two would share one queue on disk, and say everything twice.
        if sinks.iter().any(|other| other.kind.to_string() == sink.kind.to_string()) {
            m.at(&element.span(), format!("there is a sink `{}` already", sink.kind));
        } else {
            sinks.push(sink);
        }
    }
}

fn one(mut s: Section<'_, '_>, m: &mut Mistakes) -> Option<Sink> {
    let span = s.span.clone();
    let Some((_, value, kind_span)) = s.take("kind") else {
        m.at(&span, "a sink needs a kind: \"syslog\", \"journald\" or \"jsonl\"");
        return None;
    };
    type Kind = fn(&mut Section<'_, '_>, &mut Mistakes) -> Option<SinkKind>;
    let kinds: [(&str, Kind); 3] = [("syslog", syslog), ("jsonl", jsonl), ("journald", journald)];
    let kind = match value.as_str() {
        Some(text) => one_of(text, &kinds).map_err(|why| format!("kind: {why}")),
        None => Err(format!("kind must be a string, not {}", article(value))),
    };
    let kind = match kind {
        Ok(read) => read(&mut s, m),
        Err(why) => {
            m.at(&kind_span, why);
            return None;
        }
    };
    let min_severity = s.parsed("min_severity", m, severity);
    let heartbeat = s.parsed("heartbeat", m, or_off(Duration::from_millis(100), "100ms"));
    let rate_limit = s.parsed("rate_limit", m, rate);
    let queue_size = s.parsed("queue_size", m, least(size, 64 << 10, "at least 64KiB"));
    s.finish(m);
    let default = Sink::of(kind?);
    Some(Sink {
        min_severity: min_severity.unwrap_or(default.min_severity),
        heartbeat: heartbeat.unwrap_or(default.heartbeat),
        rate_limit: rate_limit.unwrap_or_default(),
        queue_size: queue_size.unwrap_or(default.queue_size),
        kind: default.kind,
    })
}

fn syslog(s: &mut Section<'_, '_>, m: &mut Mistakes) -> Option<SinkKind> {
    let missing = "a syslog sink needs an address, as \"unix:/dev/log\" or \"udp:host:514\"";
    let address = required(s, "address", missing, m, syslog_address);
    let facility = s.parsed("facility", m, facility).unwrap_or_default();
    let shapes = [("rfc5424", SyslogShape::Rfc5424), ("cef", SyslogShape::Cef)];
    let shape = s.parsed("format", m, |t| one_of(t, &shapes)).unwrap_or_default();
    let tls = tls(s, matches!(address, Some(SyslogAddress::Tls(_)) | None), m);
    Some(SinkKind::Syslog { address: address?, facility, shape, tls })
}

fn tls(s: &mut Section<'_, '_>, over_tls: bool, m: &mut Mistakes) -> Tls {
    let mut places: Vec<(&str, Range<usize>)> = Vec::new();
    let mut of = |key: &'static str, m: &mut Mistakes| {
        let (text, span) = s.string(key, m)?;
        places.push((key, span.clone()));
        Some((text.to_owned(), span))
    };
    let path = |found: Option<(String, Range<usize>)>, key: &str, m: &mut Mistakes| {
        let (text, span) = found?;
        absolute(&text).map_err(|why| m.at(&span, format!("{key}: {why}"))).ok()
    };
    let ca = path(of("ca", m), "ca", m);
    let certificate = path(of("certificate", m), "certificate", m);
    let key = path(of("key", m), "key", m);
    let server_name = of("server_name", m).and_then(|(name, span)| {
        let good = rustls::pki_types::ServerName::try_from(name.as_str()).is_ok();
        if !good {
            m.at(&span, format!("server_name: `{name}` is no host's name or address"));
        }
        good.then_some(name)
    });
    let place = |key| places.iter().find(|(k, _)| *k == key).map(|(_, span)| span.clone());
    if !over_tls && let Some((key, span)) = places.first() {
        m.at(span, format!("{key} is for an address that begins with \"tls:\""));
    }
    match (place("certificate"), place("key")) {
        (Some(span), None) => m.at(&span, "certificate: its key is missing (`key`)"),
        (None, Some(span)) => m.at(&span, "key: its certificate is missing (`certificate`)"),
        _ => {}
    }
    Tls { ca, identity: certificate.zip(key), server_name }
}

fn jsonl(s: &mut Section<'_, '_>, m: &mut Mistakes) -> Option<SinkKind> {
    let path = required(s, "path", "a jsonl sink needs a path", m, absolute);
    let shapes =
        [("counterfoil", JsonShape::Counterfoil), ("ecs", JsonShape::Ecs), ("ocsf", JsonShape::Ocsf)];
    let shape = s.parsed("format", m, |t| one_of(t, &shapes)).unwrap_or_default();
    Some(SinkKind::Jsonl { path: path?, shape })
}

fn journald(s: &mut Section<'_, '_>, m: &mut Mistakes) -> Option<SinkKind> {
    let socket = s.parsed("socket", m, absolute).unwrap_or_else(|| JOURNAL.into());
    Some(SinkKind::Journald { socket })
}

/// `100/min`, `10/s`, `20/10min`, or `off`.
fn rate(text: &str) -> Result<Option<Rate>, String> {
    if text == "off" {
        return Ok(None);
    }
    let wrong = || format!("`{text}` is no rate; write `100/min`, `10/s`, `20/10min` or `off`");
    let (count, per) = text.split_once('/').ok_or_else(wrong)?;
    let count = count.trim().parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
    let per = per.trim();
    let per = if per.starts_with(|c: char| c.is_ascii_digit()) {
        duration(per)
    } else {
        duration(&format!("1{per}"))
    };
    match per {
        Ok(per) if !per.is_zero() => Ok(Some(Rate { count, per })),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn sink(text: &str) -> Sink {
        parse(text).expect(text).config.sinks.remove(0)
    }

    #[test]
    fn everything_about_a_sink() {
        let s = sink(
            "[[sink]]\nkind = \"syslog\"\naddress = \"tls:log.example:6514\"\nca = \"/etc/ca.pem\"\n\
             certificate = \"/etc/c.pem\"\nkey = \"/etc/k.pem\"\nserver_name = \"siem.example\"\nformat = \"cef\"\n\
             rate_limit = \"100/min\"\nqueue_size = \"1GiB\"\n",
        );
        let SinkKind::Syslog { address, shape, tls, .. } = s.kind else { panic!() };
        assert_eq!(address, SyslogAddress::Tls("log.example:6514".into()));
        assert_eq!(shape, SyslogShape::Cef);
        assert_eq!(tls.identity, Some(("/etc/c.pem".into(), "/etc/k.pem".into())));
        assert_eq!((tls.ca, tls.server_name), (Some("/etc/ca.pem".into()), Some("siem.example".into())));
        assert_eq!(s.rate_limit, Some(Rate { count: 100, per: Duration::from_secs(60) }));
        assert_eq!(s.queue_size, 1 << 30);
        let s =
            sink("[[sink]]\nkind = \"jsonl\"\npath = \"/x\"\nformat = \"ocsf\"\nrate_limit = \"20/10min\"\n");
        assert_eq!(s.kind, SinkKind::Jsonl { path: "/x".into(), shape: JsonShape::Ocsf });
        assert_eq!(s.rate_limit, Some(Rate { count: 20, per: Duration::from_secs(600) }));
        let s = sink("[[sink]]\nkind = \"journald\"\nrate_limit = \"off\"\n");
        assert_eq!(s, Sink::of(SinkKind::Journald { socket: JOURNAL.into() }));
    }

    #[test]
    fn what_is_wrong_with_a_sink_is_said_at_its_place() {
        let tls = "[[sink]]\nkind = \"syslog\"\naddress = \"tls:h:1\"\n";
        let tcp = "[[sink]]\nkind = \"syslog\"\naddress = \"tcp:h:1\"\n";
        for (text, place, words) in [
            (format!("{tls}key = \"/k\"\n"), "4:7", "its certificate is missing"),
            (format!("{tls}certificate = \"/c\"\n"), "4:15", "its key is missing"),
            (format!("{tls}ca = \"ca.pem\"\n"), "4:6", "must begin with `/`"),
            (format!("{tls}server_name = \"no name\"\n"), "4:15", "no host's name"),
            (format!("{tcp}ca = \"/ca\"\n"), "4:6", "begins with \"tls:\""),
            (format!("{tcp}rate_limit = \"many\"\n"), "4:14", "`100/min`"),
            (format!("{tcp}rate_limit = \"0/s\"\n"), "4:14", "`100/min`"),
            (format!("{tcp}queue_size = \"1B\"\n"), "4:14", "at least 64KiB"),
            (format!("{tcp}format = \"cfe\"\n"), "4:10", "did you mean `cef`?"),
            (format!("{tcp}{tcp}"), "4:1", "there is a sink `syslog tcp:h:1` already"),
            ("[metrics]\nlisten = \"0.0.0.0:9464\"\n".into(), "2:10", "no loopback address"),
            ("[metrics]\nlisten = \"localhost\"\n".into(), "2:10", "no address and port"),
        ] {
            let found: Vec<String> = parse(&text).expect_err(&text).iter().map(ToString::to_string).collect();
            assert_eq!(found.len(), 1, "{text}{found:?}");
            assert!(
                found[0].starts_with(&format!("{place}: ")) && found[0].contains(words),
                "{text}{found:?}"
            );
        }
    }
}
