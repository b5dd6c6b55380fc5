//! The host: hello, identity, and what `/proc` and the kernel know about processes.

mod dir;
pub mod executables;
pub mod facts;
pub mod keep;
pub(crate) mod kernel;
pub mod listen;
pub(crate) mod regular;
pub mod room;

pub(crate) use dir::user_name;
pub use facts::path_text;
