//! Whether this process writes into another one.
//!
//! Comes in: paths that were opened, and calls that wrote. Goes out: notes, at most one a second for
//! a target and a way: a debugger pokes thousands of times, and once is enough to be heard. Called by
//! the hooks of `hooks::memory`, `made` and `descriptors`.

use crate::hooks::made::recording;
use crate::lanes;
use crate::thread::Guard;
use bytemuck::Zeroable;
use core::ffi::{CStr, c_char, c_int, c_uint};
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use counterfoil_abi::UNKNOWN;
use counterfoil_abi::record::{About, Kind, Note, Touch, Written};

/// Descriptors that were opened on some `/proc/PID/mem`, a ring. One may lead elsewhere by now: it is
/// looked at again before anything is said.
static OPENED: [AtomicI32; 16] = [const { AtomicI32::new(-1) }; 16];
/// How many ever were: while it is 0, a write looks no further.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// Target and way of the latest note, and when it was made (nanoseconds).
static TOLD: AtomicU64 = AtomicU64::new(0);
static TOLD_AT: AtomicU64 = AtomicU64::new(0);
const AGAIN_AFTER: u64 = 1_000_000_000;

/// `path` was opened as `fd`, which is returned.
#[inline]
pub fn opening(path: *const c_char, fd: c_int) -> c_int {
    if fd >= 0 && !path.is_null() {
        // SAFETY: the kernel has just read it as a C string.
        let path = unsafe { CStr::from_ptr(path) }.to_bytes();
        if path.starts_with(b"/proc/") && path.ends_with(b"/mem") {
            let at = COUNT.fetch_add(1, Ordering::Relaxed) as usize;
            OPENED[at % OPENED.len()].store(fd, Ordering::Relaxed);
        }
    }
    fd
}

/// Some `/proc/PID/mem` was opened here: writes are looked at.
#[inline]
pub fn watched() -> bool {
    COUNT.load(Ordering::Relaxed) != 0
}

/// A write to `fd` returned `result`. `at`: where it began, if the call said so.
#[inline]
pub fn written(fd: c_int, result: isize, at: Option<u64>) {
    if watched() && result > 0 {
        perhaps_mem(fd, result, at);
    }
}

#[cold]
fn perhaps_mem(fd: c_int, result: isize, at: Option<u64>) {
    if !OPENED.iter().any(|opened| opened.load(Ordering::Relaxed) == fd) {
        return;
    }
    recording(|guard| {
        let mut path = [0u8; 32];
        let mut room = [core::mem::MaybeUninit::uninit(); 64];
        let own = descriptor(fd, &mut path);
        let Ok((target, _)) = rustix::fs::readlinkat_raw(rustix::fs::CWD, own, &mut room[..]) else { return };
        if let Some(pid) = target_of(target) {
            let written = Written { address: at.unwrap_or(UNKNOWN), length: result as u64 };
            tell(guard, Touch::Mem, pid, written);
        }
    });
}

/// `/proc/self/fd/N`.
fn descriptor(fd: c_int, room: &mut [u8; 32]) -> &CStr {
    const FOLDER: &[u8] = b"/proc/self/fd/";
    room[..FOLDER.len()].copy_from_slice(FOLDER);
    let mut digits = [0u8; 10];
    let (mut left, mut count) = (fd.unsigned_abs(), 0);
    while count == 0 || left > 0 {
        digits[count] = b'0' + (left % 10) as u8;
        (left, count) = (left / 10, count + 1);
    }
    for (place, digit) in room[FOLDER.len()..].iter_mut().zip(digits[..count].iter().rev()) {
        *place = *digit;
    }
    CStr::from_bytes_until_nul(room).unwrap_or_default()
}

/// The process whose memory a path names: `/proc/PID/mem` or `/proc/PID/task/TID/mem`.
fn target_of(path: &[u8]) -> Option<u32> {
    let rest = path.strip_prefix(b"/proc/")?.strip_suffix(b"/mem")?;
    let digits = rest.split(|&b| b == b'/').next()?;
    core::str::from_utf8(digits).ok()?.parse().ok()
}

/// process_vm_writev has written.
#[cold]
pub fn wrote(pid: c_int, address: usize, result: isize) {
    let written = Written { address: address as u64, length: result as u64 };
    recording(|guard| tell(guard, Touch::ProcessVm, pid.unsigned_abs(), written));
}

/// Does this ptrace request write? (linux/ptrace.h, sys/ptrace.h)
#[inline]
pub fn pokes(request: c_uint) -> bool {
    const POKETEXT: c_uint = 4;
    const POKEDATA: c_uint = 5;
    const SETREGS: c_uint = 13;
    const SETFPREGS: c_uint = 15;
    const SETREGSET: c_uint = 0x4205;
    matches!(request, POKETEXT | POKEDATA | SETREGS | SETFPREGS | SETREGSET)
}

/// ptrace has written.
#[cold]
pub fn poked(request: c_uint, pid: c_int, address: usize) {
    let memory = matches!(request, 4 | 5);
    let written = Written {
        address: if memory { address as u64 } else { UNKNOWN },
        length: if memory { size_of::<usize>() as u64 } else { 0 },
    };
    recording(|guard| tell(guard, Touch::Ptrace, pid.unsigned_abs(), written));
}

fn tell(guard: &Guard, how: Touch, pid: u32, written: Written) {
    if pid == crate::process::pid() {
        return;
    }
    let mut note = Note {
        header: lanes::header(Kind::Note, 4, 0, 0),
        about: About::MemoryWrite as u8,
        code: how as u8,
        number: pid,
        text_len: size_of::<Written>() as u16,
        ..Zeroable::zeroed()
    };
    let this = u64::from(pid) << 8 | u64::from(how as u8);
    let now = note.header.time;
    if TOLD.swap(this, Ordering::Relaxed) == this
        && now.saturating_sub(TOLD_AT.load(Ordering::Relaxed)) < AGAIN_AFTER
    {
        return;
    }
    TOLD_AT.store(now, Ordering::Relaxed);
    note.text[..size_of::<Written>()].copy_from_slice(bytemuck::bytes_of(&written));
    lanes::push_record(guard, &note);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let mut room = [0; 32];
        assert_eq!(descriptor(1_234_567_890, &mut room), c"/proc/self/fd/1234567890");
        assert_eq!(descriptor(0, &mut [0; 32]), c"/proc/self/fd/0");
        assert_eq!(target_of(b"/proc/12/mem"), Some(12));
        assert_eq!(target_of(b"/proc/12/task/13/mem"), Some(12));
        for no in [&b"/proc/12/maps"[..], b"/tmp/proc/12/mem", b"/proc/self/mem", b"/proc/mem", b""] {
            assert_eq!(target_of(no), None);
        }
    }
}
