//! What `health` shows of servers.
//!
//! Must never judge: every word is of the gateway's checks or of the last pass.

use crate::api::view::ServerView;
use schemars::JsonSchema;
use serde::Serialize;

/// A server's health, as `health` shows it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthRow {
    /// The server's id.
    pub server: String,
    /// `starting`, `healthy`, `degraded`, `unhealthy`, `critical`, `stopped` or `asleep`.
    pub health: String,
    /// Its state, as everywhere.
    pub state: String,
    /// Since when its health is so, in milliseconds since the epoch.
    pub since: Option<i64>,
    /// What is the matter.
    pub why: Option<String>,
    /// Questions in a row that it did not answer.
    pub failures: Option<u32>,
    /// What the last answer took, in milliseconds.
    pub latency_millis: Option<u64>,
    /// What an answer usually takes, in milliseconds.
    pub usual_millis: Option<u64>,
    /// Restarts in a row.
    pub restarts: u32,
    /// When the next try is due, in milliseconds since the epoch.
    pub next_try: Option<i64>,
    /// Sessions of clients.
    pub sessions: Option<usize>,
    /// Requests that ended, since the daemon started.
    pub requests: Option<u64>,
    /// Those that failed.
    pub errors: Option<u64>,
    /// 95 of 100 requests took at most about this long, in milliseconds.
    pub p95_millis: Option<f64>,
}

/// The health of servers.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthPage {
    /// The form of this answer.
    pub schema_version: u32,
    /// Whether all that are to run serve.
    pub healthy: bool,
    /// A server each.
    pub servers: Vec<HealthRow>,
}

impl HealthRow {
    fn of(view: &ServerView) -> Self {
        let word = view.health_word().to_owned();
        let health = view.health.as_ref().filter(|_| !matches!(word.as_str(), "stopped" | "asleep"));
        let connection = view.connection.as_ref();
        let reason = || view.reasons.first().map(|reason| reason.text.clone());
        let well = matches!(word.as_str(), "healthy" | "stopped" | "asleep");
        let why = health.and_then(|health| health.why.clone());
        Self {
            server: view.id.clone(),
            why: why.or_else(reason).filter(|_| !well),
            health: word,
            state: view.state.clone(),
            since: health.map(|health| health.since),
            failures: health.map(|health| health.failures),
            latency_millis: health.and_then(|health| health.latency_millis),
            usual_millis: health.and_then(|health| health.usual_millis),
            restarts: view.restarts,
            next_try: view.next_try,
            sessions: connection.map(|connection| connection.sessions),
            requests: connection.map(|connection| connection.requests),
            errors: connection.map(|connection| connection.errors),
            p95_millis: connection.and_then(|connection| connection.p95_millis),
        }
    }
}

impl HealthPage {
    /// Of these servers.
    #[must_use]
    pub fn of(views: &[ServerView]) -> Self {
        let servers: Vec<HealthRow> = views.iter().map(HealthRow::of).collect();
        let serves =
            |row: &HealthRow| matches!(row.health.as_str(), "healthy" | "degraded" | "stopped" | "asleep");
        Self { schema_version: 1, healthy: servers.iter().all(serves), servers }
    }
}
