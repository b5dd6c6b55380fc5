//! Syslog: RFC 5424 lines with structured data, and a queue for when the receiver is away.
//!
//! Comes in: alarms and heartbeats. Goes out: one line each. A line never holds a control
//! character, whatever an observed process is called: values are escaped twice, first as text (see
//! `escape`), then as RFC 5424 section 6.3.3 says for `"`, `\` and `]`.
#![forbid(unsafe_code)]

use super::jsonl::time;
use super::wire::{Wire, open};
use super::{Heartbeat, Message, Sink};
use crate::config::{Facility, SyslogAddress};
use crate::escape::{clip, text};
use crate::model::{Alarm, Severity};
use crate::spool::{self, Spool};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::{Duration, Instant};
use syslog_fmt::v5424::{Config, Formatter, Msg};

/// The example enterprise number of RFC 5612.
const SD_ID: &str = "counterfoil@32473";
/// Characters of one value, and of the text. A whole line stays below the 2,048 bytes that RFC 5426
/// wants every receiver to take, unless it is mostly not ASCII.
const VALUE: usize = 192;
const TEXT: usize = 512;

/// Makes lines.
pub struct Lines {
    formatter: Formatter,
    sequence: u32,
}

impl Lines {
    /// For this host and process.
    #[must_use]
    pub fn new(facility: Facility) -> Self {
        let uname = rustix::system::uname();
        // RFC 5424 section 6: printable ASCII without spaces, 255 characters at most.
        let host: String =
            uname.nodename().to_string_lossy().chars().filter(char::is_ascii_graphic).take(255).collect();
        let pid = std::process::id().to_string();
        let formatter = Config {
            facility: facility.0.try_into().unwrap_or(syslog_fmt::Facility::Authpriv),
            hostname: (!host.is_empty()).then_some(host.as_str()),
            app_name: Some("counterfoil"),
            proc_id: Some(&pid),
        }
        .into_formatter();
        Self { formatter, sequence: 0 }
    }

    /// The line of an alarm.
    pub fn alarm(&mut self, alarm: &Alarm) -> Vec<u8> {
        let f = &alarm.finding;
        let evidence = |name: &str| f.evidence.get(name).and_then(|v| v.as_str()).map(str::to_owned);
        let pid = f.process.as_ref().map(|p| p.pid.to_string());
        let altered = (!f.altered.is_empty()).then(|| {
            let parts: Vec<String> =
                f.altered.iter().take(12).map(|r| format!("{}+{}", r.offset, r.length)).collect();
            let more = if f.altered.len() > 12 { ",…" } else { "" };
            format!("{}{more}", parts.join(","))
        });
        let params: Vec<(&str, Option<String>)> = vec![
            ("id", Some(alarm.id.to_string())),
            ("analytic", word(&f.analytic)),
            ("rule", Some(f.rule.clone())),
            ("severity", word(&f.severity)),
            ("state", word(&alarm.state)),
            ("verdict", f.verdict.as_ref().and_then(word)),
            ("technique", f.technique.clone()),
            ("count", Some(alarm.count.to_string())),
            ("pid", pid),
            ("exe", f.process.as_ref().and_then(|p| p.exe.clone())),
            ("user", f.process.as_ref().and_then(|p| p.user.clone())),
            ("transfer", f.transfer.map(|t| t.to_string())),
            ("flow", f.flow.clone()),
            ("local", f.connection.as_ref().and_then(|c| c.local.clone())),
            ("remote", f.connection.as_ref().and_then(|c| c.remote.clone())),
            ("file", f.file.as_ref().and_then(|x| x.path.clone())),
            ("sha256_origin", evidence("sha256_origin")),
            ("sha256_destination", evidence("sha256_destination")),
            ("digest_origin", evidence("origin_digest")),
            ("digest_destination", evidence("destination_digest")),
            ("altered", altered),
        ];
        let message = format!("{}: {}", f.title, f.message);
        self.line(priority(f.severity), alarm.last, &f.rule, params, &message)
    }

    /// The line of a heartbeat.
    pub fn heartbeat(&mut self, beat: &Heartbeat) -> Vec<u8> {
        let params = vec![
            ("sequence", Some(beat.sequence.to_string())),
            ("sent", Some(beat.sent.to_string())),
            ("dropped", Some(beat.dropped.to_string())),
            ("uptime", Some(beat.uptime.as_secs().to_string())),
        ];
        let message = format!("alive, heartbeat {}", beat.sequence);
        self.line(syslog_fmt::Severity::Info, jiff::Timestamp::now(), "heartbeat", params, &message)
    }

    fn line(
        &mut self,
        priority: syslog_fmt::Severity,
        at: jiff::Timestamp,
        msg_id: &str,
        params: Vec<(&str, Option<String>)>,
        message: &str,
    ) -> Vec<u8> {
        // RFC 5424 section 7.3.1: 1 to 2147483647, then 1 again. Counts every line to this receiver.
        self.sequence = self.sequence % 0x7fff_ffff + 1;
        let sequence = self.sequence.to_string();
        let values: Vec<(&str, String)> = params
            .into_iter()
            .filter_map(|(name, value)| Some((name, clip(&text(&value?), VALUE).into_owned())))
            .collect();
        let own: Vec<(&str, &str)> = values.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let message = plain(&clip(&text(message), TEXT));
        // Section 6.4: UTF-8 has a byte order mark before it, which plain ASCII doesn't need.
        let message: Msg<'_> = if message.is_ascii() {
            Msg::NonUnicodeBytes(message.as_bytes())
        } else {
            Msg::Utf8Str(&message)
        };
        let mut out = Vec::with_capacity(1024);
        let data = vec![(SD_ID, own), ("meta", vec![("sequenceId", sequence.as_str())])];
        let time = time(at);
        // Writing to a Vec can't fail.
        let _ = self.formatter.write_with_data(&mut out, priority, time, message, Some(msg_id), data);
        out
    }
}

/// Our own typography in ASCII: then only a name that isn't makes a line need UTF-8.
fn plain(text: &str) -> String {
    text.replace('–', "-").replace('→', "->").replace('…', "...")
}

fn word(value: &impl serde::Serialize) -> Option<String> {
    serde_json::to_value(value).ok()?.as_str().map(str::to_owned)
}

/// An alarm's severity as syslog counts.
#[must_use]
pub fn priority(severity: Severity) -> syslog_fmt::Severity {
    match severity {
        Severity::Critical => syslog_fmt::Severity::Crit,
        Severity::High => syslog_fmt::Severity::Err,
        Severity::Medium => syslog_fmt::Severity::Warning,
        Severity::Low => syslog_fmt::Severity::Notice,
        Severity::Info => syslog_fmt::Severity::Info,
    }
}

/// One receiver.
pub struct Syslog {
    name: String,
    lines: Lines,
    wire: Box<dyn Wire>,
    spool: Spool,
    away: Option<Away>,
}

/// The receiver is away: since when, and when to try next.
struct Away {
    next: Instant,
    pause: Duration,
}

impl Syslog {
    /// A sink to `address`; lines that wait for it are kept under `spools`, else in memory.
    #[must_use]
    pub fn open(address: &SyslogAddress, facility: Facility, spools: Option<&Path>) -> Self {
        let name = format!("syslog {address}");
        let spool = match spools {
            None => Spool::in_memory(spool::LIMIT),
            Some(dir) => {
                let digest = Sha256::digest(address.to_string());
                let file =
                    dir.join(format!("{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3]));
                Spool::on_disk(&file, spool::LIMIT).unwrap_or_else(|e| {
                    tracing::error!(
                        "{name}: can't keep lines in {}: {e}; keeping them in memory",
                        file.display()
                    );
                    Spool::in_memory(spool::LIMIT)
                })
            }
        };
        Self { name, lines: Lines::new(facility), wire: open(address), spool, away: None }
    }

    fn deliver(&mut self, line: &[u8]) {
        if self.spool.is_empty() && self.away.is_none() {
            match self.wire.send(line) {
                Ok(()) => return,
                Err(e) => self.lost_contact(&e),
            }
        }
        self.spool.push(line);
    }

    fn lost_contact(&mut self, e: &std::io::Error) {
        const FIRST: Duration = Duration::from_millis(250);
        const LONGEST: Duration = Duration::from_secs(30);
        let pause = match &self.away {
            None => {
                tracing::warn!("{}: {e}; lines wait until it is back", self.name);
                FIRST
            }
            Some(away) => (away.pause * 2).min(LONGEST),
        };
        self.away = Some(Away { next: Instant::now() + pause, pause });
    }
}

impl Sink for Syslog {
    fn name(&self) -> &str {
        &self.name
    }

    fn send(&mut self, message: &Message) {
        let line = match message {
            Message::Alarm(alarm) => self.lines.alarm(alarm),
            Message::Heartbeat(beat) => self.lines.heartbeat(beat),
            // Syslog is for what someone should look at.
            Message::Transfer(_) | Message::Coverage(_) => return,
        };
        self.deliver(&line);
    }

    fn retry(&mut self) -> bool {
        if self.away.as_ref().is_some_and(|a| a.next > Instant::now()) {
            return true;
        }
        if self.spool.is_empty() {
            self.away = None;
            return false;
        }
        let wire = &mut self.wire;
        match self.spool.drain(|line| wire.send(line)) {
            Ok(()) => {
                if self.away.take().is_some() {
                    tracing::info!("{}: back", self.name);
                }
            }
            Err(e) => self.lost_contact(&e),
        }
        !self.spool.is_empty()
    }

    fn given_up(&mut self) -> u64 {
        self.spool.given_up()
    }
}
