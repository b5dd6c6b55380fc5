//! Pipes through which sensitive content may pass, from one observed process to the next.
//!
//! Comes in: that this process has turned up, what pipes it holds, and the [`Board`] that it shares with its user's other
//! processes. Goes out: its pipes on the board; and a process that reads from one that is there turns itself up, before it
//! passes on what it read. A call costs three loads and a comparison: [`heed`].

use crate::objects::{self, Object};
use crate::{content, fds, process};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use counterfoil_abi::arena::POLICY_TURNED_UP;
use counterfoil_abi::board::Board;
use counterfoil_abi::matcher::key;
use counterfoil_abi::record::Channel;

/// The board where the daemon gave none: nothing is ever put up.
pub static NONE: Board = Board::empty();
/// [`state`] as it was last looked at.
static HEEDED: AtomicU64 = AtomicU64::new(0);

/// What this process shares with its user's others.
pub fn board() -> &'static Board {
    // SAFETY: mapped for the process's life, or `NONE`; valid for any bytes.
    unsafe { &*process::settings().board }
}

/// Whether this process is turned up, and how often anything was put on the board.
#[inline]
fn state() -> u64 {
    let up = process::arena().policy.load(Relaxed) & POLICY_TURNED_UP;
    u64::from(up) << 32 | u64::from(board().count())
}

/// Before bytes move through anything: has something been put up, or has this process been turned up?
#[inline]
pub fn heed() {
    if state() != HEEDED.load(Relaxed) {
        look();
    }
}

#[cold]
fn look() {
    let now = state();
    let before = HEEDED.swap(now, Relaxed);
    if now as u32 != before as u32 && !content::turned_up() {
        let mut wet = false;
        fds::for_each(|_, object| wet |= is_end(object, objects::IN) && board().has(name(object)));
        if wet {
            // That puts up those that it writes to.
            content::turn_up();
        }
    } else if now >> 32 != before >> 32 && content::turned_up() {
        put_up();
    }
}

/// This process has to do with sensitive content: what it holds may carry it.
pub fn put_up() {
    HEEDED.fetch_or(u64::from(POLICY_TURNED_UP) << 32, Relaxed);
    fds::for_each(|_, object| made(object));
}

/// A process that is turned up holds this.
pub fn made(object: &Object) {
    if is_end(object, objects::OUT) && !core::ptr::eq(board(), &raw const NONE) {
        board().put(name(object));
    }
}

/// It is a pipe's end of that direction.
fn is_end(object: &Object, way: u8) -> bool {
    object.channel() == Channel::Pipe && object.last.load(Relaxed) == way
}

fn name(object: &Object) -> u64 {
    key(object.device.load(Relaxed), object.inode.load(Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::turn_up;
    use crate::thread::Guard;
    use crate::{kernel, stream::tests as streams};
    use std::os::fd::{AsRawFd, OwnedFd};

    /// One end, and the pipe's name.
    struct End(OwnedFd, u64);

    impl End {
        fn new(end: OwnedFd) -> Self {
            fds::fresh(&Guard::enter().unwrap(), end.as_raw_fd(), None);
            let identity = kernel::identify(end.as_raw_fd()).unwrap();
            Self(end, key(identity.device, identity.inode))
        }

        /// As before a call that moves bytes through it.
        fn used(&self) {
            fds::find(&Guard::enter().unwrap(), self.0.as_raw_fd()).unwrap();
            heed();
        }
    }

    impl Drop for End {
        fn drop(&mut self) {
            fds::forget(&Guard::enter().unwrap(), self.0.as_raw_fd(), kernel::Counts::UNKNOWN);
        }
    }

    fn pipe() -> [End; 2] {
        let (into, out) = rustix::pipe::pipe().unwrap();
        [into, out].map(End::new)
    }

    fn down() {
        process::arena().policy.fetch_and(!POLICY_TURNED_UP, Relaxed);
    }

    #[test]
    fn who_reads_from_a_pipe_of_one_that_has_turned_up_does_too() {
        let _alone = streams::alone();
        let [into, _out] = pipe();
        into.used();
        assert!(!content::turned_up(), "nobody has said anything");
        board().put(key(13, 4711));
        into.used();
        assert!(!content::turned_up(), "another pipe");
        board().put(into.1);
        // Not at the pipe alone: what was read may leave anywhere.
        let [_, elsewhere] = pipe();
        elsewhere.used();
        assert!(content::turned_up(), "this one");
        assert!(board().has(elsewhere.1), "and what it writes to is put up for the next");
        into.used();
        down();
        into.used();
        assert!(!content::turned_up(), "no longer than the daemon says");
        board().put(into.1);
        into.used();
        assert!(content::turned_up(), "until it is said again");
        down();
    }

    #[test]
    fn what_one_that_has_turned_up_can_write_to_is_put_up() {
        let _alone = streams::alone();
        let [into, out] = pipe();
        into.used();
        out.used();
        assert!(!board().has(out.1));
        turn_up();
        assert!(board().has(out.1), "at once: stdio's writes pass no hook");
        let [_, later] = pipe();
        fds::find(&Guard::enter().unwrap(), later.0.as_raw_fd()).unwrap();
        assert!(board().has(later.1), "what it gets later");
        down();
    }
}
