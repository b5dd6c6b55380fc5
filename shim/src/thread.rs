//! One thread's state, and the guard that recording needs.
//!
//! Nothing here is dropped when a thread ends, and a call may be left at any point without returning: by
//! `siglongjmp`, whose hook says where to, or by a forced unwind, which says so as it passes our frames. Both
//! end what this thread has marked ([`Thread::left`]). Nothing else is taken for leaving: a frame below the
//! present stack pointer may lie on another stack, a signal handler's or a coroutine's, and its call goes on.

use crate::lanes;
use crate::objects::{self, Name, Object};
use crate::process;
use crate::readable::Pages;
use crate::stream::Stream;
use core::cell::Cell;
#[cfg(not(target_arch = "x86_64"))]
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::{Ordering, compiler_fence};
use counterfoil_abi::lane::Producer;
use counterfoil_abi::record::{Reason, Tap};

/// What a thread is in the middle of.
#[repr(C)]
pub struct Thread {
    /// Stack pointer of the frame that records now, 0 if none.
    recording: Cell<usize>,
    /// Which process (see [`process::epoch`]) `lane` belongs to.
    pub lane_epoch: Cell<u32>,
    /// Which lane it is.
    pub lane_index: Cell<u16>,
    /// Offers that are open, a bit each.
    pub offers: Cell<u8>,
    /// When the present recording began, 0 until asked.
    pub time: Cell<u64>,
    /// This thread's number, or what stands for it: set with the lane.
    pub number: Cell<u32>,
    /// The full lanes that this thread has, a bit each.
    pub lanes: Cell<u64>,
    /// The lane that this thread writes.
    pub lane: Cell<Option<Producer>>,
    /// The TLS call that this thread is inside of.
    pub inside: Here,
    /// Streams that this thread's calls in progress have claimed.
    pub claims: [Cell<Claim>; 2],
    /// Memory that calls of this thread may be given.
    pub pages: Pages,
    /// This thread is in fork(2).
    pub forks: Cell<bool>,
    /// A mapping that an exec of this thread took, and its bytes. A vfork child shares this with its
    /// parent, which finds it here when the child's exec has succeeded.
    pub spare: Cell<(*mut core::ffi::c_void, usize)>,
}

/// A claimed stream.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Claim {
    /// Null: none.
    pub stream: *const Stream,
    /// Its object's number.
    pub number: u32,
    /// A tap's code.
    pub tap: u8,
}

impl Claim {
    /// No claim.
    pub const NONE: Self = Self { stream: core::ptr::null(), number: 0, tap: 0 };
}

impl Thread {
    /// This thread leaves calls that it is in without returning from them: those of whose frame, by its stack
    /// pointer, `gone` is true.
    #[cold]
    pub fn left(&'static self, gone: impl Fn(usize) -> bool) {
        let stays = |frame| frame != 0 && !gone(frame);
        if stays(self.recording.get()) || stays(self.inside.frame.get()) {
            return;
        }
        self.inside.set(Inside::NONE);
        self.offers.set(0);
        let torn = self.recording.replace(0) != 0;
        if torn {
            lanes::renew(self);
        }
        let Some(guard) = Guard::enter() else { return };
        for claim in &self.claims {
            let claim = claim.replace(Claim::NONE);
            // SAFETY: streams live in the region, which stays mapped.
            if let (Some(stream), Some(tap)) = (unsafe { claim.stream.as_ref() }, Tap::from_code(claim.tap))
                && objects::has(claim.number, stream)
            {
                // What the call moved before it was left, nobody knows.
                if torn {
                    stream.tear(&guard, claim.number, tap);
                } else {
                    stream.doubt(&guard, claim.number, tap, Reason::SharedDescriptor);
                }
                if matches!(tap, Tap::FileRead | Tap::FileWrite) {
                    // A file's place is unknown now: it goes on at rest.
                    stream.miss();
                }
                stream.release_left();
            }
        }
    }

    /// An object is no more, and with it what this thread's calls had claimed of it.
    #[cold]
    pub fn forget(&self, number: u32) {
        for claim in self.claims.iter().filter(|claim| claim.get().number == number) {
            claim.set(Claim::NONE);
        }
    }
}

/// Where an [`Inside`] stands: a cell each, since most hooks need one of them.
#[repr(C)]
pub struct Here {
    frame: Cell<usize>,
    session: Cell<usize>,
    slot: Cell<u32>,
    number: Cell<u32>,
    phase: Cell<Phase>,
    /// See [`Inside::in_cipher`].
    pub in_cipher: Cell<bool>,
    /// See [`Inside::head`].
    pub head: Cell<Head>,
    /// See [`Inside::mixed`].
    pub mixed: Cell<bool>,
}

/// What a TLS 1.2 cipher was told of the record that it will get next; all 0: nothing.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Head {
    /// Its content type.
    pub kind: u8,
    /// Bytes that the cipher puts behind what it gets, 255: or more.
    pub behind: u8,
    /// Its length before that, what stands before the content included.
    pub length: u16,
}

impl Here {
    /// All of it.
    #[inline]
    pub fn get(&self) -> Inside {
        Inside {
            frame: self.frame.get(),
            session: self.session.get(),
            slot: self.slot.get(),
            number: self.number.get(),
            phase: self.phase.get(),
            in_cipher: self.in_cipher.get(),
            head: self.head.get(),
            mixed: self.mixed.get(),
        }
    }

    /// All of it.
    #[inline]
    pub fn set(&self, inside: Inside) {
        // A signal handler sees all of it or none.
        self.frame.set(0);
        compiler_fence(Ordering::Release);
        self.session.set(inside.session);
        self.slot.set(inside.slot);
        self.number.set(inside.number);
        self.phase.set(inside.phase);
        self.in_cipher.set(inside.in_cipher);
        self.head.set(inside.head);
        self.mixed.set(inside.mixed);
        compiler_fence(Ordering::Release);
        self.frame.set(inside.frame);
    }

    /// This thread is inside of no call.
    #[inline]
    pub fn leave(&self) {
        self.frame.set(0);
    }

    /// This thread is inside of a call.
    #[inline(always)]
    pub fn is_marked(&self) -> bool {
        self.frame.get() != 0
    }

    /// The call that this thread is inside of is one on the object of this number.
    #[inline(always)]
    pub fn is(&self, number: u32) -> bool {
        self.is_marked() && self.number.get() == number
    }

    /// The call in whose frame this thread is lies around `frame`.
    #[inline(always)]
    pub fn covers(&self, frame: usize) -> bool {
        frame < self.frame.get()
    }
}

/// A hooked TLS call in progress.
#[derive(Clone, Copy)]
pub struct Inside {
    /// Stack pointer of the hook's frame, 0 if none.
    pub frame: usize,
    /// The session's address.
    pub session: usize,
    /// Slot of the session's object.
    pub slot: u32,
    /// Number of the session's object, 0 if it has none.
    pub number: u32,
    /// See [`Phase`].
    pub phase: Phase,
    /// Inside a cipher call already: those nest through the PLT.
    pub in_cipher: bool,
    /// What was said of the next record.
    pub head: Head,
    /// Other stacks of this thread are inside of calls, too.
    pub mixed: bool,
}

/// What a TLS call does.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Handshake, shutdown: no application data.
    Other,
    /// Plaintext goes in.
    Write,
    /// Plaintext comes out.
    Read,
}

unsafe extern "C" {
    #[cfg(not(target_arch = "x86_64"))]
    fn counterfoil_thread() -> *mut core::ffi::c_void;
    fn counterfoil_thread_bytes() -> libc::c_ulong;
}

/// This thread's state. What `counterfoil_thread` returns, without the call: there are dozens in one
/// call of a TLS library. Asked anew each time: a coroutine may come back from the real call on another
/// thread.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn current() -> &'static Thread {
    let state: *const Thread;
    // SAFETY: the initial-exec model (ELF Handling For Thread-Local Storage, 4.3.6): the thread pointer
    // and the variable's distance from it, which the loader has put into the GOT.
    unsafe {
        core::arch::asm!(
            "mov {state}, qword ptr fs:[0]",
            "add {state}, qword ptr [rip + counterfoil_state@GOTTPOFF]",
            state = out(reg) state,
            options(nostack, readonly),
        );
    }
    // SAFETY: as below.
    unsafe { &*state }
}

/// This thread's state.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub fn current() -> &'static Thread {
    // SAFETY: the C side returns this thread's own zeroed block; all-zero bytes are a valid
    // `Thread` (`fits` checks size; `Producer` in an Option has a null niche or a zero tag).
    unsafe { &*counterfoil_thread().cast::<Thread>() }
}

/// The C block is large enough. Checked once, by the constructor.
pub fn fits() -> bool {
    // SAFETY: no arguments, no state.
    size_of::<Thread>() as u64 <= unsafe { counterfoil_thread_bytes() } && align_of::<Thread>() <= 64
}

/// The present stack pointer.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let now: usize;
    // SAFETY: reads a register.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!("mov {}, rsp", out(reg) now, options(nomem, nostack, preserves_flags));
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!("mov {}, sp", out(reg) now, options(nomem, nostack, preserves_flags));
    }
    now
}

/// Puts the present stack pointer into `mark`, if that is 0. In one instruction: between two, a signal handler may switch to
/// another stack. It needs no lock, since no other thread comes here; and what follows stays behind it.
#[inline(always)]
fn take(mark: &Cell<usize>) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let before: usize;
        // SAFETY: this thread's own; the register's old value is all that comes back.
        unsafe {
            core::arch::asm!(
                "cmpxchg qword ptr [{mark}], rsp",
                mark = in(reg) mark.as_ptr(),
                inout("rax") 0usize => before,
                options(nostack),
            );
        }
        before == 0
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        // SAFETY: as aligned as the cell, which nobody else uses meanwhile but this thread itself.
        let mark = unsafe { AtomicUsize::from_ptr(mark.as_ptr()) };
        mark.compare_exchange(0, stack_pointer(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

/// Proof that this thread records, and is not inside another recording.
pub struct Guard {
    /// This thread.
    pub thread: &'static Thread,
}

impl Guard {
    /// None: the library is inert, or this thread is recording already (a signal handler that interrupted
    /// us, what it switched to, or our own call to something hooked).
    #[inline]
    pub fn enter() -> Option<Self> {
        if !process::active() {
            return None;
        }
        let thread = current();
        if !take(&thread.recording) {
            return None;
        }
        thread.time.set(0);
        process::notice_fork(thread);
        Some(Self { thread })
    }

    /// The TLS call that this thread is inside of, if any.
    #[inline]
    pub fn inside(&self) -> Option<Inside> {
        inside(self.thread)
    }
}

/// The TLS call that `thread` is inside of.
#[inline]
pub fn inside(thread: &Thread) -> Option<Inside> {
    around(thread, stack_pointer())
}

/// The TLS call in whose frame, or below, `frame` lies. One above it is no part of the call, which may go on for all
/// that: a signal handler's stack may lie anywhere.
#[inline]
pub fn around(thread: &Thread, frame: usize) -> Option<Inside> {
    let here = &thread.inside;
    (here.is_marked() && frame <= here.frame.get()).then(|| here.get())
}

impl Inside {
    /// Not inside a TLS call.
    pub const NONE: Self = Self {
        frame: 0,
        session: 0,
        slot: 0,
        number: 0,
        phase: Phase::Other,
        in_cipher: false,
        head: Head { kind: 0, behind: 0, length: 0 },
        mixed: false,
    };

    /// The session's object.
    #[inline(always)]
    pub fn session(&self) -> Option<&'static Object> {
        if self.number == 0 {
            return None;
        }
        objects::get(Name { slot: self.slot, number: self.number })
    }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        // All that was recorded comes before it.
        compiler_fence(Ordering::Release);
        self.thread.recording.set(0);
    }
}
