//! CMD: started in our process group and terminal, with what we were started with, and waited for.
//!
//! Comes in: a [`Command`]. Goes out: how it ended. While it runs, SIGINT and SIGQUIT, which the
//! terminal sends to it as well, are left to it; SIGTERM, SIGHUP, SIGUSR1 … sent to us go on to it.
#![forbid(unsafe_code)]

use super::inherited;
use rustix::process::{Pid, PidfdFlags, Signal};
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

/// Why CMD did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such program.
    #[error("{program}: not found")]
    NotFound {
        /// Its name.
        program: String,
    },
    /// It can't be executed.
    #[error("{program}: can't be executed: {source}")]
    NotExecutable {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// Anything else, before it came to that.
    #[error("can't start {program}: {source}")]
    Failed {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
}

impl StartError {
    /// As shells answer.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::NotFound { .. } => super::NOT_FOUND,
            Self::NotExecutable { .. } => super::NOT_EXECUTABLE,
            Self::Failed { .. } => super::FAILED,
        }
    }
}

/// What exec's error means.
pub(super) fn explain(program: &std::ffi::OsStr, source: io::Error) -> StartError {
    let program = program.to_string_lossy().into_owned();
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => StartError::NotFound { program },
        Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => {
            StartError::Failed { program, source }
        }
        // EACCES, ENOEXEC, EISDIR, ETXTBSY, E2BIG, ELOOP …: it is there, and can't be run.
        _ => StartError::NotExecutable { program, source },
    }
}

/// Starts `command`, waits for its end, and passes signals on meanwhile.
///
/// # Errors
/// It did not start.
pub fn run(mut command: Command) -> Result<ExitStatus, StartError> {
    let failed = |source| StartError::Failed { program: "a command".into(), source };
    // What was ignored when we started stays so, for us and for CMD (nohup).
    let wanted = [SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM];
    let caught: Vec<i32> = wanted.into_iter().filter(|s| !inherited::ignored(*s)).collect();
    let mut signals = Signals::new(&caught).map_err(failed)?;
    let watcher = signals.handle();
    // A parent that ignores SIGCHLD would make every wait fail.
    let _child = Signals::new([signal_hook::consts::SIGCHLD]).map_err(failed)?;

    inherited::pass_on(&mut command);
    let program = command.get_program().to_owned();
    let mut child = command.spawn().map_err(|e| explain(&program, e))?;
    // A descriptor, because a pid may name another process once CMD is waited for.
    let pidfd = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0))
        .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
    let forward = std::thread::spawn(move || {
        for signal in signals.forever() {
            pass(signal, pidfd.as_ref());
        }
    });
    let status = wait(&mut child);
    watcher.close();
    let _ = forward.join();
    status.map_err(failed)
}

fn pass(signal: i32, to: Option<&OwnedFd>) {
    if signal == SIGINT || signal == SIGQUIT {
        return;
    }
    if let (Some(to), Some(signal)) = (to, Signal::from_named_raw(signal)) {
        let _ = rustix::process::pidfd_send_signal(to, signal);
    }
}

fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    loop {
        match child.wait() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A status as shells count: 128 and the number for a signal.
#[must_use]
pub fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s));
    code.and_then(|c| u8::try_from(c).ok()).unwrap_or(super::FAILED)
}
