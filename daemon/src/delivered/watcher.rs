//! The thread that looks after delivered files: the clock, the reader and the ledger for [`Delivered`].
//!
//! Comes in: words from `desk`. Goes out: findings, to `desk`. One file at a time, at the lowest priority.
#![forbid(unsafe_code)]

use super::{Delivered, KIND};
use crate::aside::{Aside, Inbox};
use crate::config::Integrity;
use crate::judged::Deed;
use crate::ledger::{Memory, Reader as LedgerReader};
use crate::model::{Finding, Transfer};
use crate::pipeline::{StreamDigest, random_key};
use crate::rest::{Answer, Reader};
use crate::tags::Tagger;
use crossbeam::channel::{RecvTimeoutError, Sender, unbounded};
use jiff::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The clock may jump; look at it at least so often.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

enum Word {
    Transfer(Arc<Transfer>),
    Deed(Box<Deed>),
    Reload(Integrity),
    Read(Box<Answer>),
}

/// The stage, running.
pub struct Watcher(Aside<Word>);

impl Watcher {
    /// Starts it. `recalled` is what [`KIND`] has in the ledger in `state`.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        settings: &Integrity,
        state: PathBuf,
        recalled: Vec<(String, String)>,
        memory: Memory,
        findings: Sender<Finding>,
    ) -> std::io::Result<Self> {
        let mut delivered = Delivered::new(settings, Some(memory));
        let work = move |inbox| {
            delivered.resume(Timestamp::now(), recalled);
            earlier(&mut delivered, &state);
            work(delivered, &state, &inbox, &findings);
        };
        Aside::start(KIND, work).map(Self)
    }

    /// One final transfer.
    pub fn transfer(&self, transfer: &Arc<Transfer>) {
        if transfer.channel == crate::model::Channel::File {
            self.say(Word::Transfer(Arc::clone(transfer)));
        }
    }

    /// What an observed process did to a file.
    pub fn deed(&self, deed: &Deed) {
        self.say(Word::Deed(Box::new(deed.clone())));
    }

    /// Other settings.
    pub fn reload(&self, settings: &Integrity) {
        self.0.take_up("delivered files", Word::Reload(settings.clone()));
    }

    /// Ends it. A file that is being read is given up.
    pub fn finish(self) {
        self.0.finish();
    }

    fn say(&self, word: Word) {
        // The desk waits for nobody. What is lost here is found in the ledger at the next start.
        if !self.0.try_say(word) {
            tracing::warn!(
                "delivered files come faster than they can be noted; some are not checked until a restart"
            );
        }
    }
}

/// Deliveries from before the path was opted in, or that were not heard of.
fn earlier(delivered: &mut Delivered, state: &std::path::Path) {
    if delivered.off() {
        return;
    }
    let now = Timestamp::now();
    let read = LedgerReader::open(state).and_then(|r| r.delivered(|t| delivered.transfer(now, &t, false)));
    if let Err(e) = read {
        tracing::warn!("earlier deliveries can't be read: {e}");
    }
}

fn work(mut delivered: Delivered, state: &std::path::Path, inbox: &Inbox<Word>, findings: &Sender<Finding>) {
    let (send, answers) = unbounded();
    let hear = Arc::new(move |answer| drop(send.send(Word::Read(Box::new(answer)))));
    // These tags are laid beside nothing but each other: the key is as good as any, and of this process alone.
    let key = random_key().unwrap_or_default();
    let mut reader: Option<Reader> = None;
    let mut busy = false;
    loop {
        if !busy && let Some(ask) = delivered.ask(Timestamp::now()) {
            if reader.is_none() {
                reader = Reader::leisurely(Tagger::new(key, StreamDigest::Mac), hear.clone())
                    .inspect_err(|e| tracing::error!("delivered files can't be read: {e}"))
                    .ok();
            }
            if let Some(reader) = &reader {
                reader.ask(ask);
                busy = true;
            }
        }
        let sleep = match (busy, delivered.next()) {
            (false, Some(due)) => Duration::try_from(due.duration_since(Timestamp::now()))
                .unwrap_or_default()
                .min(LONGEST_SLEEP),
            _ => LONGEST_SLEEP,
        };
        let word = crossbeam::channel::select! {
            recv(inbox.words) -> word => word.map_err(|_| RecvTimeoutError::Disconnected),
            recv(answers) -> word => word.map_err(|_| RecvTimeoutError::Disconnected),
            recv(inbox.ended) -> _ => return,
            default(sleep) => Err(RecvTimeoutError::Timeout),
        };
        let now = Timestamp::now();
        match word {
            Ok(Word::Transfer(transfer)) => delivered.transfer(now, &transfer, true),
            Ok(Word::Deed(deed)) => delivered.deed(now, &deed),
            Ok(Word::Reload(settings)) => {
                delivered.reload(&settings);
                earlier(&mut delivered, state);
            }
            Ok(Word::Read(answer)) => {
                busy = false;
                if let Some(finding) = delivered.answer(now, *answer)
                    && findings.send(finding).is_err()
                {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
