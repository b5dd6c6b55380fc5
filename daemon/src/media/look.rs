//! Looks into files on a thread of its own: how old a script is and what it says, what stands behind a picture's end.
//!
//! Comes in: [`Ask`]s. Goes out, later: [`Seen`]. Called by [`super::Gallery`], whose thread must not wait for a file system.
//! Bounded: what is larger than [`MOST`] is not read, and of questions that find no room nothing is known.
#![forbid(unsafe_code)]

use super::changed::Shot;
use super::picture::{self, Behind};
use crate::host::facts::Inode;
use crate::rest::{self, User};
use counterfoil_abi::class;
use counterfoil_abi::record::Class;
use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use sha2::{Digest, Sha256};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of a picture that are read.
const MOST: usize = 32 << 20;
/// Bytes of a script that are read.
const SCRIPT: usize = 64 << 10;
/// Questions that may wait.
const WAITING: usize = 256;

/// What to look at.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Absolute.
    pub path: String,
    /// Which file it must be; None: whichever is there.
    pub inode: Option<Inode>,
    /// Whose rights to read it with.
    pub user: User,
    /// It is a script.
    pub script: bool,
}

/// What was seen.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A script.
    Script {
        /// The ask's.
        path: String,
        /// What it says, as far as was read; empty where it can't be.
        text: Vec<u8>,
        /// When it was last changed, seconds since 1970.
        changed: Option<u64>,
    },
    /// A picture.
    Picture {
        /// The ask's.
        path: String,
        /// Data behind its end.
        behind: Option<Behind>,
        /// What kind of content it is, where its name says something else.
        content: Option<String>,
        /// What picture it is.
        shot: Option<Shot>,
    },
}

/// The thread, and the questions that are on their way.
pub struct Looker {
    asks: Option<Sender<Ask>>,
    seen: Receiver<Seen>,
    thread: Option<JoinHandle<()>>,
    /// Questions without an answer.
    pub waiting: usize,
}

impl Looker {
    /// Starts it.
    ///
    /// # Errors
    /// No thread.
    pub fn start() -> std::io::Result<Self> {
        let (asks, inbox) = bounded::<Ask>(WAITING);
        let (out, seen) = bounded(WAITING);
        let work = move || {
            rest::give_way();
            for ask in inbox {
                if out.send(look(&ask)).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("media".into()).spawn(work)?;
        Ok(Self { asks: Some(asks), seen, thread: Some(thread), waiting: 0 })
    }

    /// Puts a question. False: too many wait.
    pub fn ask(&mut self, ask: Ask) -> bool {
        let put = self.waiting < WAITING && self.asks.as_ref().is_some_and(|asks| asks.try_send(ask).is_ok());
        self.waiting += usize::from(put);
        put
    }

    /// An answer that has come.
    pub fn answer(&mut self) -> Option<Seen> {
        let seen = match self.seen.try_recv() {
            Ok(seen) => Some(seen),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.waiting = 0;
                None
            }
        };
        self.waiting -= usize::from(seen.is_some());
        seen
    }

    /// An answer, waited for.
    pub fn wait(&mut self, until: Instant) -> Option<Seen> {
        let left = until.saturating_duration_since(Instant::now()).min(Duration::from_secs(2));
        let seen = if self.waiting > 0 { self.seen.recv_timeout(left).ok() } else { None };
        self.waiting = if seen.is_some() { self.waiting - 1 } else { 0 };
        seen
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        self.asks = None;
        // It is left behind with a file system that doesn't answer.
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn look(ask: &Ask) -> Seen {
    let path = ask.path.clone();
    let limit = if ask.script { SCRIPT } else { MOST };
    let found = rest::peek(ask.path.as_bytes(), ask.inode, &ask.user, limit);
    if ask.script {
        let (text, changed) = found.map_or((Vec::new(), None), |(text, stat)| {
            // Whoever may write to it sets its times as he likes; only root's own files are as old as they say.
            let changed = if stat.settled { stat.modified } else { stat.modified.max(stat.changed) };
            (text, Some(changed))
        });
        return Seen::Script { path, text, changed };
    }
    let Ok((mut content, stat)) = found else {
        return Seen::Picture { path, behind: None, content: None, shot: None };
    };
    let found = class::of(&content);
    let media = found.class == Class::Media;
    let telling = !matches!(found.class, Class::Empty)
        && (found.magic.is_some() || matches!(found.class, Class::Text | Class::Encrypted));
    let disagree = picture::disagree(&path, media, telling);
    let word = || found.magic.map_or(found.class.word(), counterfoil_abi::record::Magic::word).to_owned();
    // Of what was not read to its end, nobody knows it.
    let whole = stat.size <= content.len() as u64;
    let behind = picture::behind(&content).filter(|_| whole && media);
    let shot = found.magic.filter(|_| whole).and_then(|format| {
        let size = class::size::of(format, &content)?;
        Some(Shot { format, size, sha256: Sha256::digest(&content).into(), modified: stat.modified })
    });
    // As what is read at rest elsewhere: it stays here no longer than it must.
    content.fill(0);
    std::hint::black_box(&content);
    Seen::Picture { behind, content: disagree.then(word), shot, path }
}
