//! What is known about a process.
//!
//! Comes in: a pid, and the word of `/proc` about it. Goes out: [`Facts`], for the watch decision
//! at hello and for the ends of transfers, and who holds which descriptor. `listen` and `assemble`
//! call it through the [`Proc`] trait, the seam where tests put their own.

#![forbid(unsafe_code)]

use super::dir::{Ancestry, Dir, UserNames};
use crate::model::Process;
use crate::rest::User;
use counterfoil_abi::record::Address;
use jiff::Timestamp;
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Descendants looked at, at most.
const MAX_DESCENDANTS: usize = 4096;

/// What `/proc` said about a process when it said hello.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The outward part: pid, exe, argv (redacted), cwd, uid, user, session, unit, parents.
    pub process: Process,
    /// Its parent then.
    pub ppid: u32,
    /// Start time in clock ticks since boot: with the pid it names a process for good.
    pub starttime: u64,
    /// When it began, monotonic nanoseconds; 0: not known.
    pub began: u64,
    /// When each of its parents did: what has a parent's number, and began later than that was last heard of, is another.
    pub parents_began: Vec<u64>,
    /// Inode of its network namespace.
    pub net_namespace: Option<u64>,
    /// Its pid in each nested pid namespace, the daemon's first.
    pub nspid: Vec<u32>,
    /// It was told to convert what passes through it, by what its arguments were before they were redacted.
    pub converts: bool,
    /// Its arguments as they are, for who looks for files in them; never kept in a ledger or shown.
    pub arguments: Arc<[String]>,
    /// Whose rights it had when it said hello, further groups left out; None: not known any more.
    pub rights: Option<User>,
}

/// What the daemon does with a process that says hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Full manifests.
    Watched,
    /// Counts only.
    Unwatched,
    /// Not observed at all.
    Declined,
}

/// Decides about each process at hello. It must be quick: the program waits for it.
pub type WatchDecision = Arc<dyn Fn(&Facts) -> Watch + Send + Sync>;

/// Takes secrets out of an argument list.
pub type Redactor = Arc<dyn Fn(Vec<String>) -> Vec<String> + Send + Sync>;

/// How a descriptor was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// It can be read from.
    pub reads: bool,
    /// It can be written to.
    pub writes: bool,
}

/// What names a socket, pipe or file on a host: device and inode.
pub type Inode = (u64, u64);

/// What the kernel says about a TCP socket of a process.
#[derive(Clone, Copy, Debug)]
pub struct SocketFacts {
    /// Device and inode.
    pub inode: Inode,
    /// Its address.
    pub local: Address,
    /// Its peer's; version 0 while it is not connected.
    pub remote: Address,
    /// Bytes that the program sent, where the kernel tells.
    pub sent: Option<u64>,
    /// Bytes that the program received, where the kernel tells.
    pub received: Option<u64>,
}

/// The word of `/proc`.
pub trait Proc: Send + Sync {
    /// All that is known of a process; None if it is gone.
    fn facts(&self, pid: u32) -> Option<Facts>;
    /// What its descriptor is; None if there is no such descriptor.
    fn descriptor(&self, pid: u32, fd: i32) -> Option<Inode>;
    /// Is any of its descriptors this one? None if that can't be read.
    fn holds(&self, pid: u32, what: Inode) -> Option<bool>;
    /// What its descriptors are, the first thousands of them.
    fn held(&self, _pid: u32) -> Vec<Inode> {
        Vec::new()
    }
    /// How the descriptor was opened.
    fn access(&self, pid: u32, fd: i32) -> Option<Access>;
    /// How this was opened; None if the descriptor is something else by now, for which its number was used again.
    fn access_to(&self, pid: u32, fd: i32, what: Inode) -> Option<Access> {
        // In this order: what it is afterwards it was when it was asked about.
        self.access(pid, fd).filter(|_| self.descriptor(pid, fd) == Some(what))
    }
    /// What a path leads to, and when that was made, nanoseconds of the realtime clock; None: not every file system knows.
    fn made(&self, _path: &Path) -> Option<(Inode, u64)> {
        None
    }
    /// Living children of a process, and theirs.
    fn descendants(&self, pid: u32) -> Vec<u32>;
    /// A process's TCP socket; None if it is none, or can't be had.
    fn socket(&self, pid: u32, fd: i32) -> Option<SocketFacts>;
    /// The inode of a Unix socket's peer.
    fn unix_peer(&self, inode: u64) -> Option<u64>;
    /// Inodes of the TCP and Unix sockets that somebody has in a process's network namespace; None if that can't be read.
    fn sockets(&self, _pid: u32) -> Option<HashSet<u64>> {
        None
    }
    /// Does a thread of a process exist?
    fn thread_lives(&self, pid: u32, tid: u32) -> bool;
    /// Does a process have a thread that its own namespace calls `tid`?
    fn nested_thread_lives(&self, pid: u32, tid: u32) -> bool;
    /// A process's pids, in the daemon's namespace first.
    fn nspid(&self, pid: u32) -> Option<Vec<u32>>;
}

/// What need not be asked twice.
#[derive(Debug, Default)]
struct Known {
    /// Room to read into.
    text: Vec<u8>,
    ancestry: Ancestry,
    names: UserNames,
}

/// The real one.
#[derive(Debug)]
pub struct RealProc {
    ticks: u64,
    boot: Option<u64>,
    /// Our own.
    pid_namespace: Option<String>,
    known: Mutex<Known>,
}

impl Default for RealProc {
    fn default() -> Self {
        let boot = std::fs::read_to_string("/proc/stat").ok().and_then(|stat| {
            stat.lines().find_map(|l| l.strip_prefix("btime ")).and_then(|t| t.trim().parse().ok())
        });
        let pid_namespace = Dir::open(std::process::id()).and_then(|own| own.link("ns/pid").ok());
        Self { ticks: procfs::ticks_per_second().max(1), boot, pid_namespace, known: Mutex::default() }
    }
}

impl Proc for RealProc {
    fn facts(&self, pid: u32) -> Option<Facts> {
        let dir = Dir::open(pid)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Known { text, ancestry, names } = &mut *known;
        let (ppid, session, starttime) = dir.stat(text)?;
        let nspid = match dir.link("ns/pid") {
            // Without a namespace of its own it has one pid, the one that we know.
            Ok(namespace) if self.pid_namespace.as_ref() == Some(&namespace) => vec![pid],
            _ => nspid(dir.read("status", text).unwrap_or_default()),
        };
        let uid = dir.owner();
        let parents = ancestry.of(ppid, text);
        let parents_began =
            parents.iter().map(|p| ancestry.starttime(p.pid).map_or(0, |t| self.moment(t))).collect();
        let (unit, container) = unit_and_container(dir.read("cgroup", text).unwrap_or_default());
        let process = Process {
            pid,
            started: self.started(starttime),
            exe: dir.exe().ok(),
            sha256: None,
            package: None,
            argv: dir.read("cmdline", text).map(arguments),
            cwd: dir.link("cwd").ok(),
            uid,
            user: uid.and_then(|uid| names.of(uid)),
            session: Some(session),
            unit,
            container,
            parents,
        };
        let net_namespace = dir.link("ns/net").ok().and_then(|link| number_in(&link));
        Some(Facts {
            process,
            ppid,
            starttime,
            began: self.moment(starttime),
            parents_began,
            net_namespace,
            nspid,
            rights: None,
            converts: false,
            arguments: Arc::default(),
        })
    }

    fn descriptor(&self, pid: u32, fd: i32) -> Option<Inode> {
        inode(Path::new(&format!("/proc/{pid}/fd/{fd}")))
    }

    fn held(&self, pid: u32) -> Vec<Inode> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
        entries.take(4096).flatten().filter_map(|entry| inode(&entry.path())).collect()
    }

    fn holds(&self, pid: u32, what: Inode) -> Option<bool> {
        let mut entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.take(65536).flatten();
        Some(entries.any(|e| inode(&e.path()) == Some(what)))
    }

    fn access(&self, pid: u32, fd: i32) -> Option<Access> {
        // The link's own permissions say it: "lr-x------" can be read from.
        let mode = rustix::fs::lstat(format!("/proc/{pid}/fd/{fd}")).ok()?.st_mode;
        Some(Access { reads: mode & 0o400 != 0, writes: mode & 0o200 != 0 })
    }

    fn made(&self, path: &Path) -> Option<(Inode, u64)> {
        use rustix::fs::{CWD, StatxFlags, makedev, statx};
        let found = statx(CWD, path, at_once(), StatxFlags::BTIME | StatxFlags::INO).ok()?;
        if found.stx_mask & StatxFlags::BTIME.bits() == 0 {
            return None;
        }
        let seconds = u64::try_from(found.stx_btime.tv_sec).ok()?;
        let time = seconds.checked_mul(1_000_000_000)?.checked_add(u64::from(found.stx_btime.tv_nsec))?;
        Some(((makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino), time))
    }

    fn descendants(&self, pid: u32) -> Vec<u32> {
        let mut found = Vec::new();
        let mut look = vec![pid];
        while let Some(parent) = look.pop() {
            let Ok(tasks) = std::fs::read_dir(format!("/proc/{parent}/task")) else { continue };
            for task in tasks.flatten() {
                let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
                for child in children.split_whitespace().filter_map(|c| c.parse().ok()) {
                    if found.len() >= MAX_DESCENDANTS {
                        return found;
                    }
                    found.push(child);
                    look.push(child);
                }
            }
        }
        found
    }

    fn socket(&self, pid: u32, fd: i32) -> Option<SocketFacts> {
        super::kernel::socket(pid, fd)
    }

    fn unix_peer(&self, inode: u64) -> Option<u64> {
        super::kernel::unix_peer(inode)
    }

    fn sockets(&self, pid: u32) -> Option<HashSet<u64>> {
        super::kernel::sockets(pid)
    }

    fn thread_lives(&self, pid: u32, tid: u32) -> bool {
        Path::new(&format!("/proc/{pid}/task/{tid}")).exists()
    }

    fn nested_thread_lives(&self, pid: u32, tid: u32) -> bool {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
        tasks.flatten().any(|task| {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let pids = status.lines().find_map(|l| l.strip_prefix("NSpid:")).unwrap_or_default();
            pids.split_whitespace().next_back().and_then(|n| n.parse().ok()) == Some(tid)
        })
    }

    fn nspid(&self, pid: u32) -> Option<Vec<u32>> {
        let mut text = Vec::new();
        Some(nspid(Dir::open(pid)?.read("status", &mut text)?)).filter(|all| !all.is_empty())
    }
}

impl RealProc {
    /// Clock ticks since boot as monotonic nanoseconds.
    fn moment(&self, ticks: u64) -> u64 {
        use rustix::time::{ClockId, clock_gettime};
        let nanos = |clock| {
            let t = clock_gettime(clock);
            i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec)
        };
        let asleep = nanos(ClockId::Boottime) - nanos(ClockId::Monotonic);
        let since_boot = i128::from(ticks) * 1_000_000_000 / i128::from(self.ticks);
        u64::try_from(since_boot - asleep).unwrap_or(0)
    }

    fn started(&self, starttime: u64) -> Option<Timestamp> {
        let millis = starttime.checked_mul(1000)? / self.ticks;
        Timestamp::from_millisecond(i64::try_from(self.boot?.checked_mul(1000)?.checked_add(millis)?).ok()?)
            .ok()
    }
}

/// The links in `/proc/PID/fd` lead to the open file itself, a socket or pipe included.
fn inode(path: &Path) -> Option<Inode> {
    use rustix::fs::{CWD, StatxFlags, makedev, statx};
    let found = statx(CWD, path, at_once(), StatxFlags::INO).ok()?;
    Some((makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino))
}

/// What the kernel knows already: who serves a file system may never answer, and nothing is mounted for us.
fn at_once() -> rustix::fs::AtFlags {
    rustix::fs::AtFlags::STATX_DONT_SYNC | rustix::fs::AtFlags::NO_AUTOMOUNT
}

/// A path as text: invalid UTF-8 as `\xNN`.
pub fn path_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// The pid in each namespace, from `/proc/PID/status`.
fn nspid(status: &[u8]) -> Vec<u32> {
    let pids = status.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"));
    let pids = std::str::from_utf8(pids.unwrap_or_default()).unwrap_or_default();
    pids.split_whitespace().filter_map(|n| n.parse().ok()).collect()
}

/// The argument list, from `/proc/PID/cmdline`.
fn arguments(cmdline: &[u8]) -> Vec<String> {
    cmdline.split(|&b| b == 0).filter(|a| !a.is_empty()).map(path_text).collect()
}

fn number_in(link: &str) -> Option<u64> {
    link.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

/// systemd's unit, and a container's id, from the cgroup path: best effort.
fn unit_and_container(cgroup: &[u8]) -> (Option<String>, Option<String>) {
    let cgroup = String::from_utf8_lossy(cgroup);
    let path = cgroup.lines().next_back().and_then(|l| l.splitn(3, ':').nth(2)).unwrap_or_default();
    let parts = || path.split('/').filter(|p| !p.is_empty());
    let unit = parts().rfind(|p| p.ends_with(".service") || p.ends_with(".scope")).map(str::to_owned);
    let container = parts().find_map(|p| {
        let name = p.strip_suffix(".scope").unwrap_or(p);
        let id = name.rsplit('-').next().unwrap_or(name);
        (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id[..12].to_owned())
    });
    (unit, container)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_this_process() {
        let proc = RealProc::default();
        let pid = std::process::id();
        let facts = proc.facts(pid).unwrap();
        assert_eq!(facts.process.pid, pid);
        assert_eq!(facts.process.exe.as_deref(), std::env::current_exe().unwrap().to_str());
        assert_eq!(Some(facts.nspid.clone()), proc.nspid(pid));
        assert_eq!(facts.nspid[0], pid);
        assert_eq!(facts.process.uid, Some(rustix::process::geteuid().as_raw()));
        assert_eq!(facts.process.argv, Some(std::env::args().collect()));
        assert!(facts.net_namespace.is_some());
        assert_eq!(facts.process.parents[0].pid, facts.ppid);
        assert!(facts.process.started.unwrap() <= Timestamp::now());
    }

    #[test]
    fn knows_who_holds_what() {
        use std::os::fd::AsRawFd;
        let proc = RealProc::default();
        let pid = std::process::id();
        let (reader, writer) = std::io::pipe().unwrap();
        let stat = rustix::fs::fstat(&reader).unwrap();
        let pipe = (stat.st_dev, stat.st_ino);
        assert_eq!(proc.descriptor(pid, reader.as_raw_fd()), Some(pipe));
        assert_eq!(proc.holds(pid, pipe), Some(true));
        assert_eq!(proc.holds(pid, (pipe.0, u64::MAX)), Some(false));
        assert_eq!(proc.access(pid, reader.as_raw_fd()), Some(Access { reads: true, writes: false }));
        assert_eq!(proc.access(pid, writer.as_raw_fd()), Some(Access { reads: false, writes: true }));
        assert!(proc.access_to(pid, writer.as_raw_fd(), pipe).is_some());
        assert_eq!(proc.access_to(pid, writer.as_raw_fd(), (pipe.0, u64::MAX)), None, "something else");
        assert_eq!(proc.descriptor(pid, 1 << 30), None);
    }

    #[test]
    fn reads_units_and_containers() {
        let docker = format!("0::/system.slice/docker-{}.scope\n", "ab".repeat(32));
        assert_eq!(unit_and_container(docker.as_bytes()).1.as_deref(), Some("abababababab"));
        let unit = unit_and_container(b"0::/system.slice/nginx.service\n");
        assert_eq!(unit, (Some("nginx.service".into()), None));
        assert_eq!(unit_and_container(b""), (None, None));
        assert_eq!(path_text(b"/a\xffb"), "/a\\xffb");
    }
}
