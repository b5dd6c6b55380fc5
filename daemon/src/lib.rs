//! The daemon's stages and what they work on.

pub mod arena;
pub mod assemble;
pub mod collect;
pub mod core;
pub mod host;
pub mod judge;
pub mod judged;
pub mod model;
pub mod pipeline;
