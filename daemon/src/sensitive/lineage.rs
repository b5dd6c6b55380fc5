//! Where bytes may have gone from a process: to whom it gave some, whom it started, what it wrote, what it sent.
//!
//! Comes in: programs, gifts, files and connections as they come and go, and [`World`], the tables as they stand. Goes
//! out: [`Reach`], all that bytes from one process may have reached since a moment. Nothing is kept longer than the
//! window, and all of it is bounded.
#![forbid(unsafe_code)]

use super::told::Step;
use crate::assemble::program::ArenaId;
use crate::host::facts::{Facts, Inode};
use crate::model::{Channel, Connection, Process, ProcessName};
use jiff::Timestamp;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use uuid::Uuid;

/// Programs remembered.
const NODES: usize = 20_000;
/// Gifts, written files and ended connections remembered, each.
pub const MANY: usize = 20_000;
/// Of one program.
const OF_ONE: usize = 256;
/// Programs that one walk looks at.
const WALK: usize = 256;
/// Steps of the longest chain.
const STEPS: usize = 24;
/// How exactly the kernel says when a process began, nanoseconds.
const TICK: u64 = 20_000_000;

/// One program gave bytes to another one over a pipe or an unnamed pair of sockets.
#[derive(Clone, Debug)]
pub struct Given {
    /// Who got them.
    pub to: ArenaId,
    /// The transfer.
    pub transfer: Uuid,
    /// What carries it.
    pub channel: Channel,
    /// First and last record; `u64::MAX` while it is open.
    pub started: u64,
    /// See `started`.
    pub last: u64,
}

/// A connection that a program sends on.
#[derive(Clone, Debug)]
pub struct Sending {
    /// Who sends.
    pub process: Process,
    /// The connection.
    pub connection: Connection,
    /// Flow id.
    pub flow: Option<String>,
    /// The transfer.
    pub transfer: Option<Uuid>,
    /// When it was opened, monotonic nanoseconds.
    pub opened: u64,
    /// When it last became known that bytes were sent.
    pub grew: u64,
    /// Bytes sent.
    pub bytes: u64,
}

/// A file that a program wrote.
#[derive(Clone, Debug)]
pub struct Wrote {
    /// Which.
    pub inode: Inode,
    /// Its name.
    pub path: String,
    /// When it was closed, monotonic nanoseconds.
    pub last: u64,
    /// When it was opened.
    pub opened: u64,
    /// The open made it, or made it empty.
    pub made: bool,
    /// SHA-256 of it, where known.
    pub sha256: Option<[u8; 32]>,
    /// st_mtim, 0 unknown.
    pub modified: u64,
}

/// The tables as they stand.
pub trait World {
    /// To whom a program is giving bytes.
    fn given(&self, from: ArenaId) -> Vec<Given>;
    /// Connections that it made, or its ancestors did, and that it sends on.
    fn sendings(&self, from: ArenaId) -> Vec<Sending>;
}

#[derive(Debug)]
struct Node {
    facts: Arc<Facts>,
    born: u64,
    gone: Option<u64>,
    /// The program that it comes from is known.
    descends: bool,
    children: Vec<(ArenaId, u64)>,
    pids: Vec<u32>,
}

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

/// All that is remembered.
#[derive(Debug, Default)]
pub struct Lineage {
    nodes: HashMap<ArenaId, Node>,
    /// Whose process has, or had, that number, and when it was heard of.
    by_pid: HashMap<u32, (ArenaId, u64)>,
    by_session: HashMap<u32, HashSet<ArenaId>>,
    order: VecDeque<ArenaId>,
    gifts: Recent<Given>,
    sent: Recent<Sending>,
    wrote: Recent<Wrote>,
    clock_offset: i128,
}

/// The latest things of each program.
#[derive(Debug)]
struct Recent<T> {
    of: HashMap<ArenaId, VecDeque<T>>,
    count: usize,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { of: HashMap::new(), count: 0 }
    }
}

impl<T> Recent<T> {
    fn put(&mut self, arena: ArenaId, one: T) {
        if self.count >= MANY {
            return;
        }
        let all = self.of.entry(arena).or_default();
        if all.len() >= OF_ONE {
            all.pop_front();
        } else {
            self.count += 1;
        }
        all.push_back(one);
    }

    fn get(&self, arena: ArenaId) -> impl Iterator<Item = &T> {
        self.of.get(&arena).into_iter().flatten()
    }

    fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.count = 0;
        self.of.retain(|_, all| {
            all.retain(&keep);
            self.count += all.len();
            !all.is_empty()
        });
    }
}

impl Lineage {
    /// Nothing yet. `clock_offset`: the realtime clock less the monotonic one, nanoseconds.
    #[must_use]
    pub fn new(clock_offset: i128) -> Self {
        Self { clock_offset, ..Self::default() }
    }

    /// A program said hello: an image of a process that was there before, or of a new child.
    /// Gives the program that it comes from, where known. `since`: when it said so.
    pub fn came(&mut self, arena: ArenaId, facts: &Arc<Facts>, since: u64) -> Option<ArenaId> {
        let pid = facts.process.pid;
        let image_before =
            |node: &Node| node.facts.process.pid != pid || node.facts.starttime == facts.starttime;
        let before = self.whose(pid, facts.began).filter(|a| self.nodes.get(a).is_some_and(image_before));
        let began = facts.parents_began.first().copied().unwrap_or(0);
        let parent = before.or_else(|| self.whose(facts.ppid, began));
        let parent = parent.or_else(|| self.forks_of(facts)).filter(|&a| a != arena);
        if let Some(parent) = parent {
            self.descends(parent, arena, since);
        }
        while self.nodes.len() >= NODES {
            let Some(oldest) = self.order.pop_front() else { break };
            self.forget(oldest);
        }
        let node = Node {
            facts: facts.clone(),
            born: since,
            gone: None,
            descends: parent.is_some(),
            children: Vec::new(),
            pids: vec![pid],
        };
        self.nodes.insert(arena, node);
        if let Some(session) = facts.process.session {
            self.by_session.entry(session).or_default().insert(arena);
        }
        self.order.push_back(arena);
        self.by_pid.insert(pid, (arena, since));
        parent
    }

    /// Whose process this is, which began then: numbers are used again, by who begins later.
    fn whose(&self, pid: u32, began: u64) -> Option<ArenaId> {
        let (arena, heard) = *self.by_pid.get(&pid)?;
        (began <= heard.saturating_add(TICK)).then_some(arena)
    }

    fn descends(&mut self, parent: ArenaId, child: ArenaId, since: u64) {
        if let Some(node) = self.nodes.get_mut(&parent)
            && node.children.len() < OF_ONE
        {
            node.children.push((child, since));
        }
    }

    /// The program whose forks a newcomer's ancestors are that have not said so, or not yet: they run what it runs.
    fn forks_of(&self, facts: &Facts) -> Option<ArenaId> {
        let exe = facts.process.parents.first()?.exe.as_ref()?;
        let began = facts.parents_began.iter().copied().chain(std::iter::repeat(0));
        let parents = facts.process.parents.iter().zip(began);
        let mut forks = parents.take_while(|(p, _)| p.exe.as_ref() == Some(exe));
        let known = forks.find_map(|(p, began)| self.whose(p.pid, began))?;
        let same = |node: &Node| node.facts.process.exe.as_ref() == Some(exe);
        self.nodes.get(&known).is_some_and(same).then_some(known)
    }

    /// It forked, at that time. What the fork runs by now may have said hello before this was heard: gives that program,
    /// where it was not known to come from this one.
    pub fn forked(&mut self, arena: ArenaId, pid: u32, time: u64) -> Option<ArenaId> {
        let image = self.by_pid.get(&pid).map(|(image, _)| *image).filter(|image| {
            let its = |node: &Node| node.facts.process.pid == pid && node.born >= time;
            *image != arena && self.nodes.get(image).is_some_and(its)
        });
        let node = self.nodes.get_mut(&arena)?;
        match image {
            None if node.pids.len() < OF_ONE => {
                node.pids.push(pid);
                self.by_pid.insert(pid, (arena, time));
                None
            }
            None => None,
            Some(image) => {
                let node = self.nodes.get_mut(&image).filter(|node| !node.descends)?;
                node.descends = true;
                let born = node.born;
                self.descends(arena, image, born);
                Some(image)
            }
        }
    }

    /// It and all its forks are gone.
    pub fn gone(&mut self, arena: ArenaId, now: u64) {
        if let Some(node) = self.nodes.get_mut(&arena) {
            node.gone = Some(now);
        }
    }

    /// Is it?
    #[must_use]
    pub fn is_gone(&self, arena: ArenaId) -> bool {
        self.nodes.get(&arena).is_none_or(|node| node.gone.is_some())
    }

    fn forget(&mut self, arena: ArenaId) {
        let Some(node) = self.nodes.remove(&arena) else { return };
        for pid in node.pids {
            if self.by_pid.get(&pid).is_some_and(|(of, _)| *of == arena) {
                self.by_pid.remove(&pid);
            }
        }
        if let Some(session) = node.facts.process.session
            && let Some(others) = self.by_session.get_mut(&session)
        {
            others.remove(&arena);
            if others.is_empty() {
                self.by_session.remove(&session);
            }
        }
    }

    /// What is known of a program.
    #[must_use]
    pub fn facts(&self, arena: ArenaId) -> Option<&Arc<Facts>> {
        self.nodes.get(&arena).map(|node| &node.facts)
    }

    /// Programs of a session.
    pub fn in_session(&self, session: u32) -> impl Iterator<Item = ArenaId> {
        self.by_session.get(&session).into_iter().flatten().copied().take(WALK)
    }

    /// A transfer between two programs is over.
    pub fn gave(&mut self, from: ArenaId, given: Given) {
        self.gifts.put(from, given);
    }

    /// A connection is over.
    pub fn sent(&mut self, from: ArenaId, sending: Sending) {
        self.sent.put(from, sending);
    }

    /// A file was written.
    pub fn wrote(&mut self, by: ArenaId, wrote: Wrote) {
        self.wrote.put(by, wrote);
    }

    /// Written files of a program.
    pub fn written(&self, by: ArenaId) -> impl Iterator<Item = &Wrote> {
        self.wrote.get(by)
    }

    /// Connections of a program, those that are over first.
    #[must_use]
    pub fn sendings(&self, asked: &mut Asked<'_>, arena: ArenaId) -> Rc<[Sending]> {
        let all = || self.sent.get(arena).cloned().chain(asked.world.sendings(arena)).collect();
        asked.sendings.entry(arena).or_insert_with(all).clone()
    }

    /// Forgets what was over before `time`.
    pub fn forget_before(&mut self, time: u64) {
        self.gifts.retain(|g| g.last >= time);
        self.sent.retain(|s| s.grew >= time);
        self.wrote.retain(|w| w.last >= time);
        let old = |node: &Node| node.gone.is_some_and(|at| at < time);
        let gone: Vec<ArenaId> = self.nodes.iter().filter(|(_, n)| old(n)).map(|(&a, _)| a).collect();
        gone.into_iter().for_each(|arena| self.forget(arena));
        let nodes = &self.nodes;
        self.order.retain(|arena| nodes.contains_key(arena));
    }

    /// The moment that a record tells.
    #[must_use]
    pub fn at(&self, monotonic: u64) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(monotonic) + self.clock_offset).unwrap_or_default()
    }

    /// A program in few words.
    #[must_use]
    pub fn name(&self, arena: ArenaId) -> ProcessName {
        self.nodes.get(&arena).map_or(ProcessName { pid: 0, exe: None }, |node| ProcessName {
            pid: node.facts.process.pid,
            exe: node.facts.process.exe.clone(),
        })
    }

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
                at: self.at(to.since),
                did,
                process: self.name(from.arena),
                to: Some(self.name(to.arena)),
                over,
                transfer: transfer.filter(|id| !id.is_nil()),
                file: None,
            });
            to = from;
        }
        steps.reverse();
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Still(HashMap<ArenaId, Vec<Given>>);

    impl World for Still {
        fn given(&self, from: ArenaId) -> Vec<Given> {
            self.0.get(&from).cloned().unwrap_or_default()
        }
        fn sendings(&self, _: ArenaId) -> Vec<Sending> {
            Vec::new()
        }
    }

    fn facts(pid: u32, ppid: u32) -> Arc<Facts> {
        let process = Process { pid, ..Process::default() };
        Arc::new(Facts { process, ppid, ..Facts::default() })
    }

    fn given(to: ArenaId, started: u64, last: u64) -> Given {
        Given { to, transfer: Uuid::nil(), channel: Channel::Pipe, started, last }
    }

    fn reached(lineage: &Lineage, world: &Still, from: ArenaId, since: u64) -> Vec<ArenaId> {
        lineage.reach(&mut Asked::new(world), from, since).iter().map(|r| r.arena).collect()
    }

    #[test]
    fn pipes_and_children_in_time() {
        let mut l = Lineage::default();
        l.came(1, &facts(10, 1), 0);
        l.came(2, &facts(11, 10), 5);
        l.forked(1, 12, 49);
        l.came(3, &facts(12, 10), 50);
        l.came(4, &facts(40, 1), 0);
        l.gave(3, given(4, 55, 60));
        let world = Still(HashMap::from([(4, vec![given(5, 1, u64::MAX)])]));
        assert_eq!(reached(&l, &world, 1, 20), [1, 3, 4, 5], "2 was started before");
        assert_eq!(reached(&l, &world, 2, 0), [2], "never upwards");
        assert_eq!(reached(&l, &world, 3, 61), [3], "the pipe was over");
        let ways = l.reach(&mut Asked::new(&world), 1, 20);
        let said: Vec<&str> = l.steps(&ways, &ways[3]).iter().map(|s| s.did).collect();
        assert_eq!(said, ["started", "passed bytes to", "passed bytes to"]);
    }

    #[test]
    fn another_image_of_one_process_and_a_pid_used_again() {
        let mut l = Lineage::default();
        l.came(1, &facts(10, 1), 0);
        l.came(2, &facts(10, 1), 5);
        assert_eq!(reached(&l, &Still::default(), 1, 1), [1, 2], "it ran another program");
        let mut again = (*facts(10, 1)).clone();
        again.starttime = 99;
        l.came(3, &Arc::new(again), 9);
        assert_eq!(reached(&l, &Still::default(), 2, 1), [2]);
    }

    /// What a fork runs says hello to one thread, and that it was forked stands in a lane: either may be heard first.
    #[test]
    fn a_fork_that_is_heard_of_after_what_it_runs() {
        let mut l = Lineage::default();
        l.came(1, &facts(10, 1), 0);
        l.came(2, &facts(11, 10), 5);
        assert_eq!(l.forked(1, 11, 4), None, "it is known to come from there");
        l.came(3, &facts(12, 11), 7);
        assert_eq!(reached(&l, &Still::default(), 2, 6), [2, 3], "its children are its own");
        assert_eq!(reached(&l, &Still::default(), 1, 0), [1, 2, 3]);
        // Whose parent was gone when it said hello.
        l.came(4, &facts(13, 1), 9);
        assert_eq!(reached(&l, &Still::default(), 1, 8), [1]);
        assert_eq!(l.forked(1, 13, 8), Some(4));
        assert_eq!(reached(&l, &Still::default(), 1, 8), [1, 4]);
        // A number that is used again.
        l.forked(1, 11, 20);
        l.came(5, &facts(14, 11), 21);
        assert_eq!(reached(&l, &Still::default(), 2, 15), [2]);
        assert_eq!(reached(&l, &Still::default(), 1, 15), [1, 5]);
    }

    /// A server's worker is gone, which was never observed by itself, and its number is somebody else's by now.
    #[test]
    fn a_number_that_is_used_again_by_a_stranger() {
        let mut l = Lineage::default();
        l.came(1, &facts(10, 1), 1_000);
        l.forked(1, 50, 2_000);
        let since = |pid, ppid, began, parents_began| {
            Arc::new(Facts { began, parents_began, ..(*facts(pid, ppid)).clone() })
        };
        const LATER: u64 = 1_000_000_000;
        l.came(2, &since(60, 50, LATER + 9, vec![LATER]), LATER + 10);
        l.came(3, &since(50, 7, LATER, vec![0]), LATER + 20);
        assert_eq!(reached(&l, &Still::default(), 1, 0), [1], "neither its child nor it");
        l.came(4, &since(61, 50, LATER + 30, vec![LATER]), LATER + 40);
        assert_eq!(reached(&l, &Still::default(), 3, 0), [3, 4]);
        // And while the worker lives, what it starts is the server's.
        l.forked(1, 51, LATER);
        l.came(5, &since(70, 51, LATER + 50, vec![LATER - 10]), LATER + 60);
        assert_eq!(reached(&l, &Still::default(), 1, 0), [1, 5]);
    }

    #[test]
    fn forks_that_never_said_so() {
        let of = |pid, exe: &str, parents: &[(u32, &str)]| {
            let mut facts = (*facts(pid, parents[0].0)).clone();
            facts.process.exe = Some(exe.into());
            let name = |&(pid, exe): &(u32, &str)| ProcessName { pid, exe: Some(exe.into()) };
            facts.process.parents = parents.iter().map(name).collect();
            Arc::new(facts)
        };
        let mut l = Lineage::default();
        l.came(1, &of(10, "/bin/sh", &[(2, "/sbin/init")]), 0);
        l.came(2, &of(13, "/bin/cat", &[(12, "/bin/sh"), (11, "/bin/sh"), (10, "/bin/sh")]), 5);
        assert_eq!(reached(&l, &Still::default(), 1, 0), [1, 2]);
        // Through another program nothing is said to have gone.
        l.came(3, &of(15, "/bin/cat", &[(14, "/bin/static"), (10, "/bin/sh")]), 6);
        assert_eq!(reached(&l, &Still::default(), 1, 0), [1, 2]);
        assert_eq!(reached(&l, &Still::default(), 3, 0), [3]);
    }

    #[test]
    fn circles_and_crowds_end_and_are_forgotten() {
        let mut l = Lineage::default();
        for n in 0..5000 {
            l.came(n, &facts(n as u32 + 100, n as u32 + 99), n);
            l.gave(n, given(n.wrapping_sub(1), n, n + 1));
            l.gone(n, n);
        }
        assert!(l.reach(&mut Asked::new(&Still::default()), 0, 0).len() <= WALK);
        for _ in 0..2 * OF_ONE {
            l.gave(7, given(8, 0, 9));
        }
        assert!(l.gifts.get(7).count() <= OF_ONE);
        l.forget_before(100_000);
        assert!(
            l.nodes.is_empty()
                && l.by_pid.is_empty()
                && l.gifts.count == 0
                && l.order.is_empty()
                && l.by_session.is_empty()
        );
    }
}
