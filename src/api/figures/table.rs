//! The families of the loop's page, each with its meaning: the one source for the page and for
//! `docs/reference/metrics.md`.
//!
//! Invariant: every constant here is in [`ALL`], and every one of those is on the page (held by the
//! tests of [`crate::api::figures`]).

use crate::gateway::metrics::page::{Family, Kind, REPLICA};

const fn gauge(name: &'static str, labels: &'static [&'static str], about: &'static str) -> Family {
    Family::new(name, Kind::Gauge, labels, about)
}

const fn counter(name: &'static str, labels: &'static [&'static str], about: &'static str) -> Family {
    Family::new(name, Kind::Counter, labels, about)
}

#[rustfmt::skip]
pub(super) const BUILD: Family = gauge("build_info", &["version"], "This program's version; always 1.");
#[rustfmt::skip]
pub(super) const STARTED: Family = gauge("start_time_seconds", &[], "When the daemon started, in seconds since the epoch.");
#[rustfmt::skip]
pub(super) const PASSES: Family = counter("passes_total", &[], "Passes that decided.");
#[rustfmt::skip]
pub(super) const PASS_DURATION: Family = Family::new("pass_duration_seconds", Kind::Histogram, &[], "How long passes took from their beginning until their decision.");
#[rustfmt::skip]
pub(super) const LAST_PASS: Family = gauge("last_pass_timestamp_seconds", &[], "When the last pass began, in seconds since the epoch; 0 before the first.");
#[rustfmt::skip]
pub(super) const CONVERGED: Family = gauge("converged", &[], "Whether everything is as the files want it.");
#[rustfmt::skip]
pub(super) const SETTLED: Family = gauge("settled", &[], "Whether nothing moves, and nothing will by itself but tries after failures.");
#[rustfmt::skip]
pub(super) const FAULTS: Family = gauge("faults", &[], "Faults of this program or its disk: broken invariants, state that cannot be saved.");
#[rustfmt::skip]
pub(super) const ACTIONS: Family = counter("actions_total", &["action", "result"], "Actions that ended: done, failed, or skipped because one they need was not done.");
#[rustfmt::skip]
pub(super) const ACTION_TIME: Family = counter("action_seconds_total", &["action"], "Time that actions took together.");
#[rustfmt::skip]
pub(super) const DRIFT: Family = counter("drift_total", &["part"], "Times that a server was as the files want it and was found changed, by part of the world: engine, balancer or edge.");
#[rustfmt::skip]
pub(super) const ENGINE: Family = gauge("engine_up", &[], "Whether the container engine answered the last pass.");
#[rustfmt::skip]
pub(super) const BALANCER: Family = gauge("balancer_up", &[], "Whether the last pass could read the load balancer; absent without one.");
#[rustfmt::skip]
pub(super) const AWS: Family = counter("aws_calls_total", &["operation", "result"], "Requests to the load balancer's API, retries included: ok, an error's code, timeout or unreachable.");
#[rustfmt::skip]
pub(super) const PORTS: Family = gauge("ports", &[], "Ports in the range that servers are given.");
#[rustfmt::skip]
pub(super) const PORTS_LEASED: Family = gauge("ports_leased", &[], "Ports of that range that servers hold.");
#[rustfmt::skip]
pub(super) const GENERATION: Family = gauge("configuration_generation", &[], "Version of the files in force; 0 while none was accepted.");
#[rustfmt::skip]
pub(super) const REFUSED: Family = gauge("configuration_refused", &["file"], "Whether the newest content of a file is refused: config or settings.");
#[rustfmt::skip]
pub(super) const WAITING: Family = gauge("configuration_restart_needed", &[], "Changed settings that wait for a restart.");
#[rustfmt::skip]
pub(super) const SIGN_INS: Family = counter("sign_ins_refused_total", &[], "Wrong passwords given to the dashboard and the API.");
#[rustfmt::skip]
pub(super) const CALLS_LOST: Family = counter("audit_calls_lost_total", &[], "Calls of clients that are missing in the audit, because the disk was slower than they came.");
#[rustfmt::skip]
pub(super) const SERVERS: Family = gauge("servers", &["state"], "Servers by state.");
#[rustfmt::skip]
pub(super) const STATE: Family = gauge("server_state", &["server", REPLICA, "state"], "Whether a server is in this state: 1 for one of them.");
#[rustfmt::skip]
pub(super) const UP: Family = gauge("server_up", &["server", REPLICA], "Whether the server's container runs; of others, whether they answer MCP.");
#[rustfmt::skip]
pub(super) const HEALTHY: Family = gauge("server_healthy", &["server", REPLICA], "Whether the server answers MCP, as its health has it: healthy or degraded; absent for servers that are not to run.");
#[rustfmt::skip]
pub(super) const HEALTH: Family = gauge("server_health", &["server", REPLICA, "state"], "How well the server is: 1 for one of starting, healthy, degraded, unhealthy and critical; absent for servers that are not to run.");
#[rustfmt::skip]
pub(super) const CPU: Family = counter("server_cpu_seconds_total", &["server", REPLICA], "Processor time that the server's container or processes used; absent where it is not known.");
#[rustfmt::skip]
pub(super) const MEMORY: Family = gauge("server_memory_bytes", &["server", REPLICA], "Memory that the server's container or processes hold; absent where it is not known.");
#[rustfmt::skip]
pub(super) const RESTARTS: Family = counter("server_restarts_total", &["server", REPLICA], "Times that the server was started again: its container, or its process after it ended.");
#[rustfmt::skip]
pub(super) const LATELY: Family = gauge("restarts_last_minute", &[], "Restarts of containers and local processes that nobody asked for, within the minute before the last pass; [recovery] restarts_per_minute_max bounds them.");
#[rustfmt::skip]
pub(super) const DRAINED: Family = gauge("drained", &[], "Whether this host is drained, or on its way out of the load balancer.");
#[rustfmt::skip]
pub(super) const IN_A_ROW: Family = gauge("server_restarts_in_a_row", &["server", REPLICA], "Restarts without a stable time in between.");

#[rustfmt::skip]
pub(super) const ENDS: Family = counter("server_ends_total", &["server", REPLICA], "Times that the server ended though nobody asked for it.");
#[rustfmt::skip]
pub(super) const OOM_KILLS: Family = counter("server_oom_kills_total", &["server", REPLICA], "Those of them that were the kernel's, for memory.");
#[rustfmt::skip]
pub(super) const PAUSED: Family = gauge("server_paused", &["server", REPLICA], "Whether the server is left alone: it, its section or this host is paused.");

/// All of them, in the order of the page.
#[rustfmt::skip] // as in a table
pub(super) const ALL: &[Family] = &[
    BUILD, STARTED, PASSES, PASS_DURATION, LAST_PASS, CONVERGED, SETTLED, FAULTS, ACTIONS, ACTION_TIME,
    DRIFT, ENGINE, BALANCER, AWS, PORTS, PORTS_LEASED, GENERATION, REFUSED, WAITING, SIGN_INS, CALLS_LOST,
    SERVERS, STATE, UP, HEALTHY, HEALTH, CPU, MEMORY, RESTARTS, LATELY, DRAINED, IN_A_ROW,
    ENDS, OOM_KILLS, PAUSED,
];
