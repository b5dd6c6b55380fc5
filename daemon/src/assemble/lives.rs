//! What happens to a program as a whole: it says hello, loses records, lies, goes.
//!
//! Comes in: word from `listen` and `collect`. Goes out: where its inherited objects go on, and
//! notices. The core calls it.

use super::Assembler;
use super::object::{Direction, Object, Proof, Use};
use super::program::{ArenaId, Inherited, Program};
use super::slab::Key;
use crate::host::facts::Facts;
use crate::host::listen::NO_ROOM;
use crate::judge::Finish;
use crate::judged::{Judged, What};
use crate::model::Coverage;
use counterfoil_abi::UNKNOWN;
use counterfoil_abi::hello::Resume;
use counterfoil_abi::record;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Records between two looks at how much room the tables take: they add at most 64 bytes each.
const WEIGH_AFTER: u64 = 500_000;

impl Assembler {
    /// A program said hello. All that its predecessors published has been recorded already, so the
    /// answer says where each inherited object goes on, in the order of `inherited`. `since`: when it said so.
    pub fn register(
        &mut self,
        arena: ArenaId,
        facts: Arc<Facts>,
        watched: bool,
        since: u64,
        inherited: Vec<Inherited>,
    ) -> Vec<Resume> {
        self.out.push_back(Judged::Coverage(Coverage {
            pid: facts.process.pid,
            exe: facts.process.exe.clone(),
            observed: true,
            reason: None,
        }));
        if let Some(trail) = &mut self.trail {
            trail.came(arena, &facts, since);
        }
        if let Some(gallery) = &mut self.gallery {
            gallery.came(arena, &facts, since);
        }
        self.programs.insert(arena, Program::new(facts, watched, inherited.clone()));
        inherited.iter().map(|i| self.take_over(arena, since, i)).collect()
    }

    /// The new program's use of an object that is known, if the kernel says that it has it.
    fn take_over(&mut self, arena: ArenaId, since: u64, inherited: &Inherited) -> Resume {
        let never = Resume { out_offset: UNKNOWN, in_offset: UNKNOWN };
        if !inherited.held {
            return never;
        }
        let Some(&key) = self.by_inode.get(&inherited.inode) else { return never };
        let Some(object) = self.objects.get_mut(key) else { return never };
        let [out_offset, in_offset] = [Direction::Out, Direction::In].map(|d| object.total(d));
        // Whatever was so until now: it goes on.
        object.settled = false;
        object.uses.push(Use {
            arena,
            number: inherited.number,
            fd: -1,
            flags: record::INHERITED | record::RESUMED,
            proof: Proof::Held,
            since,
            access: inherited.access,
            resumed: [out_offset, in_offset],
            extent: [out_offset, in_offset],
            grew: [0; 2],
            began: None,
            by: [0; 2],
            ended: None,
            finish: None,
        });
        if let Some(program) = self.programs.get_mut(&arena) {
            program.numbers.insert(inherited.number, key);
        }
        Resume { out_offset, in_offset }
    }

    /// A process that was declined at hello.
    pub fn declined(&mut self, facts: &Facts, why: &str) {
        self.out.push_back(Judged::Coverage(Coverage {
            pid: facts.process.pid,
            exe: facts.process.exe.clone(),
            observed: false,
            reason: Some(why.into()),
        }));
        let parent = facts.process.parents.first().map(|parent| parent.pid);
        let parent = self.programs.iter().find(|(_, program)| Some(program.facts.process.pid) == parent);
        // What an operator has declined is not lost.
        if why == NO_ROOM
            && let Some((&arena, program)) = parent
        {
            let exe = facts.process.exe.clone().unwrap_or_default();
            let inherits_tracked = !program.numbers.is_empty();
            self.notice(arena, 0, What::CoverageLost { exe, reason: why.into(), inherits_tracked });
        }
    }

    /// Records of it were lost: `records` of them since the last call.
    pub fn dropped(&mut self, arena: ArenaId, records: u64) {
        // A hostile program's own number.
        self.counts.dropped = self.counts.dropped.saturating_add(records);
        let Some(program) = self.programs.get_mut(&arena) else { return };
        program.dropped = true;
        self.notice(arena, 0, What::RecordsDropped { records });
    }

    /// Its arena holds what no library of ours writes, and is read no further: its streams end here.
    pub fn hostile(&mut self, arena: ArenaId, detail: &str) {
        let Some(program) = self.programs.get_mut(&arena) else { return };
        (program.dropped, program.hostile) = (true, true);
        program.early.clear();
        let keys: BTreeSet<Key> = program.numbers.values().copied().collect();
        for key in keys {
            let Some(object) = self.objects.get_mut(key) else { continue };
            let uses = object.uses.iter_mut().filter(|u| u.arena == arena);
            uses.for_each(|u| u.finish = u.finish.or(Some(Finish::Ended)));
            self.settle_soon(key);
        }
        let detail = detail.to_owned();
        self.notice(arena, 0, What::HostileArena { detail });
    }

    /// The arena that takes the most room, if all together take too much: tags have a budget, but a
    /// stream in a thousand pieces takes room, too. Looked at only after many records.
    pub fn too_heavy(&mut self) -> Option<ArenaId> {
        if self.counts.records - self.weighed < WEIGH_AFTER {
            return None;
        }
        self.weighed = self.counts.records;
        let mut weights: HashMap<ArenaId, usize> = HashMap::new();
        for key in self.objects.keys() {
            let Some(object) = self.objects.get(key) else { continue };
            let legs = object.legs.iter().flatten().filter_map(|&leg| self.transfers.get(leg));
            let legs: usize = legs.map(|t| t.pair.weight() / 2).sum();
            let cipher: usize = object.cipher.iter().flatten().map(|p| p.weight()).sum();
            let Some(user) = object.uses.last() else { continue };
            let tunnel = object.tunnel.as_ref().map_or(0, |t| t.weight());
            *weights.entry(user.arena).or_default() += size_of::<Object>() + legs + cipher + tunnel;
        }
        let total: usize = weights.values().sum();
        let heaviest = weights.into_iter().max_by_key(|&(_, weight)| weight)?;
        (total > self.settings.tag_budget.saturating_mul(4)).then_some(heaviest.0)
    }

    /// Nobody maps its arena any more, and all that it held was recorded.
    pub fn gone(&mut self, arena: ArenaId) {
        let Some(program) = self.programs.get_mut(&arena) else { return };
        program.gone = true;
        program.early.clear();
        self.files.gone(arena, self.tick);
        if let Some(trail) = &mut self.trail {
            trail.gone(arena, self.now);
        }
        if let Some(gallery) = &mut self.gallery {
            gallery.gone(arena, self.now);
        }
        self.say_lost(arena, true);
        let Some(program) = self.programs.get_mut(&arena) else { return };
        let keys: BTreeSet<Key> = program.numbers.values().copied().collect();
        for key in keys {
            self.remember_unseen(key, arena);
            let Some(object) = self.objects.get_mut(key) else { continue };
            object.uses.iter_mut().filter(|u| u.arena == arena).for_each(Use::gone);
            if let (Some(number), Some(program)) = (object.forget_idle(arena), self.programs.get_mut(&arena))
            {
                program.numbers.remove(&number);
            }
            self.messages_end(key);
            self.settle_soon(key);
        }
        self.forget_program_if_done(arena);
    }

    pub(super) fn forget_program_if_done(&mut self, arena: ArenaId) {
        if self.programs.get(&arena).is_some_and(|p| p.gone && p.numbers.is_empty()) {
            self.programs.remove(&arena);
            self.recent.iter_mut().filter(|r| r.is_some_and(|(a, ..)| a == arena)).for_each(|r| *r = None);
        }
    }

    /// The daemon was restarted: the arenas that it took up again have a past that it doesn't know.
    /// `now` is monotonic nanoseconds; `said`: the last daemon ended in order and said what was open.
    pub fn restarted(&mut self, arena: ArenaId, now: u64, said: bool) {
        if let Some(program) = self.programs.get_mut(&arena) {
            program.restarted = true;
            program.adopted_at = now;
            program.said = said;
        }
    }
}
