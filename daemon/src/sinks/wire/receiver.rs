//! A receiver on this host, whose kernel is ours and knows what its program has read.
//!
//! Comes in: the two addresses. Goes out: bytes unread. Called by `udp` and `stream`.
#![forbid(unsafe_code)]

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// The receiver's socket, if it is on this host and in this network namespace.
pub(super) struct Receiver {
    netlink: OwnedFd,
    request: Vec<u8>,
}

// include/uapi/linux/{netlink,sock_diag,inet_diag}.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const HEADER: usize = 16;
const REQUEST: usize = 56;
/// `idiag_rqueue` in the answer: behind the header, four bytes, the addresses (48) and `idiag_expires`.
const RQUEUE: usize = HEADER + 4 + 48 + 4;

impl Receiver {
    /// Of a connection from `ours` to `theirs`.
    pub(super) fn tcp(theirs: SocketAddr, ours: SocketAddr) -> Option<Self> {
        Self::find(libc::IPPROTO_TCP, theirs, ours)
    }

    /// Of datagrams from `ours` to `theirs`.
    pub(super) fn udp(theirs: SocketAddr, ours: SocketAddr) -> Option<Self> {
        // The kernel takes a datagram's two addresses the other way round, "for historical reasons" (udp_diag.c).
        Self::find(libc::IPPROTO_UDP, ours, theirs)
    }

    fn find(protocol: libc::c_int, source: SocketAddr, destination: SocketAddr) -> Option<Self> {
        let (source_ip, destination_ip) = (source.ip().to_canonical(), destination.ip().to_canonical());
        let family = if source_ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let ip = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => [&v4.octets()[..], &[0; 12]].concat(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let mut request = Vec::with_capacity(HEADER + REQUEST);
        request.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
        request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        request.extend(NLM_F_REQUEST.to_ne_bytes());
        request.extend([0; 8]);
        request.extend([family as u8, protocol as u8, 0, 0]);
        request.extend(u32::MAX.to_ne_bytes());
        request.extend(source.port().to_be_bytes());
        request.extend(destination.port().to_be_bytes());
        request.extend(ip(source_ip));
        request.extend(ip(destination_ip));
        // Any interface, no cookie.
        request.extend([0; 4]);
        request.extend([0xff; 8]);
        let netlink = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )
        .ok()?;
        let found = Self { netlink, request };
        found.unread().is_some().then_some(found)
    }

    /// Bytes that its program has not read. None: it is there no more.
    pub(super) fn unread(&self) -> Option<u64> {
        rustix::net::send(&self.netlink, &self.request, SendFlags::empty()).ok()?;
        let mut answer = [0u8; 512];
        let (got, _) = rustix::net::recv(&self.netlink, &mut answer, RecvFlags::DONTWAIT).ok()?;
        let answer = answer.get(..got)?;
        let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
        let bytes = u32::from_ne_bytes(answer.get(RQUEUE..RQUEUE + 4)?.try_into().ok()?);
        (kind == SOCK_DIAG_BY_FAMILY).then_some(u64::from(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn what_a_receiver_here_has_not_read_is_known() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(bind).unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            let receiver =
                Receiver::tcp(client.peer_addr().unwrap(), client.local_addr().unwrap()).expect("it is here");
            client.write_all(&[1; 100]).unwrap();
            assert_eq!(receiver.unread(), Some(100), "{bind}");
            server.read_exact(&mut [0; 60]).unwrap();
            assert_eq!(receiver.unread(), Some(40), "{bind}");

            let server = UdpSocket::bind(bind).unwrap();
            let client = UdpSocket::bind(bind).unwrap();
            client.connect(server.local_addr().unwrap()).unwrap();
            let receiver = Receiver::udp(server.local_addr().unwrap(), client.local_addr().unwrap());
            let Some(receiver) = receiver else {
                eprintln!("skipped: this kernel has no udp_diag");
                continue;
            };
            client.send(&[1; 100]).unwrap();
            assert!(receiver.unread() > Some(0), "{bind}");
            server.recv(&mut [0; 200]).unwrap();
            assert_eq!(receiver.unread(), Some(0), "{bind}");
            drop(server);
            assert_eq!(receiver.unread(), None, "{bind}");
        }
    }
}
