//! Datagrams over IP: where they go, and how much.
//!
//! Comes in: each datagram that is sent, and where it goes, if it says so itself. Goes out: `Datagrams` records: whenever the
//! destination is another one, and with the first byte, as often as the volume has doubled, at last each 64 KiB. The
//! rest is in `Ended`. They can be done without where a lane is crowded: nobody can make a lane full by datagrams.

use crate::objects::Object;
use crate::thread::Guard;
use crate::{fds, lanes};
use bytemuck::Zeroable;
use core::sync::atomic::Ordering::Relaxed;
use counterfoil_abi::record::{Address, CONNECTED, Datagrams, Kind};

/// The longest stretch that is not told.
const MUCH: u64 = 64 << 10;
/// And the shortest one behind the first byte.
const LITTLE: u64 = 512;

/// `bytes` of them went to `to` through `fd`.
pub fn turn(guard: &Guard, object: &Object, fd: i32, bytes: u64, to: Address) {
    let key = key(&to);
    let before = object.datagrams.to.swap(key, Relaxed);
    if before == 0 && object.opened.load(Relaxed) & CONNECTED == 0 {
        // Until now it led nowhere. By now it has a port.
        fds::tell_opened(guard, object, fd, 0);
    }
    if before != key {
        tell(guard, object, bytes, to);
    }
}

/// `bytes` more go where the last ones went. They are not counted yet.
pub fn go(guard: &Guard, object: &Object, bytes: u64) {
    let (sent, told) = (object.out.offset(), object.datagrams.told.load(Relaxed));
    let due = if told == 0 { 1 } else { told.clamp(LITTLE, MUCH) };
    if sent.saturating_add(bytes).saturating_sub(told) >= due {
        tell(guard, object, bytes, Address::default());
    }
}

fn tell(guard: &Guard, object: &Object, bytes: u64, remote: Address) {
    let sent = object.out.offset();
    object.datagrams.told.store(sent + bytes, Relaxed);
    let mut record: Datagrams = Zeroable::zeroed();
    record.header = lanes::header(Kind::Datagrams, 1, 0, object.number());
    (record.remote, record.sent, record.bytes) = (remote, sent, bytes);
    record.received = object.into.offset();
    let lines = bytemuck::cast_slice(core::slice::from_ref(&record));
    lanes::push_spare(guard, lines, false);
}

/// Stands for an address; never 0.
fn key(to: &Address) -> u64 {
    let bytes = bytemuck::bytes_of(to);
    // FNV-1a.
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, &b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
        | 1
}
