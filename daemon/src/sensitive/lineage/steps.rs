//! What programs did, as steps of a chain.
#![forbid(unsafe_code)]

use super::{Lineage, Sending, Wrote};
use crate::assemble::program::ArenaId;
use crate::model::ProcessName;
use crate::sensitive::origins::Reading;
use crate::sensitive::told::Step;

impl Lineage {
    /// A program did something at that monotonic moment.
    #[must_use]
    pub fn step(&self, at: u64, did: &'static str, by: ArenaId) -> Step {
        let process = self.name(by);
        Step { at: self.at(at), did, process, to: None, over: None, transfer: None, file: None }
    }

    /// It read a file.
    #[must_use]
    pub fn read_step(&self, reading: &Reading) -> Step {
        let read = self.step(reading.since, "read", reading.arena);
        let process = ProcessName { pid: reading.pid, ..read.process };
        Step { process, file: Some(reading.opened_as.clone()), ..read }
    }

    /// It wrote a file.
    #[must_use]
    pub fn wrote_step(&self, wrote: &Wrote, by: ArenaId) -> Step {
        Step { file: Some(wrote.path.clone()), ..self.step(wrote.last, "wrote", by) }
    }

    /// It sent something.
    #[must_use]
    pub fn sent_step(&self, sending: &Sending) -> Step {
        let process = ProcessName { pid: sending.process.pid, exe: sending.process.exe.clone() };
        Step {
            at: self.at(sending.grew),
            did: "sent",
            process,
            to: None,
            over: None,
            transfer: sending.transfer,
            file: None,
        }
    }
}
