//! Who reaches whom, in which order it is heard of, and what is forgotten.

use super::*;

#[derive(Default)]
struct Still(HashMap<ArenaId, Vec<Given>>);

impl World for Still {
    fn given(&self, from: ArenaId) -> Vec<Given> {
        self.0.get(&from).cloned().unwrap_or_default()
    }
    fn sendings(&self, _: ArenaId) -> Vec<Sending> {
        Vec::new()
    }
}

fn facts(pid: u32, ppid: u32) -> Arc<Facts> {
    let process = Process { pid, ..Process::default() };
    Arc::new(Facts { process, ppid, ..Facts::default() })
}

fn given(to: ArenaId, started: u64, last: u64) -> Given {
    Given { to, transfer: Uuid::nil(), channel: Channel::Pipe, started, last }
}

fn reached(lineage: &Lineage, world: &Still, from: ArenaId, since: u64) -> Vec<ArenaId> {
    lineage.reach(&mut Asked::new(world), from, since).iter().map(|r| r.arena).collect()
}

#[test]
fn pipes_and_children_in_time() {
    let mut l = Lineage::default();
    l.came(1, &facts(10, 1), 0);
    l.came(2, &facts(11, 10), 5);
    l.forked(1, 12, 49);
    l.came(3, &facts(12, 10), 50);
    l.came(4, &facts(40, 1), 0);
    l.gave(3, given(4, 55, 60));
    let world = Still(HashMap::from([(4, vec![given(5, 1, u64::MAX)])]));
    assert_eq!(reached(&l, &world, 1, 20), [1, 3, 4, 5], "2 was started before");
    assert_eq!(reached(&l, &world, 2, 0), [2], "never upwards");
    assert_eq!(reached(&l, &world, 3, 61), [3], "the pipe was over");
    let ways = l.reach(&mut Asked::new(&world), 1, 20);
    let said: Vec<&str> = l.steps(&ways, &ways[3]).iter().map(|s| s.did).collect();
    assert_eq!(said, ["started", "passed bytes to", "passed bytes to"]);
}

#[test]
fn another_image_of_one_process_and_a_pid_used_again() {
    let mut l = Lineage::default();
    l.came(1, &facts(10, 1), 0);
    l.came(2, &facts(10, 1), 5);
    assert_eq!(reached(&l, &Still::default(), 1, 1), [1, 2], "it ran another program");
    let mut again = (*facts(10, 1)).clone();
    again.starttime = 99;
    l.came(3, &Arc::new(again), 9);
    assert_eq!(reached(&l, &Still::default(), 2, 1), [2]);
}

/// What a fork runs says hello to one thread, and that it was forked stands in a lane: either may be heard first.
#[test]
fn a_fork_that_is_heard_of_after_what_it_runs() {
    let mut l = Lineage::default();
    l.came(1, &facts(10, 1), 0);
    l.came(2, &facts(11, 10), 5);
    assert_eq!(l.forked(1, 11, 4), None, "it is known to come from there");
    l.came(3, &facts(12, 11), 7);
    assert_eq!(reached(&l, &Still::default(), 2, 6), [2, 3], "its children are its own");
    assert_eq!(reached(&l, &Still::default(), 1, 0), [1, 2, 3]);
    // Whose parent was gone when it said hello.
    l.came(4, &facts(13, 1), 9);
    assert_eq!(reached(&l, &Still::default(), 1, 8), [1]);
    assert_eq!(l.forked(1, 13, 8), Some(4));
    assert_eq!(reached(&l, &Still::default(), 1, 8), [1, 4]);
    // A number that is used again.
    l.forked(1, 11, 20);
    l.came(5, &facts(14, 11), 21);
    assert_eq!(reached(&l, &Still::default(), 2, 15), [2]);
    assert_eq!(reached(&l, &Still::default(), 1, 15), [1, 5]);
}

/// A server's worker is gone, which was never observed by itself, and its number is somebody else's by now.
#[test]
fn a_number_that_is_used_again_by_a_stranger() {
    let mut l = Lineage::default();
    l.came(1, &facts(10, 1), 1_000);
    l.forked(1, 50, 2_000);
    let since = |pid, ppid, began, parents_began| {
        Arc::new(Facts { began, parents_began, ..(*facts(pid, ppid)).clone() })
    };
    const LATER: u64 = 1_000_000_000;
    l.came(2, &since(60, 50, LATER + 9, vec![LATER]), LATER + 10);
    l.came(3, &since(50, 7, LATER, vec![0]), LATER + 20);
    assert_eq!(reached(&l, &Still::default(), 1, 0), [1], "neither its child nor it");
    l.came(4, &since(61, 50, LATER + 30, vec![LATER]), LATER + 40);
    assert_eq!(reached(&l, &Still::default(), 3, 0), [3, 4]);
    // And while the worker lives, what it starts is the server's.
    l.forked(1, 51, LATER);
    l.came(5, &since(70, 51, LATER + 50, vec![LATER - 10]), LATER + 60);
    assert_eq!(reached(&l, &Still::default(), 1, 0), [1, 5]);
}

#[test]
fn forks_that_never_said_so() {
    let of = |pid, exe: &str, parents: &[(u32, &str)]| {
        let mut facts = (*facts(pid, parents[0].0)).clone();
        facts.process.exe = Some(exe.into());
        let name = |&(pid, exe): &(u32, &str)| ProcessName { pid, exe: Some(exe.into()) };
        facts.process.parents = parents.iter().map(name).collect();
        Arc::new(facts)
    };
    let mut l = Lineage::default();
    l.came(1, &of(10, "/bin/sh", &[(2, "/sbin/init")]), 0);
    l.came(2, &of(13, "/bin/cat", &[(12, "/bin/sh"), (11, "/bin/sh"), (10, "/bin/sh")]), 5);
    assert_eq!(reached(&l, &Still::default(), 1, 0), [1, 2]);
    // Through another program nothing is said to have gone.
    l.came(3, &of(15, "/bin/cat", &[(14, "/bin/static"), (10, "/bin/sh")]), 6);
    assert_eq!(reached(&l, &Still::default(), 1, 0), [1, 2]);
    assert_eq!(reached(&l, &Still::default(), 3, 0), [3]);
}

#[test]
fn circles_and_crowds_end_and_are_forgotten() {
    let mut l = Lineage::default();
    for n in 0..5000 {
        l.came(n, &facts(n as u32 + 100, n as u32 + 99), n);
        l.gave(n, given(n.wrapping_sub(1), n, n + 1));
        l.gone(n, n);
    }
    assert!(l.reach(&mut Asked::new(&Still::default()), 0, 0).len() <= WALK);
    for _ in 0..2 * OF_ONE {
        l.gave(7, given(8, 0, 9));
    }
    assert!(l.gifts.get(7).count() <= OF_ONE);
    l.forget_before(100_000);
    assert!(
        l.nodes.is_empty()
            && l.by_pid.is_empty()
            && l.gifts.count == 0
            && l.order.is_empty()
            && l.by_session.is_empty()
    );
}

/// What a server forks, and a shell starts, after it has long done so is theirs as what came first.
#[test]
fn the_latest_children_of_one_that_has_many() {
    let mut l = Lineage::default();
    l.came(1, &facts(10, 1), 0);
    for n in 1..=2 * OF_ONE as u64 {
        l.came(1000 + n, &facts(5000 + n as u32, 10), n);
        l.forked(1, 20_000 + n as u32, n);
    }
    let last = 2 * OF_ONE as u64;
    assert_eq!(reached(&l, &Still::default(), 1, last), [1, 1000 + last]);
    l.came(7, &facts(9000, 20_000 + last as u32), last + 1);
    assert_eq!(reached(&l, &Still::default(), 1, last + 1), [1, 7], "by its latest fork");
    assert!(l.nodes[&1].pids.len() <= OF_ONE && l.nodes[&1].children.len() <= OF_ONE);
    assert!(l.by_pid.len() <= 3 * OF_ONE + 2, "{}", l.by_pid.len());
}
