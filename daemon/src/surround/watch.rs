//! The watched programs and their forks, and when each is looked at.
//!
//! Comes in: word that they came, forked, went, came to a function; the clock. Goes out: who is traced, whose code was
//! patched. Twice a second and a bit a bounded number of processes is looked at: those that moved data lately, then
//! the others in turn. So an idle host costs little however many processes it has, and with few of
//! them each is looked at every time.
#![forbid(unsafe_code)]

use super::beginnings::{Beginning, Beginnings};
use super::{Pulse, Settings, code, tracer};
use crate::assemble::program::ArenaId;
use crate::core::now;
use crate::host::facts::Facts;
use crate::judged::{Anomaly, Patch};
use crate::model::{Process, ProcessName};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Looks for a tracer at once: at busy processes, and at others in turn.
const BUSY_LOOKS: usize = 24;
const OTHER_LOOKS: usize = 8;
/// Where there are more processes than this, fewer are looked at: a look costs some 40 µs, one at code 1 ms, and
/// a thousand idle programs may cost half a percent of a core in all.
const MANY: usize = 200;
const FEWER: usize = 4;
/// Rounds until those who are gone lose their turns.
const TIDY_EVERY: usize = 16;
/// Looks at code at once, and in one round what newcomers may take beside it.
const CODE_LOOKS: usize = 4;
const NEW_CODE_LOOKS: usize = 40;
/// Nanoseconds after which a process counts as idle.
const BUSY_FOR: u64 = 30_000_000_000;
/// Between two looks at one process's code: first, and at most; and where it is idle.
const CODE_FIRST: u64 = 1_000_000_000;
const CODE_LAST: u64 = 15_000_000_000;
const CODE_IDLE: u64 = 300_000_000_000;
/// Forks of one program, and processes in all.
const MAX_FORKS: usize = 4096;
const MAX_MEMBERS: usize = 65_536;
/// Patched libraries of one program and its forks that are said.
const MAX_SAID: usize = 64;

/// A program and its forks.
struct Program {
    facts: Arc<Facts>,
    pulse: Pulse,
    members: Vec<Member>,
    /// Processes, and libraries whose code was said to be patched in them.
    said: HashSet<(u32, String)>,
}

/// One process.
struct Member {
    pid: u32,
    starttime: Option<u64>,
    /// Its tracer, of which was told.
    tracer: u32,
    /// When its code was looked at, and how long until it is again.
    looked: u64,
    wait: u64,
}

/// All of them.
#[derive(Default)]
pub struct Watched {
    programs: HashMap<ArenaId, Program>,
    /// Whose turn it is, and when their programs moved data: a thousand of these are asked in each round. Some may be gone.
    turns: VecDeque<(ArenaId, u32, Pulse)>,
    /// Looks at code that newcomers may still have in this round.
    new_code_looks: usize,
    /// Looks around so far.
    rounds: usize,
    /// What needs no process any more.
    beginnings: Beginnings,
}

type Found = Vec<(Process, Anomaly)>;

/// Is `pid` among the parents that a process had when it said hello?
pub fn descends(process: &Process, pid: u32) -> bool {
    process.parents.iter().any(|p| p.pid == pid)
}

/// A path's last part.
fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl Program {
    /// The outward process of a member.
    fn process(&self, pid: u32) -> Process {
        let mut process = self.facts.process.clone();
        if pid != process.pid {
            process.parents.insert(0, ProcessName { pid: process.pid, exe: process.exe.clone() });
            (process.pid, process.started) = (pid, None);
        }
        process
    }

    /// Said once of each library, whichever way its path leads there.
    fn is_patched(&mut self, pid: u32, patch: Patch, found: &mut Found) {
        if self.said.len() >= MAX_SAID {
            let members = &self.members;
            self.said.retain(|(pid, _)| members.iter().any(|m| m.pid == *pid));
        }
        if self.said.len() < MAX_SAID && self.said.insert((pid, base(&patch.object).to_owned())) {
            found.push((self.process(pid), Anomaly::CodePatched(patch)));
        }
    }
}

/// The process still runs that program.
fn is_member(programs: &HashMap<ArenaId, Program>, id: ArenaId, pid: u32) -> bool {
    programs.get(&id).is_some_and(|program| program.members.iter().any(|m| m.pid == pid))
}

impl Watched {
    /// Nobody is watched.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }

    /// A program said hello: is it traced already, and is its code its own?
    pub fn came(&mut self, id: ArenaId, facts: Arc<Facts>, pulse: Pulse, settings: &Settings) -> Found {
        let (pid, starttime) = (facts.process.pid, facts.starttime);
        // The same process runs another image now, or a fork got one of its own. The old one's arena
        // may still have forks.
        for program in self.programs.values_mut() {
            program.members.retain(|m| m.pid != pid);
        }
        self.programs.insert(id, Program { facts, pulse, members: Vec::new(), said: HashSet::new() });
        self.join(id, pid, Some(starttime));
        let mut found = Vec::new();
        self.look_for_tracer(id, pid, settings, &mut found);
        self.look_at_new_code(id, pid, &mut found);
        found
    }

    /// A watched program has one process more.
    pub fn forked(&mut self, id: ArenaId, pid: u32) {
        // What it runs by now may have said hello before this was heard.
        let image = |p: &Program| p.facts.process.pid == pid && p.members.iter().any(|m| m.pid == pid);
        if self.programs.contains_key(&id) && !self.programs.values().any(image) {
            self.join(id, pid, tracer::starttime(pid));
        }
    }

    fn join(&mut self, id: ArenaId, pid: u32, starttime: Option<u64>) {
        if self.turns.len() >= MAX_MEMBERS {
            return;
        }
        let Some(program) = self.programs.get_mut(&id) else { return };
        if program.members.len() < MAX_FORKS && program.members.iter().all(|m| m.pid != pid) {
            let (looked, wait) = (now(), CODE_FIRST);
            program.members.push(Member { pid, starttime, tracer: 0, looked, wait });
            self.turns.push_back((id, pid, program.pulse.clone()));
        }
    }

    /// It has a TLS session.
    pub fn session(&mut self, id: ArenaId) -> Found {
        let mut found = Vec::new();
        let pids: Vec<u32> =
            self.programs.get(&id).into_iter().flat_map(|p| &p.members).map(|m| m.pid).take(4).collect();
        for pid in pids {
            self.look_at_new_code(id, pid, &mut found);
        }
        found
    }

    /// A program came to a function for the first time, and its library told how that begins. It may be over.
    pub fn begins(&mut self, id: ArenaId, pid: u32, it: Beginning) -> Found {
        let mut found = Vec::new();
        let Some(program) = self.programs.get(&id) else { return found };
        if program.said.contains(&(pid, base(&it.path).to_owned())) {
            return found;
        }
        let Some(patch) = self.beginnings.look(pid, program.facts.process.started, it) else { return found };
        // All that was done to its code, if it is still there to be looked at.
        self.look_at_new_code(id, pid, &mut found);
        if let Some(program) = self.programs.get_mut(&id) {
            program.is_patched(pid, patch, &mut found);
        }
        found
    }

    /// A program and all its forks are gone.
    pub fn gone(&mut self, id: ArenaId) {
        self.programs.remove(&id);
    }

    /// The watched process that a pid names, or the child of one; none of the writer's own family.
    pub fn target(
        &self,
        writer: ArenaId,
        pid: u32,
        same_namespace: bool,
        settings: &Settings,
    ) -> Option<Process> {
        let is = |p: &Program, m: &Member| {
            if same_namespace {
                m.pid == pid
            } else {
                p.facts.nspid.len() > 1 && p.facts.nspid.last() == Some(&pid)
            }
        };
        let (id, program, member) = self
            .programs
            .iter()
            .find_map(|(&id, p)| Some((id, p, p.members.iter().find(|m| is(p, m))?)))
            .or_else(|| {
                // A child that never wrote a record, or runs unobserved.
                let parents = settings.proc.facts(pid).filter(|_| same_namespace)?.process.parents;
                let (&id, p) = self.programs.iter().find(|(_, p)| {
                    p.members.iter().any(|m| parents.first().is_some_and(|parent| parent.pid == m.pid))
                })?;
                Some((id, p, p.members.first()?))
            })?;
        (id != writer).then(|| program.process(if same_namespace { pid } else { member.pid }))
    }

    /// Somebody wrote into a watched process.
    pub fn written_to(&mut self, pid: u32) -> Found {
        let mut found = Vec::new();
        let id =
            self.programs.iter().find(|(_, p)| p.members.iter().any(|m| m.pid == pid)).map(|(&id, _)| id);
        if let Some(id) = id {
            self.look_at_new_code(id, pid, &mut found);
        }
        found
    }

    /// Looks at whose turn it is.
    pub fn look_around(&mut self, settings: &Settings) -> Found {
        let mut found = Vec::new();
        self.new_code_looks = 0;
        let now = now();
        let due = self.whose_turn(now);
        self.rounds = self.rounds.wrapping_add(1);
        let crowded = self.turns.len() > MANY;
        let mut code_looks = match crowded {
            true => usize::from(self.rounds.is_multiple_of(FEWER)),
            false => CODE_LOOKS,
        };
        for (id, pid) in due {
            if self.look_for_tracer(id, pid, settings, &mut found)
                && code_looks > 0
                && self.code_due(id, pid, now)
            {
                code_looks -= 1;
                self.look_at_code(id, pid, &mut found);
            }
        }
        found
    }

    /// Who is looked at now, and goes to the end of the queue.
    fn whose_turn(&mut self, now: u64) -> Vec<(ArenaId, u32)> {
        let fewer = if self.turns.len() > MANY { FEWER } else { 1 };
        let (mut busy_left, mut others_left) = (BUSY_LOOKS / fewer, OTHER_LOOKS / fewer);
        if self.rounds.is_multiple_of(TIDY_EVERY) {
            let programs = &self.programs;
            self.turns.retain(|(id, pid, _)| is_member(programs, *id, *pid));
        }
        let (mut due, mut wait, mut looked_at) = (Vec::new(), VecDeque::new(), VecDeque::new());
        while busy_left + others_left > 0
            && let Some(turn) = self.turns.pop_front()
        {
            let busy = now.saturating_sub(turn.2.load(Ordering::Relaxed)) < BUSY_FOR;
            let left = if busy { &mut busy_left } else { &mut others_left };
            if *left == 0 {
                wait.push_back(turn);
            } else if is_member(&self.programs, turn.0, turn.1) {
                *left -= 1;
                due.push((turn.0, turn.1));
                looked_at.push_back(turn);
            }
        }
        for after in [&mut self.turns, &mut looked_at] {
            wait.append(after);
        }
        self.turns = wait;
        due
    }

    /// False: the process is gone.
    fn look_for_tracer(&mut self, id: ArenaId, pid: u32, settings: &Settings, found: &mut Found) -> bool {
        let Some(program) = self.programs.get_mut(&id) else { return false };
        let Some(at) = program.members.iter().position(|m| m.pid == pid) else { return false };
        let Some(by) = tracer::of(pid) else {
            program.members.swap_remove(at);
            return false;
        };
        let member = &mut program.members[at];
        if by == member.tracer {
            return true;
        }
        // Who comes may write into it, and who goes may have: its code is due.
        (member.tracer, member.looked, member.wait) = (by, 0, CODE_FIRST);
        if by == 0 {
            return true;
        }
        // Somebody else's pid by now?
        if member.starttime.is_some() && tracer::starttime(pid) != member.starttime {
            program.members.swap_remove(at);
            return false;
        }
        let process = program.process(pid);
        let mut tracer = settings.proc.facts(by).map(|f| f.process).unwrap_or_default();
        tracer.pid = by;
        tracer.argv = tracer.argv.map(|argv| (settings.redact)(argv));
        let started_it = descends(&process, by);
        found.push((process, Anomaly::Tracer { tracer: Box::new(tracer), started_it }));
        true
    }

    fn code_due(&self, id: ArenaId, pid: u32, now: u64) -> bool {
        let Some(program) = self.programs.get(&id) else { return false };
        let pulse = program.pulse.load(Ordering::Relaxed);
        program.members.iter().find(|m| m.pid == pid).is_some_and(|m| {
            let since = now.saturating_sub(m.looked);
            since >= CODE_IDLE || ((pulse > m.looked || m.tracer != 0) && since >= m.wait)
        })
    }

    fn look_at_new_code(&mut self, id: ArenaId, pid: u32, found: &mut Found) {
        if self.new_code_looks < NEW_CODE_LOOKS {
            self.new_code_looks += 1;
            self.look_at_code(id, pid, found);
        }
    }

    fn look_at_code(&mut self, id: ArenaId, pid: u32, found: &mut Found) {
        let Some(program) = self.programs.get_mut(&id) else { return };
        let Some(member) = program.members.iter_mut().find(|m| m.pid == pid) else { return };
        // The first ones come soon after each other: a program's start is when most is done to it.
        if now().saturating_sub(member.looked) >= CODE_FIRST {
            member.wait = (member.wait * 2).min(CODE_LAST);
        }
        member.looked = now();
        let starttime = member.starttime;
        let patches = code::look(pid);
        if !patches.is_empty() && (starttime.is_none() || tracer::starttime(pid) == starttime) {
            patches.into_iter().for_each(|patch| program.is_patched(pid, patch, found));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::facts::RealProc;

    #[test]
    fn everybody_gets_a_turn() {
        let mut watched = Watched::default();
        let at = now();
        for id in 0..100 {
            // Every third one moved data lately.
            let pulse = Pulse::new((if id % 3 == 0 { at } else { 0 }).into());
            watched.programs.insert(
                id,
                Program { facts: Arc::default(), pulse, members: Vec::new(), said: HashSet::new() },
            );
            watched.join(id, 1000 + id as u32, None);
        }
        let rounds = |watched: &mut Watched, n: usize| -> HashSet<ArenaId> {
            (0..n).flat_map(|_| watched.whose_turn(at)).map(|(id, _)| id).collect()
        };
        let busy = rounds(&mut watched, 2);
        assert!((0..100).filter(|id| id % 3 == 0).all(|id| busy.contains(&id)), "the busy ones first");
        assert_eq!(rounds(&mut watched, 9).len(), 100);
        for id in 100..300 {
            let program = Program {
                facts: Arc::default(),
                pulse: Pulse::new(0.into()),
                members: Vec::new(),
                said: HashSet::new(),
            };
            watched.programs.insert(id, program);
            watched.join(id, 1000 + id as u32, None);
        }
        assert!(watched.whose_turn(at).len() <= (BUSY_LOOKS + OTHER_LOOKS) / FEWER, "a crowd costs no more");
        assert_eq!(rounds(&mut watched, 200).len(), 300);
        (100..300).for_each(|id| watched.gone(id));
        watched.gone(5);
        assert!(!rounds(&mut watched, 20).contains(&5));
        watched.rounds = TIDY_EVERY;
        watched.whose_turn(at);
        assert_eq!(watched.turns.len(), 99);
    }

    #[test]
    fn a_fork_that_is_heard_of_after_what_it_runs() {
        let mut watched = Watched::default();
        for (id, pid) in [(1, 1000), (2, 1001)] {
            let mut facts = Facts::default();
            facts.process.pid = pid;
            let program = Program {
                facts: Arc::new(facts),
                pulse: Pulse::default(),
                members: Vec::new(),
                said: HashSet::new(),
            };
            watched.programs.insert(id, program);
            watched.join(id, pid, None);
        }
        watched.forked(1, 1001);
        watched.forked(1, 1002);
        let of = |id: ArenaId| watched.programs[&id].members.iter().map(|m| m.pid).collect::<Vec<_>>();
        assert_eq!((of(1), of(2)), (vec![1000, 1002], vec![1001]));
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let settings = Settings {
            proc: Arc::new(RealProc::default()),
            redact: Arc::new(|argv| argv),
            executables: Arc::default(),
            baseline: None,
        };
        let mut watched = Watched::default();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let facts = Arc::new(settings.proc.facts(child.id()).unwrap());
        assert!(watched.came(1, Arc::clone(&facts), Pulse::default(), &settings).is_empty());
        assert!(watched.look_around(&settings).is_empty());
        let target = watched.target(2, child.id(), true, &settings).unwrap();
        assert_eq!(target.pid, child.id());
        assert!(watched.target(1, child.id(), true, &settings).is_none(), "its own affair");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(watched.look_around(&settings).is_empty());
        assert!(watched.target(2, child.id(), true, &settings).is_none());
        // Another image in the same process takes the first one's place.
        watched.came(2, facts, Pulse::default(), &settings);
        assert!(watched.programs[&1].members.is_empty());
    }
}
