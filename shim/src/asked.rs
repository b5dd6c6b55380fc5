//! Functions that a program asks a library's own handle for, as those do that know it only at run time: ctypes, LuaJIT, Nim's `dynlib`,
//! Racket, .NET's P/Invoke.
//!
//! Called by [`crate::hooks::dlsym`] when the real dlsym has found one, nowhere else. Where it is the very function that our hook calls on
//! to, the program is given the hook, as it is everywhere else.

use crate::hooks::dlsym::look_up;
use crate::library::{TLS_NAMES, base_name, in_loaded, is_tls_library, object_of, resolve, tls_library};
use crate::loaded::is_preloaded;
use core::ffi::{CStr, c_void};
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};
use libc::{RTLD_DEFAULT, RTLD_NEXT};

/// A function of each TLS library in the copy that the program asked by a handle: who calls what it was answered belongs to
/// no library, mostly.
static ASKED: [AtomicPtr<c_void>; TLS_NAMES.len()] = [const { AtomicPtr::new(null_mut()) }; TLS_NAMES.len()];

/// `name` in those copies; null if it isn't there.
pub fn copy_of(name: &CStr) -> *mut c_void {
    let copies = ASKED.iter().filter_map(|asked| object_of(asked.load(Ordering::Relaxed)));
    copies.map(|copy| in_loaded(copy.path.as_ptr(), name)).find(|at| !at.is_null()).unwrap_or(null_mut())
}

/// Our hook for `real`, which `caller` has found under `name` by a handle. None: it would not reach the same function, or
/// the caller stands before that itself, as preloads do: they want what is beneath them.
pub fn hook_for(name: &CStr, real: *mut c_void, caller: *const c_void) -> Option<*mut c_void> {
    // SAFETY: a C string.
    let look = |handle| unsafe { look_up(handle, name.as_ptr()) };
    let ours = look(RTLD_DEFAULT);
    let base = |at: *const c_void| object_of(at).map(|object| object.base);
    if base(ours) != base(hook_for as *const c_void) || is_preloaded(caller) {
        return None;
    }
    if let Some(asks) = object_of(caller).filter(|asks| !asks.path.is_empty()) {
        let own = in_loaded(asks.path.as_ptr(), name);
        if !own.is_null() && (own != real || base(own) == Some(asks.base)) {
            return None;
        }
    }
    let next = look(RTLD_NEXT);
    if next.is_null() {
        let library = tls_library(base_name(object_of(real)?.path))?;
        let _ = ASKED[library].compare_exchange(null_mut(), real, Ordering::Relaxed, Ordering::Relaxed);
    }
    let found = if next.is_null() || is_tls_library(next) { resolve(null(), name) } else { next };
    (found == real).then_some(ours)
}

/// After dlclose an address may belong to something else.
pub fn forget() {
    for asked in &ASKED {
        let at = asked.load(Ordering::Relaxed);
        if !at.is_null() && !is_tls_library(at) {
            asked.store(null_mut(), Ordering::Relaxed);
        }
    }
}
