//! Verdicts, reasons and ranges in words for a person who has to decide something.
#![forbid(unsafe_code)]

use crate::model::{Channel, Reason, Severity, Transfer, Verdict};

pub(crate) use crate::detect::ranges;

/// `intact` ….
#[must_use]
pub fn verdict(v: Verdict) -> &'static str {
    match v {
        Verdict::Intact => "intact",
        Verdict::Altered => "ALTERED",
        Verdict::Truncated => "truncated",
        Verdict::Unverified => "unverified",
    }
}

/// `TLS` ….
#[must_use]
pub fn channel(c: Channel) -> &'static str {
    match c {
        Channel::Tls => "TLS",
        Channel::Tcp => "TCP",
        Channel::Unix => "unix",
        Channel::Pipe => "pipe",
        Channel::File => "file",
        Channel::Datagram => "dgram",
    }
}

/// `CRITICAL` ….
#[must_use]
pub fn severity(s: Severity) -> &'static str {
    match s {
        Severity::Critical => "CRITICAL",
        Severity::High => "HIGH",
        Severity::Medium => "medium",
        Severity::Low => "low",
        Severity::Info => "info",
    }
}

/// What is at stake, and how soon somebody has to act: a severity is a priority by consequence.
#[must_use]
pub fn consequence(s: Severity) -> &'static str {
    match s {
        Severity::Critical => "data is being changed, taken or hidden; act at once",
        Severity::High => "it may be, or nobody could tell; act within the hour",
        Severity::Medium => "what protects or explains it is not as it was; act today",
        Severity::Low => "of use beside others; look when there is time",
        Severity::Info => "for the record",
    }
}

/// What a reason means, and what can be done about it. It begins with the reason's own word, which
/// is what JSON and documentation have.
#[must_use]
pub fn reason(reason: Reason, t: &Transfer) -> String {
    let what = match reason {
        Reason::PeerNotObserved => match (&t.origin, &t.destination) {
            (None, _) => {
                "the sender ran without the library, so nobody knows what it sent. \
                 Start it under the same counterfoil, too."
            }
            _ => {
                "the receiver ran without the library, so nobody knows what arrived. \
                 Start it under the same counterfoil, too."
            }
        },
        Reason::RecordsDropped => {
            "records found no room, because the program published faster than the daemon read. \
             Give the daemon more processor time, or watch less."
        }
        Reason::SharedDescriptor => {
            "two threads or processes used one direction at the same time, and which came first is not known."
        }
        Reason::BypassedBytes => {
            "the kernel moved bytes that no hook saw (stdio, raw system calls, io_uring)."
        }
        Reason::KernelCopy => {
            "the kernel copied the bytes itself (sendfile, splice); they were never in the program."
        }
        Reason::UnsupportedCipher => "this cipher's framing is not known to the cipher witness.",
        Reason::Transformed => "the data was compressed, encrypted or converted on the way.",
        Reason::StillOpen => {
            "the connection was still open when observation ended. What was seen until then agrees."
        }
        Reason::AbandonedByReceiver => {
            "the receiver closed before it had read everything; what it read is what was sent."
        }
        Reason::AttachedLate => "the connection was in use before it was observed.",
        Reason::HandedOver => {
            "another program took over the connection (exec): in the middle of a block, or it is not observed."
        }
        Reason::ProcessKilled => "a process died before it could say how much it had transferred.",
        Reason::ForeignHook => {
            "another library answers for the functions that carry the bytes. Find out whose it is: see the alarm."
        }
        Reason::DisputedClaim => "a process claims this connection that does not hold it.",
        Reason::OtherWriter => "somebody else wrote to the file as well.",
        Reason::TooSmallToJoin => "too little content to find its counterpart by.",
        Reason::Datagram => "datagrams may be lost or change places; there is no stream to compare.",
        Reason::DaemonRestarted => "the daemon was restarted while the transfer was open.",
    };
    let what = match (reason, t.channel) {
        (Reason::StillOpen, Channel::File) => {
            "observation ended before the file was closed, or before it could be read at rest."
        }
        (Reason::DisputedClaim, Channel::File) => {
            "what lies in the file is not what the program said that it read or wrote."
        }
        (Reason::DisputedClaim, Channel::Unix) => {
            "connections to this path were over before it could be asked which ends belong together; or a process claims \
             one that it does not hold."
        }
        (Reason::OtherWriter, Channel::File) => "somebody else wrote to one of the files meanwhile.",
        (Reason::Transformed, Channel::File) => {
            "the content was changed by a program that does so by trade (a filter, a codec), or its length was."
        }
        (Reason::BypassedBytes | Reason::KernelCopy, Channel::File) => {
            "not all bytes were seen as they passed, and the file could not be read at rest."
        }
        _ => what,
    };
    // What still-open says about agreement holds only where both ends were seen.
    let what = match (reason, &t.origin, &t.destination) {
        (Reason::StillOpen, Some(_), Some(_)) => what,
        (Reason::StillOpen, _, _) if t.channel == Channel::File => what,
        (Reason::StillOpen, _, _) => "the connection was still open when observation ended.",
        _ => what,
    };
    format!("{}: {what}", reason.word())
}
