//! Lines as UDP datagrams (RFC 5426), of which nobody says whether they arrive.
//!
//! What can be known is used: a refusal (ICMP), and, where the receiver is on this host, whether it has read.
#![forbid(unsafe_code)]

use super::receiver::Receiver;
use super::{Wire, resolve};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// For so long a refusal may still come back.
const REFUSAL: Duration = Duration::from_millis(50);
/// For so long a receiver on this host may leave a line unread (others send to it, too).
const UNREAD: Duration = Duration::from_secs(1);

pub(super) struct Udp {
    to: String,
    socket: Option<Socket>,
    sent: Option<Instant>,
}

struct Socket {
    socket: UdpSocket,
    /// It is on this host.
    receiver: Option<Receiver>,
}

impl Udp {
    pub(super) fn to(to: &str) -> Self {
        Self { to: to.to_owned(), socket: None, sent: None }
    }

    fn connect(&self) -> io::Result<Socket> {
        let to = resolve(&self.to)?;
        let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        // Connected, so that a refusal comes back as an error.
        socket.connect(to)?;
        let receiver = Receiver::udp(to, socket.local_addr()?);
        Ok(Socket { socket, receiver })
    }
}

impl Wire for Udp {
    fn window(&self) -> usize {
        1
    }

    fn here(&self) -> bool {
        self.socket.as_ref().is_some_and(|s| s.receiver.is_some())
    }

    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => self.socket.insert(self.connect()?),
        };
        // On this host a refusal comes back at once.
        let sent = socket.socket.send(line).and_then(|_| socket.socket.take_error()?.map_or(Ok(()), Err));
        match sent {
            Ok(()) => {
                self.sent = Some(Instant::now());
                Ok(())
            }
            Err(e) => {
                if e.kind() != io::ErrorKind::WouldBlock {
                    self.socket = None;
                }
                Err(e)
            }
        }
    }

    fn taken(&mut self) -> (usize, io::Result<()>) {
        let (Some(socket), Some(sent)) = (&self.socket, self.sent) else { return (0, Ok(())) };
        let gone = match socket.socket.take_error() {
            Ok(None) => None,
            Ok(Some(e)) | Err(e) => Some(e),
        };
        let (taken, gone) = match (&socket.receiver, gone) {
            (_, Some(e)) => (false, Some(e)),
            (None, None) => (sent.elapsed() >= REFUSAL, None),
            (Some(receiver), None) => match receiver.unread() {
                Some(bytes) => (bytes == 0 || sent.elapsed() >= UNREAD, None),
                None => (false, Some(io::ErrorKind::ConnectionRefused.into())),
            },
        };
        if taken || gone.is_some() {
            self.sent = None;
        }
        if gone.is_some() {
            self.socket = None;
        }
        (usize::from(taken), gone.map_or(Ok(()), Err))
    }
}
