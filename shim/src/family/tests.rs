//! A fork, and what other threads do between its count and the fork itself. The child is this same process, which is told that it is one.

use super::*;
use crate::stream::tests::alone;
use counterfoil_abi::record::Channel;
use std::os::fd::{AsRawFd, OwnedFd};

/// A descriptor that leads to an object.
struct Held(OwnedFd, Name);

impl Held {
    fn new() -> Self {
        let (fd, _) = rustix::pipe::pipe().unwrap();
        let identity = kernel::identify(fd.as_raw_fd()).unwrap();
        let object = fds::make(fd.as_raw_fd(), Channel::Pipe, &identity).unwrap();
        let name = Name { slot: objects::slot_of(object), number: object.number() };
        Self(fd, name)
    }

    /// How many lead to it.
    fn holders(&self) -> usize {
        let Some(object) = objects::get(self.1) else { return 0 };
        let let_go = (0..10).take_while(|_| object.let_go()).count();
        (0..let_go).for_each(|_| object.add_ref());
        let_go + 1
    }

    fn close(&self) {
        fds::forget(&Guard::enter().unwrap(), self.0.as_raw_fd(), kernel::Counts::UNKNOWN);
    }
}

#[test]
fn what_changes_between_the_count_and_the_fork() {
    let _alone = alone();
    let (kept, closed) = (Held::new(), Held::new());
    count();
    assert_eq!((kept.holders(), closed.holders()), (2, 2));
    let made = Held::new();
    closed.close();
    assert_eq!((made.holders(), closed.holders()), (1, 1));
    process::is_a_child();
    join();
    assert_eq!((kept.holders(), made.holders()), (2, 2));
    assert_eq!(closed.holders(), 0, "the child hasn't got it: it is over");
    join();
    assert_eq!(kept.holders(), 2, "once is enough");
    for held in [kept, made] {
        assert!(objects::get(held.1).unwrap().let_go(), "the child goes");
        held.close();
        assert_eq!(held.holders(), 0);
    }
}

#[test]
fn a_child_that_nobody_counted_for() {
    let _alone = alone();
    let held = Held::new();
    process::is_a_child();
    join();
    assert_eq!(held.holders(), 2);
    assert!(objects::get(held.1).unwrap().let_go());
    held.close();
}

#[test]
fn a_fork_that_fails() {
    let _alone = alone();
    let (kept, closed) = (Held::new(), Held::new());
    assert!(before() && !before(), "one in a signal handler is not the first");
    count();
    closed.close();
    forked();
    after(true, true);
    assert_eq!((kept.holders(), closed.holders()), (1, 0));
    kept.close();
    assert_eq!(FORKING.load(Ordering::Relaxed), 0);
}

#[test]
fn one_at_a_time() {
    let _alone = alone();
    let held = Held::new();
    count();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            count();
            forked();
        });
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(held.holders(), 2, "the other one waits");
        forked();
        other.join().unwrap();
    });
    assert_eq!(held.holders(), 3);
    (0..2).for_each(|_| assert!(objects::get(held.1).unwrap().let_go()));
    held.close();
}

#[test]
fn a_fork_in_a_fork() {
    let _alone = alone();
    let held = Held::new();
    count();
    // In a signal handler, and its child.
    count();
    assert_eq!(held.holders(), 2);
    process::is_a_child();
    join();
    assert_eq!(held.holders(), 3, "it counts for itself");
    (0..2).for_each(|_| assert!(objects::get(held.1).unwrap().let_go()));
    held.close();
}
