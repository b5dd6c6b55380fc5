//! Which calls of `EVP_Cipher` make up a packet, as OpenSSH drives its ciphers (cipher.c,
//! cipher-chachapoly-libcrypto.c, packet.c).
//!
//! Comes in: each call before and after it is made. Goes out: packets, as soon as their bytes are known
//! (whoever stands above us may change them afterwards), and whether one of them turns out wrong.
//!
//! | cipher | calls for one packet |
//! |---|---|
//! | chacha20-poly1305 | 32 zeros in place (the MAC's key); 4 bytes of length; the packet. To read: the length alone, then, when the packet is there, the three, of which the last two follow only if the MAC was right |
//! | AES-GCM | 4 bytes with no output (the length, in clear); the packet; an empty call that checks the tag |
//! | CTR and CBC, MAC after encryption (`-etm`) | the packet |
//! | CTR and CBC, MAC before encryption | to write: the length and the packet; to read: the first block, then the rest |
//!
//! "The packet" begins with its padding length. Whether chacha20 enciphers or deciphers shows only in
//! which side of its second call is the length of the third.

/// One block of any cipher that reads its length first; AES's. (3des has 8, and is not followed.)
const BLOCK: usize = 16;
/// Bytes of a packet's length, which stands before the packet.
const LENGTH: usize = 4;
/// OpenSSH takes no longer packet (PACKET_MAX_SIZE, packet.h).
const LONGEST: u32 = 256 * 1024;

/// A call's arguments.
#[derive(Clone, Copy)]
pub struct Call {
    /// What the context was made for.
    pub encrypts: bool,
    /// Null: what comes in is only authenticated.
    pub out: *const u8,
    /// Null, in the call that ends an authenticated packet.
    pub input: *const u8,
    /// Bytes of both.
    pub length: usize,
}

impl Call {
    fn input(&self) -> &[u8] {
        // SAFETY: a cipher call's input is `length` bytes.
        unsafe { slice(self.input, self.length) }
    }

    fn word(bytes: &[u8]) -> Option<u32> {
        Some(u32::from_be_bytes(bytes.get(..LENGTH)?.try_into().ok()?))
    }
}

/// # Safety
/// `at` holds `length` bytes, or is null.
unsafe fn slice<'a>(at: *const u8, length: usize) -> &'a [u8] {
    // SAFETY: contract.
    if at.is_null() { &[] } else { unsafe { core::slice::from_raw_parts(at, length) } }
}

/// Plaintext of one packet, from its padding length on.
#[derive(Clone, Copy)]
pub struct Packet {
    /// It goes out.
    pub sealed: bool,
    /// A packet for certain: its length agrees with one that was sent apart.
    pub framed: bool,
    /// Its MAC is looked at later.
    pub unproven: bool,
    /// What was deciphered first, of which `lead_length` bytes count.
    lead: [u8; BLOCK - LENGTH],
    lead_length: usize,
    body: *const u8,
    body_length: usize,
}

impl Packet {
    fn of(sealed: bool, framed: bool, body: *const u8, body_length: usize) -> Self {
        let lead = [0; BLOCK - LENGTH];
        Self { sealed, framed, unproven: false, lead, lead_length: 0, body, body_length }
    }

    /// Its two parts.
    ///
    /// # Safety
    /// The program has not touched its buffer since the packet was handed out.
    pub unsafe fn parts(&self) -> [&[u8]; 2] {
        // SAFETY: contract.
        [&self.lead[..self.lead_length], unsafe { slice(self.body, self.body_length) }]
    }
}

/// What came before.
#[derive(Clone, Copy)]
enum Stage {
    Nothing,
    /// chacha20 has made a MAC's key: if no length follows, the MAC was wrong.
    Key,
    /// chacha20 has turned one length into the other.
    Length {
        input: u32,
        output: u32,
    },
    /// GCM knows the packet's length.
    Clear {
        length: u32,
    },
    /// GCM has deciphered a packet, which is not proven yet.
    Opened,
}

/// What is to be done after a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Nothing,
    /// chacha20 deciphers or enciphers a length.
    Length,
    /// A packet comes out, proven already.
    Proven,
    /// A packet comes out, and a later call proves it.
    Claimed,
    /// A packet comes out, if it is one.
    Perhaps,
    /// A first block comes out, or a whole packet as long.
    First,
    /// The rest of that packet comes out.
    Rest,
    /// The tag is checked.
    Check,
}

/// The calls so far.
pub struct Calls {
    stage: Stage,
    /// A packet's first block, deciphered: the rest may be a long time coming, and packets go out
    /// meanwhile.
    first: Option<[u8; BLOCK]>,
}

impl Calls {
    /// None yet.
    pub const fn new() -> Self {
        Self { stage: Stage::Nothing, first: None }
    }

    /// A packet was found wrong, and nothing came after it.
    pub fn refused_last(&self) -> bool {
        matches!(self.stage, Stage::Key)
    }

    /// Before a call: what goes out in it, what is to be done after it, and whether it shows that the
    /// packet before it was refused.
    pub fn before(&mut self, call: &Call) -> (Option<Packet>, Next, bool) {
        let stage = core::mem::replace(&mut self.stage, Stage::Nothing);
        let refused = matches!(stage, Stage::Key) && call.length != LENGTH;
        let (packet, next) = self.step(stage, call);
        (packet, next, refused)
    }

    fn step(&mut self, stage: Stage, call: &Call) -> (Option<Packet>, Next) {
        let whole = |sealed| Some(Packet::of(sealed, true, call.input, call.length));
        let is = |length: u32| length as usize == call.length;
        match (call.out.is_null(), call.input.is_null(), stage) {
            (true, true, Stage::Opened) if call.length == 0 => {
                self.stage = stage;
                (None, Next::Check)
            }
            (true, false, _) if call.length == LENGTH => {
                let length = Call::word(call.input()).unwrap_or(0);
                self.stage = Stage::Clear { length };
                (None, Next::Nothing)
            }
            (true, ..) | (_, true, _) => (None, Next::Nothing),
            // Before anything else: a packet may be as long as a key.
            _ if call.length == 32 && call.out == call.input && call.input().iter().all(|&b| b == 0) => {
                self.stage = Stage::Key;
                (None, Next::Nothing)
            }
            (_, _, Stage::Length { input, .. }) if is(input) => (whole(true), Next::Nothing),
            (_, _, Stage::Length { output, .. }) if is(output) => (None, Next::Proven),
            (_, _, Stage::Clear { length }) if is(length) => {
                if call.encrypts {
                    (whole(true), Next::Nothing)
                } else {
                    (None, Next::Claimed)
                }
            }
            _ if !call.encrypts && self.first.is_some_and(|block| is(rest(&block))) => (None, Next::Rest),
            _ if call.length == LENGTH => (None, Next::Length),
            _ if call.encrypts => (Some(alone(call)), Next::Nothing),
            _ if call.length == BLOCK => (None, Next::First),
            _ => (None, Next::Perhaps),
        }
    }

    /// After a call that went well or did not: what came in with it, and whether it was refused.
    pub fn after(&mut self, call: &Call, next: Next, well: bool) -> (Option<Packet>, bool) {
        // SAFETY: the call has written `length` bytes.
        let out = || unsafe { slice(call.out, call.length) };
        if next == Next::Check {
            self.stage = Stage::Nothing;
            return (None, !well);
        }
        if !well {
            self.stage = Stage::Nothing;
            return (None, false);
        }
        let packet = match next {
            Next::Length => {
                // In place, nothing is left of what went in; OpenSSH never does that with a length.
                let words = (Call::word(call.input()), Call::word(out()));
                if let (Some(input), Some(output), true) = (words.0, words.1, call.input != call.out) {
                    self.stage = Stage::Length { input, output };
                }
                None
            }
            Next::Proven => Some(Packet::of(false, true, call.out, call.length)),
            Next::Claimed => {
                self.stage = Stage::Opened;
                Some(Packet { unproven: true, ..Packet::of(false, true, call.out, call.length) })
            }
            Next::Perhaps => Some(Packet::of(false, false, call.out, call.length)),
            Next::First => {
                let mut block = [0; BLOCK];
                block.copy_from_slice(out());
                if may_be_length(&block) {
                    self.first = Some(block);
                    None
                } else {
                    Some(Packet::of(false, false, call.out, call.length))
                }
            }
            Next::Rest => {
                let Some(block) = self.first.take() else { return (None, false) };
                let mut packet = Packet::of(false, true, call.out, call.length);
                packet.unproven = true;
                packet.lead.copy_from_slice(&block[LENGTH..]);
                packet.lead_length = packet.lead.len();
                Some(packet)
            }
            Next::Nothing | Next::Check => None,
        };
        (packet, false)
    }
}

/// Bytes of a packet behind its first block.
fn rest(block: &[u8; BLOCK]) -> u32 {
    Call::word(block).map_or(u32::MAX, |length| length.wrapping_add(LENGTH as u32).wrapping_sub(BLOCK as u32))
}

/// A first block's beginning is a length: whole blocks, and no more than is allowed. (A packet that
/// begins with its padding length has 4 or more there.)
fn may_be_length(block: &[u8; BLOCK]) -> bool {
    Call::word(block).is_some_and(|length| {
        (BLOCK as u32 - LENGTH as u32..=LONGEST).contains(&length)
            && (length + LENGTH as u32).is_multiple_of(BLOCK as u32)
    })
}

/// A packet that is enciphered with its length before it, or alone.
fn alone(call: &Call) -> Packet {
    let input = call.input();
    match Call::word(input) {
        Some(length) if length as usize + LENGTH == input.len() => {
            Packet::of(true, true, input[LENGTH..].as_ptr(), input.len() - LENGTH)
        }
        _ => Packet::of(true, false, call.input, call.length),
    }
}
