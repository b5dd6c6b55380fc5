//! The bells of the users' boards, and the thread that hears programs call while the core naps.
//!
//! Comes in: boards' memory. Goes out: [`BoardBell`]s for `collect`, and from [`Porter`] a word into the core's eventfd. A
//! program that was quiet rings its user's bell; while the core naps it also calls, which is a futex: nothing that epoll
//! could wait for, and nothing that a program would need a descriptor for.

use counterfoil_abi::board::{BOARD_BYTES, Board};
use memmap2::{MmapOptions, MmapRaw};
use rustix::io::Errno;
use rustix::thread::ClockId;
use rustix::thread::futex::{self, Wait, WaitFlags, WaitPtr, WaitvFlags};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bells that can be heard at once: the kernel's bound (FUTEX_WAITV_MAX), less the porter's own.
const HEARD: usize = 127;
/// Between two calls that are passed on: who calls without end can't keep the daemon busy.
const BREATH: Duration = Duration::from_millis(1);

/// A [board](Board)'s bell: one look tells whether any quiet arena of one user has something to say.
pub struct BoardBell(MmapRaw);

impl BoardBell {
    /// Maps a board, which is sealed against being cut.
    pub fn map(board: BorrowedFd<'_>) -> io::Result<Self> {
        MmapOptions::new().len(BOARD_BYTES).map_raw(&board.try_clone_to_owned()?).map(Self)
    }

    /// What stands there.
    pub fn board(&self) -> &Board {
        // SAFETY: the mapping is as large, page-aligned, and lives as long as self; what others write are atomics.
        unsafe { &*self.0.as_ptr().cast() }
    }
}

/// Wakes the core out of a nap when a program calls.
pub struct Porter(Arc<Shared>);

struct Shared {
    /// Each with the calls that it had when it came.
    bells: Mutex<Vec<(Arc<BoardBell>, u32)>>,
    /// Changes with them, and at the end: a futex.
    news: AtomicU32,
    over: AtomicBool,
    deaf: AtomicBool,
}

impl Porter {
    /// `wake`: the core's eventfd.
    ///
    /// # Errors
    /// No thread.
    pub fn start(wake: Arc<OwnedFd>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            bells: Mutex::default(),
            news: AtomicU32::new(0),
            over: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
        });
        let theirs = shared.clone();
        std::thread::Builder::new().name("porter".into()).spawn(move || theirs.listen(&wake))?;
        Ok(Self(shared))
    }

    /// Hears this one, too.
    pub fn add(&self, bell: &Arc<BoardBell>) {
        let mut bells = self.0.bells.lock().unwrap_or_else(PoisonError::into_inner);
        if bells.iter().any(|(known, _)| Arc::ptr_eq(known, bell)) {
            return;
        }
        if bells.len() == HEARD {
            self.0.deaf.store(true, Ordering::Relaxed);
            return;
        }
        bells.push((bell.clone(), bell.board().calls().load(Ordering::Relaxed)));
        drop(bells);
        self.0.tell();
    }

    /// All that were added are heard. (Linux before 5.16 can't, nor more than a hundred users.)
    pub fn hears(&self) -> bool {
        !self.0.deaf.load(Ordering::Relaxed)
    }
}

impl Drop for Porter {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
        self.0.tell();
    }
}

impl Shared {
    fn tell(&self) {
        self.news.fetch_add(1, Ordering::Release);
        let _ = futex::wake(&self.news, futex::Flags::PRIVATE, 1);
    }

    fn listen(&self, wake: &OwnedFd) {
        let mut heard = Vec::new();
        loop {
            // Pairs with the release in `tell`.
            let news = self.news.load(Ordering::Acquire);
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner).clone();
            heard.extend(bells.iter().skip(heard.len()).map(|(_, calls)| *calls));
            let mut called = false;
            for ((bell, _), heard) in bells.iter().zip(&mut heard) {
                let calls = bell.board().calls().load(Ordering::Relaxed);
                called |= std::mem::replace(heard, calls) != calls;
            }
            if called {
                let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
                std::thread::sleep(BREATH);
                continue;
            }
            let calls = bells.iter().zip(&heard).map(|((bell, _), &heard)| (bell.board().calls(), heard));
            let mut waits: Vec<Wait> = calls.map(|(word, heard)| until(word, heard)).collect();
            let mut own = until(&self.news, news);
            own.flags |= WaitFlags::PRIVATE;
            waits.push(own);
            // `bells` stay mapped, whoever else lets go of them.
            match futex::waitv(&waits, WaitvFlags::empty(), None, ClockId::Monotonic) {
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => {
                    self.deaf.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}

fn until(word: &AtomicU32, not: u32) -> Wait {
    let mut wait = Wait::new();
    wait.uaddr = WaitPtr::new(word.as_ptr().cast());
    wait.val = not.into();
    wait.flags = WaitFlags::SIZE_U32;
    wait
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensitive::boards::Boards;
    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
    use std::time::Instant;

    fn woken(wake: &OwnedFd, within: Duration) -> bool {
        let timeout = Timespec::try_from(within).unwrap();
        let woken = poll(&mut [PollFd::new(wake, PollFlags::IN)], Some(&timeout)).unwrap() == 1;
        if woken {
            rustix::io::read(wake, &mut [0u8; 8]).unwrap();
        }
        woken
    }

    #[test]
    fn who_calls_is_heard_whosever_it_is() {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let porter = Porter::start(wake.clone()).unwrap();
        let mut boards = Boards::default();
        let bells: Vec<_> = (0..HEARD as u32).map(|uid| boards.bell(uid).unwrap()).collect();
        for (bell, n) in bells.iter().zip(0..) {
            porter.add(bell);
            porter.add(bell);
            if n % 31 > 0 {
                continue;
            }
            assert!(bell.board().nap() && !woken(&wake, Duration::from_millis(5)), "nobody called");
            // As a program does that has a mapping of its own.
            let other = BoardBell::map(boards.of(n).unwrap()).unwrap();
            other.board().ring();
            assert!(other.board().call());
            futex::wake(other.board().calls(), futex::Flags::empty(), 1).unwrap();
            assert!(woken(&wake, Duration::from_secs(10)), "{n}");
        }
        assert!(porter.hears());
        porter.add(&boards.bell(200).unwrap());
        assert!(!porter.hears(), "one more than the kernel waits for");
    }

    #[test]
    fn who_calls_without_end_is_passed_on_now_and_then() {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let porter = Porter::start(wake.clone()).unwrap();
        let bell = Boards::default().bell(0).unwrap();
        porter.add(&bell);
        let (began, mut times) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_millis(200) {
            bell.board().calls().fetch_add(1, Ordering::Relaxed);
            let _ = futex::wake(bell.board().calls(), futex::Flags::empty(), 1);
            times += u32::from(woken(&wake, Duration::ZERO));
        }
        assert!((2..=200).contains(&times), "{times}");
    }

    #[test]
    fn it_ends_with_the_core() {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let porter = Porter::start(wake.clone()).unwrap();
        drop(porter);
        let began = Instant::now();
        while Arc::strong_count(&wake) > 1 {
            assert!(began.elapsed() < Duration::from_secs(10), "its thread holds the core's descriptor");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
