//! What the library says of a stream's content, or what was found in a file at rest.
//!
//! Comes in: `Class` records, the first bytes of a file. Goes out: a [`Content`]. Kept by `assemble` for streams
//! and by `files` for files; of several that one counts that looked at more, from the start.
#![forbid(unsafe_code)]

use crate::model::Class;
use counterfoil_abi::class::Found;
use counterfoil_abi::record::{self, Classed, Magic};

impl From<record::Class> for Class {
    fn from(class: record::Class) -> Self {
        match class {
            record::Class::Empty => Self::Empty,
            record::Class::Text => Self::Text,
            record::Class::Structured => Self::Structured,
            record::Class::Compressed => Self::Compressed,
            record::Class::Media => Self::Media,
            record::Class::Encrypted => Self::Encrypted,
            record::Class::Binary => Self::Binary,
        }
    }
}

/// What kind of content a stream or file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The class.
    pub class: Class,
    /// What its beginning says it is.
    pub magic: Option<Magic>,
    /// Thousandths of a bit per byte.
    pub entropy: u16,
    /// χ² against evenly spread bytes, 255 degrees of freedom.
    pub chi_squared: u32,
    /// Bytes that were looked at.
    pub looked: u32,
    /// Bytes of HTTP headers before them.
    pub passed: u32,
    /// A picture's width and height, where its beginning says so.
    pub size: Option<(u32, u32)>,
    /// Where in the stream the look began.
    from: u64,
}

impl Content {
    /// What a record says; None: it can't be.
    #[must_use]
    pub fn of(classed: &Classed) -> Option<Self> {
        Some(Self {
            class: record::Class::from_code(classed.class)?.into(),
            magic: Magic::from_code(classed.magic),
            entropy: classed.entropy,
            chi_squared: classed.chi_squared,
            looked: classed.looked,
            passed: classed.passed,
            size: (classed.width > 0 && classed.height > 0).then_some((classed.width, classed.height)),
            from: classed.offset,
        })
    }

    /// What was found at the start of a file.
    #[must_use]
    pub fn found(found: &Found) -> Self {
        Self {
            class: found.class.into(),
            magic: found.magic,
            entropy: found.entropy,
            chi_squared: found.chi_squared,
            looked: found.looked,
            passed: found.passed,
            size: found.size,
            from: 0,
        }
    }

    /// Of two the one that tells more.
    pub fn better(kept: &mut Option<Self>, new: Self) {
        let rank = |c: &Self| (std::cmp::Reverse(c.from), c.looked, c.passed);
        if kept.as_ref().is_none_or(|kept| rank(&new) >= rank(kept)) {
            *kept = Some(new);
        }
    }

    /// Bits per byte.
    #[must_use]
    pub fn bits(&self) -> f32 {
        f32::from(self.entropy) / 1000.0
    }

    /// It is what a codec makes: its beginning says so. Numbers alone don't prove it.
    #[must_use]
    pub fn transformed(&self) -> bool {
        self.magic.is_some_and(|magic| {
            matches!(magic.class(), record::Class::Compressed | record::Class::Encrypted)
                || magic == Magic::Encoding
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use counterfoil_abi::class;

    #[test]
    fn who_saw_more_from_the_start_counts() {
        let start = Content::found(&class::of(b"a text of some length"));
        let later = Content { from: 9, looked: 60_000, ..start };
        let more = Content { class: Class::Binary, looked: 4096, ..start };
        let mut kept = None;
        for (new, expected) in [(later, later), (start, start), (later, start), (more, more), (start, more)] {
            Content::better(&mut kept, new);
            assert_eq!(kept, Some(expected));
        }
    }
}
