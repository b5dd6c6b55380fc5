//! How far bytes may have come: from program to program, by what was given and who was started.
#![forbid(unsafe_code)]

use super::{Given, Lineage, Sending, World};
use crate::assemble::program::ArenaId;
use crate::model::Channel;
use crate::sensitive::told::Step;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use uuid::Uuid;

/// Programs that one walk looks at.
pub(super) const WALK: usize = 256;
/// Steps of the longest chain.
const STEPS: usize = 24;

/// A program that bytes may have reached.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// It.
    pub arena: ArenaId,
    /// From when on.
    pub since: u64,
    /// How many steps led there.
    pub depth: usize,
    /// The place of the one before it among all that were reached.
    before: usize,
    how: How,
}

/// How bytes came from one program to the next.
#[derive(Clone, Copy, Debug)]
enum How {
    /// They were there.
    There,
    Given(Channel, Uuid),
    Started,
}

impl Reach {
    /// Through a pipe, or a pair of sockets.
    #[must_use]
    pub fn piped(&self) -> bool {
        matches!(self.how, How::Given(..))
    }
}

/// The tables as they stand, asked about each program once: what they say is read from `/proc` in part.
pub struct Asked<'a> {
    world: &'a dyn World,
    given: HashMap<ArenaId, Rc<[Given]>>,
    sendings: HashMap<ArenaId, Rc<[Sending]>>,
    /// From when on it was looked at what a program wrote, for one who asks.
    wrote: HashMap<(ArenaId, usize), u64>,
}

impl<'a> Asked<'a> {
    /// Nothing yet.
    #[must_use]
    pub fn new(world: &'a dyn World) -> Self {
        Self { world, given: HashMap::new(), sendings: HashMap::new(), wrote: HashMap::new() }
    }

    /// Until when it must still be looked at what a program wrote since then. `what_for`: who asks; the answer is for him.
    pub fn unseen(&mut self, by: ArenaId, since: u64, what_for: usize) -> u64 {
        let seen = self.wrote.entry((by, what_for)).or_insert(u64::MAX);
        let until = *seen;
        *seen = until.min(since);
        until
    }

    fn given(&mut self, from: ArenaId) -> Rc<[Given]> {
        self.given.entry(from).or_insert_with(|| self.world.given(from).into()).clone()
    }
}

impl Lineage {
    /// All programs that bytes from `arena` may have reached since then, itself first.
    #[must_use]
    pub fn reach(&self, asked: &mut Asked<'_>, arena: ArenaId, since: u64) -> Vec<Reach> {
        let mut all = vec![Reach { arena, since, depth: 0, before: 0, how: How::There }];
        let mut seen = HashSet::from([arena]);
        let mut next = 0;
        while next < all.len() && all.len() < WALK {
            let (before, Reach { arena, since, depth, .. }) = (next, all[next]);
            next += 1;
            if depth >= STEPS {
                continue;
            }
            let given = asked.given(arena);
            let gifts = given.iter().chain(self.gifts.get(arena));
            let gifts = gifts.filter(|g| g.last >= since && g.to != arena);
            let gifts = gifts.map(|g| (g.to, since.max(g.started), How::Given(g.channel, g.transfer)));
            let children = self.nodes.get(&arena).into_iter().flat_map(|node| &node.children);
            let children = children.filter(|(_, born)| *born >= since);
            for (to, since, how) in gifts.chain(children.map(|&(to, born)| (to, born, How::Started))) {
                if all.len() < WALK && seen.insert(to) {
                    all.push(Reach { arena: to, since, depth: depth + 1, before, how });
                }
            }
        }
        all
    }

    /// The steps to one of those that were reached.
    #[must_use]
    pub fn steps(&self, reached: &[Reach], to: &Reach) -> Vec<Step> {
        let mut steps = Vec::with_capacity(to.depth);
        let mut to = to;
        while to.depth > 0 {
            let Some(from) = reached.get(to.before).filter(|from| from.depth < to.depth) else { break };
            let (did, over, transfer) = match to.how {
                How::Given(Channel::Pipe, id) => ("passed bytes to", Some("pipe"), Some(id)),
                How::Given(_, id) => ("passed bytes to", Some("socket pair"), Some(id)),
                How::Started | How::There => ("started", None, None),
            };
            steps.push(Step {
                to: Some(self.name(to.arena)),
                over,
                transfer: transfer.filter(|id| !id.is_nil()),
                ..self.step(to.since, did, from.arena)
            });
            to = from;
        }
        steps.reverse();
        steps
    }

    /// Connections of a program, those that are over first.
    #[must_use]
    pub fn sendings(&self, asked: &mut Asked<'_>, arena: ArenaId) -> Rc<[Sending]> {
        let all = || self.sent.get(arena).cloned().chain(asked.world.sendings(arena)).collect();
        asked.sendings.entry(arena).or_insert_with(all).clone()
    }
}
