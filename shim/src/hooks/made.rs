//! Calls that make descriptors.

use super::descriptors::closing;
use crate::file::{closing_stream, opened_stream};
use crate::objects::{IN, OUT};
use crate::real::hooks;
use crate::shield::{keeping_errno, shielded};
use crate::thread::Guard;
use crate::{fds, kernel, memory, process};
use core::ffi::{c_char, c_int, c_uint};
use core::sync::atomic::Ordering;
use counterfoil_abi::record::{ACCEPTED, CONNECTED, PAIRED};
use libc::{FILE, mode_t, sockaddr, socklen_t};

/// Runs `f` where recording is possible and the descriptor table is ours. False: it was not.
pub fn recording(f: impl FnOnce(&Guard)) -> bool {
    process::active()
        && keeping_errno(|| {
            shielded(false, || {
                if process::maybe_vfork_child() {
                    return false;
                }
                Guard::enter().inspect(f).is_some()
            })
        })
}

/// A call outside this module has produced `fd`; bytes may have passed through it before.
pub fn appeared(fd: c_int) {
    recording(|guard| fds::fresh(guard, fd, None));
}

/// `fd` was opened by this very call, with these flags.
fn opened(fd: c_int, flags: c_int) -> c_int {
    if fd >= 0 {
        recording(|guard| {
            fds::fresh(guard, fd, Some(flags as u32));
            if !process::watched() && process::has_matcher() {
                looked_into(fd, flags);
            }
        });
    }
    fd
}

/// In a process that is not watched: what it opens to read may turn it up. (One that is watched looks at a file
/// anyway, when it reads.)
fn looked_into(fd: c_int, flags: c_int) {
    let reads = flags & libc::O_ACCMODE != libc::O_WRONLY && flags & (libc::O_PATH | libc::O_DIRECTORY) == 0;
    if reads && let Some(file) = kernel::file(fd) {
        process::meets(file.device, file.number);
    }
}

/// creat(2): "equivalent to calling open() with flags equal to".
const CREAT: c_int = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
/// What the mkstemp family opens with.
const TEMPORARY: c_int = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;

/// A FILE that was opened by this very call.
///
/// # Safety
/// `file` is NULL or a FILE, and `mode` its C string.
unsafe fn opened_file(file: *mut FILE, mode: *const c_char) -> *mut FILE {
    if !file.is_null() {
        // SAFETY: contract.
        let (fd, flags) = unsafe { (libc::fileno(file), mode_flags(mode)) };
        opened(fd, flags);
        opened_stream(fd);
    }
    file
}

/// open(2)'s flags for a mode of fopen.
///
/// # Safety
/// A C string.
unsafe fn mode_flags(mode: *const c_char) -> c_int {
    // SAFETY: contract.
    let mode = unsafe { core::ffi::CStr::from_ptr(mode) }.to_bytes();
    // A ",ccs=" names an encoding.
    let both = mode.iter().take_while(|&&b| b != b',').any(|&b| b == b'+');
    let (one, more) = match mode.first() {
        Some(b'w') => (libc::O_WRONLY, libc::O_CREAT | libc::O_TRUNC),
        Some(b'a') => (libc::O_WRONLY, libc::O_CREAT | libc::O_APPEND),
        _ => (libc::O_RDONLY, 0),
    };
    (if both { libc::O_RDWR } else { one }) | more
}

/// Before `file` gets another descriptor: the present one is closed.
///
/// # Safety
/// `file` is NULL or a FILE.
unsafe fn reopening(file: *mut FILE) {
    if !file.is_null() {
        // SAFETY: contract. Its error is nobody's: freopen ignores errors of closing.
        unsafe { closing_stream(file) };
        // SAFETY: contract.
        closing(keeping_errno(|| unsafe { libc::fileno(file) }));
    }
}

/// A socket that socket(2) has just made.
pub fn made_socket(fd: c_int, domain: c_int, kind: c_int) {
    if fd < 0 {
        return;
    }
    recording(|guard| {
        fds::fresh(guard, fd, Some(0));
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
            fds::fresh(guard, fd, Some(0));
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
        fds::fresh(guard, fd, Some(0));
        let Some(identity) = kernel::identify(fd) else { return };
        let Some(channel) = identity.channel else { return fds::ignore(fd) };
        if let Some(object) = fds::make(fd, channel, &identity) {
            object.opened.fetch_or(ACCEPTED, Ordering::Relaxed);
            fds::tell_opened(guard, object, fd, 0);
        }
    });
}

/// A call has connected it, or begun to.
pub fn connected(fd: c_int, result: c_int) {
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

/// What the socket was is over; it may become another connection.
fn disconnected(fd: c_int) {
    recording(|guard| {
        fds::forget(guard, fd, kernel::Counts::UNKNOWN);
        fds::fresh(guard, fd, None);
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
        if result == 0 && (*to).sa_family == libc::AF_UNSPEC as u16 { disconnected(fd) } else { connected(fd, result) }
        result
    }

    // Variadic in C; the mode is passed on whether or not it was given, as the kernel ignores it then.
    real open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { opened(memory::opening(path, real(path, flags, mode)), flags) }
    real open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { opened(memory::opening(path, real(path, flags, mode)), flags) }
    real openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int { opened(memory::opening(path, real(dir, path, flags, mode)), flags) }
    real openat64(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int { opened(memory::opening(path, real(dir, path, flags, mode)), flags) }
    real __open_2(path: *const c_char, flags: c_int) -> c_int { opened(memory::opening(path, real(path, flags)), flags) }
    real __open64_2(path: *const c_char, flags: c_int) -> c_int { opened(memory::opening(path, real(path, flags)), flags) }
    real __openat_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int { opened(memory::opening(path, real(dir, path, flags)), flags) }
    real __openat64_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int { opened(memory::opening(path, real(dir, path, flags)), flags) }
    real creat(path: *const c_char, mode: mode_t) -> c_int { opened(memory::opening(path, real(path, mode)), CREAT) }
    real creat64(path: *const c_char, mode: mode_t) -> c_int { opened(memory::opening(path, real(path, mode)), CREAT) }

    real fopen(path: *const c_char, mode: *const c_char) -> *mut FILE { opened_file(real(path, mode), mode) }
    real fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE { opened_file(real(path, mode), mode) }

    real freopen(path: *const c_char, mode: *const c_char, file: *mut FILE) -> *mut FILE {
        reopening(file);
        opened_file(real(path, mode, file), mode)
    }

    real freopen64(path: *const c_char, mode: *const c_char, file: *mut FILE) -> *mut FILE {
        reopening(file);
        opened_file(real(path, mode, file), mode)
    }

    real fdopen(fd: c_int, mode: *const c_char) -> *mut FILE {
        let file = real(fd, mode);
        if !file.is_null() { opened_stream(fd); }
        file
    }

    real tmpfile() -> *mut FILE { opened_file(real(), c"w+".as_ptr()) }
    real tmpfile64() -> *mut FILE { opened_file(real(), c"w+".as_ptr()) }
    real mkstemp(template: *mut c_char) -> c_int { opened(real(template), TEMPORARY) }
    real mkstemp64(template: *mut c_char) -> c_int { opened(real(template), TEMPORARY) }
    real mkostemp(template: *mut c_char, flags: c_int) -> c_int { opened(real(template, flags), TEMPORARY | flags) }
    real mkostemp64(template: *mut c_char, flags: c_int) -> c_int { opened(real(template, flags), TEMPORARY | flags) }
    real mkstemps(template: *mut c_char, suffix: c_int) -> c_int { opened(real(template, suffix), TEMPORARY) }
    real mkstemps64(template: *mut c_char, suffix: c_int) -> c_int { opened(real(template, suffix), TEMPORARY) }
    real mkostemps(template: *mut c_char, suffix: c_int, flags: c_int) -> c_int { opened(real(template, suffix, flags), TEMPORARY | flags) }
    real mkostemps64(template: *mut c_char, suffix: c_int, flags: c_int) -> c_int { opened(real(template, suffix, flags), TEMPORARY | flags) }

    // They put the terminal on 0 to 2 without a call that could be seen.
    real login_tty(fd: c_int) -> c_int {
        let result = real(fd);
        if result == 0 { standard_replaced(); }
        result
    }

    real forkpty(master: *mut c_int, name: *mut c_char, terminal: *const libc::termios, size: *const libc::winsize) -> libc::pid_t {
        let child = real(master, name, terminal, size);
        if child == 0 { standard_replaced(); }
        child
    }

    real daemon(stay: c_int, keep: c_int) -> c_int {
        let result = real(stay, keep);
        if result == 0 && keep == 0 { standard_replaced(); }
        result
    }
}
