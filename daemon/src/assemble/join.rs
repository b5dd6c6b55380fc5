//! Ends find each other.
//!
//! TLS by flow id, TCP and datagrams by the pair of addresses, Unix sockets by the pair of inodes,
//! pipes by their one inode (they are one object from the start). Unix sockets that nobody could be asked about: [`super::paths`].

use super::object::{Direction, Object, Proof};
use super::pair::Side;
use super::program::ArenaId;
use super::slab::Key;
use super::{Assembler, SETTLE, Suspect, Transfer};
use counterfoil_abi::UNKNOWN;
use counterfoil_abi::record::{Address, Channel};

/// How much later than the other end a connection may be told of that began before it, nanoseconds.
const TOLD_LATE: u64 = 1_000_000_000;
/// Claimants looked at for one pair of addresses.
const MAX_CANDIDATES: usize = 64;

fn loopback(address: &Address) -> bool {
    match address.version {
        4 => address.ip[0] == 127,
        6 => address.ip[..15] == [0; 15] && address.ip[15] == 1,
        _ => false,
    }
}

/// Is the other end on this host for certain?
pub fn local_peer(object: &Object) -> bool {
    loopback(&object.remote) || object.channel == Channel::Unix
}

impl Assembler {
    /// Looks for the other end of an object that got an inode, a path or addresses.
    pub(super) fn join(&mut self, arena: ArenaId, key: Key) {
        let Some(object) = self.objects.get(key) else { return };
        if object.peer.is_some() || object.disputed {
            return;
        }
        match object.channel {
            Channel::Tcp | Channel::Datagram => self.join_addresses(key),
            Channel::Unix | Channel::UnixDatagram => self.join_unix(arena, key),
            Channel::Pipe | Channel::Tls | Channel::GnuTls | Channel::File | Channel::Ssh => {}
        }
    }

    fn join_addresses(&mut self, key: Key) {
        let Some(object) = self.objects.get(key) else { return };
        let (local, remote) = (object.local, object.remote);
        if local.version == 0 || remote.version == 0 || local.port == 0 || remote.port == 0 {
            return;
        }
        let same = self.by_addresses.entry((local, remote)).or_default();
        if !same.contains(&key) {
            if same.len() >= MAX_CANDIDATES {
                return;
            }
            same.push(key);
            if let Some(object) = self.objects.get_mut(key) {
                object.listed = true;
            }
        }
        self.dispute_double(local, remote, key);
        let Some(object) = self.objects.get(key) else { return };
        if object.disputed {
            return;
        }
        let needs_same = loopback(&remote);
        let candidates = self.by_addresses.get(&(remote, local)).cloned().unwrap_or_default();
        let mut best: Option<((bool, bool, u64), Key)> = None;
        for candidate in candidates {
            let Some(other) = self.objects.get(candidate) else { continue };
            if other.channel != object.channel || other.peer.is_some() || other.disputed {
                continue;
            }
            let namespace = object.net_namespace.is_some() && object.net_namespace == other.net_namespace;
            if needs_same && !namespace {
                continue;
            }
            // Who connects is there before it is accepted: that was the connection before this one.
            if object.connected && other.accepted && other.opened.saturating_add(TOLD_LATE) < object.opened {
                continue;
            }
            let rank = (namespace, !other.ended(), other.opened);
            if best.is_none_or(|(r, _)| rank > r) {
                best = Some((rank, candidate));
            }
        }
        let (channel, opened) = (object.channel, object.opened);
        let same = best.is_some_and(|((namespace, ..), _)| namespace);
        if channel == Channel::Tcp && !same {
            self.note_namesakes(key, best.map(|(_, peer)| peer), opened);
        }
        if let Some((_, peer)) = best {
            self.lay_together(key, peer);
        }
    }

    /// Other network namespaces may have connections with the same addresses at the same time: which ends belong together only
    /// their content tells then. `peer`, in another namespace, is about to be laid beside this one.
    fn note_namesakes(&mut self, key: Key, peer: Option<Key>, opened: u64) {
        let Some(object) = self.objects.get(key) else { return };
        let ways = [(object.local, object.remote), (object.remote, object.local)];
        let listed = ways.iter().filter_map(|way| self.by_addresses.get(way)).flatten().copied();
        let others: Vec<(Key, u64)> = listed
            .filter(|&other| other != key && Some(other) != peer)
            .filter_map(|other| Some((other, self.objects.get(other)?)))
            .filter(|(_, other)| other.may_be_a_namesake_of(object))
            .map(|(other, at)| (other, at.opened))
            .collect();
        others.iter().for_each(|&(other, _)| self.contest(other, opened));
        if let Some(peer) = peer {
            let first = others.iter().map(|&(_, opened)| opened).min().unwrap_or(UNKNOWN);
            for key in [key, peer] {
                if let Some(object) = self.objects.get_mut(key) {
                    object.rival = Some(first);
                }
            }
        }
    }

    /// Two that say they are the same end of one connection: the proven one is, if just one is.
    fn dispute_double(&mut self, local: Address, remote: Address, newcomer: Key) {
        let Some(claimants) = self.by_addresses.get(&(local, remote)).cloned() else { return };
        let Some(new) = self.objects.get(newcomer) else { return };
        let (namespace, proof, opened) = (new.net_namespace, new.proof(), new.opened);
        for other_key in claimants {
            let Some(other) = self.objects.get(other_key) else { continue };
            if let Some(mistaken) = self.mistaken_peer(other, opened) {
                self.dispute(mistaken);
                continue;
            }
            // An ended one was the connection before this one.
            if other_key == newcomer || other.ended() || other.net_namespace != namespace {
                continue;
            }
            let theirs = other.proof();
            // Nor is one that nobody has any more, where that can be told: the newcomer is proven, or what was at
            // the other's far end is over, which no claim can bring about, or who had it was killed.
            let over = other.peer.is_some_and(|peer| self.objects.get(peer).is_none_or(Object::ended))
                || self.movers_gone(other);
            if (proof == Proof::Full || over) && !self.still_held(other) {
                continue;
            }
            if proof <= theirs {
                self.dispute(newcomer);
            }
            if theirs <= proof {
                self.dispute(other_key);
            }
            return;
        }
    }

    /// What was laid beside a connection that nobody ever accepted, since it was told of before its own other end: that is the
    /// newcomer, of which the kernel has only one at a time.
    fn mistaken_peer(&self, ghost: &Object, newcomer_opened: u64) -> Option<Key> {
        let ended = ghost.uses.iter().filter_map(|u| u.ended).map(|ended| ended.header.time).max()?;
        let peer = ghost.peer.filter(|_| ghost.ended())?;
        let accepted = self.objects.get(peer).filter(|peer| peer.accepted)?.opened;
        (ended < accepted && newcomer_opened < accepted.saturating_add(TOLD_LATE)).then_some(peer)
    }

    /// Does one of its users have it now? An unseen close leaves an object that looks open.
    fn still_held(&self, object: &Object) -> bool {
        object.uses.iter().any(|u| {
            self.programs.get(&u.arena).is_some_and(|p| {
                let pid = p.pid(u.by[0].max(u.by[1]));
                self.settings.proc.descriptor(pid, u.fd).is_some_and(|i| Some(i) == object.inode)
            })
        })
    }

    fn dispute(&mut self, key: Key) {
        if let Some(object) = self.objects.get_mut(key) {
            object.disputed = true;
        }
    }

    fn join_unix(&mut self, arena: ArenaId, key: Key) {
        let Some(object) = self.objects.get_mut(key) else { return };
        if let Some((device, inode)) = object.inode {
            if object.peer_inode == 0 {
                object.peer_inode = self.settings.proc.unix_peer(inode).unwrap_or(0);
            }
            let peer_inode = object.peer_inode;
            let named = self.by_inode.get(&(device, peer_inode)).copied().filter(|_| peer_inode != 0);
            let naming = self.wanted.remove(&(device, inode));
            let peer = named.or(naming).filter(|&p| p != key);
            peer.inspect(|&peer| self.contest(peer, 0));
            if let Some(peer) = peer.filter(|&p| self.agrees_on_peer(p, inode)) {
                self.lay_together(key, peer);
                return;
            }
            if peer_inode != 0 {
                self.wanted.insert((device, peer_inode), key);
                return;
            }
        }
        self.join_path(arena, key);
    }

    /// The object at the other end says the same, or nothing.
    fn agrees_on_peer(&self, peer: Key, inode: u64) -> bool {
        self.objects
            .get(peer)
            .is_some_and(|o| o.peer.is_none() && !o.disputed && (o.peer_inode == 0 || o.peer_inode == inode))
    }

    /// A TLS session got its flow id.
    pub(super) fn join_flow(&mut self, key: Key) {
        let Some(tls) = self.objects.get(key).and_then(|o| o.tls.as_ref()) else { return };
        let (flow, client) = (tls.flow, tls.client);
        let ends = self.by_flow.entry(flow).or_default();
        let (ours, theirs) =
            if client { (&mut ends.client, ends.server) } else { (&mut ends.server, ends.client) };
        if let Some(first) = ours.filter(|&k| k != key)
            && self.objects.get(first).is_some()
        {
            // Only who has the session's secrets has its id, but one of the two is not the end.
            self.dispute(first);
            self.dispute(key);
            return;
        }
        *ours = Some(key);
        if let Some(peer) = theirs.filter(|&k| self.objects.get(k).is_some_and(|o| o.peer.is_none())) {
            self.lay_together(key, peer);
        }
    }

    /// Two objects are the ends of one connection: what one sends the other receives.
    pub(super) fn lay_together(&mut self, a: Key, b: Key) {
        for (key, peer) in [(a, b), (b, a)] {
            if let Some(object) = self.objects.get_mut(key) {
                object.peer = Some(peer);
            }
        }
        self.lay(a, b);
        if a != b {
            self.lay(b, a);
        }
        self.settle_soon(a);
        self.settle_soon(b);
        self.join_tunnels(a, b);
    }

    fn lay(&mut self, origin: Key, destination: Key) {
        let leg = |objects: &super::Slab<Object>, key: Key, d: Direction| {
            objects.get(key).and_then(|o| o.legs[d as usize])
        };
        let out = leg(&self.objects, origin, Direction::Out);
        let back = leg(&self.objects, destination, Direction::In);
        let merged = match (out, back) {
            (None, None) => self.transfers.insert(Transfer::new(Some(origin), Some(destination))),
            (Some(one), None) | (None, Some(one)) => one,
            (Some(one), Some(other)) if one == other => one,
            (Some(one), Some(other)) => {
                if let Some(theirs) = self.transfers.remove(other)
                    && let Some(ours) = self.transfers.get_mut(one)
                    && ours.pair.join(Side::Destination, theirs.pair, &mut self.budget)
                {
                    self.suspects.push((self.tick + SETTLE, Suspect::Transfer(one)));
                }
                one
            }
        };
        if let Some(transfer) = self.transfers.get_mut(merged) {
            transfer.origin = Some(origin);
            transfer.destination = Some(destination);
            transfer.pair.joined = true;
        }
        for (key, direction) in [(origin, Direction::Out), (destination, Direction::In)] {
            if let Some(object) = self.objects.get_mut(key) {
                object.legs[direction as usize] = Some(merged);
            }
        }
    }

    /// The socket under a TLS session gives it its addresses.
    pub(super) fn find_carrier(&mut self, arena: ArenaId, tls: Key) {
        let (Some(object), Some(program)) = (self.objects.get(tls), self.programs.get(&arena)) else {
            return;
        };
        let Some(facts) = &object.tls else { return };
        let by_number = program.numbers.get(&facts.carrier).copied().filter(|_| facts.carrier != 0);
        let by_hello = || {
            let hello = facts.hello;
            (hello != [0; 16]).then(|| program.hellos.iter().rev().find(|(tag, _)| *tag == hello)).flatten()
        };
        if let Some(socket) = by_number.or_else(|| by_hello().map(|&(_, key)| key)) {
            self.copy_addresses(socket, tls);
        }
    }

    pub(super) fn copy_addresses(&mut self, socket: Key, tls: Key) {
        let Some(from) = self.objects.get(socket) else { return };
        let (local, remote, namespace) = (from.local, from.remote, from.net_namespace);
        let (accepted, connected) = (from.accepted, from.connected);
        let Some(to) = self.objects.get_mut(tls) else { return };
        let ssh = to.channel == Channel::Ssh;
        if !ssh && !matches!(to.channel, Channel::Tls | Channel::GnuTls) {
            return;
        }
        (to.local, to.remote, to.net_namespace) = (local, remote, namespace);
        (to.accepted, to.connected, to.carrier) = (accepted, connected, Some(socket));
        if let Some(from) = self.objects.get_mut(socket) {
            from.tunnels |= ssh;
            from.session |= !ssh;
        }
        self.meter(tls);
    }

    /// Takes an object out of all tables.
    pub(super) fn forget(&mut self, key: Key) {
        let Some(mut object) = self.objects.remove(key) else { return };
        object.cipher_off(&mut self.budget);
        self.forget_tunnel(key, &mut object);
        if let Some(inode) = object.inode
            && self.by_inode.get(&inode) == Some(&key)
        {
            self.by_inode.remove(&inode);
        }
        if let Some((device, _)) = object.inode
            && self.wanted.get(&(device, object.peer_inode)) == Some(&key)
        {
            self.wanted.remove(&(device, object.peer_inode));
        }
        let addresses = (object.local, object.remote);
        if let Some(claimants) = self.by_addresses.get_mut(&addresses) {
            claimants.retain(|&k| k != key);
            if claimants.is_empty() {
                self.by_addresses.remove(&addresses);
            }
        }
        if let Some(same) = self.by_path.get_mut(&object.path) {
            same.keys.retain(|&k| k != key);
            if same.keys.is_empty() {
                self.by_path.remove(&object.path);
            }
        }
        if let Some(tls) = &object.tls
            && let Some(ends) = self.by_flow.get_mut(&tls.flow)
        {
            ends.client = ends.client.filter(|&k| k != key);
            ends.server = ends.server.filter(|&k| k != key);
            if ends.client.is_none() && ends.server.is_none() {
                self.by_flow.remove(&tls.flow);
            }
        }
        for user in &object.uses {
            self.recent[super::recent_place(user.arena, user.number)] = None;
            if let Some(program) = self.programs.get_mut(&user.arena) {
                if program.numbers.get(&user.number) == Some(&key) {
                    program.numbers.remove(&user.number);
                }
                program.hellos.retain(|&(_, k)| k != key);
            }
            self.forget_program_if_done(user.arena);
        }
    }
}
