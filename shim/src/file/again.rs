//! Files that are read over and over: a web server opens what it serves anew for each request.
//!
//! Comes in: a file that was read as a whole and told in full, and what is opened next. Goes out: one line, `Again`,
//! in place of all that was told before, where the same file was read once more, unchanged, to its end, and what was
//! read has the same tag. Every second [`IN_FULL`] readings of a file are told in full all the same, so that little
//! rests on one of them.
//!
//! What is sensitive is always told in full, and so is what doesn't fit into one block.

use super::{EXPOSED, File, READ, READ_REST};
use crate::content;
use crate::kernel::Identity;
use crate::lanes;
use crate::mac::{WIDEST, Wide};
use crate::objects::Object;
use crate::thread::Guard;
use bytemuck::Zeroable;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};
use counterfoil_abi::BLOCK;
use counterfoil_abi::record::{Again, Kind, Stat, Tap};
use libc::{O_ACCMODE, O_RDONLY};

/// Readings of one file that are told in full in each [`SPAN`].
const IN_FULL: u32 = 4;
/// Nanoseconds.
const SPAN: u64 = 1_000_000_000;
/// Files remembered. Where two have one place the later one has it.
const FILES: usize = 256;

/// A file that was told in full.
struct Told {
    which: Which,
    /// Of all its content.
    tag: Wide,
    /// The object of the last reading that was told in full.
    object: u32,
    /// How many were since then.
    times: u32,
    since: u64,
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

/// A place for one file: who doesn't get it at once does without.
struct Place {
    taken: AtomicBool,
    told: UnsafeCell<Told>,
}

// SAFETY: `told` is touched only by who has `taken` it.
unsafe impl Sync for Place {}

impl Place {
    const FREE: Self = {
        let stat = Stat { size: 0, modified: 0, changed: 0 };
        let which = Which { device: 0, inode: 0, stat };
        let told = Told { which, tag: [0; WIDEST], object: 0, times: 0, since: 0 };
        Self { taken: AtomicBool::new(false), told: UnsafeCell::new(told) }
    };
}

static PLACES: [Place; FILES] = [Place::FREE; FILES];

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

/// A file that was just opened has been told in full often enough.
pub fn is_due(identity: &Identity) -> bool {
    let Identity { device, inode, stat, .. } = *identity;
    let which = Which { device, inode, stat };
    (1..BLOCK).contains(&stat.size)
        && !content::turned_up()
        && with(&which, |told| {
            told.which == which
                && told.times >= IN_FULL
                && lanes::now().saturating_sub(told.since) < SPAN
        }) == Some(true)
}

/// A file is closed, and has been told in full.
pub fn told(guard: &Guard, object: &Object) {
    let file = &object.file;
    let which = Which::of(object);
    if !(1..BLOCK).contains(&which.stat.size)
        || file.after.get() != which.stat
        || !alone(object)
        || content::turned_up()
    {
        return;
    }
    let Some(tag) = whole(guard, object) else { return };
    with(&which, |told| {
        let now = lanes::now();
        if told.which != which || told.tag != tag || now.saturating_sub(told.since) >= SPAN {
            (told.which, told.tag, told.times, told.since) = (which, tag, 0, now);
        }
        told.times += 1;
        told.object = object.number();
    });
}

/// A file that [was due](is_due) is about to be closed: says that it was read again. False: it has to be told in full.
pub fn tell(guard: &Guard, object: &Object) -> bool {
    let which = Which::of(object);
    let Some(tag) = Some(object).filter(|o| alone(o)).and_then(|o| whole(guard, o)) else { return false };
    let before = with(&which, |told| (told.which == which && told.tag == tag).then_some(told.object));
    let Some(object) = before.flatten() else { return false };
    let header = lanes::header(Kind::Again, 1, Tap::FileRead as u8, object);
    lanes::push_record(guard, &Again { header, ..Zeroable::zeroed() })
}

/// Opened here to be read, and nobody else has had it.
fn alone(object: &Object) -> bool {
    let file: &File = &object.file;
    let expected = file.flags() & O_ACCMODE == O_RDONLY && !file.is(EXPOSED | READ_REST) && file.is(READ);
    expected && !file.shared() && object.held_once() && object.opened.load(Ordering::Relaxed) == 0
}

/// The tag of what was read, if that is the whole file.
fn whole(guard: &Guard, object: &Object) -> Option<Wide> {
    let stream = &object.into;
    if stream.offset() != object.file.before.size() || !stream.take(guard, object.number(), Tap::FileRead) {
        return None;
    }
    let tag = stream.short_tag();
    stream.release();
    tag
}
