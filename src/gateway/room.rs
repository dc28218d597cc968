//! How many may do something at once, a number that settings change while they do.
//!
//! Must never let one wait for ever that came before others: who comes first goes in first.

use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of places.
#[derive(Debug)]
pub struct Room(RwLock<Arc<Semaphore>>);

impl Room {
    /// For this many; at least one.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(RwLock::new(Arc::new(Semaphore::new(most.max(1)))))
    }

    /// For this many from now on; who is in is not counted.
    pub fn set(&self, most: usize) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Semaphore::new(most.max(1)));
    }

    /// Waits for a place, which is free again when what this gives is dropped.
    pub async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        let room = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        room.acquire_owned().await.ok()
    }
}
