//! Both sides of the hello, played by somebody who doesn't keep the rules: a client that lies to a
//! daemon, and a daemon that lies to a client.

use bytemuck::Zeroable;
use counterfoil_abi::{ABI_VERSION, arena, hello};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut, Result};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A client of the daemon's socket.
pub struct Client(OwnedFd);

/// What the daemon answered.
pub struct Answer {
    /// The reply, if it was one.
    pub reply: Option<hello::Reply>,
    /// The arena.
    pub arena: Option<std::fs::File>,
}

impl Client {
    /// Connects.
    pub fn connect(path: &Path) -> Result<Self> {
        let socket =
            net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        let limit = Some(std::time::Duration::from_secs(10));
        net::sockopt::set_socket_timeout(&socket, net::sockopt::Timeout::Recv, limit)?;
        Ok(Self(socket))
    }

    /// A request that is right in every field.
    pub fn request() -> hello::Request {
        let mut request = hello::Request::zeroed();
        request.magic = hello::MAGIC;
        request.abi = ABI_VERSION;
        request.pid = std::process::id();
        request
    }

    /// Sends bytes.
    pub fn say(&self, bytes: &[u8]) -> Result<()> {
        net::send(&self.0, bytes, SendFlags::NOSIGNAL).map(drop).map_err(Into::into)
    }

    /// Takes the answer; none where the daemon hung up.
    pub fn hear(&self) -> Result<Answer> {
        let mut bytes = [0u8; size_of::<hello::Reply>() + 64];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let n =
            net::recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?
                .bytes;
        let mut arena = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                arena = fds.map(std::fs::File::from).next();
            }
        }
        let reply = (n == size_of::<hello::Reply>()).then(|| bytemuck::pod_read_unaligned(&bytes[..n]));
        Ok(Answer { reply, arena })
    }
}

/// Fills an arena's lanes with bytes that were made up: positions, owners and records alike.
pub fn scribble(arena: &std::fs::File, seed: u64, from: u64) {
    let bytes = crate::scratch::payload(seed, (1 << 20) - from as usize);
    arena.write_all_at(&bytes, from).expect("arena is writable");
}

/// Puts `lines` into lane 0 as if a thread of `pid` had published them.
pub fn publish(arena: &std::fs::File, pid: u32, lines: &[u64]) {
    let at = arena::lane_head_at(0) as u64;
    arena.write_all_at(bytemuck::cast_slice(lines), arena::ring_at(0) as u64).expect("ring");
    arena.write_all_at(&((u64::from(pid) << 32) | u64::from(pid)).to_le_bytes(), at + 8).expect("owner");
    arena.write_all_at(&(lines.len() as u64 / 8).to_le_bytes(), at).expect("head");
    ring_bell(arena);
}

/// Says that something was published.
pub fn ring_bell(arena: &std::fs::File) {
    let at = std::mem::offset_of!(arena::ArenaHead, bell) as u64;
    arena.write_all_at(&1u32.to_le_bytes(), at).expect("bell");
}

/// How a lying daemon answers.
#[derive(Clone, Copy, Debug)]
pub enum Lie {
    /// Hangs up at once.
    HangUp,
    /// Reads, and never answers.
    Silence,
    /// Bytes without a meaning, this many.
    Garbage(usize),
    /// A reply of another ABI, with an arena.
    OtherAbi,
    /// Granted, without an arena.
    NoArena,
    /// Granted, with an arena much smaller than it says, and not sealed.
    SmallArena,
    /// Granted, with an arena full of random bytes.
    RandomArena,
    /// Granted in order, with a sealed arena; but nobody ever reads it, so that all lanes fill up.
    Deaf,
    /// Granted, with a lane table that says that everything is taken, and a policy of all ones.
    FullArena,
}

/// A daemon that lies, until it is dropped.
pub struct Liar {
    over: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Liar {
    /// Listens at `path`.
    pub fn start(path: &Path, lie: Lie) -> Self {
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("socket");
        net::bind(&socket, &SocketAddrUnix::new(path).expect("address")).expect("bind");
        net::listen(&socket, 64).expect("listen");
        let limit = Some(std::time::Duration::from_millis(50));
        net::sockopt::set_socket_timeout(&socket, net::sockopt::Timeout::Recv, limit).expect("timeout");
        let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stop, count) = (over.clone(), asked.clone());
        let thread = std::thread::spawn(move || {
            let mut held = vec![];
            while !stop.load(Ordering::Acquire) {
                if let Ok(client) = net::accept_with(&socket, SocketFlags::CLOEXEC) {
                    count.fetch_add(1, Ordering::AcqRel);
                    let _ = answer(&client, lie);
                    if matches!(lie, Lie::Silence) {
                        held.push(client);
                    }
                }
            }
        });
        Self { over, asked, thread: Some(thread) }
    }

    /// How many clients came.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Acquire)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An arena as the daemon makes them.
fn deaf_arena() -> Result<std::fs::File> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let fd = rustix::fs::memfd_create("arena", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let file = std::fs::File::from(fd);
    file.set_len(arena::ARENA_BYTES as u64)?;
    file.write_all_at(&arena::MAGIC.to_le_bytes(), 0)?;
    file.write_all_at(&ABI_VERSION.to_le_bytes(), 8)?;
    file.write_all_at(&(arena::LANES as u32).to_le_bytes(), 12)?;
    let policy = std::mem::offset_of!(arena::ArenaHead, policy) as u64;
    file.write_all_at(&arena::POLICY_WATCHED.to_le_bytes(), policy)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
    Ok(file)
}

fn answer(client: &OwnedFd, lie: Lie) -> Result<()> {
    let mut buffer = vec![0u8; size_of::<hello::Request>()];
    if !matches!(lie, Lie::HangUp) {
        net::recv(client, &mut buffer[..], RecvFlags::empty())?;
    }
    let mut reply = hello::Reply::zeroed();
    reply.magic = hello::MAGIC;
    reply.abi = ABI_VERSION;
    reply.status = hello::GRANTED;
    reply.arena_bytes = arena::ARENA_BYTES as u64;
    reply.policy = arena::POLICY_WATCHED;
    let memfd = |bytes: u64| -> Result<std::fs::File> {
        let fd = rustix::fs::memfd_create("arena", rustix::fs::MemfdFlags::CLOEXEC)?;
        let file = std::fs::File::from(fd);
        file.set_len(bytes)?;
        Ok(file)
    };
    let arena = match lie {
        Lie::HangUp | Lie::Silence => return Ok(()),
        Lie::Garbage(length) => {
            net::send(client, &crate::scratch::payload(7, length), SendFlags::NOSIGNAL)?;
            return Ok(());
        }
        Lie::NoArena => None,
        Lie::Deaf => Some(deaf_arena()?),
        Lie::SmallArena => Some(memfd(4096)?),
        Lie::OtherAbi => {
            reply.abi = ABI_VERSION + 7;
            Some(memfd(reply.arena_bytes)?)
        }
        Lie::RandomArena => {
            let file = memfd(reply.arena_bytes)?;
            file.write_all_at(&crate::scratch::payload(3, arena::ARENA_BYTES), 0)?;
            Some(file)
        }
        Lie::FullArena => {
            let file = memfd(reply.arena_bytes)?;
            file.write_all_at(&vec![0xff; arena::RINGS_AT], 0)?;
            file.write_all_at(&arena::MAGIC.to_le_bytes(), 0)?;
            reply.policy = u32::MAX;
            Some(file)
        }
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<_> = arena.iter().map(|f| f.as_fd()).collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    net::sendmsg(client, &[IoSlice::new(bytemuck::bytes_of(&reply))], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
