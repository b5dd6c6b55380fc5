//! Where one message ends and the next begins, in a stream that somebody else sends.
//!
//! Comes in: bytes as they come. Goes out: messages. Pure; called by `listen`. Two framings of RFC 6587 for syslog
//! (octet counting, and a line feed behind each message), told apart message by message; lines for JSON Lines.
#![forbid(unsafe_code)]

use super::LONGEST;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// RFC 5424 messages.
    Syslog,
    /// One JSON object a line.
    Lines,
}

/// Bytes that are not a whole message yet.
pub(super) struct Frames {
    kind: Kind,
    waiting: Vec<u8>,
    /// The rest of a message that is too long is passed over.
    skipping: Option<Skip>,
}

enum Skip {
    Bytes(usize),
    Line,
}

/// What came out.
pub(super) enum Frame<'a> {
    Message(&'a [u8]),
    TooLong,
}

impl Frames {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, waiting: Vec::new(), skipping: None }
    }

    /// Takes bytes, and gives each message that is whole by now. False: this is no such stream, and nothing that
    /// follows can be told apart.
    pub(super) fn take(&mut self, bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) -> bool {
        self.waiting.extend_from_slice(bytes);
        let mut at = 0;
        let good = loop {
            let rest = &self.waiting[at..];
            match self.skipping {
                Some(Skip::Bytes(left)) if left > rest.len() => {
                    self.skipping = Some(Skip::Bytes(left - rest.len()));
                    at = self.waiting.len();
                    break true;
                }
                Some(Skip::Bytes(left)) => {
                    self.skipping = None;
                    at += left;
                    continue;
                }
                Some(Skip::Line) => match memchr::memchr(b'\n', rest) {
                    Some(end) => {
                        self.skipping = None;
                        at += end + 1;
                        continue;
                    }
                    None => {
                        at = self.waiting.len();
                        break true;
                    }
                },
                None => {}
            }
            if rest.is_empty() {
                break true;
            }
            if self.kind == Kind::Syslog && rest[0].is_ascii_digit() {
                let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
                if digits > 9 {
                    break false;
                }
                match rest.get(digits) {
                    None => break true,
                    Some(b' ') => {}
                    Some(_) => break false,
                }
                let length = rest[..digits].iter().fold(0usize, |n, d| n * 10 + usize::from(d - b'0'));
                let begin = at + digits + 1;
                if length > LONGEST {
                    each(Frame::TooLong);
                    self.skipping = Some(Skip::Bytes(length));
                    at = begin;
                } else if let Some(message) = self.waiting.get(begin..begin + length) {
                    each(Frame::Message(message));
                    at = begin + length;
                } else {
                    break true;
                }
                continue;
            }
            match memchr::memchr(b'\n', rest) {
                Some(end) if end > LONGEST => {
                    each(Frame::TooLong);
                    at += end + 1;
                }
                Some(end) => {
                    let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
                    if !line.is_empty() {
                        each(Frame::Message(line));
                    }
                    at += end + 1;
                }
                None if rest.len() > LONGEST => {
                    each(Frame::TooLong);
                    self.skipping = Some(Skip::Line);
                }
                None => break true,
            }
        };
        self.waiting.drain(..at);
        good
    }

    /// The stream ended: what was not ended by a line feed is a message all the same.
    pub(super) fn end(&mut self, each: &mut impl FnMut(Frame<'_>)) {
        let counted = self.kind == Kind::Syslog && self.waiting.first().is_some_and(u8::is_ascii_digit);
        if self.skipping.is_none() && !self.waiting.is_empty() && !counted {
            each(Frame::Message(&self.waiting));
        }
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(kind: Kind, stream: &[u8], step: usize) -> (Vec<String>, bool, usize) {
        let mut frames = Frames::new(kind);
        let (mut found, mut good, mut most) = (vec![], true, 0);
        for piece in stream.chunks(step) {
            good &= frames.take(piece, &mut |f| match f {
                Frame::Message(m) => found.push(String::from_utf8_lossy(m).into_owned()),
                Frame::TooLong => found.push("TOO LONG".into()),
            });
            most = most.max(frames.waiting.len());
            if !good {
                break;
            }
        }
        frames.end(&mut |f| {
            if let Frame::Message(m) = f {
                found.push(String::from_utf8_lossy(m).into_owned());
            }
        });
        (found, good, most)
    }

    #[test]
    fn both_framings_and_any_piece() {
        for step in [1, 2, 3, 7, 1000] {
            let (found, good, _) = all(Kind::Syslog, b"5 <1>ab<2>line\n12 <3>with\nfeed<4>last", step);
            assert_eq!(
                (found, good),
                (vec!["<1>ab".into(), "<2>line".into(), "<3>with\nfeed".into(), "<4>last".into()], true)
            );
            let (found, _, _) = all(Kind::Lines, b"{\"a\":1}\r\n\n{\"b\":2}\n12 x", step);
            assert_eq!(found, ["{\"a\":1}", "{\"b\":2}", "12 x"]);
        }
    }

    #[test]
    fn what_is_too_long_takes_no_memory_and_spoils_nothing() {
        let mut stream = vec![b'x'; 10 * LONGEST];
        stream.extend_from_slice(b"\n{}\n");
        let (found, good, most) = all(Kind::Lines, &stream, 4096);
        assert_eq!((found, good), (vec!["TOO LONG".into(), "{}".into()], true));
        assert!(most <= LONGEST + 4096);
        let mut stream = format!("{} ", 5 * LONGEST).into_bytes();
        stream.extend(vec![b'<'; 5 * LONGEST]);
        stream.extend_from_slice(b"2 ok");
        let (found, good, most) = all(Kind::Syslog, &stream, 4096);
        assert_eq!((found, good), (vec!["TOO LONG".into(), "ok".into()], true));
        assert!(most <= LONGEST + 4096);
    }

    #[test]
    fn a_count_that_is_none_ends_it() {
        assert!(!all(Kind::Syslog, b"99999999999 <1>", 1).1);
        assert!(!all(Kind::Syslog, b"12x", 1).1);
    }
}
