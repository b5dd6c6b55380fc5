//! What the kernel knows of a descriptor: what it is, its addresses, and its own byte counts.
//!
//! Only on cold paths: when a descriptor is made, first seen, or ends. Under a strict sandbox only
//! fstat is asked, which those that matter answer with an error at worst.

use crate::process;
use core::mem::MaybeUninit;
use counterfoil_abi::UNKNOWN;
use counterfoil_abi::record::{Address, Channel, Stat};
use rustix::fd::BorrowedFd;
use rustix::net::{AddressFamily, SocketAddrAny, SocketType};

/// Bytes that the kernel moved for a TCP socket, as the program counts them; UNKNOWN if not asked.
#[derive(Clone, Copy)]
pub struct Counts {
    /// Accepted from the program.
    pub sent: u64,
    /// Handed to the program.
    pub received: u64,
}

impl Counts {
    /// Not asked, or no answer.
    pub const UNKNOWN: Self = Self { sent: UNKNOWN, received: UNKNOWN };
}

/// Device, inode and kind of a descriptor.
#[derive(Clone, Copy)]
pub struct Identity {
    /// What it is; None for what is not watched.
    pub channel: Option<Channel>,
    /// st_dev.
    pub device: u64,
    /// st_ino.
    pub inode: u64,
    /// A pipe's end that can be written.
    pub writes: bool,
    /// A file's size and times.
    pub stat: Stat,
}

/// Device, inode and state of a regular file.
pub struct Inode {
    /// st_dev.
    pub device: u64,
    /// st_ino.
    pub number: u64,
    /// Size and times.
    pub stat: Stat,
}

impl Inode {
    /// None: it is no regular file.
    pub fn of(stat: &rustix::fs::Stat) -> Option<Self> {
        (rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile).then(|| {
            Self {
                device: stat.st_dev,
                number: stat.st_ino,
                stat: Stat {
                    size: stat.st_size as u64,
                    modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
                    changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
                },
            }
        })
    }
}

fn nanoseconds(seconds: i64, rest: impl TryInto<i64>) -> u64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest.try_into().unwrap_or(0)).max(0) as u64
}

/// What fstat says of a regular file that is open here.
pub fn file(fd: i32) -> Option<Inode> {
    Inode::of(&rustix::fs::fstat(borrow(fd)?).ok()?)
}

/// No name leads to this file any more.
pub fn is_nameless(fd: i32) -> bool {
    borrow(fd).is_some_and(|fd| rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_nlink == 0))
}

/// Where a file's descriptor stands. None: not to be had, or not to be asked for.
pub fn position(fd: i32) -> Option<u64> {
    let fd = borrow(fd).filter(|_| !process::sandboxed())?;
    rustix::fs::tell(fd).ok()
}

/// Reads up to `most` bytes of a file from `start` on, not through its position, in pieces for `each`, which also gets how
/// far each is from `start`. How many were read; 0 in a sandbox, which may not allow it.
pub fn read_again(fd: i32, start: u64, most: u64, mut each: impl FnMut(u64, &[u8])) -> u64 {
    let Some(fd) = borrow(fd).filter(|_| !process::sandboxed()) else { return 0 };
    let mut buffer = [0; 4096];
    let mut done = 0;
    while done < most {
        let room = &mut buffer[..(most - done).min(4096) as usize];
        match rustix::io::pread(fd, &mut *room, start + done) {
            Ok(0) | Err(_) => break,
            Ok(read) => {
                each(done, &room[..read]);
                done += read as u64;
            }
        }
    }
    done
}

/// Bytes of addresses that RLIMIT_AS leaves this program; None: there is no such limit.
pub fn room() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current?;
    // "SIZE …", in pages.
    let mut bytes = [0; 32];
    let file = rustix::fs::open(
        c"/proc/self/statm",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    let got = file.ok().and_then(|file| rustix::io::read(file, &mut bytes).ok()).unwrap_or(0);
    let digits = bytes[..got].iter().take_while(|byte| byte.is_ascii_digit());
    let pages = digits.fold(0u64, |all, byte| all.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')));
    Some(limit.saturating_sub(pages.wrapping_mul(4096)))
}

/// CLOCK_REALTIME, nanoseconds. Not the coarse clock, which may be behind a file's times (multigrain
/// timestamps, Linux 6.13). glibc's, as in `lanes`: the vDSO, no system call.
pub fn realtime() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for the answer; this clock always answers.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut t) };
    nanoseconds(t.tv_sec, t.tv_nsec)
}

/// open(2)'s flags of a descriptor, as far as they can be asked for.
pub fn open_flags(fd: i32) -> Option<u32> {
    let fd = borrow(fd).filter(|_| !process::sandboxed())?;
    Some(rustix::fs::fcntl_getfl(fd).ok()?.bits())
}

/// A program that is started by exec has this descriptor, too, as far as can be told.
pub fn survives_exec(fd: i32) -> bool {
    let asked = borrow(fd).filter(|_| !process::sandboxed());
    asked
        .and_then(|fd| rustix::io::fcntl_getfd(fd).ok())
        .is_none_or(|f| !f.contains(rustix::io::FdFlags::CLOEXEC))
}

fn borrow(fd: i32) -> Option<BorrowedFd<'static>> {
    // SAFETY: only used for calls that fail on a bad descriptor; -1 is not representable.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Descriptors below `N` that are open, found out with one call where that is allowed.
pub fn open_below<const N: usize>() -> impl Iterator<Item = i32> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    // SAFETY: only asked about, and nothing else in this process runs yet.
    let mut asked: [PollFd<'static>; N] = core::array::from_fn(|fd| unsafe {
        PollFd::from_borrowed_fd(BorrowedFd::borrow_raw(fd as i32), PollFlags::empty())
    });
    // Waits for nothing. A limit on descriptors below N makes it fail.
    let told = poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok();
    (0..N).filter(move |&fd| !told || !asked[fd].revents().contains(PollFlags::NVAL)).map(|fd| fd as i32)
}

/// Looks at a descriptor. None: it is closed, or may not be looked at.
pub fn identify(fd: i32) -> Option<Identity> {
    let fd = borrow(fd)?;
    let stat = rustix::fs::fstat(fd).ok()?;
    let mut identity = Identity {
        channel: None,
        device: stat.st_dev,
        inode: stat.st_ino,
        writes: false,
        stat: Stat::default(),
    };
    match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::Socket if !process::sandboxed() => {
            identity.channel = socket_channel(fd);
        }
        rustix::fs::FileType::Fifo => {
            identity.channel = Some(Channel::Pipe);
            identity.writes = !process::sandboxed()
                && rustix::fs::fcntl_getfl(fd).is_ok_and(|f| !(f & rustix::fs::OFlags::RWMODE).is_empty());
        }
        rustix::fs::FileType::RegularFile if process::active() && process::watched() => {
            identity.channel = Some(Channel::File);
            identity.stat = Inode::of(&stat).map(|inode| inode.stat).unwrap_or_default();
        }
        _ => {}
    }
    Some(identity)
}

fn socket_channel(fd: BorrowedFd<'_>) -> Option<Channel> {
    let family = rustix::net::sockopt::socket_domain(fd).ok()?;
    let kind = rustix::net::sockopt::socket_type(fd).ok()?;
    channel_of(family.as_raw(), kind.as_raw())
}

/// What a socket of this family and type is to us.
pub fn channel_of(family: u16, kind: u32) -> Option<Channel> {
    let stream = kind == SocketType::STREAM.as_raw() || kind == SocketType::SEQPACKET.as_raw();
    match AddressFamily::from_raw(family) {
        AddressFamily::INET | AddressFamily::INET6 if stream => Some(Channel::Tcp),
        AddressFamily::INET | AddressFamily::INET6 if kind == SocketType::DGRAM.as_raw() => {
            Some(Channel::Datagram)
        }
        AddressFamily::UNIX if stream => Some(Channel::Unix),
        AddressFamily::UNIX => Some(Channel::UnixDatagram),
        _ => None,
    }
}

/// Where a socket's ends are.
pub struct Ends {
    /// Our address.
    pub local: Address,
    /// The peer's.
    pub remote: Address,
    /// Path of a Unix socket, of whichever end has one.
    pub name: [u8; 152],
    /// Bytes used in `name`.
    pub name_len: usize,
    /// SO_PEERCRED.
    pub peer_pid: u32,
}

/// Asks for a socket's addresses.
pub fn ends(fd: i32, channel: Channel) -> Ends {
    let mut ends = Ends {
        local: Address::default(),
        remote: Address::default(),
        name: [0; 152],
        name_len: 0,
        peer_pid: 0,
    };
    let Some(fd) = borrow(fd).filter(|_| !process::sandboxed()) else { return ends };
    let (local, remote) = (rustix::net::getsockname(fd).ok(), rustix::net::getpeername(fd).ok().flatten());
    if channel == Channel::Unix || channel == Channel::UnixDatagram {
        for address in [remote, local].into_iter().flatten() {
            if ends.name_len == 0 {
                ends.name_len = unix_name(address, &mut ends.name);
            }
        }
        if let Ok(peer) = rustix::net::sockopt::socket_peercred(fd) {
            ends.peer_pid = peer.pid.as_raw_nonzero().get() as u32;
        }
    } else {
        ends.local = local.map(ip_address).unwrap_or_default();
        ends.remote = remote.map(ip_address).unwrap_or_default();
    }
    ends
}

fn unix_name(address: SocketAddrAny, out: &mut [u8]) -> usize {
    let Ok(unix) = rustix::net::SocketAddrUnix::try_from(address) else { return 0 };
    let bytes = match (unix.path_bytes(), unix.abstract_name()) {
        (Some(path), _) => path,
        // Unnamed: whoever connected without binding first.
        (None, Some([])) => return 0,
        (None, Some(name)) => {
            let length = name.len().min(out.len() - 1);
            out[1..=length].copy_from_slice(&name[..length]);
            return length + 1;
        }
        (None, None) => return 0,
    };
    let length = bytes.len().min(out.len());
    out[..length].copy_from_slice(&bytes[..length]);
    length
}

/// Where a datagram goes. None: it doesn't say, or not in IP.
///
/// # Safety
/// `to` is NULL, or the program's own argument of `length` bytes.
pub unsafe fn destination(to: *const libc::sockaddr, length: libc::socklen_t) -> Option<Address> {
    if to.is_null() || (length as usize) < size_of::<libc::sockaddr_in>() {
        return None;
    }
    // SAFETY: contract; as long as is looked at. Programs align it as they like.
    unsafe {
        let family = core::ptr::addr_of!((*to).sa_family).read_unaligned();
        let address: SocketAddrAny = match i32::from(family) {
            libc::AF_INET => {
                let v4 = to.cast::<libc::sockaddr_in>().read_unaligned();
                let ip = core::net::Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                core::net::SocketAddr::from((ip, u16::from_be(v4.sin_port))).into()
            }
            libc::AF_INET6 if length as usize >= size_of::<libc::sockaddr_in6>() => {
                let v6 = to.cast::<libc::sockaddr_in6>().read_unaligned();
                let ip = core::net::Ipv6Addr::from(v6.sin6_addr.s6_addr);
                core::net::SocketAddr::from((ip, u16::from_be(v6.sin6_port))).into()
            }
            _ => return None,
        };
        Some(ip_address(address))
    }
}

fn ip_address(address: SocketAddrAny) -> Address {
    let mut out = Address::default();
    match core::net::SocketAddr::try_from(address) {
        Ok(core::net::SocketAddr::V4(v4)) => {
            out.version = 4;
            out.port = v4.port();
            out.ip[..4].copy_from_slice(&v4.ip().octets());
        }
        Ok(core::net::SocketAddr::V6(v6)) => {
            out.port = v6.port();
            // v4-mapped addresses name the same connection as plain ones.
            if let Some(v4) = v6.ip().to_ipv4_mapped() {
                out.version = 4;
                out.ip[..4].copy_from_slice(&v4.octets());
            } else {
                out.version = 6;
                out.ip = v6.ip().octets();
            }
        }
        Err(_) => {}
    }
    out
}

/// linux/tcp.h `struct tcp_info` up to what is needed; the kernel fills as much as it has.
#[repr(C)]
struct TcpInfo {
    state: u8,
    small: [u8; 7],
    words: [u32; 24],
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
    segs_out: u32,
    segs_in: u32,
    notsent_bytes: u32,
    min_rtt: u32,
    data_segs_in: u32,
    data_segs_out: u32,
    delivery_rate: u64,
    busy_time: u64,
    rwnd_limited: u64,
    sndbuf_limited: u64,
    delivered: u32,
    delivered_ce: u32,
    bytes_sent: u64,
    bytes_retrans: u64,
}

/// Nothing more will come, and no error did: a reset would be one. (stunnel learns of the end so, and
/// reads none.)
fn ended_well(fd: i32) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Some(fd) = borrow(fd) else { return false };
    let mut asked = [PollFd::new(&fd, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let told = poll(&mut asked, Some(&now));
    let events = asked[0].revents();
    told == Ok(1) && events.contains(PollFlags::RDHUP) && !events.contains(PollFlags::ERR)
}

/// The kernel's counts of a TCP socket (Linux 4.19 and later). `eof_seen`: a read returned 0.
/// errno may change.
pub fn tcp_counts(fd: i32, eof_seen: bool) -> Counts {
    if process::sandboxed() {
        return Counts::UNKNOWN;
    }
    let mut info = MaybeUninit::<TcpInfo>::zeroed();
    let mut length = size_of::<TcpInfo>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes.
    let done = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    if done != 0 || (length as usize) < size_of::<TcpInfo>() {
        return Counts::UNKNOWN;
    }
    // SAFETY: plain integers, zeroed and then filled.
    let info = unsafe { info.assume_init() };
    let Some(unread) = borrow(fd).and_then(|fd| rustix::io::ioctl_fionread(fd).ok()) else {
        return Counts::UNKNOWN;
    };
    // include/net/tcp_states.h: states in which the peer's FIN has come; it counts as one byte.
    let fin_came = eof_seen || matches!(info.state, 6 | 8 | 9 | 11) || info.state == 7 && ended_well(fd);
    // TCP_CLOSE (7) after a reset or both FINs: whether one of the bytes is a FIN is else not to be known.
    let received = if info.state == 7 && !fin_came {
        UNKNOWN
    } else {
        info.bytes_received.saturating_sub(u64::from(fin_came)).saturating_sub(unread)
    };
    // FIN_WAIT1, LAST_ACK, CLOSING: our own FIN stands last in the queue, and counts while it does.
    let fin_waits = matches!(info.state, 4 | 9 | 11) && info.notsent_bytes > 0;
    let notsent = u64::from(info.notsent_bytes) - u64::from(fin_waits);
    Counts { sent: info.bytes_sent.saturating_sub(info.bytes_retrans) + notsent, received }
}
