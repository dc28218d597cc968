//! Containers that events named a moment ago.
//!
//! Only makes reading exact where the engine's list lags behind its own events; must never decide
//! anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the list may lag behind an event.
const FRESH: Duration = Duration::from_secs(2);
/// Containers that are remembered; more at once means that the list is read soon again anyway.
const RECENT_MAX: usize = 256;

/// Ids with the time of their last event.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<BTreeMap<String, Instant>>);

impl Recent {
    /// An event named `id`.
    pub(crate) fn note(&self, id: String) {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.retain(|_, at| at.elapsed() < FRESH);
        if ids.len() < RECENT_MAX {
            ids.insert(id, Instant::now());
        }
    }

    /// Ids that events named within the last two seconds.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        let ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.iter().filter(|(_, at)| at.elapsed() < FRESH).map(|(id, _)| id.clone()).collect()
    }
}
