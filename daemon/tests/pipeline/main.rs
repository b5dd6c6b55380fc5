//! The whole pipeline, from a hello over a real socket to what `detect` hears.

#![allow(clippy::undocumented_unsafe_blocks, reason = "fork and scribbling are what is tested")]

#[path = "../fake/mod.rs"]
mod fake;
mod harness;
mod programs;
mod verdicts;
