//! The daemon's stages and what they work on.

pub mod alarms;
pub mod arena;
pub mod assemble;
pub mod collect;
pub mod commands;
pub mod config;
pub mod core;
pub mod demo;
pub mod desk;
pub mod detect;
pub mod doctor;
pub mod escape;
pub mod host;
pub mod judge;
pub mod judged;
pub mod keeper;
pub mod ledger;
pub mod library;
pub mod model;
pub mod pipeline;
pub mod place;
pub mod portable;
pub mod redact;
pub mod report;
#[cfg(test)]
pub(crate) mod sample;
pub mod session;
pub mod sinks;
pub mod spool;
pub mod surround;
pub mod verify;
