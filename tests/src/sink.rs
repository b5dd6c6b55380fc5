//! Somebody who listens to everything, unobserved: takes what comes, answers what looks like HTTP, and hangs up when
//! the other side does or has said all.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Listens on loopback for as long as the test's process lives.
pub struct Sink(u16);

impl Sink {
    /// Starts one.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let port = listener.local_addr().expect("address").port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || take(stream));
            }
        });
        Self(port)
    }

    /// Where.
    pub fn port(&self) -> u16 {
        self.0
    }
}

fn take(mut stream: TcpStream) {
    // Longer than any test lasts: some send after minutes.
    let _ = stream.set_read_timeout(Some(Duration::from_secs(600)));
    let mut got = Vec::new();
    let mut buffer = [0; 65536];
    let mut answered = false;
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        got.extend_from_slice(&buffer[..n]);
        if !answered && whole_request(&got, &mut stream) {
            answered = true;
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n");
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
    }
}

/// Head and body are there.
fn whole_request(got: &[u8], stream: &mut TcpStream) -> bool {
    let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&got[..end]).to_lowercase();
    if !head.lines().next().is_some_and(|line| line.contains(" http/1.")) {
        return false;
    }
    if head.contains("expect: 100-continue") && got.len() == end + 4 {
        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    let length =
        head.lines().find_map(|l| l.strip_prefix("content-length:")).and_then(|n| n.trim().parse().ok());
    match length {
        Some(length) => got.len() >= end + 4 + usize::to_owned(&length),
        None if head.contains("transfer-encoding: chunked") => got.ends_with(b"0\r\n\r\n"),
        None => true,
    }
}
