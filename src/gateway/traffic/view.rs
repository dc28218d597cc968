//! What is counted of a server's limits, and how they stand: for figures, answers and pages.
//!
//! Must never tell clients apart.

use crate::gateway::lock;
use crate::gateway::traffic::Traffic;
use crate::traffic::breaker::State;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why calls were not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Too many of all clients.
    Rate,
    /// Too many of one client.
    ClientRate,
    /// The queue was full.
    QueueFull,
    /// Its wait there was too long.
    QueueTimeout,
    /// The circuit was open.
    Circuit,
    /// It was too long.
    RequestSize,
    /// Its answer was too long.
    ResponseSize,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Rate,
        Self::ClientRate,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::Circuit,
        Self::RequestSize,
        Self::ResponseSize,
    ];

    /// The word used in figures and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::ClientRate => "client-rate",
            Self::QueueFull => "queue-full",
            Self::QueueTimeout => "queue-timeout",
            Self::Circuit => "circuit",
            Self::RequestSize => "request-size",
            Self::ResponseSize => "response-size",
        }
    }
}

/// The counters of one server.
#[derive(Debug, Default)]
pub struct Counts {
    denied: [AtomicU64; Reason::ALL.len()],
    hits: AtomicU64,
    misses: AtomicU64,
    retries: AtomicU64,
    opened: AtomicU64,
}

impl Counts {
    fn of(&self, reason: Reason) -> Option<&AtomicU64> {
        let at = Reason::ALL.iter().position(|one| *one == reason)?;
        self.denied.get(at)
    }

    /// A call was not let through.
    pub fn denied(&self, reason: Reason) {
        if let Some(count) = self.of(reason) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// An answer was looked for among those kept.
    pub fn looked_up(&self, found: bool) {
        let count = if found { &self.hits } else { &self.misses };
        count.fetch_add(1, Relaxed);
    }

    /// A call is sent again.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// The circuit opened.
    pub fn opened(&self) {
        self.opened.fetch_add(1, Relaxed);
    }
}

/// How a server's limits stand.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficView {
    /// Whether the entry asks for any.
    pub limited: bool,
    /// Calls that have a place at the gate.
    pub running: u32,
    /// Calls that wait for one.
    pub waiting: u32,
    /// Calls that were not let through, and answers that were not, by reason.
    pub denied: BTreeMap<&'static str, u64>,
    /// `closed`, `half-open` or `open`.
    pub circuit: State,
    /// How often it opened.
    pub circuit_opened: u64,
    /// Calls whose answer was kept.
    pub cache_hits: u64,
    /// Calls that were sent because theirs was not.
    pub cache_misses: u64,
    /// Answers that are kept.
    pub cached: usize,
    /// Their bytes.
    pub cached_bytes: u64,
    /// Calls sent again.
    pub retries: u64,
}

impl TrafficView {
    /// Calls that were not let through, whatever the reason.
    #[must_use]
    pub fn denied_in_all(&self) -> u64 {
        self.denied.values().sum()
    }
}

impl Traffic {
    /// How it stands now.
    #[must_use]
    pub fn view(&self) -> TrafficView {
        let circuit = lock(&self.circuit).breaker.state(self.now_millis());
        // What is of all instances together stands at the first, so that sums are right.
        let first = self.instance.replica_number() == 1;
        let (running, waiting) = if first {
            let held = lock(&self.whole.held);
            (held.gate.running(), held.gate.waiting())
        } else {
            (0, 0)
        };
        let (cached_bytes, cached) = if first { lock(&self.whole.kept).size() } else { (0, 0) };
        let counts = &self.counts;
        let count =
            |reason: &Reason| (reason.as_str(), counts.of(*reason).map_or(0, |count| count.load(Relaxed)));
        TrafficView {
            limited: self.whole.on.load(Relaxed),
            running,
            waiting,
            denied: Reason::ALL.iter().map(count).collect(),
            circuit,
            circuit_opened: counts.opened.load(Relaxed),
            cache_hits: counts.hits.load(Relaxed),
            cache_misses: counts.misses.load(Relaxed),
            cached,
            cached_bytes,
            retries: counts.retries.load(Relaxed),
        }
    }
}
