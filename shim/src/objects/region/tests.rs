use super::*;
use crate::objects::{Name, get, has, make, slot_of};
use crate::stream::tests as streams;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use counterfoil_abi::record::Channel;

#[test]
fn chunks_are_mapped_as_they_are_needed() {
    assert_eq!(
        (chunk_of(0), chunk_of(FEW - 1), chunk_of(FEW), chunk_of(2 * FEW), chunk_of(SLOTS - 1)),
        (0, 0, 1, 2, CHUNKS - 1)
    );
    let all = size_of::<Counters>() + SLOTS as usize * size_of::<Object>();
    assert!(sizes().next().is_some_and(|most| most >= all) && sizes().last() == Some(FIRST_BYTES));
    let _alone = streams::alone();
    let names: Vec<Name> = (0..5 * FEW).map(|_| make(Channel::Tcp).expect("there is room")).collect();
    let chunk = names.iter().map(|name| chunk_of(name.slot)).max().expect("some");
    let right = |name: &Name| {
        let object = get(*name).expect("it is there");
        let both = has(name.number, &object.out) && has(name.number, &object.open);
        slot_of(object) == name.slot && both && !has(0, &object.into)
    };
    let wrong: Vec<u32> = names.iter().filter(|name| !right(name)).map(|name| name.slot).collect();
    names.iter().filter_map(|name| get(*name)).for_each(Object::discard);
    assert!(chunk > 1 && wrong.is_empty(), "{wrong:?}");
    // What is mapped twice is the same memory.
    let word = |by: usize| {
        let base = CHUNK[by].load(Relaxed);
        // SAFETY: the page that both chunks have, in an object that nobody uses now.
        unsafe { &*base.byte_add(pages_of(chunk).start - size_of::<Counters>()).cast::<AtomicU64>() }
    };
    let (before, there) = (word(chunk - 1), word(chunk));
    assert!(!core::ptr::eq(before, there));
    let was = before.swap(4711, Relaxed);
    assert_eq!(there.swap(was, Relaxed), 4711);
}

/// A relative may have written anything there.
#[test]
fn counters_that_can_not_be() {
    let _alone = streams::alone();
    let counters = counters();
    let were = (counters.ceiling.load(Relaxed), counters.look_from.load(Relaxed));
    for (ceiling, from) in [(u32::MAX, SLOTS + 5), (SLOTS + 1, u32::MAX - 1), (1, SLOTS)] {
        counters.ceiling.store(ceiling, Relaxed);
        counters.look_from.store(from, Relaxed);
        counters.given_back.iter().for_each(|given| given.store(0, Relaxed));
        let name = make(Channel::Tcp).expect("there is room");
        assert!(name.slot < SLOTS);
        get(name).expect("it is there").discard();
    }
    counters.ceiling.store(were.0, Relaxed);
    counters.look_from.store(were.1, Relaxed);
}
