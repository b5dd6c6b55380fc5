//! What of a transfer's content was found again elsewhere, so that it is not found twice.

use std::collections::BTreeSet;

/// By a message's number in its stream, or all of it.
#[derive(Debug, Default)]
pub enum Taken {
    /// Nothing.
    #[default]
    None,
    /// These messages.
    Messages(BTreeSet<usize>),
    /// All.
    All,
}

impl Taken {
    /// Nothing is.
    pub fn none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// All is.
    pub fn all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// This message is not.
    pub fn free(&self, message: usize) -> bool {
        match self {
            Self::None => true,
            Self::Messages(taken) => !taken.contains(&message),
            Self::All => false,
        }
    }

    /// This message is from now on.
    pub fn take(&mut self, message: usize) {
        match self {
            Self::None => *self = Self::Messages(BTreeSet::from([message])),
            Self::Messages(taken) => _ = taken.insert(message),
            Self::All => {}
        }
    }
}
