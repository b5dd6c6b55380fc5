//! Records in, verdicts out, without arenas or processes.

use super::object::Direction;
use super::program::Inherited;
use super::*;
use crate::host::facts::{Access, Facts, SocketFacts};
use crate::judged::What;
use crate::model::{Transfer as Outward, Verdict};
use counterfoil_abi::record::*;
use counterfoil_abi::{BLOCK, UNKNOWN};

mod inherited;
mod orders;
mod paths;
mod relayed;
mod ssh;
mod table;

use table::*;

#[test]
fn any_order_gives_the_same_verdicts() {
    let mut state = 88172645463325252;
    for round in 0..300 {
        let (change, lose) = match round % 3 {
            0 => (None, None),
            1 => (Some(random(&mut state) % 12), None),
            _ => (None, Some(random(&mut state) % 12)),
        };
        let mut records = connection(change, lose);
        for i in (1..records.len()).rev() {
            records.swap(i, random(&mut state) as usize % (i + 1));
        }
        let mut t = table(Told::default());
        t.program(1, 0);
        t.program(2, 0);
        for (arena, record) in records {
            t.say(arena, record);
            if random(&mut state).is_multiple_of(20) {
                // At most once before an `Ended` counts: lanes are read within a tick or two.
                t.assembler.settling.iter_mut().for_each(|(due, _)| *due += 1);
                t.assembler.tick(t.now);
            }
        }
        t.wait(3);
        let mut transfers = t.transfers();
        assert_eq!(transfers.len(), 2, "round {round}");
        transfers.sort_by_key(|t| t.origin.as_ref().map(|o| o.pid));
        assert_eq!(transfers[1].verdict, Verdict::Intact, "round {round}: {:?}", transfers[1]);
        let changed = &transfers[0];
        match (change, lose) {
            (Some(index), _) => {
                assert_eq!(changed.verdict, Verdict::Altered, "round {round}");
                let range = crate::model::Range { offset: index * BLOCK, length: BLOCK };
                assert_eq!(changed.altered, [range]);
            }
            (_, Some(_)) => assert_eq!(changed.reasons, [Reason::RecordsDropped], "round {round}"),
            _ => assert_eq!(changed.verdict, Verdict::Intact, "round {round}: {changed:?}"),
        }
        t.assembler.gone(1);
        t.assembler.gone(2);
        t.wait(3);
        assert!(t.empty(), "round {round}: everything is forgotten in the end");
        assert!(t.assembler.programs.is_empty());
    }
}

#[test]
fn an_unjoined_stream_takes_bounded_memory() {
    let mut t = table(Told::default());
    t.program(1, 0);
    t.say(1, opened(1, Channel::Tls, |_| {}));
    for index in 0..100_000 {
        t.say(1, block(1, Tap::TlsWrite, index, 1));
    }
    assert!(t.assembler.waiting_bytes() <= 1 << 20);
    t.say(1, ended(1, How::Freed, 100_000 * BLOCK, 0, |_| {}));
    t.wait(5);
    let all = t.transfers();
    assert_eq!(all[0].reasons, [Reason::PeerNotObserved]);
    assert!(t.empty());
}

#[test]
fn an_unknown_gap_from_another_lane_comes_before_the_alarm() {
    let mut t = table(Told::default());
    t.program(1, 0);
    t.program(2, 0);
    for (arena, client) in [(1, true), (2, false)] {
        t.say(arena, opened(1, Channel::Tls, |_| {}));
        t.say(arena, flow(1, 7, client));
    }
    t.say(1, block(1, Tap::TlsWrite, 0, 1));
    t.say(2, block(1, Tap::TlsRead, 0, 2));
    t.assembler.tick(t.now);
    t.say(1, gap(1, Tap::TlsWrite, 5, UNKNOWN, Reason::SharedDescriptor));
    t.wait(1);
    let notices = t.assembler.out.iter().filter(|j| matches!(j, Judged::Notice(_)));
    assert_eq!(notices.count(), 0);
}

/// The connection carries more bytes than its session, and says nothing of its own.
#[test]
fn what_tls_carries_is_the_sessions_gift() {
    let mut t = table(Told::default());
    for (arena, ends) in [(1, [1, 2]), (2, [2, 1])] {
        t.program(arena, 0);
        let [local, remote] = ends.map(|end| address(end, u16::from(end)));
        let inode = (9, 70 + arena);
        t.say(
            arena,
            opened(2, Channel::Tcp, |o| {
                (o.device, o.inode) = inode;
                (o.local, o.remote) = (local, remote);
            }),
        );
        let mut carrier: Carrier = bytemuck::Zeroable::zeroed();
        (carrier.header, carrier.tls) = (header(Kind::Carrier, 2), 1);
        t.say(arena, Record::Carrier(carrier));
    }
    for (arena, record) in connection(None, None) {
        t.say(arena, record);
    }
    // One of the two has closed it.
    t.say(1, ended(2, How::Closed, 20 * BLOCK, 20 * BLOCK, |_| {}));
    t.assembler.tick(t.now);
    let a = &t.assembler;
    let standing =
        Standing::of((&a.programs, &a.objects, &a.transfers), &a.passages, &a.relays, &*a.settings.proc);
    let gifts = crate::files::chains::Live::gifts(&standing, 2);
    let carried: Vec<_> = gifts.iter().map(|g| (g.channel, g.bytes)).collect();
    assert_eq!(carried, [(crate::model::Channel::Tls, 12 * BLOCK + 7)]);
}

/// A thread in a burst writes several lanes in turn.
#[test]
fn what_many_objects_did_before_they_were_heard_of() {
    let mut t = table(Told::default());
    t.program(1, 0);
    for object in 1..600 {
        t.say(1, block(object, Tap::SockSend, 0, 1));
        t.say(1, ended(object, How::Closed, BLOCK, 0, |_| {}));
    }
    for object in 1..600 {
        let ends = |o: &mut Opened| (o.local, o.remote) = (address(1, object as u16), address(2, 80));
        t.say(1, opened(object, Channel::Tcp, ends));
    }
    assert_eq!(t.assembler.early.left(), EARLY_BYTES, "all of it is given back");
    t.wait(5);
    assert_eq!(t.transfers().len(), 599);
}

#[test]
fn a_claim_to_anothers_socket_harms_only_the_claimant() {
    let inode = (9, 77);
    let told = Told { descriptors: HashMap::from([((1, 4), inode)]), ..Told::default() };
    let mut t = table(told);
    t.program(1, 1000);
    t.program(2, 1000);
    t.program(3, 2000);
    let claim = |o: &mut Opened| {
        (o.device, o.inode, o.fd, o.local, o.remote) = (9, 77, 4, address(1, 5), address(2, 80))
    };
    t.say(1, opened(1, Channel::Tcp, claim));
    t.say(3, opened(1, Channel::Tcp, claim));
    t.say(
        2,
        opened(1, Channel::Tcp, |o| {
            (o.device, o.inode, o.local, o.remote) = (9, 78, address(2, 80), address(1, 5))
        }),
    );
    let total = BLOCK;
    for (arena, value) in [(3, 9), (1, 1)] {
        t.say(arena, block(1, Tap::SockSend, 0, value));
        t.say(arena, ended(1, How::Closed, total, 0, |e| e.kernel_out = total));
    }
    t.say(2, block(1, Tap::SockRecv, 0, 1));
    t.say(2, ended(1, How::Closed, 0, total, |e| e.kernel_in = total));
    t.wait(5);
    let mut all = t.transfers();
    all.sort_by_key(|t| t.origin.as_ref().map(|o| o.pid));
    assert_eq!(all.len(), 2, "{all:#?}");
    assert_eq!(all[0].verdict, Verdict::Intact, "{:#?}", all[0]);
    assert!(all[0].destination.is_some());
    assert_eq!(all[1].reasons, [Reason::PeerNotObserved, Reason::DisputedClaim]);
}

/// A stranger plays the other end of a connection whose real other end is not observed.
#[test]
fn an_unproven_stranger_cannot_accuse() {
    for (uid, proven, verdict) in [
        (2000, false, Verdict::Unverified),
        (2000, true, Verdict::Altered),
        // The same user could change the other's bytes anyway.
        (1000, false, Verdict::Altered),
    ] {
        let mut told = Told::default();
        let of = |inode, local, remote| SocketFacts { inode, local, remote, sent: None, received: None };
        told.sockets.insert((1, 4), of((9, 1), address(1, 5), address(2, 80)));
        if proven {
            told.sockets.insert((2, 4), of((9, 2), address(2, 80), address(1, 5)));
        } else {
            // It has that socket, but it leads elsewhere.
            told.sockets.insert((2, 4), of((9, 2), address(2, 81), address(1, 5)));
        }
        let mut t = table(told);
        t.program(1, 1000);
        t.program(2, uid);
        t.say(
            1,
            opened(1, Channel::Tcp, |o| {
                (o.device, o.inode, o.fd, o.local, o.remote) = (9, 1, 4, address(1, 5), address(2, 80))
            }),
        );
        t.say(
            2,
            opened(1, Channel::Tcp, |o| {
                (o.device, o.inode, o.fd, o.local, o.remote) = (9, 2, 4, address(2, 80), address(1, 5))
            }),
        );
        t.say(1, block(1, Tap::SockSend, 0, 1));
        t.say(2, block(1, Tap::SockRecv, 0, 2));
        t.say(1, ended(1, How::Closed, BLOCK, 0, |e| e.kernel_out = BLOCK));
        t.say(2, ended(1, How::Closed, 0, BLOCK, |e| e.kernel_in = BLOCK));
        t.wait(5);
        let all = t.transfers();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].verdict, verdict, "uid {uid} proven {proven}: {:#?}", all[0]);
        if verdict == Verdict::Unverified {
            assert_eq!(all[0].reasons, [Reason::DisputedClaim]);
        }
    }
}

/// A descriptor came to the program from another: the kernel's count tells whether that one had used it.
#[test]
fn of_a_descriptor_that_was_given_the_kernel_knows_what_passed_before() {
    for (counted, reasons) in
        [(BLOCK, &[][..]), (BLOCK + 9, &[Reason::AttachedLate]), (UNKNOWN, &[Reason::AttachedLate])]
    {
        let mut t = table(Told::default());
        t.program(1, 0);
        t.program(2, 0);
        let flags = counterfoil_abi::record::ATTACHED_LATE;
        let end = |inode, flags, local, remote| {
            opened(1, Channel::Tcp, move |o| {
                (o.device, o.inode, o.header.flags, o.local, o.remote) = (9, inode, flags, local, remote);
            })
        };
        t.say(1, end(1, flags, address(1, 5), address(2, 80)));
        t.say(2, end(2, 0, address(2, 80), address(1, 5)));
        t.say(1, block(1, Tap::SockSend, 0, 1));
        t.say(2, block(1, Tap::SockRecv, 0, 1));
        t.say(1, ended(1, How::Closed, BLOCK, 0, |e| e.kernel_out = counted));
        t.say(2, ended(1, How::Closed, 0, BLOCK, |e| e.kernel_in = BLOCK));
        t.wait(5);
        let all = t.transfers();
        assert_eq!(all.len(), 1);
        assert!(reasons.iter().all(|r| all[0].reasons.contains(r)), "counted {counted}: {:#?}", all[0]);
        assert_eq!(all[0].reasons.contains(&Reason::AttachedLate), !reasons.is_empty());
        assert_eq!(all[0].verdict == Verdict::Intact, reasons.is_empty());
    }
}

/// Containers have the same addresses, and connections the same ports, at one time: whichever order they are told in, nobody is accused.
#[test]
fn of_the_same_addresses_elsewhere_nobody_knows_which_belong_together() {
    let ends = [(1, 1, true), (2, 2, false), (3, 1, true), (4, 2, false)];
    for order in 0..24 {
        let mut left = ends.to_vec();
        let sorted: Vec<_> =
            [order / 6, order % 6 / 2, order % 2, 0].into_iter().map(|at| left.remove(at)).collect();
        let mut t = table(Told::default());
        for (arena, ..) in ends {
            let mut its = Facts::clone(&facts(arena as u32, 0));
            its.net_namespace = Some(arena);
            t.assembler.register(arena, Arc::new(its), true, t.now, Vec::new());
        }
        for (time, (arena, host, connected)) in (10..).zip(sorted) {
            let record = opened(1, Channel::Tcp, |o| {
                (o.local, o.remote) = (address(host, host.into()), address(3 - host, (3 - host).into()));
                (o.device, o.inode, o.header.time) = (9, 70 + arena, time);
                o.header.flags = if connected {
                    counterfoil_abi::record::CONNECTED
                } else {
                    counterfoil_abi::record::ACCEPTED
                };
            });
            t.say(arena, record);
        }
        t.wait(1);
        for (arena, _, connected) in ends {
            let partner = if connected { arena + 1 } else { arena - 1 };
            let (sent, got) = (10 * arena as u8, 10 * partner as u8);
            t.say(arena, block(1, Tap::SockSend, 0, sent));
            t.say(arena, block(1, Tap::SockRecv, 0, got));
        }
        for (arena, ..) in ends {
            let mut record = ended(1, How::Closed, BLOCK, BLOCK, |e| {
                (e.kernel_out, e.kernel_in, e.header.time) = (BLOCK, BLOCK, 100);
            });
            if let Record::Ended(e) = &mut record {
                e.header.flags |= counterfoil_abi::record::IN_EOF;
            }
            t.say(arena, record);
        }
        t.wait(5);
        for transfer in t.transfers() {
            assert_ne!(transfer.verdict, Verdict::Altered, "order {order}: {transfer:#?}");
        }
    }
}

#[test]
fn plain_tcp_is_altered_while_open_only_with_the_kernels_word() {
    for (counted, said) in [(100, 1), (150, 0)] {
        let mut told = Told::default();
        let of = |inode, local, remote, sent, received| SocketFacts { inode, local, remote, sent, received };
        told.sockets.insert((1, 4), of((9, 1), address(1, 5), address(2, 80), Some(counted), Some(0)));
        told.sockets.insert((2, 4), of((9, 2), address(2, 80), address(1, 5), Some(0), Some(100)));
        let mut t = table(told);
        t.program(1, 1000);
        t.program(2, 1000);
        t.say(
            1,
            opened(1, Channel::Tcp, |o| {
                (o.device, o.inode, o.fd, o.local, o.remote) = (9, 1, 4, address(1, 5), address(2, 80))
            }),
        );
        t.say(
            2,
            opened(1, Channel::Tcp, |o| {
                (o.device, o.inode, o.fd, o.local, o.remote) = (9, 2, 4, address(2, 80), address(1, 5))
            }),
        );
        t.say(1, partial(1, Tap::SockSend, 0, 100, 1));
        t.say(2, partial(1, Tap::SockRecv, 0, 100, 2));
        t.wait(10);
        let is =
            |j: &&Judged| matches!(j, Judged::Notice(n) if matches!(n.what, What::AlteredWhileOpen { .. }));
        assert_eq!(t.assembler.out.iter().filter(is).count(), said);
    }
}

#[test]
fn unix_sockets_meet_by_the_kernels_word() {
    let told = Told { unix_peers: HashMap::from([(11, 12)]), ..Told::default() };
    let mut t = table(told);
    t.program(1, 0);
    t.program(2, 0);
    t.say(1, opened(1, Channel::Unix, |o| (o.device, o.inode) = (9, 11)));
    t.say(2, opened(1, Channel::Unix, |o| (o.device, o.inode) = (9, 12)));
    t.say(1, block(1, Tap::SockSend, 0, 1));
    t.say(2, block(1, Tap::SockRecv, 0, 1));
    t.say(1, ended(1, How::Closed, BLOCK, 0, |_| {}));
    t.say(2, ended(1, How::Closed, 0, BLOCK, |_| {}));
    t.wait(3);
    let all = t.transfers();
    assert_eq!((all.len(), all[0].verdict), (1, Verdict::Intact), "{all:#?}");
}

#[test]
fn overlapping_users_are_a_shared_descriptor() {
    let inode = (9, 77);
    let mut t = table(Told::default());
    t.program(1, 0);
    t.say(1, opened(1, Channel::Pipe, |o| (o.device, o.inode) = inode));
    t.say(1, ended(1, How::Checkpoint, 0, 0, |_| {}));
    let inherited =
        vec![Inherited { number: 1, inode, held: true, access: Some(Access { reads: false, writes: true }) }];
    let resume = t.assembler.register(2, facts(2, 0), true, t.now, inherited);
    assert_eq!((resume[0].out_offset, resume[0].in_offset), (0, 0));
    t.say(
        2,
        opened(1, Channel::Pipe, |o| {
            (o.device, o.inode) = inode;
            o.header.flags = INHERITED | RESUMED;
        }),
    );
    // Both write from the place where the second one came.
    for arena in [1, 2] {
        t.say(arena, block(1, Tap::PipeWrite, 0, arena as u8));
        t.say(arena, ended(1, How::Closed, BLOCK, 0, |_| {}));
    }
    t.program(3, 0);
    t.say(3, opened(1, Channel::Pipe, |o| (o.device, o.inode) = inode));
    t.wait(3);
    let all = t.transfers();
    assert_eq!(all.len(), 1, "{all:#?}");
    assert!(all[0].reasons.contains(&Reason::SharedDescriptor), "{all:#?}");
    assert_eq!(all[0].origin.as_ref().map(|o| o.also.len()), Some(1));
}

#[test]
fn a_forks_pid_is_believed_if_proc_agrees() {
    let told = Told { nspids: HashMap::from([(500, vec![500, 12])]), ..Told::default() };
    let mut t = table(told);
    let mut owner = Facts { nspid: vec![400, 10], ..Facts::default() };
    owner.process.pid = 400;
    t.assembler.register(1, Arc::new(owner), true, t.now, Vec::new());
    for pid in [12, 13] {
        let mut forked: Forked = bytemuck::Zeroable::zeroed();
        forked.header = header(Kind::Forked, 0);
        (forked.pid, forked.parent) = (pid, 10);
        t.say(1, Record::Forked(forked));
    }
    let program = &t.assembler.programs[&1];
    assert_eq!((program.pid(10), program.pid(12), program.pid(13)), (400, 500, 400));
}

#[test]
fn a_forks_fork_is_believed_in_any_order() {
    let told = Told { nspids: (11..15).map(|pid| (pid, vec![pid])).collect(), ..Told::default() };
    let mut t = table(told);
    let mut owner = Facts { nspid: vec![10], ..Facts::default() };
    owner.process.pid = 10;
    t.assembler.register(1, Arc::new(owner), true, t.now, Vec::new());
    // Each is the child of the one before; 20 is nobody's.
    for (pid, parent) in [(13, 12), (12, 11), (14, 20), (11, 10)] {
        let mut forked: Forked = bytemuck::Zeroable::zeroed();
        forked.header = header(Kind::Forked, 0);
        (forked.pid, forked.parent) = (pid, parent);
        t.say(1, Record::Forked(forked));
    }
    let program = &t.assembler.programs[&1];
    assert_eq!([11, 12, 13, 14].map(|pid| program.pid(pid)), [11, 12, 13, 10]);
}

/// A server forks for years; those that live, and who came of late, are remembered.
#[test]
fn forks_that_are_gone_are_forgotten() {
    let mut owner = Program::new(facts(10, 0), true, Vec::new());
    for n in 0..100_000 {
        owner.forked(n + 11, n + 11, u64::from(n) * 1_000_000_000, |pid| pid % 10_000 == 11);
    }
    // Those of the last ten seconds and more that nobody has looked at since.
    assert!(owner.children.len() <= 256, "{}", owner.children.len());
    assert_eq!([30_011, 100_010, 77_777].map(|pid| owner.pid(pid)), [30_011, 100_010, 10]);
}

#[test]
fn a_foreign_hook_makes_its_family_of_streams_unverified() {
    let mut t = table(Told::default());
    t.program(1, 0);
    t.program(2, 0);
    let mut note: Note = bytemuck::Zeroable::zeroed();
    note.header = header(Kind::Note, 0);
    note.about = About::ForeignHook as u8;
    let text = b"SSL_write /lib/other.so";
    note.text[..text.len()].copy_from_slice(text);
    note.text_len = text.len() as u16;
    t.say(1, Record::Note(note));
    for (arena, record) in connection(None, None) {
        t.say(arena, record);
    }
    t.wait(1);
    let heard = t.assembler.out.iter().any(|j| {
        matches!(j, Judged::Notice(n) if matches!(&n.what, What::ForeignHook { symbol, object, .. } if symbol == "SSL_write" && object == "/lib/other.so"))
    });
    assert!(heard);
    assert!(t.transfers().iter().all(|t| t.reasons == [Reason::ForeignHook]));
}

#[test]
fn ten_thousand_open_flows_stay_small() {
    let mut t = table(Told::default());
    t.program(1, 0);
    t.program(2, 0);
    for n in 1..=10_000u32 {
        for (arena, client) in [(1, true), (2, false)] {
            t.say(arena, opened(n, Channel::Tls, |_| {}));
            let Record::Flow(mut f) = flow(n, 0, client) else { unreachable!() };
            f.flow[..4].copy_from_slice(&n.to_le_bytes());
            t.say(arena, Record::Flow(f));
            t.say(arena, block(n, Tap::TlsWrite, 0, 1));
            t.say(arena, block(n, Tap::TlsRead, 0, 1));
        }
    }
    assert_eq!(t.assembler.transfers.len(), 20_000);
    // Both directions and both ends, and what a cipher witness would add, in bytes on the heap.
    let each = 2 * (size_of::<Transfer>() + 2 * 64 * 3)
        + 2 * (size_of::<Object>() + size_of::<object::Use>())
        + 4 * size_of::<Pair>();
    assert!(each * 10_000 < 150 << 20, "{each} bytes a flow");
    t.assembler.finish_all();
    assert!(
        t.transfers().iter().all(|t| t.verdict == Verdict::Unverified && t.reasons == [Reason::StillOpen])
    );
}

#[test]
fn a_program_whose_streams_are_in_a_thousand_pieces_is_given_up() {
    let mut t = table(Told::default());
    t.program(1, 0);
    t.program(2, 0);
    t.say(2, opened(1, Channel::Tls, |_| {}));
    'objects: for object in 1..=2000 {
        t.say(1, opened(object, Channel::Tls, |_| {}));
        for index in 0..600 {
            t.say(1, block(object, Tap::TlsWrite, index * 2, 1));
        }
        if let Some(heavy) = t.assembler.too_heavy() {
            assert_eq!(heavy, 1);
            t.assembler.hostile(heavy, "too much");
            break 'objects;
        }
    }
    t.wait(5);
    assert_eq!(t.assembler.objects.len(), 1, "the other program's");
    let all = t.transfers();
    assert!(all.len() > 100);
    assert!(all.iter().all(|t| t.reasons.contains(&Reason::RecordsDropped)), "{:?}", all[0].reasons);
}

#[test]
fn a_files_name_may_be_read_before_its_open() {
    let mut t = table(Told::default());
    t.program(1, 0);
    let named = |about: Naming, object| {
        let mut n: Named = bytemuck::Zeroable::zeroed();
        n.header = header(Kind::Named, object);
        (n.about, n.length, n.total, n.inode) = (about as u8, 2, 2, 7);
        n.text[..2].copy_from_slice(b"/f");
        Record::Named(n)
    };
    t.say(1, named(Naming::Path, 5));
    t.say(1, opened(5, Channel::File, |o| o.inode = 7));
    assert_eq!(t.assembler.files.path_of(1, 5), Some(&b"/f"[..]));
}

#[test]
fn one_record_speaks_for_a_stream_and_for_its_cipher_witness() {
    for (way, tap, witness) in
        [(Direction::Out, Tap::TlsWrite, Tap::CipherSeal), (Direction::In, Tap::TlsRead, Tap::CipherOpen)]
    {
        let mut t = table(Told::default());
        t.program(1, 0);
        t.say(1, opened(1, Channel::Tls, |_| {}));
        t.say(1, flow(1, 7, true));
        let Record::Blocks(mut both) = partial(1, tap, 0, 100, 1) else { unreachable!() };
        both.header.flags |= WITNESSED;
        t.say(1, Record::Blocks(both));
        let key = t.assembler.locate(1, 1).unwrap();
        let pair = t.assembler.objects.get(key).unwrap().cipher[way as usize].as_deref().unwrap();
        assert_eq!((pair.same_partial, pair.differs.is_empty()), (Some((0, 100)), true));
        // Each for itself from there on, and one of them has something else.
        t.say(1, partial(1, tap, 0, 200, 2));
        t.say(1, partial(1, witness, 0, 200, 3));
        t.wait(1);
        let said =
            |j: &Judged| matches!(j, Judged::Notice(n) if matches!(n.what, What::CipherMismatch { .. }));
        assert_eq!(t.assembler.out.iter().filter(|j| said(j)).count(), 1);
    }
}
