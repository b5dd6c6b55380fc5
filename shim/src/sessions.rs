//! Which TLS session (`SSL*`, `gnutls_session_t`) is which object. Private to a process: fork copies
//! it with the sessions themselves.

use crate::objects::{self, Name, Object};
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Sessions that a process can have open at once, more or less. A power of two.
pub const ENTRIES: usize = 1 << 15;
/// Probes before a table this full counts as full.
const PROBES: usize = 64;
/// Bytes that the constructor maps.
pub const TABLE_BYTES: usize = ENTRIES * size_of::<Entry>();

#[repr(C)]
struct Entry {
    /// The session's address, 0 free, [`GONE`] freed.
    session: AtomicUsize,
    /// number << 32 | slot.
    name: AtomicU64,
}

/// An address no session has.
const GONE: usize = 1;

static TABLE: AtomicPtr<Entry> = AtomicPtr::new(core::ptr::null_mut());
static USED: AtomicUsize = AtomicUsize::new(0);

/// Hands the table its memory: private, zeroed.
pub fn provide(table: *mut u8) {
    TABLE.store(table.cast(), Ordering::Relaxed);
}

fn entry(index: usize) -> &'static Entry {
    // SAFETY: masked below ENTRIES, which are mapped for good.
    unsafe { &*TABLE.load(Ordering::Relaxed).add(index & (ENTRIES - 1)) }
}

fn start(session: usize) -> usize {
    // Fibonacci hashing; allocations are 16-aligned.
    (session >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as usize) >> (usize::BITS - 15)
}

fn name(value: u64) -> Name {
    Name { slot: value as u32, number: (value >> 32) as u32 }
}

fn unpack(value: u64) -> Option<&'static Object> {
    objects::get(name(value))
}

/// The session's object, if it has one.
#[inline]
pub fn find(session: usize) -> Option<&'static Object> {
    let from = start(session);
    for step in 0..PROBES {
        let entry = entry(from + step);
        // Acquire pairs with the release in `insert`: the name is there.
        match entry.session.load(Ordering::Acquire) {
            0 => return None,
            s if s == session => return unpack(entry.name.load(Ordering::Relaxed)),
            _ => {}
        }
    }
    None
}

/// Remembers a session. False: no room.
pub fn insert(session: usize, name: Name) -> bool {
    let from = start(session);
    for step in 0..PROBES {
        let entry = entry(from + step);
        let seen = entry.session.load(Ordering::Relaxed);
        if seen > GONE {
            continue;
        }
        // Reserved with GONE's meaning ("not this one") until the name is in place.
        if entry.session.compare_exchange(seen, GONE, Ordering::Acquire, Ordering::Relaxed).is_err() {
            continue;
        }
        if seen == GONE && entry.name.swap(BUSY, Ordering::Acquire) == BUSY {
            continue;
        }
        entry.name.store(u64::from(name.number) << 32 | u64::from(name.slot), Ordering::Relaxed);
        entry.session.store(session, Ordering::Release);
        USED.fetch_max((from + step) & (ENTRIES - 1), Ordering::Relaxed);
        return true;
    }
    false
}

/// A name that is being written.
const BUSY: u64 = u64::MAX;

/// Forgets a session and returns what it was.
pub fn remove(session: usize) -> Option<&'static Object> {
    let from = start(session);
    for step in 0..PROBES {
        let entry = entry(from + step);
        match entry.session.load(Ordering::Acquire) {
            0 => return None,
            s if s == session => {
                let object = unpack(entry.name.swap(0, Ordering::Relaxed));
                entry.session.store(GONE, Ordering::Release);
                return object;
            }
            _ => {}
        }
    }
    None
}

/// What each place up to the highest holds.
pub fn names() -> impl Iterator<Item = Option<Name>> {
    (0..=USED.load(Ordering::Relaxed)).map(entry).map(|entry| {
        let taken = entry.session.load(Ordering::Acquire) > GONE;
        taken.then(|| name(entry.name.load(Ordering::Relaxed)))
    })
}

/// Calls `each` for every session's object.
pub fn for_each(each: impl FnMut(&'static Object)) {
    names().flatten().filter_map(objects::get).for_each(each);
}
