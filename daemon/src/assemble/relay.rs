//! Relays: one content that crosses two connections.
//!
//! Comes in: transfers of whole content as they are judged, one-ended ones and those that lead into or out of
//! a program that both accepts and makes connections. Goes out: which two of them are one way from an
//! origin to a destination, and where a relay in between, observed or not, changed what it passed on.
//!
//! Content is compared by equal offsets, by the bodies of HTTP messages, by fingerprints ([`super::passed`]).
//! What is the same joins at once; where something differs, a better match is waited for: two versions of one
//! document may be on their way at a time. Requests of several clients may go on by one connection, and those of
//! one client by several: then each body finds its own, and a body without one accuses nobody.

use super::passed::{Found, How, Passed};
use super::program::ArenaId;
use super::taken::Taken;
use crate::judged::Context;
use crate::model::{Channel, Transfer};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use uuid::Uuid;

/// How long a transfer is remembered after it was judged, nanoseconds: that of the other side of a relay is
/// judged when its connection has ended, too. (nginx keeps one to its upstream for a minute after its last use.)
const REMEMBERED: u64 = 120_000_000_000;
/// Transfers remembered at once.
const MAX_CROSSINGS: usize = 8192;
/// Entries remembered of all of them together (16 MiB of memory, beside what is on the shelf).
const MAX_ENTRIES: usize = 1 << 21;
/// Pairs that differ.
const MAX_DOUBTFUL: usize = 4096;
/// How long a better match than one that differs is waited for, nanoseconds.
const HESITATION: u64 = 5_000_000_000;
/// Less content than this is no evidence that two strangers' connections belong together.
const SMALLEST: u64 = 1024;
/// And less than this none that two of one program's do.
const SMALLEST_OBSERVED: u64 = 64;
/// How far apart in time the two may be, nanoseconds.
const APART: u64 = 1_000_000_000;

/// A judged transfer, as a relay could have got or passed it on.
pub struct Crossing {
    /// As it was said.
    pub transfer: Transfer,
    /// Who was at its ends.
    pub context: Context,
    /// The programs at its ends, where observed.
    pub programs: [Option<ArenaId>; 2],
    /// Which of them had accepted the connection, rather than made it.
    pub accepted: [bool; 2],
    /// Its content may go on from where it leads to, and may have come from elsewhere to where it begins.
    pub may: [bool; 2],
    /// What was witnessed where it leads to: at its destination, else at its origin.
    pub arrived: Passed,
    /// What was witnessed where it comes from: at its origin, else at its destination.
    pub left: Passed,
    /// All of it was witnessed at the ends that are known.
    pub whole: bool,
    /// The kernel agrees that every byte was witnessed, or none could pass beside.
    pub counted: bool,
    /// The kernel says that its processes hold its sockets.
    pub proven: bool,
    /// From when to when its connections were open, monotonic nanoseconds.
    pub open: (u64, u64),
}

/// The other ends of both are on one machine, as far as their addresses say: on this one, or at one address.
fn one_machine(first: &Crossing, second: &Crossing) -> bool {
    let address = |end: Option<&String>| end?.parse::<SocketAddr>().ok().map(|end| end.ip().to_canonical());
    let connections = [first, second].map(|crossing| crossing.context.connection.as_ref());
    let locals = connections.map(|connection| address(connection?.local.as_ref()));
    let remotes = connections.map(|connection| address(connection?.remote.as_ref()));
    let here = |end: IpAddr| end.is_loopback() || locals.contains(&Some(end));
    match remotes {
        [Some(a), Some(b)] => a == b || here(a) && here(b),
        _ => false,
    }
}

/// Two transfers that are one way.
pub struct Relayed {
    /// Into the relay.
    pub first: Arc<Crossing>,
    /// Out of it.
    pub second: Arc<Crossing>,
    /// What they have in common.
    pub found: Found,
    /// The two TLS sessions that the content crossed, one behind the other.
    pub sessions: Option<[Arc<Crossing>; 2]>,
}

impl Relayed {
    /// The relay is a program that was observed.
    pub fn observed(&self) -> bool {
        self.first.programs[1].is_some()
    }
}

/// One side of a relay: which program, where observed, and whether it is asked there or asks itself.
type Side = (Option<ArenaId>, bool);

/// A transfer whose other half, before it or behind it, may still come.
struct Waiting {
    at: u64,
    crossing: Arc<Crossing>,
    /// The relay that it may lead into, and the one that it may come out of, which is asked on the other side.
    into: Option<Side>,
    out_of: Option<Side>,
    /// What of its content was found to go on, and what of it to have come from elsewhere.
    onward: Taken,
    before: Taken,
    /// The TLS session by which its content had come to where it begins, and went on by from where it ends; plain
    /// connections may be between.
    came: Option<Arc<Crossing>>,
    went: Option<Arc<Crossing>>,
}

impl Waiting {
    fn new(at: u64, crossing: Crossing) -> Self {
        let (onward, before) = (Taken::default(), Taken::default());
        let ([goes_on, came_on], [from, to]) = (crossing.may, crossing.programs);
        let asks = |end: usize| !crossing.accepted[end];
        let into = (to, if to.is_some() { !asks(1) } else { asks(0) });
        let out_of = (from, if from.is_some() { asks(0) } else { !asks(1) });
        let into = (goes_on && crossing.arrived.total >= least(to)).then_some(into);
        let out_of = (came_on && crossing.left.total >= least(from)).then_some(out_of);
        Self { at, crossing: Arc::new(crossing), into, out_of, onward, before, came: None, went: None }
    }

    fn session(&self) -> Option<&Arc<Crossing>> {
        let transfer = &self.crossing.transfer;
        Some(&self.crossing).filter(|_| transfer.channel == Channel::Tls && transfer.flow.is_some())
    }

    /// Nothing can be found of it any more.
    fn done(&self) -> bool {
        (self.into.is_none() || self.onward.all()) && (self.out_of.is_none() || self.before.all())
    }

    fn weight(&self) -> usize {
        self.crossing.arrived.weight() + self.crossing.left.weight()
    }
}

/// Transfers whose other half may still come.
#[derive(Default)]
pub struct Relays {
    waiting: VecDeque<Waiting>,
    entries: usize,
    /// Pairs that differ: when they are joined if nothing better has come, which two, how.
    doubtful: Vec<(u64, [Uuid; 2], Found)>,
    /// What observed relays made of what they got: program, transfer into it, transfer out of it.
    inside: VecDeque<(ArenaId, Uuid, Uuid, Found)>,
}

impl Relays {
    /// Takes in a transfer; gives the ways that it completes. `now` is monotonic nanoseconds.
    pub fn cross(&mut self, now: u64, crossing: Crossing) -> Vec<Relayed> {
        while self.waiting.front().is_some_and(|w| now.saturating_sub(w.at) > REMEMBERED) {
            self.forget(0);
        }
        let mut new = Waiting::new(now, crossing);
        if new.done() {
            return Vec::new();
        }
        let mut ways: Vec<(Found, usize, bool)> = Vec::new();
        for (place, other) in self.waiting.iter().enumerate() {
            for (first, second, new_is_second) in [(other, &new, true), (&new, other, false)] {
                let Some(found) = way(first, second) else { continue };
                if found.how != How::Altered {
                    ways.push((found, place, new_is_second));
                } else if self.doubtful.len() < MAX_DOUBTFUL {
                    let ids = [first, second].map(|w| w.crossing.transfer.id);
                    self.doubtful.push((now + HESITATION, ids, found));
                }
            }
        }
        ways.sort_by_key(|(found, ..)| quality(found));
        let mut out = Vec::new();
        for (found, place, new_is_second) in ways {
            let Some(other) = self.waiting.get_mut(place) else { continue };
            let (first, second) = if new_is_second { (other, &mut new) } else { (&mut new, other) };
            out.extend(join(first, second, found));
        }
        self.keep(new);
        out
    }

    fn keep(&mut self, new: Waiting) {
        self.entries += new.weight();
        self.waiting.push_back(new);
        let mut place = 0;
        while place < self.waiting.len() {
            if self.waiting[place].done() {
                self.forget(place);
            } else {
                place += 1;
            }
        }
        while self.waiting.len() > MAX_CROSSINGS || self.entries > MAX_ENTRIES {
            self.forget(0);
        }
    }

    /// What a program that was found to be a relay made of one transfer's content.
    pub fn inside(&self, program: ArenaId, before: Uuid, after: Uuid) -> Option<&Found> {
        let is = |(p, b, a, _): &&(ArenaId, Uuid, Uuid, Found)| (*p, *b, *a) == (program, before, after);
        self.inside.iter().rev().find(is).map(|(.., found)| found)
    }

    /// Remembers it.
    pub fn remember(&mut self, relayed: &Relayed) {
        if let Some(program) = relayed.first.programs[1] {
            if self.inside.len() >= MAX_CROSSINGS {
                self.inside.pop_front();
            }
            let [before, after] = [&relayed.first, &relayed.second].map(|c| c.transfer.id);
            self.inside.push_back((program, before, after, relayed.found.clone()));
        }
    }

    /// A transfer of this program waits for its other half.
    pub fn waits_for(&self, program: ArenaId) -> bool {
        let alone = |w: &&Waiting| w.onward.none() && w.before.none();
        self.waiting.iter().filter(alone).any(|w| w.crossing.programs.contains(&Some(program)))
    }

    /// The pairs that differ and for which nothing better has come. `last`: nothing more will.
    pub fn settle(&mut self, now: u64, last: bool) -> Vec<Relayed> {
        if !self.doubtful.iter().any(|(due, ..)| *due <= now || last) {
            return Vec::new();
        }
        let mut pairs = std::mem::take(&mut self.doubtful);
        pairs.sort_by_key(|(_, _, found)| quality(found));
        let mut out = Vec::new();
        // Of a pair that may still be joined neither is given to a worse one.
        let mut reserved: HashSet<Uuid> = HashSet::new();
        let ids = self.waiting.iter().enumerate().map(|(place, w)| (w.crossing.transfer.id, place));
        let places: HashMap<Uuid, usize> = ids.collect();
        for (due, ids, found) in pairs {
            let places = ids.map(|id| places.get(&id).copied());
            let [Some(first), Some(second)] = places else { continue };
            if ids.iter().any(|id| reserved.contains(id)) || due > now && !last {
                reserved.extend(ids);
                self.doubtful.push((due.max(now + 1), ids, found));
                continue;
            }
            let (low, high) = (first.min(second), first.max(second));
            let (before, rest) = self.waiting.make_contiguous().split_at_mut(high);
            let (a, b) = (&mut before[low], &mut rest[0]);
            let (first, second) = if first < second { (a, b) } else { (b, a) };
            out.extend(join(first, second, found));
        }
        out
    }

    fn forget(&mut self, place: usize) {
        if let Some(waiting) = self.waiting.remove(place) {
            self.entries -= waiting.weight();
        }
    }
}

/// Joins two, as far as others have not been joined with them.
fn join(first: &mut Waiting, second: &mut Waiting, mut found: Found) -> Option<Relayed> {
    if found.shared {
        found.keep(|ours, theirs| first.onward.free(ours) && second.before.free(theirs));
        if found.bytes < least(first.crossing.programs[1]) {
            return None;
        }
        for &(ours, theirs, _) in &found.pairs {
            first.onward.take(ours);
            second.before.take(theirs);
        }
    } else if first.onward.none() && second.before.none() {
        first.onward = Taken::All;
        second.before = Taken::All;
    } else {
        return None;
    }
    let came = first.session().or(first.came.as_ref()).cloned();
    let went = second.session().or(second.went.as_ref()).cloned();
    if !found.shared {
        // Of what is shared nobody can say by which session all of it came.
        second.came.clone_from(&came);
        first.went.clone_from(&went);
    }
    let sessions = came.zip(went).filter(|(a, b)| a.transfer.flow != b.transfer.flow).map(|(a, b)| [a, b]);
    Some(Relayed { first: first.crossing.clone(), second: second.crossing.clone(), found, sessions })
}

/// Less content than that in common is no evidence of a way through this relay.
fn least(relay: Option<ArenaId>) -> u64 {
    if relay.is_some() { SMALLEST_OBSERVED } else { SMALLEST }
}

/// The best is the least.
fn quality(found: &Found) -> (How, usize, u64) {
    (found.how, found.differs.len(), u64::MAX - found.bytes)
}

/// What two transfers have in common, if the second may be the first one's way on.
fn way(before: &Waiting, after: &Waiting) -> Option<Found> {
    // First what tells most of them apart: there are many.
    if before.into.is_none() || before.into != after.out_of {
        return None;
    }
    let (first, second) = (&*before.crossing, &*after.crossing);
    if before.onward.all() || after.before.all() || first.transfer.flow == second.transfer.flow {
        return None;
    }
    let ([sender, relay], [_, receiver]) = (first.programs, second.programs);
    let observed = relay.is_some();
    // An echo is no relay.
    if sender.is_some() && sender == receiver {
        return None;
    }
    let together = first.open.0.max(second.open.0) <= first.open.1.min(second.open.1).saturating_add(APART);
    if !together {
        return None;
    }
    // Without this, who serves a document while he fetches it anew from elsewhere would be taken for the two ends
    // of a relay, and the newer version for an alteration.
    if !observed && !one_machine(first, second) {
        return None;
    }
    let found = first.arrived.found_in(&second.left, !observed, [&before.onward, &after.before])?;
    if found.bytes < least(relay) {
        return None;
    }
    // As for one connection: a stranger who can't show that he holds his socket accuses nobody.
    let user = |c: &Crossing| {
        let ends = [&c.context.origin, &c.context.destination];
        ends.into_iter().flatten().find_map(|process| process.uid)
    };
    let believed = first.proven && second.proven || user(first).is_some() && user(first) == user(second);
    // A body that is as long as its head says was seen as a whole, whatever else the kernel may have moved.
    let seen = first.whole && second.whole && (found.framed || first.counted && second.counted);
    (found.how != How::Altered || seen && believed).then_some(found)
}
