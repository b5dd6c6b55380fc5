//! How long a program that starts waits for the daemon's answer.
//!
//! Asks a running daemon on the given socket, again and again: with nothing inherited, and with a pipe that
//! the kernel says is held, whose offsets the core has to tell. Prints microseconds.

#[path = "../tests/fake/mod.rs"]
mod fake;

use counterfoil_abi::record::{Channel, INHERITED, Kind, Opened};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

fn main() {
    let socket = std::env::args().nth(1).expect("a socket's path");
    let (reader, _writer) = std::io::pipe().expect("a pipe");
    let stat = rustix::fs::fstat(&reader).expect("a pipe's inode");
    let mut pipe: Opened = bytemuck::Zeroable::zeroed();
    pipe.header = fake::header(Kind::Opened, 4, 1);
    pipe.header.flags = INHERITED;
    pipe.channel = Channel::Pipe as u8;
    pipe.fd = reader.as_raw_fd();
    (pipe.device, pipe.inode) = (stat.st_dev, stat.st_ino);
    for (name, inherited) in [("nothing inherited", &[][..]), ("a pipe inherited", &[pipe][..])] {
        let mut took: Vec<Duration> = (0..500)
            .map(|_| {
                let began = Instant::now();
                drop(fake::Shim::hello_with(Path::new(&socket), inherited));
                let took = began.elapsed();
                std::thread::sleep(Duration::from_millis(3));
                took
            })
            .collect();
        took.sort_unstable();
        let at = |share: usize| took[took.len() * share / 100].as_micros();
        println!("{name}: 10 % {} µs, median {} µs, 90 % {} µs", at(10), at(50), at(90));
    }
}
