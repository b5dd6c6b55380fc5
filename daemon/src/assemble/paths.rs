//! Ends of Unix sockets that were over before the kernel could be asked which of them belong together; and of what to do with ends of TCP
//! connections where several network namespaces have the same addresses.
//!
//! Comes in: connections and accepted ones of one path. Goes out: pairs, and whether one was right. Each names the other's
//! process; of several the order decides. Where there were several, only what was said and answered, and is the same both ways, is
//! taken for a proof: else nobody is accused, and nothing is intact.

use super::Assembler;
use super::object::{Direction, Object};
use super::program::ArenaId;
use super::slab::Key;
use crate::judge::{self, Case};
use crate::model::Verdict;
use counterfoil_abi::UNKNOWN;
use counterfoil_abi::record::Channel;

/// Unix sockets of one path, of which neither end could be asked who is at the other.
#[derive(Default)]
pub(super) struct SamePath {
    pub(super) keys: Vec<Key>,
    /// There were more: what is alone here may not be.
    crowded: bool,
}

impl SamePath {
    /// As many as are looked through for one that is new.
    const MOST: usize = 256;

    /// True: not all have a place.
    fn add(&mut self, key: Key) -> bool {
        if !self.keys.contains(&key) {
            if self.keys.len() < Self::MOST {
                self.keys.push(key);
            } else {
                self.crowded = true;
            }
        }
        self.crowded
    }
}

impl Object {
    /// When the last user left it, if all have.
    fn over(&self) -> Option<u64> {
        let ends = self.uses.iter().map(|u| u.finish.and(u.ended).map(|e| e.header.time));
        ends.reduce(|a, b| Some(a?.max(b?))).flatten()
    }

    /// It is in another namespace than `newcomer`, may have been there at the same time, and what is at its other end, if anything,
    /// was not known for certain. What is accepted may have been sent and closed long before.
    pub(super) fn may_be_a_namesake_of(&self, newcomer: &Self) -> bool {
        let elsewhere = self.net_namespace.is_none() || self.net_namespace != newcomer.net_namespace;
        let uncertain = self.peer.is_none() || self.rival.is_some();
        elsewhere
            && uncertain
            && self.channel == newcomer.channel
            && (!newcomer.connected || self.over().is_none_or(|over| newcomer.opened < over))
    }

    /// What was laid beside it by path or addresses may not have been its peer.
    pub(super) fn has_rival(&self) -> bool {
        let rival = self.rival.filter(|&opened| opened != UNKNOWN);
        rival.is_some_and(|opened| {
            self.channel == Channel::Tcp || self.over().is_none_or(|over| opened < over)
        })
    }
}

impl Assembler {
    /// Neither end could be asked while it was open: the same path, each naming the other's process, and
    /// no second candidate for either. One may come later: what nobody accepted stood there alone.
    pub(super) fn join_path(&mut self, arena: ArenaId, key: Key) {
        let Some(object) = self.objects.get(key) else { return };
        if object.path.is_empty() || object.peer_pid == 0 {
            return;
        }
        let (opened, accepted) = (object.opened, object.accepted);
        let crowded = self.by_path.entry(object.path.clone()).or_default().add(key);
        let (taken, free) = self.candidates(arena, key);
        if !accepted {
            taken.into_iter().for_each(|key| self.contest(key, opened));
        }
        if let [peer] = free[..]
            && !crowded
            && self.candidates_of(peer).1 == [key]
            && self.were_at_one_time(key, peer)
        {
            // Others that were there when it was accepted were laid beside something by their path, too.
            let others = self.candidates_of(if accepted { key } else { peer }).0;
            let rivals = others.into_iter().filter_map(|other| self.objects.get(other).map(|o| o.opened));
            self.lay_together_by_path(key, peer, rivals.min().unwrap_or(UNKNOWN));
        }
    }

    /// [`Self::join_path`], where there are several and all is told: connections are accepted in the order in which they
    /// were made. That proves nothing by itself: see [`Self::confirm`].
    pub(super) fn join_in_order(&mut self, key: Key) {
        let Some(object) = self.objects.get(key) else { return };
        let unnamed = object.peer_inode == 0 && !object.path.is_empty() && object.peer_pid != 0;
        if object.channel != Channel::Unix || object.peer.is_some() || object.disputed || !unnamed {
            return;
        }
        self.by_path.entry(object.path.clone()).or_default().add(key);
        let in_order = |mut all: Vec<Key>| {
            all.sort_by_key(|&key| self.objects.get(key).map(|o| o.opened));
            all
        };
        let others = in_order(self.candidates_of(key).1);
        let Some(&first) = others.first() else { return };
        let like = in_order(self.candidates_of(first).1);
        let place = like.iter().position(|&k| k == key);
        let peer = place.and_then(|place| others.get(place));
        if let Some(&peer) = peer.filter(|&&peer| self.were_at_one_time(key, peer)) {
            self.lay_together_by_path(key, peer, 0);
        }
    }

    /// The accepted one was not over when the other one was opened.
    fn were_at_one_time(&self, a: Key, b: Key) -> bool {
        let (Some(a), Some(b)) = (self.objects.get(a), self.objects.get(b)) else { return false };
        let (accepted, connected) = if a.accepted { (a, b) } else { (b, a) };
        accepted.over().is_none_or(|over| connected.opened < over)
    }

    /// `rival`: see [`Object::rival`].
    fn lay_together_by_path(&mut self, key: Key, peer: Key, rival: u64) {
        for key in [key, peer] {
            if let Some(object) = self.objects.get_mut(key) {
                object.rival = Some(rival);
            }
        }
        self.lay_together(key, peer);
    }

    fn candidates_of(&self, key: Key) -> (Vec<Key>, Vec<Key>) {
        let user = self.objects.get(key).and_then(|object| object.uses.first());
        user.map_or_else(Default::default, |user| self.candidates(user.arena, key))
    }

    /// What may be at the other end, by path: laid beside something else by its path, and by itself.
    fn candidates(&self, arena: ArenaId, key: Key) -> (Vec<Key>, Vec<Key>) {
        let Some(object) = self.objects.get(key) else { return Default::default() };
        let names = |from: &Object, program: ArenaId| {
            self.programs.get(&program).is_some_and(|p| {
                let pid = from.peer_pid;
                p.facts.nspid.contains(&pid) || p.facts.process.pid == pid || p.children.contains_key(&pid)
            })
        };
        let may_be = |other: &Object| {
            let unasked = other.peer.is_none() || other.rival.is_some();
            unasked
                && other.peer_inode == 0
                && !other.disputed
                && other.channel == object.channel
                && other.accepted != object.accepted
                && other.uses.first().is_some_and(|u| {
                    // Forks of one program: a pid that is gone can't be looked up any more.
                    u.arena == arena || names(object, u.arena) && names(other, arena)
                })
        };
        let same = self.by_path.get(&object.path).map_or(&[][..], |same| &same.keys);
        let others = same.iter().copied().filter(|&candidate| candidate != key);
        let found = others.filter(|&candidate| self.objects.get(candidate).is_some_and(may_be));
        found.partition(|&candidate| self.objects.get(candidate).is_some_and(|o| o.peer.is_some()))
    }

    /// If it was laid beside its peer by path or addresses: that may be what was opened then, instead.
    pub(super) fn contest(&mut self, key: Key, opened: u64) {
        if let Some(rival) = self.objects.get_mut(key).and_then(|o| o.rival.as_mut()) {
            *rival = opened.min(*rival);
        }
    }

    /// One of a pair's directions is about to be judged. If they were laid together by their path or addresses and there were others, they are
    /// a pair if both of them are whole and not empty: what nobody accepted got no answer. Else they are disputed.
    pub(super) fn confirm(&mut self, leg: Key) {
        let Some(transfer) = self.transfers.get(leg) else { return };
        let (Some(a), Some(b)) = (transfer.origin, transfer.destination) else { return };
        let (Some(one), Some(other)) = (self.objects.get(a), self.objects.get(b)) else { return };
        if one.rival.is_none() || one.session_from().is_some() || other.session_from().is_some() {
            return;
        }
        let ways = [(one, other), (other, one)];
        // By a path everybody finds: what was lost may have told of others.
        let lossy = one.channel == Channel::Unix
            && ways.iter().any(|(from, _)| self.end(from, Direction::Out, UNKNOWN).dropped);
        if !lossy && !one.has_rival() && !other.has_rival() {
            return;
        }
        let proven = ways.iter().all(|(from, to)| self.is_whole(from, to));
        for key in [a, b] {
            if let Some(object) = self.objects.get_mut(key) {
                // The other direction is judged next, and this one not there any more.
                object.rival = None;
                object.disputed |= !proven;
            }
        }
    }

    fn is_whole(&self, from: &Object, to: &Object) -> bool {
        let leg = from.legs[Direction::Out as usize].and_then(|leg| self.transfers.get(leg));
        leg.is_some_and(|transfer| {
            let (origin, destination) =
                (self.end(from, Direction::Out, UNKNOWN), self.end(to, Direction::In, UNKNOWN));
            let (channel, pair) = (from.model_channel(), &transfer.pair);
            let case = Case { channel, pair, origin: Some(&origin), destination: Some(&destination) };
            origin.total > 0 && judge::judge(case).verdict == Verdict::Intact
        })
    }
}
