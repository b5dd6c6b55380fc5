//! `counterfoil daemon`: the host's daemon, in the foreground.
#![forbid(unsafe_code)]

use crate::config;
use crate::desk::{Desk, Reload};
use crate::egress::Usual;
use crate::expected;
use crate::host::facts::RealProc;
use crate::host::keep::{Keep, Shared};
use crate::judged::{Judged, Notice, What};
use crate::keeper::{Beginning, Keeper};
use crate::ledger::Baseline;
use crate::pipeline::{Around, Options, Pipeline, raise_descriptor_limit, random_key};
use crate::redact::Redactor;
use crate::session::{default_state, messages, options, redact, watched};
use anyhow::{Context, bail};
use crossbeam::channel::bounded;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Read if there is no `--config` and it is there.
pub(super) const CONFIG: &str = "/etc/counterfoil/counterfoil.toml";
const SOCKET: &str = "/run/counterfoil/counterfoil.sock";

/// Run the host's daemon in the foreground
///
/// Answers every program that is started with the library, judges what they transfer, keeps the ledger and sends
/// alarms. SIGHUP reads the configuration again; SIGTERM judges what was published and ends. Tells systemd when it
/// is ready.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  counterfoil daemon                                         as a service: /etc, /run and /var/lib
  counterfoil daemon --socket /tmp/c/s --state ~/c-state     by hand, as any user")]
pub struct Args {
    /// Read settings from this file [default: /etc/counterfoil/counterfoil.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen on this socket [default: COUNTERFOIL_SOCKET, else /run/counterfoil/counterfoil.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Keep ledger and queues in this directory [default: /var/lib/counterfoil]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// Where programs find the daemon.
pub(super) fn default_socket() -> PathBuf {
    std::env::var_os("COUNTERFOIL_SOCKET").filter(|s| !s.is_empty()).map_or_else(|| SOCKET.into(), Into::into)
}

/// What is at a socket.
pub(super) enum Probe {
    /// A daemon.
    Answers,
    /// Nothing, or a socket that nobody listens on any more.
    Nobody,
    /// It can't be found out.
    Unreachable(rustix::io::Errno),
}

/// Looks whether a daemon listens on `socket`.
pub(super) fn probe(socket: &Path) -> Probe {
    use rustix::io::Errno;
    let connected = SocketAddrUnix::new(socket).and_then(|address| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&fd, &address)
    });
    match connected {
        // Its queue is full: it is there, and busy.
        Ok(()) | Err(Errno::AGAIN) => Probe::Answers,
        Err(Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR) => Probe::Nobody,
        Err(e) => Probe::Unreachable(e),
    }
}

/// Runs until SIGTERM or SIGINT.
pub fn daemon(args: &Args) -> anyhow::Result<u8> {
    let file = args.config.clone().or_else(|| Some(PathBuf::from(CONFIG)).filter(|f| f.exists()));
    let parsed = config::load(file.as_deref())?;
    warn(file.as_deref(), &parsed);
    let config = parsed.config;
    // The keeper, and whoever else is told of them, is somewhere else.
    let socket = std::path::absolute(args.socket.clone().unwrap_or_else(default_socket))?;
    let state = std::path::absolute(args.state.clone().unwrap_or_else(default_state))?;
    claim(&socket)?;

    raise_descriptor_limit();
    let expected = Arc::new(expected::of(&config)?);
    let redactor = Redactor::new(config.privacy.argv);
    // A view of /proc of its own: who says hello waits for nobody's look at files.
    let proc = Arc::new(RealProc::default());
    let desk = Desk::open(&config, Some(state.clone()))?;
    anyhow::ensure!(
        desk.owns(),
        "the state directory {} is in use by another daemon or run",
        state.display()
    );
    let mut desk =
        desk.expecting(expected).controlled(&config, &socket).watching(&config, proc, redact(&redactor))?;
    desk.executables().look_up_packages();
    let Kept { keeper, key, kept, shared, returned } = keeper(&state);
    let key = match key {
        Some(key) => key,
        None => random_key().context("random bytes for the key")?,
    };
    desk = desk.keyed(key);
    if returned || !kept.is_empty() {
        desk.take(restarted(kept.len()));
    }
    let desk = match Usual::open(&state, config.watch.baseline_days, true) {
        Ok(usual) => desk.knowing(&config, usual),
        Err(e) => {
            tracing::error!("{e}: every destination is first seen");
            desk
        }
    };
    let baseline = Baseline::open(&state, config.watch.baseline_days)
        .inspect_err(|e| tracing::error!("{e}: what is ordinary here is not learnt"))
        .ok();
    let days = baseline.as_ref().map(Baseline::days);
    let options = Options {
        surround: Some(Around { executables: desk.executables(), baseline }),
        // Any user's program may say hello; the kernel says whose it is.
        socket_mode: 0o666,
        watch: watched(&config),
        redact: redact(&redactor),
        key: Some(key),
        keeper: keeper.clone().map(|k| k as Arc<dyn Keep>),
        kept,
        shared,
        ..options(&config, socket.clone())
    };
    // Before READY: a signal that comes right after it must find its handler.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("signals")?;
    let (handle, judged) = Pipeline::start(options)?;
    let (reloads, reload) = bounded(1);
    // A core that ends by itself would leave a daemon that listens and hears nothing: end, and let
    // whoever started us start us again.
    let waiting = Waiting(signals.handle());
    let desk = std::thread::Builder::new().name("desk".into()).spawn(move || {
        // Also where it panics.
        let _waiting = waiting;
        desk.serve(&judged, &reload)
    })?;
    tracing::info!("listening on {}, ledger in {}", socket.display(), state.display());
    tell(&[NotifyState::Ready]);

    let mut asked = false;
    for signal in signals.forever() {
        if signal != SIGHUP {
            asked = true;
            break;
        }
        let now = sd_notify::NotifyState::monotonic_usec_now();
        tell(&[vec![NotifyState::Reloading], now.ok().into_iter().collect()].concat());
        let news = config::load(file.as_deref())
            .and_then(|parsed| Ok((Arc::new(expected::of(&parsed.config)?), parsed)));
        match news {
            Ok((expected, parsed)) => {
                warn(file.as_deref(), &parsed);
                if let Some(days) = &days {
                    days.store(parsed.config.watch.baseline_days, Ordering::Relaxed);
                }
                let redact = redact(&redactor.mode(parsed.config.privacy.argv));
                handle.reconfigure(
                    watched(&parsed.config),
                    redact.clone(),
                    messages(&parsed.config),
                    &parsed.config.egress,
                    &parsed.config.media,
                );
                let _ = reloads.send(Reload { config: parsed.config, expected, redact });
                tracing::info!("configuration read again");
            }
            Err(e) => tracing::error!("the old configuration stays, the new one has mistakes:\n{e}"),
        }
        tell(&[NotifyState::Ready]);
    }
    tell(&[NotifyState::Stopping]);
    let counts = handle.stop();
    if let Some(keeper) = keeper {
        keeper.farewell();
    }
    drop(reloads);
    let outcome = desk.join().map_err(|_| anyhow::anyhow!("the desk's thread panicked"))?;
    let _ = std::fs::remove_file(&socket);
    anyhow::ensure!(
        asked,
        "the core thread ended by itself; please report this, with what the log says above"
    );
    tracing::info!(
        "ended: {} records, {} lost, {} transfers",
        counts.records,
        counts.dropped,
        outcome.summary.transfers.values().sum::<u64>()
    );
    Ok(0)
}

/// Who waits for signals does so until this is dropped.
struct Waiting(signal_hook::iterator::Handle);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What there is of an earlier daemon.
struct Kept {
    keeper: Option<Arc<Keeper>>,
    key: Option<[u8; 16]>,
    kept: Vec<crate::host::keep::Kept>,
    shared: HashMap<Shared, OwnedFd>,
    returned: bool,
}

/// The keeper, and what it kept. Without one the daemon works as well; only a restart loses more.
fn keeper(state: &Path) -> Kept {
    match Keeper::find(state) {
        Ok(Beginning { keeper, key, kept, shared, returned }) => {
            Kept { keeper: Some(Arc::new(keeper)), key: Some(key), kept, shared, returned }
        }
        Err(e) => {
            tracing::error!("no keeper of arenas ({e}): a restart will lose what is open");
            Kept { keeper: None, key: None, kept: vec![], shared: HashMap::new(), returned: false }
        }
    }
}

/// An earlier daemon ended without a farewell.
fn restarted(arenas: usize) -> Judged {
    Judged::Notice(Box::new(Notice {
        seen: jiff::Timestamp::now(),
        process: None,
        connection: None,
        flow: None,
        transfer: None,
        what: What::DaemonRestarted { arenas: arenas as u64 },
    }))
}

/// Makes the socket's directory, and makes sure that no other daemon listens there.
fn claim(socket: &Path) -> anyhow::Result<()> {
    match probe(socket) {
        Probe::Answers => bail!("another daemon answers on {} already", socket.display()),
        Probe::Nobody => {}
        Probe::Unreachable(e) => bail!("{}: {e}", socket.display()),
    }
    if let Some(dir) = socket.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .with_context(|| format!("can't make {}", dir.display()))?;
    }
    Ok(())
}

fn warn(file: Option<&Path>, parsed: &config::Parsed) {
    for warning in &parsed.warnings {
        tracing::warn!("{}:{warning}", file.unwrap_or(Path::new("")).display());
    }
}

/// Tells systemd, where it wants to know.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::debug!("sd_notify: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_a_stale_socket_and_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/s");
        assert!(matches!(probe(&path), Probe::Nobody));
        claim(&path).unwrap();
        assert!(path.parent().unwrap().is_dir());
        let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        assert!(matches!(probe(&path), Probe::Answers));
        let message = claim(&path).unwrap_err().to_string();
        assert!(message.contains("another daemon answers"), "{message}");
        drop(listener);
        assert!(path.exists() && matches!(probe(&path), Probe::Nobody), "a stale socket");
        claim(&path).unwrap();
    }
}
