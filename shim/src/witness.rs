//! Where in a cipher call's buffer the content of a TLS record stands.
//!
//! TLS 1.3 (RFC 8446, 5.2): content, one byte of type, zeros. TLS 1.2 AEAD as OpenSSL drives it:
//! GCM and CCM 8 bytes of explicit nonce, content, tag; ChaCha20-Poly1305 content, tag (RFC 5288,
//! 6655, 7905). CBC: a 16-byte IV, content, and where the MAC comes first (no RFC 7366) MAC and
//! padding; how long the MAC is shows in the length of our own Finished, whose content is 16 bytes
//! always. Handshake and alert records are no content.

use crate::objects::Object;
use crate::openssl::{CipherContext, OpenSsl};
use crate::thread::Head;
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
/// The cipher makes the MAC, too, and is told of each record's length.
const STITCHED: u8 = 2;
/// The cipher adds the padding by itself (OpenSSL 3); the other bits are the MAC's length.
const UNPADDED: u8 = 0x80;
/// A Finished (RFC 5246, 7.4.9).
const FINISHED: [u8; 4] = [20, 0, 0, 12];

/// This session's long writes are sealed as several records in one go, with this context. Only stitched ciphers do.
pub fn follows_several(object: &Object, context: *const CipherContext) -> bool {
    let follows = object.tls.witness_off.load(Ordering::Relaxed) == 0
        && object.tls.cbc_mac.load(Ordering::Relaxed) == STITCHED;
    if follows {
        object.tls.seal_context.store(context.addr() as u64 | Framing::Cbc as u64, Ordering::Relaxed);
    } else {
        object.tls.witness_off.store(1, Ordering::Relaxed);
    }
    follows
}

/// During a handshake: our Finished, sealed with CBC, tells what comes behind the content.
pub fn learn_cbc(object: &Object, head: Head, input: &[u8]) {
    if let Some(rest) = input.get(IV..).filter(|rest| rest.starts_with(&FINISHED)) {
        object.tls.cbc_mac.store(behind_finished(head, rest), Ordering::Relaxed);
    }
}

/// What stands behind the 16 bytes of a Finished; 0: nothing that is known.
fn behind_finished(head: Head, record: &[u8]) -> u8 {
    let behind = record.get(16..).unwrap_or_default();
    let is_mac = |&length: &usize| matches!(length, 20 | 32 | 48);
    if head.length != 0 {
        return STITCHED;
    }
    if behind.is_empty() {
        return ENCRYPT_THEN_MAC;
    }
    let padded = unpadded(behind).map(<[u8]>::len).filter(is_mac).map(|mac| mac as u8);
    let plain = Some(behind.len()).filter(is_mac).map(|mac| mac as u8 | UNPADDED);
    padded.or(plain).unwrap_or(0)
}

/// Without the padding, if it is one: so many bytes and one more, that each say how many.
fn unpadded(bytes: &[u8]) -> Option<&[u8]> {
    let &count = bytes.last()?;
    let at = bytes.len().checked_sub(usize::from(count) + 1)?;
    bytes[at..].iter().all(|&b| b == count).then(|| &bytes[..at])
}

/// The content of a record that CBC is about to seal; None: it is not as it was learnt.
fn cbc_content(mac: u8, head: Head, input: &[u8]) -> Option<&[u8]> {
    match mac {
        STITCHED => input.get(IV..usize::from(head.length)),
        ENCRYPT_THEN_MAC => input.get(IV..),
        mac if mac & UNPADDED != 0 => input.get(IV..input.len().checked_sub(usize::from(mac & !UNPADDED))?),
        mac => {
            let rest = unpadded(input)?;
            rest.get(IV..rest.len().checked_sub(usize::from(mac))?)
        }
    }
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
pub fn sealed_content(framing: Framing, head: Head, cbc_mac: u8, input: &[u8]) -> &[u8] {
    let tag = usize::from(head.behind);
    let before_tag = |from: usize| input.get(from..input.len().saturating_sub(tag));
    let content = match framing {
        Framing::Cbc => cbc_content(cbc_mac, head, input),
        Framing::Tls13 => Some(inner(input)),
        Framing::Nonce12 if is_data(head.kind) => before_tag(NONCE),
        Framing::Plain12 if is_data(head.kind) => before_tag(0),
        _ => None,
    };
    content.unwrap_or_default()
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
        let head = |kind, behind| Head { kind, behind, length: 0 };
        assert_eq!(sealed_content(Framing::Nonce12, head(23, 16), 0, &record), b"hello");
        assert_eq!(sealed_content(Framing::Nonce12, head(23, 8), 0, &record[..21]), b"hello", "CCM_8");
        assert!(sealed_content(Framing::Nonce12, head(22, 16), 0, &record).is_empty());
        assert!(sealed_content(Framing::Nonce12, head(23, 16), 0, &record[..20]).is_empty());
        assert_eq!(sealed_content(Framing::Plain12, head(23, 16), 0, &record[8..]), b"hello");
    }

    /// What is learnt from a Finished with so many bytes of MAC behind it, and of padding.
    fn learnt(head: Head, mac: usize, padding: &[u8]) -> u8 {
        behind_finished(head, &[&FINISHED[..], &[5; 12], &vec![0xa5; mac], padding].concat())
    }

    #[test]
    fn content_of_cbc_records() {
        const NONE: Head = Head { kind: 0, behind: 0, length: 0 };
        let stitched = Head { kind: 22, behind: 32, length: 32 };
        assert_eq!(learnt(NONE, 0, &[]), ENCRYPT_THEN_MAC);
        assert_eq!(learnt(stitched, 20, &[0; 12]), STITCHED);
        // As long, all of them.
        assert_eq!(learnt(NONE, 20, &[11; 12]), 20, "OpenSSL 1.1, SHA-1");
        assert_eq!(learnt(NONE, 32, &[]), 32 | UNPADDED, "OpenSSL 3, SHA-256");
        assert_eq!(learnt(NONE, 48, &[15; 16]), 48);
        assert_eq!(learnt(NONE, 48, &[]), 48 | UNPADDED);
        assert_eq!(learnt(NONE, 21, &[]), 0);
        let content = |mac, head, behind: &[u8]| {
            sealed_content(Framing::Cbc, head, mac, &[&[9; IV][..], b"hello", behind].concat()).to_vec()
        };
        assert_eq!(content(ENCRYPT_THEN_MAC, NONE, &[]), b"hello");
        // MAC then encrypt: 16 + 5 + 20, and 7 bytes of padding that each say 6.
        assert_eq!(content(20, NONE, &[&[8; 20][..], &[6; 7]].concat()), b"hello");
        assert!(content(20, NONE, &[&[8; 20][..], &[7; 7]].concat()).is_empty(), "no padding");
        assert_eq!(content(32 | UNPADDED, NONE, &[7; 32]), b"hello");
        assert_eq!(content(STITCHED, Head { kind: 23, behind: 27, length: 21 }, &[1; 27]), b"hello");
        assert!(sealed_content(Framing::Cbc, NONE, 48, &[9; 20]).is_empty());
        assert!(may_be_no_data(&[1, 0]) && may_be_no_data(&[0; 4]) && may_be_no_data(&[1, 0, 0, 2, 3, 3]));
        assert!(!may_be_no_data(b"hello") && !may_be_no_data(&[1, 0, 0, 9, 3, 3]));
    }
}
