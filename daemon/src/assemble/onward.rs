//! Judged transfers that a relay passed on: what [`super::relay`] finds, as transfers and notices.

use super::object::{Direction, Proof};
use super::relay::{Crossing, Relayed};
use super::trace::Content;
use super::{Assembler, Transfer};
use crate::judge::End;
use crate::judged::{Context, Judged, Notice, What};
use crate::model::{self, Assurance, BlockRun, BlockState, Channel, Range, Reason, Verdict};
use counterfoil_abi::BLOCK;
use uuid::Uuid;

impl Assembler {
    /// Looks for the other half of the way.
    pub(super) fn pass_on(&mut self, crossing: Crossing) {
        let Some(relayed) = self.relays.cross(self.now, crossing) else { return };
        if relayed.two_sessions() {
            self.say_two_sessions(&relayed);
        }
        // Where an observed relay passed on what it got, its two transfers have said all there is.
        if !relayed.observed() || !relayed.differs.is_empty() {
            let (transfer, context) = end_to_end(relayed);
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
        let well = match outward.verdict {
            Verdict::Intact => relays(0) || relays(1),
            Verdict::Unverified => one_ended && outward.reasons == [Reason::PeerNotObserved],
            Verdict::Altered | Verdict::Truncated => false,
        };
        let open = objects
            .into_iter()
            .flatten()
            .map(|o| (o.opened, o.last))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
        if !well || objects.into_iter().flatten().any(|o| o.disputed) {
            return None;
        }
        let content = |manifest: &mut super::manifest::Manifest, end: Option<&End>| {
            Content::of(manifest, end.filter(|e| e.offered == 0)?.total)
        };
        let left = content(&mut transfer.pair.origin, ends[0]);
        let arrived = content(&mut transfer.pair.destination, ends[1]);
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
            arrived,
            left,
            counted: ends.into_iter().flatten().all(|end| all_counted(outward.channel, end)),
            proven: objects.into_iter().flatten().all(|o| o.proof() == Proof::Full),
            open,
        })
    }

    fn say_two_sessions(&mut self, relayed: &Relayed) {
        let (first, second) = (&relayed.first, &relayed.second);
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
                bytes: first.arrived.total,
                changed: ranges(&relayed.differs, first.arrived.total),
            },
        };
        self.out.push_back(Judged::Notice(Box::new(notice)));
    }
}

/// The kernel counted what was witnessed and nothing beside it; or nothing can pass beside.
fn all_counted(channel: Channel, end: &End) -> bool {
    channel == Channel::Tls || end.kernel == Some(end.total) && end.urgent == 0
}

/// Whole blocks, neighbours merged.
fn ranges(blocks: &[u64], total: u64) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for &block in blocks {
        let (offset, end) = (block * BLOCK, ((block + 1) * BLOCK).min(total));
        match ranges.last_mut() {
            Some(last) if last.offset + last.length == offset => last.length = end - last.offset,
            _ => ranges.push(Range { offset, length: end - offset }),
        }
    }
    ranges
}

fn strip(blocks: &[u64], count: u64) -> Vec<BlockRun> {
    let mut runs: Vec<BlockRun> = Vec::new();
    let mut add = |state, blocks| match runs.last_mut() {
        Some(BlockRun { state: last, blocks: sum }) if *last == state => *sum += blocks,
        _ if blocks > 0 => runs.push(BlockRun { state, blocks }),
        _ => {}
    };
    let mut at = 0;
    for &block in blocks {
        add(BlockState::Same, block - at);
        add(BlockState::Differs, 1);
        at = block + 1;
    }
    add(BlockState::Same, count - at);
    runs
}

/// From who wrote into the first connection to who read from the second.
fn end_to_end(relayed: Relayed) -> (model::Transfer, Context) {
    let Relayed { first, second, differs } = relayed;
    let total = first.arrived.total;
    let digest = |digest: &Option<String>| digest.clone();
    let transfer = model::Transfer {
        id: Uuid::now_v7(),
        verdict: if differs.is_empty() { Verdict::Intact } else { Verdict::Altered },
        reasons: Vec::new(),
        channel: first.transfer.channel,
        flow: None,
        assurance: Some(match first.arrived.kind {
            super::manifest::TagKind::Mac => Assurance::KeyedTag,
            super::manifest::TagKind::Wide => Assurance::Hash,
        }),
        class: first.transfer.class,
        bytes: model::Bytes { origin: Some(total), destination: Some(total) },
        altered: ranges(&differs, total),
        legs: vec![first.transfer.id, second.transfer.id],
        started: first.transfer.started.min(second.transfer.started),
        ended: first.transfer.ended.max(second.transfer.ended),
        strip: strip(&differs, first.arrived.count() as u64),
        origin_digest: digest(&first.transfer.origin_digest),
        destination_digest: digest(&second.transfer.destination_digest),
        origin: first.transfer.origin,
        destination: second.transfer.destination,
    };
    let context = Context {
        origin: first.context.origin,
        destination: second.context.destination,
        connection: first.context.connection.or(second.context.connection),
        ..Context::default()
    };
    (transfer, context)
}
