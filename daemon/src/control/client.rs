//! The commands' side of the control socket.
#![forbid(unsafe_code)]

use super::wire::{REPLY, read, write};
use super::{Reply, Request, server};
use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longer than the daemon waits for its disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon that answers.
pub struct Client(BufReader<UnixStream>);

/// What came of looking for one.
pub enum Found {
    /// It answers.
    Daemon(Client),
    /// Nobody listens.
    Nobody,
    /// Somebody may, and we may not ask.
    Forbidden(io::Error),
}

/// Looks for the daemon of a state directory.
#[must_use]
pub fn of_state(state: &Path) -> Found {
    connect(&server::of_state(state))
}

/// Looks for the daemon that has its own socket at `socket`.
#[must_use]
pub fn of_socket(socket: &Path) -> Found {
    connect(&server::path(socket))
}

fn connect(path: &Path) -> Found {
    let connected = UnixStream::connect(path).and_then(|stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    });
    match connected {
        Ok(stream) => Found::Daemon(Client(BufReader::new(stream))),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Found::Nobody
        }
        Err(e) => Found::Forbidden(e),
    }
}

impl Client {
    /// Asks, and gives the replies but for the last to `each` until it says false. The last is the result.
    ///
    /// # Errors
    /// The daemon has gone.
    pub fn ask(&mut self, request: &Request, mut each: impl FnMut(Reply) -> bool) -> io::Result<Reply> {
        write(&mut self.0.get_ref(), request)?;
        loop {
            let reply = read::<Reply>(&mut self.0, REPLY)?;
            match reply.ok_or_else(|| io::Error::other("the daemon ended before it had answered"))? {
                last @ (Reply::End(_) | Reply::Refused(_) | Reply::Failed(_)) => return Ok(last),
                reply if each(reply.clone()) => {}
                _ => return Ok(Reply::End(0)),
            }
        }
    }
}
