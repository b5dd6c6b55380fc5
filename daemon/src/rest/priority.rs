//! Behind what else runs on the host.
//!
//! Called by each thread that reads files, for itself. Nothing is lost where the kernel refuses.

/// IOPRIO_WHO_PROCESS; 0 is the calling thread.
const WHO_PROCESS: libc::c_int = 1;
/// IOPRIO_CLASS_BE, level 7: the idle class would wait for ever on a disk that is always busy.
const LAST_OF_BEST_EFFORT: libc::c_int = 2 << 13 | 7;
/// A tenth of a processor that somebody else wants whole: 100 MB/s.
const NICE: libc::c_int = 10;

/// How far behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// A verdict waits for it: a `run` that ends, an alarm. With SCHED_IDLE a busy host would keep it for minutes.
    Verdict,
    /// Nobody waits.
    Leisure,
}

/// This thread goes on at that pace.
pub(super) fn take(pace: Pace) {
    match pace {
        Pace::Verdict => {
            // SAFETY: numbers only. 0 is the calling thread, as Linux has it.
            unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, NICE) };
        }
        Pace::Leisure => {
            let idle = libc::sched_param { sched_priority: 0 };
            // SAFETY: a valid sched_param that outlives the call; 0 is the calling thread.
            unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const idle) };
        }
    }
    // SAFETY: numbers only.
    unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, LAST_OF_BEST_EFFORT) };
}

/// This thread gives way, but is never kept waiting for ever: who burns all processors hides nothing by that.
pub fn give_way() {
    take(Pace::Verdict);
}
