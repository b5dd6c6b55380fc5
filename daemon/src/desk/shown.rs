//! What an alarm shows of processes, filled in before it is raised.
//!
//! Comes in: a [`Judged`]. Goes out: the same. Called by `desk`.
#![forbid(unsafe_code)]

use crate::host::executables::Executables;
use crate::judged::{Anomaly, Judged, What};
use crate::model::{Endpoint, Process};
use std::sync::Arc;

/// An argument list that `[privacy]` or the kernel left empty is absent.
pub(super) fn tidy_argv(judged: &mut Judged) {
    let empty = |argv: &mut Option<Vec<String>>| {
        if argv.as_ref().is_some_and(Vec::is_empty) {
            *argv = None;
        }
    };
    let end = |e: &mut Option<Endpoint>| e.iter_mut().for_each(|e| empty(&mut e.argv));
    let process = |p: &mut Option<Process>| p.iter_mut().for_each(|p| empty(&mut p.argv));
    match judged {
        Judged::Transfer { transfer, context } => {
            end(&mut transfer.origin);
            end(&mut transfer.destination);
            process(&mut context.origin);
            process(&mut context.destination);
        }
        Judged::Notice(notice) => process(&mut notice.process),
        Judged::Traffic(reading) if reading.process.argv.as_ref().is_some_and(Vec::is_empty) => {
            reading.process.argv = None
        }
        Judged::Deed(deed) if deed.process.argv.as_ref().is_some_and(Vec::is_empty) => {
            deed.process.argv = None
        }
        Judged::Traffic(_)
        | Judged::Deed(_)
        | Judged::Coverage(_)
        | Judged::Counts(_)
        | Judged::Carried(_) => {}
    }
}

/// Digest and package of every process that an alarm may name.
pub(super) fn identify(judged: &mut Judged, executables: &Arc<Executables>) {
    let fill = |p: &mut Option<Process>| p.iter_mut().for_each(|p| executables.fill(p));
    match judged {
        Judged::Transfer { context, .. } => {
            fill(&mut context.origin);
            fill(&mut context.destination);
        }
        Judged::Notice(notice) => {
            fill(&mut notice.process);
            if let What::Anomaly(
                Anomaly::Tracer { tracer: by, .. } | Anomaly::MemoryWrite { writer: by, .. },
            ) = &mut notice.what
            {
                executables.fill(by);
            }
        }
        // Egress asks for itself: what is usual goes by the digest.
        Judged::Traffic(_)
        | Judged::Deed(_)
        | Judged::Coverage(_)
        | Judged::Counts(_)
        | Judged::Carried(_) => {}
    }
}
