//! Whether somebody else answers for functions that we stand before.
//!
//! Called by the constructor, and when a function of a library that came later is looked up. Goes
//! out: notes, one a symbol. `stands before ours`: our hook is never reached. `answers for`: what we
//! call on to is neither libc's nor the TLS library's own.

use crate::lanes;
use crate::library::{self, Loaded, base_name, object_of};
use crate::thread::Guard;
use bytemuck::Zeroable;
use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicU32, Ordering};
use counterfoil_abi::record::{About, FOREIGN_BEFORE, FOREIGN_BEHIND, Kind, Lost, Note};
use libc::{RTLD_DEFAULT, RTLD_NEXT};

/// One symbol of each family stands for all: who replaces one replaces these.
const LIBC: [&CStr; 8] =
    [c"read", c"write", c"send", c"recv", c"connect", c"close", c"execve", c"posix_spawn"];
const TLS: [&CStr; 5] =
    [c"SSL_write", c"SSL_read", c"EVP_CipherUpdate", c"gnutls_record_send", c"gnutls_record_recv"];

/// Files that a family's functions are rightly found in.
const LIBC_FILES: &[&[u8]] = &[b"libc.so", b"libc-", b"libpthread", b"ld-linux"];
const SSL_FILES: &[&[u8]] = &[b"libssl", b"libcrypto"];
const GNUTLS_FILES: &[&[u8]] = &[b"libgnutls"];

fn files_of(symbol: &[u8]) -> &'static [&'static [u8]] {
    if symbol.starts_with(b"gnutls_") {
        GNUTLS_FILES
    } else if [&b"SSL_"[..], b"BIO_", b"EVP_", b"ERR_"].iter().any(|family| symbol.starts_with(family)) {
        SSL_FILES
    } else {
        LIBC_FILES
    }
}

/// Objects that no TLS library's function is found in, and nobody else's either: a lookup that fails
/// is the dear one, it goes through all of them and writes a message.
const BARREN: &[&[u8]] = &[b"libc.so.6", b"libgcc_s.so.1", b"libm.so.6", LOADER];
#[cfg(target_arch = "x86_64")]
const LOADER: &[u8] = b"ld-linux-x86-64.so.2";
#[cfg(not(target_arch = "x86_64"))]
const LOADER: &[u8] = b"ld-linux";

/// Looks at all that is loaded now.
pub fn look() {
    let Some(ours) = object_of(look as *const c_void) else { return };
    let more = library::any_behind(|path| !BARREN.contains(&base_name(path))).unwrap_or(true);
    for (at, symbol) in LIBC.iter().chain(&TLS).enumerate() {
        let first = find(RTLD_DEFAULT, symbol);
        match object_of(first) {
            Some(object) if object.base != ours.base => before(symbol, &object),
            _ if more || at < LIBC.len() => check_library(symbol, find(RTLD_NEXT, symbol)),
            _ => {}
        }
    }
    if more {
        // A lookup that found nothing must not be what the program's own dlerror tells of.
        // SAFETY: only forgets this thread's message.
        unsafe { libc::dlerror() };
    }
}

/// Looks at what we call on to for `symbol`; null is nothing.
pub fn check_library(symbol: &CStr, at: *const c_void) {
    let Some(object) = object_of(at) else { return };
    let (path, name) = (object.path.to_bytes(), base_name(object.path));
    if !files_of(symbol.to_bytes()).iter().any(|known| name.starts_with(known)) && first_time(symbol) {
        note(About::ForeignHook, FOREIGN_BEHIND, 0, &[symbol.to_bytes(), b" ", path]);
    }
}

/// Notes about TLS functions that were made already: a bit each, for what is found again and again.
static TOLD: AtomicU32 = AtomicU32::new(0);

fn first_time(symbol: &CStr) -> bool {
    // Any spread over the bits will do: two symbols of one bit are replaced by one object anyway.
    let hash = symbol.to_bytes().iter().fold(0u32, |h, &b| h.wrapping_mul(31).wrapping_add(u32::from(b)));
    let bit = 1 << (hash % 32);
    TOLD.fetch_or(bit, Ordering::Relaxed) & bit == 0
}

fn before(symbol: &CStr, object: &Loaded) {
    let program = program_base() == Some(object.base);
    let mut room = [core::mem::MaybeUninit::uninit(); 232];
    let path = match rustix::fs::readlinkat_raw(rustix::fs::CWD, c"/proc/self/exe", &mut room[..]) {
        Ok((path, _)) if program => &*path,
        _ => object.path.to_bytes(),
    };
    if program && TLS.contains(&symbol) {
        // The program brings its own TLS library (node does): nobody replaced anything, but there
        // is nothing to see either.
        note(About::CoverageLost, Lost::Static as u8, crate::process::pid(), &[path]);
    } else {
        note(About::ForeignHook, FOREIGN_BEFORE, 0, &[symbol.to_bytes(), b" ", path]);
    }
}

fn program_base() -> Option<usize> {
    // SAFETY: reads the auxiliary vector.
    let entry = unsafe { libc::getauxval(libc::AT_ENTRY) };
    object_of(core::ptr::with_exposed_provenance(entry as usize)).map(|object| object.base)
}

fn find(handle: *mut c_void, symbol: &CStr) -> *const c_void {
    // SAFETY: a C string.
    unsafe { crate::hooks::dlsym::look_up(handle, symbol.as_ptr()) }
}

fn note(about: About, code: u8, number: u32, parts: &[&[u8]]) {
    let Some(guard) = Guard::enter() else { return };
    let mut note = Note {
        header: lanes::header(Kind::Note, 4, 0, 0),
        about: about as u8,
        code,
        number,
        ..Zeroable::zeroed()
    };
    let mut length = 0;
    for part in parts {
        let kept = part.len().min(note.text.len() - length);
        note.text[length..length + kept].copy_from_slice(&part[..kept]);
        length += kept;
    }
    note.text_len = length as u16;
    lanes::push_record(&guard, &note);
}
