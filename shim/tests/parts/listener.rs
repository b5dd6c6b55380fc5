//! A daemon that grants every process an arena and keeps all that is said in it.

use counterfoil_abi::ABI_VERSION;
use counterfoil_abi::arena::{ARENA_BYTES, LANES, MAGIC, POLICY_WATCHED, lane_head_at, lines, ring_at};
use counterfoil_abi::hello::{self, GRANTED, Reply, Request};
use counterfoil_abi::lane::{Consumer, LaneHead, Slot};
use counterfoil_abi::record::{MAX_LINES, Record};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::*;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// The key that it hands out.
pub const KEY: [u8; 16] = *b"a key of sixteen";

/// Listens until it is asked what it heard.
pub struct Listener {
    stop: Arc<AtomicBool>,
    socket: OwnedFd,
    accepts: Option<JoinHandle<()>>,
    reads: Option<JoinHandle<Vec<(usize, Record)>>>,
}

struct Arena {
    base: *mut u8,
}
// SAFETY: all that is shared in it is atomic.
unsafe impl Send for Arena {}

impl Listener {
    /// Grants `policy`. `late`: reads nothing until it is asked what it heard.
    pub fn start(path: &Path, policy: u32, late: bool) -> Self {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("socket");
        bind(&socket, &SocketAddrUnix::new(path).expect("a short path")).expect("bind");
        listen(&socket, 64).expect("listen");
        let stop = Arc::new(AtomicBool::new(false));
        let arenas = Arc::new(Mutex::new(Vec::new()));
        let (asked, granted) = (socket.try_clone().expect("descriptor"), Arc::clone(&arenas));
        let accepts = std::thread::spawn(move || {
            while let Ok(one) = accept(&asked) {
                if let Some(arena) = grant(&one, policy) {
                    granted.lock().expect("arenas").push(arena);
                }
            }
        });
        let stopped = Arc::clone(&stop);
        let reads = std::thread::spawn(move || {
            let mut heard = Vec::new();
            let mut lanes: Vec<Vec<Consumer>> = Vec::new();
            loop {
                let last = stopped.load(Ordering::Acquire);
                for arena in &arenas.lock().expect("arenas")[lanes.len()..] {
                    lanes.push((0..LANES).map(|lane| arena.lane(lane)).collect());
                }
                for (arena, lanes) in lanes.iter_mut().enumerate().filter(|_| last || !late) {
                    lanes.iter_mut().for_each(|lane| drain(arena, lane, &mut heard));
                }
                if last {
                    return heard;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { stop, socket, accepts: Some(accepts), reads: Some(reads) }
    }

    /// All records in the order of their times, with the number of the process image they came from. The
    /// processes have ended.
    pub fn heard(mut self) -> Vec<(usize, Record)> {
        shutdown(&self.socket, Shutdown::Both).expect("shutdown");
        self.accepts.take().expect("once").join().expect("it accepts");
        self.stop.store(true, Ordering::Release);
        let mut heard = self.reads.take().expect("once").join().expect("it reads");
        // Lanes are read one after the other: what one thread says last may be read first.
        heard.sort_by_key(|(_, record)| record.header().time);
        heard
    }
}

impl Arena {
    fn lane(&self, lane: usize) -> Consumer {
        // SAFETY: within the mapping, which stays for good; this is the only consumer.
        unsafe {
            Consumer::new(
                self.base.add(lane_head_at(lane)).cast::<LaneHead>(),
                self.base.add(ring_at(lane)).cast::<Slot>(),
                lines(lane),
            )
        }
    }
}

fn drain(arena: usize, lane: &mut Consumer, heard: &mut Vec<(usize, Record)>) {
    let mut waiting = lane.waiting().expect("a sound lane");
    let mut room = [[0; 8]; MAX_LINES];
    while waiting > 0 {
        let lines = lane.next(waiting, &mut room).expect("a sound record");
        waiting -= lines as u64;
        heard.push((arena, Record::decode(&room[..lines]).expect("a record within its bounds")));
    }
    lane.release();
}

fn grant(one: &OwnedFd, policy: u32) -> Option<Arena> {
    let mut request = vec![0u8; size_of::<Request>()];
    let (got, _) = recv(one, &mut request[..], RecvFlags::empty()).ok()?;
    if got != size_of::<Request>() {
        return None;
    }
    let memory =
        rustix::fs::memfd_create("arena", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).expect("memfd");
    rustix::fs::ftruncate(&memory, ARENA_BYTES as u64).expect("room");
    rustix::fs::fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .expect("seals");
    // SAFETY: a new mapping of all of it.
    let base: *mut u8 = unsafe {
        rustix::mm::mmap(
            core::ptr::null_mut(),
            ARENA_BYTES,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            &memory,
            0,
        )
        .expect("mapping")
        .cast()
    };
    let word = |at: usize, bytes: &[u8]| {
        // SAFETY: the head's fields, before anybody else has it.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), base.add(at), bytes.len()) }
    };
    word(0, &MAGIC.to_le_bytes());
    word(8, &ABI_VERSION.to_le_bytes());
    word(12, &(LANES as u32).to_le_bytes());
    word(24, &policy.to_le_bytes());
    let mut reply: Reply = bytemuck::Zeroable::zeroed();
    reply.magic = hello::MAGIC;
    reply.abi = ABI_VERSION;
    reply.status = GRANTED;
    reply.arena_bytes = ARENA_BYTES as u64;
    reply.policy = policy;
    reply.key = KEY;
    for resume in &mut reply.resume {
        (resume.out_offset, resume.in_offset) = (counterfoil_abi::UNKNOWN, counterfoil_abi::UNKNOWN);
    }
    let mut space = [core::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [memory.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let bytes = [std::io::IoSlice::new(bytemuck::bytes_of(&reply))];
    sendmsg(one, &bytes, &mut control, SendFlags::NOSIGNAL).ok()?;
    Some(Arena { base })
}

/// The policy of a watched process.
pub const WATCHED: u32 = POLICY_WATCHED;
