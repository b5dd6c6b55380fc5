//! Messages: what the shim tells of each packet of a stream that carries MQTT, passed on with whose stream it is.
//!
//! Comes in: `Message` records, and the end of their objects. Goes out: [`Carried`]. Nothing is compared here.
#![forbid(unsafe_code)]

use super::Assembler;
use super::object::{Direction, Place, place};
use super::program::ArenaId;
use super::slab::Key;
use crate::host::facts::path_text;
use crate::judged::{Carried, Judged, Line, Said};
use counterfoil_abi::record::{BROKER, DUPLICATE, Message, Packet, QOS, RETAINED, Tap};
use std::sync::Arc;

impl Assembler {
    pub(super) fn message(&mut self, arena: ArenaId, by: u32, key: Key, message: &Message) {
        let Some(object) = self.objects.get(key) else { return };
        let at = Tap::from_code(message.header.tap).and_then(|tap| place(object.channel, tap));
        let (Some(Place::Stream(direction)), Some(packet)) = (at, Packet::from_code(message.packet)) else {
            return;
        };
        // Under TLS the socket's own stream holds nothing that can be read; what claims to is a lie.
        if object.carries_tls.is_some_and(|from| message.offset >= from[direction as usize]) {
            return;
        }
        let Some(line) = self.line(arena, by, key, message.header.flags & BROKER != 0) else { return };
        let flags = message.header.flags;
        let text = &message.text[..usize::from(message.text_len).min(message.text.len())];
        let carried = Carried {
            line,
            seen: self.timestamp(message.header.time),
            at: message.header.time,
            sent: direction == Direction::Out,
            said: Said::Packet(packet),
            qos: flags & QOS,
            retained: flags & RETAINED != 0,
            duplicate: flags & DUPLICATE != 0,
            sequence: message.sequence,
            id: message.id,
            alias: message.alias,
            // Names that others chose: as those of files. An answer's bytes are numbers.
            text: if packet == Packet::Suback { String::new() } else { path_text(text) },
            codes: if packet == Packet::Suback { text.to_vec() } else { vec![] },
            fingerprint: message.fingerprint,
            payload: message.payload,
            offset: message.offset,
            length: message.length,
        };
        self.out.push_back(Judged::Carried(Box::new(carried)));
    }

    /// Whose stream it is; known anew as long as something about it isn't.
    fn line(&mut self, arena: ArenaId, by: u32, key: Key, broker: bool) -> Option<Arc<Line>> {
        let object = self.objects.get(key)?;
        let known = object.messages.as_ref();
        if let Some(line) = known.filter(|l| l.flow.is_some() && l.connection.remote.is_some()) {
            return Some(Arc::clone(line));
        }
        let number = known.map_or_else(
            || {
                self.lines += 1;
                self.lines
            },
            |l| l.number,
        );
        let object = self.objects.get(key)?;
        let line = Arc::new(Line {
            number,
            broker,
            process: self.process(arena, by),
            connection: self.connection(object, Direction::Out),
            flow: self.flow_text(Some(object)),
            namespace: object.net_namespace,
        });
        self.objects.get_mut(key)?.messages = Some(Arc::clone(&line));
        Some(line)
    }

    /// The object has ended: no message follows.
    pub(super) fn messages_end(&mut self, key: Key) {
        let now = self.now;
        let Some(object) = self.objects.get_mut(key).filter(|o| o.ended()) else { return };
        let Some(line) = object.messages.take() else { return };
        let at = object.last.max(1);
        let seen = self.timestamp(now);
        self.out.push_back(Judged::Carried(Box::new(Carried::end(line, seen, at))));
    }
}
