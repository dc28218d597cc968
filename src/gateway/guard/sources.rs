//! Addresses that may connect to edge ports (`[gateway] allowed_sources`).
//!
//! Checked when a connection is accepted, by its own peer address: what a header says about a
//! client behind it counts for nothing here.

use crate::model::net::Cidr;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

/// A block of addresses.
pub type Block = Cidr;

/// Who may connect; may change while listeners are open.
#[derive(Debug)]
pub struct Sources {
    /// `None`: everybody.
    blocks: RwLock<Option<Arc<[Cidr]>>>,
}

impl Sources {
    /// Everybody.
    #[must_use]
    pub const fn any() -> Self {
        Self { blocks: RwLock::new(None) }
    }

    /// Addresses of these blocks.
    #[must_use]
    pub fn of(blocks: &[Cidr]) -> Self {
        Self { blocks: RwLock::new(Some(Arc::from(blocks))) }
    }

    /// From now on, addresses of these blocks.
    pub fn set(&self, blocks: &[Cidr]) {
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
    use super::Sources;
    use crate::model::net::Cidr;

    #[test]
    fn blocks() {
        let sources = Sources::of(&Cidr::loopback());
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
        let blocks: Vec<Cidr> =
            ["10.0.0.0/8", "fd00::/9", "192.0.2.7"].iter().map(|b| Cidr::parse(b).unwrap()).collect();
        sources.set(&blocks);
        check(&sources, &[("10.255.0.1", true), ("11.0.0.1", false), ("fd7f::1", true), ("fd80::1", false)]);
        check(&sources, &[("192.0.2.7", true), ("192.0.2.6", false), ("127.0.0.1", false)]);
        sources.set(&[Cidr::parse("0.0.0.0/0").unwrap()]);
        check(&sources, &[("192.0.2.7", true), ("::1", false)]);
        sources.set(&[]);
        check(&sources, &outside);
        assert!(Sources::any().allow("192.0.2.7".parse().unwrap()));
    }
}
