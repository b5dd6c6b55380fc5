//! The daemon's stages and what they work on.

pub mod judged;
pub mod model;
