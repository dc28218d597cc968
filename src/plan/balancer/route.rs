//! What one server's rule and target group should look like, from its want alone.
//!
//! ```text
//! kind          rule's url-rewrite                 health check
//! edge          none: the daemon serves /mcp/ID    GET /healthz, 200
//! direct http   /mcp/ID[/mcp][/] -> endpoint       GET endpoint, 200-499 (weak), or health.path, 200-299
//! direct sse    /mcp/ID/x        -> /x             the same
//! ```

use crate::model::balancer::{HealthCheck, Rewrite, RouteKind, RouteWant};
use crate::model::fingerprint::sha256_hex;
use crate::model::id::ServerId;
use crate::model::net::HostPort;
use crate::model::server::Transport;
use crate::plan::balancer::{Input, WEAK_CHECK, naming};

/// Path of the probe on every edge port.
const EDGE_HEALTH_PATH: &str = "/healthz";
/// Seconds between checks: the shortest interval at which hundred targets stay cheap.
const CHECK_INTERVAL_SECS: u32 = 10;
/// Seconds for one check.
const CHECK_TIMEOUT_SECS: u32 = 5;
/// Passes and failures in a row that count.
const CHECK_THRESHOLD: u32 = 2;
/// Hex digits of a spec hash.
const SPEC_HASH_LEN: usize = 16;

/// A want, worked out.
pub(super) struct Route {
    pub(super) server: ServerId,
    pub(super) edge: bool,
    pub(super) ports: Vec<HostPort>,
    pub(super) paths: Vec<String>,
    pub(super) rewrites: Vec<Rewrite>,
    pub(super) check: HealthCheck,
    /// Over everything that hosts sharing the rule must agree on.
    pub(super) spec_hash: String,
    pub(super) advice: Vec<(String, &'static str)>,
}

impl Route {
    pub(super) fn of(input: &Input<'_>, want: &RouteWant) -> Self {
        let RouteWant { server, kind, ports, health_path } = want;
        let mut ports = ports.clone();
        ports.sort_unstable();
        ports.dedup();
        let paths = naming::rule_paths(server);
        let (rewrites, check, advice) = match kind {
            RouteKind::Edge => (Vec::new(), check(EDGE_HEALTH_PATH, "200"), Vec::new()),
            RouteKind::Direct { transport, path } => {
                let (check, advice) = direct_check(path, health_path.as_deref());
                (vec![rewrite(server, *transport, path)], check, advice)
            }
        };
        let policy = input.policy;
        let spec_hash = sha256_hex(
            &format!(
                "{paths:?}{rewrites:?}{check:?}{:?}{}-{}",
                policy.deregistration_delay, policy.priority_start, policy.priority_end
            ),
            SPEC_HASH_LEN,
        );
        let edge = matches!(kind, RouteKind::Edge);
        Self { server: server.clone(), edge, ports, paths, rewrites, check, spec_hash, advice }
    }
}

/// The health check of everything that the daemon answers for, also of the shared group.
pub(super) fn edge_check() -> HealthCheck {
    check(EDGE_HEALTH_PATH, "200")
}

fn check(path: &str, matcher: &str) -> HealthCheck {
    HealthCheck {
        path: path.to_owned(),
        matcher: matcher.to_owned(),
        interval: CHECK_INTERVAL_SECS,
        timeout: CHECK_TIMEOUT_SECS,
        healthy_threshold: CHECK_THRESHOLD,
        unhealthy_threshold: CHECK_THRESHOLD,
    }
}

/// MCP endpoints answer a plain GET with 400, 405 or 406, so without a path of its own a server's
/// check can only tell that something speaks HTTP there.
fn direct_check(endpoint: &str, health_path: Option<&str>) -> (HealthCheck, Vec<(String, &'static str)>) {
    match health_path {
        Some(path) => (check(&rooted(path), "200-299"), Vec::new()),
        None => {
            let path = rooted(endpoint);
            let advice = format!(
                "weak health check: GET {path} passes with any status from 200 to 499; name a path that answers 200 in orchestrator.health.path"
            );
            (check(&path, "200-499"), vec![(advice, WEAK_CHECK)])
        }
    }
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// The one url-rewrite of a direct server. It works on path and query, so the query is carried over.
fn rewrite(server: &ServerId, transport: Transport, path: &str) -> Rewrite {
    let id = escape(server.as_str());
    match transport {
        Transport::Sse => Rewrite { regex: format!("^/mcp/{id}/(.*)$"), replace: "/$1".to_owned() },
        Transport::Http | Transport::Stdio => {
            // `$` begins a group in a replacement; its percent form is the same path.
            let endpoint = rooted(path).replace('$', "%24");
            let query = if endpoint.contains('?') { "" } else { "$2" };
            Rewrite { regex: format!(r"^/mcp/{id}(/mcp)?/?(\?.*)?$"), replace: format!("{endpoint}{query}") }
        }
    }
}

/// The id as a regular expression that matches just it.
fn escape(id: &str) -> String {
    id.chars().fold(String::with_capacity(id.len()), |mut out, c| {
        // Of what ids may have only '-' is ever special, and only within brackets; be safe anyway.
        if !c.is_ascii_alphanumeric() && c != '_' && c != '-' {
            out.push('\\');
        }
        out.push(c);
        out
    })
}
