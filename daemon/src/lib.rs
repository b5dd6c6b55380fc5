//! The daemon's stages and what they work on.

pub mod config;
pub mod escape;
pub mod judged;
pub mod model;
pub mod redact;
