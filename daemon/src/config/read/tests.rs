use super::*;
use crate::config::sink::HEARTBEAT;
use crate::config::{SinkKind, SyslogAddress};
use crate::model::Severity;

fn mistakes(text: &str) -> Vec<String> {
    parse(text).expect_err(text).iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_is_the_defaults_and_they_are_useful() {
    let parsed = parse("").unwrap();
    assert_eq!(parsed, Parsed::default());
    assert!(parsed.config.watch.watched_processes.contains(&"curl".to_owned()));
    assert!(parsed.config.watch.monitored_ports.contains(1));
}

#[test]
fn a_whole_file() {
    let text = r#"
[watch]
watched_processes = ["curl", "/opt/pay/bin/send"]
monitored_ports = [443, "8000-8099"]
internal_ranges = ["10.0.0.0/8", "fd00::/8"]
workflow_interval = "off"
workflow_paths = ["/opt/pay/send.sh"]
baseline_days = 14
[integrity]
stream_digest = "blake3"
hash_check_interval = "10min"
hash_check_paths = ["/srv/in", "/srv/out/prices.csv"]
hash_check_uncached = true
integrity_baseline = "/etc/counterfoil/expected.sha256"
[privacy]
argv = "none"
[ledger]
keep = "30d"
max_size = "64MiB"
[[sink]]
kind = "syslog"
address = "tcp:log.example:601"
facility = "local3"
min_severity = "high"
heartbeat = "off"
[[sink]]
kind = "jsonl"
path = "/var/log/counterfoil.jsonl"
"#;
    let config = parse(text).unwrap().config;
    assert_eq!(config.watch.watched_processes, ["curl", "/opt/pay/bin/send"]);
    assert!(config.watch.monitored_ports.contains(8050) && !config.watch.monitored_ports.contains(80));
    assert_eq!(config.watch.internal_ranges.len(), 2);
    assert_eq!(config.watch.baseline_days, 14);
    assert_eq!(config.integrity.stream_digest, StreamDigest::Blake3);
    assert_eq!(config.integrity.hash_check_interval, Duration::from_secs(600));
    assert_eq!(config.integrity.hash_check_paths.len(), 2);
    assert!(config.integrity.hash_check_uncached);
    assert_eq!(config.integrity.integrity_baseline, Some("/etc/counterfoil/expected.sha256".into()));
    assert_eq!(config.watch.workflow_interval, None);
    assert_eq!(config.watch.workflow_paths, [std::path::PathBuf::from("/opt/pay/send.sh")]);
    assert_eq!(config.privacy.argv, ArgvPrivacy::None);
    assert_eq!(config.ledger.max_size, 64 << 20);
    assert_eq!(config.sinks.len(), 2);
    let SinkKind::Syslog { address, facility, .. } = &config.sinks[0].kind else { panic!() };
    assert_eq!((address, facility.0), (&SyslogAddress::Tcp("log.example:601".into()), 19));
    assert_eq!(config.sinks[0].heartbeat, None);
    assert_eq!(config.sinks[1].heartbeat, Some(HEARTBEAT));
    assert_eq!(config.sinks[1].min_severity, Severity::Info);
}

/// Text, and its whole list of mistakes: place, and words that must stand in the message.
const WRONG: &[(&str, &[(&str, &str)])] = &[
    ("[wach]\n", &[("1:2", "did you mean `watch`?")]),
    ("[watch]\nwatched-processes = []\n", &[("2:1", "did you mean `watched_processes`?")]),
    (
        "[watch]\nfoo = 1\n",
        &[("2:1", "known: watched_processes, monitored_ports, internal_ranges, workflow_interval")],
    ),
    ("[watch]\nbaseline_days = -1\n", &[("2:17", "0 to 3650")]),
    ("[watch]\nbaseline_days = \"a week\"\n", &[("2:17", "0 to 3650")]),
    ("[integrity]\nstream_digest = \"blake2\"\n", &[("2:17", "did you mean `blake3`?")]),
    ("[integrity]\nstream_digest = 7\n", &[("2:17", "must be a string, not an integer")]),
    (
        "[integrity]\nhash_check_intervall = \"1h\"\nhash_check_uncached = \"yes\"\n",
        &[("2:1", "did you mean `hash_check_interval`?"), ("3:23", "must be true or false, not a string")],
    ),
    (
        "[integrity]\nhash_check_interval = \"1ms\"\nhash_check_paths = [\"srv\", 3]\n",
        &[("2:23", "at least 1s"), ("3:21", "must begin with `/`"), ("3:28", "a path must be a string")],
    ),
    (
        "[integrity]\nintegrity_baseline = \"sums\"\nhash_check_path = []\n",
        &[("2:22", "must begin with `/`"), ("3:1", "did you mean `hash_check_paths`?")],
    ),
    (
        "[watch]\nworkflow_interval = \"never\"\nworkflow_path = []\n",
        &[("2:21", "or \"off\""), ("3:1", "did you mean `workflow_paths`?")],
    ),
    ("watch = 3\n", &[("1:1", "must be a section, [watch], not an integer")]),
    (
        "[watch]\nmonitored_ports = [70000, \"9-1\", true]\n",
        &[("2:20", "is no port"), ("2:27", "ends before it begins"), ("2:34", "is no port")],
    ),
    ("[watch]\nmonitored_ports = 80\n", &[("2:19", "\"all\" or an array")]),
    (
        "[watch]\ninternal_ranges = [\"10.0.0.0/40\", 1]\n",
        &[("2:20", "at most 32"), ("2:35", "must be a string")],
    ),
    ("[watch]\nwatched_processes = [\"bin/curl\"]\n", &[("2:22", "from `/` on")]),
    ("[sink]\nkind = \"syslog\"\n", &[("1:2", "[[sink]]")]),
    ("[[sink]]\nadress = \"unix:/dev/log\"\n", &[("1:1", "needs a kind")]),
    (
        "[[sink]]\nkind = \"syslog\"\nadress = \"unix:/dev/log\"\n",
        &[("1:1", "needs an address"), ("3:1", "did you mean `address`?")],
    ),
    ("[[sink]]\nkind = \"sylog\"\n", &[("2:8", "did you mean `syslog`?")]),
    (
        "[[sink]]\nkind = \"syslog\"\naddress = \"tls:h\"\nmin_severity = \"hihg\"\nfacility = \"authprv\"\n",
        &[("3:11", "no port"), ("4:16", "did you mean `high`?"), ("5:12", "did you mean `authpriv`?")],
    ),
    (
        "[[sink]]\nkind = \"jsonl\"\npath = \"x.jsonl\"\nheartbeat = \"1ms\"\n",
        &[("3:8", "must begin with `/`"), ("4:13", "at least 100ms")],
    ),
    (
        "[ledger]\nkeep = \"forever\"\nmax_size = \"1KiB\"\n",
        &[("2:8", "no span of time"), ("3:12", "at least 1MiB")],
    ),
    ("[privacy]\nargv = \"hashed\"\n", &[("2:8", "redacted, full, none")]),
    ("[alarms]\nlimits = 1\n", &[("2:1", "did you mean `limit`?")]),
    ("[egress\n", &[("1:8", "not TOML")]),
    ("fleet = 1\n", &[("1:1", "must be a section")]),
];

#[test]
fn every_mistake_is_named_at_its_place() {
    for (text, expected) in WRONG {
        let found = mistakes(text);
        assert_eq!(found.len(), expected.len(), "{text}\n{found:#?}");
        for (found, (place, words)) in found.iter().zip(*expected) {
            assert!(found.starts_with(&format!("{place}: ")), "{text}\n{found}, wanted at {place}");
            assert!(found.contains(words), "{text}\n{found}, wanted: {words}");
        }
    }
}

#[test]
fn mistakes_of_syntax_and_of_meaning_come_together() {
    let found = mistakes("[watch]\nbogus = 1\nx = = 2\n[ledger]\nkeep = 5\n");
    assert!(found.iter().any(|f| f.contains("not TOML")), "{found:?}");
    assert!(found.iter().any(|f| f.contains("`bogus`")), "{found:?}");
    assert!(found.iter().any(|f| f.contains("keep must be a string")), "{found:?}");
}

#[test]
fn sections_of_later_versions_warn() {
    let text = "[fleet]\n";
    let warnings = parse(text).unwrap().warnings;
    let lines: Vec<usize> = warnings.iter().map(|w| w.line).collect();
    assert_eq!(lines, [1], "{warnings:?}");
    assert!(warnings.iter().all(|w| w.message.contains("does nothing yet")));
}

#[test]
fn columns_count_characters() {
    let found = mistakes("[privacy]\nargv = [\"ä\", \"ö\"] # x\n[ledger]\nkeep = \"ü\"\n");
    assert!(found[0].starts_with("2:8: "), "{found:?}");
    assert!(found[1].starts_with("4:8: "), "{found:?}");
}

#[test]
fn shelving() {
    let parsed = parse("[alarms]\nshelving = \"30min\"\nshelving_limit = \"2h\"").unwrap().config.alarms;
    assert_eq!(
        (parsed.shelving, parsed.shelving_limit),
        (Duration::from_secs(1800), Duration::from_secs(7200))
    );
    // The default is no longer than the limit.
    assert_eq!(
        parse("[alarms]\nshelving_limit = \"1h\"").unwrap().config.alarms.shelving,
        Duration::from_secs(3600)
    );
    for (text, why) in [
        ("shelving = \"8d\"", "longer than shelving_limit"),
        ("shelving = \"0s\"", "at least 1s"),
        ("shelving = 5", "must be a string"),
        ("shelvin = \"1h\"", "did you mean `shelving`?"),
    ] {
        let mistakes = parse(&format!("[alarms]\n{text}")).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].message.contains(why), "{text}: {mistakes:?}");
    }
}
