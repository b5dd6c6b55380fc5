//! Leaving calls without returning from them.

use crate::process;
use crate::real::hooks;
use crate::shield::shielded;
use crate::thread;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};

/// Before a jump to `env`. Where it ends below a call's frame it stays within what that call was interrupted by. From a
/// stack above that frame, a signal handler's own, it leaves the call if it ends between the two.
unsafe fn leaving(env: *const c_void) {
    if process::active() {
        // SAFETY: contract.
        let (here, target) = (thread::stack_pointer(), unsafe { target(env) });
        let gone = |frame| frame < target && (here < frame || target < here);
        shielded((), || thread::current().left(gone));
    }
}

/// Where the stack pointer will be after a jump to `env`. glibc keeps it rotated and mixed with a number of the
/// thread's (sysdeps/x86_64/jmpbuf-offsets.h; sysdeps/unix/sysv/linux/x86_64/pointer_guard.h).
///
/// # Safety
/// setjmp has filled `env`.
#[cfg(target_arch = "x86_64")]
unsafe fn target(env: *const c_void) -> usize {
    const RSP: usize = 6;
    let guard: usize;
    // SAFETY: contract; the thread's control block has the number at this place.
    unsafe {
        core::arch::asm!("mov {}, fs:[0x30]", out(reg) guard, options(nostack, readonly, preserves_flags));
        env.cast::<usize>().add(RSP).read().rotate_right(17) ^ guard
    }
}

/// The number is the loader's secret here: a jump is taken to lead out of all that this thread is in.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn target(_env: *const c_void) -> usize {
    usize::MAX
}

extern "C" fn unwound() {
    shielded((), || thread::current().left(|_| true));
}

/// From now on a forced unwind through our frames is heeded (csrc/unwind.c): it ends the thread.
pub fn heed_unwinding() {
    unsafe extern "C" {
        static counterfoil_leave: AtomicPtr<c_void>;
    }
    // SAFETY: a pointer to such a function, which the C side only reads.
    unsafe { counterfoil_leave.store(unwound as *mut c_void, Ordering::Relaxed) };
}

// These do not return; `()` keeps one macro for all. The real call restores the caller's registers.
hooks! {
    real longjmp(env: *mut c_void, value: c_int) { leaving(env); real(env, value); }
    real _longjmp(env: *mut c_void, value: c_int) { leaving(env); real(env, value); }
    real siglongjmp(env: *mut c_void, value: c_int) { leaving(env); real(env, value); }
    real __longjmp_chk(env: *mut c_void, value: c_int) { leaving(env); real(env, value); }
}
