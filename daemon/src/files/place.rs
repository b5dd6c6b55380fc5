//! Where on its way a file was changed.
//!
//! Comes in: the chain's spans in the bytes' order, what each was found to be: legs from program to
//! program, and comparisons within a program where there are any. Goes out: words for a person.

use crate::model::{Channel, Range};

/// Part of a file's way.
#[derive(Clone, Debug, PartialEq)]
pub enum Where {
    /// From one program to the next.
    Leg {
        /// What carries it.
        channel: Channel,
        /// The program that wrote.
        from: String,
        /// The program that read.
        to: String,
    },
    /// From what a program got to what it gave on.
    Inside {
        /// The program.
        program: String,
        /// What it was about to do: `before it wrote the file`, `before encryption`.
        before: String,
    },
}

/// What is known of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// What came out is what went in.
    Intact,
    /// It is not.
    Altered,
    /// It is not over yet.
    Open,
    /// Nobody looked, or not everything was seen.
    Unknown,
}

/// A part and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The part.
    pub at: Where,
    /// What is known of it.
    pub found: Found,
    /// Where it differs, in that part's own stream.
    pub ranges: Vec<Range>,
}

/// Words for a channel between two programs.
fn channel(channel: Channel) -> &'static str {
    match channel {
        Channel::Tls => "TLS",
        Channel::Tcp => "TCP",
        Channel::Unix => "unix socket pair",
        Channel::Pipe => "pipe",
        Channel::File => "file",
        Channel::Datagram => "datagrams",
    }
}

impl Where {
    fn words(&self) -> String {
        match self {
            Self::Leg { channel: c, from, to } => format!("between {from} and {to} ({})", channel(*c)),
            Self::Inside { program, before } => format!("inside {program}, {before}"),
        }
    }
}

/// Where it must have happened; None: there is no chain.
pub fn place(spans: &[Span]) -> Option<String> {
    if let Some(altered) = spans.iter().find(|s| s.found == Found::Altered) {
        return Some(altered.at.words());
    }
    let open: Vec<String> = spans.iter().filter(|s| s.found != Found::Intact).map(|s| s.at.words()).collect();
    match &open[..] {
        [] => None,
        [one] => Some(one.clone()),
        [all @ .., last] if open.len() <= 4 => Some(format!("{} or {last}", all.join(", "))),
        [first, .., last] => Some(format!("somewhere from {first} to {last}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(from: &str, to: &str, found: Found) -> Span {
        let at = Where::Leg { channel: Channel::Unix, from: from.into(), to: to.into() };
        Span { at, found, ranges: Vec::new() }
    }

    fn inside(program: &str, found: Found) -> Span {
        let at = Where::Inside { program: program.into(), before: "before it wrote the file".into() };
        Span { at, found, ranges: Vec::new() }
    }

    #[test]
    fn an_altered_leg_is_the_place() {
        let spans = [inside("scp", Found::Unknown), leg("scp", "ssh", Found::Altered)];
        assert_eq!(place(&spans).unwrap(), "between scp and ssh (unix socket pair)");
    }

    #[test]
    fn intact_parts_are_ruled_out() {
        let spans = [
            inside("scp", Found::Intact),
            leg("scp", "ssh", Found::Intact),
            inside("sftp-server", Found::Unknown),
        ];
        assert_eq!(place(&spans).unwrap(), "inside sftp-server, before it wrote the file");
        assert_eq!(place(&[leg("a", "b", Found::Intact)]), None);
    }
}
