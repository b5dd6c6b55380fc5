//! The channels of a connection: what a packet does to them.

use super::calls::Packet;
use super::packet::{self, DATA_AT, HEAD, Message};
use super::{Asked, Open, State, Text, carrier, refused};
use crate::objects::{self, Object};
use crate::stream::{Pieces, Stream};
use crate::thread::Guard;
use crate::{lanes, process, sessions};
use bytemuck::Zeroable;
use core::sync::atomic::Ordering;
use counterfoil_abi::record::{
    ACCEPTED, CONNECTED, Channel, How, IN_EOF, Kind, OUT_SHUT, Opened, Reason, Tap,
};

/// A packet's data in its two parts.
struct Data<'a> {
    parts: [&'a [u8]; 2],
    from: usize,
}

impl Pieces for Data<'_> {
    fn walk(&self, skip: u64, limit: u64, each: &mut dyn FnMut(&[u8])) {
        let (mut skip, mut limit) = (self.from + skip as usize, limit as usize);
        for part in self.parts {
            let from = skip.min(part.len());
            let to = from + limit.min(part.len() - from);
            if from < to {
                each(&part[from..to]);
            }
            skip -= from;
            limit -= to - from;
        }
    }
}

impl State {
    pub(super) fn packet(&mut self, guard: &Guard, packet: &Packet) {
        refused::passed();
        let way = usize::from(packet.sealed);
        if self.squeezed[way] {
            return;
        }
        // SAFETY: between the program's cipher calls for this packet, or right after the last.
        let parts = unsafe { packet.parts() };
        let total = parts[0].len() + parts[1].len();
        let mut copy = [0; HEAD];
        let head = if parts[0].is_empty() {
            &parts[1][..parts[1].len().min(HEAD)]
        } else {
            let (a, b) = (parts[0].len(), parts[1].len().min(HEAD - parts[0].len()));
            copy[..a].copy_from_slice(parts[0]);
            copy[a..a + b].copy_from_slice(&parts[1][..b]);
            &copy[..a + b]
        };
        let Some(message) = packet::read(head, total) else {
            // zlib@openssh.com begins with the login; channels are opened later, so of a compressed
            // connection no channel is ever seen, and there is nothing to be wrong about.
            if packet.framed && self.packets > 0 {
                self.squeezed[way] = true;
                self.doubt(guard, packet.sealed, Reason::Transformed);
            }
            return;
        };
        self.packets = self.packets.saturating_add(1);
        match message {
            Message::Data { channel, length } => {
                let data = Data { parts, from: DATA_AT };
                self.data(guard, packet, channel, &data, length as u64);
            }
            Message::Open { kind, sender } => {
                let asked = Asked { by_us: packet.sealed, sender, kind: Text::new(kind) };
                if let Some(free) = self.asked.iter_mut().find(|a| a.is_none()) {
                    *free = Some(asked);
                }
            }
            Message::Confirmation { recipient, sender } => {
                // Our confirmation answers what they asked for, and theirs what we did.
                let by_us = !packet.sealed;
                let (local, remote) = if by_us { (recipient, sender) } else { (sender, recipient) };
                let asked = self.answered(by_us, recipient);
                let count = &mut self.confirmed[usize::from(by_us)];
                let ordinal = *count;
                *count = count.wrapping_add(1);
                if let Some(asked) = asked {
                    self.open(guard, local, remote, &asked, ordinal);
                }
            }
            Message::Failure { recipient } => {
                self.answered(!packet.sealed, recipient);
            }
            Message::Eof { channel } => self.eof(guard, packet.sealed, channel),
            Message::Close { channel } => self.close(guard, packet.sealed, channel),
            Message::Request { channel, kind } => self.request(guard, packet.sealed, channel, kind),
            Message::Disconnect { text } if packet.sealed && text == refused::GOODBYE => {
                refused::now(guard, self);
            }
            Message::Disconnect { .. } | Message::Other { .. } => {}
        }
    }

    /// Takes out the request that is answered.
    fn answered(&mut self, by_us: bool, sender: u32) -> Option<Asked> {
        let is = |a: &Asked| a.by_us == by_us && a.sender == sender;
        self.asked.iter_mut().find(|a| a.as_ref().is_some_and(is))?.take()
    }

    /// The channel that a packet's recipient means.
    fn find(&mut self, sealed: bool, channel: u32) -> Option<&mut Open> {
        let named = |open: &Open| if sealed { open.remote == channel } else { open.local == channel };
        self.open.iter_mut().flatten().find(|open| named(open))
    }

    fn open(&mut self, guard: &Guard, local: u32, remote: u32, asked: &Asked, ordinal: u32) {
        let Some(index) = self.open.iter().position(Option::is_none) else { return };
        let Some(name) = objects::make(Channel::Ssh) else { return };
        let (kind, by_us) = (asked.kind, asked.by_us);
        let open = Open { local, remote, name, kind, by_us, ordinal, closed: [false; 2] };
        self.open[index] = Some(open);
        if !sessions::insert(key(&self.open[index]), name) {
            self.open[index] = None;
            if let Some(object) = objects::get(name) {
                object.discard();
            }
            process::arena().no_object.fetch_add(1, Ordering::Relaxed);
            return;
        }
        open.tell(guard);
    }

    fn data(&mut self, guard: &Guard, packet: &Packet, channel: u32, data: &Data<'_>, bytes: u64) {
        let Some(open) = self.find(packet.sealed, channel) else { return };
        let name = open.name;
        let Some(object) = objects::get(name) else { return };
        let (stream, tap) = streams(object, packet.sealed);
        if packet.unproven {
            self.unproven = Some((name, stream.offset()));
        }
        if !process::watched() {
            return stream.count(bytes);
        }
        if stream.claim(guard, object.number(), tap) {
            stream.took(guard, object.number(), tap, data, bytes);
            stream.release();
        }
    }

    fn eof(&mut self, guard: &Guard, sealed: bool, channel: u32) {
        let Some(object) = self.find(sealed, channel).and_then(|open| objects::get(open.name)) else {
            return;
        };
        let (stream, tap) = streams(object, sealed);
        object.flag(if sealed { OUT_SHUT } else { IN_EOF });
        stream.try_tell(guard, object.number(), tap, false);
    }

    fn close(&mut self, guard: &Guard, sealed: bool, channel: u32) {
        let Some(open) = self.find(sealed, channel) else { return };
        open.closed[usize::from(sealed)] = true;
        if open.closed != [true; 2] {
            return;
        }
        let name = open.name;
        let index = self.open.iter().position(|open| open.is_some_and(|open| open.name == name));
        let Some(index) = index else { return };
        sessions::remove(key(&self.open[index]));
        self.open[index] = None;
        if let Some(object) = objects::get(name) {
            object.drop_ref(guard, How::Freed, crate::kernel::Counts::UNKNOWN);
        }
    }

    fn request(&mut self, guard: &Guard, sealed: bool, channel: u32, kind: &[u8]) {
        if !matches!(kind, b"exec" | b"shell" | b"subsystem" | b"pty-req") {
            return;
        }
        let Some(open) = self.find(sealed, channel) else { return };
        open.kind.add(b" ");
        open.kind.add(kind);
        open.tell(guard);
    }

    /// From here on, nobody knows what passes in this direction.
    pub(super) fn doubt(&self, guard: &Guard, sealed: bool, reason: Reason) {
        for open in self.open.iter().flatten() {
            let Some(object) = objects::get(open.name) else { continue };
            let (stream, tap) = streams(object, sealed);
            stream.doubt(guard, object.number(), tap, reason);
        }
    }
}

impl Open {
    fn tell(&self, guard: &Guard) {
        let Some(object) = objects::get(self.name) else { return };
        let mut record = Opened {
            header: lanes::header(Kind::Opened, 4, 0, object.number()),
            channel: Channel::Ssh as u8,
            fd: -1,
            device: u64::from(carrier().map_or(0, Object::number)),
            inode: u64::from(self.ordinal),
            peer_inode: u64::from(self.local) << 32 | u64::from(self.remote),
            name_len: self.kind.length as u32,
            ..Zeroable::zeroed()
        };
        record.header.flags = if self.by_us { CONNECTED } else { ACCEPTED };
        record.name[..self.kind.length].copy_from_slice(&self.kind.bytes[..self.kind.length]);
        lanes::push_record(guard, &record);
    }
}

fn streams(object: &Object, sealed: bool) -> (&Stream, Tap) {
    if sealed { (&object.out, Tap::CipherSeal) } else { (&object.into, Tap::CipherOpen) }
}

/// What stands for a channel among the sessions: where it is kept.
fn key(place: &Option<Open>) -> usize {
    core::ptr::from_ref(place).addr()
}
