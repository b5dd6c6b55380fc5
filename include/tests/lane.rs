//! The lane with real threads, at its real size, and with a hostile other side. Small enough for miri.
#![cfg(not(loom))]

use counterfoil_abi::lane::{Consumer, Hostile, LANE_LINES, LaneHead, Producer, Slot};
use counterfoil_abi::record::{Line, MAX_LINES};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::atomic::Ordering::Relaxed;

/// A lane in memory as the kernel would hand it out: zeroed.
struct Memory {
    lane: *mut LaneHead,
    ring: *mut Slot,
}

impl Memory {
    fn ring_layout() -> Layout {
        Layout::array::<Slot>(LANE_LINES as usize).unwrap()
    }

    fn new() -> Self {
        // SAFETY: neither layout is empty, and all zero is a valid value of atomics.
        unsafe {
            Self {
                lane: alloc_zeroed(Layout::new::<LaneHead>()).cast(),
                ring: alloc_zeroed(Self::ring_layout()).cast(),
            }
        }
    }

    fn head(&self) -> &LaneHead {
        // SAFETY: allocated in `new`, freed in `drop`.
        unsafe { &*self.lane }
    }

    fn ends(&self) -> (Producer, Consumer) {
        // SAFETY: the memory outlives both in every test here, and each test takes the ends once at a time.
        unsafe {
            (Producer::new(self.lane, self.ring, LANE_LINES), Consumer::new(self.lane, self.ring, LANE_LINES))
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with these layouts.
        unsafe {
            dealloc(self.lane.cast(), Layout::new::<LaneHead>());
            dealloc(self.ring.cast(), Self::ring_layout());
        }
    }
}

/// A record of `lines` lines that all say `number`; the second byte is its length, as a Header's is.
fn record(number: u64, lines: usize) -> Vec<Line> {
    let mut all = vec![[number; 8]; lines];
    all[0][0] = (lines as u64) << 8;
    all
}

fn whole(read: &[Line], number: u64) {
    for (i, line) in read.iter().enumerate() {
        let words = if i == 0 { &line[1..] } else { &line[..] };
        assert!(words.iter().all(|w| *w == number), "line {i} of record {number}: {line:?}");
    }
}

#[test]
fn records_come_whole_and_in_order_across_the_wrap() {
    let memory = Memory::new();
    let (mut producer, mut consumer) = memory.ends();
    let count = if cfg!(miri) { 3_000 } else { 200_000 };
    struct Ends(Producer);
    // SAFETY: the pointers lead to atomics that outlive the scope below.
    unsafe impl Send for Ends {}
    let sending = Ends(std::mem::replace(&mut producer, memory.ends().0));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut sending = sending;
            let ends = &mut sending;
            for number in 0..count {
                let r = record(number, 1 + number as usize % MAX_LINES);
                while !ends.0.push(&r) {
                    std::thread::yield_now();
                }
            }
        });
        let mut out = [[0; 8]; MAX_LINES];
        let mut number = 0;
        while number < count {
            let mut waiting = consumer.waiting().unwrap();
            if waiting == 0 {
                std::thread::yield_now();
            }
            while waiting > 0 {
                let lines = consumer.next(waiting, &mut out).unwrap();
                assert_eq!(lines, 1 + number as usize % MAX_LINES);
                whole(&out[..lines], number);
                waiting -= lines as u64;
                number += 1;
            }
            consumer.release();
        }
    });
    assert_eq!(consumer.waiting(), Ok(0));
}

#[test]
fn a_full_lane_refuses_and_counts_and_goes_on() {
    let memory = Memory::new();
    let (mut producer, mut consumer) = memory.ends();
    for number in 0..LANE_LINES {
        assert!(producer.push(&record(number, 1)));
    }
    assert!(!producer.push(&record(9, 1)));
    assert!(!producer.push(&record(9, 5)));
    assert_eq!(memory.head().dropped.load(Relaxed), 2);

    // Room is given back at release, not before: until then the slots may still be read.
    let mut out = [[0; 8]; MAX_LINES];
    consumer.next(LANE_LINES, &mut out).unwrap();
    assert!(!producer.push(&record(9, 1)));
    consumer.release();
    assert!(producer.push(&record(LANE_LINES, 1)));
    assert!(!producer.push(&record(9, 1)));
    for number in 1..=LANE_LINES {
        consumer.next(1, &mut out).unwrap();
        whole(&out[..1], number);
    }
}

#[test]
fn what_was_published_outlives_either_side() {
    let memory = Memory::new();
    let (mut producer, mut consumer) = memory.ends();
    for number in 0..4 {
        assert!(producer.push(&record(number, 1)));
    }
    let mut out = [[0; 8]; MAX_LINES];
    consumer.next(4, &mut out).unwrap();
    consumer.release();
    // Both die; a new thread claims the lane, a restarted daemon maps it again.
    let (mut producer, mut consumer) = memory.ends();
    assert!(producer.push(&record(4, 1)));
    for number in 1..5 {
        let waiting = consumer.waiting().unwrap();
        consumer.next(waiting, &mut out).unwrap();
        whole(&out[..1], number);
    }
    assert_eq!(consumer.waiting(), Ok(0));
}

#[test]
fn a_producer_that_lies_is_called_hostile() {
    for head in [LANE_LINES + 1, u64::MAX, 1 << 63] {
        let memory = Memory::new();
        let (_, consumer) = memory.ends();
        memory.head().head.store(head, Relaxed);
        assert_eq!(consumer.waiting(), Err(Hostile), "head {head}");
    }
    // Lengths: none, more than a record may have, more than was published.
    for (lines, published) in [(0, 1), (MAX_LINES as u64 + 1, 8), (255, 8), (2, 1)] {
        let memory = Memory::new();
        let (mut producer, mut consumer) = memory.ends();
        for _ in 0..published {
            assert!(producer.push(&[[lines << 8; 8]]));
        }
        let mut out = [[0; 8]; MAX_LINES];
        let waiting = consumer.waiting().unwrap();
        assert_eq!(consumer.next(waiting, &mut out), Err(Hostile), "{lines} lines of {published}");
        // It gives up on what is there and goes on with what comes.
        consumer.skip_all();
        assert_eq!(consumer.waiting(), Ok(0));
        assert!(producer.push(&record(7, 1)));
        consumer.next(1, &mut out).unwrap();
        whole(&out[..1], 7);
    }
}

#[test]
fn a_consumer_that_lies_only_makes_the_lane_look_full() {
    for tail in [1, 100, u64::MAX, 1 << 63, LANE_LINES + 1] {
        let memory = Memory::new();
        let (mut producer, _) = memory.ends();
        memory.head().tail.store(tail, Relaxed);
        for number in 0..2 * LANE_LINES {
            producer.push(&record(number, 1));
        }
        assert!(memory.head().dropped.load(Relaxed) > 0, "tail {tail}");
    }
}
