//! Starting another program, and ending this one.
//!
//! glibc's own execs don't call each other through the PLT, so each has its hook. `system` and
//! `popen` pass the environment on by themselves.

use crate::hooks::filters::SEES_FILTERS;
use crate::real::hooks;
use crate::reinject::{self, Room, Strings};
use crate::shield::{keeping_errno, shielded};
use crate::target::Named;
use crate::{family, fds, process, start};
use core::ffi::{c_char, c_int, c_ulong, c_void};
use counterfoil_abi::record::How;
use libc::{
    AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, pid_t, posix_spawn_file_actions_t, posix_spawnattr_t,
};

unsafe extern "C" {
    static environ: Strings;
}

/// Before this program image is replaced. Returns the environment to use instead.
///
/// # Safety
/// The call's own arguments; `room` stays in place until the real call has returned.
unsafe fn leaving(named: Named, environment: Strings, room: &mut Room) -> Option<Strings> {
    if !process::active() {
        return None;
    }
    keeping_errno(|| {
        shielded(None, || {
            // SAFETY: contract.
            let made = unsafe { reinject::prepare(named, environment, room) };
            room.tell(process::present_pid());
            // A vfork child shares this memory: its parent's descriptors are another program's, too.
            process::shares();
            // A vfork child's streams are its parent's.
            match (room.fails, process::is_vfork_child()) {
                (true, _) => {}
                (false, true) if room.unseen() => fds::vforked_unseen(),
                (false, true) => {}
                (false, false) => {
                    start::last_words(How::Execed, room.handed());
                    room.left = true;
                }
            }
            made
        })
    })
}

/// Before another process is started, with `actions` on its descriptors.
///
/// # Safety
/// As [`leaving`].
unsafe fn spawning(
    named: Named,
    environment: Strings,
    actions: *const posix_spawn_file_actions_t,
    room: &mut Room,
) -> Option<Strings> {
    if !process::active() {
        return None;
    }
    process::shares();
    keeping_errno(|| {
        shielded(None, || {
            // SAFETY: contract.
            let made = unsafe { reinject::prepare(named, environment, room) };
            if room.unseen() {
                // What actions do is libc's secret: they may hand on what exec would close.
                fds::spawned_unseen(!actions.is_null());
            }
            made
        })
    })
}

/// After a spawn.
///
/// # Safety
/// `pid` is NULL or where the call has put the child's.
unsafe fn spawned(result: c_int, pid: *const pid_t, room: &mut Room) {
    keeping_errno(|| {
        shielded((), || {
            if result == 0 {
                // SAFETY: contract.
                room.tell(unsafe { pid.as_ref() }.map_or(0, |&pid| pid as u32));
            }
            room.give_back();
        });
    });
}

/// An exec has failed.
fn stayed(room: &mut Room) {
    keeping_errno(|| {
        room.give_back();
        if core::mem::take(&mut room.left) {
            start::stay();
        }
    });
}

/// This process ends here, without destructors.
fn ending() {
    if process::active() {
        keeping_errno(|| {
            shielded((), || {
                if !process::is_vfork_child() {
                    start::last_words(How::Exited, 0);
                }
            });
        });
    }
}

/// As execve resolves a path.
fn path(path: *const c_char) -> Named {
    Named::Path { dir: AT_FDCWD, path, follow: true }
}

/// A name that execvp would search for; NULL is judged by the real function.
fn name(name: *const c_char) -> Named {
    if name.is_null() { path(name) } else { Named::Search(name) }
}

fn at(dir: c_int, path: *const c_char, flags: c_int) -> Named {
    // SAFETY: with AT_EMPTY_PATH the real function reads a string here, or the kernel says EFAULT
    // to NULL.
    if flags & AT_EMPTY_PATH != 0 && !path.is_null() && unsafe { *path } == 0 {
        Named::Descriptor(dir)
    } else {
        Named::Path { dir, path, follow: flags & AT_SYMLINK_NOFOLLOW == 0 }
    }
}

hooks! {
    real execve(file: *const c_char, argv: Strings, envp: Strings) -> c_int {
        let mut room = Room::new();
        let envp = leaving(path(file), envp, &mut room).unwrap_or(envp);
        let result = real(file, argv, envp);
        stayed(&mut room);
        result
    }

    real execv(file: *const c_char, argv: Strings) -> c_int {
        let mut room = Room::new();
        let result = match (leaving(path(file), environ, &mut room), execve::REAL.get()) {
            (Some(envp), Some(execve)) => execve(file, argv, envp),
            _ => real(file, argv),
        };
        stayed(&mut room);
        result
    }

    real execvp(file: *const c_char, argv: Strings) -> c_int {
        let mut room = Room::new();
        let result = match (leaving(name(file), environ, &mut room), execvpe::REAL.get()) {
            (Some(envp), Some(execvpe)) => execvpe(file, argv, envp),
            _ => real(file, argv),
        };
        stayed(&mut room);
        result
    }

    real execvpe(file: *const c_char, argv: Strings, envp: Strings) -> c_int {
        let mut room = Room::new();
        let envp = leaving(name(file), envp, &mut room).unwrap_or(envp);
        let result = real(file, argv, envp);
        stayed(&mut room);
        result
    }

    real fexecve(fd: c_int, argv: Strings, envp: Strings) -> c_int {
        let mut room = Room::new();
        let envp = leaving(Named::Descriptor(fd), envp, &mut room).unwrap_or(envp);
        let result = real(fd, argv, envp);
        stayed(&mut room);
        result
    }

    real execveat(dir: c_int, file: *const c_char, argv: Strings, envp: Strings, flags: c_int) -> c_int {
        let mut room = Room::new();
        let envp = leaving(at(dir, file, flags), envp, &mut room).unwrap_or(envp);
        let result = real(dir, file, argv, envp, flags);
        stayed(&mut room);
        result
    }

    real posix_spawn(pid: *mut pid_t, file: *const c_char, actions: *const posix_spawn_file_actions_t, attributes: *const posix_spawnattr_t, argv: Strings, envp: Strings) -> c_int {
        let mut room = Room::new();
        let envp = spawning(path(file), envp, actions, &mut room).unwrap_or(envp);
        let result = real(pid, file, actions, attributes, argv, envp);
        spawned(result, pid, &mut room);
        result
    }

    real posix_spawnp(pid: *mut pid_t, file: *const c_char, actions: *const posix_spawn_file_actions_t, attributes: *const posix_spawnattr_t, argv: Strings, envp: Strings) -> c_int {
        let mut room = Room::new();
        let envp = spawning(name(file), envp, actions, &mut room).unwrap_or(envp);
        let result = real(pid, file, actions, attributes, argv, envp);
        spawned(result, pid, &mut room);
        result
    }

    // That it was called is seen by pthread_atfork, as other forks are; here, whether it failed.
    real fork() -> pid_t {
        let first = family::before();
        let child = real();
        keeping_errno(|| shielded((), || family::after(first, child < 0)));
        child
    }

    // glibc's, whose child runs `run` on a stack of its own and does not come back. Variadic in C; passed on whole.
    real clone(run: *mut c_void, stack: *mut c_void, flags: c_int, argument: *mut c_void, parent: *mut c_void, tls: *mut c_void, child: *mut c_void) -> c_int {
        let call = || real(run, stack, flags, argument, parent, tls, child);
        if family::forks(flags.into()) { family::around(|| call().into()) as c_int } else { call() }
    }

    // These three do not return; `()` keeps one macro for all.
    real _exit(status: c_int) { ending(); real(status); }
    real _Exit(status: c_int) { ending(); real(status); }
    real quick_exit(status: c_int) { ending(); real(status); }

    // Variadic in C; passed on whole, as glibc does.
    real prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int {
        // no_new_privs is what comes before a filter, and no more than that where the filter itself shows (haproxy
        // has none). Elsewhere to know less of new sockets is better than to kill the host.
        let filters = option == libc::PR_SET_SECCOMP || option == libc::PR_SET_NO_NEW_PRIVS && !SEES_FILTERS;
        if filters && process::active() {
            process::set_sandboxed();
        }
        real(option, a, b, c, d)
    }
}
