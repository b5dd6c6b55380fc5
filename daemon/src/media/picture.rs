//! Where a picture ends, and what stands behind that; whether a name fits what is in the file.
//!
//! Comes in: a file's bytes, its name. Goes out: the offset behind its last byte. Pure functions over what may be
//! anything: a length that leads nowhere is no end.
#![forbid(unsafe_code)]

use counterfoil_abi::class::magic_of;
use counterfoil_abi::record::Magic;

/// Bytes behind a picture's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Where they begin.
    pub at: u64,
    /// How many.
    pub bytes: u64,
    /// What they say they are.
    pub magic: Option<Magic>,
}

/// What stands behind the end of the picture or sound that `content` is. None: nothing, or it is none whose end can be told.
#[must_use]
pub fn behind(content: &[u8]) -> Option<Behind> {
    let end = match magic_of(content)? {
        Magic::Png => png(content),
        Magic::Jpeg => jpeg(content),
        Magic::Gif => gif(content),
        Magic::Bmp => Some(number(content, 2)?).filter(|&size| size > 54),
        Magic::Webp | Magic::Wav | Magic::Avi => number(content, 4)?.checked_add(8).map(|n| n + n % 2),
        _ => None,
    }?;
    let rest = content.get(end..).filter(|rest| !rest.is_empty())?;
    // What cameras put there: a second, smaller picture (CIPA DC-007), Samsung's trailer, padding.
    let usual = rest.starts_with(b"\xff\xd8\xff")
        || rest.ends_with(b"SEFT")
        || rest.iter().all(|&b| b == 0 || b == 0xff || b == b'\n' || b == b'\r' || b == b' ');
    (!usual).then(|| Behind { at: end as u64, bytes: rest.len() as u64, magic: magic_of(rest) })
}

/// A length of four bytes, least first.
fn number(content: &[u8], at: usize) -> Option<usize> {
    let bytes = content.get(at..at + 4)?;
    usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
}

/// PNG, 5.3: length, type, data, check sum; the last one is IEND.
fn png(content: &[u8]) -> Option<usize> {
    let mut at = 8usize;
    loop {
        let head = content.get(at..at.checked_add(8)?)?;
        let length = u32::from_be_bytes(head[..4].try_into().ok()?);
        at = at.checked_add(12)?.checked_add(usize::try_from(length).ok()?)?;
        if &head[4..] == b"IEND" {
            return Some(at).filter(|&at| at <= content.len());
        }
    }
}

/// ITU T.81, B.1: segments with a length, and behind each SOS coded data in which 0xFF is followed by 0 or a restart.
fn jpeg(content: &[u8]) -> Option<usize> {
    let mut at = 2;
    loop {
        while content.get(at) == Some(&0xff) && content.get(at + 1) == Some(&0xff) {
            at += 1;
        }
        let &[0xff, marker] = content.get(at..at + 2)? else { return None };
        match marker {
            0xd9 => return Some(at + 2),
            0x01 | 0xd0..=0xd8 => at += 2,
            _ => {
                let length = content.get(at + 2..at + 4)?;
                let length = usize::from(u16::from_be_bytes(length.try_into().ok()?));
                at += 2 + length.max(2);
                if marker == 0xda {
                    let data = content.get(at..)?;
                    let end = data
                        .windows(2)
                        .position(|w| w[0] == 0xff && !matches!(w[1], 0 | 0xd0..=0xd7 | 0xff))?;
                    at += end;
                }
            }
        }
    }
}

/// GIF89a: a screen, then blocks of up to 255 bytes, up to the trailer.
fn gif(content: &[u8]) -> Option<usize> {
    let table = |flags: u8| if flags & 0x80 != 0 { 3 << ((flags & 7) + 1) } else { 0 };
    let mut at = 13 + table(*content.get(10)?);
    loop {
        match *content.get(at)? {
            0x3b => return Some(at + 1),
            0x21 => at += 2,
            0x2c => at += 11 + table(*content.get(at + 9)?),
            _ => return None,
        }
        loop {
            let length = usize::from(*content.get(at)?);
            at += 1 + length;
            if length == 0 {
                break;
            }
        }
    }
}

/// What a file's name says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Media,
    Other,
    Nothing,
}

const MEDIA: &[&str] = &[
    "png", "jpg", "jpeg", "jpe", "jfif", "gif", "bmp", "dib", "webp", "tif", "tiff", "heic", "heif", "avif",
    "pnm", "pbm", "pgm", "ppm", "ico", "cur", "psd", "xcf", "jp2", "jxl", "exr", "mp3", "mp2", "flac", "wav",
    "ogg", "oga", "opus", "aac", "m4a", "aif", "aiff", "mid", "midi", "ape", "wma", "au", "mp4", "m4v",
    "mov", "3gp", "mkv", "webm", "avi", "mpg", "mpeg", "flv", "wmv", "ogv",
];
const OTHER: &[&str] = &[
    "txt", "log", "csv", "json", "xml", "html", "htm", "conf", "ini", "md", "doc", "docx", "xls", "xlsx",
    "pdf", "zip", "gz", "7z", "exe", "dll", "so", "sh", "py", "pl", "js", "sql", "db",
];

fn says(path: &str) -> Says {
    let name = path.rsplit('/').next().unwrap_or(path);
    let Some((stem, end)) = name.rsplit_once('.') else { return Says::Nothing };
    let end = end.to_ascii_lowercase();
    match () {
        () if stem.is_empty() => Says::Nothing,
        () if MEDIA.contains(&&*end) => Says::Media,
        () if OTHER.contains(&&*end) => Says::Other,
        () => Says::Nothing,
    }
}

/// The name is that of a media file.
#[must_use]
pub fn named(path: &str) -> bool {
    says(path) == Says::Media
}

/// The name says something else than the content. Another format of media is none: cameras and phones get it wrong, too.
#[must_use]
pub fn disagree(path: &str, media: bool, telling: bool) -> bool {
    match says(path) {
        Says::Media => !media && telling,
        Says::Other => media,
        Says::Nothing => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png() -> Vec<u8> {
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        for (kind, data) in [(b"IHDR", &[0u8; 13][..]), (b"IDAT", &[7; 100]), (b"IEND", &[])] {
            png.extend((data.len() as u32).to_be_bytes());
            png.extend(kind);
            png.extend(data);
            png.extend([0; 4]);
        }
        png
    }

    #[test]
    fn behind_a_png() {
        let mut png = png();
        let end = png.len() as u64;
        assert_eq!(behind(&png), None);
        png.extend(b"PK\x03\x04\x14\0\0\0");
        assert_eq!(behind(&png), Some(Behind { at: end, bytes: 8, magic: Some(Magic::Zip) }));
        let cut = &png[..60];
        assert_eq!(behind(cut), None, "it has no end");
    }

    #[test]
    fn behind_a_jpeg() {
        // Two scans, a stuffed 0xFF and a restart between.
        let jpeg =
            b"\xff\xd8\xff\xe0\0\x04ab\xff\xda\0\x02\x01\xff\0\x02\xff\xd0\x03\xff\xda\0\x02\x04\xff\xd9";
        assert_eq!(behind(jpeg), None);
        let with = |tail: &[u8]| [&jpeg[..], tail].concat();
        assert_eq!(behind(&with(b"#!/bin/sh")).map(|b| (b.at, b.bytes)), Some((jpeg.len() as u64, 9)));
        assert_eq!(behind(&with(b"\xff\xd8\xff\xe1\0\x02")), None, "a camera's preview");
        assert_eq!(behind(&with(&[0; 500])), None, "padding");
    }

    #[test]
    fn behind_others() {
        let gif =
            b"GIF89a\x01\0\x01\0\x80\0\0abcdef\x21\xf9\x01x\0\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02ab\0\x3b";
        assert_eq!(behind(gif), None);
        assert_eq!(behind(&[&gif[..], b"more"].concat()).map(|b| b.bytes), Some(4));
        let mut wav = b"RIFF\x08\0\0\0WAVEfmt ".to_vec();
        assert_eq!(behind(&wav), None);
        wav.extend(b"tail");
        assert_eq!(behind(&wav).map(|b| (b.at, b.bytes)), Some((16, 4)));
        for any in
            [&b"RIFF\xff\xff\xff\xffWAVEfmt "[..], b"\xff\xd8\xff\xe0\xff\xff", b"GIF89a", b"BM", b"text"]
        {
            assert_eq!(behind(any), None);
        }
    }

    #[test]
    fn names() {
        assert!(disagree("/a/x.jpg", false, true) && !disagree("/a/x.jpg", true, true));
        assert!(!disagree("/a/x.jpg", false, false), "nobody knows what it is");
        assert!(disagree("/a/notes.txt", true, true) && !disagree("/cache/ab12", true, true));
        assert!(named("/A/B.JPG") && !named("/a/.png") && !named("/a/png"));
    }
}
