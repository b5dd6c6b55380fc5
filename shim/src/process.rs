//! What one process knows about itself and its daemon. Filled once by the constructor; after that
//! only read, so that no hook needs a lock.

use crate::mac::Function;
use crate::{lanes, thread::Thread};
use core::cell::UnsafeCell;
use core::ptr::null;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use counterfoil_abi::arena::{ArenaHead, POLICY_OFF, POLICY_WATCHED};
use counterfoil_abi::board::Board;
use counterfoil_abi::matcher::Matcher;
use counterfoil_abi::prints::Sampler;

/// What the constructor learns and nobody changes afterwards.
pub struct Settings {
    /// Start of the arena's mapping.
    pub arena: *const u8,
    /// Key of all tags.
    pub key: [u8; 16],
    /// What makes the tags.
    pub function: Function,
    /// What makes the fingerprints.
    pub sampler: Sampler,
    /// Which files are sensitive; null: that is not said.
    pub matcher: *const Matcher,
    /// Pipes through which sensitive content may pass. Never null.
    pub board: *const Board,
}

struct Once(UnsafeCell<Settings>);
// SAFETY: written by the constructor only, before `ACTIVE` is set (release); read after it is seen.
unsafe impl Sync for Once {}

static SETTINGS: Once = Once(UnsafeCell::new(Settings {
    arena: null(),
    key: [0; 16],
    function: Function::None,
    sampler: Sampler::NONE,
    matcher: null(),
    board: &raw const crate::pipes::NONE,
}));
static ACTIVE: AtomicBool = AtomicBool::new(false);
/// A page that the kernel wipes in a forked child: 0 there means "not noticed yet".
static FORK_MARK: AtomicPtr<AtomicU32> = AtomicPtr::new(core::ptr::null_mut());
static PID: AtomicU32 = AtomicU32::new(0);
static EPOCH: AtomicU32 = AtomicU32::new(1);
/// A strict seccomp filter may be in force: only calls that every sandbox allows.
pub static SANDBOXED: AtomicBool = AtomicBool::new(false);
/// A vfork child has changed descriptors: see [`is_vfork_child`].
static VFORK_CHILD: AtomicBool = AtomicBool::new(false);

/// The library records.
#[inline]
pub fn active() -> bool {
    // Pairs with the release store in `activate`.
    ACTIVE.load(Ordering::Acquire)
}

/// Starts recording. Called once, by the constructor, before the program's own threads exist.
pub fn activate(settings: Settings, fork_mark: *mut AtomicU32) {
    // SAFETY: the constructor runs alone, and `ACTIVE` is still false: nobody reads.
    unsafe { *SETTINGS.0.get() = settings };
    PID.store(own_pid(), Ordering::Relaxed);
    // SAFETY: a fresh private page.
    unsafe {
        (*fork_mark).store(1, Ordering::Relaxed);
        (*fork_mark.add(1)).store(1, Ordering::Relaxed);
    }
    FORK_MARK.store(fork_mark, Ordering::Relaxed);
    ACTIVE.store(true, Ordering::Release);
}

/// The arena's settings. Only meaningful while [`active`].
#[inline]
pub fn settings() -> &'static Settings {
    // SAFETY: not written any more once active.
    unsafe { &*SETTINGS.0.get() }
}

/// The arena's first page.
#[inline]
pub fn arena() -> &'static ArenaHead {
    // SAFETY: mapped for the process's life; ArenaHead is valid for any bytes.
    unsafe { &*settings().arena.cast::<ArenaHead>() }
}

/// Tags are wanted, not only counts.
#[inline]
pub fn watched() -> bool {
    arena().policy.load(Ordering::Relaxed) & (POLICY_WATCHED | POLICY_OFF) == POLICY_WATCHED
}

/// A file has been opened, or is looked at for the first time: if it is sensitive, the process turns itself up.
#[inline]
pub fn meets(device: u64, inode: u64) {
    // SAFETY: mapped for the process's life, or null; valid for any bytes.
    let matcher = unsafe { settings().matcher.as_ref() };
    if matcher.is_some_and(|matcher| matcher.has(device, inode)) {
        crate::content::turn_up();
    }
}

/// The daemon has said which files are sensitive.
#[inline]
pub fn has_matcher() -> bool {
    !settings().matcher.is_null()
}

/// Counts what gives other processes this one's descriptors: forks, spawns, messages.
static SHARINGS: AtomicU32 = AtomicU32::new(0);

/// Descriptors that are open now may be used by another process from now on.
pub fn shares() {
    SHARINGS.fetch_add(1, Ordering::Relaxed);
}

/// How often [`shares`] was said.
#[inline]
pub fn sharings() -> u32 {
    SHARINGS.load(Ordering::Relaxed)
}

/// This process's pid, as of the last fork noticed.
pub fn pid() -> u32 {
    PID.load(Ordering::Relaxed)
}

/// Changes with every fork that was noticed.
pub fn epoch() -> u32 {
    EPOCH.load(Ordering::Relaxed)
}

fn own_pid() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get() as u32
}

/// This process's pid now, asked of the kernel: right in a vfork child, too.
pub fn present_pid() -> u32 {
    own_pid()
}

/// False in a forked child that has recorded nothing: it has used no stream.
pub fn has_recorded() -> bool {
    let mark = FORK_MARK.load(Ordering::Relaxed);
    // SAFETY: as in `notice_fork`.
    unsafe { (*mark).load(Ordering::Relaxed) != 0 }
}

/// True once in a forked child, and only there.
pub fn joins() -> bool {
    let mark = FORK_MARK.load(Ordering::Relaxed);
    // SAFETY: as in `notice_fork`; the page's second word.
    !mark.is_null() && unsafe { (*mark.add(1)).swap(1, Ordering::Relaxed) == 0 }
}

/// As the kernel leaves it to a child.
#[cfg(test)]
pub fn is_a_child() {
    // SAFETY: as in `joins`.
    unsafe { (*FORK_MARK.load(Ordering::Relaxed).add(1)).store(0, Ordering::Relaxed) };
}

/// In the first hook after a fork: takes a new identity. One load where there was none.
#[inline]
pub fn notice_fork(thread: &'static Thread) {
    let mark = FORK_MARK.load(Ordering::Relaxed);
    // SAFETY: set before ACTIVE, mapped for the process's life.
    if unsafe { (*mark).load(Ordering::Relaxed) } == 0 {
        new_process(thread, mark);
    }
}

#[cold]
fn new_process(thread: &'static Thread, mark: *mut AtomicU32) {
    let parent = PID.load(Ordering::Relaxed);
    let pid = own_pid();
    PID.store(pid, Ordering::Relaxed);
    EPOCH.fetch_add(1, Ordering::Relaxed);
    VFORK_CHILD.store(false, Ordering::Relaxed);
    crate::scratch::reset();
    // SAFETY: as in `notice_fork`. A child has one thread: no race.
    unsafe { (*mark).store(1, Ordering::Relaxed) };
    thread.inside.set(crate::thread::Inside::NONE);
    lanes::push_forked(thread, pid, parent);
    crate::family::join();
}

/// True in a child that shares its parent's memory (vfork, CLONE_VM): it must not touch the
/// descriptor table, which is the parent's. Costs a getpid; only for calls that change
/// descriptors or end the process image.
pub fn is_vfork_child() -> bool {
    let child = own_pid() != PID.load(Ordering::Relaxed) && {
        let mark = FORK_MARK.load(Ordering::Relaxed);
        // SAFETY: as in `notice_fork`. Wiped means a fork that was not noticed yet.
        unsafe { (*mark).load(Ordering::Relaxed) != 0 }
    };
    // Seen by both, since memory is shared: until the parent runs again, transfers must ask too.
    VFORK_CHILD.store(child, Ordering::Relaxed);
    child
}

/// For calls that move bytes: asks the costly question only when a vfork child was about.
#[inline]
pub fn maybe_vfork_child() -> bool {
    VFORK_CHILD.load(Ordering::Relaxed) && is_vfork_child()
}

/// The program put itself into a sandbox.
pub fn set_sandboxed() {
    SANDBOXED.store(true, Ordering::Relaxed);
}

/// See [`set_sandboxed`].
pub fn sandboxed() -> bool {
    SANDBOXED.load(Ordering::Relaxed)
}

/// Another thread than a fork's first has claimed a lane in this process.
static CLAIMED_BY: AtomicU32 = AtomicU32::new(0);

/// False for the first caller after a fork, which is the child's only thread then.
pub fn threads_seen() -> bool {
    CLAIMED_BY.swap(epoch(), Ordering::Relaxed) == epoch()
}
