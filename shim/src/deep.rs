//! Objects that a program loaded with RTLD_DEEPBIND, as PHP loads its extensions: what they call is looked for in their own
//! dependencies first, and so found past us.
//!
//! Called by [`crate::hooks::dlopen`] when dlopen has returned, nowhere else. Their tables of functions are gone through: where the
//! function stands that our hook would call on to, our hook stands afterwards, as it would without the flag. What
//! they find anywhere else is theirs, and stays.

use crate::exports::{self, NAMES, place};
use crate::hooks::dlsym::look_up;
use crate::library::{self, is_tls_library};
use crate::loaded::{
    self, DT_JMPREL, DT_NEEDED, DT_PLTRELSZ, DT_RELA, DT_RELASZ, DT_RPATH, DT_RUNPATH, DT_SONAME, DT_SYMTAB,
    Entry, Object, at, find,
};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};
use libc::{Elf64_Rela, Elf64_Sym, RTLD_DEFAULT, RTLD_NEXT};

/// Objects that one dlopen is followed to.
const FAMILY: usize = 64;

/// A slot that holds a function's address, by machine (ELF supplements): in the PLT's table, in the GOT, in a table of the program's own.
#[cfg(target_arch = "x86_64")]
const KINDS: [u32; 3] = [7, 6, 1];
#[cfg(target_arch = "aarch64")]
const KINDS: [u32; 3] = [1026, 1025, 257];
const IN_PLT: u32 = KINDS[0];

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

/// A function that stands where ours should.
#[derive(Clone, Copy)]
struct Hooked {
    real: usize,
    ours: usize,
    /// Nobody but us would be found for a slot that was not looked up yet.
    plain: bool,
}

/// What was asked for, and what was loaded with it for its sake: those are ready, and stay as long as the handle. Of what other threads load
/// meanwhile the loader may still write the tables.
struct Family {
    /// Where the object that was asked for lies.
    from: u64,
    members: [Object; FAMILY],
    count: usize,
}

/// Lets `handle`, which dlopen returned, and what was loaded with it call us.
pub fn bind(handle: *mut c_void) {
    let Some(from) = library::loaded_at(handle) else { return };
    let mut family = Family { from: from as u64, members: [Object::NONE; FAMILY], count: 0 };
    loaded::each(|info| family.is_full() || family.add(info));
    let mut asked = [false; NAMES.len()];
    for object in family.members() {
        object.slots(|name, _| place(name).into_iter().for_each(|at| asked[at] = true));
    }
    let mut hooked = [None; NAMES.len()];
    let ours = library::own_handle();
    if ours.is_null() {
        return;
    }
    for at in (0..NAMES.len()).filter(|&at| asked[at]) {
        hooked[at] = hook_for(NAMES[at], handle, ours);
    }
    crate::hooks::dl::give_back(ours);
    // A lookup that found nothing must not be what the program's own dlerror tells of.
    // SAFETY: only forgets this thread's message.
    unsafe { libc::dlerror() };
    // Under the loader's lock: two threads must not open and seal one object's pages across each other.
    loaded::each(|_| {
        for object in family.members() {
            let mut sealed = Sealed::of(object);
            object.slots(|name, slot| {
                if let Some(hook) = place(name).and_then(|at| hooked[at].as_ref()) {
                    object.replace(slot, hook, &mut sealed);
                }
            });
        }
        true
    });
}

/// What `name` is to who is loaded by `handle`: the very function that our hook calls on to. None: it is something else, or nothing.
fn hook_for(name: &str, handle: *mut c_void, ours: *mut c_void) -> Option<Hooked> {
    let mut room = [0u8; exports::ROOM];
    room[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: a C string: every name is shorter than the room.
    let look = |handle| unsafe { look_up(handle, room.as_ptr().cast()) };
    let real = look(handle);
    if real.is_null() || !(is_tls_library(real) || real == look(RTLD_NEXT)) {
        return None;
    }
    let ours = look(ours);
    let plain = look(RTLD_DEFAULT) == ours;
    (!ours.is_null() && ours != real).then(|| Hooked { real: real.addr(), ours: ours.addr(), plain })
}

impl Family {
    fn members(&self) -> &[Object] {
        &self.members[..self.count]
    }

    fn is_full(&self) -> bool {
        self.count == FAMILY
    }

    /// Takes an object in that belongs here. False: to be called with the next one.
    fn add(&mut self, info: &libc::dl_phdr_info) -> bool {
        if let Some(object) = Object::of(info)
            && (info.dlpi_addr == self.from || self.needs(&object, info.dlpi_name))
        {
            self.members[self.count] = object;
            self.count += 1;
        }
        false
    }

    /// A member asked for this object. Who asks stands before it in the loader's list.
    fn needs(&self, object: &Object, path: *const c_char) -> bool {
        // SAFETY: a C string of the loader's.
        let path = if path.is_null() { c"" } else { unsafe { CStr::from_ptr(path) } };
        let (own, file) = (object.names(DT_SONAME).next(), library::base_name(path));
        let is_it = |name: &CStr| own == Some(name) || name == path || name.to_bytes() == file;
        self.members().iter().any(|member| member.names(DT_NEEDED).any(is_it))
    }
}

/// A place where an object has a function's address.
struct Slot {
    place: usize,
    kind: u32,
    /// The object has one of that name itself.
    own: Option<usize>,
}

impl Object {
    /// Calls `each` with every slot for a function, and the function's name.
    fn slots(&self, mut each: impl FnMut(&[u8], Slot)) {
        let Some(symbols) = self.table(DT_SYMTAB) else { return };
        for (rows, bytes) in [(DT_JMPREL, DT_PLTRELSZ), (DT_RELA, DT_RELASZ)] {
            let (Some(rows), Some(bytes)) = (self.table(rows), find(self.entries, bytes)) else { continue };
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
                let name = unsafe { CStr::from_ptr(at(self.strings + u64::from(symbol.st_name))) };
                let own = (symbol.st_shndx != 0).then_some((self.base + symbol.st_value) as usize);
                each(name.to_bytes(), Slot { place: (self.base + row.r_offset) as usize, kind, own });
            }
        }
    }

    /// Puts our function into a slot that has, or would get, the one that it calls on to.
    fn replace(&self, Slot { place, kind, own }: Slot, hook: &Hooked, sealed: &mut Sealed) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
