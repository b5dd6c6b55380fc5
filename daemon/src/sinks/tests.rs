//! What a line of each kind says, and what no program can make it say.

use super::syslog::Lines;
use super::*;
use crate::config::{Facility, Sink as SinkConfig, SyslogAddress, Tls};
use crate::detect::Rules;
use crate::judged::{Judged, What};
use crate::metrics::Metrics;
use crate::model::{Severity, Verdict};
use crate::{alarms::Alarms, sample};
use std::os::unix::net::UnixDatagram;

mod limits;
mod receivers;

fn alarm_of(judged: &Judged) -> Alarm {
    Alarms::default().take(Rules::default().findings(judged).remove(0)).alarm
}

pub(crate) fn alarm() -> Alarm {
    let transfer = Box::new(sample::transfer(Verdict::Altered));
    alarm_of(&Judged::Transfer { transfer, context: Box::new(sample::context()) })
}

/// What hostile programs call themselves and their files.
pub(crate) const NASTY: &[&str] = &[
    "a\nb",
    "a\r\n<0>1 forged",
    "\u{1b}[2J",
    "\"] [evil x=\"",
    "a\\",
    "\\\"",
    "]",
    "\u{202e}",
    "\0",
    "\u{9b}1m",
    "x\\x0a",
    "ünï",
    "\u{2028}",
    "act=normal externalId=1|CEF:0|",
    "FIELD=x\nPRIORITY=7\n",
    "\",\"state\":\"normal\"}\n{\"type\":\"alarm\"",
    "%n%s$!all-json",
    "\\xff\\xfe",
];

/// Alarms in which everything that a program can choose is hostile, and one in which it is very long.
pub(crate) fn hostile() -> Vec<Alarm> {
    let long = "/".repeat(100_000);
    let names = NASTY.iter().copied().chain([long.as_str()]);
    let of = |name: &str| {
        let mut a = most_of_everything();
        let f = &mut a.finding;
        (f.title, f.message, f.next) = (name.into(), name.into(), name.into());
        let file = f.file.as_mut().unwrap();
        (file.path, file.label) = (Some(name.into()), Some(name.into()));
        let p = f.process.as_mut().unwrap();
        p.exe = Some(name.into());
        p.argv = Some(vec![name.into(), name.into()]);
        (p.cwd, p.user, p.unit, p.container) =
            (Some(name.into()), Some(name.into()), Some(name.into()), Some(name.into()));
        let c = f.connection.as_mut().unwrap();
        (c.local, c.server_name) = (Some(name.into()), Some(name.into()));
        f.point = Some(
            serde_json::json!({"tag": name, "condition": name, "value": name, "limit": 1, "unit": name}),
        );
        a
    };
    names.map(of).collect()
}

/// An alarm with something in every field.
pub(crate) fn most_of_everything() -> Alarm {
    let mut a = alarm();
    let f = &mut a.finding;
    f.confidence = Some("proven".into());
    f.file = Some(crate::model::FileFact {
        path: Some("/srv/out/prices.csv".into()),
        label: Some("prices".into()),
        sha256: Some("ab".repeat(32)),
        class: serde_json::from_value("text".into()).unwrap(),
    });
    f.connection = Some(crate::model::Connection {
        local: Some("10.0.0.1:40000".into()),
        remote: Some("[2001:db8::1]:443".into()),
        direction: Some("out".into()),
        server_name: Some("api.example".into()),
        bytes_out: Some(1000),
        bytes_in: Some(10),
    });
    let p = f.process.as_mut().unwrap();
    p.argv = Some(vec!["curl".into(), "-T".into(), "a b".into()]);
    p.sha256 = Some("cd".repeat(32));
    p.package = Some("curl 7.88.1".into());
    p.started = Some(sample::moment());
    (p.cwd, p.user, p.uid) = (Some("/srv".into()), Some("batch".into()), Some(1001));
    (p.session, p.unit, p.container) = (Some(3), Some("nightly.service".into()), Some("c0ffee".into()));
    p.parents = vec![crate::model::ProcessName { pid: 10, exe: Some("/bin/sh".into()) }];
    f.point =
        Some(serde_json::json!({"tag": "TI-101", "condition": "HI", "value": 92.4, "limit": 90, "unit": "C",
        "source_time": "2026-03-04T05:06:07Z"}));
    f.evidence["sha256_origin"] = "01".repeat(32).into();
    f.evidence["sha256_destination"] = "02".repeat(32).into();
    a
}

fn message() -> Message {
    Message::Alarm(Arc::new(alarm()))
}

fn syslog(address: SyslogAddress, heartbeat: Option<Duration>) -> SinkConfig {
    let kind = SinkKind::Syslog {
        address,
        facility: Facility::default(),
        shape: SyslogShape::default(),
        tls: Tls::default(),
    };
    SinkConfig { heartbeat, ..SinkConfig::of(kind) }
}

/// An SD element: its id and parameters.
pub(crate) type Element = (String, Vec<(String, String)>);

/// Takes an RFC 5424 line apart: header fields, SD elements, message. Panics where it is malformed.
pub(crate) fn take_apart(line: &str) -> (Vec<String>, Vec<Element>, String) {
    assert!(!line.chars().any(char::is_control), "{line:?}");
    let mut fields: Vec<String> = line.splitn(7, ' ').map(str::to_owned).collect();
    let rest = fields.pop().unwrap();
    let mut chars = rest.chars().peekable();
    let mut elements = vec![];
    while chars.next_if_eq(&'[').is_some() {
        let mut id = String::new();
        while let Some(c) = chars.next_if(|c| !" ]".contains(*c)) {
            id.push(c);
        }
        let mut params = vec![];
        while chars.next_if_eq(&' ').is_some() {
            let mut name = String::new();
            for c in chars.by_ref() {
                if c == '=' {
                    break;
                }
                assert!(c.is_ascii_alphanumeric() || c == '_', "{rest}");
                name.push(c);
            }
            assert_eq!(chars.next(), Some('"'), "{rest}");
            let mut value = String::new();
            loop {
                match chars.next().expect("a value ends") {
                    '"' => break,
                    '\\' => {
                        let c = chars.next().unwrap();
                        assert!("\"\\]".contains(c), "\\{c} in {rest}");
                        value.push(c);
                    }
                    ']' => panic!("a bare ] in {rest}"),
                    c => value.push(c),
                }
            }
            params.push((name, value));
        }
        assert_eq!(chars.next(), Some(']'), "{rest}");
        elements.push((id, params));
    }
    let message: String = chars.collect();
    (fields, elements, message.trim_start_matches(' ').trim_start_matches('\u{feff}').to_owned())
}

fn param<'a>(elements: &'a [Element], name: &str) -> Option<&'a str> {
    elements[0].1.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

#[test]
fn a_line_has_what_interface_promises() {
    let alarm = alarm();
    let line = String::from_utf8(Lines::new(Facility::default()).alarm(&alarm)).unwrap();
    let (fields, elements, message) = take_apart(&line);
    assert_eq!(fields[0], "<82>1", "authpriv (10) * 8 + crit (2), version 1");
    assert_eq!(fields[1], "2026-03-04T05:06:07.123456Z");
    assert_eq!((fields[3].as_str(), fields[5].as_str()), ("counterfoil", "payload-altered"));
    assert_eq!(fields[4], std::process::id().to_string());
    assert_eq!(elements[0].0, "counterfoil@32473");
    let transfer = alarm.finding.transfer.unwrap().to_string();
    for (name, value) in [
        ("id", alarm.id.to_string().as_str()),
        ("analytic", "AN0703"),
        ("rule", "payload-altered"),
        ("severity", "critical"),
        ("state", "unacknowledged"),
        ("verdict", "altered"),
        ("pid", "11"),
        ("exe", "/usr/bin/curl"),
        ("transfer", &transfer),
        ("flow", "00112233445566778899aabbccddeeff"),
        ("altered", "16384+16384"),
    ] {
        assert_eq!(param(&elements, name), Some(value), "{name} in {line}");
    }
    assert!(param(&elements, "digest_origin").is_some() && param(&elements, "digest_destination").is_some());
    assert_eq!(param(&elements, "sha256_origin"), None, "what doesn't apply is left out");
    assert!(message.contains("bytes 16384-32767 differ"), "{message}");
    assert!(line.is_ascii(), "no byte order mark without need: {line}");
    assert!(line.len() <= 2048, "{}", line.len());
}

#[test]
fn severities_and_sequence() {
    let mut lines = Lines::new(Facility(16));
    for (i, (severity, code)) in [
        (Severity::Critical, 2),
        (Severity::High, 3),
        (Severity::Medium, 4),
        (Severity::Low, 5),
        (Severity::Info, 6),
    ]
    .into_iter()
    .enumerate()
    {
        let mut a = alarm();
        a.finding.severity = severity;
        let (fields, elements, _) = take_apart(&String::from_utf8(lines.alarm(&a)).unwrap());
        assert_eq!(fields[0], format!("<{}>1", 16 * 8 + code));
        assert_eq!(elements[1], ("meta".into(), vec![("sequenceId".into(), (i + 1).to_string())]));
    }
}

#[test]
fn no_name_can_break_a_line() {
    let mut lines = Lines::new(Facility::default());
    for &exe in NASTY {
        for &object in NASTY {
            let what = What::ForeignHook { symbol: exe.into(), object: object.into(), before: true };
            let mut notice = sample::notice(what);
            notice.process.as_mut().unwrap().exe = Some(exe.into());
            notice.connection.as_mut().unwrap().local = Some(object.into());
            let line = lines.alarm(&alarm_of(&Judged::Notice(Box::new(notice))));
            let (_, elements, _) = take_apart(&String::from_utf8(line).unwrap());
            assert_eq!(elements.len(), 2);
            assert_eq!(param(&elements, "exe"), Some(&*crate::escape::text(exe)));
        }
    }
}

#[test]
fn long_values_are_cut() {
    let mut a = alarm();
    a.finding.message = "m".repeat(100_000);
    a.finding.process.as_mut().unwrap().exe = Some("/".repeat(100_000));
    a.finding.altered =
        (0..10_000).map(|i| crate::model::Range { offset: i * 65536, length: 16384 }).collect();
    let line = Lines::new(Facility::default()).alarm(&a);
    assert!(line.len() <= 2048, "{}", line.len());
    take_apart(&String::from_utf8(line).unwrap());
}

#[test]
fn json_lines_have_every_field_and_follow_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.jsonl");
    let kind = SinkKind::Jsonl { path: path.clone(), shape: JsonShape::Counterfoil };
    let mut post = open(&SinkConfig::of(kind), None);
    let transfer = sample::transfer(Verdict::Altered);
    post.send(&Message::Transfer(Arc::new(transfer.clone())), 0);
    assert_eq!(post.pump(), None);
    std::fs::rename(&path, dir.path().join("out.1")).unwrap();
    post.send(&message(), 0);
    assert_eq!(post.pump(), None);
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_str(std::fs::read_to_string(dir.path().join(name)).unwrap().trim_end()).unwrap()
    };
    let t = read("out.1");
    assert_eq!(t["type"], "transfer");
    assert_eq!(t["id"], transfer.id.to_string());
    assert_eq!(t["started"], "2026-03-04T05:06:07.123456Z");
    assert!(t["origin"]["tap"] == "tls-write" && t["class"].is_null() && t["legs"].is_array());
    assert_eq!(t["altered"], serde_json::json!([{"offset": 16384, "length": 16384}]));
    let a = read("out.jsonl");
    for field in [
        "id",
        "analytic",
        "rule",
        "technique",
        "severity",
        "confidence",
        "state",
        "title",
        "message",
        "process",
        "file",
        "connection",
        "transfer",
        "verdict",
        "reasons",
        "altered",
        "why",
        "point",
        "evidence",
        "next",
        "key",
        "count",
        "raised",
        "last",
    ] {
        assert!(a.get(field).is_some(), "{field} is missing");
    }
    assert_eq!(a["type"], "alarm");
}

#[test]
fn a_sink_hears_only_what_is_bad_enough() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.jsonl");
    let kind = SinkKind::Jsonl { path: path.clone(), shape: JsonShape::Counterfoil };
    let config = SinkConfig { min_severity: Severity::High, heartbeat: None, ..SinkConfig::of(kind) };
    let sinks = Sinks::start(&[config], None, &Metrics::default());
    let mut low = alarm();
    low.finding.severity = Severity::Low;
    sinks.send(&Message::Alarm(Arc::new(low)));
    sinks.send(&message());
    sinks.finish(Duration::from_secs(5));
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 1);
}
