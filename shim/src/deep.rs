//! Objects that a program loaded with RTLD_DEEPBIND, as PHP loads its extensions: what they call is looked for in their own
//! dependencies first, and so found past us.
//!
//! Called by [`crate::hooks::dlopen`] when dlopen has returned, nowhere else. Their tables of functions are gone through: where the
//! function stands that our hook would call on to, our hook stands afterwards, as it would without the flag. What
//! they find anywhere else is theirs, and stays.

use crate::library::{self, is_tls_library};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};
use libc::{Elf64_Phdr, Elf64_Rela, Elf64_Sym, RTLD_DEFAULT, RTLD_NEXT, dlsym};

/// What we export, in byte order, behind a line that explains it.
const EXPORTS: &str = include_str!("../exports.txt");
/// Room for them, and for a name with its NUL.
const HOOKS: usize = 192;
const NAME: usize = 64;
/// Objects that one dlopen is followed to.
const FAMILY: usize = 64;

/// A slot that holds a function's address, by machine (ELF supplements): in the PLT's table, in the GOT, in a table of the program's own.
#[cfg(target_arch = "x86_64")]
const KINDS: [u32; 3] = [7, 6, 1];
#[cfg(target_arch = "aarch64")]
const KINDS: [u32; 3] = [1026, 1025, 257];
const IN_PLT: u32 = KINDS[0];

const DT_NEEDED: i64 = 1;
const DT_PLTRELSZ: i64 = 2;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_SONAME: i64 = 14;
const DT_RPATH: i64 = 15;
const DT_JMPREL: i64 = 23;
const DT_RUNPATH: i64 = 29;

/// `Elf64_Dyn`.
#[repr(C)]
struct Entry {
    tag: i64,
    value: u64,
}

/// Whether we may call dlopen ourselves for `caller`: `path` leads to the same, whoever asks.
pub fn anybody_finds(path: *const c_char, caller: *const c_void) -> bool {
    if path.is_null() {
        return false;
    }
    // SAFETY: dlopen's contract.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    let Some((rpath, runpath)) = search_paths(caller) else { return false };
    // `$ORIGIN` is the caller's. Its RPATH is searched for dependencies, too.
    !path.contains(&b'$') && !rpath && (path.contains(&b'/') || !runpath)
}

/// Whether the object that `caller` lies in has a DT_RPATH, and a DT_RUNPATH.
fn search_paths(caller: *const c_void) -> Option<(bool, bool)> {
    let entries = library::dynamic_of(caller)?.cast::<Entry>();
    let has = |tag| find(entries, tag).is_some();
    Some((has(DT_RPATH), has(DT_RUNPATH)))
}

/// What an object's own table says of `tag`, each time.
fn all(mut next: *const Entry, tag: i64) -> impl Iterator<Item = u64> {
    core::iter::from_fn(move || {
        // SAFETY: the loader's own while the object is loaded: it ends with DT_NULL.
        unsafe {
            while (*next).tag != 0 {
                let entry = &*next;
                next = next.add(1);
                if entry.tag == tag {
                    return Some(entry.value);
                }
            }
        }
        None
    })
}

fn find(entries: *const Entry, tag: i64) -> Option<u64> {
    all(entries, tag).next()
}

/// A function that stands where ours should.
#[derive(Clone, Copy)]
struct Hooked {
    name: &'static str,
    real: usize,
    ours: usize,
    /// Nobody but us would be found for a slot that was not looked up yet.
    plain: bool,
}

/// What is looked for, and in what.
struct Search {
    hooked: [Hooked; HOOKS],
    count: usize,
    /// Where the object that was asked for lies.
    from: u64,
    /// It, and what was loaded with it for its sake: those are ready. Of what other threads load meanwhile the loader may still
    /// write the tables.
    family: [Words; FAMILY],
    members: usize,
}

/// What an object says of itself.
#[derive(Clone, Copy)]
struct Words {
    entries: *const Entry,
    strings: u64,
}

impl Words {
    /// The names that it gives for `tag`.
    fn names(self, tag: i64) -> impl Iterator<Item = &'static CStr> {
        // SAFETY: C strings of the object's, while it is loaded.
        all(self.entries, tag).map(move |name| unsafe { CStr::from_ptr(at(self.strings + name)) })
    }
}

/// How many objects were loaded so far, those that are gone included.
pub fn loads() -> u64 {
    unsafe extern "C" fn first(info: *mut libc::dl_phdr_info, _: usize, loads: *mut c_void) -> c_int {
        // SAFETY: the loader's own data, and the answer that is passed below.
        unsafe { *loads.cast::<u64>() = (*info).dlpi_adds };
        1
    }
    let mut loads = 0u64;
    // SAFETY: the answer outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut loads).cast()) };
    loads
}

/// Lets `handle`, which dlopen returned, and what was loaded with it call us.
pub fn bind(handle: *mut c_void) {
    let Some(from) = library::loaded_at(handle) else { return };
    let none = Hooked { name: "", real: 0, ours: 0, plain: false };
    let family = [Words { entries: core::ptr::null(), strings: 0 }; FAMILY];
    let mut search = Search { hooked: [none; HOOKS], count: 0, from: from as u64, family, members: 0 };
    let ours = library::own_handle();
    for name in EXPORTS.lines().filter(|line| !line.starts_with('#')) {
        let Some(hooked) = hooked(handle, ours, name) else { continue };
        search.hooked[search.count] = hooked;
        search.count += 1;
    }
    // A lookup that found nothing must not be what the program's own dlerror tells of.
    // SAFETY: gives the reference back, and forgets this thread's message. The callback's data outlives the call.
    unsafe {
        if !ours.is_null() {
            crate::hooks::dl::give_back(ours);
        }
        libc::dlerror();
        libc::dl_iterate_phdr(Some(each), (&raw mut search).cast());
    }
}

/// What `name` is to who is loaded by `handle`: the very function that our hook calls on to. None: it is something else, or nothing.
fn hooked(handle: *mut c_void, ours: *mut c_void, name: &'static str) -> Option<Hooked> {
    let mut room = [0u8; NAME];
    room[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: a C string: every name is shorter than the room.
    let look = |handle| unsafe { dlsym(handle, room.as_ptr().cast()) };
    let real = look(handle);
    if real.is_null() || !(is_tls_library(real) || real == look(RTLD_NEXT)) {
        return None;
    }
    let ours = if ours.is_null() { null_mut() } else { look(ours) };
    let plain = look(RTLD_DEFAULT) == ours;
    (!ours.is_null() && ours != real).then(|| Hooked { name, real: real.addr(), ours: ours.addr(), plain })
}

/// One loaded object. The loader holds its list meanwhile: none is unloaded.
unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
    // SAFETY: the loader's own data, and the search that `bind` passes.
    let (info, search) = unsafe { (&*info, &mut *data.cast::<Search>()) };
    // SAFETY: the loader's own.
    let headers = unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let object = Object { base: info.dlpi_addr, headers };
    let Some(words) = object.words() else { return 0 };
    if info.dlpi_addr != search.from && !search.needs(words, info.dlpi_name) {
        return 0;
    }
    if search.members == FAMILY {
        return 1;
    }
    search.family[search.members] = words;
    search.members += 1;
    object.rebind(words, &search.hooked[..search.count]);
    0
}

impl Search {
    /// One of the family asked for this object. Who asks stands before it in the loader's list.
    fn needs(&self, words: Words, path: *const c_char) -> bool {
        // SAFETY: a C string of the loader's.
        let path = if path.is_null() { c"" } else { unsafe { CStr::from_ptr(path) } };
        let (own, file) = (words.names(DT_SONAME).next(), library::base_name(path));
        let is_it = |name: &CStr| own == Some(name) || name == path || name.to_bytes() == file;
        self.family[..self.members].iter().any(|member| member.names(DT_NEEDED).any(is_it))
    }
}

/// A loaded object.
struct Object<'a> {
    base: u64,
    headers: &'a [Elf64_Phdr],
}

impl Object<'_> {
    fn header(&self, kind: u32) -> Option<&Elf64_Phdr> {
        self.headers.iter().find(|header| header.p_type == kind)
    }

    /// `at` lies in a segment with these rights.
    fn holds(&self, at: usize, rights: u32) -> bool {
        self.headers.iter().any(|header| {
            let begin = self.base + header.p_vaddr;
            header.p_type == libc::PT_LOAD
                && header.p_flags & rights != 0
                && (begin..begin + header.p_memsz).contains(&(at as u64))
        })
    }

    fn words(&self) -> Option<Words> {
        let entries = at::<Entry>(self.base + self.header(libc::PT_DYNAMIC)?.p_vaddr);
        Some(Words { entries, strings: self.table(entries, DT_STRTAB)? })
    }

    /// Where a table lies. The loader makes addresses of what the file has as offsets, where it may write there.
    fn table(&self, entries: *const Entry, tag: i64) -> Option<u64> {
        find(entries, tag).map(|v| if v < self.base { v + self.base } else { v })
    }

    fn rebind(&self, Words { entries, strings }: Words, hooked: &[Hooked]) {
        let table = |tag| self.table(entries, tag);
        let Some(symbols) = table(DT_SYMTAB) else { return };
        let mut sealed = Sealed::of(self);
        for (rows, bytes) in [(DT_JMPREL, DT_PLTRELSZ), (DT_RELA, DT_RELASZ)] {
            let (Some(rows), Some(bytes)) = (table(rows), find(entries, bytes)) else { continue };
            for index in 0..bytes as usize / size_of::<Elf64_Rela>() {
                // SAFETY: the object's own tables, which the loader has gone by.
                let row = unsafe { &*at::<Elf64_Rela>(rows).add(index) };
                let (kind, symbol) = (row.r_info as u32, (row.r_info >> 32) as usize);
                if symbol == 0 || row.r_addend != 0 || !KINDS.contains(&kind) {
                    continue;
                }
                // SAFETY: as above.
                let symbol = unsafe { &*at::<Elf64_Sym>(symbols).add(symbol) };
                // SAFETY: as above.
                let name = unsafe { CStr::from_ptr(at(strings + u64::from(symbol.st_name))) }.to_bytes();
                if let Ok(found) = hooked.binary_search_by(|hook| hook.name.as_bytes().cmp(name)) {
                    let own = (symbol.st_shndx != 0).then_some((self.base + symbol.st_value) as usize);
                    self.replace((self.base + row.r_offset) as usize, kind, own, &hooked[found], &mut sealed);
                }
            }
        }
    }

    /// The slot at `place` is for `hook`'s function. `own`: the object has one of that name itself.
    fn replace(&self, place: usize, kind: u32, own: Option<usize>, hook: &Hooked, sealed: &mut Sealed) {
        if !self.holds(place, libc::PF_W) || !place.is_multiple_of(align_of::<AtomicUsize>()) {
            return;
        }
        // SAFETY: a slot of this object's, in a segment of data.
        let slot = unsafe { &*core::ptr::with_exposed_provenance::<AtomicUsize>(place) };
        let now = slot.load(Ordering::Relaxed);
        // Not looked up yet: it leads back into the object's own PLT.
        let waits = kind == IN_PLT && self.holds(now, libc::PF_X) && own.is_none_or(|own| own != now);
        let right = now == hook.real || (waits && hook.plain && own.is_none_or(|own| own == hook.real));
        if right && sealed.open(place) {
            let _ = slot.compare_exchange(now, hook.ours, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// The pages of an object that the loader made read-only after it had filled them in (PT_GNU_RELRO). Open for writing from the first
/// need until dropped.
struct Sealed {
    begin: usize,
    bytes: usize,
    open: bool,
}

impl Sealed {
    fn of(object: &Object) -> Self {
        // SAFETY: asks, and nothing else.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let down = |at: u64| at as usize & !(page - 1);
        object.header(libc::PT_GNU_RELRO).map_or(Self { begin: 0, bytes: 0, open: false }, |header| {
            let begin = object.base + header.p_vaddr;
            // As glibc does (_dl_protect_relro): only pages that are whole.
            let (begin, end) = (down(begin), down(begin + header.p_memsz));
            Self { begin, bytes: end.saturating_sub(begin), open: false }
        })
    }

    /// `place` can be written.
    fn open(&mut self, place: usize) -> bool {
        if place.wrapping_sub(self.begin) >= self.bytes || self.open {
            return true;
        }
        self.open = self.protect(libc::PROT_READ | libc::PROT_WRITE);
        self.open
    }

    fn protect(&self, rights: c_int) -> bool {
        // SAFETY: pages of a loaded object's data; readable before and after.
        unsafe { libc::mprotect(core::ptr::with_exposed_provenance_mut(self.begin), self.bytes, rights) == 0 }
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        if self.open {
            self.protect(libc::PROT_READ);
        }
    }
}

fn at<T>(address: u64) -> *const T {
    core::ptr::with_exposed_provenance(address as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_fits() {
        let names: Vec<&str> = EXPORTS.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(names.len() <= HOOKS && names.iter().all(|name| name.len() < NAME));
        assert!(names.is_sorted(), "as they are looked for");
    }

    #[test]
    fn who_has_no_search_path_may_ask_through_us() {
        let here = who_has_no_search_path_may_ask_through_us as *const c_void;
        assert!(anybody_finds(c"/lib/x.so".as_ptr(), here));
        assert!(anybody_finds(c"x.so".as_ptr(), here));
        assert!(!anybody_finds(c"$ORIGIN/x.so".as_ptr(), here));
        assert!(!anybody_finds(core::ptr::null(), here), "the program itself");
        assert!(!anybody_finds(c"/lib/x.so".as_ptr(), core::ptr::null()), "code of nobody's");
    }
}
