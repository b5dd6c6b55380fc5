//! systemd's descriptor store: arenas outlive a restart of the whole service.
//!
//! Comes in, at the end of a life: arenas, from the keeper's process, which may wait for systemd. Goes
//! out, at the beginning of the next: the same, from the descriptors that systemd passes
//! (sd_listen_fds(3)). A name carries what must be known of an arena; the rest is asked from `/proc`
//! again, if the process is still the same.

use super::Entry;
use crate::host::facts::{Facts, Proc, RealProc};
use crate::host::keep::{Kept, Shared};
use crate::model::Process;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sd_notify::NotifyState;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// The name of the key's descriptor; names of arenas begin with it, too.
const NAME: &str = "counterfoil";

/// What an earlier life left.
#[derive(Default)]
pub(super) struct Stored {
    pub(super) key: Option<[u8; 16]>,
    pub(super) kept: Vec<Kept>,
    pub(super) shared: HashMap<Shared, OwnedFd>,
}

/// Takes what systemd passes. To be called once, before anything else opens descriptors.
pub(super) fn take() -> Stored {
    let mut stored = Stored::default();
    let Ok(passed) = sd_notify::listen_fds_with_names() else { return stored };
    for (fd, name) in passed {
        // SAFETY: systemd opened it for this process (LISTEN_PID is ours), and this function, which is
        // called once, is the only one that takes it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if name == NAME {
            let mut key = [0; 16];
            if rustix::io::pread(&fd, &mut key, 0) == Ok(16) {
                stored.key = Some(key);
            }
        } else if let Some(what) = shared(&name) {
            stored.shared.insert(what, fd);
        } else {
            stored.kept.extend(arena(&name, fd));
        }
    }
    // Tags of another key are not comparable: without the key the arenas are worth nothing.
    if stored.key.is_none() {
        stored.kept.clear();
    }
    stored
}

fn name(entry: &Entry) -> String {
    let Entry { id, uid, watched, starttime, .. } = entry;
    format!("{NAME}-{id}-{uid}-{}-{}-{starttime}", u8::from(*watched), entry.process.pid)
}

fn name_of_shared(what: Shared) -> String {
    match what {
        Shared::Matcher => format!("{NAME}-matcher"),
        Shared::Board(uid) => format!("{NAME}-board-{uid}"),
    }
}

fn shared(name: &str) -> Option<Shared> {
    match name.strip_prefix(NAME)?.strip_prefix('-')? {
        "matcher" => Some(Shared::Matcher),
        other => other.strip_prefix("board-")?.parse().ok().map(Shared::Board),
    }
}

fn arena(name: &str, memfd: OwnedFd) -> Option<Kept> {
    let numbers: Vec<u64> = name
        .strip_prefix(NAME)?
        .strip_prefix('-')?
        .split('-')
        .map(|n| n.parse().ok())
        .collect::<Option<_>>()?;
    let [id, uid, watched, pid, starttime] = numbers[..] else { return None };
    let (uid, pid) = (u32::try_from(uid).ok()?, u32::try_from(pid).ok()?);
    let alive = RealProc::default().facts(pid).filter(|f| f.starttime == starttime).and_then(|f| {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        Some((f, pidfd_open(pid, PidfdFlags::empty()).ok()?))
    });
    let (mut facts, pidfd) = match alive {
        Some(found) => found,
        None => {
            let process = Process { pid, uid: Some(uid), ..Process::default() };
            // Readable from the start, as a dead process's pidfd is.
            let gone = eventfd(1, EventfdFlags::CLOEXEC).ok()?;
            (Facts { process, starttime, ..Facts::default() }, gone)
        }
    };
    // What may be kept of it was decided by the daemon that first saw it.
    facts.process.argv = None;
    Some(Kept { id, uid, watched: watched != 0, facts, memfd, pidfd, said: false })
}

/// The keeper's hand on the store. Where there is no systemd every call does nothing.
pub(super) struct Store {
    there: bool,
}

impl Store {
    /// The store of this service.
    pub(super) fn new() -> Self {
        Self { there: std::env::var_os("NOTIFY_SOCKET").is_some_and(|s| !s.is_empty()) }
    }

    /// There is one.
    pub(super) fn there(&self) -> bool {
        self.there
    }

    /// Stores the key.
    pub(super) fn key(&self, key: &[u8; 16]) {
        let stored = || {
            let fd = memfd_create(NAME, MemfdFlags::CLOEXEC)?;
            rustix::io::write(&fd, key)?;
            // An earlier one may be there.
            self.tell("FDSTOREREMOVE=1", NAME, &[])?;
            self.tell("FDSTORE=1", NAME, &[fd.as_fd()])
        };
        let _: io::Result<()> = stored();
    }

    /// Stores an arena.
    pub(super) fn keep(&self, entry: &Entry, memfd: BorrowedFd<'_>) {
        let _ = self.tell("FDSTORE=1", &name(entry), &[memfd]);
    }

    /// Stores a memory that programs share, in the place of an earlier one.
    pub(super) fn share(&self, what: Shared, memory: BorrowedFd<'_>) {
        self.unshare(what);
        let _ = self.tell("FDSTORE=1", &name_of_shared(what), &[memory]);
    }

    /// Takes it out.
    pub(super) fn unshare(&self, what: Shared) {
        let _ = self.tell("FDSTOREREMOVE=1", &name_of_shared(what), &[]);
    }

    /// Takes one out.
    pub(super) fn forget(&self, entry: &Entry) {
        let _ = self.tell("FDSTOREREMOVE=1", &name(entry), &[]);
    }

    fn tell(&self, what: &str, name: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if !self.there {
            return Ok(());
        }
        let state = [NotifyState::Custom(what), NotifyState::FdName(name)];
        if descriptors.is_empty() {
            sd_notify::notify(&state)
        } else {
            sd_notify::notify_with_fds(&state, descriptors)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_carries_what_must_be_known() {
        let pid = std::process::id();
        let starttime = RealProc::default().facts(pid).unwrap().starttime;
        let process = Process { pid, ..Process::default() };
        let entry = Entry {
            id: 77,
            uid: 1000,
            watched: true,
            process,
            ppid: 0,
            starttime,
            net_namespace: None,
            nspid: vec![],
        };
        let memfd = || memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        let kept = arena(&name(&entry), memfd()).unwrap();
        assert_eq!((kept.id, kept.uid, kept.watched), (77, 1000, true));
        assert_eq!((kept.facts.process.pid, kept.facts.starttime), (pid, starttime));
        assert!(kept.facts.process.exe.is_some(), "it still runs");
        assert_eq!(kept.facts.process.argv, None);
        // Another process has this pid now.
        let kept = arena(&name(&Entry { starttime: starttime + 1, ..entry }), memfd()).unwrap();
        assert_eq!(kept.facts.process.exe, None);
        let mut ready = [rustix::event::PollFd::new(&kept.pidfd, rustix::event::PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut ready, Some(&rustix::event::Timespec::default())), Ok(1), "gone");
        for other in ["", "counterfoil-", "counterfoil-1-2-3", "other-1-2-3-4-5", "counterfoil-a-b-c-d-e"] {
            assert!(arena(other, memfd()).is_none(), "{other}");
            assert!(shared(other).is_none(), "{other}");
        }
        for what in [Shared::Matcher, Shared::Board(0), Shared::Board(65_534)] {
            assert_eq!(shared(&name_of_shared(what)), Some(what));
        }
    }
}
