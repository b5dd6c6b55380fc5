//! A stand-in for the shim: a real hello over a real socket, and records written into a real arena
//! through the real [`Producer`]. Content is tagged with SHA-256: any function will do, as long as
//! both ends use the same.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "a mapping that lives as long as its `Shim`")]

use counterfoil_abi::arena::{self, ARENA_BYTES, ArenaHead, lane_head_at, ring_at};
use counterfoil_abi::hello::{MAGIC, Reply, Request};
use counterfoil_abi::lane::{LaneHead, Producer, Slot};
use counterfoil_abi::record::*;
use counterfoil_abi::{ABI_VERSION, BLOCK, Tag, UNKNOWN};
use memmap2::{MmapOptions, MmapRaw};
use rustix::net::*;
use sha2::{Digest, Sha256};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::Ordering;

pub fn monotonic() -> u64 {
    counterfoil_daemon::core::now()
}

pub fn connect(socket: &Path) -> OwnedFd {
    let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::connect(&fd, &SocketAddrUnix::new(socket).unwrap()).unwrap();
    fd
}

pub fn request(inherited: &[Opened]) -> Request {
    let mut request: Request = bytemuck::Zeroable::zeroed();
    request.magic = MAGIC;
    request.abi = ABI_VERSION;
    request.pid = std::process::id();
    request.inherited_len = inherited.len() as u32;
    request.inherited[..inherited.len()].copy_from_slice(inherited);
    request
}

pub fn ask(fd: &OwnedFd, bytes: &[u8]) -> Option<(Reply, Option<OwnedFd>)> {
    send(fd, bytes, SendFlags::NOSIGNAL).ok()?;
    let mut reply = [0u8; size_of::<Reply>()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got =
        recvmsg(fd, &mut [std::io::IoSliceMut::new(&mut reply)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .ok()?;
    if got.bytes != reply.len() {
        return None;
    }
    let memfd = ancillary.drain().find_map(|m| match m {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Some((bytemuck::pod_read_unaligned(&reply), memfd))
}

/// One observed program.
pub struct Shim {
    pub map: MmapRaw,
    pub reply: Reply,
    producers: Vec<Option<Producer>>,
}

/// One stream's running state.
#[derive(Default, Clone)]
pub struct Stream {
    pub offset: u64,
    block: Vec<u8>,
}

pub fn tag(content: &[u8], block: u64) -> Tag {
    let mut hasher = Sha256::new();
    hasher.update(block.to_le_bytes());
    hasher.update(content);
    hasher.finalize()[..16].try_into().unwrap()
}

impl Shim {
    pub fn hello(socket: &Path) -> Self {
        Self::hello_with(socket, &[])
    }

    pub fn hello_with(socket: &Path, inherited: &[Opened]) -> Self {
        let fd = connect(socket);
        let (reply, memfd) = ask(&fd, bytemuck::bytes_of(&request(inherited))).expect("the daemon answers");
        assert_eq!(reply.status, counterfoil_abi::hello::GRANTED);
        let map = MmapOptions::new().len(ARENA_BYTES).map_raw(&memfd.expect("an arena")).unwrap();
        Self { map, reply, producers: (0..64).map(|_| None).collect() }
    }

    pub fn head(&self) -> &ArenaHead {
        unsafe { &*self.map.as_ptr().cast::<ArenaHead>() }
    }

    pub fn lane_head(&self, lane: usize) -> &LaneHead {
        unsafe { &*self.map.as_ptr().add(lane_head_at(lane)).cast::<LaneHead>() }
    }

    pub fn push_lines(&mut self, lane: usize, lines: &[Line]) -> bool {
        let base = self.map.as_ptr();
        let producer = self.producers[lane].get_or_insert_with(|| unsafe {
            let head = base.add(lane_head_at(lane)).cast::<LaneHead>();
            let me = u64::from(std::process::id()) << 32 | 1;
            (*head).owner.store(me, Ordering::Relaxed);
            Producer::new(head, base.add(ring_at(lane)).cast::<Slot>(), arena::lines(lane))
        });
        let pushed = producer.push(lines);
        self.head().bell.store(1, Ordering::Relaxed);
        pushed
    }

    pub fn push<T: bytemuck::NoUninit>(&mut self, lane: usize, record: &T, lines: usize) -> bool {
        let mut all = [[0u64; 8]; MAX_LINES];
        bytemuck::cast_slice_mut::<_, u8>(&mut all)[..size_of::<T>()]
            .copy_from_slice(bytemuck::bytes_of(record));
        self.push_lines(lane, &all[..lines])
    }

    pub fn open(&mut self, object: u32, channel: Channel, with: impl FnOnce(&mut Opened)) {
        let mut opened: Opened = bytemuck::Zeroable::zeroed();
        opened.header = header(Kind::Opened, 4, object);
        opened.channel = channel as u8;
        opened.fd = -1;
        with(&mut opened);
        self.push(0, &opened, 4);
    }

    pub fn flow(&mut self, object: u32, flow: u8, client: bool) {
        let mut record: Flow = bytemuck::Zeroable::zeroed();
        record.header = header(Kind::Flow, 2, object);
        record.header.flags = if client { CLIENT } else { 0 };
        record.flow = [flow; 16];
        record.name[..4].copy_from_slice(b"host");
        record.name_len = 4;
        self.push(0, &record, 2);
    }

    pub fn tls(&mut self, object: u32, flow: u8, client: bool) {
        self.open(object, Channel::Tls, |_| {});
        self.flow(object, flow, client);
    }

    /// Moves `data` through a tap; whole blocks are tagged.
    pub fn pass(&mut self, object: u32, tap: Tap, stream: &mut Stream, data: &[u8]) {
        for &byte in data {
            stream.block.push(byte);
            stream.offset += 1;
            if stream.block.len() as u64 == BLOCK {
                let at = stream.offset - BLOCK;
                self.block(0, object, tap, at, tag(&stream.block, at / BLOCK));
                stream.block.clear();
            }
        }
    }

    pub fn block(&mut self, lane: usize, object: u32, tap: Tap, offset: u64, tag: Tag) -> bool {
        let mut blocks: Blocks = bytemuck::Zeroable::zeroed();
        blocks.header = header(Kind::Blocks, 1, object);
        blocks.header.tap = tap as u8;
        blocks.offset = offset;
        blocks.length = BLOCK as u32;
        blocks.count = 1;
        blocks.tags[0] = tag;
        self.push(lane, &blocks, 1)
    }

    /// The tag of the running block so far.
    pub fn partial(&mut self, object: u32, tap: Tap, stream: &Stream) {
        if stream.block.is_empty() {
            return;
        }
        let at = stream.offset - stream.block.len() as u64;
        let mut blocks: Blocks = bytemuck::Zeroable::zeroed();
        blocks.header = header(Kind::Blocks, 1, object);
        blocks.header.tap = tap as u8;
        blocks.header.flags = PARTIAL;
        blocks.offset = at;
        blocks.length = stream.block.len() as u32;
        blocks.count = 1;
        blocks.tags[0] = tag(&stream.block, at / BLOCK);
        self.push(0, &blocks, 1);
    }

    pub fn gap(&mut self, object: u32, tap: Tap, offset: u64, length: u64, reason: Reason) {
        let mut gap: Gap = bytemuck::Zeroable::zeroed();
        gap.header = header(Kind::Gap, 1, object);
        gap.header.tap = tap as u8;
        (gap.offset, gap.length, gap.reason) = (offset, length, reason as u8);
        self.push(0, &gap, 1);
    }

    pub fn end(&mut self, object: u32, how: How, out: u64, inward: u64, with: impl FnOnce(&mut Ended)) {
        let mut ended: Ended = bytemuck::Zeroable::zeroed();
        ended.header = header(Kind::Ended, 2, object);
        ended.header.flags = IN_EOF;
        ended.how = how as u8;
        (ended.out_total, ended.in_total) = (out, inward);
        (ended.kernel_out, ended.kernel_in) = (UNKNOWN, UNKNOWN);
        with(&mut ended);
        self.push(0, &ended, 2);
    }
}

pub fn header(kind: Kind, lines: u8, object: u32) -> Header {
    Header { kind: kind as u8, lines, tap: 0, flags: 0, object, time: monotonic() }
}

pub fn v4(last: u8, port: u16) -> Address {
    let mut ip = [0; 16];
    ip[..4].copy_from_slice(&[10, 0, 0, last]);
    Address { ip, port, version: 4, pad: [0; 5] }
}
