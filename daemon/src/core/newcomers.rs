//! Programs that come: what is known of one that said hello, and how it is taken in.
//!
//! Comes in: [`Newcomer`]s, from `listen` or from what an earlier daemon kept. Each gets its place in the collector and in the
//! assembler, and an answer: where what it had already goes on.
#![forbid(unsafe_code)]

use super::{Core, Guest, now};
use crate::arena::{self, Arena};
use crate::assemble::program::{ArenaId, Inherited};
use crate::bells::BoardBell;
use crate::host::facts::Facts;
use crate::host::keep::Kept;
use crate::host::listen::OTHER_VERSION;
use crate::surround::Seen;
use counterfoil_abi::ABI_VERSION;
use counterfoil_abi::arena::POLICY_BOARD;
use counterfoil_abi::hello::Resume;
use crossbeam::channel::Sender;
use rustix::event::epoll;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A program that said hello.
pub struct Newcomer {
    /// Its arena's number.
    pub id: ArenaId,
    /// Its arena.
    pub memfd: OwnedFd,
    /// It.
    pub pidfd: OwnedFd,
    /// Its user, for the room it takes.
    pub uid: u32,
    /// What rings when it is quiet no more, if that was given to it ([`POLICY_BOARD`]).
    pub bell: Option<Arc<BoardBell>>,
    /// Who it is.
    pub facts: Arc<Facts>,
    /// Tags were asked for.
    pub watched: bool,
    /// When it said hello, monotonic nanoseconds: what it did and what was done to it meanwhile may be heard of first.
    pub since: u64,
    /// What it had when it started.
    pub inherited: Vec<Inherited>,
    /// Where to say where that goes on.
    pub answer: Option<Sender<Vec<Resume>>>,
    /// It said hello to an earlier daemon.
    pub adopted: bool,
    /// That one said what was open when it ended.
    pub said: bool,
}

impl Newcomer {
    /// A program that an earlier daemon observed. `bell`: its user's.
    pub fn adopted(kept: Kept, bell: Option<Arc<BoardBell>>) -> Self {
        let Kept { id, uid, watched, facts, memfd, pidfd, said } = kept;
        let facts = Arc::new(facts);
        Self {
            id,
            memfd,
            pidfd,
            uid,
            bell,
            facts,
            watched,
            since: now(),
            inherited: Vec::new(),
            answer: None,
            adopted: true,
            said,
        }
    }
}

impl Core {
    pub(super) fn welcome(&mut self, newcomer: Newcomer) {
        self.idle_ticks = 0;
        let Newcomer { id, memfd, pidfd, uid, bell, facts, watched, since, inherited, answer, adopted, said } =
            newcomer;
        // The same process with another image: the old image's arena has lost its owner.
        let same =
            |g: &Guest| g.facts.process.pid == facts.process.pid && g.facts.starttime == facts.starttime;
        let before: Vec<ArenaId> = self.guests.iter().filter(|(_, g)| same(g)).map(|(&id, _)| id).collect();
        for old in before {
            self.collector.owner_gone(old);
        }
        if answer.is_some() {
            // Twice: a record may be on its way into a lane that was already passed.
            self.tick(true);
            self.tick(true);
        }
        let other = adopted && !arena::fits(&memfd);
        if other {
            tracing::warn!(
                "process {} runs on with the library of another version (ABI {}, this daemon's is {ABI_VERSION}): it is not \
                 observed until it is started again",
                facts.process.pid,
                arena::version(&memfd).unwrap_or_default(),
            );
            arena::give_up(&memfd);
            self.assembler.declined(&facts, OTHER_VERSION);
        }
        let Some(arena) = Arena::map(memfd).ok().filter(|_| !other) else {
            self.room.give(uid);
            if let Some(keeper) = &self.keeper {
                keeper.forget(id);
            }
            return;
        };
        let data = epoll::EventData::new_u64(id);
        let _ = epoll::add(&self.epoll, &pidfd, data, epoll::EventFlags::IN);
        let bell = bell.filter(|_| arena.policy() & POLICY_BOARD != 0);
        if let (Some(porter), Some(bell)) = (&self.porter, &bell) {
            porter.add(bell);
        }
        self.collector.add(id, arena, bell, now());
        self.last_record = now();
        let resume = self.assembler.register(id, facts.clone(), watched, since, inherited);
        if let Some(surround) = &self.surround {
            let pulse = self.collector.pulse(id).unwrap_or_default();
            surround.tell(Seen::Came { id, facts: facts.clone(), watched, adopted, pulse });
        }
        if adopted {
            self.assembler.restarted(id, now(), said);
        }
        self.guests.insert(id, Guest { pidfd, uid, facts });
        if let Some(answer) = answer {
            let _ = answer.try_send(resume);
        }
    }
}
