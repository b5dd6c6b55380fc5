//! What only the kernel can say about a socket of another process.
//!
//! Comes in: a pid and a descriptor, or an inode. Goes out: addresses and byte counts. The socket
//! is looked at through a duplicate that lives for a moment in the daemon: that crosses network
//! namespaces, and needs the right to trace the process (the daemon's root, or the same user).

use super::facts::SocketFacts;
use counterfoil_abi::record::Address;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, netlink};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// See [`super::facts::Proc::socket`].
pub fn socket(pid: u32, fd: i32) -> Option<SocketFacts> {
    // To close a duplicate of a file may take as long as whoever serves the file system likes.
    let link = rustix::fs::readlink(format!("/proc/{pid}/fd/{fd}"), Vec::new()).ok()?;
    if !link.as_bytes().starts_with(b"socket:[") {
        return None;
    }
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let socket = pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).ok()?;
    let stat = rustix::fs::fstat(&socket).ok()?;
    let local = rustix::net::getsockname(&socket).ok()?;
    let remote = rustix::net::getpeername(&socket).ok();
    let (sent, received) = tcp_counts(&socket).unzip();
    Some(SocketFacts {
        inode: (stat.st_dev, stat.st_ino),
        local: address(local)?,
        remote: remote.flatten().and_then(address).unwrap_or_default(),
        sent,
        received,
    })
}

fn address(any: SocketAddrAny) -> Option<Address> {
    let address = SocketAddr::try_from(any).ok()?;
    let mut out = Address { port: address.port(), ..Address::default() };
    match address.ip() {
        IpAddr::V4(v4) => {
            out.version = 4;
            out.ip[..4].copy_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            out.version = 6;
            out.ip = v6.octets();
        }
    }
    Some(out)
}

/// Bytes sent and received by the program: `bytes_sent − bytes_retrans + notsent`, and
/// `bytes_received` less what is still in the receive queue and less the FIN, which counts as one.
fn tcp_counts(socket: &OwnedFd) -> Option<(u64, u64)> {
    // include/uapi/linux/tcp.h, struct tcp_info: the u64s and u32s wanted, by their offsets.
    const STATE: usize = 0;
    const BYTES_RECEIVED: usize = 128;
    const NOTSENT: usize = 144;
    const BYTES_SENT: usize = 200;
    const BYTES_RETRANS: usize = 208;
    const NEEDED: usize = 216;
    let mut info = [0u8; 256];
    let mut len = info.len() as libc::socklen_t;
    // SAFETY: `info` has `len` bytes; the kernel writes at most that many and says how many.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut len,
        )
    };
    if got != 0 || (len as usize) < NEEDED {
        return None;
    }
    let long = |at: usize| info[at..at + 8].try_into().map(u64::from_ne_bytes).unwrap_or(0);
    let notsent = u64::from(info[NOTSENT..NOTSENT + 4].try_into().map(u32::from_ne_bytes).unwrap_or(0));
    // FIN_WAIT1, LAST_ACK, CLOSING: our own FIN stands last in the queue, and counts while it does.
    let fin_waits = matches!(info[STATE], 4 | 9 | 11) && notsent > 0;
    let notsent = notsent - u64::from(fin_waits);
    let queued = rustix::io::ioctl_fionread(socket).ok()?;
    // States after the peer's FIN: CLOSE_WAIT 8, LAST_ACK 9, CLOSING 11, TIME_WAIT 6, CLOSE 7.
    let fin = u64::from(matches!(info[STATE], 6 | 7 | 8 | 9 | 11));
    let sent = (long(BYTES_SENT) + notsent).checked_sub(long(BYTES_RETRANS))?;
    let received = long(BYTES_RECEIVED).checked_sub(queued)?.saturating_sub(fin);
    Some((sent, received))
}

/// See [`super::facts::Proc::sockets`].
pub fn sockets(pid: u32) -> Option<HashSet<u64>> {
    // proc_pid_net(5): which column of each table is the inode. One that nobody has any more has none there.
    const TABLES: [(&str, usize); 3] = [("tcp", 9), ("tcp6", 9), ("unix", 6)];
    let mut found = HashSet::new();
    for (table, column) in TABLES {
        let text = match std::fs::read(format!("/proc/{pid}/net/{table}")) {
            Ok(text) => text,
            // A kernel without IPv6.
            Err(_) if table == "tcp6" => continue,
            Err(_) => return None,
        };
        let lines = text.split(|&b| b == b'\n').skip(1);
        let word = |line: &[u8]| {
            let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            std::str::from_utf8(words.nth(column)?).ok()?.parse().ok()
        };
        found.extend(lines.filter_map(word).filter(|&inode: &u64| inode != 0));
    }
    Some(found)
}

/// Bytes of `socket` that the other side has not taken: of a Unix socket the peer's program (in the kernel's own
/// measure), of TCP the peer's kernel (unix(7), tcp(7): SIOCOUTQ).
pub(crate) fn not_taken(socket: &impl AsFd) -> Option<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ, writes one int through its argument; the descriptor is borrowed and open.
    let got = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if got == 0 { u64::try_from(bytes).ok() } else { None }
}

/// See [`super::facts::Proc::unix_peer`]. It knows the daemon's own network namespace only.
pub fn unix_peer(inode: u64) -> Option<u64> {
    // include/uapi/linux/{netlink,sock_diag,unix_diag}.h
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const NLM_F_REQUEST: u16 = 1;
    const UDIAG_SHOW_PEER: u32 = 4;
    const UNIX_DIAG_PEER: u16 = 2;
    const HEADER: usize = 16;
    const REQUEST: usize = 24;
    const MESSAGE: usize = 16;
    let mut request = Vec::with_capacity(HEADER + REQUEST);
    request.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(u32::try_from(inode).ok()?.to_ne_bytes());
    request.extend(UDIAG_SHOW_PEER.to_ne_bytes());
    // No cookie.
    request.extend([0xff; 8]);

    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )
    .ok()?;
    rustix::net::send(&socket, &request, SendFlags::empty()).ok()?;
    let mut reply = [0u8; 1024];
    let (got, _) = rustix::net::recv(&socket, &mut reply, RecvFlags::DONTWAIT).ok()?;
    let reply = reply.get(..got)?;
    let short = |at: usize| Some(u16::from_ne_bytes(reply.get(at..at + 2)?.try_into().ok()?));
    let int = |at: usize| Some(u32::from_ne_bytes(reply.get(at..at + 4)?.try_into().ok()?));
    if short(4)? != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let mut at = HEADER + MESSAGE;
    while let (Some(len), Some(kind)) = (short(at), short(at + 2)) {
        if kind == UNIX_DIAG_PEER {
            return int(at + 4).map(u64::from).filter(|&peer| peer != 0);
        }
        at += (usize::from(len).max(4) + 3) & !3;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    #[test]
    fn a_tcp_sockets_addresses_and_counts_are_the_kernels() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[7; 1000]).unwrap();
        server.read_exact(&mut [0; 600]).unwrap();
        let pid = std::process::id();
        let Some(ours) = socket(pid, client.as_raw_fd()) else {
            eprintln!("skipped: pidfd_getfd is not permitted here");
            return;
        };
        assert_eq!((ours.local.version, ours.local.port), (4, client.local_addr().unwrap().port()));
        assert_eq!(ours.remote.port, listener.local_addr().unwrap().port());
        assert_eq!((ours.sent, ours.received), (Some(1000), Some(0)));
        let theirs = socket(pid, server.as_raw_fd()).unwrap();
        assert_eq!((theirs.sent, theirs.received), (Some(0), Some(600)));
        // More than fits: the FIN has to wait behind it.
        server.set_nonblocking(true).unwrap();
        let mut filled = 0;
        while let Ok(n) = server.write(&[1; 65536]) {
            filled += n as u64;
        }
        server.set_nonblocking(false).unwrap();
        server.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(socket(pid, server.as_raw_fd()).unwrap().sent, Some(filled), "nor is ours");
        std::io::copy(&mut client, &mut std::io::sink()).unwrap();
        drop(client);
        server.read_exact(&mut [0; 400]).unwrap();
        assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(socket(pid, server.as_raw_fd()).unwrap().received, Some(1000), "FIN is no byte");
    }

    #[test]
    fn sockets_are_listed_while_somebody_has_them() {
        let inode = |fd: &dyn AsRawFd| {
            // SAFETY: borrowed for this call from a socket that lives longer.
            let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(fd.as_raw_fd()) };
            rustix::fs::fstat(fd).unwrap().st_ino
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let (a, b) = UnixStream::pair().unwrap();
        let pid = std::process::id();
        let (there, inodes) = (sockets(pid).unwrap(), [inode(&client), inode(&server), inode(&a), inode(&b)]);
        assert!(inodes.iter().all(|inode| there.contains(inode)));
        let kept = a.try_clone().unwrap();
        drop((client, server, a, b));
        let there = sockets(pid).unwrap();
        assert_eq!(inodes.map(|inode| there.contains(&inode)), [false, false, true, false]);
        drop(kept);
    }

    #[test]
    fn a_datagram_counts_until_it_is_read() {
        let (a, b) = UnixDatagram::pair().unwrap();
        assert_eq!(not_taken(&a), Some(0));
        a.send(&[1; 100]).unwrap();
        assert!(not_taken(&a).unwrap() >= 100);
        b.recv(&mut [0; 200]).unwrap();
        assert_eq!(not_taken(&a), Some(0));
    }

    #[test]
    fn unix_peers_know_each_other() {
        let inode = |fd: &dyn AsRawFd| {
            // SAFETY: borrowed for this call from a socket that lives longer.
            let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(fd.as_raw_fd()) };
            rustix::fs::fstat(fd).unwrap().st_ino
        };
        let (a, b) = UnixStream::pair().unwrap();
        assert_eq!(unix_peer(inode(&a)), Some(inode(&b)));
        let dir = std::env::temp_dir().join(format!("cf-peer-{}", std::process::id()));
        let _ = std::fs::remove_file(&dir);
        let listener = UnixListener::bind(&dir).unwrap();
        let client = UnixStream::connect(&dir).unwrap();
        let (server, _) = listener.accept().unwrap();
        let _ = std::fs::remove_file(&dir);
        assert_eq!(unix_peer(inode(&server)), Some(inode(&client)));
        assert_eq!(unix_peer(inode(&client)), Some(inode(&server)));
        assert_eq!(unix_peer(inode(&listener)), None);
    }
}
