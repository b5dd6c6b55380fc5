//! What is loaded into the program: its objects, and what each says of itself.

use crate::library::base_name;
use core::ffi::{CStr, c_int, c_void};
use libc::Elf64_Phdr;

pub const DT_NEEDED: i64 = 1;
pub const DT_PLTRELSZ: i64 = 2;
const DT_STRTAB: i64 = 5;
pub const DT_SYMTAB: i64 = 6;
pub const DT_RELA: i64 = 7;
pub const DT_RELASZ: i64 = 8;
pub const DT_SONAME: i64 = 14;
pub const DT_RPATH: i64 = 15;
pub const DT_JMPREL: i64 = 23;
pub const DT_RUNPATH: i64 = 29;

/// `Elf64_Dyn`.
#[repr(C)]
pub struct Entry {
    tag: i64,
    value: u64,
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

/// The same, once.
pub fn find(entries: *const Entry, tag: i64) -> Option<u64> {
    all(entries, tag).next()
}

/// Calls `each` with what is loaded until it says that this is enough. The loader holds its list meanwhile: nothing is unloaded, and nobody
/// else is here. Nothing that asks the loader may be called.
pub fn each(mut each: impl FnMut(&libc::dl_phdr_info) -> bool) {
    unsafe extern "C" fn call<F: FnMut(&libc::dl_phdr_info) -> bool>(
        info: *mut libc::dl_phdr_info,
        _: usize,
        each: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader's own data, and the function that is passed below.
        unsafe { (*each.cast::<F>())(&*info).into() }
    }
    fn of<F: FnMut(&libc::dl_phdr_info) -> bool>(each: &mut F) {
        // SAFETY: the function outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(call::<F>), core::ptr::from_mut(each).cast()) };
    }
    of(&mut each);
}

/// How many objects were loaded so far, those that are gone included.
pub fn loads() -> u64 {
    let mut loads = 0;
    each(|first| {
        loads = first.dlpi_adds;
        true
    });
    loads
}

/// A loaded object.
#[derive(Clone, Copy)]
pub struct Object {
    /// Is added to the addresses in its file.
    pub base: u64,
    headers: &'static [Elf64_Phdr],
    /// What it says of itself.
    pub entries: *const Entry,
    /// Where its names are.
    pub strings: u64,
}

impl Object {
    /// Room for one.
    pub const NONE: Self = Self { base: 0, headers: &[], entries: core::ptr::null(), strings: 0 };

    /// None: it says nothing of itself.
    pub fn of(info: &libc::dl_phdr_info) -> Option<Self> {
        // SAFETY: the loader's own, while the object is loaded.
        let headers = unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        let mut object = Self { base: info.dlpi_addr, headers, ..Self::NONE };
        object.entries = at(object.base + object.header(libc::PT_DYNAMIC)?.p_vaddr);
        object.strings = object.table(DT_STRTAB)?;
        Some(object)
    }

    /// The names that it gives for `tag`.
    pub fn names(&self, tag: i64) -> impl Iterator<Item = &'static CStr> + use<> {
        let strings = self.strings;
        // SAFETY: C strings of the object's, while it is loaded.
        all(self.entries, tag).map(move |name| unsafe { CStr::from_ptr(at(strings + name)) })
    }

    /// Its first program header of a kind.
    pub fn header(&self, kind: u32) -> Option<&Elf64_Phdr> {
        self.headers.iter().find(|header| header.p_type == kind)
    }

    /// `at` lies in a segment with these rights.
    pub fn holds(&self, at: usize, rights: u32) -> bool {
        self.headers.iter().any(|header| {
            let begin = self.base + header.p_vaddr;
            header.p_type == libc::PT_LOAD
                && header.p_flags & rights != 0
                && (begin..begin + header.p_memsz).contains(&(at as u64))
        })
    }

    /// Where a table lies. The loader makes addresses of what the file has as offsets, where it may write there.
    pub fn table(&self, tag: i64) -> Option<u64> {
        find(self.entries, tag).map(|v| if v < self.base { v + self.base } else { v })
    }
}

/// What lies at an address.
pub fn at<T>(address: u64) -> *const T {
    core::ptr::with_exposed_provenance(address as usize)
}

/// `address` lies in an object that was preloaded, as we are: the loader puts those between the program and the first library that the
/// program itself needs.
pub fn is_preloaded(address: *const c_void) -> bool {
    let (mut first, mut found) = (None, false);
    each(|info| {
        let Some(object) = Object::of(info) else { return false };
        let Some(needed) = first else {
            first = Some(object.names(DT_NEEDED).next());
            return false;
        };
        // SAFETY: a C string of the loader's.
        let name = if info.dlpi_name.is_null() { c"" } else { unsafe { CStr::from_ptr(info.dlpi_name) } };
        let stop = needed.is_some_and(|needed| base_name(name) == base_name(needed));
        found = !stop && object.holds(address.addr(), !0);
        found || stop
    });
    found
}
