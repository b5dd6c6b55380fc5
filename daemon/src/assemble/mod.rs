//! Assemble: records become manifests.
//!
//! Comes in: records of an arena, in any order. Goes out: [`pair::Pair`]s for `judge`.

pub mod manifest;
pub mod pair;
pub mod pending;
pub mod runs;
