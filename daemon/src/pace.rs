//! When to look for what takes long, and for how long at a time: the thread that looks has other work.
//!
//! Comes in: that there is news, and what a look took. Goes out: whether one is due, and a [`Slice`] for it. What doesn't
//! get done in a slice is gone on with in the next one. Called by the trail of sensitive files and by the gallery of media.
#![forbid(unsafe_code)]

use crate::core::worked;

/// Looks take one part in this many of a thread's time.
const PART: u64 = 20;
/// How long a slice is, nanoseconds of processor time.
const SLICE: u64 = 5_000_000;
/// How long the last one is, when observation ends.
const LAST: u64 = 2_000_000_000;

/// When looks are due.
#[derive(Debug)]
pub struct Pace {
    every: u64,
    looked: u64,
    took: u64,
    news: bool,
}

/// The processor time that one look may take.
#[derive(Debug)]
pub struct Slice {
    began: u64,
    until: u64,
}

impl Slice {
    fn of(nanoseconds: u64) -> Self {
        let began = worked();
        Self { began, until: began.saturating_add(nanoseconds) }
    }

    /// The last look's.
    #[must_use]
    pub fn last() -> Self {
        Self::of(LAST)
    }

    /// It is used up.
    #[must_use]
    pub fn over(&self) -> bool {
        worked() >= self.until
    }
}

impl Pace {
    /// A look each `every` nanoseconds, where that isn't too often.
    #[must_use]
    pub fn new(every: u64) -> Self {
        Self { every, looked: 0, took: 0, news: false }
    }

    /// What there is to be seen may not last: the next look is due as soon as there is time for it.
    pub fn news(&mut self) {
        self.news = true;
    }

    /// Is one due, at that monotonic moment?
    #[must_use]
    pub fn due(&self, now: u64) -> bool {
        let every = if self.news { 0 } else { self.every };
        now.saturating_sub(self.looked) >= every.max(self.took.saturating_mul(PART))
    }

    /// A look begins.
    #[must_use]
    pub fn begin(&mut self) -> Slice {
        self.news = false;
        Slice::of(SLICE)
    }

    /// It ended. `all`: it got through.
    pub fn end(&mut self, now: u64, slice: &Slice, all: bool) {
        self.looked = now;
        self.took = worked().saturating_sub(slice.began);
        self.news |= !all;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_its_part() {
        let mut pace = Pace::new(1_000);
        assert!(pace.due(1_000_000) && !pace.due(999));
        let slice = pace.begin();
        pace.end(1_000_000, &slice, true);
        pace.took = 100;
        assert!(!pace.due(1_001_999) && pace.due(1_002_000), "twenty times what it took");
        pace.took = 10;
        assert!(!pace.due(1_000_999) && pace.due(1_001_000));
        pace.news();
        assert!(!pace.due(1_000_199) && pace.due(1_000_200), "news don't make it more");
        let slice = pace.begin();
        pace.end(2_000_000, &slice, false);
        pace.took = 10;
        assert!(pace.due(2_000_200), "what was not done is gone on with");
    }

    #[test]
    fn a_slice_is_over() {
        let slice = Slice::of(200_000);
        while !slice.over() {
            std::hint::black_box(0);
        }
        assert!(Slice::last().until > slice.until);
    }
}
