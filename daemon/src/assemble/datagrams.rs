//! Datagrams: where a socket's go, which may be many places, and how much goes to each.
//!
//! Comes in: `Datagrams` records, and `Ended`. Goes out: readings for each destination, as `meter` gives them of
//! connections; and who sends where, for the trail of sensitive files.
#![forbid(unsafe_code)]

use super::Assembler;
use super::object::Direction;
use super::program::ArenaId;
use super::slab::Key;
use counterfoil_abi::record::{self, Address, Channel, Ended};

/// Destinations of one socket that are told apart; of more, those that come later count as the last of these.
const DESTINATIONS: usize = 64;
/// Bytes sent to one destination that are told at once.
const MUCH: u64 = 16 * 1024;

/// Where one socket's datagrams went.
#[derive(Debug, Default)]
pub struct Datagrams {
    /// Each destination once.
    pub to: Vec<Going>,
    /// Which of them the last one went to.
    now: usize,
    /// Sent and received by then.
    counted: [u64; 2],
}

/// What went to one destination.
#[derive(Debug)]
pub struct Going {
    /// It.
    pub remote: Address,
    /// Bytes sent and received.
    pub moved: [u64; 2],
    /// When bytes were last sent there, monotonic nanoseconds.
    pub grew: u64,
    told: [u64; 2],
    said: bool,
}

impl Datagrams {
    /// `sent` and `received` bytes have passed by now, since the last time to where it went then.
    fn count(&mut self, totals: [u64; 2], time: u64) {
        let Some(going) = self.to.get_mut(self.now) else { return };
        let more = [0, 1].map(|d| totals[d].saturating_sub(self.counted[d]));
        if more[0] > 0 {
            going.grew = going.grew.max(time);
        }
        going.moved = [0, 1].map(|d| going.moved[d].saturating_add(more[d]));
        self.counted = [0, 1].map(|d| totals[d].max(self.counted[d]));
    }

    fn turn(&mut self, remote: Address) {
        if let Some(known) = self.to.iter().position(|g| g.remote == remote) {
            self.now = known;
        } else if self.to.len() < DESTINATIONS {
            self.now = self.to.len();
            self.to.push(Going { remote, moved: [0; 2], grew: 0, told: [0; 2], said: false });
        }
    }
}

impl Assembler {
    /// A record of a socket's datagrams.
    pub(super) fn datagrams(
        &mut self,
        arena: ArenaId,
        by: u32,
        number: u32,
        key: Key,
        record: &record::Datagrams,
    ) {
        let Some(object) = self.objects.get_mut(key).filter(|o| o.channel == Channel::Datagram) else {
            return;
        };
        let time = record.header.time;
        object.last = object.last.max(time);
        let sent = record.sent.saturating_add(record.bytes);
        if let Some(user) = object.use_of(arena, number) {
            user.reach(Direction::Out, sent, by, time);
            user.reach(Direction::In, record.received, by, time);
        }
        let all = object.datagrams.get_or_insert_default();
        all.count([record.sent, record.received], time);
        if record.remote.version != 0 {
            all.turn(record.remote);
            object.remote = record.remote;
        } else if all.to.is_empty() {
            all.turn(object.remote);
        }
        all.count([sent, record.received], time);
        self.tell_datagrams(key, MUCH, false);
    }

    /// The socket is closed, or its program is done with it.
    pub(super) fn datagrams_ended(&mut self, key: Key, ended: &Ended) {
        let Some(object) = self.objects.get_mut(key).filter(|o| o.channel == Channel::Datagram) else {
            return;
        };
        if let Some(all) = &mut object.datagrams {
            all.count([ended.out_total, ended.in_total], ended.header.time);
        }
        self.tell_datagrams(key, 1, object_ended(ended));
    }

    /// Says what has moved to each destination, if that is at least so much.
    pub(super) fn tell_datagrams(&mut self, key: Key, least: u64, last: bool) {
        let Some(object) = self.objects.get_mut(key) else { return };
        let Some(all) = object.datagrams.as_deref_mut().filter(|_| !object.accepted) else { return };
        let mut due: Vec<(Address, [u64; 2], [u64; 2], bool)> = Vec::new();
        for going in &mut all.to {
            let moved = [0, 1].map(|d| going.moved[d].saturating_sub(going.told[d]));
            if moved[0] >= least && going.remote.version != 0 && going.remote.port != 0 {
                due.push((going.remote, going.moved, moved, !std::mem::replace(&mut going.said, true)));
                going.told = going.moved;
            }
        }
        for (remote, totals, moved, first) in due {
            self.tell_reading(key, Some(&remote), totals, moved, first, last);
        }
    }
}

fn object_ended(ended: &Ended) -> bool {
    use record::How;
    matches!(How::from_code(ended.how), Some(How::Closed | How::Freed | How::ClosedUnseen))
}
