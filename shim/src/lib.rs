//! libcounterfoil.so, the preloaded library ("shim").
//!
//! Comes in: the calls of the program that it is loaded into. Goes out: records in a lane of the
//! process's arena, to the daemon. The way of one call, read top to bottom: a hook (`hooks/`) →
//! [`record`] → [`stream`] → [`lanes`].
//!
//! Nothing in a hook allocates, locks, blocks, formats or panics, and on the way of bytes there is
//! no system call. Everything else is done once, by the constructor in [`start`].

mod asked;
mod code;
mod content;
mod datagrams;
mod deep;
mod elf;
mod exports;
mod family;
mod fds;
mod file;
mod foreign;
mod gnutls;
mod hooks;
mod images;
mod kernel;
mod lanes;
mod library;
mod library_file;
mod loaded;
mod mac;
mod memory;
mod names;
mod objects;
mod openssl;
mod pipes;
mod process;
mod readable;
mod real;
mod record;
mod reinject;
mod scratch;
mod session;
mod sessions;
mod shield;
mod ssh;
mod start;
mod stream;
mod target;
mod thread;
mod tls;
mod witness;
