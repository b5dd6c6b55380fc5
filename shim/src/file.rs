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

mod again;
mod claimed;
mod digest;
mod moves;
mod stdio;
mod told;

use crate::kernel::{self, Identity};
use crate::objects::{self, Object};
use crate::stream::{Offer, Pieces, Stream};
use crate::thread::Guard;
use crate::{fds, lanes, process};
use again::{Due, Sum};
use claimed::Claimed;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use counterfoil_abi::UNKNOWN;
use counterfoil_abi::record::{Channel, IN_EOF, Stat, Tap};
use digest::Digest;
use libc::{O_ACCMODE, O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};
pub use moves::{cloned, copied, mapped, resized, set_flags, sought};
pub use stdio::{closing_stream, leaves, opened_stream, uncounted};
pub use told::{look_back, tell, tell_opened, unseen_close};

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
    /// When our last write was done; UNPLAUSIBLE where that can't be said (mapped).
    written: AtomicU64,
    /// When our last read was done, of what goes in order.
    read_at: AtomicU64,
    /// How far it was read.
    read_to: AtomicU64,
    /// How far it was written.
    wrote_to: AtomicU64,
    /// When it was seen to be empty.
    empty_at: AtomicU64,
    /// When it was first looked at, 0: it is told at that moment.
    began: AtomicU64,
    before: Stated,
    after: Stated,
    read: Claimed<Digest>,
    write: Claimed<Digest>,
    sum: Claimed<Sum>,
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
/// Nothing was said: it seems to be read as it was read before.
const AGAIN: u32 = 1024;
/// A sum is made of what is read, so that the next reading may be known to be the same.
const SUMMED: u32 = 2048;

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
///
/// One that opened a file to be read is, too: an empty file that is sent has nothing else to be seen by.
pub fn matters(flags: u32) -> bool {
    let opened = flags as i32;
    let made = opened & (O_CREAT | O_TRUNC) != 0 && writable(flags);
    let read = opened & O_ACCMODE == O_RDONLY && opened & (libc::O_DIRECTORY | libc::O_PATH) == 0;
    (made || read) && process::watched()
}

/// A file that was just looked at for the first time. `flags`: those of the open that this process has
/// just made; None: it was opened elsewhere, and may stand anywhere.
pub fn begin(object: &Object, fd: i32, identity: &Identity, flags: Option<u32>) {
    process::meets(identity.device, identity.inode);
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
    if flags.is_some() && state & EXPOSED == 0 && opened & O_ACCMODE == O_RDONLY {
        state |= match again::due(identity) {
            Due::Full => 0,
            Due::Summed => SUMMED,
            Due::Again => {
                file.began.store(lanes::now(), Relaxed);
                AGAIN
            }
        };
    }
    file.before.set(identity.stat);
    file.empty_at.store(if identity.stat.size == 0 { lanes::now() } else { 0 }, Relaxed);
    file.opened_with.store(known, Relaxed);
    file.position.store(position, Relaxed);
    file.sharings.store(process::sharings(), Relaxed);
    file.state.store(state, Relaxed);
}

impl File {
    /// As new.
    pub fn clear(&self) {
        let words = [&self.position, &self.written, &self.read_at, &self.read_to, &self.wrote_to];
        for word in words.into_iter().chain([&self.empty_at, &self.began]) {
            word.store(0, Relaxed);
        }
        self.state.store(0, Relaxed);
        self.before.set(Stat::default());
        self.after.set(Stat::default());
        // SAFETY: the object is being made: nobody else has it.
        let (read, write, sum) = unsafe { (self.read.get(), self.write.get(), self.sum.get()) };
        read.restart();
        write.restart();
        sum.restart();
    }

    /// The daemon has heard of it.
    pub fn is_told(&self) -> bool {
        self.is(TOLD)
    }

    /// Something happened with it that is to be told.
    pub fn used(&self) -> bool {
        self.is(USED)
    }

    /// When it was first looked at; 0: now.
    pub fn began(&self) -> u64 {
        self.began.load(Relaxed)
    }

    /// When it was seen to be empty, 0: it wasn't.
    pub fn empty_at(&self) -> u64 {
        self.empty_at.load(Relaxed)
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

    /// How it stood before.
    fn unmark(&self, bits: u32) -> u32 {
        self.state.fetch_and(!bits, Relaxed)
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
#[inline(never)]
pub fn enter(guard: &Guard, object: &Object, fd: i32, way: u8) -> Turn {
    let file = &object.file;
    if file.is(MUTE) || (!file.is(TOLD | AGAIN) && !tell_opened(guard, object, fd)) {
        return Turn::Pass;
    }
    let (stream, tap, rest) = sides(object, way);
    if file.is(rest) {
        return Turn::Rest;
    }
    if process::watched() && stream.take(guard, object.number(), tap) {
        if file.flags() & O_ACCMODE == O_RDWR && other(object, way).busy() {
            // Both move one position, in an order that nobody knows.
            file.mark(READ_REST | WRITE_REST);
            file.position.store(UNKNOWN, Relaxed);
        }
        return Turn::Flow;
    }
    // Two at once, or a call that could not be recorded: where that left the position, who knows.
    file.mark(rest);
    file.position.store(UNKNOWN, Relaxed);
    Turn::Rest
}

fn other(object: &Object, way: u8) -> &Stream {
    if way == objects::OUT { &object.into } else { &object.out }
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
        if turn == Turn::Flow && file.is(AGAIN | SUMMED) {
            // SAFETY: claimed.
            let sum = unsafe { file.sum.get() };
            if file.is(AGAIN) && (began != Some(sum.at()) || again::is_late(object)) {
                told::in_full(guard, object, fd, true);
            } else if !began.is_some_and(|began| sum.take(began, data, bytes)) {
                file.unmark(SUMMED);
            }
        }
        if turn == Turn::Flow && file.is(AGAIN) {
            stream.count(bytes);
        } else if turn == Turn::Flow && !file.is(READ_REST) {
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
            file.read_at.store(kernel::realtime(), Relaxed);
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
    if result < 0 {
        crate::record::ended_badly(object, result, true, 0);
    }
    if bytes > 0 {
        // An append goes to the end, wherever that is: how far is asked once, when it ends.
        let began = if file.flags() & O_APPEND != 0 {
            file.position.store(UNKNOWN, Relaxed);
            None
        } else {
            file.place(fd, at, bytes)
        };
        file.mark(WROTE);
        file.written.store(kernel::realtime(), Relaxed);
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
            offer.withdraw();
        }
        stream.release();
    }
}

fn is_file(object: &Object) -> bool {
    object.channel() == Channel::File
}

fn known(fd: i32) -> Option<&'static Object> {
    fds::known(fd).filter(|object| is_file(object))
}
