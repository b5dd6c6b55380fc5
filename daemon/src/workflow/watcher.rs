//! The thread that watches workflows: the clock, `/proc`, fanotify and the ledger for [`Workflow`].
//!
//! Comes in: words from `desk`. Goes out: findings, to `desk`.
#![forbid(unsafe_code)]

use super::witness::Witness;
use super::{Done, KIND, Workflow};
use crate::aside::{Aside, Inbox};
use crate::config::Watch;
use crate::host::facts::{Facts, Proc, Redactor};
use crate::judged::Judged;
use crate::ledger::Memory;
use crate::model::{Channel, Finding, Process, ProcessName};
use crossbeam::channel::{RecvTimeoutError, Sender};
use jiff::Timestamp;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between looks while a file is being written, or after somebody was seen writing.
const SOON: Duration = Duration::from_millis(1500);
/// Between looks where none is due; a reload may change that.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// So long a program stands for those that are like it, and so many of them are remembered.
const CROWD: Duration = Duration::from_secs(2);
const MANY: usize = 256;

enum Word {
    /// A program is observed.
    Program(u32),
    Done(Box<Done>),
    Reload(Watch, Redactor),
    /// Somebody wrote, by fanotify's word.
    Seen(Box<Done>),
}

/// Programs of one kind, started by the same processes, that come one right after the other. What they are workflow
/// to is found out once: it takes ten times as long as all else that is done for one that starts.
struct Crowd {
    since: Instant,
    seen: HashSet<(Option<String>, Option<String>, Vec<ProcessName>)>,
}

impl Default for Crowd {
    fn default() -> Self {
        Self { since: Instant::now(), seen: HashSet::new() }
    }
}

impl Crowd {
    /// None like it came just now. (Later its parents may run other scripts, under the same name.)
    fn first(&mut self, facts: &Facts) -> bool {
        if self.since.elapsed() > CROWD || self.seen.len() >= MANY {
            *self = Self::default();
        }
        let Process { exe, unit, parents, .. } = &facts.process;
        self.seen.insert((exe.clone(), unit.clone(), parents.clone()))
    }
}

/// The stage, running.
pub struct Watcher(Aside<Word>);

impl Watcher {
    /// Starts it. `recalled` is what [`KIND`] has in the ledger.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        watch: &Watch,
        proc: Arc<dyn Proc>,
        redact: Redactor,
        recalled: Vec<(String, String)>,
        memory: Memory,
        findings: Sender<Finding>,
    ) -> std::io::Result<Self> {
        let watch = watch.clone();
        let work = move |inbox| {
            let workflow = Workflow::new(&watch, Path::new("/"), recalled, Some(memory));
            work(workflow, watch.workflow_interval, &proc, redact, &inbox, &findings);
        };
        Aside::start(KIND, work).map(Self)
    }

    /// One word from `judge`. Never waits; what finds no room is a script not learnt, or a writer not named.
    pub fn take(&self, judged: &Judged) {
        let word = match judged {
            Judged::Coverage(coverage) if coverage.observed => Word::Program(coverage.pid),
            Judged::Deed(deed) => Word::Done(Box::new(Done {
                at: deed.seen,
                path: deed.path.clone(),
                inode: deed.inode,
                process: deed.process.clone(),
            })),
            Judged::Transfer { transfer, context } if transfer.channel == Channel::File => {
                let path = transfer.destination.as_ref().and_then(|e| e.path.clone());
                let (Some(path), Some(process)) = (path, context.destination.clone()) else { return };
                Word::Done(Box::new(Done { at: transfer.ended, path, inode: None, process }))
            }
            _ => return,
        };
        self.0.try_say(word);
    }

    /// Other settings.
    pub fn reload(&self, watch: &Watch, redact: &Redactor) {
        self.0.take_up("workflow", Word::Reload(watch.clone(), redact.clone()));
    }

    /// Ends it.
    pub fn finish(self) {
        self.0.finish();
    }
}

fn work(
    mut workflow: Workflow,
    mut every: Option<Duration>,
    proc: &Arc<dyn Proc>,
    mut redact: Redactor,
    inbox: &Inbox<Word>,
    findings: &Sender<Finding>,
) {
    let mut witness = None;
    if every.is_some() {
        // Descriptions of writers come by the same way as everything else.
        let heard = inbox.heard.clone();
        witness =
            Witness::start(Arc::clone(proc), move |done| drop(heard.try_send(Word::Seen(Box::new(done)))))
                .inspect_err(|e| {
                    tracing::info!(
                        "who changes a workflow is known of observed processes only (fanotify: {e})"
                    );
                })
                .ok();
    }
    // After the witness, which would inherit it: a writer may be gone in a moment.
    crate::rest::give_way();
    let mut due = Instant::now();
    let mut crowd = Crowd::default();
    loop {
        if let Some(every) = every
            && Instant::now() >= due
        {
            let (found, soon) = workflow.look(Timestamp::now());
            for finding in found {
                if findings.send(finding).is_err() {
                    return;
                }
            }
            if let Some(witness) = &mut witness {
                witness.mark(&workflow.folders());
            }
            due = Instant::now() + if soon { SOON.min(every) } else { every };
        }
        let sleep = due.saturating_duration_since(Instant::now()).min(LONGEST_SLEEP);
        let sleep = if every.is_some() { sleep } else { LONGEST_SLEEP };
        let word = crossbeam::channel::select! {
            recv(inbox.words) -> word => word.map_err(|_| RecvTimeoutError::Disconnected),
            recv(inbox.ended) -> _ => return,
            default(sleep) => Err(RecvTimeoutError::Timeout),
        };
        match word {
            Ok(Word::Program(pid)) => {
                if let Some(facts) = proc.facts(pid).filter(|facts| crowd.first(facts)) {
                    workflow.program(&facts, |pid| proc.facts(pid));
                }
            }
            Ok(Word::Seen(mut done)) => {
                // Whose word it is does not matter: nothing that is kept has secrets in it.
                done.process.argv = done.process.argv.map(|argv| redact(argv)).filter(|a| !a.is_empty());
                if workflow.concerns(&done) {
                    due = due.min(Instant::now() + SOON);
                }
                workflow.done(*done);
            }
            Ok(Word::Done(done)) => {
                if workflow.concerns(&done) {
                    due = due.min(Instant::now() + SOON);
                }
                workflow.done(*done);
            }
            Ok(Word::Reload(watch, secrets)) => {
                redact = secrets;
                every = watch.workflow_interval;
                workflow.reload(&watch);
                due = Instant::now();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
