//! Ends that an event told of a moment ago.
//!
//! The engine's list shows a container as running for up to 60 ms after the `die` event that says
//! it is not (measured on 20.10), and an inspect sent meanwhile is held back. What the engine said
//! last is what counts, whichever way it said it. Must never decide anything.

use crate::model::observed::{Container, ContainerState};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the list may lag behind an event.
const LAG: Duration = Duration::from_secs(1);
/// Ends that are remembered; with more at once the list is read again soon anyway.
const ENDS_MAX: usize = 1024;

/// Exit codes by container, with the time of the event.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<BTreeMap<String, (Instant, i64)>>);

impl Recent {
    /// Container `id` ended.
    pub(crate) fn ended(&self, id: String, code: i64) {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.retain(|_, (at, _)| at.elapsed() < LAG);
        if ends.len() < ENDS_MAX {
            ends.insert(id, (Instant::now(), code));
        }
    }

    /// Something else happened to container `id`, such as a start.
    pub(crate) fn forget(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Puts into a list what events said later.
    pub(crate) fn correct(&self, containers: &mut [Container]) {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for container in containers {
            let end = ends.get(container.id.as_str()).filter(|(at, _)| at.elapsed() < LAG);
            if let (Some((_, code)), ContainerState::Running(_)) = (end, container.state) {
                container.state = ContainerState::Exited(*code);
            }
        }
    }
}
