//! How large a picture is: width and height, where its header says so.

use crate::record::Magic;

/// Width and height in pixels. None: it is no picture, or that stands beyond `content`.
pub fn of(magic: Magic, content: &[u8]) -> Option<(u32, u32)> {
    let (width, height) = match magic {
        Magic::Png => (big(content, 16)?, big(content, 20)?),
        Magic::Gif => (word(content, 6)?, word(content, 8)?),
        // A height below 0 says that the first line comes first.
        Magic::Bmp => (little(content, 18)?, little(content, 22)?.cast_signed().unsigned_abs()),
        Magic::Webp => webp(content)?,
        Magic::Jpeg => jpeg(content)?,
        _ => return None,
    };
    (width > 0 && height > 0).then_some((width, height))
}

fn bytes<const N: usize>(content: &[u8], at: usize) -> Option<[u8; N]> {
    content.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn big(content: &[u8], at: usize) -> Option<u32> {
    bytes(content, at).map(u32::from_be_bytes)
}

fn little(content: &[u8], at: usize) -> Option<u32> {
    bytes(content, at).map(u32::from_le_bytes)
}

fn word(content: &[u8], at: usize) -> Option<u32> {
    bytes(content, at).map(|two| u32::from(u16::from_le_bytes(two)))
}

/// RFC 9649: lossy, lossless, extended.
fn webp(content: &[u8]) -> Option<(u32, u32)> {
    let three = |at| bytes(content, at).map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]) + 1);
    match &bytes::<4>(content, 12)? {
        b"VP8 " => Some((word(content, 26)? & 0x3fff, word(content, 28)? & 0x3fff)),
        b"VP8L" => little(content, 21).map(|bits| ((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1)),
        b"VP8X" => Some((three(24)?, three(27)?)),
        _ => None,
    }
}

/// ITU T.81, B.2.2: a frame's header, behind other segments.
fn jpeg(content: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2usize;
    loop {
        while bytes(content, at)? == [0xff, 0xff] {
            at += 1;
        }
        let [0xff, marker] = bytes(content, at)? else { return None };
        let side = |at| bytes(content, at).map(|two| u32::from(u16::from_be_bytes(two)));
        match marker {
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                return Some((side(at + 7)?, side(at + 5)?));
            }
            0xd9 | 0xda => return None,
            0x01 | 0xd0..=0xd8 => at += 2,
            _ => at = at.checked_add(2)?.checked_add(side(at + 2)?.max(2) as usize)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01\x40\0\0\0\xf0";
        assert_eq!(of(Magic::Png, png), Some((320, 240)));
        assert_eq!(of(Magic::Gif, b"GIF89a\x40\x01\xf0\0"), Some((320, 240)));
        let mut bmp = [0; 26];
        bmp[18..22].copy_from_slice(&320u32.to_le_bytes());
        bmp[22..].copy_from_slice(&(-240i32).to_le_bytes());
        assert_eq!(of(Magic::Bmp, &bmp), Some((320, 240)));
        let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xc2\0\x11\x08\0\xf0\x01\x40\x03";
        assert_eq!(of(Magic::Jpeg, jpeg), Some((320, 240)));
        let webp = b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0\x3f\x01\0\xef\0\0";
        assert_eq!(of(Magic::Webp, webp), Some((320, 240)));
    }

    #[test]
    fn what_is_cut_off_or_odd_has_none() {
        for cut in 0..19 {
            let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xc2\0\x11\x08\0\xf0\x01\x40\x03";
            assert_eq!(of(Magic::Jpeg, &jpeg[..cut.min(16)]), None, "{cut}");
        }
        assert_eq!(of(Magic::Jpeg, b"\xff\xd8\xff\xe0\xff\xff"), None);
        assert_eq!(of(Magic::Jpeg, &[0xff; 64]), None);
        assert_eq!(of(Magic::Png, b"\x89PNG\r\n\x1a\n"), None);
        assert_eq!(of(Magic::Gif, b"GIF89a\0\0\0\0"), None);
        assert_eq!(of(Magic::Mp4, &[1; 64]), None);
    }
}
