//! Assemble: records become manifests.
//!
//! Comes in: records of an arena, in any order. Goes out: [`pair::Pair`]s for `judge`.

pub mod manifest;
pub mod object;
pub mod pair;
pub mod pending;
pub mod program;
pub mod runs;
pub mod slab;
