//! The daemon's stages and what they work on.

pub mod host;
pub mod judged;
pub mod model;
pub mod pipeline;
