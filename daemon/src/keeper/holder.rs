//! The keeper's own side: a process that holds descriptors and does nothing else.
#![forbid(unsafe_code)]

use super::store::Store;
use super::wire::Wire;
use super::{Entry, SOCKET, ToDaemon, ToKeeper};
use crate::host::keep::Shared;
use counterfoil_abi::arena::{ArenaHead, POLICY_OFF};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The hidden command that the daemon starts it with.
pub const COMMAND: &str = "hold-arenas";
/// How long it waits for a daemon to come back that was killed.
const PATIENCE: Duration = Duration::from_secs(120);
/// And for the next one after one that ended in order: a restart for an upgrade.
const SHORT: Duration = Duration::from_secs(30);

/// How a daemon came to its end.
#[derive(Clone, Copy, PartialEq)]
enum End {
    InOrder,
    Killed,
}

struct Holder {
    key: [u8; 16],
    store: Store,
    held: BTreeMap<u64, (Entry, OwnedFd, OwnedFd)>,
    shared: BTreeMap<Shared, OwnedFd>,
}

/// Removes its socket at the end, unless another keeper has put its own there.
struct Listening {
    wire: Wire,
    path: PathBuf,
    inode: u64,
}

impl Listening {
    fn new(state: &Path) -> io::Result<Self> {
        let path = state.join(SOCKET);
        let wire = Wire::listen(&path)?;
        let inode = inode(&path).unwrap_or(0);
        Ok(Self { wire, path, inode })
    }

    /// The state directory is still there, and ours.
    fn stands(&self) -> bool {
        inode(&self.path) == Some(self.inode)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.stands() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::os::unix::fs::MetadataExt::ino(&std::fs::symlink_metadata(path).ok()?).into()
}

/// Holds what the daemon at the other end of `first` gives, and gives it to the next one.
///
/// # Errors
/// The socket can't be made, or random bytes can't be had.
pub fn hold(state: &Path, first: OwnedFd) -> io::Result<()> {
    let listening = Listening::new(state)?;
    let mut key = [0; 16];
    rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())?;
    let store = Store::new();
    store.key(&key);
    let mut holder = Holder { key, store, held: BTreeMap::new(), shared: BTreeMap::new() };
    // A service manager ends all of a service's processes at once: the daemon shall find its keeper
    // until it has ended, and no longer.
    let told_to_end = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&told_to_end))?;
    let mut daemon = Wire::from(first);
    let mut end = End::InOrder;
    loop {
        let begun = holder.hand_over(&daemon, end == End::Killed);
        end = if begun.is_ok() { holder.serve(&daemon) } else { End::Killed };
        drop(daemon);
        let time = if end == End::Killed { PATIENCE } else { SHORT };
        let Some(next) = holder.wait(&listening, time, &told_to_end)? else { break };
        daemon = next;
    }
    // systemd may have them for the next life.
    if !(holder.store.there() && told_to_end.load(Ordering::Relaxed)) {
        holder.give_up();
    }
    Ok(())
}

impl Holder {
    fn hand_over(&self, daemon: &Wire, returned: bool) -> io::Result<()> {
        daemon.send(&ToDaemon::Start { key: self.key, returned }, &[])?;
        for (entry, memfd, pidfd) in self.held.values() {
            daemon.send(&ToDaemon::Kept(Box::new(entry.clone())), &[memfd.as_fd(), pidfd.as_fd()])?;
        }
        for (&what, memory) in &self.shared {
            daemon.send(&ToDaemon::Shared(what), &[memory.as_fd()])?;
        }
        daemon.send(&ToDaemon::Done, &[])
    }

    /// Until the daemon is gone.
    fn serve(&mut self, daemon: &Wire) -> End {
        let mut end = End::Killed;
        loop {
            match daemon.receive() {
                Ok(Some((ToKeeper::Keep(entry), descriptors))) => {
                    if let Ok([memfd, pidfd]) = <[OwnedFd; 2]>::try_from(descriptors) {
                        self.store.keep(&entry, memfd.as_fd());
                        self.held.insert(entry.id, (*entry, memfd, pidfd));
                    }
                }
                Ok(Some((ToKeeper::Forget(id), _))) => {
                    if let Some((entry, ..)) = self.held.remove(&id) {
                        self.store.forget(&entry);
                    }
                }
                Ok(Some((ToKeeper::Share(what), descriptors))) => {
                    if let Ok([memory]) = <[OwnedFd; 1]>::try_from(descriptors) {
                        self.store.share(what, memory.as_fd());
                        self.shared.insert(what, memory);
                    }
                }
                Ok(Some((ToKeeper::Key(key), _))) => {
                    self.key = key;
                    self.store.key(&key);
                }
                Ok(Some((ToKeeper::Farewell, _))) => end = End::InOrder,
                Ok(None) | Err(_) => return end,
            }
        }
    }

    /// Waits for the next daemon. None: none came, or there is nothing to give it.
    fn wait(&self, listening: &Listening, time: Duration, enough: &AtomicBool) -> io::Result<Option<Wire>> {
        let end = Instant::now() + time;
        let goes_on = || listening.stands() && Instant::now() < end && !enough.load(Ordering::Relaxed);
        while !self.held.is_empty() && goes_on() {
            let mut ready = [PollFd::new(&listening.wire, PollFlags::IN)];
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            match poll(&mut ready, Some(&second)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(e) => return Err(e.into()),
            }
            if let Ok(daemon) = listening.wire.accept() {
                return Ok(Some(daemon));
            }
        }
        Ok(None)
    }

    /// Nobody will read any more: programs need not record.
    fn give_up(&self) {
        let off = POLICY_OFF.to_ne_bytes();
        for (entry, memfd, _) in self.held.values() {
            let _ = rustix::io::pwrite(memfd, &off, offset_of!(ArenaHead, policy) as u64);
            self.store.forget(entry);
        }
        self.shared.keys().for_each(|&what| self.store.unshare(what));
    }
}
