//! Who connects to services that only some programs connect to.
//!
//! Comes in: TCP connections of observed processes, from either end and in any order. Goes out: a
//! client and its service, where the baseline doesn't know the pair.
#![forbid(unsafe_code)]

use super::tools;
use crate::host::facts::Facts;
use crate::model::Process;
use counterfoil_abi::record::Address;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Addresses of services remembered.
const SERVICES: usize = 1024;
/// Connections whose service has not been seen yet.
const WAITING: usize = 256;

/// A TCP connection, as one end has it.
#[derive(Clone, Debug)]
pub struct Tcp {
    /// Whose.
    pub facts: Arc<Facts>,
    /// Which process of that program's.
    pub pid: u32,
    /// It came from accept.
    pub accepted: bool,
    /// Its address.
    pub local: Address,
    /// The other end's.
    pub remote: Address,
}

/// Somebody who doesn't usually connect there.
#[derive(Debug)]
pub struct Stranger {
    /// The connection, as the client has it.
    pub tcp: Tcp,
    /// The service's program, or its port.
    pub service: String,
}

/// Services by where they were reached, and clients that wait for theirs to be known.
#[derive(Default)]
pub struct Clients {
    services: HashMap<Address, String>,
    waiting: VecDeque<Tcp>,
}

impl Clients {
    /// One end of a connection was seen.
    pub fn see(&mut self, tcp: Tcp) -> Option<Stranger> {
        if !tcp.accepted {
            return self.connected(tcp);
        }
        let exe = tcp.facts.process.exe.clone().filter(|exe| tools::picky(tools::name(exe)))?;
        if self.services.len() < SERVICES || self.services.contains_key(&tcp.local) {
            self.services.insert(tcp.local, exe);
        }
        let waits = |w: &Tcp| w.remote == tcp.local && w.local.port == tcp.remote.port;
        let at = self.waiting.iter().position(waits)?;
        let client = self.waiting.remove(at)?;
        self.connected(client)
    }

    fn connected(&mut self, tcp: Tcp) -> Option<Stranger> {
        let exe = self.services.get(&tcp.remote);
        if exe.is_none() && !tools::picky_port(tcp.remote.port) {
            if self.waiting.len() >= WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(tcp);
            return None;
        }
        let client: &Process = &tcp.facts.process;
        let service = tools::strange_to(client, exe.map(String::as_str), tcp.remote.port)?;
        Some(Stranger { tcp, service })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_either_order() {
        let at = |port| Address { ip: [127; 16], port, version: 4, ..Address::default() };
        let tcp = |exe: &str, accepted, local, remote| {
            let process = Process { pid: 7, exe: Some(exe.into()), ..Process::default() };
            let facts = Arc::new(Facts { process, ..Facts::default() });
            Tcp { facts, pid: 7, accepted, local: at(local), remote: at(remote) }
        };
        let mut clients = Clients::default();
        assert!(clients.see(tcp("/usr/bin/python3", false, 40000, 2222)).is_none());
        let found = clients.see(tcp("/usr/sbin/sshd", true, 2222, 40000)).unwrap();
        assert_eq!((found.service.as_str(), found.tcp.local.port), ("/usr/sbin/sshd", 40000));
        assert!(clients.see(tcp("/usr/bin/python3", false, 40002, 2222)).is_some());
        assert!(clients.see(tcp("/usr/bin/ssh", false, 40004, 2222)).is_none());
        assert!(clients.see(tcp("/usr/sbin/nginx", true, 443, 40006)).is_none());
        assert!(clients.see(tcp("/usr/bin/python3", false, 40006, 443)).is_none());
    }
}
