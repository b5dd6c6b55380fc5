//! Process alarms and process variables (issue 6): what operations say comes onto the one alarm list, from real parts.
//! What happens to a message on its way is in `process_alarms`.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::plant::{Broker, Database, postgres_programs};
use counterfoil_tests::program::counterfoil;
use counterfoil_tests::{Alarm, Report, Scratch, need, skip};
use serde_json::Value;
use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;

/// The alarms of a tag, in order.
fn of_tag(report: &Report, tag: &str) -> Vec<Alarm> {
    report.alarms().into_iter().filter(|a| a.0["point"]["tag"] == tag).collect()
}

/// The ids of a tag's alarms.
fn ids(report: &Report, tag: &str) -> std::collections::BTreeSet<String> {
    of_tag(report, tag).iter().map(|a| a.0["id"].to_string()).collect()
}

fn listed(daemon: &Daemon, tag: &str) -> Value {
    let report = daemon.until_reported(&format!("an alarm of {tag}"), |r| !of_tag(r, tag).is_empty());
    of_tag(&report, tag)[0].0.clone()
}

fn returned(daemon: &Daemon, tag: &str) {
    daemon.until_reported(&format!("{tag} returned to normal"), |r| {
        of_tag(r, tag).iter().any(|a| a.0["state"] == "returned")
    });
}

fn sqlite(path: &std::path::Path, sql: &str) {
    let out = Command::new("sqlite3").arg(path).arg(sql).output().expect("sqlite3");
    assert!(out.status.success(), "{sql}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The daemon's alarm list, from its ledger.
fn listing(daemon: &Daemon) -> Vec<Value> {
    let state = daemon.state().display().to_string();
    let run = counterfoil(&["alarms", "list", "--state", &state, "--json"]);
    counterfoil_tests::program::json_lines(&run)
}

const TABLE: &str = "CREATE TABLE alarms (id INTEGER PRIMARY KEY, tagname TEXT, alm TEXT, pv REAL, sp REAL, eu TEXT, st TEXT, ts TEXT)";
const FIELDS: &str = "fields = { tag = \"tagname\", condition = \"alm\", value = \"pv\", limit = \"sp\", unit = \"eu\", state = \"st\", time = \"ts\" }";

fn is_the_alarm(alarm: &Value) {
    assert_eq!(alarm["rule"], "process-alarm", "{alarm}");
    assert_eq!(alarm["analytic"], "DC0109");
    assert_eq!(alarm["state"], "unacknowledged");
    let point = &alarm["point"];
    assert_eq!(point["condition"], "HI", "{point}");
    assert_eq!(point["value"], 92.4);
    assert_eq!(point["limit"], 80.0);
    assert_eq!(point["unit"], "°C");
    assert_eq!(point["source_time"], "2026-05-01T10:00:00Z");
}

#[test]
fn rows_of_a_sqlite_file_are_taken_once_even_over_kills() {
    need!("sqlite3");
    let scratch = Scratch::new();
    let file = scratch.at("ops.db");
    sqlite(&file, &format!("PRAGMA journal_mode=WAL; {TABLE}"));
    sqlite(&file, "INSERT INTO alarms VALUES (1,'OLD','HI',1,0,'','active','2020-01-01T00:00:00Z')");
    let mut daemon = Daemon::start(&format!(
        "[[intake]]\nkind = \"sql\"\nname = \"historian\"\ndatabase = \"sqlite:{}\"\ntable = \"alarms\"\nkey = \"id\"\nevery = \"100ms\"\n{FIELDS}",
        file.display()
    ));
    // The first look decides what is history; the first row behind it may come at any time after.
    counterfoil_tests::wait::until(std::time::Duration::from_secs(15), daemon.shown("first look"), || {
        let log = std::fs::read_to_string(daemon.scratch.at("log")).unwrap_or_default();
        log.contains("intake historian: begins").then_some(())
    });
    sqlite(&file, "INSERT INTO alarms VALUES (2,'TI-101','HI',92.4,80,'°C','active','2026-05-01T10:00:00Z')");
    is_the_alarm(&listed(&daemon, "TI-101"));
    sqlite(&file, "INSERT INTO alarms VALUES (3,'TI-101','HI',70,80,'°C','normal','2026-05-01T10:05:00Z')");
    returned(&daemon, "TI-101");
    for round in 0..5 {
        let id = 10 + 2 * round;
        daemon.kill();
        sqlite(
            &file,
            &format!("INSERT INTO alarms VALUES ({id},'PI-{round}','LOLO',1,2,'bar','active',NULL)"),
        );
        daemon.launch();
        listed(&daemon, &format!("PI-{round}"));
        sqlite(
            &file,
            &format!("INSERT INTO alarms VALUES ({},'Q-{round}','HIHI',1,2,'bar','active',NULL)", id + 1),
        );
        listed(&daemon, &format!("Q-{round}"));
    }
    let report = daemon.report();
    assert!(of_tag(&report, "OLD").is_empty(), "history was taken: {}", daemon.shown(""));
    // A sink may hear twice of what the ledger did not have when the daemon was killed; the list has it once.
    daemon.stop();
    let list = Report { lines: listing(&daemon), broken: vec![] };
    for tag in (0..5).flat_map(|r| [format!("PI-{r}"), format!("Q-{r}")]) {
        let all = of_tag(&list, &tag);
        assert!(all.len() == 1 && all[0].0["count"] == 1, "{tag}: {all:?}\n{}", daemon.shown(""));
    }
}

#[test]
fn rows_of_postgresql_even_those_committed_late() {
    need!("psql");
    if postgres_programs().is_none() {
        skip!("postgresql is not installed (tests/install-peers.sh)");
    }
    let mut database = Database::start(true);
    database.sql(&format!("CREATE SCHEMA ops; {}", TABLE.replace("alarms", "ops.\"Alarms\"")));
    database.sql("INSERT INTO ops.\"Alarms\" VALUES (1,'OLD','HI',1,0,'','active',NULL)");
    let daemon = Daemon::start(&format!(
        "[[intake]]\nkind = \"sql\"\ndatabase = \"{}?sslmode=require\"\nca = {:?}\ntable = \"ops.Alarms\"\nkey = \"id\"\nevery = \"100ms\"\nfrom = \"start\"\n{FIELDS}",
        database.url(),
        database.ca()
    ));
    listed(&daemon, "OLD");
    database.sql(
        "INSERT INTO ops.\"Alarms\" VALUES (3,'TI-101','HI',92.4,80,'°C','active','2026-05-01T10:00:00Z')",
    );
    is_the_alarm(&listed(&daemon, "TI-101"));
    database.sql("INSERT INTO ops.\"Alarms\" VALUES (2,'LATE','HI',1,0,'','active',NULL)");
    listed(&daemon, "LATE");
    // The server goes and comes; what was written meanwhile is not missed.
    database.stop();
    database.launch();
    database.sql("INSERT INTO ops.\"Alarms\" VALUES (4,'AGAIN','HI',1,0,'','active',NULL)");
    listed(&daemon, "AGAIN");
    let report = daemon.report();
    for tag in ["OLD", "TI-101", "LATE", "AGAIN"] {
        assert!(of_tag(&report, tag).iter().all(|a| a.0["count"] == 1), "{tag}: {}", daemon.shown(""));
    }
}

const SYSLOG: &str = "<132>1 2026-05-01T10:00:00Z plc scada 7 ALM [a@32473 tag=\"TI-101\" condition=\"HI\" value=\"92.4\" limit=\"80\" unit=\"°C\" state=\"ALM\"] too hot";

#[test]
fn syslog_by_datagrams_and_streams() {
    let (udp, tcp) = (counterfoil_tests::peers::free_port(), counterfoil_tests::peers::free_port());
    let scratch = Scratch::new();
    let path = scratch.at("log");
    let daemon = Daemon::start(&format!(
        "[[intake]]\nkind = \"syslog\"\nname = \"u\"\nlisten = \"udp:127.0.0.1:{udp}\"\n\
         [[intake]]\nkind = \"syslog\"\nname = \"t\"\nlisten = \"tcp:127.0.0.1:{tcp}\"\n\
         [[intake]]\nkind = \"syslog\"\nname = \"x\"\nlisten = \"unix:{}\"",
        path.display()
    ));
    let tagged = |tag: &str| SYSLOG.replace("TI-101", tag);
    counterfoil_tests::plant::listening(tcp, "the TCP intake");
    let mut stream = TcpStream::connect(("127.0.0.1", tcp)).expect("connect");
    let counted = tagged("TI-101");
    writeln!(stream, "{} {counted}{}", counted.len(), tagged("LINE")).expect("write");
    is_the_alarm(&listed(&daemon, "TI-101"));
    listed(&daemon, "LINE");
    let unix = UnixDatagram::unbound().expect("socket");
    counterfoil_tests::wait::until(std::time::Duration::from_secs(15), "the Unix intake", || {
        unix.send_to(tagged("UNIX").as_bytes(), &path).ok()
    });
    listed(&daemon, "UNIX");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    socket.send_to(tagged("UDP").as_bytes(), ("127.0.0.1", udp)).expect("send");
    listed(&daemon, "UDP");
    socket.send_to(tagged("UDP").replace("ALM\"]", "RTN\"]").as_bytes(), ("127.0.0.1", udp)).expect("send");
    returned(&daemon, "UDP");
}

#[test]
fn json_lines_and_hostile_ones() {
    let scratch = Scratch::new();
    let path = scratch.at("ops");
    let daemon = Daemon::start(&format!(
        "[[intake]]\nkind = \"jsonl\"\nlisten = \"unix:{}\"\nwords = {{ \"kommt\" = \"active\", \"geht\" = \"normal\" }}",
        path.display()
    ));
    let connect = || {
        counterfoil_tests::wait::until(std::time::Duration::from_secs(15), "the intake listens", || {
            UnixStream::connect(&path).ok()
        })
    };
    let mut hostile = connect();
    let _ = hostile.write_all(&vec![b'['; 300_000]);
    let _ = hostile.write_all(b"\n{\"tag\":1}\nnull\n\xff\xfe\n");
    let _ = hostile.write_all(
        b"{\"tag\":\"E\\n<14>1 forged\\u001b[31m\\u202e\",\"condition\":\"HI\",\"message\":\"a\\nb\"}\n\
          {\"tag\":\"counterfoil.lag\",\"condition\":\"HI\"}\n",
    );
    let mut good = connect();
    good.write_all(
        "{\"tag\":\"TI-101\",\"condition\":\"HI\",\"value\":92.4,\"limit\":80,\"unit\":\"°C\",\"state\":\"kommt\",\"time\":\"2026-05-01T10:00:00Z\"}\n"
            .as_bytes(),
    )
    .expect("write");
    is_the_alarm(&listed(&daemon, "TI-101"));
    good.write_all(b"{\"tag\":\"TI-101\",\"state\":\"geht\"}\n").expect("write");
    returned(&daemon, "TI-101");
    let report = daemon.until_reported("the escaped alarm", |r| {
        r.alarms().iter().any(|a| a.0["point"]["tag"].as_str().is_some_and(|t| t.starts_with('E')))
    });
    for alarm in report.alarms() {
        let text = alarm.0.to_string();
        assert!(!text.contains("\\u001b") && !text.contains('\u{202e}') && !text.contains("\\n"), "{text}");
        assert_ne!(alarm.0["point"]["tag"], "counterfoil.lag", "only we speak for ourselves");
    }
}

#[test]
fn telemetry_by_mqtt_over_tls_with_limits() {
    need!("mosquitto", "mosquitto_pub", "openssl");
    let scratch = Scratch::new();
    let mut broker = Broker::start(&scratch);
    let mut daemon = Daemon::start(&format!(
        "[[intake]]\nkind = \"mqtt\"\nbroker = \"tls:127.0.0.1:{}\"\nca = {:?}\ntopics = [\"plant/#\"]\n\
         [[alarms.limit]]\nvariable = \"plant/boiler/temperature\"\nhi = 80\nhihi = 95\ndeadband = 2\nunit = \"°C\"",
        broker.tls, broker.ca
    ));
    let tag = "plant/boiler/temperature";
    // Until the first word arrives, the subscription may not stand yet.
    counterfoil_tests::wait::until(std::time::Duration::from_secs(15), daemon.shown("a value"), || {
        broker.publish("plant/p7", "{\"condition\":\"discrete\",\"state\":true}");
        (!of_tag(&daemon.report(), "plant/p7").is_empty()).then_some(())
    });
    for i in 0..60 {
        broker.publish(tag, if i % 2 == 0 { "80.5" } else { "78.5" });
    }
    let alarm = listed(&daemon, tag);
    assert_eq!(alarm["rule"], "process-alarm");
    assert_eq!(
        (&alarm["point"]["condition"], &alarm["point"]["value"]),
        (&Value::from("HI"), &Value::from(80.5))
    );
    broker.publish(tag, "70");
    returned(&daemon, tag);
    let report = daemon.report();
    assert_eq!(ids(&report, tag).len(), 1, "one alarm, not sixty: {}", daemon.shown(""));
    assert!(of_tag(&report, tag).iter().all(|a| a.0["count"] == 1), "{}", daemon.shown(""));
    // While the daemon is away the broker keeps what comes; then the broker itself goes and comes.
    daemon.stop();
    broker.publish("plant/away", "{\"condition\":\"HIHI\"}");
    daemon.launch();
    listed(&daemon, "plant/away");
    broker.stop();
    broker.launch();
    counterfoil_tests::wait::until(std::time::Duration::from_secs(15), daemon.shown("reconnected"), || {
        broker.publish("plant/back", "{\"condition\":\"HIHI\"}");
        (!of_tag(&daemon.report(), "plant/back").is_empty()).then_some(())
    });
}

#[test]
fn counterfoils_own_variables() {
    let daemon =
        Daemon::start("[[alarms.limit]]\nvariable = \"counterfoil.volume\"\nhi = 50000\non_delay = \"1s\"");
    daemon.good_session(1);
    let alarm = listed(&daemon, "counterfoil.volume");
    assert_eq!(alarm["point"]["condition"], "HI");
    assert!(alarm["point"]["value"].as_f64().is_some_and(|v| v >= 100_000.0), "{alarm}");
}
