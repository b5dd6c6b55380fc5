//! `/proc/PID`, in few calls: a program that starts waits for them.
//!
//! Comes in: a pid. Goes out: its files and links as bytes and text, its ancestors, and users' names.
//! `facts` calls it. A directory of `/proc` that was opened names one process for good: when that
//! process is gone, every look through it fails, whoever has its pid then.

#![forbid(unsafe_code)]

use super::facts::path_text;
use crate::model::ProcessName;
use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::OwnedFd;

/// Parents told of, at most.
const MAX_PARENTS: usize = 8;
/// Ancestors and names remembered, at most: then all are forgotten.
const MAX_KNOWN: usize = 128;
/// Room to begin with: all but long argument lists fit.
const ROOM: usize = 8192;
/// No more of a file is read: a process chooses what its argument list is.
const LONGEST: usize = 4 << 20;

/// A process's directory.
#[derive(Debug)]
pub(super) struct Dir(OwnedFd);

impl Dir {
    pub(super) fn open(pid: u32) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).ok().map(Self)
    }

    /// A file's text, in `text`.
    pub(super) fn read<'t>(&self, name: &str, text: &'t mut Vec<u8>) -> Option<&'t [u8]> {
        let file = openat(&self.0, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        text.resize(ROOM, 0);
        text.shrink_to(ROOM);
        let mut filled = 0;
        loop {
            match rustix::io::read(&file, &mut text[filled..]) {
                Ok(got) => filled += got,
                Err(Errno::INTR) => continue,
                Err(_) => return None,
            }
            // These files are made whole at each read: what leaves room is all.
            if filled < text.len() || filled >= LONGEST {
                return Some(&text[..filled]);
            }
            text.resize(2 * filled, 0);
        }
    }

    pub(super) fn link(&self, name: &str) -> Result<String, Errno> {
        readlinkat(&self.0, name, Vec::with_capacity(256)).map(|link| path_text(link.as_bytes()))
    }

    /// Its program. One that was replaced while it runs (an upgrade) reads "/usr/sbin/nginx (deleted)".
    pub(super) fn exe(&self) -> Result<String, Errno> {
        let path = self.link("exe")?;
        Ok(path.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(path))
    }

    /// Its effective user: whose the directory itself is, whatever may be hidden in it.
    pub(super) fn owner(&self) -> Option<u32> {
        rustix::fs::fstat(&self.0).ok().map(|stat| stat.st_uid)
    }

    /// Parent, session, and start time.
    pub(super) fn stat(&self, text: &mut Vec<u8>) -> Option<(u32, u32, u64)> {
        let stat = self.read("stat", text)?;
        // The name stands in parentheses and may hold anything, these included.
        let name_ends = stat.iter().rposition(|&b| b == b')')?;
        let rest = std::str::from_utf8(&stat[name_ends + 1..]).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let parent = fields.nth(1)?.parse().unwrap_or(0);
        let session = fields.nth(1)?.parse().unwrap_or(0);
        Some((parent, session, fields.nth(15)?.parse().ok()?))
    }
}

/// Who started whom, as last seen.
#[derive(Debug, Default)]
pub(super) struct Ancestry {
    known: HashMap<u32, Ancestor>,
    /// The number of the last one.
    last: u64,
}

#[derive(Debug)]
struct Ancestor {
    dir: Dir,
    /// Its name here: pids are used again.
    number: u64,
    /// Its parent's pid and number.
    parent: Option<(u32, u64)>,
    /// When it began, clock ticks since boot.
    starttime: Option<u64>,
}

impl Ancestry {
    /// A process and its ancestors. Of each that was seen before only the program is read, which
    /// changes by exec: as long as a parent lives, it stays the parent.
    pub(super) fn of(&mut self, mut pid: u32, text: &mut Vec<u8>) -> Vec<ProcessName> {
        let mut parents = Vec::new();
        let mut seen = self.look(pid, text);
        while pid > 0 && parents.len() < MAX_PARENTS {
            let Some((exe, number)) = seen else {
                parents.push(ProcessName { pid, exe: None });
                break;
            };
            parents.push(ProcessName { pid, exe });
            // The first of all has no parent.
            if pid == 1 {
                break;
            }
            let known = self.known.get(&pid).filter(|a| a.number == number).and_then(|a| a.parent);
            if let Some((parent, its_number)) = known {
                seen = self.look(parent, text);
                // A program that can be read belongs to a process that lives.
                if matches!(seen, Some((Some(_), number)) if number == its_number) {
                    pid = parent;
                    continue;
                }
            }
            let Some(parent) = self.parent(pid, text) else { break };
            seen = self.look(parent, text);
            // Asked again: that pid was the parent's all the while that it was looked at.
            if self.parent(pid, text) == Some(parent)
                && let (Some((_, number)), Some(child)) = (&seen, self.known.get_mut(&pid))
            {
                child.parent = Some((parent, *number));
            }
            pid = parent;
        }
        parents
    }

    /// When one of those that [`of`](Self::of) just gave began, clock ticks since boot.
    pub(super) fn starttime(&self, pid: u32) -> Option<u64> {
        self.known.get(&pid)?.starttime
    }

    fn parent(&self, pid: u32, text: &mut Vec<u8>) -> Option<u32> {
        Some(self.known.get(&pid)?.dir.stat(text)?.0)
    }

    /// A process's program and number; None if it is gone.
    fn look(&mut self, pid: u32, text: &mut Vec<u8>) -> Option<(Option<String>, u64)> {
        if let Some(known) = self.known.get(&pid) {
            match known.dir.exe() {
                Ok(exe) => return Some((Some(exe), known.number)),
                // It may live, and is not ours to look at.
                Err(Errno::ACCESS) => return Some((None, known.number)),
                Err(_) => {}
            }
        }
        self.known.remove(&pid);
        let dir = Dir::open(pid)?;
        let exe = dir.exe().ok();
        let starttime = dir.stat(text).map(|(.., starttime)| starttime);
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.last += 1;
        self.known.insert(pid, Ancestor { dir, number: self.last, parent: None, starttime });
        Some((exe, self.last))
    }
}

const PASSWD: &str = "/etc/passwd";

/// Names from `/etc/passwd`, read again when that file has changed.
#[derive(Debug, Default)]
pub(super) struct UserNames {
    /// Which file it was: inode, size, and time of its last change.
    file: Option<(u64, i64, i64, u64)>,
    names: HashMap<u32, Option<String>>,
}

impl UserNames {
    pub(super) fn of(&mut self, uid: u32) -> Option<String> {
        let stat = rustix::fs::stat(PASSWD).ok();
        let file = stat.map(|s| (s.st_ino, s.st_size, s.st_mtime, s.st_mtime_nsec));
        if file != self.file || self.names.len() >= MAX_KNOWN {
            (self.file, self.names) = (file, HashMap::new());
        }
        self.names.entry(uid).or_insert_with(|| user_name(uid)).clone()
    }
}

/// A user's name, looked up now.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string(PASSWD).ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    fn sleeper() -> Child {
        // Its name is none that is easily taken apart.
        let mut command = Command::new("/bin/sh");
        command.arg0("a ) b").args(["-c", "read x; exec cat"]).stdin(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn ancestors_seen_before_are_still_asked_what_they_run() {
        let (mut ancestry, mut text) = (Ancestry::default(), Vec::new());
        let mut child = sleeper();
        let own = std::process::id();
        let first = ancestry.of(child.id(), &mut text);
        assert_eq!((first[0].pid, first[1].pid), (child.id(), own));
        assert_eq!(first[1].exe.as_deref(), std::env::current_exe().unwrap().to_str());
        assert_eq!(ancestry.of(child.id(), &mut text), first);
        assert!(ancestry.known[&child.id()].parent.is_some());
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while ancestry.of(child.id(), &mut text)[0].exe == first[0].exe {
            assert!(std::time::Instant::now() < deadline, "another program now");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert_eq!(ancestry.of(child.id(), &mut text)[1..], first[1..]);
        child.kill().unwrap();
        child.wait().unwrap();
        let gone = ancestry.of(child.id(), &mut text);
        assert!(gone.len() == 1 && gone[0].exe.is_none() && !ancestry.known.contains_key(&child.id()));
    }

    #[test]
    fn whose_parent_ended_has_another_one() {
        let (mut ancestry, mut text) = (Ancestry::default(), Vec::new());
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "sleep 60 & echo $!; read x"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let mut line = String::new();
        let mut said = std::io::BufReader::new(shell.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        let orphan: u32 = line.trim().parse().unwrap();
        for _ in 0..2 {
            let parents = ancestry.of(orphan, &mut text);
            assert_eq!((parents[0].pid, parents[1].pid), (orphan, shell.id()));
        }
        let [began, its] = [shell.id(), orphan].map(|pid| ancestry.starttime(pid).unwrap());
        assert!(began <= its);
        shell.kill().unwrap();
        shell.wait().unwrap();
        let parents = ancestry.of(orphan, &mut text);
        let pid = rustix::process::Pid::from_raw(orphan as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        assert!(parents[0].pid == orphan && parents[1].pid != shell.id(), "{parents:?}");
    }

    #[test]
    fn a_long_argument_list_is_read_to_its_bound() {
        let long = "x".repeat(100_000);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "echo; read x; :", &long, &long]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        // A program that runs has all its arguments; the kernel releases us a little before that.
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let dir = Dir::open(child.id()).unwrap();
        let mut text = Vec::new();
        assert!(dir.read("cmdline", &mut text).unwrap().len() > 200_000);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(dir.read("stat", &mut text), None, "gone for good");
    }
}
