//! The daemon's side of the control socket.
//!
//! Comes in: connections. Goes out: [`Ask`]s to the desk; answers, and what the ledger has. A thread that
//! accepts, and one for each of a few connections: a client that says nothing costs its place for a few seconds.
#![forbid(unsafe_code)]

use super::wire::{REQUEST, read, write};
use super::{Answer, Ask, Reply, Request, event, group};
use crate::alarms::Asker;
use crate::config;
use crate::host::user_name;
use crate::ledger::Reader;
use crossbeam::channel::{Sender, bounded};
use jiff::Timestamp;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Connections at once.
const CLIENTS: usize = 16;
/// How long a client may take to say or to take something.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the disk may take.
const DISK: Duration = Duration::from_secs(15);
/// A comment is no longer than this.
const COMMENT: usize = 2000;
/// Where in the state directory the socket can be found.
const LINK: &str = "control";

/// The socket's path, from the daemon's own.
#[must_use]
pub fn path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".control");
    path.into()
}

/// The socket in a state directory.
#[must_use]
pub fn of_state(state: &Path) -> PathBuf {
    state.join(LINK)
}

/// A control socket that is listened on.
pub struct Control {
    common: Arc<Common>,
    listener: UnixListener,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

struct Common {
    state: PathBuf,
    limits: Mutex<config::Alarms>,
    asks: Sender<Ask>,
    clients: AtomicUsize,
    stop: AtomicBool,
}

impl Control {
    /// Listens beside `socket`. The caller owns the state directory's alarm list.
    ///
    /// # Errors
    /// The socket can't be made, or no thread be started.
    pub fn listen(
        socket: &Path,
        state: &Path,
        limits: config::Alarms,
        asks: Sender<Ask>,
    ) -> io::Result<Self> {
        let path = path(socket);
        // Only one program owns the list, so nobody can be listening there.
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        close_to_others(&path)?;
        let link = of_state(state);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(std::path::absolute(&path)?, &link)?;
        let common = Arc::new(Common {
            state: state.to_owned(),
            limits: Mutex::new(limits),
            asks,
            clients: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let (accepting, shared) = (listener.try_clone()?, Arc::clone(&common));
        let thread =
            std::thread::Builder::new().name("control".into()).spawn(move || accept(&accepting, &shared))?;
        Ok(Self { common, listener, path, thread: Some(thread) })
    }

    /// Other limits, after a reload.
    pub fn limit(&self, limits: config::Alarms) {
        *self.common.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.common.stop.store(true, Ordering::Release);
        // Wakes the one that accepts.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(of_state(&self.common.state));
    }
}

/// For its owner and, where root owns it, the group. A socket is bound with what the umask leaves, and between
/// that and this nobody can do more than connect and wait: nothing is accepted yet.
fn close_to_others(path: &Path) -> io::Result<()> {
    let mut mode = 0o600;
    if rustix::process::geteuid().is_root()
        && let Some(group) = group::number()
    {
        match std::os::unix::fs::chown(path, None, Some(group)) {
            Ok(()) => mode = 0o660,
            // A service without CAP_CHOWN that is no member.
            Err(e) => tracing::warn!("group {} can't change alarms: {e}", group::NAME),
        }
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

fn accept(listener: &UnixListener, common: &Arc<Common>) {
    while !common.stop.load(Ordering::Acquire) {
        let Ok((client, _)) = listener.accept() else {
            if common.stop.load(Ordering::Acquire) {
                return;
            }
            // Out of descriptors, say.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        if common.clients.fetch_add(1, Ordering::AcqRel) >= CLIENTS {
            common.clients.fetch_sub(1, Ordering::AcqRel);
            let _ = client.set_write_timeout(Some(Duration::from_millis(50)));
            let _ = write(&mut &client, &Reply::Failed("too many ask at once; try again".into()));
            continue;
        }
        let shared = Arc::clone(common);
        let started = std::thread::Builder::new().name("control-client".into()).spawn(move || {
            if let Err(e) = serve(&client, &shared) {
                tracing::debug!("control: {e}");
            }
            shared.clients.fetch_sub(1, Ordering::AcqRel);
        });
        if started.is_err() {
            common.clients.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn serve(client: &UnixStream, common: &Common) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let uid = rustix::net::sockopt::socket_peercred(client)?.uid.as_raw();
    let mut from = BufReader::new(client);
    let mut to = BufWriter::new(client);
    while let Some(request) = read::<Request>(&mut from, REQUEST)? {
        let last = match answer(request, uid, common, &mut to) {
            Ok(last) => last,
            Err(Broken::Client(e)) => return Err(e),
            Err(Broken::Us(why)) => Reply::Failed(why),
        };
        write(&mut to, &last)?;
        to.flush()?;
    }
    Ok(())
}

enum Broken {
    Client(io::Error),
    Us(String),
}

impl From<crate::ledger::LedgerError> for Broken {
    fn from(e: crate::ledger::LedgerError) -> Self {
        Self::Us(e.to_string())
    }
}

/// Writes the answer but for its last word.
fn answer(request: Request, uid: u32, common: &Common, to: &mut impl Write) -> Result<Reply, Broken> {
    let mut send = |reply: Reply| write(to, &reply).map_err(Broken::Client);
    match request {
        Request::Change { id, action, comment } => {
            let limits = common.limits.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let event = match event(&action, &limits, Timestamp::now()) {
                Ok(event) => event,
                Err(why) => return Ok(Reply::Refused(why)),
            };
            let by = Asker {
                uid: Some(uid),
                user: user_name(uid),
                why: action.word().into(),
                comment: comment.map(|c| c.chars().take(COMMENT).collect()),
            };
            let (answer, answered) = bounded(1);
            let gone = |_| Broken::Us("the daemon is ending".into());
            common.asks.send_timeout(Ask { id, event, by, answer }, PATIENCE).map_err(|_| gone(()))?;
            match answered.recv_timeout(PATIENCE).map_err(|_| gone(()))? {
                Answer::Refused(why) => Ok(Reply::Refused(why)),
                Answer::Done { alarm, committed } => match committed.recv_timeout(DISK) {
                    Ok(Ok(())) => send(Reply::Alarm(alarm)).map(|()| Reply::End(1)),
                    Ok(Err(why)) => Err(Broken::Us(format!("a restart will forget this: {why}"))),
                    Err(_) => Err(Broken::Us("the ledger takes long: a restart may forget this".into())),
                },
            }
        }
        Request::List { filter } => {
            let reader = Reader::open(&common.state)?;
            let mut sent = Ok(());
            reader.list(&filter, |alarm| {
                sent = send(Reply::Alarm(Box::new(alarm)));
                sent.is_ok()
            })?;
            sent?;
            Ok(Reply::End(reader.count(&filter)?))
        }
        Request::Show { id } => match super::offline::show(&Reader::open(&common.state)?, &id)? {
            Ok(shown) => send(Reply::Shown(Box::new(shown))).map(|()| Reply::End(1)),
            Err(why) => Ok(Reply::Refused(why.to_string())),
        },
        Request::Stats => {
            let load = Reader::open(&common.state)?.load(Timestamp::now())?;
            send(Reply::Stats(Box::new(load))).map(|()| Reply::End(1))
        }
    }
}
