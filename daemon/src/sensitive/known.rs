//! What is known of the sensitive files that are there: by device and inode, and by what they contain.
//!
//! Comes in: what the thread in `look` finds. Goes out: [`Held`], which the core asks at each open, the files' prints, and what
//! observed processes are told.
#![forbid(unsafe_code)]

use super::index::{Index, Printer};
use super::memory::Memory;
use super::paths::{Label, Paths};
use crate::assemble::pending::Value;
use crate::host::facts::Inode;
use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

mod look;

pub use look::Keeper;

/// Copies that observed processes are told of.
const COPIES: usize = 1_000;

/// Which file it is, as it stands there.
type Version = (u64, u64, u64, i64, i64, i64);

/// One sensitive file.
#[derive(Debug)]
pub struct Secret {
    /// Its path.
    pub path: String,
    /// What it is.
    pub label: Arc<Label>,
    /// Whose it is.
    pub owner: u32,
    /// SHA-256 of its content, where it was read.
    pub sha256: Option<[u8; 32]>,
    version: Version,
    /// Length and tag of its first block.
    first: Option<(u32, Value)>,
    /// Its fingerprints, hidden, each with where its window ends.
    pub(super) prints: Box<[(u32, u64)]>,
}

impl Secret {
    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.version.2
    }
}

/// All that are there.
#[derive(Debug, Default)]
pub struct Held {
    by_inode: HashMap<Inode, Arc<Secret>>,
    by_digest: HashMap<[u8; 32], Arc<Secret>>,
    by_first: HashMap<(u32, Value), Arc<Secret>>,
}

impl Held {
    /// The sensitive file that this is.
    #[must_use]
    pub fn at(&self, inode: Inode) -> Option<&Arc<Secret>> {
        self.by_inode.get(&inode)
    }

    /// One with this content.
    #[must_use]
    pub fn with_digest(&self, sha256: &[u8; 32]) -> Option<&Arc<Secret>> {
        self.by_digest.get(sha256)
    }

    /// One whose first block has this tag: the whole file, where it is shorter than a block.
    #[must_use]
    pub fn begins_with(&self, length: u32, tag: Value) -> Option<&Arc<Secret>> {
        self.by_first.get(&(length, tag))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_inode.len()
    }

    /// None.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_inode.is_empty()
    }
}

/// What the core and the thread share.
#[derive(Debug)]
pub struct Known {
    paths: RwLock<Arc<Paths>>,
    held: RwLock<Arc<Held>>,
    index: RwLock<Arc<Index>>,
    printer: Option<Printer>,
    /// What observed processes know of it; None: this kernel can't seal it.
    memory: Option<Arc<Memory>>,
    /// Copies that they are told of, too, the latest.
    also: Mutex<VecDeque<Inode>>,
    /// Counts up with each change.
    generation: AtomicU64,
    unread: AtomicBool,
    /// Programs to be held against their packages, and those that were not what these brought.
    asked: Mutex<HashMap<PathBuf, Option<String>>>,
    altered: RwLock<HashSet<PathBuf>>,
    /// The patterns are others than when it was looked last.
    reconfigured: AtomicBool,
    stop: AtomicBool,
    wake: OwnedFd,
}

impl Known {
    /// The patterns.
    #[must_use]
    pub fn paths(&self) -> Arc<Paths> {
        self.paths.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The files.
    #[must_use]
    pub fn held(&self) -> Arc<Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Their prints.
    #[must_use]
    pub fn index(&self) -> Arc<Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What makes their prints.
    #[must_use]
    pub fn printer(&self) -> Option<&Printer> {
        self.printer.as_ref()
    }

    /// This file is a copy: who opens it is to be looked at closely, too.
    pub fn also(&self, inode: Inode) {
        let mut also = self.also.lock().unwrap_or_else(PoisonError::into_inner);
        if also.contains(&inode) {
            return;
        }
        if also.len() >= COPIES {
            also.pop_front();
        }
        also.push_back(inode);
        if let Some(memory) = &self.memory {
            memory.add(inode);
        }
    }

    /// Differs whenever [`Known::held`] does.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// There are files whose content is still being read.
    #[must_use]
    pub fn unread(&self) -> bool {
        self.unread.load(Ordering::Acquire)
    }

    /// Waits until they are, for so long at most.
    pub fn wait(&self, longest: Duration) {
        let until = std::time::Instant::now() + longest;
        while self.unread() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Other patterns from now on.
    pub fn reconfigure(&self, paths: Paths) {
        *self.paths.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(paths);
        self.reconfigured.store(true, Ordering::Release);
        self.wake();
    }

    /// Has a program held against this digest, or against what its package brought.
    pub fn doubt(&self, exe: &str, sha256: Option<String>) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() < 256 && asked.insert(exe.into(), sha256).is_none() {
            drop(asked);
            self.wake();
        }
    }

    /// It is not what it should be.
    #[must_use]
    pub fn altered(&self, exe: &str) -> bool {
        self.altered.read().unwrap_or_else(PoisonError::into_inner).contains(Path::new(exe))
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}
