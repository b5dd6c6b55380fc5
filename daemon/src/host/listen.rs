//! Listen: answers hellos.
//!
//! Comes in: connections of programs that start. Goes out: arenas to them, and to the core word of each
//! new arena. A thread of its own: the program waits for the answer, so nothing here waits for
//! anybody but the core, and for that not long. A client that says nothing costs a descriptor
//! until its time is up.

#![forbid(unsafe_code)]

use super::facts::{Facts, Proc, Redactor, Watch, WatchDecision};
use super::keep::{Keep, Keeping};
use super::room::Room;
use crate::arena;
use crate::assemble::program::{ArenaId, Inherited};
use crate::core::{Message, Newcomer, Outbox};
use crate::files::carriers;
use crate::rest::User;
use crate::sensitive::boards::Boards;
use crate::sensitive::memory::Memory;
use counterfoil_abi::arena::ARENA_BYTES;
use counterfoil_abi::hello::{
    DECLINED, GRANTED, MAGIC, MAX_INHERITED, NO_MEMORY, Reply, Request, Resume, WRONG_ABI,
};
use counterfoil_abi::record::Channel;
use counterfoil_abi::{ABI_VERSION, UNKNOWN};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Clients that have connected and not yet spoken.
const MAX_SILENT: usize = 512;
/// How long they may be silent.
const SILENCE: Duration = Duration::from_secs(2);
/// How long what was found out about one of them holds.
const FRESH: Duration = Duration::from_millis(50);
/// How long the core may take to say where inherited objects go on.
const CORE_PATIENCE: Duration = Duration::from_millis(100);
/// Between two warnings that a library is of another version.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Why a program is not observed whose library is of another version than the daemon.
pub const OTHER_VERSION: &str = "other-version";
/// Why a program is not observed whose limits leave the library no room.
pub const NO_ROOM: &str = "no-memory";
/// Connections that the kernel keeps for us.
const PEER_BACKLOG: i32 = 1024;

/// What decides about newcomers; SIGHUP replaces it.
#[derive(Clone)]
pub struct Deciders {
    /// Watched, unwatched, declined.
    pub watch: WatchDecision,
    /// Applied to argv.
    pub redact: Redactor,
    /// The messages in streams are told one by one.
    pub messages: bool,
}

/// Counters that tests and `doctor` look at.
#[derive(Debug, Default)]
pub struct HelloCounts {
    /// Arenas granted.
    pub granted: AtomicU64,
    /// Requests that made no sense.
    pub garbage: AtomicU64,
    /// Declined: by decision, user or room.
    pub declined: AtomicU64,
}

/// What the listener needs to know.
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    /// Bits for the arena's head and the reply, without POLICY_WATCHED.
    policy: u32,
    key: [u8; 16],
    allowed_uids: Option<Vec<u32>>,
    deciders: Arc<RwLock<Deciders>>,
    proc: Arc<dyn Proc>,
    room: Room,
    core: Outbox,
    counts: Arc<HelloCounts>,
    keeper: Option<Arc<dyn Keep>>,
    matcher: Option<Arc<Memory>>,
    boards: Boards,
    next_id: ArenaId,
    /// An arena with that number and this policy, made while nobody waited.
    ready: Option<(u32, OwnedFd)>,
    /// What the last arena was made with.
    last_policy: u32,
    /// When a library of another version was warned of.
    warned: Option<Instant>,
}

/// Parts of a [`Listener`] that the pipeline chooses.
pub struct Parts {
    #[expect(missing_docs, reason = "as in Listener")]
    pub policy: u32,
    #[expect(missing_docs, reason = "as in Listener")]
    pub key: [u8; 16],
    #[expect(missing_docs, reason = "as in Listener")]
    pub allowed_uids: Option<Vec<u32>>,
    #[expect(missing_docs, reason = "as in Listener")]
    pub deciders: Arc<RwLock<Deciders>>,
    #[expect(missing_docs, reason = "as in Listener")]
    pub proc: Arc<dyn Proc>,
    #[expect(missing_docs, reason = "as in Listener")]
    pub room: Room,
    #[expect(missing_docs, reason = "as in Listener")]
    pub core: Outbox,
    #[expect(missing_docs, reason = "as in Listener")]
    pub counts: Arc<HelloCounts>,
    #[expect(missing_docs, reason = "as in Listener")]
    pub keeper: Option<Arc<dyn Keep>>,
    /// Which files are sensitive, for those who say hello.
    pub matcher: Option<Arc<Memory>>,
    /// And the boards for their pipes.
    pub boards: Boards,
    /// The number of the next arena.
    pub first_id: ArenaId,
}

struct Client {
    socket: OwnedFd,
    until: Instant,
    caller: Option<Caller>,
}

/// Who has connected. Looked up while it prepares its request: it waits for less then.
struct Caller {
    uid: u32,
    gid: u32,
    pidfd: OwnedFd,
    facts: Facts,
    /// When that was.
    at: Instant,
}

impl Listener {
    /// Binds the socket. A socket file that nobody listens on is replaced; anything else is left.
    pub fn bind(path: &Path, mode: u32, parts: Parts) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
            let probe = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
            match net::connect(&probe, &address) {
                Ok(()) | Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::AddrInUse.into()),
                Err(_) => std::fs::remove_file(path)?,
            }
        }
        net::bind(&socket, &address)?;
        // At once: who sees the file may connect in this moment. Who may not (`allowed_uids`) is turned away in any case.
        net::listen(&socket, PEER_BACKLOG)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        Ok(Self {
            socket,
            path: path.to_owned(),
            policy: parts.policy,
            key: parts.key,
            allowed_uids: parts.allowed_uids,
            deciders: parts.deciders,
            proc: parts.proc,
            room: parts.room,
            core: parts.core,
            counts: parts.counts,
            keeper: parts.keeper,
            matcher: parts.matcher,
            boards: parts.boards,
            next_id: parts.first_id,
            ready: None,
            last_policy: parts.policy,
            warned: None,
        })
    }

    /// Answers until `stop` is set; `wake` becomes readable then.
    pub fn run(mut self, stop: &AtomicBool, wake: &OwnedFd) {
        let mut clients: Vec<Client> = Vec::new();
        while !stop.load(Ordering::Acquire) {
            self.make_ready();
            let mut ready: Vec<PollFd<'_>> =
                vec![PollFd::new(wake, PollFlags::IN), PollFd::new(&self.socket, PollFlags::IN)];
            ready.extend(clients.iter().map(|c| PollFd::new(&c.socket, PollFlags::IN)));
            let wait = if clients.is_empty() { Duration::from_secs(60) } else { SILENCE };
            let wait = Timespec::try_from(wait).ok();
            if poll(&mut ready, wait.as_ref()).is_err() {
                continue;
            }
            let spoke: Vec<bool> = ready.iter().skip(2).map(|p| !p.revents().is_empty()).collect();
            let connected = !ready[1].revents().is_empty();
            drop(ready);
            let mut spoke = spoke.into_iter();
            let now = Instant::now();
            clients.retain_mut(|client| {
                let speaks = spoke.next().unwrap_or(false);
                if speaks {
                    self.hear(&client.socket, &mut client.caller);
                }
                !speaks && client.until > now
            });
            if connected {
                self.accept(&mut clients);
            }
        }
        let _ = std::fs::remove_file(&self.path);
    }

    /// The next program will most likely be treated as the last one was.
    fn make_ready(&mut self) {
        if self.ready.is_none() {
            let made = arena::create(self.next_id, self.last_policy).ok();
            self.ready = made.map(|memfd| (self.last_policy, memfd));
        }
    }

    fn accept(&mut self, clients: &mut Vec<Client>) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for _ in 0..64 {
            let Ok(socket) = net::accept_with(&self.socket, flags) else { return };
            // Mostly the request comes in a moment: the shim connects, prepares it, and sends it.
            let mut caller = None;
            if self.hear(&socket, &mut caller) {
                continue;
            }
            caller = self.caller(&socket);
            if self.hear(&socket, &mut caller) {
                continue;
            }
            if clients.len() >= MAX_SILENT {
                clients.remove(0);
            }
            clients.push(Client { socket, until: Instant::now() + SILENCE, caller });
        }
    }

    /// Reads a request and answers it. False: it has not come yet.
    fn hear(&mut self, client: &OwnedFd, caller: &mut Option<Caller>) -> bool {
        let mut bytes = [0u8; size_of::<Request>() + 1];
        let got = match net::recv(client, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((got, _)) => got,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return false,
            Err(_) => return true,
        };
        let head = |at: usize, len: usize| bytes[..got].get(at..at + len);
        if got == 0 || head(0, 8) != Some(&MAGIC.to_ne_bytes()[..]) || got < 16 {
            self.counts.garbage.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        if head(8, 4) != Some(&ABI_VERSION.to_ne_bytes()[..]) {
            self.counts.declined.fetch_add(1, Ordering::Relaxed);
            self.runs_unobserved(client);
            send(client, &self.reply(WRONG_ABI, 0, no_resume()), &[]);
            let theirs = bytes[8..12].try_into().map_or(0, u32::from_ne_bytes);
            self.other_version(client, theirs);
            return true;
        }
        if got != size_of::<Request>() {
            self.counts.garbage.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let request: Request = bytemuck::pod_read_unaligned(&bytes[..got]);
        if request.inherited_len as usize > MAX_INHERITED {
            self.counts.garbage.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        if self.answer(client, &request, caller.take()).is_none() {
            self.counts.declined.fetch_add(1, Ordering::Relaxed);
            self.runs_unobserved(client);
            send(client, &self.reply(DECLINED, 0, no_resume()), &[]);
        }
        true
    }

    /// It waits for the answer yet: what it has now it was started with.
    fn runs_unobserved(&self, client: &OwnedFd) {
        let who = net::sockopt::socket_peercred(client).ok();
        let pid = who.and_then(|who| u32::try_from(who.pid.as_raw_nonzero().get()).ok());
        let held = pid.map(|pid| self.proc.held(pid)).unwrap_or_default();
        if !held.is_empty() {
            self.core.offer(Message::HeldUnseen(held));
        }
    }

    /// Who is at the other end. None: it is gone, or nobody who is listened to.
    fn caller(&self, client: &OwnedFd) -> Option<Caller> {
        let who = net::sockopt::socket_peercred(client).ok()?;
        let pid = u32::try_from(who.pid.as_raw_nonzero().get()).ok()?;
        let (uid, gid) = (who.uid.as_raw(), who.gid.as_raw());
        if self.allowed_uids.as_ref().is_some_and(|allowed| !allowed.contains(&uid)) {
            return None;
        }
        let pidfd = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
        Some(Caller { uid, gid, pidfd, facts: self.proc.facts(pid)?, at: Instant::now() })
    }

    /// Says that a program's library is not of this daemon's version: it stays inert, so nothing else would.
    fn other_version(&mut self, client: &OwnedFd, theirs: u32) {
        let Ok(who) = net::sockopt::socket_peercred(client) else { return };
        let Ok(pid) = u32::try_from(who.pid.as_raw_nonzero().get()) else { return };
        if self.allowed_uids.as_ref().is_some_and(|allowed| !allowed.contains(&who.uid.as_raw())) {
            return;
        }
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!(
                "process {pid} has the library of another version (ABI {theirs}, this daemon's is {ABI_VERSION}) and runs \
                 unobserved: install library and daemon of one version, and start it again"
            );
        }
        if let Some(facts) = self.proc.facts(pid) {
            self.core.offer(Message::Declined(Arc::new(facts), OTHER_VERSION));
        }
    }

    /// None: declined.
    fn answer(&mut self, client: &OwnedFd, request: &Request, caller: Option<Caller>) -> Option<()> {
        // Who took its time may be another program by now.
        let fresh = caller.filter(|caller| caller.at.elapsed() < FRESH);
        let Caller { uid, gid, pidfd, mut facts, .. } = fresh.or_else(|| self.caller(client))?;
        let deciders = self.deciders.read().unwrap_or_else(PoisonError::into_inner).clone();
        facts.converts = carriers::converts(&facts.process);
        facts.arguments = facts.process.argv.clone().unwrap_or_default().into();
        facts.process.argv = facts.process.argv.map(|argv| (deciders.redact)(argv));
        facts.rights = Some(User { uid, gid, groups: Vec::new() });
        let facts = Arc::new(facts);
        if request.inert == NO_MEMORY {
            self.core.offer(Message::Declined(facts, NO_ROOM));
            return None;
        }
        let watched = match (deciders.watch)(&facts) {
            Watch::Watched => true,
            Watch::Unwatched => false,
            Watch::Declined => {
                self.core.offer(Message::Declined(facts, "declined"));
                return None;
            }
        };
        if !self.room.take(uid) {
            self.core.offer(Message::Declined(facts, "declined"));
            return None;
        }
        let given = self.grant(client, request, &facts, uid, pidfd, watched);
        if given.is_none() {
            self.room.give(uid);
        }
        given
    }

    /// Nobody will read its arena: the core has too much to do.
    fn not_taken(&self, newcomer: &Newcomer) {
        arena::give_up(&newcomer.memfd);
        if let Some(keeper) = &self.keeper {
            keeper.forget(newcomer.id);
        }
        let pid = newcomer.facts.process.pid;
        tracing::warn!("process {pid} is not observed: too many programs started at once");
    }

    fn grant(
        &mut self,
        client: &OwnedFd,
        request: &Request,
        facts: &Arc<Facts>,
        uid: u32,
        pidfd: OwnedFd,
        watched: bool,
    ) -> Option<()> {
        let since = crate::core::now();
        let id = self.next_id;
        self.next_id += 1;
        let messages = self.deciders.read().unwrap_or_else(PoisonError::into_inner).messages;
        let bell = if self.matcher.is_some() { self.boards.bell(uid) } else { None };
        let policy = self.policy
            | if bell.is_some() { counterfoil_abi::arena::POLICY_BOARD } else { 0 }
            | if watched { counterfoil_abi::arena::POLICY_WATCHED } else { 0 }
            | if messages { counterfoil_abi::arena::POLICY_MESSAGES } else { 0 };
        let memfd = match self.ready.take() {
            Some((its_policy, memfd)) if its_policy == policy => memfd,
            _ => arena::create(id, policy).ok()?,
        };
        self.last_policy = policy;
        // Before the program has it: from then on there may be something to lose.
        if let Some(keeper) = &self.keeper {
            let (memfd, pidfd) = (memfd.as_fd(), pidfd.as_fd());
            keeper.keep(&Keeping { id, uid, watched, facts, memfd, pidfd });
        }
        let inherited = self.inherited(facts.process.pid, request);
        let known = inherited.iter().any(|i| i.held);
        if !known {
            // The program first: the core can hear of it while it runs.
            self.counts.granted.fetch_add(1, Ordering::Relaxed);
            let reply = self.reply(GRANTED, policy, no_resume());
            send(client, &reply, &self.memories(&memfd, uid));
        }
        let theirs = if known { Some(memfd.try_clone().ok()?) } else { None };
        let (answer, resume) = crossbeam::channel::bounded(1);
        let newcomer = Newcomer {
            id,
            memfd,
            pidfd,
            uid,
            bell,
            facts: facts.clone(),
            watched,
            since,
            inherited,
            answer: known.then_some(answer),
            adopted: false,
            said: false,
        };
        let newcomer = Box::new(newcomer);
        let Some(theirs) = theirs else {
            // It runs already, and isn't told once more.
            if let Err(newcomer) = self.core.announce(newcomer) {
                self.not_taken(&newcomer);
                self.room.give(uid);
            }
            return Some(());
        };
        self.counts.granted.fetch_add(1, Ordering::Relaxed);
        // Where inherited objects go on: the core reads first what their last users published.
        if let Err(newcomer) = self.core.introduce(newcomer) {
            self.not_taken(&newcomer);
            return None;
        }
        let told: Vec<Resume> = resume.recv_timeout(CORE_PATIENCE).unwrap_or_default();
        let mut all = no_resume();
        all.iter_mut().zip(told).for_each(|(place, told)| *place = told);
        let reply = self.reply(GRANTED, policy, all);
        send(client, &reply, &self.memories(&theirs, uid));
        self.core.wake();
        Some(())
    }

    /// What the request says that it inherited, and whether the kernel says so, too. The process
    /// waits for us meanwhile: what it has now it had when it started.
    fn inherited(&self, pid: u32, request: &Request) -> Vec<Inherited> {
        let told = request.inherited.iter().take(request.inherited_len as usize);
        told.map(|opened| {
            let inode = (opened.device, opened.inode);
            let held = self.proc.descriptor(pid, opened.fd) == Some(inode);
            let pipe = opened.channel == Channel::Pipe as u8;
            let access = (held && pipe).then(|| self.proc.access(pid, opened.fd)).flatten();
            Inherited { number: opened.header.object, inode, held, access }
        })
        .collect()
    }

    /// What goes with the reply: the arena, and where sensitive files are followed, what processes need for that.
    fn memories<'a>(&'a mut self, arena: &'a OwnedFd, uid: u32) -> Vec<BorrowedFd<'a>> {
        let followed = self.matcher.as_deref().map(|matcher| (matcher.theirs(), self.boards.of(uid)));
        let (matcher, board) = followed.map_or((None, None), |(matcher, board)| (Some(matcher), board));
        [Some(arena.as_fd()), matcher, board].into_iter().flatten().collect()
    }

    fn reply(&self, status: u32, policy: u32, resume: [Resume; MAX_INHERITED]) -> Reply {
        let granted = status == GRANTED;
        Reply {
            magic: MAGIC,
            abi: ABI_VERSION,
            status,
            arena_bytes: if granted { ARENA_BYTES as u64 } else { 0 },
            policy,
            pad: 0,
            key: if granted { self.key } else { [0; 16] },
            resume,
        }
    }
}

fn no_resume() -> [Resume; MAX_INHERITED] {
    [Resume { out_offset: UNKNOWN, in_offset: UNKNOWN }; MAX_INHERITED]
}

/// One datagram; whoever is gone or does not read gets none.
fn send(client: &OwnedFd, reply: &Reply, descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let bytes = bytemuck::bytes_of(reply);
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = net::sendmsg(client, &[IoSlice::new(bytes)], &mut ancillary, flags);
}
