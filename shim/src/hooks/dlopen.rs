//! dlopen: what is loaded with RTLD_DEEPBIND calls past us, unless something is done about it.
//!
//! Where a library is looked for depends on who calls (its RUNPATH, `$ORIGIN`), and that is told by the return address: so the call
//! goes on by a jump, as if we were not there. Only where the flag is given, and the caller makes no difference, do we call
//! ourselves, to be there afterwards.

use crate::real::{Missing, Real};
use crate::shield::{keeping_errno, shielded};
use crate::{deep, loaded, process};
use core::arch::naked_asm;
use core::ffi::{c_char, c_int, c_void};
use libc::RTLD_DEEPBIND;

type Dlopen = unsafe extern "C-unwind" fn(*const c_char, c_int) -> *mut c_void;

static REAL: Real<Dlopen> = Real::new(c"dlopen");

/// The C names of these hooks.
#[cfg(test)]
pub const HOOKS: &[&str] = &["dlopen"];

/// See the C function of that name. The arguments and the return address stay as they are.
///
/// # Safety
/// That function's contract.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C-unwind" fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void {
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        "endbr64",
        "mov rdx, [rsp]",
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {way}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "jmp rax",
        way = sym way,
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "hint 34",
        "stp x0, x1, [sp, #-32]!",
        "str x30, [sp, #16]",
        "mov x2, x30",
        "bl {way}",
        "mov x16, x0",
        "ldr x30, [sp, #16]",
        "ldp x0, x1, [sp], #32",
        "br x16",
        way = sym way,
    );
}

/// Where a dlopen goes on.
extern "C" fn way(path: *const c_char, flags: c_int, caller: *const c_void) -> Dlopen {
    // SAFETY: dlopen's declaration.
    let Some(real) = (unsafe { REAL.get() }) else { return nowhere };
    let deep = flags & RTLD_DEEPBIND != 0 && process::active() && !process::sandboxed();
    if deep && keeping_errno(|| shielded(false, || deep::anybody_finds(path, caller))) {
        followed
    } else {
        real
    }
}

unsafe extern "C-unwind" fn nowhere(_: *const c_char, _: c_int) -> *mut c_void {
    Missing::missing()
}

/// The real dlopen; then what it has loaded calls us.
unsafe extern "C-unwind" fn followed(path: *const c_char, flags: c_int) -> *mut c_void {
    // SAFETY: dlopen's declaration.
    let Some(real) = (unsafe { REAL.get() }) else { return Missing::missing() };
    let before = loaded::loads();
    // SAFETY: the contract is passed on.
    let handle = unsafe { real(path, flags) };
    if !handle.is_null() {
        keeping_errno(|| {
            shielded((), || {
                if loaded::loads() != before {
                    deep::bind(handle);
                }
            });
        });
    }
    handle
}
