//! What a function of a TLS library begins with when the program first comes to it.
//!
//! Called when such a function is looked up: once for each, not on the way of bytes. Goes out: a note with its first bytes
//! and the library's build id, which the daemon compares with the file. The daemon looks at whole libraries by itself while a
//! program lives; this is for one that is over before it can: what is in its lane is read all the same.

use crate::hooks::gnutls::{gnutls_record_recv, gnutls_record_send};
use crate::hooks::openssl::{SSL_read, SSL_read_ex, SSL_write, SSL_write_ex};
use crate::lanes;
use crate::library::{base_name, is_tls_name, object_of};
use crate::process;
use crate::thread::Guard;
use bytemuck::{Pod, Zeroable};
use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use counterfoil_abi::build_id;
use counterfoil_abi::record::{About, BUILD_ID, Code, Kind, Note};

/// Where each function was when it was told of, by its number.
static TOLD: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];
/// Our hooks were told of.
static OWN_TOLD: AtomicBool = AtomicBool::new(false);

/// Program headers that are looked at: a library has ten or so.
const HEADERS: usize = 16;
/// Bytes of notes that are.
const NOTES: usize = 256;

/// ELF's (elf.h), 64 bits.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct FileHeader {
    ident: [u8; 16],
    kind: [u16; 2],
    version: u32,
    entry: u64,
    headers_at: u64,
    sections_at: u64,
    flags: u32,
    size: u16,
    header_size: u16,
    headers: u16,
    sections: [u16; 3],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical: u64,
    file_size: u64,
    size: u64,
    align: u64,
}

/// The function of this number is at `at`, null is nowhere.
pub fn tell(number: u8, at: *const c_void) {
    let Some(guard) = Guard::enter().filter(|_| process::watched() && !process::sandboxed()) else { return };
    if TOLD[usize::from(number)].swap(at.addr(), Ordering::Relaxed) != at.addr() {
        beginning(&guard, at);
    }
    // Who asked for one of these by name was given ours, and may have put his code there.
    if !OWN_TOLD.swap(true, Ordering::Relaxed) {
        [SSL_write as *const c_void, SSL_write_ex as _, SSL_read as _, SSL_read_ex as _]
            .into_iter()
            .chain([gnutls_record_send as *const c_void, gnutls_record_recv as _])
            .for_each(|hook| beginning(&guard, hook));
    }
}

/// Says what the function at `at` begins with.
fn beginning(guard: &Guard, at: *const c_void) {
    let Some(library) = object_of(at) else { return };
    let path = library.path.to_bytes();
    let room = size_of::<Note>() - core::mem::offset_of!(Note, text) - size_of::<Code>();
    // Another preload's is a foreign hook, and told as such.
    let known = is_tls_name(base_name(library.path)) || Some(library.base) == own_base();
    if !known || !path.starts_with(b"/") || path.len() > room {
        return;
    }
    let mut code = Code { offset: (at.addr() - library.base) as u64, ..Code::zeroed() };
    let Some(length) = build(library.base, &mut code.build_id) else { return };
    let Some(first) = Memory::default().copy(at.addr()) else { return };
    code.first = first;
    let mut note = Note {
        header: lanes::header(Kind::Note, 4, 0, 0),
        about: About::Code as u8,
        code: length as u8,
        text_len: (size_of::<Code>() + path.len()) as u16,
        ..Zeroable::zeroed()
    };
    let (head, rest) = note.text.split_at_mut(size_of::<Code>());
    head.copy_from_slice(bytemuck::bytes_of(&code));
    rest[..path.len()].copy_from_slice(path);
    lanes::push_record(guard, &note);
}

fn own_base() -> Option<usize> {
    object_of(own_base as *const c_void).map(|object| object.base)
}

/// The build id of what is loaded at `base`: its length.
fn build(base: usize, into: &mut [u8; BUILD_ID]) -> Option<usize> {
    const LOAD: u32 = 1;
    const NOTE: u32 = 4;
    let mut memory = Memory::default();
    let file: FileHeader = memory.copy(base)?;
    if !file.ident.starts_with(b"\x7fELF") || usize::from(file.header_size) != size_of::<ProgramHeader>() {
        return None;
    }
    let headers: [ProgramHeader; HEADERS] =
        memory.copy(base.checked_add(usize::try_from(file.headers_at).ok()?)?)?;
    let headers = headers.get(..usize::from(file.headers))?;
    let first = headers.iter().find(|h| h.kind == LOAD)?.address;
    headers.iter().filter(|h| h.kind == NOTE).find_map(|h| {
        let notes: [u8; NOTES] =
            memory.copy(base.checked_add(usize::try_from(h.address.checked_sub(first)?).ok()?)?)?;
        let id = build_id::in_notes(notes.get(..NOTES.min(usize::try_from(h.size).ok()?))?, h.align)?;
        into.get_mut(..id.len())?.copy_from_slice(id);
        Some(id.len())
    })
}

/// Reads memory that can be read.
#[derive(Default)]
struct Memory {
    /// A page that can.
    page: Option<usize>,
}

impl Memory {
    fn copy<T: Pod>(&mut self, at: usize) -> Option<T> {
        /// The smallest page there is.
        const PAGE: usize = 4096;
        const { assert!(size_of::<T>() <= PAGE) };
        let last = at.checked_add(size_of::<T>() - 1)?;
        for byte in [at, last] {
            if self.page != Some(byte / PAGE) {
                self.page = Some(byte / PAGE).filter(|_| is_readable(byte));
                self.page?;
            }
        }
        // SAFETY: its pages can be read, and stay: the loader has a library there, which the caller is about to call. Any bytes
        // are a T.
        Some(unsafe { core::ptr::read_unaligned(core::ptr::with_exposed_provenance::<T>(at)) })
    }
}

/// Can it be read? Code may be for execution only, and whoever patches it may leave it so: reading it would be the end of the
/// program. The kernel tries for us: it compares a word there with another one, waits for no time if they are the same, and
/// wakes nobody.
fn is_readable(at: usize) -> bool {
    const UNLIKELY: u32 = 0x5f3c_19e7;
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: any address may be asked about; the time is there while the call lasts.
    let failed = unsafe { libc::syscall(libc::SYS_futex, at & !3, wait, UNLIKELY, &raw const now) } == -1;
    // SAFETY: this thread's errno. The caller has put the program's aside.
    failed && matches!(unsafe { *libc::__errno_location() }, libc::EAGAIN | libc::ETIMEDOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy<T: Pod>(at: usize) -> Option<T> {
        Memory::default().copy(at)
    }

    #[test]
    fn memory_that_can_and_that_cant_be_read() {
        assert_eq!(copy::<u64>((&raw const TOLD[3]).addr()), Some(0));
        assert_eq!(copy::<[u8; 4]>(b"code".as_ptr().addr()), Some(*b"code"));
        assert_eq!(copy::<u64>(8), None);
        assert_eq!(copy::<u64>(usize::MAX - 3), None);
        // SAFETY: fresh pages of the test's own.
        let page = unsafe {
            let protection = rustix::mm::ProtFlags::READ;
            rustix::mm::mmap_anonymous(
                core::ptr::null_mut(),
                3 * 4096,
                protection,
                rustix::mm::MapFlags::PRIVATE,
            )
            .unwrap()
        };
        // SAFETY: as above.
        unsafe { rustix::mm::munmap(page.byte_add(4096), 4096).unwrap() };
        let end = page.addr() + 4096;
        assert_eq!(copy::<u64>(end - 8), Some(0));
        assert_eq!(copy::<u64>(end - 4), None, "half of it can be read");
        assert_eq!(copy::<u64>(end + 4092), None);
        assert_eq!(copy::<u64>(end + 4096), Some(0));
    }

    #[test]
    fn the_build_id_of_what_is_loaded() {
        let library = object_of(libc::getpid as *const c_void).unwrap();
        let mut id = [0; BUILD_ID];
        let length = build(library.base, &mut id).unwrap();
        let file = std::fs::read(library.path.to_str().unwrap()).unwrap();
        assert!(length >= 8 && file[..8192].windows(length).any(|w| w == &id[..length]), "{id:x?}");
        let own = vec![0u8; 8192];
        assert_eq!(build(own.as_ptr().addr(), &mut id), None, "no library");
    }
}
