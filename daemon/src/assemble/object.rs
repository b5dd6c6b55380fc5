//! An object: one socket, pipe or TLS session of this host, whoever uses it.
//!
//! Successive program images that inherit a socket are [`Use`]s of one object: its streams go on.

use super::datagrams::Datagrams;
use super::meter::Meter;
use super::pair::Pair;
use super::pending::{Budget, Value};
use super::program::ArenaId;
use super::slab::Key;
use super::ssh::Tunnel;
use crate::content::Content;
use crate::host::facts::{Access, Inode};
use crate::judge::{Finish, Unseen};
use crate::model::{self, Reason};
use counterfoil_abi::record::{self, Address, Channel, Ended, How, Tap};
use counterfoil_abi::{Tag, UNKNOWN};

/// A direction, as the object's user sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Sent, written.
    Out = 0,
    /// Received, read.
    In = 1,
}

/// What a tap of an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A stream of its own.
    Stream(Direction),
    /// The cipher's side of it.
    Cipher(Direction),
}

/// Where a tap's records belong; None: not to an object of this channel.
pub fn place(channel: Channel, tap: Tap) -> Option<Place> {
    use Direction::{In, Out};
    let tls = matches!(channel, Channel::Tls | Channel::GnuTls);
    let pipe = channel == Channel::Pipe;
    let ssh = channel == Channel::Ssh;
    Some(match tap {
        Tap::CipherSeal if ssh => Place::Stream(Out),
        Tap::CipherOpen if ssh => Place::Stream(In),
        _ if ssh => return None,
        Tap::TlsWrite if tls => Place::Stream(Out),
        Tap::TlsRead if tls => Place::Stream(In),
        Tap::CipherSeal if tls => Place::Cipher(Out),
        Tap::CipherOpen if tls => Place::Cipher(In),
        Tap::PipeWrite if pipe => Place::Stream(Out),
        Tap::PipeRead if pipe => Place::Stream(In),
        Tap::SockSend if !tls && !pipe => Place::Stream(Out),
        Tap::SockRecv if !tls && !pipe => Place::Stream(In),
        _ => return None,
    })
}

/// How well a claim to an object is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// It could not be looked at (closed again, or no permission).
    None,
    /// The process had that inode; where it led is its own word.
    Held,
    /// Inode and addresses are the kernel's word.
    Full,
}

/// One program's use of an object.
#[derive(Debug)]
pub struct Use {
    /// Whose.
    pub arena: ArenaId,
    /// Its number there.
    pub number: u32,
    /// Descriptor, -1 if none.
    pub fd: i32,
    /// `Opened` flags.
    pub flags: u8,
    /// How well it is proven.
    pub proof: Proof,
    /// When it said so, monotonic nanoseconds.
    pub since: u64,
    /// How the descriptor was opened, where known.
    pub access: Option<Access>,
    /// Where it took over, by direction.
    pub resumed: [u64; 2],
    /// How far its records reach, by direction.
    pub extent: [u64; 2],
    /// When that was last known to have grown, by direction.
    pub grew: [u64; 2],
    /// What a stream or body last began with, and when that was said.
    pub began: Option<(u32, Value, u64)>,
    /// Who first moved bytes, as its namespace counts pids; 0 unknown.
    pub by: [u32; 2],
    /// The greatest totals so far.
    pub ended: Option<Ended>,
    /// It said its last word, or its arena is gone.
    pub finish: Option<Finish>,
}

/// Nanoseconds in which a server that sends the same over and over says nothing new.
const MOMENT: u64 = 1_000_000_000;

impl Use {
    /// Did it move bytes?
    pub fn active(&self, direction: Direction) -> bool {
        let d = direction as usize;
        self.extent[d] > self.resumed[d]
    }

    /// Bytes that passed in a direction: its last word, or as far as its records reach.
    pub fn total(&self, direction: Direction) -> u64 {
        match (self.finish, &self.ended, direction) {
            // Tags may reach further: of bytes that were sealed and never accepted.
            (Some(Finish::Ended), Some(ended), Direction::Out) => ended.out_total,
            (Some(Finish::Ended), Some(ended), Direction::In) => ended.in_total,
            _ => self.extent[direction as usize],
        }
    }

    /// What the kernel counted until its last word, if it did, and the urgent bytes among that.
    pub fn counted(&self, direction: Direction) -> (Option<u64>, u64) {
        let (kernel, urgent) = match (&self.ended, direction) {
            (None, _) => return (None, 0),
            (Some(ended), Direction::Out) => (ended.kernel_out, ended.out_urgent),
            (Some(ended), Direction::In) => (ended.kernel_in, ended.in_urgent),
        };
        (known(kernel), u64::from(urgent))
    }

    /// The kernel counted what it moved and not a byte more: nothing passed before, or beside.
    pub fn moved_all(&self, direction: Direction) -> bool {
        let (kernel, urgent) = self.counted(direction);
        kernel == Some(self.total(direction) + urgent)
    }

    /// It came with the program, and what passed before is not known.
    pub fn attached_late(&self) -> bool {
        self.flags & record::ATTACHED_LATE != 0
            || self.flags & record::INHERITED != 0 && self.flags & record::RESUMED == 0
    }

    /// That it began with `length` bytes that have this tag, or a body of it did, was said a moment ago.
    pub fn has_begun(&self, length: u32, tag: Value, time: u64) -> bool {
        self.began.is_some_and(|(l, t, at)| (l, t) == (length, tag) && time.abs_diff(at) < MOMENT)
    }

    /// Notes that records reach `end` at a time, moved by `by`.
    #[inline]
    pub fn reach(&mut self, direction: Direction, end: u64, by: u32, time: u64) {
        let d = direction as usize;
        if end > self.extent[d] {
            self.extent[d] = end;
            self.grew[d] = self.grew[d].max(time);
            if self.by[d] == 0 {
                self.by[d] = by;
            }
        }
    }

    /// Takes in an `Ended`: the greatest totals count, in whatever order they are read.
    pub fn end(&mut self, ended: &Ended) {
        let kept = self.ended.get_or_insert(*ended);
        // Lanes are read one after the other: of two with the same totals the later one counts.
        let totals = |e: &Ended| (e.out_total, e.in_total);
        let older = ended.out_total < kept.out_total
            || ended.in_total < kept.in_total
            || totals(ended) == totals(kept) && ended.header.time < kept.header.time;
        let flags = kept.header.flags | ended.header.flags;
        if !older {
            *kept = *ended;
        }
        kept.header.flags = flags;
        match How::from_code(ended.how) {
            // Each is said by the last of its family that has it.
            Some(How::Closed | How::Freed | How::ClosedUnseen | How::Exited | How::Execed) => {
                self.finish = Some(Finish::Ended);
            }
            // Others go on with it.
            Some(How::Checkpoint) | None => {}
        }
    }

    /// It was told again at `time`: if that is after its last word, the exec has failed.
    pub fn goes_on(&mut self, time: u64) {
        if self.ended.is_some_and(|e| e.how == How::Execed as u8 && e.header.time <= time) {
            self.finish = None;
        }
    }

    /// Its arena is gone: what was not ended never will be.
    pub fn gone(&mut self) {
        self.finish = self.finish.or(Some(Finish::Killed));
    }

    /// A flag of its `Ended`.
    pub(super) fn flag(&self, bit: u8) -> bool {
        self.ended.is_some_and(|e| e.header.flags & bit != 0)
    }

    /// Whether it may have moved more than hooks saw, where no kernel counts.
    fn unseen(&self, direction: Direction) -> Unseen {
        match self.ended {
            _ if !self.may_move(direction) => Unseen::None,
            Some(_) if self.flag(record::THROUGH_STDIO) => Unseen::Stdio,
            None if !self.active(direction) => Unseen::Possible,
            _ => Unseen::None,
        }
    }

    /// It has to do with a direction: who has but one end of a pipe moves nothing the other way.
    pub(super) fn may_move(&self, direction: Direction) -> bool {
        self.access.is_none_or(|a| match direction {
            Direction::Out => a.writes,
            Direction::In => a.reads,
        })
    }
}

/// What `Flow` said.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// The exporter's id.
    pub flow: [u8; 16],
    /// This end connected.
    pub client: bool,
    /// Tag of the ClientHello's random.
    pub hello: Tag,
    /// Number of the socket that carries it, 0 unknown.
    pub carrier: u32,
    /// SNI.
    pub name: Option<String>,
    /// 0x0301 … 0x0304.
    pub version: u16,
    /// IANA cipher suite.
    pub cipher: u16,
}

impl TlsFacts {
    /// Every byte that this suite seals goes through the calls that the cipher witness watches. CBC
    /// suites have a path of their own for large writes.
    pub fn wholly_witnessed(&self) -> bool {
        // GCM of RFC 5288 and 5289, CCM of 6655 and 7251, ChaCha20 of 7905.
        let aead = matches!(self.cipher, 0x9c..=0xa7 | 0xc02b..=0xc032 | 0xc09c..=0xc0af | 0xcca8..=0xccae);
        self.version == 0x0304 || self.version == 0x0303 && aead
    }
}

/// One socket, pipe or TLS session.
#[derive(Debug)]
pub struct Object {
    /// What it is.
    pub channel: Channel,
    /// Its name on this host; None for TLS sessions.
    pub inode: Option<Inode>,
    /// The other end of a pair, 0 unknown.
    pub peer_inode: u64,
    /// Its addresses, v4-mapped ones as v4.
    pub local: Address,
    /// Likewise.
    pub remote: Address,
    /// It stands in the table of addresses.
    pub listed: bool,
    /// It came from accept.
    pub accepted: bool,
    /// It was connected here.
    pub connected: bool,
    /// The socket under a TLS session.
    pub carrier: Option<Key>,
    /// It is the socket under a TLS session that is seen.
    pub session: bool,
    /// It carries SSH, and its channels are seen.
    pub tunnels: bool,
    /// What was read of it, and when.
    pub meter: Meter,
    /// Where its datagrams went.
    pub datagrams: Option<Box<Datagrams>>,
    /// Path of a FIFO or Unix socket, as bytes.
    pub path: Vec<u8>,
    /// SO_PEERCRED's pid, 0 unknown.
    pub peer_pid: u32,
    /// Network namespace.
    pub net_namespace: Option<u64>,
    /// Who uses it, in order of appearance.
    pub uses: Vec<Use>,
    /// Bytes that were witnessed or counted, by direction.
    pub reached: [u64; 2],
    /// It carries messages.
    pub messages: Option<std::sync::Arc<crate::judged::Line>>,
    /// Of a pipe on which nobody was seen to move a byte: who stood at its ends.
    pub stood: Vec<(ArenaId, Direction)>,
    /// Of users who were forgotten: see [`Self::unseen`].
    pub unseen: [Unseen; 2],
    /// Its transfers, by direction.
    pub legs: [Option<Key>; 2],
    /// What kind of content passed, by direction.
    pub content: [Option<Content>; 2],
    /// The object at the other end.
    pub peer: Option<Key>,
    /// What was given to TLS against what the cipher had, by direction.
    pub cipher: [Option<Box<Pair>>; 2],
    /// The cipher witness can't follow this session.
    pub no_cipher_witness: bool,
    /// The cipher witness was said to have found something, by direction.
    pub cipher_said: [bool; 2],
    /// TLS sessions.
    pub tls: Option<Box<TlsFacts>>,
    /// Channels of SSH connections.
    pub tunnel: Option<Box<Tunnel>>,
    /// It carries TLS from these offsets on, by direction: a session's, or by its look that of somebody who isn't seen.
    pub carries_tls: Option<[u64; 2]>,
    /// Somebody claims it who does not hold it, or two claim it.
    pub disputed: bool,
    /// A program that is not observed was started with it.
    pub held_unseen: bool,
    /// It was laid beside its peer by their path alone, or by addresses of another network namespace (see [`super::paths`]): when the
    /// first other one was opened that may have been the peer; [`UNKNOWN`] none.
    pub rival: Option<u64>,
    /// First record, monotonic nanoseconds.
    pub opened: u64,
    /// Last record.
    pub last: u64,
    /// It is about to be looked at.
    pub settling: bool,
    /// When it is looked at again, 0 never.
    pub look_at: u64,
    /// All uses have ended, and every lane was read since.
    pub settled: bool,
    /// When that was, by the assembler's patience.
    pub settled_at: u64,
}

impl Object {
    /// A new one.
    pub fn new(channel: Channel, time: u64) -> Self {
        Self {
            channel,
            inode: None,
            peer_inode: 0,
            local: Address::default(),
            remote: Address::default(),
            listed: false,
            reached: [0; 2],
            messages: None,
            accepted: false,
            connected: false,
            carrier: None,
            session: false,
            tunnels: false,
            meter: Meter::default(),
            datagrams: None,
            path: Vec::new(),
            peer_pid: 0,
            net_namespace: None,
            uses: Vec::new(),
            stood: Vec::new(),
            unseen: [Unseen::None; 2],
            legs: [None; 2],
            content: [None; 2],
            peer: None,
            cipher: [None, None],
            no_cipher_witness: false,
            cipher_said: [false; 2],
            tls: None,
            tunnel: None,
            carries_tls: None,
            disputed: false,
            held_unseen: false,
            rival: None,
            opened: time,
            last: time,
            settling: false,
            look_at: 0,
            settled: false,
            settled_at: 0,
        }
    }

    /// From these offsets on what it carries is a session's that is seen, and no transfer of its own.
    #[inline]
    pub fn session_from(&self) -> Option<[u64; 2]> {
        self.carries_tls.filter(|_| self.session)
    }

    /// The program's use of it.
    #[inline]
    pub fn use_of(&mut self, arena: ArenaId, number: u32) -> Option<&mut Use> {
        self.uses.iter_mut().find(|u| u.arena == arena && u.number == number)
    }

    /// Its cipher is watched, too.
    #[inline]
    pub fn cipher_on(&self) -> bool {
        self.channel == Channel::Tls && !self.no_cipher_witness
    }

    /// Its cipher can't be watched.
    pub fn cipher_off(&mut self, budget: &mut Budget) {
        self.no_cipher_witness = true;
        for mut pair in std::mem::take(&mut self.cipher).into_iter().flatten() {
            pair.forget_waiting(budget);
        }
    }

    /// All uses have ended.
    pub fn ended(&self) -> bool {
        self.uses.iter().all(|u| u.finish.is_some())
    }

    /// Bytes that passed in a direction, as far as is known.
    pub fn total(&self, direction: Direction) -> u64 {
        self.uses.iter().map(|u| u.total(direction)).max().unwrap_or(0)
    }

    /// The best proof that any of its users gave.
    pub fn proof(&self) -> Proof {
        self.uses.iter().map(|u| u.proof).max().unwrap_or(Proof::None)
    }

    /// Nobody observed made it: all users got it from outside.
    pub fn from_outside(&self) -> bool {
        self.uses.iter().any(Use::attached_late) && self.uses.iter().all(|u| u.flags & record::INHERITED != 0)
    }

    /// How a direction came to its end: an ended user speaks for those that moved nothing.
    pub fn finish(&self, direction: Direction) -> Finish {
        let of = |u: &&Use| u.finish.unwrap_or(Finish::Open);
        let active = || self.uses.iter().filter(|u| u.active(direction));
        let mut considered: Vec<Finish> = active().map(|u| of(&u)).collect();
        if considered.is_empty() {
            considered = self.uses.iter().map(|u| of(&u)).collect();
            if considered.contains(&Finish::Ended) {
                return Finish::Ended;
            }
        }
        if considered.contains(&Finish::Open) {
            Finish::Open
        } else if considered.contains(&Finish::Killed) {
            Finish::Killed
        } else {
            Finish::Ended
        }
    }

    /// Whether more may have passed than hooks saw.
    pub fn unseen(&self, direction: Direction) -> Unseen {
        if !matches!(self.channel, Channel::Pipe | Channel::Unix) {
            return Unseen::None;
        }
        self.uses.iter().map(|u| u.unseen(direction)).fold(self.unseen[direction as usize], Unseen::max)
    }

    /// Forgets a user that is gone and moved nothing, where others stand for it: a shell's pipe is inherited by
    /// every program that it starts.
    pub fn forget_idle(&mut self, arena: ArenaId) -> Option<u32> {
        const FEW: usize = 16;
        let idle = |u: &Use| u.arena == arena && !u.active(Direction::Out) && !u.active(Direction::In);
        let at = self.uses.iter().position(idle).filter(|&at| at > 0 && self.uses.len() > FEW)?;
        let access = self.uses[at].access;
        let stands_for_it = |(i, u): (usize, &Use)| i != at && u.access == access;
        if !self.uses.iter().enumerate().any(stands_for_it) {
            return None;
        }
        let gone = self.uses.remove(at);
        for direction in [Direction::Out, Direction::In] {
            let unseen = &mut self.unseen[direction as usize];
            *unseen = gone.unseen(direction).max(*unseen);
        }
        Some(gone.number)
    }

    /// Where users overlapped: the older one went on after a newer one had taken over.
    pub fn overlap(&self, direction: Direction) -> Option<u64> {
        let d = direction as usize;
        let mut least: Option<u64> = None;
        for (i, newer) in self.uses.iter().enumerate().skip(1) {
            let older_went_on = self.uses[..i]
                .iter()
                .any(|older| older.arena != newer.arena && older.total(direction) > newer.resumed[d]);
            if newer.active(direction) && older_went_on {
                least = Some(least.map_or(newer.resumed[d], |l| l.min(newer.resumed[d])));
            }
        }
        least
    }

    /// The outward channel.
    pub fn model_channel(&self) -> model::Channel {
        match self.channel {
            Channel::Tcp | Channel::Ssh => model::Channel::Tcp,
            Channel::Datagram | Channel::UnixDatagram => model::Channel::Datagram,
            Channel::Unix => model::Channel::Unix,
            Channel::Pipe => model::Channel::Pipe,
            Channel::Tls | Channel::GnuTls => model::Channel::Tls,
            Channel::File => model::Channel::File,
        }
    }

    /// The tap of a direction.
    pub fn tap(&self, direction: Direction) -> Tap {
        match (self.channel, direction) {
            (Channel::Tls | Channel::GnuTls, Direction::Out) => Tap::TlsWrite,
            (Channel::Tls | Channel::GnuTls, Direction::In) => Tap::TlsRead,
            (Channel::Pipe, Direction::Out) => Tap::PipeWrite,
            (Channel::Pipe, Direction::In) => Tap::PipeRead,
            (Channel::File, Direction::Out) => Tap::FileWrite,
            (Channel::File, Direction::In) => Tap::FileRead,
            (Channel::Ssh, Direction::Out) => Tap::CipherSeal,
            (Channel::Ssh, Direction::In) => Tap::CipherOpen,
            (_, Direction::Out) => Tap::SockSend,
            (_, Direction::In) => Tap::SockRecv,
        }
    }
}

/// A number of the kernel's, if it is one.
pub fn known(count: u64) -> Option<u64> {
    (count != UNKNOWN).then_some(count)
}

/// The reason that stands for a claim that is not believed.
pub const DISPUTED: Reason = Reason::DisputedClaim;
