//! Judge: two manifests, or one, become a verdict.
//!
//! Comes in: a [`Case`]. Goes out: a [`Judgement`]. A pure function: `join` calls it when both ends
//! have ended, or when nothing more can come.
//!
//! The rule: *altered* if witnessed blocks at equal offsets differ and nothing before them has
//! unknown length; else *unverified* on any gap; else *truncated*; else *intact*.

#![forbid(unsafe_code)]

pub mod files;
mod ranges;
#[cfg(test)]
mod tests;

use crate::assemble::manifest::{GapSpan, Manifest, TagKind};
use crate::assemble::pair::{Pair, Side};
use crate::model::{Assurance, BlockRun, Channel, Range, Reason, Verdict};
use counterfoil_abi::{BLOCK, UNKNOWN};

/// How a stream's end came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It said its last word: the total is exact.
    Ended,
    /// Its process died without one.
    Killed,
    /// It goes on, and observation ended.
    Open,
}

/// What is known of one end besides its manifest.
#[derive(Clone, Debug)]
pub struct End {
    /// Bytes that passed; a lower bound where `finish` is not `Ended`.
    pub total: u64,
    /// Bytes offered beyond `total` and never accepted (origins).
    pub offered: u64,
    /// How it ended.
    pub finish: Finish,
    /// The input's end was reached (destinations).
    pub eof: bool,
    /// The kernel's own count of these bytes (TCP).
    pub kernel: Option<u64>,
    /// Urgent bytes, not in `total`.
    pub urgent: u64,
    /// Its process was asked for tags.
    pub watched: bool,
    /// Records of its process were dropped.
    pub dropped: bool,
    /// Bytes that nothing would tell of.
    pub unseen: Unseen,
    /// What makes the whole stream uncertain: `foreign-hook`, `disputed-claim` ….
    pub doubts: Vec<Reason>,
}

/// Whether more may have passed at an end of a pipe or Unix socket, where no kernel counts, than hooks saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unseen {
    /// Nothing has.
    #[default]
    None,
    /// Somebody had it who never said a word of it: who was killed, for one.
    Possible,
    /// A FILE of stdio stood on it and was used.
    Stdio,
}

impl Default for End {
    fn default() -> Self {
        Self {
            total: 0,
            offered: 0,
            finish: Finish::Ended,
            eof: true,
            kernel: None,
            urgent: 0,
            watched: true,
            dropped: false,
            unseen: Unseen::None,
            doubts: Vec::new(),
        }
    }
}

impl End {
    /// The kernel moved more than was witnessed.
    fn bypassed(&self) -> bool {
        self.kernel.is_some_and(|kernel| kernel > self.total.saturating_add(self.urgent))
    }

    /// The kernel's count is known and explains no byte that was not witnessed.
    fn counted(&self) -> bool {
        self.kernel.is_some() && !self.bypassed()
    }

    fn ended(&self) -> bool {
        self.finish == Finish::Ended
    }
}

/// What is to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// What carried it.
    pub channel: Channel,
    /// The manifests.
    pub pair: &'a Pair,
    /// None: that end was not observed.
    pub origin: Option<&'a End>,
    /// Likewise.
    pub destination: Option<&'a End>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The one word.
    pub verdict: Verdict,
    /// Why it is not better.
    pub reasons: Vec<Reason>,
    /// Which bytes, at origin offsets.
    pub altered: Vec<Range>,
    /// Run by run.
    pub strip: Vec<BlockRun>,
    /// None: nothing was compared.
    pub assurance: Option<Assurance>,
}

/// Collects reasons, each once, in order of appearance.
#[derive(Default)]
struct Reasons(Vec<Reason>);

impl Reasons {
    fn add(&mut self, reason: Reason) {
        if !self.0.contains(&reason) {
            self.0.push(reason);
        }
    }
}

/// Judges one connection's direction.
pub fn judge(case: Case<'_>) -> Judgement {
    let (origin, destination) = match (case.origin, case.destination) {
        (Some(origin), Some(destination)) if case.channel != Channel::Datagram => (origin, destination),
        _ => return one_ended(case),
    };
    let pair = case.pair;
    let (certain, differences) = (certain(pair), pair.proven_differences());
    // Bytes offered and never accepted may have gone out all the same (a non-blocking SSL_write
    // seals before it fails): what arrived of them lengthens the origin.
    let offered_arrived =
        destination.total > origin.total && destination.total <= origin.total.saturating_add(origin.offered);
    let sent = if offered_arrived { origin.total.saturating_add(origin.offered) } else { origin.total };
    let full = full(pair, sent);

    let mut reasons = Reasons::default();
    for doubt in origin.doubts.iter().chain(&destination.doubts) {
        reasons.add(*doubt);
    }
    // At one end alone it would show in the lengths.
    let unseen = origin.unseen.min(destination.unseen);
    if unseen == Unseen::Stdio {
        reasons.add(Reason::BypassedBytes);
    }
    let doubted = !reasons.0.is_empty();
    let may_differ = !doubted
        && unseen == Unseen::None
        && may_be_altered(case.channel, origin, destination, full_tags(pair, origin, destination));

    let longer = destination.total > origin.total.saturating_add(origin.offered);
    let inserted = longer
        && certain == UNKNOWN
        && origin.ended()
        && destination.ended()
        && matches!(case.channel, Channel::Tls | Channel::Tcp);
    let altered = if may_differ && (!differences.is_empty() || inserted) {
        ranges::altered(pair, &differences, origin, destination, certain)
    } else {
        Vec::new()
    };

    // A destination that read all that an ended origin sent has nothing more to come, however it
    // ended itself.
    let all_arrived = origin.ended() && full && destination.total <= origin.total;
    if origin.bypassed() || destination.bypassed() {
        reasons.add(Reason::BypassedBytes);
    }
    // Where all of both streams was compared and is the same, a shift would have shown.
    let proven = all_arrived && destination.total == origin.total && !doubted;
    let excuses = |gap: &GapSpan| {
        proven
            && gap.length == UNKNOWN
            && (gap.reason == Reason::SharedDescriptor
                || case.channel == Channel::Tls
                || origin.counted() && destination.counted())
    };
    own_reasons(&pair.origin, origin, false, &excuses, &mut reasons);
    own_reasons(&pair.destination, destination, all_arrived, &excuses, &mut reasons);
    let lengths_differ = sent != destination.total && !all_arrived;
    // It left before the end of what was being sent, an unfinished write's rest included.
    let abandoned = lengths_differ && destination.ended() && !destination.eof && destination.total < sent;
    if lengths_differ && origin.ended() && destination.ended() {
        let bypass = match case.channel {
            Channel::Pipe | Channel::Unix => true,
            _ => longer && altered.is_empty(),
        };
        if bypass {
            if abandoned {
                reasons.add(Reason::AbandonedByReceiver);
            }
            reasons.add(Reason::BypassedBytes);
        }
    }
    if offered_arrived && destination.total < sent && !abandoned {
        // All that was accepted arrived, and some of a write that nobody finished: that is no cut.
        reasons.add(Reason::BypassedBytes);
    }
    if !differences.is_empty() && altered.is_empty() && reasons.0.is_empty() {
        // Bytes that nobody saw may stand behind the difference (plain TCP without the kernel's word).
        reasons.add(Reason::BypassedBytes);
    }
    if certain != UNKNOWN && !proven && reasons.0.is_empty() {
        reasons.add(Reason::BypassedBytes);
    }
    if reasons.0.is_empty()
        && altered.is_empty()
        && !all_arrived
        && origin.total == destination.total
        && !full
    {
        // Equal lengths, nothing missing at either end, and yet not compared: tags of two kinds,
        // or shed for want of room.
        reasons.add(Reason::RecordsDropped);
    }

    let verdict = if !altered.is_empty() {
        Verdict::Altered
    } else if !reasons.0.is_empty() || offered_arrived && abandoned {
        Verdict::Unverified
    } else if destination.total < sent && !all_arrived {
        Verdict::Truncated
    } else {
        Verdict::Intact
    };
    if abandoned && verdict != Verdict::Altered {
        reasons.add(Reason::AbandonedByReceiver);
    }
    let strip = ranges::strip(pair, &altered, origin.total.max(destination.total));
    Judgement { verdict, reasons: reasons.0, altered, strip, assurance: assurance(pair) }
}

/// Only one end was observed, or there is no stream to compare.
fn one_ended(case: Case<'_>) -> Judgement {
    let mut reasons = Reasons::default();
    let mut total = 0;
    for (end, manifest) in [(case.origin, &case.pair.origin), (case.destination, &case.pair.destination)] {
        let Some(end) = end else { continue };
        total = total.max(end.total);
        end.doubts.iter().for_each(|&doubt| reasons.add(doubt));
        if case.channel != Channel::Datagram {
            own_reasons(manifest, end, false, &|_| false, &mut reasons);
        }
    }
    if case.channel == Channel::Datagram {
        reasons.0.insert(0, Reason::Datagram);
    }
    if case.origin.is_none() || case.destination.is_none() {
        reasons.0.retain(|&r| r != Reason::PeerNotObserved);
        reasons.0.insert(0, Reason::PeerNotObserved);
    }
    let strip = ranges::strip(case.pair, &[], total);
    Judgement {
        verdict: Verdict::Unverified,
        reasons: reasons.0,
        altered: Vec::new(),
        strip,
        assurance: assurance(case.pair),
    }
}

/// Below this offset a difference is a difference.
fn certain(pair: &Pair) -> u64 {
    pair.origin.certain_until().min(pair.destination.certain_until())
}

/// Every byte below `total` was compared and is the same.
fn full(pair: &Pair, total: u64) -> bool {
    let (whole, rest) = (total / BLOCK, total % BLOCK);
    let tail =
        rest == 0 || pair.same_partial == Some((whole * BLOCK, rest as u32)) && !pair.differs.contains(whole);
    tail && pair.same.count_below(whole) == whole
}

/// Both ends ended with one length, and every byte has a tag at both: lost records can't matter.
fn full_tags(pair: &Pair, origin: &End, destination: &End) -> bool {
    let tagged = |m: &Manifest, end: &End| end.ended() && m.witnessed(end.total) == end.total;
    origin.total == destination.total
        && tagged(&pair.origin, origin)
        && tagged(&pair.destination, destination)
}

/// Do the circumstances allow the word? A false `altered` is worse than a missed one.
fn may_be_altered(channel: Channel, origin: &End, destination: &End, full_tags: bool) -> bool {
    if (origin.dropped || destination.dropped) && !full_tags {
        return false;
    }
    match channel {
        Channel::Tls | Channel::File => true,
        Channel::Tcp => origin.counted() && destination.counted() && urgent_clean(origin, destination),
        Channel::Pipe | Channel::Unix => {
            origin.ended() && destination.ended() && origin.total == destination.total
        }
        Channel::Datagram => false,
    }
}

/// Where an urgent byte went inline at one end only, offsets are shifted.
fn urgent_clean(origin: &End, destination: &End) -> bool {
    origin.urgent == 0 && destination.urgent == 0
}

/// Why this end's manifest is not whole. `arrived`: it is known to have all there was.
/// `excuses`: gaps that have turned out not to matter.
fn own_reasons(
    manifest: &Manifest,
    end: &End,
    arrived: bool,
    excuses: &dyn Fn(&GapSpan) -> bool,
    reasons: &mut Reasons,
) {
    for gap in manifest.gaps.iter().filter(|gap| !excuses(gap)) {
        let inside = gap.length == UNKNOWN || gap.offset < end.total || !end.ended();
        if inside {
            reasons.add(gap.reason);
        }
    }
    if arrived {
        return;
    }
    match end.finish {
        Finish::Ended => {}
        Finish::Killed => reasons.add(Reason::ProcessKilled),
        Finish::Open => reasons.add(Reason::StillOpen),
    }
    if let Some(reason) = missing(manifest, end) {
        reasons.add(reason);
    } else if end.dropped && !(end.ended() && manifest.witnessed(end.total) == end.total) {
        // What was dropped may have been of this stream, a gap too.
        reasons.add(Reason::RecordsDropped);
    }
}

/// Blocks below the total that have neither tag nor gap.
fn missing(manifest: &Manifest, end: &End) -> Option<Reason> {
    let (whole, rest) = (end.total / BLOCK, end.total % BLOCK);
    let excused_from = manifest.certain_until() / BLOCK;
    let excused = |start: u64, stop: u64| {
        // Gaps are few; a run is excused if they cover it, block by block at its edges.
        let mut at = start;
        while at < stop.min(excused_from) {
            let Some(gap) = manifest.gaps.iter().find(|g| {
                g.length != UNKNOWN
                    && g.offset / BLOCK <= at
                    && g.offset.saturating_add(g.length).div_ceil(BLOCK) > at
            }) else {
                return false;
            };
            at = gap.offset.saturating_add(gap.length).div_ceil(BLOCK);
        }
        true
    };
    let runs_whole = manifest.seen.missing_below(whole).into_iter().all(|(s, e)| excused(s, e));
    // The tail of a stream that did not end was never tagged: that is no loss of its own.
    let tail_due = rest > 0 && end.ended();
    // Tags that reach further are of bytes that were sealed and never accepted.
    let further = manifest.seen.contains(whole) || manifest.last_partial.is_some_and(|p| p.end() > end.total);
    let tail_whole = !tail_due
        || end.offered > 0 && further
        || manifest.last_partial.is_some_and(|p| p.end() == end.total && p.offset == whole * BLOCK)
        || excused(whole, whole + 1);
    if runs_whole && tail_whole {
        return None;
    }
    Some(if end.watched { Reason::RecordsDropped } else { Reason::AttachedLate })
}

fn assurance(pair: &Pair) -> Option<Assurance> {
    let compared = !pair.same.is_empty() || !pair.differs.is_empty() || pair.same_partial.is_some();
    match pair.side(Side::Origin).kind {
        Some(TagKind::Mac) if compared => Some(Assurance::KeyedTag),
        Some(TagKind::Wide) if compared => Some(Assurance::Hash),
        _ => None,
    }
}
