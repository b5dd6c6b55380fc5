//! The lane under the interleavings and stale reads that loom explores: `make loom`. The ring has four
//! lines here, so it wraps and fills. What loom can't show: a load that sees a store which has not
//! happened yet, the only thing that the acquire and release of `tail` guard against.
#![cfg(loom)]

use counterfoil_abi::lane::{Consumer, LANE_LINES, LaneHead, Producer, Slot};
use counterfoil_abi::record::{Line, MAX_LINES};
use loom::sync::{Arc, atomic::AtomicU64};
use loom::thread;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

struct Memory {
    lane: LaneHead,
    ring: Vec<Slot>,
}

impl Memory {
    fn new() -> Arc<Self> {
        let ring = (0..LANE_LINES).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect();
        Arc::new(Self { lane: LaneHead::new(), ring })
    }
}

struct Sending(Producer);

// SAFETY: its pointers lead to atomics that outlive the thread it is sent to, which is joined.
unsafe impl Send for Sending {}

impl Sending {
    // A method, so that a closure captures the whole and not its one field, which isn't Send.
    fn take(self) -> Producer {
        self.0
    }
}

/// A record of `lines` lines that all say `number`; the second byte is its length, as a Header's is.
fn record(number: u64, lines: usize) -> Vec<Line> {
    let mut all = vec![[number; 8]; lines];
    all[0][0] = (lines as u64) << 8;
    all
}

/// Everything that is published now, checked for being whole.
fn take(consumer: &mut Consumer, sizes: &[usize], taken: &mut Vec<u64>) {
    let mut out = [[0; 8]; MAX_LINES];
    let mut waiting = consumer.waiting().expect("an honest producer");
    while waiting > 0 {
        let lines = consumer.next(waiting, &mut out).expect("a whole record");
        let number = out[0][1];
        let torn = out[0][1..].iter().chain(out[1..lines].iter().flatten()).any(|word| *word != number);
        assert!(!torn && lines == sizes[number as usize - 1], "torn: {:?}", &out[..lines]);
        taken.push(number);
        waiting -= lines as u64;
    }
    consumer.release();
}

/// Records of these `sizes` are pushed by one thread while another looks once; what it doesn't get then
/// is there in the end. Nothing is torn, doubled, lost or out of order, and what was refused is counted.
fn explore(sizes: &'static [usize]) {
    // A model that explored only one order would pass whatever the lane does.
    static TOOK_SOME_EARLY: AtomicBool = AtomicBool::new(false);
    static TOOK_NONE_EARLY: AtomicBool = AtomicBool::new(false);
    loom::model(move || {
        let memory = Memory::new();
        // Both ends are made before either runs: loom looks for races with the last access only, and a
        // load of `head` by the producer's thread would hide the consumer's.
        // SAFETY: `memory` is dropped last, and there is one end of each kind.
        let (producer, mut consumer) = unsafe {
            let (lane, ring) = (&raw const memory.lane, memory.ring.as_ptr());
            (Sending(Producer::new(lane, ring, LANE_LINES)), Consumer::new(lane, ring, LANE_LINES))
        };
        let producing = thread::spawn(move || {
            let mut producer = producer.take();
            let numbers = 1..=sizes.len() as u64;
            numbers.filter(|n| producer.push(&record(*n, sizes[*n as usize - 1]))).collect::<Vec<_>>()
        });
        let mut taken = Vec::new();
        take(&mut consumer, sizes, &mut taken);
        if taken.is_empty() { &TOOK_NONE_EARLY } else { &TOOK_SOME_EARLY }.store(true, Relaxed);
        let accepted = producing.join().unwrap();
        take(&mut consumer, sizes, &mut taken);
        assert_eq!(taken, accepted);
        assert_eq!(memory.lane.dropped.load(Relaxed) as usize, sizes.len() - accepted.len());
    });
    assert!(TOOK_SOME_EARLY.load(Relaxed) && TOOK_NONE_EARLY.load(Relaxed));
}

#[test]
fn one_record_at_a_time() {
    explore(&[1, 1]);
}

#[test]
fn a_record_of_two_lines_is_never_half_there() {
    explore(&[2, 1]);
}

#[test]
fn the_ring_wraps_and_fills() {
    explore(&[3, 2, 2]);
}
