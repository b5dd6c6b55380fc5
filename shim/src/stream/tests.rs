//! Streams against a model that hashes whole streams at once.

use super::*;
use crate::{mac, objects, process, start};
use counterfoil_abi::Tag;
use counterfoil_abi::arena::{ARENA_BYTES, ArenaHead, LANES, POLICY_WATCHED, lane_head_at, lines, ring_at};
use counterfoil_abi::lane::{Consumer, LaneHead};
use counterfoil_abi::prints::Sampler;
use counterfoil_abi::record::{Channel, Line, PARTIAL, Record, WITNESSED};
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, MutexGuard};

struct Arena(*mut u8);
// SAFETY: only touched under `ALONE`, or through atomics.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

/// The key of these tests: what none was set to is the same.
pub const KEY: &[u8; 16] = &[0; 16];

static ALONE: Mutex<()> = Mutex::new(());
static ARENA: LazyLock<Arena> = LazyLock::new(|| {
    let mark = start::map_memory().expect("memory");
    mac::prepare();
    // SAFETY: a fresh mapping.
    let arena = unsafe {
        rustix::mm::mmap_anonymous(
            core::ptr::null_mut(),
            ARENA_BYTES,
            rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
            rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::NORESERVE,
        )
        .expect("arena")
    };
    // SAFETY: as above.
    unsafe { (*arena.cast::<ArenaHead>()).policy.store(POLICY_WATCHED, Ordering::Relaxed) };
    process::activate(
        process::Settings {
            arena: arena.cast(),
            key: *KEY,
            function: mac::Function::Aegis,
            sampler: Sampler::new(KEY),
            matcher: core::ptr::null(),
            board: Box::leak(Box::new(counterfoil_abi::board::Board::empty())),
        },
        mark,
    );
    Arena(arena.cast())
});

/// An active library of this test's own, until the guard goes.
pub fn alone() -> MutexGuard<'static, ()> {
    let guard = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    LazyLock::force(&ARENA);
    drain();
    for lane in 0..LANES {
        // What a test's thread had is free when it is gone, as the daemon does it.
        if !is_harness(lane) {
            owner(lane).store(0, Ordering::Release);
        }
    }
    guard
}

/// Whose lane it is.
fn owner(lane: usize) -> &'static AtomicU64 {
    // SAFETY: within the arena, which stays, and all-atomic.
    unsafe { &(*ARENA.0.add(lane_head_at(lane)).cast::<LaneHead>()).owner }
}

/// The harness has a lane as well, beside each test: what it prints goes through the hooks. Its thread is the first one.
fn is_harness(lane: usize) -> bool {
    let first = std::process::id();
    let here = || rustix::thread::gettid().as_raw_nonzero().get() as u32;
    owner(lane).load(Ordering::Acquire) as u32 == first && here() != first
}

/// All records since the last time.
pub fn drain() -> Vec<Record> {
    let mut out = Vec::new();
    read_lanes(|lines| out.push(Record::decode(lines).expect("decodes")));
    out
}

/// [`drain`] of what may be no records: nobody looks at them.
pub fn forget() {
    read_lanes(|_| {});
}

fn read_lanes(mut each: impl FnMut(&[Line])) {
    for lane in (0..LANES).filter(|&lane| !is_harness(lane)) {
        // SAFETY: within the arena.
        let mut consumer = unsafe {
            Consumer::new(
                ARENA.0.add(lane_head_at(lane)).cast(),
                ARENA.0.add(ring_at(lane)).cast(),
                lines(lane),
            )
        };
        let mut lines = Default::default();
        loop {
            let waiting = consumer.waiting().expect("sane");
            if waiting == 0 {
                break;
            }
            let count = consumer.next(waiting, &mut lines).expect("sane");
            each(&lines[..count]);
            consumer.release();
        }
    }
}

/// What was said of one object's stream.
#[derive(Default)]
struct Said {
    whole: BTreeMap<u64, Tag>,
    partial: BTreeMap<u64, Tag>,
    gaps: Vec<(u64, u64)>,
}

impl Said {
    fn of(object: u32, tap: Tap) -> Self {
        let mut said = Self::default();
        for record in drain() {
            if record.header().object != object || record.header().tap != tap as u8 {
                continue;
            }
            match record {
                Record::Blocks(b) if b.header.flags & PARTIAL != 0 => {
                    said.partial.insert(b.offset + u64::from(b.length), b.tags[0]);
                }
                Record::Blocks(b) => {
                    for i in 0..b.count as usize {
                        assert!(
                            said.whole.insert(b.offset + i as u64 * BLOCK, b.tags[i]).is_none(),
                            "said twice"
                        );
                    }
                }
                Record::Gap(g) => said.gaps.push((g.offset, g.length)),
                _ => {}
            }
        }
        said
    }

    /// Everything said is true of `content`, and every block that no gap touches was said.
    fn check(&self, content: &[u8]) {
        for (&offset, tag) in &self.whole {
            assert_eq!(*tag, tag_of(content, offset, offset + BLOCK), "block at {offset}");
        }
        for (&end, tag) in &self.partial {
            assert_eq!(*tag, tag_of(content, end - end % BLOCK, end), "partial at {end}");
        }
        for block in 0..content.len() as u64 / BLOCK {
            let offset = block * BLOCK;
            let touched = self
                .gaps
                .iter()
                .any(|&(at, length)| at < offset + BLOCK && at.saturating_add(length) > offset);
            assert!(
                touched || self.whole.contains_key(&offset),
                "block at {offset} was not said; gaps {:?}",
                self.gaps
            );
        }
    }
}

fn tag_of(content: &[u8], from: u64, to: u64) -> Tag {
    let mut mac = Mac::new();
    mac.begin(from);
    mac.update(&content[from as usize..to as usize]);
    mac::first_half(&mac.tag())
}

/// xorshift64: repeatable.
pub struct Dice(pub u64);
impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn sizes(dice: &mut Dice) -> usize {
    [1, 5, 100, 1000, 16383, 16384, 16385, 40000, 65536, 200_000, 1_500_000][dice.below(11) as usize]
}

#[test]
fn writes_of_any_size_partly_accepted_say_only_what_is_true() {
    let _alone = alone();
    for seed in 1..40u64 {
        let mut dice = Dice(seed * 0x9E37_79B9);
        let object = objects::get(objects::make(Channel::Tcp).expect("slot")).expect("there");
        let guard = Guard::enter().expect("active");
        let mut content = Vec::new();
        let mut unseen = Vec::new();
        for _ in 0..12 {
            let data: Vec<u8> = (0..sizes(&mut dice)).map(|i| (i as u64 * 31 + dice.0) as u8).collect();
            let mut offer = Offer::new();
            assert!(object.out.claim(&guard, object.number(), Tap::SockSend));
            if dice.below(8) == 0 {
                object.out.skip(
                    &guard,
                    object.number(),
                    Tap::SockSend,
                    data.len() as u64,
                    0,
                    Reason::KernelCopy,
                );
                unseen.push((content.len() as u64, data.len() as u64));
                content.extend_from_slice(&data);
            } else {
                assert!(object.out.offer(&guard, &data[..], data.len() as u64, &mut offer));
                let accepted = match dice.below(4) {
                    0 => 0,
                    1 => 1 + dice.below(data.len() as u64),
                    _ => data.len() as u64,
                };
                if accepted == 0 {
                    offer.withdraw();
                } else {
                    object.out.accepted(
                        &guard,
                        object.number(),
                        Tap::SockSend,
                        &data[..],
                        &mut offer,
                        accepted,
                    );
                }
                content.extend_from_slice(&data[..accepted as usize]);
            }
            if dice.below(3) == 0 {
                object.out.tell(&guard, object.number(), Tap::SockSend);
            }
            object.out.release();
        }
        object.out.try_tell(&guard, object.number(), Tap::SockSend, false);
        let number = object.number();
        assert_eq!(object.out.offset(), content.len() as u64);
        let said = Said::of(number, Tap::SockSend);
        assert_eq!(said.gaps, unseen, "no gaps but the ones asked for");
        said.check(&content);
        object.discard();
    }
}

#[test]
fn reads_in_pieces_say_only_what_is_true() {
    let _alone = alone();
    for seed in 1..40u64 {
        let mut dice = Dice(seed * 0x51_7CC1);
        let object = objects::get(objects::make(Channel::Tcp).expect("slot")).expect("there");
        let guard = Guard::enter().expect("active");
        let mut content = Vec::new();
        for _ in 0..12 {
            let data: Vec<u8> = (0..sizes(&mut dice)).map(|i| (i as u64 * 7 + dice.0) as u8).collect();
            assert!(object.into.claim(&guard, object.number(), Tap::SockRecv));
            match dice.below(10) {
                0 => object.into.skip(
                    &guard,
                    object.number(),
                    Tap::SockRecv,
                    data.len() as u64,
                    0,
                    Reason::BypassedBytes,
                ),
                _ => object.into.took(&guard, object.number(), Tap::SockRecv, &data[..], data.len() as u64),
            }
            content.extend_from_slice(&data);
            object.into.release();
            if dice.below(3) == 0 {
                object.into.try_tell(&guard, object.number(), Tap::SockRecv, false);
            }
        }
        let number = object.number();
        Said::of(number, Tap::SockRecv).check(&content);
        object.discard();
    }
}

#[test]
fn a_buffer_that_changes_while_it_is_partly_written_is_a_gap() {
    let _alone = alone();
    let object = objects::get(objects::make(Channel::Tcp).expect("slot")).expect("there");
    let guard = Guard::enter().expect("active");
    let mut data = vec![7u8; 40_000];
    let mut offer = Offer::new();
    assert!(object.out.claim(&guard, object.number(), Tap::SockSend));
    assert!(object.out.offer(&guard, &data[..], data.len() as u64, &mut offer));
    data[35_000] ^= 1;
    object.out.accepted(&guard, object.number(), Tap::SockSend, &data[..], &mut offer, 36_000);
    object.out.release();
    object.out.try_tell(&guard, object.number(), Tap::SockSend, false);
    let said = Said::of(object.number(), Tap::SockSend);
    assert_eq!(said.whole.len(), 2, "the blocks before it stand");
    assert!(said.partial.is_empty());
    assert_eq!(said.gaps, [(32_768, BLOCK)]);
    object.discard();
}

#[test]
fn a_short_write_counts_as_it_was_before_the_call() {
    let _alone = alone();
    let object = objects::get(objects::make(Channel::Tcp).expect("slot")).expect("there");
    let guard = Guard::enter().expect("active");
    let before: Vec<u8> = (0..600).map(|i| i as u8).collect();
    let mut content = Vec::new();
    for accepted in [600, 250, 1] {
        let mut data = before.clone();
        let mut offer = Offer::new();
        assert!(object.out.claim(&guard, object.number(), Tap::SockSend));
        assert!(object.out.offer(&guard, &data[..], data.len() as u64, &mut offer));
        // Something behind us encrypts in place.
        data.fill(0xFF);
        object.out.accepted(&guard, object.number(), Tap::SockSend, &data[..], &mut offer, accepted);
        object.out.release();
        content.extend_from_slice(&before[..accepted as usize]);
        object.out.try_tell(&guard, object.number(), Tap::SockSend, false);
    }
    let said = Said::of(object.number(), Tap::SockSend);
    assert!(said.gaps.is_empty());
    said.check(&content);
    object.number.store(0, Ordering::Relaxed);
}

#[test]
fn two_taps_are_one_record_where_they_saw_the_same_and_one_each_where_not() {
    let _alone = alone();
    let guard = Guard::enter().expect("active");
    let content: Vec<u8> = (0..9_000u32).map(|i| (i * 7) as u8).collect();
    for changed in [false, true] {
        let object = objects::get(objects::make(Channel::Tls).expect("slot")).expect("there");
        let mut sealed = content.clone();
        sealed[8_000] ^= u8::from(changed);
        for (stream, tap, data, pieces) in
            [(&object.out, Tap::TlsWrite, &content, 900), (&object.seal, Tap::CipherSeal, &sealed, 4_000)]
        {
            for piece in data.chunks(pieces) {
                assert!(stream.claim(&guard, object.number(), tap));
                stream.tagged(&guard, object.number(), tap, piece, piece.len() as u64);
                stream.release();
            }
        }
        object.tell_way(&guard, true, false);
        let number = object.number();
        let mut records = drain();
        records.retain(|record| record.header().object == number);
        let told: Vec<_> = records
            .iter()
            .filter_map(|record| match record {
                Record::Blocks(told) => {
                    assert_eq!(told.length, 9_000);
                    Some((told.header.tap, told.header.flags, told.tags[0]))
                }
                _ => None,
            })
            .collect();
        let write = (Tap::TlsWrite as u8, tag_of(&content, 0, 9_000));
        let seal = (Tap::CipherSeal as u8, tag_of(&sealed, 0, 9_000));
        if changed {
            assert_eq!(told, [(write.0, PARTIAL, write.1), (seal.0, PARTIAL, seal.1)]);
        } else {
            assert_eq!(told, [(write.0, PARTIAL | WITNESSED, write.1)]);
        }
        assert!(!object.out.untold() && !object.seal.untold());
        object.number.store(0, Ordering::Relaxed);
    }
}

#[test]
fn who_finds_a_stream_claimed_leaves_a_gap_of_unknown_length() {
    let _alone = alone();
    let object = objects::get(objects::make(Channel::Tcp).expect("slot")).expect("there");
    let guard = Guard::enter().expect("active");
    assert!(object.out.claim(&guard, object.number(), Tap::SockSend));
    assert!(!object.out.claim(&guard, object.number(), Tap::SockSend));
    object.out.release();
    assert!(object.out.claim(&guard, object.number(), Tap::SockSend));
    object.out.release();
    assert_eq!(Said::of(object.number(), Tap::SockSend).gaps, [(0, UNKNOWN)]);
    object.discard();
}
