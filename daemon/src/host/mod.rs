//! The host: hello, identity, and what `/proc` knows about processes.

pub mod facts;
