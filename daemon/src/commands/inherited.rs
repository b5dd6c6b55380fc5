//! What this program was started with, before Rust's runtime changed it: signal dispositions, the
//! signal mask, and which of the standard descriptors were open.
//!
//! CMD must get just that. The runtime ignores SIGPIPE and opens /dev/null on closed standard
//! descriptors before `main`, and `std::process` empties the mask and resets SIGPIPE in a child, so
//! it is looked at in `.init_array` and put back between fork and exec.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bit n: signal n was ignored.
static IGNORED: AtomicU64 = AtomicU64::new(0);
/// Bit n - 1: signal n was blocked.
static BLOCKED: AtomicU64 = AtomicU64::new(0);
/// Bit n: descriptor n was closed.
static CLOSED: AtomicU32 = AtomicU32::new(0);

/// Signals whose disposition can be inherited: 1 to 64 without SIGKILL and SIGSTOP; glibc keeps 32
/// and 33 for itself.
fn signals() -> impl Iterator<Item = i32> {
    (1..=64).filter(|s| ![libc::SIGKILL, libc::SIGSTOP, 32, 33].contains(s))
}

extern "C" fn look() {
    for signal in signals() {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: a null new action only asks; `action` has room for the answer.
        let known = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } == 0;
        // SAFETY: zeroed is a valid sigaction, and the kernel filled it in.
        if known && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN {
            IGNORED.fetch_or(1 << (signal - 1), Ordering::Relaxed);
        }
    }
    let mut mask = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: a null new mask only asks; `mask` has room for the answer.
    if unsafe { libc::sigprocmask(libc::SIG_SETMASK, std::ptr::null(), mask.as_mut_ptr()) } == 0 {
        for signal in signals() {
            // SAFETY: the mask was filled in above, and `signal` is a valid number.
            if unsafe { libc::sigismember(mask.as_ptr(), signal) } == 1 {
                BLOCKED.fetch_or(1 << (signal - 1), Ordering::Relaxed);
            }
        }
    }
    for fd in 0..3 {
        // SAFETY: F_GETFD on any number is harmless.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            CLOSED.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
}

#[used]
// SAFETY: the loader calls every pointer in .init_array once, before main, with C's conventions;
// `look` needs nothing that is set up later.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

/// True if `signal` was ignored when this program started.
pub(super) fn ignored(signal: i32) -> bool {
    IGNORED.load(Ordering::Relaxed) & (1 << (signal - 1)) != 0
}

/// Lets `command` start with what this program was started with.
pub(super) fn pass_on(command: &mut Command) {
    // SAFETY: `put_back` makes async-signal-safe calls only (signal-safety(7)) and allocates
    // nothing, as a child forked from a program with threads must.
    unsafe { command.pre_exec(put_back) };
}

fn put_back() -> io::Result<()> {
    for signal in signals() {
        let disposition = if ignored(signal) { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: setting a default or ignored disposition touches no memory of ours.
        unsafe { libc::signal(signal, disposition) };
    }
    let blocked = BLOCKED.load(Ordering::Relaxed);
    let mut mask = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `mask` is a sigset_t, emptied before signals are added; all calls are
    // async-signal-safe.
    unsafe {
        libc::sigemptyset(mask.as_mut_ptr());
        for signal in signals().filter(|s| blocked & (1 << (s - 1)) != 0) {
            libc::sigaddset(mask.as_mut_ptr(), signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, mask.as_ptr(), std::ptr::null_mut());
    }
    let closed = CLOSED.load(Ordering::Relaxed);
    for fd in (0..3).filter(|fd| closed & (1 << fd) != 0) {
        // SAFETY: the runtime opened /dev/null there; nothing in this child uses it.
        unsafe { libc::close(fd) };
    }
    Ok(())
}
