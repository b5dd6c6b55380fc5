//! Waiting by looking, with a deadline: no test sleeps and hopes.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Looks until `look` finds something, at most `limit`. None: it never did.
pub fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The same, and panics with `what` where it never did.
pub fn until<T>(limit: Duration, what: impl Display, look: impl FnMut() -> Option<T>) -> T {
    poll(limit, look).unwrap_or_else(|| panic!("not within {limit:?}: {what}"))
}
