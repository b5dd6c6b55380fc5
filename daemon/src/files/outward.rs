//! From a file's way to the outward transfer, and who was at its ends.

use super::case::Said;
use super::chains::Gift;
use super::matching::By;
use super::open::FileEnd;
use super::place::{Span, place};
use super::readings::Reading;
use super::rest::AtRestState;
use super::{Delivery, Files};
use crate::assemble::program::ArenaId;
use crate::host::path_text;
use crate::judge::Judgement;
use crate::judged::{Context, Judged};
use crate::model::{Bytes, Channel, Class, Endpoint, Process, ProcessName, Tap, Transfer, Verdict};
use counterfoil_abi::BLOCK;
use jiff::Timestamp;
use uuid::Uuid;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What kind of content a file has at one end: as it passed, or as it lies there.
fn class_at(end: &FileEnd, rest: &AtRestState) -> Option<Class> {
    let content = end.content.filter(|_| !end.at_rest).or_else(|| rest.had().map(|rest| rest.content));
    content.map(|content| content.class)
}

/// What kind of content it is: as it was read, else as it was written.
fn class(d: &Delivery, r: &Reading) -> Option<Class> {
    let known = class_at(&r.end, &r.rest).or_else(|| class_at(&d.end, &d.rest));
    known.or_else(|| (r.bytes() == 0).then_some(Class::Empty))
}

impl Files {
    /// The realtime of a monotonic moment that a record tells; a liar's is brought into bounds.
    pub(super) fn timestamp(&self, monotonic: u64) -> Timestamp {
        let at = i128::from(monotonic.min(self.now)) + self.surroundings.clock_offset;
        Timestamp::from_nanosecond(at).unwrap_or_default()
    }

    fn process(&self, end: &FileEnd) -> Option<Process> {
        self.who(end.arena, end.pid)
    }

    /// The program of an arena, or a fork of it.
    pub(super) fn who(&self, arena: ArenaId, pid: u32) -> Option<Process> {
        let mut process = self.nodes.get(&arena)?.facts.process.clone();
        if pid != 0 && pid != process.pid {
            // A fork: same program, its owner is the parent.
            process.parents.insert(0, ProcessName { pid: process.pid, exe: process.exe.clone() });
            process.pid = pid;
            process.started = None;
        }
        Some(process)
    }

    pub(super) fn endpoint(&self, end: &FileEnd, path: &[u8], tap: Tap, said: &Said) -> Option<Endpoint> {
        let process = self.process(end)?;
        Some(Endpoint {
            host: self.surroundings.hostname.clone(),
            tap,
            pid: process.pid,
            exe: process.exe,
            argv: process.argv,
            uid: process.uid,
            parent: process.parents.into_iter().next(),
            local: None,
            remote: None,
            path: (!path.is_empty()).then(|| path_text(path)),
            sha256: said.sha256.map(|digest| hex(&digest)),
            bytes: said.bytes,
            witnessed: said.witnessed,
            offered: 0,
            also: Vec::new(),
        })
    }

    pub(super) fn outward(
        &self,
        d: &Delivery,
        r: &Reading,
        judged: (Judgement, Said, Said),
        legs: &[Gift],
        spans: &[Span],
        by: By,
    ) -> Judged {
        let (judgement, origin, destination) = judged;
        let nothing_left = {
            let compared = r.end.tags.compared(&d.end.tags);
            compared.nothing_in_common() && compared.differ >= 2
        };
        let altered = judgement.verdict == Verdict::Altered;
        let source_changed = altered && origin.sha256.is_some() && origin.sha256 == destination.sha256;
        let place = match (altered, source_changed) {
            (false, _) => None,
            (true, true) => Some("source changed while it was read".to_owned()),
            (true, false) => place(spans),
        };
        let transfer = Transfer {
            id: Uuid::now_v7(),
            verdict: judgement.verdict,
            reasons: judgement.reasons,
            channel: Channel::File,
            flow: None,
            assurance: judgement.assurance,
            class: class(d, r),
            bytes: Bytes { origin: Some(origin.bytes), destination: Some(destination.bytes) },
            altered: judgement.altered,
            origin: self.endpoint(&r.end, &r.end.path, Tap::FileRead, &origin),
            destination: self.endpoint(&d.end, &d.path, Tap::FileWrite, &destination),
            legs: legs.iter().map(|leg| leg.transfer).collect(),
            started: self.timestamp(r.end.opened.min(d.end.opened)),
            ended: self.timestamp(r.end.last.max(d.end.last)),
            strip: judgement.strip,
            origin_digest: None,
            destination_digest: None,
        };
        let replaced = altered
            && by == By::Name
            && nothing_left
            && origin.bytes == destination.bytes
            && origin.bytes >= 2 * BLOCK
            && class_at(&r.end, &r.rest).is_some_and(|class| Some(class) == class_at(&d.end, &d.rest));
        let context = Context {
            origin: self.process(&r.end),
            destination: self.process(&d.end),
            connection: None,
            place,
            replaced,
        };
        Judged::Transfer { transfer: Box::new(transfer), context: Box::new(context) }
    }
}
