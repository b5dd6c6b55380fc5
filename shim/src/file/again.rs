//! Files that are read over and over: a web server opens what it serves anew for each request.
//!
//! Comes in: a file that was read as a whole and told in full, and what is opened next. Goes out: one line, `Again`,
//! in place of all that was told before, where the same file was read once more, unchanged, to its end, and what was
//! read comes to the same [`Sum`]. Every second [`IN_FULL`] readings of a file are told in full all the same, so that
//! little rests on one of them.
//!
//! What is sensitive is always told in full, and so is what is very large.

use super::{EXPOSED, READ, READ_REST, SUMMED};
use crate::content;
use crate::kernel::{self, Identity};
use crate::lanes;
use crate::mac::{Mac, WIDEST, Wide};
use crate::objects::Object;
use crate::stream::Pieces;
use crate::thread::Guard;
use bytemuck::Zeroable;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};
use counterfoil_abi::BLOCK;
use counterfoil_abi::record::{Again, Kind, Reason, Stat, Tap};
use libc::{O_ACCMODE, O_RDONLY};

/// Readings of one file that are told in full in each [`SPAN`].
const IN_FULL: u32 = 4;
/// Nanoseconds.
const SPAN: u64 = 1_000_000_000;
/// Larger files are always told in full: what turns out to be something else is read once more. Bytes.
const LARGEST: u64 = 1 << 20;
/// Who has a file open for longer has it told in full: others may wait for it. Nanoseconds.
const LONG: u64 = 100_000_000;
/// Files remembered. Where two have one place the later one has it.
const FILES: usize = 256;

/// What a file's whole content comes to: tags of its blocks, one folded into the other, and of what is behind them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Total {
    blocks: u128,
    rest: Wide,
}

/// A [`Total`] as the bytes go by. Valid at any bytes' value, as [`Mac`] is.
pub struct Sum {
    /// Bytes so far.
    at: u64,
    blocks: u128,
    mac: Mac,
}

impl Sum {
    /// As new.
    pub fn restart(&mut self) {
        (self.at, self.blocks) = (0, 0);
    }

    /// Bytes so far.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// `bytes` of `data` were read at `offset`. False: that isn't where this stands.
    pub fn take<P: Pieces + ?Sized>(&mut self, offset: u64, data: &P, bytes: u64) -> bool {
        if offset != self.at {
            return false;
        }
        data.walk(0, bytes, &mut |mut piece| {
            while !piece.is_empty() {
                let into = self.at % BLOCK;
                if into == 0 {
                    self.mac.begin(self.at);
                }
                let (now, later) = piece.split_at(piece.len().min((BLOCK - into) as usize));
                self.mac.update(now);
                self.at = self.at.wrapping_add(now.len() as u64);
                if self.at.is_multiple_of(BLOCK) {
                    let tag = u128::from_le_bytes(crate::mac::first_half(&self.mac.tag()));
                    // Odd: nothing is lost of what was there.
                    self.blocks = self.blocks.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) ^ tag;
                }
                piece = later;
            }
        });
        true
    }

    fn total(&self) -> Total {
        let rest = if self.at.is_multiple_of(BLOCK) { [0; WIDEST] } else { self.mac.tag() };
        Total { blocks: self.blocks, rest }
    }
}

/// A file's content, as far as the kernel names it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Which {
    device: u64,
    inode: u64,
    stat: Stat,
}

impl Which {
    fn of(object: &Object) -> Self {
        let [device, inode] = [&object.device, &object.inode].map(|word| word.load(Ordering::Relaxed));
        Self { device, inode, stat: object.file.before.get() }
    }
}

/// A file that was told in full.
struct Told {
    which: Which,
    total: Option<Total>,
    /// The object of the last reading that was told in full and comes to that.
    object: u32,
    /// How many were since then.
    times: u32,
    since: u64,
}

/// A place for one file: who doesn't get it at once does without.
struct Place {
    taken: AtomicBool,
    told: UnsafeCell<Told>,
}

// SAFETY: `told` is touched only by who has `taken` it.
unsafe impl Sync for Place {}

impl Place {
    const fn free() -> Self {
        let stat = Stat { size: 0, modified: 0, changed: 0 };
        let which = Which { device: 0, inode: 0, stat };
        let told = Told { which, total: None, object: 0, times: 0, since: 0 };
        Self { taken: AtomicBool::new(false), told: UnsafeCell::new(told) }
    }
}

static PLACES: [Place; FILES] = [const { Place::free() }; FILES];

/// `f` of the place of this file, if nobody else has it now. A thread that leaves a call in between (`siglongjmp`)
/// leaves it taken for good: its files are told in full from then on.
fn with<T>(which: &Which, f: impl FnOnce(&mut Told) -> T) -> Option<T> {
    let spread = (which.inode ^ which.device.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let place = &PLACES[spread as usize % FILES];
    if place.taken.swap(true, Ordering::Acquire) {
        return None;
    }
    // SAFETY: taken.
    let result = f(unsafe { &mut *place.told.get() });
    place.taken.store(false, Ordering::Release);
    Some(result)
}

/// How a reading is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// In full.
    Full,
    /// In full, with a [`Sum`] made of it: the next one may be the same.
    Summed,
    /// In one line, if it is as those before.
    Again,
}

/// What a file that was just opened to be read is due.
pub fn due(identity: &Identity) -> Due {
    let Identity { device, inode, stat, .. } = *identity;
    let which = Which { device, inode, stat };
    if !(1..=LARGEST).contains(&stat.size) || content::turned_up() {
        return Due::Full;
    }
    let due = with(&which, |told| {
        if told.which != which || lanes::now().saturating_sub(told.since) >= SPAN {
            Due::Full
        } else if told.times < IN_FULL || told.total.is_none() {
            Due::Summed
        } else {
            Due::Again
        }
    });
    due.unwrap_or(Due::Full)
}

/// A file is closed, and has been told in full.
pub fn told(guard: &Guard, object: &Object) {
    let which = Which::of(object);
    let unchanged = object.file.after.get() == which.stat;
    if !(1..=LARGEST).contains(&which.stat.size) || !unchanged || !alone(object) || content::turned_up() {
        return;
    }
    let total = if object.file.is(SUMMED) { whole(guard, object) } else { None };
    with(&which, |told| {
        let now = lanes::now();
        let other = told.total.is_some() && total.is_some() && told.total != total;
        if told.which != which || other || now.saturating_sub(told.since) >= SPAN {
            (told.which, told.total, told.times, told.since) = (which, None, 0, now);
        }
        told.times += 1;
        if total.is_some() {
            (told.total, told.object) = (total, object.number());
        }
    });
}

/// A file that was [due](Due::Again) is about to be closed: says that it was read again. False: it has to be told in
/// full.
pub fn tell(guard: &Guard, object: &Object) -> bool {
    let which = Which::of(object);
    let total = if alone(object) { whole(guard, object) } else { None };
    let same = |told: &Told| told.which == which && total.is_some() && told.total == total;
    let Some(before) = with(&which, |told| same(told).then_some(told.object)).flatten() else { return false };
    let header = lanes::header(Kind::Again, 1, Tap::FileRead as u8, before);
    lanes::push_record(guard, &Again { header, ..Zeroable::zeroed() });
    true
}

/// Opened here to be read, and nobody else has had it.
fn alone(object: &Object) -> bool {
    let file = &object.file;
    let read = file.flags() & O_ACCMODE == O_RDONLY && !file.is(EXPOSED | READ_REST) && file.is(READ);
    read && !file.shared() && object.held_once() && object.opened.load(Ordering::Relaxed) == 0
}

/// Of what was read nothing is known but its sum: makes its tags and digest from the file, as it would have been told in
/// full. False: what stands there now comes to another sum. The stream is claimed.
pub fn restore(guard: &Guard, object: &Object, fd: i32) -> bool {
    let stream = &object.into;
    // SAFETY: claimed.
    let (sum, digest) = unsafe { (object.file.sum.get(), object.file.read.get()) };
    let (upto, total) = (sum.at, sum.total());
    if stream.missed() || stream.offset() != upto || upto > LARGEST {
        return false;
    }
    let mut read = |each: &mut dyn FnMut(u64, &[u8])| {
        sum.restart();
        let read = kernel::read_again(fd, 0, upto, |at, piece| {
            sum.take(at, piece, piece.len() as u64);
            each(at, piece);
        });
        read == upto && sum.total() == total
    };
    if !read(&mut |_, _| ()) {
        return false;
    }
    let (number, tap) = (object.number(), Tap::FileRead);
    stream.restart();
    let same = read(&mut |at, piece| {
        let bytes = piece.len() as u64;
        digest.take(at, piece, bytes);
        stream.took(guard, number, tap, piece, bytes);
    });
    if !same {
        // It was changed between the two.
        stream.doubt_from(guard, number, tap, 0, Reason::BypassedBytes);
    }
    same
}

/// It has been open for so long that others may wait to hear of it.
pub fn is_late(object: &Object) -> bool {
    lanes::now().saturating_sub(object.file.began.load(Ordering::Relaxed)) > LONG
}

/// What was read comes to this, if it is the whole file.
fn whole(guard: &Guard, object: &Object) -> Option<Total> {
    let stream = &object.into;
    if stream.missed() || !stream.take(guard, object.number(), Tap::FileRead) {
        return None;
    }
    // SAFETY: claimed.
    let sum = unsafe { object.file.sum.get() };
    let total = (sum.at == object.file.before.size()).then(|| sum.total());
    stream.release();
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_tells_order_and_length_and_not_pieces() {
        let content: Vec<u8> = (0..50_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let of = |content: &[u8], piece: usize| {
            // SAFETY: all zero is a state that was not begun.
            let mut sum: Box<Sum> = Box::new(unsafe { core::mem::zeroed() });
            let mut at = 0;
            for piece in content.chunks(piece) {
                assert!(sum.take(at, piece, piece.len() as u64));
                at += piece.len() as u64;
            }
            assert!(!sum.take(at + 1, &b"further on"[..], 10));
            sum.total()
        };
        let _alone = crate::stream::tests::alone();
        let whole = of(&content, 50_000);
        assert!(whole == of(&content, 7) && whole == of(&content, 16_384));
        let (mut turned, mut flipped) = (content.clone(), content.clone());
        turned[..32_768].rotate_left(16_384);
        flipped[20_000] ^= 1;
        for other in [&turned[..], &flipped, &content[..49_999], &content[..49_152], &content[..16_384]] {
            assert!(whole != of(other, 16_384));
        }
        assert!(of(&content[..16_384], 16_384) != of(&content[..32_768], 16_384));
    }
}
