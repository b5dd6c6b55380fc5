//! The names that we export: one hook each.

use core::ffi::{CStr, c_char};

/// In byte order, behind a line that explains it.
const LIST: &str = include_str!("../exports.txt");

const COUNT: usize = count();

/// In byte order.
pub static NAMES: [&str; COUNT] = names();

/// Room for each of them with its NUL.
pub const ROOM: usize = 64;

const fn count() -> usize {
    let (bytes, mut at, mut lines) = (LIST.as_bytes(), 0, 0);
    while at < bytes.len() {
        lines += (bytes[at] == b'\n') as usize;
        at += 1;
    }
    lines - 1
}

const fn names() -> [&'static str; COUNT] {
    let mut names = [""; COUNT];
    let (_, mut rest) = line(LIST);
    let mut at = 0;
    while at < COUNT {
        (names[at], rest) = line(rest);
        assert!(names[at].len() < ROOM);
        at += 1;
    }
    names
}

/// The first line, and the others.
const fn line(text: &'static str) -> (&'static str, &'static str) {
    let mut end = 0;
    while text.as_bytes()[end] != b'\n' {
        end += 1;
    }
    (text.split_at(end).0, text.split_at(end + 1).1)
}

/// Which of them a name is.
pub fn place(name: &[u8]) -> Option<usize> {
    NAMES.binary_search_by(|known| known.as_bytes().cmp(name)).ok()
}

/// How they begin: a bit for each two bytes that one of them has first, which some others share.
static BEGINNINGS: [u64; 16] = beginnings();

const fn beginnings() -> [u64; 16] {
    let (mut bits, mut at) = ([0; 16], 0);
    while at < COUNT {
        let (word, bit) = beginning(NAMES[at].as_bytes()[0], NAMES[at].as_bytes()[1]);
        bits[word] |= bit;
        at += 1;
    }
    bits
}

const fn beginning(first: u8, second: u8) -> (usize, u64) {
    let at = (first as usize * 37 + second as usize) % 1024;
    (at / 64, 1 << (at % 64))
}

/// Whether a C string is one of them. Most are not, and cost little.
///
/// # Safety
/// A C string.
pub unsafe fn is_ours(name: *const c_char) -> bool {
    // SAFETY: the contract; a first byte that isn't the NUL has a second one behind it.
    let begins = unsafe { (*name, if *name == 0 { 0 } else { *name.add(1) }) };
    let (word, bit) = beginning(begins.0 as u8, begins.1 as u8);
    // SAFETY: the contract.
    BEGINNINGS[word] & bit != 0 && place(unsafe { CStr::from_ptr(name) }.to_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_in_the_order_that_they_are_looked_for_in() {
        assert!(NAMES.is_sorted(), "{NAMES:?}");
        assert_eq!(NAMES.len(), LIST.lines().filter(|line| !line.starts_with('#')).count());
    }

    #[test]
    fn a_name_is_ours_or_not() {
        // SAFETY: C strings.
        let is_ours = |name: &CStr| unsafe { is_ours(name.as_ptr()) };
        assert!([c"SSL_write", c"write", c"dlsym"].into_iter().all(is_ours));
        assert!(![c"", c"SSL_writ", c"SSL_write_", c"zzz", c"#"].into_iter().any(is_ours));
    }
}
