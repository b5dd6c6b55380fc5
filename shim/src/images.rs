//! Which libraries for pictures this process has loaded.
//!
//! Comes in: that a picture was met ([`met`]), by its name or its content. Goes out: one note when a file is closed
//! thereafter, and another one when more have been loaded by then: who decodes a picture has loaded what it takes when it
//! closes it. A process that meets no picture pays one load for each file that it closes.

use crate::lanes;
use crate::library::base_name;
use crate::process;
use crate::thread::Guard;
use bytemuck::Zeroable;
use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use counterfoil_abi::images;
use counterfoil_abi::record::{About, Kind, Note};

/// A picture was met.
static MET: AtomicBool = AtomicBool::new(false);
/// Bits of what is loaded, as far as was looked.
static LOADED: AtomicU32 = AtomicU32::new(0);
/// What was told of it.
static TOLD: AtomicU32 = AtomicU32::new(0);
/// How many objects had been loaded at the last look, those that are gone included.
static LOOKED: AtomicU64 = AtomicU64::new(0);

/// A picture was opened, or read.
#[inline]
pub fn met() {
    if !MET.load(Relaxed) {
        MET.store(true, Relaxed);
    }
}

/// A file is about to be closed: says what is loaded, where that is news.
#[inline]
pub fn tell(guard: &Guard) {
    if MET.load(Relaxed) {
        tell_news(guard);
    }
}

#[cold]
fn tell_news(guard: &Guard) {
    look();
    let loaded = LOADED.load(Relaxed);
    if TOLD.swap(loaded, Relaxed) != loaded {
        let note = Note {
            header: lanes::header(Kind::Note, 4, 0, 0),
            about: About::ImageLibraries as u8,
            number: loaded,
            ..Zeroable::zeroed()
        };
        lanes::push_record(guard, &note);
    }
}

/// Before a fork: the child does not look by itself, it knows what its parent had loaded.
pub fn before_fork() {
    look();
}

/// Looks at what is loaded. In a forked child the loader's lock may be held by a thread that was not forked.
fn look() {
    if process::epoch() != 1 {
        return;
    }
    unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, _: usize, news: *mut c_void) -> c_int {
        // SAFETY: the loader's own data, and the answer that is passed below.
        let (info, news) = unsafe { (&*info, &mut *news.cast::<Option<u32>>()) };
        if news.is_none() {
            if LOOKED.swap(info.dlpi_adds, Relaxed) == info.dlpi_adds {
                return 1;
            }
            *news = Some(0);
        }
        if !info.dlpi_name.is_null() {
            // SAFETY: a C string of the loader's.
            let path = unsafe { CStr::from_ptr(info.dlpi_name) };
            *news = news.map(|bits| bits | images::bit(base_name(path)));
        }
        0
    }
    let mut news: Option<u32> = None;
    // SAFETY: the answer outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut news).cast()) };
    if let Some(bits) = news {
        LOADED.fetch_or(bits, Relaxed);
    }
}
