//! The daemon's stages up to `judge`, in one visible list:
//!
//! ```text
//! hello (host) ─► collect ─► assemble ─► join ─► judge ─► Receiver<Judged>
//! ```
//! Comes in: [`Options`]. Goes out: a channel of [`Judged`], and a [`Handle`] to end it with.
//! `run` and `daemon` call it and put `detect` behind it.

use crate::host::facts::{Facts, Redactor, Watch, WatchDecision};
use crate::judged::{Counts, Judged};
use crossbeam::channel::Receiver;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What block tags are made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamDigest {
    /// AEGIS-128X2 MAC: `keyed-tag`.
    #[default]
    Mac,
    /// BLAKE3: `hash`.
    Blake3,
    /// SHA-256: `hash`.
    Sha256,
}

/// Everything the pipeline needs to know.
pub struct Options {
    /// Path of the SEQPACKET socket. The directory must exist; a stale socket there is replaced.
    pub socket: PathBuf,
    /// Its permission bits: 0o600 for `run`, 0o666 for the host's daemon.
    pub socket_mode: u32,
    /// Stands in every endpoint.
    pub hostname: String,
    /// The key of all tags; None takes 16 bytes from getrandom.
    pub key: Option<[u8; 16]>,
    /// Watched, unwatched or declined, asked at each hello.
    pub watch: WatchDecision,
    /// Applied to argv before anything keeps it.
    pub redact: Redactor,
    /// Users whose processes are listened to; None: all.
    pub allowed_uids: Option<Vec<u32>>,
    /// How blocks are tagged.
    pub stream_digest: StreamDigest,
    /// Arenas at once; further processes are declined.
    pub max_arenas: usize,
    /// Bytes of tags kept for streams whose other end is not (yet) known.
    pub tag_budget: usize,
    /// How long an ended end waits for its other end to appear, where that could be anywhere.
    pub peer_wait: Duration,
}

impl Options {
    /// Sensible defaults: watch everything of everyone, redact nothing.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            socket_mode: 0o600,
            hostname: "localhost".into(),
            key: None,
            watch: Arc::new(|_: &Facts| Watch::Watched),
            redact: Arc::new(|argv| argv),
            allowed_uids: None,
            stream_digest: StreamDigest::Mac,
            max_arenas: 8192,
            tag_budget: 64 << 20,
            peer_wait: Duration::from_secs(2),
        }
    }
}

/// The running stages.
pub struct Pipeline;

impl Pipeline {
    /// Binds the socket and starts the threads. When this returns, hellos are answered.
    ///
    /// The receiver must be read: it is bounded, and a reader that stops makes lanes fill up (their
    /// losses are counted, the observed programs never wait). It disconnects when the pipeline has
    /// ended; the last message before that is the final [`Judged::Counts`].
    pub fn start(options: Options) -> Result<(Handle, Receiver<Judged>), StartError> {
        let _ = options;
        todo!()
    }
}

/// Ends the pipeline. Dropping it does what [`Handle::stop`] does.
pub struct Handle {}

impl Handle {
    /// For `run`, when CMD has ended: goes on until no record has come for `quiet`, at most for
    /// `max`; then everything still open becomes `still-open`, all is judged, the threads end and
    /// the receiver disconnects. The receiver must be read by another thread meanwhile.
    pub fn drain(self, quiet: Duration, max: Duration) -> Counts {
        let _ = (quiet, max);
        todo!()
    }

    /// For the daemon's end (SIGTERM): reads what was published, judges what is final; what is
    /// open is said `still-open`.
    pub fn stop(self) -> Counts {
        self.drain(Duration::ZERO, Duration::ZERO)
    }

    /// For SIGHUP: takes effect at the next hello.
    pub fn reconfigure(&self, watch: WatchDecision, redact: Redactor) {
        let _ = (watch, redact);
        todo!()
    }

    /// Totals so far.
    pub fn counts(&self) -> Counts {
        todo!()
    }
}

/// Why the pipeline did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The socket.
    #[error("cannot listen on {path}: {source}. Is the directory there and writable, and no other daemon using it?")]
    Listen {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A thread, epoll, or random bytes.
    #[error("cannot start: {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}
