//! What servers and this host use, now and over the last hours, for people who look.
//!
//! ```text
//! counters of the engine, /proc, the gateway --sampler--> rates of now, points of the history
//! points --every few minutes--> the state file --at the start--> points
//! ```
//! Readings are taken once a minute, and every ten seconds while somebody looks: a page that is open,
//! a request for figures. With more than [`sampler::READS_A_MINUTE`] containers they come less often,
//! so that what they cost does not grow with the fleet. What does not run is not read.
//!
//! Must never be waited for by a pass, and never take part in a decision.

mod history;
mod sampler;
#[cfg(test)]
mod tests;

use crate::gateway::metrics::BUCKETS_MICROS;
use crate::model::id::ServerId;
use crate::model::time::{Span, Timestamp};
use crate::model::usage::{HostCounters, KeptPoint, Point, Step};
use crate::service::Snapshot;
use crate::world::{Clock, Meter, UsageStore};
use history::History;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// Somebody who asked this long ago looks no more.
const WATCHED_FOR: Span = Span::secs(40);
/// Between two readings while somebody looks.
const WATCHED_EVERY: Span = Span::secs(10);
/// Points that wait to be kept; more are written at once.
const UNSAVED_MAX: usize = 20_000;

/// What was counted of a server's requests since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that ended.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Requests by duration, see [`BUCKETS_MICROS`].
    pub classes: [u64; BUCKETS_MICROS.len() + 1],
}

/// Where the tallies of all servers come from.
pub type Tallies = Arc<dyn Fn() -> BTreeMap<ServerId, Tally> + Send + Sync>;

/// What a server uses now; rates are over the time since the reading before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerUsage {
    /// Processors, in thousandths of one.
    pub cpu_millis: Option<u32>,
    /// Processor time since it started, in nanoseconds.
    pub cpu_nanos: Option<u64>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Most memory it may hold, in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Bytes received in a second.
    pub network_in_per_sec: Option<f64>,
    /// Bytes sent in a second.
    pub network_out_per_sec: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Requests that ended in a second.
    pub requests_per_sec: Option<f64>,
    /// Those that failed.
    pub errors_per_sec: Option<f64>,
    /// 95 of 100 of them took at most about this long, in microseconds.
    pub p95_micros: Option<u32>,
}

impl ServerUsage {
    /// Two instances of one server together; what is unknown of one is unknown of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let count = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
        let rate = |a: Option<f64>, b: Option<f64>| Some(a? + b?);
        Self {
            cpu_millis: self.cpu_millis.zip(other.cpu_millis).map(|(a, b)| a.saturating_add(b)),
            cpu_nanos: count(self.cpu_nanos, other.cpu_nanos),
            memory_bytes: count(self.memory_bytes, other.memory_bytes),
            memory_limit_bytes: count(self.memory_limit_bytes, other.memory_limit_bytes),
            network_in_per_sec: rate(self.network_in_per_sec, other.network_in_per_sec),
            network_out_per_sec: rate(self.network_out_per_sec, other.network_out_per_sec),
            pids: count(self.pids, other.pids),
            requests_per_sec: rate(self.requests_per_sec, other.requests_per_sec),
            errors_per_sec: rate(self.errors_per_sec, other.errors_per_sec),
            p95_micros: self.p95_micros.into_iter().chain(other.p95_micros).max(),
        }
    }
}

/// The newest reading.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// When; 0 before the first.
    pub at: Timestamp,
    /// Servers that run or have requests.
    pub servers: BTreeMap<ServerId, ServerUsage>,
    /// This host.
    pub host: HostCounters,
    /// Share of all processors that was at work since the reading before, in thousandths.
    pub host_cpu_thousandths: Option<u32>,
}

/// Where readings come from.
#[derive(Clone)]
pub struct Sources {
    /// What counts.
    pub meter: Arc<dyn Meter>,
    /// What runs.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Requests.
    pub tallies: Tallies,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// Readings and history, for whoever shows them. Cloning shares them.
#[derive(Clone)]
pub struct Usage {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    store: Arc<dyn UsageStore>,
    reading: Mutex<Arc<Reading>>,
    history: Mutex<History>,
    unsaved: Mutex<Vec<KeptPoint>>,
    /// When somebody asked last.
    looked: AtomicI64,
    /// Somebody asks after a while in which nobody did.
    wanted: Notify,
    /// Counts readings.
    read: watch::Sender<u64>,
}

impl std::fmt::Debug for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Usage").finish_non_exhaustive()
    }
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Usage {
    /// What was kept by an earlier run; empty, with a warning, when it cannot be read.
    pub async fn load(clock: Arc<dyn Clock>, store: Arc<dyn UsageStore>) -> Self {
        let kept = store.load_usage(clock.now()).await.unwrap_or_else(|error| {
            tracing::warn!(MCP_ERROR_CODE = error.kind.code(), "the history begins anew: {error}");
            Vec::new()
        });
        let inner = Inner {
            clock,
            store,
            reading: Mutex::default(),
            history: Mutex::new(History::of(kept)),
            unsaved: Mutex::default(),
            looked: AtomicI64::new(i64::MIN / 2),
            wanted: Notify::new(),
            read: watch::Sender::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes readings until the task is dropped.
    pub async fn run(self, sources: Sources) {
        sampler::Sampler::new(self, sources).run().await;
    }

    /// The newest reading; whoever asks looks.
    #[must_use]
    pub fn now(&self) -> Arc<Reading> {
        self.look();
        Arc::clone(&locked(&self.inner.reading))
    }

    /// Somebody looks: readings come more often for a while.
    pub fn look(&self) {
        let now = self.inner.clock.now();
        let before = Timestamp(self.inner.looked.swap(now.0, Ordering::Relaxed));
        if now.since(before) >= WATCHED_FOR {
            self.inner.wanted.notify_one();
        }
    }

    /// Points of a server's history over the last `span`, oldest first, and how fine they are.
    #[must_use]
    pub fn history(&self, server: &ServerId, span: Span) -> (Step, Vec<Point>) {
        let step = if span <= Step::Minute.kept() { Step::Minute } else { Step::TenMinutes };
        let from =
            Timestamp(self.inner.clock.now().0.saturating_sub(i64::try_from(span.0).unwrap_or(i64::MAX)));
        (step, locked(&self.inner.history).of_server(server, step, from))
    }

    /// The last `span` of every server's history in `count` equal parts, oldest first.
    #[must_use]
    pub fn traces(&self, span: Span, count: usize) -> BTreeMap<ServerId, Trace> {
        locked(&self.inner.history).traces(self.inner.clock.now(), span, count)
    }

    /// Changes with every reading.
    #[must_use]
    pub fn readings(&self) -> watch::Receiver<u64> {
        self.inner.read.subscribe()
    }

    /// Writes what is not kept yet.
    pub async fn flush(&self) {
        let points = std::mem::take(&mut *locked(&self.inner.unsaved));
        if points.is_empty() {
            return;
        }
        if let Err(error) = self.inner.store.keep_usage(&points, self.inner.clock.now()).await {
            tracing::debug!(MCP_ERROR_CODE = error.kind.code(), "{error}");
            let mut unsaved = locked(&self.inner.unsaved);
            // A disk that is full for long costs the oldest.
            let room = UNSAVED_MAX.saturating_sub(unsaved.len());
            let skip = points.len().saturating_sub(room);
            unsaved.splice(0..0, points.into_iter().skip(skip));
        }
    }

    fn is_watched(&self) -> bool {
        let looked = Timestamp(self.inner.looked.load(Ordering::Relaxed));
        self.inner.clock.now().since(looked) < WATCHED_FOR
    }
}

/// A stretch of history in equal parts; `None` where nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Processors, in thousandths of one.
    pub cpu_millis: Vec<Option<u32>>,
    /// Memory, in KiB.
    pub memory_kib: Vec<Option<u32>>,
    /// Requests that ended.
    pub requests: Vec<Option<u32>>,
}
