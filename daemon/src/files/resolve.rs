//! One written file: where does it come from, and is it the same?
//!
//! Comes in: a delivery, again and again until it is clear. Goes out: a transfer, or nothing where it
//! comes from no file that anybody on the way read. Asks for files at rest only where the answer
//! decides something.

use super::carriers::{Carrier, reads_whole};
use super::chains::{Gift, Inside, Live};
use super::matching::{By, From};
use super::names::{base, temporary};
use super::open::{FileEnd, Way};
use super::place::{Found, Span, Where};
use super::readings::Reading;
use super::rest::AtRestState;
use super::tags::Tags;
use super::{Delivery, Files, MAX_ASKED, REMEMBERED};
use crate::assemble::manifest::{Partial, TagKind};
use crate::assemble::program::ArenaId;
use crate::host::facts::Inode;
use crate::judge::files::{Between, Content, FileCase, judge};
use crate::judge::{Finish, Judgement};
use crate::judged::Judged;
use crate::model::{Channel, Range, Reason, Verdict};
use crate::rest::{Ask, AtRest, User};
use counterfoil_abi::BLOCK;
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
/// The kernel's clock for files ticks more slowly than the one that `written` comes from.
const SLACK: u64 = 20 * MS;

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
    /// Somebody wrote after our last write. A time that was set on purpose lies before it, or after the close.
    fn other_writer(&self, clock_offset: i128) -> bool {
        let (end, modified) = (&self.end, self.end.after.modified);
        let closed = u64::try_from(i128::from(end.last) + clock_offset).unwrap_or(u64::MAX);
        end.written > 0
            && modified > end.written.saturating_add(SLACK)
            && modified <= closed.saturating_add(SLACK)
    }

    /// What was written is all there is of the file.
    fn whole(&self) -> bool {
        self.end.after == Stat::default() || self.end.after.size == self.end.bytes
    }

    /// SHA-256 of the file.
    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        let written = self.end.digest.filter(|_| self.whole() && !self.rest_counts());
        written.or_else(|| self.rest.had().map(|r| r.sha256))
    }

    /// It was read at rest because what was seen in flight does not tell.
    fn rest_counts(&self) -> bool {
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
    fn kept(&self) -> u64 {
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

/// Tags of a file at rest, to be laid beside those of a stream.
fn rest_tags(rest: &AtRest) -> Tags {
    let kind = if rest.tags.units == 2 { TagKind::Wide } else { TagKind::Mac };
    let offset = rest.tags.blocks() * BLOCK;
    let partial = rest.tags.tail.map(|(length, value)| Partial { offset, length, value });
    if rest.tags.units == 0 {
        return Tags::default();
    }
    Tags::of(kind, rest.tags.whole.clone(), partial)
}

/// The content is as it was then: a change of name or mode does not count.
fn same_content(a: &Stat, b: &Stat) -> bool {
    (a.size, a.modified) == (b.size, b.modified)
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
            if d.rest.unasked(None) && self.plausible(d, &from) {
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
        if found.is_none() && !hurry && waited < LONG_PATIENCE && self.still_read(d, &from) {
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
            found = self.by_likeness(d, &from);
        }
        match found {
            Some((reading, by)) => self.found(id, d, reading, by, &from, live, last),
            None if waited < PATIENCE && !hurry => again,
            None => Outcome::Drop,
        }
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
        let way = self.chains.sources(live, d.end.arena, r.end.opened, d.end.last);
        let way = way.into_iter().find(|s| s.arena == r.end.arena);
        let legs = way.or_else(|| from.source(r.end.arena).cloned()).map_or_else(Vec::new, |s| s.legs);
        let lossy = live.dropped(d.end.arena) || live.dropped(r.end.arena);
        let spans = self.spans(r.end.arena, &legs, live);
        let altered_part = spans.iter().any(|s| s.found == Found::Altered);
        let judged = self.judged(d, r, &legs, by, (lossy, altered_part), last);
        // Where it broke shows in the legs' verdicts, and in what is found inside ssh when its channel ends.
        let undecided = !altered_part && spans.iter().any(|s| s.found == Found::Open);
        if judged.0.verdict == Verdict::Altered && undecided && !last {
            d.parked = self.hurried;
            if self.hurried || waited < PATIENCE {
                return Outcome::Wait(100 * MS);
            }
        }
        let said = self.outward(d, r, judged, &legs, &spans, by);
        if let Some(r) = self.readings.get_mut(reading) {
            r.matched += 1;
        }
        Outcome::Say(Box::new(said))
    }

    /// The verdict, and both contents that it is about.
    fn judged(
        &self,
        d: &Delivery,
        r: &Reading,
        legs: &[Gift],
        by: By,
        (lossy, altered_part): (bool, bool),
        last: bool,
    ) -> (Judgement, Said, Said) {
        let (origin_rest, destination_rest) = (r.rest.had(), d.rest.had());
        let tags = [origin_rest.map(rest_tags), destination_rest.map(rest_tags)];
        let destination = self.written_content(d, tags[1].as_ref(), r.digest());
        let (origin, prefix) = self.read_content(r, d, tags[0].as_ref(), &destination);
        let mut case = FileCase {
            origin,
            destination,
            prefix,
            changed_source: changed_source(r, tags[0].as_ref()),
            kept: d.kept(),
            between: Between { altered_leg: altered_part, ..self.between(r.end.arena, legs) },
        };
        if last && (r.rest.pending() || d.rest.pending()) {
            // It would have been read if observation had gone on.
            for (content, pending) in
                [(&mut case.origin, r.rest.pending()), (&mut case.destination, d.rest.pending())]
            {
                if pending && content.digest.is_none() {
                    content.finish = Finish::Open;
                }
            }
        }
        let changed = r.end.digest.is_some() && r.end.before != r.end.after;
        let compared = origin_rest.is_some_and(|rest| rest.steady());
        // Or it changed again since, and what of it while it was read is anybody's guess.
        let since = !case.changed_source.is_empty() && !origin_rest.is_some_and(|rest| still_so(r, rest));
        if since {
            case.changed_source.clear();
        }
        if changed && !compared || since {
            // It changed, and what of it can't be found out any more.
            case.origin.doubts.push(Reason::OtherWriter);
        }
        if by != By::Digest {
            self.dispute(&mut case, d, r);
        }
        if by == By::Name && lossy {
            // The record of the one that it does come from may be among those that were lost.
            case.destination.doubts.push(Reason::RecordsDropped);
        }
        cut_short(&mut case, d.end.failed);
        stopped(&mut case, d);
        let judgement = judge(&case);
        let said = |c: &Content<'_>| Said {
            bytes: c.bytes,
            sha256: c.digest,
            witnessed: if c.digest.is_some() { c.bytes } else { c.tags.witnessed(c.bytes) },
        };
        let (origin, destination) = (said(&case.origin), said(&case.destination));
        (judgement, origin, destination)
    }

    /// A program may say of its files what it likes: where the file itself says otherwise, it is not believed.
    fn dispute(&self, case: &mut FileCase<'_>, d: &Delivery, r: &Reading) {
        let lies = |end: &FileEnd, rest: Option<&AtRest>| {
            rest.is_some_and(|rest| {
                end.digest.is_some_and(|digest| digest != rest.sha256)
                    && rest.steady()
                    && rest.bytes == end.bytes
                    && same_content(&rest.before, &end.after)
            })
        };
        if lies(&r.end, r.rest.had()) {
            case.origin.doubts.push(Reason::DisputedClaim);
        }
        if lies(&d.end, d.rest.had()) {
            case.destination.doubts.push(Reason::DisputedClaim);
        }
    }

    fn written_content<'a>(
        &self,
        d: &'a Delivery,
        rest_tags: Option<&'a Tags>,
        origin: Option<[u8; 32]>,
    ) -> Content<'a> {
        let mut doubts = d.end.doubts.clone();
        let rest = d.rest.had();
        // A file that is what was read is as it should be, whoever wrote to it.
        let arrived = rest.is_some_and(|rest| rest.steady() && Some(rest.sha256) == origin);
        let touched = rest.is_some_and(|rest| {
            d.rest_counts()
                && d.end.after != Stat::default()
                && (!rest.steady()
                    || rest.before.size != d.end.after.size
                    || d.end.written > 0
                        && rest.before.modified
                            > d.end.written.max(d.end.after.modified).saturating_add(SLACK))
        });
        if !arrived && (touched || d.other_writer(self.surroundings.clock_offset)) {
            doubts.push(Reason::OtherWriter);
        }
        let at_rest = d.rest_counts() && rest.is_some();
        Content {
            bytes: d.bytes(),
            digest: d.digest(),
            tags: rest_tags.filter(|_| at_rest).unwrap_or(&d.end.tags),
            doubts,
            finish: d.end.finish,
        }
    }

    /// The origin as a whole, and whether the destination is its beginning.
    fn read_content<'a>(
        &self,
        r: &'a Reading,
        d: &Delivery,
        rest_tags: Option<&'a Tags>,
        destination: &Content<'_>,
    ) -> (Content<'a>, Option<bool>) {
        let mut doubts = r.end.doubts.clone();
        let rest = r.rest.had();
        let mut bytes = r.bytes();
        let mut digest = r.digest();
        let mut tags = &r.end.tags;
        let whole = r.end.before.size.min(r.end.after.size);
        let reads_whole = self.nodes.get(&r.end.arena).is_some_and(|n| reads_whole(&n.facts.process));
        let mut prefix = None;
        if r.end.digest.is_some() && whole > bytes && reads_whole {
            // It was to be read to its end, and something came between.
            if digest == destination.digest && bytes == destination.bytes {
                prefix = Some(true);
            }
            bytes = whole;
            digest = rest.filter(|rest| rest.steady() && rest.bytes == whole).map(|rest| rest.sha256);
        }
        if r.end.digest.is_none()
            && let Some(rest) = rest
        {
            let asked = r.end.after != Stat::default();
            let same = rest.steady() && (!asked || same_content(&rest.before, &r.end.after));
            if !same && digest != destination.digest {
                doubts.push(Reason::OtherWriter);
            }
            tags = rest_tags.unwrap_or(tags);
        }
        if destination.bytes < bytes && prefix.is_none() {
            let read = r.rest.had().and_then(|rest| rest.prefix.as_ref());
            let read = read.filter(|p| p.bytes == destination.bytes).map(|p| p.sha256);
            let steady = rest.is_some_and(AtRest::steady);
            prefix = match (read, d.digest()) {
                (Some(a), Some(b)) if steady => Some(a == b),
                _ => None,
            };
        }
        (Content { bytes, digest, tags, doubts, finish: r.end.finish }, prefix)
    }

    /// Who stands between.
    fn between(&self, origin: ArenaId, legs: &[Gift]) -> Between {
        let mut nodes = vec![origin];
        nodes.extend(legs.iter().map(|leg| leg.to));
        let carriers: Vec<Carrier> = nodes.iter().map(|&a| self.carrier(a)).collect();
        let (Some(first), Some(end)) = (carriers.first(), carriers.last()) else { return Between::default() };
        let local = |leg: &Gift| matches!(leg.channel, Channel::Pipe | Channel::Unix);
        let filter = legs
            .windows(2)
            .zip(carriers.iter().skip(1))
            .any(|(pair, carrier)| *carrier == Carrier::No && local(&pair[0]) && local(&pair[1]));
        // `head FILE |` and `| sed >FILE` give on what they choose to.
        let at_an_end = [(first, legs.first()), (end, legs.last())]
            .into_iter()
            .any(|(carrier, leg)| *carrier == Carrier::No && leg.is_some_and(local));
        let whole = |arena: ArenaId| self.nodes.get(&arena).is_some_and(|n| reads_whole(&n.facts.process));
        Between {
            carriers: *first > Carrier::No && *end > Carrier::No,
            exact: carriers.iter().all(|c| *c == Carrier::Exact),
            whole: nodes.first().is_some_and(|&a| whole(a)) && nodes.last().is_some_and(|&a| whole(a)),
            filter: filter || at_an_end,
            altered_leg: false,
        }
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
    fn user(&self, arena: ArenaId, pid: u32) -> Option<User> {
        let node = self.nodes.get(&arena)?;
        let known = node.users.iter().find(|(p, _)| *p == pid).map(|(_, user)| user);
        known.or(node.facts.rights.as_ref()).or(node.users.first().map(|(_, user)| user)).cloned()
    }
}

/// What is said of one end's content.
pub(super) struct Said {
    pub bytes: u64,
    pub sha256: Option<[u8; 32]>,
    pub witnessed: u64,
}

/// Nobody has written to it since it was closed.
fn still_so(r: &Reading, rest: &AtRest) -> bool {
    same_content(&rest.before, &r.end.after)
}

/// Blocks that are not on the disk as they were read, where the file changed meanwhile.
fn changed_source(r: &Reading, rest_tags: Option<&Tags>) -> Vec<Range> {
    let (Some(rest), Some(read)) = (r.rest.had(), r.end.digest) else { return Vec::new() };
    if r.end.before == r.end.after || !rest.steady() {
        return Vec::new();
    }
    let now = match &rest.prefix {
        Some(prefix) if prefix.bytes == r.end.bytes => Some(prefix.sha256),
        _ if rest.bytes == r.end.bytes => Some(rest.sha256),
        _ => None,
    };
    if now == Some(read) {
        return Vec::new();
    }
    let total = r.end.bytes;
    let Some(tags) = rest_tags else { return vec![Range { offset: 0, length: total }] };
    let mut ranges: Vec<Range> = Vec::new();
    let whole = total / BLOCK;
    let mut push = |start: u64, end: u64| match ranges.last_mut() {
        Some(last) if last.offset + last.length == start => last.length += end - start,
        _ => ranges.push(Range { offset: start, length: end - start }),
    };
    for block in 0..whole {
        let same = r.end.tags.get(block).is_some() && r.end.tags.get(block) == tags.get(block);
        if !same {
            push(block * BLOCK, (block + 1) * BLOCK);
        }
    }
    let tail = rest.prefix.as_ref().and_then(|p| p.tail).or(rest.tags.tail);
    let ours = r.end.tags.partial.filter(|p| p.offset == whole * BLOCK).map(|p| (p.length, p.value));
    if !total.is_multiple_of(BLOCK) && (ours.is_none() || ours != tail) {
        push(whole * BLOCK, total);
    }
    ranges
}

/// Where a write did not fit, what was written beyond it stands behind a hole: what arrived ends there.
fn cut_short(case: &mut FileCase<'_>, failed: bool) {
    let equal = case.destination.digest.is_some() && case.destination.digest == case.origin.digest;
    if !failed || equal {
        return;
    }
    let compared = case.origin.tags.compared(case.destination.tags);
    let arrived = compared.first_difference.unwrap_or(compared.same);
    if arrived > 0 && compared.same >= arrived {
        case.destination.bytes = arrived * BLOCK;
        case.destination.digest = None;
        case.prefix = Some(true);
    }
}

/// Written from its beginning over an older file, and not to the end: what follows there is the older file's.
fn stopped<'a>(case: &mut FileCase<'a>, d: &'a Delivery) {
    let equal = case.destination.digest.is_some() && case.destination.digest == case.origin.digest;
    let (end, kept) = (&d.end, case.kept);
    if equal || kept <= end.bytes || end.digest.is_none() || end.bytes >= case.origin.bytes {
        return;
    }
    let compared = case.origin.tags.compared(&end.tags);
    if compared.differ == 0 && compared.same > 0 && compared.same == end.bytes / BLOCK {
        (case.destination.bytes, case.destination.digest) = (end.bytes, None);
        case.destination.tags = &end.tags;
        case.prefix = None;
    }
}
