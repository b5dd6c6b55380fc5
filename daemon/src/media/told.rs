//! What is found, in the words that `detect` hears.
#![forbid(unsafe_code)]

use super::picture::Behind;
use crate::model::{Connection, FileFact, Process, Severity};
use crate::sensitive::told::Step;
use counterfoil_abi::record::Magic;
use jiff::Timestamp;
use uuid::Uuid;

/// What makes a chain more than ordinary work.
#[derive(Clone, Debug, PartialEq)]
pub enum Link {
    /// A monitored tool worked on it.
    Tool {
        /// Its name.
        name: String,
        /// It was told to write something that is no caption.
        payload: bool,
    },
    /// The program that sends has read it, and has libraries for pictures loaded.
    Libraries {
        /// Their names.
        names: Vec<&'static str>,
    },
    /// A picture of its format and size came of it, and has other content.
    Changed {
        /// Which file; None: it was sent from memory.
        path: Option<String>,
        /// `png` …
        format: Magic,
        /// Width and height, pixels.
        size: (u32, u32),
    },
    /// What came of it was used further: a file, or bytes in a pipe.
    Output {
        /// The file; None: a pipe.
        path: Option<String>,
    },
    /// An interpreter ran with it.
    Script(Script),
    /// Something was sent afterwards.
    Socket {
        /// Where to.
        connection: Connection,
        /// The connection's id.
        flow: Option<String>,
        /// The transfer.
        transfer: Option<Uuid>,
        /// The picture's own content was seen on it.
        proven: bool,
    },
    /// The file is not what it seems to be.
    Mismatch {
        /// Which file.
        path: String,
        /// Data behind its end.
        behind: Option<Behind>,
        /// Name and content disagree: what the content is.
        content: Option<String>,
    },
}

/// An interpreter that has to do with a media file.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// Its name.
    pub interpreter: String,
    /// What it runs: a path, `-c`, `standard input`.
    pub runs: String,
    /// What it has to do with the picture: `reads it`, `names it`, `gets it as an argument`, `came out of it`.
    pub how: &'static str,
}

/// A chain, as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct MediaChain {
    /// ANALYTICS' name of the rule that tells most.
    pub rule: &'static str,
    /// One higher for each further link.
    pub severity: Severity,
    /// Its content was seen where it went.
    pub proven: bool,
    /// The media file with which it begins.
    pub file: FileFact,
    /// Who did the last step.
    pub process: Option<Process>,
    /// In order.
    pub links: Vec<Link>,
    /// In order, with times.
    pub steps: Vec<Step>,
    /// Seconds.
    pub window: u64,
    /// When the last step was.
    pub seen: Timestamp,
}
