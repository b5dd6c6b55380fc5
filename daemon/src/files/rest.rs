//! What is known of a file as it lies there.

use crate::rest::AtRest;

/// Has it been read at rest?
#[derive(Debug, Default)]
pub enum AtRestState {
    /// Nobody asked.
    #[default]
    NotAsked,
    /// Under way: the ask's number, and the prefix that was asked for.
    Asked(u64, Option<u64>),
    /// It has, and this is the prefix that was asked for.
    Had(Box<AtRest>, Option<u64>),
    /// It can't be.
    Refused,
}

impl AtRestState {
    /// The answer.
    pub fn had(&self) -> Option<&AtRest> {
        match self {
            Self::Had(rest, _) => Some(rest),
            _ => None,
        }
    }

    /// An answer will come.
    pub fn pending(&self) -> bool {
        matches!(self, Self::Asked(..))
    }

    /// There is, or will be, no answer to a question for this prefix.
    pub fn unasked(&self, prefix: Option<u64>) -> bool {
        match self {
            Self::NotAsked => true,
            Self::Had(_, asked) => prefix.is_some() && *asked != prefix,
            Self::Asked(..) | Self::Refused => false,
        }
    }
}
