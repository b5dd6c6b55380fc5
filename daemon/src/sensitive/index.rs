//! Which prints the sensitive files have.
//!
//! Comes in: their content, one file after the other. Goes out: [`Index`], that says for a print of a stream in which
//! sensitive file, and where, the same window stands. Prints are kept under a key that only this process has: who gets
//! hold of the index, or of the key of all tags, can't look for known content in it. What stands in many files says
//! nothing of any: the forms of keys and configurations, licences, and the files that lie beside sensitive ones.
#![forbid(unsafe_code)]

use super::defaults::FORMS;
use super::known::Secret;
use counterfoil_abi::prints::{Print, Sampler, WINDOW, Window};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Prints kept of all files together: 16 MiB of memory.
const ALL: usize = 500_000;
/// Prints of common text kept.
const COMMON: usize = 200_000;
/// Files larger than this are sampled more sparsely.
const SMALL: usize = 64 << 10;
/// One window in 2^bits, of small files and of others.
const BITS: [u32; 2] = [3, 6];
/// Places remembered of one print.
const PLACES: usize = 4;
/// A window that stands in so many different files is a form's.
const MANY: usize = 3;

/// Makes prints, and hides them.
#[derive(Clone)]
pub struct Printer {
    sampler: Arc<Sampler>,
    hidden: RandomState,
}

impl std::fmt::Debug for Printer {
    // The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Printer").finish_non_exhaustive()
    }
}

impl Printer {
    /// Under the key of all tags.
    #[must_use]
    pub fn new(key: &[u8; 16]) -> Self {
        Self { sampler: Arc::new(Sampler::new(key)), hidden: RandomState::new() }
    }

    /// A print as it is kept.
    #[must_use]
    pub fn hide(&self, print: Print) -> u64 {
        self.hidden.hash_one(print)
    }

    /// The prints of a file, each with where its window ends.
    pub(super) fn prints(&self, content: &[u8]) -> Vec<(u32, u64)> {
        let bits = BITS[usize::from(content.len() > SMALL)];
        let mut found = Vec::new();
        self.sampler.feed(&mut Window::default(), content, bits, |end, print| {
            found.push((end as u32, self.hide(print)));
        });
        found
    }

    /// The prints of what is no secret, wherever it stands in a file.
    pub(super) fn common<'c>(&self, texts: impl Iterator<Item = &'c [u8]>) -> HashSet<u64> {
        let mut common = HashSet::new();
        for text in FORMS.iter().map(|form| form.as_bytes()).chain(texts) {
            self.sampler.feed(&mut Window::default(), text, BITS[0], |_, print| {
                if common.len() < COMMON {
                    common.insert(self.hide(print));
                }
            });
        }
        common
    }
}

/// Where a window stands.
#[derive(Clone, Debug)]
pub struct Place {
    /// In which file.
    pub secret: Arc<Secret>,
    /// Where it ends.
    pub end: u32,
}

/// All prints of all sensitive files.
#[derive(Debug, Default)]
pub struct Index {
    places: HashMap<u64, Vec<Place>>,
}

impl Index {
    /// Takes in one file after the other, those first that were there first.
    pub(super) fn of<'s>(files: impl Iterator<Item = &'s Arc<Secret>>, common: &HashSet<u64>) -> Self {
        let mut places: HashMap<u64, Vec<Place>> = HashMap::new();
        let mut contents: HashMap<u64, HashSet<[u8; 32]>> = HashMap::new();
        let mut room = ALL;
        for secret in files {
            let Some(digest) = secret.sha256 else { continue };
            for &(end, print) in &*secret.prints {
                if room == 0 {
                    break;
                }
                if common.contains(&print) {
                    continue;
                }
                contents.entry(print).or_default().insert(digest);
                let known = places.entry(print).or_default();
                if known.len() < PLACES {
                    known.push(Place { secret: secret.clone(), end });
                    room -= 1;
                }
            }
        }
        places.retain(|print, _| contents.get(print).is_none_or(|of| of.len() < MANY));
        Self { places }
    }

    /// Where a hidden print stands.
    #[must_use]
    pub fn find(&self, hidden: u64) -> &[Place] {
        self.places.get(&hidden).map_or(&[], |places| places)
    }

    /// Nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// Bytes that a window covers.
pub(super) const COVERED: u64 = WINDOW as u64;
