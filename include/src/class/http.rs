//! What stands around content: HTTP's headers, the parts of a form, the frames of HTTP/2.
//!
//! They are passed over, so that a picture in an HTTP stream is a picture. Where a body ends is not followed: a
//! second request behind a body is counted with it.

use super::{HEAD, Look};

/// The content's first bytes are awaited.
pub(super) const BEGIN: u8 = 0;
/// Within headers, up to an empty line.
const HEADERS: u8 = 1;
/// Within content.
const CONTENT: u8 = 2;
/// Within an HTTP/2 frame's header.
const FRAME: u8 = 3;
/// Within a frame that is no data.
const OTHER_FRAME: u8 = 4;
/// Within a data frame.
const DATA_FRAME: u8 = 5;
/// Nothing more is looked at.
pub(super) const DONE: u8 = 6;

/// In `wrap`: HTTP/1.
const HTTP: u8 = 1;
/// In `wrap`: HTTP/2.
const HTTP2: u8 = 2;
/// In `wrap`: the header says that its body is compressed.
pub(super) const ENCODED: u8 = 4;

/// Headers beyond this are none.
const MOST: u32 = 1 << 20;
/// As many bytes tell what begins.
const TELLING: usize = 24;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const METHODS: [&[u8]; 11] = [
    b"GET /",
    b"PUT /",
    b"POST /",
    b"HEAD /",
    b"DELETE /",
    b"PATCH /",
    b"OPTIONS /",
    b"CONNECT ",
    b"HTTP/1.",
    b"GET http",
    b"POST http",
];
const ENCODING: &[u8] = b"content-encoding:";

enum Begins {
    Headers,
    Frames(usize),
    /// A chunk's length, so many bytes.
    Chunk(usize),
    Content,
    More,
}

/// What `head` begins with. `inside`: behind HTTP headers.
fn begins(head: &[u8], inside: bool) -> Begins {
    let mut more = false;
    for start in METHODS {
        match head.len() {
            n if n >= start.len() && head.starts_with(start) => return Begins::Headers,
            n if n < start.len() && start.starts_with(head) => more = true,
            _ => {}
        }
    }
    if head.starts_with(PREFACE) {
        return Begins::Frames(PREFACE.len());
    }
    more |= PREFACE.starts_with(head);
    // A server begins with SETTINGS: at most a few of six bytes each, type 4, stream 0.
    if let [0, 0, length, 4, 0, 0, 0, 0, 0, ..] = head
        && length % 6 == 0
        && *length <= 60
        && !inside
    {
        return Begins::Frames(0);
    }
    more |= head.len() < 9 && head.first() == Some(&0) && !inside;
    if inside {
        if head.starts_with(b"--") && head.len() > 2 {
            return Begins::Headers;
        }
        more |= head.len() <= 2 && b"--".starts_with(head);
        let digits = head.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        match head.get(digits..) {
            Some([b'\r', b'\n', ..]) if (1..9).contains(&digits) => return Begins::Chunk(digits + 2),
            Some([] | [b'\r']) if digits < 9 => more = true,
            _ => {}
        }
    }
    if more && head.len() < TELLING { Begins::More } else { Begins::Content }
}

impl Look {
    /// Takes in the beginning of `piece`; says how much.
    pub(super) fn pass(&mut self, piece: &[u8]) -> usize {
        if self.passed > MOST {
            self.stage = DONE;
            return piece.len();
        }
        match self.stage {
            BEGIN => self.begin(piece),
            HEADERS => self.headers(piece),
            CONTENT => self.content(piece),
            FRAME => self.frame(piece),
            OTHER_FRAME | DATA_FRAME => self.frame_content(piece),
            _ => piece.len(),
        }
    }

    /// Nothing more comes: what was kept is content.
    pub(super) fn settle(&mut self) {
        let kept = usize::from(self.kept).min(TELLING);
        let mut start = [0; TELLING];
        start[..kept].copy_from_slice(&self.head[..kept]);
        self.stage = CONTENT;
        self.content(&start[..kept]);
    }

    fn begin(&mut self, piece: &[u8]) -> usize {
        let kept = usize::from(self.kept).min(TELLING);
        // What was kept is looked at together with what comes.
        let mut start = [0; TELLING];
        let more = piece.len().min(TELLING - kept);
        start[..kept].copy_from_slice(&self.head[..kept]);
        start[kept..kept + more].copy_from_slice(&piece[..more]);
        let start = &start[..kept + more];
        let pass = |look: &mut Self, bytes: usize| {
            look.passed += bytes as u32;
            look.kept = 0;
            bytes.saturating_sub(kept)
        };
        match begins(start, self.wrap & HTTP != 0) {
            Begins::More => {
                self.head[kept..kept + more].copy_from_slice(&piece[..more]);
                self.kept = (kept + more) as u16;
                more
            }
            Begins::Headers => {
                self.wrap |= HTTP;
                self.wrap &= !ENCODED;
                (self.stage, self.newlines, self.left) = (HEADERS, 0, 0);
                self.headers(&start[..kept]);
                0
            }
            Begins::Chunk(bytes) => {
                self.stage = CONTENT;
                pass(self, bytes)
            }
            Begins::Frames(bytes) => {
                self.wrap |= HTTP2;
                (self.stage, self.left, self.newlines) = (FRAME, 0, 0);
                if bytes == 0 {
                    self.frame(&start[..kept]);
                    return 0;
                }
                pass(self, bytes)
            }
            Begins::Content => {
                self.stage = CONTENT;
                self.kept = 0;
                self.content(start) - kept
            }
        }
    }

    /// Up to the empty line. `left` counts how much of "content-encoding:" the line has.
    fn headers(&mut self, piece: &[u8]) -> usize {
        for (i, &byte) in piece.iter().enumerate() {
            match byte {
                b'\n' if self.newlines == 1 => {
                    self.passed += i as u32 + 1;
                    (self.stage, self.kept) = (BEGIN, 0);
                    return i + 1;
                }
                b'\n' => (self.newlines, self.left) = (1, 0),
                b'\r' => {}
                _ => {
                    self.newlines = 0;
                    self.name(byte);
                }
            }
        }
        self.passed += piece.len() as u32;
        piece.len()
    }

    fn name(&mut self, byte: u8) {
        const LOST: u32 = u32::MAX;
        match ENCODING.get(self.left as usize) {
            Some(&expected) if byte.eq_ignore_ascii_case(&expected) => self.left += 1,
            Some(_) => self.left = LOST,
            // `identity` is none, and the only one that begins so.
            None if self.left as usize == ENCODING.len() && byte != b' ' => {
                self.left = LOST;
                if !byte.eq_ignore_ascii_case(&b'i') {
                    self.wrap |= ENCODED;
                }
            }
            None => {}
        }
    }

    /// Nine bytes: length, type, flags, stream (RFC 9113, 4.1). `newlines` counts them.
    fn frame(&mut self, piece: &[u8]) -> usize {
        let have = usize::from(self.newlines).min(9);
        let more = piece.len().min(9 - have);
        self.frame[have..have + more].copy_from_slice(&piece[..more]);
        self.newlines = (have + more) as u8;
        self.passed += more as u32;
        if self.newlines == 9 {
            let [a, b, c, kind, ..] = self.frame;
            self.left = u32::from_be_bytes([0, a, b, c]);
            self.newlines = 0;
            self.stage = match (self.left, kind) {
                (0, _) => FRAME,
                (_, 0) => DATA_FRAME,
                _ => OTHER_FRAME,
            };
        }
        more
    }

    fn frame_content(&mut self, piece: &[u8]) -> usize {
        let part = &piece[..piece.len().min(self.left as usize)];
        let taken = if self.stage == DATA_FRAME {
            self.content(part)
        } else {
            self.passed += part.len() as u32;
            part.len()
        };
        self.left -= taken as u32;
        if self.left == 0 && self.stage != DONE {
            self.stage = FRAME;
        }
        taken
    }
}

const _: () = assert!(TELLING <= HEAD && PREFACE.len() <= TELLING);

#[cfg(test)]
mod tests {
    extern crate std;
    use super::super::Look;
    use crate::record::{Class, Magic};
    use bytemuck::Zeroable;
    use std::vec::Vec;

    fn png() -> Vec<u8> {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend((0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8));
        png
    }

    /// However it is cut into pieces, the same comes out.
    fn found(stream: &[u8]) -> crate::class::Found {
        let whole = crate::class::of(stream);
        for step in [1, 2, 3, 7, 23, 24, 25, 1000] {
            let mut look: Look = Zeroable::zeroed();
            for piece in stream.chunks(step) {
                look.add(piece);
            }
            assert_eq!(look.found(), whole, "in pieces of {step}");
        }
        whole
    }

    fn joined(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn what_stands_behind_headers_counts() {
        let png = png();
        for (what, stream) in [
            ("a response", joined(&[b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n", &png])),
            ("a request", joined(&[b"PUT /a HTTP/1.1\r\nHost: x\r\n\r\n", &png])),
            ("the second", joined(&[b"GET / HTTP/1.1\r\n\r\nPUT /a HTTP/1.1\r\n\r\n", &png])),
            ("chunks", joined(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1f40\r\n", &png])),
            (
                "a form",
                joined(&[
                    b"POST /a HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=--x\r\n\r\n",
                    b"----x\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n",
                    &png,
                ]),
            ),
            (
                "HTTP/2",
                joined(&[
                    super::PREFACE,
                    b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64",
                    b"\0\0\x03\x01\x04\0\0\0\x01\x82\x86\x84",
                    b"\0\x03\xe8\0\0\0\0\0\x01",
                    &png[..1000],
                    b"\0\x0f\xb0\0\0\0\0\0\x01",
                    &png[1000..],
                ]),
            ),
        ] {
            let found = found(&stream);
            assert_eq!((found.class, found.magic), (Class::Media, Some(Magic::Png)), "{what}");
            assert!(found.http && found.passed > 0, "{what}");
        }
    }

    #[test]
    fn headers_alone_are_text() {
        let found = found(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
        assert_eq!((found.class, found.looked), (Class::Text, 0));
    }

    #[test]
    fn what_only_begins_like_it() {
        for text in ["GET", "PUT /", "PO", "HTTP", "PRI * HTTP/2", "\n"] {
            assert_eq!(found(text.as_bytes()).class, Class::Text, "{text}");
        }
        assert_eq!(found(&[0, 0, 6]).class, Class::Binary);
        assert_eq!(found(b"").class, Class::Empty);
    }

    #[test]
    fn a_body_that_says_it_is_compressed() {
        let body: Vec<u8> = (0..3000u32).map(|i| (i * 7 % 60) as u8).collect();
        for (header, class) in
            [("Content-Encoding: br", Class::Compressed), ("Content-Encoding: identity", Class::Binary)]
        {
            let head = std::format!("HTTP/1.1 200 OK\r\n{header}\r\n\r\n");
            assert_eq!(found(&joined(&[head.as_bytes(), &body])).class, class, "{header}");
        }
    }

    #[test]
    fn ciphertext_behind_a_head_of_text() {
        let mut x = 1u64;
        let noise: Vec<u8> = core::iter::repeat_with(|| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 56) as u8
        })
        .take(20_000)
        .collect();
        let head = b"name: picture of a cat\n".repeat(100);
        assert_eq!(found(&joined(&[&head, &noise])).class, Class::Encrypted);
    }
}
