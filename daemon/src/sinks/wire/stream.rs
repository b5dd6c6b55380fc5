//! Lines as frames with their length before them (RFC 6587, octet counting), over TCP or TLS (RFC 5425).
//!
//! No receiver of syslog says what it has. What can be known is used, so that a line goes again only where it may be
//! missing:
//! * our kernel knows what the other one has acknowledged;
//! * a kernel closes with FIN only what its program has read to the end (RFC 1122, 4.2.2.13; unread bytes give RST): at a
//!   FIN, all that was acknowledged was read (over TLS that says less: a library that closes reads on, and throws away);
//! * where the receiver is on this host, its kernel is ours and says what was read.
//!
//! Without any of these a line counts as taken [`SETTLED`] after it was acknowledged.
#![forbid(unsafe_code)]

use super::receiver::Receiver;
use super::{PATIENCE, Wire, resolve, tls};
use crate::config::Tls;
use crate::host::kernel::not_taken;
use rustix::net::sockopt;
use rustls::ClientConnection;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// After so long without a reset, what was acknowledged was read, too.
const SETTLED: Duration = Duration::from_secs(2);
/// With TLS 1.3 a client learns only after its first lines that its certificate is refused.
const REFUSAL: Duration = Duration::from_secs(1);
/// Lines under way to a receiver on this host, and to one elsewhere.
const WINDOW_HERE: usize = 16;
const WINDOW: usize = 8192;

pub(super) struct Stream {
    to: String,
    tls: Option<Tls>,
    link: Option<Link>,
}

impl Stream {
    pub(super) fn plain(to: &str) -> Self {
        Self { to: to.to_owned(), tls: None, link: None }
    }

    pub(super) fn tls(to: &str, tls: &Tls) -> Self {
        Self { to: to.to_owned(), tls: Some(tls.clone()), link: None }
    }

    fn connect(&self) -> io::Result<Link> {
        let mut tcp = TcpStream::connect_timeout(&resolve(&self.to)?, PATIENCE)?;
        tcp.set_nodelay(true)?;
        // A receiver that is gone without a word is noticed.
        sockopt::set_socket_keepalive(&tcp, true)?;
        sockopt::set_tcp_keepidle(&tcp, Duration::from_secs(30))?;
        sockopt::set_tcp_keepintvl(&tcp, Duration::from_secs(10))?;
        sockopt::set_tcp_keepcnt(&tcp, 3)?;
        sockopt::set_tcp_user_timeout(&tcp, 60_000)?;
        let session = match &self.tls {
            None => None,
            Some(tls) => {
                let host = self.to.rsplit_once(':').map_or(self.to.as_str(), |(host, _)| host);
                let mut session = tls::connection(tls, host).map_err(io::Error::other)?;
                tcp.set_read_timeout(Some(PATIENCE))?;
                tcp.set_write_timeout(Some(PATIENCE))?;
                session.complete_io(&mut tcp).map_err(|e| match e.kind() {
                    io::ErrorKind::WouldBlock => io::Error::other("no answer to the TLS handshake"),
                    _ => e,
                })?;
                Some(Box::new(session))
            }
        };
        tcp.set_nonblocking(true)?;
        let receiver = Receiver::tcp(tcp.peer_addr()?, tcp.local_addr()?);
        Ok(Link {
            tcp,
            session,
            receiver,
            since: Instant::now(),
            unwritten: VecDeque::new(),
            queued: 0,
            lines: VecDeque::new(),
            closing: None,
            ended: false,
        })
    }
}

impl Wire for Stream {
    fn window(&self) -> usize {
        if self.here() { WINDOW_HERE } else { WINDOW }
    }

    fn here(&self) -> bool {
        self.link.as_ref().is_some_and(|l| l.receiver.is_some())
    }

    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        if self.link.is_none() {
            self.link = Some(self.connect()?);
        }
        self.link.as_mut().map_or(Ok(()), |link| link.send(line))
    }

    fn taken(&mut self) -> (usize, io::Result<()>) {
        let Some(link) = &mut self.link else { return (0, Ok(())) };
        let (taken, stands) = link.taken();
        if stands.is_err() {
            self.link = None;
        }
        (taken, stands)
    }

    fn ending(&mut self) {
        if let Some(link) = &mut self.link {
            link.ending();
        }
    }
}

/// A connection.
struct Link {
    tcp: TcpStream,
    session: Option<Box<ClientConnection>>,
    /// The other end, where it is on this host.
    receiver: Option<Receiver>,
    since: Instant,
    /// Bytes that our kernel has not taken yet.
    unwritten: VecDeque<u8>,
    /// Bytes of all frames, as they cross TCP.
    queued: u64,
    lines: VecDeque<Line>,
    /// The receiver has said that it closes.
    closing: Option<Instant>,
    /// We have said that no more comes.
    ended: bool,
}

/// A line under way.
struct Line {
    /// Where its frame ends, of `queued`.
    end: u64,
    acknowledged: Option<Instant>,
}

/// What the receiver has said.
enum Heard {
    Nothing,
    /// It has read everything up to here, and closed.
    End,
    Broken(io::Error),
}

impl Link {
    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        self.flush()?;
        if !self.unwritten.is_empty() || self.closing.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut frame = format!("{} ", line.len()).into_bytes();
        frame.extend_from_slice(line);
        if let Some(session) = &mut self.session {
            let mut sealed = Vec::with_capacity(frame.len() + 64);
            session.writer().write_all(&frame)?;
            while session.wants_write() {
                session.write_tls(&mut sealed)?;
            }
            frame = sealed;
        }
        self.queued += frame.len() as u64;
        self.unwritten.extend(frame);
        self.lines.push_back(Line { end: self.queued, acknowledged: None });
        // It is under way now, whatever becomes of it.
        let _ = self.flush();
        Ok(())
    }

    /// Bytes that the other kernel has. Also after a close, as ours keeps these numbers.
    fn acknowledged(&self) -> u64 {
        // None: say nothing rather than too much.
        not_taken(&self.tcp)
            .and_then(|rest| self.queued.checked_sub(self.unwritten.len() as u64)?.checked_sub(rest))
            .unwrap_or(0)
    }

    fn refusable(&self) -> bool {
        self.session.is_some() && self.since.elapsed() < REFUSAL
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.unwritten.is_empty() {
            match self.tcp.write(self.unwritten.make_contiguous()) {
                Ok(n) => drop(self.unwritten.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn taken(&mut self) -> (usize, io::Result<()>) {
        // A failure to write shows below, too, and there it says more.
        let _ = self.flush();
        let acknowledged = self.acknowledged();
        let unread = self.receiver.as_ref().map(Receiver::unread);
        // After those: whoever takes leave with close_notify may read what is left only to throw it away.
        let heard = self.hear();
        let now = Instant::now();
        for line in self.lines.iter_mut().filter(|l| l.end <= acknowledged && l.acknowledged.is_none()) {
            line.acknowledged = Some(now);
        }
        let refusable = self.refusable();
        let read = match (&heard, unread) {
            _ if refusable || (self.closing.is_some() && !self.ended) => 0,
            // To who has taken leave first, an answer says that all before was read.
            (Heard::End, _) if self.session.is_none() || self.ended => self.acknowledged(),
            (Heard::Nothing, Some(Some(unread))) => acknowledged.saturating_sub(unread),
            _ => 0,
        };
        let here = self.receiver.is_some();
        let settled = |l: &Line| !here && !refusable && l.acknowledged.is_some_and(|t| now - t >= SETTLED);
        let taken = self.lines.iter().take_while(|l| l.end <= read || settled(l)).count();
        self.lines.drain(..taken);
        let stands = match heard {
            Heard::Nothing => Ok(()),
            Heard::End => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "it has closed the connection"))
            }
            Heard::Broken(e) => Err(e),
        };
        (taken, stands)
    }

    /// A receiver of syslog never speaks, but TLS does, and every connection ends.
    fn hear(&mut self) -> Heard {
        loop {
            let read = match &mut self.session {
                // After close_notify only the connection's end is of interest.
                Some(session) if self.closing.is_none() => session.read_tls(&mut self.tcp),
                _ => (&self.tcp).read(&mut [0; 512]),
            };
            match read {
                Ok(0) => return Heard::End,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Heard::Broken(e),
            }
            if let Some(session) = &mut self.session
                && self.closing.is_none()
            {
                match session.process_new_packets() {
                    Ok(state) if state.peer_has_closed() => self.closing = Some(Instant::now()),
                    Ok(state) => {
                        let mut junk = vec![0; state.plaintext_bytes_to_read()];
                        let _ = session.reader().read(&mut junk);
                    }
                    Err(e) => return Heard::Broken(io::Error::other(e)),
                }
            }
        }
        match self.closing {
            Some(since) if since.elapsed() > PATIENCE => {
                Heard::Broken(io::ErrorKind::ConnectionAborted.into())
            }
            _ => Heard::Nothing,
        }
    }

    fn ending(&mut self) {
        // While we may still be refused, the answer to this could be a refusal as well.
        if self.refusable() || self.closing.is_some() || std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(session) = &mut self.session {
            session.send_close_notify();
            let mut sealed = Vec::new();
            while session.wants_write() && session.write_tls(&mut sealed).is_ok() {}
            self.queued += sealed.len() as u64;
            self.unwritten.extend(sealed);
        }
        let _ = self.flush();
        if self.unwritten.is_empty() {
            // A receiver that reads on to the end closes then, and so says that it has all.
            let _ = self.tcp.shutdown(std::net::Shutdown::Write);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A connection to a receiver of which nothing is known but what it says: as if it were elsewhere.
    fn elsewhere() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = Stream::plain(&listener.local_addr().unwrap().to_string());
        let mut link = stream.connect().unwrap();
        link.receiver = None;
        stream.link = Some(link);
        (stream, listener.accept().unwrap().0)
    }

    fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < end, "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_orderly_close_says_what_was_read() {
        let (mut stream, mut receiver) = elsewhere();
        stream.send(b"one").unwrap();
        stream.send(b"two").unwrap();
        let mut read = [0; 10];
        receiver.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"3 one3 two");
        assert_eq!(stream.taken().0, 0, "acknowledged is not read");
        drop(receiver);
        let (taken, stands) = until("the close", || Some(stream.taken()).filter(|(_, s)| s.is_err()));
        assert_eq!((taken, stands.is_err()), (2, true));
    }

    #[test]
    fn a_reset_leaves_in_doubt_what_is_young() {
        let (mut stream, mut receiver) = elsewhere();
        stream.send(b"one").unwrap();
        receiver.read_exact(&mut [0; 5]).unwrap();
        stream.send(b"two").unwrap();
        until("the second line", || (receiver.peek(&mut [0; 5]).unwrap() == 5).then_some(()));
        // Unread bytes: the kernel resets.
        drop(receiver);
        let (taken, _) = until("the reset", || Some(stream.taken()).filter(|(_, s)| s.is_err()));
        assert_eq!(taken, 0);
    }

    #[test]
    fn what_is_old_enough_was_read_and_a_farewell_is_answered() {
        let (mut stream, mut receiver) = elsewhere();
        stream.send(b"one").unwrap();
        until("its time", || (stream.taken().0 == 1).then_some(()));
        stream.send(b"two").unwrap();
        stream.ending();
        let mut all = Vec::new();
        receiver.read_to_end(&mut all).unwrap();
        drop(receiver);
        assert_eq!(until("the answer", || Some(stream.taken()).filter(|(_, s)| s.is_err())).0, 1);
    }

    #[test]
    fn a_receiver_that_reads_nothing_breaks_nothing() {
        let (mut stream, receiver) = elsewhere();
        let line = [b'x'; 2000];
        let mut sent = 0;
        let e = loop {
            match stream.send(&line) {
                Ok(()) => sent += 1,
                Err(e) => break e,
            }
            assert!(sent < 100_000);
        };
        assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
        assert!(stream.taken().1.is_ok(), "it stands");
        // It wakes up: everything is there, whole.
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            (&receiver).read_to_end(&mut all).unwrap();
            all
        });
        until("the rest", || {
            let _ = stream.taken();
            stream.link.as_ref().unwrap().unwritten.is_empty().then_some(())
        });
        stream.ending();
        let all = reader.join().unwrap();
        assert_eq!(all.len(), sent * 2005);
        assert!(all.chunks(2005).all(|c| c.starts_with(b"2000 xx")));
    }
}
