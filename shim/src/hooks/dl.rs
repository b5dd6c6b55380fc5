//! dlclose: what we remember of a library must not outlive it.

use crate::library;
use crate::real::hooks;
use crate::shield::{keeping_errno, shielded};
use core::ffi::{c_int, c_void};

hooks! {
    real dlclose(handle: *mut c_void) -> c_int {
        let result = real(handle);
        keeping_errno(|| shielded((), library::forget_all));
        result
    }
}

/// Gives back a reference that we took ourselves; nothing is unloaded by it.
pub fn give_back(handle: *mut c_void) {
    // SAFETY: the C declaration's type; `handle` came from dlopen.
    if let Some(real) = unsafe { dlclose::REAL.get() } {
        // SAFETY: as above.
        unsafe { real(handle) };
    }
}
