//! The libc functions that fit redhook's model: always in libc, not variadic, no cancellation
//! point. redhook's own panic boundary would make the real call a second time; it is never reached,
//! because all that is ours runs behind `shielded`.

use super::descriptors::{counts_of, duplicated};
use super::made::{made_pair, made_socket, recording};
use crate::fds;
use crate::kernel;
use crate::process;
use crate::shield::keeping_errno;
use core::ffi::c_int;
use counterfoil_abi::record::{How, OUT_SHUT};

redhook::hook! {
    unsafe fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int => counterfoil_socket {
        // SAFETY: our caller's contract.
        let fd = unsafe { redhook::real!(socket)(domain, kind, protocol) };
        made_socket(fd, domain, kind);
        fd
    }
}

redhook::hook! {
    unsafe fn socketpair(domain: c_int, kind: c_int, protocol: c_int, pair: *mut c_int) -> c_int => counterfoil_socketpair {
        // SAFETY: our caller's contract.
        let result = unsafe { redhook::real!(socketpair)(domain, kind, protocol, pair) };
        if result == 0 {
            // SAFETY: the call has succeeded and filled both.
            made_pair(unsafe { [*pair, *pair.add(1)] }, domain, kind);
        }
        result
    }
}

redhook::hook! {
    unsafe fn dup(old: c_int) -> c_int => counterfoil_dup {
        // SAFETY: our caller's contract.
        let new = unsafe { redhook::real!(dup)(old) };
        if new >= 0 {
            duplicated(old, new);
        }
        new
    }
}

/// dup2 and dup3 close what `new` was: its counts are taken before, and it is forgotten only if the
/// call succeeds. In a vfork child the table is the parent's and stays as it is.
fn replace(old: c_int, new: c_int, real: impl FnOnce() -> c_int) -> c_int {
    if !process::active() || old == new || keeping_errno(process::is_vfork_child) {
        return real();
    }
    let mut counts = kernel::Counts::UNKNOWN;
    recording(|guard| counts = counts_of(guard, new));
    let result = real();
    let recorded = result < 0
        || recording(|guard| {
            fds::forget(guard, new, counts);
            fds::duplicate(guard, old, new);
        });
    if !recorded {
        fds::lost(new);
    }
    result
}

redhook::hook! {
    unsafe fn dup2(old: c_int, new: c_int) -> c_int => counterfoil_dup2 {
        // SAFETY: our caller's contract.
        replace(old, new, || unsafe { redhook::real!(dup2)(old, new) })
    }
}

redhook::hook! {
    unsafe fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int => counterfoil_dup3 {
        // SAFETY: our caller's contract.
        replace(old, new, || unsafe { redhook::real!(dup3)(old, new, flags) })
    }
}

redhook::hook! {
    unsafe fn shutdown(fd: c_int, how: c_int) -> c_int => counterfoil_shutdown {
        // SAFETY: our caller's contract.
        let result = unsafe { redhook::real!(shutdown)(fd, how) };
        if result == 0 && how != libc::SHUT_RD {
            recording(|guard| {
                if let Some(object) = fds::known(fd) {
                    object.flag(OUT_SHUT);
                    // The writer has had its last word: the other end may compare already.
                    object.checkpoint(guard, How::Checkpoint, fds::counts(guard, object, fd));
                }
            });
        }
        result
    }
}

/// The C names of these hooks.
#[cfg(test)]
pub const HOOKS: &[&str] = &["socket", "socketpair", "dup", "dup2", "dup3", "shutdown"];

/// Looks all of them up, so that no hook has to.
pub fn resolve() {
    let _ = (socket.get(), socketpair.get(), dup.get(), dup2.get(), dup3.get(), shutdown.get());
}
