//! Text that has a syntax: told by its beginning.
//!
//! A beginning ends in the middle of something: its last line doesn't count, unless nothing follows.

use crate::record::Magic;

/// What syntax `head`, which reads as text, has. `whole`: nothing follows it.
pub(super) fn of(head: &[u8], whole: bool) -> Option<Magic> {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let text = head.trim_ascii_start();
    if text.starts_with(b"-----BEGIN ") {
        return Some(Magic::Pem);
    }
    if markup(text) {
        return Some(Magic::Xml);
    }
    if json(text) {
        return Some(Magic::Json);
    }
    if encoded(head) {
        return Some(Magic::Encoding);
    }
    let lines = || Lines { rest: head, whole };
    if settings(lines()) {
        return Some(Magic::Settings);
    }
    [b',', b';', b'\t', b'|', b':'].into_iter().any(|by| table(lines(), by)).then_some(Magic::Table)
}

/// UTF-16: every other byte of the beginning is zero or nearly always so.
pub(super) fn wide_text(head: &[u8]) -> bool {
    let marked = head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff");
    let side = |odd: usize| head.iter().skip(odd).step_by(2).filter(|&&b| b == 0).count();
    let half = head.len() / 2;
    let least = if marked { half / 4 } else { half * 9 / 10 };
    let (even, odd) = (side(0), side(1));
    // What is not zero has to read as text.
    let other = head.iter().filter(|&&b| b != 0 && b != b'\r' && b != b'\n' && b != b'\t' && b < 32).count();
    head.len() >= 16 && (even.min(odd) <= half / 50) && even.max(odd) >= least && other <= half / 20
}

struct Lines<'a> {
    rest: &'a [u8],
    whole: bool,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|&b| b == b'\n');
        let line = match end {
            Some(end) => {
                let (line, rest) = self.rest.split_at(end);
                self.rest = &rest[1..];
                line
            }
            None if self.whole && !self.rest.is_empty() => core::mem::take(&mut self.rest),
            None => return None,
        };
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// `<name …>`, `<?xml`, `<!DOCTYPE`.
fn markup(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(b"<") else { return false };
    if rest.starts_with(b"?xml")
        || rest.starts_with(b"!DOCTYPE")
        || rest.starts_with(b"!doctype")
        || rest.starts_with(b"!--")
    {
        return true;
    }
    let name =
        rest.iter().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'-' | b'_')).count();
    let named = name > 0 && rest[0].is_ascii_alphabetic();
    let after = rest.get(name..).unwrap_or_default();
    let closes = after.contains(&b'>');
    named
        && closes
        && (matches!(after.first(), Some(b' ' | b'>' | b'\n' | b'\r' | b'\t')) || after.starts_with(b"/>"))
}

/// An object or array whose tokens follow each other as RFC 8259 wants, as far as they go.
fn json(text: &[u8]) -> bool {
    #[derive(Clone, Copy, PartialEq)]
    enum Next {
        Value,
        ValueOrEnd,
        Key,
        KeyOrEnd,
        Colon,
        CommaOrEnd,
    }
    if !matches!(text.first(), Some(b'{' | b'[')) {
        return false;
    }
    let (mut next, mut depth, mut objects) = (Next::Value, 0u32, 0u64);
    let (mut at, mut tokens) = (0, 0);
    while let Some(&byte) = text.get(at) {
        at += 1;
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            continue;
        }
        tokens += 1;
        let value = matches!(next, Next::Value | Next::ValueOrEnd);
        let within = if objects & 1 == 1 { Next::Key } else { Next::Value };
        next = match byte {
            b'{' | b'[' if value => {
                if depth == 63 {
                    return true;
                }
                depth += 1;
                objects = objects << 1 | u64::from(byte == b'{');
                if byte == b'{' { Next::KeyOrEnd } else { Next::ValueOrEnd }
            }
            b'}' if depth > 0 && objects & 1 == 1 && matches!(next, Next::KeyOrEnd | Next::CommaOrEnd) => {
                (depth, objects) = (depth - 1, objects >> 1);
                Next::CommaOrEnd
            }
            b']' if depth > 0 && objects & 1 == 0 && matches!(next, Next::ValueOrEnd | Next::CommaOrEnd) => {
                (depth, objects) = (depth - 1, objects >> 1);
                Next::CommaOrEnd
            }
            b',' if next == Next::CommaOrEnd && depth > 0 => within,
            b':' if next == Next::Colon => Next::Value,
            b'"' if value || matches!(next, Next::Key | Next::KeyOrEnd) => {
                while let Some(&inner) = text.get(at) {
                    at += 1;
                    match inner {
                        b'\\' => at += 1,
                        b'"' => break,
                        b'\n' => return false,
                        _ => {}
                    }
                }
                if value { Next::CommaOrEnd } else { Next::Colon }
            }
            b'-' | b'0'..=b'9' if value => {
                at += text
                    .get(at..)
                    .map_or(0, |rest| rest.iter().take_while(|b| b"0123456789.eE+-".contains(b)).count());
                Next::CommaOrEnd
            }
            b't' | b'f' | b'n' if value => {
                let rest = text.get(at - 1..).unwrap_or_default();
                let word = [&b"true"[..], b"false", b"null"]
                    .into_iter()
                    .find(|w| rest.starts_with(w) || w.starts_with(rest));
                let Some(word) = word else { return false };
                at += word.len() - 1;
                Next::CommaOrEnd
            }
            // One value a line.
            b'{' | b'[' if next == Next::CommaOrEnd && depth == 0 => {
                (depth, objects) = (1, u64::from(byte == b'{'));
                if byte == b'{' { Next::KeyOrEnd } else { Next::ValueOrEnd }
            }
            _ => return false,
        };
    }
    tokens > 1
}

/// Base64 or hexadecimal digits, and nothing else: in lines of one length, or in one that is long and mixed.
fn encoded(head: &[u8]) -> bool {
    let (mut upper, mut lower, mut digits, mut others) = (0, 0, 0, 0);
    let (mut line, mut first, mut lines, mut even) = (0usize, None, 0, true);
    for &byte in head {
        match byte {
            b'A'..=b'Z' => upper += 1,
            b'a'..=b'z' => lower += 1,
            b'0'..=b'9' => digits += 1,
            b'+' | b'/' | b'=' | b'-' | b'_' => others += 1,
            b'\r' => continue,
            b'\n' => {
                even &= *first.get_or_insert(line) == line;
                (line, lines) = (0, lines + 1);
                continue;
            }
            _ => return false,
        }
        line += 1;
    }
    let all = upper + lower + digits + others;
    let longest = first.unwrap_or(line);
    if longest < 32 || all < 40 {
        return false;
    }
    let hex = head.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b'\r' | b'\n'));
    let mixed = upper * 8 > all && lower * 8 > all && digits * 40 > all && others * 5 < all;
    mixed || hex && digits * 4 > all || lines > 2 && even && longest % 4 == 0
}

/// `key = value` or `key: value`, in each line that is no comment, section or continuation.
fn settings(lines: Lines<'_>) -> bool {
    let (mut pairs, mut equals, mut sections, mut others, mut continued) = (0, 0, 0, 0, 0);
    for line in lines {
        let indented = matches!(line.first(), Some(b' ' | b'\t'));
        let line = line.trim_ascii();
        let line = line.strip_prefix(b"export ").unwrap_or(line);
        match line {
            [] | [b'#' | b';', ..] => continue,
            [b'[', .., b']'] => {
                sections += 1;
                continue;
            }
            b"---" | b"..." => continue,
            _ => {}
        }
        continued += usize::from(indented);
        let key = line.iter().take_while(|b| b.is_ascii_alphanumeric() || b"_-./[]@".contains(b)).count();
        let rest = line.get(key..).unwrap_or_default();
        let starts = line[0].is_ascii_alphabetic() || line[0] == b'_';
        let after = rest.trim_ascii_start();
        match after {
            _ if !starts || key == 0 || key > 64 => others += usize::from(!indented),
            [b'=', b'=', ..] => others += 1,
            [b'=', ..] => {
                pairs += 1;
                equals += 1;
            }
            [b':', b' ', ..] | [b':'] if rest.len() == after.len() => pairs += 1,
            _ => others += usize::from(!indented),
        }
    }
    let enough = pairs >= 3 || pairs >= 1 && sections >= 1 || pairs >= 2 && equals == pairs;
    enough && others * 10 <= pairs + sections && continued <= 4 * pairs
}

/// Lines with a delimiter as often as the others have it.
fn table(lines: Lines<'_>, by: u8) -> bool {
    let whole = lines.whole;
    let (mut expected, mut rows) = (0, 0);
    for line in lines {
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        // A tab indents, a semicolon at the end is code; and whose name has blanks is no column of a list of users.
        let first = line.iter().take_while(|&&b| b != by);
        if line[0] == by && by == b'\t'
            || line.ends_with(b";") && by == b';'
            || by == b':' && first.clone().any(|b| b.is_ascii_whitespace())
        {
            return false;
        }
        let (mut count, mut quoted) = (0usize, false);
        for &byte in line {
            quoted ^= byte == b'"';
            count += usize::from(byte == by && !quoted);
        }
        if rows == 0 {
            expected = count;
        }
        if count == 0 || count != expected {
            return false;
        }
        rows += 1;
    }
    // One comma in each of a few lines is a coincidence; five are not.
    match (by, expected) {
        (b':', 0..=2) => false,
        (b',' | b';' | b'|', 1) => rows >= 6,
        (_, 1 | 2) => rows >= 4,
        (_, 3..) => rows >= 3 || rows == 2 && whole,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntaxes() {
        for (text, magic) in [
            ("{\"a\": [1, 2.5e3, {\"b\": null}], \"c\"", Some(Magic::Json)),
            ("[\n  {\"x\": \"y\\\"z\"}\n]", Some(Magic::Json)),
            ("{\"a\":1}\n{\"a\":2}\n", Some(Magic::Json)),
            ("{ int a; }", None),
            ("[1] A footnote.", None),
            ("<?xml version='1.0'?><a/>", Some(Magic::Xml)),
            ("<html>\n<body>", Some(Magic::Xml)),
            ("<mail@example.org> wrote:", None),
            ("a,b,c,d\n1,2,3,4\n\"5,5\",6,7,8\n", Some(Magic::Table)),
            ("root:x:0:0:root:/root:/bin/sh\nbin:x:2:2:bin:/bin:/usr/sbin/nologin\n", Some(Magic::Table)),
            ("pub a: c::d;\npub b: c::e;\npub f: c::g;\n", None),
            ("Dear John, it rains.\nYours, me.\n", None),
            ("[main]\nname = value\nother=1\n", Some(Magic::Settings)),
            ("Package: a\nVersion: 1\nDescription: b\n more\n", Some(Magic::Settings)),
            ("#include <stdio.h>\nint main(void)\n{\n\treturn 0;\n}\n", None),
            ("-----BEGIN CERTIFICATE-----\nMIIB", Some(Magic::Pem)),
            ("SGVsbG8gV29ybGQsIHRoaXMgaXMgYSBsb25nZXIgbGluZSBvZiBiYXNlNjQgdGV4dA==\n", Some(Magic::Encoding)),
            ("d41d8cd98f00b204e9800998ecf8427ed41d8cd98f00b204e9800998ecf8427e\n", Some(Magic::Encoding)),
        ] {
            assert_eq!(of(text.as_bytes(), true), magic, "{text}");
        }
    }
}
