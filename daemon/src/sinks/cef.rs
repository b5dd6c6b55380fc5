//! CEF, ArcSight's Common Event Format, version 0: the message of a syslog line.
//!
//! Comes in: an alarm, or words of our own. Goes out: one line of text. In the header `|` and `\` are escaped, in the extension
//! `=` and `\`; control characters are gone before (see `escape`), so nothing can end a value early.
#![forbid(unsafe_code)]

use super::facts::{self, ip_port, ms};
use crate::escape::{clip, text};
use crate::model::{Alarm, Severity};
use std::fmt::Write;

/// Characters of one value.
const VALUE: usize = 192;
/// Bytes of the extension, which keeps a syslog line below 2,048.
const EXTENSION: usize = 1650;

/// An alarm in CEF.
pub(super) fn alarm(alarm: &Alarm) -> String {
    let f = &alarm.finding;
    let severity = match f.severity {
        Severity::Critical => 10,
        Severity::High => 8,
        Severity::Medium => 5,
        Severity::Low => 3,
        Severity::Info => 1,
    };
    let facts = facts::of(alarm);
    let get = |name: &str| facts.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone());
    let mut e = Extension::default();
    e.put("rt", ms(alarm.last).to_string());
    e.put("start", ms(alarm.raised).to_string());
    e.put("externalId", alarm.id.to_string());
    e.put("cat", get("analytic").unwrap_or_default());
    e.put("act", get("state").unwrap_or_default());
    e.put("cnt", alarm.count.to_string());
    e.put("dvchost", facts::host());
    e.may("outcome", get("verdict"));
    e.labelled("cs1", "technique", get("technique"));
    e.labelled("cs2", "transfer", get("transfer"));
    e.labelled("cs3", "flow", get("flow"));
    e.put("msg", f.message.clone());
    // The names of both sides are the process's view: it is the source of what it sends.
    if let Some(c) = &f.connection {
        let ends = [("src", "spt", &c.local), ("dst", "dpt", &c.remote)];
        let ends = if c.direction.as_deref() == Some("in") {
            [("dst", "dpt", &c.local), ("src", "spt", &c.remote)]
        } else {
            ends
        };
        for (ip, port, address) in ends {
            if let Some((address, number)) = address.as_deref().and_then(ip_port) {
                let v6 = address.contains(':');
                match (v6, ip) {
                    (false, _) => e.put(ip, address),
                    (true, "src") => e.labelled("c6a2", "Source IPv6 Address", Some(address)),
                    (true, _) => e.labelled("c6a3", "Destination IPv6 Address", Some(address)),
                }
                e.put(port, number.to_string());
            }
        }
        e.may("dhost", c.server_name.clone());
        e.may("out", c.bytes_out.map(|n| n.to_string()));
        e.may("in", c.bytes_in.map(|n| n.to_string()));
    }
    if let Some(p) = &f.process {
        e.put("spid", p.pid.to_string());
        e.may("sproc", p.exe.clone());
        e.may("suser", p.user.clone());
        e.may("suid", p.uid.map(|n| n.to_string()));
    }
    e.may("filePath", get("file"));
    e.may("fileHash", get("sha256_file"));
    e.labelled("cs4", "sha256_origin", get("sha256_origin").or_else(|| get("digest_origin")));
    e.labelled("cs5", "sha256_destination", get("sha256_destination").or_else(|| get("digest_destination")));
    e.labelled("cs6", "altered", get("altered"));
    e.may("reason", get("reasons"));
    if let Some(tag) = get("tag") {
        let part = |name: &str| get(name).unwrap_or_default();
        let words = [tag, part("condition"), part("value"), part("unit"), part("limit")].join(" ");
        e.labelled("flexString1", "point", Some(words.trim_end().to_owned()));
    }
    format!("{}{}", header(&f.rule, &f.title, severity), e.text)
}

/// A heartbeat, or what was withheld.
pub(super) fn own(id: &str, params: &[(&'static str, String)], message: &str) -> String {
    let mut e = Extension::default();
    e.put("rt", ms(jiff::Timestamp::now()).to_string());
    e.put("dvchost", facts::host());
    e.put("msg", message.to_owned());
    // cn1 to cn3 are the numbers that CEF has for who brings their own.
    let numbers = ["cn1", "cn2", "cn3"];
    let of_numbers = params.iter().filter(|(_, v)| v.parse::<u64>().is_ok());
    for (key, (name, value)) in numbers.into_iter().zip(of_numbers) {
        e.labelled(key, name, Some(value.clone()));
    }
    format!("{}{}", header(id, message, 0), e.text)
}

fn header(id: &str, name: &str, severity: u8) -> String {
    let safe = |value: &str| clip(&text(value), 128).replace('\\', "\\\\").replace('|', "\\|");
    format!(
        "CEF:0|Counterfoil|counterfoil|{}|{}|{}|{severity}|",
        env!("CARGO_PKG_VERSION"),
        safe(id),
        safe(name)
    )
}

#[derive(Default)]
struct Extension {
    text: String,
}

impl Extension {
    fn put(&mut self, key: &str, value: String) {
        let value = clip(&text(&value), VALUE).replace('\\', "\\\\").replace('=', "\\=");
        if value.is_empty() || self.text.len() + key.len() + value.len() + 2 > EXTENSION {
            return;
        }
        let space = if self.text.is_empty() { "" } else { " " };
        let _ = write!(self.text, "{space}{key}={value}");
    }

    fn may(&mut self, key: &str, value: Option<String>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn labelled(&mut self, key: &str, label: &str, value: Option<String>) {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            self.put(&format!("{key}Label"), label.to_owned());
            self.put(key, value);
        }
    }
}
