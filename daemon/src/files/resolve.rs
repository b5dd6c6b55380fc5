//! One written file: where does it come from, and is it the same?
//!
//! Comes in: a delivery, again and again until it is clear. Goes out: a transfer, or nothing where it
//! comes from no file that anybody on the way read. Asks for files at rest only where the answer
//! decides something.

use super::chains::{Gift, Inside, Live};
use super::matching::{By, From};
use super::names::{base, temporary};
use super::open::Way;
use super::place::{Found, Span, Where};
use super::rest::AtRestState;
use super::{Delivery, Files, MAX_ASKED, REMEMBERED};
use crate::assemble::program::ArenaId;
use crate::host::facts::Inode;
use crate::judged::Judged;
use crate::model::{Range, Verdict};
use crate::rest::{Ask, User};
use counterfoil_abi::record::Stat;
use std::collections::VecDeque;

const MS: u64 = 1_000_000;
/// A rename mostly comes right after the close.
const GRACE: u64 = 20 * MS;
/// How long a temporary name may stay.
const TEMPORARY: u64 = 2_000 * MS;
/// How long a chain, or a leg's verdict, is waited for.
const PATIENCE: u64 = 2_000 * MS;
/// How long a file that is still being read is waited for.
const LONG_PATIENCE: u64 = 10_000 * MS;
/// Between a time of the kernel's clock for files, which ticks, and one of the clock that `written` comes from.
pub(super) const SLACK: u64 = 20 * MS;

/// What came of a look.
enum Outcome {
    /// Look again, so many nanoseconds later.
    Wait(u64),
    /// It is no transfer.
    Drop,
    /// It is.
    Say(Box<Judged>),
}

impl Delivery {
    /// Somebody wrote after our last write, or may have. The clock for files is never ahead. A time that was set on purpose lies
    /// before it, or after the close.
    pub(super) fn other_writer(&self, clock_offset: i128) -> bool {
        let (end, modified) = (&self.end, self.end.after.modified);
        let closed = u64::try_from(i128::from(end.last) + clock_offset).unwrap_or(u64::MAX);
        end.handed_unseen
            || end.written > 0 && modified > end.written && modified <= closed.saturating_add(SLACK)
    }

    /// What was written is all there is of the file.
    pub(super) fn whole(&self) -> bool {
        self.end.after == Stat::default() || self.end.after.size == self.end.bytes
    }

    /// SHA-256 of the file.
    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        let written = self.end.digest.filter(|_| self.whole() && !self.rest_counts());
        written.or_else(|| self.rest.had().map(|r| r.sha256))
    }

    /// It was read at rest because what was seen in flight does not tell.
    pub(super) fn rest_counts(&self) -> bool {
        self.end.digest.is_none() || !self.whole()
    }

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        match self.rest.had() {
            Some(rest) if self.rest_counts() => rest.bytes,
            _ if self.rest_counts() => self.end.after.size.max(self.end.bytes),
            _ => self.end.bytes,
        }
    }

    /// Bytes that were there before, and that it may not have written itself.
    pub(super) fn kept(&self) -> u64 {
        match self.end.before {
            _ if self.end.made_empty || !self.rest_counts() => 0,
            before if before == Stat::default() => u64::MAX,
            before => before.size,
        }
    }

    /// Bytes of the file as it was closed.
    pub(super) fn size(&self) -> u64 {
        self.end.after.size.max(self.end.bytes)
    }
}

impl Files {
    /// Looks at a delivery. `last`: there is no later.
    pub(super) fn look(&mut self, id: u64, live: &dyn Live, last: bool, out: &mut VecDeque<Judged>) {
        let Some(mut delivery) = self.deliveries.remove(&id) else { return };
        delivery.looks = delivery.looks.saturating_add(1);
        let outcome = self.resolve(id, &mut delivery, live, last);
        match outcome {
            Outcome::Wait(time) if !last => {
                if !delivery.parked {
                    self.due.insert((self.now + time, id));
                }
                self.deliveries.insert(id, delivery);
                return;
            }
            Outcome::Say(judged) => out.push_back(*judged),
            Outcome::Drop | Outcome::Wait(_) => {}
        }
        delivery.end.tags.clear(&mut self.room);
        if let AtRestState::Asked(ask, _) = delivery.rest {
            self.asked.remove(&ask);
        }
    }

    pub(super) fn uid(&self, arena: ArenaId) -> Option<u32> {
        self.nodes.get(&arena).and_then(|n| n.facts.process.uid)
    }

    fn resolve(&mut self, id: u64, d: &mut Delivery, live: &dyn Live, last: bool) -> Outcome {
        // At the end only answers that are on their way are waited for.
        let hurry = last || self.hurried;
        let waited = self.now.saturating_sub(d.since);
        let again = Outcome::Wait(if hurry { 5 * MS } else { (50 * MS) << d.looks.min(4) });
        if waited < GRACE && !hurry {
            return Outcome::Wait(GRACE);
        }
        let arena = d.end.arena;
        match self.names.now(d.end.inode, &d.end.path, d.end.opened, arena, self.uid(arena)) {
            Some(path) => d.path = path,
            // Half a file under a temporary name, taken back: it never arrived anywhere.
            None if temporary(base(&d.end.path)) => return Outcome::Drop,
            None => {}
        }
        if !hurry && temporary(base(&d.path)) && waited < TEMPORARY && live.alive(arena) {
            return Outcome::Wait(100 * MS);
        }
        let since = d.end.opened.saturating_sub(REMEMBERED);
        let from = From::new(self.chains.sources(live, arena, since, d.end.last));
        if d.end.digest.is_none() || !d.whole() {
            if d.rest.unasked(None) && (self.plausible(d, &from) || self.may_have_come(&from, live)) {
                self.ask_delivery(id, d);
                if d.rest.unasked(None) && !last {
                    return again;
                }
            }
            if d.rest.pending() && !last {
                return again;
            }
        }
        let mut found = self.by_digest(d, &from).map(|id| (id, By::Digest));
        if found.is_none() && !hurry && waited < LONG_PATIENCE && self.still_read(d, &from, false) {
            return again;
        }
        if let Some((reading, _)) = found.filter(|_| !hurry && waited < LONG_PATIENCE)
            && self.one_of_many(d, reading)
            && (waited < PATIENCE / 8 || self.still_read(d, &from, true))
        {
            return again;
        }
        if found.is_none() {
            let mut pending = false;
            for reading in self.unknown(d, &from) {
                let unasked = self.readings.get(reading).is_some_and(|r| r.rest.unasked(None));
                if unasked {
                    // The prefix costs nothing more, and tells what arrived of it.
                    self.ask_reading(reading, Some(d.bytes()));
                }
                pending |=
                    self.readings.get(reading).is_some_and(|r| r.rest.pending() || r.rest.unasked(None));
            }
            if pending && !last {
                return again;
            }
            if waited < PATIENCE / 8 && !hurry {
                // What is not known yet may still become so: likeness is for what has no equal.
                return again;
            }
            found = self.by_likeness(d, &from, live);
        }
        if found.is_none() && !last && (self.guess(d, &from) || self.may_be_guessed(d, waited)) {
            return again;
        }
        match found {
            Some((reading, by)) => self.found(id, d, reading, by, &from, live, last),
            None if waited < PATIENCE && !hurry => again,
            None if !last && live.hopes(arena) && (hurry || waited < LONG_PATIENCE) => {
                d.parked = self.hurried;
                again
            }
            None if !last && self.awaited(arena, &from, live) && (hurry || waited < LONG_PATIENCE) => {
                d.parked = self.hurried;
                again
            }
            None => self.came(d, &from, live).map_or(Outcome::Drop, |said| Outcome::Say(Box::new(said))),
        }
    }

    /// A connection by which it may have come is not over.
    fn awaited(&self, arena: ArenaId, from: &From, live: &dyn Live) -> bool {
        self.brings_files(arena) && from.sources.iter().any(|s| live.hopes(s.arena))
    }

    /// Its origin is known: gathers what a verdict needs.
    #[expect(clippy::too_many_arguments, reason = "one step of resolve, in a function of its own")]
    fn found(
        &mut self,
        id: u64,
        d: &mut Delivery,
        reading: u64,
        by: By,
        from: &From,
        live: &dyn Live,
        last: bool,
    ) -> Outcome {
        let waited = self.now.saturating_sub(d.since);
        let Some(r) = self.readings.get(reading) else { return Outcome::Drop };
        let equal = r.digest().is_some() && r.digest() == d.digest() && r.bytes() == d.bytes();
        let changed = r.end.digest.is_some() && r.end.before != r.end.after;
        let doubtful = d.other_writer(self.surroundings.clock_offset);
        let wants = if changed {
            Some(Some(r.end.bytes))
        } else if !equal || r.end.digest.is_none() {
            Some(Some(d.bytes()))
        } else {
            None
        };
        let known = equal && r.end.digest.is_none() && r.rest.had().is_some();
        if let Some(prefix) = wants.filter(|_| !known)
            && r.rest.unasked(prefix)
            && d.looks < 64
        {
            self.ask_reading(reading, prefix);
        }
        if (!equal || doubtful) && d.rest.unasked(None) {
            self.ask_delivery(id, d);
        }
        let pending = d.rest.pending() || self.readings.get(reading).is_some_and(|r| r.rest.pending());
        if pending && !last {
            return Outcome::Wait(if self.hurried { 5 * MS } else { 50 * MS });
        }
        let Some(r) = self.readings.get(reading) else { return Outcome::Drop };
        let way = self.way(d, r, live);
        let possible = way.is_some();
        let way = way.or_else(|| {
            let ways = self.chains.sources(live, d.end.arena, r.end.opened, d.end.last);
            ways.into_iter().find(|s| s.arena == r.end.arena)
        });
        let legs = way.or_else(|| from.source(r.end.arena).cloned()).map_or_else(Vec::new, |s| s.legs);
        let lossy = live.dropped(d.end.arena) || live.dropped(r.end.arena);
        let spans = self.spans(r.end.arena, &legs, live);
        let altered_part = spans.iter().any(|s| s.found == Found::Altered);
        let judged = self.judged(d, r, &legs, by, (lossy, altered_part), last);
        if !possible && matches!(judged.0.verdict, Verdict::Altered | Verdict::Truncated) {
            // It has that content, and yet did not come this way.
            return if last || waited >= PATIENCE { Outcome::Drop } else { Outcome::Wait(100 * MS) };
        }
        // Where it broke shows in the legs' verdicts, and in what is found inside ssh when its channel ends.
        let open = judged.0.verdict == Verdict::Altered && spans.iter().any(|s| s.found == Found::Open);
        let programs = legs.iter().flat_map(|leg| [leg.from, leg.to]);
        let hoped = judged.0.verdict != Verdict::Intact && programs.into_iter().any(|p| live.hopes(p));
        if !altered_part && (open || hoped) && !last {
            d.parked = self.hurried;
            if self.hurried || waited < if hoped { LONG_PATIENCE } else { PATIENCE } {
                return Outcome::Wait(100 * MS);
            }
        }
        let said = self.outward(d, r, judged, &legs, &spans, by);
        if by == By::Digest {
            let end = (r.end.arena, r.end.path.clone());
            self.learn_tree(end, &d.path, d.end.arena);
        }
        if let Some(r) = self.readings.get_mut(reading) {
            r.matched += 1;
        }
        Outcome::Say(Box::new(said))
    }

    /// The chain's parts, for [`super::place::place`].
    fn spans(&self, origin: ArenaId, legs: &[Gift], live: &dyn Live) -> Vec<Span> {
        let name = |arena: ArenaId| {
            let process = self.nodes.get(&arena).map(|n| &n.facts.process);
            let name = process.map_or("", super::carriers::name);
            if name.is_empty() { "?".to_owned() } else { name.to_owned() }
        };
        let inside = |arena: ArenaId, before: &str, found: Found, ranges: Vec<Range>| {
            let at = Where::Inside { program: name(arena), before: before.into() };
            Span { at, found, ranges }
        };
        let mut spans = vec![inside(origin, "after it read the file", Found::Unknown, Vec::new())];
        for (i, leg) in legs.iter().enumerate() {
            spans.push(Span {
                at: Where::Leg { channel: leg.channel, from: name(leg.from), to: name(leg.to) },
                found: match leg.verdict {
                    Some(Verdict::Intact) => Found::Intact,
                    Some(Verdict::Altered) => Found::Altered,
                    Some(_) => Found::Unknown,
                    None => Found::Open,
                },
                ranges: leg.altered.clone(),
            });
            let Some(next) = legs.get(i + 1) else {
                spans.push(inside(leg.to, "before it wrote the file", Found::Unknown, Vec::new()));
                break;
            };
            spans.push(match live.inside(leg.to, leg.transfer, next.transfer) {
                Some(Inside { when, found, ranges }) => inside(leg.to, when, found, ranges),
                None => inside(leg.to, "before it passed it on", Found::Unknown, Vec::new()),
            });
        }
        spans
    }

    fn ask_delivery(&mut self, id: u64, d: &mut Delivery) {
        d.rest = self.ask(d.path.clone(), d.end.inode, d.end.arena, d.end.pid, None, (Way::Written, id));
    }

    /// Puts a question; `Refused` where nobody answers.
    pub(super) fn ask(
        &mut self,
        path: Vec<u8>,
        inode: Inode,
        arena: ArenaId,
        pid: u32,
        prefix: Option<u64>,
        whose: (Way, u64),
    ) -> AtRestState {
        if !self.surroundings.reads_at_rest {
            return AtRestState::Refused;
        }
        if self.asked.len() >= MAX_ASKED {
            return AtRestState::NotAsked;
        }
        let Some(user) = self.user(arena, pid) else { return AtRestState::Refused };
        let id = self.next;
        self.next += 1;
        self.asked.insert(id, whose);
        self.asks.push(Ask {
            id,
            path,
            inode: Some(inode),
            user,
            upto: u64::MAX,
            prefix,
            tags: true,
            uncached: false,
        });
        AtRestState::Asked(id, prefix)
    }

    /// Whose rights a program's files are read with.
    pub(super) fn user(&self, arena: ArenaId, pid: u32) -> Option<User> {
        let node = self.nodes.get(&arena)?;
        let known = node.users.iter().find(|(p, _)| *p == pid).map(|(_, user)| user);
        known.or(node.facts.rights.as_ref()).or(node.users.first().map(|(_, user)| user)).cloned()
    }
}
