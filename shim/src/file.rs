//! A regular file, as a watched process uses it: where its descriptor stands, whether its bytes go
//! through in order, and what is said of it at the end.
//!
//! Comes in: what [`crate::record`] passes on for calls on files, before and after the real call. Goes
//! out: `Opened` and `Named` at the first use, blocks while the bytes go in order, `File` before `Ended`.
//! A file's stream counts from the file's start. What doesn't continue where the stream stands (out of
//! order, mapped, copied by the kernel, through stdio) is left to be read at rest: no more tags, no
//! digest, only how far it went.
//!
//! One [`File`] belongs to one open(2), as the kernel's file position does: all its descriptors lead to
//! the same, in all forks.

mod digest;
mod stdio;

use crate::kernel::{self, Identity};
use crate::objects::{self, Object};
use crate::stream::{Offer, Pieces, Stream};
use crate::thread::Guard;
use crate::{fds, lanes, names, process, start};
use bytemuck::Zeroable;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use counterfoil_abi::UNKNOWN;
use counterfoil_abi::record::{
    self, How, IN_EOF, Kind, LAST, MADE_EMPTY, Naming, READ_AT_REST, READ_DIGEST, Stat, Tap, WRITE_AT_REST,
    WRITE_DIGEST,
};
use digest::Digest;
use libc::{O_ACCMODE, O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};
pub use stdio::{closing_stream, opened_stream};

/// See the module's text. All zero in a free object; the atomics need no order among themselves, and
/// what is hashed belongs to who has claimed the stream.
#[repr(C)]
pub struct File {
    state: AtomicU32,
    /// open(2)'s flags.
    opened_with: AtomicU32,
    /// [`process::sharings`] when it was opened.
    sharings: AtomicU32,
    /// The shared file position; UNKNOWN if it must be asked for.
    position: AtomicU64,
    /// When our last write was done; UNKNOWN where that can't be said (mapped).
    written: AtomicU64,
    /// How far it was read.
    read_to: AtomicU64,
    /// How far it was written.
    wrote_to: AtomicU64,
    before: Stated,
    after: Stated,
    read: Digest,
    write: Digest,
}

#[repr(C)]
struct Stated([AtomicU64; 3]);

impl Stated {
    fn set(&self, stat: Stat) {
        for (word, value) in self.0.iter().zip([stat.size, stat.modified, stat.changed]) {
            word.store(value, Relaxed);
        }
    }

    fn get(&self) -> Stat {
        let [size, modified, changed] = &self.0;
        Stat { size: size.load(Relaxed), modified: modified.load(Relaxed), changed: changed.load(Relaxed) }
    }

    fn size(&self) -> u64 {
        self.0[0].load(Relaxed)
    }
}

/// `Opened` was said.
const TOLD: u32 = 1;
/// There is something to say.
const USED: u32 = 2;
/// Not content: the kernel's own files.
const MUTE: u32 = 4;
const READ_REST: u32 = 8;
const WRITE_REST: u32 = 16;
/// The open made it, or made it empty.
const MADE: u32 = 32;
/// A FILE leads to it.
const STDIO: u32 = 64;
/// Its position may be moved by what no hook sees.
const EXPOSED: u32 = 128;
const READ: u32 = 256;
const WROTE: u32 = 512;

/// What is to be done with a call's bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    Pass,
    /// Only how far they went is noted.
    Rest,
    /// The stream is claimed: they are tagged if they turn out to be next.
    Flow,
}

fn writable(flags: u32) -> bool {
    matches!(flags as i32 & O_ACCMODE, O_WRONLY | O_RDWR)
}

/// An open with these flags may have made a file, or made one empty: its end is of interest even if
/// nothing passes.
pub fn makes(flags: u32) -> bool {
    flags as i32 & (O_CREAT | O_TRUNC) != 0 && writable(flags) && process::watched()
}

/// A file that was just looked at for the first time. `flags`: those of the open that this process has
/// just made; None: it was opened elsewhere, and may stand anywhere.
pub fn begin(object: &Object, fd: i32, identity: &Identity, flags: Option<u32>) {
    let file = &object.file;
    let known = flags.or_else(|| kernel::open_flags(fd)).unwrap_or(O_RDONLY as u32);
    let position = if flags.is_some() { 0 } else { kernel::position(fd).unwrap_or(UNKNOWN) };
    let opened = known as i32;
    let emptied =
        identity.stat.size == 0 || opened & O_TRUNC != 0 || opened & O_EXCL != 0 && opened & O_CREAT != 0;
    let mut state = 0;
    if writable(known) && emptied && (flags.is_some() || identity.stat.size == 0) {
        state |= MADE;
    }
    if flags.is_none() || fd <= libc::STDERR_FILENO {
        state |= EXPOSED;
    }
    if opened & O_APPEND != 0 {
        state |= WRITE_REST;
    }
    file.before.set(identity.stat);
    file.opened_with.store(known, Relaxed);
    file.position.store(position, Relaxed);
    file.sharings.store(process::sharings(), Relaxed);
    file.state.store(state, Relaxed);
}

impl File {
    /// As new.
    pub fn clear(&self) {
        for word in [&self.position, &self.written, &self.read_to, &self.wrote_to] {
            word.store(0, Relaxed);
        }
        self.state.store(0, Relaxed);
        self.before.set(Stat::default());
        self.after.set(Stat::default());
        self.read.clear();
        self.write.clear();
    }

    /// Something happened with it that is to be told.
    pub fn used(&self) -> bool {
        self.is(USED)
    }

    /// How far it was written and read.
    pub fn totals(&self) -> (u64, u64) {
        (self.wrote_to.load(Relaxed), self.read_to.load(Relaxed))
    }

    fn is(&self, bits: u32) -> bool {
        self.state.load(Relaxed) & bits != 0
    }

    fn mark(&self, bits: u32) {
        if self.state.load(Relaxed) & bits != bits {
            self.state.fetch_or(bits, Relaxed);
        }
    }

    fn flags(&self) -> i32 {
        self.opened_with.load(Relaxed) as i32
    }

    /// Somebody else may use its descriptors by now.
    fn shared(&self) -> bool {
        self.is(EXPOSED) || self.sharings.load(Relaxed) != process::sharings()
    }

    /// Directions that its descriptors allow, as states.
    fn allowed(&self) -> u32 {
        match self.flags() & O_ACCMODE {
            O_WRONLY => WRITE_REST,
            O_RDWR => READ_REST | WRITE_REST,
            _ => READ_REST,
        }
    }

    /// Where a call that moved `bytes` bytes at `at` (None: at the shared position) began.
    fn place(&self, fd: i32, at: Option<u64>, bytes: u64) -> Option<u64> {
        if at.is_some() {
            return at;
        }
        let mut end = self.position.load(Relaxed).checked_add(bytes);
        if end.is_none() || self.shared() {
            end = kernel::position(fd);
        }
        self.position.store(end.unwrap_or(UNKNOWN), Relaxed);
        end?.checked_sub(bytes)
    }
}

fn sides(object: &Object, way: u8) -> (&Stream, Tap, u32) {
    if way == objects::OUT {
        (&object.out, Tap::FileWrite, WRITE_REST)
    } else {
        (&object.into, Tap::FileRead, READ_REST)
    }
}

/// Before a call that moves bytes through `fd`, which leads to `object`.
#[inline]
pub fn enter(guard: &Guard, object: &Object, fd: i32, way: u8) -> Turn {
    let file = &object.file;
    if file.is(MUTE) || (!file.is(TOLD) && !tell_opened(guard, object, fd)) {
        return Turn::Pass;
    }
    let (stream, tap, rest) = sides(object, way);
    if file.is(rest) {
        return Turn::Rest;
    }
    if process::watched() && stream.take(guard, object.number(), tap) {
        return Turn::Flow;
    }
    // Two at once, or a call that could not be recorded: where that left the position, who knows.
    file.mark(rest);
    file.position.store(UNKNOWN, Relaxed);
    Turn::Rest
}

/// After a call that read.
#[inline]
#[allow(clippy::too_many_arguments, reason = "one call's facts")]
pub fn took<P: Pieces + ?Sized>(
    guard: &Guard,
    object: &Object,
    fd: i32,
    at: Option<u64>,
    result: isize,
    asked: usize,
    data: &P,
    turn: Turn,
) {
    let file = &object.file;
    let stream = &object.into;
    if result > 0 {
        let bytes = result as u64;
        let began = file.place(fd, at, bytes);
        file.mark(READ);
        if let Some(began) = began {
            file.read_to.fetch_max(began.saturating_add(bytes), Relaxed);
        }
        if turn == Turn::Flow {
            let here = stream.offset();
            // SAFETY: claimed.
            let digest = unsafe { file.read.get() };
            let next = match began {
                Some(began) if began == here => true,
                // Read again from the start: `file`, rsync, curl and tar look at the head first.
                Some(0) => {
                    digest.rewind(here);
                    stream.tell(guard, object.number(), Tap::FileRead);
                    stream.restart();
                    true
                }
                _ => false,
            };
            if next && digest.take(stream.offset(), data, bytes) {
                stream.took(guard, object.number(), Tap::FileRead, data, bytes);
            } else {
                file.mark(READ_REST);
            }
        }
    } else if result == 0 && asked != 0 && at.is_none_or(|at| at <= file.read_to.load(Relaxed)) {
        object.flag(IN_EOF);
    }
    if turn == Turn::Flow {
        stream.release();
    }
}

/// Before a write: `data` is offered. The stream is claimed, and its tags are computed already.
#[inline]
pub fn offered<P: Pieces + ?Sized>(object: &Object, data: &P, bytes: u64) {
    // SAFETY: claimed.
    unsafe { object.file.write.get() }.offer(data, bytes);
}

/// After a call that wrote; `offer` is None where none was made.
#[inline]
#[allow(clippy::too_many_arguments, reason = "one call's facts")]
pub fn gave<P: Pieces + ?Sized>(
    guard: &Guard,
    object: &Object,
    fd: i32,
    at: Option<u64>,
    result: isize,
    data: &P,
    offer: &mut Offer,
    turn: Turn,
) {
    let file = &object.file;
    let stream = &object.out;
    let bytes = u64::try_from(result).unwrap_or(0);
    let mut next = false;
    if bytes > 0 {
        // An append goes to the end, wherever that is: how far is asked once, when it ends.
        let began = if file.flags() & O_APPEND != 0 {
            file.position.store(UNKNOWN, Relaxed);
            None
        } else {
            file.place(fd, at, bytes)
        };
        file.mark(WROTE);
        file.written.store(realtime(), Relaxed);
        if let Some(began) = began {
            file.wrote_to.fetch_max(began.saturating_add(bytes), Relaxed);
        }
        next = turn == Turn::Flow && began == Some(stream.offset());
        if !next {
            file.mark(WRITE_REST);
        }
    }
    if turn == Turn::Flow {
        if next {
            // SAFETY: claimed.
            unsafe { file.write.get() }.accept(data, bytes);
            stream.accepted(guard, object.number(), Tap::FileWrite, data, offer, bytes);
        } else {
            stream.refused(offer);
        }
        stream.release();
    }
}

/// After a call that moved `result` bytes without showing them; `end`: where that ended, if it was not at
/// the shared position.
pub fn copied(object: &Object, fd: i32, way: u8, result: isize, end: Option<u64>, turn: Turn) {
    let (stream, _, rest) = sides(object, way);
    if turn == Turn::Flow {
        stream.release();
    }
    if result <= 0 {
        return;
    }
    let file = &object.file;
    file.mark(rest | if way == objects::OUT { WROTE } else { READ });
    if end.is_none() {
        file.position.store(UNKNOWN, Relaxed);
    }
    let furthest = if way == objects::OUT { &file.wrote_to } else { &file.read_to };
    if let Some(end) = end.or_else(|| kernel::position(fd)) {
        furthest.fetch_max(end, Relaxed);
    }
    if way == objects::OUT {
        file.written.store(realtime(), Relaxed);
    }
}

/// `fd` is a clone of another file's blocks now (FICLONE), or `fd` was cloned.
pub fn cloned(guard: &Guard, fd: i32, way: u8) {
    if let Some(object) = fds::find(guard, fd).filter(|o| is_file(o))
        && enter_at_rest(guard, object, fd, way)
    {
        let size = kernel::file(fd).map_or(0, |inode| inode.stat.size);
        copied(object, fd, way, 1, Some(size), Turn::Rest);
    }
}

/// `fd`'s content up to `end` was mapped.
pub fn mapped(guard: &Guard, fd: i32, reads: bool, writes: bool, end: u64) {
    let Some(object) = fds::find(guard, fd).filter(|o| is_file(o)) else { return };
    let file = &object.file;
    let end = end.min(kernel::file(fd).map_or(0, |inode| inode.stat.size));
    if reads && enter_at_rest(guard, object, fd, objects::IN) {
        file.mark(READ);
        file.read_to.fetch_max(end, Relaxed);
    }
    if writes && enter_at_rest(guard, object, fd, objects::OUT) {
        file.mark(WROTE);
        file.wrote_to.fetch_max(end, Relaxed);
        // The mapping may be written to after the descriptor is closed.
        file.written.store(UNKNOWN, Relaxed);
    }
}

fn enter_at_rest(guard: &Guard, object: &Object, fd: i32, way: u8) -> bool {
    if object.file.is(MUTE) || !tell_opened(guard, object, fd) {
        return false;
    }
    object.file.mark(sides(object, way).2);
    true
}

fn is_file(object: &Object) -> bool {
    object.channel() == record::Channel::File
}

fn known(fd: i32) -> Option<&'static Object> {
    fds::known(fd).filter(|object| is_file(object))
}

/// lseek has answered: `fd` stands at `position`.
#[inline]
pub fn sought(guard: &Guard, fd: i32, offset: i64, whence: i32, position: u64) {
    fds::settle(guard, fd);
    let Some(object) = known(fd) else { return };
    let file = &object.file;
    let before = file.position.swap(position, Relaxed);
    // It says where it stood, too.
    if whence == libc::SEEK_CUR && before != UNKNOWN && position.checked_add_signed(-offset) != Some(before) {
        moved_unseen(object, position, file.is(STDIO));
    }
}

/// `fd`'s file was cut or lengthened to `length`; `grows`: at least to that. `inside`: and something before
/// that was changed.
pub fn resized(guard: &Guard, fd: i32, length: u64, inside: bool, grows: bool) {
    fds::settle(guard, fd);
    let Some(object) = known(fd) else { return };
    let flowed = object.out.offset();
    if object.file.is(WROTE) {
        object.file.written.store(realtime(), Relaxed);
    }
    if (length < flowed && !grows) || (inside && flowed != 0) {
        object.file.mark(WRITE_REST);
    }
}

/// fcntl has set `fd`'s flags.
pub fn set_flags(guard: &Guard, fd: i32, flags: i32) {
    if flags & O_APPEND == 0 {
        return;
    }
    fds::settle(guard, fd);
    if let Some(object) = known(fd) {
        object.file.opened_with.fetch_or(O_APPEND as u32, Relaxed);
        object.file.mark(WRITE_REST);
    }
}

/// Says what the file is, once. False: it is nothing to be told.
#[inline]
pub fn tell_opened(guard: &Guard, object: &Object, fd: i32) -> bool {
    let state = object.file.state.load(Relaxed);
    if state & (TOLD | MUTE | USED) == TOLD | USED { true } else { introduce(guard, object, fd) }
}

#[cold]
fn introduce(guard: &Guard, object: &Object, fd: i32) -> bool {
    let file = &object.file;
    if file.is(MUTE) {
        return false;
    }
    if file.state.fetch_or(TOLD | USED, Relaxed) & TOLD != 0 {
        return true;
    }
    names::of_descriptor(fd, |name| {
        if name.is_some_and(|name| KERNELS.iter().any(|&kernels| name.starts_with(kernels))) {
            file.mark(MUTE);
            return false;
        }
        fds::tell_opened(guard, object, fd, 0);
        if let Some(name) = name {
            let (device, inode) = (object.device.load(Relaxed), object.inode.load(Relaxed));
            names::tell(guard, Naming::Path, object.number(), device, inode, name);
        }
        true
    })
}

/// Files that are no content, but the kernel's answers; and memory that has no name.
const KERNELS: [&[u8]; 3] = [b"/proc/", b"/sys/", b"/memfd:"];

/// Looks at a file while `fd` is still open: it may be about to be closed.
pub fn look_back(guard: &Guard, object: &Object, fd: i32) {
    let file = &object.file;
    if file.is(MUTE) {
        return;
    }
    let Some(inode) = kernel::file(fd) else { return };
    file.after.set(inode.stat);
    unseen_moves(object, fd);
    let size = inode.stat.size;
    let elsewhere = record::INHERITED | record::ATTACHED_LATE;
    if file.is(MADE) && size == 0 && object.held_once() && object.opened.load(Relaxed) & elsewhere == 0 {
        file.mark(USED);
    }
    if file.is(WROTE) && !file.is(WRITE_REST) {
        let flowed = object.out.offset();
        // Somebody else has written, or it was made longer: then it is not what flowed.
        let right = if file.is(MADE) { flowed } else { flowed.max(file.before.size()).min(size.max(flowed)) };
        if size != right {
            file.mark(WRITE_REST);
        }
    }
    if file.is(WROTE) && file.flags() & O_APPEND != 0 {
        file.wrote_to.fetch_max(size, Relaxed);
    }
    if file.is(USED) {
        tell_opened(guard, object, fd);
    }
}

/// Bytes that moved where no hook saw it: through stdio, by a raw system call, through io_uring.
fn unseen_moves(object: &Object, fd: i32) {
    let file = &object.file;
    let here = kernel::position(fd);
    let expected = file.position.load(Relaxed);
    let moved = here.filter(|&here| expected != UNKNOWN && here != expected);
    let since = file.sharings.load(Relaxed) != process::sharings();
    // What stdin and stdout are, children may have moved as well: then nothing is known.
    let by_stdio = file.is(STDIO) || (!since && stdio::uses(fd));
    let pending = start::leaving()
        && (file.is(STDIO) || stdio::pending(fd))
        && writable(file.opened_with.load(Relaxed));
    if let Some(here) = moved {
        moved_unseen(object, here, by_stdio);
    }
    if pending {
        // libc writes what it still holds after us.
        file.mark(USED | WROTE | WRITE_REST);
        file.written.store(UNKNOWN, Relaxed);
    }
}

/// The shared position was moved to `here` by what no hook sees. Where only another program may have done
/// that, it is nothing of ours.
fn moved_unseen(object: &Object, here: u64, by_stdio: bool) {
    let file = &object.file;
    if file.shared() && !by_stdio {
        return;
    }
    let ways = file.allowed();
    file.mark(USED | ways);
    if ways & READ_REST != 0 {
        file.mark(READ);
        file.read_to.fetch_max(here, Relaxed);
    }
    if ways & WRITE_REST != 0 {
        file.mark(WROTE);
        file.wrote_to.fetch_max(here, Relaxed);
        file.written.store(realtime(), Relaxed);
    }
}

/// Says how the file was and is, before its `Ended`.
pub fn tell(guard: &Guard, object: &Object, how: How) {
    let file = &object.file;
    let mut record = record::File {
        header: lanes::header(Kind::File, 3, 0, object.number()),
        opened_with: file.opened_with.load(Relaxed),
        before: file.before.get(),
        after: if how == How::ClosedUnseen { Stat::default() } else { file.after.get() },
        written: file.written.load(Relaxed),
        ..Zeroable::zeroed()
    };
    let mut flags = if how == How::Checkpoint { 0 } else { LAST };
    let empty = file.is(MADE) && file.after.size() == 0;
    if file.is(READ) || object.has_flag(IN_EOF) {
        match digest_of(guard, object, objects::IN) {
            Some((bytes, digest)) => {
                flags |= READ_DIGEST;
                (record.read_bytes, record.read_digest) = (bytes, digest);
            }
            None => flags |= READ_AT_REST,
        }
    }
    if file.is(WROTE) || empty {
        match digest_of(guard, object, objects::OUT) {
            Some((bytes, digest)) => {
                flags |= WRITE_DIGEST;
                (record.write_bytes, record.write_digest) = (bytes, digest);
            }
            None => flags |= WRITE_AT_REST,
        }
    }
    record.header.flags = flags | if file.is(MADE) { MADE_EMPTY } else { 0 };
    lanes::push_record(guard, &record);
}

/// What flowed one way; None: it must be read at rest.
fn digest_of(guard: &Guard, object: &Object, way: u8) -> Option<(u64, [u8; 32])> {
    let (stream, tap, rest) = sides(object, way);
    if object.file.is(rest) || !stream.take(guard, object.number(), tap) {
        return None;
    }
    let digest = if way == objects::OUT { &object.file.write } else { &object.file.read };
    // SAFETY: claimed.
    let said = unsafe { digest.get() }.say(stream.offset());
    stream.release();
    Some(said)
}

/// Not the coarse clock, which may be behind a file's times (multigrain timestamps, Linux 6.13). The vDSO,
/// no system call.
fn realtime() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}
