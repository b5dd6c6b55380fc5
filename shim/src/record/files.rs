//! After calls that move a file's bytes: what [`crate::file`] is told of them.

use super::{Call, Way, orphaned, received, release, sent};
use crate::file::{self, Turn};
use crate::shield::{keeping_errno, shielded};
use crate::stream::{Offer, Pieces};
use crate::thread::Guard;

/// After a call that read at `offset` of a file.
#[inline]
pub fn received_at<P: Pieces + ?Sized>(call: Call, offset: i64, result: isize, asked: usize, data: &P) {
    if let Way::File(turn) = call.way {
        keeping_errno(|| {
            shielded((), || {
                after_file_read(call, turn, u64::try_from(offset).ok(), result, asked, data);
            });
        });
    } else {
        // Fails on all but files.
        received(call, result, asked, data);
    }
}

/// Apart: the way of sockets stays short.
#[inline(never)]
pub fn after_file_read<P: Pieces + ?Sized>(
    call: Call,
    turn: Turn,
    at: Option<u64>,
    result: isize,
    asked: usize,
    data: &P,
) {
    let Some(object) = call.object() else { return orphaned(call, None) };
    match Guard::enter() {
        Some(guard) => file::took(&guard, object, call.fd, at, result, asked, data, turn),
        None => {
            object.into.miss();
            release(call, &object.into);
        }
    }
}

/// After a call that wrote at `offset` of a file.
#[inline]
pub fn sent_at<P: Pieces + ?Sized>(call: Call, offset: i64, result: isize, data: &P, offer: &mut Offer) {
    if let Way::File(turn) = call.way {
        keeping_errno(|| {
            shielded((), || {
                after_file_write(call, turn, u64::try_from(offset).ok(), result, data, offer);
            });
        });
    } else {
        // Fails on all but files.
        sent(call, result, data, offer);
    }
}

/// See [`after_file_read`].
#[inline(never)]
pub fn after_file_write<P: Pieces + ?Sized>(
    call: Call,
    turn: Turn,
    at: Option<u64>,
    result: isize,
    data: &P,
    offer: &mut Offer,
) {
    let Some(object) = call.object() else { return orphaned(call, Some(offer)) };
    match Guard::enter() {
        Some(guard) => file::gave(&guard, object, call.fd, at, result, data, offer, turn),
        None => {
            object.out.miss();
            if turn == Turn::Flow {
                offer.withdraw();
            }
            release(call, &object.out);
        }
    }
}
