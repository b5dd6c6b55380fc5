//! Where in a cipher call's buffer the content of a TLS record stands.
//!
//! TLS 1.3 (RFC 8446, 5.2): content, one byte of type, zeros. TLS 1.2 AEAD as OpenSSL drives it:
//! GCM and CCM 8 bytes of explicit nonce, content, tag; ChaCha20-Poly1305 content, tag (RFC 5288,
//! 6655, 7905). CBC: a 16-byte IV, content, and where the MAC comes first (no RFC 7366) MAC and
//! padding; how long the MAC is shows in the length of our own Finished, whose content is 16 bytes
//! always. Handshake and alert records are no content.

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
    /// TLS 1.1 and 1.2 CBC.
    Cbc = 4,
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
    // A write opens records too (a handshake inside it), and a read seals some (answers to KeyUpdate):
    // what such a call shows at our place is ciphertext.
    // SAFETY: the context of the call in progress.
    if library.and_then(|l| l.is_encrypting).is_none_or(|f| (unsafe { f(context) } == 1) != seals) {
        return Framing::None;
    }
    let memory = if seals { &object.tls.seal_context } else { &object.tls.open_context };
    let remembered = memory.load(Ordering::Relaxed);
    // Contexts are aligned: the low bits are free for the framing.
    if remembered & !7 == context.addr() as u64 {
        return match remembered & 7 {
            1 => Framing::Tls13,
            2 => Framing::Nonce12,
            3 => Framing::Plain12,
            4 if data_flows(session, library) => Framing::Cbc,
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
        (CBC, 0x0302 | 0x0303) if finished && (!seals || object.tls.cbc_mac.load(Ordering::Relaxed) != 0) => {
            Framing::Cbc
        }
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

/// No handshake is under way: records are application data, or alerts.
fn data_flows(session: usize, library: Option<&'static OpenSsl>) -> bool {
    // SAFETY: the session that this thread is inside of.
    library
        .and_then(|l| l.is_init_finished)
        .is_some_and(|f| unsafe { f(core::ptr::with_exposed_provenance(session)) } == 1)
}

/// SSL_EARLY_DATA_ACCEPTED (openssl/ssl.h).
const EARLY_ACCEPTED: core::ffi::c_int = 2;

/// TLS 1.3: the handshake is over, or 0-RTT data was accepted. A server that refused it tries whether what comes can be opened
/// (RFC 8446, 4.2.10): nothing that this shows is content.
pub fn data_may_come(session: usize, library: Option<&'static OpenSsl>) -> bool {
    let status = library.and_then(|l| l.early_status);
    // SAFETY: the session that this thread is inside of.
    let accepted = status.map(|f| unsafe { f(core::ptr::with_exposed_provenance(session)) });
    data_flows(session, library) || accepted == Some(EARLY_ACCEPTED)
}

const IV: usize = 16;
/// `tls.cbc_mac`: the MAC comes after encryption, and is no part of what is encrypted.
const ENCRYPT_THEN_MAC: u8 = 1;

/// During a handshake: our Finished (RFC 5246, 7.4.9), sealed with CBC, tells what comes behind the
/// content.
pub fn learn_cbc(object: &Object, input: &[u8]) {
    if input.get(IV..IV + 4) != Some(&[20, 0, 0, 12]) {
        return;
    }
    let mac = match input.len() {
        32 => ENCRYPT_THEN_MAC,
        64 => 20,
        80 => 32,
        96 => 48,
        _ => return,
    };
    object.tls.cbc_mac.store(mac, Ordering::Relaxed);
}

/// The content of a record that CBC is about to seal.
fn cbc_content(mac: u8, input: &[u8]) -> &[u8] {
    let behind = if mac == ENCRYPT_THEN_MAC {
        0
    } else {
        usize::from(mac) + input.last().map_or(0, |&padding| usize::from(padding) + 1)
    };
    input.get(IV..input.len().saturating_sub(behind)).unwrap_or(&[])
}

/// CBC doesn't show a record's type: an alert, a HelloRequest or a ClientHello might be data, and the
/// other way round.
pub fn may_be_no_data(content: &[u8]) -> bool {
    match content {
        [1 | 2, _] | [0, 0, 0, 0] => true,
        [1, a, b, c, ..] => u32::from_be_bytes([0, *a, *b, *c]) as usize == content.len() - 4,
        _ => false,
    }
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
pub fn sealed_content(framing: Framing, record_type: u8, cbc_mac: u8, input: &[u8]) -> &[u8] {
    match framing {
        Framing::Cbc => cbc_content(cbc_mac, input),
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
            Framing::Cbc => core::slice::from_raw_parts(out.add(IV), length),
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
        assert_eq!(sealed_content(Framing::Nonce12, 23, 0, &record), b"hello");
        assert!(sealed_content(Framing::Nonce12, 22, 0, &record).is_empty());
        assert!(sealed_content(Framing::Nonce12, 23, 0, &record[..20]).is_empty());
    }

    #[test]
    fn content_of_cbc_records() {
        let after = [&[9u8; IV][..], b"hello"].concat();
        assert_eq!(sealed_content(Framing::Cbc, 0, ENCRYPT_THEN_MAC, &after), b"hello");
        // MAC then encrypt: 16 + 5 + 20, and 7 bytes of padding that each say 6.
        let before = [&[9u8; IV][..], b"hello", &[8; 20], &[6; 7]].concat();
        assert_eq!(sealed_content(Framing::Cbc, 0, 20, &before), b"hello");
        assert!(sealed_content(Framing::Cbc, 0, 48, &before[..20]).is_empty());
        assert!(may_be_no_data(&[1, 0]) && may_be_no_data(&[0; 4]) && may_be_no_data(&[1, 0, 0, 2, 3, 3]));
        assert!(!may_be_no_data(b"hello") && !may_be_no_data(&[1, 0, 0, 9, 3, 3]));
    }
}
