//! Fingerprints of content, by which it is found again in another stream: behind headers, in other frames,
//! or as a part of something longer.
//!
//! Comes in: a stream's bytes. Goes out: `Prints` records, at the end of each call in which a window was
//! taken: nothing waits, and little is lost with the process. How dense is a matter of what is asked
//! ([`bits`]); a lane that fills faster than it is read gets none, since tags matter more, and the hole
//! shows by the spans that the records cover.

use super::{Look, Place, START};
use crate::stream::Pieces;
use crate::{lanes, process};
use bytemuck::Zeroable;
use counterfoil_abi::arena::{POLICY_FINGERPRINTS, POLICY_TURNED_UP};
use counterfoil_abi::prints::{Print, Window};
use counterfoil_abi::record::{Kind, LINE, Line, MAX_SAMPLES, Prints, Sample, Tap, lines_for_samples};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// What a record covers at most, and what passes at most until there is one.
const LONGEST: u64 = 1 << 30;

/// See the module's text.
#[repr(C)]
pub struct Fingerprints {
    window: Window,
    /// Where it was asked to look as it does now.
    since: u64,
    /// Up to where was said what there is.
    told: u64,
    /// Up to where was looked.
    seen: u64,
    /// The policy.
    policy: u32,
    /// How dense it was looked at since `told`; 0: not at all.
    bits: u32,
}

/// Beyond its start a stream that may be a relay's is looked at in stripes of so many bytes …
const STRIPE: u64 = 16 * KIB;
/// … one in so many: what a relay adds moves content by less, so it is still found.
const STRIPES: u64 = 8;

/// How dense the bytes at `offset` are looked at (0 bits: not at all), and up to where that holds. `since`:
/// where it was turned up. None: no more.
///
/// This bounds what a stream costs: 0.6 ns for a byte that is looked at and 50 ns for a sample, and 12 bytes
/// of records for a sample: 8 KiB for the start of every connection, then 24 KiB for each MiB of one that may
/// be a relay's; of one that is turned up 1.5 MiB for the first MiB, and 13 MiB up to the 64th.
fn bits(policy: u32, offset: u64, since: u64) -> Option<(u32, u64)> {
    const START_OF_ALL: [(u64, u32); 3] = [(4 * KIB, 4), (16 * KIB, 6), (START, 8)];
    const TURNED_UP: [(u64, u32); 4] = [(MIB, 3), (64 * MIB, 6), (1024 * MIB, 9), (u64::MAX, 12)];
    let step = |steps: &[(u64, u32)], from: u64| {
        let passed = offset.saturating_sub(from);
        let (until, bits) = steps.iter().find(|(until, _)| passed < *until)?;
        Some((*bits, from.saturating_add(*until)))
    };
    if policy & POLICY_TURNED_UP != 0 {
        step(&TURNED_UP, since)
    } else if offset < START {
        step(&START_OF_ALL, 0)
    } else if policy & POLICY_FINGERPRINTS != 0 {
        let stripe = offset / STRIPE;
        let bits = if stripe.is_multiple_of(STRIPES) { 6 } else { 0 };
        let until = if bits > 0 { stripe + 1 } else { stripe.next_multiple_of(STRIPES) };
        Some((bits, until * STRIPE))
    } else {
        None
    }
}

impl Look for Fingerprints {
    fn wanted(tap: Tap, policy: u32, offset: u64) -> bool {
        let asked = POLICY_FINGERPRINTS | POLICY_TURNED_UP;
        let all = policy & asked != 0;
        // What goes through a pipe or a file is found by its tags, as long as nobody asks for more.
        let open = matches!(
            tap,
            Tap::SockSend | Tap::SockRecv | Tap::TlsWrite | Tap::TlsRead | Tap::CipherSeal | Tap::CipherOpen
        );
        // Of a process that is only counted, only what leaves is looked at at all.
        all || open && offset < START
    }

    fn begin(&mut self, _: &Place<'_>, offset: u64) {
        self.window.restart();
        (self.since, self.told, self.seen) = (offset, offset, offset);
        (self.policy, self.bits) = (0, 0);
    }

    fn changed(&mut self, _: &Place<'_>, policy: u32, offset: u64) {
        let asked = POLICY_FINGERPRINTS | POLICY_TURNED_UP;
        if policy & !self.policy & asked != 0 {
            self.since = offset;
        }
        self.policy = policy;
    }

    fn passed<P: Pieces + ?Sized>(&mut self, place: &Place<'_>, offset: u64, data: &P, bytes: u64) -> bool {
        let spread = self.policy & POLICY_TURNED_UP != 0;
        let mut said = Said { place, spread, told: self.told, bits: self.bits, record: Zeroable::zeroed() };
        let (end, mut at) = (offset + bytes, offset);
        let mut more = true;
        while at < end {
            let Some((bits, until)) = bits(self.policy, at, self.since) else {
                more = false;
                break;
            };
            said.density(bits, at);
            let until = until.min(end);
            if bits == 0 {
                (at, said.told) = (until, until);
                self.window.restart();
                continue;
            }
            let before = at;
            data.walk(at - offset, until - at, &mut |piece| {
                let start = at;
                process::settings().sampler.feed(&mut self.window, piece, bits, |end, print| {
                    said.add(start + end as u64, print);
                });
                at += piece.len() as u64;
            });
            if at == before {
                break;
            }
        }
        more = more && bits(self.policy, at, self.since).is_some();
        // A call without a window worth taking is told with the next one; but for the last.
        if said.record.count > 0 || !more || at - said.told > LONGEST {
            said.flush(at);
        }
        (self.told, self.bits, self.seen) = (said.told, said.bits, at);
        more
    }

    fn missed(&mut self, place: &Place<'_>, offset: u64, _: u64) {
        self.tell(place, false);
        self.window.restart();
        (self.told, self.seen, self.bits) = (offset, offset, 0);
    }

    fn tell(&mut self, place: &Place<'_>, _: bool) {
        let Self { told, seen, bits, .. } = *self;
        if seen > told {
            let mut said = Said { place, spread: false, told, bits, record: Zeroable::zeroed() };
            said.flush(seen);
            self.told = seen;
        }
    }
}

/// A span of a stream, on its way into a record.
struct Said<'a> {
    place: &'a Place<'a>,
    spread: bool,
    told: u64,
    bits: u32,
    record: Prints,
}

impl Said<'_> {
    /// From `at` on it is another.
    #[inline]
    fn density(&mut self, bits: u32, at: u64) {
        if bits != self.bits {
            self.flush(at);
            self.bits = bits;
        }
    }

    #[inline]
    fn add(&mut self, end: u64, print: Print) {
        let count = usize::from(self.record.count);
        self.record.samples[count] = Sample { end: end.wrapping_sub(self.told) as u32, print };
        self.record.count += 1;
        if count + 1 == MAX_SAMPLES {
            self.flush(end);
        }
    }

    /// All up to `end` was looked at.
    fn flush(&mut self, end: u64) {
        // What a thread left half done may be anything.
        let length = u32::try_from(end.wrapping_sub(self.told)).unwrap_or(0);
        if length > 0 && self.bits > 0 {
            let lines = lines_for_samples(usize::from(self.record.count));
            let Place { guard, object, tap } = *self.place;
            self.record.header = lanes::header(Kind::Prints, lines, tap as u8, object);
            self.record.offset = self.told;
            self.record.length = length;
            self.record.bits = self.bits as u8;
            let bytes = bytemuck::bytes_of(&self.record);
            let lines: &[Line] = bytemuck::cast_slice(&bytes[..lines * LINE]);
            lanes::push_spare(guard, lines, self.spread);
        }
        self.told = end;
        self.record.count = 0;
    }
}

#[cfg(test)]
mod tests;
