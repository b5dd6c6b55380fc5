use super::*;
use crate::config::parse;
use crate::model::{Process, Severity};
use crate::sample;

const MILLI: u64 = 1_000_000;

/// A plant: one publisher, one subscriber, a broker that nobody observes.
struct Plant {
    carriage: Carriage,
    now: u64,
    sequence: HashMap<(u64, bool), u32>,
}

const PUBLISHER: u64 = 1;
const SUBSCRIBER: u64 = 2;

impl Plant {
    fn new() -> Self {
        let config = parse("[[alarms.carrier]]\ntopics = [\"plant/#\"]\nwait = \"10s\"").unwrap().config;
        let carriage = Carriage::new(&config, Some([7; 16])).unwrap();
        let mut plant = Self { carriage, now: 1000 * SECOND, sequence: HashMap::new() };
        plant.subscribe(SUBSCRIBER, "plant/+", 1, 1);
        plant.pass(SECOND);
        plant
    }

    fn pass(&mut self, time: u64) -> Vec<Finding> {
        let mut found = Vec::new();
        let until = self.now + time;
        while self.now < until {
            self.now = (self.now + 250 * MILLI).min(until);
            found.extend(self.carriage.tick(self.now));
        }
        found
    }

    fn line(number: u64) -> Arc<Line> {
        Arc::new(Line {
            number,
            process: Some(Process {
                pid: number as u32,
                exe: Some(format!("/bin/p{number}")),
                ..Process::default()
            }),
            connection: Connection { remote: Some("10.0.0.1:8883".into()), ..Connection::default() },
            flow: Some(format!("f{number}")),
            ..Line::default()
        })
    }

    fn packet(&mut self, number: u64, sent: bool, packet: Packet, with: impl FnOnce(&mut Carried)) {
        self.now += MILLI;
        let mut carried = Carried::end(Self::line(number), sample::moment(), self.now);
        (carried.said, carried.sent) = (Said::Packet(packet), sent);
        with(&mut carried);
        self.carriage.carried(&carried);
    }

    fn subscribe(&mut self, number: u64, filter: &str, qos: u8, code: u8) {
        self.packet(number, true, Packet::Subscribe, |c| (c.text, c.qos, c.id) = (filter.into(), qos, 1));
        self.packet(number, false, Packet::Suback, |c| (c.codes, c.id) = (vec![code], 1));
    }

    fn message(
        &mut self,
        number: u64,
        sent: bool,
        topic: &str,
        payload: &str,
        with: impl FnOnce(&mut Carried),
    ) {
        let sequence = self.sequence.entry((number, sent)).or_default();
        *sequence += 1;
        let sequence = *sequence;
        let fingerprint = fingerprint(&[7; 16], payload.as_bytes());
        self.packet(number, sent, Packet::Publish, |c| {
            (c.text, c.qos, c.sequence, c.payload) = (topic.into(), 1, sequence, payload.len() as u32);
            (c.offset, c.length) = (u64::from(sequence) * 100, 50);
            c.fingerprint = fingerprint;
            with(c);
        });
    }

    fn send(&mut self, payload: &str) {
        self.message(PUBLISHER, true, "plant/t", payload, |_| {});
        self.packet(PUBLISHER, false, Packet::Puback, |_| {});
    }

    fn get(&mut self, payload: &str) {
        self.message(SUBSCRIBER, false, "plant/t", payload, |_| {});
    }

    /// One that went well: the way is known.
    fn good(&mut self) {
        self.send("first");
        self.get("first");
        assert_eq!(self.pass(5 * SECOND), []);
    }

    fn end(&mut self, number: u64) {
        self.now += MILLI;
        let end = Carried::end(Self::line(number), sample::moment(), self.now);
        self.carriage.carried(&end);
    }

    /// Both ask their broker, and are answered.
    fn alive(&mut self) {
        for number in [PUBLISHER, SUBSCRIBER] {
            self.ping(number);
        }
    }

    fn ping(&mut self, number: u64) {
        self.packet(number, true, Packet::Pingreq, |_| {});
        self.packet(number, false, Packet::Pingresp, |_| {});
    }

    /// The stream that `number` sends, or gets, was altered there.
    fn taint(&mut self, number: u64, out: bool, offset: u64) {
        let mut f = crate::detect::finding("cipher-mismatch", Severity::Critical, sample::moment());
        f.flow = Some(format!("f{number}"));
        f.process = Self::line(number).process.clone();
        f.connection = Some(Connection {
            direction: Some(if out { "out" } else { "in" }.into()),
            ..Connection::default()
        });
        f.altered = vec![Range { offset, length: 10 }];
        assert_eq!(self.carriage.found(&f), []);
    }
}

fn rules(found: &[Finding]) -> Vec<&str> {
    found.iter().map(|f| f.rule.as_str()).collect()
}

#[test]
fn what_arrives_accuses_nobody() {
    let mut p = Plant::new();
    for i in 0..50 {
        // Also where the subscriber's record is read first, or has the same content as others.
        let payload = format!("{}", i % 3);
        if i % 2 == 0 {
            p.send(&payload);
            p.get(&payload);
        } else {
            p.get(&payload);
            p.send(&payload);
        }
        assert_eq!(p.pass(SECOND), []);
    }
    assert_eq!(p.pass(200 * SECOND), []);
    assert_eq!(p.carriage.finish(), []);
    assert!(p.carriage.sent.is_empty());
}

#[test]
fn another_payload_in_its_place_is_altered() {
    let mut p = Plant::new();
    p.send("92.4");
    p.get("61.0");
    let found = p.pass(5 * SECOND);
    assert_eq!(rules(&found), ["process-alarm-altered"]);
    let f = &found[0];
    assert_eq!((f.severity, f.confidence.as_deref()), (Severity::Critical, Some("correlated")));
    assert_eq!(f.point.as_ref().unwrap()["tag"], "plant/t");
    assert_ne!(f.evidence["sent"]["fingerprint"], f.evidence["arrived"]["fingerprint"]);
    assert_eq!(p.pass(200 * SECOND), [], "said once");
}

#[test]
fn what_is_owed_and_never_comes_is_suppressed() {
    let mut p = Plant::new();
    p.good();
    p.send("alarm");
    assert_eq!(p.pass(5 * SECOND), []);
    p.alive();
    let found = p.pass(20 * SECOND);
    assert_eq!(rules(&found), ["alarm-suppressed"]);
    assert_eq!(found[0].technique.as_deref(), Some("T0878"));
    assert_eq!(p.pass(200 * SECOND), [], "said once");
}

#[test]
fn what_came_later_proves_that_it_is_not_just_late() {
    let mut p = Plant::new();
    p.good();
    p.send("alarm");
    p.pass(SECOND);
    p.send("later");
    p.get("later");
    assert_eq!(rules(&p.pass(20 * SECOND)), ["alarm-suppressed"]);
    // The publisher was never told that it was taken, but the broker read on behind it.
    let mut p = Plant::new();
    p.good();
    p.message(PUBLISHER, true, "plant/t", "alarm", |_| {});
    p.alive();
    assert_eq!(rules(&p.pass(20 * SECOND)), ["alarm-suppressed"]);
}

#[test]
fn a_stream_that_was_altered_just_there_is_enough() {
    for at_source in [true, false] {
        let mut p = Plant::new();
        p.message(PUBLISHER, true, "plant/t", "alarm", |c| c.qos = 0);
        let (number, out) = if at_source { (PUBLISHER, true) } else { (SUBSCRIBER, false) };
        p.taint(number, out, 120);
        let found = p.pass(20 * SECOND);
        assert_eq!(rules(&found), ["alarm-suppressed"], "{at_source}");
        assert_eq!(found[0].confidence.as_deref(), Some("proven"));
    }
    // Elsewhere in the stream, or in the other direction, it says nothing about this message.
    for (number, out, offset) in [(PUBLISHER, true, 5000), (PUBLISHER, false, 120), (9, true, 120)] {
        let mut p = Plant::new();
        p.message(PUBLISHER, true, "plant/t", "alarm", |c| c.qos = 0);
        p.taint(number, out, offset);
        assert_eq!(p.pass(500 * SECOND), []);
    }
}

#[test]
fn nobody_to_get_it_but_its_stream_was_altered() {
    let mut p = Plant::new();
    p.end(SUBSCRIBER);
    p.send("92.4");
    p.taint(PUBLISHER, true, 120);
    assert_eq!(rules(&p.pass(5 * SECOND)), ["process-alarm-altered"]);
    // And at the other end, with a source that nobody observes.
    let mut p = Plant::new();
    p.get("61.0");
    p.taint(SUBSCRIBER, false, 120);
    assert_eq!(rules(&p.pass(20 * SECOND)), ["process-alarm-altered"]);
}

/// Each is what really happens in plants, and none of it is anybody's fault.
#[test]
fn innocent_losses() {
    type Story = fn(&mut Plant);
    let stories: [(&str, Story); 17] = [
        ("QoS 0 may be dropped", |p| {
            p.message(PUBLISHER, true, "plant/t", "x", |c| c.qos = 0);
            p.alive();
        }),
        ("acknowledged, and then the subscriber's connection is silent", |p| p.send("x")),
        ("a slow subscriber reads what was sent long before", |p| {
            p.send("x");
            p.packet(SUBSCRIBER, false, Packet::Pingresp, |_| {});
            p.message(SUBSCRIBER, false, "plant/other", "of an hour ago", |_| {});
        }),
        ("a slow subscriber misses many", |p| {
            p.message(PUBLISHER, true, "plant/t", "x", |_| {});
            p.packet(PUBLISHER, true, Packet::Disconnect, |_| {});
        }),
        ("granted with QoS 0", |p| {
            p.subscribe(SUBSCRIBER, "plant/+", 1, 0);
            p.send("x");
            p.alive();
        }),
        ("the broker was restarted", |p| {
            p.send("x");
            p.end(SUBSCRIBER);
            p.end(PUBLISHER);
        }),
        ("nothing came from the broker any more", |p| p.message(PUBLISHER, true, "plant/t", "x", |_| {})),
        ("joined later", |p| {
            p.end(SUBSCRIBER);
            p.send("x");
            p.subscribe(3, "plant/#", 1, 1);
            p.ping(3);
        }),
        ("refused", |p| {
            p.end(SUBSCRIBER);
            p.subscribe(3, "plant/#", 1, 0x80);
            p.send("x");
            p.ping(3);
        }),
        ("left", |p| {
            p.packet(SUBSCRIBER, true, Packet::Unsubscribe, |c| c.text = "plant/+".into());
            p.send("x");
            p.alive();
        }),
        ("one of a group gets it", |p| {
            p.end(SUBSCRIBER);
            p.subscribe(3, "$share/g/plant/#", 1, 1);
            p.send("x");
            p.ping(3);
        }),
        ("a subscriber that may not read it never got any", |p| {
            p.subscribe(3, "plant/#", 1, 1);
            p.send("x");
            p.get("x");
            p.ping(3);
        }),
        ("sent again", |p| {
            p.send("x");
            p.get("x");
            p.message(PUBLISHER, true, "plant/t", "x", |c| c.duplicate = true);
            p.alive();
        }),
        ("came twice, and an old one that the broker kept", |p| {
            p.send("x");
            p.get("x");
            p.message(SUBSCRIBER, false, "plant/t", "x", |c| c.duplicate = true);
            p.message(SUBSCRIBER, false, "plant/t", "of yesterday", |c| c.retained = true);
        }),
        ("its stream can't be followed", |p| {
            p.packet(SUBSCRIBER, false, Packet::Lost, |_| {});
            p.send("x");
            p.alive();
        }),
        ("some were not told", |p| {
            p.sequence.insert((SUBSCRIBER, false), 7);
            p.send("x");
            p.get("y");
            p.alive();
        }),
        ("a topic that carries no alarms", |p| {
            p.message(PUBLISHER, true, "office/t", "x", |_| {});
            p.alive();
        }),
    ];
    for (what, story) in stories {
        let mut p = Plant::new();
        p.good();
        story(&mut p);
        let mut found = p.pass(15 * SECOND);
        found.extend(p.pass(300 * SECOND));
        found.extend(p.carriage.finish());
        assert_eq!(rules(&found), Vec::<&str>::new(), "{what}");
    }
}

#[test]
fn a_publisher_whom_nobody_observes_proves_nothing() {
    let mut p = Plant::new();
    p.good();
    p.get("from somebody else");
    assert_eq!(p.pass(30 * SECOND), []);
    p.message(PUBLISHER, true, "plant/t", "dropped", |c| c.qos = 0);
    p.get("from somebody else again");
    assert_eq!(p.pass(300 * SECOND), []);
}

#[test]
fn another_broker_has_other_messages() {
    let mut p = Plant::new();
    let mut line = (*Plant::line(5)).clone();
    line.connection.remote = Some("10.0.0.2:8883".into());
    let line = Arc::new(line);
    for (packet, sent) in [(Packet::Subscribe, true), (Packet::Suback, false)] {
        let mut c = Carried::end(Arc::clone(&line), sample::moment(), p.now);
        (c.said, c.sent, c.text, c.qos, c.id, c.codes) =
            (Said::Packet(packet), sent, "plant/#".into(), 1, 1, vec![1]);
        p.carriage.carried(&c);
    }
    p.pass(SECOND);
    p.send("x");
    p.get("x");
    let mut ping = Carried::end(line, sample::moment(), p.now + 11 * SECOND);
    ping.said = Said::Packet(Packet::Pingresp);
    p.carriage.carried(&ping);
    assert_eq!(p.pass(300 * SECOND), []);
}

#[test]
fn mqtt_5_aliases_name_topics() {
    let mut p = Plant::new();
    p.message(PUBLISHER, true, "plant/t", "1", |c| c.alias = 3);
    p.message(PUBLISHER, true, "", "92.4", |c| c.alias = 3);
    p.get("1");
    p.get("61.0");
    assert_eq!(rules(&p.pass(5 * SECOND)), ["process-alarm-altered"]);
}

/// A daemon that has much to do reads late what its programs did, and hears at once what its own subscription gets.
#[test]
fn a_sending_that_is_heard_of_late_accuses_nobody() {
    let mut plant = Plant::new();
    plant.good();
    plant.get("late");
    let (then, sent) = (plant.now, 20 * SECOND);
    assert_eq!(plant.pass(sent), []);
    plant.message(PUBLISHER, true, "plant/t", "late", |c| c.at = then);
    plant.packet(PUBLISHER, false, Packet::Puback, |c| c.at = then);
    plant.send("next");
    plant.get("next");
    assert_eq!(plant.pass(60 * SECOND), []);
}

#[test]
fn our_own_subscription_is_a_destination() {
    let text = "[[intake]]\nkind = \"mqtt\"\nbroker = \"tcp:10.0.0.1:8883\"\ntopics = [\"plant/#\"]\n[[alarms.carrier]]\ntopics = [\"plant/#\"]\ntag = \"TI-101\"";
    let mut p = Plant::new();
    p.carriage = Carriage::new(&parse(text).unwrap().config, Some([7; 16])).unwrap();
    p.carriage.stands("mqtt", Some(p.now));
    p.pass(SECOND);
    p.send("1");
    p.carriage.arrived("mqtt", "plant/t", b"1", false, p.now);
    p.send("92.4");
    p.carriage.arrived("mqtt", "plant/t", b"61.0", false, p.now);
    let found = p.pass(5 * SECOND);
    assert_eq!(rules(&found), ["process-alarm-altered"]);
    assert_eq!(found[0].point.as_ref().unwrap()["tag"], "TI-101");
}

#[test]
fn a_tag_tied_to_a_program_or_service() {
    let text = "[[alarms.carrier]]\ntag = \"TI-101\"\nprogram = \"psql\"\nservice = \"5432\"";
    let mut carriage = Carriage::new(&parse(text).unwrap().config, None).unwrap();
    let mut f = crate::detect::finding("payload-altered", Severity::Critical, sample::moment());
    f.process = Some(Process { exe: Some("/usr/bin/psql".into()), ..Process::default() });
    f.connection = Some(Connection { remote: Some("10.0.0.5:5432".into()), ..Connection::default() });
    let found = carriage.found(&f);
    assert_eq!(rules(&found), ["process-alarm-altered"]);
    assert_eq!(found[0].point.as_ref().unwrap()["tag"], "TI-101");
    f.rule = "payload-truncated".into();
    assert_eq!(rules(&carriage.found(&f)), ["alarm-suppressed"]);
    for (rule, exe, port) in
        [("coverage-lost", "psql", 5432), ("payload-altered", "curl", 5432), ("payload-altered", "psql", 80)]
    {
        f.rule = rule.into();
        f.process.as_mut().unwrap().exe = Some(format!("/usr/bin/{exe}"));
        f.connection.as_mut().unwrap().remote = Some(format!("10.0.0.5:{port}"));
        assert_eq!(carriage.found(&f), [], "{rule} {exe} {port}");
    }
}

#[test]
fn memory_is_bounded() {
    let mut p = Plant::new();
    for i in 0..20_000 {
        p.message(PUBLISHER, true, "plant/t", &format!("{i}"), |c| c.qos = 0);
        p.message(SUBSCRIBER, false, "plant/t", &format!("other {i}"), |_| {});
        p.packet(100 + i, true, Packet::Connect, |_| {});
    }
    assert!(p.carriage.sent.len() <= SENT && p.carriage.places.len() <= PLACES);
}
