//! Carriage: whether a process alarm's message arrived as it was sent.
//!
//! Comes in: packets of observed publishers and subscribers, what our own intakes got, and findings about the streams that
//! carried them. Goes out: `process-alarm-altered` and `alarm-suppressed`. Called by `operations`, with the time.
//!
//! A message is known by its topic and its payload's keyed fingerprint. One that was sent is looked for wherever its topic
//! was subscribed to before it was sent, at the same broker, or behind one from where earlier messages came:
//!
//! * Another payload arrived in its place, and it did not: **altered**.
//! * Nothing did, and the place had not ended: **suppressed**, if the stream that carried it was seen to be altered; or if
//!   the broker owes it (QoS 1 or 2 at both ends), this place got this topic before, and something that the broker sent
//!   later came: a message that was sent after the broker had taken this one, or the answer to a ping.
//!
//! What a broker may drop (QoS 0), keeps for others (shared subscriptions), sends again (duplicates, retained messages), or
//! never had (it was restarted, the connection broke) accuses nobody. Nor does what was not followed from its start.
#![forbid(unsafe_code)]

mod filter;
mod findings;
mod lines;
#[cfg(test)]
mod tests;

use crate::config::{Carrier, Config, intake::IntakeKind};
use crate::judged::{Carried, Line, Said};
use crate::model::{Connection, Finding, Range};
use counterfoil_abi::record::{Packet, fingerprint};
use filter::covers;
use findings::{Evidence, Taint};
use jiff::Timestamp;
use lines::{Arrival, Place};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

const SECOND: u64 = 1_000_000_000;
/// How long after a message its counterpart's record may come: lanes are read one after the other.
const GRACE: u64 = 2 * SECOND;
/// What arrived is remembered for so long: by then the record of its sending was read, however busy the daemon is.
const STRAYS: u64 = 120 * SECOND;
/// A message's record may be written after it arrived.
const EARLY: u64 = 2 * SECOND;
/// So many waits after which nobody knows any more.
const PATIENCE: u64 = 10;
/// Messages that are on their way.
const SENT: usize = 4096;
/// Connections that are known, ended ones included.
const PLACES: usize = 512;
/// How long an ended connection is remembered.
const REMEMBERED: u64 = 600 * SECOND;
/// Flows that were seen to be altered.
const TAINTS: usize = 1024;
/// Intakes' numbers begin here; connections' never get there.
const INTAKES: u64 = 1 << 62;

/// A message that was sent.
struct Sent {
    line: u64,
    topic: String,
    fingerprint: [u8; 16],
    payload: u32,
    qos: u8,
    at: u64,
    seen: Timestamp,
    span: (u64, u64),
    id: u16,
    /// When the broker was known to have had all up to this.
    reached: Option<u64>,
    carrier: usize,
    /// Where it has arrived.
    arrived: Vec<u64>,
    /// Where it was said that it did not.
    said: Vec<u64>,
}

/// See the module's text.
pub struct Carriage {
    carriers: Vec<Carrier>,
    places: BTreeMap<u64, Place>,
    intakes: HashMap<String, (u64, Vec<String>)>,
    sent: VecDeque<Sent>,
    /// By flow.
    taints: VecDeque<Taint>,
    /// What fingerprints are made with.
    key: Option<[u8; 16]>,
    now: u64,
}

impl Carriage {
    /// As configured; None: nothing is.
    #[must_use]
    pub fn new(config: &Config, key: Option<[u8; 16]>) -> Option<Self> {
        if config.carriers.is_empty() {
            return None;
        }
        let mut carriage = Self {
            carriers: config.carriers.clone(),
            places: BTreeMap::new(),
            intakes: HashMap::new(),
            sent: VecDeque::new(),
            taints: VecDeque::new(),
            key,
            now: 0,
        };
        for (intake, number) in config.intakes.iter().zip(INTAKES..) {
            let IntakeKind::Mqtt(mqtt) = &intake.kind else { continue };
            let remote = format!("{}:{}", mqtt.host, mqtt.port).parse::<std::net::SocketAddr>();
            let line = Line {
                number,
                connection: Connection {
                    remote: remote.ok().map(|a| a.to_string()),
                    ..Connection::default()
                },
                ..Line::default()
            };
            let place = Place::of_intake(Arc::new(line));
            carriage.places.insert(number, place);
            carriage.intakes.insert(intake.name.clone(), (number, mqtt.topics.clone()));
        }
        Some(carriage)
    }

    /// What messages are fingerprinted with.
    pub fn keyed(&mut self, key: [u8; 16]) {
        self.key = Some(key);
    }

    /// A packet of an observed connection.
    pub fn carried(&mut self, carried: &Carried) {
        self.now = self.now.max(carried.at);
        if carried.line.broker {
            // What a broker has of a message is neither its source nor its destination.
            return;
        }
        let number = carried.line.number;
        self.make_room();
        let place = self.places.entry(number).or_insert_with(|| Place::new(Arc::clone(&carried.line)));
        // More may be known of it by now.
        place.line = Arc::clone(&carried.line);
        let packet = match carried.said {
            Said::End => {
                place.ended = Some(carried.at);
                return;
            }
            Said::Packet(packet) => packet,
        };
        match (packet, carried.sent) {
            (Packet::Lost, sent) => place.lost[usize::from(!sent)] = Some(carried.at),
            (Packet::Subscribe, true) => place.asks(&carried.text, carried.id, carried.qos),
            (Packet::Unsubscribe, true) => place.leaves(&carried.text),
            (Packet::Suback, false) => place.answered(carried.id, &carried.codes, carried.at),
            (Packet::Publish, sent) => self.message(carried, sent),
            (Packet::Puback | Packet::Pubrec, false) => {
                let its = |s: &&mut Sent| s.line == number && s.id == carried.id && s.reached.is_none();
                if let Some(sent) = self.sent.iter_mut().find(its) {
                    sent.reached = Some(carried.at);
                }
            }
            (Packet::Pingreq, true) => place.asked = Some(carried.at),
            (Packet::Pingresp, false) => {
                let Some(asked) = place.asked.take() else { return };
                place.answered_at = asked;
                // The broker has read its stream up to there.
                for sent in self.sent.iter_mut().filter(|s| s.line == number && s.at < asked) {
                    sent.reached.get_or_insert(carried.at);
                }
            }
            _ => {}
        }
    }

    fn message(&mut self, carried: &Carried, sent: bool) {
        let number = carried.line.number;
        let Some(place) = self.places.get_mut(&number) else { return };
        if !place.follows(sent, carried.sequence) {
            place.lost[usize::from(!sent)] = Some(carried.at);
        }
        let Some(topic) = place.topic(sent, &carried.text, carried.alias) else { return };
        let carries = |c: &Carrier| c.topics.iter().any(|f| covers(f, &topic));
        let Some(carrier) = self.carriers.iter().position(carries) else { return };
        let span = (carried.offset, carried.offset.saturating_add(u64::from(carried.length)));
        if !sent {
            if !carried.retained {
                place.arrives(Arrival {
                    topic,
                    fingerprint: carried.fingerprint,
                    payload: carried.payload,
                    at: carried.at,
                    seen: carried.seen,
                    span,
                    // It may have come before, and was taken then.
                    claimed: carried.duplicate,
                    stray: false,
                });
            }
            return;
        }
        if carried.duplicate {
            // What became of the first one is looked after.
            return;
        }
        self.sent.push_back(Sent {
            line: number,
            topic,
            fingerprint: carried.fingerprint,
            payload: carried.payload,
            qos: carried.qos,
            at: carried.at,
            seen: carried.seen,
            span,
            id: carried.id,
            reached: None,
            carrier,
            arrived: vec![],
            said: vec![],
        });
        if self.sent.len() > SENT {
            self.sent.pop_front();
        }
    }

    /// A message arrived at an intake of ours.
    pub fn arrived(&mut self, intake: &str, topic: &str, payload: &[u8], retained: bool, at: u64) {
        let (Some(key), Some((number, _))) = (&self.key, self.intakes.get(intake)) else { return };
        let Some(place) = self.places.get_mut(number) else { return };
        self.now = self.now.max(at);
        if retained || !self.carriers.iter().any(|c| c.topics.iter().any(|f| covers(f, topic))) {
            return;
        }
        let fingerprint = fingerprint(key, payload);
        place.arrives(Arrival {
            topic: topic.to_owned(),
            fingerprint,
            payload: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            at,
            seen: Timestamp::now(),
            span: (0, 0),
            claimed: false,
            stray: false,
        });
    }

    /// An intake of ours is subscribed from now on, or is not.
    pub fn stands(&mut self, intake: &str, at: Option<u64>) {
        let Some((number, filters)) = self.intakes.get(intake) else { return };
        if let Some(place) = self.places.get_mut(number) {
            place.stands(filters, at);
        }
    }

    /// Something was found out about a stream. Gives what follows at once, for flows that were tied by configuration.
    pub fn found(&mut self, finding: &Finding) -> Vec<Finding> {
        let Some(taint) = Taint::of(finding, self.now) else { return vec![] };
        let tied = findings::tied(&self.carriers, finding);
        if taint.flow.is_some() {
            self.taints.push_back(taint);
            if self.taints.len() > TAINTS {
                self.taints.pop_front();
            }
        }
        tied
    }

    /// Time went by: `now` is monotonic nanoseconds.
    pub fn tick(&mut self, now: u64) -> Vec<Finding> {
        self.now = self.now.max(now);
        self.decide(false)
    }

    /// Nothing more will come: what is known by now decides.
    pub fn finish(&mut self) -> Vec<Finding> {
        self.decide(true)
    }

    fn decide(&mut self, last: bool) -> Vec<Finding> {
        for sent in &mut self.sent {
            claim(sent, &mut self.places);
        }
        let mut found = Vec::new();
        let mut sent = std::mem::take(&mut self.sent);
        // Where an earlier message is still missing: that place may just be slow.
        let mut behind = HashSet::new();
        sent.retain_mut(|s| self.look(s, last, &mut behind, &mut found));
        self.sent = sent;
        self.strangers(last, &mut found);
        self.places.retain(|_, p| p.ended.is_none_or(|at| self.now.saturating_sub(at) < REMEMBERED));
        found
    }

    /// Looks what became of a message. False: that is settled.
    fn look(
        &mut self,
        sent: &mut Sent,
        last: bool,
        behind: &mut HashSet<u64>,
        found: &mut Vec<Finding>,
    ) -> bool {
        let age = self.now.saturating_sub(sent.at);
        if age < GRACE && !last {
            return true;
        }
        let wait = u64::try_from(self.carriers[sent.carrier].wait.as_nanos()).unwrap_or(u64::MAX);
        let Some(from) = self.places.get(&sent.line) else { return false };
        let origin_taint = self.taint(&from.line, true, sent.span).cloned();
        if from.lost[0].is_some_and(|at| at <= sent.at) && origin_taint.is_none() {
            return false;
        }
        let (mut open, mut expected) = (false, false);
        let numbers: Vec<u64> =
            self.places.iter().filter(|(n, p)| **n != sent.line && p.subscribes()).map(|(n, _)| *n).collect();
        for number in numbers {
            let (Some(from), Some(place)) = (self.places.get(&sent.line), self.places.get(&number)) else {
                continue;
            };
            let Some(qos) = place.expects(&sent.topic, sent.at) else { continue };
            if place.ended.is_some_and(|at| at < sent.at)
                || !(same_broker(&from.line, &place.line) || place.good.contains_key(&sent.topic))
            {
                continue;
            }
            expected = true;
            if sent.arrived.contains(&number) || sent.said.contains(&number) || place.lost[1].is_some() {
                continue;
            }
            let instead = place.arrived.iter().position(|a| {
                let old = last || self.now.saturating_sub(a.at) >= GRACE;
                let free = !a.claimed && !a.stray;
                free && old && a.topic == sent.topic && a.at.saturating_add(EARLY) >= sent.at
            });
            let taint = origin_taint.clone().or_else(|| {
                let since = instead.and_then(|i| place.arrived.get(i)).map(|a| a.span);
                self.taint_after(&place.line, sent.at, since).cloned()
            });
            let evidence = Evidence { sent, from: &from.line, to: place, taint: taint.as_ref() };
            if let Some(at) = instead {
                // Somebody else may have sent it, and the broker dropped ours: then it proves nothing.
                let alone = !place.others.contains(&sent.topic)
                    && place
                        .arrived
                        .iter()
                        .filter(|a| !a.claimed && !a.stray && a.topic == sent.topic)
                        .count()
                        == 1;
                if taint.is_some() || alone {
                    found.push(evidence.altered(&self.carriers[sent.carrier], &place.arrived[at]));
                    if let Some(place) = self.places.get_mut(&number) {
                        place.arrived[at].claimed = true;
                        let fingerprint = place.arrived[at].fingerprint;
                        place.claimed(&fingerprint);
                    }
                    sent.said.push(number);
                    continue;
                }
            }
            let ended_in_time = place.ended.is_some_and(|at| at < sent.at.saturating_add(wait));
            let later = sent.reached.is_some_and(|reached| {
                let got = place.good.get(&sent.topic).is_some_and(|newest| *newest > reached);
                got || place.answered_at > reached && !behind.contains(&number)
            });
            let known = place.good.contains_key(&sent.topic);
            let owed = sent.qos >= 1 && qos >= 1 && !ended_in_time && known && later;
            if taint.is_some() && (age >= wait.min(GRACE * 2) || last) || owed && age >= wait {
                found.push(evidence.suppressed(&self.carriers[sent.carrier], wait));
                sent.said.push(number);
            } else if !ended_in_time && age < wait.saturating_mul(PATIENCE) {
                open = true;
                behind.insert(number);
            }
        }
        // Nobody that we see was to get it: what is known of its stream is all there is.
        if !expected
            && let Some(taint) = &origin_taint
            && let Some(from) = self.places.get(&sent.line)
        {
            found.push(findings::in_its_stream(&self.carriers[sent.carrier], sent, &from.line, taint));
            return false;
        }
        // Where nobody is known to get it, a finding about its stream may come when that ends.
        !last && (open || !expected && age < wait)
    }

    /// What arrived and nobody sent: in a stream that was altered, or from somebody whom nobody observes.
    fn strangers(&mut self, last: bool, found: &mut Vec<Finding>) {
        let numbers: Vec<u64> = self.places.keys().copied().collect();
        for number in numbers {
            let Some(mut place) = self.places.remove(&number) else { continue };
            let mut arrived = std::mem::take(&mut place.arrived);
            arrived.retain_mut(|a| {
                let age = self.now.saturating_sub(a.at);
                if a.claimed {
                    return false;
                }
                // Messages of the same topic that are missed here may still be laid beside it.
                if (age < GRACE * 3 || a.stray && age < STRAYS) && !last {
                    return true;
                }
                if a.stray {
                    place.claimed(&a.fingerprint);
                    return false;
                }
                let taint = (a.span.1 > 0).then(|| self.taint(&place.line, false, a.span)).flatten();
                match taint {
                    Some(taint) => {
                        let carrier =
                            self.carriers.iter().find(|c| c.topics.iter().any(|f| covers(f, &a.topic)));
                        found.extend(carrier.map(|c| findings::in_its_end(c, a, &place.line, taint)));
                    }
                    None => {
                        place.gets_from_others(&a.topic);
                        a.stray = true;
                        return !last;
                    }
                }
                place.claimed(&a.fingerprint);
                false
            });
            place.arrived = arrived;
            self.places.insert(number, place);
        }
    }

    /// A finding about that span of a connection's stream. `out`: the one that its process sends.
    fn taint(&self, line: &Line, out: bool, span: (u64, u64)) -> Option<&Taint> {
        self.taints.iter().find(|t| t.is_about(line, out) && t.covers(span))
    }

    /// A finding about what a destination got since a message was sent.
    fn taint_after(&self, line: &Line, at: u64, span: Option<(u64, u64)>) -> Option<&Taint> {
        let about = |t: &&Taint| t.is_about(line, false) && t.at.saturating_add(EARLY) >= at;
        self.taints.iter().filter(about).find(|t| span.is_none_or(|span| t.covers(span)))
    }

    fn make_room(&mut self) {
        if self.places.len() < PLACES {
            return;
        }
        self.places.retain(|_, p| p.ended.is_none());
        // Many at once, so that this is rare; the oldest first, but for our own.
        let surplus = self.places.len().saturating_sub(PLACES * 3 / 4);
        let oldest: Vec<u64> =
            self.places.keys().copied().take_while(|n| *n < INTAKES).take(surplus).collect();
        oldest.into_iter().for_each(|number| _ = self.places.remove(&number));
    }
}

/// Finds a message among what arrived.
fn claim(sent: &mut Sent, places: &mut BTreeMap<u64, Place>) {
    for (number, place) in places.iter_mut() {
        if !place.has(&sent.fingerprint) || sent.arrived.contains(number) {
            continue;
        }
        let same = |a: &&mut Arrival| {
            !a.claimed
                && a.fingerprint == sent.fingerprint
                && a.topic == sent.topic
                && a.at.saturating_add(EARLY) >= sent.at
        };
        if let Some(arrival) = place.arrived.iter_mut().find(same) {
            arrival.claimed = true;
            place.claimed(&sent.fingerprint);
            sent.arrived.push(*number);
            place.gets(&sent.topic, sent.at);
        }
    }
}

/// Both are connected to one broker.
fn same_broker(a: &Line, b: &Line) -> bool {
    let local = a.connection.remote.as_ref().is_some_and(|r| r.starts_with("127.") || r.starts_with("[::1]"));
    let here = !local || a.namespace == b.namespace || b.namespace.is_none();
    a.connection.remote.is_some() && a.connection.remote == b.connection.remote && here
}

/// True if any of `ranges` touches the span; none at all means that nobody knows where.
fn touches(ranges: &[Range], span: (u64, u64)) -> bool {
    ranges.is_empty()
        || ranges.iter().any(|r| r.offset < span.1 && span.0 < r.offset.saturating_add(r.length))
}
