//! Functions of libraries that may be there in several copies, come late, or go: libssl, libcrypto,
//! libgnutls. Which copy is the right one depends on who calls, so these hooks learn their caller.
//!
//! What the dynamic loader would have bound without us is found in its order: the global scope
//! behind us (RTLD_NEXT), unless that is another copy of the same library than the caller's own;
//! then the caller's own dependencies; then any copy that is loaded.

use core::ffi::{CStr, c_char, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use libc::{Dl_info, RTLD_LAZY, RTLD_NEXT, RTLD_NOLOAD, dladdr, dlopen, dlsym};

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

    /// What a call from `caller` would have reached without us; null if there is nothing.
    #[inline]
    pub fn real(&self, caller: *const c_void) -> *mut c_void {
        cached(caller, self.number, || {
            let at = resolve(caller, self.name);
            crate::foreign::check_library(self.name, at);
            at
        })
    }
}

/// `find`'s answer for this call site and number. A null is not remembered.
#[inline]
fn cached(caller: *const c_void, number: u8, find: impl FnOnce() -> *mut c_void) -> *mut c_void {
    let key = caller.addr() as u64 & ((1 << 56) - 1) | u64::from(number) << 56;
    let from = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as usize;
    for step in 0..PROBES {
        let site = &TABLE[(from + step) % SITES];
        // Acquire pairs with the release in `remember`: `at` belongs to the key.
        match site.key.load(Ordering::Acquire) {
            k if k == key => return site.at.load(Ordering::Relaxed),
            0 => break,
            _ => {}
        }
    }
    let at = crate::record::keeping_errno(find);
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
}

fn object_of(address: *const c_void) -> Option<Dl_info> {
    let mut info = core::mem::MaybeUninit::<Dl_info>::zeroed();
    // SAFETY: fills `info` when it returns non-zero.
    let info = unsafe { (dladdr(address, info.as_mut_ptr()) != 0).then(|| info.assume_init())? };
    (!info.dli_fname.is_null()).then_some(info)
}

/// The file's name of the object that `address` lies in.
fn base_name(address: *const c_void) -> &'static [u8] {
    let Some(info) = object_of(address) else { return b"" };
    // SAFETY: the loader's own string; the object is loaded while its code is on our stack.
    let path = unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes();
    path.rsplit(|&b| b == b'/').next().unwrap_or(path)
}

fn is_tls_library(address: *const c_void) -> bool {
    let name = base_name(address);
    [&b"libssl"[..], b"libcrypto", b"libgnutls"].iter().any(|known| name.starts_with(known))
}

fn in_loaded(path: *const c_char, name: &CStr) -> *mut c_void {
    // SAFETY: NOLOAD takes a reference to what is loaded already, and gives it back.
    unsafe {
        let handle = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
        if handle.is_null() {
            return null_mut();
        }
        let at = dlsym(handle, name.as_ptr());
        crate::hooks::dl::give_back(handle);
        at
    }
}

#[cold]
fn resolve(caller: *const c_void, name: &CStr) -> *mut c_void {
    // SAFETY: a C string.
    let next = unsafe { dlsym(RTLD_NEXT, name.as_ptr()) };
    if !next.is_null() && !is_tls_library(next) {
        // Another preload's: it has its own way to the real one, and keeps its place.
        return next;
    }
    let own = object_of(caller).map_or(null_mut(), |info| in_loaded(info.dli_fname, name));
    let ours = object_of(resolve as *const c_void).map_or(null_mut(), |info| info.dli_fbase);
    let usable = |at: *mut c_void| !at.is_null() && object_of(at).is_some_and(|info| info.dli_fbase != ours);
    if usable(own) {
        return own;
    }
    if !next.is_null() {
        return next;
    }
    let known =
        [c"libssl.so.3", c"libssl.so.1.1", c"libcrypto.so.3", c"libcrypto.so.1.1", c"libgnutls.so.30"];
    known.iter().map(|path| in_loaded(path.as_ptr(), name)).find(|&at| usable(at)).unwrap_or(null_mut())
}

/// Another function of the library that a call from `caller` reaches; null if it has none.
pub fn companion(caller: *const c_void, name: &CStr) -> *mut c_void {
    resolve(caller, name)
}

/// `find`'s answer for `caller`, remembered beside the functions' addresses.
#[inline]
pub fn remembered(caller: *const c_void, number: u8, find: impl FnOnce() -> *mut c_void) -> *mut c_void {
    cached(caller, number, find)
}

/// The register (x86-64 System V: rdi rsi rdx rcx r8 r9) or number (AAPCS64: x0 …) of the argument
/// behind the given ones.
#[cfg(target_arch = "x86_64")]
macro_rules! argument_behind {
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

/// Declares hooks on library functions (one to five arguments). As `real::hooks`, and the body sees
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
                    let at = FUNCTION.real($caller);
                    if at.is_null() {
                        // 0 and NULL are how all of these fail.
                        // SAFETY: an integer or a pointer.
                        return unsafe { core::mem::zeroed() };
                    }
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
