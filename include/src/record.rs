//! Records: what the shim tells the daemon, in whole 64-byte lines.
//!
//! Every record starts with a [`Header`]; `lines` says how many lines it spans. Offsets and
//! lengths are bytes of a stream. Times are CLOCK_MONOTONIC nanoseconds. Objects are numbered from
//! 1 within one arena and a number is never used again, so records of one object may be read in any
//! order: a block is keyed by its offset, and `Ended` says how many bytes there were.
//! The daemon checks every field: a record comes from a process that may lie.

use crate::Tag;
use bytemuck::{Pod, Zeroable};

/// One cache line of a lane.
pub type Line = [u64; 8];
/// Bytes in a [`Line`].
pub const LINE: usize = 64;
/// The most lines one record may span.
pub const MAX_LINES: usize = 5;

macro_rules! wire_enum {
    ($(#[$m:meta])* $name:ident { $($(#[$vm:meta])* $v:ident = $n:literal $s:literal),* $(,)? }) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$vm])* $v = $n),* }
        impl $name {
            /// The value that `code` stands for, or None for a code this version doesn't know.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($n => Some(Self::$v),)* _ => None }
            }
            /// The word used in documents and output.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$v => $s),* }
            }
        }
    };
}

mod class;
mod content;
mod datagrams;
mod file;
mod message;
mod words;
pub use class::*;
pub use content::*;
pub use datagrams::*;
pub use file::*;
pub use message::*;
pub use words::*;

/// [`Note::code`]: the other object stands before ours: what passes there is not witnessed.
pub const FOREIGN_BEFORE: u8 = 1;
/// [`Note::code`]: it stands behind ours, where the library's own should be.
pub const FOREIGN_BEHIND: u8 = 2;

/// First 16 bytes of every record.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    /// A [`Kind`].
    pub kind: u8,
    /// Lines that this record spans, 1 to [`MAX_LINES`].
    pub lines: u8,
    /// A [`Tap`], 0 where none applies.
    pub tap: u8,
    /// Bits that depend on the kind.
    pub flags: u8,
    /// The object's number in this arena, 0 where none applies.
    pub object: u32,
    /// CLOCK_MONOTONIC nanoseconds.
    pub time: u64,
}

/// A socket address. IPv4 stands in the first four bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Address {
    /// Address bytes, network order.
    pub ip: [u8; 16],
    /// Port, host order.
    pub port: u16,
    /// 0 unknown, 4 or 6.
    pub version: u8,
    /// Zero.
    pub pad: [u8; 5],
}

/// [`Opened::flags`]: the object existed before this program image.
pub const INHERITED: u8 = 1;
/// [`Opened::flags`]: it came from accept. An SSH channel: the peer asked for it.
pub const ACCEPTED: u8 = 2;
/// [`Opened::flags`]: it was connected here. An SSH channel: this end asked for it.
pub const CONNECTED: u8 = 4;
/// [`Opened::flags`]: one of a socketpair or pipe; `peer_inode` is the other.
pub const PAIRED: u8 = 8;
/// [`Opened::flags`]: bytes may have passed before; offsets count from an unknown place.
pub const ATTACHED_LATE: u8 = 16;
/// [`Opened::flags`]: offsets go on where the hello reply said.
pub const RESUMED: u8 = 32;

/// [`Kind::Opened`]. Four lines.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Opened {
    /// Common part; flags: [`INHERITED`] … [`RESUMED`].
    pub header: Header,
    /// A [`Channel`].
    pub channel: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// Descriptor number, -1 if none.
    pub fd: i32,
    /// st_dev. An SSH channel: number of the object that carries the connection, 0 unknown.
    pub device: u64,
    /// st_ino: names a socket or pipe on this host. An SSH channel: the how manieth it is, from 0, of
    /// those that were confirmed to this end ([`CONNECTED`]: it had asked) or by it ([`ACCEPTED`]). Both ends
    /// count the same.
    pub inode: u64,
    /// The other end of a pair, 0 if unknown. A pipe's ends share one inode. An SSH channel: its number at
    /// this end << 32 | its number at the other. A file: when it was seen to be empty, monotonic nanoseconds;
    /// 0: it wasn't.
    pub peer_inode: u64,
    /// SO_PEERCRED's pid for Unix sockets, as this process's namespace counts; 0 if unknown.
    pub peer_pid: u32,
    /// Bytes used in `name`.
    pub name_len: u32,
    /// Our address.
    pub local: Address,
    /// The peer's address.
    pub remote: Address,
    /// Path of a FIFO or Unix socket; an abstract one begins with NUL. An SSH channel: its kind, and
    /// what was asked of it (`session exec`).
    pub name: [u8; 152],
}

/// [`Blocks::flags`]: the one tag covers the first `length` bytes of its block, not the whole.
pub const PARTIAL: u8 = 1;
/// [`Blocks::flags`]: tags are 32 bytes (two units each): `stream_digest` is not the MAC.
pub const WIDE: u8 = 2;
/// [`Blocks::flags`], with [`PARTIAL`], of [`Tap::TlsWrite`] or [`Tap::TlsRead`]: the cipher witness of the same way has the same tags.
pub const WITNESSED: u8 = 4;

/// Tag units in the first line of a [`Blocks`] record; each further line holds four.
pub const FIRST_LINE_TAGS: usize = 2;
/// Tag units in the longest [`Blocks`] record.
pub const MAX_TAGS: usize = FIRST_LINE_TAGS + 4 * (MAX_LINES - 1);

/// [`Kind::Blocks`]. One to five lines: as many as the tags need.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Blocks {
    /// Common part; flags: [`PARTIAL`], [`WIDE`], [`WITNESSED`].
    pub header: Header,
    /// Where the first block begins: a multiple of [`crate::BLOCK`].
    pub offset: u64,
    /// Bytes covered: `count` whole blocks, or less than one with [`PARTIAL`].
    pub length: u32,
    /// Blocks, one tag each.
    pub count: u32,
    /// The tags.
    pub tags: [Tag; MAX_TAGS],
}

impl Blocks {
    /// Copies a record's lines over this one. What stands behind them stays, and belongs to nobody.
    /// False: a field is out of its bounds.
    #[inline]
    fn read(&mut self, lines: &[Line]) -> bool {
        let bytes: &[u8] = bytemuck::cast_slice(lines);
        let Some(place) = bytemuck::bytes_of_mut(self).get_mut(..bytes.len()) else { return false };
        // One line is what most are: a length that is known is copied without a call.
        match (<&mut [u8; LINE]>::try_from(&mut *place), <&[u8; LINE]>::try_from(bytes)) {
            (Ok(place), Ok(line)) => *place = *line,
            _ => place.copy_from_slice(bytes),
        }
        let Header { lines: says, flags, tap, .. } = self.header;
        let units = (self.count as usize).saturating_mul(if flags & WIDE != 0 { 2 } else { 1 });
        let block = crate::BLOCK as u32;
        let fits = if flags & PARTIAL != 0 {
            self.count == 1 && self.length < block && self.length > 0
        } else {
            self.count >= 1 && units <= MAX_TAGS && self.length == self.count * block
        };
        let spoken_for = flags & WITNESSED == 0 || flags & PARTIAL != 0;
        let placed = spoken_for
            && self.offset.is_multiple_of(crate::BLOCK)
            && self.offset < UNPLAUSIBLE
            && Tap::from_code(tap).is_some();
        fits && placed && usize::from(says) == lines.len() && lines_for_tags(units) == lines.len()
    }
}

/// [`Kind::Gap`]. One line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Gap {
    /// Common part.
    pub header: Header,
    /// Where it begins.
    pub offset: u64,
    /// Bytes, or [`crate::UNKNOWN`]: then offsets after it may be shifted, and a difference after
    /// it proves nothing (equality still does).
    pub length: u64,
    /// A [`Reason`].
    pub reason: u8,
    /// Zero.
    pub pad: [u8; 31],
}

/// [`Flow::flags`]: this end connected (client).
pub const CLIENT: u8 = 1;
/// [`Flow::flags`]: an earlier session was resumed.
pub const SESSION_RESUMED: u8 = 2;
/// [`Flow::flags`]: the cipher witness can't follow this cipher.
pub const NO_CIPHER_WITNESS: u8 = 4;

/// [`Kind::Flow`]. Two lines.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Flow {
    /// Common part; flags: [`CLIENT`] ….
    pub header: Header,
    /// From the TLS exporter: equal at both ends and nowhere else.
    pub flow: [u8; 16],
    /// Keyed tag of the ClientHello's random: names the socket that carries it ([`Carrier`]).
    pub hello: Tag,
    /// The socket object that carries it, 0 if unknown (memory BIOs).
    pub carrier: u32,
    /// 0x0301 … 0x0304.
    pub version: u16,
    /// IANA cipher suite, 0 if unknown.
    pub cipher: u16,
    /// Bytes used in `name`.
    pub name_len: u32,
    /// Server name (SNI).
    pub name: [u8; 68],
}

/// [`Kind::Carrier`]. One line. The header's object is the socket.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Carrier {
    /// Common part.
    pub header: Header,
    /// Sent bytes before TLS began.
    pub out_offset: u64,
    /// Received bytes before TLS began.
    pub in_offset: u64,
    /// Keyed tag of the ClientHello's random, zero if not seen.
    pub hello: Tag,
    /// The TLS object, 0 if only the bytes' look says so.
    pub tls: u32,
    /// Zero.
    pub pad: [u8; 12],
}

/// [`Ended::flags`]: the input's end was reached (read returned 0).
pub const IN_EOF: u8 = 1;
/// [`Ended::flags`]: the output was shut down in order.
pub const OUT_SHUT: u8 = 2;
/// [`Ended::flags`]: the peer's close_notify came.
pub const NOTIFY_SEEN: u8 = 4;
/// [`Ended::flags`]: our close_notify went.
pub const NOTIFY_SENT: u8 = 8;
/// [`Ended::flags`]: a call failed with a connection error (`errno`).
pub const FAILED: u8 = 16;
/// [`Ended::flags`]: a process that had it has called exec, and the new image has it, too; or has sent it to another process.
pub const HANDED_ON: u8 = 32;
/// [`Ended::flags`]: and that image is not observed, as far as can be told before it begins.
pub const HANDED_UNSEEN: u8 = 64;
/// [`Ended::flags`]: stdin, stdout or another FILE stood on it and was used; what passed so no hook saw.
pub const THROUGH_STDIO: u8 = 128;

/// [`Kind::Ended`]. Two lines. The last partial tags come in [`Blocks`] of their own.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Ended {
    /// Common part; flags: [`IN_EOF`] ….
    pub header: Header,
    /// A [`How`].
    pub how: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// errno of the call that ended it, 0 if none.
    pub errno: i32,
    /// Bytes sent or written, gaps of known length included.
    pub out_total: u64,
    /// Bytes received or read.
    pub in_total: u64,
    /// Bytes offered beyond `out_total` and never accepted.
    pub out_offered: u64,
    /// The kernel's count of bytes that the program sent, or UNKNOWN.
    pub kernel_out: u64,
    /// The kernel's count of bytes that the program received, or UNKNOWN.
    pub kernel_in: u64,
    /// Bytes that entered the cipher (TLS objects).
    pub seal_total: u64,
    /// Bytes that left the cipher (TLS objects).
    pub open_total: u64,
    /// Urgent bytes sent, not counted in `out_total`.
    pub out_urgent: u32,
    /// Urgent bytes received.
    pub in_urgent: u32,
    /// Zero.
    pub pad2: [u8; 40],
}

/// [`Kind::Rejected`]. One line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Rejected {
    /// Common part; the tap says in which direction. The object is the TLS session; for SSH it is the
    /// socket, and the tap `sock-recv`.
    pub header: Header,
    /// The TLS library's reason code; SSH: 0 or a number that only `text` explains.
    pub code: u32,
    /// 1: we refused a record; 2: the peer's alert says that it refused one of ours.
    pub side: u32,
    /// The stream's offset then.
    pub offset: u64,
    /// What the code means, NUL padded: `bad-record-mac`, `decode-error` ….
    pub text: [u8; 32],
}

/// [`Kind::Forked`]. One line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Forked {
    /// Common part.
    pub header: Header,
    /// The new process's pid, as its own namespace counts it.
    pub pid: u32,
    /// The pid of the process it came from, likewise.
    pub parent: u32,
    /// Zero.
    pub pad: [u8; 40],
}

/// [`Note::text`] of [`About::MemoryWrite`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Written {
    /// Where the first byte went; [`crate::UNKNOWN`] where the call does not tell.
    pub address: u64,
    /// Bytes; 0 for registers.
    pub length: u64,
}

/// Bytes of a build id that are compared.
pub const BUILD_ID: usize = 24;
/// Bytes of a function that are compared.
pub const FIRST_CODE: usize = 32;

/// Begins [`Note::text`] of [`About::Code`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Code {
    /// Where the function begins, from the start of its library.
    pub offset: u64,
    /// The library's build id; behind it zero.
    pub build_id: [u8; BUILD_ID],
    /// The function's first bytes.
    pub first: [u8; FIRST_CODE],
}

/// [`Kind::Note`]. Four lines.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Note {
    /// Common part.
    pub header: Header,
    /// An [`About`].
    pub about: u8,
    /// Depends on `about`.
    pub code: u8,
    /// Bytes used in `text`.
    pub text_len: u16,
    /// Depends on `about`; a pid where one is known.
    pub number: u32,
    /// Bytes, not necessarily UTF-8.
    pub text: [u8; 232],
}

const _: () = {
    assert!(size_of::<Opened>() == 4 * LINE);
    assert!(size_of::<Blocks>() == MAX_LINES * LINE);
    assert!(size_of::<Gap>() == LINE);
    assert!(size_of::<Flow>() == 2 * LINE);
    assert!(size_of::<Carrier>() == LINE);
    assert!(size_of::<Ended>() == 2 * LINE);
    assert!(size_of::<Rejected>() == LINE);
    assert!(size_of::<Forked>() == LINE);
    assert!(size_of::<Note>() == 4 * LINE);
};

/// A record of any kind, decoded.
#[derive(Clone, Copy, Debug)]
pub enum Record {
    /// See [`Opened`].
    Opened(Opened),
    /// See [`Blocks`].
    Blocks(Blocks),
    /// See [`Gap`].
    Gap(Gap),
    /// See [`Flow`].
    Flow(Flow),
    /// See [`Carrier`].
    Carrier(Carrier),
    /// See [`Ended`].
    Ended(Ended),
    /// See [`Rejected`].
    Rejected(Rejected),
    /// See [`Forked`].
    Forked(Forked),
    /// See [`Note`].
    Note(Note),
    /// See [`Named`].
    Named(Named),
    /// See [`File`].
    File(File),
    /// See [`Prints`].
    Prints(Prints),
    /// See [`Message`].
    Message(Message),
    /// See [`Body`].
    Body(Body),
    /// See [`Datagrams`].
    Datagrams(Datagrams),
    /// See [`Classed`].
    Classed(Classed),
    /// See [`Again`].
    Again(Again),
}

/// Lines that a [`Blocks`] record of `units` tag units spans.
pub const fn lines_for_tags(units: usize) -> usize {
    if units <= FIRST_LINE_TAGS { 1 } else { 1 + (units - FIRST_LINE_TAGS).div_ceil(4) }
}

impl Record {
    /// Decodes into this place, where mostly the last record of the same kind stands: of a record that
    /// can be five lines long only those are copied that it has. False: as [`Self::decode`]'s None.
    #[inline]
    pub fn decode_into(&mut self, lines: &[Line]) -> bool {
        if let Self::Blocks(blocks) = self
            && let Some(first) = lines.first()
            && Kind::from_code(first[0].to_ne_bytes()[0]) == Some(Kind::Blocks)
        {
            return blocks.read(lines);
        }
        Self::decode(lines).map(|record| *self = record).is_some()
    }

    /// Decodes the record that begins at `lines[0]`; `lines` holds just its lines.
    /// None: an unknown kind, a wrong number of lines, or a field out of its bounds.
    pub fn decode(lines: &[Line]) -> Option<Self> {
        fn whole<T: Pod>(lines: &[Line]) -> Option<T> {
            let bytes: &[u8] = bytemuck::cast_slice(lines);
            (bytes.len() == size_of::<T>()).then(|| bytemuck::pod_read_unaligned(bytes))
        }
        let first: &[u8] = bytemuck::cast_slice(lines.get(..1)?);
        let header: Header = bytemuck::pod_read_unaligned(&first[..16]);
        if usize::from(header.lines) != lines.len() {
            return None;
        }
        Some(match Kind::from_code(header.kind)? {
            Kind::Opened => {
                let r: Opened = whole(lines)?;
                Channel::from_code(r.channel)?;
                (r.name_len as usize <= r.name.len()).then_some(Self::Opened(r))?
            }
            Kind::Blocks => {
                let mut r = Blocks::zeroed();
                r.read(lines).then_some(Self::Blocks(r))?
            }
            Kind::Gap => {
                let r: Gap = whole(lines)?;
                Reason::from_code(r.reason)?;
                Tap::from_code(header.tap)?;
                (r.offset < UNPLAUSIBLE && (r.length == crate::UNKNOWN || r.length < UNPLAUSIBLE))
                    .then_some(Self::Gap(r))?
            }
            Kind::Flow => {
                let r: Flow = whole(lines)?;
                (r.name_len as usize <= r.name.len()).then_some(Self::Flow(r))?
            }
            Kind::Carrier => {
                let r: Carrier = whole(lines)?;
                (r.out_offset < UNPLAUSIBLE && r.in_offset < UNPLAUSIBLE).then_some(Self::Carrier(r))?
            }
            Kind::Ended => {
                let r: Ended = whole(lines)?;
                How::from_code(r.how)?;
                let counts = [r.out_total, r.in_total, r.out_offered, r.seal_total, r.open_total];
                counts.iter().all(|&n| n < UNPLAUSIBLE).then_some(Self::Ended(r))?
            }
            Kind::Rejected => Self::Rejected(whole(lines)?),
            Kind::Forked => Self::Forked(whole(lines)?),
            Kind::Named => {
                let r: Named = whole(lines)?;
                r.fits().then_some(Self::Named(r))?
            }
            Kind::File => Self::File(whole(lines)?),
            Kind::Prints => {
                let mut all = [[0u64; 8]; MAX_LINES];
                all.get_mut(..lines.len())?.copy_from_slice(lines);
                let r: Prints = bytemuck::cast(all);
                Tap::from_code(header.tap)?;
                r.fits(lines.len()).then_some(Self::Prints(r))?
            }
            Kind::Message => {
                let mut all = [[0u64; 8]; 4];
                all.get_mut(..lines.len())?.copy_from_slice(lines);
                let r: Message = bytemuck::cast(all);
                Tap::from_code(header.tap)?;
                r.fits(lines.len()).then_some(Self::Message(r))?
            }
            Kind::Body => {
                let r: Body = whole(lines)?;
                Tap::from_code(header.tap)?;
                r.fits().then_some(Self::Body(r))?
            }
            Kind::Datagrams => {
                let r: Datagrams = whole(lines)?;
                let counts = [r.sent, r.bytes, r.received];
                counts.iter().all(|&n| n < UNPLAUSIBLE).then_some(Self::Datagrams(r))?
            }
            Kind::Class => {
                let r: Classed = whole(lines)?;
                r.fits().then_some(Self::Classed(r))?
            }
            Kind::Again => Self::Again(whole(lines)?),
            Kind::Note => {
                let r: Note = whole(lines)?;
                About::from_code(r.about)?;
                (r.text_len as usize <= r.text.len()).then_some(Self::Note(r))?
            }
        })
    }

    /// The part that all records share.
    pub fn header(&self) -> &Header {
        match self {
            Self::Opened(r) => &r.header,
            Self::Blocks(r) => &r.header,
            Self::Gap(r) => &r.header,
            Self::Flow(r) => &r.header,
            Self::Carrier(r) => &r.header,
            Self::Ended(r) => &r.header,
            Self::Rejected(r) => &r.header,
            Self::Forked(r) => &r.header,
            Self::Note(r) => &r.header,
            Self::Named(r) => &r.header,
            Self::File(r) => &r.header,
            Self::Prints(r) => &r.header,
            Self::Message(r) => &r.header,
            Self::Body(r) => &r.header,
            Self::Datagrams(r) => &r.header,
            Self::Classed(r) => &r.header,
            Self::Again(r) => &r.header,
        }
    }
}

/// No stream is this long (4 EiB): larger numbers are lies, and sums below it can't overflow.
pub const UNPLAUSIBLE: u64 = 1 << 62;
