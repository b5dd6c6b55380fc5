//! A program: one image and its forks, writing into one arena.

use super::lost::Lost;
use super::samples::Taken;
use super::slab::Key;
use crate::host::facts::{Access, Facts, Inode};
use crate::model::{Process, ProcessName};
use counterfoil_abi::Tag;
use counterfoil_abi::record::{Channel, Record};
use std::collections::HashMap;
use std::sync::Arc;

/// An arena's number; never used twice.
pub type ArenaId = u64;

/// Records kept that came before their object's `Opened`: a thread that says much in a burst writes several lanes in turn.
/// Of each program the first ones, and more while there is room.
pub const MAX_EARLY: usize = 256;
/// See [`MAX_EARLY`].
pub const MOST_EARLY: usize = 4096;
/// Forked children remembered.
const MAX_CHILDREN: usize = 4096;
/// So many are remembered whether they live or not.
const FEW_CHILDREN: usize = 64;
/// How long a fork that is gone is remembered, nanoseconds: what it said may not have been read.
const LINGER: u64 = 10_000_000_000;
/// Between two looks which of them are.
const SWEEP: u64 = 1_000_000_000;

/// A fork.
#[derive(Clone, Copy, Debug)]
pub struct Fork {
    /// Its pid as the daemon counts it.
    pub pid: u32,
    /// When it was first seen to be gone, monotonic nanoseconds.
    gone: Option<u64>,
}

/// A socket or pipe that the program had when it started, as the kernel told at hello.
#[derive(Clone, Copy, Debug)]
pub struct Inherited {
    /// The object's number.
    pub number: u32,
    /// What it claims to be.
    pub inode: Inode,
    /// The kernel says that it is.
    pub held: bool,
    /// How it was opened.
    pub access: Option<Access>,
}

/// One image.
pub struct Program {
    /// Who.
    pub facts: Arc<Facts>,
    /// Tags were asked for.
    pub watched: bool,
    /// Its objects, by number.
    pub numbers: HashMap<u32, Key>,
    /// What it had at hello.
    pub inherited: Vec<Inherited>,
    /// Records whose `Opened` has not come: lanes are read one after the other.
    pub early: Vec<(u32, u32, Box<Record>, Taken)>,
    /// How many ticks `early` has waited.
    pub early_age: u32,
    /// ClientHello tags that its sockets were seen to carry.
    pub hellos: Vec<(Tag, Key)>,
    /// Its ends of SSH channels.
    pub tunnels: Vec<Key>,
    /// Forks, by the pid that their namespace gives them.
    pub children: HashMap<u32, Fork>,
    /// When there are so many, it is time to forget those that are gone; and when that was done.
    most_children: usize,
    swept: u64,
    /// Forks of somebody who is not known to be one: parent, pid, when.
    pub strays: Vec<(u32, u32, u64)>,
    /// Other objects answer for TLS functions, GnuTLS functions, descriptor functions.
    pub foreign: [bool; 3],
    /// Its arena is not read any more.
    pub hostile: bool,
    /// Notes taken so far.
    pub notes: u32,
    /// Of them, how functions begin.
    pub codes: u32,
    /// Records of it were lost.
    pub dropped: bool,
    /// It was there before the daemon was.
    pub restarted: bool,
    /// The daemon before said what was open when it ended.
    pub said: bool,
    /// When it was taken up again, monotonic nanoseconds.
    pub adopted_at: u64,
    /// Objects whose beginning only an earlier daemon knew.
    pub lost: HashMap<u32, Lost>,
    /// Nobody maps its arena.
    pub gone: bool,
    /// It has accepted a connection, and made one: it may be a relay.
    pub accepts: bool,
    /// See `accepts`.
    pub connects: bool,
}

impl Program {
    /// A new one.
    pub fn new(facts: Arc<Facts>, watched: bool, inherited: Vec<Inherited>) -> Self {
        Self {
            facts,
            watched,
            numbers: HashMap::new(),
            inherited,
            early: Vec::new(),
            early_age: 0,
            hellos: Vec::new(),
            tunnels: Vec::new(),
            children: HashMap::new(),
            most_children: FEW_CHILDREN,
            swept: 0,
            strays: Vec::new(),
            foreign: [false; 3],
            hostile: false,
            notes: 0,
            codes: 0,
            dropped: false,
            restarted: false,
            said: false,
            adopted_at: 0,
            lost: HashMap::new(),
            gone: false,
            accepts: false,
            connects: false,
        }
    }

    /// The pid as the daemon counts it, of a process that its own namespace calls `by`.
    pub fn pid(&self, by: u32) -> u32 {
        let owner = self.facts.process.pid;
        if by == 0 || self.facts.nspid.last() == Some(&by) {
            return owner;
        }
        self.children.get(&by).map_or(owner, |fork| fork.pid)
    }

    /// Is the process gone that its own namespace calls `by`? One that is not remembered is.
    pub fn is_gone(&self, by: u32, lives: impl Fn(u32) -> bool) -> bool {
        if self.facts.nspid.last() == Some(&by) {
            return !lives(self.facts.process.pid);
        }
        self.children.get(&by).is_none_or(|fork| !lives(fork.pid))
    }

    /// Remembers a fork, and forgets some that are gone: a server forks for years.
    pub fn forked(&mut self, namespace_pid: u32, pid: u32, now: u64, lives: impl Fn(u32) -> bool) {
        if self.children.len() >= self.most_children && now.saturating_sub(self.swept) >= SWEEP {
            self.swept = now;
            self.children.retain(|_, fork| {
                fork.gone = if lives(fork.pid) { None } else { fork.gone.or(Some(now)) };
                fork.gone.is_none_or(|gone| now.saturating_sub(gone) < LINGER)
            });
            let living = self.children.values().filter(|fork| fork.gone.is_none()).count();
            self.most_children = (2 * living).clamp(FEW_CHILDREN, MAX_CHILDREN);
        }
        if self.children.len() < MAX_CHILDREN {
            self.children.insert(namespace_pid, Fork { pid, gone: None });
        }
    }

    /// The outward process of `by`, one of the family.
    pub fn process(&self, by: u32) -> Process {
        let mut process = self.facts.process.clone();
        let pid = self.pid(by);
        if pid != process.pid {
            // A fork: same program, its owner is the parent.
            process.parents.insert(0, ProcessName { pid: process.pid, exe: process.exe.clone() });
            process.pid = pid;
            process.started = None;
        }
        process
    }

    /// Is `pid` this program or one of its ancestors?
    pub fn descends_from(&self, pid: u32) -> bool {
        self.facts.process.pid == pid || self.facts.process.parents.iter().any(|p| p.pid == pid)
    }

    /// Does a foreign hook stand before this channel's taps?
    pub fn foreign_hook(&self, channel: Channel) -> bool {
        match channel {
            Channel::Tls => self.foreign[0],
            Channel::GnuTls => self.foreign[1],
            _ => self.foreign[2],
        }
    }
}
