//! Relays: one content that crosses two connections.
//!
//! Comes in: transfers of whole content as they are judged, one-ended ones and those that lead into or out of
//! a program that both accepts and makes connections. Goes out: which two of them are one way from an
//! origin to a destination, and where a relay in between, observed or not, changed what it passed on.
//!
//! Content is compared by equal offsets, by the bodies of HTTP messages, by fingerprints ([`super::passed`]).
//! What is the same joins at once; where something differs, a better match is waited for: two versions of one
//! document may be on their way at a time.

use super::passed::{Found, How, Passed};
use super::program::ArenaId;
use crate::judged::Context;
use crate::model::{Channel, Transfer};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use uuid::Uuid;

/// How long a transfer is remembered after it was judged, nanoseconds: that of the other side of a relay is
/// judged when its connection has ended, too.
const REMEMBERED: u64 = 30_000_000_000;
/// Transfers remembered at once.
const MAX_CROSSINGS: usize = 1024;
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
    pub first: Crossing,
    /// Out of it.
    pub second: Crossing,
    /// What they have in common.
    pub found: Found,
}

impl Relayed {
    /// The relay is a program that was observed.
    pub fn observed(&self) -> bool {
        self.first.programs[1].is_some()
    }

    /// Each connection was a TLS session of its own.
    pub fn two_sessions(&self) -> bool {
        let flow = |c: &Crossing| c.transfer.flow.clone().filter(|_| c.transfer.channel == Channel::Tls);
        matches!((flow(&self.first), flow(&self.second)), (Some(a), Some(b)) if a != b)
    }
}

/// Transfers whose other half may still come.
#[derive(Default)]
pub struct Relays {
    waiting: VecDeque<(u64, Crossing)>,
    entries: usize,
    /// Pairs that differ: when they are joined if nothing better has come, which two, how.
    doubtful: Vec<(u64, [Uuid; 2], Found)>,
    /// What observed relays made of what they got: program, transfer into it, transfer out of it.
    inside: VecDeque<(ArenaId, Uuid, Uuid, Found)>,
}

impl Relays {
    /// Takes in a transfer; gives the way that it completes. `now` is monotonic nanoseconds.
    pub fn cross(&mut self, now: u64, crossing: Crossing) -> Option<Relayed> {
        while self.waiting.front().is_some_and(|(at, _)| now.saturating_sub(*at) > REMEMBERED) {
            self.forget(0);
        }
        let mut best: Option<(usize, bool, Found)> = None;
        for (place, (_, other)) in self.waiting.iter().enumerate() {
            for (first, second, new_is_second) in [(other, &crossing, true), (&crossing, other, false)] {
                let Some(found) = way(first, second) else { continue };
                if found.how == How::Altered {
                    if self.doubtful.len() < MAX_DOUBTFUL {
                        let ids = [first.transfer.id, second.transfer.id];
                        self.doubtful.push((now + HESITATION, ids, found));
                    }
                } else if best.as_ref().is_none_or(|(_, _, least)| quality(&found) < quality(least)) {
                    best = Some((place, new_is_second, found));
                }
            }
        }
        if let Some((place, new_is_second, found)) = best {
            let (_, other) = self.forget(place)?;
            let (first, second) = if new_is_second { (other, crossing) } else { (crossing, other) };
            return Some(Relayed { first, second, found });
        }
        self.entries += weight(&crossing);
        self.waiting.push_back((now, crossing));
        while self.waiting.len() > MAX_CROSSINGS || self.entries > MAX_ENTRIES {
            self.forget(0);
        }
        None
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
        self.waiting.iter().any(|(_, c)| c.programs.contains(&Some(program)))
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
        let mut reserved: Vec<Uuid> = Vec::new();
        for (due, ids, found) in pairs {
            let places = ids.map(|id| self.waiting.iter().position(|(_, c)| c.transfer.id == id));
            let [Some(first), Some(second)] = places else { continue };
            if ids.iter().any(|id| reserved.contains(id)) || due > now && !last {
                reserved.extend(ids);
                self.doubtful.push((due.max(now + 1), ids, found));
                continue;
            }
            // The later one first: the other's place stays.
            let (Some(a), Some(b)) = (self.forget(first.max(second)), self.forget(first.min(second))) else {
                continue;
            };
            let (first, second) = if first > second { (a.1, b.1) } else { (b.1, a.1) };
            out.push(Relayed { first, second, found });
        }
        out
    }

    fn forget(&mut self, place: usize) -> Option<(u64, Crossing)> {
        let (at, crossing) = self.waiting.remove(place)?;
        self.entries -= weight(&crossing);
        Some((at, crossing))
    }
}

fn weight(crossing: &Crossing) -> usize {
    crossing.arrived.weight() + crossing.left.weight()
}

/// The best is the least.
fn quality(found: &Found) -> (How, usize, u64) {
    (found.how, found.differs.len(), u64::MAX - found.bytes)
}

/// What two transfers have in common, if the second may be the first one's way on.
fn way(first: &Crossing, second: &Crossing) -> Option<Found> {
    let ([sender, relay_in], [relay_out, receiver]) = (first.programs, second.programs);
    let observed = relay_in.is_some();
    if relay_in != relay_out || first.transfer.flow == second.transfer.flow {
        return None;
    }
    // A relay is asked on one side and asks on the other.
    let turns = if observed {
        first.accepted[1] != second.accepted[0]
    } else {
        first.accepted[0] != second.accepted[1]
    };
    if !turns {
        return None;
    }
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
    let found = first.arrived.found_in(&second.left, !observed)?;
    if found.bytes < if observed { SMALLEST_OBSERVED } else { SMALLEST } {
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
