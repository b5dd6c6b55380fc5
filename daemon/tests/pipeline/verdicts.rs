//! What two ends say, and the verdict on it.

use crate::fake::{self, Shim, Stream};
use crate::harness::*;
use counterfoil_abi::record::*;
use counterfoil_abi::{BLOCK, UNKNOWN};
use counterfoil_daemon::judged::What;
use counterfoil_daemon::model::{Range, Verdict};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

#[test]
fn equal_ends_are_intact() {
    let mut daemon = start(|_| {});
    for (flow, length) in [1, B - 1, B, B + 1, 10 * B + 5].into_iter().enumerate() {
        let data = content(length);
        tls(&daemon, flow as u8 + 1, &data, &data);
        let t = daemon.transfer();
        assert_eq!((t.verdict, t.reasons.as_slice()), (Verdict::Intact, &[][..]), "{length}: {t:#?}");
        assert_eq!((t.bytes.origin, t.bytes.destination), (Some(length as u64), Some(length as u64)));
        assert_eq!(t.flow, Some(format!("{:02x}", flow + 1).repeat(16)));
        let (origin, destination) = (t.origin.unwrap(), t.destination.unwrap());
        assert_eq!((origin.pid, origin.tap), (std::process::id(), Tap::TlsWrite));
        assert_eq!((origin.witnessed, destination.witnessed), (length as u64, length as u64));
        assert!(t.origin_digest.is_some());
        assert_eq!(t.origin_digest, t.destination_digest);
        assert!(t.started <= t.ended && t.ended <= jiff::Timestamp::now());
    }
}

#[test]
fn a_changed_byte_is_altered() {
    let mut daemon = start(|_| {});
    let data = content(3 * B + 100);
    let mut changed = data.clone();
    changed[B + 17] ^= 1;
    tls(&daemon, 1, &data, &changed);
    let t = daemon.transfer();
    assert_eq!(t.verdict, Verdict::Altered);
    assert_eq!(t.altered, [Range { offset: BLOCK, length: BLOCK }]);
    assert_ne!(t.origin_digest, t.destination_digest);
}

#[test]
fn an_altered_request_is_said_while_the_connection_is_open() {
    let mut daemon = start(|_| {});
    let mut client = Shim::hello(&daemon.socket);
    let mut server = Shim::hello(&daemon.socket);
    client.tls(1, 9, true);
    server.tls(1, 9, false);
    let (mut out, mut inward) = (Stream::default(), Stream::default());
    client.pass(1, Tap::TlsWrite, &mut out, b"pay 100");
    client.partial(1, Tap::TlsWrite, &out);
    server.pass(1, Tap::TlsRead, &mut inward, b"pay 900");
    let began = Instant::now();
    server.partial(1, Tap::TlsRead, &inward);
    let notice = daemon.notice();
    assert!(began.elapsed() < Duration::from_secs(1));
    let What::AlteredWhileOpen { altered, .. } = &notice.what else { panic!("{notice:?}") };
    assert_eq!(altered, &[Range { offset: 0, length: 7 }]);
    assert_eq!(notice.connection.unwrap().server_name.as_deref(), Some("host"));
    client.end(1, How::Freed, 7, 0, |_| {});
    server.end(1, How::Freed, 0, 7, |_| {});
    let t = daemon.transfer();
    assert_eq!((t.verdict, Some(t.id)), (Verdict::Altered, notice.transfer));
}

#[test]
fn the_cipher_witness_speaks_without_the_other_end() {
    let mut daemon = start(|_| {});
    let mut client = Shim::hello(&daemon.socket);
    client.tls(1, 3, true);
    let (mut out, mut seal) = (Stream::default(), Stream::default());
    client.pass(1, Tap::TlsWrite, &mut out, &content(2 * B));
    let mut changed = content(2 * B);
    changed[B] ^= 1;
    client.pass(1, Tap::CipherSeal, &mut seal, &changed);
    let notice = daemon.notice();
    let What::CipherMismatch { tap: Tap::TlsWrite, altered, .. } = &notice.what else { panic!("{notice:?}") };
    assert_eq!(altered, &[Range { offset: BLOCK, length: BLOCK }]);
    client.end(1, How::Freed, 2 * BLOCK, 0, |_| {});
    let t = daemon.transfer();
    assert_eq!((t.verdict, t.reasons), (Verdict::Unverified, vec![Reason::PeerNotObserved]));
    assert_eq!((t.destination, t.bytes.destination), (None, None));
}

#[test]
fn records_may_come_through_lanes_in_any_order() {
    let mut daemon = start(|_| {});
    let mut client = Shim::hello(&daemon.socket);
    let mut server = Shim::hello(&daemon.socket);
    let tags: Vec<_> = (0..40u64).map(|b| fake::tag(&content(B), b)).collect();
    // Blocks in lanes that are read before and after the one with `Opened`, last ones first.
    for block in (0..40u64).rev() {
        client.block(1 + (block % 3) as usize, 1, Tap::TlsWrite, block * BLOCK, tags[block as usize]);
        server.block((block % 5) as usize, 1, Tap::TlsRead, block * BLOCK, tags[block as usize]);
    }
    server.end(1, How::Freed, 0, 40 * BLOCK, |_| {});
    client.end(1, How::Freed, 40 * BLOCK, 0, |_| {});
    server.tls(1, 3, false);
    client.tls(1, 3, true);
    let t = daemon.transfer();
    assert_eq!((t.verdict, t.reasons.as_slice()), (Verdict::Intact, &[][..]), "{t:#?}");
}

#[test]
fn tcp_ends_meet_by_their_addresses() {
    let mut daemon = start(|_| {});
    let mut client = Shim::hello(&daemon.socket);
    let mut server = Shim::hello(&daemon.socket);
    let mut mapped = fake::v4(2, 80);
    mapped.version = 6;
    mapped.ip = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2];
    client.open(1, Channel::Tcp, |o| {
        (o.local, o.remote, o.inode, o.device) = (fake::v4(1, 4000), fake::v4(2, 80), 1001, 9);
    });
    server.open(1, Channel::Tcp, |o| {
        (o.local, o.remote, o.inode, o.device) = (mapped, fake::v4(1, 4000), 1002, 9);
    });
    let (mut out, mut inward) = (Stream::default(), Stream::default());
    client.pass(1, Tap::SockSend, &mut out, &content(B + 5));
    client.partial(1, Tap::SockSend, &out);
    server.pass(1, Tap::SockRecv, &mut inward, &content(B + 5));
    server.partial(1, Tap::SockRecv, &inward);
    let total = BLOCK + 5;
    client.end(1, How::Closed, total, 0, |e| e.kernel_out = total);
    server.end(1, How::Closed, 0, total, |e| e.kernel_in = total);
    let t = daemon.transfer();
    assert_eq!((t.verdict, t.reasons.as_slice()), (Verdict::Intact, &[][..]), "{t:#?}");
    assert_eq!(t.origin.unwrap().remote.as_deref(), Some("10.0.0.2:80"));
    assert_eq!(t.flow.unwrap().len(), 32);
}

#[test]
fn a_socket_under_tls_is_no_transfer_but_what_went_before_is() {
    let daemon = start(|_| {});
    let mut client = Shim::hello(&daemon.socket);
    let mut server = Shim::hello(&daemon.socket);
    for (shim, local, remote, inode) in [
        (&mut client, fake::v4(1, 4000), fake::v4(2, 25), 1),
        (&mut server, fake::v4(2, 25), fake::v4(1, 4000), 2),
    ] {
        shim.open(1, Channel::Tcp, |o| {
            (o.local, o.remote, o.inode, o.device) = (local, remote, inode, 9);
        });
        shim.tls(2, 5, inode == 1);
        let mut carrier: Carrier = bytemuck::Zeroable::zeroed();
        carrier.header = fake::header(Kind::Carrier, 1, 1);
        (carrier.out_offset, carrier.in_offset, carrier.tls) =
            if inode == 1 { (10, 0, 2) } else { (0, 10, 2) };
        let mut stream = Stream::default();
        let tap = if inode == 1 { Tap::SockSend } else { Tap::SockRecv };
        shim.pass(1, tap, &mut stream, b"STARTTLS\r\n");
        shim.partial(1, tap, &stream);
        shim.push(0, &carrier, 1);
        let (tap, mut stream) =
            if inode == 1 { (Tap::TlsWrite, Stream::default()) } else { (Tap::TlsRead, Stream::default()) };
        shim.pass(2, tap, &mut stream, b"secret");
        shim.partial(2, tap, &stream);
        let out = inode == 1;
        let of = |n: u64| if out { (n, 0) } else { (0, n) };
        shim.end(2, How::Freed, of(6).0, of(6).1, |_| {});
        shim.end(1, How::Closed, of(900).0, of(900).1, |e| (e.kernel_out, e.kernel_in) = of(900));
    }
    drop((client, server));
    let mut all = daemon.drain();
    all.sort_by_key(|t| t.bytes.origin);
    let told: Vec<_> = all.iter().map(|t| (t.channel, t.verdict, t.bytes.origin.unwrap())).collect();
    use counterfoil_daemon::model::Channel::{Tcp, Tls};
    assert_eq!(told, [(Tls, Verdict::Intact, 6), (Tcp, Verdict::Intact, 10)], "{all:#?}");
    // The session has its socket's addresses.
    assert_eq!(all[0].origin.as_ref().unwrap().remote.as_deref(), Some("10.0.0.2:25"));
}

#[test]
fn a_pipe_is_one_transfer_and_goes_on_across_exec() {
    let mut daemon = start(|_| {});
    let (reader, writer) = std::io::pipe().unwrap();
    let stat = rustix::fs::fstat(&reader).unwrap();
    let pipe = |o: &mut Opened, fd: i32| {
        (o.device, o.inode, o.fd, o.channel) = (stat.st_dev, stat.st_ino, fd, Channel::Pipe as u8);
    };
    let mut shell = Shim::hello(&daemon.socket);
    shell.open(1, Channel::Pipe, |o| pipe(o, writer.as_raw_fd()));
    let mut out = Stream::default();
    shell.pass(1, Tap::PipeWrite, &mut out, &content(100));
    shell.partial(1, Tap::PipeWrite, &out);
    shell.end(1, How::Execed, 100, 0, |_| {});
    // Another image inherits it: it is told where to go on.
    let mut inherited: Opened = bytemuck::Zeroable::zeroed();
    inherited.header.object = 7;
    pipe(&mut inherited, writer.as_raw_fd());
    let mut cat = Shim::hello_with(&daemon.socket, &[inherited]);
    assert_eq!(cat.reply.resume[0].out_offset, 100);
    drop(shell);
    cat.open(7, Channel::Pipe, |o| {
        pipe(o, writer.as_raw_fd());
        o.header.flags = INHERITED | RESUMED;
    });
    cat.gap(7, Tap::PipeWrite, 100, BLOCK - 100, Reason::HandedOver);
    cat.end(7, How::Closed, 100, 0, |_| {});
    // And one the reading end.
    pipe(&mut inherited, reader.as_raw_fd());
    let mut wc = Shim::hello_with(&daemon.socket, &[inherited]);
    assert_eq!(wc.reply.resume[0].in_offset, 0);
    wc.open(7, Channel::Pipe, |o| {
        pipe(o, reader.as_raw_fd());
        o.header.flags = INHERITED | RESUMED;
    });
    let mut inward = Stream::default();
    wc.pass(7, Tap::PipeRead, &mut inward, &content(100));
    wc.partial(7, Tap::PipeRead, &inward);
    wc.end(7, How::Closed, 0, 100, |_| {});
    let t = daemon.transfer();
    assert_eq!((t.verdict, t.reasons.as_slice()), (Verdict::Intact, &[][..]), "{t:#?}");
    assert_eq!(t.bytes.origin, Some(100));
}

#[test]
fn an_inherited_socket_that_is_not_held_is_not_resumed() {
    let daemon = start(|_| {});
    let mut shell = Shim::hello(&daemon.socket);
    shell.open(1, Channel::Tcp, |o| (o.device, o.inode) = (9, 77));
    shell.end(1, How::Checkpoint, 100, 0, |_| {});
    let mut claimed: Opened = bytemuck::Zeroable::zeroed();
    (claimed.device, claimed.inode, claimed.fd, claimed.channel) = (9, 77, 0, Channel::Tcp as u8);
    let liar = Shim::hello_with(&daemon.socket, &[claimed]);
    assert_eq!(liar.reply.resume[0].out_offset, UNKNOWN);
}

#[test]
fn two_claimants_of_one_end_are_disputed() {
    let daemon = start(|_| {});
    let mut honest = Shim::hello(&daemon.socket);
    let mut server = Shim::hello(&daemon.socket);
    let mut liar = Shim::hello(&daemon.socket);
    for (shim, local, remote, inode) in [
        (&mut honest, fake::v4(1, 4000), fake::v4(2, 80), 1),
        (&mut liar, fake::v4(1, 4000), fake::v4(2, 80), 2),
        (&mut server, fake::v4(2, 80), fake::v4(1, 4000), 3),
    ] {
        shim.open(1, Channel::Tcp, |o| {
            (o.local, o.remote, o.inode, o.device) = (local, remote, inode, 9);
        });
        std::thread::sleep(Duration::from_millis(20));
    }
    for (shim, data) in [(&mut honest, b"same"), (&mut liar, b"lies")] {
        let mut out = Stream::default();
        shim.pass(1, Tap::SockSend, &mut out, data);
        shim.partial(1, Tap::SockSend, &out);
        shim.end(1, How::Closed, 4, 0, |e| e.kernel_out = 4);
    }
    let mut inward = Stream::default();
    server.pass(1, Tap::SockRecv, &mut inward, b"same");
    server.partial(1, Tap::SockRecv, &inward);
    server.end(1, How::Closed, 0, 4, |e| e.kernel_in = 4);
    let all = daemon.drain();
    assert!(!all.is_empty());
    assert!(all.iter().all(|t| t.verdict == Verdict::Unverified), "{all:#?}");
    assert!(all.iter().any(|t| t.reasons.contains(&Reason::DisputedClaim)), "{all:#?}");
}

#[test]
fn what_is_open_at_the_end_is_still_open() {
    let daemon = start(|_| {});
    let mut client = Shim::hello(&daemon.socket);
    let mut server = Shim::hello(&daemon.socket);
    client.tls(1, 9, true);
    server.tls(1, 9, false);
    let mut out = Stream::default();
    client.pass(1, Tap::TlsWrite, &mut out, &content(2 * B));
    let mut inward = Stream::default();
    server.pass(1, Tap::TlsRead, &mut inward, &content(2 * B));
    let all = daemon.drain();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].verdict, all[0].reasons.as_slice()), (Verdict::Unverified, &[Reason::StillOpen][..]));
}

#[test]
fn a_process_that_is_gone_without_a_word_was_killed() {
    let mut daemon = start(|_| {});
    // A process of its own: its death is what the daemon is to notice.
    let mut server = Shim::hello(&daemon.socket);
    server.tls(1, 9, false);
    let socket = daemon.socket.clone();
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut client = Shim::hello(&socket);
        client.tls(1, 9, true);
        client.pass(1, Tap::TlsWrite, &mut Stream::default(), &content(2 * B));
        unsafe { libc::_exit(0) };
    }
    assert!(child > 0);
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    server.pass(1, Tap::TlsRead, &mut Stream::default(), &content(2 * B));
    server.end(1, How::Freed, 0, 2 * BLOCK, |_| {});
    let t = daemon.transfer();
    assert_eq!((t.verdict, t.reasons.as_slice()), (Verdict::Unverified, &[Reason::ProcessKilled][..]));
    assert_eq!(t.origin.unwrap().pid, child as u32);
}
