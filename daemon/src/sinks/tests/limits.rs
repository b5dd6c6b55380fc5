//! What is held back, and what is given up: it is said.

use super::*;

#[test]
fn what_a_rate_limit_holds_back_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.jsonl");
    let kind = SinkKind::Jsonl { path: path.clone(), shape: JsonShape::Counterfoil };
    let rate = crate::config::Rate { count: 3, per: Duration::from_secs(3600) };
    let config = SinkConfig { rate_limit: Some(rate), heartbeat: None, ..SinkConfig::of(kind) };
    let metrics = Metrics::default();
    let sinks = Sinks::start(&[config], None, &metrics);
    let mut low = alarm();
    low.finding.severity = Severity::Low;
    let low = Arc::new(low);
    for _ in 0..1000 {
        sinks.send(&Message::Alarm(Arc::clone(&low)));
    }
    sinks.send(&message());
    sinks.finish(Duration::from_secs(5));
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 5, "three, the critical one, and the word about the others");
    assert_eq!(lines[3]["severity"], "critical");
    assert_eq!((&lines[4]["type"], &lines[4]["alarms"]), (&"withheld".into(), &997.into()));
    let rules = serde_json::json!([{"severity": "low", "rule": "payload-altered", "alarms": 997}]);
    assert_eq!(lines[4]["rules"], rules);
    let page = metrics.text();
    assert!(
        page.lines().any(|l| l.starts_with("counterfoil_sink_held_back_total{") && l.ends_with("} 997")),
        "{page}"
    );
}

#[test]
fn what_a_full_queue_gives_up_is_counted_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut config = syslog(SyslogAddress::Unix(path.clone()), None);
    config.queue_size = 64 << 10;
    let sinks = Sinks::start(std::slice::from_ref(&config), Some(dir.path()), &Metrics::default());
    // Each some 900 bytes.
    for _ in 0..500 {
        sinks.send(&message());
    }
    sinks.finish(Duration::from_secs(5));
    let spool = std::fs::read_dir(dir.path().join("spool")).unwrap().next().unwrap().unwrap();
    assert!(spool.metadata().unwrap().len() <= (128 << 10) + 4096);
    // The next daemon brings what is left, the newest, with the word about the rest at its end.
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let sinks = Sinks::start(&[config], Some(dir.path()), &Metrics::default());
    let mut buffer = [0; 8192];
    let mut came = vec![];
    let withheld = loop {
        let n = receiver.recv(&mut buffer).expect("a line comes");
        let (fields, elements, _) = take_apart(std::str::from_utf8(&buffer[..n]).unwrap());
        if fields[5] == "withheld" {
            break param(&elements, "given_up").unwrap().parse::<usize>().unwrap();
        }
        came.push(elements[1].1[0].1.parse::<usize>().unwrap());
    };
    sinks.finish(Duration::from_secs(5));
    assert!((40..100).contains(&came.len()), "{}", came.len());
    // The word about them cost a few lines more, which no word could be about any more.
    assert!(came[0] - 1 - withheld <= 2, "{withheld} said, {} missing", came[0] - 1);
    assert!(came.windows(2).all(|w| w[1] == w[0] + 1), "{came:?}");
}

#[test]
fn a_letter_that_comes_again_is_queued_once_whatever_became_of_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.jsonl");
    let kind = SinkKind::Jsonl { path: path.clone(), shape: JsonShape::Counterfoil };
    let config = SinkConfig { min_severity: Severity::Medium, heartbeat: None, ..SinkConfig::of(kind) };
    let away = syslog(SyslogAddress::Unix(dir.path().join("nobody")), None);
    let letter = |number, severity| {
        let mut alarm = alarm();
        (alarm.count, alarm.finding.severity) = (number, severity);
        Letter::new(number, Arc::new(alarm))
    };
    let run = |letters: &[Letter]| {
        let sinks = Sinks::start(&[config.clone(), away.clone()], Some(dir.path()), &Metrics::default());
        letters.iter().for_each(|letter| sinks.letter(letter));
        sinks.finish(Duration::from_secs(1))
    };
    assert_eq!(run(&[letter(5, Severity::High), letter(6, Severity::High)]), Some(6));
    // What has no line here, for it is not bad enough, is passed as well.
    assert_eq!(run(&[letter(6, Severity::High), letter(7, Severity::Low)]), Some(7));
    assert_eq!(run(&[letter(6, Severity::High), letter(8, Severity::High)]), Some(8));
    let text = std::fs::read_to_string(&path).unwrap();
    let counts: Vec<u64> = text
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["count"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [5, 6, 8]);
    assert!(highest(dir.path()) >= 8);
    assert_eq!(highest(&dir.path().join("nowhere")), 0);
    // The one that is away has each of them once, too.
    let receiver = UnixDatagram::bind(dir.path().join("nobody")).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let sinks = Sinks::start(&[config, away], Some(dir.path()), &Metrics::default());
    let (mut came, mut buffer) = (vec![], [0; 8192]);
    while let Ok(n) = receiver.recv(&mut buffer) {
        let (_, elements, _) = take_apart(std::str::from_utf8(&buffer[..n]).unwrap());
        came.push(param(&elements, "count").unwrap().to_owned());
    }
    sinks.finish(Duration::from_secs(5));
    assert_eq!(came, ["5", "6", "7", "8"]);
}
