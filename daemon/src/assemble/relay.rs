//! Relays: one content that crosses two connections.
//!
//! Comes in: transfers of whole content as they are judged, one-ended ones and those that lead into or out of
//! a program that both accepts and makes connections. Goes out: which two of them are one way from an
//! origin to a destination, and where a relay in between, observed or not, changed what it passed on.
//!
//! Both must have one length, and at least half of their blocks in common at equal offsets: a relay that
//! adds or takes away is not followed here.

use super::program::ArenaId;
use super::trace::Content;
use crate::judged::Context;
use crate::model::{Channel, Transfer};
use std::collections::VecDeque;

/// How long a transfer is remembered after it was judged, nanoseconds: that of the other side of a relay is
/// judged when its connection has ended, too.
const REMEMBERED: u64 = 30_000_000_000;
/// Transfers remembered at once.
const MAX_CROSSINGS: usize = 1024;
/// Blocks remembered of all of them together (8 MiB of memory).
const MAX_BLOCKS: usize = 1 << 20;
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
    pub arrived: Content,
    /// What was witnessed where it comes from: at its origin, else at its destination.
    pub left: Content,
    /// The kernel agrees that every byte was witnessed, or none could pass beside.
    pub counted: bool,
    /// The kernel says that its processes hold its sockets.
    pub proven: bool,
    /// From when to when its connections were open, monotonic nanoseconds.
    pub open: (u64, u64),
}

/// Two transfers that are one way.
pub struct Relayed {
    /// Into the relay.
    pub first: Crossing,
    /// Out of it.
    pub second: Crossing,
    /// Blocks that the relay changed.
    pub differs: Vec<u64>,
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
    blocks: usize,
}

impl Relays {
    /// Takes in a transfer; gives the way that it completes. `now` is monotonic nanoseconds.
    pub fn cross(&mut self, now: u64, crossing: Crossing) -> Option<Relayed> {
        while self.waiting.front().is_some_and(|(at, _)| now.saturating_sub(*at) > REMEMBERED) {
            self.forget(0);
        }
        let mut found: Option<(usize, bool, Vec<u64>)> = None;
        for (place, (_, other)) in self.waiting.iter().enumerate() {
            for (first, second, new_is_second) in [(other, &crossing, true), (&crossing, other, false)] {
                let Some(differs) = way(first, second) else { continue };
                if found.as_ref().is_none_or(|(_, _, least)| differs.len() < least.len()) {
                    found = Some((place, new_is_second, differs));
                }
            }
        }
        if let Some((place, new_is_second, differs)) = found
            && let Some(other) = self.forget(place)
        {
            let (first, second) = if new_is_second { (other, crossing) } else { (crossing, other) };
            return Some(Relayed { first, second, differs });
        }
        self.blocks += crossing.arrived.count() + crossing.left.count();
        self.waiting.push_back((now, crossing));
        while self.waiting.len() > MAX_CROSSINGS || self.blocks > MAX_BLOCKS {
            self.forget(0);
        }
        None
    }

    fn forget(&mut self, place: usize) -> Option<Crossing> {
        let (_, crossing) = self.waiting.remove(place)?;
        self.blocks -= crossing.arrived.count() + crossing.left.count();
        Some(crossing)
    }
}

/// Where content differs between two transfers, if the second may be the first one's way on.
fn way(first: &Crossing, second: &Crossing) -> Option<Vec<u64>> {
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
    if first.arrived.total < if observed { SMALLEST_OBSERVED } else { SMALLEST } {
        return None;
    }
    let together = first.open.0.max(second.open.0) <= first.open.1.min(second.open.1).saturating_add(APART);
    if !together {
        return None;
    }
    let differs = first.arrived.differences(&second.left)?;
    // As for one connection: a stranger who can't show that he holds his socket accuses nobody.
    let user = |c: &Crossing| {
        let ends = [&c.context.origin, &c.context.destination];
        ends.into_iter().flatten().find_map(|process| process.uid)
    };
    let believed = first.proven && second.proven || user(first).is_some() && user(first) == user(second);
    (differs.is_empty() || first.counted && second.counted && believed).then_some(differs)
}
