//! What is said of a file: `Opened` and `Named` when it is first used, `File` before its `Ended`; and the look
//! at it before it is closed.

use super::moves::moved_unseen;
use super::{
    AGAIN, MADE, MUTE, READ, READ_REST, STDIO, TOLD, USED, WRITE_REST, WROTE, again, sides, stdio, writable,
};
use crate::objects::{self, Object};
use crate::thread::Guard;
use crate::{fds, images, kernel, lanes, names, process, start};
use bytemuck::Zeroable;
use core::sync::atomic::Ordering::Relaxed;
use counterfoil_abi::UNKNOWN;
use counterfoil_abi::record::{
    self, How, IN_EOF, Kind, LAST, MADE_EMPTY, Naming, READ_AT_REST, READ_DIGEST, Stat, Tap, UNPLAUSIBLE,
    WRITE_AT_REST, WRITE_DIGEST,
};
use libc::O_APPEND;

/// Says what the file is, once. False: it is nothing to be told.
#[inline]
pub fn tell_opened(guard: &Guard, object: &Object, fd: i32) -> bool {
    let state = object.file.state.load(Relaxed);
    if state & (TOLD | MUTE | USED) == TOLD | USED {
        true
    } else if state & AGAIN != 0 {
        in_full(guard, object, fd, false)
    } else {
        introduce(guard, object, fd)
    }
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
            if counterfoil_abi::images::named(name) {
                images::met();
            }
            let (device, inode) = (object.device.load(Relaxed), object.inode.load(Relaxed));
            names::tell(guard, Naming::Path, object.number(), device, inode, name);
        }
        true
    })
}

/// It isn't read as it was before, or by others, too: says what would have been said at first. False: it is nothing to be
/// told. `claimed`: the caller has the stream.
#[cold]
pub(super) fn in_full(guard: &Guard, object: &Object, fd: i32, claimed: bool) -> bool {
    let (file, stream) = (&object.file, &object.into);
    let mine = file.unmark(AGAIN) & AGAIN != 0;
    let told = introduce(guard, object, fd);
    if told && mine && stream.offset() != 0 && !file.is(READ_REST) {
        let held = claimed || stream.take(guard, object.number(), Tap::FileRead);
        if !held || !again::restore(guard, object, fd) {
            file.mark(READ_REST);
        }
        if held && !claimed {
            stream.release();
        }
    }
    told
}

/// Its last descriptor is something else by now: what was not told of it is.
pub fn unseen_close(guard: &Guard, object: &Object) {
    let file = &object.file;
    if file.is(AGAIN) && file.is(READ) && !again::tell(guard, object) {
        in_full(guard, object, -1, false);
    }
    file.unmark(AGAIN);
}

/// Files that are no content, but the kernel's answers; and memory that has no name.
const KERNELS: [&[u8]; 3] = [b"/proc/", b"/sys/", b"/memfd:"];

/// Looks at a file while `fd` is still open: it may be about to be closed.
pub fn look_back(guard: &Guard, object: &Object, fd: i32) {
    let file = &object.file;
    if file.is(MUTE) {
        return;
    }
    if file.is(AGAIN) {
        if again::tell(guard, object) {
            file.unmark(AGAIN);
            return;
        }
        if file.is(READ) {
            in_full(guard, object, fd, false);
        }
        file.unmark(AGAIN);
    }
    let Some(inode) = kernel::file(fd) else { return };
    file.after.set(inode.stat);
    unseen_moves(object, fd);
    let size = inode.stat.size;
    let elsewhere = record::INHERITED | record::ATTACHED_LATE;
    if file.is(MADE) && size == 0 && object.held_once() && object.opened.load(Relaxed) & elsewhere == 0 {
        file.mark(USED);
    }
    let to_read = file.flags() & libc::O_ACCMODE == libc::O_RDONLY && file.before.size() == 0;
    if to_read && size == 0 && object.opened.load(Relaxed) & elsewhere == 0 {
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
        file.written.store(UNPLAUSIBLE, Relaxed);
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
        read: file.read_at.load(Relaxed),
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
    let said = lanes::push_record(guard, &record);
    images::tell(guard);
    if said && how == How::Closed && record.header.flags & READ_DIGEST != 0 {
        again::told(guard, object);
    }
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
