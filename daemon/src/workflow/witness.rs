//! Who writes to the files of a workflow, observed or not: fanotify(7).
//!
//! Comes in: folders. Goes out: [`Done`], as soon as somebody wrote to a file in one of them. Called by
//! `watcher`. Takes CAP_SYS_ADMIN; without it there is no witness, changes are found all the same, and by whom is
//! known only of observed processes.

use super::Done;
use crate::host::facts::{Proc, path_text};
use crate::model::Process;
use jiff::Timestamp;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// struct fanotify_event_metadata, FAN_EVENT_METADATA_LEN.
const EVENT: usize = 24;
/// Folders that are marked.
const FOLDERS: usize = 1000;
/// So many events at once are a busy folder: they are let gather, so that writers are not slowed by us.
const MANY: usize = 64;
const GATHER: Duration = Duration::from_millis(50);

pub(super) struct Witness {
    fan: Arc<OwnedFd>,
    stop: Arc<OwnedFd>,
    marked: HashSet<PathBuf>,
}

impl Witness {
    /// Starts listening; `hear` gets what was seen, on a thread of its own.
    pub(super) fn start(proc: Arc<dyn Proc>, hear: impl Fn(Done) + Send + 'static) -> io::Result<Self> {
        let flags = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
        // The descriptors that come with events: a FIFO must not block us.
        let files = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_LARGEFILE | libc::O_NOATIME;
        // SAFETY: numbers only.
        let fd = unsafe { libc::fanotify_init(flags, files as libc::c_uint) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else's.
        let fan = Arc::new(unsafe { OwnedFd::from_raw_fd(fd) });
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (theirs, end) = (Arc::clone(&fan), Arc::clone(&stop));
        std::thread::Builder::new()
            .name("witness".into())
            .spawn(move || listen(&theirs, &end, proc.as_ref(), &hear))?;
        Ok(Self { fan, stop, marked: HashSet::new() })
    }

    /// Listens to these folders, and to no others.
    pub(super) fn mark(&mut self, folders: &HashSet<PathBuf>) {
        let gone: Vec<PathBuf> = self.marked.difference(folders).cloned().collect();
        for folder in gone {
            let _ = self.change(libc::FAN_MARK_REMOVE, &folder);
            self.marked.remove(&folder);
        }
        for folder in folders {
            // A folder that was made anew has no mark any more, and marking twice does nothing.
            if (self.marked.contains(folder) || self.marked.len() < FOLDERS)
                && self.change(libc::FAN_MARK_ADD | libc::FAN_MARK_ONLYDIR, folder).is_ok()
            {
                self.marked.insert(folder.clone());
            }
        }
    }

    fn change(&self, flags: libc::c_uint, folder: &Path) -> io::Result<()> {
        let path = CString::new(folder.as_os_str().as_bytes())?;
        let what = libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE | libc::FAN_EVENT_ON_CHILD;
        // SAFETY: a C string that outlives the call; the rest are numbers.
        let done =
            unsafe { libc::fanotify_mark(self.fan.as_raw_fd(), flags, what, libc::AT_FDCWD, path.as_ptr()) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Witness {
    /// The thread ends by itself: it may be at a file system that doesn't answer.
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
    }
}

fn listen(fan: &OwnedFd, stop: &OwnedFd, proc: &dyn Proc, hear: &dyn Fn(Done)) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let mut ready = [PollFd::new(fan, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) if !ready[1].revents().is_empty() => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let Ok(length) = rustix::io::read(fan, &mut buffer) else { continue };
        let mut events = 0;
        let mut rest = &buffer[..length];
        while let Some((event, size)) = event(rest) {
            rest = rest.get(size..).unwrap_or_default();
            events += 1;
            if let Some(done) = event.and_then(|e| done(e, proc)) {
                hear(done);
            }
        }
        if events > MANY {
            std::thread::sleep(GATHER);
        }
    }
}

struct Event {
    file: OwnedFd,
    pid: u32,
}

/// The first event, if it has a file, and its length.
fn event(bytes: &[u8]) -> Option<(Option<Event>, usize)> {
    let four = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let size = four(0)? as usize;
    if size < EVENT || bytes.len() < EVENT {
        return None;
    }
    let (fd, pid) = (four(16)? as i32, four(20)?);
    // FAN_NOFD: the queue was full, and something was lost.
    if fd < 0 {
        return Some((None, size));
    }
    // SAFETY: the kernel put this descriptor into our table with this event, which is read once.
    Some((Some(Event { file: unsafe { OwnedFd::from_raw_fd(fd) }, pid }), size))
}

fn done(event: Event, proc: &dyn Proc) -> Option<Done> {
    if event.pid == std::process::id() {
        return None;
    }
    // First who: a short command is gone in a moment.
    let process = proc.facts(event.pid).map(|f| f.process);
    let process = process.unwrap_or_else(|| Process { pid: event.pid, ..Process::default() });
    let stat = rustix::fs::fstat(&event.file).ok()?;
    let name = std::fs::read_link(format!("/proc/self/fd/{}", event.file.as_raw_fd())).ok()?;
    Some(Done {
        at: Timestamp::now(),
        path: path_text(name.as_os_str().as_bytes()),
        inode: Some((stat.st_dev, stat.st_ino)),
        process,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::facts::RealProc;

    #[test]
    fn an_unobserved_writer_is_named_even_through_a_rename() {
        let dir = tempfile::tempdir().unwrap();
        let folder = std::fs::canonicalize(dir.path()).unwrap();
        let (send, heard) = crossbeam::channel::unbounded();
        let witness = Witness::start(Arc::new(RealProc::default()), move |d| drop(send.send(d)));
        let mut witness = match witness {
            Ok(witness) => witness,
            Err(e) => return eprintln!("skipped: fanotify: {e}"),
        };
        witness.mark(&HashSet::from([folder.clone()]));
        let script = "echo x > .new; mv .new conf; sleep 1";
        let mut child =
            std::process::Command::new("sh").args(["-c", script]).current_dir(&folder).spawn().unwrap();
        let done = heard.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(done.process.pid, child.id());
        assert!(done.process.exe.is_some());
        child.wait().unwrap();
        let stat = rustix::fs::stat(folder.join("conf")).unwrap();
        assert_eq!(done.inode, Some((stat.st_dev, stat.st_ino)));
    }
}
