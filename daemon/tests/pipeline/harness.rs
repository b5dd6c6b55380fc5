//! A pipeline of one test's own, and what is heard of it.

use crate::fake::{Shim, Stream};
use counterfoil_abi::BLOCK;
use counterfoil_abi::record::*;
use counterfoil_daemon::judged::{Judged, Notice};
use counterfoil_daemon::model::Transfer;
use counterfoil_daemon::pipeline::{Handle, Options, Pipeline};
use crossbeam::channel::Receiver;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub struct Daemon {
    pub handle: Option<Handle>,
    pub judged: Receiver<Judged>,
    pub socket: PathBuf,
    pub heard: Vec<Judged>,
}

pub fn start(with: impl FnOnce(&mut Options)) -> Daemon {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let socket = std::env::temp_dir().join(format!("cf-core-{}-{n}.sock", std::process::id()));
    let mut options = Options::new(&socket);
    options.peer_wait = Duration::from_millis(100);
    with(&mut options);
    let (handle, judged) = Pipeline::start(options).unwrap();
    Daemon { handle: Some(handle), judged, socket, heard: Vec::new() }
}

impl Daemon {
    /// Listens until something suits.
    pub fn until<T>(&mut self, mut suits: impl FnMut(&Judged) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if let Ok(judged) = self.judged.recv_timeout(Duration::from_millis(50)) {
                let found = suits(&judged);
                self.heard.push(judged);
                if let Some(found) = found {
                    return found;
                }
            }
        }
        panic!("not heard within 5 s; heard: {:#?}", self.heard);
    }

    pub fn transfer(&mut self) -> Transfer {
        self.until(|j| match j {
            Judged::Transfer { transfer, .. } => Some((**transfer).clone()),
            _ => None,
        })
    }

    pub fn notice(&mut self) -> Notice {
        self.until(|j| match j {
            Judged::Notice(n) => Some((**n).clone()),
            _ => None,
        })
    }

    /// Ends it; the transfers that were not heard before.
    pub fn drain(mut self) -> Vec<Transfer> {
        self.handle.take().unwrap().drain(Duration::from_millis(50), Duration::from_secs(2));
        self.judged
            .iter()
            .filter_map(|j| match j {
                Judged::Transfer { transfer, .. } => Some(*transfer),
                _ => None,
            })
            .collect()
    }
}

pub fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

pub const B: usize = BLOCK as usize;

/// A client sends `sent` over TLS; the server gets `received`.
pub fn tls(daemon: &Daemon, flow: u8, sent: &[u8], received: &[u8]) {
    let mut client = Shim::hello(&daemon.socket);
    let mut server = Shim::hello(&daemon.socket);
    client.tls(1, flow, true);
    server.tls(1, flow, false);
    let (mut out, mut inward) = (Stream::default(), Stream::default());
    client.pass(1, Tap::TlsWrite, &mut out, sent);
    client.partial(1, Tap::TlsWrite, &out);
    client.end(1, How::Freed, sent.len() as u64, 0, |_| {});
    server.pass(1, Tap::TlsRead, &mut inward, received);
    server.partial(1, Tap::TlsRead, &inward);
    server.end(1, How::Freed, 0, received.len() as u64, |_| {});
}
