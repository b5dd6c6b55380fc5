//! What becomes of calls whose object is another one when they return; and of a carrier's end.

use super::*;
use crate::objects::{IN, OUT, get, make};
use crate::stream::tests::{alone, drain};
use counterfoil_abi::record::{How, Record};

const DATA: &[u8; 300] = &[7; 300];

/// A connection.
fn connection() -> &'static Object {
    make(Channel::Tcp).and_then(get).expect("a slot is free")
}

/// A call on `object` as far as its real one.
fn begin_call(object: &'static Object, way: u8, offer: &mut Offer) -> Call {
    let guard = Guard::enter().expect("active");
    let mut call = Call::begin(&guard, object, way);
    if way == OUT {
        call.offer_in(Some(&guard), &DATA[..], DATA.len(), offer);
    }
    call
}

fn end_call(call: Call, way: u8, result: isize, offer: &mut Offer) {
    if way == OUT {
        sent(call, result, &DATA[..], offer);
    } else {
        received(call, result, DATA.len(), &DATA[..]);
    }
}

/// Its last descriptor is closed; the next connection stands in its place.
fn replaced(object: &'static Object) -> &'static Object {
    let slot = objects::slot_of(object);
    object.drop_ref(&Guard::enter().expect("active"), How::Closed, crate::kernel::Counts::UNKNOWN);
    (0..1000)
        .map(|_| connection())
        .find(|next| {
            let there = objects::slot_of(next) == slot;
            if !there {
                next.discard();
            }
            there
        })
        .expect("the slot is used again")
}

#[test]
fn what_a_call_moves_whose_descriptor_was_closed_is_nobodys() {
    let _alone = alone();
    for (way, result) in [(OUT, 300), (OUT, 10), (OUT, -1), (IN, 300), (IN, 0), (IN, -1)] {
        let (object, mut offer) = (connection(), Offer::new());
        let number = object.number();
        let call = begin_call(object, way, &mut offer);
        assert!(call.tags());
        let next = replaced(object);
        let doubted = |record: &Record| match record {
            Record::Gap(gap) => gap.header.object == number && gap.reason == Reason::SharedDescriptor as u8,
            _ => false,
        };
        assert!(drain().iter().any(doubted), "that a call is in progress is said with its end");

        // The next one is in a call of its own meanwhile.
        let (stream, mut own) = (if way == OUT { &next.out } else { &next.into }, Offer::new());
        let theirs = begin_call(next, way, &mut own);
        end_call(call, way, result, &mut offer);
        assert_eq!((next.out.offset(), next.into.offset()), (0, 0), "{way} {result}");
        assert!(!next.has_flag(IN_EOF | FAILED) && stream.busy(), "the other call's");
        end_call(theirs, way, 300, &mut own);
        assert!(stream.offset() == 300 && !stream.busy());
        assert!(thread::current().claims.iter().all(|claim| claim.get().stream.is_null()));
        assert_eq!(thread::current().offers.get(), 0, "room for offers comes back");
        next.discard();
        drain();
    }
}

#[test]
fn a_call_that_only_counts_counts_for_its_own() {
    let _alone = alone();
    for way in [OUT, IN] {
        let object = connection();
        let call = Call::counting(object);
        let next = replaced(object);
        end_call(call, way, 300, &mut Offer::new());
        assert_eq!((next.out.offset(), next.into.offset()), (0, 0));
        end_call(Call::counting(next), way, 300, &mut Offer::new());
        assert_eq!(next.out.offset() + next.into.offset(), 300);
        next.discard();
    }
    drain();
}

#[test]
fn who_leaves_a_call_gives_back_what_is_still_its_own() {
    let _alone = alone();
    let object = connection();
    begin_call(object, IN, &mut Offer::new());
    let next = replaced(object);
    // A thread that is cancelled in its call, while another one is in a call on what came after.
    let guard = Guard::enter().expect("active");
    assert!(next.into.claim(&guard, next.number(), next.taps().1));
    let claims = &thread::current().claims;
    claims[1].set(thread::Claim::NONE);
    drop(guard);
    thread::current().left(|_| true);
    assert!(next.into.busy(), "the other one's");
    next.into.release_left();
    next.discard();
    drain();
}

/// By a jump, or by a forced unwind. What the running block's state has come to then, nobody knows.
#[test]
fn a_recording_goes_on_until_it_is_left() {
    let _alone = alone();
    let object = connection();
    let mut offer = Offer::new();
    end_call(begin_call(object, OUT, &mut offer), OUT, 300, &mut offer);
    begin_call(object, OUT, &mut Offer::new());
    let guard = Guard::enter().expect("active");
    let lane = lanes::index(guard.thread);
    core::mem::forget(guard);
    thread::current().left(|_| false);
    assert!(Guard::enter().is_none() && object.out.busy(), "a jump that stays within a signal handler");
    drain();
    thread::current().left(|_| true);
    assert_eq!(lanes::index(Guard::enter().expect("left").thread), lane, "taken up again");
    assert!(!object.out.busy());
    object.tell(&Guard::enter().expect("active"), true);
    let told = drain();
    // Another test's thread may read a file meanwhile.
    let number = object.number();
    let tagged = |record: &Record| matches!(record, Record::Blocks(b) if b.header.object == number);
    let torn =
        |record: &Record| matches!(record, Record::Gap(g) if g.header.object == number && g.offset == 0);
    assert!(!told.iter().any(tagged), "{told:?}");
    assert!(told.iter().any(torn), "{told:?}");
    object.discard();
    drain();
}

#[test]
fn a_carriers_end_and_error_are_told() {
    let _alone = alone();
    let object = connection();
    object.carries.store(7, Ordering::Relaxed);
    received(Call::counting(object), 0, 300, &DATA[..]);
    assert!(object.has_flag(IN_EOF));
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = libc::ECONNRESET };
    sent(Call::counting(object), -1, &DATA[..], &mut Offer::new());
    assert!(object.has_flag(FAILED) && object.errno.load(Ordering::Relaxed) == libc::ECONNRESET);
    // SAFETY: as above.
    assert_eq!(unsafe { *libc::__errno_location() }, libc::ECONNRESET, "the program's");
    object.discard();
    drain();
}
