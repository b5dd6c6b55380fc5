//! SSH's channels: what passes inside ssh and sshd, and between their ciphers.
//!
//! Comes in: objects of channel `ssh` (a channel of a connection, as one end's cipher saw it) and the
//! other streams of the same program. Goes out: [`Passage`]s, each the comparison of two taps, and a
//! notice for each that differs. They are no transfers of their own: the connection's is there
//! already. Whoever names the place where a file was changed reads [`Assembler::passages`].
//!
//! Inside a program nothing says which of its pipes a channel's bytes came from. Its partner is the
//! stream that has equal tags at equal offsets; else, of the streams that such a channel may have, the
//! only one as long. Everything else (a terminal, forwarding, compression) has no partner, and
//! nothing is said of it.

use super::apply::feed;
use super::manifest::GapSpan;
use super::object::{Direction, Object, Proof};
use super::pair::{Pair, Side};
use super::program::ArenaId;
use super::slab::Key;
use super::{Assembler, Transfer};
use crate::judge::{self, Case};
use crate::judged::{SshPlace, What};
use crate::model::{self, Range, Reason, Verdict};
use counterfoil_abi::BLOCK;
use counterfoil_abi::record::{self, Blocks, Channel, Ended, Opened};
use uuid::Uuid;

/// Channels of one program that are followed.
const MAX_TUNNELS: usize = 64;
/// Streams of a program that may be a channel's.
const MAX_CANDIDATES: usize = 16;
/// Records of a channel's tags kept for streams that turn up later: of some MiB.
const MAX_LOG: usize = 256;
/// Tags that may wait for their other side: a window's worth, and more.
const MAX_WAITING: usize = 64 * 1024;
/// Ranges told of at once, at most.
const MAX_RANGES: usize = 64;
/// Passages remembered.
const MAX_PASSAGES: usize = 4096;

/// Two taps of one channel, laid side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    /// Which two.
    pub place: SshPlace,
    /// The program that has the first tap, and the one that has the second: the same one, but for
    /// [`SshPlace::BetweenCiphers`].
    pub programs: [ArenaId; 2],
    /// The transfer that brought the bytes here. (For [`SshPlace::BetweenCiphers`] that of the
    /// connection, twice.)
    pub before: Option<Uuid>,
    /// The transfer that took them on.
    pub after: Option<Uuid>,
    /// What was found.
    pub outcome: Outcome,
}

/// What a [`Passage`] found.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All that passed both taps is the same.
    Same,
    /// These bytes differ, at offsets of the channel.
    Differs(Vec<Range>),
    /// It can't be known.
    Unknown(Vec<Reason>),
}

/// A stream of the same program, beside a channel.
#[derive(Debug)]
struct Candidate {
    object: Key,
    /// What the program reads (its channel sends it on), or writes.
    direction: Direction,
    pair: Pair,
    transfer: Option<Uuid>,
    /// Bytes in the end, once known.
    total: Option<u64>,
    /// Such a channel may have it: standard input or output, or a pair made for the channel's command.
    likely: bool,
}

impl Candidate {
    /// Tags that are equal on both sides.
    fn equal(&self) -> u64 {
        self.pair.same.count_below(u64::MAX) + u64::from(self.pair.same_partial.is_some())
    }
}

/// One end of a channel.
#[derive(Debug)]
pub struct Tunnel {
    arena: ArenaId,
    /// The socket that carries it.
    carrier: Option<Key>,
    ordinal: u64,
    /// This end asked for the channel.
    ours: bool,
    /// `session exec` ….
    kind: String,
    /// The connection's transfers, by direction.
    transfers: [Option<Uuid>; 2],
    candidates: Vec<Candidate>,
    /// The channel's own tags and gaps, by direction.
    log: [Vec<Blocks>; 2],
    gaps: [Vec<GapSpan>; 2],
    /// Its number at this end, and at the other.
    numbers: (u32, u32),
    /// How well the claim to the socket was proven, and whether it was disputed.
    proof: Proof,
    disputed: bool,
    /// Another channel was open meanwhile, or a stream found no room beside it: a stream that begins like
    /// it may be another's.
    crowded: bool,
    said: bool,
}

/// Names a channel's end: the socket, which of its channels, and whether this end asked for it.
pub type Name = (Key, u64, bool);

/// The side of a candidate's pair that the channel's own tags are on. What is read goes into the
/// cipher; what comes out of it is written.
fn channel_side(of_channel: Direction) -> Side {
    match of_channel {
        Direction::Out => Side::Destination,
        Direction::In => Side::Origin,
    }
}

fn across(direction: Direction) -> Direction {
    match direction {
        Direction::Out => Direction::In,
        Direction::In => Direction::Out,
    }
}

impl Tunnel {
    /// Bytes pass as they are: no terminal, no proxy protocol, nobody's cookie.
    fn verbatim(&self) -> bool {
        let mut words = self.kind.split(' ');
        words.next() == Some("session") && words.clone().next().is_some() && words.all(|w| w != "pty-req")
    }

    /// The stream that looks like this channel's is; what differs is no accident.
    fn accuses(&self, direction: Direction, partner: &Candidate, total: u64) -> bool {
        // The program's own messages, and its error output, may go where its output goes: they would
        // show as bytes more.
        let apart = direction == Direction::Out || !self.ours || partner.total == Some(total);
        let alike = !self.crowded || partner.equal() > partner.pair.differs.count_below(u64::MAX);
        self.verbatim() && apart && alike
    }

    /// Heap that it takes, tags in the budget not counted.
    pub fn weight(&self) -> usize {
        let logs = self.log.iter().map(|l| l.len() * size_of::<Blocks>()).sum::<usize>();
        logs + self.candidates.iter().map(|c| c.pair.weight()).sum::<usize>()
    }
}

impl Assembler {
    /// Comparisons inside and between ssh programs, the latest last.
    pub fn passages(&self) -> impl DoubleEndedIterator<Item = &Passage> {
        self.passages.iter()
    }

    /// A channel exists, or more is known of it.
    pub(super) fn tunnel_opened(&mut self, key: Key, arena: ArenaId, opened: &Opened) {
        let Some(program) = self.programs.get_mut(&arena) else { return };
        let carrier = u32::try_from(opened.device).ok().and_then(|n| program.numbers.get(&n).copied());
        if !program.tunnels.contains(&key) {
            if program.tunnels.len() >= MAX_TUNNELS {
                return;
            }
            program.tunnels.push(key);
            self.tunnels += 1;
        }
        let Some(object) = self.objects.get_mut(key) else { return };
        let name = &opened.name[..(opened.name_len as usize).min(opened.name.len())];
        let kind = crate::host::facts::path_text(name);
        let (ordinal, ours) = (opened.inode, opened.header.flags & record::CONNECTED != 0);
        let tunnel = object.tunnel.get_or_insert_with(|| {
            Box::new(Tunnel {
                arena,
                carrier,
                ordinal,
                ours,
                kind: String::new(),
                transfers: [None; 2],
                candidates: Vec::new(),
                log: [Vec::new(), Vec::new()],
                gaps: [Vec::new(), Vec::new()],
                numbers: ((opened.peer_inode >> 32) as u32, opened.peer_inode as u32),
                proof: Proof::None,
                disputed: false,
                crowded: false,
                said: false,
            })
        });
        tunnel.kind = kind;
        let socket = tunnel.carrier;
        self.crowd(arena);
        let Some(socket) = socket else { return };
        let name = (socket, ordinal, ours);
        self.by_tunnel.insert(name, key);
        self.copy_addresses(socket, key);
        let peer = self.objects.get(socket).and_then(|o| o.peer);
        if let Some(peer) = peer {
            self.join_tunnel(key, (peer, name.1, !name.2));
        }
    }

    /// Channels that are open at one time may carry the like.
    fn crowd(&mut self, arena: ArenaId) {
        let Some(program) = self.programs.get(&arena).filter(|p| p.tunnels.len() > 1) else { return };
        for key in program.tunnels.clone() {
            if let Some(tunnel) = self.objects.get_mut(key).and_then(|o| o.tunnel.as_mut()) {
                tunnel.crowded = true;
            }
        }
    }

    /// Two sockets were laid together: the channels that they carry belong together, too.
    pub(super) fn join_tunnels(&mut self, a: Key, b: Key) {
        if self.tunnels == 0 {
            return;
        }
        let on_a: Vec<(Name, Key)> =
            self.by_tunnel.iter().filter(|((socket, ..), _)| *socket == a).map(|(n, k)| (*n, *k)).collect();
        for ((_, ordinal, ours), key) in on_a {
            self.join_tunnel(key, (b, ordinal, !ours));
        }
    }

    fn join_tunnel(&mut self, key: Key, other: Name) {
        tracing::debug!(
            ?other,
            known = self.by_tunnel.contains_key(&other),
            "ssh channel looks for its peer"
        );
        let Some(&peer) = self.by_tunnel.get(&other) else { return };
        // What both ends say of the channel must fit, or one of them has lost count.
        let told = |k: Key| {
            let object = self.objects.get(k).filter(|o| o.peer.is_none())?;
            let tunnel = object.tunnel.as_ref()?;
            Some((tunnel.numbers, tunnel.kind.split(' ').next()?.to_owned()))
        };
        let fits =
            |((a, b), kind): ((u32, u32), String), other: ((u32, u32), String)| other == ((b, a), kind);
        if key != peer && told(key).zip(told(peer)).is_some_and(|(a, b)| fits(a, b)) {
            self.lay_together(key, peer);
        }
    }

    /// Tags of a stream of a program that has channels open.
    pub(super) fn tunnel_blocks(&mut self, arena: ArenaId, key: Key, direction: Direction, blocks: &Blocks) {
        let Some(object) = self.objects.get(key) else { return };
        if object.channel == Channel::Ssh {
            return self.channel_blocks(key, direction, blocks);
        }
        if !matches!(object.channel, Channel::Unix | Channel::Pipe | Channel::File) {
            return;
        }
        let Some(program) = self.programs.get(&arena) else { return };
        for tunnel in program.tunnels.clone() {
            let Some(at) = self.candidate(tunnel, arena, key, direction) else { continue };
            let transfer = self.transfer_of(key, direction);
            let Some(tunnel) = self.objects.get_mut(tunnel).and_then(|o| o.tunnel.as_mut()) else { continue };
            let candidate = &mut tunnel.candidates[at];
            candidate.transfer = transfer.or(candidate.transfer);
            let side = channel_side(across(direction)).other();
            feed(&mut candidate.pair, side, blocks, &mut self.budget);
            shed(&mut candidate.pair, &mut self.budget);
        }
    }

    fn transfer_of(&self, key: Key, direction: Direction) -> Option<Uuid> {
        let leg = self.objects.get(key)?.legs[direction as usize]?;
        Some(self.transfers.get(leg)?.id)
    }

    fn channel_blocks(&mut self, key: Key, direction: Direction, blocks: &Blocks) {
        let carrier = self.objects.get(key).and_then(|o| o.tunnel.as_ref()?.carrier);
        let transfer = carrier.and_then(|c| self.transfer_of(c, direction));
        let socket = carrier.and_then(|c| self.objects.get(c)).map(|o| (o.proof(), o.disputed));
        let Some(tunnel) = self.objects.get_mut(key).and_then(|o| o.tunnel.as_mut()) else { return };
        let d = direction as usize;
        tunnel.transfers[d] = transfer.or(tunnel.transfers[d]);
        if let Some((proof, disputed)) = socket {
            tunnel.proof = tunnel.proof.max(proof);
            tunnel.disputed |= disputed;
        }
        for candidate in tunnel.candidates.iter_mut().filter(|c| c.direction == across(direction)) {
            feed(&mut candidate.pair, channel_side(direction), blocks, &mut self.budget);
            shed(&mut candidate.pair, &mut self.budget);
        }
        if tunnel.log[d].len() < MAX_LOG {
            tunnel.log[d].push(*blocks);
        }
    }

    /// Where among a channel's candidates a stream stands; a new one is laid beside what the channel
    /// has shown so far.
    fn candidate(&mut self, tunnel: Key, arena: ArenaId, key: Key, direction: Direction) -> Option<usize> {
        let object = self.objects.get(key)?;
        let user = object.uses.iter().find(|u| u.arena == arena)?;
        let (opened, flags, fd) = (object.opened, user.flags, user.fd);
        let channel = self.objects.get_mut(tunnel)?;
        let since = channel.opened;
        let tunnel = channel.tunnel.as_mut()?;
        let is = |c: &Candidate| c.object == key && c.direction == direction;
        if let Some(at) = tunnel.candidates.iter().position(is) {
            return Some(at);
        }
        if tunnel.candidates.len() >= MAX_CANDIDATES {
            tunnel.crowded = true;
            return None;
        }
        let late = flags & record::ATTACHED_LATE != 0;
        let standard = match direction {
            Direction::In => fd == 0,
            // The two ends of one socket pair, on both descriptors.
            Direction::Out => fd == 0 || fd == 1,
        };
        let inherited = flags & record::INHERITED != 0;
        let made_for_it = flags & record::PAIRED != 0 && opened >= since;
        let likely = !late && if tunnel.ours { standard && inherited } else { made_for_it };
        let mut pair = Pair::joined();
        for blocks in &tunnel.log[across(direction) as usize] {
            feed(&mut pair, channel_side(across(direction)), blocks, &mut self.budget);
        }
        for span in &tunnel.gaps[across(direction) as usize] {
            pair.gap(channel_side(across(direction)), *span);
        }
        tunnel.candidates.push(Candidate {
            object: key,
            direction,
            pair,
            transfer: None,
            total: None,
            likely,
        });
        Some(tunnel.candidates.len() - 1)
    }

    /// A gap in a stream of a program that has channels open.
    pub(super) fn tunnel_gap(&mut self, arena: ArenaId, key: Key, direction: Direction, span: GapSpan) {
        let Some(channel) = self.objects.get(key).map(|o| o.channel) else { return };
        if channel == Channel::Ssh {
            let Some(tunnel) = self.objects.get_mut(key).and_then(|o| o.tunnel.as_mut()) else { return };
            let gaps = &mut tunnel.gaps[direction as usize];
            if gaps.len() < MAX_LOG {
                gaps.push(span);
            } else {
                tunnel.crowded = true;
            }
            for candidate in tunnel.candidates.iter_mut().filter(|c| c.direction == across(direction)) {
                candidate.pair.gap(channel_side(direction), span);
            }
            return;
        }
        let Some(program) = self.programs.get(&arena) else { return };
        for tunnel in program.tunnels.clone() {
            if let Some(at) = self.candidate(tunnel, arena, key, direction)
                && let Some(tunnel) = self.objects.get_mut(tunnel).and_then(|o| o.tunnel.as_mut())
            {
                tunnel.candidates[at].pair.gap(channel_side(across(direction)).other(), span);
            }
        }
    }

    /// How long a stream of such a program was in the end.
    pub(super) fn tunnel_ended(&mut self, arena: ArenaId, key: Key, ended: &Ended) {
        let Some(program) = self.programs.get(&arena) else { return };
        for tunnel in program.tunnels.clone() {
            let Some(tunnel) = self.objects.get_mut(tunnel).and_then(|o| o.tunnel.as_mut()) else { continue };
            for candidate in tunnel.candidates.iter_mut().filter(|c| c.object == key) {
                let total = match candidate.direction {
                    Direction::Out => ended.out_total,
                    Direction::In => ended.in_total,
                };
                candidate.total = Some(candidate.total.unwrap_or(0).max(total));
            }
        }
    }

    /// The program has said all that there is to say about its streams.
    pub(super) fn tunnel_is_done(&self, object: &Object) -> bool {
        let Some(tunnel) = &object.tunnel else { return true };
        tunnel.said || self.waited(object, 1) || self.programs.get(&tunnel.arena).is_none_or(|p| p.gone)
    }

    /// A channel has ended at one end: lays it beside what its program read and wrote.
    pub(super) fn say_tunnel(&mut self, key: Key) {
        let Some(object) = self.objects.get_mut(key) else { return };
        let totals = [Direction::Out, Direction::In].map(|d| object.total(d));
        let Some(tunnel) = object.tunnel.as_mut().filter(|t| !t.said) else { return };
        tunnel.said = true;
        let mut candidates = std::mem::take(&mut tunnel.candidates);
        let (arena, transfers, crowded) = (tunnel.arena, tunnel.transfers, tunnel.crowded);
        let doubt = self.programs.get(&arena).is_some_and(|p| p.dropped || p.hostile);
        for direction in [Direction::Out, Direction::In] {
            let d = direction as usize;
            let total = totals[d];
            let mine = || candidates.iter().filter(|c| c.direction == across(direction));
            let Some(partner) = partner(mine, total, crowded) else {
                tracing::debug!(
                    ?direction,
                    total,
                    candidates = mine().count(),
                    "ssh channel without partner"
                );
                continue;
            };
            let differences = ranges(&partner.pair, total);
            let outcome = if doubt {
                Outcome::Unknown(vec![Reason::RecordsDropped])
            } else if differences.is_empty() {
                inside(&partner.pair, total)
            } else if self.accuses(key, direction, partner, total) {
                Outcome::Differs(differences)
            } else {
                Outcome::Unknown(vec![Reason::Transformed])
            };
            let (place, before, after) = match direction {
                Direction::Out => (SshPlace::BeforeSealing, partner.transfer, transfers[d]),
                Direction::In => (SshPlace::AfterOpening, transfers[d], partner.transfer),
            };
            self.cross(key, direction, Passage { place, programs: [arena; 2], before, after, outcome }, None);
        }
        for candidate in &mut candidates {
            candidate.pair.forget_waiting(&mut self.budget);
        }
    }

    fn accuses(&self, key: Key, direction: Direction, partner: &Candidate, total: u64) -> bool {
        let tunnel = self.objects.get(key).and_then(|o| o.tunnel.as_ref());
        tunnel.is_some_and(|t| t.accuses(direction, partner, total))
    }

    /// Both ends of a channel have ended in one direction: what one cipher took in against what the
    /// other gave out.
    pub(super) fn say_between(&mut self, transfer: &Transfer) {
        let (Some(from), Some(to)) = (transfer.origin, transfer.destination) else { return };
        let (Some(origin), Some(destination)) = (self.objects.get(from), self.objects.get(to)) else {
            return;
        };
        let mut a = self.end(origin, Direction::Out, u64::MAX);
        let mut b = self.end(destination, Direction::In, u64::MAX);
        if a.total == 0 && b.total == 0 {
            return;
        }
        // As for plain TCP: who can't show that he has the socket says nothing about a stranger.
        let strangers = !self.same_user(Some(origin), Some(destination));
        for (end, object) in [(&mut a, origin), (&mut b, destination)] {
            let unproven = |t: &Tunnel| t.disputed || strangers && t.proof < Proof::Full;
            if object.tunnel.as_ref().is_none_or(|t| unproven(t)) {
                end.doubts.push(Reason::DisputedClaim);
            }
        }
        let id = |o: &Object, d: Direction| o.tunnel.as_ref().and_then(|t| t.transfers[d as usize]);
        let connection = id(origin, Direction::Out).or(id(destination, Direction::In));
        // As in TLS, insertions and deletions can't be the network's doing.
        let case = Case {
            channel: model::Channel::Tls,
            pair: &transfer.pair,
            origin: Some(&a),
            destination: Some(&b),
        };
        let judgement = judge::judge(case);
        let peer = self.process_at(destination, Direction::In);
        let outcome = match judgement.verdict {
            Verdict::Altered => Outcome::Differs(judgement.altered),
            Verdict::Intact | Verdict::Truncated => Outcome::Same,
            Verdict::Unverified => Outcome::Unknown(judgement.reasons),
        };
        let arena = |o: &Object| o.tunnel.as_ref().map_or(0, |t| t.arena);
        let passage = Passage {
            place: SshPlace::BetweenCiphers,
            programs: [arena(origin), arena(destination)],
            before: connection,
            after: connection,
            outcome,
        };
        self.cross(from, Direction::Out, passage, peer);
    }

    fn cross(
        &mut self,
        key: Key,
        direction: Direction,
        passage: Passage,
        peer: Option<crate::model::Process>,
    ) {
        if let Outcome::Differs(altered) = &passage.outcome
            && let Some(user) = self.objects.get(key).and_then(|o| o.uses.first())
        {
            let (arena, by) = (user.arena, user.by[direction as usize]);
            let mut altered = altered.clone();
            altered.truncate(MAX_RANGES);
            let what = What::SshMismatch { place: passage.place, altered, peer };
            let connection = match passage.place {
                SshPlace::AfterOpening => passage.before,
                SshPlace::BeforeSealing | SshPlace::BetweenCiphers => passage.after,
            };
            self.notice_of(arena, by, key, direction, connection, what);
        }
        tracing::debug!(place = ?passage.place, outcome = ?passage.outcome, "ssh channel");
        if self.passages.len() >= MAX_PASSAGES {
            self.passages.pop_front();
        }
        self.passages.push_back(passage);
    }

    /// Takes a channel out of the tables.
    pub(super) fn forget_tunnel(&mut self, key: Key, object: &mut Object) {
        let Some(mut tunnel) = object.tunnel.take() else { return };
        for candidate in &mut tunnel.candidates {
            candidate.pair.forget_waiting(&mut self.budget);
        }
        if let Some(socket) = tunnel.carrier
            && let name = (socket, tunnel.ordinal, tunnel.ours)
            && self.by_tunnel.get(&name) == Some(&key)
        {
            self.by_tunnel.remove(&name);
        }
        if let Some(program) = self.programs.get_mut(&tunnel.arena) {
            program.tunnels.retain(|&k| k != key);
        }
        self.tunnels = self.tunnels.saturating_sub(1);
    }
}

/// Tags that wait are given up where one side of a pair is not coming.
fn shed(pair: &mut Pair, budget: &mut super::Budget) {
    if pair.origin.pending.held() + pair.destination.pending.held() > MAX_WAITING {
        pair.forget_waiting(budget);
    }
}

/// The stream that a channel's bytes went through.
fn partner<'a, I: Iterator<Item = &'a Candidate>>(
    mine: impl Fn() -> I,
    total: u64,
    crowded: bool,
) -> Option<&'a Candidate> {
    if total == 0 {
        return None;
    }
    let best = mine().max_by_key(|c| c.equal())?;
    if best.equal() > 0 {
        return Some(best);
    }
    let mut fitting = mine().filter(|c| !crowded && c.likely && c.total == Some(total));
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

/// What two taps of one program differ in.
fn ranges(pair: &Pair, total: u64) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for block in pair.proven_differences() {
        let (offset, end) = (block * BLOCK, (block + 1) * BLOCK);
        let length = if total > offset { end.min(total) - offset } else { BLOCK };
        match ranges.last_mut() {
            Some(last) if last.offset + last.length == offset => last.length += length,
            _ => ranges.push(Range { offset, length }),
        }
    }
    ranges
}

/// Nothing differs: is all of the channel's the same?
fn inside(pair: &Pair, total: u64) -> Outcome {
    let (whole, rest) = (total / BLOCK, total % BLOCK);
    let tail = rest == 0 || pair.same_partial == Some((whole * BLOCK, rest as u32));
    if pair.same.count_below(whole) == whole && tail {
        return Outcome::Same;
    }
    let gaps = pair.origin.gaps.iter().chain(&pair.destination.gaps);
    let mut reasons: Vec<Reason> = Vec::new();
    for gap in gaps {
        if !reasons.contains(&gap.reason) {
            reasons.push(gap.reason);
        }
    }
    Outcome::Unknown(reasons)
}
