//! The gateway's figures in the text format of Prometheus, version 0.0.4.
//!
//! Labels are ids of configured servers, and methods and tools up to the bound that
//! [`crate::gateway::metrics`] keeps: no client can make the answer grow without end. Must never
//! have a label that tells clients or sessions apart.

use crate::gateway::metrics::BUCKETS_MICROS;
use crate::gateway::overview::{KindView, ServerView};
use std::fmt::Write as _;

/// What all names begin with.
const PREFIX: &str = "mcp_orchestrator_gateway";
/// Type of the answer.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A figure per server: name, type, what it is, and which it is.
type Figure = (&'static str, &'static str, &'static str, fn(&ServerView) -> u64);

const FIGURES: &[Figure] = &[
    ("up", "gauge", "Whether the server answers MCP over the shared connection.", |view| view.up.into()),
    ("own_connections", "gauge", "Connections that belong to one client or call alone.", |view| {
        number(view.own_connections)
    }),
    ("parked_requests", "gauge", "Requests that wait for the server.", |view| number(view.parked)),
    ("in_flight_requests", "gauge", "Requests without an answer so far.", |view| view.in_flight),
    ("queued_bytes", "gauge", "Bytes that wait to be written to the server.", |view| view.queued_bytes),
    ("sessions_opened_total", "counter", "Sessions opened.", |view| view.sessions_opened),
    ("received_bytes_total", "counter", "Bytes of requests.", |view| view.bytes_in),
    ("sent_bytes_total", "counter", "Bytes of answers.", |view| view.bytes_out),
    ("refused_requests_total", "counter", "Requests answered with HTTP status 4xx or 5xx.", |view| {
        view.refused
    }),
    ("dropped_messages_total", "counter", "Progress and log messages that slow clients lost.", |view| {
        view.dropped
    }),
];

/// All figures of all servers.
#[must_use]
pub fn prometheus(views: &[ServerView]) -> String {
    let mut out = String::new();
    for (name, kind, help, figure) in FIGURES {
        head(&mut out, name, kind, help);
        for view in views {
            line(&mut out, name, &[("server", view.server.as_str())], &figure(view).to_string());
        }
    }
    head(&mut out, "sessions", "gauge", "Sessions that are open, on shared and on own connections.");
    for view in views {
        for (backing, count) in [("shared", view.shared_sessions), ("own", view.own_sessions)] {
            let labels = [("server", view.server.as_str()), ("backing", backing)];
            line(&mut out, "sessions", &labels, &count.to_string());
        }
    }
    head(&mut out, "request_errors_total", "counter", "Requests that failed or were given up.");
    each(views, |labels, call| line(&mut out, "request_errors_total", labels, &call.errors.to_string()));
    head(&mut out, "request_duration_seconds", "histogram", "How long requests took.");
    each(views, |labels, call| durations(&mut out, labels, call));
    out
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn each(views: &[ServerView], mut show: impl FnMut(&[(&str, &str)], &KindView)) {
    for view in views {
        for call in &view.calls {
            let labels = [("server", view.server.as_str()), ("method", &*call.method), ("tool", &*call.tool)];
            show(&labels, call);
        }
    }
}

fn durations(out: &mut String, labels: &[(&str, &str)], call: &KindView) {
    let mut below = 0;
    for (class, count) in call.classes.iter().enumerate() {
        below += count;
        let end = BUCKETS_MICROS.get(class).map_or_else(|| "+Inf".to_owned(), |end| seconds(*end));
        let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("le", &*end)]).collect();
        line(out, "request_duration_seconds_bucket", &labels, &below.to_string());
    }
    line(out, "request_duration_seconds_sum", labels, &seconds(call.micros));
    // What is counted while this is read must not make the sum of the classes larger than the count.
    line(out, "request_duration_seconds_count", labels, &below.to_string());
}

/// Microseconds as seconds, without the noise of a binary fraction.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _infallible = write!(out, "# HELP {PREFIX}_{name} {help}\n# TYPE {PREFIX}_{name} {kind}\n");
}

fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: &str) {
    let labels: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    let _infallible = writeln!(out, "{PREFIX}_{name}{{{}}} {value}", labels.join(","));
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::{FIGURES, prometheus};
    use crate::gateway::metrics::BUCKETS_MICROS;
    use crate::gateway::overview::{KindView, ServerView};
    use crate::model::id::ServerId;
    use std::collections::BTreeSet;

    fn view(id: &str) -> ServerView {
        let mut classes = [0; BUCKETS_MICROS.len() + 1];
        (classes[0], classes[3], classes[BUCKETS_MICROS.len()]) = (2, 1, 1);
        let call = KindView {
            method: "tools/call".to_owned(),
            tool: "odd \"name\"\n\\".to_owned(),
            calls: 4,
            errors: 1,
            median_millis: None,
            micros: 1_250_000,
            classes,
        };
        ServerView {
            server: ServerId::new(id).expect("an id"),
            up: true,
            why: None,
            era: Some("legacy"),
            version: Some("2025-11-25".to_owned()),
            shared_sessions: 3,
            own_sessions: 1,
            own_connections: 1,
            parked: 0,
            in_flight: 2,
            queued_bytes: 10,
            sessions_opened: 9,
            bytes_in: 100,
            bytes_out: 200,
            refused: 5,
            dropped: 6,
            calls: vec![call],
        }
    }

    #[test]
    fn each_figure_stands_once_under_its_head() {
        let text = prometheus(&[view("search"), view("time")]);
        let named = "mcp_orchestrator_gateway_request_duration_seconds";
        let labels = r#"server="time",method="tools/call",tool="odd \"name\"\n\\""#;
        for expected in [
            "mcp_orchestrator_gateway_up{server=\"time\"} 1".to_owned(),
            "mcp_orchestrator_gateway_sessions{server=\"time\",backing=\"own\"} 1".to_owned(),
            format!("{named}_bucket{{{labels},le=\"0.0001\"}} 2"),
            format!("{named}_bucket{{{labels},le=\"0.001\"}} 3"),
            format!("{named}_bucket{{{labels},le=\"300\"}} 3"),
            format!("{named}_bucket{{{labels},le=\"+Inf\"}} 4"),
            format!("{named}_sum{{{labels}}} 1.25"),
            format!("{named}_count{{{labels}}} 4"),
        ] {
            assert_eq!(text.lines().filter(|line| *line == expected).count(), 1, "{expected}\n{text}");
        }
        let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
        assert_eq!(heads.len(), FIGURES.len() + 3);
        assert_eq!(heads.iter().collect::<BTreeSet<_>>().len(), heads.len(), "a head stands once");
        let series: Vec<&str> =
            text.lines().filter_map(|line| line.rsplit_once(' ').map(|(name, _)| name)).collect();
        assert_eq!(series.iter().collect::<BTreeSet<_>>().len(), series.len(), "a series stands once");
    }
}
