//! The daemon's stages up to `judge`, in one visible list:
//!
//! ```text
//! hello (host) ─► collect ─► assemble ─► join ─► judge ─► Receiver<Judged>
//! ```
//! Comes in: [`Options`]. Goes out: a channel of [`Judged`], and a [`Handle`] to end it with.
//! `run` and `daemon` call it and put `detect` behind it.

#![forbid(unsafe_code)]

use crate::assemble::Settings;
use crate::config::{Egress, Media};
use crate::core::{self, Core, Message, Newcomer, Outbox, SharedCounts};
use crate::host::executables::Executables;
use crate::host::facts::{Facts, Proc, RealProc, Redactor, Watch, WatchDecision};
use crate::host::keep::{Keep, Kept, Shared};
use crate::host::listen::{Deciders, HelloCounts, Listener, Parts};
use crate::host::room::Room;
use crate::judged::{Counts, Judged};
use crate::ledger::Baseline;
use crate::sensitive::{self, boards::Boards, memory::Memory};
use crate::surround::{self, Surround};
use crate::tags::Tagger;
use counterfoil_abi::arena::{POLICY_BLAKE3, POLICY_SHA256};
use crossbeam::channel::Receiver;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// Messages that the next stage may be behind before the core keeps them itself.
const JUDGED_AHEAD: usize = 8192;

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
    /// The messages in streams that carry MQTT are told one by one.
    pub messages: bool,
    /// Users whose processes are listened to; None: all.
    pub allowed_uids: Option<Vec<u32>>,
    /// How blocks are tagged.
    pub stream_digest: StreamDigest,
    /// Arenas at once; further processes are declined.
    pub max_arenas: usize,
    /// Bytes of tags kept for streams whose other end is not (yet) known.
    pub tag_budget: usize,
    /// Who knows about processes: `/proc`, or a test's own.
    pub proc: Arc<dyn Proc>,
    /// How long an ended end waits for its other end to appear, where that could be anywhere.
    pub peer_wait: Duration,
    /// Who keeps arenas through a restart.
    pub keeper: Option<Arc<dyn Keep>>,
    /// Arenas of an earlier daemon, to go on with; their key must be `key`.
    pub kept: Vec<Kept>,
    /// Memories that programs of an earlier daemon share.
    pub shared: HashMap<Shared, OwnedFd>,
    /// Look around watched processes, with these.
    pub surround: Option<Around>,
    /// Which files are sensitive, and who may read them.
    pub egress: Option<Egress>,
    /// Who works with media files, and how; only where `egress` is, too.
    pub media: Option<Media>,
}

/// What [`surround`](crate::surround) needs besides the other options.
#[derive(Default)]
pub struct Around {
    /// Digests and packages, shared with who shows them.
    pub executables: Arc<Executables>,
    /// What is ordinary on this host, where it is learnt.
    pub baseline: Option<Baseline>,
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
            messages: false,
            allowed_uids: None,
            stream_digest: StreamDigest::Mac,
            max_arenas: 8192,
            tag_budget: 64 << 20,
            proc: Arc::new(RealProc::default()),
            peer_wait: Duration::from_secs(2),
            keeper: None,
            kept: Vec::new(),
            shared: HashMap::new(),
            surround: None,
            egress: None,
            media: None,
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
        let system = |what| move |source: std::io::Error| StartError::System { what, source };
        let (out, judged) = crossbeam::channel::bounded(JUDGED_AHEAD);
        let room = Room::new(options.max_arenas);
        let shared = Arc::new(SharedCounts::default());
        let settings = Settings {
            hostname: options.hostname,
            tag_budget: options.tag_budget,
            peer_wait: options.peer_wait,
            proc: options.proc.clone(),
            clock_offset: core::clock_offset(),
        };
        let deciders = Arc::new(RwLock::new(Deciders {
            watch: options.watch,
            redact: options.redact,
            messages: options.messages,
        }));
        let surround = options.surround.map(|Around { executables, baseline }| {
            let deciders = deciders.clone();
            let redact: Redactor = Arc::new(move |argv| {
                let deciders = deciders.read().unwrap_or_else(PoisonError::into_inner).clone();
                (deciders.redact)(argv)
            });
            let proc = options.proc.clone();
            Surround::start(surround::Settings { proc, redact, executables, baseline }, out.clone())
        });
        let surround = surround.transpose().map_err(system("a thread"))?;
        let keeper = options.keeper.clone();
        let (core, outbox) = Core::new(settings, room.clone(), out, shared.clone(), keeper, surround)
            .map_err(system("epoll"))?;
        let key = match options.key {
            Some(key) => key,
            None => random_key().map_err(system("random bytes for the key"))?,
        };
        let tagger = Tagger::new(key, options.stream_digest);
        let mut before = options.shared;
        // Without one, programs hear from us that they have to do with sensitive files, a moment later.
        let matcher = options.egress.as_ref().and(Memory::new(before.remove(&Shared::Matcher)).ok());
        let matcher = matcher.map(Arc::new);
        if let (Some(matcher), Some(keeper)) = (&matcher, &options.keeper) {
            keeper.share(Shared::Matcher, matcher.ours());
        }
        let start = |egress| sensitive::Setup::start(egress, tagger.clone(), &key, matcher.clone());
        let sensitive = options.egress.as_ref().map(start).transpose().map_err(system("a thread"))?;
        let media = options.media.map(|media| Arc::new(RwLock::new(media)));
        if let Ok(mut core) = core.lock() {
            core.reads_at_rest(tagger, outbox.clone());
            if let Some(setup) = &sensitive {
                core.follow(setup);
                if let Some(media) = &media {
                    core.follow_media(media.clone()).map_err(system("a thread"))?;
                }
            }
        }
        let parts_room = room.clone();
        let hellos = Arc::new(HelloCounts::default());
        let boards = Boards::new(before, options.keeper.clone());
        let adopt = |kept: Kept| {
            let bell = boards.known(kept.uid);
            Message::Newcomer(Box::new(Newcomer::adopted(kept, bell)))
        };
        let first_id = options.kept.iter().map(|k| k.id + 1).max().unwrap_or(1);
        let adopted: Vec<(u32, Message)> = options.kept.into_iter().map(|k| (k.uid, adopt(k))).collect();
        let parts = Parts {
            policy: match options.stream_digest {
                StreamDigest::Mac => 0,
                StreamDigest::Blake3 => POLICY_BLAKE3,
                StreamDigest::Sha256 => POLICY_SHA256,
            },
            key,
            allowed_uids: options.allowed_uids,
            deciders: deciders.clone(),
            proc: options.proc,
            room,
            core: outbox.clone(),
            counts: hellos.clone(),
            keeper: options.keeper.clone(),
            matcher,
            boards,
            first_id,
        };
        let listener = Listener::bind(&options.socket, options.socket_mode, parts)
            .map_err(|source| StartError::Listen { path: options.socket, source })?;
        let stop = Arc::new(AtomicBool::new(false));
        let wake = Arc::new(
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|e| system("eventfd")(e.into()))?,
        );
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        let core = thread("core").spawn(move || Core::run(core)).map_err(system("a thread"))?;
        let listen = {
            let (stop, wake) = (stop.clone(), wake.clone());
            let run = move || listener.run(&stop, &wake);
            thread("listen").spawn(run).map_err(system("a thread"))?
        };
        for (uid, newcomer) in adopted {
            parts_room.take(uid);
            outbox.send(newcomer);
        }
        let threads = Some((core, listen));
        Ok((Handle { outbox, deciders, media, sensitive, shared, hellos, stop, wake, threads }, judged))
    }
}

/// Ends the pipeline. Dropping it does what [`Handle::stop`] does.
pub struct Handle {
    outbox: Outbox,
    deciders: Arc<RwLock<Deciders>>,
    sensitive: Option<sensitive::Setup>,
    media: Option<Arc<RwLock<Media>>>,
    shared: Arc<SharedCounts>,
    hellos: Arc<HelloCounts>,
    stop: Arc<AtomicBool>,
    wake: Arc<OwnedFd>,
    threads: Option<(JoinHandle<()>, JoinHandle<()>)>,
}

impl Handle {
    /// For `run`, when CMD has ended: goes on until no record has come for `quiet`, at most for
    /// `max`; then everything still open becomes `still-open`, all is judged, the threads end and
    /// the receiver disconnects. The receiver must be read by another thread meanwhile.
    pub fn drain(mut self, quiet: Duration, max: Duration) -> Counts {
        self.end(quiet, max);
        self.counts()
    }

    /// For the daemon's end (SIGTERM): reads what was published, judges what is final; what is
    /// open is said `still-open`.
    pub fn stop(self) -> Counts {
        self.drain(Duration::ZERO, Duration::ZERO)
    }

    /// For SIGHUP: takes effect at the next hello, and at the next open of a file.
    pub fn reconfigure(
        &self,
        watch: WatchDecision,
        redact: Redactor,
        messages: bool,
        egress: &Egress,
        media: &Media,
    ) {
        if let Some(current) = &self.media
            && let Ok(mut current) = current.write()
        {
            current.clone_from(media);
        }
        if let Some(sensitive) = &self.sensitive {
            sensitive.reconfigure(egress);
        }
        *self.deciders.write().unwrap_or_else(PoisonError::into_inner) = Deciders { watch, redact, messages };
    }

    /// Totals so far.
    pub fn counts(&self) -> Counts {
        self.shared.get()
    }

    /// Hellos so far: granted, declined, garbage.
    pub fn hellos(&self) -> (u64, u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.hellos.granted), of(&self.hellos.declined), of(&self.hellos.garbage))
    }

    fn end(&mut self, quiet: Duration, max: Duration) {
        let Some((core, listen)) = self.threads.take() else { return };
        self.outbox.send(Message::Drain { quiet, max });
        // A panic there was reported by the thread itself; the other one is to end all the same.
        let _ = core.join();
        self.stop.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        let _ = listen.join();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end(Duration::ZERO, Duration::ZERO);
    }
}

/// Takes as many descriptors as we may have: there are two for each observed program. For the host's
/// daemon; `run` must not, since CMD would inherit the limit.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// A key that nobody knows.
pub(crate) fn random_key() -> std::io::Result<[u8; 16]> {
    let mut key = [0; 16];
    let mut filled = 0;
    while filled < key.len() {
        filled += rustix::rand::getrandom(&mut key[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(key)
}

/// Why the pipeline did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The socket.
    #[error(
        "cannot listen on {path}: {source}. Is the directory there and writable, and no other daemon using it?"
    )]
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
