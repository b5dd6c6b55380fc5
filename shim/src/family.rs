//! Who of a family of forks holds what: an object is over when the last of them has let it go.
//!
//! A child holds all that its parent held at the moment of the fork. That is counted before the fork, since the parent may
//! close it before the child runs. What other threads make and close between the count and the fork, the child sets right by
//! itself: it lays its copy of the tables beside what was counted. A child that nobody has counted for (a clone of instructions of its own) counts for itself.

use crate::objects::{self, Name};
use crate::shield::{keeping_errno, shielded};
use crate::thread::{self, Guard};
use crate::{fds, kernel, process, sessions, start};
use core::ffi::c_long;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use counterfoil_abi::record::How;

/// What was counted in each place: first those of descriptors, then those of sessions.
static COUNTED: AtomicPtr<AtomicU64> = AtomicPtr::new(core::ptr::null_mut());
/// Bytes that the constructor maps.
pub const TABLE_BYTES: usize = (fds::ENTRIES + sessions::ENTRIES) * size_of::<AtomicU64>();

/// The thread that is forking, by the place of its state; 0: none. One at a time: glibc has them wait for each other, too.
static FORKING: AtomicUsize = AtomicUsize::new(0);
/// That thread forks once more, in a signal handler.
static NESTED: AtomicBool = AtomicBool::new(false);

/// Another thread's fork is waited for so many times so long; then it is taken for one that was left.
const PATIENCE: u32 = 20_000;
const STEP: rustix::thread::Timespec = rustix::thread::Timespec { tv_sec: 0, tv_nsec: 50_000 };

/// Hands the table its memory: private, zeroed.
pub fn provide(table: *mut AtomicU64) {
    COUNTED.store(table, Ordering::Relaxed);
}

fn counted(place: usize) -> &'static AtomicU64 {
    debug_assert!(place < fds::ENTRIES + sessions::ENTRIES);
    // SAFETY: mapped for good, before the library is active; as many places as the two tables have.
    unsafe { &*COUNTED.load(Ordering::Relaxed).add(place) }
}

/// Every place of the tables that was ever used, and what it holds.
fn places() -> impl Iterator<Item = (usize, Option<Name>)> {
    let descriptors = fds::names().enumerate();
    descriptors.chain(sessions::names().enumerate().map(|(place, name)| (fds::ENTRIES + place, name)))
}

fn pack(name: Option<Name>) -> u64 {
    name.map_or(0, |name| u64::from(name.number) << 32 | u64::from(name.slot))
}

/// Numbers are never 0.
fn unpack(value: u64) -> Option<Name> {
    (value >> 32 != 0).then_some(Name { slot: value as u32, number: (value >> 32) as u32 })
}

fn me() -> usize {
    core::ptr::from_ref(thread::current()).addr()
}

fn begin() -> bool {
    let free = || FORKING.compare_exchange(0, me(), Ordering::Acquire, Ordering::Relaxed);
    if free() == Err(me()) {
        NESTED.store(true, Ordering::Relaxed);
        return false;
    }
    let mut waited = 0;
    while FORKING.load(Ordering::Relaxed) != me() && free().is_err() {
        if waited >= PATIENCE || process::sandboxed() {
            FORKING.store(me(), Ordering::Relaxed);
            break;
        }
        // The bare call: libc's is where a thread is cancelled.
        let _ = rustix::thread::nanosleep(&STEP);
        waited += 1;
    }
    true
}

fn end() {
    FORKING.store(0, Ordering::Release);
}

/// Before a fork.
pub fn count() {
    if begin() {
        for (place, name) in places() {
            let held = name.filter(|&name| hold(name));
            counted(place).store(pack(held), Ordering::Relaxed);
        }
    }
}

/// In the parent, after a fork that may have failed.
pub fn forked() {
    let nested = NESTED.swap(false, Ordering::Relaxed);
    // The hook of fork(2) knows whether there is a child.
    if !nested && FORKING.load(Ordering::Relaxed) == me() && !thread::current().forks.get() {
        end();
    }
}

/// Around fork(2). The answer goes to [`after`].
pub fn before() -> bool {
    process::active() && !thread::current().forks.replace(true)
}

/// Around a fork of which pthread_atfork hears nothing: `call` returns in the parent, and 0 in the child, if there.
pub fn around(call: impl FnOnce() -> c_long) -> c_long {
    if !process::active() {
        return call();
    }
    // SAFETY: as pthread_atfork calls them.
    unsafe { start::before_fork() };
    let first = before();
    let child = call();
    // SAFETY: as above.
    unsafe { if child == 0 { start::in_child() } else { start::after_fork() } };
    keeping_errno(|| shielded((), || after(first, child < 0)));
    child
}

/// Does a clone(2) with these flags make what a fork does: a process with a copy of everything?
pub fn forks(flags: c_long) -> bool {
    flags & SHARES == 0
}

/// Flags of those that don't.
pub const SHARES: c_long = (libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_THREAD) as c_long;

/// See [`before`].
pub fn after(first: bool, failed: bool) {
    if !first {
        return;
    }
    thread::current().forks.set(false);
    if FORKING.load(Ordering::Relaxed) == me() {
        if failed {
            for (place, _) in places() {
                give_back(unpack(counted(place).load(Ordering::Relaxed)));
            }
        }
        end();
    }
}

/// In a child, before it says or closes anything: what it holds is counted from here on. Only the first time.
pub fn join() {
    if process::joins() {
        // A child that does not come back from the call that made it.
        thread::current().forks.set(false);
        let ours = FORKING.swap(0, Ordering::Relaxed) == me() && !NESTED.swap(false, Ordering::Relaxed);
        for (place, name) in places() {
            let before = unpack(counted(place).load(Ordering::Relaxed)).filter(|_| ours);
            if before != name {
                name.map(hold);
                give_back(before);
            }
        }
    }
}

fn hold(name: Name) -> bool {
    objects::get(name).is_some_and(|object| object.hold(name.number))
}

/// One that was counted and isn't held.
fn give_back(name: Option<Name>) {
    if let Some(object) = name.and_then(objects::get)
        && !object.let_go()
        && let Some(guard) = Guard::enter()
    {
        object.drop_ref(&guard, How::ClosedUnseen, kernel::Counts::UNKNOWN);
    }
}

#[cfg(test)]
mod tests;
