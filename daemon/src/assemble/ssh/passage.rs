//! What came of comparing a channel's taps.
//!
//! Comes in: a channel that has ended, with the streams beside it, and both ends' tags of one. Goes out:
//! [`Passage`]s, and a notice for each that differs.

use super::{Candidate, Tunnel, across};
use crate::assemble::object::{Direction, Object, Proof};
use crate::assemble::pair::Pair;
use crate::assemble::program::ArenaId;
use crate::assemble::slab::Key;
use crate::assemble::{Assembler, Transfer};
use crate::judge::{self, Case};
use crate::judged::{SshPlace, What};
use crate::model::{self, Range, Reason, Verdict};
use counterfoil_abi::BLOCK;
use uuid::Uuid;

/// Ranges told of at once, at most.
const MAX_RANGES: usize = 64;
/// Passages remembered.
const MAX_PASSAGES: usize = 4096;

/// Two taps of one channel, laid side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    /// Which two.
    pub place: SshPlace,
    /// The program that has the first tap, and the one that has the second: the same one, but for
    /// [`SshPlace::BetweenCiphers`].
    pub programs: [ArenaId; 2],
    /// The transfer that brought the bytes here. (For [`SshPlace::BetweenCiphers`] that of the
    /// connection, twice.)
    pub before: Option<Uuid>,
    /// The transfer that took them on.
    pub after: Option<Uuid>,
    /// What was found.
    pub outcome: Outcome,
}

/// What a [`Passage`] found.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All that passed both taps is the same.
    Same,
    /// These bytes differ, at offsets of the channel.
    Differs(Vec<Range>),
    /// It can't be known.
    Unknown(Vec<Reason>),
}

impl Assembler {
    /// Comparisons inside and between ssh programs, the latest last.
    pub fn passages(&self) -> impl DoubleEndedIterator<Item = &Passage> {
        self.passages.iter()
    }

    /// The program has said all that there is to say about its streams.
    pub(in crate::assemble) fn tunnel_is_done(&self, object: &Object) -> bool {
        let Some(tunnel) = &object.tunnel else { return true };
        tunnel.said || self.waited(object, 1) || self.programs.get(&tunnel.arena).is_none_or(|p| p.gone)
    }

    /// A channel has ended at one end: lays it beside what its program read and wrote.
    pub(in crate::assemble) fn say_tunnel(&mut self, key: Key) {
        let Some(object) = self.objects.get_mut(key) else { return };
        let totals = [Direction::Out, Direction::In].map(|d| object.total(d));
        let Some(tunnel) = object.tunnel.as_mut().filter(|t| !t.said) else { return };
        tunnel.said = true;
        let mut candidates = std::mem::take(&mut tunnel.candidates);
        let (arena, transfers, crowded) = (tunnel.arena, tunnel.transfers, tunnel.crowded);
        let doubt = self.programs.get(&arena).is_some_and(|p| p.dropped || p.hostile);
        for direction in [Direction::Out, Direction::In] {
            let d = direction as usize;
            let total = totals[d];
            let mine = || candidates.iter().filter(|c| c.direction == across(direction));
            let Some(partner) = partner(mine, total, crowded) else {
                tracing::debug!(
                    ?direction,
                    total,
                    candidates = mine().count(),
                    "ssh channel without partner"
                );
                continue;
            };
            let differences = ranges(&partner.pair, total);
            let outcome = if doubt {
                Outcome::Unknown(vec![Reason::RecordsDropped])
            } else if differences.is_empty() {
                inside(&partner.pair, total)
            } else if self.accuses(key, direction, partner, total) {
                Outcome::Differs(differences)
            } else {
                Outcome::Unknown(vec![Reason::Transformed])
            };
            let (place, before, after) = match direction {
                Direction::Out => (SshPlace::BeforeSealing, partner.transfer, transfers[d]),
                Direction::In => (SshPlace::AfterOpening, transfers[d], partner.transfer),
            };
            self.cross(key, direction, Passage { place, programs: [arena; 2], before, after, outcome }, None);
        }
        for candidate in &mut candidates {
            candidate.pair.forget_waiting(&mut self.budget);
        }
    }

    fn accuses(&self, key: Key, direction: Direction, partner: &Candidate, total: u64) -> bool {
        let tunnel = self.objects.get(key).and_then(|o| o.tunnel.as_ref());
        tunnel.is_some_and(|t| t.accuses(direction, partner, total))
    }

    /// Both ends of a channel have ended in one direction: what one cipher took in against what the
    /// other gave out.
    pub(in crate::assemble) fn say_between(&mut self, transfer: &Transfer) {
        let (Some(from), Some(to)) = (transfer.origin, transfer.destination) else { return };
        let (Some(origin), Some(destination)) = (self.objects.get(from), self.objects.get(to)) else {
            return;
        };
        let mut a = self.end(origin, Direction::Out, u64::MAX);
        let mut b = self.end(destination, Direction::In, u64::MAX);
        if a.total == 0 && b.total == 0 {
            return;
        }
        // As for plain TCP: who can't show that he has the socket says nothing about a stranger.
        let strangers = !self.same_user(Some(origin), Some(destination));
        for (end, object) in [(&mut a, origin), (&mut b, destination)] {
            let unproven = |t: &Tunnel| t.disputed || strangers && t.proof < Proof::Full;
            if object.tunnel.as_ref().is_none_or(|t| unproven(t)) {
                end.doubts.push(Reason::DisputedClaim);
            }
        }
        let id = |o: &Object, d: Direction| o.tunnel.as_ref().and_then(|t| t.transfers[d as usize]);
        let connection = id(origin, Direction::Out).or(id(destination, Direction::In));
        // As in TLS, insertions and deletions can't be the network's doing.
        let case = Case {
            channel: model::Channel::Tls,
            pair: &transfer.pair,
            origin: Some(&a),
            destination: Some(&b),
        };
        let judgement = judge::judge(case);
        let peer = self.process_at(destination, Direction::In);
        let outcome = match judgement.verdict {
            Verdict::Altered => Outcome::Differs(judgement.altered),
            Verdict::Intact | Verdict::Truncated => Outcome::Same,
            Verdict::Unverified => Outcome::Unknown(judgement.reasons),
        };
        let arena = |o: &Object| o.tunnel.as_ref().map_or(0, |t| t.arena);
        let passage = Passage {
            place: SshPlace::BetweenCiphers,
            programs: [arena(origin), arena(destination)],
            before: connection,
            after: connection,
            outcome,
        };
        self.cross(from, Direction::Out, passage, peer);
    }

    fn cross(
        &mut self,
        key: Key,
        direction: Direction,
        passage: Passage,
        peer: Option<crate::model::Process>,
    ) {
        if let Outcome::Differs(altered) = &passage.outcome
            && let Some(user) = self.objects.get(key).and_then(|o| o.uses.first())
        {
            let (arena, by) = (user.arena, user.by[direction as usize]);
            let mut altered = altered.clone();
            altered.truncate(MAX_RANGES);
            let what = What::SshMismatch { place: passage.place, altered, peer };
            let connection = match passage.place {
                SshPlace::AfterOpening => passage.before,
                SshPlace::BeforeSealing | SshPlace::BetweenCiphers => passage.after,
            };
            self.notice_of(arena, by, key, direction, connection, what);
        }
        tracing::debug!(place = ?passage.place, outcome = ?passage.outcome, "ssh channel");
        if self.passages.len() >= MAX_PASSAGES {
            self.passages.pop_front();
        }
        self.passages.push_back(passage);
    }
}

/// The stream that a channel's bytes went through.
fn partner<'a, I: Iterator<Item = &'a Candidate>>(
    mine: impl Fn() -> I,
    total: u64,
    crowded: bool,
) -> Option<&'a Candidate> {
    if total == 0 {
        return None;
    }
    let best = mine().max_by_key(|c| c.equal())?;
    if best.equal() > 0 {
        return Some(best);
    }
    let mut fitting = mine().filter(|c| !crowded && c.likely && c.total == Some(total));
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

/// What two taps of one program differ in.
fn ranges(pair: &Pair, total: u64) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for block in pair.proven_differences() {
        let (offset, end) = (block * BLOCK, (block + 1) * BLOCK);
        let length = if total > offset { end.min(total) - offset } else { BLOCK };
        match ranges.last_mut() {
            Some(last) if last.offset + last.length == offset => last.length += length,
            _ => ranges.push(Range { offset, length }),
        }
    }
    ranges
}

/// Nothing differs: is all of the channel's the same?
fn inside(pair: &Pair, total: u64) -> Outcome {
    let (whole, rest) = (total / BLOCK, total % BLOCK);
    let tail = rest == 0 || pair.same_partial == Some((whole * BLOCK, rest as u32));
    if pair.same.count_below(whole) == whole && tail {
        return Outcome::Same;
    }
    let gaps = pair.origin.gaps.iter().chain(&pair.destination.gaps);
    let mut reasons: Vec<Reason> = Vec::new();
    for gap in gaps {
        if !reasons.contains(&gap.reason) {
            reasons.push(gap.reason);
        }
    }
    Outcome::Unknown(reasons)
}
