//! Sockets that others send to: syslog over Unix datagrams, UDP and TCP; JSON Lines over Unix streams and TCP.
//!
//! Comes in: an address. Goes out: batches. One thread polls the socket and all its connections; who connects beyond
//! [`MOST`], says nothing for long, or sends what can't be told apart is closed.
#![forbid(unsafe_code)]

use super::frames::{Frame, Frames, Kind};
use super::report::Around;
use super::{AGAIN, Door, LONGEST, LOOK, Word, syslog};
use crate::config::SyslogAddress;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Connections at once.
const MOST: usize = 256;
/// How long a connection may be silent while others wait for a place.
const SILENCE: Duration = Duration::from_secs(3600);

enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpListener),
    Stream(UnixListener),
}

trait Line: Read + AsFd {}
impl Line for TcpStream {}
impl Line for UnixStream {}

struct Connection {
    line: Box<dyn Line>,
    frames: Frames,
    last: Instant,
}

pub(super) fn run(address: &SyslogAddress, kind: Kind, mut door: Door) {
    while !door.is_over() {
        match Socket::open(address, kind) {
            Ok(socket) => {
                door.well();
                serve(&socket, kind, &mut door);
            }
            Err(e) => door.lost(&format!("can't listen on {address}: {e}")),
        }
        door.sleep(AGAIN);
    }
    if let SyslogAddress::Unix(path) = address {
        let _ = std::fs::remove_file(path);
    }
}

impl Socket {
    fn open(address: &SyslogAddress, kind: Kind) -> io::Result<Self> {
        let socket = match (address, kind) {
            (SyslogAddress::Unix(path), Kind::Syslog) => {
                clear(path)?;
                Self::Unix(UnixDatagram::bind(path)?)
            }
            (SyslogAddress::Unix(path), Kind::Lines) => {
                clear(path)?;
                Self::Stream(UnixListener::bind(path)?)
            }
            (SyslogAddress::Udp(to), _) => Self::Udp(UdpSocket::bind(to.as_str())?),
            (SyslogAddress::Tcp(to), _) => Self::Tcp(TcpListener::bind(to.as_str())?),
            (SyslogAddress::Tls(_), _) => return Err(io::Error::other("nothing can listen there")),
        };
        if let SyslogAddress::Unix(path) = address {
            // The group of its folder decides who may report an alarm; nobody else can.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        }
        match &socket {
            Self::Unix(s) => s.set_nonblocking(true)?,
            Self::Udp(s) => s.set_nonblocking(true)?,
            Self::Tcp(s) => s.set_nonblocking(true)?,
            Self::Stream(s) => s.set_nonblocking(true)?,
        }
        Ok(socket)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(s) => s.as_fd(),
            Self::Udp(s) => s.as_fd(),
            Self::Tcp(s) => s.as_fd(),
            Self::Stream(s) => s.as_fd(),
        }
    }

    fn accept(&self) -> io::Result<Box<dyn Line>> {
        Ok(match self {
            Self::Tcp(s) => {
                let (line, _) = s.accept()?;
                line.set_nonblocking(true)?;
                Box::new(line)
            }
            Self::Stream(s) => {
                let (line, _) = s.accept()?;
                line.set_nonblocking(true)?;
                Box::new(line)
            }
            Self::Unix(_) | Self::Udp(_) => return Err(io::ErrorKind::WouldBlock.into()),
        })
    }

    fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(s) => s.recv(into),
            Self::Udp(s) => s.recv(into),
            Self::Tcp(_) | Self::Stream(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// Takes away a socket that an earlier daemon left; nothing else.
fn clear(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() && UnixStream::connect(path).is_err() => {
            std::fs::remove_file(path)
        }
        _ => Ok(()),
    }
}

fn serve(socket: &Socket, kind: Kind, door: &mut Door) {
    let mut connections: Vec<Connection> = Vec::new();
    let mut buffer = vec![0; LONGEST + 1];
    while !door.is_over() {
        let mut ready: Vec<bool> = {
            let mut fds = vec![PollFd::from_borrowed_fd(socket.fd(), PollFlags::IN)];
            fds.extend(connections.iter().map(|c| PollFd::from_borrowed_fd(c.line.as_fd(), PollFlags::IN)));
            let wait = Timespec::try_from(LOOK).ok();
            match poll(&mut fds, wait.as_ref()) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => fds.iter().map(|fd| !fd.revents().is_empty()).collect(),
                Err(e) => return door.lost(&e.to_string()),
            }
        };
        let mut words = Vec::new();
        let mut at = 0;
        let at_door = ready.remove(0);
        connections.retain_mut(|connection| {
            at += 1;
            !ready[at - 1] || hear(connection, kind, &mut buffer, door, &mut words)
        });
        if at_door {
            datagrams(socket, kind, &mut buffer, door, &mut words);
            newcomers(socket, kind, &mut connections);
        }
        if !words.is_empty() && !door.hand(words, None, None) {
            return;
        }
    }
}

fn newcomers(socket: &Socket, kind: Kind, connections: &mut Vec<Connection>) {
    for _ in 0..MOST {
        let Ok(line) = socket.accept() else { return };
        if connections.len() >= MOST {
            connections.retain(|c| c.last.elapsed() < SILENCE);
        }
        if connections.len() < MOST {
            connections.push(Connection { line, frames: Frames::new(kind), last: Instant::now() });
        }
    }
}

fn datagrams(socket: &Socket, kind: Kind, buffer: &mut [u8], door: &mut Door, words: &mut Vec<Word>) {
    // Bounded: alarms are handed on before more of them are read.
    for _ in 0..256 {
        match socket.receive(buffer) {
            Ok(n) if n > LONGEST => door.refuse("it is longer than 64 KiB"),
            Ok(n) => words.extend(message(kind, buffer[..n].trim_ascii_end(), door)),
            Err(_) => return,
        }
    }
}

/// Reads what a connection sent. False: it is over.
fn hear(
    connection: &mut Connection,
    kind: Kind,
    buffer: &mut [u8],
    door: &mut Door,
    words: &mut Vec<Word>,
) -> bool {
    let (n, goes_on) = match connection.line.read(buffer) {
        Ok(0) => (0, false),
        Ok(n) => (n, true),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return true,
        Err(_) => (0, false),
    };
    connection.last = Instant::now();
    let mut each = |frame: Frame<'_>| match frame {
        Frame::Message(bytes) => words.extend(message(kind, bytes, door)),
        Frame::TooLong => door.refuse("it is longer than 64 KiB"),
    };
    let mut good = connection.frames.take(&buffer[..n], &mut each);
    if !goes_on {
        connection.frames.end(&mut each);
        good = false;
    }
    good
}

fn message(kind: Kind, bytes: &[u8], door: &mut Door) -> Option<Word> {
    match kind {
        Kind::Lines => door.parse(bytes, Around::default()),
        Kind::Syslog => match syslog::parse(bytes) {
            Ok(object) => door.read(&object, Around::default()),
            Err(why) => {
                door.refuse(why);
                None
            }
        },
    }
}
