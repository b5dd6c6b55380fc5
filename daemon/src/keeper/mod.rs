//! The keeper: a small process beside the daemon that only holds descriptors.
//!
//! Comes in: each arena that is granted, and what programs share. Goes out: all of them, to the next daemon on the same state
//! directory. A daemon that is killed loses nothing that was published: programs go on writing into
//! their arenas, and the next daemon reads on where this one stopped, with the same key. It is a
//! process of its own and not the daemon's parent, so that whoever started the daemon (a service
//! manager, a test) has the daemon's own pid.
//!
//! Where systemd runs the daemon, its descriptor store gets them, too, for the keeper ends with the
//! service there.
//!
//! It ends when nothing is left to keep, or when no daemon has come back for a while; then it tells
//! the programs to stop recording.
pub mod holder;
mod store;
mod wire;

use crate::assemble::program::ArenaId;
use crate::host::facts::Facts;
use crate::host::keep::{Keep, Keeping, Kept, Shared};
use crate::model::Process;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use wire::Wire;

/// The socket's name in the state directory, which is closed to others.
const SOCKET: &str = "keeper";

/// What the daemon says.
#[derive(Debug, Serialize, Deserialize)]
enum ToKeeper {
    /// With memfd and pidfd.
    Keep(Box<Entry>),
    Forget(ArenaId),
    /// With memfd.
    Share(Shared),
    /// The key of the arenas that follow: they come from systemd's store.
    Key([u8; 16]),
    /// The daemon ends in order: it has read everything and said what was open.
    Farewell,
}

/// What the keeper says to a daemon that comes.
#[derive(Debug, Serialize, Deserialize)]
enum ToDaemon {
    /// The key of all tags. `returned`: an earlier daemon ended without a farewell.
    Start { key: [u8; 16], returned: bool },
    /// With memfd and pidfd.
    Kept(Box<Entry>),
    /// With memfd.
    Shared(Shared),
    /// That was all.
    Done,
}

/// An arena without its descriptors.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    id: ArenaId,
    uid: u32,
    watched: bool,
    process: Process,
    ppid: u32,
    starttime: u64,
    net_namespace: Option<u64>,
    nspid: Vec<u32>,
}

/// The daemon's side.
pub struct Keeper {
    wire: Wire,
    lost: AtomicBool,
}

/// What a daemon begins with.
pub struct Beginning {
    /// Keeps from now on.
    pub keeper: Keeper,
    /// The key of all tags.
    pub key: [u8; 16],
    /// Arenas of an earlier daemon.
    pub kept: Vec<Kept>,
    /// Memories that programs share.
    pub shared: HashMap<Shared, OwnedFd>,
    /// An earlier daemon ended without a farewell.
    pub returned: bool,
}

impl Keeper {
    /// Finds the keeper of `state`, or starts one.
    ///
    /// # Errors
    /// There is none and none can be started, or it speaks nonsense.
    pub fn find(state: &Path) -> io::Result<Beginning> {
        let stored = store::take();
        let (wire, fresh) = match Wire::connect(&state.join(SOCKET)) {
            Ok(wire) => (wire, false),
            Err(_) => (start(state)?, true),
        };
        wire.patience(std::time::Duration::from_secs(5))?;
        let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "the keeper speaks nonsense");
        let (key, returned) = match wire.receive()? {
            Some((ToDaemon::Start { key, returned }, _)) => (key, returned),
            Some(_) => return Err(nonsense()),
            None => return Err(io::Error::other("the keeper ended as soon as it began")),
        };
        let (mut kept, mut shared) = (Vec::new(), HashMap::new());
        loop {
            match wire.receive()? {
                Some((ToDaemon::Kept(entry), descriptors)) => {
                    kept.extend(whole(*entry, descriptors, !returned))
                }
                Some((ToDaemon::Shared(what), descriptors)) => {
                    shared.extend(descriptors.into_iter().next().map(|memory| (what, memory)));
                }
                Some((ToDaemon::Done, _)) => break,
                _ => return Err(nonsense()),
            }
        }
        let keeper = Self { wire, lost: AtomicBool::new(false) };
        if let (true, Some(key)) = (fresh, stored.key) {
            keeper.wire.send(&ToKeeper::Key(key), &[])?;
            for kept in &stored.kept {
                keeper.keep(&kept.keeping());
            }
            for (&what, memory) in &stored.shared {
                keeper.share(what, memory.as_fd());
            }
            return Ok(Beginning { keeper, key, kept: stored.kept, shared: stored.shared, returned: true });
        }
        Ok(Beginning { keeper, key, kept, shared, returned })
    }

    /// The daemon ends in order.
    pub fn farewell(&self) {
        let _ = self.wire.send(&ToKeeper::Farewell, &[]);
    }

    fn tell(&self, message: &ToKeeper, descriptors: &[BorrowedFd<'_>]) {
        let result = self.wire.offer(message, descriptors);
        if let Err(e) = result
            && !self.lost.swap(true, Ordering::Relaxed)
        {
            tracing::error!("the keeper of arenas does not answer ({e}): a restart will lose what is open");
        }
    }
}

impl Keep for Keeper {
    fn keep(&self, arena: &Keeping<'_>) {
        let facts = arena.facts.clone();
        let entry = Entry {
            id: arena.id,
            uid: arena.uid,
            watched: arena.watched,
            process: facts.process,
            ppid: facts.ppid,
            starttime: facts.starttime,
            net_namespace: facts.net_namespace,
            nspid: facts.nspid,
        };
        self.tell(&ToKeeper::Keep(Box::new(entry)), &[arena.memfd, arena.pidfd]);
    }

    fn forget(&self, id: ArenaId) {
        self.tell(&ToKeeper::Forget(id), &[]);
    }

    fn share(&self, what: Shared, memory: BorrowedFd<'_>) {
        self.tell(&ToKeeper::Share(what), &[memory]);
    }
}

fn whole(entry: Entry, descriptors: Vec<OwnedFd>, said: bool) -> Option<Kept> {
    let [memfd, pidfd]: [OwnedFd; 2] = descriptors.try_into().ok()?;
    let Entry { id, uid, watched, process, ppid, starttime, net_namespace, nspid } = entry;
    let facts = Facts { process, ppid, starttime, net_namespace, nspid, converts: true, ..Facts::default() };
    Some(Kept { id, uid, watched, facts, memfd, pidfd, said })
}

/// Starts a keeper, in a process group of its own: a terminal's interrupt is not for it. Nothing of
/// ours stays open in it, or who waits for the end of our output would wait for it.
fn start(state: &Path) -> io::Result<Wire> {
    let (ours, theirs) = Wire::pair()?;
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    Command::new(program)
        .arg(holder::COMMAND)
        .arg(state)
        .stdin(theirs)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()?;
    Ok(ours)
}
