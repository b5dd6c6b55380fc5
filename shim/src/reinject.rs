//! Keeps observation across an exec whose environment was scrubbed.
//!
//! Comes in: the environment that a program is about to be started with, and what will be started.
//! Goes out: the same environment, or one with our two variables put back, or one without our
//! LD_PRELOAD entry where that would harm. Called by the hooks in [`crate::hooks::exec`], also in a
//! vfork child and after a fork from a process with threads: nothing allocates.

use crate::library_file::{self, PRELOAD};
use crate::readable::readable;
use crate::target::{self, Fit, Named, Target};
use crate::thread::Guard;
use crate::{lanes, process, start, thread};
use bytemuck::Zeroable;
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char};
use core::mem::MaybeUninit;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use counterfoil_abi::record::{About, HANDED_ON, HANDED_UNSEEN, Kind, Lost, Note};
use rustix::mm::{MapFlags, ProtFlags};

/// A list of strings as exec wants it.
pub type Strings = *const *const c_char;

const SOCKET: &[u8] = b"COUNTERFOIL_SOCKET=";
const OFF: &[u8] = b"COUNTERFOIL_OFF=1";
/// Our entry is known by its file name: a path through a link, or another copy, is loaded already.
const NAME: &[u8] = b"libcounterfoil.so";
/// Longest value that COUNTERFOIL_SOCKET can have (unix(7), sun_path), with its NUL.
const SOCKET_ROOM: usize = 128;

struct Socket(UnsafeCell<[u8; SOCKET_ROOM]>);
// SAFETY: written by the constructor before SOCKET_LENGTH is set (release), read after it is seen.
unsafe impl Sync for Socket {}
static SOCKET_ENTRY: Socket = Socket(UnsafeCell::new([0; SOCKET_ROOM]));
/// Bytes of "COUNTERFOIL_SOCKET=…" without the NUL; 0: this process was started without it.
static SOCKET_LENGTH: AtomicUsize = AtomicUsize::new(0);
/// LD_PRELOAD loaded us, not /etc/ld.so.preload: only then it has to be put back.
static BY_ENVIRONMENT: AtomicBool = AtomicBool::new(false);

/// Remembers what will have to be put back. Called by the constructor, before the program can
/// change its environment.
pub fn learn() {
    let preload = start::variable(c"LD_PRELOAD").unwrap_or_default();
    if !entries(preload).any(is_ours) || library_file::learn().is_none() {
        return;
    }
    if let Some(path) = start::variable(c"COUNTERFOIL_SOCKET")
        && !path.is_empty()
        && SOCKET.len() + path.len() < SOCKET_ROOM
    {
        // SAFETY: the constructor runs alone, and SOCKET_LENGTH is still 0: nobody reads.
        let entry = unsafe { &mut *SOCKET_ENTRY.0.get() };
        entry[..SOCKET.len()].copy_from_slice(SOCKET);
        entry[SOCKET.len()..SOCKET.len() + path.len()].copy_from_slice(path);
        SOCKET_LENGTH.store(SOCKET.len() + path.len(), Ordering::Release);
    }
    BY_ENVIRONMENT.store(true, Ordering::Release);
}

fn socket_entry() -> Option<*const c_char> {
    // Pairs with the release store in `learn`.
    (SOCKET_LENGTH.load(Ordering::Acquire) != 0).then(|| SOCKET_ENTRY.0.get().cast_const().cast())
}

/// A child can ask the daemon, as far as can be seen: not out of a chroot that lacks the socket.
fn daemon_reachable() -> bool {
    // SAFETY: written before its length was set, never after; NUL padded.
    let own = socket_entry().map(|entry| unsafe { CStr::from_ptr(entry.add(SOCKET.len())) });
    let flags = rustix::fs::AtFlags::EACCESS;
    let path = own.unwrap_or(start::SYSTEM_SOCKET);
    rustix::fs::accessat(rustix::fs::CWD, path, rustix::fs::Access::WRITE_OK, flags).is_ok()
}

/// LD_PRELOAD's entries (ld.so(8): separated by spaces or colons).
fn entries(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| matches!(b, b' ' | b':')).filter(|entry| !entry.is_empty())
}

fn is_ours(entry: &[u8]) -> bool {
    entry.rsplit(|&b| b == b'/').next() == Some(NAME)
}

/// Words on the stack for a new environment; a larger one takes a mapping.
const INLINE: usize = 512;

/// Where a new environment is while the real call looks at it.
pub struct Room {
    inline: [MaybeUninit<usize>; INLINE],
    mapped: bool,
    /// The call will fail, as far as can be seen.
    pub fails: bool,
    /// This process has left its family.
    pub left: bool,
    /// The environment says that it is not to be observed.
    off: bool,
    lost: Option<(Lost, Target)>,
}

impl Room {
    /// Nothing in it.
    pub const fn new() -> Self {
        Self {
            inline: [MaybeUninit::uninit(); INLINE],
            mapped: false,
            fails: false,
            left: false,
            off: false,
            lost: None,
        }
    }

    fn take(&mut self, words: usize) -> Option<*mut usize> {
        if words <= INLINE {
            return Some(self.inline.as_mut_ptr().cast());
        }
        // What a vfork child of this thread has left.
        unmap_spare();
        let bytes = words.checked_mul(size_of::<usize>())?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh private mapping.
        let at = unsafe { rustix::mm::mmap_anonymous(null_mut(), bytes, access, MapFlags::PRIVATE).ok()? };
        thread::current().spare.set((at, bytes));
        self.mapped = true;
        Some(at.cast())
    }

    /// After the real call has returned. Not a destructor: an exec that succeeds never comes here.
    pub fn give_back(&mut self) {
        if self.mapped {
            self.mapped = false;
            unmap_spare();
        }
    }

    /// The new image is not observed, as far as can be told.
    pub fn unseen(&self) -> bool {
        self.off || self.lost.is_some()
    }

    /// What becomes of what the new image has, too: flags of `Ended`.
    pub fn handed(&self) -> u8 {
        if self.unseen() { HANDED_ON | HANDED_UNSEEN } else { HANDED_ON }
    }

    /// Tells the daemon that `pid` runs unobserved, if it does.
    pub fn tell(&self, pid: u32) {
        let Some((why, target)) = &self.lost else { return };
        let Some(guard) = Guard::enter() else { return };
        let name = target.name();
        let mut note = Note {
            header: lanes::header(Kind::Note, 4, 0, 0),
            about: About::CoverageLost as u8,
            code: *why as u8,
            text_len: name.len() as u16,
            number: pid,
            ..Zeroable::zeroed()
        };
        note.text[..name.len()].copy_from_slice(name);
        lanes::push_record(&guard, &note);
    }
}

fn unmap_spare() {
    let (at, bytes) = thread::current().spare.replace((null_mut(), 0));
    if !at.is_null() {
        // SAFETY: mapped by `take`; its exec has failed, or succeeded in a vfork child.
        let _ = unsafe { rustix::mm::munmap(at, bytes) };
    }
}

/// What is in an environment.
struct Found {
    count: usize,
    /// Index of the LD_PRELOAD that ld.so believes: the last one.
    preload: Option<usize>,
    ours: bool,
    socket: bool,
    off: bool,
}

/// # Safety
/// `environment` is NULL or a NULL-terminated list of C strings.
unsafe fn entry_at<'a>(environment: Strings, index: usize) -> Option<&'a [u8]> {
    // SAFETY: contract; callers stop at the first None.
    let entry = unsafe { environment.as_ref().and_then(|_| environment.add(index).read().as_ref()) };
    // SAFETY: contract.
    entry.map(|entry| unsafe { CStr::from_ptr(entry) }.to_bytes())
}

/// The kernel could read it: otherwise the call will fail, and nothing is to be made right.
///
/// # Safety
/// An exec call's own argument.
unsafe fn is_there(environment: Strings) -> bool {
    let mut place = environment;
    while !place.is_null() && readable(place, size_of::<*const c_char>()) {
        // SAFETY: it can be read.
        let entry = unsafe { place.read() };
        if entry.is_null() {
            return true;
        }
        if !readable(entry, 1) {
            return false;
        }
        place = place.wrapping_add(1);
    }
    environment.is_null()
}

/// # Safety
/// As [`entry_at`].
unsafe fn search(environment: Strings) -> Found {
    let mut found = Found { count: 0, preload: None, ours: false, socket: false, off: false };
    // SAFETY: contract.
    while let Some(entry) = unsafe { entry_at(environment, found.count) } {
        if let Some(value) = entry.strip_prefix(PRELOAD) {
            found.preload = Some(found.count);
            found.ours = entries(value).any(is_ours);
        }
        found.socket |= entry.starts_with(SOCKET);
        found.off |= entry == OFF;
        found.count += 1;
    }
    found
}

/// What has to be done to an environment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Add { preload: bool, socket: bool },
    Remove,
}

/// Looks at what is about to be started, and makes its environment right. None: as it is.
///
/// # Safety
/// The exec call's own arguments. `room` stays where it is until the real call is over.
pub unsafe fn prepare(named: Named, environment: Strings, room: &mut Room) -> Option<Strings> {
    // In a sandbox any system call may be the last one.
    if !process::active() || process::sandboxed() || !BY_ENVIRONMENT.load(Ordering::Acquire) {
        return None;
    }
    // SAFETY: contract.
    if !unsafe { is_there(environment) } {
        return None;
    }
    // SAFETY: contract, and it can be read.
    let found = unsafe { search(environment) };
    if found.off {
        room.off = true;
        return None;
    }
    // SAFETY: contract.
    let target = unsafe { target::examine(named) };
    let add = Change::Add { preload: !found.ours, socket: !found.socket && socket_entry().is_some() };
    let fit = match target.fit {
        Fit::Loads | Fit::NotByUs(_) if !daemon_reachable() => Fit::Ignores(Lost::NotReachable),
        fit => fit,
    };
    let (lost, change) = match fit {
        Fit::Fails => {
            room.fails = true;
            (None, None)
        }
        Fit::Unknown => (None, None),
        Fit::Loads => (None, Some(add)),
        // As it was given to us it may be loaded all the same; the daemon sees whether it is.
        Fit::NotByUs(why) => ((!found.ours).then_some(why), None),
        // Nothing reads it there, and what that program starts in turn may be observed.
        Fit::Ignores(why) => (Some(why), None),
        Fit::Breaks(why) => (Some(why), found.ours.then_some(Change::Remove)),
    };
    room.lost = lost.map(|why| (why, target));
    let change = change.filter(|c| *c != Change::Add { preload: false, socket: false })?;
    // SAFETY: contract.
    unsafe { build(environment, &found, change, room) }
}

/// # Safety
/// As [`prepare`]; `found` is of this environment.
unsafe fn build(environment: Strings, found: &Found, change: Change, room: &mut Room) -> Option<Strings> {
    // SAFETY: contract.
    let value =
        found.preload.and_then(|at| unsafe { entry_at(environment, at) }.map(|e| &e[PRELOAD.len()..]));
    let ours = library_file::entry()?;
    // Three entries more at most: ours, the socket's, NULL. Behind them the new LD_PRELOAD.
    let pointers = found.count + 3;
    let text = ours.len() + 1 + value.map_or(0, <[u8]>::len) + 1;
    let words = pointers + text.div_ceil(size_of::<usize>());
    let start = room.take(words)?;
    // SAFETY: the room has `words` words: the pointers, then `text` bytes. Zeroed, so initialised.
    let (list, text) = unsafe {
        start.write_bytes(0, words);
        (
            core::slice::from_raw_parts_mut(start.cast::<*const c_char>(), pointers),
            core::slice::from_raw_parts_mut(start.add(pointers).cast::<u8>(), text),
        )
    };
    let preload = match change {
        Change::Add { preload: true, .. } => with_ours(text, ours, value),
        Change::Remove => without_ours(text, value.unwrap_or_default()),
        // Stays as it is.
        Change::Add { preload: false, .. } => null(),
    };
    let replaced = change != Change::Add { preload: false, socket: true };
    let mut count = 0;
    for index in 0..found.count {
        // SAFETY: below `count`, so within the list.
        let entry = unsafe { environment.add(index).read() };
        let entry = if replaced && Some(index) == found.preload { preload } else { entry };
        // Without ours nothing may be left of LD_PRELOAD.
        if !entry.is_null() {
            list[count] = entry;
            count += 1;
        }
    }
    if let Change::Add { preload: add, socket } = change {
        if add && found.preload.is_none() {
            list[count] = preload;
            count += 1;
        }
        if let Some(entry) = socket_entry().filter(|_| socket) {
            list[count] = entry;
        }
    }
    Some(list.as_ptr())
}

/// Ours first, so that our definitions are.
fn with_ours(text: &mut [u8], ours: &'static [u8], value: Option<&[u8]>) -> *const c_char {
    let Some(value) = value.filter(|v| entries(v).next().is_some()) else { return ours.as_ptr().cast() };
    let end = ours.len() - 1;
    text[..end].copy_from_slice(&ours[..end]);
    text[end] = b':';
    text[end + 1..end + 1 + value.len()].copy_from_slice(value);
    text.as_ptr().cast()
}

/// The others as they were; null if there are none.
fn without_ours(text: &mut [u8], value: &[u8]) -> *const c_char {
    let mut length = PRELOAD.len();
    text[..length].copy_from_slice(PRELOAD);
    for entry in entries(value).filter(|entry| !is_ours(entry)) {
        if length > PRELOAD.len() {
            text[length] = b':';
            length += 1;
        }
        text[length..length + entry.len()].copy_from_slice(entry);
        length += entry.len();
    }
    if length == PRELOAD.len() { null() } else { text.as_ptr().cast() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    /// What `change` makes of an environment. `None`: no change could be made.
    fn changed(before: &[&str], change: Change) -> Option<Vec<String>> {
        library_file::learn().expect("the test's own file");
        let strings: Vec<CString> = before.iter().map(|s| CString::new(*s).unwrap()).collect();
        let mut list: Vec<*const c_char> = strings.iter().map(|s| s.as_ptr()).collect();
        list.push(null());
        let mut room = Room::new();
        // SAFETY: a list of C strings that outlives the call, as does the room.
        unsafe {
            let found = search(list.as_ptr());
            let after = build(list.as_ptr(), &found, change, &mut room)?;
            let mut out = Vec::new();
            while let Some(entry) = entry_at(after, out.len()) {
                out.push(String::from_utf8(entry.to_vec()).unwrap());
            }
            room.give_back();
            Some(out)
        }
    }

    fn ours() -> String {
        library_file::learn().expect("the test's own file");
        let entry = library_file::entry().unwrap();
        String::from_utf8(entry[..entry.len() - 1].to_vec()).unwrap()
    }

    const ADD: Change = Change::Add { preload: true, socket: false };

    #[test]
    fn ours_is_added_to_a_scrubbed_environment() {
        assert_eq!(changed(&[], ADD), Some(vec![ours()]));
        assert_eq!(changed(&["A=1"], ADD), Some(vec!["A=1".into(), ours()]));
    }

    #[test]
    fn other_entries_stay_behind_ours() {
        let after = changed(&["LD_PRELOAD=/x/liba.so libb.so", "A=1"], ADD).unwrap();
        assert_eq!(after, [ours() + ":/x/liba.so libb.so", "A=1".into()]);
        assert_eq!(changed(&["LD_PRELOAD="], ADD), Some(vec![ours()]));
    }

    #[test]
    fn only_ours_is_removed() {
        let remove = |value: &str| changed(&["A=1", &format!("LD_PRELOAD={value}")], Change::Remove).unwrap();
        assert_eq!(remove("/opt/libcounterfoil.so"), ["A=1"]);
        assert_eq!(remove("a.so:/opt/libcounterfoil.so b.so"), ["A=1", "LD_PRELOAD=a.so:b.so"]);
        assert_eq!(
            remove("libcounterfoil.so.so:libcounterfoil.so"),
            ["A=1", "LD_PRELOAD=libcounterfoil.so.so"]
        );
    }

    #[test]
    fn a_large_environment_takes_a_mapping() {
        let many: Vec<String> = (0..5000).map(|i| format!("V{i}={i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let after = changed(&many, ADD).unwrap();
        assert_eq!(after.len(), 5001);
        assert_eq!(after[..5000], many);
        assert_eq!(after[5000], ours());
    }

    #[test]
    fn the_last_preload_is_the_one_that_counts() {
        let strings = [c"LD_PRELOAD=/a/libcounterfoil.so".as_ptr(), c"LD_PRELOAD=x".as_ptr(), null()];
        // SAFETY: a list of C strings.
        let found = unsafe { search(strings.as_ptr()) };
        assert!(!found.ours && found.preload == Some(1) && found.count == 2);
    }

    #[test]
    fn no_environment_is_an_empty_one() {
        // SAFETY: NULL is allowed.
        let found = unsafe { search(null()) };
        assert_eq!(found.count, 0);
    }
}
