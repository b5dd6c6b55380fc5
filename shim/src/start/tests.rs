//! What is said of objects when a process of the family leaves it.

use super::*;
use crate::stream::tests::{alone, drain, forget};
use counterfoil_abi::record::{ACCEPTED, Ended, Record};

/// A connection that the listener has accepted and told of, as a fork gets it.
fn accepted() -> &'static Object {
    let object = objects::make(Channel::Tcp).and_then(objects::get).expect("a slot is free");
    object.opened.store(ACCEPTED, Ordering::Relaxed);
    object
}

fn said(number: u32) -> Vec<Ended> {
    let of = |record| match record {
        Record::Ended(ended) if ended.header.object == number => Some(ended),
        _ => None,
    };
    drain().into_iter().filter_map(of).collect()
}

fn goes(object: &'static Object, how: How) {
    leave(object, how, (false, true), |_| kernel::Counts::UNKNOWN);
}

fn closes(object: &'static Object) {
    let guard = Guard::enter().expect("active");
    object.drop_ref(&guard, How::Closed, kernel::Counts::UNKNOWN);
}

#[test]
fn who_has_it_last_ends_it_in_whatever_order_they_go() {
    let _alone = alone();
    for (parent_first, how) in [true, false].into_iter().flat_map(|p| [(p, How::Exited), (p, How::Execed)]) {
        let object = accepted();
        let number = object.number();
        // The fork, and a second descriptor of the child's.
        object.add_ref();
        object.add_ref();
        if parent_first {
            closes(object);
        }
        goes(object, how);
        assert!(said(number).is_empty(), "somebody has it still");
        goes(object, how);
        if !parent_first {
            closes(object);
        }
        let hows: Vec<u8> = said(number).iter().map(|e| e.how).collect();
        let last = if parent_first { how } else { How::Closed };
        assert_eq!(hows, [last as u8], "its end is awaited, though nothing has passed");
    }
}

#[test]
fn a_server_that_forks_for_each_connection_never_runs_out_of_slots() {
    let _alone = alone();
    let before = process::arena().no_object.load(Ordering::Relaxed);
    let (mut last, mut slots) = (0, [0; 2]);
    for round in 0..200_000u32 {
        let object = accepted();
        let half = &mut slots[usize::from(round >= 100_000)];
        *half = objects::slot_of(object).max(*half);
        assert!(object.number() > last, "numbers are never used again");
        last = object.number();
        object.add_ref();
        closes(object);
        goes(object, if round % 2 == 0 { How::Exited } else { How::Execed });
        forget();
    }
    assert_eq!(process::arena().no_object.load(Ordering::Relaxed), before);
    assert!(slots[1] <= slots[0], "the same slots are used in turn");
}

#[test]
fn an_exec_that_fails_leaves_all_as_it_was() {
    let _alone = alone();
    let object = accepted();
    let number = object.number();
    goes(object, How::Execed);
    assert!(object.hold_again(number) && object.held_once());
    goes(object, How::Execed);
    // A relative has the slot meanwhile.
    let other =
        std::iter::repeat_with(accepted).find(|other| core::ptr::eq(*other, object)).expect("some time");
    assert_ne!(other.number(), number);
    assert!(objects::get(objects::Name { slot: objects::slot_of(object), number }).is_none());
}

#[test]
fn what_an_unobserved_image_has_is_said() {
    let _alone = alone();
    let object = accepted();
    let number = object.number();
    object.opened.store(INHERITED, Ordering::Relaxed);
    object.add_ref();
    goes(object, How::Execed);
    assert!(said(number).is_empty());
    object.add_ref();
    object.flag(HANDED_UNSEEN);
    goes(object, How::Execed);
    let flags: Vec<u8> = said(number).iter().map(|e| e.header.flags).collect();
    assert_eq!(flags, [HANDED_UNSEEN], "though another process has it still");
}
