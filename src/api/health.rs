//! What `health` shows of servers.
//!
//! Must never judge: every word is of the gateway's checks or of the last pass.

use crate::api::instances::InstanceView;
use crate::api::view::{ConnectionView, ReasonView, ServerView, health_word};
use crate::gateway::overview::HealthView;
use schemars::JsonSchema;
use serde::Serialize;

/// A server's health, as `health` shows it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthRow {
    /// The server's id, or that of one of its instances.
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
    /// Its instances, the first one included; empty where there is one.
    pub instances: Vec<Self>,
}

/// What a row is made from: a server, or one instance of one.
struct Seen<'a> {
    id: &'a str,
    state: &'a str,
    health: Option<&'a HealthView>,
    connection: Option<&'a ConnectionView>,
    reasons: &'a [ReasonView],
    restarts: u32,
    next_try: Option<i64>,
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
        let row = Self::seen(&Seen {
            id: &view.id,
            state: &view.state,
            health: view.health.as_ref(),
            connection: view.connection.as_ref(),
            reasons: &view.reasons,
            restarts: view.restarts,
            next_try: view.next_try,
        });
        Self { instances: view.instances.iter().map(Self::of_instance).collect(), ..row }
    }

    fn of_instance(one: &InstanceView) -> Self {
        Self::seen(&Seen {
            id: &one.id,
            state: &one.state,
            health: one.health.as_ref(),
            connection: one.connection.as_ref(),
            reasons: &one.reasons,
            restarts: one.restarts,
            next_try: one.next_try,
        })
    }

    fn seen(seen: &Seen<'_>) -> Self {
        let word = health_word(seen.health, seen.state).to_owned();
        let health = seen.health.filter(|_| !matches!(word.as_str(), "stopped" | "asleep"));
        let reason = || seen.reasons.first().map(|reason| reason.text.clone());
        let well = matches!(word.as_str(), "healthy" | "stopped" | "asleep");
        let why = health.and_then(|health| health.why.clone());
        let connection = seen.connection;
        Self {
            server: seen.id.to_owned(),
            why: why.or_else(reason).filter(|_| !well),
            health: word,
            state: seen.state.to_owned(),
            since: health.map(|health| health.since),
            failures: health.map(|health| health.failures),
            latency_millis: health.and_then(|health| health.latency_millis),
            usual_millis: health.and_then(|health| health.usual_millis),
            restarts: seen.restarts,
            next_try: seen.next_try,
            sessions: connection.map(|connection| connection.sessions),
            requests: connection.map(|connection| connection.requests),
            errors: connection.map(|connection| connection.errors),
            p95_millis: connection.and_then(|connection| connection.p95_millis),
            instances: Vec::new(),
        }
    }
}

impl HealthPage {
    /// Of these servers.
    #[must_use]
    pub fn of(views: &[ServerView]) -> Self {
        Self::with(views.iter().map(HealthRow::of).collect())
    }

    /// Of one instance of a server.
    #[must_use]
    pub fn of_instance(one: &InstanceView) -> Self {
        Self::with(vec![HealthRow::of_instance(one)])
    }

    fn with(servers: Vec<HealthRow>) -> Self {
        let serves =
            |row: &HealthRow| matches!(row.health.as_str(), "healthy" | "degraded" | "stopped" | "asleep");
        Self { schema_version: 1, healthy: servers.iter().all(serves), servers }
    }
}
