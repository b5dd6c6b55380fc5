//! The words of the records: kinds, taps, channels, reasons. Each is one byte on the wire, and a word in
//! documents and output.

#[expect(unused_imports, reason = "named in the texts")]
use super::*;

wire_enum! {
/// What a record says.
Kind {
    /// [`Opened`]: an object exists, or more is known of it. The latest one counts.
    Opened = 1 "opened",
    /// [`Blocks`]: tags of one or more blocks.
    Blocks = 2 "blocks",
    /// [`Gap`]: a span that was not witnessed.
    Gap = 3 "gap",
    /// [`Flow`]: a TLS object's flow id.
    Flow = 4 "flow",
    /// [`Carrier`]: a socket carries TLS from these offsets on.
    Carrier = 5 "carrier",
    /// [`Ended`]: totals of an object that is closed, or a checkpoint of one that isn't.
    Ended = 6 "ended",
    /// [`Rejected`]: TLS refused a record after its handshake, or SSH a packet.
    Rejected = 7 "rejected",
    /// [`Forked`]: a new process writes into this arena from now on.
    Forked = 8 "forked",
    /// [`Note`]: anything else that has a text.
    Note = 9 "note",
    /// [`Named`]: a file's name.
    Named = 10 "named",
    /// [`File`]: a file before and after.
    File = 11 "file",
    /// [`Prints`]: fingerprints of content.
    Prints = 12 "prints",
    /// [`Message`]: a packet of a stream that carries messages.
    Message = 14 "message",
    /// [`Body`]: what an HTTP message carries.
    Body = 15 "body",
    /// [`Classed`]: what kind of content passes.
    Class = 13 "class",
    /// [`Datagrams`]: where datagrams go, and how much.
    Datagrams = 16 "datagrams",
    /// [`Again`]: a file was read again.
    Again = 17 "again",
}
}

wire_enum! {
/// A point where bytes pass.
Tap {
    /// File read.
    FileRead = 1 "file-read",
    /// File written.
    FileWrite = 2 "file-write",
    /// Pipe or FIFO read.
    PipeRead = 3 "pipe-read",
    /// Pipe or FIFO written.
    PipeWrite = 4 "pipe-write",
    /// Socket received.
    SockRecv = 5 "sock-recv",
    /// Socket sent.
    SockSend = 6 "sock-send",
    /// Plaintext handed out by TLS.
    TlsRead = 7 "tls-read",
    /// Plaintext given to TLS.
    TlsWrite = 8 "tls-write",
    /// Plaintext as it left the cipher inside TLS.
    CipherOpen = 9 "cipher-open",
    /// Plaintext as it entered the cipher inside TLS.
    CipherSeal = 10 "cipher-seal",
}
}

wire_enum! {
/// What an object is.
Channel {
    /// TCP over IPv4 or IPv6.
    Tcp = 1 "tcp",
    /// UDP and other datagrams over IP.
    Datagram = 2 "datagram",
    /// Unix stream or seqpacket socket.
    Unix = 3 "unix",
    /// Unix datagram socket.
    UnixDatagram = 4 "unix-datagram",
    /// Anonymous pipe, or FIFO (it has a name then).
    Pipe = 5 "pipe",
    /// OpenSSL's `SSL*`.
    Tls = 6 "tls",
    /// GnuTLS session.
    GnuTls = 7 "gnutls",
    /// Regular file.
    File = 8 "file",
    /// What ssh carries in one of its channels, as it passes its cipher. What this end sends is
    /// `cipher-seal` and the totals' `out`, what it gets is `cipher-open` and `in`; the channel's data
    /// only, not its extended data (standard error).
    Ssh = 9 "ssh",
}
}

wire_enum! {
/// Why a verdict can't be had, or why a span was not witnessed (INTERFACE.md, `reasons`).
Reason {
    /// The other end runs without the library.
    PeerNotObserved = 1 "peer-not-observed",
    /// A lane was full, or no lane or object slot was free.
    RecordsDropped = 2 "records-dropped",
    /// Two threads or processes used one direction at once.
    SharedDescriptor = 3 "shared-descriptor",
    /// The kernel moved bytes that no hook saw.
    BypassedBytes = 4 "bypassed-bytes",
    /// sendfile, splice, tee, copy_file_range.
    KernelCopy = 5 "kernel-copy",
    /// The cipher witness does not know this cipher's framing.
    UnsupportedCipher = 6 "unsupported-cipher",
    /// Compressed, encrypted or converted on the way.
    Transformed = 7 "transformed",
    /// Not ended when observation ended.
    StillOpen = 8 "still-open",
    /// The receiver closed before it had read everything.
    AbandonedByReceiver = 9 "abandoned-by-receiver",
    /// The object was in use before it was watched.
    AttachedLate = 10 "attached-late",
    /// The rest of a block that another program image began.
    HandedOver = 11 "handed-over",
    /// The process died without a last word.
    ProcessKilled = 12 "process-killed",
    /// Another object answers for a hooked function.
    ForeignHook = 13 "foreign-hook",
    /// A process claims a connection that it doesn't hold.
    DisputedClaim = 14 "disputed-claim",
    /// Somebody else wrote to the file.
    OtherWriter = 15 "other-writer",
    /// Too little content to join by content.
    TooSmallToJoin = 16 "too-small-to-join",
    /// Datagrams have no stream to compare.
    Datagram = 17 "datagram",
    /// The daemon was restarted while the transfer was open.
    DaemonRestarted = 18 "daemon-restarted",
}
}

wire_enum! {
/// How an object came to its end.
How {
    /// close(2) of the last descriptor.
    Closed = 1 "closed",
    /// `SSL_free`, `SSL_clear`, `gnutls_deinit`.
    Freed = 2 "freed",
    /// The process exits with the object open.
    Exited = 3 "exited",
    /// The process calls exec with the object open.
    Execed = 4 "execed",
    /// Not ended: totals so far.
    Checkpoint = 5 "checkpoint",
    /// The descriptor was closed where no hook sees it.
    ClosedUnseen = 6 "closed-unseen",
}
}

wire_enum! {
/// What a [`Note`] is about.
About {
    /// A child of this process runs unobserved: `text` is its path, `code` a [`Lost`].
    CoverageLost = 1 "coverage-lost",
    /// Another object answers for a hooked function: `text` is "symbol object", `code`
    /// [`FOREIGN_BEFORE`] or [`FOREIGN_BEHIND`].
    ForeignHook = 2 "foreign-hook",
    /// The process is about to exec `text`.
    Exec = 3 "exec",
    /// It wrote into another process: `number` is that one's pid as its own namespace counts, `code`
    /// a [`Touch`], `text` a [`Written`].
    MemoryWrite = 4 "memory-write",
    /// Libraries for pictures that it has loaded: `number` has a bit for each of [`crate::images::LIBRARIES`].
    ImageLibraries = 5 "image-libraries",
    /// What a function of a TLS library begins with when the process first comes to it: `text` is a [`Code`] and the
    /// library's path, `code` the length of its build id.
    Code = 6 "code",
}
}

wire_enum! {
/// How a process wrote into another one's memory or registers.
Touch {
    /// `process_vm_writev`.
    ProcessVm = 1 "process-vm-writev",
    /// write or pwrite to `/proc/PID/mem`.
    Mem = 2 "proc-mem",
    /// `ptrace`, a POKE or SET request.
    Ptrace = 3 "ptrace",
}
}

wire_enum! {
/// Why a child runs unobserved.
Lost {
    /// Statically linked: no dynamic loader reads LD_PRELOAD.
    Static = 1 "static",
    /// setuid, setgid or file capabilities.
    Setuid = 2 "setuid",
    /// Another class or another libc than ours.
    OtherAbi = 3 "other-abi",
    /// The target can't see the library (chroot, mount namespace, permissions).
    NotReachable = 4 "no-preload",
    /// It could not be looked at.
    Unreadable = 5 "unreadable",
}
}
