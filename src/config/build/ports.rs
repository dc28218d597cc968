//! Which port of a container speaks MCP, and which host ports a server insists on.
//!
//! ```text
//! line has          transport auto             transport http or sse
//! -i                stdio; ports are plain     as without -i
//! -p 80             MCP on 80, host leased     the same
//! -p 8080:80        MCP on 80, host 8080 kept  the same
//! two -p            containerPort must say     the same
//! -p 1-9:80         refused                    refused
//! none              the image's EXPOSE         the image's EXPOSE
//! ```

use crate::config::build::{Builder, Work, transport_wish};
use crate::config::codes;
use crate::config::node::Node;
use crate::model::container::{ContainerSpec, HostPorts, Protocol, PublishedPort};
use crate::model::net::HostPort;
use crate::model::server::{McpPort, Transport, TransportWish};

/// A host port that a server publishes whatever the ledger says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FixedPort {
    /// The port.
    pub(crate) port: u16,
    /// Its protocol.
    pub(crate) protocol: Protocol,
    /// Its address; `None`: all.
    pub(crate) ip: Option<String>,
}

impl FixedPort {
    /// Whether both cannot be bound at once.
    pub(crate) fn clashes(&self, other: &Self) -> bool {
        let any = |ip: &Option<String>| match ip.as_deref() {
            None => true,
            Some(ip) => ip == "0.0.0.0" || ip == "::",
        };
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.ip) || any(&other.ip) || self.ip == other.ip)
    }
}

impl Builder<'_, '_> {
    /// The MCP port of `spec`, taken out of its published ports; problems go to the sink.
    pub(super) fn mcp_port(
        &mut self,
        work: &mut Work<'_>,
        spec: &mut ContainerSpec,
        interactive: bool,
        args_at: usize,
    ) -> Option<McpPort> {
        let said: Option<u16> = work.merged.number("containerPort");
        let is_stdio = match transport_wish(work) {
            TransportWish::Auto => interactive,
            TransportWish::Is(transport) => transport == Transport::Stdio,
        };
        if is_stdio {
            if let Some(value) = work.merged.get("containerPort") {
                let message = "'containerPort' has no effect on a stdio server";
                self.sink.warning(codes::NO_EFFECT, value.node.at, message);
                self.sink.hint("leave -i out, or set \"transport\": \"http\"");
            }
            return None;
        }
        let at = work.merged.get("containerPort").map_or(args_at, |value| value.node.at);
        let container_port = match said {
            Some(port) => port,
            None => self.only_published(spec, args_at)?,
        };
        let host_network = spec.networks.iter().any(|network| network.name == "host");
        let index = spec.published.iter().position(|published| {
            published.container.port == container_port && published.container.protocol == Protocol::Tcp
        });
        let published = index.map(|index| spec.published.remove(index));
        let host = published.as_ref().map_or(HostPorts::Unspecified, |published| published.host);
        let host_port = match host {
            HostPorts::FirstFreeOf(..) => {
                let message = "the MCP port is published on a range of host ports";
                self.sink.error(codes::WHICH_PORT, at, message);
                self.sink.hint("name one host port, or none for a port of the ledger");
                return None;
            }
            HostPorts::One(port) => HostPort::new(port),
            HostPorts::Unspecified if host_network => HostPort::new(container_port),
            HostPorts::Unspecified => None,
        };
        if let Some(port) = host_port {
            work.notes.push(match host {
                HostPorts::Unspecified => format!("port {port} is the host's own, by --network host"),
                HostPorts::One(_) | HostPorts::FirstFreeOf(..) => {
                    format!("host port {port} is kept as written")
                }
            });
        }
        Some(McpPort {
            container_port,
            host_port,
            host_ip: published.and_then(|published| published.host_ip),
        })
    }

    fn only_published(&mut self, spec: &ContainerSpec, at: usize) -> Option<u16> {
        let mut ports: Vec<u16> = spec
            .published
            .iter()
            .filter(|published| published.container.protocol == Protocol::Tcp)
            .map(|published| published.container.port)
            .collect();
        ports.dedup();
        match ports.as_slice() {
            [] => None,
            [port] => Some(*port),
            several => {
                let listed: Vec<String> = several.iter().map(u16::to_string).collect();
                let message = format!(
                    "several ports are published ({}); which one speaks MCP is not said",
                    listed.join(", ")
                );
                self.sink.error(codes::WHICH_PORT, at, message);
                self.sink.hint("set \"orchestrator\": {\"containerPort\": …}");
                None
            }
        }
    }
}

/// Host ports that `spec` and its MCP port insist on.
pub(super) fn fixed_ports(spec: &ContainerSpec, mcp: Option<&McpPort>) -> Vec<FixedPort> {
    let plain = spec.published.iter().filter_map(fixed);
    let own = mcp.and_then(|mcp| {
        Some(FixedPort { port: mcp.host_port?.get(), protocol: Protocol::Tcp, ip: mcp.host_ip.clone() })
    });
    plain.chain(own).collect()
}

fn fixed(published: &PublishedPort) -> Option<FixedPort> {
    match published.host {
        HostPorts::One(port) if port != 0 => {
            Some(FixedPort { port, protocol: published.container.protocol, ip: published.host_ip.clone() })
        }
        HostPorts::One(_) | HostPorts::Unspecified | HostPorts::FirstFreeOf(..) => None,
    }
}

/// Where the arguments of `entry` stand.
pub(super) fn args_at(entry: &Node) -> usize {
    entry.get("args").map_or(entry.at, |args| args.at)
}
