//! Lines as datagrams to a Unix socket: `/dev/log`, journald's.
//!
//! One line is under way at a time, as the kernel says when the receiver has read all that it was sent: a receiver that
//! stops with lines unread gets them again from where it stopped, and none twice.
#![forbid(unsafe_code)]

use super::Wire;
use crate::host::kernel::{not_taken, unix_peer};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

pub(super) struct Unix {
    path: PathBuf,
    socket: Option<Socket>,
    under_way: bool,
}

struct Socket {
    socket: UnixDatagram,
    inode: u64,
    /// The kernel tells who is at the other end, and so that nobody is any more.
    told: bool,
}

impl Unix {
    pub(super) fn to(path: &Path) -> Self {
        Self { path: path.to_owned(), socket: None, under_way: false }
    }

    fn connect(&self) -> io::Result<Socket> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(&self.path)?;
        let inode = rustix::fs::fstat(&socket)?.st_ino;
        Ok(Socket { socket, inode, told: unix_peer(inode).is_some() })
    }
}

impl Socket {
    fn unread(&self) -> bool {
        not_taken(&self.socket).is_some_and(|bytes| bytes > 0)
    }

    fn alive(&self) -> bool {
        !self.told || unix_peer(self.inode).is_some()
    }
}

impl Wire for Unix {
    fn window(&self) -> usize {
        1
    }

    fn here(&self) -> bool {
        true
    }

    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        // A receiver that was started anew has a new socket at the same path: once again, then.
        for last in [false, true] {
            let socket = match &self.socket {
                Some(socket) => socket,
                None => self.socket.insert(self.connect()?),
            };
            match socket.socket.send(line) {
                Ok(_) => {
                    self.under_way = true;
                    return Ok(());
                }
                // Its queue is full.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(e),
                Err(e) => {
                    self.socket = None;
                    if last {
                        return Err(e);
                    }
                }
            }
        }
        unreachable!("the second turn returns")
    }

    fn taken(&mut self) -> (usize, io::Result<()>) {
        let Some(socket) = self.socket.as_ref().filter(|_| self.under_way) else { return (0, Ok(())) };
        // In this order: what a closed socket held counts as read, too.
        let (unread, alive) = (socket.unread(), socket.alive());
        if !alive {
            (self.socket, self.under_way) = (None, false);
            return (0, Err(io::ErrorKind::ConnectionRefused.into()));
        }
        if unread {
            return (0, Ok(()));
        }
        self.under_way = false;
        (1, Ok(()))
    }
}
