//! Ports, ranges of them and blocks of addresses, checked in the type.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A TCP port of this host, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostPort(std::num::NonZeroU16);

impl HostPort {
    /// The port, unless it is 0.
    #[must_use]
    pub fn new(port: u16) -> Option<Self> {
        std::num::NonZeroU16::new(port).map(Self)
    }

    /// The port as a number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The host ports that may be leased, both ends included (`[service] port_range_start/_end`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// Lowest port.
    pub start: HostPort,
    /// Highest port, at least `start`.
    pub end: HostPort,
}

impl PortRange {
    /// Whether `port` lies in the range.
    #[must_use]
    pub fn contains(&self, port: HostPort) -> bool {
        self.start <= port && port <= self.end
    }

    /// All ports of the range, lowest first.
    pub fn ports(&self) -> impl Iterator<Item = HostPort> + use<> {
        (self.start.get()..=self.end.get()).filter_map(HostPort::new)
    }

    /// How many ports the range has.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.end.get().saturating_sub(self.start.get())) + 1
    }

    /// Always false: a range has at least one port.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// A block of addresses, `10.0.0.0/16`, `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    /// Any address of the block.
    pub address: IpAddr,
    /// Bits of `address` that count.
    pub prefix: u8,
}

impl Cidr {
    /// Reads `address` or `address/prefix`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|bits| *bits <= most)?,
            None => most,
        };
        Some(Self { address, prefix })
    }

    /// This host's own.
    #[must_use]
    pub const fn loopback() -> [Self; 2] {
        [
            Self { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 },
            Self { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
        ]
    }

    /// Whether `address` lies in the block; IPv4 addresses mapped into IPv6 count as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, true),
            IpAddr::V6(v6) => (v6.to_bits(), false),
        };
        let ((own, own_v4), (other, other_v4)) = (bits(self.address), bits(address));
        let differing = own ^ other;
        let shift = 128_u32.saturating_sub(u32::from(self.prefix));
        own_v4 == other_v4 && differing.checked_shr(shift).unwrap_or(0) == 0
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::Cidr;

    #[test]
    fn blocks_contain_their_addresses() {
        let inside =
            |block: &str, address: &str| Cidr::parse(block).unwrap().contains(address.parse().unwrap());
        assert!(inside("10.0.0.0/8", "10.9.9.9"));
        assert!(inside("10.0.0.0/8", "::ffff:10.9.9.9"));
        assert!(!inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("0.0.0.0/0", "1.2.3.4"));
        assert!(inside("::1", "::1"));
        assert!(!inside("::1", "::2"));
        assert!(!inside("127.0.0.1", "::1"));
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "x/8", "10.0.0.0/-1"] {
            assert_eq!(Cidr::parse(text), None, "{text}");
        }
    }
}
