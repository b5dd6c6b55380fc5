//! Claims a lane for a thread and pushes records into it.

use crate::pipes;
use crate::process;
use crate::thread::{Guard, Thread};
use bytemuck::Zeroable;
use core::sync::atomic::{Ordering, compiler_fence};
use counterfoil_abi::arena::{ArenaHead, FULL_LANES, LANES, POLICY_BOARD, lane_head_at, lines, ring_at};
use counterfoil_abi::lane::{LaneHead, NO_TID, Producer, Slot};
use counterfoil_abi::record::{Forked, Header, Kind, LINE, Line};

/// Publishes one record. False: it was lost, and counted.
#[inline(always)]
pub fn push(guard: &Guard, record: &[Line]) -> bool {
    push_from(guard.thread, record, false)
}

/// Publishes a record that must be read right behind the one before.
pub fn push_behind<T: bytemuck::Pod>(guard: &Guard, record: &T) -> bool {
    push_from(guard.thread, lines_of(record), true)
}

/// This thread's lane fills faster than it is read.
#[inline(always)]
pub fn is_crowded(guard: &Guard) -> bool {
    present(guard.thread, |lane| lane.as_mut().is_some_and(Producer::is_crowded))
}

/// Publishes what can be done without, if there is room enough for what can't. `spread`: it is worth another
/// lane.
pub fn push_spare(guard: &Guard, record: &[Line], spread: bool) -> bool {
    if is_crowded(guard) {
        let Some(free) = spread.then(|| another(guard.thread)).flatten() else { return false };
        guard.thread.lane.set(Some(free));
    }
    push_from(guard.thread, record, false)
}

/// Publishes a record of one of the ABI's structs.
#[inline(always)]
pub fn push_record<T: bytemuck::Pod>(guard: &Guard, record: &T) -> bool {
    push(guard, lines_of(record))
}

#[inline(always)]
fn lines_of<T: bytemuck::Pod>(record: &T) -> &[Line] {
    // Every record struct is 8-aligned and whole lines long (asserted by the ABI crate).
    const { assert!(size_of::<T>().is_multiple_of(LINE) && align_of::<T>() == 8) };
    bytemuck::cast_slice(core::slice::from_ref(record))
}

/// `f` of the lane that `thread`, which is this one, writes. It calls nothing that comes back here.
#[inline(always)]
fn present<T>(thread: &Thread, f: impl FnOnce(&mut Option<Producer>) -> T) -> T {
    // SAFETY: only this thread has it, and only in a recording, of which there is one at a time.
    f(unsafe { &mut *thread.lane.as_ptr() })
}

#[inline(always)]
fn push_from(thread: &'static Thread, record: &[Line], behind: bool) -> bool {
    if thread.lane_epoch.get() != process::epoch() {
        claim(thread);
    }
    let arena = process::arena();
    // SAFETY: as in `present`; `another` leaves it as it is.
    let Some(lane) = (unsafe { &mut *thread.lane.as_ptr() }) else {
        arena.no_lane.fetch_add(1, Ordering::Relaxed);
        return false;
    };
    if !behind
        && lane.is_crowded()
        && let Some(free) = another(thread)
    {
        *lane = free;
    }
    let pushed = match record {
        [line] => lane.push_line(line),
        _ => lane.push(record),
    };
    if arena.bell.load(Ordering::Relaxed) == 0 {
        ring(arena);
    }
    pushed
}

/// This program was quiet, and is no more.
#[cold]
fn ring(arena: &ArenaHead) {
    arena.bell.store(1, Ordering::Relaxed);
    let board = pipes::board();
    board.ring();
    if process::sandboxed() {
        // The daemon is to look by itself.
        arena.policy.fetch_and(!POLICY_BOARD, Ordering::Relaxed);
    } else if board.call() {
        // The kernel's answer is of no use; errno stays as it is.
        let _ = rustix::thread::futex::wake(board.calls(), rustix::thread::futex::Flags::empty(), 1);
    }
}

#[cold]
fn claim(thread: &'static Thread) {
    thread.lane.set(None);
    thread.lanes.set(0);
    let pid = process::pid();
    thread.number.set(thread_id());
    let owner = u64::from(pid) << 32 | u64::from(thread.number.get());
    if let Some((index, lane)) = claim_any(owner) {
        thread.lane.set(Some(lane));
        thread.lanes.set(if index < FULL_LANES { 1 << index } else { 0 });
        thread.lane_index.set(index as u16);
        thread.offers.set(0);
    }
    // Last: who leaves in the middle of this begins anew.
    compiler_fence(Ordering::Release);
    thread.lane_epoch.set(process::epoch());
}

/// A recording of this thread was left without returning: its lane may have half a record beyond `head`, never
/// published, and is taken up again as it stands.
pub fn renew(thread: &'static Thread) {
    let index = usize::from(thread.lane_index.get());
    let owner = u64::from(process::pid()) << 32 | u64::from(thread.number.get());
    if head(index).owner.load(Ordering::Relaxed) == owner {
        thread.lane.set(Some(producer(index)));
    }
}

/// Threads asked for whether they are gone, before a thread is content with a short lane.
const FEW: usize = 8;

/// Claims a lane: a full one if there is one.
fn claim_any(owner: u64) -> Option<(usize, Producer)> {
    claim_free(owner)
        .or_else(|| claim_left(owner, from(owner).take(FEW)))
        .or_else(|| (FULL_LANES..LANES).find_map(|index| take(index, 0, owner)))
        .or_else(|| claim_left(owner, 0..reach()))
}

/// Lanes that may be somebody's: those below.
fn reach() -> usize {
    (process::arena().reach.load(Ordering::Relaxed) as usize).clamp(FULL_LANES, LANES)
}

/// The full lanes. Forks and threads start looking at different places.
fn from(owner: u64) -> impl Iterator<Item = usize> {
    (0..FULL_LANES).map(move |step| (owner as usize + step) % FULL_LANES)
}

/// Claims a full lane that nobody has.
fn claim_free(owner: u64) -> Option<(usize, Producer)> {
    from(owner).find_map(|index| take(index, 0, owner))
}

/// Claims a lane of a thread of this process that is gone: the daemon frees those ten times a second, and threads may come and
/// go faster. What that one left in it is this process's, whoever adds to it.
#[cold]
fn claim_left(owner: u64, mut among: impl Iterator<Item = usize>) -> Option<(usize, Producer)> {
    among.find_map(|index| {
        let has = head(index).owner.load(Ordering::Relaxed);
        (has >> 32 == owner >> 32 && is_gone(has)).then(|| take(index, has, owner))?
    })
}

/// Claims a lane from who has it.
fn take(index: usize, from: u64, owner: u64) -> Option<(usize, Producer)> {
    let lane = head(index);
    // Acquire pairs with the daemon's release when it frees a dead thread's lane: we then see
    // the tail it left.
    let ours = lane.owner.load(Ordering::Relaxed) == from
        && lane.owner.compare_exchange(from, owner, Ordering::Acquire, Ordering::Relaxed).is_ok();
    if ours && index >= FULL_LANES {
        // Before anything is published there.
        process::arena().reach.fetch_max(index as u32 + 1, Ordering::Relaxed);
    }
    ours.then(|| (index, producer(index)))
}

/// Lanes that one thread may take for a burst of records: many small files in a row say more than one holds.
const MOST: u32 = 8;

/// This thread's lane is crowded: another one that isn't, its own or a new one. Records may then be read
/// in another order than they were written in.
#[cold]
fn another(thread: &'static Thread) -> Option<Producer> {
    let present = usize::from(thread.lane_index.get());
    let ours = (0..FULL_LANES).filter(|&index| index != present && thread.lanes.get() >> index & 1 == 1);
    let (index, lane) = ours
        .map(|index| (index, producer(index)))
        .find_map(|(index, mut lane)| (!lane.is_crowded()).then_some((index, lane)))
        .or_else(|| (thread.lanes.get().count_ones() < MOST).then(|| claim_free(identity(thread)))?)?;
    thread.lanes.set(thread.lanes.get() | 1 << index);
    // An offer that is open stays where the present lane has its place: that lane remains this thread's.
    thread.lane_index.set(index as u16);
    Some(lane)
}

/// A lane's control words.
fn head(index: usize) -> &'static LaneHead {
    // SAFETY: within the arena's mapping (the ABI's layout), which stays for the process's life; all-atomic.
    unsafe { &*process::settings().arena.add(lane_head_at(index)).cast::<LaneHead>() }
}

/// The writing side of a lane that is this thread's.
fn producer(index: usize) -> Producer {
    // SAFETY: as in `head`; a ring of so many lines stands there.
    unsafe {
        let ring = process::settings().arena.add(ring_at(index)).cast::<Slot>();
        Producer::new(head(index), ring, lines(index))
    }
}

/// Which lane this thread writes; None if it has none.
#[inline]
pub fn index(thread: &'static Thread) -> Option<usize> {
    if thread.lane_epoch.get() != process::epoch() {
        claim(thread);
    }
    present(thread, |lane| lane.is_some()).then(|| usize::from(thread.lane_index.get()))
}

/// Names this thread among all: pid << 32 | its number.
#[inline]
pub fn identity(thread: &'static Thread) -> u64 {
    if thread.lane_epoch.get() != process::epoch() {
        claim(thread);
    }
    (u64::from(process::pid()) << 32) | u64::from(thread.number.get())
}

/// No other thread of this process has a lane: none is in a call whose bytes are tagged.
pub fn alone(thread: &'static Thread) -> bool {
    if !process::has_recorded() {
        return true;
    }
    let own = (thread.lane_epoch.get() == process::epoch()).then(|| thread.number.get());
    (0..reach()).all(|index| {
        let owner = head(index).owner.load(Ordering::Relaxed);
        (owner >> 32) as u32 != process::pid() || Some(owner as u32) == own
    })
}

/// The thread that [`identity`] named is no more. Asks the kernel; only where two meet.
#[cold]
pub fn is_gone(identity: u64) -> bool {
    let (pid, thread) = ((identity >> 32) as i32, identity as u32);
    if process::sandboxed() || thread & NO_TID != 0 {
        return false;
    }
    // SAFETY: signal 0 only asks.
    crate::shield::keeping_errno(|| unsafe {
        libc::syscall(libc::SYS_tgkill, pid, thread as i32, 0) != 0
            && *libc::__errno_location() == libc::ESRCH
    })
}

/// The first thread of a process has the process's number; that spares a sandboxed child gettid.
fn thread_id() -> u32 {
    if process::epoch() > 1 && !process::threads_seen() {
        return process::pid();
    }
    if process::sandboxed() {
        // gettid might kill: any number no thread has; the daemon keeps such a lane until the
        // process is gone.
        return NO_TID | (crate::thread::stack_pointer() >> 12) as u32;
    }
    rustix::thread::gettid().as_raw_nonzero().get() as u32
}

/// A new process's first word.
pub fn push_forked(thread: &'static Thread, pid: u32, parent: u32) {
    let record = Forked { header: header(Kind::Forked, 1, 0, 0), pid, parent, ..Zeroable::zeroed() };
    push_from(thread, lines_of(&record), false);
}

/// A header with the time of this recording.
#[inline(always)]
pub fn header(kind: Kind, lines: usize, tap: u8, object: u32) -> Header {
    Header { kind: kind as u8, lines: lines as u8, tap, flags: 0, object, time: now() }
}

/// When this recording began: CLOCK_MONOTONIC nanoseconds; the vDSO, no system call. Read once for
/// all that is said in one go.
#[inline(always)]
pub fn now() -> u64 {
    let time = &crate::thread::current().time;
    if time.get() == 0 {
        time.set(clock());
    }
    time.get()
}

/// glibc's: rustix looks for the vDSO in the kernel's auxiliary vector, with system calls, at the first
/// question, and finds one that isn't mapped under valgrind.
fn clock() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for the answer; this clock always answers.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
