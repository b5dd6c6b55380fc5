//! syscall(2), by which libseccomp installs its filters: from then on no system call is safe. (prctl, the other
//! way, is in [`super::exec`].) Some callers make clone(2) or vfork(2) by it, which return twice, perhaps
//! on another stack: so nothing stays on the stack, and all registers but the one for the result are as they were. A clone that is
//! a fork (vsftpd's are) returns twice on a copy of this stack: we are there, as around fork(2).
//!
//! Where this is not done for the processor, [`super::exec`] takes `PR_SET_NO_NEW_PRIVS` for a sign of a filter.

use crate::process::SANDBOXED;
use core::arch::naked_asm;
use core::ffi::{c_long, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

/// It is done for this processor.
pub const SEES_FILTERS: bool = cfg!(target_arch = "x86_64");

static REAL: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

extern "C" fn find() -> *mut c_void {
    // SAFETY: a C string.
    let real = unsafe { super::dlsym::look_up(libc::RTLD_NEXT, c"syscall".as_ptr()) };
    REAL.store(real, Ordering::Relaxed);
    real
}

/// A clone with these arguments, that is a fork.
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn fork(
    number: c_long,
    flags: c_long,
    stack: c_long,
    parent: c_long,
    child: c_long,
    tls: c_long,
) -> c_long {
    type Real = unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;
    let real = Some(REAL.load(Ordering::Relaxed)).filter(|real| !real.is_null()).unwrap_or_else(|| find());
    if real.is_null() {
        return crate::real::Missing::missing();
    }
    // SAFETY: syscall's declaration is variadic: integers, in the same places.
    let real = unsafe { core::mem::transmute::<*mut c_void, Real>(real) };
    // SAFETY: the contract is passed on.
    crate::family::around(|| unsafe { real(number, flags, stack, parent, child, tls) })
}

/// See the C function of that name.
///
/// # Safety
/// That function's contract.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall() -> c_long {
    naked_asm!(
        "cmp rdi, {clone}",
        "je 4f",
        "cmp rdi, {seccomp}",
        "jne 2f",
        // SECCOMP_SET_MODE_STRICT and _FILTER; what is above only asks.
        "cmp rsi, 1",
        "ja 2f",
        "mov byte ptr [rip + {sandboxed}], 1",
        "2: mov rax, qword ptr [rip + {real}]",
        "test rax, rax",
        "je 3f",
        "jmp rax",
        // Before the constructor.
        "3: push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "sub rsp, 8",
        "call {find}",
        "add rsp, 8",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "jmp rax",
        // The flags, and the stack of the child's own.
        "4: test rsi, {shares}",
        "jnz 2b",
        "test rdx, rdx",
        "jnz 2b",
        "jmp {fork}",
        clone = const libc::SYS_clone,
        shares = const crate::family::SHARES,
        fork = sym fork,
        seccomp = const libc::SYS_seccomp,
        sandboxed = sym SANDBOXED,
        real = sym REAL,
        find = sym find,
    )
}

/// The C names of these hooks.
#[cfg(test)]
pub const HOOKS: &[&str] = if SEES_FILTERS { &["syscall"] } else { &[] };

/// Looks it up.
pub fn resolve() {
    let _ = find();
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    type Real = unsafe extern "C" fn(c_long, ...) -> c_long;

    #[test]
    fn arguments_and_errors_pass_as_they_are() {
        // SAFETY: the C function's type, and calls without effect.
        unsafe {
            let call = core::mem::transmute::<unsafe extern "C" fn() -> c_long, Real>(syscall);
            for _ in 0..2 {
                assert_eq!(call(libc::SYS_getpid), c_long::from(libc::getpid()));
                REAL.store(null_mut(), Ordering::Relaxed);
            }
            let (mut from, mut to) = (*b"abc", [0u8; 3]);
            let own = |at: *mut u8| libc::iovec { iov_base: at.cast(), iov_len: 3 };
            let (a, b) = (own(to.as_mut_ptr()), own(from.as_mut_ptr()));
            // All six arguments.
            let got = call(
                libc::SYS_process_vm_readv,
                libc::getpid(),
                &raw const a,
                1usize,
                &raw const b,
                1usize,
                0usize,
            );
            assert_eq!((got, &to), (3, b"abc"));
            assert_eq!(call(libc::SYS_close, -1), -1);
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EBADF));
            assert!(!crate::process::sandboxed());
        }
    }
}
