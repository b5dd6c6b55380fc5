//! Calls that make descriptors.

use crate::objects::{IN, OUT};
use crate::real::hooks;
use crate::record::{keeping_errno, shielded};
use crate::thread::Guard;
use crate::{fds, kernel, memory, process};
use core::ffi::{c_char, c_int, c_uint};
use core::sync::atomic::Ordering;
use counterfoil_abi::record::{ACCEPTED, CONNECTED, PAIRED};
use libc::{FILE, mode_t, sockaddr, socklen_t};

/// Runs `f` where recording is possible and the descriptor table is ours.
pub fn recording(f: impl FnOnce(&Guard)) {
    if !process::active() {
        return;
    }
    keeping_errno(|| {
        shielded((), || {
            if !process::maybe_vfork_child()
                && let Some(guard) = Guard::enter()
            {
                f(&guard);
            }
        });
    });
}

/// A call outside this module has produced `fd`; bytes may have passed through it before.
pub fn appeared(fd: c_int) {
    recording(|guard| fds::fresh(guard, fd, false));
}

/// `fd` was opened by this very call.
fn opened(fd: c_int) -> c_int {
    if fd >= 0 {
        recording(|guard| fds::fresh(guard, fd, true));
    }
    fd
}

/// A socket that socket(2) has just made.
pub fn made_socket(fd: c_int, domain: c_int, kind: c_int) {
    if fd < 0 {
        return;
    }
    recording(|guard| {
        fds::fresh(guard, fd, true);
        // The low bits are the type, the rest SOCK_CLOEXEC and SOCK_NONBLOCK.
        match kernel::channel_of(domain as u16, (kind & 0xf) as c_uint) {
            Some(channel) => {
                if let Some(identity) = kernel::identify(fd) {
                    fds::make(fd, channel, &identity);
                }
            }
            None => fds::ignore(fd),
        }
    });
}

/// The two ends of a socketpair.
pub fn made_pair(pair: [c_int; 2], domain: c_int, kind: c_int) {
    made_socket(pair[0], domain, kind);
    made_socket(pair[1], domain, kind);
    recording(|guard| {
        let ends = pair.map(fds::known);
        if let [Some(a), Some(b)] = ends {
            for (object, peer, fd) in [(a, b, pair[0]), (b, a, pair[1])] {
                object.opened.fetch_or(PAIRED, Ordering::Relaxed);
                fds::tell_opened(guard, object, fd, peer.inode.load(Ordering::Relaxed));
            }
        }
    });
}

fn made_pipe(pair: *const c_int) {
    recording(|guard| {
        // SAFETY: the real call has succeeded and filled both.
        let pair = unsafe { [*pair, *pair.add(1)] };
        for (fd, way) in pair.into_iter().zip([IN, OUT]) {
            fds::fresh(guard, fd, true);
            let Some(mut identity) = kernel::identify(fd) else { continue };
            identity.writes = way == OUT;
            if let Some(object) = identity.channel.and_then(|channel| fds::make(fd, channel, &identity)) {
                object.opened.fetch_or(PAIRED, Ordering::Relaxed);
                fds::tell_opened(guard, object, fd, identity.inode);
            }
        }
    });
}

fn accepted(fd: c_int) {
    recording(|guard| {
        fds::fresh(guard, fd, true);
        let Some(identity) = kernel::identify(fd) else { return };
        let Some(channel) = identity.channel else { return fds::ignore(fd) };
        if let Some(object) = fds::make(fd, channel, &identity) {
            object.opened.fetch_or(ACCEPTED, Ordering::Relaxed);
            fds::tell_opened(guard, object, fd, 0);
        }
    });
}

fn connected(fd: c_int, result: c_int) {
    // SAFETY: this thread's errno, as the real call left it.
    if result != 0 && unsafe { *libc::__errno_location() } != libc::EINPROGRESS {
        return;
    }
    recording(|guard| {
        if let Some(object) = fds::find(guard, fd) {
            object.opened.fetch_or(CONNECTED, Ordering::Relaxed);
            fds::tell_opened(guard, object, fd, 0);
        }
    });
}

/// Descriptor numbers 0 to 2 lead elsewhere now.
fn standard_replaced() {
    (0..3).for_each(appeared);
}

hooks! {
    real pipe(pair: *mut c_int) -> c_int {
        let result = real(pair);
        if result == 0 { made_pipe(pair); }
        result
    }

    real pipe2(pair: *mut c_int, flags: c_int) -> c_int {
        let result = real(pair, flags);
        if result == 0 { made_pipe(pair); }
        result
    }

    real accept(fd: c_int, from: *mut sockaddr, length: *mut socklen_t) -> c_int {
        let result = real(fd, from, length);
        if result >= 0 { accepted(result); }
        result
    }

    real accept4(fd: c_int, from: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int {
        let result = real(fd, from, length, flags);
        if result >= 0 { accepted(result); }
        result
    }

    real connect(fd: c_int, to: *const sockaddr, length: socklen_t) -> c_int {
        let result = real(fd, to, length);
        connected(fd, result);
        result
    }

    // Variadic in C; the mode is passed on whether or not it was given, as the kernel ignores it then.
    real open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { opened(memory::opening(path, real(path, flags, mode))) }
    real open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { opened(memory::opening(path, real(path, flags, mode))) }
    real openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int { opened(memory::opening(path, real(dir, path, flags, mode))) }
    real openat64(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int { opened(memory::opening(path, real(dir, path, flags, mode))) }
    real __open_2(path: *const c_char, flags: c_int) -> c_int { opened(memory::opening(path, real(path, flags))) }
    real __open64_2(path: *const c_char, flags: c_int) -> c_int { opened(memory::opening(path, real(path, flags))) }
    real __openat_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int { opened(memory::opening(path, real(dir, path, flags))) }
    real __openat64_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int { opened(memory::opening(path, real(dir, path, flags))) }
    real creat(path: *const c_char, mode: mode_t) -> c_int { opened(memory::opening(path, real(path, mode))) }
    real creat64(path: *const c_char, mode: mode_t) -> c_int { opened(memory::opening(path, real(path, mode))) }

    real fopen(path: *const c_char, mode: *const c_char) -> *mut FILE {
        let file = real(path, mode);
        if !file.is_null() { opened(libc::fileno(file)); }
        file
    }

    real fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE {
        let file = real(path, mode);
        if !file.is_null() { opened(libc::fileno(file)); }
        file
    }

    real daemon(stay: c_int, keep: c_int) -> c_int {
        let result = real(stay, keep);
        if result == 0 && keep == 0 { standard_replaced(); }
        result
    }
}
