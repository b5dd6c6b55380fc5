//! Where bytes may have gone from a process: to whom it gave some, whom it started, what it wrote, what it sent.
//!
//! Comes in: programs, gifts, files and connections as they come and go, and [`World`], the tables as they stand. Goes
//! out: [`Reach`], all that bytes from one process may have reached since a moment. Nothing is kept longer than the
//! window, and all of it is bounded.
#![forbid(unsafe_code)]

mod reach;
mod steps;
#[cfg(test)]
mod tests;

use crate::assemble::program::ArenaId;
use crate::host::facts::{Facts, Inode};
use crate::model::{Channel, Connection, Process, ProcessName};
use jiff::Timestamp;
use reach::WALK;
pub use reach::{Asked, Reach};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use uuid::Uuid;

/// Programs remembered.
const NODES: usize = 20_000;
/// Gifts, written files and ended connections remembered, each.
pub const MANY: usize = 20_000;
/// Of one program.
const OF_ONE: usize = 256;
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
    children: VecDeque<(ArenaId, u64)>,
    pids: VecDeque<u32>,
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
            children: VecDeque::new(),
            pids: VecDeque::from([pid]),
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
        if let Some(node) = self.nodes.get_mut(&parent) {
            // The latest: a shell, or a server, starts programs for years.
            if node.children.len() >= OF_ONE {
                node.children.pop_front();
            }
            node.children.push_back((child, since));
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
            None => {
                // Its own comes first, and stays.
                if node.pids.len() >= OF_ONE
                    && let Some(oldest) = node.pids.remove(1)
                    && self.by_pid.get(&oldest).is_some_and(|(of, _)| *of == arena)
                {
                    self.by_pid.remove(&oldest);
                }
                node.pids.push_back(pid);
                self.by_pid.insert(pid, (arena, time));
                None
            }
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
}
