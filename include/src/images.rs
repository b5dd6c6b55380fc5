//! Libraries that decode and encode pictures, as they are called when a process has loaded them.
//!
//! The shim says which of them are loaded, a bit each in this order ([`crate::record::About::ImageLibraries`]); the daemon
//! turns the bits into names.

/// A library's name, and what the names of its files begin with.
pub const LIBRARIES: &[(&str, &[&str])] = &[
    ("libjpeg", &["libjpeg.", "libjpeg-", "libturbojpeg"]),
    ("libpng", &["libpng1", "libpng.", "libpng-"]),
    ("libtiff", &["libtiff.", "libtiff-"]),
    ("libgif", &["libgif.", "libungif"]),
    ("libwebp", &["libwebp.", "libwebp-"]),
    ("libopenjp2", &["libopenjp2"]),
    ("libheif", &["libheif"]),
    ("libavif", &["libavif"]),
    ("Pillow", &["_imaging."]),
    ("OpenCV", &["libopencv_", "cv2."]),
    ("ImageMagick", &["libMagick"]),
    ("GraphicsMagick", &["libGraphicsMagick"]),
    ("gd", &["libgd."]),
    ("libvips", &["libvips"]),
    ("FreeImage", &["libfreeimage"]),
    ("Imlib2", &["libImlib2"]),
    ("gdk-pixbuf", &["libgdk_pixbuf"]),
    ("exiv2", &["libexiv2"]),
];

/// The bit of the library that this file is; 0: none of them. `file`: its name without the folder.
pub fn bit(file: &[u8]) -> u32 {
    let is = |starts: &[&str]| starts.iter().any(|start| file.starts_with(start.as_bytes()));
    LIBRARIES.iter().position(|(_, starts)| is(starts)).map_or(0, |at| 1 << at)
}

/// The names that these bits stand for.
pub fn names(bits: u32) -> impl Iterator<Item = &'static str> {
    LIBRARIES.iter().enumerate().filter(move |(at, _)| bits & 1 << at != 0).map(|(_, (name, _))| *name)
}

/// The name is that of a picture. Asked for each file that is opened, so in few instructions.
pub fn named(path: &[u8]) -> bool {
    const ENDS: [&[u8; 4]; 14] = [
        b".png", b".jpg", b"jpeg", b".jpe", b".gif", b".bmp", b"webp", b".tif", b"tiff", b"heic", b"heif",
        b"avif", b".jp2", b".jxl",
    ];
    let Some((rest, end)) = path.split_last_chunk::<4>() else { return false };
    // Sets the bit of lower case, and leaves a dot or digit as it is.
    let end = u32::from_ne_bytes(*end) | 0x2020_2020;
    let dot = end.to_ne_bytes()[0] == b'.' || rest.last() == Some(&b'.');
    dot && ENDS.iter().any(|known| u32::from_ne_bytes(**known) == end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_names() {
        for (file, name) in [
            (&b"libjpeg.so.62"[..], "libjpeg"),
            (b"libjpeg-ea50d3b6.so.62.4.0", "libjpeg"),
            (b"libpng16.so.16", "libpng"),
            (b"_imaging.cpython-311-x86_64-linux-gnu.so", "Pillow"),
            (b"cv2.abi3.so", "OpenCV"),
            (b"libMagickCore-6.Q16.so.6", "ImageMagick"),
        ] {
            assert!(names(bit(file)).eq([name]), "{name}");
        }
        assert_eq!(bit(b"libc.so.6") | bit(b"libpngwriter.so") | bit(b""), 0);
        assert!(LIBRARIES.len() <= 32);
    }

    #[test]
    fn pictures_by_name() {
        assert!(named(b"/a/b.JPG") && named(b"x.png") && named(b"/a/b.Jpeg") && named(b"a.jp2"));
        for other in [&b"/a/png"[..], b"/a.png/b", b"", b"/a/jpeg", b"/a/notes.txt", b"/a/b.xjpeg", b"png"] {
            assert!(!named(other), "{}", other.escape_ascii());
        }
    }
}
