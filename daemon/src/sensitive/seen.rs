//! Sensitive content, seen in what is sent.
//!
//! Comes in: prints of outbound streams, as they come. Goes out: which parts of which sensitive file a stream carries,
//! once that is more than chance or a form could do. Both orders: prints of streams are remembered for a while, since
//! a file may become known later.
#![forbid(unsafe_code)]

use super::index::{COVERED, Place};
use super::lineage::Sending;
use super::{Trail, source};
use crate::assemble::program::ArenaId;
use crate::judged::Judged;
use crate::model::Range;
use counterfoil_abi::record::Prints;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Streams in which something was found, remembered.
const STREAMS: usize = 4096;
/// Sensitive files found in one stream.
const FILES: usize = 64;
/// Windows remembered of one file in one stream.
const WINDOWS: usize = 4096;
/// Prints of streams remembered, in which nothing was found.
const EARLIER: usize = 65_536;
/// How long more of the same is waited for before it is said, nanoseconds.
const MORE: u64 = 30_000_000;
/// How long the files may take to be read, once all is over.
const READING: Duration = Duration::from_secs(10);
/// Between two windows that stand equally far apart in file and stream, all is the same.
const BRIDGE: u64 = 1024;
/// Less of a file proves nothing.
const LEAST: u64 = 48;
/// A program whose work it is to read a file may send pieces of it, as a token to its own service; this much of it is
/// more than a piece.
const PIECE: f64 = 0.5;

/// One stream: an object's, as the assembler counts them.
pub type Stream = (ArenaId, u32);

/// A sensitive file's windows in one stream.
struct Found {
    place: Place,
    /// Ends in the file; ends in the stream.
    windows: BTreeMap<u32, u64>,
    first: u64,
    told: u64,
}

/// All of them.
#[derive(Default)]
pub(super) struct SeenContent {
    streams: HashMap<Stream, (Sending, Vec<Found>)>,
    order: VecDeque<Stream>,
    earlier: VecDeque<(u64, Stream, u64, u64)>,
    generation: u64,
}

impl Trail {
    /// Prints of what a program sends. `sending`: who sends where, asked only if a sensitive file has one of them.
    pub fn printed(&mut self, stream: Stream, prints: &Prints, sending: impl FnOnce() -> Option<Sending>) {
        let samples = &prints.samples[..usize::from(prints.count).min(prints.samples.len())];
        let Some(printer) = self.known.printer().filter(|_| !samples.is_empty()) else { return };
        let index = self.known.index();
        let mut found = Vec::new();
        for sample in samples {
            let hidden = printer.hide(sample.print);
            let end = prints.offset.saturating_add(u64::from(sample.end));
            let before = found.len();
            found.extend(index.find(hidden).map(|place| (place, end)));
            // The file's reader may be heard of later than who sends it, and the file itself be read later still.
            if found.len() == before {
                if self.seen.earlier.len() >= EARLIER {
                    self.seen.earlier.pop_front();
                }
                self.seen.earlier.push_back((hidden, stream, end, prints.header.time));
            }
        }
        if !self.seen.streams.contains_key(&stream) {
            let Some(sending) = sending() else { return };
            self.seen.put(stream, sending);
        }
        self.seen.found(stream, found, prints.header.time);
    }

    /// Says what was found. `over`: nothing more is waited for.
    pub(super) fn say_seen(&mut self, now: u64, over: bool, out: &mut VecDeque<Judged>) {
        self.look_back();
        // A file may leave in pieces, each over a connection of its own.
        let mut routes: HashMap<Route, BTreeMap<u32, u64>> = HashMap::new();
        for (sending, all) in self.seen.streams.values().filter(|(_, all)| !all.is_empty()) {
            for found in all {
                routes.entry(found.route(sending)).or_default().extend(&found.windows);
            }
        }
        let mut due = Vec::new();
        for (sending, all) in self.seen.streams.values_mut() {
            for found in all.iter_mut() {
                let together = routes.get(&found.route(sending)).unwrap_or(&found.windows);
                let (spans, covered) = spans(together);
                let whole = covered >= found.place.secret.size();
                let ripe = whole || over || now > found.first.saturating_add(MORE);
                if covered > found.told && enough(&found.place, together.len(), covered) && ripe {
                    found.told = covered;
                    due.push((found.place.secret.clone(), sending.clone(), spans, covered));
                }
            }
        }
        for (secret, sending, spans, covered) in due {
            let uid = sending.process.uid;
            let source = source(&secret);
            // What a user puts where his secrets are expected accuses nobody else.
            let theirs = secret.owner == 0 || uid == Some(0) || uid == Some(secret.owner);
            let piece = (covered as f64) < secret.size() as f64 * PIECE;
            let may = self.readers.read().is_ok_and(|r| r.0.may(&sending.process, &secret.label).is_some());
            if theirs && !(piece && may) {
                self.proven(&source, &sending, spans, out);
            }
        }
    }

    /// Observation ends, and a short run may be over before all sensitive files were read: waits for that, if there is
    /// anything that their content could be held against.
    pub(super) fn wait_for_files(&mut self) {
        if !self.seen.earlier.is_empty() || self.has_firsts() {
            self.known.wait(READING);
        }
    }

    /// Files became known whose prints had come before.
    fn look_back(&mut self) {
        let generation = self.known.generation();
        if std::mem::replace(&mut self.seen.generation, generation) == generation
            || self.seen.earlier.is_empty()
        {
            return;
        }
        let index = self.known.index();
        let mut all = Vec::new();
        self.seen.earlier.retain(|&(hidden, stream, end, time)| {
            let before = all.len();
            all.extend(index.find(hidden).map(|place| (stream, place, end, time)));
            all.len() == before
        });
        for (stream, place, end, time) in all {
            self.seen.found(stream, vec![(place, end)], time);
        }
    }

    /// Forgets streams that were sent on before `time`.
    pub(super) fn forget_seen_before(&mut self, time: u64) {
        let SeenContent { streams, order, earlier, .. } = &mut self.seen;
        earlier.retain(|(_, _, _, at)| *at >= time);
        let empty = |(sending, found): &(Sending, Vec<Found>)| found.is_empty() && sending.grew < time;
        streams.retain(|_, stream| !empty(stream));
        order.retain(|stream| streams.contains_key(stream));
    }
}

impl SeenContent {
    fn put(&mut self, stream: Stream, sending: Sending) {
        if self.order.len() >= STREAMS
            && let Some(oldest) = self.order.pop_front()
        {
            self.streams.remove(&oldest);
        }
        self.order.push_back(stream);
        self.streams.insert(stream, (sending, Vec::new()));
    }

    fn found(&mut self, stream: Stream, windows: Vec<(Place, u64)>, time: u64) {
        let Some((sending, all)) = self.streams.get_mut(&stream) else { return };
        sending.grew = sending.grew.max(time);
        for (place, end) in windows {
            let known = all.iter_mut().position(|f| {
                Arc::ptr_eq(&f.place.secret, &place.secret) || f.place.secret.path == place.secret.path
            });
            let at = match known {
                Some(at) => at,
                None if all.len() < FILES => {
                    all.push(Found { place: place.clone(), windows: BTreeMap::new(), first: time, told: 0 });
                    all.len() - 1
                }
                None => continue,
            };
            let found = &mut all[at];
            if found.windows.len() < WINDOWS {
                found.windows.entry(place.end).or_insert(end);
            }
        }
    }
}

/// A file, who sends it, and where to.
type Route = (String, Option<String>, Option<String>, Option<u32>);

impl Found {
    fn route(&self, sending: &Sending) -> Route {
        let (process, connection) = (&sending.process, &sending.connection);
        (self.place.secret.path.clone(), process.exe.clone(), connection.remote.clone(), process.uid)
    }
}

/// Which parts of the file these windows are, and how much of it together.
fn spans(windows: &BTreeMap<u32, u64>) -> (Vec<Range>, u64) {
    let mut spans: Vec<Range> = Vec::new();
    let mut before: Option<(u64, u64)> = None;
    for (&end, &there) in windows {
        let end = u64::from(end);
        let start = end.saturating_sub(COVERED);
        let steady = before.is_some_and(|(e, t)| there.checked_sub(t) == Some(end - e) && end - e <= BRIDGE);
        match spans.last_mut() {
            Some(last) if steady || start <= last.offset + last.length => last.length = end - last.offset,
            _ => spans.push(Range { offset: start, length: end - start }),
        }
        before = Some((end, there));
    }
    let covered = spans.iter().map(|s| s.length).sum();
    (spans, covered)
}

/// More than chance, or a form that many files share, could do.
fn enough(place: &Place, windows: usize, covered: u64) -> bool {
    let few = place.secret.prints.len() <= 4;
    (windows >= 2 && covered >= LEAST) || (few && windows >= 1)
}
