//! What the daemon says to people and programs: transfers, alarms, coverage, summary.
//!
//! These are the objects of INTERFACE's JSON Lines, field for field; absent facts are `null`.
//! Made by `judge` and `detect`, taken by ledger, sinks and report.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How a transfer ended, in the one word that people act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every byte was witnessed at both ends and is the same.
    Intact,
    /// Witnessed bytes differ.
    Altered,
    /// The destination got a prefix.
    Truncated,
    /// Nobody can know; `reasons` says why.
    Unverified,
}

/// Against whom a verdict stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assurance {
    /// Against everyone.
    Hash,
    /// Against everyone outside the observed processes, which hold the key.
    KeyedTag,
}

/// What carried a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words are DESIGN's")]
pub enum Channel {
    Tls,
    Tcp,
    Unix,
    Pipe,
    File,
    Datagram,
}

/// What kind of content. INTERFACE, `transfer.class`; docs/classes.md says how they are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Not a byte.
    Empty,
    /// What people write: prose, source code, logs.
    Text,
    /// Text with a syntax that its beginning shows: JSON, XML, tables, settings, base64.
    Structured,
    /// Archives and compressed streams.
    Compressed,
    /// Pictures, sound, video.
    Media,
    /// Ciphertext: it says so, or nothing tells it from random bytes.
    Encrypted,
    /// Anything else.
    Binary,
}

impl Class {
    /// INTERFACE's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Text => "text",
            Self::Structured => "structured",
            Self::Compressed => "compressed",
            Self::Media => "media",
            Self::Encrypted => "encrypted",
            Self::Binary => "binary",
        }
    }
}

/// Why something could not be verified. INTERFACE, `reasons`.
pub use counterfoil_abi::record::{Reason, Tap};

/// `Reason` and `Tap` as their words.
mod words {
    use super::{Reason, Tap};
    use serde::{Deserialize, Deserializer, Serializer, de::Error, ser::SerializeSeq};

    pub mod tap {
        use super::*;
        pub fn serialize<S: Serializer>(tap: &Tap, s: S) -> Result<S::Ok, S::Error> {
            s.serialize_str(tap.word())
        }
        pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Tap, D::Error> {
            let word = String::deserialize(d)?;
            (0..=u8::MAX)
                .filter_map(Tap::from_code)
                .find(|t| t.word() == word)
                .ok_or_else(|| D::Error::custom(format!("no tap is called {word:?}")))
        }
    }

    pub mod reasons {
        use super::*;
        pub fn serialize<S: Serializer>(reasons: &[Reason], s: S) -> Result<S::Ok, S::Error> {
            let mut seq = s.serialize_seq(Some(reasons.len()))?;
            for r in reasons {
                seq.serialize_element(r.word())?;
            }
            seq.end()
        }
        pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Reason>, D::Error> {
            Vec::<String>::deserialize(d)?
                .into_iter()
                .map(|word| {
                    (0..=u8::MAX)
                        .filter_map(Reason::from_code)
                        .find(|r| r.word() == word)
                        .ok_or_else(|| D::Error::custom(format!("no reason is called {word:?}")))
                })
                .collect()
        }
    }
}

/// A span of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Bytes from the stream's start.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// A process in few words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessName {
    /// Process id as the daemon's namespace counts it.
    pub pid: u32,
    /// Its program's path.
    pub exe: Option<String>,
}

/// One end of a transfer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Host name.
    pub host: String,
    /// Where the bytes were witnessed.
    #[serde(with = "words::tap")]
    pub tap: Tap,
    /// Process id as the daemon's namespace counts it.
    pub pid: u32,
    /// Its program's path.
    pub exe: Option<String>,
    /// Its arguments, redacted as `[privacy] argv` says.
    pub argv: Option<Vec<String>>,
    /// Its effective user.
    pub uid: Option<u32>,
    /// The process that started it.
    pub parent: Option<ProcessName>,
    /// `ip:port`.
    pub local: Option<String>,
    /// `ip:port`.
    pub remote: Option<String>,
    /// Absolute path: of a file, FIFO or Unix socket.
    pub path: Option<String>,
    /// Lower-case hex.
    pub sha256: Option<String>,
    /// Bytes that passed.
    pub bytes: u64,
    /// Bytes of them that were tagged.
    pub witnessed: u64,
    /// Bytes offered to a write and never accepted.
    pub offered: u64,
    /// Further processes that used this end, in order of appearance.
    pub also: Vec<ProcessName>,
}

/// Byte counts at both ends; null where that end was not observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct Bytes {
    pub origin: Option<u64>,
    pub destination: Option<u64>,
}

/// State of one run of blocks, for the strip in reports. Not part of the JSON contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockState {
    /// Equal at both ends.
    Same,
    /// Different.
    Differs,
    /// Not witnessed at both ends.
    Unseen,
}

/// A run of blocks in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct BlockRun {
    pub state: BlockState,
    pub blocks: u64,
}

/// One connection and direction, judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// UUIDv7; the same in ledger, JSON and syslog.
    pub id: Uuid,
    /// The verdict.
    pub verdict: Verdict,
    /// Why it is not better than it is.
    #[serde(with = "words::reasons")]
    pub reasons: Vec<Reason>,
    /// What carried it.
    pub channel: Channel,
    /// 32 hex digits; both directions share it.
    pub flow: Option<String>,
    /// Against whom the verdict stands; null where nothing was compared.
    pub assurance: Option<Assurance>,
    /// What kind of content; null where not computed.
    pub class: Option<Class>,
    /// Bytes at both ends.
    pub bytes: Bytes,
    /// Whole blocks at origin offsets, neighbours merged.
    pub altered: Vec<Range>,
    /// Who wrote.
    pub origin: Option<Endpoint>,
    /// Who read.
    pub destination: Option<Endpoint>,
    /// Transfers that this one went over.
    pub legs: Vec<Uuid>,
    /// First byte.
    pub started: Timestamp,
    /// Last word.
    pub ended: Timestamp,
    /// The blocks, run by run, for the report's strip.
    pub strip: Vec<BlockRun>,
    /// Digest over all block tags that both ends agree on would be a file's business; for streams:
    /// one digest per end over its tags, hex, so that a report can show them. Null if not known.
    pub origin_digest: Option<String>,
    /// See `origin_digest`.
    pub destination_digest: Option<String>,
}

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "named for what they are")]
pub enum Severity {
    Info,
    Low,
    Medium,
    High,
    Critical,
}

/// Which of the analytics a rule belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "ANALYTICS names them")]
pub enum Analytic {
    An0703,
    An0989,
    An0332,
    Dc0109,
    /// About Counterfoil itself.
    #[serde(rename = "SELF")]
    Itself,
}

/// A process, as an alarm shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "INTERFACE names them")]
pub struct Process {
    pub pid: u32,
    pub started: Option<Timestamp>,
    pub exe: Option<String>,
    pub sha256: Option<String>,
    pub package: Option<String>,
    pub argv: Option<Vec<String>>,
    pub cwd: Option<String>,
    pub uid: Option<u32>,
    pub user: Option<String>,
    pub session: Option<u32>,
    pub unit: Option<String>,
    pub container: Option<String>,
    pub parents: Vec<ProcessName>,
}

/// A connection, as an alarm shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "INTERFACE names them")]
pub struct Connection {
    pub local: Option<String>,
    pub remote: Option<String>,
    /// `out` or `in`, as the alarm's process sees it.
    pub direction: Option<String>,
    pub server_name: Option<String>,
    pub bytes_out: Option<u64>,
    pub bytes_in: Option<u64>,
}

/// A file, as an alarm shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "INTERFACE names them")]
pub struct FileFact {
    pub path: Option<String>,
    pub label: Option<String>,
    pub sha256: Option<String>,
    pub class: Option<Class>,
}

/// What a rule saw. `detect` makes it, `alarms` keeps and counts it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "INTERFACE names them")]
pub struct Finding {
    pub analytic: Analytic,
    /// ANALYTICS' name of the rule.
    pub rule: String,
    pub technique: Option<String>,
    pub severity: Severity,
    pub confidence: Option<String>,
    pub title: String,
    pub message: String,
    pub process: Option<Process>,
    pub file: Option<FileFact>,
    pub connection: Option<Connection>,
    pub transfer: Option<Uuid>,
    pub verdict: Option<Verdict>,
    #[serde(with = "words::reasons")]
    pub reasons: Vec<Reason>,
    pub altered: Vec<Range>,
    pub why: serde_json::Value,
    pub point: Option<serde_json::Value>,
    pub evidence: serde_json::Value,
    /// What to check first.
    pub next: String,
    /// What repeats are counted by.
    pub key: String,
    pub seen: Timestamp,
    /// TLS or TCP flow, 32 hex digits, for the syslog line.
    pub flow: Option<String>,
}

/// ISA-18.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "ISA-18.2 names them")]
pub enum AlarmState {
    Unacknowledged,
    Acknowledged,
    Returned,
    Shelved,
    Suppressed,
    OutOfService,
    Normal,
}

/// A finding that is kept, counted, acknowledged and sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "INTERFACE names them")]
pub struct Alarm {
    pub id: Uuid,
    #[serde(flatten)]
    pub finding: Finding,
    pub state: AlarmState,
    pub count: u64,
    pub raised: Timestamp,
    pub last: Timestamp,
    /// How it came into its state. Null in what older versions wrote.
    #[serde(default)]
    pub changed: Option<Change>,
}

/// One step of an alarm from one state into another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// Null: it was raised.
    pub from: Option<AlarmState>,
    /// The state since then.
    pub to: AlarmState,
    /// Who asked for it, as the kernel says; null: nobody, it came of itself.
    pub uid: Option<u32>,
    /// That user's name, or what a process alarm's source calls who did it.
    pub user: Option<String>,
    /// What brought it about: `raised`, `occurred again`, `acknowledge` ….
    pub why: String,
    /// What the asker had to say.
    pub comment: Option<String>,
    /// When a shelved alarm comes back.
    pub until: Option<Timestamp>,
}

/// Whether a process was observed, and if not, why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "INTERFACE names them")]
pub struct Coverage {
    pub pid: u32,
    pub exe: Option<String>,
    pub observed: bool,
    pub reason: Option<String>,
}

/// Counts at the end of a `run`, or of a daemon's life.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "INTERFACE names them")]
pub struct Summary {
    pub transfers: std::collections::BTreeMap<String, u64>,
    pub alarms: std::collections::BTreeMap<String, u64>,
    pub records: u64,
    pub dropped: u64,
    pub processes_observed: u64,
    pub processes_not_observed: u64,
}

/// One JSON line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[expect(missing_docs, reason = "named for what they are")]
pub enum Event {
    Transfer(Box<Transfer>),
    Alarm(Box<Alarm>),
    Coverage(Coverage),
    Summary(Summary),
}
