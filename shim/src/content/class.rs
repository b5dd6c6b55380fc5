//! What kind of content a stream carries ([`counterfoil_abi::class`]).
//!
//! Comes in: a stream's first 64 KiB. Goes out: `Class` records, when 4 KiB and 64 KiB of it have passed and
//! at the end. After that this look is closed and costs nothing.

use super::{Look, Place};
use crate::images;
use crate::lanes;
use crate::stream::Pieces;
use bytemuck::Zeroable;
use counterfoil_abi::arena::POLICY_WATCHED;
use counterfoil_abi::class;
use counterfoil_abi::record::{CLASS_FINAL, CLASS_HTTP, Classed, Kind, Tap};

/// See the module's text.
#[repr(C)]
pub struct Class {
    look: class::Look,
    /// Where in the stream it began.
    from: u64,
}

impl Class {
    #[cold]
    fn say(&mut self, place: &Place<'_>, last: bool) {
        let found = self.look.found();
        let mut record = Classed {
            header: lanes::header(Kind::Class, 1, place.tap as u8, place.object),
            class: found.class as u8,
            magic: found.magic.map_or(0, |magic| magic as u8),
            entropy: found.entropy,
            chi_squared: found.chi_squared,
            looked: found.looked,
            passed: found.passed,
            offset: self.from,
            ..Zeroable::zeroed()
        };
        let last = if last { CLASS_FINAL } else { 0 };
        record.header.flags = last | if found.http { CLASS_HTTP } else { 0 };
        if let Some((width, height)) = found.size {
            (record.width, record.height) = (width, height);
        }
        if place.tap == Tap::FileRead && found.class == counterfoil_abi::record::Class::Media {
            images::met();
        }
        lanes::push_record(place.guard, &record);
    }
}

impl Look for Class {
    fn wanted(_: Tap, policy: u32, offset: u64) -> bool {
        // Of what is only counted, where the stream's start is seen.
        policy & POLICY_WATCHED != 0 || offset == 0
    }

    fn begin(&mut self, _: &Place<'_>, offset: u64) {
        self.look.clear();
        self.from = offset;
    }

    fn passed<P: Pieces + ?Sized>(&mut self, place: &Place<'_>, _: u64, data: &P, bytes: u64) -> bool {
        let look = &mut self.look;
        let mut reached = None;
        data.walk(0, bytes, &mut |piece| reached = look.add(piece).or(reached));
        let done = look.done();
        if reached.is_some() {
            self.say(place, done);
        }
        !done
    }

    fn tell(&mut self, place: &Place<'_>, last: bool) {
        if last && self.look.begun() {
            self.say(place, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{self, Object};
    use crate::process;
    use crate::stream::tests as streams;
    use crate::thread::Guard;
    use counterfoil_abi::record::{self, Channel, Magic, Record};
    use std::sync::atomic::Ordering::Relaxed;

    fn told() -> Vec<(u8, u8, u32, bool)> {
        let of = |record| match record {
            Record::Classed(r) => Some((r.class, r.magic, r.looked, r.header.flags & CLASS_FINAL != 0)),
            _ => None,
        };
        streams::drain().into_iter().filter_map(of).collect()
    }

    fn object() -> &'static Object {
        process::arena().policy.store(POLICY_WATCHED, Relaxed);
        objects::make(Channel::Tcp).and_then(objects::get).unwrap()
    }

    fn receive(object: &Object, content: &[u8]) {
        let guard = Guard::enter().unwrap();
        assert!(object.into.claim(&guard, object.number(), Tap::SockRecv));
        object.into.took(&guard, object.number(), Tap::SockRecv, content, content.len() as u64);
        object.into.release();
    }

    #[test]
    fn said_at_the_milestones_and_no_more() {
        let _alone = streams::alone();
        let object = object();
        let (media, png) = (record::Class::Media as u8, Magic::Png as u8);
        receive(object, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
        assert_eq!(told(), []);
        receive(object, &[7; 5000]);
        assert_eq!(told(), [(media, png, 5016, false)]);
        receive(object, &[7; 100_000]);
        assert_eq!(told(), [(media, png, 65_536, true)]);
        receive(object, &[7; 100_000]);
        object.tell(&Guard::enter().unwrap(), true);
        assert_eq!(told(), []);
    }

    #[test]
    fn said_at_the_end_of_what_is_short() {
        let _alone = streams::alone();
        let object = object();
        receive(object, b"a few words");
        object.tell(&Guard::enter().unwrap(), false);
        assert_eq!(told(), [], "a turn is no end");
        object.tell(&Guard::enter().unwrap(), true);
        assert_eq!(told(), [(record::Class::Text as u8, 0, 11, true)]);
    }
}
