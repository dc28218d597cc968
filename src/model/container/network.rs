//! Ports and networks of a container.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::container::is_default;

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// `/tcp`, or nothing said.
    #[default]
    Tcp,
    /// `/udp`.
    Udp,
    /// `/sctp`.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port of the container, written `80/tcp` by the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortProtocol {
    /// Port number.
    pub port: u16,
    /// Its protocol.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
}

impl fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// The host's side of `-p`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HostPorts {
    /// `-p 80`: nothing said.
    #[default]
    Unspecified,
    /// `-p 8080:80`; zero lets the engine choose.
    One(u16),
    /// `-p 8000-8010:80`: the engine takes the first free one.
    FirstFreeOf(u16, u16),
}

/// One container port published on the host (`-p`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Port in the container.
    pub container: PortProtocol,
    /// Address of the host, without brackets; `None`: all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub host_ip: Option<String>,
    /// Port of the host.
    #[serde(default, skip_serializing_if = "is_default")]
    pub host: HostPorts,
}

/// Attachment to a network (`--network`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkAttachment {
    /// Network name or id, or `default`, `bridge`, `host`, `none`, `container:NAME`.
    pub name: String,
    /// Extra DNS names in that network.
    #[serde(skip_serializing_if = "is_default")]
    pub aliases: Vec<String>,
    /// IPv4 address.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv4: Option<String>,
    /// IPv6 address.
    #[serde(skip_serializing_if = "is_default")]
    pub ipv6: Option<String>,
    /// Link-local addresses.
    #[serde(skip_serializing_if = "is_default")]
    pub link_local_ips: Vec<String>,
    /// MAC address (Engine API 1.44).
    #[serde(skip_serializing_if = "is_default")]
    pub mac_address: Option<String>,
    /// Options of the network driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver_options: BTreeMap<String, String>,
    /// Priority as default gateway (Engine API 1.48).
    #[serde(skip_serializing_if = "is_default")]
    pub gateway_priority: i64,
}

impl NetworkAttachment {
    /// Attachment to `name` with no options.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// True for a network that somebody made, false for the engine's own modes.
    pub fn is_user_defined(&self) -> bool {
        !matches!(self.name.as_str(), "default" | "bridge" | "host" | "none")
            && !self.name.starts_with("container:")
    }

    /// True when nothing but the name is given.
    pub fn is_plain(&self) -> bool {
        *self == Self::named(self.name.clone())
    }
}
