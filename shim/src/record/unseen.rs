//! What happens around a call by which bytes pass a descriptor unseen: sendfile, splice, and their kin. The kernel moves them, and
//! no buffer of the program's holds them.
//!
//! Called by the hooks of such calls. They are counted, a gap is told where tags would be; the content of a file that goes out on a
//! connection is looked at in the file.

use super::{Call, Way, begun, looks_unwatched, nobody_asks, orphaned, release};
use crate::objects::{self, Object};
use crate::shield::{keeping_errno, shielded};
use crate::thread::Guard;
use crate::{content, file, kernel};
use counterfoil_abi::record::{Reason, Tap};

/// After a call that moved `result` bytes out through `fd` without showing them.
pub fn sent_unseen(call: Call, result: isize, reason: Reason) {
    unseen(call, result, objects::OUT, reason, None);
}

/// After a call by which the kernel sent `result` bytes of the file `from`; `end`: where in it that ended, if it was not
/// at the shared position. The content of a connection's start is looked at in the file: no tag is made of it, since
/// the file may have changed meanwhile.
pub fn sent_from_file(call: Call, result: isize, from: i32, end: Option<u64>) {
    if result > 0 && matches!(call.way, Way::Tag | Way::Look) {
        let looks = |object: &Object| looks_unwatched(object, object.channel());
        if let Some(object) = call.object().filter(|o| looks(o)) {
            return keeping_errno(|| shielded((), || copied(call, object, result as u64, from, end)));
        }
    }
    sent_unseen(call, result, Reason::KernelCopy);
}

fn copied(call: Call, object: &Object, bytes: u64, from: i32, end: Option<u64>) {
    let (stream, tap, number) = (&object.out, object.taps().0, object.number());
    match Guard::enter() {
        Some(guard) => {
            let start = end.or_else(|| kernel::position(from)).and_then(|end| end.checked_sub(bytes));
            let most = bytes.min(content::START.saturating_sub(stream.offset()));
            let looked = start.map_or(0, |start| {
                kernel::read_again(from, start, most, |ahead, data| {
                    stream.look(&guard, number, tap, ahead, data);
                })
            });
            match call.way {
                Way::Tag => stream.skip(&guard, number, tap, bytes, looked, Reason::KernelCopy),
                _ if looked == bytes => stream.passed(bytes),
                _ => stream.count(bytes),
            }
        }
        None => stream.miss(),
    }
    release(call, stream);
}

/// [`sent_unseen`], and where in the file that ended, if that was not at the shared position.
pub fn sent_unseen_to(call: Call, result: isize, reason: Reason, end: Option<u64>) {
    unseen(call, result, objects::OUT, reason, end);
}

/// [`received_unseen`], likewise.
pub fn received_unseen_to(call: Call, result: isize, reason: Reason, end: Option<u64>) {
    unseen(call, result, objects::IN, reason, end);
}

/// After a call that moved `result` bytes in through `fd` without showing them.
pub fn received_unseen(call: Call, result: isize, reason: Reason) {
    unseen(call, result, objects::IN, reason, None);
}

fn unseen(call: Call, result: isize, way: u8, reason: Reason, end: Option<u64>) {
    if call.way == Way::Pass {
        return;
    }
    keeping_errno(|| {
        shielded((), || {
            let Some(object) = call.object() else { return orphaned(call, None) };
            if let Way::File(turn) = call.way {
                return file::copied(object, call.fd, way, result, end, turn);
            }
            let (out, into) = object.taps();
            let (stream, tap): (_, Tap) =
                if way == objects::OUT { (&object.out, out) } else { (&object.into, into) };
            match Guard::enter() {
                Some(guard) if result > 0 && call.way == Way::Tag => {
                    stream.skip(&guard, object.number(), tap, result as u64, 0, reason);
                }
                Some(_) if result > 0 => stream.count(result as u64),
                None if result > 0 => stream.miss(),
                _ => {}
            }
            release(call, stream);
        });
    });
}

/// Before a call that moves bytes through `fd` without showing them.
pub fn moving(fd: i32, way: u8) -> Call {
    if nobody_asks(fd) {
        return Call::PASS;
    }
    begun(fd, way, |_, _| ())
}
