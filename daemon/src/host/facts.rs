//! What is known about a process.
//!
//! Comes in: a pid, and the word of `/proc` about it. Goes out: [`Facts`], for the watch decision
//! at hello and for the ends of transfers. `listen` and `join` call it.

use crate::model::Process;
use std::sync::Arc;

/// What `/proc` said about a process when it said hello.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The outward part: pid, exe, argv (redacted), cwd, uid, user, session, unit, parents.
    pub process: Process,
    /// Its parent then.
    pub ppid: u32,
    /// Start time in clock ticks since boot: with the pid it names a process for good.
    pub starttime: u64,
    /// Inode of its network namespace.
    pub net_namespace: Option<u64>,
    /// Its pid in each nested pid namespace, outermost (the daemon's) first.
    pub nspid: Vec<u32>,
}

/// What the daemon does with a process that says hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Full manifests.
    Watched,
    /// Counts only.
    Unwatched,
    /// Not observed at all.
    Declined,
}

/// Decides about each process at hello. It must be quick: the program waits for it.
pub type WatchDecision = Arc<dyn Fn(&Facts) -> Watch + Send + Sync>;

/// Takes secrets out of an argument list.
pub type Redactor = Arc<dyn Fn(Vec<String>) -> Vec<String> + Send + Sync>;
