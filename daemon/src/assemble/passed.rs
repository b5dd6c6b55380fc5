//! All that is known of the content of one stream that is over, and what two of them have in common.
//!
//! Comes in: a manifest. Goes out: [`Passed`], and [`Passed::found_in`]: is the second the first one's
//! content, passed on? [`super::relay`] asks.

use super::bodies::{self, Bodies};
use super::manifest::{Manifest, TagKind};
use super::samples::{self, Samples};
use super::taken::Taken;
use super::trace::Content;
use crate::files::tags::Tags;
use crate::model::Range;
use counterfoil_abi::BLOCK;
use std::sync::Arc;

/// Windows in common that are evidence: for two streams of one program …
const ENOUGH: usize = 4;
/// … and for strangers'.
const ENOUGH_OF_STRANGERS: usize = 16;
/// From the first to the last of them there must be so many bytes.
const TELLING: u64 = 1024;

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Passed {
    /// Bytes.
    pub total: u64,
    /// By equal offsets; None unless every byte was tagged.
    pub content: Option<Content>,
    samples: Arc<Samples>,
    bodies: Arc<Bodies>,
}

/// How a second stream has the content of a first one. The best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// Byte by byte.
    Same,
    /// Behind other heads, in other frames, or as a part; nothing is known to differ.
    Reframed,
    /// With what it carried changed.
    Altered,
}

/// What two streams have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// How.
    pub how: How,
    /// Bytes.
    pub bytes: u64,
    /// All that the first one carried is known to be in the second, or to differ.
    pub complete: bool,
    /// That is what whole bodies of messages say.
    pub framed: bool,
    /// Where the second differs, at the first one's offsets ([`How::Altered`]).
    pub differs: Vec<Range>,
    /// Only messages of the two belong together; others' are among them.
    pub shared: bool,
    /// Which do, by their numbers in the first and in the second, and how long each is.
    pub pairs: Vec<(usize, usize, u64)>,
}

impl Found {
    fn new(how: How, bytes: u64, complete: bool) -> Self {
        let (differs, pairs) = (Vec::new(), Vec::new());
        Self { how, bytes, complete, framed: false, differs, shared: false, pairs }
    }

    /// Keeps those messages alone for which `both` says so.
    pub fn keep(&mut self, both: impl Fn(usize, usize) -> bool) {
        self.pairs.retain(|&(ours, theirs, _)| both(ours, theirs));
        self.bytes = self.pairs.iter().map(|(.., length)| length).sum();
    }
}

impl Passed {
    /// What passed through a stream of `total` bytes; the manifest gives it up.
    pub fn of(manifest: &mut Manifest, total: u64) -> Self {
        let mut samples = std::mem::take(&mut manifest.samples).sorted();
        let bodies = std::mem::take(&mut manifest.bodies);
        if bodies.any() {
            // Heads are much alike: only what they carry is content.
            samples = samples.inside(&bodies.spans());
        }
        let content = Content::of(manifest, total);
        Self { total, content, samples: Arc::new(samples), bodies: Arc::new(bodies) }
    }

    /// It is in messages whose frames were followed.
    pub fn framed(&self) -> bool {
        self.bodies.any()
    }

    /// How many of its messages carried just these `bytes` bytes; 1: it did itself.
    pub fn carries(&self, tags: &Tags, bytes: u64) -> usize {
        let (whole, rest) = (bytes / BLOCK, bytes % BLOCK);
        let tag = |block: u64| match tags.partial {
            _ if block < whole => tags.get(block),
            Some(p) if (p.offset, u64::from(p.length)) == (whole * BLOCK, rest) => Some(p.value),
            _ => None,
        };
        if self.framed() {
            return if tags.kind() == Some(TagKind::Mac) { self.bodies.carry(bytes, tag) } else { 0 };
        }
        let content = self.content.as_ref().filter(|c| Some(c.kind) == tags.kind());
        content.is_some_and(|c| c.is(bytes, tag)).into()
    }

    /// What it is counted as, in entries of eight bytes.
    pub fn weight(&self) -> usize {
        self.content.as_ref().map_or(0, Content::count) + 2 * self.samples.len() + self.bodies.weight()
    }

    /// Is this stream's content in `other`, passed on? `strangers`: nothing else says that the two belong
    /// together. `taken`: messages of both that are known to belong elsewhere.
    pub fn found_in(&self, other: &Self, strangers: bool, taken: [&Taken; 2]) -> Option<Found> {
        let untouched = taken.into_iter().all(Taken::none);
        let samples: [&Samples; 2] = [&self.samples, &other.samples];
        let compared = bodies::compare(&self.bodies, &other.bodies, samples, strangers, taken);
        let blocks = match (&self.content, &other.content) {
            (Some(a), Some(b)) if untouched => a.differences(b),
            _ => None,
        };
        if blocks.as_ref().is_some_and(Vec::is_empty) {
            return Some(Found::new(How::Same, self.total, true));
        }
        // One client's, and nobody else's: one that differs is another version only if that is still to come.
        if untouched && compared.same + compared.alike > 0 && compared.alone + compared.others == 0 {
            let how = if compared.differs.is_empty() { How::Reframed } else { How::Altered };
            let found = Found::new(how, compared.same + compared.alike, !self.bodies.unframed());
            return Some(Found { framed: true, differs: compared.differs, ..found });
        }
        // Strangers' connections must have most of one of them in common: many fetch one picture.
        let most = |rest: u64| compared.same > compared.alike + rest;
        if compared.same > 0 && (!strangers || most(compared.alone) || most(compared.others)) {
            let complete = compared.alike + compared.alone == 0 && !self.bodies.unframed();
            let found = Found::new(How::Reframed, compared.same, complete);
            return Some(Found { framed: true, shared: true, pairs: compared.pairs, ..found });
        }
        if !untouched {
            return None;
        }
        if let Some(blocks) = blocks {
            // A relay may turn one head into another of the same length. Who speaks HTTP is accused for
            // what is in bodies, and who speaks what nobody followed for nothing.
            if [self, other].iter().any(|p| p.bodies.any() || p.bodies.unframed()) {
                let differ = blocks.len() as u64 * BLOCK;
                return Some(Found::new(How::Reframed, self.total.saturating_sub(differ), false));
            }
            let differs = ranges(&blocks, self.total);
            return Some(Found { differs, ..Found::new(How::Altered, self.total, true) });
        }
        let least = self.samples.len().min(other.samples.len());
        let enough = |equal: usize| match strangers {
            true => equal >= ENOUGH_OF_STRANGERS && equal * 10 >= least * 9,
            false => equal >= ENOUGH && equal * 2 >= least,
        };
        // Mostly there is next to nothing, which is soon seen.
        if !enough(self.samples.overlap(&other.samples)) {
            return None;
        }
        let common = samples::common(&self.samples, &other.samples);
        (enough(common.equal) && common.bytes >= TELLING)
            .then(|| Found::new(How::Reframed, common.bytes, false))
    }
}

/// Whole blocks, neighbours merged.
fn ranges(blocks: &[u64], total: u64) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for &block in blocks {
        let (offset, end) = (block * BLOCK, ((block + 1) * BLOCK).min(total));
        match ranges.last_mut() {
            Some(last) if last.offset + last.length == offset => last.length = end - last.offset,
            _ => ranges.push(Range { offset, length: end - offset }),
        }
    }
    ranges
}
