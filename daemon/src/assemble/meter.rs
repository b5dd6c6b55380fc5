//! How much a connection has moved, while it is open and when it ends.
//!
//! Comes in: the objects that `apply` keeps. Goes out: [`Reading`]s, for connections that were made here and sent
//! something. What is inside TLS is read where the session is seen; where a process is only counted, the kernel is asked,
//! at a slower pace. Only sockets that stir are read often.

use super::object::{Direction, Object, Use};
use super::slab::Key;
use super::{Assembler, outward};
use crate::detect::ends;
use crate::judged::{Judged, Reading};
use counterfoil_abi::record::{Address, Channel, Magic};

const SECOND: u64 = 1_000_000_000;
/// A stirring connection is read this often …
const PACE: u64 = SECOND;
/// … and one of which the kernel must be asked.
const KERNEL_PACE: u64 = 5 * SECOND;
/// The longest pauses of those that don't stir.
const LONGEST: u64 = 5 * SECOND;
const KERNEL_LONGEST: u64 = 30 * SECOND;
/// Bytes sent that are told at once …
const MUCH: u64 = 64 * 1024;
/// … and how long fewer wait.
const PATIENCE: u64 = 30 * SECOND;
/// Objects looked at in one tick.
const AT_ONCE: usize = 64;

/// What was read of an object.
#[derive(Debug, Default)]
pub struct Meter {
    /// It is looked at from time to time.
    listed: bool,
    /// It was looked at.
    begun: bool,
    /// Something was told.
    said: bool,
    /// Its last word was said.
    ended: bool,
    /// As far as was told, by direction.
    told: [u64; 2],
    /// When, monotonic nanoseconds; 0 never.
    told_at: u64,
    /// As far as was seen.
    seen: u64,
    /// Its pause, nanoseconds.
    pause: u64,
}

impl Assembler {
    /// An object has, or has been given, addresses: it is read from now on.
    pub(super) fn meter(&mut self, key: Key) {
        let now = self.now;
        let Some(object) = self.objects.get_mut(key) else { return };
        let metered = matches!(object.channel, Channel::Tcp | Channel::Tls | Channel::GnuTls);
        // What had ended goes on: another program has inherited it.
        object.meter.ended = false;
        if metered && !object.meter.listed {
            object.meter.listed = true;
            self.metered.insert((now + PACE, key));
        }
    }

    /// Reads what is due.
    pub(super) fn read_meters(&mut self) {
        for _ in 0..AT_ONCE {
            let Some(&(due, key)) = self.metered.first() else { return };
            if due > self.now {
                return;
            }
            self.metered.pop_first();
            if let Some(pause) = self.read_meter(key, false) {
                self.metered.insert((self.now + pause, key));
            } else if let Some(object) = self.objects.get_mut(key) {
                object.meter.listed = false;
            }
        }
    }

    /// The object has ended, or observation has: its last word.
    pub(super) fn read_last(&mut self, key: Key) {
        self.tell_datagrams(key, 1, true);
        if let Some(object) = self.objects.get(key)
            && object.meter.listed
            && !object.meter.ended
        {
            self.read_meter(key, true);
        }
    }

    /// Reads one; None: it need not be read again.
    fn read_meter(&mut self, key: Key, last: bool) -> Option<u64> {
        let object = self.objects.get(key)?;
        if object.meter.ended || object.session || object.accepted {
            return None;
        }
        if !outgoing(object, self) {
            return (!last).then_some(KERNEL_LONGEST);
        }
        let counted = self.only_counted(object);
        let kernel = if counted && !last { self.kernel_counts(object) } else { None };
        let (sent, received) = kernel.unwrap_or_default();
        let told = object.meter.told;
        let totals = [
            object.total(Direction::Out).max(sent).max(told[0]),
            object.total(Direction::In).max(received).max(told[1]),
        ];
        // What passed before it was observed was not seen to pass now.
        let late = !object.meter.begun && self.began_before(object);
        let now = self.now;
        let object = self.objects.get_mut(key)?;
        let meter = &mut object.meter;
        if late {
            meter.told = totals;
        }
        meter.begun = true;
        meter.ended |= last;
        let (least, most) = if counted { (KERNEL_PACE, KERNEL_LONGEST) } else { (PACE, LONGEST) };
        meter.pause = match totals[0] > meter.seen {
            true => least,
            false => (meter.pause * 2).clamp(least, most),
        };
        (meter.seen, meter.told_at) = (totals[0], if meter.told_at == 0 { now } else { meter.told_at });
        let pause = meter.pause;
        let moved = [0, 1].map(|d| totals[d].saturating_sub(meter.told[d]));
        let due = last || moved[0] >= MUCH || moved[0] > 0 && now.saturating_sub(meter.told_at) >= PATIENCE;
        if due && totals[0] > 0 && (moved[0] > 0 || last) {
            let first = !std::mem::replace(&mut meter.said, true);
            meter.told = totals;
            meter.told_at = now;
            self.tell_reading(key, None, totals, moved, first, last);
        }
        (!last).then_some(pause)
    }

    /// What has moved, in all and since the last time. `to`: where it went, if the connection doesn't say.
    pub(super) fn tell_reading(
        &mut self,
        key: Key,
        to: Option<&Address>,
        totals: [u64; 2],
        moved: [u64; 2],
        first: bool,
        last: bool,
    ) {
        let Some(object) = self.objects.get(key) else { return };
        let Some(process) = self.process_at(object, Direction::Out) else { return };
        let mut connection = self.connection(object, Direction::Out);
        if let Some(to) = to {
            connection.remote = outward::text(to);
        }
        if connection.remote.is_none() {
            return;
        }
        (connection.bytes_out, connection.bytes_in) = (Some(totals[0]), Some(totals[1]));
        let leg = object.legs[Direction::Out as usize];
        let content = object.content[Direction::Out as usize];
        let reading = Reading {
            seen: self.timestamp(self.now),
            opened: self.timestamp(object.opened),
            process,
            connection,
            channel: object.model_channel(),
            flow: self.flow_text(Some(object)),
            transfer: leg.and_then(|leg| self.transfers.get(leg)).map(|t| t.id),
            class: content.map(|c| c.class),
            entropy: content.map(|c| c.bits()),
            encoded: content.is_some_and(|c| c.magic == Some(Magic::Encoding)),
            sealed: object.carries_tls.is_some() || object.tunnels,
            sent: moved[0],
            received: moved[1],
            first,
            ended: last,
        };
        self.out.push_back(Judged::Traffic(Box::new(reading)));
    }

    /// Nobody of its users tells as it goes, or it carries what is not seen.
    fn only_counted(&self, object: &Object) -> bool {
        let watched = |u: &Use| self.programs.get(&u.arena).is_some_and(|p| p.watched);
        object.carries_tls.is_some() || !object.uses.iter().any(watched)
    }

    /// Bytes sent and received, by the kernel's word about this very socket.
    fn kernel_counts(&self, object: &Object) -> Option<(u64, u64)> {
        let socket = match object.carrier {
            Some(carrier) => self.objects.get(carrier)?,
            None => object,
        };
        socket.uses.iter().rev().filter(|u| u.finish.is_none() && u.fd >= 0).take(4).find_map(|user| {
            let program = self.programs.get(&user.arena)?;
            let by = user.by.into_iter().find(|&by| by != 0).unwrap_or(0);
            let facts = self.settings.proc.socket(program.pid(by), user.fd)?;
            (Some(facts.inode) == socket.inode).then_some((facts.sent?, facts.received?))
        })
    }

    /// Bytes had passed before it was observed, or before this daemon was.
    fn began_before(&self, object: &Object) -> bool {
        object.uses.iter().all(Use::attached_late)
            || object.uses.iter().filter_map(|u| self.programs.get(&u.arena)).any(|p| p.restarted)
    }
}

/// It was made here, to a service: an accepted connection is served.
fn outgoing(object: &Object, assembler: &Assembler) -> bool {
    if object.accepted || object.remote.version == 0 || object.remote.port == 0 {
        return false;
    }
    object.connected
        || outward::text(&object.remote).is_some()
            && ends::served_by(&assembler.connection(object, Direction::Out))
                .is_some_and(|(_, remote)| remote)
}
