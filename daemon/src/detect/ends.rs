//! The two ends of a transfer in words, and which of two addresses is the service's.
#![forbid(unsafe_code)]

use crate::model::{Channel, Connection, Endpoint, Process, Range};
use std::net::SocketAddr;

/// `curl (pid 12)`, from a path or the name alone.
pub(crate) fn name(exe: Option<&str>, pid: u32) -> String {
    match exe.and_then(|e| e.rsplit('/').next()).filter(|n| !n.is_empty()) {
        Some(name) => format!("{name} (pid {pid})"),
        None => format!("pid {pid}"),
    }
}

/// A process, or that none was seen.
pub(crate) fn process(process: Option<&Process>) -> String {
    process.map_or_else(|| "a process that is not observed".into(), |p| name(p.exe.as_deref(), p.pid))
}

/// An endpoint, or that none was seen.
pub(crate) fn endpoint(end: Option<&Endpoint>) -> String {
    end.map_or_else(|| "a process that is not observed".into(), |e| name(e.exe.as_deref(), e.pid))
}

/// `TLS` ….
pub(super) fn channel(channel: Channel) -> &'static str {
    match channel {
        Channel::Tls => "TLS",
        Channel::Tcp => "TCP",
        Channel::Unix => "a Unix socket",
        Channel::Pipe => "a pipe",
        Channel::File => "a file",
        Channel::Datagram => "datagrams",
    }
}

/// ` 10.0.0.1:40000 → 10.0.0.2:443`, or nothing.
pub(super) fn route(connection: Option<&Connection>) -> String {
    match connection {
        Some(Connection { local: Some(local), remote: Some(remote), .. }) => format!(" ({local} – {remote})"),
        _ => String::new(),
    }
}

/// `bytes 0–16383 and 32768–49151`, the first few.
pub(crate) fn ranges(ranges: &[Range]) -> String {
    const SHOWN: usize = 4;
    let mut parts: Vec<String> = ranges
        .iter()
        .take(SHOWN)
        .map(|r| match r.length {
            0 | 1 => r.offset.to_string(),
            n => format!("{}–{}", r.offset, r.offset.saturating_add(n - 1)),
        })
        .collect();
    if ranges.len() > SHOWN {
        parts.push(format!("{} more ranges", ranges.len() - SHOWN));
    }
    let unit = if ranges.len() == 1 && ranges[0].length <= 1 { "byte" } else { "bytes" };
    match parts.split_last() {
        None => "bytes at an unknown place".into(),
        Some((last, [])) => format!("{unit} {last}"),
        Some((last, rest)) => format!("{unit} {} and {last}", rest.join(", ")),
    }
}

fn addresses(connection: &Connection) -> Option<(SocketAddr, SocketAddr)> {
    Some((connection.local.as_ref()?.parse().ok()?, connection.remote.as_ref()?.parse().ok()?))
}

/// Ports from here on are picked by the kernel (net.ipv4.ip_local_port_range).
const PICKED: u16 = 32768;

/// True if the remote address is the service's. Its port is the lower one; where both are the
/// kernel's choice, the odd one: since 4.2 Linux gives odd ports to bind(2) and even ones to connect(2)
/// while it has them (inet_hash_connect, inet_csk_find_open_port). None: can't be told.
fn remote_serves(local: SocketAddr, remote: SocketAddr) -> Option<bool> {
    let lower = remote.port().min(local.port());
    if lower < PICKED {
        return Some(remote.port() == lower);
    }
    match (local.port() % 2, remote.port() % 2) {
        (0, 1) => Some(true),
        (1, 0) => Some(false),
        _ => None,
    }
}

/// The address that serves.
pub(super) fn service(connection: &Connection) -> Option<SocketAddr> {
    let (local, remote) = addresses(connection)?;
    Some(if remote_serves(local, remote).unwrap_or(true) { remote } else { local })
}

/// The address that serves, and whether it is the remote one; None where that can't be told.
pub(crate) fn served_by(connection: &Connection) -> Option<(SocketAddr, bool)> {
    let (local, remote) = addresses(connection)?;
    let serves = remote_serves(local, remote)?;
    Some((if serves { remote } else { local }, serves))
}

/// Both addresses, with the port of the serving one only: an alarm is about a service.
pub(super) fn stable(connection: &Connection) -> (Option<String>, Option<String>) {
    let Some((local, remote)) = addresses(connection) else { return (None, None) };
    let ip = |address: SocketAddr| Some(address.ip().to_string());
    match remote_serves(local, remote) {
        Some(true) => (ip(local), Some(remote.to_string())),
        Some(false) => (Some(local.to_string()), ip(remote)),
        // Better an alarm for each connection than one for different services.
        None => (Some(local.to_string()), Some(remote.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_serves() {
        let both = |local: &str, remote: &str| {
            let connection = Connection {
                local: Some(local.into()),
                remote: Some(remote.into()),
                ..Connection::default()
            };
            let (a, b) = stable(&connection);
            (a.unwrap(), b.unwrap())
        };
        let to = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(both("10.0.0.1:40000", "10.0.0.2:443"), to("10.0.0.1", "10.0.0.2:443"));
        assert_eq!(both("10.0.0.2:443", "10.0.0.1:40000"), to("10.0.0.2:443", "10.0.0.1"));
        assert_eq!(both("10.0.0.1:873", "10.0.0.2:22"), to("10.0.0.1", "10.0.0.2:22"));
        assert_eq!(both("[::1]:40000", "[::1]:45001"), to("::1", "[::1]:45001"));
        assert_eq!(both("10.0.0.1:45001", "10.0.0.2:40000"), to("10.0.0.1:45001", "10.0.0.2"));
        assert_eq!(both("10.0.0.1:45002", "10.0.0.2:40000"), to("10.0.0.1:45002", "10.0.0.2:40000"));
    }
}
