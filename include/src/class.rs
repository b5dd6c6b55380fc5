//! What kind of content passes: text, a table, an archive, a picture, ciphertext.
//!
//! Comes in: a stream's bytes from its start, in whatever pieces they come. Goes out: a [`Found`]. The shim
//! calls it for streams, the daemon for files at rest, and `make classes` for a corpus: one code for all three.
//! Nothing here allocates, blocks or calls the system; a [`Look`] is plain numbers, valid at any bytes' value,
//! because it lies in memory that processes share.
//!
//! In this order: what the beginning says it is ([`magic`]), whether it reads as text ([`shape`]), and how evenly
//! its bytes are spread ([`numbers`]). Heads that are not content (HTTP) are passed over first ([`http`]).

mod http;
mod magic;
mod numbers;
mod shape;
pub mod size;

use crate::record::{Class, Magic};
use bytemuck::{Pod, Zeroable};
pub use magic::of as magic_of;
use numbers::{Counts, Numbers};

/// Bytes of content that are looked at.
pub const LOOK: usize = 64 * 1024;
/// What is found is worth saying when so many were.
pub const EARLY: usize = 4 * 1024;
/// Bytes of the content's beginning that are kept, for magic and syntax.
pub const HEAD: usize = 1024;

/// What was seen so far. All zero: nothing.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Look {
    /// Bytes of content.
    looked: u32,
    /// Bytes that are no content.
    passed: u32,
    /// Bytes of content in `counts`.
    counted: u32,
    /// Of an HTTP/2 frame: bytes to come.
    left: u32,
    kept: u16,
    /// See [`http::Stage`].
    stage: u8,
    /// See [`http`].
    wrap: u8,
    /// What [`Numbers`] said of the first [`EARLY`] bytes, if these are not in `counts` any more.
    early: u8,
    newlines: u8,
    pad: [u8; 2],
    frame: [u8; 16],
    head: [u8; HEAD],
    counts: Counts,
}

/// What content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The class.
    pub class: Class,
    /// What its beginning says.
    pub magic: Option<Magic>,
    /// Thousandths of a bit per byte.
    pub entropy: u16,
    /// χ² of bytes against evenly spread ones, 255 degrees of freedom.
    pub chi_squared: u32,
    /// Bytes of content that were looked at.
    pub looked: u32,
    /// Bytes before it that are none.
    pub passed: u32,
    /// These were HTTP's.
    pub http: bool,
    /// A picture's width and height, where its beginning says so.
    pub size: Option<(u32, u32)>,
}

/// A milestone that a piece has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// [`EARLY`] bytes.
    Early,
    /// [`LOOK`] bytes: no more are looked at.
    All,
}

/// Kinds that [`Numbers`] tell apart, as they are kept in [`Look`].
const TEXT: u8 = 1;
const SPREAD: u8 = 2;
const DENSE: u8 = 3;
const OTHER: u8 = 4;

impl Look {
    /// As new. Counts are emptied when the first byte comes.
    #[inline]
    pub fn clear(&mut self) {
        (self.looked, self.passed, self.counted, self.left) = (0, 0, 0, 0);
        (self.kept, self.stage, self.wrap, self.early, self.newlines) = (0, 0, 0, 0, 0);
    }

    /// Nothing more is looked at.
    #[inline]
    pub fn done(&self) -> bool {
        self.stage == http::DONE
    }

    /// A byte was seen.
    #[inline]
    pub fn begun(&self) -> bool {
        self.looked | self.passed | u32::from(self.kept) != 0
    }

    /// The next bytes. Says when there is something to say.
    #[inline]
    pub fn add(&mut self, piece: &[u8]) -> Option<Reached> {
        if self.done() || piece.is_empty() { None } else { self.look(piece) }
    }

    fn look(&mut self, mut piece: &[u8]) -> Option<Reached> {
        let before = self.looked as usize;
        while !piece.is_empty() && !self.done() {
            let taken = self.pass(piece).min(piece.len());
            piece = &piece[taken..];
        }
        let now = self.looked as usize;
        match () {
            () if now >= LOOK && before < LOOK => Some(Reached::All),
            () if now >= EARLY && before < EARLY => Some(Reached::Early),
            () => None,
        }
    }

    /// Content. Says how much of it was looked at.
    fn content(&mut self, piece: &[u8]) -> usize {
        let looked = self.looked as usize;
        if looked == 0 {
            self.counts.clear();
            self.kept = 0;
        }
        let kept = usize::from(self.kept).min(HEAD);
        let more = piece.len().min(HEAD - kept);
        self.head[kept..kept + more].copy_from_slice(&piece[..more]);
        self.kept = (kept + more) as u16;
        // The two parts are counted apart, where the first one may be another's head.
        let upto = if looked < EARLY { EARLY } else { LOOK };
        let taken = piece.len().min(upto.saturating_sub(looked));
        self.counts.add(looked, &piece[..taken]);
        self.looked += taken as u32;
        self.counted += taken as u32;
        if self.looked as usize == EARLY {
            let kind = self.numbers().kind();
            if matches!(kind, TEXT | OTHER) {
                self.early = kind;
                self.counted = 0;
                self.counts.clear();
            }
        } else if self.looked as usize >= LOOK {
            self.stage = http::DONE;
        }
        taken
    }

    fn numbers(&self) -> Numbers {
        self.counts.numbers(self.counted)
    }

    /// What it is, as far as can be said.
    #[inline(never)]
    pub fn found(&mut self) -> Found {
        // What waits to be recognised as a head is content, if nothing more comes.
        if self.stage == http::BEGIN && self.kept > 0 {
            self.settle();
        }
        let (numbers, looked) = (self.numbers(), self.looked);
        let head = if looked > 0 { &self.head[..usize::from(self.kept).min(HEAD)] } else { &[] };
        let (class, magic) = self.decide(head, &numbers, looked);
        Found {
            class,
            magic,
            entropy: numbers.entropy,
            chi_squared: numbers.chi_squared,
            looked,
            passed: self.passed,
            http: self.wrap != 0,
            size: magic.and_then(|magic| size::of(magic, head)),
        }
    }

    fn decide(&self, head: &[u8], numbers: &Numbers, looked: u32) -> (Class, Option<Magic>) {
        if looked == 0 {
            return (if self.passed == 0 { Class::Empty } else { Class::Text }, None);
        }
        if let Some(magic) = magic::of(head) {
            return (magic.class(), Some(magic));
        }
        if self.wrap & http::ENCODED != 0 {
            return (Class::Compressed, Some(Magic::Encoded));
        }
        let kind = match self.early {
            0 => numbers.kind(),
            // Too little came after it to say more.
            early if numbers.bytes < numbers::ENOUGH => early,
            early => match (early, numbers.kind()) {
                (TEXT, OTHER) => OTHER,
                (_, now) => now,
            },
        };
        let (class, magic) = match kind {
            TEXT if self.early == OTHER => (Class::Text, None),
            TEXT => match shape::of(head, looked as usize <= head.len()) {
                Some(magic) => (magic.class(), Some(magic)),
                None => (Class::Text, None),
            },
            SPREAD => (Class::Encrypted, None),
            DENSE => (Class::Compressed, None),
            _ if self.early == 0 && shape::wide_text(head) => (Class::Text, None),
            _ => (Class::Binary, None),
        };
        match (class, magic::weak(head)) {
            (Class::Text | Class::Structured, _) | (_, None) => (class, magic),
            (_, Some(magic)) => (magic.class(), Some(magic)),
        }
    }
}

/// What a whole content is; of a long one its first 64 KiB.
pub fn of(content: &[u8]) -> Found {
    let mut look: Look = Zeroable::zeroed();
    look.add(content);
    look.found()
}
