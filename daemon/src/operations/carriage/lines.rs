//! Lines: what is known of each connection that carries messages, and of each place where they arrive.
//!
//! Comes in: packets. Goes out: who expects which topic, since when, and what arrived there. Bounded.
#![forbid(unsafe_code)]

use super::filter::covers;
use crate::judged::Line;
use jiff::Timestamp;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Filters of one subscriber; topics that one is known to get.
const MOST: usize = 256;
/// Messages that arrived somewhere and are remembered.
const ARRIVED: usize = 512;

/// A subscription.
#[derive(Debug)]
struct Wanted {
    filter: String,
    id: u16,
    /// Since when it stands; None: the broker has not answered.
    since: Option<u64>,
    qos: u8,
}

/// A message that arrived.
#[derive(Debug)]
pub struct Arrival {
    /// Where it is about.
    pub topic: String,
    /// Of its payload.
    pub fingerprint: [u8; 16],
    /// Bytes of its payload.
    pub payload: u32,
    /// When, monotonic nanoseconds.
    pub at: u64,
    /// When.
    pub seen: Timestamp,
    /// Where it begins and ends in its stream.
    pub span: (u64, u64),
    /// It is the one that was sent.
    pub claimed: bool,
    /// Nobody is known to have sent it; who did may be heard of late, where the daemon has much to do.
    pub stray: bool,
}

/// One end of a connection, or an intake of ours.
#[derive(Debug, Default)]
pub struct Place {
    /// Whose.
    pub line: Arc<Line>,
    /// An intake of ours.
    pub intake: bool,
    wanted: Vec<Wanted>,
    /// What arrived and may still be what was sent.
    pub arrived: VecDeque<Arrival>,
    /// How many of them have this content, and are not claimed.
    unclaimed: HashMap<[u8; 16], u32>,
    /// Topics of which something that was sent arrived here, and when the newest of it was sent.
    pub good: HashMap<String, u64>,
    /// Topics that somebody sends whom nobody observes.
    pub others: HashSet<String>,
    /// When it ended.
    pub ended: Option<u64>,
    /// Since when it can't be followed, in either direction: sent, came.
    pub lost: [Option<u64>; 2],
    /// When it asked whether the broker lives.
    pub asked: Option<u64>,
    /// When it asked so, and was answered.
    pub answered_at: u64,
    sequence: [u32; 2],
    aliases: [HashMap<u16, String>; 2],
}

impl Place {
    /// A new one.
    pub fn new(line: Arc<Line>) -> Self {
        Self { line, ..Self::default() }
    }

    /// An intake of ours.
    pub fn of_intake(line: Arc<Line>) -> Self {
        Self { intake: true, ..Self::new(line) }
    }

    /// A subscription was asked for.
    pub fn asks(&mut self, filter: &str, id: u16, qos: u8) {
        if filter.is_empty() || filter.starts_with("$share/") || self.wanted.len() >= MOST {
            // Of a shared subscription's messages each goes to one of several.
            return;
        }
        self.wanted.retain(|w| w.filter != filter);
        self.wanted.push(Wanted { filter: filter.to_owned(), id, since: None, qos });
    }

    /// The broker answered, one code for each filter.
    pub fn answered(&mut self, id: u16, codes: &[u8], at: u64) {
        let asked = self.wanted.iter_mut().filter(|w| w.id == id && w.since.is_none());
        for (wanted, code) in asked.zip(codes) {
            if *code <= 2 {
                (wanted.since, wanted.qos) = (Some(at), wanted.qos.min(*code));
            }
        }
    }

    /// It is wanted no more.
    pub fn leaves(&mut self, filter: &str) {
        self.wanted.retain(|w| w.filter != filter);
    }

    /// Our own intake is subscribed, or is not.
    pub fn stands(&mut self, filters: &[String], at: Option<u64>) {
        self.wanted.clear();
        if let Some(at) = at {
            let wanted = |f: &String| Wanted { filter: f.clone(), id: 0, since: Some(at), qos: 1 };
            self.wanted.extend(filters.iter().map(wanted));
        }
    }

    /// The QoS with which it has wanted `topic` since before `at`.
    pub fn expects(&self, topic: &str, at: u64) -> Option<u8> {
        let stands = |w: &&Wanted| w.since.is_some_and(|since| since < at) && covers(&w.filter, topic);
        self.wanted.iter().filter(stands).map(|w| w.qos).max()
    }

    /// Notes a message's number. False: some before it were not told.
    pub fn follows(&mut self, sent: bool, sequence: u32) -> bool {
        let last = &mut self.sequence[usize::from(sent)];
        let next = sequence == last.wrapping_add(1);
        *last = sequence;
        next
    }

    /// The topic that a message is about, with MQTT 5's aliases.
    pub fn topic(&mut self, sent: bool, text: &str, alias: u16) -> Option<String> {
        let aliases = &mut self.aliases[usize::from(sent)];
        match (alias, text) {
            (0, "") => None,
            (0, text) => Some(text.to_owned()),
            (alias, "") => aliases.get(&alias).cloned(),
            (alias, text) => {
                if aliases.len() < MOST || aliases.contains_key(&alias) {
                    aliases.insert(alias, text.to_owned());
                }
                Some(text.to_owned())
            }
        }
    }

    /// A message arrived.
    pub fn arrives(&mut self, arrival: Arrival) {
        if arrival.claimed {
            return;
        }
        *self.unclaimed.entry(arrival.fingerprint).or_default() += 1;
        self.arrived.push_back(arrival);
        if self.arrived.len() > ARRIVED
            && let Some(oldest) = self.arrived.pop_front().filter(|a| !a.claimed)
        {
            self.claimed(&oldest.fingerprint);
        }
    }

    /// Something with this content arrived and is not claimed.
    pub fn has(&self, fingerprint: &[u8; 16]) -> bool {
        self.unclaimed.contains_key(fingerprint)
    }

    /// One with this content was claimed, or is forgotten.
    pub fn claimed(&mut self, fingerprint: &[u8; 16]) {
        if let Some(count) = self.unclaimed.get_mut(fingerprint) {
            *count -= 1;
            if *count == 0 {
                self.unclaimed.remove(fingerprint);
            }
        }
    }

    /// It has subscribed to something.
    pub fn subscribes(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Something that was sent arrived here.
    pub fn gets(&mut self, topic: &str, sent: u64) {
        let room = self.good.len() < MOST;
        match self.good.get_mut(topic) {
            Some(newest) => *newest = sent.max(*newest),
            None if room => _ = self.good.insert(topic.to_owned(), sent),
            None => {}
        }
    }

    /// Somebody else sends on this topic.
    pub fn gets_from_others(&mut self, topic: &str) {
        if self.others.len() < MOST {
            self.others.insert(topic.to_owned());
        }
    }
}
