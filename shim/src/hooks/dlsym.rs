//! dlsym: what a program asks a library's own handle for (by ctypes, Fiddle, Nim's `dynlib`, .NET's P/Invoke) is found past us, unless
//! something is done about it.
//!
//! RTLD_NEXT depends on who calls, and that is told by the return address: so the call goes on by a jump, as if we were
//! not there. Only where a handle is asked for a name of ours do we call ourselves.

use crate::process;
use crate::real::Missing;
use crate::shield::{keeping_errno, shielded};
use crate::{asked, exports};
use core::arch::naked_asm;
use core::ffi::{CStr, c_char, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use libc::{RTLD_DEFAULT, RTLD_NEXT};

type Dlsym = unsafe extern "C-unwind" fn(*mut c_void, *const c_char) -> *mut c_void;

/// The C names of these hooks.
#[cfg(test)]
pub const HOOKS: &[&str] = &["dlsym"];

/// See the C function of that name. The arguments and the return address stay as they are.
///
/// # Safety
/// That function's contract.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C-unwind" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        "endbr64",
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {way}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        // Whom `answer` answers, where it goes on to.
        "mov rdx, [rsp]",
        "jmp rax",
        way = sym way,
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        "hint 34",
        "stp x0, x1, [sp, #-32]!",
        "str x30, [sp, #16]",
        "bl {way}",
        "mov x16, x0",
        "ldr x30, [sp, #16]",
        "ldp x0, x1, [sp], #32",
        // Whom `answer` answers, where it goes on to.
        "mov x2, x30",
        "br x16",
        way = sym way,
    );
}

/// Where a dlsym goes on.
extern "C" fn way(handle: *mut c_void, name: *const c_char) -> *const c_void {
    let special = handle == RTLD_DEFAULT || handle == RTLD_NEXT;
    // SAFETY: dlsym's contract.
    if !special && process::active() && !process::sandboxed() && unsafe { exports::is_ours(name) } {
        answer as *const c_void
    } else {
        real().map_or(nowhere as *const c_void, |real| real as *const c_void)
    }
}

unsafe extern "C-unwind" fn nowhere(_: *mut c_void, _: *const c_char) -> *mut c_void {
    Missing::missing()
}

/// The real dlsym; our hook where it finds what that calls on to.
unsafe extern "C-unwind" fn answer(
    handle: *mut c_void,
    name: *const c_char,
    caller: *const c_void,
) -> *mut c_void {
    // SAFETY: the contract is passed on.
    let (found, name) = unsafe { (look_up(handle, name), CStr::from_ptr(name)) };
    if found.is_null() {
        return found;
    }
    keeping_errno(|| {
        shielded(found, || {
            let ours = asked::hook_for(name, found, caller);
            // A lookup that found nothing must not be what the program's own dlerror tells of.
            // SAFETY: only forgets this thread's message.
            unsafe { libc::dlerror() };
            ours.unwrap_or(found)
        })
    })
}

/// The real function of that name. Not found by dlsym, which is us.
fn real() -> Option<Dlsym> {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
    /// The oldest version there is, in every glibc.
    #[cfg(target_arch = "x86_64")]
    const VERSION: &CStr = c"GLIBC_2.2.5";
    #[cfg(target_arch = "aarch64")]
    const VERSION: &CStr = c"GLIBC_2.17";
    let mut at = REAL.load(Ordering::Relaxed);
    if at.is_null() {
        // SAFETY: C strings.
        at = unsafe { libc::dlvsym(RTLD_NEXT, c"dlsym".as_ptr(), VERSION.as_ptr()) };
        REAL.store(at, Ordering::Relaxed);
    }
    // SAFETY: dlsym's declaration.
    (!at.is_null()).then(|| unsafe { core::mem::transmute::<*mut c_void, Dlsym>(at) })
}

/// dlsym for ourselves: what is really there, and RTLD_NEXT is what comes behind us.
///
/// # Safety
/// dlsym's contract.
pub unsafe fn look_up(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    // SAFETY: the contract is passed on.
    real().map_or(null_mut(), |real| unsafe { real(handle, name) })
}
