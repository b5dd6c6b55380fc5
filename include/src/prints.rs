//! Prints: keyed fingerprints of short windows of content, at places that the content itself chooses.
//!
//! Comes in: bytes, in pieces of any size, and how dense the samples shall be. Goes out: where a window
//! ends, and its print. The shim prints streams with this, the daemon files at rest: the same bytes have
//! the same prints wherever they stand and however they were cut, so content is known again behind headers,
//! in other frames, or as a part of something longer.
//!
//! A place is taken where a rolling hash (gear: each byte shifts out after 32 more) of the last
//! [`WINDOW`] bytes begins with `bits` zero bits: one in 2^bits. What is taken at more bits is taken at
//! fewer, too, so sparse samples find dense ones. The print is a keyed pseudo-random function of the window
//! (SipHash-2-4, a quarter of keyed BLAKE3's time at this length): who has no key can neither build two
//! windows of one print nor guess content from it.

use siphasher::sip::SipHasher24;

/// Bytes of a window.
pub const WINDOW: usize = 32;
/// A window with fewer different bytes than this is padding, or a ruled line: it has no print.
pub const DISTINCT: u32 = 6;
/// The sparsest sampling, bits.
pub const MAX_BITS: u32 = 24;

/// A window's fingerprint.
pub type Print = [u8; 8];

/// What the key makes of it: made once, used by all streams.
pub struct Sampler {
    keys: [u64; 2],
    gear: [u32; 256],
}

/// How far one stream's content was looked at: its last bytes. Valid whatever its bytes are.
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Window {
    hash: u32,
    /// Bytes since [`Self::restart`], if fewer than [`WINDOW`].
    filled: u32,
    tail: [u8; WINDOW],
}

impl Window {
    /// What follows doesn't continue what was.
    pub fn restart(&mut self) {
        *self = Self::default();
    }
}

impl Sampler {
    /// Of no use: for a place that is filled later.
    pub const NONE: Self = Self { keys: [0; 2], gear: [0; 256] };

    /// `key`: that of all tags ([`crate::hello::Reply::key`]).
    pub fn new(key: &[u8; 16]) -> Self {
        let mut long = [0; 32];
        long[..16].copy_from_slice(key);
        let derived = |what: &[u8]| blake3::Hasher::new_keyed(&long).update(what).finalize_xof();
        let mut sampler = Self::NONE;
        // Each derived in one piece: asked for a few bytes, BLAKE3 computes a whole block each time, and every
        // program that starts waits for this.
        let mut own = [0; 16];
        derived(b"counterfoil prints").fill(&mut own);
        let (halves, _) = own.as_chunks::<8>();
        sampler.keys.iter_mut().zip(halves).for_each(|(half, bytes)| *half = u64::from_le_bytes(*bytes));
        let mut gear = [0; 1024];
        derived(b"counterfoil gear").fill(&mut gear);
        let (entries, _) = gear.as_chunks::<4>();
        sampler.gear.iter_mut().zip(entries).for_each(|(entry, bytes)| *entry = u32::from_le_bytes(*bytes));
        sampler
    }

    /// Goes on with `bytes`; calls `each` with a window's end (bytes of this piece that belong to it or
    /// come before it: 1 to `bytes.len()`) and its print.
    #[inline]
    pub fn feed(&self, window: &mut Window, bytes: &[u8], bits: u32, mut each: impl FnMut(usize, Print)) {
        let limit = u32::MAX >> bits.clamp(1, MAX_BITS);
        let mut hash = window.hash;
        // A window that began in an earlier piece, or is not full yet.
        let early = bytes.len().min(WINDOW - 1);
        let filled = (window.filled as usize).min(WINDOW);
        for (index, &byte) in bytes[..early].iter().enumerate() {
            hash = (hash << 1).wrapping_add(self.gear[usize::from(byte)]);
            if hash <= limit && filled + index + 1 >= WINDOW {
                let mut whole = [0; WINDOW];
                let kept = WINDOW - (index + 1);
                whole[..kept].copy_from_slice(&window.tail[WINDOW - kept..]);
                whole[kept..].copy_from_slice(&bytes[..=index]);
                if let Some(print) = self.print(&whole) {
                    each(index + 1, print);
                }
            }
        }
        for (index, whole) in bytes.windows(WINDOW).enumerate() {
            hash = (hash << 1).wrapping_add(self.gear[usize::from(whole[WINDOW - 1])]);
            if hash <= limit
                && let Some(print) = self.print(whole)
            {
                each(index + WINDOW, print);
            }
        }
        window.hash = hash;
        window.filled = (filled + bytes.len()).min(WINDOW) as u32;
        if let Some(last) = bytes.last_chunk::<WINDOW>() {
            window.tail = *last;
        } else {
            window.tail.copy_within(bytes.len().., 0);
            window.tail[WINDOW - bytes.len()..].copy_from_slice(bytes);
        }
    }

    /// The print of one window; None: it says too little.
    fn print(&self, window: &[u8]) -> Option<Print> {
        // Counted in one register: a few bytes fall together, and count as one.
        let seen = window.iter().fold(0u64, |seen, &byte| seen | 1 << ((byte ^ (byte >> 6)) & 63));
        if seen.count_ones() < DISTINCT {
            return None;
        }
        Some(SipHasher24::new_with_keys(self.keys[0], self.keys[1]).hash(window).to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..length)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                (x >> 32) as u8
            })
            .collect()
    }

    /// All prints, with their windows' ends, of content that comes in pieces of `piece` bytes.
    fn prints(content: &[u8], piece: usize, bits: u32) -> Vec<(usize, Print)> {
        let sampler = Sampler::new(b"0123456789abcdef");
        let (mut window, mut out, mut at) = (Window::default(), Vec::new(), 0);
        for part in content.chunks(piece) {
            sampler.feed(&mut window, part, bits, |end, print| out.push((at + end, print)));
            at += part.len();
        }
        out
    }

    #[test]
    fn pieces_make_no_difference() {
        let content = noise(1, 20_000);
        let whole = prints(&content, content.len(), 3);
        assert!((2000..3000).contains(&whole.len()), "{}", whole.len());
        assert!(whole.iter().all(|(end, _)| *end >= WINDOW));
        for piece in [1, 2, 31, 32, 33, 100, 4096] {
            assert!(prints(&content, piece, 3) == whole, "pieces of {piece}");
        }
    }

    #[test]
    fn what_stands_before_makes_no_difference() {
        let content = noise(2, 5000);
        let alone = prints(&content, 5000, 4);
        for before in [1, 7, 31, 32, 1000] {
            let mut longer = noise(3, before);
            longer.extend(&content);
            let shifted: Vec<_> = prints(&longer, 700, 4)
                .into_iter()
                .filter(|(end, _)| *end >= before + WINDOW)
                .map(|(end, print)| (end - before, print))
                .collect();
            assert!(shifted == alone, "{before} bytes before");
        }
    }

    #[test]
    fn sparse_samples_are_among_the_dense_ones() {
        let content = noise(4, 100_000);
        let dense = prints(&content, 4096, 3);
        for bits in [4, 6, 9] {
            let sparse = prints(&content, 999, bits);
            let expected = content.len() >> bits;
            assert!((expected / 2..expected * 2).contains(&sparse.len()), "{} at {bits}", sparse.len());
            assert!(sparse.iter().all(|sample| dense.contains(sample)));
        }
    }

    #[test]
    fn a_hundred_bytes_have_several() {
        let few = (0..1000).filter(|&seed| prints(&noise(seed, 100), 100, 3).len() < 2).count();
        assert!(few < 10, "{few} of 1000");
    }

    #[test]
    fn padding_and_another_key_have_none_in_common() {
        assert!(prints(&[0; 10_000], 100, 1).is_empty());
        assert!(prints(&b"-=".repeat(5000), 100, 1).is_empty());
        let content = noise(5, 10_000);
        let other = Sampler::new(b"0123456789abcdeg");
        let mut theirs = Vec::new();
        other.feed(&mut Window::default(), &content, 3, |_, print| theirs.push(print));
        assert!(!theirs.is_empty() && prints(&content, 100, 3).iter().all(|(_, p)| !theirs.contains(p)));
    }

    #[test]
    fn a_restart_forgets() {
        let content = noise(6, 64);
        let sampler = Sampler::new(b"0123456789abcdef");
        let mut window = Window::default();
        sampler.feed(&mut window, &content, 1, |_, _| {});
        window.restart();
        sampler.feed(&mut window, &content[..31], 1, |_, _| panic!("a window across a gap"));
    }
}
