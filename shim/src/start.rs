//! The constructor and the destructor: everything that needs system calls, memory or patience.
//!
//! Fails open: whatever goes wrong, the program runs on as if nothing were loaded.

use crate::mac::{self, Function};
use crate::objects::Object;
use crate::process::{self, Settings};
use crate::shield::{keeping_errno, shielded};
use crate::stream::offer;
use crate::thread::{self, Guard};
use crate::{family, fds, file, foreign, hooks, images, kernel, objects, pipes, reinject, scratch, sessions};
use bytemuck::Zeroable;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use counterfoil_abi::arena::{ARENA_BYTES, ArenaHead, LANES, MAGIC};
use counterfoil_abi::board::BOARD_BYTES;
use counterfoil_abi::hello::{self, GRANTED, MAX_INHERITED, Reply, Request};
use counterfoil_abi::matcher::MATCHER_BYTES;
use counterfoil_abi::prints::Sampler;
use counterfoil_abi::record::{CONNECTED, Channel, HANDED_UNSEEN, How, INHERITED, RESUMED, THROUGH_STDIO};
use counterfoil_abi::{ABI_VERSION, UNKNOWN};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::ffi::CStr;

/// The only socket that a privileged program (AT_SECURE) talks to.
pub const SYSTEM_SOCKET: &CStr = c"/run/counterfoil/counterfoil.sock";
/// A daemon that takes longer than this to answer is no daemon: the program waits at most so long.
const PATIENCE_MS: i64 = 1000;
/// What each part of the private memory is aligned to.
const PAGE: usize = 4096;
/// Descriptors below this are looked at when the program starts.
const LOOKED_AT: usize = 64;

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;
#[used]
#[unsafe(link_section = ".fini_array")]
static FINISH: extern "C" fn() = finish;

extern "C" fn start() {
    keeping_errno(|| {
        shielded((), || {
            // First of all: the daemon finds out who has connected while all else is made ready here.
            let socket = connect();
            hooks::resolve();
            // Should a recording panic, nothing may be printed on the host's stderr.
            std::panic::set_hook(Box::new(|_| {}));
            let _ = socket.and_then(activate);
        });
    });
}

/// pthread_atfork's, and those of who forks past it.
pub unsafe extern "C" fn before_fork() {
    keeping_errno(|| {
        shielded((), || {
            process::shares();
            images::before_fork();
            fds::settle_all();
            family::count();
        });
    });
}

/// See [`before_fork`].
pub unsafe extern "C" fn after_fork() {
    keeping_errno(|| shielded((), family::forked));
}

/// See [`before_fork`].
pub unsafe extern "C" fn in_child() {
    keeping_errno(|| shielded((), family::join));
}

/// This process has said its last words: once, though exit handlers may call _exit.
static LEFT: AtomicBool = AtomicBool::new(false);

extern "C" fn finish() {
    keeping_errno(|| shielded((), || last_words(How::Exited, 0)));
}

/// This process is saying its last words.
pub fn leaving() -> bool {
    LEFT.load(Ordering::Relaxed)
}

/// Says the totals of all that is open, and leaves it to the other forks of the family: at exit, and
/// before the program image is replaced; `handed` says what becomes of what the next one has, too.
pub fn last_words(how: How, handed: u8) {
    if !process::active() || LEFT.swap(true, Ordering::Relaxed) {
        return;
    }
    family::join();
    crate::ssh::last_words();
    // A child that has used nothing has nothing to say, unless it is the last to say anything.
    let used = process::has_recorded();
    let mut survivors = 0;
    let alone = crate::lanes::alone(thread::current());
    if used && let Some(guard) = Guard::enter() {
        fds::settle_made(&guard);
    }
    fds::for_each(|fd, object| {
        if object.channel() == Channel::File
            && (used || object.held_once())
            && let Some(guard) = Guard::enter()
        {
            // It may be now that something is found which is to be told.
            file::look_back(&guard, object, fd);
        }
        // An image that says hello tells of the first ones only; of the others when it uses them.
        let told =
            survivors < MAX_INHERITED && (fd as usize) < LOOKED_AT && object.channel() != Channel::File;
        if (handed != 0 && told || handed & HANDED_UNSEEN != 0) && kernel::survives_exec(fd) {
            survivors += 1;
            object.flag(handed);
        }
        file::leaves(fd, object);
        leave(object, how, (used, alone), |guard| fds::counts(guard, object, fd));
    });
    sessions::for_each(|object| leave(object, how, (used, alone), |_| kernel::Counts::UNKNOWN));
}

/// `alone`: no other thread may be in a call on it.
fn leave(
    object: &'static Object,
    how: How,
    (used, alone): (bool, bool),
    counts: impl Fn(&Guard) -> kernel::Counts,
) {
    let opened = object.opened.load(Ordering::Relaxed);
    // A connection on which no hook saw a byte has the kernel's count to tell: libc sends what went through stdio.
    let something = object.anything() || opened & CONNECTED != 0;
    // From now on somebody has it whom nobody sees.
    let unseen = how == How::Execed && object.has_flag(HANDED_UNSEEN);
    let stdio = object.has_flag(THROUGH_STDIO);
    let say = |how| {
        if let Some(guard) = Guard::enter() {
            if !alone && how == How::Exited && object.channel() != Channel::File {
                object.doubt_rest(&guard);
            }
            object.checkpoint(&guard, how, counts(&guard));
        }
    };
    if !object.held_once() {
        // Before it is let go: then it may be something else at any time.
        if used && something || unseen || stdio {
            say(How::Checkpoint);
        }
        if object.let_go() {
            return;
        }
    }
    // Of what was made here its end is awaited; what came with the program goes with it.
    let awaited = object.channel() != Channel::File && opened & INHERITED == 0;
    if something || unseen || awaited {
        say(how);
    } else if file::uncounted(object) {
        // That nothing passed, not even unseen: of who is killed that isn't known.
        say(How::Checkpoint);
    }
    if alone {
        object.free();
    }
}

/// The exec has failed. What has become somebody else's meanwhile is looked at anew when it is used.
pub fn stay() {
    if LEFT.swap(false, Ordering::Relaxed) {
        sessions::for_each(|object| {
            object.hold_again(object.number());
        });
        fds::for_each(|fd, object| {
            let held = object.hold_again(object.number());
            if held
                && object.channel() != Channel::File
                && let Some(guard) = Guard::enter()
            {
                // It was said that it had ended.
                fds::tell_opened(&guard, object, fd, 0);
            }
        });
    }
}

/// True where the kernel has raised this program's privileges above its caller's (AT_SECURE):
/// nothing from the environment is believed then.
pub fn privileged() -> bool {
    // SAFETY: reads the auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// A variable as bytes; None under AT_SECURE.
pub fn variable(name: &CStr) -> Option<&'static [u8]> {
    if privileged() {
        return None;
    }
    // SAFETY: a C string. The constructor runs before the program's own threads.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: environ's strings end with NUL; we copy before the program may change them.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_bytes())
}

/// Path of the daemon's socket.
pub fn socket_path() -> &'static [u8] {
    variable(c"COUNTERFOIL_SOCKET").filter(|path| !path.is_empty()).unwrap_or(SYSTEM_SOCKET.to_bytes())
}

fn activate(socket: OwnedFd) -> Option<()> {
    let mut request: Request = Zeroable::zeroed();
    request.magic = hello::MAGIC;
    request.abi = ABI_VERSION;
    request.pid = rustix::process::getpid().as_raw_nonzero().get() as u32;
    let Some(mark) = map_memory() else {
        request.inert = hello::NO_MEMORY;
        // The daemon looks at who we are before it answers.
        ask(&socket, &request);
        return None;
    };
    let mut told: [Option<(&'static Object, i32)>; MAX_INHERITED] = [None; MAX_INHERITED];
    let mut count = 0;
    for fd in kernel::open_below::<LOOKED_AT>() {
        if fd == socket.as_raw_fd() {
            continue;
        }
        let Some(identity) = kernel::identify(fd) else { continue };
        let Some(object) = fds::adopt(fd, &identity) else {
            fds::ignore(fd);
            continue;
        };
        object.opened.fetch_or(INHERITED, Ordering::Relaxed);
        if count < MAX_INHERITED && !told[..count].iter().flatten().any(|(o, _)| core::ptr::eq(*o, object)) {
            told[count] = Some((object, fd));
            request.inherited[count] = fds::opened(object, fd, 0);
            count += 1;
        }
    }
    request.inherited_len = count as u32;
    let (reply, memory, [matcher, board]) = ask(&socket, &request)?;
    drop(socket);
    let arena = map_arena(&memory)?;
    drop(memory);
    let read = ProtFlags::READ;
    let matcher = matcher.and_then(|memory| map(&memory, MATCHER_BYTES, read)).map_or(null(), |m| m.cast());
    let board = board.and_then(|memory| map(&memory, BOARD_BYTES, read | ProtFlags::WRITE));
    let board = board.map_or(&raw const pipes::NONE, |b| b.cast());
    reinject::learn();
    let (function, sampler) = (Function::of_policy(reply.policy), Sampler::new(&reply.key));
    mac::prepare();
    process::activate(Settings { arena, key: reply.key, function, sampler, matcher, board }, mark);
    hooks::jumps::heed_unwinding();
    let guard = Guard::enter()?;
    for ((object, fd), resume) in told.iter().flatten().zip(&reply.resume) {
        let number = object.number();
        let (out, into) = object.taps();
        object.opened.fetch_or(
            if resume.out_offset == UNKNOWN && resume.in_offset == UNKNOWN { 0 } else { RESUMED },
            Ordering::Relaxed,
        );
        fds::tell_opened(&guard, object, *fd, 0);
        for (stream, tap, offset) in
            [(&object.out, out, resume.out_offset), (&object.into, into, resume.in_offset)]
        {
            // Both ends of a pipe have one inode: only this end's direction is this end's.
            let own = object.channel() != Channel::Pipe
                || core::ptr::eq(stream, &raw const object.out)
                    == (object.last.load(Ordering::Relaxed) == objects::OUT);
            if own && offset != UNKNOWN {
                stream.resume(&guard, number, tap, offset);
            }
        }
    }
    fds::inherit(0..LOOKED_AT as i32);
    drop(guard);
    // SAFETY: a handler that only counts. It sees fork, daemon and forkpty alike.
    unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(in_child)) };
    foreign::look();
    Some(())
}

/// None: nobody is to observe this program, or nobody is there.
fn connect() -> Option<OwnedFd> {
    if variable(c"COUNTERFOIL_OFF") == Some(b"1") || !thread::fits() {
        return None;
    }
    let address = SocketAddrUnix::new(socket_path()).ok()?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .ok()?;
    let patience = std::time::Duration::from_millis(PATIENCE_MS as u64);
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, Some(patience))
        .ok()?;
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Send, Some(patience))
        .ok()?;
    rustix::net::connect(&socket, &address).ok()?;
    if privileged() {
        // A privileged program believes only root's daemon.
        let peer = rustix::net::sockopt::socket_peercred(&socket).ok()?;
        if !peer.uid.is_root() {
            return None;
        }
    }
    Some(socket)
}

/// Of the addresses that a program's limit leaves it, we take no more than one in so many.
const SHARE: u64 = 3;

/// All memory that hooks will ever use, reserved but untouched. None: there is no room for it.
pub fn map_memory() -> Option<*mut AtomicU32> {
    let room = kernel::room();
    let areas = if room.is_none() { scratch::AREAS } else { 1 };
    let parts = [
        fds::TABLE_BYTES,
        sessions::TABLE_BYTES,
        family::TABLE_BYTES,
        offer::POOL_BYTES,
        areas * scratch::AREA_BYTES,
    ]
    .map(|bytes| bytes.next_multiple_of(PAGE));
    let ours = parts.iter().sum::<usize>() + objects::FIRST_BYTES + ARENA_BYTES + MATCHER_BYTES + BOARD_BYTES;
    if room.is_some_and(|room| ours as u64 > room / SHARE) {
        return None;
    }
    let private = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: fresh anonymous mappings at addresses of the kernel's choice.
    unsafe {
        let map = |bytes: usize, flags: MapFlags| {
            rustix::mm::mmap_anonymous(null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags).ok()
        };
        let mark = map(PAGE, MapFlags::PRIVATE)?;
        rustix::mm::madvise(mark, PAGE, Advice::LinuxWipeOnFork).ok()?;
        let shared = MapFlags::SHARED | MapFlags::NORESERVE;
        let (region, bytes) =
            objects::sizes().find_map(|bytes| map(bytes, shared).map(|region| (region, bytes)))?;
        objects::provide(region.cast(), bytes);
        // One mapping for all that is private: a call less for each, at the start and at the end.
        let mut next = map(parts.iter().sum(), private)?;
        let [table, opened, counted, offers, scratches] = parts.map(|bytes| {
            let at = next;
            next = at.byte_add(bytes);
            at
        });
        fds::provide(table.cast());
        sessions::provide(opened.cast());
        family::provide(counted.cast());
        offer::provide(offers.cast());
        scratch::provide(scratches.cast(), areas);
        Some(mark.cast())
    }
}

fn ask(socket: &OwnedFd, request: &Request) -> Option<(Reply, OwnedFd, [Option<OwnedFd>; 2])> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};
    let bytes = bytemuck::bytes_of(request);
    if rustix::net::send(socket.as_fd(), bytes, SendFlags::NOSIGNAL).ok()? != bytes.len() {
        return None;
    }
    let mut reply: Reply = Zeroable::zeroed();
    let mut space = [core::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [std::io::IoSliceMut::new(bytemuck::bytes_of_mut(&mut reply))];
    let got = rustix::net::recvmsg(socket.as_fd(), &mut into, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    let (mut memory, mut others) = (None, [None, None]);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message {
            (memory, others) = (fds.next(), [fds.next(), fds.next()]);
        }
    }
    let right = got.bytes == size_of::<Reply>()
        && reply.magic == hello::MAGIC
        && reply.abi == ABI_VERSION
        && reply.status == GRANTED
        && reply.arena_bytes == ARENA_BYTES as u64;
    right.then_some((reply, memory?, others))
}

/// A memory that may shrink under us is a SIGBUS in the host: it must be as large as it is to be, and sealed so.
fn map(memory: &OwnedFd, bytes: usize, access: ProtFlags) -> Option<*const u8> {
    let seals = rustix::fs::fcntl_get_seals(memory).ok()?;
    let size = rustix::fs::fstat(memory).ok()?.st_size;
    if !seals.contains(rustix::fs::SealFlags::SHRINK) || size as usize != bytes {
        return None;
    }
    // SAFETY: a new shared mapping, as long as the sealed memory.
    let mapped = unsafe { rustix::mm::mmap(null_mut(), bytes, access, MapFlags::SHARED, memory, 0).ok()? };
    Some(mapped.cast_const().cast())
}

fn map_arena(memory: &OwnedFd) -> Option<*const u8> {
    let arena = map(memory, ARENA_BYTES, ProtFlags::READ | ProtFlags::WRITE)?;
    // SAFETY: just mapped; valid for any bytes.
    let head = unsafe { &*arena.cast::<ArenaHead>() };
    (head.magic == MAGIC && head.abi == ABI_VERSION && head.lanes as usize == LANES).then_some(arena)
}

#[cfg(test)]
mod tests;
