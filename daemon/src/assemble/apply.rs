//! What each kind of record does to an object.

use super::manifest::{GapSpan, Partial, TagKind};
use super::object::{Direction, Object, Place, TlsFacts, place};
use super::pair::{Pair, Side};
use super::pending::Value;
use super::program::ArenaId;
use super::slab::Key;
use super::{Assembler, SETTLE, Suspect, Transfer};
use crate::content::Content;
use crate::judged::What;
use crate::surround::Seen;
use counterfoil_abi::record::{
    self, Blocks, Body, Carrier, Channel, Classed, Ended, Flow, Gap, How, Reason, Record, Rejected, Tap,
};
use counterfoil_abi::{BLOCK, Tag};

/// Waiting bytes of a cipher pair: its two sides come from one thread, so more means that one of
/// them is not coming.
const CIPHER_WAITING: usize = 64 * 1024;
/// ClientHello tags remembered for a program.
const MAX_HELLOS: usize = 1024;

/// The side of the pair on which a direction's bytes are.
pub fn side(direction: Direction) -> Side {
    match direction {
        Direction::Out => Side::Origin,
        Direction::In => Side::Destination,
    }
}

fn unit(tag: &Tag) -> u128 {
    u128::from_ne_bytes(*tag)
}

fn value(tags: &[Tag], index: usize, kind: TagKind) -> Value {
    match kind {
        TagKind::Mac => [unit(&tags[index]), 0],
        TagKind::Wide => [unit(&tags[2 * index]), unit(&tags[2 * index + 1])],
    }
}

/// A body's tag, as that of a stream: the MAC, of which it holds all.
pub(super) fn body_tag(body: &Body) -> Value {
    [unit(&body.tag), 0]
}

/// The first block's tag, and the bytes that it covers.
pub(super) fn first(blocks: &Blocks) -> (u32, Value) {
    let kind = if blocks.header.flags & record::WIDE != 0 { TagKind::Wide } else { TagKind::Mac };
    (blocks.length.min(BLOCK as u32), value(&blocks.tags, 0, kind))
}

/// Feeds one record's tags to one side of a pair. True: something differs.
#[inline]
pub(super) fn feed(pair: &mut Pair, side: Side, blocks: &Blocks, budget: &mut super::Budget) -> bool {
    let kind = if blocks.header.flags & record::WIDE != 0 { TagKind::Wide } else { TagKind::Mac };
    if blocks.header.flags & record::PARTIAL != 0 {
        let value = value(&blocks.tags, 0, kind);
        return pair.partial(side, Partial { offset: blocks.offset, length: blocks.length, value }, kind);
    }
    let first = blocks.offset / BLOCK;
    let mut found = false;
    for index in 0..blocks.count as usize {
        found |= pair.block(side, first + index as u64, value(&blocks.tags, index, kind), kind, budget);
    }
    found
}

impl Assembler {
    /// A record of an object that is known.
    #[inline]
    pub(super) fn apply(&mut self, arena: ArenaId, by: u32, number: u32, key: Key, record: &Record) {
        match record {
            Record::Blocks(blocks) => {
                self.blocks(arena, by, number, key, blocks);
                if blocks.offset == 0 && self.trail.is_some() {
                    self.began(arena, number, key, blocks);
                }
            }
            Record::Gap(gap) => self.gap(arena, by, number, key, gap),
            Record::Flow(flow) => self.flow(arena, key, flow),
            Record::Carrier(carrier) => self.carrier(arena, key, carrier),
            Record::Ended(ended) => self.ended(arena, by, number, key, ended),
            Record::Rejected(rejected) => self.rejected(arena, by, key, rejected),
            Record::Message(message) => self.message(arena, by, key, message),
            Record::Prints(prints) => {
                self.content(arena, key, record);
                self.printed(arena, number, key, prints);
            }
            Record::Body(body) => {
                self.bodied(arena, number, key, body);
                self.content(arena, key, record);
            }
            Record::Datagrams(datagrams) => self.datagrams(arena, by, number, key, datagrams),
            Record::Classed(classed) => {
                self.classed(key, classed);
                self.pictured(arena, number, key, classed);
            }
            Record::Named(_) | Record::File(_) => {}
            Record::Opened(_) | Record::Forked(_) | Record::Note(_) | Record::Again(_) => {}
        }
    }

    #[inline]
    fn blocks(&mut self, arena: ArenaId, by: u32, number: u32, key: Key, blocks: &Blocks) {
        let Some(object) = self.objects.get_mut(key) else { return };
        let at = Tap::from_code(blocks.header.tap).and_then(|tap| place(object.channel, tap));
        let Some(at) = at else { return };
        object.last = object.last.max(blocks.header.time);
        let direction = match at {
            Place::Stream(d) | Place::Cipher(d) => d,
        };
        if at == Place::Stream(direction) {
            let end = blocks.offset.saturating_add(u64::from(blocks.length));
            if object.session_from().is_some_and(|from| end > from[direction as usize]) {
                return;
            }
            let reached = &mut object.reached[direction as usize];
            self.counts.bytes = self.counts.bytes.saturating_add(end.saturating_sub(*reached));
            *reached = end.max(*reached);
            if let Some(user) = object.use_of(arena, number) {
                user.reach(direction, end, by, blocks.header.time);
            }
            let leg = match object.legs[direction as usize] {
                Some(leg) => leg,
                None => new_leg(&mut self.transfers, object, key, direction),
            };
            let Some(transfer) = self.transfers.get_mut(leg) else { return };
            if feed(&mut transfer.pair, side(direction), blocks, &mut self.budget) && !transfer.said {
                suspect(&mut self.suspects, self.tick, Suspect::Transfer(leg));
            }
            if self.tunnels > 0 && !object.cipher_on() {
                return self.tunnel_blocks(arena, key, direction, blocks);
            }
        }
        // Both the stream and the cipher's side of it are laid together within the process, too.
        let witnessed = object.cipher_on();
        if witnessed {
            let pair = object.cipher[direction as usize].get_or_insert_with(|| Box::new(Pair::joined()));
            let mut differs = feed(pair, cipher_side(at), blocks, &mut self.budget);
            if at == Place::Stream(direction) && blocks.header.flags & record::WITNESSED != 0 {
                differs |= feed(pair, cipher_side(Place::Cipher(direction)), blocks, &mut self.budget);
            }
            if differs && !object.cipher_said[direction as usize] {
                suspect(&mut self.suspects, self.tick, Suspect::Cipher(key, direction));
            }
            if pair.origin.pending.held() + pair.destination.pending.held() > CIPHER_WAITING {
                pair.forget_waiting(&mut self.budget);
            }
        }
    }

    /// What a stream's content is known by elsewhere.
    fn content(&mut self, arena: ArenaId, key: Key, record: &Record) {
        let Some(object) = self.objects.get_mut(key) else { return };
        let tap = Tap::from_code(record.header().tap);
        let Some(Place::Stream(direction)) = tap.and_then(|tap| place(object.channel, tap)) else { return };
        // What a socket carries of TLS is in nobody's clear.
        if object.carries_tls.is_some() || object.channel == Channel::Ssh {
            return;
        }
        let leg = match object.legs[direction as usize] {
            Some(leg) => leg,
            // Of a program that is only counted nothing is laid beside anything.
            None if !self.programs.get(&arena).is_some_and(|p| p.watched) => return,
            None => new_leg(&mut self.transfers, object, key, direction),
        };
        let Some(transfer) = self.transfers.get_mut(leg) else { return };
        let manifest = transfer.pair.side_mut(side(direction));
        match record {
            Record::Prints(prints) => manifest.samples.note(prints, &self.shelf),
            Record::Body(body) => manifest.bodies.note(body, &self.shelf),
            _ => {}
        }
    }

    fn gap(&mut self, arena: ArenaId, by: u32, number: u32, key: Key, gap: &Gap) {
        let Some(object) = self.objects.get_mut(key) else { return };
        let (Some(tap), Some(reason)) = (Tap::from_code(gap.header.tap), Reason::from_code(gap.reason))
        else {
            return;
        };
        let Some(at) = place(object.channel, tap) else { return };
        let span = GapSpan { offset: gap.offset, length: gap.length, reason };
        let direction = match at {
            Place::Stream(d) | Place::Cipher(d) => d,
        };
        object.last = object.last.max(gap.header.time);
        if at == Place::Stream(direction) {
            if object.session_from().is_some_and(|from| gap.offset >= from[direction as usize]) {
                return;
            }
            if let Some(user) = object.use_of(arena, number) {
                user.reach(direction, gap.offset, by, gap.header.time);
            }
            let leg = match object.legs[direction as usize] {
                Some(leg) => leg,
                None => new_leg(&mut self.transfers, object, key, direction),
            };
            if let Some(transfer) = self.transfers.get_mut(leg) {
                transfer.pair.gap(side(direction), span);
            }
            if self.tunnels > 0 {
                self.tunnel_gap(arena, key, direction, span);
            }
        }
        let Some(object) = self.objects.get_mut(key) else { return };
        if object.cipher_on() {
            let pair = object.cipher[direction as usize].get_or_insert_with(|| Box::new(Pair::joined()));
            pair.gap(cipher_side(at), span);
        }
    }

    fn classed(&mut self, key: Key, classed: &Classed) {
        let Some(object) = self.objects.get_mut(key) else { return };
        let at = Tap::from_code(classed.header.tap).and_then(|tap| place(object.channel, tap));
        if let (Some(Place::Stream(direction)), Some(content)) = (at, Content::of(classed)) {
            Content::better(&mut object.content[direction as usize], content);
        }
    }

    fn flow(&mut self, arena: ArenaId, key: Key, flow: &Flow) {
        let Some(object) = self.objects.get_mut(key) else { return };
        if !matches!(object.channel, Channel::Tls | Channel::GnuTls) || object.tls.is_some() {
            return;
        }
        object.last = object.last.max(flow.header.time);
        if flow.header.flags & record::NO_CIPHER_WITNESS != 0 {
            object.cipher_off(&mut self.budget);
        }
        let name = &flow.name[..(flow.name_len as usize).min(flow.name.len())];
        object.tls = Some(Box::new(TlsFacts {
            flow: flow.flow,
            client: flow.header.flags & record::CLIENT != 0,
            hello: flow.hello,
            carrier: flow.carrier,
            version: flow.version,
            cipher: flow.cipher,
            name: (!name.is_empty()).then(|| crate::host::facts::path_text(name)),
        }));
        self.see(Seen::Session { id: arena });
        self.find_carrier(arena, key);
        self.join_flow(key);
    }

    fn carrier(&mut self, arena: ArenaId, key: Key, carrier: &Carrier) {
        let Some(object) = self.objects.get_mut(key) else { return };
        object.last = object.last.max(carrier.header.time);
        let from = [carrier.out_offset, carrier.in_offset];
        let first = object.carries_tls.is_none();
        let least = object.carries_tls.get_or_insert(from);
        *least = [least[0].min(from[0]), least[1].min(from[1])];
        object.session |= carrier.tls != 0;
        for direction in [Direction::Out, Direction::In].into_iter().filter(|_| first) {
            let leg = object.legs[direction as usize];
            if let Some(transfer) = leg.and_then(|leg| self.transfers.get_mut(leg)) {
                transfer.pair.seems_to_begin_tls(side(direction));
            }
        }
        let Some(program) = self.programs.get_mut(&arena) else { return };
        if carrier.hello != [0; 16] && program.hellos.len() < MAX_HELLOS {
            program.hellos.push((carrier.hello, key));
        }
        if carrier.tls != 0
            && let Some(&tls) = program.numbers.get(&carrier.tls)
        {
            self.copy_addresses(key, tls);
        }
    }

    fn ended(&mut self, arena: ArenaId, by: u32, number: u32, key: Key, ended: &Ended) {
        let Some(object) = self.objects.get_mut(key) else { return };
        object.last = object.last.max(ended.header.time);
        let Some(user) = object.use_of(arena, number) else { return };
        user.end(ended);
        user.reach(Direction::Out, ended.out_total, by, ended.header.time);
        user.reach(Direction::In, ended.in_total, by, ended.header.time);
        for (direction, total) in [(Direction::Out, ended.out_total), (Direction::In, ended.in_total)] {
            if total > 0 && object.legs[direction as usize].is_none() {
                new_leg(&mut self.transfers, object, key, direction);
            }
        }
        if object.ended() {
            // Whoever exits has other exit handlers to run; when its arena is gone, that is known sooner.
            match How::from_code(ended.how) {
                Some(How::Exited) => self.look_again(key),
                _ => self.settle_soon(key),
            }
            self.messages_end(key);
        }
        self.datagrams_ended(key, ended);
        self.sent_unseen(arena, number, key, ended);
        if self.tunnels > 0 {
            self.tunnel_ended(arena, key, ended);
        }
    }

    fn rejected(&mut self, arena: ArenaId, by: u32, key: Key, rejected: &Rejected) {
        let Some(tap) = Tap::from_code(rejected.header.tap) else { return };
        // On a socket, it is SSH that refuses.
        if !matches!(tap, Tap::TlsRead | Tap::TlsWrite | Tap::SockRecv) {
            return;
        }
        let text = rejected.text.split(|&b| b == 0).next().unwrap_or_default();
        let what = What::RecordRejected {
            tap,
            code: rejected.code,
            by_peer: rejected.side == 2,
            text: crate::host::facts::path_text(text),
            offset: rejected.offset,
        };
        let direction = if tap == Tap::TlsWrite { Direction::Out } else { Direction::In };
        self.notice_about(arena, by, key, direction, what);
    }
}

/// The side of a cipher pair: `tls-write` ► `cipher-seal`, `cipher-open` ► `tls-read`.
fn cipher_side(at: Place) -> Side {
    match at {
        Place::Stream(Direction::Out) | Place::Cipher(Direction::In) => Side::Origin,
        Place::Cipher(Direction::Out) | Place::Stream(Direction::In) => Side::Destination,
    }
}

fn suspect(suspects: &mut Vec<(u64, Suspect)>, tick: u64, suspect: Suspect) {
    if !suspects.iter().any(|(_, s)| *s == suspect) && suspects.len() < 10_000 {
        suspects.push((tick + SETTLE, suspect));
    }
}

/// Makes the transfer of a direction. A pipe's two directions are the two ends of one.
pub(super) fn new_leg(
    transfers: &mut super::Slab<Transfer>,
    object: &mut Object,
    key: Key,
    direction: Direction,
) -> Key {
    if object.channel == Channel::Pipe {
        let leg = transfers.insert(Transfer::new(Some(key), Some(key)));
        object.legs = [Some(leg); 2];
        return leg;
    }
    let leg = transfers.insert(match direction {
        Direction::Out => Transfer::new(Some(key), None),
        Direction::In => Transfer::new(None, Some(key)),
    });
    object.legs[direction as usize] = Some(leg);
    leg
}
