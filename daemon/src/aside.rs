//! A stage with a thread of its own beside the way of the records.
//!
//! Comes in: words, from `desk`. The thread takes them from an [`Inbox`], which says when it shall end, too.
//! Who says a word never waits; who ends the stage not long.
#![forbid(unsafe_code)]

use crossbeam::channel::{Receiver, Sender, bounded};
use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the end waits for the thread: a file system that doesn't answer keeps it, not us.
const FAREWELL: Duration = Duration::from_secs(2);
/// Words that may wait.
const WAITING: usize = 8192;

/// The stage, running.
pub struct Aside<W> {
    words: Sender<W>,
    end: Sender<()>,
    thread: JoinHandle<()>,
}

/// The thread's side.
pub struct Inbox<W> {
    /// What is said to it.
    pub words: Receiver<W>,
    /// Disconnected: it shall end.
    pub ended: Receiver<()>,
    /// For what the thread starts and hears of by the same way.
    pub heard: Sender<W>,
}

impl<W: Send + 'static> Aside<W> {
    /// Starts it.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(name: &str, work: impl FnOnce(Inbox<W>) + Send + 'static) -> io::Result<Self> {
        let (words, inbox) = bounded(WAITING);
        let (end, ended) = bounded(1);
        let inbox = Inbox { words: inbox, ended, heard: words.clone() };
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || work(inbox))?;
        Ok(Self { words, end, thread })
    }

    /// Says a word without waiting. False: there was no room for it.
    pub fn try_say(&self, word: W) -> bool {
        // A thread that has ended hears nothing, and needs nothing.
        !self.words.try_send(word).is_err_and(|e| e.is_full())
    }

    /// Says new settings. Who says them waits for nobody, so they may not be heard: that is logged.
    pub fn take_up(&self, what: &str, settings: W) {
        if !self.try_say(settings) {
            tracing::error!(
                "{what}: too much waits there for new settings to be taken up; reload once more later"
            );
        }
    }

    /// Ends it.
    pub fn finish(self) {
        drop(self.end);
        let until = Instant::now() + FAREWELL;
        while !self.thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.thread.is_finished() {
            let _ = self.thread.join();
        }
    }
}
