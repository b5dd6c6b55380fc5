//! ECS and OCSF lines held against their published schemas; CEF and journal entries taken apart again.

use super::tests::{alarm, hostile, most_of_everything};
use super::*;
use crate::model::{AlarmState, Severity};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn rows(table: &'static str) -> Vec<Vec<&'static str>> {
    table.lines().filter(|l| !l.starts_with('#')).map(|l| l.split('\t').collect()).collect()
}

/// Every kind of message, and alarms with much and with little in them.
fn messages() -> Vec<Message> {
    let mut bare = alarm();
    let f = &mut bare.finding;
    (f.process, f.file, f.connection, f.technique, f.confidence) = (None, None, None, None, None);
    (f.transfer, f.verdict, f.flow) = (None, None, None);
    let mut all: Vec<Alarm> = vec![alarm(), bare, most_of_everything()];
    all.extend(hostile());
    for state in [
        AlarmState::Unacknowledged,
        AlarmState::Acknowledged,
        AlarmState::Returned,
        AlarmState::Shelved,
        AlarmState::Suppressed,
        AlarmState::OutOfService,
        AlarmState::Normal,
    ] {
        for severity in [Severity::Info, Severity::Low, Severity::Medium, Severity::High, Severity::Critical]
        {
            let mut a = most_of_everything();
            (a.state, a.finding.severity) = (state, severity);
            all.push(a);
        }
    }
    let mut withheld = Withheld { alarms: 7, given_up: 2, ..Withheld::default() };
    withheld.by_rule.insert((Severity::Low, "bulk-egress".into()), 7);
    let beat = Heartbeat { sequence: 3, sent: 2, dropped: 1, uptime: Duration::from_secs(9) };
    let own = [Message::Heartbeat(beat), Message::Withheld(Arc::new(withheld))];
    all.into_iter().map(|a| Message::Alarm(Arc::new(a))).chain(own).collect()
}

fn lines(mut shape: impl Shape) -> Vec<Value> {
    let line = |m: Message| {
        let line = String::from_utf8(shape.line(&m).expect("a line")).unwrap();
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line:?}");
        assert!(!line.trim_end().chars().any(char::is_control), "{line:?}");
        serde_json::from_str(&line).unwrap()
    };
    messages().into_iter().map(line).collect()
}

fn flat(value: &Value, path: &str, out: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(fields) if path != "labels" => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flat(value, &path, out);
            }
        }
        _ => out.push((path.to_owned(), value.clone())),
    }
}

fn is_ecs(kind: &str, value: &Value) -> bool {
    match kind {
        "date" => value.as_str().is_some_and(|t| t.parse::<jiff::Timestamp>().is_ok()),
        "long" => value.is_i64() || value.is_u64(),
        "ip" => value.as_str().is_some_and(|t| t.parse::<std::net::IpAddr>().is_ok()),
        "keyword" | "wildcard" | "match_only_text" => value.is_string(),
        // `labels`: text by name, nothing nested, no dots.
        "object" => {
            value.as_object().is_some_and(|o| o.iter().all(|(name, v)| v.is_string() && !name.contains('.')))
        }
        other => panic!("no check for the type {other}"),
    }
}

#[test]
fn ecs_lines_have_the_schemas_fields_and_types() {
    let table = rows(include_str!("testdata/ecs-9.tsv"));
    let table: BTreeMap<&str, &Vec<&str>> = table.iter().map(|r| (r[0], r)).collect();
    let mut seen = BTreeSet::new();
    for line in lines(ecs::Documents::default()) {
        let mut fields = vec![];
        flat(&line, "", &mut fields);
        for (name, value) in &fields {
            let row = table.get(name.as_str()).unwrap_or_else(|| panic!("{name} is no field of ECS\n{line}"));
            let elements: Vec<&Value> = match (row[2], value) {
                ("array", Value::Array(all)) => all.iter().collect(),
                ("array", _) => panic!("{name} must be an array\n{line}"),
                (_, Value::Array(_)) => panic!("{name} must not be an array\n{line}"),
                (_, one) => vec![one],
            };
            for element in elements {
                assert!(is_ecs(row[1], element), "{name} must be {}, not {element}", row[1]);
                let allowed: Vec<&str> = row[3].split(',').filter(|a| !a.is_empty()).collect();
                assert!(
                    allowed.is_empty() || allowed.contains(&element.as_str().unwrap()),
                    "{name}: {element}"
                );
            }
            seen.insert(name.clone());
        }
        for required in ["@timestamp", "ecs.version", "message", "event.kind"] {
            assert!(fields.iter().any(|(n, _)| n == required), "{required} is missing\n{line}");
        }
    }
    let unused: Vec<_> = table.keys().filter(|n| !seen.contains(**n)).collect();
    assert!(unused.is_empty(), "in the table, and never written: {unused:?}");
}

fn is_ocsf(kind: &str, value: &Value) -> bool {
    match kind {
        "string_t" | "hostname_t" => value.is_string(),
        "integer_t" | "long_t" => value.is_i64() || value.is_u64(),
        // Milliseconds, of this century.
        "timestamp_t" => value.as_i64().is_some_and(|t| (946_684_800_000..4_102_444_800_000).contains(&t)),
        "port_t" => value.as_u64().is_some_and(|p| p <= 65535),
        "ip_t" => value.as_str().is_some_and(|t| t.parse::<std::net::IpAddr>().is_ok()),
        "boolean_t" => value.is_boolean(),
        "object_t" => value.is_object(),
        other => panic!("no check for the type {other}"),
    }
}

fn hold(object: &str, value: &Value, table: &[Vec<&str>], seen: &mut BTreeSet<(String, String)>) {
    let fields = value.as_object().unwrap_or_else(|| panic!("{object} must be an object, not {value}"));
    for row in table.iter().filter(|r| r[0] == object && r[4] == "required") {
        assert!(fields.contains_key(row[1]), "{object} must have {}\n{value}", row[1]);
    }
    for (name, value) in fields {
        let row = table.iter().find(|r| r[0] == object && r[1] == name);
        let row = row.unwrap_or_else(|| panic!("{name} is no attribute of {object}"));
        seen.insert((object.to_owned(), name.clone()));
        let elements: Vec<&Value> = match (row[3], value) {
            ("array", Value::Array(all)) => all.iter().collect(),
            ("array", _) => panic!("{object}.{name} must be an array"),
            (_, one) => vec![one],
        };
        for element in elements {
            if row[2].ends_with("_t") {
                assert!(is_ocsf(row[2], element), "{object}.{name} must be {}, not {element}", row[2]);
            } else {
                hold(row[2], element, table, seen);
            }
            let allowed: Vec<&str> = row[5].split(',').filter(|a| !a.is_empty()).collect();
            assert!(
                allowed.is_empty() || allowed.contains(&element.to_string().as_str()),
                "{object}.{name}: {element}"
            );
        }
    }
}

#[test]
fn ocsf_lines_have_the_schemas_attributes_and_types() {
    let table = rows(include_str!("testdata/ocsf-1.8.tsv"));
    let mut seen = BTreeSet::new();
    for line in lines(ocsf::Findings::default()) {
        let class = if line["class_uid"] == 2004 { "detection_finding" } else { "base_event" };
        hold(class, &line, &table, &mut seen);
        let number = |name: &str| line[name].as_u64().unwrap();
        assert_eq!(number("type_uid"), number("class_uid") * 100 + number("activity_id"), "{line}");
    }
    let unused: Vec<_> =
        table.iter().filter(|r| !seen.contains(&(r[0].into(), r[1].into()))).map(|r| (r[0], r[1])).collect();
    assert!(unused.is_empty(), "in the table, and never written: {unused:?}");
}

#[test]
fn an_alarms_life_is_an_ocsf_findings_life() {
    let of = |state, count| {
        let mut a = alarm();
        (a.state, a.count) = (state, count);
        let line = ocsf::Findings::default().line(&Message::Alarm(Arc::new(a))).unwrap();
        let v: Value = serde_json::from_slice(&line).unwrap();
        (v["activity_id"].as_u64().unwrap(), v["status_id"].as_u64().unwrap(), v["is_alert"] == true)
    };
    assert_eq!(of(AlarmState::Unacknowledged, 1), (1, 1, true));
    assert_eq!(of(AlarmState::Unacknowledged, 5), (2, 1, true));
    assert_eq!(of(AlarmState::Acknowledged, 1), (2, 2, false));
    assert_eq!(of(AlarmState::Shelved, 1), (2, 3, false));
    assert_eq!(of(AlarmState::Normal, 3), (3, 4, false));
}

/// CEF taken apart: header fields, and the extension. Panics where it is malformed.
fn take_cef_apart(text: &str) -> (Vec<String>, BTreeMap<String, String>) {
    let mut header = vec![String::new()];
    let mut chars = text.chars();
    while header.len() < 8 {
        match chars.next().expect("seven bars") {
            '\\' => {
                let c = chars.next().unwrap();
                assert!("\\|".contains(c), "\\{c} in {text}");
                header.last_mut().unwrap().push(c);
            }
            '|' => header.push(String::new()),
            c => header.last_mut().unwrap().push(c),
        }
    }
    header.pop();
    // A key stands before each unescaped `=`: a value goes up to the last space before the next one.
    let rest: Vec<char> = chars.collect();
    let mut equals = vec![];
    let mut i = 0;
    while i < rest.len() {
        match rest[i] {
            '\\' => {
                assert!("\\=".contains(rest[i + 1]), "{text}");
                i += 1;
            }
            '=' => equals.push(i),
            _ => {}
        }
        i += 1;
    }
    let key_of = |eq: usize| rest[..eq].iter().rposition(|c| *c == ' ').map_or(0, |s| s + 1);
    let mut extension = BTreeMap::new();
    for (n, &eq) in equals.iter().enumerate() {
        let key: String = rest[key_of(eq)..eq].iter().collect();
        let end = equals.get(n + 1).map_or(rest.len(), |next| key_of(*next).saturating_sub(1));
        let raw: String = rest[eq + 1..end].iter().collect();
        let value = raw.replace("\\=", "=").replace("\\\\", "\\");
        assert!(extension.insert(key.clone(), value).is_none(), "{key} twice in {text}");
    }
    (header, extension)
}

#[test]
fn cef_is_whole_whatever_names_say() {
    let mut lines = syslog::Lines::cef(crate::config::Facility::default());
    for message in messages() {
        let line = String::from_utf8(lines.line(&message).unwrap()).unwrap();
        assert!(line.len() <= 2048, "{}", line.len());
        assert!(!line.chars().any(char::is_control), "{line:?}");
        let (_, elements, text) = super::tests::take_apart(&line);
        assert_eq!(elements.len(), 1, "{line}");
        let (header, extension) = take_cef_apart(&text);
        assert_eq!(header[..3], ["CEF:0", "Counterfoil", "counterfoil"]);
        assert!(header[6].parse::<u8>().is_ok_and(|s| s <= 10), "{text}");
        let Message::Alarm(a) = &message else { continue };
        assert_eq!(header[4], a.finding.rule);
        assert_eq!(extension["externalId"], a.id.to_string());
        for key in extension.keys() {
            assert!(key.chars().all(|c| c.is_ascii_alphanumeric()), "{key:?} is none of our keys: {text}");
        }
        let safe = |s: &str| crate::escape::clip(&crate::escape::text(s), 192).replace('…', "...");
        if let Some(path) = a.finding.file.as_ref().and_then(|f| f.path.as_ref())
            && let Some(found) = extension.get("filePath")
        {
            // A value's own spaces at its end belong to the format.
            assert_eq!(found.trim_end(), safe(path).trim_end(), "{text}");
        }
    }
}

/// A journal entry taken apart, as systemd's "Native Journal Protocol" says.
fn take_entry_apart(mut entry: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while !entry.is_empty() {
        let at = entry.iter().position(|b| *b == b'=' || *b == b'\n').expect("a field has a name");
        let name = std::str::from_utf8(&entry[..at]).unwrap();
        assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'), "{name:?}");
        assert!(!name.starts_with('_') && name.len() <= 64, "{name:?}");
        let long = entry[at] == b'\n';
        entry = &entry[at + 1..];
        let length = if long {
            let (length, rest) = entry.split_first_chunk::<8>().unwrap();
            entry = rest;
            u64::from_le_bytes(*length) as usize
        } else {
            entry.iter().position(|b| *b == b'\n').expect("a value ends")
        };
        let value = String::from_utf8(entry[..length].to_vec()).unwrap();
        assert_eq!(entry[length], b'\n');
        entry = &entry[length + 1..];
        assert!(fields.insert(name.to_owned(), value).is_none(), "{name} twice");
    }
    fields
}

#[test]
fn a_journal_entry_has_the_facts_and_no_name_forges_one() {
    for message in messages() {
        let entry = journald::Entries.line(&message).unwrap();
        let fields = take_entry_apart(&entry);
        assert_eq!(fields["SYSLOG_IDENTIFIER"], "counterfoil");
        assert!(fields["PRIORITY"].parse::<u8>().is_ok_and(|p| p < 8));
        let Message::Alarm(a) = &message else { continue };
        assert_eq!(fields["COUNTERFOIL_ID"], a.id.to_string());
        let safe = |s: &str| crate::escape::clip(&crate::escape::text(s), 1000).into_owned();
        assert!(entry.len() < 128 << 10, "{}", entry.len());
        for (name, value) in facts::of(a) {
            assert_eq!(fields[&format!("COUNTERFOIL_{}", name.to_uppercase())], safe(&value), "{name}");
        }
    }
}
