//! What programs get from those that started them.

use super::*;
use std::collections::HashSet;

#[test]
fn a_pipe_that_every_command_of_a_script_inherits_stays_small() {
    let mut t = table(Told::default());
    t.program(1, 0);
    t.say(1, opened(1, Channel::Pipe, |r| (r.device, r.inode) = (9, 77)));
    let access = Some(Access { reads: false, writes: true });
    for arena in 2..500 {
        let inherited = vec![Inherited { number: 1, inode: (9, 77), held: true, access }];
        t.assembler.register(arena, facts(arena as u32, 0), true, t.now, inherited);
        t.assembler.gone(arena);
        t.wait(1);
    }
    let key = t.assembler.by_inode[&(9, 77)];
    assert!(t.assembler.objects.get(key).unwrap().uses.len() < 20, "idle users are forgotten");
    assert!(t.assembler.programs.len() < 20);
}

const SERVER: Address =
    Address { ip: [10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], port: 22, version: 4, pad: [0; 5] };

/// One connection to a server that accepts it and leaves it to somebody else. They all have the same addresses, but for [`Session::begin_from`].
struct Session {
    /// The client's program.
    client: ArenaId,
    /// The image that it is handed to.
    image: ArenaId,
    /// Its number in the listener's family.
    number: u32,
    inode: Inode,
}

impl Session {
    /// The client connects, and program 1 accepts.
    fn begin(t: &mut Table, which: u64) -> Self {
        Self::begin_from(t, which, 5000)
    }

    fn begin_from(t: &mut Table, which: u64, port: u16) -> Self {
        let session = Self {
            client: which * 10,
            image: which * 10 + 1,
            number: which as u32,
            inode: (9, 2 * which + 1),
        };
        let from = address(1, port);
        t.program(session.client, 0);
        let connected = opened(1, Channel::Tcp, |r| {
            (r.header.flags, r.fd, r.local, r.remote) = (CONNECTED, 3, from, SERVER);
            (r.device, r.inode) = (9, 2 * which);
        });
        t.say(session.client, connected);
        let accepted = opened(session.number, Channel::Tcp, |r| {
            (r.header.flags, r.fd, r.local, r.remote) = (ACCEPTED, 5, SERVER, from);
            (r.device, r.inode) = session.inode;
        });
        t.say(1, accepted);
        session
    }

    /// The listener's family says its last word.
    fn left(&self, t: &mut Table, how: How, moved: [u64; 2], flags: u8) {
        t.say(1, ended(self.number, how, moved[0], moved[1], |e| e.header.flags = flags));
    }

    /// A block each way, by the server's `arena` in which the connection is `number`.
    fn moves(&self, t: &mut Table, arena: ArenaId, number: u32) {
        for (arena, number, out, inward) in [(self.client, 1, 1, 2), (arena, number, 2, 1)] {
            t.say(arena, block(number, Tap::SockSend, 0, out));
            t.say(arena, block(number, Tap::SockRecv, 0, inward));
        }
    }

    /// sshd's way: an image of its own has it to its end.
    fn served_by_an_image(&self, t: &mut Table) {
        let inherited = vec![Inherited { number: 1, inode: self.inode, held: true, access: None }];
        t.assembler.register(self.image, facts(self.image as u32, 0), true, t.now, inherited);
        let opened = opened(1, Channel::Tcp, |r| {
            (r.header.flags, r.local, r.remote) = (INHERITED | RESUMED, SERVER, address(1, 5000));
            (r.device, r.inode) = self.inode;
        });
        t.say(self.image, opened);
        self.moves(t, self.image, 1);
        t.say(self.image, ended(1, How::Exited, BLOCK, BLOCK, |_| {}));
        t.assembler.gone(self.image);
    }

    fn client_closes(&self, t: &mut Table, moved: [u64; 2]) {
        t.say(self.client, ended(1, How::Closed, moved[0], moved[1], |_| {}));
        t.assembler.gone(self.client);
    }
}

fn all_intact(t: &mut Table, expected: usize) {
    let all = t.transfers();
    assert_eq!(all.len(), expected, "{all:#?}");
    for transfer in &all {
        assert_eq!((transfer.verdict, transfer.reasons.as_slice()), (Verdict::Intact, [].as_slice()));
    }
}

/// Only what the listener itself has is left.
fn nothing_left(t: &Table) {
    let a = &t.assembler;
    assert_eq!((a.objects.len(), a.transfers.len(), a.by_inode.len()), (0, 0, 0));
    assert_eq!((a.by_addresses.len(), a.programs.len()), (0, 1));
    assert!(a.settling.is_empty() && a.later.is_empty() && a.wanted.is_empty());
}

/// A child that is killed says no last word.
#[test]
fn what_nobody_ended_does_not_disturb_the_next_connection_with_its_addresses() {
    let mut t = table(Told::default());
    t.program(1, 0);
    for which in 1..5 {
        let session = Session::begin(&mut t, which);
        if which > 1 {
            session.left(&mut t, How::Closed, [0; 2], 0);
        }
        t.wait(1);
        session.served_by_an_image(&mut t);
        session.client_closes(&mut t, [BLOCK; 2]);
        t.wait(40);
        if which > 1 {
            all_intact(&mut t, 2);
        }
        t.transfers();
    }
}

#[test]
fn a_forking_servers_transfers_are_told_while_it_lives() {
    let mut t = table(Told::default());
    t.program(1, 0);
    for which in 1..20 {
        let session = Session::begin(&mut t, which);
        if which % 2 == 0 {
            // PostgreSQL's way: a fork has it to its end.
            session.moves(&mut t, 1, session.number);
            session.client_closes(&mut t, [BLOCK; 2]);
            session.left(&mut t, How::Exited, [BLOCK; 2], 0);
        } else {
            // In whatever order the listener closes it and the child calls exec.
            let (how, flags) = if which % 3 == 0 { (How::Closed, 0) } else { (How::Execed, HANDED_ON) };
            session.left(&mut t, how, [0; 2], flags);
            t.wait(1);
            session.served_by_an_image(&mut t);
            session.client_closes(&mut t, [BLOCK; 2]);
        }
        t.wait(1);
        all_intact(&mut t, 2);
        nothing_left(&t);
    }
}

/// A loaded host may take longer to start a program than an end waits for the other one to appear.
#[test]
fn what_is_being_handed_over_is_waited_for() {
    let mut t = table(Told::default());
    t.program(1, 0);
    for (which, how, flags, client_first) in
        [(1, How::Execed, HANDED_ON, false), (2, How::Execed, HANDED_ON, true), (3, How::Closed, 0, false)]
    {
        let session = Session::begin(&mut t, which);
        session.left(&mut t, how, [0; 2], flags);
        if client_first {
            // It has sent its question, and does not wait for an answer.
            t.say(session.client, block(1, Tap::SockSend, 0, 1));
            t.say(session.client, block(1, Tap::SockRecv, 0, 2));
            session.client_closes(&mut t, [BLOCK; 2]);
        }
        t.wait(12);
        assert!(t.transfers().is_empty(), "it is not over");
        session.served_by_an_image(&mut t);
        if !client_first {
            session.client_closes(&mut t, [BLOCK; 2]);
        }
        t.wait(1);
        all_intact(&mut t, 2);
        nothing_left(&t);
    }
}

/// What a program that is not observed does with a connection is not known, and is held against nobody.
#[test]
fn what_an_unobserved_image_had_is_unverified() {
    const UNSEEN: u8 = HANDED_ON | HANDED_UNSEEN;
    let mut t = table(Told::default());
    t.program(1, 0);
    // What the listener read before it handed it on, and its flags; what becomes of what the client sent, and when.
    for (which, (read, how, flags, verdict, within)) in [
        (1, How::Execed, UNSEEN, Verdict::Unverified, 5),
        (1, How::Closed, UNSEEN, Verdict::Unverified, 5),
        (1, How::Execed, HANDED_ON, Verdict::Unverified, 35),
        (2, How::Execed, UNSEEN, Verdict::Unverified, 5),
        (2, How::Execed, UNSEEN | IN_EOF, Verdict::Intact, 5),
        (1, How::Execed, 0, Verdict::Truncated, 5),
    ]
    .into_iter()
    .enumerate()
    {
        let session = Session::begin(&mut t, which as u64 + 1);
        for index in 0..2 {
            t.say(session.client, block(1, Tap::SockSend, index, 1));
        }
        for index in 0..read {
            t.say(1, block(session.number, Tap::SockRecv, index, 1));
        }
        session.left(&mut t, how, [0, read * BLOCK], flags);
        session.client_closes(&mut t, [2 * BLOCK, 0]);
        t.wait(within);
        let all = t.transfers();
        let [transfer] = &all[..] else { panic!("{which}: {all:#?}") };
        assert_eq!(transfer.verdict, verdict, "{which}: {transfer:#?}");
        let said = transfer.reasons.contains(&crate::model::Reason::HandedOver);
        assert_eq!(said, verdict == Verdict::Unverified, "{which}: {transfer:#?}");
        t.wait(35);
        nothing_left(&t);
    }
}

#[test]
fn an_exec_that_failed_did_not_end_it() {
    let mut t = table(Told::default());
    t.program(1, 0);
    let session = Session::begin(&mut t, 1);
    session.left(&mut t, How::Execed, [0; 2], 0);
    let again = |r: &mut Opened| (r.header.flags, r.device, r.inode) = (ACCEPTED, 9, 3);
    t.say(1, opened(session.number, Channel::Tcp, again));
    session.moves(&mut t, 1, session.number);
    session.client_closes(&mut t, [BLOCK; 2]);
    t.wait(3);
    assert!(t.transfers().is_empty());
    session.left(&mut t, How::Exited, [BLOCK; 2], 0);
    t.wait(1);
    all_intact(&mut t, 2);
}

/// sshd leaves a connection, a socket pair and a pipe with each session, PostgreSQL a connection.
#[test]
fn a_server_of_many_connections_leaves_nothing() {
    let mut t = table(Told::default());
    t.program(1, 0);
    let mut most = 0;
    for which in 1..6_000 {
        let session = Session::begin(&mut t, which);
        let base = 1_000_000 + 4 * which as u32;
        let unused = [(base, Channel::Unix, 1), (base + 1, Channel::Unix, 2), (base + 2, Channel::Pipe, 3)];
        for (number, channel, place) in unused {
            // Of the second socket the other end is somewhere unseen.
            let peer = if place == 2 { u64::MAX - which } else { 0 };
            let told = |r: &mut Opened| (r.device, r.inode, r.peer_inode) = (10, 4 * which + place, peer);
            t.say(1, opened(number, channel, told));
            t.say(1, ended(number, How::Exited, 0, 0, |_| {}));
        }
        session.left(&mut t, How::Execed, [0; 2], HANDED_ON);
        session.served_by_an_image(&mut t);
        session.client_closes(&mut t, [BLOCK; 2]);
        for _ in 0..2 {
            t.now += 50_000_000;
            t.assembler.tick(t.now);
        }
        most = most.max(t.assembler.objects.len());
        all_intact_so_far(&mut t);
    }
    assert!(most < 1000, "{most} objects at a time");
    t.wait(5);
    nothing_left(&t);
}

fn all_intact_so_far(t: &mut Table) {
    for transfer in t.transfers() {
        assert_eq!(transfer.verdict, Verdict::Intact, "{transfer:#?}");
    }
}

/// A killed fork's last word never comes: the kernel knows that nobody has its socket any more.
#[test]
fn what_a_killed_fork_had_ends_by_the_kernels_word() {
    for (listed, held) in [(false, false), (true, false), (false, true)] {
        let mut told = Told { listed: Some(HashSet::new()), ..Told::default() };
        if listed {
            told.listed = Some(HashSet::from([3]));
        }
        if held {
            told.descriptors.insert((1, 7), (9, 3));
        }
        let mut t = table(told);
        t.program(1, 0);
        let session = Session::begin(&mut t, 1);
        session.moves(&mut t, 1, session.number);
        session.client_closes(&mut t, [BLOCK; 2]);
        t.wait(15);
        let mut all = t.transfers();
        if listed || held {
            assert!(all.is_empty(), "somebody has it: {all:#?}");
            continue;
        }
        all.sort_by_key(|t| t.verdict as u8);
        let said: Vec<_> = all.iter().map(|t| (t.verdict, t.reasons.as_slice())).collect();
        let killed = [crate::model::Reason::ProcessKilled];
        assert_eq!(said, [(Verdict::Intact, [].as_slice()), (Verdict::Unverified, killed.as_slice())]);
        nothing_left(&t);
    }
}

/// A few are looked for at a time: that takes longer, and they all end.
#[test]
fn what_many_killed_forks_had_ends_little_by_little() {
    let mut t = table(Told { listed: Some(HashSet::new()), ..Told::default() });
    t.program(1, 0);
    let sessions: Vec<_> =
        (1..=100).map(|which| Session::begin_from(&mut t, which, 5000 + which as u16)).collect();
    for session in &sessions {
        session.moves(&mut t, 1, session.number);
        session.client_closes(&mut t, [BLOCK; 2]);
    }
    t.wait(15);
    let first = t.transfers().len();
    assert!(first < 200, "not all in one look");
    t.wait(60);
    let all = t.transfers();
    assert_eq!(first + all.len(), 200, "both directions of each");
    assert!(all.iter().all(|t| t.verdict != Verdict::Altered), "{all:#?}");
    nothing_left(&t);
}

/// Whoever connects is there before the other end is: an old end that nobody ended is not taken for it.
#[test]
fn an_old_end_that_was_never_joined_is_not_taken_for_the_new_one() {
    let mut t = table(Told::default());
    t.program(1, 0);
    t.program(2, 0);
    let end = |number, inode, flags, (local, remote), time| {
        opened(number, Channel::Tcp, |r| {
            (r.header.flags, r.header.time, r.device, r.inode) = (flags, time, 9, inode);
            (r.local, r.remote) = (local, remote);
        })
    };
    let (client, server) = (address(1, 5000), SERVER);
    t.say(1, end(1, 50, ACCEPTED, (server, client), 1_000_000_000));
    t.wait(20);
    t.say(2, end(1, 51, CONNECTED, (client, server), 20_000_000_000));
    t.wait(1);
    let connected = t.assembler.by_inode[&(9, 51)];
    assert!(t.assembler.objects.get(connected).unwrap().peer.is_none());
}
