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

/// Prints kept of all files together: 8 MB, and as much where they are found.
pub(super) const PRINTS: usize = 500_000;
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

/// All prints of all sensitive files: 16 bytes each.
#[derive(Debug, Default)]
pub struct Index {
    /// Print, number of the file, where the window ends; in this order.
    places: Vec<(u64, u32, u32)>,
    files: Vec<Arc<Secret>>,
}

impl Index {
    /// Takes in one file after the other, those first that were there first.
    pub(super) fn of<'s>(secrets: impl Iterator<Item = &'s Arc<Secret>>, common: &HashSet<u64>) -> Self {
        let (mut places, mut files) = (Vec::new(), Vec::new());
        // Files with one content are one to those who ask in how many a window stands.
        let (mut contents, mut of_file) = (HashMap::new(), Vec::new());
        for secret in secrets {
            let Some(digest) = secret.sha256 else { continue };
            let (number, content) = (files.len() as u32, contents.len() as u32);
            files.push(secret.clone());
            of_file.push(*contents.entry(digest).or_insert(content));
            let room = PRINTS - places.len();
            let own = secret.prints.iter().filter(|(_, print)| !common.contains(print));
            places.extend(own.take(room).map(|&(end, print)| (print, number, end)));
        }
        places.sort_unstable();
        let mut kept = Vec::new();
        for same in places.chunk_by(|a, b| a.0 == b.0) {
            let mut of: Vec<u32> = same.iter().map(|&(_, number, _)| of_file[number as usize]).collect();
            of.sort_unstable();
            of.dedup();
            if of.len() < MANY {
                kept.extend(same.iter().take(PLACES));
            }
        }
        kept.shrink_to_fit();
        Self { places: kept, files }
    }

    /// Where a hidden print stands.
    pub fn find(&self, hidden: u64) -> impl Iterator<Item = Place> {
        let start = self.places.partition_point(|(print, ..)| *print < hidden);
        let same = self.places[start..].iter().take_while(move |(print, ..)| *print == hidden);
        same.map(|&(_, number, end)| Place { secret: self.files[number as usize].clone(), end })
    }

    /// Bytes of memory that it takes, beside the files themselves.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<(u64, u32, u32)>()
            + self.files.capacity() * size_of::<Arc<Secret>>()
    }
}

/// Bytes that a window covers.
pub(super) const COVERED: u64 = WINDOW as u64;
