//! How many records a second one core takes from lanes to verdicts.
//!
//! Two programs write into real arenas; then the clock runs while this one thread collects,
//! assembles, joins and judges what they wrote. Three mixes: `bulk`, one tag a record;
//! `turns`, small requests and replies, a partial tag at each turn; `short`, connections of eight
//! records each, opened to judged. Prints records a second of this thread's
//! processor time: the median of the rounds.

#[path = "../tests/fake/mod.rs"]
mod fake;

use counterfoil_abi::BLOCK;
use counterfoil_abi::arena::{ARENA_BYTES, lane_head_at, lines, ring_at};
use counterfoil_abi::lane::{LANE_LINES, Producer};
use counterfoil_abi::record::*;
use counterfoil_daemon::arena::{self, Arena};
use counterfoil_daemon::assemble::{Assembler, Settings};
use counterfoil_daemon::collect::Collector;
use counterfoil_daemon::core::{clock_offset, now};
use counterfoil_daemon::host::facts::{Facts, RealProc};
use memmap2::{MmapOptions, MmapRaw};
use std::sync::Arc;
use std::time::Duration;

const LANES_USED: usize = 4;
const ROUNDS: usize = 60;

struct Program {
    _map: MmapRaw,
    producers: Vec<Producer>,
}

fn program(id: u64, collector: &mut Collector, assembler: &mut Assembler) -> Program {
    let fd = arena::create(id, 1).expect("a memfd");
    let map = MmapOptions::new().len(ARENA_BYTES).map_raw(&fd).expect("a mapping");
    let base = map.as_ptr();
    let producers = (0..LANES_USED)
        // SAFETY: the mapping lives in `Program` beside the producers, and nobody else produces.
        .map(|lane| unsafe {
            Producer::new(base.add(lane_head_at(lane)).cast(), base.add(ring_at(lane)).cast(), lines(lane))
        })
        .collect();
    collector.add(id, Arena::map(fd).expect("an arena"), None, now());
    assembler.register(id, Arc::new(Facts::default()), true, 0, Vec::new());
    Program { _map: map, producers }
}

impl Program {
    fn push<T: bytemuck::NoUninit>(&mut self, lane: usize, record: &T, lines: usize) {
        let mut all = [[0u64; 8]; MAX_LINES];
        bytemuck::cast_slice_mut::<_, u8>(&mut all)[..size_of::<T>()]
            .copy_from_slice(bytemuck::bytes_of(record));
        assert!(self.producers[lane].push(&all[..lines]), "the lane is full");
    }

    fn open(&mut self, object: u32, flow: u64, client: bool) {
        let mut opened: Opened = bytemuck::Zeroable::zeroed();
        opened.header = fake::header(Kind::Opened, 4, object);
        opened.channel = Channel::Tls as u8;
        opened.fd = -1;
        self.push(0, &opened, 4);
        let mut record: Flow = bytemuck::Zeroable::zeroed();
        record.header = fake::header(Kind::Flow, 2, object);
        record.header.flags = NO_CIPHER_WITNESS | if client { CLIENT } else { 0 };
        record.flow[..8].copy_from_slice(&flow.to_le_bytes());
        self.push(0, &record, 2);
    }

    fn block(&mut self, lane: usize, object: u32, tap: Tap, offset: u64, partial: u32) {
        let mut blocks: Blocks = bytemuck::Zeroable::zeroed();
        blocks.header = fake::header(Kind::Blocks, 1, object);
        blocks.header.tap = tap as u8;
        blocks.header.flags = if partial > 0 { PARTIAL } else { 0 };
        blocks.offset = offset;
        blocks.length = if partial > 0 { partial } else { BLOCK as u32 };
        blocks.count = 1;
        blocks.tags[0] = (u128::from(offset) << 32 | u128::from(partial) | 1 << 100).to_le_bytes();
        self.push(lane, &blocks, 1);
    }

    fn end(&mut self, object: u32, out: u64, inward: u64) {
        let mut ended: Ended = bytemuck::Zeroable::zeroed();
        ended.header = fake::header(Kind::Ended, 2, object);
        ended.how = How::Freed as u8;
        (ended.out_total, ended.in_total) = (out, inward);
        self.push(0, &ended, 2);
    }
}

/// Fills the lanes; returns nothing but records in them.
type Mix = fn(&mut Program, &mut Program, usize);

fn bulk(client: &mut Program, server: &mut Program, round: usize) {
    for lane in 0..LANES_USED {
        let object = 1 + lane as u32;
        if round == 0 {
            client.open(object, u64::from(object), true);
            server.open(object, u64::from(object), false);
        }
    }
    let per = LANE_LINES - 64;
    for lane in 0..LANES_USED {
        for i in 0..per {
            let offset = (round as u64 * per + i) * BLOCK;
            client.block(lane, 1 + lane as u32, Tap::TlsWrite, offset, 0);
            server.block(lane, 1 + lane as u32, Tap::TlsRead, offset, 0);
        }
    }
}

fn turns(client: &mut Program, server: &mut Program, round: usize) {
    if round == 0 {
        client.open(1, 1, true);
        server.open(1, 1, false);
    }
    for i in 0..(LANE_LINES - 64) / 2 {
        let at = (round as u64 * LANE_LINES + i) * 256;
        let (offset, partial) = (at - at % BLOCK, (at % BLOCK) as u32 + 1);
        client.block(0, 1, Tap::TlsWrite, offset, partial);
        client.block(0, 1, Tap::TlsRead, offset, partial);
        server.block(0, 1, Tap::TlsRead, offset, partial);
        server.block(0, 1, Tap::TlsWrite, offset, partial);
    }
}

fn short(client: &mut Program, server: &mut Program, round: usize) {
    // Ten lines an end.
    for i in 0..(LANE_LINES as usize - 64) / 10 {
        let object = (round * 1000 + i + 1) as u32;
        for (program, out, inward) in [(&mut *client, 100, 200), (&mut *server, 200, 100)] {
            program.open(object, u64::from(object), out == 100);
            program.block(0, object, Tap::TlsWrite, 0, out as u32);
            program.block(0, object, Tap::TlsRead, 0, inward as u32);
            program.end(object, out, inward);
        }
    }
}

/// This thread's time on a core: the machine may be busy with other things.
fn cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

fn main() {
    for (name, mix) in [("bulk", bulk as Mix), ("turns", turns), ("short", short)] {
        let mut assembler = Assembler::new(Settings {
            hostname: "bench".into(),
            tag_budget: 64 << 20,
            peer_wait: Duration::from_secs(2),
            proc: Arc::new(RealProc::default()),
            clock_offset: clock_offset(),
        });
        let mut collector = Collector::default();
        let mut client = program(1, &mut collector, &mut assembler);
        let mut server = program(2, &mut collector, &mut assembler);
        let mut rates = Vec::new();
        let mut verdicts = 0;
        for round in 0..ROUNDS {
            mix(&mut client, &mut server, round);
            let before = assembler.counts().records;
            let began = cpu();
            for _ in 0..4 {
                collector.look_at_all();
                collector.tick(now(), true, &mut |a, by, r| assembler.record(a, by, r), &mut |_, word| {
                    panic!("{word:?}");
                });
                assembler.tick(now());
            }
            verdicts += assembler.out.drain(..).count();
            let records = assembler.counts().records - before;
            rates.push(records as f64 / (cpu() - began).as_secs_f64() / 1e6);
        }
        rates.sort_by(f64::total_cmp);
        println!(
            "{name:6} {:6.2} million records/s (min {:.2}, max {:.2}), {} records, {verdicts} verdicts and words, {} KiB waiting",
            rates[ROUNDS / 2],
            rates[0],
            rates[ROUNDS - 1],
            assembler.counts().records,
            assembler.waiting_bytes() / 1024,
        );
    }
}
