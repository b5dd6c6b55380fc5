//! Leaving calls without returning from them.

use crate::process;
use crate::real::hooks;
use crate::shield::shielded;
use crate::thread;
use core::ffi::{c_int, c_void};

fn leaving() {
    if process::active() {
        shielded((), || thread::current().left());
    }
}

// These do not return; `()` keeps one macro for all. The real call restores the caller's registers.
hooks! {
    real longjmp(env: *mut c_void, value: c_int) { leaving(); real(env, value); }
    real _longjmp(env: *mut c_void, value: c_int) { leaving(); real(env, value); }
    real siglongjmp(env: *mut c_void, value: c_int) { leaving(); real(env, value); }
    real __longjmp_chk(env: *mut c_void, value: c_int) { leaving(); real(env, value); }
}
