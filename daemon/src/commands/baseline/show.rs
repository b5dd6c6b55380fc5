//! The baseline, for people and as JSON Lines.
#![forbid(unsafe_code)]

use super::{Entry, entries, print};
use crate::egress::amount;
use crate::escape::{clip, text};
use crate::ledger::usual::{Approval, Tables};
use crate::report::words;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// What was learnt, and what is approved.
pub(super) fn list(tables: &Tables, as_json: bool) -> anyhow::Result<u8> {
    let shown = entries(tables).filter(|entry| !matches!(entry, Entry::Held(_)));
    for entry in shown {
        if !print(&line(&entry, as_json))? {
            return Ok(0);
        }
    }
    if !as_json {
        let held = match tables.held.len() {
            0 => String::new(),
            n => format!("; {n} would have been raised: counterfoil baseline would-have-raised"),
        };
        print(&format!(
            "{} learnt since {}, {} approved{held}\n",
            tables.errands.len(),
            tables.since.strftime("%Y-%m-%d %H:%MZ"),
            tables.approvals.len(),
        ))?;
    }
    Ok(0)
}

/// What would have been raised while it was learnt.
pub(super) fn held(tables: &Tables, as_json: bool) -> anyhow::Result<u8> {
    for entry in entries(tables).filter(|entry| matches!(entry, Entry::Held(_))) {
        if !print(&line(&entry, as_json))? {
            return Ok(0);
        }
    }
    if tables.held.is_empty() && !as_json {
        print("nothing\n")?;
    }
    Ok(0)
}

/// An approval that was just given.
pub(super) fn approval(approval: &Approval, as_json: bool) -> String {
    line(&Entry::Approval(approval), as_json)
}

fn line(entry: &Entry<'_>, as_json: bool) -> String {
    if as_json { object(entry).to_string() + "\n" } else { row(entry) }
}

fn row(entry: &Entry<'_>) -> String {
    let id = entry.id();
    match entry {
        Entry::Errand(errand, usage) => format!(
            "{id}  {}  {} → {}{}  for {}: up to {}, {}×\n",
            usage.last.strftime("%Y-%m-%d %H:%M:%SZ"),
            clip(&text(&errand.exe), 100),
            SocketAddr::new(errand.destination, errand.port),
            usage.name.as_ref().map(|name| format!(" ({})", clip(&text(name), 60))).unwrap_or_default(),
            text(&errand.user),
            amount(usage.peak),
            usage.times,
        ),
        Entry::Approval(a) => format!(
            "{id}  approved {} {}  {}{} → {}{}  for {}: {}; {}: {}\n",
            if a.expires > Timestamp::now() { "until" } else { "and EXPIRED" },
            a.expires.strftime("%Y-%m-%d %H:%MZ"),
            clip(&text(&a.exe), 100),
            a.sha256
                .as_ref()
                .map(|d| format!(" (sha256 {}…)", text(d.get(..12).unwrap_or(d))))
                .unwrap_or_default(),
            clip(&text(&a.destination), 100),
            a.port.map(|port| format!(" port {port}")).unwrap_or_default(),
            a.user.as_deref().map_or("any user".into(), text),
            a.volume.map_or("any volume".to_owned(), |v| format!("up to {}", amount(v))),
            clip(&text(&a.owner), 60),
            clip(&text(&a.reason), 200),
        ),
        Entry::Held(held) => format!(
            "{id}  {}  {:<8}  {:>5}×  {}: {}\n",
            held.finding.seen.strftime("%Y-%m-%d %H:%M:%SZ"),
            words::severity(held.finding.severity),
            held.count,
            text(&held.finding.rule),
            clip(&text(&held.finding.title), 120),
        ),
    }
}

fn object(entry: &Entry<'_>) -> Value {
    match entry {
        Entry::Errand(errand, usage) => tagged("baseline", entry, &[&value(errand), &value(usage)]),
        Entry::Approval(a) => {
            tagged("approval", entry, &[&value(a), &json!({"expired": a.expires <= Timestamp::now()})])
        }
        Entry::Held(held) => {
            let times = json!({"count": held.count, "first": held.first, "last": held.finding.seen});
            tagged("would-have-raised", entry, &[&value(&held.finding), &times])
        }
    }
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

/// One object of several.
fn tagged(kind: &str, entry: &Entry<'_>, parts: &[&Value]) -> Value {
    let mut whole = json!({"type": kind, "id": entry.id()});
    for part in parts.iter().filter_map(|part| part.as_object()) {
        for (key, value) in part.iter().filter(|(key, _)| *key != "id") {
            whole[key] = value.clone();
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::usual::{Errand, Held, Usage};
    use crate::model::Severity;
    use crate::{detect, sample};

    #[test]
    fn rows_are_escaped_and_objects_whole() {
        let mut process = sample::process(7, "/x\x1b[2J\ny");
        process.user = Some("u\n".into());
        let errand = Errand::of(&process, "[fd00::1]:22").unwrap();
        let at = sample::moment();
        let usage = Usage { first: at, last: at, times: 3, peak: 5 << 20, name: Some("a\r".into()) };
        let mut finding = detect::finding("bulk-egress", Severity::High, at);
        finding.title = "t\x07".into();
        let tables = Tables {
            errands: vec![(errand, usage)],
            held: vec![Held { finding, first: at, count: 2 }],
            ..Tables::default()
        };
        let rows: Vec<String> = entries(&tables).map(|e| row(&e)).collect();
        for row in &rows {
            assert!(!row.trim_end_matches('\n').contains(|c: char| c.is_control()), "{row:?}");
        }
        assert!(rows[0].contains("→ [fd00::1]:22") && rows[0].contains("up to 5.0 MiB, 3×"), "{}", rows[0]);
        let objects: Vec<Value> = entries(&tables).map(|e| object(&e)).collect();
        assert_eq!(
            (objects[0]["type"].as_str(), objects[0]["peak"].as_u64()),
            (Some("baseline"), Some(5 << 20))
        );
        assert_eq!(
            (objects[1]["type"].as_str(), objects[1]["count"].as_u64()),
            (Some("would-have-raised"), Some(2))
        );
        assert_eq!(objects[1]["rule"], "bulk-egress");
    }
}
