//! Addresses that may connect to edge ports (`[gateway] allowed_sources`).
//!
//! Checked when a connection is accepted, by its own peer address: what a header says about a
//! client behind it counts for nothing here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, PoisonError, RwLock};

/// A block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Any address of the block.
    pub address: IpAddr,
    /// Bits of it that count.
    pub prefix: u8,
}

impl Block {
    /// Reads `address` or `address/prefix`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(most), |prefix| prefix.parse().ok().filter(|bits| *bits <= most))?;
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

    fn contains(self, address: IpAddr) -> bool {
        let (own, other, width) = match (self.address.to_canonical(), address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128_u32),
            _ => return false,
        };
        let differing: u128 = own ^ other;
        differing.checked_shr(width.saturating_sub(self.prefix.into())).unwrap_or(0) == 0
    }
}

/// Who may connect; may change while listeners are open.
#[derive(Debug)]
pub struct Sources {
    /// `None`: everybody.
    blocks: RwLock<Option<Arc<[Block]>>>,
}

impl Sources {
    /// Everybody.
    #[must_use]
    pub const fn any() -> Self {
        Self { blocks: RwLock::new(None) }
    }

    /// Addresses of these blocks.
    #[must_use]
    pub fn of(blocks: &[Block]) -> Self {
        Self { blocks: RwLock::new(Some(Arc::from(blocks))) }
    }

    /// From now on, addresses of these blocks.
    pub fn set(&self, blocks: &[Block]) {
        *self.blocks.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::from(blocks));
    }

    /// Whether `peer` may connect.
    #[must_use]
    pub fn allow(&self, peer: IpAddr) -> bool {
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        let peer = peer.to_canonical();
        blocks.as_ref().is_none_or(|blocks| blocks.iter().any(|block| block.contains(peer)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, Sources};

    #[test]
    fn blocks() {
        let sources = Sources::of(&Block::loopback());
        let check = |sources: &Sources, table: &[(&str, bool)]| {
            for (address, allowed) in table {
                assert_eq!(sources.allow(address.parse().unwrap()), *allowed, "{address}");
            }
        };
        let outside = [("10.0.0.1", false), ("::2", false), ("128.0.0.1", false)];
        check(
            &sources,
            &[("127.0.0.1", true), ("127.9.9.9", true), ("::1", true), ("::ffff:127.0.0.1", true)],
        );
        check(&sources, &outside);
        let blocks: Vec<Block> =
            ["10.0.0.0/8", "fd00::/9", "192.0.2.7"].iter().map(|b| Block::parse(b).unwrap()).collect();
        sources.set(&blocks);
        check(&sources, &[("10.255.0.1", true), ("11.0.0.1", false), ("fd7f::1", true), ("fd80::1", false)]);
        check(&sources, &[("192.0.2.7", true), ("192.0.2.6", false), ("127.0.0.1", false)]);
        sources.set(&[Block::parse("0.0.0.0/0").unwrap()]);
        check(&sources, &[("192.0.2.7", true), ("::1", false)]);
        sources.set(&[]);
        check(&sources, &outside);
        assert!(Sources::any().allow("192.0.2.7".parse().unwrap()));
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "x/8", "10.0.0.0/-1"] {
            assert_eq!(Block::parse(text), None, "{text}");
        }
    }
}
