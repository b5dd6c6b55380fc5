//! What content's first bytes say it is.
//!
//! Numbers come from the formats' specifications; where a format's mark is short or printable, a field behind it
//! must fit, too, so that a text that begins with `ID3` or `BM` stays text.

use crate::record::Magic;

/// By marks that are hardly there by chance. `head`: up to [`super::HEAD`] bytes.
pub fn of(head: &[u8]) -> Option<Magic> {
    sealed(head)
        .or_else(|| archive(head))
        .or_else(|| picture(head))
        .or_else(|| sound(head))
        .or_else(|| video(head))
        .or_else(|| program(head))
}

/// By short marks: only for what is no text.
pub(super) fn weak(head: &[u8]) -> Option<Magic> {
    Some(match head {
        // RFC 1950: 32 KiB window, and the two bytes are a multiple of 31.
        [0x78, flags, ..] if (0x7800 + u16::from(*flags)) % 31 == 0 => Magic::Zlib,
        [0x1f, 0x9d | 0xa0 | 0x1e, ..] => Magic::Archive,
        [b'M', b'Z', ..] => Magic::Program,
        [0x0a, 0..=5, 0..=1, 1 | 2 | 4 | 8, ..] => Magic::Picture,
        [0x60, 0xea, ..] => Magic::Archive,
        [0x0b, 0x77, ..] => Magic::Sound,
        _ if frames(head, mp3_frame) => Magic::Mp3,
        _ if frames(head, adts_frame) => Magic::Aac,
        _ => return None,
    })
}

fn at(head: &[u8], offset: usize, mark: &[u8]) -> bool {
    head.get(offset..).is_some_and(|rest| rest.starts_with(mark))
}

/// The first that `head` begins with.
fn begins(head: &[u8], marks: &[(&[u8], Magic)]) -> Option<Magic> {
    marks.iter().find(|(mark, _)| head.starts_with(mark)).map(|&(_, magic)| magic)
}

fn sealed(head: &[u8]) -> Option<Magic> {
    const MARKS: &[(&[u8], Magic)] = &[
        (b"Salted__", Magic::Salted),
        (b"U2FsdGVkX1", Magic::Salted),
        (b"age-encryption.org/v", Magic::Age),
        (b"-----BEGIN AGE ENCRYPTED FILE-----", Magic::Age),
        (b"-----BEGIN PGP MESSAGE-----", Magic::OpenPgp),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", Magic::Vault),
        (b"-----BEGIN CMS-----", Magic::Vault),
        (b"$ANSIBLE_VAULT;", Magic::Vault),
        (b"LUKS\xba\xbe", Magic::Luks),
        (b"SSH-2.0-", Magic::Ssh),
        (b"SSH-1.99-", Magic::Ssh),
        (b"\x03\xd9\xa2\x9a", Magic::Vault),
        (b"\xeb\x58\x90-FVE-FS-", Magic::Vault),
        (b"RCLONE\0\0", Magic::Vault),
    ];
    if let Some(magic) = begins(head, MARKS) {
        return Some(magic);
    }
    match head {
        // RFC 8446, 5.1: type, version, length of at most 2^14 + 256; a handshake begins with a hello.
        [0x16, 3, 0..=4, high, _, 1 | 2, 0, ..] if *high <= 0x41 => return Some(Magic::Tls),
        [0x17, 3, 3, high, _, ..] if *high <= 0x41 => return Some(Magic::Tls),
        // A zip's first member: bit 0 of the flags says that it is encrypted.
        [b'P', b'K', 3, 4, _, _, flags, ..] if flags & 1 != 0 => return Some(Magic::Locked),
        _ => {}
    }
    // RAR 4: headers encrypted; RAR 5: an encryption header comes first.
    if at(head, 0, b"Rar!\x1a\x07\0") && head.get(10).is_some_and(|flags| flags & 0x80 != 0)
        || at(head, 0, b"Rar!\x1a\x07\x01\0") && head.get(13) == Some(&4)
    {
        return Some(Magic::Locked);
    }
    openpgp(head).then_some(Magic::OpenPgp)
}

/// RFC 9580: a session key's packet, for a public key (tag 1, version 3 or 6) or a passphrase (tag 3, version 4 to 6).
fn openpgp(head: &[u8]) -> bool {
    let (tag, body) = match head {
        [0x84, _, body @ ..] => (1, body),
        [0x85, _, _, body @ ..] => (1, body),
        [0x8c, _, body @ ..] => (3, body),
        [0xc1, 192..=223, _, body @ ..] => (1, body),
        [0xc1, 0..=191, body @ ..] => (1, body),
        [0xc3, 0..=191, body @ ..] => (3, body),
        _ => return false,
    };
    match (tag, body) {
        (1, [3, ..]) => matches!(body.get(9), Some(1 | 2 | 16 | 18 | 25 | 26)),
        (3, [4, 1..=13, 0 | 1 | 3 | 4, 1..=14, ..]) => true,
        (3, [5, 7..=13, 1..=3, 0 | 1 | 3 | 4, ..]) => true,
        _ => false,
    }
}

fn archive(head: &[u8]) -> Option<Magic> {
    const MARKS: &[(&[u8], Magic)] = &[
        (b"\x1f\x8b\x08", Magic::Gzip),
        (b"\xfd7zXZ\0", Magic::Xz),
        (b"\x28\xb5\x2f\xfd", Magic::Zstd),
        (b"\x04\x22\x4d\x18", Magic::Lz4),
        (b"\x02\x21\x4c\x18", Magic::Lz4),
        (b"\x89LZO\0\r\n\x1a\n", Magic::Archive),
        (b"LZIP\x01", Magic::Lzma),
        (b"LRZI\0", Magic::Archive),
        (b"7z\xbc\xaf\x27\x1c", Magic::SevenZip),
        (b"PK\x03\x04", Magic::Zip),
        (b"PK\x05\x06", Magic::Zip),
        (b"PK\x07\x08", Magic::Zip),
        (b"Rar!\x1a\x07", Magic::Rar),
        (b"MSCF\0\0\0\0", Magic::Archive),
        (b"MSWIM\0\0\0", Magic::Archive),
        (b"xar!\0", Magic::Archive),
        (b"hsqs", Magic::Archive),
        (b"\xff\x06\0\0sNaPpY", Magic::Archive),
        (b"7kSt\xa0\x31\x83", Magic::Archive),
        (b"PACK\0\0\0\x02", Magic::Archive),
        (b"!<arch>\ndebian", Magic::Package),
        (b"\xed\xab\xee\xdb", Magic::Package),
        (b"wOF2", Magic::Font),
    ];
    if let Some(magic) = begins(head, MARKS) {
        return Some(magic);
    }
    match head {
        [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..]
            if rest.starts_with(b"1AY&SY") || rest.starts_with(b"\x17\x72\x45\x38\x50\x90") =>
        {
            Some(Magic::Bzip2)
        }
        // A skippable frame of zstd.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Magic::Zstd),
        // .lzma: properties, a dictionary of a power of two (or three halves), a length that is known or not.
        [0x5d, 0, 0, dictionary @ ..] if lzma(dictionary) => Some(Magic::Lzma),
        [_, _, b'-', b'l', b'h' | b'z', b'0'..=b'9' | b'd' | b's', b'-', ..] => Some(Magic::Archive),
        _ => None,
    }
}

fn lzma(rest: &[u8]) -> bool {
    let Some(&[_, high, a, b, c, d, e, f, g, h]) = rest.first_chunk::<10>() else { return false };
    let length = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    high <= 0x40 && (length == u64::MAX || length < 1 << 40)
}

fn picture(head: &[u8]) -> Option<Magic> {
    const MARKS: &[(&[u8], Magic)] = &[
        (b"\x89PNG\r\n\x1a\n", Magic::Png),
        (b"\x8aMNG\r\n\x1a\n", Magic::Picture),
        (b"\x8bJNG\r\n\x1a\n", Magic::Picture),
        (b"GIF87a", Magic::Gif),
        (b"GIF89a", Magic::Gif),
        (b"II*\0", Magic::Tiff),
        (b"MM\0*", Magic::Tiff),
        (b"II+\0", Magic::Tiff),
        (b"MM\0+", Magic::Tiff),
        (b"IIRO", Magic::Tiff),
        (b"8BPS\0\x01", Magic::Psd),
        (b"8BPS\0\x02", Magic::Psd),
        (b"gimp xcf ", Magic::Picture),
        (b"\0\0\0\x0cjP  \r\n\x87\n", Magic::Jpeg2000),
        (b"\xff\x4f\xff\x51", Magic::Jpeg2000),
        (b"\0\0\0\x0cJXL \r\n\x87\n", Magic::Jpeg2000),
        (b"\x76\x2f\x31\x01", Magic::Picture),
        (b"#?RADIANCE\n", Magic::Picture),
        (b"DDS |\0\0\0", Magic::Picture),
        (b"SIMPLE  =                    T", Magic::Picture),
        (b"\xd7\xcd\xc6\x9a", Magic::Picture),
        (b"AT&TFORM", Magic::Picture),
        (b"FUJIFILMCCD-RAW", Magic::Picture),
    ];
    if let Some(magic) = begins(head, MARKS) {
        return Some(magic);
    }
    match head {
        [0xff, 0xd8, 0xff, 0xc0..=0xfe, ..] => Some(Magic::Jpeg),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Magic::Webp),
        // The sizes that BITMAPINFOHEADERs have, and two bytes that are always zero.
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, _, _, _, _, 12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0, ..] => {
            Some(Magic::Bmp)
        }
        [0, 0, 1 | 2, 0, 1..=64, 0, width, _, _, 0, ..] if width % 8 == 0 => Some(Magic::Ico),
        [b'P', b'1'..=b'6', b'\n' | b' ' | b'\r' | b'\t', b'0'..=b'9' | b'#', ..] => Some(Magic::Pnm),
        [b'P', b'7', b'\n', b'W' | b'H' | b'D' | b'#', ..] => Some(Magic::Pnm),
        _ if at(head, 128, b"DICM") => Some(Magic::Picture),
        _ if at(head, 4, b"ftyp")
            && [&b"heic"[..], b"heix", b"heif", b"mif1", b"msf1", b"avif", b"avis", b"crx "]
                .iter()
                .any(|brand| at(head, 8, brand)) =>
        {
            Some(Magic::Heif)
        }
        _ => None,
    }
}

fn sound(head: &[u8]) -> Option<Magic> {
    const MARKS: &[(&[u8], Magic)] = &[
        (b"fLaC\0", Magic::Flac),
        (b"fLaC\x80", Magic::Flac),
        (b"OggS\0", Magic::Ogg),
        (b"MThd\0\0\0\x06", Magic::Midi),
        (b"MAC \x96\x0f", Magic::Sound),
        (b"MPCKSH", Magic::Sound),
        (b"wvpk", Magic::Sound),
        (b"TTA1", Magic::Sound),
        (b"TTA2", Magic::Sound),
        (b"tBaK", Magic::Sound),
        (b"DSD \x1c\0\0\0", Magic::Sound),
        (b"FRM8\0\0\0", Magic::Sound),
        (b"#!AMR\n", Magic::Sound),
        (b"#!AMR-WB\n", Magic::Sound),
        (b".snd\0\0\0", Magic::Sound),
        (b"caff\0\x01", Magic::Sound),
        (b"Extended Module: ", Magic::Sound),
        (b"ADIF", Magic::Aac),
    ];
    if let Some(magic) = begins(head, MARKS) {
        return Some(magic);
    }
    match head {
        [b'I', b'D', b'3', 2..=4, 0, flags, a, b, c, d, ..]
            if flags & 0x0f == 0 && (a | b | c | d) & 0x80 == 0 =>
        {
            Some(Magic::Mp3)
        }
        [b'R', b'I', b'F', b'F' | b'X', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Some(Magic::Wav),
        [b'R', b'F', b'6', b'4', 0xff, 0xff, 0xff, 0xff, b'W', b'A', b'V', b'E', ..] => Some(Magic::Wav),
        [b'F', b'O', b'R', b'M', _, _, _, _, b'A', b'I', b'F', b'F' | b'C', ..] => Some(Magic::Aiff),
        [b'M', b'P', b'+', 7 | 0x17, ..] => Some(Magic::Sound),
        [b'M', b'A', b'C', b' ', low, 0x0c..=0x0f, ..] if *low != b' ' => Some(Magic::Sound),
        [b'O', b'F', b'R', b' ', _, 0, 0, 0, ..] => Some(Magic::Sound),
        _ => None,
    }
}

fn video(head: &[u8]) -> Option<Magic> {
    const MARKS: &[(&[u8], Magic)] = &[
        (b"\x1a\x45\xdf\xa3", Magic::Matroska),
        (b"\0\0\x01\xba", Magic::Mpeg),
        (b"\0\0\x01\xb3", Magic::Mpeg),
        (b"FLV\x01", Magic::Video),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Magic::Video),
        (b".RMF\0\0\0", Magic::Video),
        (b"DKIF\0\0", Magic::Video),
        (b"YUV4MPEG2 ", Magic::Video),
    ];
    if let Some(magic) = begins(head, MARKS) {
        return Some(magic);
    }
    const ATOMS: [&[u8]; 6] = [b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"];
    match head {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'A', b'V', b'I', b' ', ..] => Some(Magic::Avi),
        [0, _, _, _, ..] if ATOMS.iter().any(|atom| at(head, 4, atom)) => Some(Magic::Mp4),
        // A transport stream's packets begin so, each 188 bytes.
        [0x47, ..] if head.get(188) == Some(&0x47) && head.get(376) == Some(&0x47) => Some(Magic::Mpeg),
        _ => None,
    }
}

fn program(head: &[u8]) -> Option<Magic> {
    const MARKS: &[(&[u8], Magic)] = &[
        (b"\x7fELF\x01", Magic::Elf),
        (b"\x7fELF\x02", Magic::Elf),
        (b"\xca\xfe\xba\xbe", Magic::Program),
        (b"\xcf\xfa\xed\xfe", Magic::Program),
        (b"\xce\xfa\xed\xfe", Magic::Program),
        (b"\0asm\x01\0\0\0", Magic::Program),
        (b"%PDF-", Magic::Pdf),
        (b"!<arch>\n", Magic::Ar),
        (b"SQLite format 3\0", Magic::Sqlite),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Magic::Ole),
        (b"OTTO\0", Magic::Font),
        (b"\0\x01\0\0\0", Magic::Font),
        (b"wOFF\0\x01\0\0", Magic::Font),
        (b"\xd4\xc3\xb2\xa1\x02\0", Magic::Pcap),
        (b"\xa1\xb2\xc3\xd4\0\x02", Magic::Pcap),
        (b"\x0a\x0d\x0d\x0a", Magic::Pcap),
    ];
    begins(head, MARKS).or_else(|| at(head, 257, b"ustar").then_some(Magic::Tar))
}

/// The first frame is one, and so is what its length leads to, as far as `head` goes.
fn frames(head: &[u8], length: fn(&[u8]) -> Option<usize>) -> bool {
    let (mut from, mut seen) = (0, 0);
    while seen < 3 {
        let Some(rest) = head.get(from..).filter(|rest| rest.len() >= 6) else { break };
        let Some(frame) = length(rest) else { return false };
        from += frame;
        seen += 1;
    }
    // One alone is two bytes that fit by chance; but at the highest rates a frame is longer than a head.
    seen > 1 || seen == 1 && from > 1000 && head.len() >= super::HEAD
}

/// ISO 11172-3, 2.4.1.3: a frame of MPEG audio, in bytes.
fn mp3_frame(head: &[u8]) -> Option<usize> {
    const RATES: [[u32; 16]; 5] = [
        [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448, 0],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 0],
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256, 0],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0],
    ];
    let &[0xff, second, third, ..] = head else { return None };
    let (version, layer) = (second >> 3 & 3, second >> 1 & 3);
    if second < 0xe0 || version == 1 || layer == 0 {
        return None;
    }
    let table = match (version, layer) {
        (3, 3) => 0,
        (3, 2) => 1,
        (3, _) => 2,
        (_, 3) => 3,
        _ => 4,
    };
    let rate = RATES[table][usize::from(third >> 4)] * 1000;
    let divide = match version {
        3 => 1,
        2 => 2,
        _ => 4,
    };
    let sampling = [44_100, 48_000, 32_000, 0][usize::from(third >> 2 & 3)] / divide;
    if rate == 0 || sampling == 0 {
        return None;
    }
    let padding = u32::from(third >> 1 & 1);
    let bytes = match (version, layer) {
        (_, 3) => (12 * rate / sampling + padding) * 4,
        (3, _) | (_, 2) => 144 * rate / sampling + padding,
        _ => 72 * rate / sampling + padding,
    };
    Some(bytes as usize)
}

/// ISO 13818-7, 6.2: an ADTS frame, in bytes.
fn adts_frame(head: &[u8]) -> Option<usize> {
    let &[0xff, 0xf0 | 0xf1 | 0xf8 | 0xf9, third, fourth, fifth, sixth, ..] = head else { return None };
    let length = usize::from(fourth & 3) << 11 | usize::from(fifth) << 3 | usize::from(sixth >> 5);
    (third >> 2 & 15 < 13 && length > 7).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_begin_like_others() {
        for text in [
            "ID3 tags are …",
            "BMW",
            "PK means …",
            "RIFF raff",
            "MAC address",
            "P5 is next",
            "7z l",
            "Rar",
            "II. Kapitel",
        ] {
            assert_eq!(of(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn frames_follow_each_other() {
        let mut sound = [0u8; 1024];
        for at in [0, 417, 834] {
            sound[at..at + 3].copy_from_slice(&[0xff, 0xfb, 0x90]);
        }
        assert_eq!(weak(&sound), Some(Magic::Mp3));
        sound[418] = 0;
        assert_eq!(weak(&sound), None);
    }

    #[test]
    fn ciphertext_that_says_so() {
        for (head, magic) in [
            (&b"\x8c\x0d\x04\x09\x03\x08"[..], Magic::OpenPgp),
            (b"\x85\x01\x0c\x03\x01\x02\x03\x04\x05\x06\x07\x08\x01", Magic::OpenPgp),
            (b"PK\x03\x04\x14\0\x09\0", Magic::Locked),
            (b"\x16\x03\x01\x02\0\x01\0\x01", Magic::Tls),
        ] {
            assert_eq!(of(head), Some(magic));
        }
        assert_eq!(of(b"PK\x03\x04\x14\0\x08\0"), Some(Magic::Zip));
    }
}
