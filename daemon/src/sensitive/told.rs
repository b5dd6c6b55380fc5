//! What is found, in the words that `detect` hears.
#![forbid(unsafe_code)]

use crate::model::{FileFact, ProcessName, Range, Severity};
use jiff::Timestamp;
use uuid::Uuid;

/// A sensitive file, or what came of it, left.
#[derive(Clone, Debug, PartialEq)]
pub struct SensitiveEgress {
    /// The file; the path is the sensitive one, whatever copy was sent.
    pub file: FileFact,
    /// An alarm about it is at most this severe.
    pub severity: Severity,
    /// How it is known.
    pub ground: Ground,
    /// How the content came from the file to the connection, in order.
    pub chain: Vec<Step>,
    /// How far apart reading and sending may be, seconds.
    pub window: u64,
}

/// How it is known that a file left.
#[derive(Clone, Debug, PartialEq)]
pub enum Ground {
    /// Its content was seen on the connection.
    Content {
        /// Which parts of the file.
        spans: Vec<Range>,
    },
    /// A process that read it, or got bytes from one that did, sent something.
    Lineage,
    /// Somebody in the same session sent something.
    Session,
}

/// One step of the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// When.
    pub at: Timestamp,
    /// `read`, `passed`, `started`, `wrote`, `sent`.
    pub did: &'static str,
    /// Who.
    pub process: ProcessName,
    /// To whom, where there is somebody.
    pub to: Option<ProcessName>,
    /// Over what: `pipe`, `unix`.
    pub over: Option<&'static str>,
    /// The transfer, where there is one.
    pub transfer: Option<Uuid>,
    /// The file, where there is one.
    pub file: Option<String>,
}
