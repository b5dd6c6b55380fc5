//! What one program sent to one destination for one user in the last while, over however many connections.
//!
//! Comes in: bytes, as they are read. Goes out: sums over the last so and so long. Called by `bulk`.
#![forbid(unsafe_code)]

use jiff::Timestamp;
use std::collections::VecDeque;
use std::time::Duration;

/// Slots that a span is divided into.
const SLOTS: u64 = 120;

/// Bytes of a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Sent.
    pub sent: u64,
    /// Of them binary or encrypted.
    pub payload: u64,
    /// Received.
    pub received: u64,
    /// Connections that were begun.
    pub connections: u64,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.sent = self.sent.saturating_add(other.sent);
        self.payload = self.payload.saturating_add(other.payload);
        self.received = self.received.saturating_add(other.received);
        self.connections = self.connections.saturating_add(other.connections);
    }
}

/// Sums by time, for one span.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Slot numbers rise.
    slots: VecDeque<(i64, Sum)>,
}

/// Seconds in a slot.
fn slot_length(span: Duration) -> i64 {
    i64::try_from((span.as_secs() / SLOTS).max(1)).unwrap_or(i64::MAX)
}

impl Series {
    /// More bytes, in a series that is kept for `span`.
    pub fn add(&mut self, now: Timestamp, bytes: Sum, span: Duration) {
        let slot = now.as_second() / slot_length(span);
        match self.slots.back_mut() {
            // A clock that was set back doesn't make a series longer.
            Some((last, sum)) if *last >= slot => sum.add(&bytes),
            _ => self.slots.push_back((slot, bytes)),
        }
        let oldest = slot - i64::try_from(SLOTS).unwrap_or(0);
        while self.slots.front().is_some_and(|(at, _)| *at <= oldest) {
            self.slots.pop_front();
        }
    }

    /// What there was in the last `window`, of a series that is kept for `span`.
    pub fn sum(&self, now: Timestamp, window: Duration, span: Duration) -> Sum {
        let length = slot_length(span);
        let slots = i64::try_from(window.as_secs()).unwrap_or(i64::MAX) / length;
        let oldest = now.as_second() / length - slots.max(1);
        let mut all = Sum::default();
        self.slots.iter().filter(|(at, _)| *at > oldest).for_each(|(_, sum)| all.add(sum));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn sent(bytes: u64) -> Sum {
        Sum { sent: bytes, payload: bytes, ..Sum::default() }
    }

    #[test]
    fn what_is_old_does_not_count() {
        let mut series = Series::default();
        for minute in 0..180 {
            series.add(at(minute * 60), sent(10), HOUR);
        }
        let now = at(179 * 60);
        assert_eq!(series.sum(now, HOUR, HOUR).sent, 600);
        assert_eq!(series.sum(now, Duration::from_secs(300), HOUR).sent, 50);
        assert_eq!(series.sum(at(10_000_000), HOUR, HOUR), Sum::default());
        assert!(series.slots.len() <= SLOTS as usize);
    }

    #[test]
    fn short_spans_and_clocks_that_are_set_back() {
        let (mut series, span) = (Series::default(), Duration::from_secs(2));
        series.add(at(0), sent(5), span);
        series.add(at(-100), sent(7), span);
        assert_eq!(series.sum(at(0), span, span).sent, 12);
        assert_eq!(series.slots.len(), 1);
        series.add(at(1), sent(1), span);
        assert_eq!(series.sum(at(2), span, span).sent, 1);
    }
}
