//! This host: programs of others that listen, and the edge listeners of the program under test.
//!
//! Ports are TCP; an address of all interfaces overlaps with every address.

use crate::model::id::{ContainerId, ServerId};
use crate::model::net::{HostPort, PortRange};
use crate::model::op::EdgeOp;
use crate::world::ErrorKind;
use crate::world::fake::demand::Used;
use crate::world::fake::state::{No, State};
use std::collections::{BTreeMap, BTreeSet};

/// What listens on this host besides containers.
#[derive(Debug, Default)]
pub(crate) struct HostState {
    /// Others' programs: port and address.
    pub(crate) foreign: BTreeMap<HostPort, String>,
    /// Edge listeners, oldest first.
    pub(crate) edges: Vec<(ServerId, HostPort)>,
    /// Containers that requests were handed over to.
    pub(crate) handed_over: BTreeMap<ServerId, ContainerId>,
    /// Clients of servers that may sleep.
    pub(crate) used: BTreeMap<ServerId, Used>,
    /// Legs whose sessions were ended.
    pub(crate) legs_let_go: BTreeSet<ContainerId>,
}

/// Whether two host addresses cannot both be bound on one port.
pub(crate) fn overlaps(a: &str, b: &str) -> bool {
    let all = |address: &str| matches!(address, "" | "0.0.0.0" | "::" | "[::]");
    a == b || all(a) || all(b)
}

impl State {
    /// Who holds `port` at `address`, in words.
    pub(crate) fn holder(&self, address: &str, port: HostPort) -> Option<String> {
        if let Some(theirs) = self.host.foreign.get(&port)
            && overlaps(address, theirs)
        {
            return Some("another program".to_owned());
        }
        if let Some((server, _)) = self.host.edges.iter().find(|(_, p)| *p == port)
            && overlaps(address, &self.policy.host)
        {
            return Some(format!("the edge of {server}"));
        }
        self.engine.publisher(address, port).map(|name| format!("container {name}"))
    }

    pub(crate) fn free_ports(&self, address: &str, range: PortRange) -> Vec<HostPort> {
        let taken = self.engine.published();
        let free = |port: &HostPort| {
            let edge = self.host.edges.iter().any(|(_, p)| p == port) && overlaps(address, &self.policy.host);
            let foreign = self.host.foreign.get(port).is_some_and(|theirs| overlaps(address, theirs));
            let container = taken.iter().any(|(ip, p)| p == port && overlaps(address, ip));
            !edge && !foreign && !container
        };
        range.ports().filter(free).collect()
    }

    /// Whether a connection to `port` would be accepted.
    pub(crate) fn accepts(&self, port: HostPort) -> bool {
        self.host.foreign.contains_key(&port) || self.serves(port)
    }

    /// Whether something of ours (or another container) answers MCP on `port`.
    pub(crate) fn serves(&self, port: HostPort) -> bool {
        self.host.edges.iter().any(|(_, p)| *p == port) || self.engine.serves(port, self.now)
    }

    pub(crate) fn edge_op(&mut self, op: &EdgeOp) -> Result<(), No> {
        match op {
            EdgeOp::Open { server, port } => {
                if self.host.edges.iter().any(|(s, p)| s == server && p == port) {
                    return Ok(());
                }
                if let Some(holder) = self.holder(&self.policy.host, *port) {
                    return No::new(ErrorKind::Conflict, format!("address in use: {holder}"));
                }
                self.host.edges.push((server.clone(), *port));
                Ok(())
            }
            EdgeOp::Close { server, port } => {
                self.host.edges.retain(|(s, p)| (s, p) != (server, port));
                Ok(())
            }
            EdgeOp::HandOver { server, container } => self.hand_over(server, container),
            EdgeOp::EndLegs { legs, .. } => {
                self.end_legs(legs);
                Ok(())
            }
            EdgeOp::Sleep { server, uses } => self.put_to_sleep(server, *uses),
            // Connections are not played here.
            EdgeOp::Restart { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::overlaps;

    #[test]
    fn all_interfaces_overlap_with_each() {
        assert!(overlaps("0.0.0.0", "127.0.0.1") && overlaps("10.0.0.1", "") && overlaps("a", "a"));
        assert!(!overlaps("127.0.0.1", "10.0.0.1"));
    }
}
