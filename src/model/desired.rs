//! The world as the files want it.
//!
//! Must never be built from an unreadable file: then the last good value is kept and
//! [`Desired::stale`] says why.

use crate::model::id::ServerId;
use crate::model::server::Server;
use std::borrow::Cow;
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
    /// Whether some entry, good or broken, claims `id`. Of a broken entry nobody knows how many instances it
    /// asks for: it claims all that are there.
    #[must_use]
    pub fn claims(&self, id: &ServerId) -> bool {
        self.servers.contains_key(id) || self.is_broken(id)
    }

    /// Whether `id`, or the server that it is an instance of, has an entry with a problem.
    #[must_use]
    pub fn is_broken(&self, id: &ServerId) -> bool {
        !self.broken.is_empty() && self.broken.contains_key(&id.server())
    }

    /// Whether `id` is an instance that its server does not ask for any more. Only to be asked of
    /// [`Self::instances`].
    #[must_use]
    pub fn is_spare(&self, id: &ServerId) -> bool {
        !self.servers.contains_key(id) && self.servers.contains_key(&id.server())
    }

    /// The same with every instance of every server as a server of its own (`time`, `time-R2`, …): what is
    /// planned with. The instances of an instance are itself.
    #[must_use]
    pub fn instances(&self) -> Cow<'_, Self> {
        if self.servers.values().all(|server| server.replicas < 2) {
            return Cow::Borrowed(self);
        }
        let mut all = self.clone();
        for server in self.servers.values().filter(|server| server.id.replica_number() == 1) {
            for number in 2..=server.replicas {
                let instance = server.instance(number);
                all.servers.insert(instance.id.clone(), instance);
            }
        }
        Cow::Owned(all)
    }

    /// The same with one server for each entry: the other way round.
    #[must_use]
    pub fn entries(mut self) -> Self {
        self.servers.retain(|id, _| id.replica_number() == 1);
        self
    }
}
