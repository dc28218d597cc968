//! What servers that may sleep offer, between the gateway and the state file.
//!
//! Must never make a request wait for the disk.

use crate::gateway::known::Offers;
use crate::model::id::ServerId;
use crate::world::OfferStore;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Offers of the last run, until they are taken up; new ones go to the store.
pub(super) struct KeptOffers {
    store: Arc<dyn OfferStore>,
    held: Mutex<BTreeMap<ServerId, String>>,
}

impl KeptOffers {
    /// Those of the last run.
    pub(super) async fn load(store: Arc<dyn OfferStore>) -> Self {
        let held = store.load_offers().await.unwrap_or_else(|error| {
            tracing::warn!(
                MCP_ERROR_CODE = error.kind.code(),
                "servers that sleep are started to list their tools: {error}"
            );
            Vec::new()
        });
        Self { store, held: Mutex::new(held.into_iter().collect()) }
    }
}

impl Offers for KeptOffers {
    fn recall(&self, server: &ServerId) -> Option<String> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(server)
    }

    fn keep(&self, server: &ServerId, text: String) {
        let (store, server) = (Arc::clone(&self.store), server.clone());
        tokio::spawn(async move {
            if let Err(error) = store.put_offer(&server, text).await {
                tracing::warn!(
                    MCP_SERVER = %server,
                    MCP_ERROR_CODE = error.kind.code(),
                    "its tools are forgotten with this process: {error}"
                );
            }
        });
    }
}
