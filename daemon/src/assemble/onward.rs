//! Judged transfers that a relay passed on: what [`super::relay`] finds, as transfers and notices.

use super::object::{Direction, Proof};
use super::passed::{Found, How, Passed};
use super::relay::{Crossing, Relayed};
use super::{Assembler, Transfer};
use crate::files::chains::Gift;
use crate::judge::End;
use crate::judged::{Context, Judged, Notice, What};
use crate::model::{self, Assurance, BlockRun, BlockState, Channel, Range, Reason, Verdict};
use counterfoil_abi::BLOCK;
use std::sync::Arc;
use uuid::Uuid;

impl Assembler {
    /// Looks for the other half of the way.
    pub(super) fn pass_on(&mut self, crossing: Crossing) {
        for relayed in self.relays.cross(self.now, crossing) {
            self.say_relayed(relayed);
        }
    }

    /// Says what a relay changed, once nothing better explains it. `last`: nothing more will come.
    pub(super) fn settle_relays(&mut self, last: bool) {
        for relayed in self.relays.settle(self.now, last) {
            self.say_relayed(relayed);
        }
    }

    fn say_relayed(&mut self, relayed: Relayed) {
        self.relays.remember(&relayed);
        if let Some(sessions) = &relayed.sessions {
            self.say_two_sessions(sessions, &relayed.found);
        }
        // Where an observed relay passed on what it got, its two transfers have said all there is.
        if !relayed.observed() || relayed.found.how == How::Altered {
            let observed = relayed.observed();
            let (transfer, context, gift) = end_to_end(relayed);
            if let Some(gift) = gift.filter(|_| !observed) {
                for arena in [gift.from, gift.to] {
                    if let Some(program) = self.programs.get(&arena) {
                        self.files.program(arena, &program.facts);
                    }
                }
                self.files.chains.over(gift);
            }
            self.out.push_back(Judged::Transfer { transfer: Box::new(transfer), context: Box::new(context) });
        }
    }

    /// A transfer that has just been judged, if it may be one half of a way through a relay. `ends`: what
    /// `judge` was told of them.
    pub(super) fn crossing(
        &self,
        transfer: &mut Transfer,
        ends: [Option<&End>; 2],
        said: &(model::Transfer, Context),
    ) -> Option<Crossing> {
        let (outward, context) = said;
        if !matches!(outward.channel, Channel::Tls | Channel::Tcp) {
            return None;
        }
        let objects =
            [transfer.origin, transfer.destination].map(|key| key.and_then(|k| self.objects.get(k)));
        let users = [Direction::Out, Direction::In].map(|d| {
            let object = objects[d as usize].filter(|_| ends[d as usize].is_some())?;
            object.uses.iter().find(|u| u.active(d)).map(|u| u.arena)
        });
        let relays = |at: usize| {
            let program = users[at].and_then(|arena| self.programs.get(&arena));
            program.is_some_and(|p| p.accepts && p.connects)
        };
        let one_ended = users.contains(&None);
        let lone = one_ended && outward.reasons.contains(&Reason::PeerNotObserved);
        let well = match outward.verdict {
            Verdict::Intact | Verdict::Unverified => lone || !one_ended && (relays(0) || relays(1)),
            Verdict::Altered | Verdict::Truncated => false,
        };
        let whole = outward.verdict == Verdict::Intact || outward.reasons == [Reason::PeerNotObserved];
        let open = objects
            .into_iter()
            .flatten()
            .map(|o| (o.opened, o.last))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
        if !well || objects.into_iter().flatten().any(|o| o.disputed) {
            return None;
        }
        let passed = |manifest: &mut super::manifest::Manifest, end: Option<&End>| {
            Some(Passed::of(manifest, end.filter(|e| e.offered == 0)?.total))
        };
        let left = passed(&mut transfer.pair.origin, ends[0]);
        let arrived = passed(&mut transfer.pair.destination, ends[1]);
        let (left, arrived) = match (left, arrived) {
            (Some(left), Some(arrived)) => (left, arrived),
            (Some(one), None) | (None, Some(one)) if one_ended => (one.clone(), one),
            _ => return None,
        };
        Some(Crossing {
            transfer: outward.clone(),
            context: context.clone(),
            programs: users,
            accepted: objects.map(|o| o.is_some_and(|o| o.accepted)),
            may: [1, 0].map(|at| users[at].is_none() || relays(at)),
            arrived,
            left,
            whole,
            counted: ends.into_iter().flatten().all(|end| all_counted(outward.channel, end)),
            proven: objects.into_iter().flatten().all(|o| o.proof() == Proof::Full),
            open,
        })
    }

    fn say_two_sessions(&mut self, [first, second]: &[Arc<Crossing>; 2], found: &Found) {
        let notice = Notice {
            seen: self.timestamp(self.now),
            process: first.context.origin.clone().or_else(|| first.context.destination.clone()),
            connection: first.context.connection.clone(),
            flow: first.transfer.flow.clone(),
            transfer: Some(first.transfer.id),
            what: What::TlsTerminated {
                onward: second.context.connection.clone(),
                onward_flow: second.transfer.flow.clone(),
                onward_transfer: second.transfer.id,
                relay: first.context.destination.clone(),
                receiver: second.context.destination.clone(),
                bytes: found.bytes,
                changed: found.differs.clone(),
            },
        };
        self.out.push_back(Judged::Notice(Box::new(notice)));
    }
}

/// The kernel counted what was witnessed and nothing beside it; or nothing can pass beside.
fn all_counted(channel: Channel, end: &End) -> bool {
    channel == Channel::Tls || end.kernel == Some(end.total) && end.urgent == 0
}

/// Block by block, where offsets are the same on both sides.
fn strip(differs: &[Range], count: u64) -> Vec<BlockRun> {
    let blocks = differs.iter().flat_map(|r| r.offset / BLOCK..(r.offset + r.length).div_ceil(BLOCK));
    let mut runs: Vec<BlockRun> = Vec::new();
    let mut add = |state, blocks| match runs.last_mut() {
        Some(BlockRun { state: last, blocks: sum }) if *last == state => *sum += blocks,
        _ if blocks > 0 => runs.push(BlockRun { state, blocks }),
        _ => {}
    };
    let mut at = 0;
    for block in blocks {
        add(BlockState::Same, block.saturating_sub(at));
        add(BlockState::Differs, 1);
        at = block + 1;
    }
    add(BlockState::Same, count.saturating_sub(at));
    runs
}

/// From who wrote into the first connection to who read from the second; and that the one gave to the other.
fn end_to_end(relayed: Relayed) -> (model::Transfer, Context, Option<Gift>) {
    let Relayed { first, second, found, .. } = relayed;
    let (sent, received) = match found.shared {
        // The rest is others'.
        true => (found.bytes, found.bytes),
        false => (first.arrived.total, second.left.total),
    };
    let verdict = match found.how {
        How::Same => Verdict::Intact,
        How::Reframed => Verdict::Unverified,
        How::Altered => Verdict::Altered,
    };
    let content = first.arrived.content.as_ref();
    let same_places = sent == received && found.how != How::Reframed;
    let kind = content.map(|c| c.kind);
    let (id, altered) = (Uuid::now_v7(), found.differs);
    let gift = match (first.programs[0], second.programs[1]) {
        (Some(from), Some(to)) => Some(Gift {
            from,
            to,
            transfer: id,
            channel: first.transfer.channel,
            bytes: received,
            started: first.open.0.min(second.open.0),
            last: first.open.1.max(second.open.1),
            verdict: Some(verdict),
            altered: altered.iter().take(64).copied().collect(),
        }),
        _ => None,
    };
    let transfer = model::Transfer {
        id,
        verdict,
        reasons: if found.how == How::Reframed { vec![Reason::Transformed] } else { Vec::new() },
        channel: first.transfer.channel,
        flow: None,
        assurance: Some(match kind {
            Some(super::manifest::TagKind::Wide) if same_places => Assurance::Hash,
            _ => Assurance::KeyedTag,
        }),
        class: first.transfer.class,
        bytes: model::Bytes { origin: Some(sent), destination: Some(received) },
        strip: content.filter(|_| same_places).map_or_else(Vec::new, |c| strip(&altered, c.count() as u64)),
        altered,
        legs: vec![first.transfer.id, second.transfer.id],
        started: first.transfer.started.min(second.transfer.started),
        ended: first.transfer.ended.max(second.transfer.ended),
        origin_digest: first.transfer.origin_digest.clone(),
        destination_digest: second.transfer.destination_digest.clone(),
        origin: first.transfer.origin.clone(),
        destination: second.transfer.destination.clone(),
    };
    let context = Context {
        origin: first.context.origin.clone(),
        destination: second.context.destination.clone(),
        connection: first.context.connection.clone().or_else(|| second.context.connection.clone()),
        ..Context::default()
    };
    (transfer, context, gift)
}
