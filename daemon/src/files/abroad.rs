//! Files that went to somebody whom nobody observes, or came from there.
//!
//! Comes in: connections of which only one end is observed, as they are judged; what was read and then found
//! written nowhere; what was written and comes from no file that anybody read. Goes out: file transfers with
//! one end, `unverified: peer-not-observed`, that name the file, its digest and the connection.
//!
//! That a program read a file and then sent something says little: it may have been its configuration. What
//! counts is that the connection carried just this content (as a body of HTTP, or alone), or that it can't have
//! been otherwise: scp reads nothing but what it sends.

use super::carriers::{Carrier, fetches_files, sends_files};
use super::case::{Said, rest_tags};
use super::chains::{Gift, Live, Source};
use super::matching::From;
use super::open::{FileEnd, Way};
use super::readings::Reading;
use super::{Delivery, Files};
use crate::assemble::passed::Passed;
use crate::assemble::program::ArenaId;
use crate::judged::{Context, Judged};
use crate::model::{Bytes, Channel, Class, Reason, Tap, Transfer, Verdict};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use uuid::Uuid;

/// Connections that wait for their files.
const MAX_WAITING: usize = 8192;
/// Connections remembered that brought something, of one program …
const MAX_OF_ONE: usize = 1024;
/// … and of all.
const MAX_ALL: usize = 8192;
/// What is remembered of all their content, in entries of eight bytes: 32 MiB. Of what finds no room only the length is known.
const MAX_WEIGHT: usize = 4 << 20;
/// Readings looked at for one connection.
const MAX_LOOK: usize = 16_384;
/// A file's other end is looked for so long, and that of a connection behind a relay, nanoseconds.
const SAID_AFTER: u64 = 6_000_000_000;
/// Connections that brought something are remembered so long.
const KEPT: u64 = 60_000_000_000;
/// What is sent may have been read before somebody was asked to take it.
const BEFORE: u64 = 60_000_000_000;
/// Fewer bytes may be in a body and in a file by chance.
const TELLING: u64 = 64;
/// Heads and cookies are no longer, mostly.
const LITTLE: u64 = 4096;

/// A connection of which one end is observed, in one direction.
#[derive(Clone, Debug)]
pub struct Lone {
    /// The program at that end.
    pub arena: ArenaId,
    /// [`Way::Read`]: what was read went out by it. [`Way::Written`]: it came in.
    pub way: Way,
    /// Its transfer.
    pub transfer: Uuid,
    /// Addresses.
    pub local: Option<String>,
    /// The other end's.
    pub remote: Option<String>,
    /// Bytes in this direction.
    pub bytes: u64,
    /// From when to when it was used, monotonic nanoseconds.
    pub open: (u64, u64),
    /// What it carried; None: it is not over, or not all was seen.
    pub content: Option<Passed>,
}

impl Lone {
    /// See [`MAX_WEIGHT`].
    fn weight(&self) -> usize {
        self.content.as_ref().map_or(0, Passed::weight)
    }

    /// How often it is known to have carried this content.
    fn carried(&self, tags: &super::tags::Tags, bytes: u64) -> usize {
        self.content.as_ref().filter(|_| bytes >= TELLING).map_or(0, |c| c.carries(tags, bytes))
    }

    /// It is in no frames that anybody followed: its content can't be looked up.
    fn unframed(&self) -> bool {
        self.content.as_ref().is_none_or(|c| !c.framed())
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Abroad {
    out: VecDeque<(u64, Lone)>,
    into: HashMap<ArenaId, VecDeque<(u64, Arc<Lone>)>>,
    count: usize,
    weight: usize,
}

impl Abroad {
    /// One more is kept.
    fn take_in(&mut self, mut lone: Lone) -> Lone {
        if self.weight + lone.weight() > MAX_WEIGHT {
            lone.content = None;
        }
        self.weight += lone.weight();
        lone
    }

    fn forget_before(&mut self, time: u64) {
        self.into.retain(|_, of_one| {
            of_one.retain(|(at, _)| *at >= time);
            !of_one.is_empty()
        });
        self.count = self.into.values().map(VecDeque::len).sum();
        let into = self.into.values().flatten().map(|(_, lone)| lone.weight());
        self.weight = into.sum::<usize>() + self.out.iter().map(|(_, lone)| lone.weight()).sum::<usize>();
    }
}

impl Files {
    /// A connection that is over, and whose other end nobody observed.
    pub fn lone(&mut self, lone: Lone) {
        if lone.way == Way::Read {
            if self.abroad.out.len() < MAX_WAITING {
                let lone = self.abroad.take_in(lone);
                self.abroad.out.push_back((self.now + SAID_AFTER, lone));
            }
            return;
        }
        if self.abroad.count >= MAX_ALL || self.abroad.weight + lone.weight() > MAX_WEIGHT {
            self.forget_abroad();
        }
        if self.abroad.count < MAX_ALL {
            let lone = self.abroad.take_in(lone);
            let of_one = self.abroad.into.entry(lone.arena).or_default();
            if of_one.len() >= MAX_OF_ONE
                && let Some((_, oldest)) = of_one.pop_front()
            {
                self.abroad.count -= 1;
                self.abroad.weight -= oldest.weight();
            }
            of_one.push_back((self.now, Arc::new(lone)));
            self.abroad.count += 1;
        }
    }

    pub(super) fn forget_abroad(&mut self) {
        self.abroad.forget_before(self.now.saturating_sub(KEPT));
    }

    /// Says which files went out by connections that have been over for a while. `last`: by all.
    pub(super) fn say_sent(&mut self, last: bool, live: &dyn Live, out: &mut VecDeque<Judged>) {
        while let Some((due, _)) = self.abroad.out.front()
            && (last || *due <= self.now)
        {
            let Some((_, lone)) = self.abroad.out.pop_front() else { return };
            self.abroad.weight -= lone.weight();
            for (id, times, legs) in self.sent_by(&lone, live) {
                let Some(reading) = self.readings.get_mut(id) else { continue };
                reading.sent = reading.sent.saturating_add(times);
                if let Some(reading) = self.readings.get(id) {
                    out.push_back(self.sent(reading, &legs, &lone));
                }
            }
        }
    }

    /// What was read, found written nowhere, and went out by this connection, in the order in which it was opened, and how
    /// often. What others may have got as well is theirs: of one content no more readings than bodies.
    fn sent_by(&self, lone: &Lone, live: &dyn Live) -> Vec<(u64, u32, Vec<Gift>)> {
        let (from, to) = lone.open;
        let sources = self.chains.sources(live, lone.arena, from.saturating_sub(BEFORE), to);
        let mut near: Vec<(u64, u64, &Source)> = Vec::new();
        let mut looked_at = 0;
        for source in &sources {
            if looked_at >= MAX_LOOK {
                break;
            }
            for id in self.readings.latest(&[source.arena]) {
                looked_at += 1;
                let Some(r) = self.readings.get(id).filter(|r| r.left() > 0) else {
                    continue;
                };
                if r.end.opened <= to && r.end.last.saturating_add(BEFORE) >= from {
                    near.push((r.end.opened, id, source));
                }
            }
        }
        near.sort_by_key(|(opened, ..)| *opened);
        let mut carried: HashMap<[u8; 32], usize> = HashMap::new();
        let mut found = Vec::new();
        for (_, id, source) in near {
            let Some(r) = self.readings.get(id) else { continue };
            let count = || lone.carried(&r.end.tags, r.end.bytes);
            let left = match r.end.digest.and_then(|digest| carried.get(&digest)) {
                Some(&left) => left,
                None => count(),
            };
            let times = r.left().min(u32::try_from(left).unwrap_or(u32::MAX));
            if times > 0 && self.name_now(&r.end).is_some() {
                if let Some(digest) = r.end.digest {
                    carried.insert(digest, left - times as usize);
                }
                found.push((id, times, source.legs.clone()));
            } else if times == 0 && self.must_have_sent(&r.end, source, lone) {
                found.push((id, 1, source.legs.clone()));
            }
        }
        found
    }

    fn must_have_sent(&self, end: &FileEnd, source: &Source, lone: &Lone) -> bool {
        let seen = end.digest.is_some() && !end.at_rest;
        let during = end.last >= lone.open.0;
        seen && during && self.must_have(end, source, lone)
    }

    /// A file that was written, and comes from none that was read: did it come by a connection?
    pub(super) fn came(&self, d: &Delivery, from: &From, live: &dyn Live) -> Option<Judged> {
        let known = |arena: ArenaId| {
            let over = self.abroad.into.get(&arena).into_iter().flatten().rev().map(|(_, lone)| lone.clone());
            over.chain(live.lone(arena).map(Arc::new))
        };
        let rest = d.rest.had().map(rest_tags);
        let tags = rest.as_ref().unwrap_or(&d.end.tags);
        let found = from.sources.iter().find_map(|source| {
            let came = |lone: &Arc<Lone>| {
                let during = lone.open.0 <= d.end.last && lone.open.1.saturating_add(BEFORE) >= d.end.opened;
                let carried = || lone.carried(tags, d.bytes()) > 0 && self.name_now(&d.end).is_some();
                during && (self.must_have(&d.end, source, lone) || carried())
            };
            known(source.arena).find(came).map(|lone| (lone, source))
        });
        let (lone, source) = found?;
        let said = Said { bytes: d.bytes(), sha256: d.digest(), witnessed: d.bytes() };
        Some(self.one_ended(&d.end, &d.path, said, &source.legs, &lone))
    }

    /// Somebody whom nobody observes may have sent it, and that can be found out: it should be read.
    pub(super) fn may_have_come(&self, from: &From, live: &dyn Live) -> bool {
        from.sources.iter().any(|s| self.abroad.into.contains_key(&s.arena) || live.hopes(s.arena))
    }

    /// It is the trade of this delivery's program to write what it gets.
    pub(super) fn brings_files(&self, arena: ArenaId) -> bool {
        self.nodes.get(&arena).is_some_and(|n| sends_files(&n.facts.process))
    }

    /// Between this file and this connection there are only programs that pass on what they get, and the program at
    /// the file does nothing else with files.
    fn must_have(&self, end: &FileEnd, source: &Source, lone: &Lone) -> bool {
        let (first, last) = (source.legs.first(), source.legs.last());
        // The leg at the file's own end.
        let Some(leg) = (if end.way == Way::Read { first } else { last }) else {
            // curl reads its settings by stdio, and that is not in order.
            let fetches = self.nodes.get(&end.arena).is_some_and(|n| fetches_files(&n.facts.process));
            // And beside what it fetches it may write what it was told by the way: that is little.
            let most = end.way == Way::Read || end.bytes >= LITTLE && end.bytes >= lone.bytes / 2;
            return fetches && lone.unframed() && end.bytes > 0 && end.bytes <= lone.bytes && most;
        };
        let exact = |a: ArenaId| self.carrier(a) == Carrier::Exact;
        let path = std::iter::once(source.arena).chain(source.legs.iter().map(|leg| leg.to)).all(exact);
        path && (leg.bytes == end.bytes && end.bytes > 0
            || self.brings_files(end.arena) && leg.bytes >= end.bytes)
    }

    fn name_now(&self, end: &FileEnd) -> Option<Vec<u8>> {
        self.names.now(end.inode, &end.path, end.opened, end.arena, self.uid(end.arena))
    }

    fn sent(&self, r: &Reading, legs: &[Gift], lone: &Lone) -> Judged {
        let whole = r.end.bytes >= r.end.after.size;
        let sha256 = r.digest().filter(|_| whole);
        let said = Said { bytes: r.end.bytes, sha256, witnessed: r.end.bytes };
        let path = self.name_now(&r.end).unwrap_or_else(|| r.end.path.clone());
        self.one_ended(&r.end, &path, said, legs, lone)
    }

    fn one_ended(&self, end: &FileEnd, path: &[u8], said: Said, legs: &[Gift], lone: &Lone) -> Judged {
        let read = end.way == Way::Read;
        let tap = if read { Tap::FileRead } else { Tap::FileWrite };
        let mut known = self.endpoint(end, path, tap, &said);
        if let Some(known) = &mut known {
            known.local.clone_from(&lone.local);
            known.remote.clone_from(&lone.remote);
        }
        let process = self.who(end.arena, end.pid);
        let class = end.content.map(|content| content.class);
        let mut ids: Vec<Uuid> = legs.iter().map(|leg| leg.transfer).collect();
        ids.insert(if read { ids.len() } else { 0 }, lone.transfer);
        let [origin, destination] = if read { [known, None] } else { [None, known] };
        let transfer = Transfer {
            id: Uuid::now_v7(),
            verdict: Verdict::Unverified,
            reasons: vec![Reason::PeerNotObserved],
            channel: Channel::File,
            flow: None,
            assurance: None,
            class: class.or((said.bytes == 0).then_some(Class::Empty)),
            bytes: Bytes { origin: read.then_some(said.bytes), destination: (!read).then_some(said.bytes) },
            altered: Vec::new(),
            origin,
            destination,
            legs: ids,
            started: self.timestamp(end.opened),
            ended: self.timestamp(if read { end.last.max(lone.open.1) } else { end.last }),
            strip: Vec::new(),
            origin_digest: None,
            destination_digest: None,
        };
        let [origin, destination] = if read { [process, None] } else { [None, process] };
        let context = Context { origin, destination, ..Context::default() };
        Judged::Transfer { transfer: Box::new(transfer), context: Box::new(context) }
    }
}
