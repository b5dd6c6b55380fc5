//! Together (issue 6): what became of a process alarm's message between its source and its destination, with a real broker
//! over TLS. How process alarms come in is in `intake`.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::observed::Running;
use counterfoil_tests::peers::{PYTHON, free_port, script};
use counterfoil_tests::plant::{Broker, Database, Service, listening, postgres_programs};
use counterfoil_tests::{Observed, Report, Scratch, check, need, skip, wait};
use std::process::Command;
use std::time::Duration;

const TOPIC: &str = "plant/boiler/temperature";
const HI: &str = "{\"tag\":\"TI-101\",\"condition\":\"HI\",\"value\":92.4,\"limit\":80,\"unit\":\"C\",\"state\":\"active\"}";
const LIMIT: Duration = Duration::from_secs(30);

struct Plant {
    broker: Broker,
    daemon: Daemon,
    _scratch: Scratch,
}

impl Plant {
    fn new() -> Self {
        let scratch = Scratch::new();
        let broker = Broker::start(&scratch);
        // The intake has the plain way; what is observed goes over TLS.
        let daemon = Daemon::start(&format!(
            "[[intake]]\nkind = \"mqtt\"\nbroker = \"tcp:127.0.0.1:{}\"\ntopics = [\"plant/#\"]\n\
             [[alarms.carrier]]\ntopics = [\"plant/#\"]\nwait = \"3s\"",
            broker.plain
        ));
        Self { broker, daemon, _scratch: scratch }
    }

    fn client(&self, program: &str, words: &[&str]) -> Vec<String> {
        let mut all = vec![program.to_owned()];
        all.extend(self.broker.client());
        all.extend(words.iter().map(|w| (*w).to_owned()));
        all
    }

    fn observing(&self, words: &[String]) -> Observed {
        self.daemon.observing(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// An observed subscriber, subscribed.
    fn subscriber(&self, id: &str, words: &[&str], how: impl FnOnce(Observed) -> Observed) -> Running {
        let mut all = self.client("mosquitto_sub", &["-i", id, "-k", "5", "-t", "plant/#"]);
        all.extend(words.iter().map(|w| (*w).to_owned()));
        let running = how(self.observing(&all)).start();
        self.broker.subscribed(id, 1);
        running
    }

    /// Publishes as an observed gateway does.
    fn publish(&self, qos: &str, payload: &str, how: impl FnOnce(Observed) -> Observed) {
        let words = self.client("mosquitto_pub", &["-q", qos, "-t", TOPIC, "-m", payload]);
        how(self.observing(&words)).limit(30).go().well();
    }

    fn said(&self, running: &Running, text: &str) {
        wait::until(LIMIT, format!("the subscriber got {text}"), || {
            let said = std::fs::read_to_string(running.scratch.at("stdout")).unwrap_or_default();
            said.contains(text).then_some(())
        });
    }

    fn alarmed(&self, rule: &str) -> Report {
        self.daemon.until_reported(rule, |r| r.fired(rule))
    }

    /// Neither is said until everything was looked at.
    fn quiet(&mut self, what: &str) {
        // What the daemon does at its end decides what is open.
        self.daemon.stop();
        let report = self.daemon.report();
        for rule in ["process-alarm-altered", "alarm-suppressed", "payload-altered", "cipher-mismatch"] {
            assert!(!report.fired(rule), "{}", self.daemon.shown(what));
        }
    }
}

fn as_it_is(o: Observed) -> Observed {
    o
}

/// The words of a client behind the middleware.
fn behind(words: Vec<String>) -> Vec<String> {
    let library = counterfoil_tests::fixture("middleware.so");
    let script = "export LD_PRELOAD=\"$LD_PRELOAD:$0\"; exec \"$@\"";
    let mut all = vec!["sh".to_owned(), "-c".into(), script.into(), library];
    all.extend(words);
    all
}

macro_rules! needs {
    () => {
        need!("mosquitto", "mosquitto_pub", "mosquitto_sub", "openssl");
    };
}

#[test]
fn a_clean_way_accuses_nobody() {
    needs!();
    let mut plant = Plant::new();
    let subscriber = plant.subscriber("s1", &["-q", "1"], as_it_is);
    let quick = plant.subscriber("s0", &["-q", "0"], as_it_is);
    for (i, qos) in ["0", "1", "2", "1", "0"].iter().enumerate() {
        plant.publish(qos, &format!("{{\"tag\":\"TI-101\",\"value\":{i}}}"), as_it_is);
    }
    plant.publish("1", HI, as_it_is);
    plant.publish("1", HI, as_it_is);
    plant.said(&subscriber, "92.4");
    plant.said(&quick, "92.4");
    // Somebody whom nobody observes publishes, too, and a subscriber comes late.
    plant.broker.publish(TOPIC, "61.0");
    let late = plant.subscriber("late", &["-q", "1", "-C", "1"], as_it_is);
    plant.publish("1", "last", as_it_is);
    late.finish().well();
    plant.said(&subscriber, "last");
    let report = plant.daemon.until_reported("the HI alarm", |r| r.fired("process-alarm"));
    let alarm = report.alarms().into_iter().find(|a| a.rule() == "process-alarm").expect("it fired");
    assert_eq!(alarm.0["point"]["tag"], "TI-101");
    assert_eq!(alarm.0["point"]["value"], 92.4);
    // The broker goes and comes, with subscribers on it.
    plant.broker.stop();
    plant.broker.launch();
    // mosquitto_sub ends where its connection breaks.
    let subscriber = plant.subscriber("s2", &["-q", "1"], as_it_is);
    plant.publish("1", "after", as_it_is);
    plant.said(&subscriber, "after");
    plant.quiet("a clean way");
}

#[test]
fn a_value_that_was_rewritten_is_altered() {
    needs!();
    for qos in ["0", "1"] {
        let plant = Plant::new();
        let subscriber = plant.subscriber("s1", &["-q", "1"], as_it_is);
        let words = plant.client("mosquitto_pub", &["-q", qos, "-t", TOPIC, "-m", HI]);
        plant.observing(&behind(words)).env("REWRITE", "92.4=61.0").go().well();
        plant.said(&subscriber, "61.0");
        let report = plant.alarmed("process-alarm-altered");
        let alarm =
            report.alarms().into_iter().find(|a| a.rule() == "process-alarm-altered").expect("it fired");
        assert_eq!(alarm.0["severity"], "critical");
        assert_eq!(alarm.0["analytic"], "DC0109");
        assert_eq!(alarm.0["point"]["tag"], TOPIC);
        assert_eq!(alarm.0["evidence"]["topic"], TOPIC);
        assert!(!report.fired("alarm-suppressed"), "{}", plant.daemon.shown(""));
        assert!(!alarm.0.to_string().contains("92.4"), "content was told: {}", alarm.0);
    }
}

#[test]
fn a_value_that_was_rewritten_behind_the_broker_is_altered() {
    needs!();
    let plant = Plant::new();
    let words = plant.client("mosquitto_sub", &["-i", "s1", "-q", "1", "-t", "plant/#"]);
    let subscriber = plant.observing(&behind(words)).env("REWRITE", "92.4=61.0").env("WHERE", "in").start();
    plant.broker.subscribed("s1", 1);
    plant.publish("1", HI, as_it_is);
    plant.said(&subscriber, "61.0");
    plant.alarmed("process-alarm-altered");
}

#[test]
fn an_alarm_that_was_swallowed_is_suppressed() {
    needs!();
    let plant = Plant::new();
    let subscriber = plant.subscriber("s1", &["-q", "1"], as_it_is);
    plant.publish("1", "well", as_it_is);
    plant.said(&subscriber, "well");
    // The gateway sends without waiting for anybody (QoS 0), and the middleware says that it went out.
    let words = plant.client("mosquitto_pub", &["-q", "0", "-t", TOPIC, "-m", HI]);
    plant.observing(&behind(words)).env("SWALLOW", "TI-101").go().well();
    let report = plant.alarmed("alarm-suppressed");
    let alarm = report.alarms().into_iter().find(|a| a.rule() == "alarm-suppressed").expect("it fired");
    assert_eq!(alarm.0["severity"], "critical");
    assert_eq!(alarm.0["technique"], "T0878");
    assert_eq!(alarm.0["point"]["tag"], TOPIC);
    assert!(!report.fired("process-alarm-altered"), "{}", plant.daemon.shown(""));
}

/// Nothing in any observed process is wrong: something between the broker and the subscriber takes the alarm out, and
/// answers in the subscriber's name. The broker owed it, and everybody lives on.
#[test]
fn an_alarm_that_was_swallowed_on_the_network_is_suppressed() {
    needs!();
    need!("python3");
    let plant = Plant::new();
    let port = free_port();
    let relay = Command::new(PYTHON)
        .args([script("mqtt_swallow.py"), port.to_string(), plant.broker.plain.to_string(), "TI-101".into()])
        .env_remove("LD_PRELOAD")
        .spawn()
        .expect("relay");
    let _relay = Service(relay);
    listening(port, "the relay");
    let port = port.to_string();
    let words =
        ["mosquitto_sub", "-h", "127.0.0.1", "-p", &port, "-i", "s1", "-k", "5", "-q", "1", "-t", "plant/#"];
    let subscriber = plant.daemon.observing(&words).start();
    plant.broker.subscribed("s1", 1);
    plant.publish("1", "well", as_it_is);
    plant.said(&subscriber, "well");
    plant.publish("1", HI, as_it_is);
    plant.publish("1", "on", as_it_is);
    plant.said(&subscriber, "on");
    let report = plant.alarmed("alarm-suppressed");
    let alarm = report.alarms().into_iter().find(|a| a.rule() == "alarm-suppressed").expect("it fired");
    assert_eq!(alarm.0["confidence"], "correlated");
    assert!(!report.fired("process-alarm-altered"), "{}", plant.daemon.shown(""));
}

/// PostgreSQL as the operational database: who writes alarms there and the server are observed, the daemon reads the rows.
struct Operations {
    database: Database,
    daemon: Daemon,
    _server: Running,
}

impl Operations {
    fn new() -> Self {
        let database = Database::configured(true);
        let daemon = Daemon::start(&format!(
            "[[intake]]\nkind = \"sql\"\nname = \"historian\"\ndatabase = \"{}?sslmode=require\"\nca = {:?}\ntable = \"alarms\"\n\
             key = \"id\"\nevery = \"100ms\"\nfrom = \"start\"\n\
             [[alarms.carrier]]\ntag = \"TI-101\"\nprogram = \"psql\"\nservice = \"{}\"",
            database.url(),
            database.ca(),
            database.port
        ));
        let mut words: Vec<String> = vec![];
        if let Some(uid) = database.uid {
            let id = uid.to_string();
            words.extend(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"].map(str::to_owned));
        }
        words.extend(database.words.iter().cloned());
        let server = daemon.observing(&words.iter().map(String::as_str).collect::<Vec<_>>()).start();
        database.ready();
        database.sql("CREATE TABLE alarms (id serial, tag text, condition text, value float8, state text)");
        Self { database, daemon, _server: server }
    }

    fn gateway(&self) -> Vec<String> {
        let insert =
            "INSERT INTO alarms (tag, condition, value, state) VALUES ('TI-101', 'HI', 92.4, 'active')";
        let url = format!("{}?sslmode=require", self.database.url());
        ["psql", "-X", "-q", &url, "-c", insert].map(str::to_owned).to_vec()
    }

    fn observing(&self, words: &[String]) -> Observed {
        self.daemon.observing(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn value(&self) -> f64 {
        let report = self.daemon.until_reported("the HI alarm", |r| r.fired("process-alarm"));
        let alarm = report.alarms().into_iter().find(|a| a.rule() == "process-alarm").expect("it fired");
        assert_eq!(
            (&alarm.0["point"]["tag"], &alarm.0["point"]["condition"]),
            (&"TI-101".into(), &"HI".into())
        );
        alarm.0["point"]["value"].as_f64().expect("a value")
    }
}

macro_rules! needs_postgresql {
    () => {
        need!("psql", "openssl", "setpriv");
        if postgres_programs().is_none() {
            skip!("postgresql is not installed (tests/install-peers.sh)");
        }
    };
}

#[test]
fn the_operational_database_by_a_clean_way() {
    needs_postgresql!();
    let mut operations = Operations::new();
    operations.observing(&operations.gateway()).go().well();
    assert_eq!(operations.value(), 92.4);
    operations.daemon.stop();
    let report = operations.daemon.report();
    for rule in ["process-alarm-altered", "alarm-suppressed", "payload-altered", "cipher-mismatch"] {
        assert!(!report.fired(rule), "{}", operations.daemon.shown(rule));
    }
}

#[test]
fn a_value_that_was_rewritten_on_its_way_to_the_database() {
    needs_postgresql!();
    let operations = Operations::new();
    operations.observing(&behind(operations.gateway())).env("REWRITE", "92.4=61.0").go().well();
    assert_eq!(operations.value(), 61.0, "the database has what was made of it");
    let report = operations.daemon.until_reported("altered", |r| r.fired("process-alarm-altered"));
    let alarm = report.alarms().into_iter().find(|a| a.rule() == "process-alarm-altered").expect("it fired");
    assert_eq!((&alarm.0["severity"], &alarm.0["point"]["tag"]), (&"critical".into(), &"TI-101".into()));
}

#[test]
fn an_alarm_that_was_swallowed_on_its_way_to_the_database() {
    needs_postgresql!();
    let operations = Operations::new();
    // The gateway waits for an answer that can't come, until the server gives its connection up.
    let gateway = operations.observing(&behind(operations.gateway())).env("SWALLOW", "INSERT").start();
    wait::until(LIMIT, "the gateway is connected", || {
        let gone = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'psql' AND pid <> \
                    pg_backend_pid() AND backend_start < now() - interval '1 second'";
        operations.database.sql(gone).contains('t').then_some(())
    });
    let run = gateway.finish();
    check!(run, run.code() == 2, "psql was answered");
    let report = operations.daemon.until_reported("suppressed", |r| r.fired("alarm-suppressed"));
    assert!(!report.fired("process-alarm-altered"), "{}", operations.daemon.shown(""));
    assert_eq!(operations.database.sql("SELECT count(*) FROM alarms"), "0");
}
