//! Who has what: `Opened` and `Forked` records, and whether to believe them.
//!
//! An inode is the claimant's word until the kernel agrees. A claim that conflicts with a better
//! one makes an object of its own that joins nothing: its `disputed-claim` hurts nobody else.

use super::object::{Object, Proof, Use};
use super::program::ArenaId;
use super::slab::Key;
use super::{Assembler, SETTLE};
use crate::host::facts::{Access, Inode};
use crate::surround::{Seen, Tcp};
use counterfoil_abi::record::{self, Address, Channel, Forked, Opened, Record, Tap};

/// Forks remembered whose parent has not said yet that it is one.
const MAX_STRAYS: usize = 64;

/// IPv4 within IPv6 is IPv4, and unused bytes don't make a difference.
pub fn normal(address: Address) -> Address {
    const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let mut normal = Address { port: address.port, version: address.version, ..Address::default() };
    if address.version == 6 && address.ip[..12] == MAPPED {
        normal.version = 4;
        normal.ip[..4].copy_from_slice(&address.ip[12..]);
    } else if address.version == 4 {
        normal.ip[..4].copy_from_slice(&address.ip[..4]);
    } else if address.version == 6 {
        normal.ip = address.ip;
    } else {
        normal.version = 0;
    }
    normal
}

impl Assembler {
    /// An object exists, or more is known of it.
    pub(super) fn opened(&mut self, arena: ArenaId, by: u32, opened: &Opened) {
        let number = opened.header.object;
        let Some(channel) = Channel::from_code(opened.channel) else { return };
        if number == 0 || channel == Channel::File || !self.programs.contains_key(&arena) {
            return;
        }
        let known = self.locate(arena, number);
        let key = match known {
            Some(key) => key,
            None => match self.claim(arena, by, number, channel, opened) {
                Some(key) => key,
                None => return,
            },
        };
        let Some(object) = self.objects.get_mut(key) else { return };
        if object.channel != channel {
            return;
        }
        object.settled = false;
        if channel == Channel::Ssh {
            self.tunnel_opened(key, arena, opened);
            return self.replay_early(arena, number, key);
        }
        learn(object, opened);
        let mut news = opened.header.flags & (record::ACCEPTED | record::CONNECTED);
        if let Some(program) = self.programs.get_mut(&arena) {
            let relay = program.accepts && program.connects;
            program.accepts |= opened.header.flags & record::ACCEPTED != 0;
            program.connects |= opened.header.flags & record::CONNECTED != 0;
            if !relay && program.accepts && program.connects {
                self.relaying.push(arena);
            }
        }
        if let Some(user) = object.use_of(arena, number) {
            user.fd = opened.fd;
            if known.is_some() {
                news &= !user.flags;
                user.goes_on(opened.header.time);
            }
            user.flags |= opened.header.flags;
        }
        if news != 0 && channel == Channel::Tcp {
            self.see_tcp(arena, by, news == record::ACCEPTED, opened);
        }
        self.prove(arena, by, number, key);
        self.join(arena, key);
        self.meter(key);
        self.replay_early(arena, number, key);
    }

    fn see_tcp(&mut self, arena: ArenaId, by: u32, accepted: bool, opened: &Opened) {
        let Some(program) = self.programs.get(&arena) else { return };
        let (local, remote) = (normal(opened.local), normal(opened.remote));
        let tcp = Tcp { facts: program.facts.clone(), pid: program.pid(by), accepted, local, remote };
        self.see(Seen::Tcp(Box::new(tcp)));
    }

    /// Makes the program a user of the object that it names, new or known.
    fn claim(
        &mut self,
        arena: ArenaId,
        by: u32,
        number: u32,
        channel: Channel,
        opened: &Opened,
    ) -> Option<Key> {
        // An SSH channel has other things to tell in these places.
        let named = opened.inode != 0 && channel != Channel::Ssh;
        let inode = named.then_some((opened.device, opened.inode));
        let known = inode.and_then(|i| self.by_inode.get(&i).copied());
        let claimed = match known {
            Some(known) => self.may_share(arena, by, opened.fd, inode, known)?,
            None => None,
        };
        let key = match claimed {
            Some(key) => key,
            None => {
                if self.object_limit_reached() {
                    return None;
                }
                // Looked up again: the claim of those before may just have been given up.
                let known = inode.and_then(|i| self.by_inode.get(&i).copied());
                let mut object = Object::new(channel, opened.header.time);
                object.net_namespace = self.programs.get(&arena)?.facts.net_namespace;
                object.disputed = known.is_some();
                object.inode = inode.filter(|_| known.is_none());
                object.held_unseen =
                    channel == Channel::Tcp && inode.is_some_and(|i| self.held_unseen.contains(&i));
                let key = self.objects.insert(object);
                if let (Some(inode), None) = (inode, known) {
                    self.by_inode.insert(inode, key);
                }
                key
            }
        };
        let program = self.programs.get_mut(&arena)?;
        let told = program.inherited.iter().find(|i| Some(i.inode) == inode);
        let (held, access) = told.map_or((false, None), |i| (i.held, i.access));
        // A pipe's descriptor says by its tap which end it is.
        let end = Tap::from_code(opened.header.tap).filter(|_| channel == Channel::Pipe);
        let access =
            access.or(end.map(|tap| Access { reads: tap == Tap::PipeRead, writes: tap == Tap::PipeWrite }));
        program.numbers.insert(number, key);
        let object = self.objects.get_mut(key)?;
        object.uses.push(Use {
            arena,
            number,
            fd: opened.fd,
            flags: opened.header.flags,
            proof: if held { Proof::Held } else { Proof::None },
            since: opened.header.time,
            access,
            resumed: [0; 2],
            extent: [0; 2],
            grew: [0; 2],
            began: None,
            by: [0; 2],
            ended: None,
            finish: None,
        });
        Some(key)
    }

    /// An inode that another program has, too: handed over, or a lie? `Some(None)`: it is not
    /// believed, and gets an object of its own.
    fn may_share(
        &mut self,
        arena: ArenaId,
        by: u32,
        fd: i32,
        inode: Option<Inode>,
        known: Key,
    ) -> Option<Option<Key>> {
        let program = self.programs.get(&arena)?;
        let object = self.objects.get(known)?;
        if object.uses.iter().any(|u| u.arena == arena) {
            return Some(Some(known));
        }
        let held = program.inherited.iter().any(|i| Some(i.inode) == inode && i.held)
            || inode.is_some() && self.settings.proc.descriptor(program.pid(by), fd) == inode;
        let uid = program.facts.process.uid;
        let mut family = false;
        let mut others_hold = false;
        for user in &object.uses {
            let Some(other) = self.programs.get(&user.arena) else { continue };
            let related = program.descends_from(other.facts.process.pid)
                || other.descends_from(program.facts.process.pid)
                || other.children.values().any(|c| program.descends_from(c.pid));
            family |= related && other.facts.process.uid == uid;
            others_hold |= user.proof >= Proof::Held;
        }
        if held {
            if !others_hold && !family && object.total(super::object::Direction::Out) > 0 {
                // The kernel says it is ours; those before us only said so. Theirs is a story of
                // its own from now on.
                let object = self.objects.get_mut(known)?;
                object.disputed = true;
                object.inode = None;
                if let Some(inode) = inode {
                    self.by_inode.remove(&inode);
                }
                return Some(None);
            }
            return Some(Some(known));
        }
        Some(family.then_some(known))
    }

    /// Asks the kernel whether the process has what it says, and whether it leads where it says.
    fn prove(&mut self, arena: ArenaId, by: u32, number: u32, key: Key) {
        let (Some(program), Some(object)) = (self.programs.get(&arena), self.objects.get_mut(key)) else {
            return;
        };
        let (Some(inode), local, remote, channel) =
            (object.inode, object.local, object.remote, object.channel)
        else {
            return;
        };
        let Some(user) = object.use_of(arena, number) else { return };
        if user.proof == Proof::Full || user.fd < 0 {
            return;
        }
        let pid = program.pid(by);
        let proc = &self.settings.proc;
        if channel == Channel::Tcp
            && let Some(socket) = proc.socket(pid, user.fd)
            && socket.inode == inode
        {
            let addresses = normal(socket.local) == local && normal(socket.remote) == remote;
            user.proof = if addresses { Proof::Full } else { Proof::Held };
            return;
        }
        if user.proof < Proof::Held && proc.descriptor(pid, user.fd) == Some(inode) {
            user.proof = Proof::Held;
        }
        if channel == Channel::Pipe && user.access.is_none() && user.proof == Proof::Held {
            user.access = proc.access_to(pid, user.fd, inode);
        }
    }

    fn replay_early(&mut self, arena: ArenaId, number: u32, key: Key) {
        let Some(program) = self.programs.get_mut(&arena) else { return };
        if program.early.is_empty() {
            return;
        }
        let all = std::mem::take(&mut program.early);
        let (mine, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(n, ..)| *n == number);
        program.early = rest;
        for (_, by, record, _) in mine {
            self.apply(arena, by, number, key, &record as &Record);
        }
    }

    /// A fork writes into this arena from now on. Its pid is its own namespace's; it is believed
    /// if `/proc` has a descendant of the arena's owner whom that namespace calls so.
    pub(super) fn forked(&mut self, arena: ArenaId, forked: &Forked) {
        let Some(program) = self.programs.get_mut(&arena) else { return };
        let (owner, time) = (program.facts.process.pid, forked.header.time);
        let depth = program.facts.nspid.len();
        let proc = &self.settings.proc;
        let agrees = |pid: u32| {
            proc.nspid(pid).is_some_and(|all| all.len() >= depth && all.last() == Some(&forked.pid))
        };
        let same_namespace = depth <= 1;
        // The owner may be gone and its children someone else's: then what is there must at least
        // have been forked by somebody of the family.
        let found = if same_namespace {
            agrees(forked.pid).then_some(forked.pid)
        } else {
            proc.descendants(owner).into_iter().find(|&pid| agrees(pid))
        };
        let Some(pid) = found else { return };
        let known =
            !same_namespace || forked.parent == owner || program.children.contains_key(&forked.parent);
        if !known {
            // Its parent's own lane may be read after this one.
            program.strays.push((forked.parent, pid, time));
            program.strays.drain(..program.strays.len().saturating_sub(MAX_STRAYS));
            return;
        }
        let mut new = vec![(forked.pid, pid, time)];
        while let Some((name, pid, time)) = new.pop() {
            let Some(program) = self.programs.get_mut(&arena) else { return };
            let lives = |pid| self.settings.proc.thread_lives(pid, pid);
            program.forked(name, pid, self.now, lives);
            let strays = std::mem::take(&mut program.strays);
            let (theirs, rest): (Vec<_>, Vec<_>) =
                strays.into_iter().partition(|(parent, ..)| *parent == name);
            program.strays = rest;
            new.extend(theirs.into_iter().map(|(_, pid, time)| (pid, pid, time)));
            let watched = program.watched;
            if let Some(trail) = &mut self.trail {
                trail.forked(arena, pid, time);
            }
            if watched {
                self.see(Seen::Forked { id: arena, pid });
            }
        }
    }

    /// The object's uses have changed: look at it when every lane was read again.
    pub(super) fn settle_soon(&mut self, key: Key) {
        if let Some(object) = self.objects.get_mut(key)
            && !object.settling
        {
            object.settling = true;
            self.settling.push_back((self.tick + SETTLE, key));
        }
    }
}

/// Takes in what an `Opened` tells; a later one knows more.
fn learn(object: &mut Object, opened: &Opened) {
    object.last = object.last.max(opened.header.time);
    let (local, remote) = (normal(opened.local), normal(opened.remote));
    // Once it stands in the table of addresses it keeps them.
    if local.version != 0 && !object.listed {
        object.local = local;
    }
    if remote.version != 0 && remote.port != 0 && !object.listed {
        object.remote = remote;
    }
    if opened.peer_inode != 0 && object.peer_inode == 0 && object.channel != Channel::Pipe {
        object.peer_inode = opened.peer_inode;
    }
    if opened.peer_pid != 0 {
        object.peer_pid = opened.peer_pid;
    }
    object.accepted |= opened.header.flags & record::ACCEPTED != 0;
    object.connected |= opened.header.flags & record::CONNECTED != 0;
    let name = &opened.name[..(opened.name_len as usize).min(opened.name.len())];
    if !name.is_empty() && object.path.is_empty() {
        object.path = name.to_vec();
    }
}
