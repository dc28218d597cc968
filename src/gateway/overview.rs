//! The gateway at one moment, for people and programs: what stands, what waits, what was counted.
//!
//! Must never show a session's id, an argument or a result; why a connection is down is said in the
//! words that clients get.

use crate::gateway::Gateway;
use crate::gateway::checkup::Checkup;
use crate::gateway::hub::Entry;
use crate::gateway::metrics::{BUCKETS_MICROS, Kind};
use crate::gateway::sessions::Backing;
use crate::gateway::traffic::view::TrafficView;
use crate::mcp::wire::Era;
use crate::model::health::Condition;
use crate::model::id::ServerId;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::atomic::Ordering::Relaxed;

/// One server.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerView {
    /// Its id.
    pub server: ServerId,
    /// How well it is; `None` while it is not to run.
    pub health: Option<HealthView>,
    /// Whether the shared connection is open.
    pub up: bool,
    /// Why not.
    pub why: Option<String>,
    /// `legacy` or `modern`, while it is open.
    pub era: Option<&'static str>,
    /// Version of the protocol, while it is open.
    pub version: Option<String>,
    /// Sessions on the shared connection.
    pub shared_sessions: usize,
    /// Sessions on connections of their own.
    pub own_sessions: usize,
    /// Connections that belong to one client or one call alone.
    pub own_connections: usize,
    /// Requests that wait for the connection.
    pub parked: usize,
    /// Requests without an answer so far, on the shared connection and those of sessions.
    pub in_flight: u64,
    /// Bytes that wait to be written to the server, on the same connections.
    pub queued_bytes: u64,
    /// Sessions opened so far.
    pub sessions_opened: u64,
    /// Bytes of requests.
    pub bytes_in: u64,
    /// Bytes of answers.
    pub bytes_out: u64,
    /// Requests answered with an HTTP status of 4xx or 5xx.
    pub refused: u64,
    /// Progress and log messages dropped because their client read too slowly.
    pub dropped: u64,
    /// What its requests are held to, and how that stands.
    pub traffic: TrafficView,
    /// Calls by method and tool.
    pub calls: Vec<KindView>,
}

/// How well a server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthView {
    /// `starting`, `healthy`, `degraded`, `unhealthy` or `critical`.
    pub state: String,
    /// Since when, in milliseconds since the epoch.
    pub since: i64,
    /// What is the matter.
    pub why: Option<String>,
    /// Questions in a row without an answer.
    pub failures: u32,
    /// What the last answer took, in milliseconds.
    pub latency_millis: Option<u64>,
    /// What an answer usually takes, in milliseconds.
    pub usual_millis: Option<u64>,
    /// When it was looked at last, in milliseconds since the epoch.
    pub judged: i64,
    /// Questions that were answered, since the daemon started.
    pub answered: u64,
    /// Questions that were not.
    pub unanswered: u64,
}

impl HealthView {
    fn of(checkup: &Checkup) -> Option<Self> {
        let Condition { health, why, latency, busy_until: _ } = checkup.condition()?;
        Some(Self {
            state: health.state.as_str().to_owned(),
            since: health.since.0,
            why: Some(why).filter(|why| !why.is_empty()),
            failures: health.failures,
            latency_millis: latency.map(|latency| latency.0),
            usual_millis: health.usual.map(|usual| usual.0),
            judged: health.judged.0,
            answered: checkup.answered.load(Relaxed),
            unanswered: checkup.failed.load(Relaxed),
        })
    }

    /// Whether requests should be sent there.
    #[must_use]
    pub fn serves(&self) -> bool {
        matches!(self.state.as_str(), "healthy" | "degraded")
    }
}

/// Calls of one method, or of one tool.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KindView {
    /// The method.
    pub method: String,
    /// The tool, where one is called.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tool: String,
    /// Calls that ended.
    pub calls: u64,
    /// Those that ended with an error or were given up.
    pub errors: u64,
    /// Half of them took at most about this long, in milliseconds; `None` without calls.
    pub median_millis: Option<f64>,
    /// Their durations together, in microseconds.
    #[serde(skip)]
    pub micros: u64,
    /// Calls by duration, see [`BUCKETS_MICROS`].
    #[serde(skip)]
    pub classes: [u64; BUCKETS_MICROS.len() + 1],
}

impl KindView {
    fn new((method, tool): (String, String), kind: &Kind) -> Self {
        let classes = kind.classes();
        Self {
            method,
            tool,
            calls: kind.calls.load(Relaxed),
            errors: kind.errors.load(Relaxed),
            median_millis: median_micros(&classes).map(|micros| micros / 1e3),
            micros: kind.micros.load(Relaxed),
            classes,
        }
    }
}

/// The median as far as the classes tell: calls are taken to lie evenly in theirs.
#[expect(clippy::cast_precision_loss, reason = "it is an estimate")]
fn median_micros(classes: &[u64]) -> Option<f64> {
    let all: u64 = classes.iter().sum();
    let mut below = 0;
    let mut from = 0;
    for (class, count) in classes.iter().enumerate() {
        let to = BUCKETS_MICROS.get(class).copied();
        if *count > 0 && (below + count) * 2 >= all {
            // Of the last class only the lower end is known.
            let Some(to) = to else { return Some(from as f64) };
            let share = (all as f64 / 2.0 - below as f64) / *count as f64;
            return Some(from as f64 + share * (to - from) as f64);
        }
        below += count;
        from = to.unwrap_or(from);
    }
    None
}

/// The upper end of the class in which the 95th of 100 requests lies, in microseconds; of the last
/// class its lower end. `None` without requests.
#[must_use]
pub fn p95_micros(classes: &[u64]) -> Option<u64> {
    let all: u64 = classes.iter().sum();
    let mut below = 0;
    for (class, count) in classes.iter().enumerate() {
        below += count;
        if *count > 0 && below * 100 >= all * 95 {
            return BUCKETS_MICROS.get(class).or_else(|| BUCKETS_MICROS.last()).copied();
        }
    }
    None
}

impl Gateway {
    /// All servers at this moment.
    #[must_use]
    pub fn overview(&self) -> Vec<ServerView> {
        self.entries().iter().map(|entry| self.view(entry)).collect()
    }

    fn view(&self, entry: &Entry) -> ServerView {
        let live = entry.slot.live();
        let greeting = live.as_ref().map(|live| live.leg.greeting());
        let (mut shared_sessions, mut own_sessions) = (0, 0);
        let shared = live.as_ref().map(|live| live.leg.metrics()).unwrap_or_default();
        let (mut in_flight, mut queued_bytes) = (shared.in_flight, shared.queued_bytes);
        for session in self.sessions.of(&entry.slot.id) {
            match &session.backing {
                Backing::Shared => shared_sessions += 1,
                Backing::Dedicated(leg, _) => {
                    own_sessions += 1;
                    let own = leg.metrics();
                    in_flight += own.in_flight;
                    queued_bytes += own.queued_bytes;
                }
            }
        }
        let metrics = &entry.metrics;
        let kinds = metrics.kinds();
        ServerView {
            server: entry.slot.id.clone(),
            health: HealthView::of(&entry.checkup),
            up: live.is_some(),
            why: entry.slot.why_down(),
            era: greeting.map(|greeting| match greeting.era {
                Era::Legacy => "legacy",
                Era::Modern => "modern",
            }),
            version: greeting.map(|greeting| greeting.version.to_string()),
            shared_sessions,
            own_sessions,
            own_connections: entry.own_count(),
            parked: entry.slot.parked(),
            in_flight,
            queued_bytes,
            sessions_opened: metrics.sessions_opened.load(Relaxed),
            bytes_in: metrics.bytes_in.load(Relaxed),
            bytes_out: metrics.bytes_out.load(Relaxed),
            refused: metrics.refused.load(Relaxed),
            dropped: metrics.dropped.load(Relaxed),
            traffic: entry.traffic.view(),
            calls: kinds.into_iter().map(|(names, kind)| KindView::new(names, &kind)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS_MICROS, median_micros, p95_micros};

    #[test]
    fn the_median_lies_in_its_class() {
        let mut classes = [0; BUCKETS_MICROS.len() + 1];
        assert_eq!(median_micros(&classes), None);
        classes[1] = 1; // 100 to 250
        classes[4] = 3; // 1,000 to 5,000
        let median = median_micros(&classes).expect("a median");
        assert!((1_000.0..5_000.0).contains(&median), "{median}");
        let last = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
        assert_eq!(median_micros(&last), Some(3e8));
    }

    #[test]
    fn the_95th_of_100_lies_in_its_class() {
        let mut classes = [0; BUCKETS_MICROS.len() + 1];
        assert_eq!(p95_micros(&classes), None);
        (classes[0], classes[3]) = (94, 6);
        assert_eq!(p95_micros(&classes), Some(BUCKETS_MICROS[3]));
        classes[0] = 950;
        assert_eq!(p95_micros(&classes), Some(BUCKETS_MICROS[0]));
    }
}
