//! Calls that write into another process: what debuggers use, and what changes a transfer below its
//! program. Only that it was done is said, never what was written. Writes to `/proc/PID/mem` are noticed
//! where all writes are, in `descriptors` and `files`.

use crate::memory;
use crate::real::hooks;
use core::ffi::{c_long, c_uint, c_ulong, c_void};
use libc::{iovec, pid_t, ssize_t};

hooks! {
    real process_vm_writev(pid: pid_t, from: *const iovec, pieces: c_ulong, to: *const iovec, places: c_ulong, flags: c_ulong) -> ssize_t {
        let result = real(pid, from, pieces, to, places, flags);
        // A call that wrote something had a first place.
        if result > 0 && places > 0 { memory::wrote(pid, (*to).iov_base as usize, result); }
        result
    }

    // Variadic in C; glibc reads three arguments after the request whatever it is.
    real ptrace(request: c_uint, pid: pid_t, address: *mut c_void, data: *mut c_void) -> c_long {
        let result = real(request, pid, address, data);
        if result != -1 && memory::pokes(request) { memory::poked(request, pid, address as usize); }
        result
    }
}
