//! A session: a daemon of its own for as long as some commands run.
//!
//! Comes in: a configuration. Goes out: the environment that lets commands be observed, and at the
//! end an [`Outcome`]. Called by `commands::run` and `commands::demo`. Its socket lies in a private
//! directory that is removed at the end.
#![forbid(unsafe_code)]

use crate::config::{Config, StreamDigest};
use crate::desk::{Desk, Outcome};
use crate::host::facts::{Facts, Watch};
use crate::judged::Counts;
use crate::library;
use crate::pipeline::{self, Handle, Options, Pipeline};
use crate::redact::Redactor;
use crate::sinks::JsonLines;
use anyhow::Context;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// CMD has ended: wait until no record has come for this long …
const QUIET: Duration = Duration::from_millis(100);
/// … but not longer than this.
const LONGEST: Duration = Duration::from_secs(2);

/// A running session.
pub struct Session {
    place: Place,
    library: PathBuf,
    handle: Handle,
    desk: JoinHandle<Outcome>,
    reloads: crossbeam::channel::Sender<Config>,
}

impl Session {
    /// Starts the stages. When this returns, programs can be started.
    ///
    /// # Errors
    /// The library isn't there, or the socket, `json` or the state directory can't be made.
    pub fn start(config: &Config, json: Option<&Path>, state: Option<&Path>) -> anyhow::Result<Self> {
        let library = library::find()?;
        let json = json
            .map(|path| JsonLines::create(path).with_context(|| format!("can't write to {}", path.display())))
            .transpose()?;
        let desk = Desk::open(config, state.map(Path::to_owned))?.reporting(json);
        let place = Place::make().context("can't make a private directory for the socket")?;
        // Services drop their privileges after they were started: their users must reach the socket.
        let root = rustix::process::geteuid().is_root();
        let options =
            Options { socket_mode: if root { 0o666 } else { 0o600 }, ..options(config, place.socket()) };
        let (handle, judged) = Pipeline::start(options)?;
        let (reloads, reload) = crossbeam::channel::bounded(1);
        let desk =
            std::thread::Builder::new().name("desk".into()).spawn(move || desk.serve(&judged, &reload))?;
        Ok(Self { place, library, handle, desk, reloads })
    }

    /// What a command needs in its environment to be observed.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, OsString); 2] {
        let existing = std::env::var_os("LD_PRELOAD");
        [
            ("LD_PRELOAD", library::preload(&self.library, existing.as_deref())),
            ("COUNTERFOIL_SOCKET", self.place.socket().into()),
        ]
    }

    /// Lets `command` be observed.
    pub fn observe<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.envs(self.environment())
    }

    /// The library that is preloaded.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Waits for the last records, judges what is still open, and ends.
    #[must_use]
    pub fn finish(self) -> Outcome {
        let Counts { records, dropped } = self.handle.drain(QUIET, LONGEST);
        drop(self.reloads);
        let mut outcome = self.desk.join().unwrap_or_else(|_| Outcome {
            gathered: Default::default(),
            alarms: vec![],
            summary: Default::default(),
            json_lost: 0,
        });
        (outcome.summary.records, outcome.summary.dropped) = (records, dropped);
        outcome
    }
}

/// What the stages need from a configuration: everything is watched.
pub fn options(config: &Config, socket: PathBuf) -> Options {
    Options {
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        redact: redact(&Redactor::new(config.privacy.argv)),
        stream_digest: match config.integrity.stream_digest {
            StreamDigest::Aegis => pipeline::StreamDigest::Mac,
            StreamDigest::Blake3 => pipeline::StreamDigest::Blake3,
            StreamDigest::Sha256 => pipeline::StreamDigest::Sha256,
        },
        ..Options::new(socket)
    }
}

/// A redactor as the stages call it.
pub fn redact(redactor: &Redactor) -> crate::host::facts::Redactor {
    let redactor = redactor.clone();
    Arc::new(move |argv: Vec<String>| redactor.argv(&argv).unwrap_or_default())
}

/// `[watch] watched_processes`: by the program's name, or its whole path. Others are counted only.
pub fn watch(names: &[String]) -> crate::host::facts::WatchDecision {
    let names: std::collections::HashSet<String> = names.iter().cloned().collect();
    Arc::new(move |facts: &Facts| {
        let exe = facts.process.exe.as_deref().unwrap_or("");
        // A program that was replaced while it runs (an upgrade) reads "/usr/sbin/nginx (deleted)".
        let exe = exe.strip_suffix(" (deleted)").unwrap_or(exe);
        let name = exe.rsplit('/').next().unwrap_or(exe);
        if names.contains(exe) || names.contains(name) {
            Watch::Watched
        } else {
            Watch::Unwatched
        }
    })
}

/// A private directory with a socket in it; removed when dropped.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn make() -> std::io::Result<Self> {
        let root = rustix::process::geteuid().is_root();
        let mut candidates = vec![];
        if !root {
            candidates.extend(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
        }
        // sockaddr_un holds 107 bytes, and a TMPDIR may be long: /tmp is the last resort.
        candidates.extend([std::env::temp_dir(), PathBuf::from("/tmp")]);
        let name = format!("counterfoil-{}", uuid::Uuid::now_v7().simple());
        let mut last = std::io::Error::other("no directory for temporary files");
        for parent in candidates {
            let dir = parent.join(&name);
            if dir.as_os_str().len() > 90 || !dir.is_absolute() {
                continue;
            }
            // Made closed, and opened for passing through only by root's run (see `start`).
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => {
                    let place = Self { dir };
                    if root {
                        fs::set_permissions(&place.dir, Permissions::from_mode(0o711))?;
                    }
                    return Ok(place);
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("s")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Where the host's daemon keeps its ledger.
#[must_use]
pub fn default_state() -> PathBuf {
    // systemd names it where a unit says StateDirectory=.
    std::env::var_os("STATE_DIRECTORY")
        .filter(|d| !d.is_empty())
        .map_or_else(|| PathBuf::from("/var/lib/counterfoil"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Process;

    #[test]
    fn the_place_is_private_and_goes_away() {
        let place = Place::make().unwrap();
        let (dir, socket) = (place.dir.clone(), place.socket());
        let mode = fs::metadata(&dir).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 });
        assert!(socket.as_os_str().len() < 108);
        fs::write(socket, "").unwrap();
        drop(place);
        assert!(!dir.exists());
    }

    #[test]
    fn watched_by_name_or_path() {
        let decide = watch(&["curl".into(), "/opt/pay/send".into()]);
        let of = |exe: &str| {
            let process = Process { exe: Some(exe.into()), ..Process::default() };
            decide(&Facts { process, ..Facts::default() })
        };
        assert_eq!(of("/usr/bin/curl"), Watch::Watched);
        assert_eq!(of("/usr/bin/curl (deleted)"), Watch::Watched);
        assert_eq!(of("/opt/pay/send"), Watch::Watched);
        assert_eq!(of("/tmp/send"), Watch::Unwatched);
        assert_eq!(of("/usr/bin/curl-config"), Watch::Unwatched);
        assert_eq!(decide(&Facts::default()), Watch::Unwatched);
    }
}
