//! dlopen with RTLD_DEEPBIND: what was loaded so calls past us. dlclose: what we remember of a library must not outlive it.

use crate::real::hooks;
use crate::shield::{keeping_errno, shielded};
use crate::{deep, library, process};
use core::arch::naked_asm;
use core::ffi::{c_char, c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use libc::RTLD_DEEPBIND;

hooks! {
    real dlclose(handle: *mut c_void) -> c_int {
        let result = real(handle);
        keeping_errno(|| shielded((), library::forget_all));
        result
    }
}

/// glibc's dlopen, once it was looked up.
static DLOPEN: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

type Dlopen = unsafe extern "C-unwind" fn(*const c_char, c_int) -> *mut c_void;

/// The C names of the hooks that are written out here.
#[cfg(test)]
pub const WRITTEN_OUT: &[&str] = &["dlopen"];

/// dlopen(3). Where a library is looked for depends on who calls (its RUNPATH, `$ORIGIN`), and that is told by the return
/// address: so the call goes on by a jump, as if we were not there. Only where the flag is given, and the caller makes no difference, do
/// we call ourselves, to be there afterwards.
///
/// # Safety
/// The C function's contract.
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C-unwind" fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void {
    naked_asm!(
        "endbr64",
        "test esi, {deep}",
        "jnz 3f",
        "2: mov rax, [rip + {real}]",
        "test rax, rax",
        "jz 4f",
        "jmp rax",
        // Deep: by ourselves?
        "3: mov rdx, [rsp]",
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {ours}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "test al, al",
        "jz 2b",
        "jmp {bound}",
        // Not looked up yet.
        "4: push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {find}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "test rax, rax",
        "jz 5f",
        "jmp rax",
        "5: ret",
        deep = const RTLD_DEEPBIND,
        real = sym DLOPEN,
        ours = sym makes_no_difference,
        bound = sym bound,
        find = sym find,
    );
}

/// See above.
///
/// # Safety
/// The C function's contract.
#[cfg(target_arch = "aarch64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C-unwind" fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void {
    naked_asm!(
        "hint 34",
        "tst w1, #{deep}",
        "b.ne 3f",
        "2: adrp x16, {real}",
        "ldr x16, [x16, :lo12:{real}]",
        "cbz x16, 4f",
        "br x16",
        // Deep: by ourselves?
        "3: stp x0, x1, [sp, #-32]!",
        "str x30, [sp, #16]",
        "mov x2, x30",
        "bl {ours}",
        "mov w9, w0",
        "ldr x30, [sp, #16]",
        "ldp x0, x1, [sp], #32",
        "tbz w9, #0, 2b",
        "b {bound}",
        // Not looked up yet.
        "4: stp x0, x1, [sp, #-32]!",
        "str x30, [sp, #16]",
        "bl {find}",
        "mov x16, x0",
        "ldr x30, [sp, #16]",
        "ldp x0, x1, [sp], #32",
        "cbz x16, 5f",
        "br x16",
        "5: mov x0, xzr",
        "ret",
        deep = const RTLD_DEEPBIND,
        real = sym DLOPEN,
        ours = sym makes_no_difference,
        bound = sym bound,
        find = sym find,
    );
}

/// Looks the real one up; null if there is none.
extern "C" fn find() -> *mut c_void {
    // SAFETY: a C string.
    let at = unsafe { libc::dlsym(libc::RTLD_NEXT, c"dlopen".as_ptr()) };
    DLOPEN.store(at, Ordering::Relaxed);
    at
}

/// A dlopen with RTLD_DEEPBIND may be called from here instead of from `caller`.
extern "C" fn makes_no_difference(path: *const c_char, _: c_int, caller: *const c_void) -> bool {
    process::active()
        && !process::sandboxed()
        && keeping_errno(|| {
            shielded(false, || {
                deep::anybody_finds(path, caller)
                    && (!DLOPEN.load(Ordering::Relaxed).is_null() || !find().is_null())
            })
        })
}

/// The real dlopen; then what it has loaded calls us.
unsafe extern "C-unwind" fn bound(path: *const c_char, flags: c_int) -> *mut c_void {
    // SAFETY: dlopen's declaration; not null, `makes_no_difference` has seen to that.
    let real: Dlopen = unsafe { core::mem::transmute(DLOPEN.load(Ordering::Relaxed)) };
    let before = deep::loads();
    // SAFETY: the contract is passed on.
    let handle = unsafe { real(path, flags) };
    if !handle.is_null() {
        keeping_errno(|| {
            shielded((), || {
                if deep::loads() != before {
                    deep::bind(handle);
                }
            });
        });
    }
    handle
}

/// Looks up the real functions.
pub fn resolve_all() {
    resolve();
    find();
}

/// Gives back a reference that we took ourselves; nothing is unloaded by it.
pub fn give_back(handle: *mut c_void) {
    // SAFETY: the C declaration's type; `handle` came from dlopen.
    if let Some(real) = unsafe { dlclose::REAL.get() } {
        // SAFETY: as above.
        unsafe { real(handle) };
    }
}
