//! What kind of content a stream carries. The content itself stays in its process: only this leaves it.

use super::{Header, LINE};
use bytemuck::{Pod, Zeroable};

wire_enum! {
/// INTERFACE's `class`.
Class {
    /// Not a byte.
    Empty = 1 "empty",
    /// What people write: prose, source code, logs.
    Text = 2 "text",
    /// Text with a syntax that its beginning shows: JSON, XML, tables, settings, base64.
    Structured = 3 "structured",
    /// Archives and compressed streams.
    Compressed = 4 "compressed",
    /// Pictures, sound, video.
    Media = 5 "media",
    /// Ciphertext: it says so, or nothing tells it from random bytes.
    Encrypted = 6 "encrypted",
    /// Anything else.
    Binary = 7 "binary",
}
}

wire_enum! {
/// What the beginning of content says it is. Codes from 1 pictures, from 32 sound, from 64 video, from 96
/// compressed, from 144 ciphertext, from 176 others, from 224 text.
Magic {
    /// Portable Network Graphics.
    Png = 1 "png",
    /// JPEG, JFIF, Exif.
    Jpeg = 2 "jpeg",
    /// GIF.
    Gif = 3 "gif",
    /// Windows bitmap.
    Bmp = 4 "bmp",
    /// WebP.
    Webp = 5 "webp",
    /// TIFF, and camera formats built on it.
    Tiff = 6 "tiff",
    /// HEIF, AVIF.
    Heif = 7 "heif",
    /// PBM, PGM, PPM, PAM.
    Pnm = 8 "pnm",
    /// Icons and cursors.
    Ico = 9 "ico",
    /// Photoshop.
    Psd = 10 "psd",
    /// JPEG 2000, JPEG XL.
    Jpeg2000 = 11 "jpeg2000",
    /// Any other picture: PCX, XCF, OpenEXR, FITS, DICOM ….
    Picture = 12 "picture",
    /// MPEG audio, layers I to III.
    Mp3 = 32 "mp3",
    /// FLAC.
    Flac = 33 "flac",
    /// RIFF WAVE.
    Wav = 34 "wav",
    /// Ogg: Vorbis, Opus, Theora ….
    Ogg = 35 "ogg",
    /// AAC (ADTS).
    Aac = 36 "aac",
    /// AIFF.
    Aiff = 37 "aiff",
    /// MIDI.
    Midi = 38 "midi",
    /// Any other sound: APE, Musepack, WavPack, True Audio, DSD, AC-3, AMR ….
    Sound = 39 "sound",
    /// MP4, QuickTime, 3GP.
    Mp4 = 64 "mp4",
    /// Matroska, WebM.
    Matroska = 65 "matroska",
    /// AVI.
    Avi = 66 "avi",
    /// MPEG program, transport and video streams.
    Mpeg = 67 "mpeg",
    /// Any other video: Flash, ASF ….
    Video = 68 "video",
    /// gzip.
    Gzip = 96 "gzip",
    /// bzip2.
    Bzip2 = 97 "bzip2",
    /// xz.
    Xz = 98 "xz",
    /// Zstandard.
    Zstd = 99 "zstd",
    /// LZ4.
    Lz4 = 100 "lz4",
    /// .lzma, lzip.
    Lzma = 101 "lzma",
    /// zip, and what is built on it: jar, docx, odt ….
    Zip = 102 "zip",
    /// 7z.
    SevenZip = 103 "7z",
    /// RAR.
    Rar = 104 "rar",
    /// zlib's own framing.
    Zlib = 105 "zlib",
    /// Debian and RPM packages.
    Package = 106 "package",
    /// Any other archive or compressed stream: compress, lzop, cab, lha, squashfs ….
    Archive = 107 "archive",
    /// An HTTP body that its header says to be compressed (brotli has no magic of its own).
    Encoded = 108 "content-encoding",
    /// OpenPGP message, binary or armoured.
    OpenPgp = 144 "openpgp",
    /// `openssl enc` with a password.
    Salted = 145 "openssl-salted",
    /// age.
    Age = 146 "age",
    /// SSH's own greeting: ciphertext follows.
    Ssh = 147 "ssh",
    /// TLS records.
    Tls = 148 "tls",
    /// LUKS volume.
    Luks = 149 "luks",
    /// zip or RAR whose members are encrypted.
    Locked = 150 "encrypted-archive",
    /// Any other: KeePass, PEM with a password, Ansible vault, BitLocker ….
    Vault = 151 "vault",
    /// ELF.
    Elf = 176 "elf",
    /// Any other program: PE, Mach-O, Java, WebAssembly.
    Program = 177 "program",
    /// PDF.
    Pdf = 178 "pdf",
    /// tar.
    Tar = 179 "tar",
    /// Unix archive.
    Ar = 180 "ar",
    /// SQLite database.
    Sqlite = 181 "sqlite",
    /// Microsoft's compound files: doc, xls, msi.
    Ole = 182 "ole",
    /// Fonts.
    Font = 183 "font",
    /// Captured packets.
    Pcap = 184 "pcap",
    /// JSON.
    Json = 224 "json",
    /// XML, HTML.
    Xml = 225 "xml",
    /// CSV and other tables with a delimiter.
    Table = 226 "table",
    /// `key=value`, `key: value`.
    Settings = 227 "settings",
    /// PEM.
    Pem = 228 "pem",
    /// Base64 and hexadecimal digits.
    Encoding = 229 "base64",
}
}

impl Magic {
    /// The class of what begins so.
    pub const fn class(self) -> Class {
        match self as u8 {
            0..96 => Class::Media,
            96..144 => Class::Compressed,
            144..176 => Class::Encrypted,
            176..224 => Class::Binary,
            _ => Class::Structured,
        }
    }
}

/// [`Classed::header`]'s flags: the stream has ended, or its 64 KiB were looked at: no more will be said.
pub const CLASS_FINAL: u8 = 1;
/// [`Classed::header`]'s flags: HTTP headers or frames were passed over.
pub const CLASS_HTTP: u8 = 2;

/// [`super::Kind::Class`]: what kind of content passes. Said when 4 KiB and 64 KiB of it were looked at, and at the
/// end; of several the one with more bytes counts. One line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Classed {
    /// Common part; the tap says which stream. Flags: [`CLASS_FINAL`], [`CLASS_HTTP`].
    pub header: Header,
    /// A [`Class`].
    pub class: u8,
    /// A [`Magic`], 0 none.
    pub magic: u8,
    /// Shannon's entropy of the bytes that were counted, thousandths of a bit per byte: 0 to 8000.
    pub entropy: u16,
    /// χ² of them against evenly spread bytes, 255 degrees of freedom; at most 2³²−1.
    pub chi_squared: u32,
    /// Bytes of content that were looked at, at most 64 KiB.
    pub looked: u32,
    /// Bytes of HTTP headers before it.
    pub passed: u32,
    /// Where in the stream the look began: 0, or where a program image took over.
    pub offset: u64,
    /// A picture's width in pixels, 0 not known …
    pub width: u32,
    /// … and its height.
    pub height: u32,
    /// Zero.
    pub pad: [u8; 16],
}

const _: () = assert!(size_of::<Classed>() == LINE);

impl Classed {
    /// Its fields are within their bounds.
    pub(super) fn fits(&self) -> bool {
        super::Tap::from_code(self.header.tap).is_some()
            && Class::from_code(self.class).is_some()
            && (self.magic == 0 || Magic::from_code(self.magic).is_some())
            && self.entropy <= 8000
            && self.looked as usize <= crate::class::LOOK
            && self.offset < super::UNPLAUSIBLE
    }
}
