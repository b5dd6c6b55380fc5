//! Tables of one test's own, and records to tell them.

use super::*;
use std::collections::HashSet;

/// Knows what a test tells it.
#[derive(Default)]
pub(super) struct Told {
    pub(super) sockets: HashMap<(u32, i32), SocketFacts>,
    pub(super) descriptors: HashMap<(u32, i32), Inode>,
    pub(super) unix_peers: HashMap<u64, u64>,
    pub(super) nspids: HashMap<u32, Vec<u32>>,
    pub(super) listed: Option<HashSet<u64>>,
}

impl Proc for Told {
    fn facts(&self, _: u32) -> Option<Facts> {
        None
    }
    fn descriptor(&self, pid: u32, fd: i32) -> Option<Inode> {
        self.descriptors.get(&(pid, fd)).copied()
    }
    fn holds(&self, pid: u32, what: Inode) -> Option<bool> {
        Some(self.descriptors.iter().any(|((p, _), i)| (*p, *i) == (pid, what)))
    }
    fn access(&self, _: u32, _: i32) -> Option<Access> {
        None
    }
    fn descendants(&self, _: u32) -> Vec<u32> {
        self.nspids.keys().copied().collect()
    }
    fn socket(&self, pid: u32, fd: i32) -> Option<SocketFacts> {
        self.sockets.get(&(pid, fd)).copied()
    }
    fn unix_peer(&self, inode: u64) -> Option<u64> {
        self.unix_peers.get(&inode).copied()
    }
    fn sockets(&self, _: u32) -> Option<HashSet<u64>> {
        self.listed.clone()
    }
    fn thread_lives(&self, _: u32, _: u32) -> bool {
        true
    }
    fn nested_thread_lives(&self, _: u32, _: u32) -> bool {
        true
    }
    fn nspid(&self, pid: u32) -> Option<Vec<u32>> {
        self.nspids.get(&pid).cloned()
    }
}

pub(super) struct Table {
    pub(super) assembler: Assembler,
    pub(super) now: u64,
}

pub(super) fn table(told: Told) -> Table {
    let settings = Settings {
        hostname: "host".into(),
        tag_budget: 1 << 20,
        peer_wait: Duration::from_secs(2),
        proc: Arc::new(told),
        clock_offset: 0,
    };
    Table { assembler: Assembler::new(settings), now: 1_000_000_000 }
}

pub(super) fn facts(pid: u32, uid: u32) -> Arc<Facts> {
    let mut facts = Facts { nspid: vec![pid], net_namespace: Some(1), ..Facts::default() };
    (facts.process.pid, facts.process.uid) = (pid, Some(uid));
    Arc::new(facts)
}

impl Table {
    pub(super) fn program(&mut self, arena: ArenaId, uid: u32) {
        self.assembler.register(arena, facts(arena as u32, uid), true, self.now, Vec::new());
    }
    pub(super) fn say(&mut self, arena: ArenaId, record: Record) {
        self.assembler.record(arena, arena as u32, &record);
    }
    /// Time passes until nothing more is due.
    pub(super) fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds * 20 {
            self.now += 50_000_000;
            self.assembler.tick(self.now);
        }
    }
    pub(super) fn transfers(&mut self) -> Vec<Outward> {
        let of = |j| match j {
            Judged::Transfer { transfer, .. } => Some(*transfer),
            _ => None,
        };
        self.assembler.out.drain(..).filter_map(of).collect()
    }
    pub(super) fn empty(&self) -> bool {
        let a = &self.assembler;
        a.objects.is_empty()
            && a.transfers.is_empty()
            && a.by_inode.is_empty()
            && a.by_flow.is_empty()
            && a.by_addresses.is_empty()
            && a.by_path.is_empty()
            && a.wanted.is_empty()
            && a.budget.used() == 0
    }
}

pub(super) fn header(kind: Kind, object: u32) -> Header {
    Header { kind: kind as u8, lines: 1, tap: 0, flags: 0, object, time: 5 }
}

pub(super) fn opened(object: u32, channel: Channel, with: impl FnOnce(&mut Opened)) -> Record {
    let mut r: Opened = bytemuck::Zeroable::zeroed();
    r.header = header(Kind::Opened, object);
    (r.channel, r.fd) = (channel as u8, -1);
    with(&mut r);
    Record::Opened(r)
}

pub(super) fn flow(object: u32, flow: u8, client: bool) -> Record {
    let mut r: Flow = bytemuck::Zeroable::zeroed();
    r.header = header(Kind::Flow, object);
    r.header.flags = if client { CLIENT } else { 0 };
    r.flow = [flow; 16];
    Record::Flow(r)
}

pub(super) fn block(object: u32, tap: Tap, index: u64, value: u8) -> Record {
    let mut r: Blocks = bytemuck::Zeroable::zeroed();
    r.header = header(Kind::Blocks, object);
    r.header.tap = tap as u8;
    (r.offset, r.length, r.count) = (index * BLOCK, BLOCK as u32, 1);
    r.tags[0] = [value; 16];
    Record::Blocks(r)
}

pub(super) fn partial(object: u32, tap: Tap, index: u64, length: u32, value: u8) -> Record {
    let Record::Blocks(mut r) = block(object, tap, index, value) else { unreachable!() };
    r.header.flags = PARTIAL;
    r.length = length;
    Record::Blocks(r)
}

pub(super) fn gap(object: u32, tap: Tap, offset: u64, length: u64, reason: Reason) -> Record {
    let mut r: Gap = bytemuck::Zeroable::zeroed();
    r.header = header(Kind::Gap, object);
    r.header.tap = tap as u8;
    (r.offset, r.length, r.reason) = (offset, length, reason as u8);
    Record::Gap(r)
}

pub(super) fn ended(object: u32, how: How, out: u64, inward: u64, with: impl FnOnce(&mut Ended)) -> Record {
    let mut r: Ended = bytemuck::Zeroable::zeroed();
    r.header = header(Kind::Ended, object);
    r.header.flags = IN_EOF;
    (r.how, r.out_total, r.in_total) = (how as u8, out, inward);
    (r.kernel_out, r.kernel_in) = (UNKNOWN, UNKNOWN);
    with(&mut r);
    Record::Ended(r)
}

pub(super) fn address(last: u8, port: u16) -> Address {
    let mut ip = [0; 16];
    ip[..4].copy_from_slice(&[10, 0, 0, last]);
    Address { ip, port, version: 4, pad: [0; 5] }
}

pub(super) fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Both ends of a TLS connection, 12 blocks and a bit, both directions; what differs at the reader.
pub(super) fn connection(change: Option<u64>, lose: Option<u64>) -> Vec<(ArenaId, Record)> {
    let mut all = Vec::new();
    let total = 12 * BLOCK + 7;
    for (arena, out, inward, client) in
        [(1, Tap::TlsWrite, Tap::TlsRead, true), (2, Tap::TlsWrite, Tap::TlsRead, false)]
    {
        all.push((arena, opened(1, Channel::Tls, |_| {})));
        all.push((arena, flow(1, 7, client)));
        for index in 0..12 {
            all.push((arena, block(1, out, index, index as u8 + 1)));
            let other = u8::from(change == Some(index) && !client) * 100;
            if lose != Some(index) || client {
                all.push((arena, block(1, inward, index, index as u8 + 1 + other)));
            }
        }
        // Turned round on the way, and at the end.
        for length in [3, 7] {
            all.push((arena, partial(1, out, 12, length, length as u8)));
            all.push((arena, partial(1, inward, 12, length, length as u8)));
        }
        all.push((arena, ended(1, How::Checkpoint, BLOCK, BLOCK, |_| {})));
        all.push((arena, ended(1, How::Freed, total, total, |_| {})));
    }
    all
}
