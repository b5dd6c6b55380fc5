//! Whether a chain's legs can have carried a file.
//!
//! Comes in: a delivery, and a reading that it may come from. Goes out: the way between, if there is one of
//! which each leg carried enough. Called by `matching` and `resolve`: two sessions of one sshd hang together
//! by a few bytes that its listener gives to each, and over those nobody's file went.

use super::carriers::{Carrier, compresses, sends_differences};
use super::chains::{Gift, Live, Source};
use super::readings::Reading;
use super::{Delivery, Files};
use crate::assemble::program::ArenaId;
use crate::model::{Channel, Verdict};
use counterfoil_abi::BLOCK;

/// What a program that was killed, or that lives, may have moved and not yet told.
pub(super) const NOT_TOLD_YET: u64 = 4 * BLOCK;
/// deflate makes a thousand bytes of one at most: 1032 (<https://zlib.net/zlib_tech.html>).
const MOST_DEFLATED: u64 = 1100;
/// rsync sends four bytes for a block that is there already, and its largest blocks have 128 KiB (`MAX_BLOCK_SIZE`).
const MOST_LEFT_OUT: u64 = 1 << 15;
/// Whoever makes less of something has a head, too.
const FRAMED: u64 = 64;

/// Did the leg carry so many bytes, made less by `divisor` at most?
fn carried(leg: &Gift, bytes: u64, divisor: u64) -> bool {
    let counted = leg.last != u64::MAX && leg.verdict == Some(Verdict::Intact);
    let slack = if counted { 0 } else { NOT_TOLD_YET };
    leg.bytes >= bytes.min(FRAMED) && leg.bytes.saturating_add(slack) >= bytes / divisor
}

impl Delivery {
    /// So many bytes came at least: what was there before and what a hole stands for did not.
    fn came(&self) -> u64 {
        if self.end.digest.is_some() {
            return self.end.bytes;
        }
        match self.end.tags.witnessed(self.end.bytes) {
            0 => self.bytes().saturating_sub(self.kept()),
            witnessed => witnessed,
        }
    }
}

impl Files {
    /// The way from this reading to this delivery, if each of its legs can have carried what came.
    pub(super) fn way(&self, d: &Delivery, r: &Reading, live: &dyn Live) -> Option<Source> {
        let bytes = d.came();
        let might = |leg: &Gift| carried(leg, bytes, MOST_LEFT_OUT);
        let sources = self.chains.sources_over(live, d.end.arena, r.end.opened, d.end.last, might);
        sources.into_iter().find(|s| s.arena == r.end.arena).filter(|s| self.all_carried(s, bytes))
    }

    fn all_carried(&self, source: &Source, bytes: u64) -> bool {
        let mut nodes = vec![source.arena];
        nodes.extend(source.legs.iter().map(|leg| leg.to));
        let is = |arena: &ArenaId, what: fn(&crate::model::Process) -> bool| {
            self.nodes.get(arena).is_none_or(|n| what(&n.facts.process))
        };
        let differences = |a: &ArenaId| is(a, sends_differences);
        let changes = |a: &ArenaId| self.carrier(*a) < Carrier::Exact || is(a, sends_differences);
        source.legs.iter().enumerate().all(|(i, leg)| {
            // Made less by one program before it, it is made whole again by another one behind it.
            let (before, behind) = nodes.split_at(i + 1);
            let around = |by: &dyn Fn(&ArenaId) -> bool| before.iter().any(by) && behind.iter().any(by);
            let local = matches!(leg.channel, Channel::Pipe | Channel::Unix);
            let divisor = if around(&differences) {
                MOST_LEFT_OUT
            } else if around(&changes) || !local && is(&leg.from, compresses) && is(&leg.to, compresses) {
                MOST_DEFLATED
            } else {
                1
            };
            carried(leg, bytes, divisor)
        })
    }
}
