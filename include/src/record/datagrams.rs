//! Datagrams over IP: each may go somewhere else.

use super::{Address, Header, LINE};
use bytemuck::{Pod, Zeroable};

/// [`super::Kind::Datagrams`]: where a socket's datagrams go from here on, and how much had gone before. Told when one names
/// another destination than the last, and now and then as the volume grows. One line.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Datagrams {
    /// Common part.
    pub header: Header,
    /// Where this one goes; version 0: where the last one went, or where the socket is connected.
    pub remote: Address,
    /// Bytes sent before it, to wherever.
    pub sent: u64,
    /// Its own bytes.
    pub bytes: u64,
    /// Bytes received before it.
    pub received: u64,
}

const _: () = assert!(size_of::<Datagrams>() == LINE);
