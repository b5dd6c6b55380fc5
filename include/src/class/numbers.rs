//! How the bytes are spread: entropy, χ², and what text does not have.
//!
//! Integers only: there is no floating point in `core`, and none is needed.

use super::{DENSE, OTHER, SPREAD, TEXT};
use bytemuck::{Pod, Zeroable};

/// So many bytes are enough for χ² to tell something.
pub(super) const ENOUGH: u32 = 256;

/// χ² of evenly spread bytes: mean 255, deviation 22.6. One in a thousand lies above; compressed data of 64 KiB
/// lies above by hundreds, but for xz and its kin, whose range coder leaves no trace (and whose magic tells them).
const LEAST: u32 = 170;
const MOST: u32 = 335;
/// Entropy, corrected for the number of bytes, above which content has been compressed.
const DENSE_FROM: u32 = 7_450;

/// How often each byte came, in four tables that are summed up at the end: a table alone would wait for itself where
/// a byte repeats.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Counts([[u16; 256]; 4]);

/// Wraps: the memory is shared, and a count that overflows is only a wrong one.
#[inline(always)]
fn bump(table: &mut [u16; 256], byte: u8) {
    let count = &mut table[usize::from(byte)];
    *count = count.wrapping_add(1);
}

impl Counts {
    /// In place: a hook may run on a small stack.
    pub fn clear(&mut self) {
        self.0.iter_mut().for_each(|table| table.fill(0));
    }

    /// `at`: bytes before these. At most 64 KiB in all: no table counts beyond a fourth of that.
    pub fn add(&mut self, at: usize, piece: &[u8]) {
        let [a, b, c, d] = &mut self.0;
        let mut fours = piece.chunks_exact(4);
        for four in &mut fours {
            let &[w, x, y, z] = four else { continue };
            bump(a, w);
            bump(b, x);
            bump(c, y);
            bump(d, z);
        }
        for (i, &byte) in fours.remainder().iter().enumerate() {
            bump(&mut self.0[(at + i) % 4], byte);
        }
    }

    fn of(&self, byte: usize) -> u32 {
        let [a, b, c, d] = &self.0;
        u32::from(a[byte]) + u32::from(b[byte]) + u32::from(c[byte]) + u32::from(d[byte])
    }

    fn within(&self, bytes: core::ops::Range<usize>) -> u32 {
        bytes.map(|byte| self.of(byte)).sum()
    }

    pub fn numbers(&self, bytes: u32) -> Numbers {
        if bytes == 0 {
            return Numbers::default();
        }
        let (mut squares, mut sum) = (0u64, 0u64);
        for byte in 0..256 {
            let count = u64::from(self.of(byte));
            squares += count * count;
            sum += count * log2(count);
        }
        let n = u64::from(bytes);
        // H = log n - (1/n) Σ c log c, in 1/65536 bits.
        let entropy = ((log2(n) - (sum / n).min(log2(n))) * 1000) >> 16;
        let chi_squared = (256 * squares / n).saturating_sub(n).min(u64::from(u32::MAX));
        Numbers {
            bytes,
            entropy: entropy.min(8000) as u16,
            chi_squared: chi_squared as u32,
            reads: self.reads(bytes, entropy),
        }
    }

    /// Nothing speaks against text.
    fn reads(&self, bytes: u32, entropy: u64) -> bool {
        // Backspace (overstrike), tab, newline, form feed, return and escape (colours) are in texts.
        let controls =
            self.within(0..8) + self.of(11) + self.within(14..27) + self.within(28..32) + self.of(127);
        if controls > bytes / 200 {
            return false;
        }
        let follow = self.within(0x80..0xc0);
        let need = self.within(0xc2..0xe0) + 2 * self.within(0xe0..0xf0) + 3 * self.within(0xf0..0xf5);
        let never = self.within(0xc0..0xc2) + self.within(0xf5..0x100);
        // Of a character at the end, or at the start of the second part, the rest is missing.
        let utf8 = never == 0 && follow.abs_diff(need) <= 3 + bytes / 500;
        // One byte a character: Latin, Cyrillic, Greek. Words are short in all of them. Or two: of those no byte
        // is a control character, which one in nine of ciphertext is.
        let space = self.of(usize::from(b' ')) + self.of(usize::from(b'\n'));
        let one = bytes >= 64 && entropy < 6_200 && space >= bytes / 40;
        let two = bytes >= 1024 && entropy < 7_300 && controls == 0;
        utf8 || one || two
    }
}

/// What counts tell.
#[derive(Clone, Copy, Default)]
pub(super) struct Numbers {
    pub bytes: u32,
    /// Thousandths of a bit per byte.
    pub entropy: u16,
    pub chi_squared: u32,
    reads: bool,
}

impl Numbers {
    pub fn kind(&self) -> u8 {
        if self.reads {
            return TEXT;
        }
        if self.bytes < ENOUGH / 2 {
            return OTHER;
        }
        if (LEAST..=MOST).contains(&self.chi_squared) {
            return SPREAD;
        }
        // Miller and Madow: (k-1)/2n nats are missing in n bytes' entropy.
        let missing = 255 * 1_443 / (2 * self.bytes);
        if self.bytes >= ENOUGH && u32::from(self.entropy) + missing >= DENSE_FROM { DENSE } else { OTHER }
    }
}

/// log2 in 1/65536 bits; 0 of 0.
fn log2(n: u64) -> u64 {
    let Some(whole) = n.checked_ilog2() else { return 0 };
    // The next 16 bits: 8 for the table, 8 to go between two of its entries.
    let fraction = ((n << (63 - whole)) >> 47) & 0xffff;
    let (index, rest) = ((fraction >> 8) as usize, fraction & 0xff);
    let (low, high) = (u64::from(LOG[index]), u64::from(LOG[index + 1]));
    (u64::from(whole) << 16) + low + (((high - low) * rest) >> 8)
}

/// log2(1 + i/256) in 1/65536 bits.
static LOG: [u32; 257] = {
    let mut table = [0; 257];
    let mut i = 0;
    while i <= 256 {
        // Squaring doubles the logarithm: each time it passes 2, one more bit of it is 1.
        let mut x = ((256 + i) as u64) << 23;
        let (mut log, mut bit) = (0u32, 0);
        if i == 256 {
            log = 1 << 16;
        } else {
            while bit < 16 {
                x = ((x as u128 * x as u128) >> 31) as u64;
                bit += 1;
                if x >= 1 << 32 {
                    x >>= 1;
                    log |= 1 << (16 - bit);
                }
            }
        }
        table[i] = log;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(content: &[u8]) -> Numbers {
        let mut counts: Counts = Zeroable::zeroed();
        counts.add(0, content);
        counts.numbers(content.len() as u32)
    }

    #[test]
    fn logarithms() {
        for (n, log) in [(0, 0), (1, 0), (2, 1 << 16), (3, 103_872), (1000, 653_117), (65_536, 16 << 16)] {
            assert!(log2(n).abs_diff(log) <= 2, "{n}: {} instead of {log}", log2(n));
        }
    }

    #[test]
    fn entropy_and_chi_squared() {
        let all: [u8; 256] = core::array::from_fn(|i| i as u8);
        let even = numbers(&all);
        assert_eq!((even.entropy, even.chi_squared), (8000, 0));
        let one = numbers(&[7; 65_536]);
        assert_eq!((one.entropy, one.chi_squared), (0, 255 * 65_536));
        // Two of each of four: 2 bits.
        assert_eq!(numbers(b"aabbccdd").entropy, 2000);
    }

    #[test]
    fn what_reads_as_text() {
        assert!(numbers("Grüße, ça va — 日本語".as_bytes()).reads);
        assert!(!numbers(b"a\0b").reads);
        assert!(!numbers(&[0xff, 0xfe, 0x80]).reads);
        let latin = b"Der H\xf6rer h\xf6rte \xfcber die gr\xf6\xdfte Stra\xdfe hinweg nur das Ger\xe4usch des Regens.";
        assert!(numbers(latin).reads);
    }
}
