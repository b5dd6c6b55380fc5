//! A packet that fails its check: an alteration on the way, which SSH stopped.
//!
//! chacha20-poly1305 and AES-GCM show it in their calls. The other MACs are OpenSSH's own code. Where the MAC is
//! before encryption, it takes leave of the other end in words of its own (`ssh_packet_start_discard`, packet.c):
//! these pass our cipher. Else its last message is what shows it, if after that message nothing more was enciphered, deciphered
//! or said before the process ended. (A remote command may print the same words on its error output;
//! then its channel is closed, or the lost connection spoken of.)

use super::{State, carrier};
use crate::lanes;
use crate::objects;
use crate::thread::Guard;
use core::sync::atomic::{AtomicU8, Ordering};
use counterfoil_abi::record::{Kind, Reason, Rejected, Tap};

/// What it tells the other end then, and only then.
pub const GOODBYE: &[u8] = b"Packet corrupt";
/// What it says, and in what words; [`Rejected::code`] is the place in this list, from 1.
const MESSAGES: [(&[u8], &[u8]); 3] = [
    (b"message authentication code incorrect", b"bad-packet-mac"),
    (b"Corrupted MAC on input", b"bad-packet-mac"),
    (b"Bad packet length", b"bad-packet-length"),
];
/// OpenSSH's messages are no longer (MSGBUFSIZ, log.c), and end so when they go to a descriptor.
const LONGEST: usize = 1100;
const END: &[u8] = b"\r\n";

/// The last message was one of [`MESSAGES`], counted from 1.
static SUSPECTED: AtomicU8 = AtomicU8::new(0);
/// It was told.
static TOLD: AtomicU8 = AtomicU8::new(0);

/// This process, which speaks SSH, has written `text` somewhere.
pub fn said(text: &[u8]) {
    if text.len() > LONGEST || !text.ends_with(END) {
        return;
    }
    let found = MESSAGES.iter().position(|(words, _)| text.windows(words.len()).any(|w| w == *words));
    SUSPECTED.store(found.map_or(0, |at| at as u8 + 1), Ordering::Relaxed);
}

/// A packet went through: whatever was said before was not the end.
#[inline]
pub fn passed() {
    SUSPECTED.store(0, Ordering::Relaxed);
}

/// A cipher call shows that a packet was refused.
pub fn now(guard: &Guard, state: &mut State) {
    tell(guard, state, 1);
}

/// The process ends.
pub fn last_words() {
    if !super::on() {
        return;
    }
    super::with(|guard, state| {
        let suspected = usize::from(SUSPECTED.load(Ordering::Relaxed));
        if suspected != 0 {
            tell(guard, state, suspected);
        } else if state.calls.refused_last() {
            tell(guard, state, 1);
        }
    });
}

fn tell(guard: &Guard, state: &mut State, code: usize) {
    // What was deciphered before its MAC was looked at proves nothing.
    if let Some((name, offset)) = state.unproven.take()
        && let Some(object) = objects::get(name)
    {
        object.into.doubt_from(guard, object.number(), Tap::CipherOpen, offset, Reason::Transformed);
    }
    // Before the first packets there are no keys, and a stranger may send what he likes.
    let Some(socket) = carrier().filter(|_| state.packets > 0) else { return };
    let Some((_, text)) = MESSAGES.get(code - 1) else { return };
    if TOLD.swap(1, Ordering::Relaxed) != 0 {
        return;
    }
    let mut record = Rejected {
        header: lanes::header(Kind::Rejected, 1, Tap::SockRecv as u8, socket.number()),
        code: code as u32,
        side: 1,
        offset: socket.into.offset(),
        text: [0; 32],
    };
    record.text[..text.len()].copy_from_slice(text);
    lanes::push_record(guard, &record);
}
