//! The clocks: the one of records, and how they stand to each other.
#![forbid(unsafe_code)]

use rustix::time::{ClockId, clock_gettime};

/// Monotonic nanoseconds, the clock of records.
pub fn now() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    (t.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(t.tv_nsec as u64)
}

/// Nanoseconds that this thread has worked: how much a look costs, however busy the machine is.
pub fn worked() -> u64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    (t.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(t.tv_nsec as u64)
}

/// The realtime clock less the monotonic one.
pub fn clock_offset() -> i128 {
    let t = clock_gettime(ClockId::Realtime);
    i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec) - i128::from(now())
}
