//! The thread that looks for the sensitive files, and reads them.
//!
//! Comes in: the [`Paths`], and the file system, watched. Goes out: what is [`Known`]. It looks again when something changes in
//! the files' folders; it reads small ones, so that their content is known wherever it passes. What a user puts where his own
//! sensitive files are expected counts only where it is his.
#![forbid(unsafe_code)]

use super::{Held, Known, Secret, Version};
use crate::sensitive::folders::{Folders, Lister};
use crate::sensitive::index::{Index, PRINTS, Printer};
use crate::sensitive::memory::Memory;
use crate::sensitive::paths::Paths;
use crate::sensitive::readers;
use crate::tags::Tagger;
use counterfoil_abi::BLOCK;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// Files known.
const FILES: usize = 20_000;
/// Of one folder, where common text is looked for.
const OF_ONE: usize = 200;
/// Larger ones are known by their place only.
const LARGEST: u64 = 1 << 20;
/// Of which observed processes are told.
const TOLD: usize = 3_000;
/// Bytes read of all of them together.
const ALL: u64 = 64 << 20;
/// Bytes read of what lies beside them.
const BESIDE: usize = 16 << 20;
/// Folders in which common text is looked for.
const FOLDERS: usize = 4096;
/// How often it is looked again, whatever the folders say.
const AGAIN: Duration = Duration::from_secs(60);
/// Changes come in crowds.
const CROWD: Duration = Duration::from_millis(10);
/// And what happens to other files in the same folders is listened to so often.
const NOISE: Duration = Duration::from_millis(100);

fn version(meta: &Metadata) -> Version {
    (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ctime_nsec())
}

/// The thread. Ends when dropped.
pub struct Keeper {
    /// What it finds.
    pub known: Arc<Known>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Looks for the files once, then goes on in a thread of its own. `memory`: where programs are told.
    ///
    /// # Errors
    /// No eventfd, or no thread.
    pub fn start(
        paths: Paths,
        keys: Option<(Tagger, Printer)>,
        memory: Option<Arc<Memory>>,
    ) -> std::io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (tagger, printer) = keys.unzip();
        let known = Arc::new(Known {
            paths: RwLock::new(Arc::new(paths)),
            held: RwLock::default(),
            index: RwLock::default(),
            printer,
            memory,
            also: Mutex::default(),
            generation: AtomicU64::new(1),
            unread: AtomicBool::new(true),
            asked: Mutex::default(),
            reconfigured: AtomicBool::new(false),
            altered: RwLock::default(),
            stop: AtomicBool::new(false),
            wake,
        });
        let mut look = Look { known: known.clone(), tagger: None, folders: None, common: None };
        // Where they are is known before anything runs; what they contain takes longer.
        look.again();
        look.tagger = tagger;
        let thread = std::thread::Builder::new().name("sensitive".into()).spawn(move || look.on())?;
        Ok(Self { known, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.known.stop.store(true, Ordering::Release);
        self.known.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What may still be read, and kept of it.
struct Room {
    bytes: u64,
    prints: usize,
}

struct Look {
    known: Arc<Known>,
    /// What tags content; None: it is not read yet.
    tagger: Option<Tagger>,
    folders: Option<Folders>,
    /// Prints of what is no secret; None: not looked for yet.
    common: Option<HashSet<u64>>,
}

impl Look {
    fn on(mut self) {
        loop {
            // Anew each time: folders come and go. The watches stand before the look, so that nothing is missed.
            self.known.reconfigured.store(false, Ordering::Release);
            let before = crate::core::worked();
            self.folders = Folders::watch(&self.known.paths());
            self.again();
            let took = Duration::from_nanos(crate::core::worked().saturating_sub(before));
            if !self.wait(AGAIN) {
                return;
            }
            // Folders that change all the time are not looked at all the time. Who has another configuration waits for
            // nothing.
            self.rest(CROWD.max(took * 20).min(AGAIN));
        }
    }

    /// Waits so long, or until there is another configuration, or it is over. Whatever else is wanted can wait.
    fn rest(&self, time: Duration) {
        let until = std::time::Instant::now() + time;
        let due =
            || self.known.reconfigured.load(Ordering::Acquire) || self.known.stop.load(Ordering::Acquire);
        while !due() {
            let left = until.saturating_duration_since(std::time::Instant::now());
            let mut wake = [PollFd::new(&self.known.wake, PollFlags::IN)];
            if left.is_zero() || poll(&mut wake, Timespec::try_from(left).ok().as_ref()).is_ok_and(|n| n == 0)
            {
                return;
            }
            let _ = rustix::io::read(&self.known.wake, &mut [0u8; 8]);
        }
    }

    /// Waits until something changed. False: it is over.
    fn wait(&self, longest: Duration) -> bool {
        let until = std::time::Instant::now() + longest;
        loop {
            if self.known.stop.load(Ordering::Acquire) {
                return false;
            }
            if self.known.reconfigured.load(Ordering::Acquire) {
                return true;
            }
            self.hold_programs();
            let left = until.saturating_duration_since(std::time::Instant::now());
            let mut fds = vec![PollFd::new(&self.known.wake, PollFlags::IN)];
            if let Some(folders) = &self.folders {
                fds.push(PollFd::new(folders.fd(), PollFlags::IN));
            }
            let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
            let stirred = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
            let woken = !fds[0].revents().is_empty();
            if woken {
                let _ = rustix::io::read(&self.known.wake, &mut [0u8; 8]);
                continue;
            }
            if left.is_zero() || stirred && self.folders.as_ref().is_some_and(Folders::changed) {
                return true;
            }
            if stirred {
                // Nothing that matters; but somebody is at work there, and each time costs a wake-up.
                std::thread::park_timeout(NOISE);
            }
        }
    }

    fn hold_programs(&self) {
        let asked = std::mem::take(&mut *self.known.asked.lock().unwrap_or_else(PoisonError::into_inner));
        for (program, sha256) in asked {
            let altered = readers::altered(&program, sha256.as_deref());
            let mut known = self.known.altered.write().unwrap_or_else(PoisonError::into_inner);
            if altered {
                known.insert(program)
            } else {
                known.remove(&program)
            };
        }
    }

    /// Looks for the files, and reads those that are new.
    fn again(&mut self) {
        let (paths, before) = (self.known.paths(), self.known.held());
        let mut held = Held::default();
        let mut room = Room { bytes: ALL, prints: PRINTS };
        let mut lister = Lister::default();
        for (pattern, home) in paths.to_look_for() {
            let found = lister.list(&pattern);
            if found.is_empty() {
                continue;
            }
            let owner = home.and_then(|home| std::fs::metadata(home).ok()).map(|m| m.uid());
            for path in found {
                if held.by_inode.len() >= FILES {
                    break;
                }
                let Some(secret) = self.secret(&path, owner, &paths, &before, &mut room) else { continue };
                let (device, inode, ..) = secret.version;
                if let Some(digest) = secret.sha256 {
                    held.by_digest.entry(digest).or_insert_with(|| secret.clone());
                }
                if let Some(first) = secret.first {
                    held.by_first.entry(first).or_insert_with(|| secret.clone());
                }
                held.by_inode.entry((device, inode)).or_insert(secret);
            }
        }
        if let Some(memory) = &self.known.memory {
            // The core wants the lock, too.
            let also = self.known.also.lock().unwrap_or_else(PoisonError::into_inner).clone();
            memory.hold(held.by_inode.keys().copied().take(TOLD).chain(also));
        }
        let held = Arc::new(held);
        *self.known.held.write().unwrap_or_else(PoisonError::into_inner) = held.clone();
        self.known.generation.fetch_add(1, Ordering::AcqRel);
        // This takes longer.
        self.index(&held);
        self.known.generation.fetch_add(1, Ordering::AcqRel);
        self.known.unread.store(self.tagger.is_none(), Ordering::Release);
    }

    /// The prints of all of them, less those of what lies beside them and is none.
    fn index(&mut self, held: &Held) {
        if self.tagger.is_none() {
            return;
        }
        let Some(printer) = self.known.printer.clone() else { return };
        let common = self.common.take().unwrap_or_else(|| {
            let mut room = BESIDE;
            let texts: Vec<Vec<u8>> = beside(held)
                .filter_map(|path| ordinary(&path, held))
                .take_while(|text| {
                    let fits = text.len() <= room;
                    room -= text.len().min(room);
                    fits
                })
                .collect();
            // A copy of a secret is no common text, wherever it lies.
            let secrets = || held.by_inode.values().map(|secret| &*secret.prints);
            let texts = texts.iter().filter(|text| {
                let own: HashSet<u64> = printer.prints(text).into_iter().map(|(_, print)| print).collect();
                secrets().all(|of| of.iter().filter(|(_, p)| own.contains(p)).count() * 2 <= of.len())
            });
            printer.common(texts.map(Vec::as_slice))
        });
        // In the order of their names, so that the same is always said.
        let mut secrets: Vec<&Arc<Secret>> = held.by_inode.values().collect();
        secrets.sort_by(|a, b| a.path.cmp(&b.path));
        let index = Index::of(secrets.into_iter(), &common);
        self.common = Some(common);
        *self.known.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(index);
    }

    fn secret(
        &self,
        path: &Path,
        owner: Option<u32>,
        paths: &Paths,
        before: &Held,
        room: &mut Room,
    ) -> Option<Arc<Secret>> {
        // A link may lead to what everyone reads: the file counts where it lies, and in a home only its user's.
        let name = path.to_str()?;
        let label = paths.of(name)?;
        let meta = std::fs::symlink_metadata(path).ok()?;
        let meta = if meta.is_symlink() && owner.is_none() { std::fs::metadata(path).ok()? } else { meta };
        if !meta.is_file() || owner.is_some_and(|owner| owner != meta.uid()) {
            return None;
        }
        let version = version(&meta);
        let read = self.tagger.is_some() && meta.len() > 0 && meta.len() <= LARGEST.min(room.bytes);
        if read {
            room.bytes -= meta.len();
        }
        let old = before.at((meta.dev(), meta.ino())).filter(|s| s.version == version && s.path == name);
        if let Some(old) = old.filter(|s| s.label == label && (!read || s.sha256.is_some())) {
            room.prints = room.prints.saturating_sub(old.prints.len());
            return Some(old.clone());
        }
        let content = read.then(|| content(path, version)).flatten();
        let first = content.as_ref().zip(self.tagger.as_ref()).map(|(content, tagger)| {
            let block = &content[..content.len().min(BLOCK as usize)];
            (block.len() as u32, tagger.tag(0, block))
        });
        let prints = content.as_ref().zip(self.known.printer.as_ref());
        let mut prints = prints.map_or_else(Vec::new, |(content, printer)| printer.prints(content));
        // What has no room is known by its place and digest only.
        if prints.len() > room.prints {
            prints = Vec::new();
        }
        room.prints -= prints.len();
        Some(Arc::new(Secret {
            path: name.to_owned(),
            label,
            owner: meta.uid(),
            sha256: content.as_ref().map(|content| Sha256::digest(content).into()),
            version,
            first,
            prints: prints.into(),
        }))
    }
}

/// Files that everyone has, and those that lie beside sensitive ones.
fn beside(held: &Held) -> impl Iterator<Item = PathBuf> {
    const EVERYONES: &[&str] = &["/etc/passwd", "/etc/group", "/etc/services", "/etc/ssh/ssh_config"];
    let folders: HashSet<&Path> =
        held.by_inode.values().filter_map(|secret| Path::new(&secret.path).parent()).collect();
    let mut folders: Vec<PathBuf> = folders.into_iter().map(Path::to_owned).collect();
    folders.push("/usr/share/common-licenses".into());
    let inside = folders.into_iter().take(FOLDERS).flat_map(|folder| {
        std::fs::read_dir(folder).into_iter().flatten().flatten().take(OF_ONE).map(|entry| entry.path())
    });
    EVERYONES.iter().map(PathBuf::from).chain(inside)
}

/// A file that is not sensitive, and that everyone may read.
fn ordinary(path: &Path, held: &Held) -> Option<Vec<u8>> {
    const LONGEST: u64 = 64 << 10;
    let meta = std::fs::metadata(path).ok().filter(Metadata::is_file)?;
    if held.at((meta.dev(), meta.ino())).is_some() || meta.len() > LONGEST || meta.mode() & 0o004 == 0 {
        return None;
    }
    content(path, version(&meta))
}

/// The content, if it is still that file.
fn content(path: &Path, expected: Version) -> Option<Vec<u8>> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file: File = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let meta = file.metadata().ok()?;
    if !meta.is_file() || version(&meta) != expected {
        return None;
    }
    let mut content = Vec::new();
    file.take(LARGEST).read_to_end(&mut content).ok()?;
    (content.len() as u64 == meta.len()).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Egress, Sensitive};
    use crate::host::facts::Inode;
    use crate::model::Severity;
    use crate::pipeline::StreamDigest;
    use std::fs;
    use std::time::Instant;

    fn until(what: &str, mut found: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !found() {
            assert!(Instant::now() < end, "{what}");
            std::thread::yield_now();
        }
    }

    fn inode(path: &Path) -> Inode {
        let meta = fs::metadata(path).unwrap();
        (meta.dev(), meta.ino())
    }

    fn keeper(pattern: &Path) -> Keeper {
        let path = pattern.to_str().unwrap().to_owned();
        let own = Sensitive { path, label: "mine".into(), severity: Severity::Critical };
        let egress = Egress { sensitive: vec![own], sensitive_paths: Some(vec![]), ..Egress::default() };
        Keeper::start(
            Paths::new(&egress, vec![]),
            Some((Tagger::new([7; 16], StreamDigest::Mac), Printer::new(&[7; 16]))),
            None,
        )
        .unwrap()
    }

    #[test]
    fn what_is_there_and_what_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "one").unwrap();
        let keeper = keeper(&dir.path().join("sec*"));
        let known = keeper.known.clone();
        // At once by place …
        assert_eq!(known.held().at(inode(&path)).unwrap().label.name, "mine");
        let link = dir.path().join("other");
        fs::hard_link(&path, &link).unwrap();
        assert!(known.held().at(inode(&link)).is_some());
        // … soon by content.
        until("its content", || known.held().with_digest(&Sha256::digest("one").into()).is_some());
        let tag = Tagger::new([7; 16], StreamDigest::Mac).tag(0, b"one");
        assert!(known.held().begins_with(3, tag).is_some());
        // passwd(1) writes a new file and renames it.
        fs::write(dir.path().join("new"), "two").unwrap();
        let new = inode(&dir.path().join("new"));
        fs::rename(dir.path().join("new"), &path).unwrap();
        until("the new one", || known.held().at(new).is_some());
        until("its content", || known.held().with_digest(&Sha256::digest("two").into()).is_some());
        fs::remove_file(&path).unwrap();
        until("nothing", || known.held().is_empty());
    }

    /// docs/sensitive-files.md, "Memory": 8 MB of prints, and 8 MB to find them by, however much there is.
    #[test]
    fn prints_have_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = 1u64;
        let files = PRINTS * 10 / (64 << 10);
        for n in 0..files {
            let mut text = Vec::with_capacity(64 << 10);
            while text.len() < 64 << 10 {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                text.extend_from_slice(&state.to_ne_bytes());
            }
            fs::write(dir.path().join(format!("secret{n}")), text).unwrap();
        }
        let keeper = keeper(&dir.path().join("sec*"));
        keeper.known.wait(Duration::from_secs(300));
        let held = keeper.known.held();
        assert_eq!(held.len(), files, "those beyond the bound are known all the same");
        let prints: usize = held.by_inode.values().map(|secret| secret.prints.len()).sum();
        assert!(prints > PRINTS * 9 / 10 && prints <= PRINTS, "{prints}");
        assert!(prints * size_of::<(u32, u64)>() <= 8_000_000);
        let index = keeper.known.index();
        assert!(index.bytes() > 6_000_000 && index.bytes() <= 8_000_000 + 100_000, "{}", index.bytes());
    }

    #[test]
    fn a_link_in_a_home_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap();
        fs::create_dir(home.join(".ssh")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", home.join(".ssh/id_evil")).unwrap();
        fs::write(home.join(".ssh/id_good"), "key").unwrap();
        let keeper = Keeper::start(Paths::new(&Egress::default(), vec![home.clone()]), None, None).unwrap();
        let held = keeper.known.held();
        assert!(held.at(inode(Path::new("/etc/passwd"))).is_none());
        assert!(held.at(inode(&home.join(".ssh/id_good"))).is_some());
    }
}
