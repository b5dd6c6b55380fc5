//! The SHA-256 of one direction of a file, as its bytes go by.

use crate::stream::Pieces;
use counterfoil_abi::sha256::Sha256;

/// The states. Plain numbers, valid at any bytes' value.
pub struct Digest {
    /// All that flowed.
    now: Sha256,
    /// And what is being offered.
    next: Sha256,
    /// Bytes being offered.
    offered: u64,
    /// How far an earlier reading went, 0 if there was none.
    earlier: u64,
    /// That reading's digest.
    earlier_digest: [u8; 32],
}

impl Digest {
    /// As new.
    pub fn restart(&mut self) {
        (self.now, self.next) = (Sha256::new(), Sha256::new());
        (self.offered, self.earlier, self.earlier_digest) = (0, 0, [0; 32]);
    }

    /// The file is read again from its start; it was read up to `offset`.
    #[cold]
    pub fn rewind(&mut self, offset: u64) {
        if offset > self.earlier {
            self.earlier = offset;
            self.earlier_digest = self.now.digest();
        }
        self.now = Sha256::new();
    }

    /// `bytes` of `data` were read at `offset`, where the state stands. False: this reading is not as an
    /// earlier one was.
    #[inline]
    pub fn take<P: Pieces + ?Sized>(&mut self, offset: u64, data: &P, bytes: u64) -> bool {
        let end = offset + bytes;
        if offset >= self.earlier || self.earlier > end {
            data.walk(0, bytes, &mut |piece| self.now.update(piece));
            return true;
        }
        let before = self.earlier - offset;
        data.walk(0, before, &mut |piece| self.now.update(piece));
        let same = self.now.digest() == self.earlier_digest;
        data.walk(before, bytes - before, &mut |piece| self.now.update(piece));
        same
    }

    /// `data` is about to be written.
    #[inline]
    pub fn offer<P: Pieces + ?Sized>(&mut self, data: &P, bytes: u64) {
        self.next = self.now;
        self.offered = bytes;
        data.walk(0, bytes, &mut |piece| self.next.update(piece));
    }

    /// The first `bytes` of what was offered were written.
    #[inline]
    pub fn accept<P: Pieces + ?Sized>(&mut self, data: &P, bytes: u64) {
        if bytes == self.offered {
            core::mem::swap(&mut self.now, &mut self.next);
        } else {
            data.walk(0, bytes, &mut |piece| self.now.update(piece));
        }
    }

    /// Bytes and their digest: what flowed up to `offset`, or an earlier reading that went further.
    pub fn say(&self, offset: u64) -> (u64, [u8; 32]) {
        if self.earlier > offset { (self.earlier, self.earlier_digest) } else { (offset, self.now.digest()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> Box<Digest> {
        // SAFETY: room; `restart` fills it.
        let mut digest: Box<Digest> = unsafe { Box::new(core::mem::zeroed()) };
        digest.restart();
        digest
    }

    fn of(content: &[u8]) -> [u8; 32] {
        sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(content)).into()
    }

    #[test]
    fn what_was_accepted_counts() {
        let mut state = new();
        for (offered, accepted) in [(&b"all of it"[..], 9), (b" and a part", 4), (b"", 0)] {
            state.offer(offered, offered.len() as u64);
            state.accept(offered, accepted);
        }
        // A write that failed leaves nothing.
        state.offer(&b"refused"[..], 7);
        assert_eq!(state.say(13), (13, of(b"all of it and")));
    }

    #[test]
    fn a_second_reading_goes_on_where_the_first_one_ended() {
        let mut state = new();
        assert!(state.take(0, &b"head"[..], 4));
        state.rewind(4);
        // Not as far as the first: that one's digest stands.
        assert!(state.take(0, &b"he"[..], 2));
        assert_eq!(state.say(2), (4, of(b"head")));
        assert!(state.take(2, &b"ad and tail"[..], 11));
        assert_eq!(state.say(13), (13, of(b"head and tail")));
        // And a third, of a file that has changed.
        state.rewind(13);
        assert!(state.take(0, &b"head and "[..], 9));
        assert!(!state.take(9, &b"tale"[..], 4));
    }

    #[test]
    fn a_reading_that_ends_where_the_first_one_did() {
        let mut state = new();
        assert!(state.take(0, &b"head"[..], 4));
        state.rewind(4);
        assert!(!state.take(0, &b"hood"[..], 4));
    }
}
