//! The world as the files want it.
//!
//! Must never be built from an unreadable file: then the last good value is kept and
//! [`Desired::stale`] says why.

use crate::model::id::ServerId;
use crate::model::server::Server;
use std::collections::BTreeMap;

/// Every server as it should be, in id order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Entries that are whole.
    pub servers: BTreeMap<ServerId, Server>,
    /// Entries with a problem: what is wrong, in one line. Whatever runs for them stays as it is.
    pub broken: BTreeMap<ServerId, String>,
    /// Broken entries whose name gives no id; while there are any, an object of ours that no entry
    /// claims may belong to one of them.
    pub nameless: Vec<String>,
    /// Why the newest file could not be used, when this is an older one. Nothing is removed then.
    pub stale: Option<String>,
}

impl Desired {
    /// Whether some entry, good or broken, claims `id`.
    #[must_use]
    pub fn claims(&self, id: &ServerId) -> bool {
        self.servers.contains_key(id) || self.broken.contains_key(id)
    }
}
