//! TOML text to [`Parsed`], section by section; goes on after a mistake, so that all are found.
#![forbid(unsafe_code)]

use super::carrier;
use super::egress;
use super::intake;
use super::limit;
use super::media;
use super::section::{Mistakes, Section, article, tables};
use super::suppress;
use super::values::{absolute, cidr, duration, loopback, one_of, ports, size};
use super::{Alarms, Config, Integrity, Metrics, Mistake, Parsed, Ports, StreamDigest};
use crate::redact::ArgvPrivacy;
use std::time::Duration;
use toml::de::{DeTable, DeValue};

/// Sections of later versions: known, and without effect.
const LATER: &[&str] = &["fleet"];

/// Reads a configuration.
///
/// # Errors
/// Every mistake in the text, in its order.
pub fn parse(source: &str) -> Result<Parsed, Vec<Mistake>> {
    let mut m = Mistakes::new(source);
    let (table, errors) = DeTable::parse_recoverable(source);
    for error in &errors {
        m.at(&error.span().unwrap_or(0..0), format!("not TOML: {}", error.message()));
    }
    let span = table.span();
    let mut file = Section::new("", table.get_ref(), span);
    let mut config = Config::default();

    if let Some(s) = section(&mut file, "watch", "[watch]", &mut m) {
        watch(s, &mut config, &mut m);
    }
    if let Some(s) = section(&mut file, "integrity", "[integrity]", &mut m) {
        integrity(s, &mut config.integrity, &mut m);
    }
    if let Some(s) = section(&mut file, "egress", "[egress]", &mut m) {
        egress::read(s, &mut config.egress, &mut m);
    }
    if let Some(s) = section(&mut file, "media", "[media]", &mut m) {
        media::read(s, &mut config.media, &mut m);
    }
    if let Some(mut s) = section(&mut file, "privacy", "[privacy]", &mut m) {
        let modes =
            [("redacted", ArgvPrivacy::Redacted), ("full", ArgvPrivacy::Full), ("none", ArgvPrivacy::None)];
        if let Some(mode) = s.parsed("argv", &mut m, |t| one_of(t, &modes)) {
            config.privacy.argv = mode;
        }
        s.finish(&mut m);
    }
    if let Some(mut s) = section(&mut file, "ledger", "[ledger]", &mut m) {
        if let Some(keep) = s.parsed("keep", &mut m, duration) {
            config.ledger.keep = keep;
        }
        if let Some(bytes) = s.parsed("max_size", &mut m, least(size, 1 << 20, "at least 1MiB")) {
            config.ledger.max_size = bytes;
        }
        s.finish(&mut m);
    }
    if let Some(mut s) = section(&mut file, "alarms", "[alarms]", &mut m) {
        config.limits = limit::limits(&mut s, &mut m);
        config.carriers = carrier::carriers(&mut s, &mut m);
        let tables = tables(&mut s, "suppress", "[[alarms.suppress]]", &mut m);
        config.alarms.suppress = tables.into_iter().filter_map(|t| suppress::read(t, &mut m)).collect();
        alarms(s, &mut config.alarms, &mut m);
    }
    super::sink::read(&mut file, &mut config.sinks, &mut m);
    metrics(&mut file, &mut config.metrics, &mut m);
    config.intakes = intake::intakes(&mut file, &mut m);
    for &name in LATER {
        if let Some((span, value, _)) = file.take(name) {
            if value.is_table() || value.is_array() {
                m.warn(&span, format!("[{name}] does nothing yet in this version"));
            } else {
                m.at(&span, format!("{name} must be a section"));
            }
        }
    }
    file.finish(&mut m);
    match m.finish() {
        (mistakes, warnings) if mistakes.is_empty() => Ok(Parsed { config, warnings }),
        (mistakes, _) => Err(mistakes),
    }
}

fn section<'v, 'i>(
    file: &mut Section<'v, 'i>,
    key: &'static str,
    name: &'static str,
    m: &mut Mistakes,
) -> Option<Section<'v, 'i>> {
    let (key_span, value, _) = file.take(key)?;
    let Some(table) = value.as_table() else {
        m.at(&key_span, format!("{key} must be a section, {name}, not {}", article(value)));
        return None;
    };
    Some(Section::new(name, table, key_span))
}

fn watch(mut s: Section<'_, '_>, config: &mut Config, m: &mut Mistakes) {
    if let Some(names) = s.array("watched_processes", "program names", m) {
        config.watch.watched_processes.clear();
        for (value, span) in names {
            match value.as_str() {
                Some(name) if name.starts_with('/') || (!name.is_empty() && !name.contains('/')) => {
                    config.watch.watched_processes.push(name.to_owned());
                }
                Some(name) => {
                    m.at(&span, format!("`{name}`: write a program's name, or its path from `/` on"));
                }
                None => m.at(&span, format!("a program's name must be a string, not {}", article(value))),
            }
        }
    }
    match s.take("monitored_ports") {
        None => {}
        Some((_, value, _)) if value.as_str() == Some("all") => config.watch.monitored_ports = Ports::All,
        Some((_, value, span)) => match value.as_array() {
            Some(array) => {
                let mut only = Vec::new();
                for element in array.iter() {
                    let text = match element.get_ref() {
                        DeValue::Integer(i) => i.to_string(),
                        DeValue::String(t) => t.to_string(),
                        other => article(other),
                    };
                    match ports(&text) {
                        Ok(range) => only.push(range),
                        Err(why) => m.at(&element.span(), format!("monitored_ports: {why}")),
                    }
                }
                config.watch.monitored_ports = Ports::Only(only);
            }
            None => m.at(
                &span,
                format!("monitored_ports must be \"all\" or an array of ports, not {}", article(value)),
            ),
        },
    }
    if let Some(ranges) = s.array("internal_ranges", "networks", m) {
        for (value, span) in ranges {
            match value.as_str().map(cidr) {
                Some(Ok(range)) => config.watch.internal_ranges.push(range),
                Some(Err(why)) => m.at(&span, format!("internal_ranges: {why}")),
                None => m.at(&span, format!("a network must be a string, not {}", article(value))),
            }
        }
    }
    if let Some(every) = s.parsed("workflow_interval", m, or_off(Duration::from_secs(1), "1s")) {
        config.watch.workflow_interval = every;
    }
    if let Some(paths) = s.paths("workflow_paths", m) {
        config.watch.workflow_paths = paths;
    }
    match s.take("baseline_days") {
        None => {}
        Some((_, value, span)) => match value.as_integer().map(|days| days.to_string().parse()) {
            Some(Ok(days)) if days <= 3650 => config.watch.baseline_days = days,
            _ => m.at(&span, format!("baseline_days must be days, 0 to 3650, not {}", article(value))),
        },
    }
    s.finish(m);
}

fn integrity(mut s: Section<'_, '_>, integrity: &mut Integrity, m: &mut Mistakes) {
    let digests =
        [("aegis", StreamDigest::Aegis), ("blake3", StreamDigest::Blake3), ("sha256", StreamDigest::Sha256)];
    if let Some(d) = s.parsed("stream_digest", m, |t| one_of(t, &digests)) {
        integrity.stream_digest = d;
    }
    let interval = |text: &str| match duration(text)? {
        every if every < Duration::from_secs(1) => Err("at least 1s".into()),
        every => Ok(every),
    };
    if let Some(every) = s.parsed("hash_check_interval", m, interval) {
        integrity.hash_check_interval = every;
    }
    if let Some(paths) = s.paths("hash_check_paths", m) {
        integrity.hash_check_paths = paths;
    }
    if let Some(uncached) = s.boolean("hash_check_uncached", m) {
        integrity.hash_check_uncached = uncached;
    }
    if let Some(path) = s.parsed("integrity_baseline", m, absolute) {
        integrity.integrity_baseline = Some(path);
    }
    s.finish(m);
}

fn alarms(mut s: Section<'_, '_>, alarms: &mut Alarms, m: &mut Mistakes) {
    let span = |text: &str| match duration(text)? {
        span if span < Duration::from_secs(1) => Err("at least 1s".into()),
        span => Ok(span),
    };
    let place = s.span.clone();
    if let Some(limit) = s.parsed("shelving_limit", m, span) {
        alarms.shelving_limit = limit;
    }
    match s.parsed("shelving", m, span) {
        Some(shelf) if shelf > alarms.shelving_limit => {
            m.at(&place, "shelving must not be longer than shelving_limit (7d unless configured)");
        }
        Some(shelf) => alarms.shelving = shelf,
        None => alarms.shelving = alarms.shelving.min(alarms.shelving_limit),
    }
    s.finish(m);
}

fn metrics(file: &mut Section<'_, '_>, metrics: &mut Metrics, m: &mut Mistakes) {
    let Some(mut s) = section(file, "metrics", "[metrics]", m) else { return };
    metrics.listen = s.parsed("listen", m, loopback);
    s.finish(m);
}

pub(super) fn required<T>(
    s: &mut Section<'_, '_>,
    key: &'static str,
    missing: &str,
    m: &mut Mistakes,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let (_, value, span) = match s.take(key) {
        Some(found) => found,
        None => {
            m.at(&s.span.clone(), missing);
            return None;
        }
    };
    let read = match value.as_str() {
        Some(text) => read(text).map_err(|why| format!("{key}: {why}")),
        None => Err(format!("{key} must be a string, not {}", article(value))),
    };
    read.map_err(|why| m.at(&span, why)).ok()
}

/// A span of time of at least `least`, or `off`.
pub(super) fn or_off(
    least: Duration,
    words: &'static str,
) -> impl Fn(&str) -> Result<Option<Duration>, String> {
    move |text| {
        if text == "off" {
            return Ok(None);
        }
        let every = duration(text).map_err(|why| format!("{why}, or \"off\""))?;
        if every < least {
            return Err(format!("at least {words}, or \"off\""));
        }
        Ok(Some(every))
    }
}

pub(super) fn least(
    read: fn(&str) -> Result<u64, String>,
    min: u64,
    why: &'static str,
) -> impl Fn(&str) -> Result<u64, String> {
    move |text| read(text).and_then(|n| if n < min { Err(why.into()) } else { Ok(n) })
}

#[cfg(test)]
mod tests;
