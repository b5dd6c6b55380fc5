//! A stream's fingerprints: by what its content is known again in another stream, wherever it stands there.
//!
//! Comes in: `Prints` records, about in order. Goes out: [`Samples`]; [`common`] lays two of them side by
//! side. Memory is bounded for each stream, and for all of them together by a [`Shelf`].

use counterfoil_abi::prints::WINDOW;
use counterfoil_abi::record::Prints;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Samples kept of one stream (0.8 MB): all of the start of any, 256 KiB of one that is looked at
/// densely, 128 MiB of what may be a relay's.
const MAX_SAMPLES: usize = 32_768;
/// A window that stands more often than this in one stream says nothing about where it is.
const MAX_PLACES: usize = 4;
/// What an entry takes.
const ENTRY: usize = size_of::<(u64, u64, u64)>();

/// Room for what all streams keep of their content, bytes.
#[derive(Clone, Debug)]
pub struct Shelf(Arc<AtomicUsize>);

impl Shelf {
    /// So many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// What of a [`Shelf`] is taken; given back when it goes.
#[derive(Debug, Default)]
pub struct Taken {
    shelf: Option<Shelf>,
    bytes: usize,
}

impl Taken {
    /// Takes more. False: there is no room.
    pub fn more(&mut self, bytes: usize, shelf: &Shelf) -> bool {
        let taken = self.shelf.get_or_insert_with(|| shelf.clone()).take(bytes);
        self.bytes += if taken { bytes } else { 0 };
        taken
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(shelf) = &self.shelf {
            shelf.0.fetch_add(self.bytes, Ordering::Relaxed);
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Samples {
    /// Where a window ends, and its print.
    points: Vec<(u64, u64)>,
    /// The prints alone, sorted: set with [`Self::sorted`].
    prints: Vec<u64>,
    taken: Taken,
}

impl Samples {
    /// Takes in a record; what finds no room is as if it had not been looked at.
    pub fn note(&mut self, record: &Prints, shelf: &Shelf) {
        let count = usize::from(record.count).min(record.samples.len());
        if count == 0 || self.points.len() + count > MAX_SAMPLES || !self.taken.more(count * ENTRY, shelf) {
            return;
        }
        let points = record.samples[..count].iter();
        self.points.extend(
            points.map(|s| (record.offset.saturating_add(u64::from(s.end)), u64::from_le_bytes(s.print))),
        );
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// In the stream's order.
    pub fn sorted(mut self) -> Self {
        self.points.sort_unstable();
        self.points.dedup();
        self.index();
        self
    }

    fn index(&mut self) {
        self.prints = self.points.iter().map(|(_, print)| *print).collect();
        self.prints.sort_unstable();
        self.prints.dedup();
    }

    /// Different prints that both have, wherever they stand: at most so many can be in one order.
    pub fn overlap(&self, other: &Self) -> usize {
        let (mut a, mut b, mut both) = (self.prints.iter().peekable(), other.prints.iter().peekable(), 0);
        while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
            match x.cmp(y) {
                std::cmp::Ordering::Less => drop(a.next()),
                std::cmp::Ordering::Greater => drop(b.next()),
                std::cmp::Ordering::Equal => {
                    both += 1;
                    a.next();
                    b.next();
                }
            }
        }
        both
    }

    /// Without those of windows that reach out of these spans, which are in order.
    pub fn inside(mut self, spans: &[(u64, u64)]) -> Self {
        self.points.retain(|&(end, _)| {
            let after = spans.partition_point(|(from, _)| from + WINDOW as u64 <= end);
            after > 0 && end <= spans[after - 1].1
        });
        self.index();
        self
    }

    /// Where the last one ends. Sorted ones only.
    pub fn reach(&self) -> u64 {
        self.points.last().map_or(0, |(end, _)| *end)
    }

    /// Those of windows that end behind `from` and not behind `to`. Sorted ones only.
    fn within(&self, from: u64, to: u64) -> &[(u64, u64)] {
        let at = |limit: u64| self.points.partition_point(|(end, _)| *end <= limit);
        &self.points[at(from)..at(to).max(at(from))]
    }

    /// Of the samples between `from` and `to` how many there are, and how many stand in `other` as well,
    /// `shift` further on.
    pub fn shared(&self, from: u64, to: u64, other: &Self, shift: i64) -> (usize, usize) {
        let mine = self.within(from, to);
        let there = |&&(end, print): &&(u64, u64)| {
            let place = end.checked_add_signed(shift);
            place.is_some_and(|place| other.points.binary_search(&(place, print)).is_ok())
        };
        (mine.len(), mine.iter().filter(there).count())
    }
}

/// What two streams have in common, in one order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Common {
    /// Windows of both that are equal.
    pub equal: usize,
    /// From the first to the last of them, in the first stream.
    pub bytes: u64,
}

/// The longest sequence of windows that both have, in the same order.
pub fn common(a: &Samples, b: &Samples) -> Common {
    let mut places: HashMap<u64, Vec<u64>> = HashMap::with_capacity(a.len());
    for &(end, print) in &a.points {
        places.entry(print).or_default().push(end);
    }
    // By place in `b`; of one window's places in `a` the last first, so that it is used once.
    let pairs = b.points.iter().filter_map(|&(end, print)| {
        places.get(&print).filter(|found| found.len() <= MAX_PLACES).map(|found| (end, found))
    });
    // The longest rising sequence (patience sorting): `ends[n]` closes the lowest one of n + 1 pairs.
    let mut ends: Vec<(u64, u64)> = Vec::new();
    for (_, found) in pairs {
        for &place in found.iter().rev() {
            let at = ends.partition_point(|(last, _)| *last < place);
            let first = if at == 0 { place } else { ends[at - 1].1 };
            match ends.get_mut(at) {
                Some(entry) => *entry = (place, first),
                None => ends.push((place, first)),
            }
        }
    }
    let Some(&(last, first)) = ends.last() else { return Common::default() };
    Common { equal: ends.len(), bytes: last - first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;
    use counterfoil_abi::record::Sample;

    fn samples(points: &[(u64, u64)], shelf: &Shelf) -> Samples {
        let mut samples = Samples::default();
        for (end, print) in points {
            let mut record = Prints { offset: end - 1, length: 1, bits: 3, count: 1, ..Prints::zeroed() };
            record.samples[0] = Sample { end: 1, print: print.to_le_bytes() };
            samples.note(&record, shelf);
        }
        samples.sorted()
    }

    fn line(from: u64, prints: std::ops::Range<u64>) -> Vec<(u64, u64)> {
        prints.enumerate().map(|(i, print)| (from + 10 * i as u64, print)).collect()
    }

    #[test]
    fn content_is_found_again_where_it_was_shifted() {
        let shelf = Shelf::new(1 << 20);
        let a = samples(&line(100, 0..50), &shelf);
        let mut pieces = line(40, 1000..1010);
        pieces.extend(line(500, 0..20));
        pieces.extend(line(900, 20..50));
        let b = samples(&pieces, &shelf);
        assert_eq!(common(&a, &b), Common { equal: 50, bytes: 490 });
        assert_eq!(a.shared(99, 300, &b, 400), (21, 20));
        assert_eq!((a.overlap(&b), b.overlap(&a)), (50, 50));
        // In another order only one part counts, and nothing where nothing is.
        let mut turned = line(40, 30..50);
        turned.extend(line(900, 0..30));
        assert_eq!(common(&a, &samples(&turned, &shelf)).equal, 30);
        assert_eq!(common(&a, &samples(&line(40, 100..150), &shelf)), Common::default());
    }

    #[test]
    fn only_what_is_inside() {
        let shelf = Shelf::new(1 << 20);
        let inside = samples(&line(10, 0..100), &shelf).inside(&[(100, 200), (500, 510), (600, u64::MAX)]);
        let ends: Vec<u64> = inside.points.iter().map(|(end, _)| *end).collect();
        let expected: Vec<u64> = (140..=200).chain(632..=1000).filter(|end| end % 10 == 0).collect();
        assert_eq!(ends, expected);
    }

    #[test]
    fn what_stands_everywhere_counts_little() {
        let shelf = Shelf::new(1 << 20);
        let same: Vec<(u64, u64)> = (0..1000).map(|i| (100 + i, 7)).collect();
        assert_eq!(common(&samples(&same, &shelf), &samples(&same, &shelf)).equal, 0);
    }

    #[test]
    fn room_is_bounded_and_given_back() {
        let shelf = Shelf::new(100 * ENTRY);
        let a = samples(&line(10, 0..200), &shelf);
        assert_eq!((a.len(), shelf.left()), (100, 0));
        drop(a);
        assert_eq!(shelf.left(), 100 * ENTRY);
        let all = samples(&line(10, 0..40_000), &Shelf::new(1 << 30));
        assert_eq!(all.len(), MAX_SAMPLES);
    }
}
