//! Functions of libraries that may be there in several copies, come late, or go: libssl, libcrypto,
//! libgnutls. Which copy is the right one depends on who calls, so these hooks learn their caller.
//!
//! What the dynamic loader would have bound without us is found in its order: the global scope
//! behind us (RTLD_NEXT), unless that is another copy of the same library than the caller's own;
//! then the caller's own dependencies; then any copy that is loaded.

use crate::hooks::dlsym::look_up;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use libc::{Dl_info, RTLD_DEFAULT, RTLD_LAZY, RTLD_NEXT, RTLD_NOLOAD, dladdr};

/// Call sites remembered. A power of two.
const SITES: usize = 2048;
const PROBES: usize = 8;

struct Site {
    /// Return address | function number << 56; 0 free, [`BUSY`] being written.
    key: AtomicU64,
    at: AtomicPtr<c_void>,
}

const BUSY: u64 = 1;

static TABLE: [Site; SITES] =
    [const { Site { key: AtomicU64::new(0), at: AtomicPtr::new(null_mut()) } }; SITES];

/// A hooked library function. `number` is unique among them.
pub struct Function {
    name: &'static CStr,
    number: u8,
}

impl Function {
    /// A function called `name`.
    pub const fn new(name: &'static CStr, number: u8) -> Self {
        Self { name, number }
    }

    /// [`Self::real`] if it stands at its first place; null: look for it.
    #[inline(always)]
    pub fn at_hand(&self, caller: *const c_void) -> *mut c_void {
        at_hand(key(caller, self.number))
    }

    /// What a call from `caller` would have reached without us; null if there is nothing.
    pub fn real(&self, caller: *const c_void) -> *mut c_void {
        search(key(caller, self.number), || {
            let at = resolve(caller, self.name);
            crate::foreign::check_library(self.name, at);
            crate::code::tell(self.number, at);
            at
        })
    }
}

#[inline(always)]
fn key(caller: *const c_void, number: u8) -> u64 {
    caller.addr() as u64 & ((1 << 56) - 1) | u64::from(number) << 56
}

/// Where the search for a key begins.
#[inline(always)]
fn place(key: u64) -> usize {
    (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - SITES.trailing_zeros())) as usize
}

/// The answer for a key, if it stands at its first place.
#[inline(always)]
fn at_hand(key: u64) -> *mut c_void {
    let site = &TABLE[place(key)];
    // Acquire pairs with the release in `remember`: `at` belongs to the key.
    if site.key.load(Ordering::Acquire) == key { site.at.load(Ordering::Relaxed) } else { null_mut() }
}

/// `find`'s answer for a key. A null is not remembered.
#[inline(never)]
fn search(key: u64, find: impl FnOnce() -> *mut c_void) -> *mut c_void {
    let from = place(key);
    for step in 0..PROBES {
        let site = &TABLE[(from + step) % SITES];
        // As in `at_hand`.
        match site.key.load(Ordering::Acquire) {
            k if k == key => return site.at.load(Ordering::Relaxed),
            0 => break,
            _ => {}
        }
    }
    let at = crate::shield::keeping_errno(find);
    if !at.is_null() {
        remember(key, from, at);
    }
    at
}

#[cold]
fn remember(key: u64, from: usize, at: *mut c_void) {
    for step in 0..PROBES {
        let site = &TABLE[(from + step) % SITES];
        if site.key.compare_exchange(0, BUSY, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            site.at.store(at, Ordering::Relaxed);
            site.key.store(key, Ordering::Release);
            return;
        }
    }
}

/// Forgets all: after dlclose an address may belong to something else.
pub fn forget_all() {
    for site in &TABLE {
        site.key.store(0, Ordering::Relaxed);
    }
    for slot in &crate::openssl::LIBRARIES {
        slot.retire();
    }
    crate::asked::forget();
}

/// A loaded object: where it begins, and its path ("" for the program itself).
pub struct Loaded {
    /// Equal for all addresses of one object.
    pub base: usize,
    /// As the loader found it.
    pub path: &'static CStr,
}

/// glibc's `struct dl_find_object` (dlfcn.h, since 2.35), up to what is needed.
#[repr(C)]
struct Found {
    flags: u64,
    start: *mut c_void,
    end: *mut c_void,
    map: *const LinkMap,
    rest: [u64; 16],
}

/// `struct link_map` (link.h), the public part.
#[repr(C)]
struct LinkMap {
    address: usize,
    name: *const c_char,
    dynamic: *const c_void,
    next: *const LinkMap,
}

/// The object that `address` lies in. dladdr would do, but it reads all of the object's symbols.
pub fn object_of(address: *const c_void) -> Option<Loaded> {
    let Some(find) = finder() else { return object_of_old(address) };
    let found = find(address)?;
    // SAFETY: the loader's own, while the object is loaded.
    let name = unsafe { (*found.map).name };
    // SAFETY: as above, a C string.
    let path = if name.is_null() { c"" } else { unsafe { CStr::from_ptr(name) } };
    Some(Loaded { base: found.start.addr(), path })
}

/// Whether `any` is true of the path of an object that was loaded behind ours. None: glibc is too old
/// to tell.
pub fn any_behind(any: impl Fn(&CStr) -> bool) -> Option<bool> {
    let mut map = finder()?(object_of as *const c_void)?.map;
    // SAFETY: the loader's list. Only the constructor walks it, while the loader itself waits for it.
    unsafe {
        while !(*map).next.is_null() {
            map = (*map).next;
            if !(*map).name.is_null() && any(CStr::from_ptr((*map).name)) {
                return Some(true);
            }
        }
    }
    Some(false)
}

/// The dynamic section of the object that `address` lies in. Reads all of the object's symbols.
pub fn dynamic_of(address: *const c_void) -> Option<*const c_void> {
    let mut info = core::mem::MaybeUninit::<Dl_info>::zeroed();
    let mut map: *mut LinkMap = null_mut();
    // SAFETY: fills both when it returns non-zero; the map is the loader's own while the object is loaded.
    unsafe {
        let found = libc::dladdr1(address, info.as_mut_ptr(), (&raw mut map).cast(), RTLD_DL_LINKMAP) != 0;
        (found && !map.is_null()).then(|| (*map).dynamic)
    }
}

/// What is added to the addresses in the file of what dlopen returned as `handle`.
pub fn loaded_at(handle: *mut c_void) -> Option<usize> {
    let mut map: *mut LinkMap = null_mut();
    // SAFETY: a handle of dlopen's; filled when it returns 0.
    unsafe {
        let found = libc::dlinfo(handle, libc::RTLD_DI_LINKMAP, (&raw mut map).cast()) == 0;
        (found && !map.is_null()).then(|| (*map).address)
    }
}

/// A reference to ourselves, to be given back; null where we can't be found.
pub fn own_handle() -> *mut c_void {
    object_of(own_handle as *const c_void).map_or(null_mut(), |object| reference(object.path.as_ptr()))
}

/// dladdr1's, for the object's `struct link_map` (dlfcn.h).
const RTLD_DL_LINKMAP: c_int = 2;

fn finder() -> Option<impl Fn(*const c_void) -> Option<Found>> {
    static FIND: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
    let mut find = FIND.load(Ordering::Relaxed);
    if find.is_null() {
        // SAFETY: a C string.
        find = unsafe { look_up(RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
        FIND.store(find, Ordering::Relaxed);
    }
    if find.is_null() {
        return None;
    }
    // SAFETY: the declaration in dlfcn.h; takes no lock and allocates nothing.
    let find: unsafe extern "C" fn(*const c_void, *mut Found) -> c_int =
        unsafe { core::mem::transmute(find) };
    Some(move |address| {
        let mut found = core::mem::MaybeUninit::<Found>::zeroed();
        // SAFETY: any address may be asked for; filled when it returns 0.
        unsafe { (find(address, found.as_mut_ptr()) == 0).then(|| found.assume_init()) }
    })
}

#[cold]
fn object_of_old(address: *const c_void) -> Option<Loaded> {
    if address.is_null() {
        return None;
    }
    let mut info = core::mem::MaybeUninit::<Dl_info>::zeroed();
    // SAFETY: fills `info` when it returns non-zero; the path is the loader's own string.
    unsafe {
        let info = (dladdr(address, info.as_mut_ptr()) != 0).then(|| info.assume_init())?;
        (!info.dli_fname.is_null())
            .then(|| Loaded { base: info.dli_fbase.addr(), path: CStr::from_ptr(info.dli_fname) })
    }
}

/// The last part of a path.
pub fn base_name(path: &CStr) -> &[u8] {
    let path = path.to_bytes();
    path.rsplit(|&b| b == b'/').next().unwrap_or(path)
}

/// What the file names of TLS libraries begin with, by library.
pub const TLS_NAMES: [&[&[u8]]; 3] =
    [&[b"libssl.", b"libssl-"], &[b"libcrypto.", b"libcrypto-"], &[b"libgnutls"]];

/// The TLS library that has such a file name.
pub fn tls_library(name: &[u8]) -> Option<usize> {
    TLS_NAMES.iter().position(|library| library.iter().any(|known| name.starts_with(known)))
}

/// Is this the file name of a TLS library?
pub fn is_tls_name(name: &[u8]) -> bool {
    tls_library(name).is_some()
}

/// Does `address` lie in a TLS library?
pub fn is_tls_library(address: *const c_void) -> bool {
    object_of(address).is_some_and(|object| is_tls_name(base_name(object.path)))
}

/// `name` in any TLS library that is loaded, wherever it hides.
#[cold]
fn in_any(name: &CStr) -> *mut c_void {
    struct Search<'a> {
        name: &'a CStr,
        paths: [*const c_char; 8],
        count: usize,
    }
    unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
        // SAFETY: the loader's own data, and the search that is passed below.
        let (info, search) = unsafe { (&*info, &mut *data.cast::<Search>()) };
        if info.dlpi_name.is_null() || search.count == search.paths.len() {
            return 0;
        }
        // SAFETY: a C string of the loader's.
        let path = unsafe { CStr::from_ptr(info.dlpi_name) };
        if is_tls_name(base_name(path)) {
            search.paths[search.count] = info.dlpi_name;
            search.count += 1;
        }
        0
    }
    let mut search = Search { name, paths: [core::ptr::null(); 8], count: 0 };
    // SAFETY: the callback's data outlives the call. Paths stay while their objects are loaded.
    unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut search).cast()) };
    search.paths[..search.count]
        .iter()
        .map(|&path| in_loaded(path, search.name))
        .find(|at| !at.is_null())
        .unwrap_or(null_mut())
}

/// `name` in what is loaded from that path, and in its dependencies; null if it isn't there.
pub fn in_loaded(path: *const c_char, name: &CStr) -> *mut c_void {
    let handle = reference(path);
    if handle.is_null() {
        return null_mut();
    }
    // SAFETY: a handle, and a C string.
    let at = unsafe { look_up(handle, name.as_ptr()) };
    crate::hooks::dl::give_back(handle);
    at
}

/// A handle for what is loaded already, to be given back.
fn reference(path: *const c_char) -> *mut c_void {
    // SAFETY: a C string.
    unsafe { libc::dlopen(path, RTLD_LAZY | RTLD_NOLOAD) }
}

/// What a call from `caller` by that name would have reached without us; null if there is nothing.
#[cold]
pub fn resolve(caller: *const c_void, name: &CStr) -> *mut c_void {
    // SAFETY: a C string.
    let next = unsafe { look_up(RTLD_NEXT, name.as_ptr()) };
    if !next.is_null() && !is_tls_library(next) {
        // Another preload's: it has its own way to the real one, and keeps its place.
        return next;
    }
    let own = object_of(caller)
        .filter(|object| !object.path.is_empty())
        .map_or(null_mut(), |object| in_loaded(object.path.as_ptr(), name));
    let ours = object_of(resolve as *const c_void).map_or(0, |object| object.base);
    // A library that wraps the function and calls on must not be given itself; a TLS library that
    // calls its own function through the PLT must.
    let asks = object_of(caller).map_or(0, |object| object.base);
    if object_of(own).is_some_and(|object| {
        object.base != ours && (object.base != asks || is_tls_name(base_name(object.path)))
    }) {
        return own;
    }
    for found in [crate::asked::copy_of(name), next] {
        if !found.is_null() {
            return found;
        }
    }
    in_any(name)
}

/// Another function of the library that a call from `caller` reaches; null if it has none.
pub fn companion(caller: *const c_void, name: &CStr) -> *mut c_void {
    resolve(caller, name)
}

/// `find`'s answer for `caller`, remembered beside the functions' addresses.
#[inline(always)]
pub fn remembered(caller: *const c_void, number: u8, find: impl FnOnce() -> *mut c_void) -> *mut c_void {
    let key = key(caller, number);
    let at = at_hand(key);
    if at.is_null() { search(key, find) } else { at }
}

/// The register (x86-64 System V: rdi rsi rdx rcx r8 r9) or number (AAPCS64: x0 …) of the argument
/// behind the given ones.
#[cfg(target_arch = "x86_64")]
macro_rules! argument_behind {
    () => {
        "rdi"
    };
    ($a:ident) => {
        "rsi"
    };
    ($a:ident $b:ident) => {
        "rdx"
    };
    ($a:ident $b:ident $c:ident) => {
        "rcx"
    };
    ($a:ident $b:ident $c:ident $d:ident) => {
        "r8"
    };
    ($a:ident $b:ident $c:ident $d:ident $e:ident) => {
        "r9"
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! argument_behind {
    () => {
        "x0"
    };
    ($a:ident) => {
        "x1"
    };
    ($a:ident $b:ident) => {
        "x2"
    };
    ($a:ident $b:ident $c:ident) => {
        "x3"
    };
    ($a:ident $b:ident $c:ident $d:ident) => {
        "x4"
    };
    ($a:ident $b:ident $c:ident $d:ident $e:ident) => {
        "x5"
    };
}
pub(crate) use argument_behind;

/// Declares hooks on library functions (up to five arguments). As `real::hooks`, and the body sees
/// `caller`, the address that the call returns to. The exported symbol is two instructions: it
/// passes the return address as one more argument.
macro_rules! library_hooks {
    ($( $number:literal $real:ident($caller:ident) $name:ident($($arg:ident: $type:ty),* $(,)?) -> $out:ty $body:block )*) => {
        $(
            #[allow(non_snake_case)]
            mod $name {
                #[allow(unused_imports)]
                use super::*;
                pub(super) static FUNCTION: $crate::library::Function = $crate::library::Function::new(
                    // SAFETY: ends with the NUL just added, and a name holds none.
                    unsafe { core::ffi::CStr::from_bytes_with_nul_unchecked(concat!(stringify!($name), "\0").as_bytes()) },
                    $number,
                );
                pub(super) unsafe extern "C-unwind" fn body($($arg: $type,)* $caller: *const core::ffi::c_void) -> $out {
                    let at = FUNCTION.at_hand($caller);
                    // SAFETY: the contract is passed on.
                    unsafe { if at.is_null() { first($($arg,)* $caller) } else { call_through(at, $($arg,)* $caller) } }
                }
                /// Apart, so that what is called from here later needs no stack for it.
                #[cold]
                #[inline(never)]
                unsafe extern "C-unwind" fn first($($arg: $type,)* $caller: *const core::ffi::c_void) -> $out {
                    let at = FUNCTION.real($caller);
                    if at.is_null() {
                        // 0 and NULL are how all of these fail.
                        // SAFETY: an integer or a pointer.
                        return unsafe { core::mem::zeroed() };
                    }
                    // SAFETY: the contract is passed on.
                    unsafe { call_through(at, $($arg,)* $caller) }
                }
                #[inline(always)]
                unsafe fn call_through(at: *mut core::ffi::c_void, $($arg: $type,)* $caller: *const core::ffi::c_void) -> $out {
                    // SAFETY: the type is the C declaration's.
                    let $real: unsafe extern "C-unwind" fn($($type),*) -> $out = unsafe { core::mem::transmute(at) };
                    // SAFETY: the body keeps to the contract that its caller keeps to.
                    unsafe { $body }
                }
            }
            /// See the C function of that name.
            ///
            /// # Safety
            /// That function's contract.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            pub unsafe extern "C-unwind" fn $name($($arg: $type),*) -> $out {
                #[cfg(target_arch = "x86_64")]
                core::arch::naked_asm!(
                    "endbr64",
                    concat!("mov ", $crate::library::argument_behind!($($arg)*), ", [rsp]"),
                    "jmp {body}",
                    body = sym $name::body,
                );
                #[cfg(target_arch = "aarch64")]
                core::arch::naked_asm!(
                    "hint 34",
                    concat!("mov ", $crate::library::argument_behind!($($arg)*), ", x30"),
                    "b {body}",
                    body = sym $name::body,
                );
            }
        )*
        /// The C names of these hooks.
        #[cfg(test)]
        pub const HOOKS: &[&str] = &[$(stringify!($name)),*];
    };
}
pub(crate) use library_hooks;
