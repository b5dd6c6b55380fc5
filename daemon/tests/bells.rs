//! How soon a quiet arena's record is read: by its own bell, by its user's, and where somebody silences that.
#![allow(clippy::undocumented_unsafe_blocks, reason = "mappings that live as long as their program")]

use counterfoil_abi::arena::{
    ARENA_BYTES, ArenaHead, POLICY_BOARD, POLICY_WATCHED, lane_head_at, lines, ring_at,
};
use counterfoil_abi::board::{BOARD_BYTES, Board};
use counterfoil_abi::lane::Producer;
use counterfoil_abi::record::{Forked, Header, Kind, Record};
use counterfoil_daemon::arena::{self, Arena};
use counterfoil_daemon::bells::BoardBell;
use counterfoil_daemon::collect::Collector;
use counterfoil_daemon::sensitive::boards::Boards;
use memmap2::{MmapOptions, MmapRaw};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const PROGRAMS: u64 = 100;
/// Ticks after which every arena is quiet, whatever a tick is.
const QUIET: u64 = 48;

struct Program {
    map: MmapRaw,
    producer: Producer,
}

impl Program {
    fn new(collector: &mut Collector, id: u64, bell: Option<Arc<BoardBell>>) -> Self {
        let policy = POLICY_WATCHED | if bell.is_some() { POLICY_BOARD } else { 0 };
        let fd = arena::create(id, policy).unwrap();
        let map = MmapOptions::new().len(ARENA_BYTES).map_raw(&fd).unwrap();
        let base = map.as_ptr();
        let producer =
            unsafe { Producer::new(base.add(lane_head_at(0)).cast(), base.add(ring_at(0)).cast(), lines(0)) };
        collector.add(id, Arena::map(fd).unwrap(), bell, 0);
        Self { map, producer }
    }

    fn head(&self) -> &ArenaHead {
        unsafe { &*self.map.as_ptr().cast() }
    }

    fn says(&mut self, board: Option<&Board>) {
        let mut record: Forked = bytemuck::Zeroable::zeroed();
        record.header = Header { kind: Kind::Forked as u8, lines: 1, tap: 0, flags: 0, object: 0, time: 1 };
        assert!(self.producer.push(bytemuck::cast_slice(&[record])));
        if self.head().bell.swap(1, Ordering::Relaxed) == 0
            && let Some(board) = board
        {
            board.ring();
        }
    }
}

struct Host {
    collector: Collector,
    now: u64,
}

/// Between two ticks, nanoseconds: while an arena gets quiet, so that its lanes are not looked at by the clock; and then.
const SOON: u64 = 1_000;
const LATER: u64 = 20_000_000;

impl Host {
    /// One tick, and whose records it read.
    fn tick(&mut self, after: u64) -> Vec<u64> {
        self.now += after;
        let mut read = Vec::new();
        self.collector.tick(self.now, false, &mut |id, _, _: &Record| read.push(id), &mut |_, _| {});
        read
    }

    fn rest(&mut self) {
        for _ in 0..QUIET {
            assert!(self.tick(SOON).is_empty());
        }
        assert!(!self.collector.active());
    }

    /// After how many nanoseconds it is read.
    fn until(&mut self, program: u64) -> u64 {
        let began = self.now;
        (1..=100).find(|_| self.tick(LATER).contains(&program)).expect("it is read");
        self.now - began
    }
}

#[test]
fn a_quiet_program_is_heard_in_the_next_tick_or_soon_where_its_users_bell_is_silenced() {
    let mut boards = Boards::default();
    let bell = boards.bell(1000).unwrap();
    let memory = MmapOptions::new().len(BOARD_BYTES).map_raw(&boards.of(1000).unwrap().as_fd()).unwrap();
    let board = unsafe { &*memory.as_ptr().cast::<Board>() };
    let mut host = Host { collector: Collector::default(), now: 0 };
    let mut programs: Vec<Program> =
        (0..PROGRAMS).map(|id| Program::new(&mut host.collector, id, Some(bell.clone()))).collect();
    for id in [0, 41, PROGRAMS - 1] {
        host.rest();
        programs[id as usize].says(Some(board));
        assert_eq!(host.until(id), LATER, "it rang");
        host.rest();
        programs[id as usize].says(None);
        assert!(host.until(id) <= 1_000_000_000 + LATER, "somebody answered the bell in our place");
    }
    // One that has no such bell is looked at in each tick, and with it the others.
    let mut alone = Program::new(&mut host.collector, PROGRAMS, None);
    host.rest();
    alone.says(None);
    assert_eq!(host.until(PROGRAMS), LATER);
    host.rest();
    programs[7].says(Some(board));
    alone.says(None);
    assert_eq!(host.tick(LATER), [7, PROGRAMS], "both at once");
}

#[test]
fn a_nap_is_only_taken_where_everybody_calls() {
    let mut boards = Boards::default();
    let bells = [1000, 1001].map(|uid| boards.bell(uid).unwrap());
    let mut host = Host { collector: Collector::default(), now: 0 };
    assert!(host.collector.nap(), "nobody is there");
    let mut programs =
        [0, 1].map(|id| Program::new(&mut host.collector, id, Some(bells[id as usize].clone())));
    assert!(!host.collector.nap(), "they have just come");
    host.rest();
    for (program, bell) in programs.iter_mut().zip(&bells) {
        assert!(host.collector.nap());
        program.says(Some(bell.board()));
        assert!(bell.board().call() && !host.collector.nap());
        host.collector.rise();
        assert_eq!(host.tick(SOON).len(), 1);
        assert!(!host.collector.nap(), "it may say more");
        host.rest();
    }
    // In a sandbox.
    programs[1].head().policy.fetch_and(!POLICY_BOARD, Ordering::Relaxed);
    programs[1].says(Some(bells[1].board()));
    assert_eq!(host.tick(SOON).len(), 1);
    host.rest();
    assert!(!host.collector.nap(), "one that can't call any more");
    programs[1].says(None);
    assert_eq!(host.tick(SOON).len(), 1);
}

#[test]
fn one_without_a_board_is_looked_at() {
    let mut host = Host { collector: Collector::default(), now: 0 };
    let _alone = Program::new(&mut host.collector, 2, None);
    host.rest();
    assert!(!host.collector.nap(), "it can't call");
}
