//! What happens to a file beside reading and writing: copies that the kernel makes, mappings, seeks, changes
//! of length and of flags.

use super::told::in_full;
use super::{
    AGAIN, MUTE, READ, READ_REST, STDIO, Turn, USED, WRITE_REST, WROTE, is_file, known, sides, tell_opened,
};
use crate::fds;
use crate::kernel;
use crate::objects::{self, Object};
use crate::thread::Guard;
use core::sync::atomic::Ordering::Relaxed;
use counterfoil_abi::UNKNOWN;
use counterfoil_abi::record::UNPLAUSIBLE;
use libc::O_APPEND;

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
        file.written.store(kernel::realtime(), Relaxed);
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
        file.written.store(UNPLAUSIBLE, Relaxed);
    }
}

fn enter_at_rest(guard: &Guard, object: &Object, fd: i32, way: u8) -> bool {
    if object.file.is(MUTE) || !tell_opened(guard, object, fd) {
        return false;
    }
    object.file.mark(sides(object, way).2);
    true
}

/// lseek has answered: `fd` stands at `position`.
#[inline]
pub fn sought(guard: &Guard, fd: i32, offset: i64, whence: i32, position: u64) {
    fds::settle(guard, fd);
    let Some(object) = known(fd) else { return };
    let file = &object.file;
    let before = file.position.swap(position, Relaxed);
    if file.is(AGAIN) && before != position && object.into.offset() != 0 {
        // What is read from there on is read twice.
        in_full(guard, object, fd, false);
    }
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
        object.file.written.store(kernel::realtime(), Relaxed);
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

/// The shared position was moved to `here` by what no hook sees. Where only another program may have done
/// that, it is nothing of ours.
pub(super) fn moved_unseen(object: &Object, here: u64, by_stdio: bool) {
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
        file.written.store(kernel::realtime(), Relaxed);
    }
}
