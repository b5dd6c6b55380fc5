//! What programs get from those that started them.

use super::*;

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

/// What sshd does with a connection: the listener accepts it and hands it to a new image, which has it to its end.
/// `say`: what the listener's family says when it has handed it over.
fn handed_on(t: &mut Table, connection: u64, number: u32, say: Option<Record>) {
    let [client, image] = [connection * 10, connection * 10 + 1];
    let [far, near] = [(10, 7 + 2 * connection), (9, 7 + 2 * connection)];
    let (from, to) = (address(1, 5000), address(2, 22));
    t.program(client, 0);
    t.say(
        client,
        opened(1, Channel::Tcp, |r| {
            (r.header.flags, r.fd, r.local, r.remote) = (CONNECTED, 3, from, to);
            (r.device, r.inode) = far;
        }),
    );
    t.say(
        1,
        opened(number, Channel::Tcp, |r| {
            (r.header.flags, r.fd, r.local, r.remote) = (ACCEPTED, 5, to, from);
            (r.device, r.inode) = near;
        }),
    );
    if let Some(say) = say {
        t.say(1, say);
    }
    t.wait(1);
    let inherited = vec![Inherited { number: 1, inode: near, held: true, access: None }];
    t.assembler.register(image, facts(image as u32, 0), true, t.now, inherited);
    t.say(
        image,
        opened(1, Channel::Tcp, |r| {
            (r.header.flags, r.fd, r.local, r.remote) = (INHERITED | RESUMED, 0, to, from);
            (r.device, r.inode) = near;
        }),
    );
    for (arena, out, inward) in [(client, 1, 2), (image, 2, 1)] {
        t.say(arena, block(1, Tap::SockSend, 0, out));
        t.say(arena, block(1, Tap::SockRecv, 0, inward));
    }
    t.say(image, ended(1, How::Exited, BLOCK, BLOCK, |_| {}));
    t.assembler.gone(image);
    t.say(client, ended(1, How::Closed, BLOCK, BLOCK, |_| {}));
    t.assembler.gone(client);
}

fn all_intact(t: &mut Table, expected: usize) {
    let all = t.transfers();
    assert_eq!(all.len(), expected, "{all:#?}");
    for transfer in &all {
        assert_eq!((transfer.verdict, transfer.reasons.as_slice()), (Verdict::Intact, [].as_slice()));
    }
}

/// A child that is killed says no last word.
#[test]
fn what_nobody_ended_does_not_disturb_the_next_connection_with_its_addresses() {
    let mut t = table(Told::default());
    t.program(1, 0);
    handed_on(&mut t, 1, 1, None);
    t.transfers();
    for again in 2..5 {
        handed_on(&mut t, again, again as u32, Some(ended(again as u32, How::Closed, 0, 0, |_| {})));
        t.wait(40);
        all_intact(&mut t, 2);
    }
}
