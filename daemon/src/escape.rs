//! Text that came from an observed process, made safe for a terminal and for a log line.
//!
//! Comes in: any text or bytes. Goes out: one line without control characters, in which what was
//! replaced reads `\xNN`, byte by byte. Called by everything that prints or sends: `report`,
//! `sinks`, `commands`.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt::Write;

/// True for characters that a terminal or a log viewer acts on instead of showing: controls, line
/// and paragraph separators, zero-width ones and the bidirectional overrides (which make a name
/// read as another, CVE-2021-42574).
pub(crate) fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// `text` on one line, with everything that acts replaced by its bytes as `\xNN`.
#[must_use]
pub fn text(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(out, "\\x{byte:02x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Like [`text`], for bytes that need not be UTF-8: what isn't is `\xNN` too.
#[must_use]
pub fn bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&text(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// `escaped` cut to at most `max` characters, the last being `…` where something was cut.
#[must_use]
pub fn clip(escaped: &str, max: usize) -> Cow<'_, str> {
    if escaped.len() <= max || escaped.chars().count() <= max {
        return Cow::Borrowed(escaped);
    }
    let mut out: String = escaped.chars().take(max.saturating_sub(1)).collect();
    out.push('…');
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_shown_as_bytes() {
        for (from, to) in [
            ("plain /usr/bin/curl", "plain /usr/bin/curl"),
            ("grüße", "grüße"),
            ("a\nb\r\0", "a\\x0ab\\x0d\\x00"),
            ("\x1b[2J", "\\x1b[2J"),
            ("\u{9b}31m", "\\xc2\\x9b31m"),
            ("a\u{202e}gpj.exe", "a\\xe2\\x80\\xaegpj.exe"),
            ("\u{2028}", "\\xe2\\x80\\xa8"),
            ("\x7f", "\\x7f"),
        ] {
            assert_eq!(text(from), to);
        }
    }

    #[test]
    fn every_byte_string_becomes_one_harmless_line() {
        // Every byte, and every pair of bytes.
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let out = bytes(&[a, b]);
                assert!(!out.chars().any(acts), "{a:02x}{b:02x} gave {out:?}");
            }
        }
        assert_eq!(bytes(b"/tmp/\xff\xfe\n"), "/tmp/\\xff\\xfe\\x0a");
    }

    #[test]
    fn clipping_says_that_it_clipped() {
        assert_eq!(clip("abcdef", 6), "abcdef");
        assert_eq!(clip("abcdef", 5), "abcd…");
        assert_eq!(clip("ääää", 4), "ääää");
    }
}
