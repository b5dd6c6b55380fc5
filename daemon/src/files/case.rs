//! What a verdict on a file needs, gathered.
//!
//! Comes in: a delivery and the reading that it comes from, with what was read of both at rest. Goes out: a
//! [`FileCase`] as [`judge`] takes it, and the judgement. Called by `resolve` once the origin is known.

use super::carriers::{Carrier, reads_whole, rewrites_text};
use super::chains::Gift;
use super::matching::By;
use super::open::FileEnd;
use super::readings::Reading;
use super::resolve::SLACK;
use super::tags::Tags;
use super::{Delivery, Files};
use crate::assemble::manifest::{Partial, TagKind};
use crate::assemble::program::ArenaId;
use crate::judge::files::{Between, Content, FileCase, judge};
use crate::judge::{Finish, Judgement};
use crate::model::{Channel, Class, Range, Reason, Verdict};
use crate::rest::AtRest;
use counterfoil_abi::BLOCK;
use counterfoil_abi::record::Stat;

/// What is said of one end's content.
pub(super) struct Said {
    pub bytes: u64,
    pub sha256: Option<[u8; 32]>,
    pub witnessed: u64,
}

/// Tags of a file at rest, to be laid beside those of a stream.
pub(super) fn rest_tags(rest: &AtRest) -> Tags {
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
    /// The verdict, and both contents that it is about.
    pub(super) fn judged(
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
            changed_source: Vec::new(),
            kept: d.kept(),
            between: Between {
                altered_leg: altered_part,
                rewrites: self.rewrites(r, legs),
                ..self.between(r.end.arena, legs)
            },
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
        let changed = r.end.digest.is_some() && r.end.before != r.end.after && !changed_it_itself(&r.end);
        if changed {
            let now = changed_source(r, tags[0].as_ref());
            let steady = origin_rest.is_some_and(AtRest::steady);
            if !steady || !now.is_empty() && !changed_before_the_end(r, origin_rest) {
                // It changed, and what of it while it was read can't be found out any more.
                case.origin.doubts.push(Reason::OtherWriter);
            } else {
                case.changed_source = now;
            }
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
        if lies(&r.end, r.rest.had()) && !changed_it_itself(&r.end) {
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
            ..Between::default()
        }
    }

    /// It is text, all that was sent arrived as it was sent, and one who sent it may have been set up to serve another text.
    fn rewrites(&self, r: &Reading, legs: &[Gift]) -> bool {
        let text = r.end.content.is_none_or(|c| matches!(c.class, Class::Text | Class::Structured));
        let served = |leg: &Gift| self.nodes.get(&leg.from).is_some_and(|n| rewrites_text(&n.facts.process));
        let well = |leg: &Gift| leg.verdict.is_none_or(|verdict| verdict == Verdict::Intact);
        text && legs.iter().any(served) && legs.iter().all(well)
    }
}

/// Who read it wrote to it by the same open, as a database does, and nobody else after that.
fn changed_it_itself(end: &FileEnd) -> bool {
    end.written > 0 && end.after.modified <= end.written.saturating_add(SLACK)
}

/// The file's last change came before its last bytes were read: what was read is not what lies there since that change. (A program may
/// have it open long after it has read it.) The time of change, since nobody can set that one.
fn changed_before_the_end(r: &Reading, rest: Option<&AtRest>) -> bool {
    r.end.after.changed.saturating_add(SLACK) < r.end.read
        && rest.is_some_and(|rest| same_content(&rest.before, &r.end.after))
}

/// Blocks that are not on the disk as they were read.
fn changed_source(r: &Reading, rest_tags: Option<&Tags>) -> Vec<Range> {
    let (Some(rest), Some(read)) = (r.rest.had(), r.end.digest) else { return Vec::new() };
    if !rest.steady() {
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
    // Who was killed has not said what there was before.
    let killed = end.digest.is_none() && end.finish == Finish::Killed;
    if equal || kept <= end.bytes || end.digest.is_none() && !killed || end.bytes >= case.origin.bytes {
        return;
    }
    let compared = case.origin.tags.compared(&end.tags);
    if compared.differ > 0 || compared.same == 0 || compared.same != end.bytes / BLOCK {
        return;
    }
    if killed {
        // Nor all that it wrote: what lies there up to the first difference came.
        let there = case.origin.tags.compared(case.destination.tags);
        let same = there.first_difference.unwrap_or(there.same) * BLOCK;
        if same >= case.origin.bytes / BLOCK * BLOCK {
            return;
        }
        case.destination.bytes = same.max(end.bytes);
        case.prefix = Some(true);
    } else {
        case.destination.bytes = end.bytes;
        case.prefix = None;
    }
    case.destination.digest = None;
    case.destination.tags = &end.tags;
}
