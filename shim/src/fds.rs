//! Which descriptor leads to which object. Private to a process: fork copies it with the rest.
//!
//! An entry is filled when a hooked call makes the descriptor, else when it is first used.

use crate::content;
use crate::file;
use crate::kernel::{self, Identity};
use crate::lanes;
use crate::objects::{self, Name, Object};
use crate::pipes;
use crate::process;
use crate::thread::Guard;
use bytemuck::Zeroable;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};
use counterfoil_abi::record::{
    ATTACHED_LATE, Channel, HANDED_ON, HANDED_UNSEEN, How, INHERITED, Kind, Opened,
};

/// Descriptors above this are not tracked (the kernel's default ceiling, fs.nr_open).
pub const ENTRIES: usize = 1 << 20;
/// Bytes that the constructor maps.
pub const TABLE_BYTES: usize = ENTRIES * size_of::<AtomicU64>();

static TABLE: AtomicPtr<AtomicU64> = AtomicPtr::new(core::ptr::null_mut());
/// The highest descriptor that was opened here or had an object.
static HIGHEST: AtomicI32 = AtomicI32::new(-1);

/// Not looked at yet.
const UNKNOWN: u64 = 0;
/// Looked at, and not ours.
const IGNORED: u64 = 1;
/// Opened here, not looked at yet: nothing has passed. open(2)'s flags stand in the upper half.
const FRESH: u64 = 2;
/// Entries whose lower half is not below this are object names: number << 32 | slot + FIRST.
const FIRST: u64 = 3;

/// The part of an entry that says what it is.
#[inline]
fn kind(value: u64) -> u64 {
    value & 0xffff_ffff
}

/// Hands the table its memory: private, zeroed.
pub fn provide(table: *mut AtomicU64) {
    TABLE.store(table, Ordering::Relaxed);
}

#[inline]
fn entry(fd: i32) -> Option<&'static AtomicU64> {
    let index = usize::try_from(fd).ok().filter(|&i| i < ENTRIES)?;
    // SAFETY: the table has ENTRIES entries and stays mapped (set before the library is active).
    Some(unsafe { &*TABLE.load(Ordering::Relaxed).add(index) })
}

fn pack(name: Name) -> u64 {
    (u64::from(name.number) << 32) | (u64::from(name.slot) + FIRST)
}

#[inline]
fn unpack(value: u64) -> Option<Name> {
    (kind(value) >= FIRST)
        .then(|| Name { slot: (value as u32).wrapping_sub(FIRST as u32), number: (value >> 32) as u32 })
}

/// True if calls on this descriptor need no thought at all: one load.
#[inline]
pub fn ignored(fd: i32) -> bool {
    entry(fd).is_none_or(|e| e.load(Ordering::Relaxed) == IGNORED)
}

/// The object that `fd` leads to; looks at the descriptor if that was never done.
#[inline]
pub fn find(guard: &Guard, fd: i32) -> Option<&'static Object> {
    // Acquire pairs with the release in `look`: the object is as who looked has left it.
    let value = entry(fd)?.load(Ordering::Acquire);
    match unpack(value) {
        Some(name) => match objects::get(name) {
            // This process has said its last words, and another one has the slot.
            None if crate::start::leaving() => None,
            // Ended by a relative that did not know of us (a fork past pthread_atfork).
            None => look(guard, fd, value),
            found => found,
        },
        None if value != IGNORED => look(guard, fd, value),
        None => None,
    }
}

/// Only if it is known already; never looks.
pub fn known(fd: i32) -> Option<&'static Object> {
    objects::get(unpack(entry(fd)?.load(Ordering::Relaxed))?)
}

/// Looks at a descriptor whose entry is `value`. Two threads may do so at once: the first one's object is
/// the descriptor's, and what the other one made is given up before anybody has seen it.
#[cold]
fn look(guard: &Guard, fd: i32, value: u64) -> Option<&'static Object> {
    let slot = entry(fd)?;
    let identity = kernel::identify(fd)?;
    let twin = twin(&identity);
    let Some((name, object)) = twin.or_else(|| create(fd, identity.channel?, &identity)) else {
        let _ = slot.compare_exchange(value, IGNORED, Ordering::Relaxed, Ordering::Relaxed);
        return None;
    };
    let fresh = kind(value) == FRESH;
    if !fresh {
        object.opened.fetch_or(ATTACHED_LATE, Ordering::Relaxed);
    }
    if object.channel() == Channel::File {
        // It is told when something passes.
        file::begin(object, fd, &identity, fresh.then_some((value >> 32) as u32));
    }
    // Release pairs with the acquire in `find`.
    if let Err(now) = slot.compare_exchange(value, pack(name), Ordering::Release, Ordering::Acquire) {
        match twin {
            Some(_) => object.drop_ref(guard, How::ClosedUnseen, kernel::Counts::UNKNOWN),
            None => object.discard(),
        }
        return unpack(now).and_then(objects::get);
    }
    HIGHEST.fetch_max(fd, Ordering::Relaxed);
    if object.channel() != Channel::File {
        tell_opened(guard, object, fd, 0);
    }
    Some(object)
}

/// Looks at what was opened here, if that was not done: it is about to be shared, by another descriptor or
/// another process. Only files need that: others find each other by their inode.
pub fn settle(guard: &Guard, fd: i32) {
    if let Some(value) = entry(fd).map(|e| e.load(Ordering::Relaxed))
        && kind(value) == FRESH
        && process::watched()
    {
        look(guard, fd, value);
    }
}

/// It was sent to another process, which may use it from now on, and which nobody sees, perhaps.
pub fn handed_on(guard: &Guard, fd: i32) {
    settle(guard, fd);
    if let Some(object) = known(fd).filter(|object| object.channel() != Channel::File) {
        object.flag(HANDED_ON);
    }
}

/// A program that is not observed is started, and has what this one has; `all`: perhaps what exec closes, too.
pub fn spawned_unseen(all: bool) {
    settle_all();
    for_each(|fd, object| {
        if all || kernel::survives_exec(fd) {
            object.flag(HANDED_ON | HANDED_UNSEEN);
        }
    });
}

/// [`spawned_unseen`] by a vfork child: which descriptors it has changed stands nowhere, its parent's table is not its own.
pub fn vforked_unseen() {
    for fd in (0..=HIGHEST.load(Ordering::Relaxed).max(63)).filter(|&fd| kernel::survives_exec(fd)) {
        let Some(identity) = kernel::identify(fd) else { continue };
        for_each(|_, object| {
            if is(object, &identity) {
                object.flag(HANDED_ON | HANDED_UNSEEN);
            }
        });
    }
}

/// [`settle`] for all. Enters a recording only if there is something to do.
pub fn settle_all() {
    let fresh = |&fd: &i32| entry(fd).is_some_and(|e| kind(e.load(Ordering::Relaxed)) == FRESH);
    let mut all = (0..=HIGHEST.load(Ordering::Relaxed)).filter(fresh).peekable();
    if process::watched()
        && all.peek().is_some()
        && let Some(guard) = Guard::enter()
    {
        all.for_each(|fd| settle(&guard, fd));
    }
}

/// In a watched process: looks at the regular files that it was started with.
pub fn inherit(fds: impl Iterator<Item = i32>) {
    if !process::watched() {
        return;
    }
    for fd in fds {
        if entry(fd).is_some_and(|e| e.load(Ordering::Relaxed) == IGNORED)
            && let Some(identity) = kernel::identify(fd).filter(|i| i.channel == Some(Channel::File))
            && let Some(object) = make(fd, Channel::File, &identity)
        {
            object.opened.fetch_or(INHERITED, Ordering::Relaxed);
            file::begin(object, fd, &identity, None);
        }
    }
}

/// Makes `fd` lead to the object that is the same socket or pipe end, or to a new one.
pub fn adopt(fd: i32, identity: &Identity) -> Option<&'static Object> {
    let (name, object) = twin(identity).or_else(|| create(fd, identity.channel?, identity))?;
    link(fd, pack(name));
    Some(object)
}

/// What is known already by another descriptor, with one reference more. Two opens of one file are two
/// streams.
fn twin(identity: &Identity) -> Option<(Name, &'static Object)> {
    let channel = identity.channel.filter(|&channel| channel != Channel::File)?;
    (0..=HIGHEST.load(Ordering::Relaxed)).find_map(|other| {
        let name = unpack(entry(other)?.load(Ordering::Acquire))?;
        let object = objects::get(name)?;
        let same = channel != Channel::Pipe || writes(object) == identity.writes;
        (same && is(object, identity)).then(|| {
            object.add_ref();
            (name, object)
        })
    })
}

fn is(object: &Object, identity: &Identity) -> bool {
    object.inode.load(Ordering::Relaxed) == identity.inode
        && object.device.load(Ordering::Relaxed) == identity.device
}

/// A pipe's object is one end of it.
fn writes(object: &Object) -> bool {
    object.last.load(Ordering::Relaxed) == objects::OUT
}

/// A new object for a descriptor that a call has just made.
pub fn make(fd: i32, channel: Channel, identity: &Identity) -> Option<&'static Object> {
    entry(fd)?;
    let (name, object) = create(fd, channel, identity)?;
    link(fd, pack(name));
    Some(object)
}

/// A new object that no descriptor leads to yet.
fn create(fd: i32, channel: Channel, identity: &Identity) -> Option<(Name, &'static Object)> {
    let name = objects::make(channel)?;
    let object = objects::get(name)?;
    object.fd.store(fd, Ordering::Relaxed);
    object.device.store(identity.device, Ordering::Relaxed);
    object.inode.store(identity.inode, Ordering::Relaxed);
    if channel == Channel::Pipe {
        object.last.store(if identity.writes { objects::OUT } else { objects::IN }, Ordering::Relaxed);
        if process::active() && content::turned_up() {
            pipes::made(object);
        }
    }
    Some((name, object))
}

fn link(fd: i32, value: u64) {
    if let Some(entry) = entry(fd) {
        // Pairs with the acquire in `find`.
        entry.store(value, Ordering::Release);
        HIGHEST.fetch_max(fd, Ordering::Relaxed);
    }
}

/// `fd` is not ours to watch.
pub fn ignore(fd: i32) {
    if let Some(entry) = entry(fd) {
        entry.store(IGNORED, Ordering::Relaxed);
    }
}

/// A call has just returned `fd`. If we still believe it to be something, that was closed where
/// no hook sees it (inside libc, or by a raw system call). `opened`: by this very call, with these of
/// open(2)'s flags.
pub fn fresh(guard: &Guard, fd: i32, opened: Option<u32>) {
    let Some(entry) = entry(fd) else { return };
    let now = opened.map_or(UNKNOWN, |flags| u64::from(flags) << 32 | FRESH);
    let before = entry.swap(now, Ordering::Relaxed);
    if HIGHEST.load(Ordering::Relaxed) < fd {
        HIGHEST.fetch_max(fd, Ordering::Relaxed);
    }
    leaves(guard, fd, before, How::ClosedUnseen, kernel::Counts::UNKNOWN);
}

/// `new` is now another name of `old`.
pub fn duplicate(guard: &Guard, old: i32, new: i32) {
    settle(guard, old);
    let Some(value) = entry(old).map(|e| e.load(Ordering::Relaxed)) else { return };
    if let Some(object) = unpack(value).and_then(objects::get) {
        object.add_ref();
    }
    link(new, value);
}

/// The kernel's counts of what `fd` leads to, while it is still open. A file is looked at.
pub fn counts(guard: &Guard, object: &Object, fd: i32) -> kernel::Counts {
    if object.channel() == Channel::File {
        file::look_back(guard, object, fd);
    }
    if object.channel() != Channel::Tcp || object.carries.load(Ordering::Relaxed) != 0 {
        return kernel::Counts::UNKNOWN;
    }
    kernel::tcp_counts(fd, object.flags.load(Ordering::Relaxed) & counterfoil_abi::record::IN_EOF != 0)
}

/// `fd` is about to be closed, or (with the counts taken before) has been replaced.
pub fn forget(guard: &Guard, fd: i32, counts: kernel::Counts) {
    let Some(entry) = entry(fd) else { return };
    let before = entry.swap(UNKNOWN, Ordering::Relaxed);
    leaves(guard, fd, before, How::Closed, counts);
}

/// `fd` leads no more where its entry `before` says.
fn leaves(guard: &Guard, fd: i32, before: u64, how: How, counts: kernel::Counts) {
    if let Some(object) = unpack(before).and_then(objects::get) {
        file::leaves(fd, object);
        object.drop_ref(guard, how, counts);
    }
}

/// `fd` was closed or replaced inside another recording, where that can't be told: what passes through it from here on
/// may be something else's.
#[cold]
pub fn lost(fd: i32) {
    if let Some(object) = known(fd) {
        object.miss();
    }
}

/// Nothing is known of `fd`, or nothing that matters when it closes.
#[inline]
pub fn unremarkable(fd: i32) -> bool {
    entry(fd).is_none_or(|e| {
        let value = e.load(Ordering::Relaxed);
        kind(value) < FIRST && !(kind(value) == FRESH && file::matters((value >> 32) as u32))
    })
}

/// `fd`, which led to no object, is closed.
#[inline]
pub fn unlook(fd: i32) {
    if let Some(entry) = entry(fd)
        && entry.load(Ordering::Relaxed) != UNKNOWN
    {
        entry.store(UNKNOWN, Ordering::Relaxed);
    }
}

/// Looks at what an open may have made, and nothing has used: it may be all there is to tell.
pub fn settle_made(guard: &Guard) {
    for fd in 0..=HIGHEST.load(Ordering::Relaxed) {
        if !unremarkable(fd) {
            settle(guard, fd);
        }
    }
}

/// Calls `each` for every descriptor that leads to an object.
pub fn for_each(mut each: impl FnMut(i32, &'static Object)) {
    for fd in 0..=HIGHEST.load(Ordering::Relaxed) {
        if let Some(object) = known(fd) {
            each(fd, object);
        }
    }
}

/// What each descriptor up to the highest leads to.
pub fn names() -> impl Iterator<Item = Option<Name>> {
    (0..=HIGHEST.load(Ordering::Relaxed)).map(|fd| unpack(entry(fd)?.load(Ordering::Acquire)))
}

/// Tells the daemon what an object is, with what is known by now.
pub fn tell_opened(guard: &Guard, object: &Object, fd: i32, peer_inode: u64) {
    lanes::push_record(guard, &opened(object, fd, peer_inode));
}

/// See [`tell_opened`].
pub fn opened(object: &Object, fd: i32, peer_inode: u64) -> Opened {
    let channel = object.channel();
    let mut record = Opened {
        header: lanes::header(Kind::Opened, 4, 0, object.number()),
        channel: channel as u8,
        fd,
        device: object.device.load(Ordering::Relaxed),
        inode: object.inode.load(Ordering::Relaxed),
        peer_inode,
        ..Zeroable::zeroed()
    };
    record.header.flags = object.opened.load(Ordering::Relaxed);
    if channel == Channel::File {
        record.peer_inode = object.file.empty_at();
        if object.file.began() != 0 {
            record.header.time = object.file.began();
        }
    } else if channel == Channel::Pipe {
        record.header.tap = if writes(object) { object.taps().0 } else { object.taps().1 } as u8;
    } else if fd >= 0 && !process::sandboxed() {
        let ends = kernel::ends(fd, channel);
        record.local = ends.local;
        record.remote = ends.remote;
        record.name = ends.name;
        record.name_len = ends.name_len as u32;
        record.peer_pid = ends.peer_pid;
    }
    record
}
