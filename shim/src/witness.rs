//! Where in a cipher call's buffer the content of a TLS record stands.
//!
//! TLS 1.3 (RFC 8446, 5.2): content, one byte of type, zeros. TLS 1.2 AEAD as OpenSSL drives it:
//! GCM and CCM 8 bytes of explicit nonce, content, tag; ChaCha20-Poly1305 content, tag (RFC 5288,
//! 6655, 7905). Handshake and alert records are no content. CBC with a MAC is not followed: where
//! its MAC and padding begin shows only afterwards.

use crate::objects::Object;
use crate::openssl::{CipherContext, OpenSsl};
use core::sync::atomic::Ordering;

/// How a record is laid out around its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Framing {
    /// Not a record's cipher, or one that can't be followed.
    None = 0,
    /// TLS 1.3.
    Tls13 = 1,
    /// TLS 1.2 with an explicit nonce.
    Nonce12 = 2,
    /// TLS 1.2 without.
    Plain12 = 3,
}

const APPLICATION_DATA: u8 = 23;
const NONCE: usize = 8;
const TAG: usize = 16;
/// EVP_CIPH_MODE and its values, EVP_CIPH_FLAG_AEAD_CIPHER (openssl/evp.h).
const MODE: u64 = 0xF_0007;
const STREAM: u64 = 0;
const CBC: u64 = 2;
const GCM: u64 = 6;
const CCM: u64 = 7;
const AEAD: u64 = 0x20_0000;

/// How this cipher context's records are laid out. Remembered for the last context of each
/// direction: the generator of random numbers comes through the same functions.
#[inline]
pub fn framing(
    object: &Object,
    context: *const CipherContext,
    seals: bool,
    session: usize,
    library: Option<&'static OpenSsl>,
) -> Framing {
    let memory = if seals { &object.tls.seal_context } else { &object.tls.open_context };
    let remembered = memory.load(Ordering::Relaxed);
    // Contexts are aligned: the low bits are free for the framing.
    if remembered & !7 == context.addr() as u64 {
        return match remembered & 7 {
            1 => Framing::Tls13,
            2 => Framing::Nonce12,
            3 => Framing::Plain12,
            _ => Framing::None,
        };
    }
    classify(object, context, seals, session, library)
}

#[cold]
fn classify(
    object: &Object,
    context: *const CipherContext,
    seals: bool,
    session: usize,
    library: Option<&'static OpenSsl>,
) -> Framing {
    let Some(library) = library else { return Framing::None };
    let (Some(cipher_of), Some(flags_of), Some(version_of), Some(finished)) =
        (library.context_cipher, library.cipher_flags, library.version, library.is_init_finished)
    else {
        return Framing::None;
    };
    // SAFETY: the context of the call in progress, and the session that this thread is inside of.
    let (flags, version, finished) = unsafe {
        let cipher = cipher_of(context);
        if cipher.is_null() {
            return Framing::None;
        }
        let session = core::ptr::with_exposed_provenance(session);
        (flags_of(cipher), version_of(session), finished(session) == 1)
    };
    let framing = match (flags & MODE, version) {
        (GCM | CCM, 0x0304) => Framing::Tls13,
        (STREAM, 0x0304) if flags & AEAD != 0 => Framing::Tls13,
        (GCM | CCM, 0x0303) => Framing::Nonce12,
        (STREAM, 0x0303) if flags & AEAD != 0 => Framing::Plain12,
        (CBC | STREAM, _) if finished => {
            object.tls.witness_off.store(1, Ordering::Relaxed);
            Framing::None
        }
        // The random generator's CTR or ECB, or a handshake still under way.
        _ => Framing::None,
    };
    if framing != Framing::None {
        let memory = if seals { &object.tls.seal_context } else { &object.tls.open_context };
        memory.store(context.addr() as u64 | framing as u64, Ordering::Relaxed);
    }
    framing
}

/// TLS 1.3: content, type, zeros.
fn inner(record: &[u8]) -> &[u8] {
    match record.iter().rposition(|&b| b != 0) {
        Some(at) if record[at] == APPLICATION_DATA => &record[..at],
        _ => &[],
    }
}

fn is_data(record_type: u8) -> bool {
    record_type == APPLICATION_DATA
}

/// The content in what goes into the cipher.
pub fn sealed_content(framing: Framing, record_type: u8, input: &[u8]) -> &[u8] {
    match framing {
        Framing::Tls13 => inner(input),
        Framing::Nonce12 if is_data(record_type) && input.len() >= NONCE + TAG => {
            &input[NONCE..input.len() - TAG]
        }
        Framing::Plain12 if is_data(record_type) && input.len() >= TAG => &input[..input.len() - TAG],
        _ => &[],
    }
}

/// The content in what came out of the cipher.
///
/// # Safety
/// `out` holds the framing and then `length` bytes of content (TLS 1.3: `length` bytes in all).
pub unsafe fn opened_content<'a>(
    framing: Framing,
    record_type: u8,
    out: *const u8,
    length: usize,
) -> &'a [u8] {
    // SAFETY: contract.
    unsafe {
        match framing {
            Framing::Tls13 => inner(core::slice::from_raw_parts(out, length)),
            Framing::Nonce12 if is_data(record_type) => core::slice::from_raw_parts(out.add(NONCE), length),
            Framing::Plain12 if is_data(record_type) => core::slice::from_raw_parts(out, length),
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_of_each_framing() {
        assert_eq!(inner(b"pay 10\x17\0\0"), b"pay 10");
        assert_eq!(inner(b"zeros\0\0\x17"), b"zeros\0\0");
        assert!(inner(b"ticket\x16").is_empty());
        assert!(inner(b"\0\0").is_empty());
        let record = [&[0u8; 8][..], b"hello", &[0; 16]].concat();
        assert_eq!(sealed_content(Framing::Nonce12, 23, &record), b"hello");
        assert!(sealed_content(Framing::Nonce12, 22, &record).is_empty());
        assert!(sealed_content(Framing::Nonce12, 23, &record[..20]).is_empty());
    }
}
