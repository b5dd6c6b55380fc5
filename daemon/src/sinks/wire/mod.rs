//! The ways a line can take: Unix datagram, UDP, TCP, TLS, a file.
//!
//! Comes in: one line. Goes out: one datagram, one frame, or one line of a file; and, as far as protocol and kernel say
//! it, how many lines the receiver has taken. Called by `post`, which keeps each line until it is taken.
#![forbid(unsafe_code)]

mod file;
mod receiver;
mod stream;
pub(super) mod tls;
mod udp;
mod unix;

pub(super) use file::Appended;

use crate::config::{SyslogAddress, Tls};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

/// Attempts at a connection take this long at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// One way to one receiver.
pub(super) trait Wire: Send {
    /// How many lines may be under way at once.
    fn window(&self) -> usize;

    /// The receiver is on this host: what it has taken is known soon.
    fn here(&self) -> bool {
        false
    }

    /// Hands a line over, which is then under way. Never waits for a receiver that is slow.
    ///
    /// # Errors
    /// The line was not handed over. `WouldBlock`: the receiver is behind. Else the way is broken: ask
    /// [`taken`](Self::taken) a last time; what it doesn't count has to go again.
    fn send(&mut self, line: &[u8]) -> io::Result<()>;

    /// How many more of the oldest lines under way are known to have been taken; and whether the way still stands.
    fn taken(&mut self) -> (usize, io::Result<()>);

    /// No further lines come: as far as the protocol has a word for that, it is said, once. Called until all is taken.
    fn ending(&mut self) {}
}

/// The way to `address`; it is connected when first used.
pub(super) fn open(address: &SyslogAddress, tls: &Tls) -> Box<dyn Wire> {
    match address {
        SyslogAddress::Unix(path) => datagrams(path),
        SyslogAddress::Udp(to) => Box::new(udp::Udp::to(to)),
        SyslogAddress::Tcp(to) => Box::new(stream::Stream::plain(to)),
        SyslogAddress::Tls(to) => Box::new(stream::Stream::tls(to, tls)),
    }
}

/// The way to a Unix datagram socket.
pub(super) fn datagrams(path: &Path) -> Box<dyn Wire> {
    Box::new(unix::Unix::to(path))
}

fn resolve(host_port: &str) -> io::Result<SocketAddr> {
    host_port.to_socket_addrs()?.next().ok_or_else(|| io::Error::other(format!("{host_port} has no address")))
}
