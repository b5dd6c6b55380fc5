//! TLS sessions and the sockets under them, whichever library drives them.

use crate::fds;
use crate::lanes;
use crate::mac::hello_tag;
use crate::objects::{self, Object};
use crate::stream::Pieces;
use crate::thread::Guard;
use core::sync::atomic::Ordering;
use counterfoil_abi::Tag;
use counterfoil_abi::record::{Carrier, Channel, Kind};

/// Where a ClientHello's random stands: record header 5, handshake header 4, version 2 (RFC 8446,
/// 4.1.2 and 5.1).
const RANDOM_AT: usize = 11;
const RANDOM_BYTES: usize = 32;
/// TLS begins before this, if at all: behind a proxy's CONNECT, or STARTTLS.
const EARLY: u64 = 4096;

/// Looks at bytes that a call has moved `way` through a socket: is this TLS? `before`: the stream's offset. It is claimed.
#[inline(always)]
pub fn look<P: Pieces + ?Sized>(guard: &Guard, object: &Object, way: u8, before: u64, data: &P, bytes: u64) {
    // Of several stacks that are inside of calls, who says which one this is?
    let inside = guard.inside().filter(|inside| !inside.mixed);
    if (before >= EARLY && inside.is_none()) || !matches!(object.channel(), Channel::Tcp | Channel::Unix) {
        return;
    }
    let mut start = [0u8; RANDOM_AT + RANDOM_BYTES];
    let mut have = 0;
    data.walk(0, bytes.min(start.len() as u64), &mut |piece| {
        start[have..have + piece.len()].copy_from_slice(piece);
        have += piece.len();
    });
    // Content types 20 to 24, major version 3 (RFC 8446, 5.1).
    if have < 3 || !(20..=24).contains(&start[0]) || start[1] != 3 {
        return;
    }
    if let Some(inside) = inside {
        carried(guard, object, way, inside.number);
    } else if have == start.len() && start[0] == 22 && start[5] == 1 {
        // Memory BIOs: the library never sees the socket. The daemon joins the two by the tag. (Or it is somebody's whose TLS nobody
        // sees.)
        tell_before(guard, object, way);
        tell_carrier(guard, object, 0, hello_tag(&start[RANDOM_AT..]));
    }
}

/// The socket that carried this session is no more.
pub fn has_lost_its_socket(session: &Object) -> bool {
    let carrier = session.tls.carrier.load(Ordering::Relaxed);
    let mut open = carrier == 0;
    fds::for_each(|_, object| open |= object.number() == carrier);
    !open
}

/// `socket` is used by a TLS session from here on, which a call of this `way` begins.
fn carried(guard: &Guard, socket: &Object, way: u8, session: u32) {
    if session == 0 {
        return;
    }
    tell_before(guard, socket, way);
    socket.carries.store(session, Ordering::Relaxed);
    if let Some(session) = guard.inside().and_then(|inside| inside.session()) {
        session.tls.carrier.store(socket.number(), Ordering::Relaxed);
    }
    tell_carrier(guard, socket, session, [0; 16]);
}

/// What came before TLS ends here for the daemon, in the middle of a block.
fn tell_before(guard: &Guard, socket: &Object, way: u8) {
    let out = way == objects::OUT;
    let (sent, received) = socket.taps();
    let (stream, tap) = if out { (&socket.out, sent) } else { (&socket.into, received) };
    stream.tell(guard, socket.number(), tap);
    socket.tell_way(guard, !out, false);
}

fn tell_carrier(guard: &Guard, socket: &Object, session: u32, hello: Tag) {
    let record = Carrier {
        header: lanes::header(Kind::Carrier, 1, 0, socket.number()),
        out_offset: socket.out.offset(),
        in_offset: socket.into.offset(),
        hello,
        tls: session,
        pad: [0; 12],
    };
    lanes::push_record(guard, &record);
}
