//! A session: a daemon of its own for as long as some commands run.
//!
//! Comes in: a configuration. Goes out: the environment that lets commands be observed, and at the
//! end an [`Outcome`]. Called by `commands::run` and `commands::demo`. Its socket lies in a private
//! directory that is removed at the end.
#![forbid(unsafe_code)]

use crate::config::{Config, StreamDigest};
use crate::desk::{Desk, Outcome, Reload};
use crate::egress::Usual;
use crate::expected;
use crate::host::facts::{Facts, Watch};
use crate::judged::Counts;
use crate::ledger::Baseline;
use crate::library;
use crate::media;
use crate::pipeline::{self, Around, Handle, Options, Pipeline};
use crate::place::Place;
use crate::redact::Redactor;
use crate::sinks::JsonLines;
use anyhow::Context;
use std::ffi::OsString;
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
    /// Removed when the session ends.
    place: Place,
    socket: PathBuf,
    library: PathBuf,
    handle: Handle,
    desk: JoinHandle<Outcome>,
    reloads: crossbeam::channel::Sender<Reload>,
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
        let expected = Arc::new(expected::of(config)?);
        let key = pipeline::random_key().context("random bytes for the key")?;
        let desk =
            Desk::open(config, state.map(Path::to_owned))?.keyed(key).expecting(expected).reporting(json);
        let usual = state.map(|dir| Usual::open(dir, config.watch.baseline_days, false)).transpose()?;
        let desk = match usual {
            Some(usual) => desk.knowing(config, usual),
            None => desk,
        };
        // Services drop their privileges after they were started: their users must get through to
        // the socket, by a name that they inherit and others can't guess.
        let root = rustix::process::geteuid().is_root();
        let place = Place::make(if root { 0o711 } else { 0o700 })
            .context("can't make a private directory for the socket")?;
        let socket = place.path().join("s");
        let desk = desk.controlled(config, &socket);
        let baseline = state.map(|dir| Baseline::open(dir, config.watch.baseline_days)).transpose()?;
        let around = Around { executables: desk.executables(), baseline };
        let options = Options {
            socket_mode: if root { 0o666 } else { 0o600 },
            surround: Some(around),
            key: Some(key),
            ..options(config, socket.clone())
        };
        let (handle, judged) = Pipeline::start(options)?;
        let (reloads, reload) = crossbeam::channel::bounded(1);
        let desk =
            std::thread::Builder::new().name("desk".into()).spawn(move || desk.serve(&judged, &reload))?;
        Ok(Self { place, socket, library, handle, desk, reloads })
    }

    /// What a command needs in its environment to be observed.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, OsString); 2] {
        let existing = std::env::var_os("LD_PRELOAD");
        [
            ("LD_PRELOAD", library::preload(&self.library, existing.as_deref())),
            ("COUNTERFOIL_SOCKET", self.socket.clone().into()),
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
        let Counts { records, dropped, .. } = self.handle.drain(QUIET, LONGEST);
        drop(self.reloads);
        drop(self.place);
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
        messages: messages(config),
        stream_digest: match config.integrity.stream_digest {
            StreamDigest::Aegis => pipeline::StreamDigest::Mac,
            StreamDigest::Blake3 => pipeline::StreamDigest::Blake3,
            StreamDigest::Sha256 => pipeline::StreamDigest::Sha256,
        },
        egress: Some(config.egress.clone()),
        media: Some(config.media.clone()),
        ..Options::new(socket)
    }
}

/// Somebody wants to know what becomes of messages.
pub fn messages(config: &Config) -> bool {
    config.carriers.iter().any(|c| !c.topics.is_empty())
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
        let name = crate::surround::name(exe);
        if names.contains(exe) || names.contains(name) { Watch::Watched } else { Watch::Unwatched }
    })
}

/// What the host's daemon watches: `watched_processes`, and the tools that work on media, whatever they are written in.
pub fn watched(config: &Config) -> crate::host::facts::WatchDecision {
    let (by_name, media) = (watch(&config.watch.watched_processes), config.media.clone());
    Arc::new(move |facts: &Facts| match by_name(facts) {
        Watch::Unwatched if media::ran::ran(&facts.process, &facts.arguments, &media).tool.is_some() => {
            Watch::Watched
        }
        decided => decided,
    })
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
    fn watched_by_name_or_path() {
        let decide = watch(&["curl".into(), "/opt/pay/send".into()]);
        let of = |exe: &str| {
            let process = Process { exe: Some(exe.into()), ..Process::default() };
            decide(&Facts { process, ..Facts::default() })
        };
        assert_eq!(of("/usr/bin/curl"), Watch::Watched);
        assert_eq!(of("/usr/bin/curl (deleted)"), Watch::Watched);
        assert_eq!(of("/opt/pay/send"), Watch::Watched);
        assert_eq!(of("/memfd:curl (deleted)"), Watch::Watched, "in no file at all, and it calls itself so");
        assert_eq!(of("/tmp/send"), Watch::Unwatched);
        assert_eq!(of("/usr/bin/curl-config"), Watch::Unwatched);
        assert_eq!(decide(&Facts::default()), Watch::Unwatched);
    }

    #[test]
    fn tools_are_watched_whatever_they_are_written_in() {
        let decide = watched(&Config::default());
        let of = |exe: &str, line: &str| {
            let process = Process { exe: Some(exe.into()), ..Process::default() };
            let arguments = line.split(' ').map(str::to_owned).collect();
            decide(&Facts { process, arguments, ..Facts::default() })
        };
        assert_eq!(of("/usr/bin/steghide", "steghide info a.jpg"), Watch::Watched);
        assert_eq!(of("/usr/bin/perl", "/usr/bin/perl /usr/bin/exiftool a.jpg"), Watch::Watched);
        assert_eq!(of("/usr/bin/convert-im6.q16", "convert a b"), Watch::Watched);
        assert_eq!(of("/usr/bin/perl", "perl /usr/bin/prename a"), Watch::Unwatched);
        assert_eq!(of("/usr/bin/curl", "curl"), Watch::Watched);
    }
}
