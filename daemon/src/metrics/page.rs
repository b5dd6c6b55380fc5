//! The page of metrics: HTTP on a loopback address.
//!
//! Comes in: `GET /metrics`. Goes out: OpenMetrics text. One client at a time, a request of 8 KiB at most, two seconds for all
//! of it: whoever can reach the port can keep others from the page, and nothing else waits for it.
#![forbid(unsafe_code)]

use super::Metrics;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest request.
const REQUEST: usize = 8 << 10;
/// For all of one client.
const PATIENCE: Duration = Duration::from_secs(2);
/// OpenMetrics 1.0, as its specification wants it said.
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The page, while it is not dropped.
pub struct Page {
    listener: Arc<TcpListener>,
    thread: Option<JoinHandle<()>>,
}

impl Page {
    /// Answers at `address` from now on.
    ///
    /// # Errors
    /// The address can't be had, or no thread.
    pub fn open(address: SocketAddr, metrics: Metrics) -> io::Result<Self> {
        let listener = Arc::new(TcpListener::bind(address)?);
        let here = Arc::clone(&listener);
        let thread =
            std::thread::Builder::new().name("metrics".into()).spawn(move || serve(&here, &metrics))?;
        Ok(Self { listener, thread: Some(thread) })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Wakes accept(2) with EINVAL.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, metrics: &Metrics) {
    loop {
        match listener.accept() {
            Ok((client, _)) => drop(answer(client, metrics)),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EBADF)) => return,
            // No descriptor left, or the client is gone already.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn answer(mut client: TcpStream, metrics: &Metrics) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    client.set_write_timeout(Some(PATIENCE))?;
    let (status, kind, body) = match request(&mut client, end)?.as_deref() {
        Some("/metrics" | "/") => ("200 OK", TYPE, metrics.text()),
        Some(_) => ("404 Not Found", "text/plain", "the page is /metrics\n".into()),
        None => ("400 Bad Request", "text/plain", "GET /metrics\n".into()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes())?;
    client.write_all(body.as_bytes())?;
    client.shutdown(std::net::Shutdown::Write)?;
    // Until it has read all: bytes unread by us would cut it off.
    client.set_read_timeout(Some(Duration::from_millis(200)))?;
    let _ = client.read(&mut [0; 512]);
    Ok(())
}

/// The path that is asked for, without its query. None: that is no GET.
fn request(client: &mut TcpStream, end: Instant) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        client.set_read_timeout(Some(left))?;
        let mut more = [0; 1024];
        let n = client.read(&mut more)?;
        bytes.extend_from_slice(&more[..n]);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&bytes) {
            Ok(httparse::Status::Complete(_)) if request.method == Some("GET") => {
                let path = request.path.unwrap_or_default();
                return Ok(Some(path.split('?').next().unwrap_or_default().to_owned()));
            }
            Ok(httparse::Status::Partial) if n > 0 && bytes.len() <= REQUEST => {}
            _ => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(address: SocketAddr, request: &str) -> String {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        let mut out = String::new();
        client.read_to_string(&mut out).unwrap();
        out
    }

    #[test]
    fn the_page_and_nothing_else_and_it_ends() {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let page = Page::open(any, Metrics::default()).unwrap();
        let address = page.listener.local_addr().unwrap();
        let good = get(address, "GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(good.starts_with("HTTP/1.1 200 OK\r\n") && good.ends_with("# EOF\n"), "{good}");
        assert!(good.contains("application/openmetrics-text; version=1.0.0"), "{good}");
        assert!(get(address, "GET /etc HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        for bad in ["POST /metrics HTTP/1.1\r\n\r\n", "\0\x01\r\n\r\n", &format!("GET /{}", "x".repeat(9000))]
        {
            assert!(get(address, bad).starts_with("HTTP/1.1 400"), "{bad:?}");
        }
        // One that says nothing costs the next one two seconds at most.
        let _silent = TcpStream::connect(address).unwrap();
        assert!(get(address, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200"));
        drop(page);
        assert!(TcpStream::connect(address).is_err());
    }
}
