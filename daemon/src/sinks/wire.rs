//! The ways a syslog line can take: Unix datagram, UDP, TCP.
//!
//! Comes in: one line. Goes out: one datagram, or one frame with its length before it (RFC 6587,
//! octet counting). An error says that this line did not go; the next call begins anew.
#![forbid(unsafe_code)]

use crate::config::SyslogAddress;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

/// A connection attempt, and a write, take this long at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// One way to one receiver.
pub(super) trait Wire: Send {
    /// Sends one line.
    fn send(&mut self, line: &[u8]) -> io::Result<()>;
}

/// The way to `address`; it is connected when first used.
pub(super) fn open(address: &SyslogAddress) -> Box<dyn Wire> {
    match address {
        SyslogAddress::Unix(path) => Box::new(Unix { path: path.clone(), socket: None }),
        SyslogAddress::Udp(to) => Box::new(Udp { to: to.clone(), socket: None }),
        SyslogAddress::Tcp(to) => Box::new(Tcp { to: to.clone(), stream: None }),
    }
}

struct Unix {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Wire for Unix {
    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        // A syslog daemon that was restarted has a new socket at the same path: once again, then.
        for last in [false, true] {
            let socket = match &self.socket {
                Some(socket) => socket,
                None => {
                    let socket = UnixDatagram::unbound()?;
                    // Its queue may be full; waiting a little beats losing the line.
                    socket.set_write_timeout(Some(PATIENCE))?;
                    socket.connect(&self.path)?;
                    self.socket.insert(socket)
                }
            };
            match socket.send(line) {
                Ok(_) => return Ok(()),
                Err(e) => {
                    self.socket = None;
                    if last || matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
                        return Err(e);
                    }
                }
            }
        }
        unreachable!("the second turn returns")
    }
}

struct Udp {
    to: String,
    socket: Option<UdpSocket>,
}

impl Wire for Udp {
    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => {
                let to = resolve(&self.to)?;
                let any: SocketAddr =
                    if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
                let socket = UdpSocket::bind(any)?;
                // Connected, so that an ICMP "nobody there" comes back as an error.
                socket.connect(to)?;
                self.socket.insert(socket)
            }
        };
        socket.send(line).map(drop).inspect_err(|_| self.socket = None)
    }
}

struct Tcp {
    to: String,
    stream: Option<TcpStream>,
}

impl Tcp {
    fn stream(&mut self) -> io::Result<&mut TcpStream> {
        // A receiver never speaks; if it can be read, it has closed. Without this the first line
        // after that would be lost: its write succeeds.
        if self.stream.as_ref().is_some_and(closed) {
            self.stream = None;
        }
        match &mut self.stream {
            Some(stream) => Ok(stream),
            none => {
                let stream = TcpStream::connect_timeout(&resolve(&self.to)?, PATIENCE)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                Ok(none.insert(stream))
            }
        }
    }
}

fn closed(mut stream: &TcpStream) -> bool {
    let mut junk = [0; 256];
    if stream.set_nonblocking(true).is_err() {
        return true;
    }
    let gone = match stream.read(&mut junk) {
        Ok(0) => true,
        Ok(_) => false,
        Err(e) => e.kind() != io::ErrorKind::WouldBlock,
    };
    gone || stream.set_nonblocking(false).is_err()
}

impl Wire for Tcp {
    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        let mut frame = format!("{} ", line.len()).into_bytes();
        frame.extend_from_slice(line);
        let sent = self.stream().and_then(|s| s.write_all(&frame));
        // A frame may have gone in part: only a new connection has a sound beginning.
        sent.inspect_err(|_| self.stream = None)
    }
}

fn resolve(host_port: &str) -> io::Result<SocketAddr> {
    host_port.to_socket_addrs()?.next().ok_or_else(|| io::Error::other(format!("{host_port} has no address")))
}
