//! Behind everything else on the host.
//!
//! Called by each thread that reads files, for itself. Nothing is lost where the kernel refuses.

/// IOPRIO_WHO_PROCESS; 0 is the calling thread.
const WHO_PROCESS: libc::c_int = 1;
/// IOPRIO_CLASS_BE, level 7: the idle class would wait for ever on a disk that is always busy.
const LAST_OF_BEST_EFFORT: libc::c_int = 2 << 13 | 7;

/// The lowest priority, for processor and disk.
pub fn lowest() {
    let idle = libc::sched_param { sched_priority: 0 };
    // SAFETY: a valid sched_param that outlives the call; 0 is the calling thread.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const idle) };
    // SAFETY: numbers only.
    unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, LAST_OF_BEST_EFFORT) };
}
