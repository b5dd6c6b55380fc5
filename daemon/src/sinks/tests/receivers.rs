//! Syslog's receivers: what each gets, and gets once, however it and the daemon come and go.

use super::*;
use std::io::Read;
use std::net::{TcpListener, UdpSocket};

#[test]
fn unix_datagrams_and_a_receiver_that_is_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let receive = |socket: &UnixDatagram| {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 8192];
        let n = socket.recv(&mut buffer).expect("a line comes");
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    };
    // Nobody there yet: the line waits.
    let sinks = Sinks::start(
        &[syslog(SyslogAddress::Unix(path.clone()), None)],
        Some(dir.path()),
        &Metrics::default(),
    );
    sinks.send(&message());
    let first = UnixDatagram::bind(&path).unwrap();
    assert!(take_apart(&receive(&first)).0[5] == "payload-altered");
    drop(first);
    std::fs::remove_file(&path).unwrap();
    let second = UnixDatagram::bind(&path).unwrap();
    sinks.send(&message());
    // A socket that is closed right behind the read may give the first line once more.
    let sequence = |line: &str| take_apart(line).1[1].1[0].1.parse::<u32>().unwrap();
    while sequence(&receive(&second)) != 2 {}
    sinks.finish(Duration::from_secs(5));
}

#[test]
fn a_unix_receiver_that_stops_with_lines_unread_gets_each_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let first = UnixDatagram::bind(&path).unwrap();
    let sinks = Sinks::start(&[syslog(SyslogAddress::Unix(path.clone()), None)], None, &Metrics::default());
    for _ in 0..3 {
        sinks.send(&message());
    }
    // One lies in its queue when it is closed, unread; the others wait.
    let unread = || rustix::io::ioctl_fionread(&first).unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    while unread() == 0 && Instant::now() < end {
        std::thread::yield_now();
    }
    drop(first);
    std::fs::remove_file(&path).unwrap();
    let second = UnixDatagram::bind(&path).unwrap();
    second.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = [0; 8192];
    let got: Vec<String> = (0..3)
        .map(|_| {
            let n = second.recv(&mut buffer).expect("a line comes");
            take_apart(std::str::from_utf8(&buffer[..n]).unwrap()).1[1].1[0].1.clone()
        })
        .collect();
    assert_eq!(got, ["1", "2", "3"]);
    sinks.finish(Duration::from_secs(5));
    second.set_nonblocking(true).unwrap();
    assert!(second.recv(&mut buffer).is_err(), "nothing twice");
}

#[test]
fn what_waits_outlives_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let config = [syslog(SyslogAddress::Unix(path.clone()), None)];
    let sinks = Sinks::start(&config, Some(dir.path()), &Metrics::default());
    sinks.send(&message());
    sinks.finish(Duration::from_secs(5));
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    Sinks::start(&config, Some(dir.path()), &Metrics::default()).finish(Duration::from_millis(300));
    let mut buffer = [0; 8192];
    assert!(receiver.recv(&mut buffer).expect("the line of the first daemon") > 100);
}

#[test]
fn udp_and_heartbeats() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let address = SyslogAddress::Udp(receiver.local_addr().unwrap().to_string());
    let sinks = Sinks::start(&[syslog(address, Some(Duration::from_millis(100)))], None, &Metrics::default());
    let receive = || {
        let mut buffer = [0; 8192];
        let n = receiver.recv(&mut buffer).expect("a line comes");
        take_apart(std::str::from_utf8(&buffer[..n]).unwrap())
    };
    for n in 1..=3 {
        let (fields, elements, _) = receive();
        assert_eq!(fields[5], "heartbeat");
        assert_eq!(param(&elements, "sequence"), Some(n.to_string().as_str()));
    }
    sinks.send(&message());
    while receive().0[5] != "payload-altered" {}
    let (_, elements, _) = receive();
    assert_eq!(param(&elements, "sent"), Some("1"));
    sinks.finish(Duration::from_secs(5));
}

/// Reads one octet-counted frame.
fn frame(stream: &mut impl Read) -> Option<String> {
    let mut length = String::new();
    loop {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        match byte[0] {
            b' ' => break,
            digit => length.push(char::from(digit)),
        }
    }
    let mut line = vec![0; length.parse().ok()?];
    stream.read_exact(&mut line).ok()?;
    String::from_utf8(line).ok()
}

#[test]
fn tcp_frames_and_nothing_is_lost_over_a_reconnect() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let sinks =
        Sinks::start(&[syslog(SyslogAddress::Tcp(address.to_string()), None)], None, &Metrics::default());
    sinks.send(&message());
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let sequence = |line: String| take_apart(&line).1[1].1[0].1.parse::<u32>().unwrap();
    assert_eq!(sequence(frame(&mut stream).unwrap()), 1);
    // The receiver goes away, and comes back at the same address.
    drop((stream, listener));
    for _ in 0..5 {
        sinks.send(&message());
    }
    let listener = TcpListener::bind(address).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let got: Vec<u32> = (0..5).map(|_| sequence(frame(&mut stream).unwrap())).collect();
    assert_eq!(got, [2, 3, 4, 5, 6]);
    sinks.finish(Duration::from_secs(5));
}
