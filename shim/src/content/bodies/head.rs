//! The head of an HTTP/1 message, line by line: only what says how long the message is (RFC 9112, 6.3).

/// How a status line begins.
const VERSION: &[u8] = b"HTTP/1.";
/// What of a line is kept: the lines that matter are shorter.
const KEPT: usize = 64;

const CHUNKED: u32 = 1;
/// Content-Length was there.
const HAS_LENGTH: u32 = 2;
/// What follows is no message any more (CONNECT), or is another protocol.
const OPAQUE: u32 = 4;
/// The client may leave the body out, if it is told so first.
const EXPECTS: u32 = 8;

/// A head as far as it was read, and the present line. Valid whatever its bytes are.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Head {
    line: [u8; KEPT],
    /// Bytes of the line, its end included, whether kept or not.
    length: u32,
    /// Lines that have ended.
    lines: u32,
    /// Content-Length.
    body: u64,
    /// The status code; 0: a request.
    status: u32,
    /// [`CHUNKED`], [`HAS_LENGTH`], [`OPAQUE`], [`EXPECTS`].
    marks: u32,
}

/// What follows a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// Another line.
    More,
    /// The next message.
    Nothing,
    /// A body of so many bytes.
    Bytes(u64),
    /// A body in chunks.
    Chunks,
    /// A body until the stream ends.
    Rest,
}

impl Head {
    /// Nothing yet.
    pub const NEW: Self = Self { line: [0; KEPT], length: 0, lines: 0, body: 0, status: 0, marks: 0 };

    fn has(&self, mark: u32) -> bool {
        self.marks & mark != 0
    }

    /// A first line was read, and was one of HTTP.
    pub fn begun(&self) -> bool {
        self.lines > 0
    }

    /// Adds to the line.
    pub fn add(&mut self, bytes: &[u8]) {
        let have = (self.length as usize).min(KEPT);
        let more = bytes.len().min(KEPT - have);
        self.line[have..have + more].copy_from_slice(&bytes[..more]);
        self.length = self.length.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    }

    /// A part of a line was [added](Self::add).
    pub fn within_line(&self) -> bool {
        self.length != 0
    }

    /// What is kept of the line that was added, and how much that is; it is given up.
    pub fn take(&mut self) -> ([u8; KEPT], usize) {
        let length = core::mem::take(&mut self.length) as usize;
        let line = self.line;
        // The end of a longer one is not among what was kept.
        let kept = if length <= KEPT { kept(&line[..length]).len() } else { KEPT };
        (line, kept)
    }

    /// What is there of the first line may be one of HTTP.
    pub fn plausible(&self) -> bool {
        let have = (self.length as usize).min(KEPT);
        self.lines > 0 || first_line(&self.line[..have], false)
    }

    /// A line has ended, and this is what is kept of it. None: this is no head of a message that can be followed.
    pub fn line(&mut self, line: &[u8]) -> Option<Follows> {
        let first = self.lines == 0;
        if first {
            if !first_line(line, true) {
                return None;
            }
            self.lines = 1;
            if let Some(rest) = line.strip_prefix(b"HTTP/1.") {
                self.status = number(rest.get(2..5)?).map(|(n, _)| n as u32)?;
            }
            // HTTP/2 begins like this (RFC 9113, 3.4), and what CONNECT opens may be anything.
            if line.starts_with(b"CONNECT ") || self.status == 101 {
                self.marks |= OPAQUE;
            }
            return if line.starts_with(b"PRI ") { None } else { Some(Follows::More) };
        }
        self.lines = self.lines.saturating_add(1);
        // Most have a name that says nothing of the length.
        match line.first().map(u8::to_ascii_lowercase) {
            None => return self.ends(),
            Some(b'c' | b't' | b'e') => {}
            Some(_) => return Some(Follows::More),
        }
        if let Some(value) = field(line, b"content-length:") {
            let (length, all) = number(value)?;
            // Two that differ, or anything but digits: attacks are made of this.
            if !all || self.has(HAS_LENGTH) && self.body != length {
                return None;
            }
            self.body = length;
            self.marks |= HAS_LENGTH;
        } else if let Some(value) = field(line, b"transfer-encoding:") {
            // Another coding than chunked changes the body, but as a whole it still ends where chunks say.
            if value.len() < 7 || !value[value.len() - 7..].eq_ignore_ascii_case(b"chunked") {
                return None;
            }
            self.marks |= CHUNKED;
        }
        if field(line, b"expect:").is_some() {
            self.marks |= EXPECTS;
        }
        Some(Follows::More)
    }

    /// What stands where the body should begin is the next message: a response to HEAD has a length and no body,
    /// and who was told not to send what it announced goes on with another request.
    pub fn belied_by(&self, bytes: &[u8]) -> bool {
        if self.status != 0 {
            let same = bytes.len().min(VERSION.len());
            bytes[..same] == VERSION[..same]
        } else {
            self.has(EXPECTS) && first_line(&bytes[..bytes.len().min(KEPT)], false)
        }
    }

    /// The head has ended.
    fn ends(&self) -> Option<Follows> {
        let response = self.status != 0;
        if self.has(OPAQUE) {
            None
        } else if response && matches!(self.status, 100..200 | 204 | 304) {
            Some(Follows::Nothing)
        } else if self.has(CHUNKED) {
            Some(Follows::Chunks)
        } else if self.has(HAS_LENGTH) {
            Some(if self.body == 0 { Follows::Nothing } else { Follows::Bytes(self.body) })
        } else {
            Some(if response { Follows::Rest } else { Follows::Nothing })
        }
    }
}

/// What is kept of a line: it without its end, or the first bytes of a long one.
pub fn kept(line: &[u8]) -> &[u8] {
    if line.len() > KEPT {
        return &line[..KEPT];
    }
    let ends = line.iter().rev().take_while(|b| matches!(b, b'\n' | b'\r')).count();
    &line[..line.len() - ends]
}

/// A line as the size of a chunk.
pub fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let follows = line.get(digits);
    if digits == 0 || digits > 15 || follows.is_some_and(|b| !matches!(b, b';' | b' ' | b'\t')) {
        return None;
    }
    let value = |b: &u8| u64::from((*b as char).to_digit(16).unwrap_or(0));
    Some(line[..digits].iter().fold(0, |sum, digit| sum << 4 | value(digit)))
}

/// A request's or response's first line; `whole`: all that is kept of it is there.
fn first_line(line: &[u8], whole: bool) -> bool {
    let same = line.len().min(VERSION.len());
    if line[..same] == VERSION[..same] {
        return !whole || line.len() >= 12;
    }
    let method = line.iter().take_while(|b| b.is_ascii_uppercase() || **b == b'-').count();
    match line.get(method) {
        Some(b' ') => (2..=20).contains(&method) && line[method + 1..].first().is_none_or(|b| *b > b' '),
        Some(_) => false,
        None => !whole && method <= 20,
    }
}

/// The value of a line with this name, blanks around it removed.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let head = line.get(..name.len())?;
    head.eq_ignore_ascii_case(name).then(|| line[name.len()..].trim_ascii())
}

/// A number that digits begin with, and whether they are all; None: it is none.
fn number(text: &[u8]) -> Option<(u64, bool)> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 || digits > 18 {
        return None;
    }
    let value = text[..digits].iter().fold(0, |sum, b| sum * 10 + u64::from(b - b'0'));
    Some((value, digits == text.len()))
}
