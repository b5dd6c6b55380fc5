//! Syslog: RFC 5424 lines, with structured data or with CEF in the message.
//!
//! Comes in: alarms, heartbeats, what was withheld. Goes out: one line each. A line never holds a control
//! character, whatever an observed process is called: values are escaped twice, first as text (see
//! `escape`), then as RFC 5424 section 6.3.3 says for `"`, `\` and `]`.
#![forbid(unsafe_code)]

use super::facts::{self, FIRST, message, word};
use super::jsonl::time;
use super::post::Shape;
use super::{Heartbeat, Message, Withheld, cef};
use crate::config::Facility;
use crate::escape::{clip, text};
use crate::model::Alarm;
use syslog_fmt::v5424::{Config, Formatter, Msg};

pub use super::facts::priority;

/// The example enterprise number of RFC 5612.
const SD_ID: &str = "counterfoil@32473";
/// Characters of one value, and of the text.
const VALUE: usize = 192;
const TEXT: usize = 384;
/// Bytes of structured data beyond which only the first facts are kept. With header and text a line stays below the 2,048
/// bytes that RFC 5426 wants every receiver to take, unless it is mostly not ASCII.
const DATA: usize = 1400;

/// Makes lines.
pub struct Lines {
    formatter: Formatter,
    sequence: u32,
    cef: bool,
}

impl Lines {
    /// For this host and process.
    #[must_use]
    pub fn new(facility: Facility) -> Self {
        let host = facts::host();
        let pid = std::process::id().to_string();
        let formatter = Config {
            facility: facility.0.try_into().unwrap_or(syslog_fmt::Facility::Authpriv),
            hostname: (!host.is_empty()).then_some(host.as_str()),
            app_name: Some("counterfoil"),
            proc_id: Some(&pid),
        }
        .into_formatter();
        Self { formatter, sequence: 0, cef: false }
    }

    /// With CEF in the message, and no structured data but the sequence.
    #[must_use]
    pub fn cef(facility: Facility) -> Self {
        Self { cef: true, ..Self::new(facility) }
    }

    /// The line of an alarm.
    pub fn alarm(&mut self, alarm: &Alarm) -> Vec<u8> {
        let f = &alarm.finding;
        let (severity, at) = (priority(f.severity), alarm.last);
        if self.cef {
            return self.line(severity, at, &f.rule, None, &cef::alarm(alarm));
        }
        let text = text(&message(alarm)).into_owned();
        self.line(severity, at, &f.rule, Some(fitting(&facts::of(alarm))), &clip(&text, TEXT))
    }

    /// The line of a heartbeat.
    pub fn heartbeat(&mut self, beat: &Heartbeat) -> Vec<u8> {
        let params = vec![
            ("sequence", beat.sequence.to_string()),
            ("sent", beat.sent.to_string()),
            ("dropped", beat.dropped.to_string()),
            ("uptime", beat.uptime.as_secs().to_string()),
        ];
        let message = format!("alive, heartbeat {}", beat.sequence);
        self.own("heartbeat", syslog_fmt::Severity::Info, params, &message)
    }

    /// The line that says what there is no line of.
    pub fn withheld(&mut self, withheld: &Withheld) -> Vec<u8> {
        let mut params = vec![("alarms", withheld.alarms.to_string())];
        params.push(("given_up", withheld.given_up.to_string()));
        params.push(("rules", withheld.rules()));
        self.own("withheld", syslog_fmt::Severity::Warning, params, &withheld.words())
    }

    fn own(
        &mut self,
        id: &str,
        severity: syslog_fmt::Severity,
        params: Vec<(&'static str, String)>,
        message: &str,
    ) -> Vec<u8> {
        let now = jiff::Timestamp::now();
        if self.cef {
            return self.line(severity, now, id, None, &cef::own(id, &params, message));
        }
        let params = params.into_iter().filter(|(_, v)| !v.is_empty()).collect();
        self.line(severity, now, id, Some(params), message)
    }

    fn line(
        &mut self,
        priority: syslog_fmt::Severity,
        at: jiff::Timestamp,
        msg_id: &str,
        params: Option<Vec<(&str, String)>>,
        message: &str,
    ) -> Vec<u8> {
        // RFC 5424 section 7.3.1: 1 to 2147483647, then 1 again. Counts every line to this receiver.
        self.sequence = self.sequence % 0x7fff_ffff + 1;
        let sequence = self.sequence.to_string();
        let message = plain(message);
        // Section 6.4: UTF-8 has a byte order mark before it, which plain ASCII doesn't need. CEF begins with its name.
        let message: Msg<'_> = if message.is_ascii() || params.is_none() {
            Msg::NonUnicodeBytes(message.as_bytes())
        } else {
            Msg::Utf8Str(&message)
        };
        let mut out = Vec::with_capacity(1024);
        let own = params.iter().map(|p| (SD_ID, p.iter().map(|(n, v)| (*n, v.as_str())).collect::<Vec<_>>()));
        let data: Vec<_> = own.chain([("meta", vec![("sequenceId", sequence.as_str())])]).collect();
        let time = time(at);
        // Writing to a Vec can't fail.
        let _ = self.formatter.write_with_data(&mut out, priority, time, message, Some(msg_id), data);
        out
    }
}

impl Shape for Lines {
    fn line(&mut self, message: &Message) -> Option<Vec<u8>> {
        match message {
            Message::Alarm(alarm) => Some(self.alarm(alarm)),
            Message::Heartbeat(beat) => Some(self.heartbeat(beat)),
            Message::Withheld(withheld) => Some(self.withheld(withheld)),
            // Syslog is for what someone should look at.
            Message::Transfer(_) | Message::Coverage(_) => None,
        }
    }
}

/// Facts made safe, as many as there is room for; the names of those left out are the last.
fn fitting(facts: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    let mut room = DATA;
    let mut kept = Vec::with_capacity(facts.len());
    let mut omitted: Vec<&str> = Vec::new();
    for (i, (name, value)) in facts.iter().enumerate() {
        let value = clip(&text(value), VALUE).into_owned();
        // `"`, `\` and `]` cost two each, and there are a space, `=` and two quotes round it.
        let escapes = value.bytes().filter(|b| matches!(b, b'"' | b'\\' | b']')).count();
        let cost = name.len() + value.len() + escapes + 4;
        if i < FIRST || cost <= room {
            room = room.saturating_sub(cost);
            kept.push((*name, value));
        } else {
            omitted.push(name);
        }
    }
    if !omitted.is_empty() {
        kept.push(("omitted", omitted.join(",")));
    }
    kept
}

/// Our own typography in ASCII: then only a name that isn't makes a line need UTF-8.
fn plain(text: &str) -> String {
    text.replace('–', "-").replace('→', "->").replace('…', "...")
}

impl Withheld {
    /// `low payload-truncated 95,…`, the most first.
    #[must_use]
    pub fn rules(&self) -> String {
        let mut all: Vec<_> = self.by_rule.iter().collect();
        all.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        let one = |((severity, rule), n): (&(_, String), &u64)| {
            format!("{} {} {n}", word(severity).unwrap_or_default(), text(rule))
        };
        clip(&all.into_iter().map(one).collect::<Vec<_>>().join(","), 512).into_owned()
    }

    /// The same in a sentence.
    #[must_use]
    pub fn words(&self) -> String {
        let mut out = vec![];
        if self.alarms > 0 {
            out.push(format!("{} alarms held back by rate_limit ({})", self.alarms, self.rules()));
        }
        if self.given_up > 0 {
            out.push(format!("{} messages given up because too many waited", self.given_up));
        }
        format!("{}; `counterfoil alarms` has all", out.join("; "))
    }
}
