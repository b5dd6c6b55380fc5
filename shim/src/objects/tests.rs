//! What a relative with fewer rights may do to the memory that a family shares: write anything, anywhere.

use super::*;
use crate::file::{self, Turn};
use crate::shield::shielded;
use crate::stream::Offer;
use crate::stream::tests::{self as streams, Dice};
use counterfoil_abi::record::Reason;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;

/// Writes anything into an object, but for what says that it is there and free to be used.
fn garble(object: &'static Object, dice: &mut Dice) {
    let number = object.number();
    let words = core::ptr::from_ref(object).cast_mut().cast::<u64>();
    // Whole words of noise, or of one byte: small numbers and all ones find other mistakes than noise does.
    let plain = [None, Some(0), Some(u64::MAX), Some(0x0101_0101_0101_0101)][dice.below(4) as usize];
    for index in 0..size_of::<Object>() / 8 {
        if dice.below(4) > 0 {
            let word = plain.unwrap_or_else(|| dice.next());
            // SAFETY: within the object, which lies in memory that others may write to at any time; no reference
            // to what is not atomic is held here.
            unsafe { words.add(index).write_volatile(word) };
        }
    }
    object.number.store(number, Relaxed);
    object.refs.store(1, Relaxed);
    for stream in [&object.out, &object.into, &object.seal, &object.open] {
        stream.release_left();
    }
}

/// What the hooks do with an object, in any order.
fn use_it(object: &'static Object, fd: i32, data: &[u8], dice: &mut Dice) {
    let Some(guard) = Guard::enter() else { return };
    let (number, (out, into)) = (object.number(), object.taps());
    let length = data.len() as u64;
    let accepted = dice.below(length + 1);
    match dice.below(6) {
        0 if object.out.claim(&guard, number, out) => {
            let mut offer = Offer::new();
            if object.out.offer(&guard, data, length, &mut offer) {
                if accepted == 0 {
                    offer.withdraw();
                } else {
                    object.out.accepted(&guard, number, out, data, &mut offer, accepted);
                }
            }
            object.out.release();
        }
        1 if object.into.claim(&guard, number, into) => {
            object.into.took(&guard, number, into, data, length);
            object.into.release();
        }
        2 if object.into.claim(&guard, number, into) => {
            object.into.skip(&guard, number, into, accepted, 0, Reason::BypassedBytes);
            object.into.looked(&guard, number, into, data, length);
            object.into.release();
        }
        3 => {
            let turn = file::enter(&guard, object, fd, IN);
            if turn != Turn::Pass {
                file::took(&guard, object, fd, None, length as isize, data.len(), data, turn);
            }
        }
        4 => {
            let turn = file::enter(&guard, object, fd, OUT);
            let mut offer = Offer::new();
            if turn == Turn::Flow && object.out.offer(&guard, data, length, &mut offer) {
                file::offered(object, data, length);
                file::gave(&guard, object, fd, None, accepted as isize, data, &mut offer, turn);
            }
        }
        _ => object.checkpoint(&guard, How::Closed, kernel::Counts::UNKNOWN),
    }
}

#[test]
fn whatever_stands_in_shared_memory_does_no_harm() {
    let _alone = streams::alone();
    let scratch = std::env::temp_dir().join(format!("counterfoil-garbled-{}", std::process::id()));
    let file =
        std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&scratch).unwrap();
    std::fs::remove_file(&scratch).unwrap();
    let object = make(Channel::Tcp).and_then(get).unwrap();
    let mut dice = Dice(0x5eed_c0de);
    let content: Vec<u8> = (0..70_000).map(|_| dice.next() as u8).collect();
    let http = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n".repeat(9);
    for _ in 0..1500 {
        garble(object, &mut dice);
        process::arena().policy.store(dice.next() as u32 & 0xffff, Relaxed);
        let from: &[u8] = if dice.below(4) == 0 { &http } else { &content };
        let length = [1, 40, 64, 500, 17_000, from.len() as u64][dice.below(6) as usize] as usize;
        let data = &from[..length.min(from.len())];
        for _ in 0..3 {
            // Behind the boundary that all recording is behind: arithmetic is checked in this build.
            shielded((), || use_it(object, file.as_raw_fd(), data, &mut dice));
        }
        streams::forget();
    }
    process::arena().policy.store(counterfoil_abi::arena::POLICY_WATCHED, Relaxed);
    object.discard();
}
