//! What `judge` says and `detect` hears: transfers that are final, and things that need saying at
//! once. One type, so that each side can be tested without the other.

use crate::model::{Channel, Class, Connection, Coverage, Process, ProcessName, Range, Tap, Transfer};
use counterfoil_abi::record::Packet;
use counterfoil_abi::record::Touch;
use jiff::Timestamp;
use std::sync::Arc;
use uuid::Uuid;

/// One word from `judge`.
#[derive(Clone, Debug)]
pub enum Judged {
    /// A transfer is final. `context` names the ends as an alarm wants them.
    Transfer {
        /// The transfer.
        transfer: Box<Transfer>,
        /// Its ends.
        context: Box<Context>,
    },
    /// Something that can't wait for a transfer's end, or belongs to none.
    Notice(Box<Notice>),
    /// A process is, or is not, observed.
    Coverage(Coverage),
    /// An observed process did something to a file, other than read it.
    Deed(Box<Deed>),
    /// A connection has moved something.
    Traffic(Box<Reading>),
    /// Running totals, for the summary.
    Counts(Counts),
    /// A packet of a connection that carries messages.
    Carried(Box<Carried>),
}

/// A connection that carries messages (MQTT), as one end has it.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Names it; never used twice.
    pub number: u64,
    /// This end is the broker.
    pub broker: bool,
    /// Whose end it is.
    pub process: Option<Process>,
    /// As this end sees it.
    pub connection: Connection,
    /// Flow id, 32 hex digits.
    pub flow: Option<String>,
    /// Network namespace, where known.
    pub namespace: Option<u64>,
}

/// One packet, or the end of its connection.
#[derive(Clone, Debug)]
pub struct Carried {
    /// Where.
    pub line: Arc<Line>,
    /// When.
    pub seen: Timestamp,
    /// The same, monotonic nanoseconds.
    pub at: u64,
    /// This end sent it; else it came here.
    pub sent: bool,
    /// What it is.
    pub said: Said,
    /// 0, 1 or 2.
    pub qos: u8,
    /// The broker had kept it, or shall.
    pub retained: bool,
    /// It may have been sent before.
    pub duplicate: bool,
    /// The how manieth message of its stream it is, from 1; those that are not told count.
    pub sequence: u32,
    /// MQTT's packet identifier.
    pub id: u16,
    /// MQTT 5's topic alias, 0 for none.
    pub alias: u16,
    /// Its topic, or a filter.
    pub text: String,
    /// A subscription's answers.
    pub codes: Vec<u8>,
    /// Of its payload, keyed.
    pub fingerprint: [u8; 16],
    /// Bytes of its payload.
    pub payload: u32,
    /// Where it begins in its stream.
    pub offset: u64,
    /// Bytes of the packet.
    pub length: u32,
}

/// What a [`Carried`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// A packet passed.
    Packet(Packet),
    /// The connection has ended.
    End,
}

impl Carried {
    /// The end of a connection.
    #[must_use]
    pub fn end(line: Arc<Line>, seen: Timestamp, at: u64) -> Self {
        Self {
            line,
            seen,
            at,
            sent: false,
            said: Said::End,
            qos: 0,
            retained: false,
            duplicate: false,
            sequence: 0,
            id: 0,
            alias: 0,
            text: String::new(),
            codes: vec![],
            fingerprint: [0; 16],
            payload: 0,
            offset: 0,
            length: 0,
        }
    }
}

/// What a connection that was made here has moved: from time to time while it is open, and when it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// When.
    pub seen: Timestamp,
    /// When the connection was made.
    pub opened: Timestamp,
    /// Who sends.
    pub process: Process,
    /// The connection as it sees it, with all bytes up to now.
    pub connection: Connection,
    /// `Tls` where what is inside of it is counted.
    pub channel: Channel,
    /// Flow id, 32 hex digits.
    pub flow: Option<String>,
    /// The transfer of what it sends.
    pub transfer: Option<Uuid>,
    /// What it sends; None: not known, or not yet.
    pub class: Option<Class>,
    /// Bits a byte of what it sends, where that was measured.
    pub entropy: Option<f32>,
    /// It begins as base64 or the like: what is inside of it is no text.
    pub encoded: bool,
    /// TLS or SSH is all that is seen of it.
    pub sealed: bool,
    /// Bytes sent since the last reading.
    pub sent: u64,
    /// Bytes received since then.
    pub received: u64,
    /// It is the connection's first.
    pub first: bool,
    /// It is the connection's last.
    pub ended: bool,
}

/// What an observed process did to a file. Comes as soon as it is known, at the latest when the file is closed.
#[derive(Clone, Debug, PartialEq)]
pub struct Deed {
    /// When.
    pub seen: Timestamp,
    /// Who.
    pub process: Process,
    /// The file's name, the new one where it got one; links resolved, invalid UTF-8 as `\xNN`.
    pub path: String,
    /// Device and inode, where known: a file that was written under another name is found by it.
    pub inode: Option<(u64, u64)>,
    /// What.
    pub kind: DeedKind,
}

/// What was done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeedKind {
    /// It was written to, made, or cut.
    Written,
    /// It has this name now; what had it before is gone.
    Renamed,
    /// It has its name no longer.
    Removed,
}

/// Who was at the ends of a connection.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The writer's process.
    pub origin: Option<Process>,
    /// The reader's process.
    pub destination: Option<Process>,
    /// The connection as the origin sees it, or as the destination does where only that was seen.
    pub connection: Option<Connection>,
    /// Where on its way a file was altered.
    pub place: Option<String>,
    /// A file arrived that has nothing of its origin but the name and length.
    pub replaced: bool,
}

/// Something that needs saying at once.
#[derive(Clone, Debug)]
pub struct Notice {
    /// When it was seen.
    pub seen: Timestamp,
    /// Who did it or suffered it.
    pub process: Option<Process>,
    /// Where.
    pub connection: Option<Connection>,
    /// Flow id, 32 hex digits.
    pub flow: Option<String>,
    /// The transfer it belongs to: its id is given early and stays.
    pub transfer: Option<Uuid>,
    /// What it is.
    pub what: What,
}

/// What a [`Notice`] says.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "notices are rare, and boxed")]
pub enum What {
    /// A block differs and the connection is still open. Said once per transfer; the final
    /// [`Judged::Transfer`] has the whole list.
    AlteredWhileOpen {
        /// What carries it.
        channel: Channel,
        /// What is known by now.
        altered: Vec<Range>,
        /// The other end's process.
        peer: Option<Process>,
    },
    /// What the program gave to TLS (or got) is not what the cipher sealed (or opened).
    CipherMismatch {
        /// `TlsWrite` or `TlsRead`.
        tap: Tap,
        /// Where, in that tap's stream.
        altered: Vec<Range>,
        /// Bytes at the end that the program gave to TLS and that were never encrypted; all before them were, as
        /// they are.
        lacking: u64,
    },
    /// What passed through ssh is not the same at two of its taps.
    SshMismatch {
        /// Which two.
        place: SshPlace,
        /// Where, in the channel's stream.
        altered: Vec<Range>,
        /// The process at the other end ([`SshPlace::BetweenCiphers`]).
        peer: Option<Process>,
    },
    /// TLS refused a record after its handshake, or SSH a packet after its login.
    RecordRejected {
        /// `TlsRead`, `TlsWrite`; `SockRecv`: SSH.
        tap: Tap,
        /// The library's reason code.
        code: u32,
        /// True: the peer's alert says that it refused one of ours.
        by_peer: bool,
        /// `bad-record-mac` ….
        text: String,
        /// Stream offset.
        offset: u64,
    },
    /// One content crossed two TLS sessions: somebody in between had it in the clear. The notice is about
    /// the first of them.
    TlsTerminated {
        /// The second connection, as its origin sees it, or its destination where only that was observed.
        onward: Option<Connection>,
        /// The second session's flow id.
        onward_flow: Option<String>,
        /// The transfer over it.
        onward_transfer: Uuid,
        /// Who stands in between, where observed.
        relay: Option<Process>,
        /// Who got the content.
        receiver: Option<Process>,
        /// How much.
        bytes: u64,
        /// What is not as it was.
        changed: Vec<Range>,
    },
    /// Another object answers for a hooked function.
    ForeignHook {
        /// The function.
        symbol: String,
        /// Path of the object that answers.
        object: String,
        /// It stands before our definition; else behind it.
        before: bool,
    },
    /// Something is wrong around the process.
    Anomaly(Anomaly),
    /// A sensitive file left.
    SensitiveEgress(std::sync::Arc<crate::sensitive::told::SensitiveEgress>),
    /// Something was done with a media file.
    Media(std::sync::Arc<crate::media::told::MediaChain>),
    /// A child of an observed process runs unobserved.
    CoverageLost {
        /// Its program.
        exe: String,
        /// `static`, `setuid`, `no-preload` ….
        reason: String,
        /// It holds a descriptor of a tracked stream.
        inherits_tracked: bool,
    },
    /// Records found no room.
    RecordsDropped {
        /// How many since the last such notice for this process.
        records: u64,
    },
    /// An arena holds what no library of ours writes.
    HostileArena {
        /// What was wrong.
        detail: String,
    },
    /// The daemon came back and went on with the arenas it found.
    DaemonRestarted {
        /// How many arenas it took up again.
        arenas: u64,
    },
}

/// What `surround` found around a process.
#[derive(Clone, Debug)]
pub enum Anomaly {
    /// Somebody traces it.
    Tracer {
        /// Who.
        tracer: Box<Process>,
        /// The tracer is among its parents, as in `strace CMD`.
        started_it: bool,
    },
    /// An observed process wrote into its memory or registers.
    MemoryWrite {
        /// Who.
        writer: Box<Process>,
        /// How.
        how: Touch,
        /// Where, if the call told.
        address: Option<u64>,
        /// Bytes of the first such call; 0 for registers.
        length: u64,
        /// The writer is among its parents.
        started_it: bool,
    },
    /// Code of a library in memory is not what the library's file says.
    CodePatched(Patch),
    /// It was started by a program that doesn't start it.
    UnexpectedParent {
        /// Which.
        parent: ProcessName,
        /// Programs that do.
        expected: Vec<String>,
        /// From the baseline; else built in.
        learnt: bool,
    },
    /// A known name with another program behind it.
    UnexpectedBinary {
        /// What is wrong with it.
        flaw: Flaw,
        /// It is a service's name, not a tool's.
        service: bool,
    },
    /// It connected to a transfer service that such programs don't connect to.
    UnexpectedClient {
        /// The service's program, or `port 22`.
        service: String,
    },
}

/// Code that is not the file's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The library's path, as the process sees it.
    pub object: String,
    /// The function that the first difference is in.
    pub symbol: Option<String>,
    /// The first differing byte, from the start of the library.
    pub offset: u64,
    /// How many bytes differ, up to the end of the first page that does.
    pub differing: u64,
    /// Pages that differ.
    pub pages: u64,
    /// The bytes there in the file.
    pub file: Vec<u8>,
    /// And in memory.
    pub memory: Vec<u8>,
}

/// What is wrong with an executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It lies in memory only.
    Memfd,
    /// It was removed when it started, and nothing stands in its place.
    Deleted,
    /// Everyone may change it.
    WritableByOthers,
    /// Everyone may put files into this folder on its way.
    OpenFolder(String),
    /// It belongs to this user, who is neither root nor the one who runs it.
    Owner(u32),
    /// Its digest was this one, and no package was upgraded since.
    Replaced {
        /// SHA-256, hex.
        was: String,
        /// No package owns it: an administrator may have installed it.
        unpackaged: bool,
    },
}

impl Flaw {
    /// The word in evidence.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Memfd => "memfd",
            Self::Deleted => "deleted",
            Self::WritableByOthers => "writable-by-others",
            Self::OpenFolder(_) => "open-folder",
            Self::Owner(_) => "owner",
            Self::Replaced { .. } => "replaced",
        }
    }
}

/// Where in an SSH connection two taps are laid side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshPlace {
    /// What one end was given, and what it enciphered.
    BeforeSealing,
    /// What one end enciphered, and what the other deciphered.
    BetweenCiphers,
    /// What one end deciphered, and what it handed on.
    AfterOpening,
}

/// Running totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records read from lanes.
    pub records: u64,
    /// Records that found no room.
    pub dropped: u64,
    /// Bytes of streams that were witnessed, at either end.
    pub bytes: u64,
    /// Streams' objects that are open now: sockets, pipes, TLS sessions.
    pub sessions: u64,
    /// How full the fullest lane was since the last totals, in percent.
    pub pressure: u32,
    /// How late the core was at most since the last totals, in milliseconds.
    pub lag: u64,
    /// When this was so: monotonic nanoseconds; 0 where nobody asks.
    pub at: u64,
}
