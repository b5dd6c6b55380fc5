//! What a stream carried as bodies of HTTP messages, block by block: the same behind any head, in any chunks.
//!
//! Comes in: `Body` records, about in order. Goes out: [`Bodies`]; [`compare`] lays those of two streams
//! side by side.

use super::pending::Value;
use super::samples::{Samples, Shelf, Taken as Room};
use super::taken::Taken;
use crate::model::Range;
use counterfoil_abi::record::{Body, UNFRAMED, WHOLE};
use counterfoil_abi::{BLOCK, Tag};
use std::collections::HashMap;

/// Messages of one stream.
const MAX_MESSAGES: usize = 4096;
/// Blocks of one stream (1 GiB of it).
const MAX_BLOCKS: usize = 65_536;
/// Bodies of the other stream that are looked at to find one again.
const LOOK_AHEAD: usize = 64;

/// A block: where it begins in its stream, and its tag.
type Block = Option<(u64, Tag)>;

/// A message.
#[derive(Clone, Debug, Default, PartialEq)]
struct Message {
    /// Where its head begins.
    at: u64,
    /// Where its body begins.
    body: u64,
    /// Bytes of its body, as far as it was told.
    length: u64,
    blocks: Vec<Block>,
    /// Its end was told.
    whole: bool,
    /// When its first block had passed, and when its last one, monotonic nanoseconds.
    first: u64,
    until: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Bodies {
    messages: Vec<Message>,
    blocks: usize,
    /// From here on nothing is known.
    lost: Option<u64>,
    taken: Room,
}

impl Bodies {
    /// Takes in a record.
    pub fn note(&mut self, record: &Body, shelf: &Shelf) {
        let (number, at) = (record.message as usize, (record.offset / BLOCK) as usize);
        if record.header.flags & UNFRAMED != 0 {
            return self.lose(record.at);
        }
        let known = self.messages.len();
        let blocks = self.messages.get(number).map_or(0, |m| m.blocks.len());
        let more = (at + usize::from(record.length > 0)).saturating_sub(blocks);
        let messages = (number + 1).saturating_sub(known);
        let room = messages * size_of::<Message>() + more * size_of::<Block>();
        if number >= MAX_MESSAGES
            || self.blocks.saturating_add(more) > MAX_BLOCKS
            || !self.taken.more(room, shelf)
        {
            return self.lose(record.at);
        }
        self.blocks += more;
        if messages > 0 {
            self.messages.resize(number + 1, Message::default());
        }
        let message = &mut self.messages[number];
        message.until = message.until.max(record.header.time);
        message.blocks.resize(blocks + more, None);
        message.length = message.length.max(record.offset + u64::from(record.length));
        message.whole |= record.header.flags & WHOLE != 0;
        if at == 0 {
            (message.at, message.body) = (record.at - u64::from(record.head), record.at);
            message.first = record.header.time;
        }
        if record.length > 0 {
            message.blocks[at] = Some((record.at, record.tag));
        }
    }

    fn lose(&mut self, at: u64) {
        self.lost = Some(self.lost.map_or(at, |before| before.min(at)));
    }

    /// The stream is one of HTTP messages, at least where it begins.
    pub fn any(&self) -> bool {
        !self.messages.is_empty()
    }

    /// Where bodies are, and what nobody followed; in order.
    pub fn spans(&self) -> Vec<(u64, u64)> {
        let until = self.lost.unwrap_or(u64::MAX);
        let end = |m: &Message| {
            let (index, last) =
                m.blocks.iter().enumerate().rev().find_map(|(i, b)| Some((i as u64, (*b)?)))?;
            Some(last.0.saturating_add(m.length.saturating_sub(index * BLOCK)))
        };
        let known = self.messages.iter().filter_map(|m| Some((m.body, end(m)?)));
        let mut spans: Vec<(u64, u64)> = known.filter(|(from, to)| from < to && *to <= until).collect();
        spans.extend(self.lost.map(|lost| (lost, u64::MAX)));
        spans.sort_unstable();
        spans
    }

    /// How many of them are `bytes` bytes with these tags.
    pub fn carry(&self, bytes: u64, tag: impl Fn(u64) -> Option<Value>) -> usize {
        let is = |(block, ours): (u64, &Block)| {
            ours.is_some_and(|(_, ours)| tag(block) == Some([u128::from_ne_bytes(ours), 0]))
        };
        self.known().filter(|(_, m)| m.length == bytes && (0..).zip(&m.blocks).all(is)).count()
    }

    /// It is in a protocol whose frames nobody followed.
    pub fn unframed(&self) -> bool {
        self.lost.is_some()
    }

    /// What it is counted as, in entries of eight bytes.
    pub fn weight(&self) -> usize {
        self.messages.len() * 8 + self.blocks * 4
    }

    /// Whole bodies, of which every block was told, with their numbers.
    fn known(&self) -> impl Iterator<Item = (usize, &Message)> {
        let until = self.lost.unwrap_or(u64::MAX);
        self.messages.iter().enumerate().filter(move |(_, m)| {
            m.whole
                && m.length > 0
                && m.body < until
                && m.blocks.len() as u64 == m.length.div_ceil(BLOCK)
                && m.blocks.iter().all(Option::is_some)
        })
    }
}

/// What came of comparing the bodies of two streams.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compared {
    /// Bytes of bodies that are the same.
    pub same: u64,
    /// Bytes of bodies that are mostly the same.
    pub alike: u64,
    /// Where those differ, in the first stream.
    pub differs: Vec<Range>,
    /// Bytes of bodies of the first stream that are not in the second.
    pub alone: u64,
    /// And of those of the second that are not in the first.
    pub others: u64,
    /// The numbers of those that are the same, in the first and in the second, and their length.
    pub pairs: Vec<(usize, usize, u64)>,
}

/// Lanes are read one after the other, and who sends says so after it has sent, nanoseconds.
const SLACK: u64 = 1_000_000_000;

/// What was passed on was not there before it came.
fn in_time(first: &Message, second: &Message) -> bool {
    second.until.saturating_add(SLACK) >= first.first
}

/// Blocks in which two bodies of one length differ; None: they are not one body.
fn differences(a: &Message, b: &Message, samples: [&Samples; 2]) -> Option<Vec<usize>> {
    if a.length != b.length {
        return None;
    }
    let tag = |block: &Block| block.map(|(_, tag)| tag);
    let pairs = a.blocks.iter().zip(&b.blocks);
    let found: Vec<usize> =
        pairs.enumerate().filter(|(_, (x, y))| tag(x) != tag(y)).map(|(i, _)| i).collect();
    if found.len() < a.blocks.len() {
        return (found.len() * 2 <= a.blocks.len()).then_some(found);
    }
    // Not one block in common: only where there is one, and its windows say that it is the same.
    let shift = (b.body as i64).wrapping_sub(a.body as i64);
    let (of, equal) = samples[0].shared(a.body, a.body + a.length, samples[1], shift);
    (a.blocks.len() == 1 && equal >= ENOUGH && equal * 2 >= of).then_some(found)
}

/// Where something was put into a body or taken out of it, up to the longer one's end; None: they are not one
/// body. That something differs must show within what both have: one that ends early is no sign of that.
fn shifted(a: &Message, b: &Message, samples: [&Samples; 2]) -> Option<Range> {
    if a.length == b.length {
        return None;
    }
    let whole = (a.length.min(b.length) / BLOCK) as usize;
    let tag = |block: &Block| block.map(|(_, tag)| tag);
    let same = a.blocks.iter().zip(&b.blocks).take(whole).take_while(|(x, y)| tag(x) == tag(y)).count();
    let alike = same >= ENOUGH_BLOCKS || same * 2 >= whole.max(1);
    let early = || {
        // Before the change windows stand where the heads put them, after it further on by what was put in,
        // and there is no third kind.
        let straight = |m: &Message| {
            let first = m.blocks.first()?.as_ref()?.0;
            let at =
                |(i, block): (usize, &Block)| block.is_some_and(|(at, _)| at == first + i as u64 * BLOCK);
            m.blocks.iter().enumerate().all(at).then_some(())
        };
        straight(a)?;
        straight(b)?;
        let shift = (b.body as i64).wrapping_sub(a.body as i64);
        let more = (b.length as i64).wrapping_sub(a.length as i64);
        let span = (a.body, a.body + a.length);
        let (of, before) = samples[0].shared(span.0, span.1, samples[1], shift);
        let (_, after) = samples[0].shared(span.0, span.1, samples[1], shift.wrapping_add(more));
        let looked_at = samples[1].reach().saturating_add_signed(-shift);
        let (of_both, _) = samples[0].shared(span.0, span.1.min(looked_at), samples[1], shift);
        let enough = before >= ENOUGH && after >= ENOUGH && (before + after) * 5 >= of_both.min(of) * 4;
        enough.then_some(())
    };
    if !(same < whole && alike) && early().is_none() {
        return None;
    }
    let offset = a.blocks.get(same).copied().flatten()?.0;
    Some(Range { offset, length: a.length.max(b.length) - same as u64 * BLOCK })
}

/// Blocks in common at the start that make two bodies of different length one that was changed; fewer do where
/// they are half of it.
const ENOUGH_BLOCKS: usize = 4;
/// Windows in common that make two bodies of one block one that was changed.
const ENOUGH: usize = 4;

/// How late a stranger may be to say what he has sent: it arrives elsewhere before his call returns.
const LATE: u64 = 50_000_000;

/// Lays the bodies of two streams side by side, in their order. `strangers`: `a` is told by another program than `b`.
/// `taken`: of both, those that are left out.
///
/// What differs can only be `a` passed on where it went out after `a` had come in: a cache that hands out what it has
/// while it fetches a newer version changes nothing.
pub fn compare(
    a: &Bodies,
    b: &Bodies,
    samples: [&Samples; 2],
    strangers: bool,
    taken: [&Taken; 2],
) -> Compared {
    let late = if strangers { LATE } else { 0 };
    let mut compared = Compared::default();
    let theirs: Vec<(usize, &Message)> = b.known().filter(|(n, _)| taken[1].free(*n)).collect();
    let mut next = 0;
    let mut left: Vec<(&Message, usize)> = Vec::new();
    let mut used = vec![false; theirs.len()];
    let equal = |x: &Message, y: &Message| {
        x.length == y.length
            && in_time(x, y)
            && x.blocks.iter().zip(&y.blocks).all(|(p, q)| p.map(|(_, t)| t) == q.map(|(_, t)| t))
    };
    let first_tag = |m: &Message| m.blocks.first().copied().flatten().map(|(_, tag)| tag);
    let mut places: HashMap<(u64, Option<Tag>), Vec<usize>> = HashMap::new();
    for (place, (_, m)) in theirs.iter().enumerate().rev() {
        places.entry((m.length, first_tag(m))).or_default().push(place);
    }
    for (number, ours) in a.known().filter(|(n, _)| taken[0].free(*n)) {
        let alike = places.get_mut(&(ours.length, first_tag(ours)));
        let found = alike.and_then(|places| {
            let at = places.iter().rposition(|&place| equal(ours, theirs[place].1))?;
            Some(places.remove(at))
        });
        match found {
            Some(place) => {
                compared.same += ours.length;
                compared.pairs.push((number, theirs[place].0, ours.length));
                used[place] = true;
                next = place + 1;
            }
            None => left.push((ours, next)),
        }
    }
    for (ours, from) in left {
        let near = || {
            let near = theirs.iter().enumerate().skip(from).take(LOOK_AHEAD).map(|(i, (_, m))| (i, *m));
            near.filter(|(i, m)| !used[*i] && m.first.saturating_add(late) >= ours.first)
        };
        let best = near()
            .filter_map(|(i, m)| Some((i, differences(ours, m, samples)?)))
            .min_by_key(|(_, differs)| differs.len());
        let Some((place, differs)) = best else {
            let cut = near().filter_map(|(i, m)| Some((i, shifted(ours, m, samples)?))).next();
            match cut {
                Some((place, differs)) => {
                    used[place] = true;
                    compared.alike += ours.length;
                    compared.differs.push(differs);
                }
                None => compared.alone += ours.length,
            }
            continue;
        };
        used[place] = true;
        compared.alike += ours.length;
        for block in differs {
            let Some(Some((offset, _))) = ours.blocks.get(block) else { continue };
            let length = BLOCK.min(ours.length - block as u64 * BLOCK);
            match compared.differs.last_mut() {
                Some(last) if last.offset + last.length == *offset => last.length += length,
                _ => compared.differs.push(Range { offset: *offset, length }),
            }
        }
    }
    let unused = theirs.iter().zip(&used).filter(|(_, used)| !**used);
    compared.others = unused.map(|((_, m), _)| m.length).sum();
    compared
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    /// A stream of bodies: where each one's head begins, and its blocks' tags (the last one of 10 bytes).
    fn bodies(of: &[(u64, &[u8])]) -> Bodies {
        let (mut bodies, shelf) = (Bodies::default(), Shelf::new(1 << 20));
        for (number, (at, tags)) in of.iter().enumerate() {
            for (i, &tag) in tags.iter().enumerate() {
                let last = i + 1 == tags.len();
                let mut record = Body {
                    at: at + 100 + i as u64 * BLOCK,
                    offset: i as u64 * BLOCK,
                    length: if last { 10 } else { BLOCK as u32 },
                    message: number as u32,
                    head: 100,
                    tag: [tag; 16],
                    ..Body::zeroed()
                };
                record.header.flags = if last { WHOLE } else { 0 };
                bodies.note(&record, &shelf);
            }
        }
        bodies
    }

    fn compared(a: &[(u64, &[u8])], b: &[(u64, &[u8])]) -> Compared {
        let none = Samples::default();
        compare(&bodies(a), &bodies(b), [&none, &none], false, [&Taken::None; 2])
    }

    #[test]
    fn bodies_that_are_the_same_elsewhere() {
        let found =
            compared(&[(0, &[1, 2, 3]), (90_000, &[4])], &[(50, &[1, 2, 3]), (95_000, &[9]), (99_000, &[4])]);
        let pairs = vec![(0, 0, 2 * BLOCK + 10), (1, 2, 10)];
        assert_eq!(found, Compared { same: 2 * BLOCK + 20, others: 10, pairs, ..Compared::default() });
        // In another order, as requests of several clients may go on.
        let found = compared(&[(0, &[1, 2]), (90_000, &[4])], &[(0, &[4]), (50_000, &[1, 2])]);
        assert_eq!((found.same, found.alone, found.others), (BLOCK + 20, 0, 0));
    }

    #[test]
    fn a_block_that_differs_is_named_where_it_stands_in_the_first() {
        let found = compared(&[(0, &[9, 9]), (50_000, &[1, 2, 3, 4])], &[(777, &[1, 2, 5, 4])]);
        let differs = vec![Range { offset: 50_100 + 2 * BLOCK, length: BLOCK }];
        assert_eq!(
            found,
            Compared { alike: 3 * BLOCK + 10, differs, alone: BLOCK + 10, ..Compared::default() }
        );
    }

    #[test]
    fn what_went_out_before_is_not_passed_on() {
        let none = Samples::default();
        let of = |first: u64, tag: u8| {
            let mut told = bodies(&[(0, &[1, 2, tag])]);
            told.messages[0].first = first;
            told
        };
        let cases =
            [(5000, 5001, false, 1), (5000, 4000, false, 0), (5000, 4000, true, 1), (LATE * 2, 5, true, 0)];
        for (came, went, strangers, differs) in cases {
            let compared = compare(&of(came, 3), &of(went, 4), [&none, &none], strangers, [&Taken::None; 2]);
            assert_eq!(compared.differs.len(), differs, "{came} {went} {strangers}");
        }
    }

    #[test]
    fn another_length_or_little_in_common_is_another_body() {
        for other in [&[1, 2, 3][..], &[1, 8, 9, 7], &[5, 6, 7, 8]] {
            assert_eq!(compared(&[(0, &[1, 2, 3, 4])], &[(0, other)]).alone, 3 * BLOCK + 10);
        }
    }

    #[test]
    fn what_is_not_whole_or_behind_a_loss_says_nothing() {
        let shelf = Shelf::new(1 << 20);
        let mut part = bodies(&[(0, &[1, 2]), (50_000, &[3, 4])]);
        assert_eq!(part.known().count(), 2);
        let mut record = Body { at: 40_000, ..Body::zeroed() };
        record.header.flags = UNFRAMED;
        part.note(&record, &shelf);
        assert_eq!(part.known().count(), 1);
        let mut far = Bodies::default();
        far.note(&Body { message: u32::MAX, ..Body::zeroed() }, &shelf);
        far.note(&Body { offset: 1 << 50, length: 5, ..Body::zeroed() }, &shelf);
        assert!(far.unframed() && far.known().count() == 0);
    }
}
