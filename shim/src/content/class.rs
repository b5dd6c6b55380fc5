//! What kind of content a stream carries ([`counterfoil_abi::class`]).
//!
//! Comes in: a stream's first 64 KiB. Goes out: `Class` records, when 4 KiB and 64 KiB of it have passed and
//! at the end. After that this look is closed and costs nothing.

use super::{Look, Place};
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
    fn say(&self, place: &Place<'_>, last: bool) {
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
        lanes::push_record(place.guard, &record);
    }
}

impl Look for Class {
    fn wanted(_: Tap, policy: u32, _: u64) -> bool {
        policy & POLICY_WATCHED != 0
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
