//! The matcher: which files are sensitive, by device and inode, for observed processes to know at once.
//!
//! One read-only memory for all of them, behind the arena's in the hello reply; the daemon writes it while they run. A
//! process that opens one of these files turns itself up. It holds no names and no content: numbers, which the
//! process could ask the kernel for anyway.

use core::sync::atomic::{AtomicU64, Ordering};

/// "cfoilmat", little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"cfoilmat");
/// Places. Eight times as many as files are told of: then one hardly ever finds all of its places taken.
pub const PLACES: usize = 32_768;
/// Places where one file may stand.
pub const PROBES: usize = 16;
/// Bytes in a matcher.
pub const MATCHER_BYTES: usize = size_of::<Matcher>();

/// The memory. Valid whatever its bytes are.
#[repr(C)]
pub struct Matcher {
    /// [`MAGIC`].
    pub magic: u64,
    pad: [u64; 7],
    /// Zero, or a file's [`key`].
    pub places: [AtomicU64; PLACES],
}

/// What stands for a file. Never zero.
#[must_use]
pub const fn key(device: u64, inode: u64) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = device.wrapping_mul(ODD).rotate_left(29) ^ inode;
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(ODD);
    (mixed ^ (mixed >> 29)) | 1
}

impl Matcher {
    fn place(&self, key: u64, probe: usize) -> &AtomicU64 {
        &self.places[(key as usize >> 1).wrapping_add(probe) % PLACES]
    }

    /// Is the file one of them?
    #[inline]
    #[must_use]
    pub fn has(&self, device: u64, inode: u64) -> bool {
        let key = key(device, inode);
        // All places: one may have been emptied before the one that it stands in.
        (0..PROBES).any(|probe| self.place(key, probe).load(Ordering::Relaxed) == key)
    }

    /// Tells of one more. False: there is no place.
    pub fn put(&self, key: u64) -> bool {
        let at = |probe| self.place(key, probe);
        if (0..PROBES).any(|probe| at(probe).load(Ordering::Relaxed) == key) {
            return true;
        }
        let free = (0..PROBES).find(|&probe| at(probe).load(Ordering::Relaxed) == 0);
        free.inspect(|&probe| at(probe).store(key, Ordering::Relaxed)).is_some()
    }

    /// Tells of those no more of which `keep` says no.
    pub fn retain(&self, keep: impl Fn(u64) -> bool) {
        for place in &self.places {
            let key = place.load(Ordering::Relaxed);
            if key != 0 && !keep(key) {
                place.store(0, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::boxed::Box;

    fn empty() -> Box<Matcher> {
        // SAFETY: valid for any bytes.
        unsafe { Box::<Matcher>::new_zeroed().assume_init() }
    }

    #[test]
    fn what_was_put_is_there_until_it_is_not() {
        let matcher = empty();
        for inode in 1..=4000 {
            assert!(matcher.put(key(64, inode)), "{inode}");
        }
        assert!((1..=4000).all(|inode| matcher.has(64, inode)));
        assert!(!(4001..8000).any(|inode| matcher.has(64, inode) || matcher.has(65, inode)));
        let even: std::collections::BTreeSet<u64> = (1..=2000).map(|n| key(64, 2 * n)).collect();
        matcher.retain(|key| even.contains(&key));
        assert!((1..=2000).all(|n| matcher.has(64, 2 * n) && !matcher.has(64, 2 * n - 1)));
    }

    #[test]
    fn a_full_one_says_so() {
        let matcher = empty();
        let many = || 0..2 * PLACES as u64;
        let taken = many().filter(|&inode| matcher.put(key(1, inode))).count();
        assert!(taken <= PLACES && !many().all(|inode| matcher.has(1, inode)));
    }
}
