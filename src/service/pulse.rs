//! Whether the loop moves, for whoever must know without being part of it.
//!
//! A loop with nothing to do turns when it is asked to; one at work turns with every step of a pass.
//! Must never wake a pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;

/// The loop's sign of life.
#[derive(Debug, Default)]
pub struct Pulse {
    asked: Notify,
    /// Steps of passes.
    steps: Arc<AtomicU64>,
    turns: AtomicU64,
    waits: AtomicBool,
}

impl Pulse {
    /// One that counts these steps along with the loop's turns.
    #[must_use]
    pub fn new(steps: Arc<AtomicU64>) -> Self {
        Self { steps, ..Self::default() }
    }

    /// Asks a loop that waits for a turn.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Turns and steps so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.turns.load(Ordering::Relaxed).wrapping_add(self.steps.load(Ordering::Relaxed))
    }

    /// Whether the loop waits for something to do, so that it must turn when asked.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Resolves when a turn is asked for.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// The loop turned, and now waits or works.
    pub(crate) fn turn(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
        self.turns.fetch_add(1, Ordering::Relaxed);
    }
}
